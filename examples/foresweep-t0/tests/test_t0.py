"""t0 keeps the contract of every model, is asked as its authors ask it, and says whose the weights
are."""

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

from foresweep.errors import ConfigError, ModelError
from foresweep.evaluation.contract import Bench, ModelContract, ask
from foresweep.models.base import Facts, Resources, make_config
from foresweep.models.checkpoint import weights_cutoff
from foresweep.models.registry import get_model, space_text
from foresweep.models.training.loop import seeded
from foresweep_t0 import network as net
from foresweep_t0.config import HUB_ID
from foresweep_t0.model import T0
from hub_server import COMMIT, Hub, files_in, serving

FACTS = Facts(horizon=3, max_context=256, train_bars=1000)
SHAPE = {"patch_size": 8, "d_model": 16, "d_ff": 16, "num_layers": 2, "num_heads": 2}
STEPS = {"context_length": 24, "batch_size": 2, "lr": 3e-3, "max_steps": 3}


def settled(**values: Any) -> Any:
    return T0().resolve(make_config(T0.Config, values, model="t0"), FACTS)


def fresh(**core: Any) -> Any:
    """A tiny network that forecasts."""
    with seeded(0, Resources()):
        return net.build(net.core_of(**SHAPE, dropout=0.1) | core).eval()


def authors_folder(folder: Path) -> Path:
    """Tiny random weights as the authors' `save_pretrained` writes them, of t0-alpha's levels."""
    fresh(quantile_levels=[0.1, 0.25, 0.5, 0.75, 0.9]).save_pretrained(folder)
    return folder


def walk(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).cumsum(-1)


@pytest.mark.slow
class TestT0Contract(ModelContract):
    """From scratch; over weights, and in a process of its own, under `make soak`."""

    modes = ("scratch",)

    def make(self) -> T0:
        return T0()

    def config(self) -> Mapping[str, Any]:
        return STEPS | SHAPE | {"symmetric_averaging": False}

    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        return {"size": dict.fromkeys(SHAPE) | {"max_steps": 1}}

    def tuned_config(self, folder: Path) -> Mapping[str, Any]:
        return STEPS | {"pretrained": str(authors_folder(folder)), "size": None}

    @pytest.mark.soak
    def test_a_reloaded_checkpoint_gives_the_same_forecast(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        super().test_a_reloaded_checkpoint_gives_the_same_forecast(bench, tmp_path)


@pytest.mark.soak
class TestT0ContractOverWeights(TestT0Contract):
    """The same over tiny weights in the authors' format."""

    modes = ("scratch", "lora", "zero-shot")


def test_the_model_is_found_by_its_name_with_its_space() -> None:
    assert isinstance(get_model("t0"), T0)
    assert 'model = "t0"' in (space_text("t0") or "")


@pytest.mark.slow  # it starts a training in a process of its own
def test_published_weights_come_from_the_hub_and_the_card_says_whose_they_are(
    tmp_path: Path,
) -> None:
    files = files_in(authors_folder(tmp_path / "authors"))
    with serving(Hub({HUB_ID: files})) as hub:
        places = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-m", "foresweep", "train", "--model", "t0"]
        command += ["--data", "demo", "--pretrained", "published", "--max-steps", "2"]
        command += ["--set", "context_length=32", "--set", "finetune=lora", "--horizon", "2"]
        done = subprocess.run(
            command, env=os.environ | places, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(hub.downloads) == 2
    cards = (tmp_path / "hyperparams" / "runs").glob("t0_*/checkpoint/card.json")
    (card,) = (json.loads(c.read_text("utf-8")) for c in cards)
    assert card["weights_from"] == [f"{HUB_ID}@{COMMIT}"]
    (licence,) = card["weights_licence"]
    assert (licence["name"], licence["allows_production"]) == ("Apache-2.0", True)
    assert card["pretrain_cutoff"]["date"] == "2026-06-09"


@pytest.mark.parametrize("symmetric", [False, True])
def test_forecasts_are_those_of_the_authors_own_predict(symmetric: bool) -> None:
    """30 windows of 4 channels go through it in two parts, the authors' in one."""
    network, channels = fresh(), walk(30, 4, 37)
    asked = net.Variates(network, num_targets=1, horizon=11, symmetric=symmetric)
    with torch.no_grad():
        ours = asked.quantiles(channels)[:, :, :11]
    theirs = network.predict(channels, 11, asked.levels, symmetric_averaging=symmetric).quantiles
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_channel_says_something_about_the_others_of_its_window_alone() -> None:
    asked, channels = net.Variates(fresh(), num_targets=1, horizon=3), walk(2, 2, 32)
    other = channels.clone()
    other[0, 1] = -other[0, 1]
    with torch.no_grad():
        before, after = asked.quantiles(channels), asked.quantiles(other)
    assert (before[0, 0] != after[0, 0]).any()
    torch.testing.assert_close(before[1], after[1])


def test_the_loss_looks_at_targets_and_at_the_horizon_alone() -> None:
    asked, channels, came = net.Variates(fresh(), 1, 3), walk(2, 2, 32), walk(2, 2, 3)
    covariate, target = came.clone(), came.clone()
    covariate[:, 1] += 9.0
    target[:, 0] += 9.0
    with torch.no_grad():
        usual, one, two = (asked.loss(channels, x) for x in (came, covariate, target))
    assert usual == one
    assert usual != two


def test_the_loss_is_least_where_the_forecast_came_true() -> None:
    """In the network's own space, of each window by its own context: as far above as below."""
    asked, channels = net.Variates(fresh(), 1, 3), 100 + 5 * walk(4, 1, 32)
    with torch.no_grad():
        median = asked.quantiles(channels)[..., :3, asked.levels.index(0.5)]
        losses = [asked.loss(channels, median + d).item() for d in (-9.0, 0.0, 9.0)]
    assert losses[1] < min(losses[0], losses[2])


def test_a_network_from_scratch_begins_with_about_a_normal_s_quantiles() -> None:
    channels = walk(50, 1, 32)
    with torch.no_grad():
        found = net.Variates(fresh(), 1, 3).quantiles(channels)
    mean, spread = channels.mean(-1), channels.std(-1)
    outer = ((found[:, 0, :3] - mean[..., None]) / spread[..., None]).abs()
    assert 1 < outer[..., 0].median() < 6
    assert 1 < outer[..., -1].median() < 6


def test_our_own_checkpoint_is_a_start_like_any_other(tmp_path: Path) -> None:
    bench = Bench(T0(), tmp_path)
    first = bench.trial({**STEPS, **SHAPE, "max_steps": 1})
    again = {"context_length": 32, "pretrained": str(first.checkpoint.path), "size": None}
    second = bench.trial({**again, "finetune": "none"})
    assert (ask(second.predictor, first.context).values == first.forecast).all()


def test_what_is_from_scratch_has_neither_licence_nor_cutoff() -> None:
    scratch = settled(**STEPS, **SHAPE)
    assert T0().weights_licence(scratch) is None
    assert weights_cutoff(T0(), scratch) is None


@pytest.mark.parametrize("num_layers", [2, 3, 5, 6])
def test_from_scratch_some_layers_look_back_and_some_across(num_layers: int) -> None:
    counts = net.build(net.core_of(**SHAPE | {"num_layers": num_layers}, dropout=0.0))
    found = counts.transformer.get_layer_type_counts()
    assert min(found.values()) >= 1
    assert sum(found.values()) == num_layers


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"d_model": 18, "num_heads": 4}, "d_model=18 does not give 4 heads an even width"),
        ({"finetune": "none"}, "random weights"),
        ({"context_length": 16, "scaling": "volatility"}, "too short for target='overlapping'"),
    ],
)
def test_a_contradiction_is_refused_by_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settled(**values)


def test_a_horizon_beyond_one_pass_is_refused() -> None:
    with pytest.raises(ConfigError, match="1025 bars is beyond the 1024"):
        T0().resolve(make_config(T0.Config, {}, model="t0"), Facts(1025, 4096, 9999))


def test_what_weights_fix_is_theirs(tmp_path: Path) -> None:
    weights = {"pretrained": str(authors_folder(tmp_path)), "size": None, "context_length": 32}
    assert (settled(**weights).d_model, settled(**weights).dropout) == (16, 0.1)
    with pytest.raises(ConfigError, match="num_layers=3 contradicts"):
        settled(**weights, num_layers=3)


def test_weights_that_lack_a_layer_are_refused(tmp_path: Path) -> None:
    folder = authors_folder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.out_norm.scale"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"out_norm\.scale"):
        Bench(T0(), tmp_path).trial({"pretrained": str(folder), "size": None} | STEPS)


def test_another_model_s_weights_are_refused(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text('{"model_type": "timesfm2_5"}')
    with pytest.raises(ConfigError, match="holds no t0"):
        settled(pretrained=str(tmp_path), size=None)
