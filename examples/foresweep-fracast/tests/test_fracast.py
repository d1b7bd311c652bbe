"""Fracast keeps the contract of every model, and says what its authors' code says."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fracast import FracastModel

from foresweep.errors import ConfigError, WeightsNotFound
from foresweep.evaluation.contract import Bench, ModelContract, ask
from foresweep.models.base import Facts, TrainingJob, make_config
from foresweep.models.checkpoint import weights_cutoff
from foresweep.models.registry import get_model, space_text
from foresweep_fracast.config import options_of, weights_folder
from foresweep_fracast.model import Fracast, _start
from foresweep_fracast.network import Network, normalise

FACTS = Facts(horizon=3, max_context=256, train_bars=1000)
STEPS = {"context_length": 32, "batch_size": 2, "lr": 3e-3, "max_steps": 4}
SCRATCH = {**STEPS, "d_model": 8, "num_stages": 3}
WEIGHTS = {"pretrained": "published", "size": None, "window": 32}


def settled(**values: Any) -> Any:
    return Fracast().resolve(make_config(Fracast.Config, values, model="fracast"), FACTS)


@pytest.mark.slow
class TestFracastContract(ModelContract):
    """From scratch, and over the published weights laid over a window of 32 positions."""

    modes = ("scratch", "full", "lora", "zero-shot")

    def make(self) -> Fracast:
        return Fracast()

    def config(self) -> Mapping[str, Any]:
        return SCRATCH

    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        return {"size": {"d_model": None}, "context_length": {"window": 128, "max_steps": 1}}

    def tuned_config(self, folder: Path) -> Mapping[str, Any]:
        """The real weights, as a folder in the authors' format."""
        for name in ("config.json", "model.safetensors"):
            shutil.copy(weights_folder("published") / name, folder)
        return {**STEPS, **WEIGHTS, "pretrained": str(folder)}


def test_the_model_is_found_by_its_name_with_its_space() -> None:
    assert isinstance(get_model("fracast"), Fracast)
    assert 'model = "fracast"' in (space_text("fracast") or "")


@pytest.mark.slow
def test_the_published_weights_say_what_the_authors_code_says() -> None:
    """Their forecast normalises, pads and predicts by itself; ours goes through the network."""
    config = settled(pretrained="published", size=None, context_length=200)
    job = TrainingJob(None, config, horizon=3, out=Path())  # type: ignore[arg-type]
    network = _start(job, options_of(config, 3)).network.eval()
    theirs = FracastModel.from_pretrained(weights="fp32")
    walk = np.cumsum(np.random.default_rng(0).standard_normal((3, 200)), axis=1) + 50
    series, low, span = normalise(torch.from_numpy(walk).float())
    with torch.no_grad():
        ours = network(series) * span[..., None] + low[..., None]
    np.testing.assert_allclose(ours.numpy(), theirs.forecast(walk), rtol=1e-5)


def test_our_own_checkpoint_is_a_start_like_any_other(tmp_path: Path) -> None:
    bench = Bench(Fracast(), tmp_path)
    first = bench.trial({**STEPS, **WEIGHTS, "max_steps": 1})
    again = {**STEPS, **WEIGHTS, "pretrained": str(first.checkpoint.path)}
    del again["lr"], again["batch_size"], again["max_steps"]
    second = bench.trial({**again, "finetune": "none"})
    np.testing.assert_array_equal(ask(second.predictor, first.context).values, first.forecast)


def test_the_weights_know_the_world_to_a_stated_day() -> None:
    config = settled(**WEIGHTS, **STEPS)
    found = weights_cutoff(Fracast(), config)
    assert found is not None
    assert found.date == "2026-09-26"
    assert weights_cutoff(Fracast(), settled(**SCRATCH)) is None


def test_the_licence_of_the_weights_is_known() -> None:
    """Else who promotes it is told that nobody knows it."""
    found = Fracast().weights_licence(settled(**WEIGHTS, **STEPS))
    assert found is not None
    assert (found.name, found.allows_production) == ("Apache-2.0", True)
    assert Fracast().weights_licence(settled(**SCRATCH)) is None


def test_a_network_from_scratch_has_the_size_asked_for() -> None:
    config = settled(size="small", context_length=128)
    network = Network(options_of(config, 3))
    published = settled(pretrained="published", size=None)
    whole = Network(options_of(published, 3))
    counts = [sum(p.numel() for p in n.parameters()) for n in (network, whole)]
    assert counts[1] == 85_001
    assert 0.9 < counts[0] / counts[1] < 1.0  # fewer bars ahead, fewer queries


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({**WEIGHTS, "window": 16}, "window=16 holds no context_length=128"),
        ({**WEIGHTS, "window": 2048, "d_model": 32}, "d_model=32 contradicts"),
        ({"size": None}, "d_model must be given"),
        ({"finetune": "none"}, "random weights"),
        ({**WEIGHTS, "window": 128, "freeze": "lower_half"}, "freezes none"),
    ],
)
def test_a_contradiction_is_refused_by_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settled(**values)


def test_a_horizon_beyond_the_weights_is_refused() -> None:
    config = make_config(Fracast.Config, {"pretrained": "published", "size": None}, model="fracast")
    with pytest.raises(ConfigError, match="60 bars is beyond the 48"):
        Fracast().resolve(config, Facts(horizon=60, max_context=256, train_bars=1000))


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match=r"config\.json"):
        settled(pretrained=str(tmp_path), size=None)
