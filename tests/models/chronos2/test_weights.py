"""Chronos-2's weights: in the authors' format, cached from the hub, or in our own checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import TrainWindows, Windows
from foresweep.errors import CheckpointError, ConfigError
from foresweep.models.base import (
    DEFAULT_LEVELS,
    Checkpoint,
    Facts,
    Predictor,
    Resources,
    Scored,
    TrainingJob,
    make_config,
)
from foresweep.models.checkpoint import read_checkpoint, read_weights, write_checkpoint
from foresweep.models.chronos2.model import Chronos2, Chronos2Config, between_levels, start
from foresweep.models.training.loop import seeded
from panels import make_panel

FACTS = Facts(horizon=5, max_context=512, train_bars=8000)
SHAPE = {"patch_size": 8, "d_model": 16, "d_ff": 32, "num_layers": 2, "num_heads": 2}
LEVELS = (0.01, *(k / 100 for k in range(5, 100, 5)), 0.99)


@pytest.fixture(scope="module")
def train() -> TrainWindows:
    panel = make_panel(num_items=3, num_bars=300)
    split = make_split(panel, Cut(FACTS.horizon))
    return TrainWindows(panel, split, split.part("train"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, made and written by the authors' own code."""
    import torch
    from chronos import Chronos2Pipeline
    from chronos.chronos2 import Chronos2CoreConfig, Chronos2Model
    from transformers.utils import logging

    from foresweep.models.chronos2 import network as net

    logging.disable_progress_bar()
    core = net.core_config(**SHAPE, dropout=0.1, context_length=64, label_length=16)
    with seeded(0, Resources()):
        network = Chronos2Model(Chronos2CoreConfig.from_dict({**core, "dtype": "float32"}))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(8.0)  # far from an even forecast
    path = tmp_path_factory.mktemp("weights")
    Chronos2Pipeline(network).save_pretrained(path)
    return path


def zero_shot(pretrained: str, **values: Any) -> Chronos2Config:
    wanted = {"pretrained": pretrained, "finetune": "none", "context_length": 64, **values}
    return Chronos2().resolve(make_config(Chronos2Config, wanted, model="chronos2"), FACTS)


def enter(
    train: TrainWindows, config: Chronos2Config, out: Path, told: list[int] | None = None
) -> Checkpoint:
    """The checkpoint of a config that is not trained."""

    def score(predictor: Predictor) -> Scored:
        return Scored({"tune_pinball": 1.0}, {})

    def report(step: int, scores: Any, losses: Any = None) -> None:
        if told is not None:
            told.append(step)

    return Chronos2().train(
        TrainingJob(
            train, config, Resources(), seed=0, horizon=5, score=score, report=report, out=out
        )
    )


@pytest.fixture(scope="module")
def checkpoint(
    folder: Path, train: TrainWindows, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    return enter(train, zero_shot(str(folder)), tmp_path_factory.mktemp("own") / "c")


@pytest.fixture(params=["folder", "cached", "checkpoint"])
def pretrained(
    request: pytest.FixtureRequest,
    folder: Path,
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The same weights, named in three ways."""
    if request.param != "cached":
        return str(folder if request.param == "folder" else checkpoint.path)
    from huggingface_hub import constants

    repo = tmp_path / "models--somebody--weights"
    shutil.copytree(folder, repo / "snapshots" / ("0" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return "somebody/weights"


@pytest.mark.parametrize("covariates", [0, 3])
def test_forecasts_are_those_of_the_authors_pipeline(
    pretrained: str, folder: Path, train: TrainWindows, covariates: int
) -> None:
    """Prices and volumes of three items, alone and with covariates that are known of the past."""
    import torch
    from chronos import BaseChronosPipeline

    from foresweep.models.chronos2 import network as net

    with seeded(0, Resources()):
        learner = start(TrainingJob(train, zero_shot(pretrained), horizon=5, out=Path()))
    bars = train.cut(np.arange(3), np.array([20, 0, 30]), 64)[0]
    series = np.moveaxis(bars[..., [3, 4, 1, 2][: 1 + covariates]], 2, 1).astype(np.float32)
    with torch.no_grad():
        ours = net.quantiles(learner.module.eval(), torch.from_numpy(series), 5)[:, 0]

    pipeline = BaseChronosPipeline.from_pretrained(folder)
    inputs = [
        {"target": s[0], "past_covariates": {f"x{k}": x for k, x in enumerate(s[1:])}}
        for s in series
    ]
    quantiles, _ = pipeline.predict_quantiles(
        inputs, prediction_length=5, quantile_levels=list(LEVELS)
    )
    theirs = torch.cat(quantiles).sort(dim=-1).values
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5)
    assert not np.allclose(theirs[..., 0], theirs[..., -1], rtol=1e-3), "it says something"


def test_levels_between_the_network_s_own_are_the_authors(folder: Path) -> None:
    import torch
    from chronos import BaseChronosPipeline

    pipeline = BaseChronosPipeline.from_pretrained(folder)
    series = torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(0))
    asked = [0.333, 0.5, 0.975]
    quantiles, _ = pipeline.predict_quantiles(series, prediction_length=5, quantile_levels=asked)
    (own,) = {tuple(pipeline.quantiles)}
    raw = torch.stack(pipeline.predict(series, prediction_length=5))[:, 0].mT.double().numpy()
    wanted = torch.cat(quantiles).numpy()
    np.testing.assert_allclose(between_levels(raw, own, tuple(asked)), wanted, rtol=1e-5)


def test_a_zero_shot_entry_is_scored_once_and_holds_the_weights_as_they_were(
    folder: Path, train: TrainWindows, tmp_path: Path
) -> None:
    from foresweep.models.chronos2 import network as net

    told: list[int] = []
    found = enter(train, zero_shot(str(folder)), tmp_path / "c", told)
    assert told == [0]
    assert found.card["fitted"]["step"] == 0
    np.testing.assert_equal(read_weights(found), net.read_weights(folder / "model.safetensors"))


def test_a_zero_shot_entry_needs_no_bars_to_train_on(folder: Path, tmp_path: Path) -> None:
    panel = make_panel(num_items=3, num_bars=300)
    split = make_split(panel, Cut(FACTS.horizon))
    whole = TrainWindows(panel, split, split.part("train"))
    config = zero_shot(str(folder), context_length=256)
    assert enter(whole, config, tmp_path / "c").card["fitted"]["step"] == 0
    with pytest.raises(Exception, match="no item has 256"):
        whole.starts(256, 5)


def test_an_own_checkpoint_forecasts_as_it_did_and_hashes_as_its_network(
    folder: Path, checkpoint: Checkpoint, train: TrainWindows, tmp_path: Path
) -> None:
    config = zero_shot(str(checkpoint.path))
    assert {k: getattr(config, k) for k in SHAPE} == SHAPE
    context = Windows(train.panel, train.split, train.split.part("tune")).context(64, slice(0, 6))
    found = [
        Chronos2()
        .load(read_checkpoint(path), Resources())
        .predict(context, horizon=5, levels=DEFAULT_LEVELS, seed=0)
        .values
        for path in (checkpoint.path, enter(train, config, tmp_path / "again").path)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    tuned = Chronos2Config(pretrained=str(checkpoint.path))
    family = Chronos2()
    assert family.resolve(tuned, FACTS).dropout == 0.1, "theirs, though nothing was trained"
    assert len(family.weights_hash(config)) == 64
    assert family.weights_hash(config) == family.weights_hash(zero_shot(str(tmp_path / "again")))


@pytest.mark.parametrize("values", [{}, {"scaling": "volatility"}, {"target": "return"}])
@pytest.mark.parametrize("rows", [2, 17, 40])
def test_short_contexts_are_forecast_too(
    folder: Path, train: TrainWindows, values: dict[str, Any], rows: int
) -> None:
    with seeded(0, Resources()):
        config = zero_shot(str(folder), **values)
        predictor = start(TrainingJob(train, config, horizon=5, out=Path())).predictor()
    context = Windows(train.panel, train.split, train.split.part("tune")).context(rows)
    found = predictor.predict(context, horizon=5, levels=DEFAULT_LEVELS, seed=0)
    found.checked(len(context), 5)


def test_a_damaged_checkpoint_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint.path, copy)
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(CheckpointError, match=r"model\.safetensors was altered"):
        zero_shot(str(copy))


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    weights = {"w": np.zeros(1, dtype=np.float32)}
    write_checkpoint(tmp_path / "c", model="toto", config={}, weights=weights)
    with pytest.raises(ConfigError, match="is a checkpoint of toto"):
        zero_shot(str(tmp_path / "c"))


def test_adapters_without_their_network_are_refused_with_the_way_to_merge_them(
    tmp_path: Path,
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(ConfigError, match=r"LoRA adapters without .*save_pretrained"):
        zero_shot(str(tmp_path))
