"""Weights in the authors' format, in ours, and nowhere to be found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from foresweep.errors import CheckpointError, ConfigError, WeightsNotFound
from foresweep.models.checkpoint import read_weights
from foresweep.models.kronos.config import (
    Nets,
    architecture_of,
    build,
    find_pretrained,
    set_dropout,
)
from foresweep.models.kronos.model import Kronos, KronosConfig
from kronos_tiny import FACTS, config, train
from panels import make_panel


def random_nets(**values: object) -> Nets:
    torch.manual_seed(0)
    return build(architecture_of(config(**values)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Both nets as the authors' `save_pretrained` writes them."""
    nets = random_nets(token_bits=5, dropout=0.1)
    nets.tokenizer.save_pretrained(tmp_path / "tokenizer")
    nets.predictor.save_pretrained(tmp_path / "model")
    return tmp_path


def logits(nets: Nets) -> torch.Tensor:
    ids = torch.arange(12).view(1, 12)
    stamps = torch.ones(1, 12, 5, dtype=torch.long)
    with torch.no_grad():
        return nets.predictor.decode_s1(ids, ids, stamps)[0]


def test_a_folder_in_the_authors_format_gives_the_same_logits_and_tokens(folder: Path) -> None:
    from kronos_finance._vendor.kronos_model.kronos import Kronos as Theirs
    from kronos_finance._vendor.kronos_model.kronos import KronosTokenizer

    found = find_pretrained(str(folder)).load()
    theirs = Nets(
        KronosTokenizer.from_pretrained(folder / "tokenizer"),
        Theirs.from_pretrained(folder / "model"),
    )
    assert torch.equal(logits(found), logits(theirs))
    x = torch.randn(2, 9, 6)
    ours, wanted = (n.tokenizer.encode(x, half=True) for n in (found, theirs))
    assert all(torch.equal(a, b) for a, b in zip(ours, wanted, strict=True))
    assert not found.predictor.training


def test_the_folder_fixes_the_architecture_and_is_part_of_the_hash(folder: Path) -> None:
    start = KronosConfig(pretrained=str(folder), size=None, context_length=32)
    found = Kronos().resolve(start, FACTS)
    assert (found.token_bits, found.d_model, found.dropout) == (5, 32, 0.1)
    before = Kronos().weights_hash(start)
    assert len(before) == 64
    random_nets(token_bits=5, num_layers=2).predictor.save_pretrained(folder / "model")
    assert Kronos().weights_hash(start) != before
    with pytest.raises(ConfigError, match="token_bits=6 contradicts"):
        Kronos().resolve(
            KronosConfig(pretrained=str(folder), size=None, token_bits=6, context_length=32), FACTS
        )


def test_our_own_checkpoint_is_a_start_too(tmp_path: Path) -> None:
    made = train(make_panel(2, 300), config(max_steps=2), tmp_path / "first")
    found = find_pretrained(str(made.path))
    nets = found.load()
    again = train(
        make_panel(2, 300),
        config(pretrained=str(made.path), max_steps=1, lr=1e-9, weight_decay=0),
        tmp_path / "second",
    )
    second = find_pretrained(str(again.path)).load()
    torch.testing.assert_close(logits(nets), logits(second), atol=1e-4, rtol=0)
    assert found.hash != find_pretrained(str(again.path)).hash


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_tokenizer_keeps_every_bit_and_another_learns(
    frozen: bool, folder: Path, tmp_path: Path
) -> None:
    given = find_pretrained(str(folder)).load().state()
    made = config(pretrained=str(folder), freeze_tokenizer=frozen, max_steps=4)
    found = read_weights(train(make_panel(2, 300), made, tmp_path / "tuned"))
    same = {name for name in found if np.array_equal(found[name], given[name].numpy())}
    learnt = {name for name in found if name.endswith("weight") and name not in same}
    assert any(name.startswith("predictor") for name in learnt)
    assert any(name.startswith("tokenizer") for name in learnt) != frozen


def test_two_folders_as_the_authors_scripts_write_them(folder: Path, tmp_path: Path) -> None:
    together = find_pretrained(str(folder))
    apart = find_pretrained(f"{folder / 'model'}+{folder / 'tokenizer'}")
    assert apart.hash == together.hash
    assert torch.equal(logits(apart.load()), logits(together.load()))
    with pytest.raises(WeightsNotFound, match=r"model' is one net .* PREDICTOR\+TOKENIZER"):
        find_pretrained(str(folder / "model"))
    with pytest.raises(
        CheckpointError, match="of a Kronos tokenizer: it has no d_in, n_enc_layers"
    ):
        find_pretrained(f"{folder / 'tokenizer'}+{folder / 'model'}")


@pytest.mark.parametrize(
    ("name", "predictor", "tokenizer"),
    [
        ("published", "Kronos-small", "Kronos-Tokenizer-base"),
        ("mini", "Kronos-mini", "Kronos-Tokenizer-2k"),
        ("NeoQuasar/Kronos-base", "Kronos-base", "Kronos-Tokenizer-base"),
    ],
)
def test_published_weights_come_with_their_tokenizer_from_the_cache(
    name: str, predictor: str, tokenizer: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = {
        f"NeoQuasar/{predictor}": folder / "model",
        f"NeoQuasar/{tokenizer}": folder / "tokenizer",
    }
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda repo, **_: str(cached.pop(repo))
    )
    assert find_pretrained(name).folders["tokenizer"] == folder / "tokenizer"
    assert not cached


@pytest.mark.parametrize(
    "name", ["published", "NeoQuasar/Kronos-mini", "some/model+some/tokenizer"]
)
def test_weights_that_are_not_cached_name_both_ways_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsNotFound, match=r"huggingface\.co.*folder"):
        find_pretrained(name)


def test_an_id_whose_tokenizer_is_unknown_is_refused_by_name() -> None:
    with pytest.raises(WeightsNotFound, match=r"PREDICTOR\+TOKENIZER"):
        find_pretrained("somebody/kronos-tuned")


def test_a_folder_that_lacks_a_net_says_which_file(folder: Path) -> None:
    (folder / "tokenizer" / "model.safetensors").unlink()
    with pytest.raises(WeightsNotFound, match=r"has no tokenizer/model\.safetensors"):
        find_pretrained(str(folder))


def test_broken_files_are_named(folder: Path) -> None:
    weights = folder / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        find_pretrained(str(folder)).load()
    (folder / "model" / "config.json").write_text('{"d_model": 32}')
    with pytest.raises(CheckpointError, match="has no s1_bits, s2_bits, n_heads"):
        find_pretrained(str(folder))
    (folder / "model" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        find_pretrained(str(folder))


def test_weights_of_another_architecture_are_refused(folder: Path) -> None:
    file = folder / "model" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "n_layers": 2}))
    with pytest.raises(CheckpointError, match="does not fit the architecture"):
        find_pretrained(str(folder)).load()


def test_dropout_of_loaded_nets_can_be_set() -> None:
    nets = random_nets(dropout=0.1)
    set_dropout(nets.predictor, 0.4)
    block = nets.predictor.transformer[0]
    assert (block.ffn.ffn_dropout.p, block.self_attn.resid_dropout.p) == (0.4, 0.4)
