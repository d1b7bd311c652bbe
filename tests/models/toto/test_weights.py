"""Real weights: whatever folder they come in, Toto says with us what it says with its authors.

The weights are random, since none can be fetched; their format and all that reads it are not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import TrainWindows
from foresweep.errors import ConfigError, ModelError
from foresweep.models.base import (
    DEFAULT_LEVELS,
    Checkpoint,
    Resources,
    Scored,
    TrainingJob,
    unscored,
)
from foresweep.models.hub import PUBLISHED
from foresweep.models.toto import network as nets
from foresweep.models.toto.decoding import Chains
from foresweep.models.toto.model import (
    Toto,
    TotoConfig,
    TotoLearner,
    TotoPredictor,
    start,
    usable_rows,
    whole_patches,
)
from foresweep.models.training.loop import seeded
from foresweep.models.training.optimisation import half_precision
from panels import make_panel
from toto_tiny import FACTS, NARROW, authors_folder, context_of, network_of, resolved

ZERO_SHOT = {"finetune": "none", "size": None, "context_length": 64, "num_samples": 16}


def trained(config: TotoConfig, out: Path, score: Any = unscored) -> Checkpoint:
    panel = make_panel(3, 400)
    split = make_split(panel, Cut(3))
    return Toto().train(
        TrainingJob(
            TrainWindows(panel, split, split.part("train")),
            config,
            horizon=3,
            score=score,
            out=out,
        )
    )


def zero_shot(pretrained: str, out: Path, **more: Any) -> TotoPredictor:
    config = Toto().resolve(TotoConfig(pretrained=pretrained, **{**ZERO_SHOT, **more}), FACTS)
    return Toto().load(trained(config, out), Resources())


def authors_mean(folder: Path, series: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Mean forecast [N, V, 32] of the authors' own forecaster over their own model."""
    from toto.data.util.dataset import MaskedTimeseries
    from toto.inference.forecaster import TotoForecaster

    model = nets.package().Toto.load_from_checkpoint(
        str(folder), use_memory_efficient_attention=False
    )
    clock = torch.arange(series.shape[-1]).expand_as(series)
    step = torch.ones(series.shape[:2]).long()
    seen = MaskedTimeseries(series, real, nets.masks(series)[1], clock, step)
    forecaster = TotoForecaster(model.model.eval())
    return forecaster.forecast(seen, prediction_length=32, num_samples=None, use_kv_cache=True).mean


def our_mean(network: Any, series: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """The same of our network by our decoding: each patch's mean put in for it."""
    with torch.no_grad():
        chains = Chains(network, series, real, 1, 1)
        first = chains.newest.mean
        chains.push(first)
        return torch.cat([first, chains.newest.mean], dim=-1)[:, 0]


def seen_by(predictor: TotoPredictor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the network is shown of six windows of a panel."""
    rows = usable_rows(64, predictor.representation.lag, 16)
    encoded = predictor.representation.encode(context_of().last(rows).values, rows)
    channels, real = whole_patches(encoded.channels, predictor.representation.lag, 16)
    return torch.from_numpy(channels).float(), torch.from_numpy(real)


def test_a_folder_of_the_authors_gives_their_forecast(tmp_path: Path) -> None:
    authors_folder(tmp_path / "theirs")
    predictor = zero_shot(str(tmp_path / "theirs"), tmp_path / "out")
    series = seen_by(predictor)
    expected = authors_mean(tmp_path / "theirs", *series)
    torch.testing.assert_close(our_mean(predictor.network, *series), expected, rtol=1e-5, atol=1e-5)


def test_a_model_of_the_cache_gives_their_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its Hugging Face id, and by the word `published`, without a network."""
    from huggingface_hub import constants

    repo = tmp_path / "hub" / ("models--" + PUBLISHED["toto"].replace("/", "--"))
    state = authors_folder(repo / "snapshots" / "abc")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in (PUBLISHED["toto"], "published"):
        config = Toto().resolve(TotoConfig(pretrained=name, **ZERO_SHOT), FACTS)
        network, _ = start(config)
        for key, value in network.state_dict().items():
            torch.testing.assert_close(value, state[key], rtol=0, atol=0)


def test_a_checkpoint_of_ours_is_a_start_too(tmp_path: Path) -> None:
    """Trained, then taken as it is by another run: the same forecast, no step taken."""
    config = resolved(max_steps=2, num_samples=16)
    first = Toto().load(trained(config, tmp_path / "first"), Resources())
    again = zero_shot(str(tmp_path / "first"), tmp_path / "again")
    for name, value in again.network.state_dict().items():
        torch.testing.assert_close(value, first.network.state_dict()[name], rtol=0, atol=0)
    asked = {"horizon": 3, "levels": DEFAULT_LEVELS, "seed": 0}
    np.testing.assert_array_equal(
        again.predict(context_of(), **asked).values, first.predict(context_of(), **asked).values
    )


def test_zero_shot_is_scored_once_and_leaves_the_weights_alone(tmp_path: Path) -> None:
    state = authors_folder(tmp_path / "theirs")
    config = Toto().resolve(TotoConfig(pretrained=str(tmp_path / "theirs"), **ZERO_SHOT), FACTS)
    seen: list[Any] = []

    def score(predictor: Any) -> Scored:
        seen.append(predictor)
        return Scored({"tune_pinball": 1.0}, {})

    checkpoint = trained(config, tmp_path / "out", score)
    assert len(seen) == 1
    assert checkpoint.card["fitted"]["step"] == 0
    for name, value in Toto().load(checkpoint, Resources()).network.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


@pytest.mark.parametrize(("values", "changed"), [
    ({"finetune": "lora"}, ("wQKV", "wO", "mlp.0", "mlp.2")),
    ({"freeze": "backbone"}, ("patch_embed", "unembed", "output_distribution")),
    ({"freeze": "embedding"}, ("transformer", "unembed", "output_distribution")),
])  # fmt: skip
def test_only_what_is_to_be_trained_moves(
    tmp_path: Path, values: dict[str, Any], changed: tuple[str, ...]
) -> None:
    before = authors_folder(tmp_path / "theirs")
    config = TotoConfig(
        pretrained=str(tmp_path / "theirs"), size=None, context_length=64, max_steps=3, **values
    )
    checkpoint = trained(Toto().resolve(config, FACTS), tmp_path / "out")
    after = Toto().load(checkpoint, Resources()).network.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {name for name in after if any(part in name for part in changed)} - {
        name for name in after if values.get("finetune") == "lora" and not name.endswith("weight")
    }


def test_another_family_s_checkpoint_is_refused(tmp_path: Path) -> None:
    trained(resolved(max_steps=1), tmp_path / "ours")
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    config["model"] = "kronos"
    text = json.dumps(config)
    (tmp_path / "ours" / "config.json").write_text(text)
    card = json.loads((tmp_path / "ours" / "card.json").read_text())
    import hashlib

    card["files"]["config.json"] = hashlib.sha256(text.encode()).hexdigest()
    del card["sha256"]
    (tmp_path / "ours" / "card.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="is a checkpoint of kronos"):
        Toto().resolve(TotoConfig(pretrained=str(tmp_path / "ours"), **ZERO_SHOT), FACTS)


def test_weights_know_what_they_are_hashed_with(tmp_path: Path) -> None:
    """Equal tensors in another network (its scaler, say) are other weights."""
    authors_folder(tmp_path / "a")
    authors_folder(tmp_path / "b", scale_factor_exponent=2.0)
    hashes = {
        Toto().weights_hash(TotoConfig(pretrained=str(tmp_path / name), **ZERO_SHOT))
        for name in "ab"
    }
    assert len(hashes) == 2


class TestHalfPrecision:
    def learner(self, precision: str) -> TotoLearner:
        panel = make_panel(2, 300)
        split = make_split(panel, Cut(3))
        config = resolved(precision=precision)
        train = TrainWindows(panel, split, split.part("train"))
        return TotoLearner(network_of(config), train, config, 3, Resources())

    def loss(self, precision: str) -> tuple[float, list[torch.Tensor]]:
        learner = self.learner(precision)
        batch = learner.draw(np.random.default_rng(0), 8)
        with half_precision(learner._config, "cpu"):
            loss = learner.loss(batch)
        loss.backward()
        return float(loss.detach()), [p.grad for p in learner.module.parameters()]

    def test_only_the_layers_are_in_bfloat16_and_the_loss_stays_close(self) -> None:
        """Shares in bfloat16 would not add up to one, and its likelihood would be coarse."""
        (exact, full), (found, half) = self.loss("fp32"), self.loss("bf16")
        assert found != exact
        assert found == pytest.approx(exact, rel=0.01)
        away = sum(float((a - b).norm() ** 2) for a, b in zip(full, half, strict=True))
        whole = sum(float(a.norm() ** 2) for a in full)
        assert (away / whole) ** 0.5 < 0.05
        assert all(g.dtype == torch.float32 for g in half)

    def test_wide_networks_choose_it_where_the_device_is_fast_in_it(self) -> None:
        from dataclasses import replace

        fast = replace(FACTS, fast_bf16=True)
        wide = {"context_length": 64, **NARROW, "embed_dim": 256}
        for facts, width, wanted in ((fast, 256, "bf16"), (fast, 32, "fp32"), (FACTS, 256, "fp32")):
            config = Toto().resolve(TotoConfig(**{**wide, "embed_dim": width}), facts)
            assert config.precision == wanted


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"finetune": "none"}, "finetune='none' would forecast with random weights"),
        ({"finetune": "lora"}, "finetune='lora' would keep a backbone of random weights"),
        ({"target": "price", "scaling": "volatility"}, "scaling='volatility' has no effect"),
        ({"scaling": "volatility", "context_length": 20}, "use at least 24"),
    ],
)
def test_modes_without_sense_are_refused_by_name(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        resolved(**values)


def test_fields_without_effect_beside_untrained_weights_are_refused(tmp_path: Path) -> None:
    authors_folder(tmp_path)
    for name, value in (("lr", 0.5), ("loss_type", "quantile"), ("dropout", 0.1)):
        with pytest.raises(ConfigError, match=f"{name}={value!r} has no effect"):
            Toto().resolve(
                TotoConfig(pretrained=str(tmp_path), **ZERO_SHOT, **{name: value}), FACTS
            )


def test_the_same_weights_are_started_from_whatever_the_seed(tmp_path: Path) -> None:
    authors_folder(tmp_path)
    config = Toto().resolve(TotoConfig(pretrained=str(tmp_path), **ZERO_SHOT), FACTS)
    states = []
    for seed in (0, 1):
        with seeded(seed, Resources()):
            states.append(start(config)[0].state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=0, atol=0)
