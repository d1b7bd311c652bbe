"""What the contract suite works with: a made-up panel, and a bench that trains short trials on it.

Nothing but tests imports this file.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from foresweep.data.panel import Bars, Panel
from foresweep.data.splits import Split, make_split
from foresweep.data.windows import Context, TrainWindows, Windows
from foresweep.evaluation.backtest import calibrate, make_scorer
from foresweep.evaluation.leaks import falling_scorer
from foresweep.models.base import (
    DEFAULT_LEVELS,
    Array,
    Checkpoint,
    Facts,
    Forecast,
    ForecastModel,
    Levels,
    Predictor,
    Resources,
    Scored,
    Scorer,
    TrainingJob,
)
from foresweep.models.calibration import load_predictor, store_calibration, wants_calibration
from foresweep.models.checkpoint import read_checkpoint, read_weights
from foresweep.models.config import as_dict, hyperparameters, make_config

HORIZON = 3
MAX_CONTEXT = 256


def contract_panel(num_bars: int = 600, seed: int = 7) -> Panel:
    """Three walks at price levels 8, 90 and 1,400; the last begins 250 bars late."""
    rng = np.random.default_rng(seed)
    first = np.datetime64("2015-01-05", "D")
    timeline = np.busday_offset(first, np.arange(num_bars)).astype("datetime64[ns]")
    starts, levels = (0, 0, 250), (8.0, 90.0, 1400.0)
    bars = tuple(_walk(rng, s, num_bars, x) for s, x in zip(starts, levels, strict=True))
    calendar = np.arange(num_bars)
    return Panel(("LOW", "MID", "LATE"), timeline, (calendar,), (0, 0, 0), bars, "contract")


def _walk(rng: np.random.Generator, start: int, stop: int, level: float) -> Bars:
    n = stop - start
    sigma = 0.012 * np.exp(0.5 * np.sin(np.arange(n) / 20))
    close = level * np.exp(np.cumsum(sigma * rng.standard_t(5, n)))
    before = np.concatenate([[level], close[:-1]])
    opened = before * np.exp(0.3 * sigma * rng.standard_normal(n))
    high = np.maximum(opened, close) * np.exp(0.3 * sigma * np.abs(rng.standard_normal(n)))
    low = np.minimum(opened, close) * np.exp(-0.3 * sigma * np.abs(rng.standard_normal(n)))
    volume = np.round(1e5 * np.exp(0.4 * rng.standard_normal(n)))
    values = np.stack([opened, high, low, close, volume], axis=1)
    values.setflags(write=False)
    return Bars(values, np.arange(start, stop), 0)


def contract_split(panel: Panel) -> Split:
    """About ten origins a part."""
    return make_split(panel, HORIZON, stride=2 * HORIZON, max_context=MAX_CONTEXT)


def shortened(context: Context, rows: int) -> Context:
    """The context as it would be for items with only `rows` bars: masked on the left."""
    mask = context.mask.copy()
    mask[:, :-rows] = False
    return dataclasses.replace(
        context,
        mask=mask,
        values=np.where(mask[:, :, None], context.values, np.nan),
        timestamps=np.where(mask, context.timestamps, np.datetime64("NaT", "ns")),
    )


Mode = Literal["scratch", "full", "lora", "zero-shot"]
"""How a model comes to its weights: `config()` as it is (from scratch), or `tuned_config()`, whose
weights are all trained, carry LoRA adapters, or stay as they are."""
Steer = Literal["tune", "falling", "wavering"]
"""What decides which step is kept: scores on tune, or made-up ones. Falling: the last step is the
best; wavering: the same, but the second scoring is worse than the first."""


class Suite(Protocol):
    """What the bench asks of a contract suite."""

    def config(self) -> Mapping[str, Any]: ...

    def tuned_config(self, folder: Path) -> Mapping[str, Any]: ...


def wavering_scorer() -> Scorer:
    """Falling scores, but for the second: what makes patience lose."""
    calls = iter(range(1, 1_000_000))

    def score(predictor: Predictor) -> Scored:
        call = next(calls)
        value = 2.0 if call == 2 else 1.0 / call
        return Scored({"tune_pct_mae": value, "tune_pinball": value}, {})

    return score


@dataclass(frozen=True, slots=True)
class Trial:
    """One short training."""

    checkpoint: Checkpoint
    predictor: Predictor
    context: Context  # of some tune windows
    forecast: Array  # [N, H, Q] of them
    told: tuple[Mapping[str, float], ...]  # every score that training reported

    def weights(self) -> dict[str, Any]:
        return read_weights(self.checkpoint)


class Bench:
    """Trains short trials of one model in one folder, each only once."""

    def __init__(self, model: ForecastModel, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.panel = contract_panel()
        self.split = contract_split(self.panel)
        self._trials: dict[str, Trial] = {}
        self._tuned: Mapping[str, Any] | None = None

    def facts(self) -> Facts:
        rows = sum(len(self.train_windows(self.panel).values(i)) for i in range(3))
        return Facts(horizon=HORIZON, max_context=self.split.max_context, train_bars=rows)

    def train_windows(self, panel: Panel) -> TrainWindows:
        return TrainWindows(panel, self.split, self.split.part("train"))

    def resolve(self, values: Mapping[str, Any]) -> Any:
        """The resolved config. Raises ConfigError, UnknownName."""
        config = make_config(self.model.Config, values, model=self.model.name)
        return self.model.resolve(config, self.facts())

    def fit(
        self,
        panel: Panel,
        scorer: Scorer,
        values: Mapping[str, Any],
        seed: int = 0,
        *,
        out: Path | None = None,
        resume: Path | None = None,
    ) -> tuple[Checkpoint, list[Mapping[str, float]]]:
        """A fresh training, or one gone on with, and what it reported at its evaluations."""
        told: list[Mapping[str, float]] = []

        def report(
            step: int, scores: Mapping[str, float], losses: Mapping[str, Array] | None = None
        ) -> None:
            if losses is not None:
                told.append({k: v for k, v in scores.items() if k.startswith("tune_")})

        job = TrainingJob(
            self.train_windows(panel),
            self.resolve(values),
            seed=seed,
            horizon=HORIZON,
            score=scorer,
            report=report,
            out=out or self.new_folder(),
            resume=resume,
        )
        checkpoint = self.model.train(job)
        return self.calibrated(checkpoint, panel, values), told

    def new_folder(self) -> Path:
        """A place for one more checkpoint."""
        return self.folder / f"trial-{len(list(self.folder.iterdir()))}"

    def calibrated(
        self, checkpoint: Checkpoint, panel: Panel, values: Mapping[str, Any]
    ) -> Checkpoint:
        """The checkpoint with the calibration that the config asks for, as every trial has it."""
        config = self.resolve(values)
        if not wants_calibration(config):
            return checkpoint
        raw = self.model.load(checkpoint, Resources())
        return store_calibration(checkpoint, calibrate(raw, config, panel, self.split).calibration)

    def trial(self, values: Mapping[str, Any], *, seed: int = 0, steer: Steer = "tune") -> Trial:
        """The trial of these values, steered by tune or by made-up scores."""
        config = make_config(self.model.Config, values, model=self.model.name)
        key = json.dumps([as_dict(config), seed, steer], sort_keys=True)
        if key not in self._trials:
            self._trials[key] = self.fresh(values, seed=seed, steer=steer)
        return self._trials[key]

    def fresh(self, values: Mapping[str, Any], *, seed: int = 0, steer: Steer = "tune") -> Trial:
        """The same, never from memory."""
        made_up = {"falling": falling_scorer, "wavering": wavering_scorer}
        scorer = self.scorer() if steer == "tune" else made_up[steer]()
        return self.result(*self.fit(self.panel, scorer, values, seed))

    def scorer(self) -> Scorer:
        """The scorer on tune that a sweep would give."""
        return make_scorer(self.panel, self.split)

    def result(self, checkpoint: Checkpoint, told: list[Mapping[str, float]]) -> Trial:
        """What a training left behind, asked for some forecasts."""
        predictor = load_predictor(self.model, read_checkpoint(checkpoint.path), Resources())
        context = self.contexts(predictor)
        forecast = ask(predictor, context).values
        return Trial(checkpoint, predictor, context, forecast, tuple(told))

    def of_mode(self, suite: Suite, mode: Mode) -> Mapping[str, Any]:
        """The suite's config in a mode."""
        if mode == "scratch":
            return suite.config()
        tuned = self.tuned(suite)
        if mode == "full":
            return tuned
        if mode == "lora":
            return {**tuned, "finetune": "lora"}
        stages = {h.name: h.stage for h in hyperparameters(self.model.Config)}
        kept = {k: v for k, v in tuned.items() if stages[k] != "training"}
        return {**kept, "finetune": "none"}

    def tuned(self, suite: Suite) -> Mapping[str, Any]:
        """The suite's config that starts from weights, written once."""
        if self._tuned is None:
            folder = self.folder / "pretrained"
            folder.mkdir()
            self._tuned = suite.tuned_config(folder)
        return self._tuned

    def contexts(self, predictor: Predictor) -> Context:
        """Nine windows of tune: three origins of three items."""
        windows = Windows(self.panel, self.split, self.split.part("tune"))
        length = min(predictor.context_length, self.split.max_context)
        return windows.context(length, np.arange(9))


def ask(predictor: Predictor, context: Context, levels: Levels = DEFAULT_LEVELS) -> Forecast:
    """A forecast over the contract's horizon with seed 0."""
    return predictor.predict(context, horizon=HORIZON, levels=levels, seed=0)


def forecast_in_new_process(model: ForecastModel, checkpoint: Path, out: Path) -> Array:
    """The contract's forecast of a checkpoint, from a process that knows nothing else."""
    kind = type(model)
    code = "import sys; from foresweep.evaluation.contract_bench import main; main(*sys.argv[1:])"
    arguments = [kind.__module__, kind.__qualname__, str(checkpoint), str(out)]
    paths = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded: Array = np.load(out)
    return loaded


def main(module: str, name: str, checkpoint: str, out: str) -> None:
    """What `forecast_in_new_process` runs."""
    model: ForecastModel = getattr(importlib.import_module(module), name)()
    bench = Bench(model, Path(checkpoint).parent)
    predictor = load_predictor(model, read_checkpoint(Path(checkpoint)), Resources())
    np.save(out, ask(predictor, bench.contexts(predictor)).values)
