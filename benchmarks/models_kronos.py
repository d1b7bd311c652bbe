"""Kronos beside its authors' own code: forecasting by sampled paths, and a training step.

Forecasting: the package's `KronosPredictor.predict` against our `KronosPredictor.paths`, from
prices to prices: the same nets, the same window, as many samples. Before anything is timed both
samplers are given the same draws and must give the same paths.

Training: a step of the predictor as in the authors' finetune script (tokens encoded in every step,
AdamW as torch has it, OneCycle, clipping at 3; their script itself needs torchrun, CUDA and qlib)
against a step of our loop: the same nets and windows. Theirs is handed its windows ready made, as
by the loader's workers; ours draws them. Our memory of tokens is warm: every window has been drawn
once before (one line shows a cold one). Before anything is timed both must give the same loss for
the same batch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from kronos_finance._vendor.kronos_model.kronos import KronosPredictor as TheirPredictor
from kronos_finance._vendor.kronos_model.kronos import auto_regressive_inference
from pairs import Row, paired, table

from foresweep.data.demo import demo_panel
from foresweep.data.panel import Panel
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import Context, TrainWindows, make_context
from foresweep.models.base import Facts, Resources, TrainingJob
from foresweep.models.kronos.config import KronosConfig, Nets, architecture_of, build
from foresweep.models.kronos.model import (
    Kronos,
    KronosPredictor,
    PredictorLearner,
    TrainingBars,
    encode,
    time_stamps,
)
from foresweep.models.kronos.sampling import Sampling, sample_paths
from foresweep.models.training.loop import _Run, seeded
from foresweep.models.training.optimisation import every_parameter

SAMPLES, CONTEXT = 20, 400
LOOKBACK, AHEAD, BATCH = 90, 10, 16
CLIP = 3.0
Do = Callable[[], object]


def rows(quick: bool = False) -> list[Row]:
    """The table's lines; `quick`: fewer rounds, and mini's long horizon left out."""
    few = 4 if quick else 1
    found = [
        sampling_row("tiny", 20, rounds=12 // few),
        sampling_row("tiny", 64, rounds=8 // few),
        sampling_row("tiny", 20, rounds=12 // few, top_p=0.9),
        sampling_row("mini", 20, rounds=3 if not quick else 1),
        training_row("tiny", target=1.05, rounds=120 // few),
        training_row("tiny", target=None, rounds=120 // few, warm=False),
        training_row("mini", target=0.95, rounds=20 // few),
        training_row("mini", target=0.95, rounds=20 // few, precision="bf16"),
        training_row("small", target=0.95, rounds=8 // few),
    ]
    if not quick:
        found.insert(4, sampling_row("mini", 64, rounds=2))
    return found


def sampling_row(size: str, horizon: int, *, rounds: int, top_p: float = 1.0) -> Row:
    """`SAMPLES` paths of one window of the demo panel."""
    config = resolved(size, context_length=CONTEXT, num_samples=SAMPLES, top_p=top_p)
    with seeded(0, Resources()):
        nets = build(architecture_of(config))
    context = one_window(demo_panel(), horizon)
    check_paths(nets, config, horizon)
    found = paired(
        our_forecast(nets, config, context, horizon),
        their_forecast(nets, config, context, horizon),
        rounds=rounds,
        warm_up=1 if size == "tiny" else 0,
    )
    draws = "" if top_p == 1 else f", top_p {top_p}"
    what = f"Kronos forecast {size}, context {CONTEXT}, H={horizon}, {SAMPLES} samples{draws}"
    return Row(what, found, 30.0)


def training_row(
    size: str, *, target: float | None, rounds: int, precision: str = "fp32", warm: bool = True
) -> Row:
    """A step of the predictor on the demo panel."""
    config = resolved(
        size,
        context_length=LOOKBACK,
        prediction_length=AHEAD,
        batch_size=BATCH,
        target="price",
        gradient_clip=CLIP,
        dropout=0.0,
        max_steps=1000,
        precision=precision,
    )
    with seeded(0, Resources()):
        nets = build(architecture_of(config))
    panel = demo_panel()
    split = make_split(panel, Cut(AHEAD))
    bars = TrainingBars(TrainWindows(panel, split, split.part("train")), config, AHEAD)
    theirs = their_training(copy.deepcopy(nets), bars, config)
    ours = our_training(nets, bars, config, rounds + 4 if warm else 0)
    found = paired(ours, theirs, rounds=rounds)
    what = f"Kronos predictor's step {size}, {BATCH} windows of {LOOKBACK} + {AHEAD} bars"
    note = "" if precision == "fp32" else f"ours in {precision}"
    note = note if warm else "no token remembered"
    return Row(what, found, target, bound="low95", note=note)


def resolved(size: str, **values: Any) -> KronosConfig:
    """A config from scratch, settled as a sweep would."""
    config = KronosConfig(size=size, **values)  # type: ignore[arg-type]
    return Kronos().resolve(config, Facts(horizon=5, max_context=2048, train_bars=10_000))


def one_window(panel: Panel, horizon: int) -> Context:
    """The last window of the first item that has all its future."""
    row = len(panel.bars[0].values) - horizon - 1
    return make_context(panel, np.array([0]), np.array([row]), CONTEXT, horizon)


def our_forecast(nets: Nets, config: KronosConfig, context: Context, horizon: int) -> Do:
    predictor = KronosPredictor(nets, config, Resources())
    return lambda: predictor.paths(context, horizon=horizon, seed=0)


def their_forecast(nets: Nets, config: KronosConfig, context: Context, horizon: int) -> Do:
    nets.eval()
    predictor = TheirPredictor(nets.predictor, nets.tokenizer, device="cpu", max_context=512)
    frame = pd.DataFrame(context.values[0], columns=list(context.columns))
    past, ahead = (
        pd.Series(t[0]) for t in (context.timestamps, context.future_timestamps[:, :horizon])
    )

    def run() -> object:
        return predictor.predict(
            frame,
            past,
            ahead,
            pred_len=horizon,
            T=config.temperature,
            top_p=config.top_p,
            sample_count=config.num_samples,
            verbose=False,
        )

    return run


def check_paths(nets: Nets, config: KronosConfig, horizon: int) -> None:
    """The same draws must give the same paths: three bars ahead where a long run would take
    minutes."""
    steps = horizon if config.size == "tiny" else 3
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, CONTEXT, 6, generator=generator)
    stamps = torch.randint(0, 7, (1, CONTEXT + steps, 5), generator=generator)
    past, future = stamps[:, :CONTEXT], stamps[:, CONTEXT:]
    how = Sampling(SAMPLES, config.temperature, config.top_p)
    pair = nets.tokenizer, nets.predictor
    with seeded(7, Resources()):
        ours = sample_paths(*pair, x.clip(-5, 5), past, future, how, multinomial).mean(dim=1)
    with seeded(7, Resources()):
        theirs = auto_regressive_inference(
            *pair, x, past, future, 512, steps,
            T=how.temperature, top_k=0, top_p=how.top_p, sample_count=SAMPLES,
        )  # fmt: skip
    np.testing.assert_allclose(ours.numpy(), theirs[:, -steps:], atol=1e-5)


def multinomial(probs: torch.Tensor, step: int, half: int) -> torch.Tensor:
    return torch.multinomial(probs, 1)[:, 0]


def our_training(nets: Nets, bars: TrainingBars, config: KronosConfig, steps: int) -> Do:
    """A step of the loop, deterministic algorithms on as in `fit`; the tokens of the first `steps`
    are remembered before."""
    live = KronosPredictor(nets, config, Resources())
    learner = PredictorLearner(nets, bars, live)
    run = _Run(learner, TrainingJob(None, config, horizon=1, out=Path()), every_parameter)
    before = copy.deepcopy(run.rng)
    for _ in range(steps):
        learner.draw(before, config.batch_size)
    check_loss(nets, learner, bars)

    def step() -> None:
        torch.use_deterministic_algorithms(True)
        try:
            run.advance(0)
        finally:
            torch.use_deterministic_algorithms(False)

    return step


def check_loss(nets: Nets, learner: PredictorLearner, bars: TrainingBars) -> None:
    """The loop's loss of a batch is the script's, in the same precision."""
    batch = learner.draw(np.random.default_rng(0), BATCH)
    x = torch.from_numpy(bars.seen(bars.draw(np.random.default_rng(0), BATCH).bars))
    with seeded(3, Resources()), torch.no_grad():
        ours = float(learner.loss(batch))
    with seeded(3, Resources()), torch.no_grad():
        theirs = float(script_loss(nets, x, batch[1]))
    assert math.isclose(ours, theirs, rel_tol=1e-6), (ours, theirs)


def script_loss(nets: Nets, x: torch.Tensor, stamps: torch.Tensor) -> Any:
    """Tokens of the batch, then the cross-entropy of each next one."""
    coarse, fine = encode(nets.tokenizer, x)
    logits = nets.predictor(coarse[:, :-1], fine[:, :-1], stamps[:, :-1])
    return nets.predictor.head.compute_loss(*logits, coarse[:, 1:], fine[:, 1:])[0]


def their_training(nets: Nets, bars: TrainingBars, config: KronosConfig) -> Do:
    """The script's step, on windows that lie ready."""
    nets.tokenizer.requires_grad_(False).eval()
    nets.predictor.train()
    optimizer = torch.optim.AdamW(
        nets.predictor.parameters(), lr=config.lr, betas=(0.9, 0.95), weight_decay=0.1
    )
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=config.lr, total_steps=10_000, pct_start=0.03, div_factor=10
    )
    batches = ready(bars, 8)

    def step() -> None:
        loss = script_loss(nets, *next(batches))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(nets.predictor.parameters(), max_norm=CLIP)
        optimizer.step()
        rate.step()

    return step


def ready(bars: TrainingBars, num: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """`num` batches of windows and time stamps, over and over."""
    rng, batches = np.random.default_rng(5), []
    for _ in range(num):
        drawn = bars.draw(rng, BATCH)
        stamps = torch.from_numpy(time_stamps(drawn.timestamps))
        batches.append((torch.from_numpy(bars.seen(drawn.bars)), stamps))
    while True:
        yield from batches


if __name__ == "__main__":
    import sys

    torch.set_num_threads(1)
    print(table(rows(quick="--quick" in sys.argv)))
