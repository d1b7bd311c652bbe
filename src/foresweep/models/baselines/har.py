"""HAR: tomorrow's volatility from that of the last day, week, month and quarter, by least squares.

The heterogeneous autoregression of Corsi (2009, J. Financial Econometrics 7) in logs, pooled over
items, on Garman-Klass variances with the opening gap: for each lead h

    log mean(v[t+1..t+h]) = a + sum over w in 1, 5, 20, 60 of b_w log mean(v[t-w+1..t])

The median is the last close; quantiles are those of the moves of train over the volatility that was
forecast for them. Everything is fitted on train, once, in well below a second. What all items have
in common (a market's volatility) is left out: a forecast may depend on its own context alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from foresweep.data.panel import CLOSE, VOLUME
from foresweep.data.windows import Context, TrainWindows
from foresweep.errors import CheckpointError, ForecastError, NotEnoughData
from foresweep.models.base import (
    Array,
    Checkpoint,
    Forecast,
    Levels,
    Resources,
    TrainingJob,
    config_class,
    hyper,
)
from foresweep.models.baselines.naive import FEWEST_BARS, Baseline, BaselineConfig, bar_variances
from foresweep.models.calibration import at_levels
from foresweep.models.checkpoint import add_json, read_json

FILE = "har.json"
WINDOWS = (1, 5, 20, 60)
MOST_BARS = max(WINDOWS) + 1
"""The oldest bar only gives the close before the first gap."""
FEWEST_WINDOWS = 60
FLOOR_SHARE = 1e-3
"""No mean variance counts for less than this share of the longest one: logs need a floor."""
GRID: Levels = tuple(k / 200 for k in range(1, 200))
"""Levels at which the quantiles of train's moves are kept."""


@config_class
class HarConfig(BaselineConfig):
    """Of har."""

    context_length: int | None = hyper(
        None,
        f"bars looked at; none: {MOST_BARS}, for means over up to {MOST_BARS - 1} bars",
        unit="bars",
        probe=(20, MOST_BARS),
        ge=FEWEST_BARS,
        le=MOST_BARS,
    )


@dataclass(frozen=True, slots=True)
class HarFit:
    """What was fitted. H leads, K levels of GRID."""

    coefficients: Array  # [H, 1 + len(WINDOWS)] of log variance, constant first
    spread: Array  # [H, K] quantiles of log move over forecast volatility, less their median
    num_windows: int

    def as_json(self) -> dict[str, Any]:
        return {
            "coefficients": self.coefficients.tolist(),
            "spread": self.spread.tolist(),
            "num_windows": self.num_windows,
        }


class Har(Baseline):
    """The close stays where it is, with the spread that a regression of its volatility gives."""

    name = "har"
    Config: ClassVar[type[Any]] = HarConfig
    centred = True
    default_context = MOST_BARS

    def train(self, job: TrainingJob) -> Checkpoint:
        """Fit, score once, report it as step 0, write the checkpoint.

        Raises NotEnoughData, CheckpointError."""
        length = job.config.context_length
        fit = fit_har(job.windows, context_length=length, horizon=job.horizon)
        written = self.scored(job, HarPredictor(length, fit), horizon=job.horizon)
        return add_json(written, FILE, fit.as_json())

    def load(self, checkpoint: Checkpoint, resources: Resources) -> HarPredictor:
        """The predictor of a checkpoint. Raises CheckpointError."""
        stored = read_json(checkpoint, FILE)
        if stored is None:
            raise CheckpointError(f"{checkpoint.path} holds no {FILE}; run it again")
        coefficients, spread = (np.array(stored[n], float) for n in ("coefficients", "spread"))
        leads = len(coefficients)
        shapes = (coefficients.shape, spread.shape)
        if shapes != ((leads, 1 + len(WINDOWS)), (leads, len(GRID))) or not leads:
            raise CheckpointError(f"{checkpoint.path / FILE} has arrays of {shapes}, as no fit has")
        if not (np.isfinite(coefficients).all() and np.isfinite(spread).all()):
            raise CheckpointError(f"{checkpoint.path / FILE} has a number that is not finite")
        fit = HarFit(coefficients, spread, int(stored["num_windows"]))
        return HarPredictor(self.Config(**checkpoint.config).context_length, fit)


@dataclass(frozen=True, slots=True)
class HarPredictor:
    """Forecasts of a fit."""

    context_length: int
    fit: HarFit

    def predict(self, context: Context, *, horizon: int, levels: Levels, seed: int) -> Forecast:
        """Price quantiles of the close, [N, H, Q]. `seed` is not used: nothing is drawn.

        Raises ForecastError for a horizon longer than the fitted one.
        """
        leads = len(self.fit.coefficients)
        if horizon > leads:
            raise ForecastError(
                f"this har speaks of {leads} bars ahead, asked for {horizon}; "
                f"train one with horizon {horizon}"
            )
        spread = at_levels(self.fit.spread[None, :horizon], GRID, levels)[0]
        volatility = np.empty((len(context), horizon))
        for length in np.unique(context.lengths):
            at = np.flatnonzero(context.lengths == length)
            seen = min(int(length), self.context_length)
            means = mean_variances(bar_variances(self._logs(context, at, seen), "garman-klass"))
            volatility[at] = forecast_volatility(means, self.fit.coefficients[:horizon])
        moves = volatility[:, :, None] * spread
        return Forecast(context.last_close[:, None, None] * np.exp(moves), levels)

    @staticmethod
    def _logs(context: Context, at: Any, seen: int) -> Array:
        """[n, seen, 4] log bars, two at least: before a first bar the market stood at its open."""
        logs: Array = np.log(context.values[at, -seen:, :VOLUME])
        if seen > 1:
            return logs
        before = np.repeat(logs[:, :, :1], VOLUME, axis=2)
        return np.concatenate([before, logs], axis=1)


def mean_variances(variances: Array) -> Array:
    """[N, W] mean of the last w variances [N, M] for each of WINDOWS, of all where fewer."""
    return np.stack([variances[:, -w:].mean(axis=1) for w in WINDOWS], axis=1)


def forecast_volatility(means: Array, coefficients: Array) -> Array:
    """[N, H] volatility of the move to each lead, 0 for an item that has not moved at all."""
    longest = means[:, -1:]
    moving = longest[:, 0] > 0
    safe = np.where(moving[:, None], np.maximum(means, FLOOR_SHARE * longest), 1.0)
    # the constant apart, row by row: a matrix product may round by the size of its batch
    logs = np.log(safe)
    log_variance = np.tile(coefficients[:, 0], (len(means), 1))
    for k in range(len(WINDOWS)):
        log_variance += logs[:, k, None] * coefficients[:, k + 1]
    lead = np.sqrt(np.arange(1, len(coefficients) + 1))
    volatility: Array = np.where(moving[:, None], lead * np.exp(log_variance / 2), 0.0)
    return volatility


def fit_har(train: TrainWindows, *, context_length: int, horizon: int) -> HarFit:
    """The fit on every window of train with two bars or more before and `horizon` after.

    Raises NotEnoughData for fewer than FEWEST_WINDOWS that moved.
    """
    means, ahead, moves = _windows(train, context_length, horizon)
    moved = means[:, -1] > 0
    means, ahead, moves = means[moved], ahead[moved], moves[moved]
    if len(means) < FEWEST_WINDOWS:
        raise NotEnoughData(
            f"har needs {FEWEST_WINDOWS} windows of {horizon} bars to fit, train has {len(means)}; "
            f"use more history or a shorter horizon"
        )
    floor = FLOOR_SHARE * means[:, -1:]
    features = np.log(np.maximum(means, floor))
    design = np.concatenate([np.ones((len(means), 1)), features], axis=1)
    solved = np.linalg.lstsq(design, np.log(np.maximum(ahead, floor)), rcond=None)[0]
    coefficients: Array = np.ascontiguousarray(solved.T)
    standard = moves / forecast_volatility(means, coefficients)
    spread = np.quantile(standard, GRID, axis=0).T
    middle = spread[:, GRID.index(0.5), None]
    return HarFit(coefficients, spread - middle, len(means))


def _windows(train: TrainWindows, context_length: int, horizon: int) -> tuple[Array, Array, Array]:
    """Of every training window: mean variances before its origin [M, W], mean variance to each
    lead [M, H], log move to each lead [M, H]."""
    items, rows = train.starts(2, horizon)
    of_items = [
        _of_item(train.values(int(i)), rows[items == i] + 1, context_length, horizon)
        for i in np.unique(items)
    ]
    means, ahead, moves = (np.concatenate(part) for part in zip(*of_items, strict=True))
    return means, ahead, moves


def _of_item(
    bars: Array, origin: Array, context_length: int, horizon: int
) -> tuple[Array, Array, Array]:
    """The same for one item's origins [m], rows of its bars [n, F]."""
    logs = np.log(bars[:, :VOLUME])
    variances = bar_variances(logs[None], "garman-klass")[0]  # beside the moves into rows 1..
    windows = [min(w, context_length - 1) for w in WINDOWS]
    means = np.stack([_trailing(variances, w)[origin - 1] for w in windows], axis=1)
    lead = np.arange(1, horizon + 1)
    after = variances[origin[:, None] + lead - 1]
    ahead = np.cumsum(after, axis=1) / lead
    moves = logs[origin[:, None] + lead, CLOSE] - logs[origin, CLOSE][:, None]
    return means, ahead, moves


def _trailing(variances: Array, window: int) -> Array:
    """[n] means of the last `window` of the variances up to each, of all where fewer."""
    total = np.concatenate([[0.0], np.cumsum(variances)])
    stop = np.arange(1, len(variances) + 1)
    start = np.maximum(stop - window, 0)
    means: Array = (total[stop] - total[start]) / (stop - start)
    return np.maximum(means, 0.0)
