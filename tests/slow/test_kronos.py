"""Kronos really learns: a sine nearly perfectly, and its own loss on real prices."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from foresweep.data.demo import demo_panel
from foresweep.data.windows import Windows
from foresweep.models.base import Facts, Predictor, Resources, Scored
from foresweep.models.checkpoint import read_checkpoint
from foresweep.models.kronos.config import KronosConfig, Nets, architecture_of, build
from foresweep.models.kronos.model import (
    Kronos,
    KronosPredictor,
    PredictorLearner,
    TokenizerLearner,
    TrainingBars,
    normalise,
    time_stamps,
)
from foresweep.models.training.loop import Learner
from foresweep.models.training.optimisation import adamw, every_parameter
from kronos_tiny import token_loss
from panels import sine_panel
from sine import SEEDS, Case, forecast_test, judge, make_case, train_case

pytestmark = pytest.mark.slow

SINE = KronosConfig(
    size="tiny", target="return", context_length=96, batch_size=16, lr=3e-3, max_steps=200,
    tokenizer_fraction=0.42, warmup_fraction=0.05, num_samples=20,
)  # fmt: skip
"""84 tokenizer and 116 predictor steps of 38 ms on one thread."""
DEMO = KronosConfig(
    context_length=96, batch_size=16, lr=2e-3, max_steps=60, d_model=32, ff_dim=64,
    token_bits=5, tokenizer_d_model=32, num_samples=32,
)  # fmt: skip


def test_a_sine_is_forecast_nearly_perfectly_from_one_bar_returns(tmp_path: Path) -> None:
    case = make_case(sine_panel(seed=0))
    started = time.process_time()
    checkpoint = train_case(Kronos(), SINE, case, tmp_path / "sine", seed=0)
    seconds = time.process_time() - started
    predictor = Kronos().load(read_checkpoint(checkpoint.path), Resources())
    judged = judge(forecast_test(predictor, case).median, case)
    assert not judged.faults(skill=0.88, slope=0.04), judged
    assert seconds <= 120


class OwnLoss:
    """A scorer that takes the predictor's own loss on fixed tune windows, too."""

    def __init__(self, windows: Windows, length: int) -> None:
        self.found: list[float] = []
        bars = np.concatenate([windows.context(length).values, windows.label_bars], axis=1)
        context = windows.context(length)
        times = np.concatenate([context.timestamps, context.future_timestamps], axis=1)
        x = normalise(bars, length, "return").x
        self._x = torch.from_numpy(x.astype(np.float32))
        self._stamps = torch.from_numpy(time_stamps(times))

    def of(self, nets: Nets) -> float:
        return token_loss(nets, self._x, self._stamps)

    def __call__(self, predictor: Predictor) -> Scored:
        assert isinstance(predictor, KronosPredictor)
        self.found.append(self.of(predictor.nets))
        return Scored({"tune_pinball": self.found[-1]}, {})


@pytest.mark.parametrize("seed", SEEDS)
def test_its_own_loss_on_real_tune_windows_falls_by_15_percent(seed: int, tmp_path: Path) -> None:
    case = demo_case()
    own = OwnLoss(case.windows("tune"), DEMO.context_length)
    done = train_case(Kronos(), DEMO, case, tmp_path / "demo", seed=seed, score=own)
    checkpoint = read_checkpoint(done.path)
    nets = Kronos().load(checkpoint, Resources()).nets
    torch.manual_seed(seed)
    untrained = build(checkpoint.card["network"]).predictor
    first = own.of(Nets(nets.tokenizer, untrained))
    assert min(own.found) == own.of(nets), "the kept step is the best one"
    assert 1 - min(own.found) / first >= 0.15, (first, own.found)


@pytest.mark.parametrize("size", ["mini", "small", "base"])
def test_a_published_size_takes_a_real_step_of_both_nets(size: str) -> None:
    """Short windows and a small batch: the same batch costs less after the step than before."""
    made = KronosConfig(
        size=size, context_length=28, batch_size=2, lr=1e-5, dropout=0.0, max_steps=2,  # type: ignore[arg-type]
    )  # fmt: skip
    case = demo_case()
    config = Kronos().resolve(made, Facts(horizon=5, max_context=64, train_bars=1000))
    torch.manual_seed(0)
    nets = build(architecture_of(config))
    bars = TrainingBars(case.train, config, 4)
    live = KronosPredictor(nets, config, Resources())
    for kind in (TokenizerLearner, PredictorLearner):
        learner = kind(nets, bars, live)
        batch = learner.draw(np.random.default_rng(0), config.batch_size)
        before = step_loss(learner, batch)
        before.backward()
        adamw(learner.module, config, Resources(), every_parameter).step()
        with torch.no_grad():
            assert float(step_loss(learner, batch)) < float(before)


def step_loss(learner: Learner, batch: object) -> torch.Tensor:
    torch.manual_seed(1)
    return learner.loss(batch)


def demo_case() -> Case:
    return make_case(demo_panel(), horizon=5)
