"""Toto beside its authors' own code: forecasting, and a training step.

Forecasting: `TotoForecaster` with its KV cache, all samples in one batch (its fastest setting),
against ours; the same network, the same contexts, the same number of samples. That both speak of
the same distribution is held by the tests, patch by patch (tests/models/toto/test_decoding.py).

Training: a step of the authors' fine-tuning (`FinetuneDataModule`, `TotoForFinetuning` and
Lightning's Trainer, as in `toto.scripts.finetune_toto`, but without its progress bar and logger,
which would only slow it down) against a step of `fit`: the same network, the same prices, one
channel, as many windows a step. Both run in threads that stand still between two steps, so that
steps are timed in turns; a step is all that lies between two batches: data, forward, backward,
optimiser, bookkeeping.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pairs import Row, paired, table

from foresweep.data.demo import demo_panel
from foresweep.data.panel import CLOSE, Panel
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import TrainWindows
from foresweep.models.base import Facts, Resources, TrainingJob
from foresweep.models.toto import network as nets
from foresweep.models.toto.decoding import sample_paths
from foresweep.models.toto.model import Toto, TotoConfig, TotoLearner
from foresweep.models.training.loop import fit, seeded

HORIZON, SAMPLES = 64, 64
BATCH, MORE = 16, 400
Do = Callable[[], object]


def rows(quick: bool = False) -> list[Row]:
    """The table's lines; `quick`: fewer rounds."""
    few = 4 if quick else 1
    return [
        forecast_row("tiny", 256, 1, target=2.0, rounds=40 // few),
        forecast_row("tiny", 256, 16, target=2.0, rounds=12 // few),
        forecast_row("small", 512, 1, target=5.0, rounds=12 // few),
        forecast_row("small", 512, 8, target=5.0, rounds=4 // min(few, 2)),
        training_row("tiny", 256, target=1.05, rounds=120 // few),
        training_row("small", 512, target=0.95, rounds=24 // few),
    ]


def forecast_row(size: str, context: int, num: int, *, target: float, rounds: int) -> Row:
    """`SAMPLES` paths over `HORIZON` bars of `num` random series."""
    network = nets.build(options(size)).eval()
    series = torch.randn(num, 1, context, generator=torch.Generator().manual_seed(0))
    found = paired(our_forecast(network, series), their_forecast(network, series), rounds=rounds)
    what = f"forecast {size}, context {context}, H={HORIZON}, {SAMPLES} samples, windows: {num}"
    return Row(f"Toto {what}", found, target)


def training_row(size: str, context: int, *, target: float, rounds: int) -> Row:
    """A training step in fp32 on the demo panel's one-bar returns."""
    steps = rounds + 10
    with tempfile.TemporaryDirectory() as folder:
        ours = turns(lambda turn: our_training(size, context, steps, turn, Path(folder)))
        theirs = turns(lambda turn: their_training(size, context, steps, turn))
        with ours as mine, theirs as other:
            found = paired(mine, other, rounds=rounds, warm_up=4)
    what = f"training step {size}, {BATCH} windows of {context} bars"
    return Row(f"Toto {what}", found, target, bound="low95")


def options(size: str) -> dict[str, Any]:
    """The authors' constructor's arguments for one of our sizes, without dropout."""
    return nets.network_options(dataclasses.asdict(nets.SIZES[size]), 0.0)


def our_forecast(network: Any, series: torch.Tensor) -> Do:
    """All samples of all windows, drawing the uniforms included."""
    patch = network.patch_embed.stride
    shape = (len(series), SAMPLES, 1, -(-HORIZON // patch) * patch, 3)

    def run() -> object:
        draws = np.random.Generator(np.random.Philox(key=1)).random(shape).astype(np.float32)
        with torch.no_grad():
            return sample_paths(network, series, nets.masks(series)[0], torch.from_numpy(draws))[
                ..., :HORIZON
            ]

    return run


def their_forecast(network: Any, series: torch.Tensor) -> Do:
    """The same by the authors' forecaster."""
    from toto.data.util.dataset import MaskedTimeseries
    from toto.inference.forecaster import TotoForecaster

    forecaster = TotoForecaster(network)
    clock = torch.arange(series.shape[-1]).expand_as(series)
    seen = MaskedTimeseries(series, *nets.masks(series), clock, torch.ones(series.shape[:2]).long())

    def run() -> object:
        return forecaster.forecast(
            seen,
            prediction_length=HORIZON,
            num_samples=SAMPLES,
            samples_per_batch=SAMPLES,
            use_kv_cache=True,
        ).samples

    return run


class Turn:
    """Lets a training take one step at a time."""

    def __init__(self) -> None:
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self.over = False
        self.error: BaseException | None = None

    def step(self) -> None:
        """One step of the training; returns when it has been taken."""
        self._go.release()
        self._done.acquire()
        if self.error is not None:
            raise self.error

    def between(self) -> None:
        """Called by the training between two steps: wait until the next is wanted."""
        self._done.release()
        self._go.acquire()
        if self.over:
            raise Over

    def run(self, training: Callable[[Turn], object]) -> None:
        """The thread's whole life."""
        self._go.acquire()
        try:
            training(self)
        except Over:
            pass
        except BaseException as error:  # handed to the thread that waits for the step
            self.error = error
        self._done.release()

    def end(self) -> None:
        self.over = True
        self._go.release()


class Over(Exception):
    """No further step is wanted."""


@contextlib.contextmanager
def turns(training: Callable[[Turn], object]) -> Iterator[Do]:
    """A training in a thread of its own, standing still between two steps.

    Deterministic algorithms are a switch of the whole process: each side runs with its own.
    """
    turn = Turn()
    thread = threading.Thread(target=turn.run, args=(training,), daemon=True)
    thread.start()
    strict = False

    def step() -> None:
        nonlocal strict
        torch.use_deterministic_algorithms(strict)
        turn.step()
        strict = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)

    step()  # whatever comes before the first batch
    try:
        yield step
    finally:
        turn.end()
        thread.join()


def our_training(size: str, context: int, steps: int, turn: Turn, folder: Path) -> None:
    """`fit`, as a trial calls it, with a learner that waits before each batch."""
    panel = demo_panel()
    split = make_split(panel, Cut(1))
    config = Toto().resolve(
        TotoConfig(
            size=size,  # type: ignore[arg-type]
            context_length=context + 1,  # a return takes two closes
            target="return",
            covariates="none",
            batch_size=BATCH,
            max_steps=steps,
            lr=1e-4,
            **settled(precision="fp32"),
        ),
        Facts(horizon=1, max_context=1024, train_bars=1000),
    )

    class Waiting(TotoLearner):
        def draw(self, *args: Any, **more: Any) -> Any:
            turn.between()
            return super().draw(*args, **more)

    train = TrainWindows(panel, split, split.part("train"))
    with seeded(0, Resources()):
        network = nets.build(options(size))
    learner = Waiting(network, train, config, 1, Resources())
    fit(
        learner,
        TrainingJob(train, config, horizon=1, out=folder / size),
    )


def settled(**values: Any) -> dict[str, Any]:
    """Those of the values that configs have a field for."""
    known = {f.name for f in dataclasses.fields(TotoConfig)}
    return {k: v for k, v in values.items() if k in known}


def their_training(size: str, context: int, steps: int, turn: Turn) -> None:
    """The authors' fine-tuning with a callback that waits after each batch."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from lightning.pytorch import Callback, Trainer
    from toto.data.datamodule.finetune_datamodule import FinetuneDataModule
    from toto.model.lightning_module import TotoForFinetuning

    class Waiting(Callback):  # type: ignore[misc]
        def on_train_start(self, *_: Any) -> None:
            turn.between()

        def on_train_batch_end(self, *_: Any) -> None:
            turn.between()

    patch = nets.SIZES[size].patch_size
    with seeded(0, Resources()):
        module = TotoForFinetuning(
            pretrained_backbone=nets.build(options(size)), lr=1e-4, warmup_steps=max(1, steps // 10)
        )
    data = FinetuneDataModule(
        dataset=returns_dataset(demo_panel()),
        max_context_length=context,
        prediction_horizon=patch,
        patch_size=patch,
        train_batch_size=BATCH,
        num_train_samples=MORE,
        target_fields=["target"],
        target_transform_fns=[as_it_is],
        ev_fields=["feature"],
        ev_transform_fns=[as_it_is],
    )
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        callbacks=[Waiting()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=data)


def as_it_is(values: Any) -> Any:
    return values


def returns_dataset(panel: Panel) -> Any:
    """One-bar returns in percent, one row an item, in the form that the authors' data module takes;
    it wants a feature field, too, and is told not to use it."""
    import datasets

    datasets.disable_progress_bars()
    found = []
    for item, bars in zip(panel.items, panel.bars, strict=True):
        close = bars.values[:, CLOSE]
        moves = 100 * np.diff(np.log(close[np.isfinite(close)]))
        clock = np.arange(len(moves)).astype("datetime64[D]").astype("datetime64[ms]")
        row = {"id": item, "timestamp": clock, "target": moves, "feature": moves}
        found.append(row)
    dataset = datasets.Dataset.from_list(found)
    dataset.set_format("numpy")
    return dataset


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(table(rows(quick="--quick" in sys.argv)))
