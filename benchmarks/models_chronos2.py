"""Chronos-2 beside its authors' own code: forecasting, and a training step.

Forecasting: `Chronos2Pipeline.predict_quantiles` with its default batch against our predictor. The
same network; theirs is handed ready series, ours begins with bars and ends with prices. Before
anything is timed the networks' quantiles must be equal to 1e-5.

Training: a step of `Chronos2Pipeline.fit` (its Trainer, its dataset; what it does before its first
step and after its last one is not counted) against a step of `fit` as a trial calls it: the same
network, the same one-bar returns, as many windows. A round is a short training of each in turn and
compares their mean steps; a step is all that lies between two batches. Dropout is the authors' .1
unless said. That losses on equal batches are equal is held by tests/slow/test_chronos2_authors.py.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chronos import Chronos2Pipeline
from chronos.chronos2 import Chronos2Model
from pairs import Row, paired, summary, table
from transformers.trainer_callback import TrainerCallback
from transformers.utils import logging

from foresweep.data.demo import demo_panel
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import TrainWindows, Windows
from foresweep.models.base import DEFAULT_LEVELS, Facts, Resources, TrainingJob, TrialPruned
from foresweep.models.chronos2 import network as net
from foresweep.models.chronos2.model import (
    Chronos2,
    Chronos2Config,
    Chronos2Learner,
    Chronos2Predictor,
    encode,
)
from foresweep.models.representation import Representation
from foresweep.models.training.loop import fit, seeded
from foresweep.models.training.optimisation import Adapted, WindowSampler, no_norm_or_bias

HORIZON, CONTEXT = 64, 512


def rows(quick: bool = False) -> list[Row]:
    """The table's lines; `quick`: fewer rounds."""
    logging.disable_progress_bar()
    few = 4 if quick else 1
    lines = [
        forecast_row("tiny", "return", 447, target=1.5, rounds=24 // few),
        forecast_row("tiny", "overlapping", 64, target=None, rounds=12 // few),
        training_row(Step("tiny", 256, 0.1, steps=3), target=2.0, rounds=8 // few),
        training_row(Step("tiny", 256, 0.0, steps=3), target=2.0, rounds=8 // few),
        training_row(Step("tiny", 32, 0.1), target=1.1, rounds=16 // few),
        training_row(Step("tiny", 32, 0.0), target=1.1, rounds=16 // few),
    ]
    if not quick:
        for precision in ("fp32", "bf16"):
            step = Step("small", 32, 0.1, precision, steps=1)
            lines.append(training_row(step, target=1.1, rounds=3))
    return lines


def forecast_row(
    size: Any, view_target: Any, num: int, *, target: float | None, rounds: int
) -> Row:
    """`num` windows of the demo panel: one channel of one-bar returns, or one a lead and the bars
    as covariates."""
    panel = demo_panel()
    split = make_split(panel, Cut(HORIZON))
    windows = Windows(panel, split, split.part("val"))
    context = windows.context(CONTEXT, np.arange(num) % len(windows))
    covariates = "none" if view_target == "return" else "ohlcv"
    config = settled(size=size, target=view_target, covariates=covariates, dropout=0.0)
    view = config.view(HORIZON)
    network = build(config, view)
    predictor = Chronos2Predictor(network, config, view, Resources())
    pipeline = Chronos2Pipeline(as_theirs(network))
    channels = encode(view, context.values, CONTEXT)[0].astype(np.float32)
    check(network, pipeline, channels)

    def ours() -> object:
        return predictor.predict(context, horizon=HORIZON, levels=DEFAULT_LEVELS, seed=0)

    def theirs() -> object:
        return pipeline.predict_quantiles(channels, HORIZON, quantile_levels=list(DEFAULT_LEVELS))

    what = f"{num} windows of {view.num_channels} channel(s), context {CONTEXT}, H={HORIZON}"
    return Row(f"Chronos-2 forecast {size}, {what}", paired(ours, theirs, rounds=rounds), target)


def check(network: Any, pipeline: Chronos2Pipeline, channels: np.ndarray) -> None:
    """Raises AssertionError where the forecasts of some windows differ by more than rounding."""
    some = torch.from_numpy(channels[:16])
    with torch.no_grad():
        found = net.quantiles(network, some, HORIZON)
    wanted = torch.stack(pipeline.predict(some, HORIZON)).mT.sort(dim=-1).values
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@dataclass(frozen=True)
class Step:
    """What a training row trains."""

    size: str
    batch: int
    dropout: float
    precision: str = "fp32"
    steps: int = 6  # timed ones in a round


def training_row(step: Step, *, target: float, rounds: int) -> Row:
    """Steps on one-bar returns of the demo panel."""
    panel = demo_panel()
    split = make_split(panel, Cut(1))
    train = TrainWindows(panel, split, split.part("train"))
    config = settled(
        size=step.size, batch_size=step.batch, dropout=step.dropout, precision=step.precision,
        target="return", covariates="none", max_steps=10_000, lr=1e-4,
    )  # fmt: skip
    series = [np.diff(100 * np.log(train.values(i)[:, 3])) for i in range(panel.num_items)]
    network = build(config, config.view(HORIZON))
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    sides: dict[str, Callable[[], float]] = {
        "ours": lambda: our_step(train, config, network, step.steps),
        "theirs": lambda: their_step(series, config, network, step.steps),
    }
    for round_ in range(rounds + 1):
        gc.collect()
        for side in sorted(sides, reverse=round_ % 2 == 0):
            found = sides[side]()
            if round_:  # the first one warms up
                times[side].append(found)
    what = f"training step {step.size}, {step.batch} windows of {CONTEXT} bars"
    note = "no dropout" if not step.dropout else "ours in bf16" if step.precision == "bf16" else ""
    return Row(f"Chronos-2 {what}", summary(times["ours"], times["theirs"]), target, note=note)


def settled(**values: Any) -> Chronos2Config:
    """A resolved config that speaks of HORIZON bars."""
    facts = Facts(horizon=HORIZON, max_context=CONTEXT, train_bars=10_000)
    return Chronos2().resolve(Chronos2Config(context_length=CONTEXT, **values), facts)


def build(config: Chronos2Config, view: Representation) -> Any:
    """Our network of a config, in evaluation mode."""
    core = net.core_config(
        patch_size=config.patch_size or 0,
        d_model=config.d_model or 0,
        d_ff=config.d_ff or 0,
        num_layers=config.num_layers or 0,
        num_heads=config.num_heads or 0,
        dropout=config.dropout or 0.0,
        context_length=CONTEXT,
        label_length=view.horizon,
    )
    with seeded(0, Resources()):
        return net.build(core).eval()


def as_theirs(network: Any) -> Chronos2Model:
    """The authors' network with the same weights."""
    theirs = Chronos2Model(network.config)
    theirs.load_state_dict(network.state_dict())
    return theirs.eval()


def our_step(train: TrainWindows, config: Chronos2Config, network: Any, steps: int) -> float:
    """Seconds of a mean step of `fit`."""
    clock: list[float] = []

    class Timed(Chronos2Learner):
        def draw(self, *args: Any, **more: Any) -> Any:
            clock.append(time.perf_counter())
            if len(clock) > steps + 1:
                raise TrialPruned
            return super().draw(*args, **more)

    view = config.view(HORIZON)
    sampler = WindowSampler(train, CONTEXT, HORIZON, config)
    learner = Timed(network, Adapted(network), {}, sampler, config, view, Resources())
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(TrialPruned):
        fit(
            learner,
            TrainingJob(train, config, horizon=HORIZON, out=Path(folder) / "c"),
            decays=no_norm_or_bias,
        )
    return (clock[-1] - clock[1]) / (len(clock) - 2)


class Clock(TrainerCallback):
    """When each step of their Trainer began."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.at.append(time.perf_counter())


def their_step(series: list[Any], config: Chronos2Config, network: Any, steps: int) -> float:
    """Seconds of a mean step of `Chronos2Pipeline.fit`."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        Chronos2Pipeline(as_theirs(network)).fit(
            series,
            prediction_length=HORIZON,
            context_length=CONTEXT,
            min_past=CONTEXT,
            learning_rate=config.lr,
            num_steps=steps + 2,
            batch_size=config.batch_size,
            output_dir=folder,
            callbacks=[clock],
            remove_printer_callback=True,
            disable_tqdm=True,
        )
    return (clock.at[-1] - clock.at[1]) / (len(clock.at) - 2)


if __name__ == "__main__":
    import sys

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(table(rows(quick="--quick" in sys.argv)))
