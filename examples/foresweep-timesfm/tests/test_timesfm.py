"""TimesFM keeps the contract of every model, asks its authors' network rightly, and says whose the
weights are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from foresweep.errors import ConfigError, ModelError, WeightsNotFound
from foresweep.evaluation.contract import Bench, ModelContract, ask
from foresweep.models.base import Facts, Resources, make_config
from foresweep.models.channels import pinball
from foresweep.models.checkpoint import weights_cutoff
from foresweep.models.registry import get_model, space_text
from foresweep.models.training.loop import seeded
from foresweep_timesfm import network as net
from foresweep_timesfm.config import HUB_ID
from foresweep_timesfm.model import TimesFM
from hub_server import COMMIT, Hub, files_in, serving

FACTS = Facts(horizon=3, max_context=256, train_bars=1000)
SHAPE = {"patch_size": 8, "d_model": 16, "num_layers": 1, "num_heads": 2}
STEPS = {"context_length": 32, "batch_size": 2, "lr": 3e-3, "max_steps": 4}


def settled(**values: Any) -> Any:
    return TimesFM().resolve(make_config(TimesFM.Config, values, model="timesfm"), FACTS)


def authors_folder(folder: Path, *, horizon: int = 8) -> Path:
    """Tiny random weights as `save_pretrained` of transformers writes them."""
    with seeded(0, Resources()):
        net.build(net.core_of(**SHAPE, horizon=horizon)).save_pretrained(folder)
    return folder


@pytest.mark.slow
class TestTimesFMContract(ModelContract):
    """From scratch, and over tiny weights in the authors' format."""

    modes = ("scratch", "lora", "zero-shot")

    def make(self) -> TimesFM:
        return TimesFM()

    def config(self) -> Mapping[str, Any]:
        return STEPS | SHAPE

    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        by_size = dict.fromkeys(SHAPE) | {"max_steps": 1}
        return {"size": by_size, "sign_flip": {"flip_invariance": False}}

    def tuned_config(self, folder: Path) -> Mapping[str, Any]:
        return STEPS | {"pretrained": str(authors_folder(folder)), "size": None}


def test_the_model_is_found_by_its_name_with_its_space() -> None:
    assert isinstance(get_model("timesfm"), TimesFM)
    assert 'model = "timesfm"' in (space_text("timesfm") or "")


@pytest.mark.slow  # it starts a training in a process of its own
def test_published_weights_come_from_the_hub_and_the_card_says_whose_they_are(
    tmp_path: Path,
) -> None:
    folder = authors_folder(tmp_path / "authors")
    with serving(Hub({HUB_ID: files_in(folder)})) as hub:
        places = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-m", "foresweep", "train", "--model", "timesfm"]
        command += ["--data", "demo", "--pretrained", "published", "--max-steps", "2"]
        command += ["--set", "context_length=32", "--horizon", "2"]
        done = subprocess.run(
            command, env=os.environ | places, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(hub.downloads) == 2
    cards = (tmp_path / "hyperparams" / "runs").glob("timesfm_*/checkpoint/card.json")
    (card,) = (json.loads(c.read_text("utf-8")) for c in cards)
    assert card["weights_from"] == [f"{HUB_ID}@{COMMIT}"]
    (licence,) = card["weights_licence"]
    assert (licence["name"], licence["allows_production"]) == ("Apache-2.0", True)
    assert card["pretrain_cutoff"]["date"] == "2025-09-15"


def test_a_series_of_no_whole_number_of_patches_is_filled_up_with_what_nobody_sees() -> None:
    """Moved up and stretched, its forecast moves with it: zeros on the left would not."""
    with seeded(0, Resources()):
        network = net.build(net.core_of(**SHAPE, horizon=3)).eval()
    series = torch.randn(2, 19, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = net.deciles(network, series, flip=True)
        moved = net.deciles(network, 3 * series + 50, flip=True)
    torch.testing.assert_close(moved, 3 * plain + 50, rtol=1e-4, atol=1e-3)


def loud_network(factor: float) -> Any:
    """A network from scratch whose forecasts lie far from its context, on the side of `factor`."""
    with seeded(0, Resources()):
        network = net.build(net.core_of(**SHAPE, horizon=3)).eval()
    with torch.no_grad():
        for name, weight in network.output_projection_point.named_parameters():
            weight.mul_(1 if "input_layer" in name else factor)
    return network


def test_moves_that_are_all_above_zero_are_not_cut_off_there() -> None:
    falling = torch.arange(16.0).flip(0)[None]  # as log prices over the last close
    with torch.no_grad():
        found = [net.deciles(loud_network(f), falling, flip=True).min() for f in (1e4, -1e4)]
    assert min(found) < -1


def test_the_fifth_of_the_nine_is_the_median_that_the_authors_give() -> None:
    network, series = loud_network(1e2), torch.arange(16.0).sin()[None]
    with torch.no_grad():
        found = net.deciles(network, series, flip=True)
        theirs = network(past_values=series.unbind(0), forecast_context_len=16)
    torch.testing.assert_close(found[..., 4], theirs.mean_predictions)


def test_every_decile_is_taught_its_own_level() -> None:
    """Of 9 constants for a thousand draws, the loss is least at the draws' own deciles."""
    truth = torch.linspace(0, 1, 1001)[:, None]
    levels = tuple(k / 10 for k in range(1, 10))
    free = torch.full((9,), 0.5, requires_grad=True)
    optimiser = torch.optim.Adam([free], lr=0.01)
    for _ in range(300):
        optimiser.zero_grad()
        pinball(free.expand(1001, 1, 9), truth, levels).backward()
        optimiser.step()
    torch.testing.assert_close(free.detach(), torch.tensor(levels), atol=0.02, rtol=0)


def test_our_own_checkpoint_is_a_start_like_any_other(tmp_path: Path) -> None:
    bench = Bench(TimesFM(), tmp_path)
    first = bench.trial({**STEPS, **SHAPE, "max_steps": 1})
    again = {"context_length": 32, "pretrained": str(first.checkpoint.path), "size": None}
    second = bench.trial({**again, "finetune": "none"})
    assert (ask(second.predictor, first.context).values == first.forecast).all()


def test_what_is_from_scratch_has_neither_licence_nor_cutoff() -> None:
    scratch = settled(**STEPS, **SHAPE)
    assert TimesFM().weights_licence(scratch) is None
    assert weights_cutoff(TimesFM(), scratch) is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"d_model": 18, "num_heads": 4}, "d_model=18 does not give 4 heads an even width"),
        ({"finetune": "none"}, "random weights"),
        ({"sign_flip": True}, "no effect with flip_invariance=True"),
    ],
)
def test_a_contradiction_is_refused_by_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settled(**values)


def test_what_weights_fix_is_theirs(tmp_path: Path) -> None:
    weights = {"pretrained": str(authors_folder(tmp_path)), "size": None, "context_length": 32}
    assert settled(**weights).d_model == 16
    with pytest.raises(ConfigError, match="num_layers=2 contradicts"):
        settled(**weights, num_layers=2)
    config = make_config(TimesFM.Config, weights, model="timesfm")
    with pytest.raises(ConfigError, match="9 bars is beyond the 8"):
        TimesFM().resolve(config, Facts(horizon=9, max_context=256, train_bars=1000))


def test_weights_that_lack_a_layer_are_refused(tmp_path: Path) -> None:
    """transformers would make one up, and warn."""
    folder = authors_folder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    assert "model.layers.0.mlp.ff0.weight" in weights  # by the name it has in the authors' files
    del weights["model.layers.0.mlp.ff0.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"fc1\.weight is missing"):
        net.read(folder)


def test_another_model_s_weights_are_refused(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text('{"model_type": "timesfm"}')
    with pytest.raises(ConfigError, match="holds no TimesFM"):
        settled(pretrained=str(tmp_path), size=None)
    with pytest.raises(WeightsNotFound, match=r"config\.json"):
        settled(pretrained=str(tmp_path / "hub_server.py"), size=None)
