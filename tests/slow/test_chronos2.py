"""Chronos-2 really learns: a sine nearly perfectly, and its own loss on real prices."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foresweep.data.demo import demo_panel
from foresweep.data.windows import Windows
from foresweep.models.base import (
    DEFAULT_LEVELS,
    Checkpoint,
    Predictor,
    Resources,
    Scored,
    TrialPruned,
)
from foresweep.models.checkpoint import read_checkpoint, read_weights
from foresweep.models.chronos2 import network as net
from foresweep.models.chronos2.model import Chronos2, Chronos2Config, Chronos2Predictor, encode
from foresweep.models.representation import Representation
from foresweep.models.training.loop import seeded
from panels import make_panel, sine_panel
from sine import SEEDS, Case, forecast_test, judge, make_case, pinball_scorer, silent, train_case

pytestmark = pytest.mark.slow

SINE = Chronos2Config(
    covariates="none",
    target="return", context_length=128, batch_size=32, lr=2e-3, max_steps=500,
    warmup_fraction=0.05, dropout=0.0,
)  # fmt: skip
"""About 8 s on one thread; skill .96 to .97."""
DEMO = Chronos2Config(context_length=128, batch_size=8, lr=1e-3, max_steps=80)
"""Overlapping returns, five channels a window: about 3 s on one thread."""
SHAPE = {"patch_size": 8, "d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 2}
SHORT = Chronos2Config(context_length=32, batch_size=4, lr=3e-3, max_steps=6, dropout=0.0, **SHAPE)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sine_is_forecast_nearly_perfectly_from_one_bar_returns(
    seed: int, tmp_path: Path
) -> None:
    case = make_case(sine_panel(seed=seed))
    started = time.process_time()
    checkpoint = train_case(Chronos2(), SINE, case, tmp_path / "sine", seed=seed)
    seconds = time.process_time() - started
    judged = judge(forecast_test(load(checkpoint), case).median, case)
    assert not judged.faults(skill=0.93, slope=0.03), judged
    assert seconds <= 60


class OwnLoss:
    """A scorer by the network's own loss on fixed tune windows, which it remembers."""

    def __init__(self, windows: Windows, config: Chronos2Config) -> None:
        self.found: list[float] = []
        seen = config.context_length
        bars = np.concatenate([windows.context(seen).values, windows.label_bars], axis=1)
        view = Representation(config.target, config.covariates, windows.horizon)
        self._series = torch.from_numpy(encode(view, bars, seen)[0]).float()
        self._seen = seen

    def of(self, network: Any) -> float:
        series, seen = self._series, self._seen
        parts = torch.split(series, 16)
        with torch.no_grad():
            losses = [net.loss(network.eval(), p[..., :seen], p[..., seen:]) for p in parts]
        return float(np.average([x.item() for x in losses], weights=[len(p) for p in parts]))

    def __call__(self, predictor: Predictor) -> Scored:
        assert isinstance(predictor, Chronos2Predictor)
        self.found.append(self.of(predictor.network))
        return Scored({"tune_pinball": self.found[-1]}, {})


@pytest.mark.parametrize("seed", SEEDS)
def test_its_own_loss_on_real_tune_windows_falls_by_20_percent(seed: int, tmp_path: Path) -> None:
    case = make_case(demo_panel(), horizon=5)
    own = OwnLoss(case.windows("tune"), DEMO)
    checkpoint = train_case(Chronos2(), DEMO, case, tmp_path / "demo", seed=seed, score=own)
    with seeded(seed, Resources()):
        untrained = own.of(net.build(checkpoint.card["network"]))
    kept = own.of(load(checkpoint).network)
    assert kept == pytest.approx(min(own.found), rel=1e-6), "the kept step is the best one"
    assert 1 - kept / untrained >= 0.20, (untrained, own.found)


def load(checkpoint: Checkpoint, **resources: Any) -> Chronos2Predictor:
    found = Chronos2().load(read_checkpoint(checkpoint.path), Resources(**resources))
    assert isinstance(found, Chronos2Predictor)
    return found


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(make_panel(num_items=3, num_bars=400), horizon=5)


@pytest.fixture(scope="module")
def scratch(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return train_case(Chronos2(), SHORT, case, tmp_path_factory.mktemp("scratch") / "c", seed=0)


@pytest.fixture(scope="module")
def folder(scratch: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as `Chronos2Pipeline.save_pretrained` writes them."""
    from chronos import Chronos2Pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    path = tmp_path_factory.mktemp("weights")
    Chronos2Pipeline(load(scratch).network).save_pretrained(path)
    return path


def tuned(folder: Path, **values: Any) -> Chronos2Config:
    """A short fine-tuning of the folder's weights."""
    open_shape = dict.fromkeys(SHAPE)
    return replace(SHORT, pretrained=str(folder), **open_shape, **values)


def forecast(checkpoint: Checkpoint, case: Case, **resources: Any) -> np.ndarray:
    context = case.windows("tune").context(SHORT.context_length, slice(0, 20))
    predictor = load(checkpoint, **resources)
    return predictor.predict(context, horizon=5, levels=DEFAULT_LEVELS, seed=0).values


def changed(checkpoint: Checkpoint, folder: Path) -> set[str]:
    """Names of the weights that training moved."""
    before, after = net.read_weights(folder / "model.safetensors"), read_weights(checkpoint)
    assert set(before) == set(after), "a checkpoint holds plain weights, no adapters"
    return {name for name, value in after.items() if not np.array_equal(value, before[name])}


def test_fine_tuning_moves_all_weights(case: Case, folder: Path, tmp_path: Path) -> None:
    checkpoint = train_case(Chronos2(), tuned(folder), case, tmp_path / "full", seed=0)
    assert changed(checkpoint, folder) == set(read_weights(checkpoint))


def test_a_frozen_backbone_stays_as_it_was(case: Case, folder: Path, tmp_path: Path) -> None:
    config = tuned(folder, freeze="backbone")
    checkpoint = train_case(Chronos2(), config, case, tmp_path / "frozen", seed=0)
    moved = {name.split(".")[0] for name in changed(checkpoint, folder)}
    assert moved == {"shared", "input_patch_embedding", "output_patch_embedding"}


def test_lora_moves_what_its_adapters_hang_on_and_is_merged_into_plain_weights(
    case: Case, folder: Path, tmp_path: Path
) -> None:
    config = tuned(folder, finetune="lora", lora_r=4)
    seen: list[np.ndarray] = []

    def watch(predictor: Predictor) -> Scored:
        context = case.windows("tune").context(SHORT.context_length, slice(0, 20))
        found = predictor.predict(context, horizon=5, levels=DEFAULT_LEVELS, seed=0)
        seen.append(found.values)
        return Scored({"tune_pinball": 1.0 / len(seen)}, {})  # the last step is the best

    checkpoint = train_case(Chronos2(), config, case, tmp_path / "lora", seed=0, score=watch)
    moved = changed(checkpoint, folder)
    assert moved
    assert all(
        ".self_attention." in n or n == "output_patch_embedding.output_layer.weight" for n in moved
    )
    np.testing.assert_allclose(forecast(checkpoint, case), seen[-1], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "values"),
    [("finetune", ("full", "lora")), ("freeze", ("none", "backbone")), ("lora_r", (1, 4))],
)
def test_each_way_of_fine_tuning_gives_another_forecast(
    case: Case, folder: Path, tmp_path: Path, name: str, values: tuple[Any, Any]
) -> None:
    fixed = {"finetune": "lora", "lora_alpha": 8} if name == "lora_r" else {}
    found = []
    for value in values:
        config = tuned(folder, **{**fixed, name: value})
        out = tmp_path / str(value)
        found.append(forecast(train_case(Chronos2(), config, case, out, seed=0), case))
    assert not np.allclose(found[0], found[1], rtol=1e-6)


def test_micro_batches_and_recomputed_blocks_change_rounding_only(
    case: Case, scratch: Checkpoint, tmp_path: Path
) -> None:
    whole = forecast(scratch, case)
    for name, resources in (
        ("micro", Resources(micro_batch=2)),
        ("recomputed", Resources(gradient_checkpointing=True)),
    ):
        other = train_case(Chronos2(), SHORT, case, tmp_path / name, seed=0, resources=resources)
        np.testing.assert_allclose(forecast(other, case), whole, rtol=1e-4)


def test_forecasts_do_not_depend_on_how_many_windows_are_asked_at_once(
    case: Case, scratch: Checkpoint
) -> None:
    whole = forecast(scratch, case)
    for size in (1, 7):
        again = forecast(scratch, case, inference_batch=size)
        np.testing.assert_allclose(again, whole, rtol=1e-6)


@pytest.mark.parametrize("lora", [False, True])
def test_a_training_that_was_cut_off_ends_as_if_it_had_not_been(
    case: Case, folder: Path, tmp_path: Path, lora: bool
) -> None:
    config = tuned(folder, dropout=0.3, **({"finetune": "lora"} if lora else {}))
    straight = train_case(Chronos2(), config, case, tmp_path / "straight", seed=0)

    def cut(step: int, scores: Any, losses: Any = None) -> None:
        if step == 4:
            raise TrialPruned

    with pytest.raises(TrialPruned):
        train_case(Chronos2(), config, case, tmp_path / "cut", seed=0, report=cut)
    resumed = train_case(
        Chronos2(), config, case, tmp_path / "again", seed=0, resume=tmp_path / "cut"
    )
    np.testing.assert_equal(read_weights(resumed), read_weights(straight))


def test_a_longer_prediction_length_is_learnt_and_cut_to_the_horizon(
    case: Case, scratch: Checkpoint, tmp_path: Path
) -> None:
    config = replace(SHORT, prediction_length=20)
    longer = train_case(Chronos2(), config, case, tmp_path / "longer", seed=0)
    found = forecast(longer, case)
    assert found.shape == (20, 5, 9)
    assert not np.allclose(found, forecast(scratch, case), rtol=1e-6)


def test_the_price_target_shifts_and_scales_with_the_price(case: Case, tmp_path: Path) -> None:
    config = replace(SHORT, target="price", covariates="ohlcv")
    predictor = load(train_case(Chronos2(), config, case, tmp_path / "price", seed=0))
    context = case.windows("tune").context(SHORT.context_length, slice(0, 8))
    dear = replace(context, values=context.values * np.array([64.0, 64.0, 64.0, 64.0, 1.0]))
    first, second = (
        predictor.predict(c, horizon=5, levels=DEFAULT_LEVELS, seed=0).values
        for c in (context, dear)
    )
    np.testing.assert_allclose(second, 64 * first, rtol=1e-5)


def test_an_untrained_network_hands_over_nothing_but_its_report(case: Case, tmp_path: Path) -> None:
    steps: list[int] = []

    def report(step: int, scores: Any, losses: Any = None) -> None:
        steps.append(step)
        silent(step, scores, losses)

    scorer = pinball_scorer(case.windows("tune"), every=4)
    checkpoint = train_case(
        Chronos2(), SHORT, case, tmp_path / "c", seed=0, report=report, score=scorer
    )
    assert steps[-1] == 6
    assert 1 <= checkpoint.card["fitted"]["step"] <= 6, "step 0 is never kept"
    assert checkpoint.config["prediction_length"] == 5
