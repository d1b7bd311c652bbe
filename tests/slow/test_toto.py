"""Toto really learns, and a broken pipeline shows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from foresweep.data.demo import demo_panel
from foresweep.data.windows import Context, TrainWindows
from foresweep.models.base import DEFAULT_LEVELS, Levels, Resources, Scored, TrainingJob
from foresweep.models.checkpoint import read_checkpoint, read_weights
from foresweep.models.toto.decoding import Newest, draw
from foresweep.models.toto.model import (
    Toto,
    TotoConfig,
    TotoLearner,
    TotoPredictor,
    start,
    usable_rows,
)
from foresweep.models.training.loop import _Run, inference, seeded
from foresweep.models.training.optimisation import every_parameter
from panels import sine_panel
from sine import SEEDS, Case, Judged, forecast_test, judge, make_case, silent, train_case

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("toto")]  # one training of the sine

SINE = TotoConfig(
    covariates="none",
    target="return",
    lr=2e-3,
    batch_size=16,
    max_steps=500,
    warmup_fraction=0.04,
    context_length=128,
)
DEMO = TotoConfig(lr=2e-3, batch_size=8, max_steps=160, context_length=128)


def loaded(path: Path) -> TotoPredictor:
    return Toto().load(read_checkpoint(path), Resources())


@pytest.fixture(scope="module", params=SEEDS)
def sine(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, TotoPredictor]:
    """A sine panel and a Toto trained on it, one of three seeds."""
    seed = request.param
    case = make_case(sine_panel(seed=seed))
    out = tmp_path_factory.mktemp("sine") / "checkpoint"
    train_case(Toto(), SINE, case, out, seed=seed, every=4)
    return case, loaded(out)


def judged(case: Case, predictor: Any) -> Judged:
    return judge(forecast_test(predictor, case).median, case)


def test_sines_are_forecast_nearly_perfectly(sine: tuple[Case, TotoPredictor]) -> None:
    found = judged(*sine)
    assert not found.faults(skill=0.93, slope=0.03), found


class Broken:
    """A predictor with a fault planted in what it sees or says."""

    def __init__(self, inner: TotoPredictor, fault: Callable[..., np.ndarray]) -> None:
        self.inner, self.fault = inner, fault
        self.context_length = inner.context_length

    def predict(self, context: Context, *, horizon: int, levels: Levels, seed: int) -> Any:
        found = self.inner.predict(context, horizon=horizon, levels=levels, seed=seed)
        return replace(found, values=self.fault(self.inner, context, found.values))


def scaled(factor: float) -> Callable[..., np.ndarray]:
    def fault(_: Any, context: Context, values: np.ndarray) -> np.ndarray:
        base = context.last_close[:, None, None]
        return base * (1 + factor * (values / base - 1))

    return fault


def one_bar_late(inner: Any, context: Context, values: np.ndarray) -> np.ndarray:
    """The context ends a bar early, and nobody noticed."""
    behind = replace(context, values=np.roll(context.values, 1, axis=1))
    behind.values[:, 0] = context.values[:, 0]
    return inner.predict(behind, horizon=values.shape[1], levels=DEFAULT_LEVELS, seed=0).values


def path_begins_with_last_close(_: Any, context: Context, values: np.ndarray) -> np.ndarray:
    first = np.broadcast_to(context.last_close[:, None, None], values[:, :1].shape)
    return np.concatenate([first, values[:, :-1]], axis=1)


def percent_read_as_fraction(_: Any, context: Context, values: np.ndarray) -> np.ndarray:
    base = context.last_close[:, None, None]
    return base * np.exp(np.clip(100 * np.log(values / base), -50, 50))


@pytest.mark.parametrize(
    "fault",
    [
        one_bar_late,
        path_begins_with_last_close,
        scaled(0.9),
        scaled(1.1),
        percent_read_as_fraction,
        scaled(0.01),
    ],
    ids=["late", "early", "x0.9", "x1.1", "percent as fraction", "divided by 100"],
)
def test_a_planted_fault_is_caught(sine: tuple[Case, TotoPredictor], fault: Any) -> None:
    case, predictor = sine
    assert judged(case, Broken(predictor, fault)).faults(skill=0.93, slope=0.03)


def test_a_forecast_that_is_not_put_back_into_its_units_is_caught(
    sine: tuple[Case, TotoPredictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    case, predictor = sine

    def bare(self: Newest, draws: Any) -> Any:
        return draw(self.mixture, draws)

    monkeypatch.setattr(Newest, "sample", bare)
    assert judged(case, predictor).faults(skill=0.93, slope=0.03)


def test_another_items_statistics_are_caught(sine: tuple[Case, TotoPredictor]) -> None:
    case, predictor = sine

    def swapped(_: Any, context: Context, values: np.ndarray) -> np.ndarray:
        base = context.last_close
        return values / base[:, None, None] * np.roll(base, 1)[:, None, None]

    assert judged(case, Broken(predictor, swapped)).faults(skill=0.93, slope=0.03)


@pytest.mark.parametrize("seed", SEEDS)
def test_toto_learns_the_demo_panel(seed: int, tmp_path: Path) -> None:
    """Its own loss on the labels of fixed tune windows falls by at least 5 %."""
    case = make_case(demo_panel(), horizon=5)
    config = Toto().resolve(DEMO, case.facts)
    tune = TrainWindows(case.panel, case.split, case.split.part("tune"))
    with seeded(seed, Resources()):
        network, _ = start(config)
    learner = TotoLearner(network, tune, config, 5, Resources())
    rows = usable_rows(config.context_length, 5, 8)
    item, row = (found[::6] for found in tune.starts(rows, 8))
    batch = (learner.series(tune.cut(item, row, rows + 8)[0]),)

    def own_loss(module: Any) -> float:
        learner.module = module
        with inference(module, Resources()):
            patch = learner.losses(batch)[..., -8:]
        return float(patch[..., :5].mean())

    losses = [own_loss(network)]

    def score(predictor: Any) -> Scored:
        losses.append(own_loss(predictor.network))
        return Scored({"tune_pinball": losses[-1]}, {})

    checkpoint = train_case(Toto(), DEMO, case, tmp_path / "c", seed=seed, score=score)
    assert own_loss(loaded(checkpoint.path).network) == pytest.approx(min(losses[1:]), abs=1e-6)
    assert min(losses[1:]) < 0.95 * losses[0], losses


def test_a_training_cut_short_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    case = make_case(sine_panel(600))
    config = replace(SINE, max_steps=24, dropout=0.2)
    whole = train_case(Toto(), config, case, tmp_path / "a", seed=0, every=20)

    class Killed(Exception):
        pass

    def dies(step: int, scores: Any, losses: Any = None) -> None:
        if step == 15:
            raise Killed

    with pytest.raises(Killed):
        train_case(Toto(), config, case, tmp_path / "b", seed=0, every=20, report=dies)
    rest = train_case(Toto(), config, case, tmp_path / "c", seed=0, every=20, resume=tmp_path / "b")
    np.testing.assert_equal(read_weights(rest), read_weights(whole))
    assert rest.card["fitted"] == whole.card["fitted"]


def test_micro_batches_change_rounding_only(tmp_path: Path) -> None:
    case = make_case(sine_panel(600))
    config = replace(SINE, max_steps=5)
    whole = train_case(Toto(), config, case, tmp_path / "a", seed=0, report=silent)
    resources = Resources(micro_batch=5)
    parts = train_case(Toto(), config, case, tmp_path / "b", seed=0, resources=resources)
    for name, value in read_weights(parts).items():
        np.testing.assert_allclose(value, read_weights(whole)[name], atol=2e-4)


def test_the_published_size_takes_a_real_training_step() -> None:
    """151 million parameters, forward, backward and AdamW, within 4 GiB."""
    case = make_case(sine_panel(600))
    wanted = replace(
        SINE, size="base", context_length=129, batch_size=1, max_steps=1, warmup_fraction=0.0
    )
    config = Toto().resolve(wanted, case.facts)
    with seeded(0, Resources()), peak_memory() as peak:
        network, _ = start(config)
        watched = network.get_parameter("patch_embed.projection.weight")
        before = watched.detach().clone()
        train = TrainWindows(case.panel, case.split, case.split.part("train"))
        learner = TotoLearner(network, train, config, case.split.horizon, Resources())
        run = _Run(learner, TrainingJob(train, config, horizon=1, out=Path()), every_parameter)
        run.advance(0)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == 151
    assert np.isfinite(run.losses).all()
    assert not torch.equal(before, watched)
    assert peak[0] < 4 * 2**30


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Bytes that the process grew by at its largest inside, looked at 50 times a second."""
    process, ended = psutil.Process(), threading.Event()
    start_rss, peak = process.memory_info().rss, [0]

    def watch() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss - start_rss)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()
