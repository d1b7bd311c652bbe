"""The one engine: forecast a part's windows, score them, beside last-value on the same windows.

Models and baselines go through the same lines. Forecasts are prices; nothing here knows how they
came about, and nothing here is handed to a model but the context of each window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from foresweep import metrics
from foresweep.data.panel import Panel
from foresweep.data.splits import PartName, Split
from foresweep.data.windows import Windows
from foresweep.errors import ForecastError, NotEnoughData
from foresweep.evaluation.losses import LossPanel, loss_panel, save_forecast, setting_of
from foresweep.evaluation.steering import steering_windows
from foresweep.evaluation.trading import Market, Trading, make_market, trade
from foresweep.metrics import Outcome, Setting
from foresweep.models.base import (
    DEFAULT_LEVELS,
    Array,
    Facts,
    Forecast,
    Levels,
    Predictor,
    Scored,
    Scorer,
)
from foresweep.models.baselines.naive import LastValue
from foresweep.models.calibration import Calibration, cross_fitted, fit_calibration
from foresweep.stats.significance import diebold_mariano, origin_means, overlap_lags

SCORED_PARTS: tuple[PartName, ...] = ("tune", "val", "test")
OPEN_PARTS: tuple[PartName, ...] = ("tune", "val")
"""What a trial is scored on; test is forecast when it is opened."""
TESTED = "pct_mae"
"""The loss that `dm_pvalue_vs_naive` compares."""
BATCH = 256
FORECASTS, LOSSES, RETURNS = "forecasts.npz", "losses.npz", "returns.npz"


@dataclass(frozen=True, slots=True, eq=False)
class Naive:
    """Last-value on a part's windows, and what is known of them: the same for every model, so made
    once."""

    outcome: Outcome
    losses: LossPanel
    setting: Setting
    market: Market


@dataclass(frozen=True, slots=True, eq=False)
class PartScores:
    """What a forecast is worth on one part."""

    scores: dict[str, float]  # by full name: tune_pct_mae, tune_skill ...
    losses: LossPanel
    trading: Trading


def forecast_part(
    predictor: Predictor,
    windows: Windows,
    *,
    levels: Levels = DEFAULT_LEVELS,
    seed: int = 0,
    batch: int = BATCH,
) -> Forecast:
    """Price quantiles of every window of a part, [N, H, Q], `batch` windows a call.

    Raises NotEnoughData where the part has no window, ForecastError where a forecast is missing,
    not finite or not rising: a model cannot win by keeping silent on the hard windows.
    """
    if not len(windows):
        raise NotEnoughData(
            f"part {windows.part.name!r} has no window with {windows.split.min_context} bars "
            f"before and {windows.horizon} after its origin; use more history"
        )
    length = min(predictor.context_length, windows.split.max_context)
    out = np.empty((len(windows), windows.horizon, len(levels)))
    for at, context in windows.batches(length, batch):
        made = predictor.predict(context, horizon=windows.horizon, levels=levels, seed=seed)
        out[at] = _checked(made, len(context), windows.horizon, levels)
    return Forecast(out, levels)


def _checked(forecast: Forecast, num_windows: int, horizon: int, levels: Levels) -> Array:
    """Values of a forecast that keeps its promises. Raises ForecastError."""
    if forecast.levels != levels:
        raise ForecastError(f"forecast has quantile levels {forecast.levels}, asked for {levels}")
    values = forecast.checked(num_windows, horizon).values
    crossed = int((np.diff(values, axis=2) < 0).any(axis=(1, 2)).sum())
    if crossed:
        raise ForecastError(f"{crossed} of {num_windows} forecasts have quantiles that cross")
    return values


def last_value(split: Split) -> Predictor:
    """The predictor that every skill is measured against: last-value as a sweep resolves it."""
    family = LastValue()
    facts = Facts(horizon=split.horizon, max_context=split.max_context, train_bars=0)
    return family.predictor(family.resolve(family.Config(), facts))


def naive_part(windows: Windows) -> Naive:
    """Last-value on a part's windows. Raises NotEnoughData."""
    setting = setting_of(windows)
    outcome = _outcome(forecast_part(last_value(windows.split), windows), windows, setting)
    losses = loss_panel(outcome, windows, setting.scale)
    return Naive(outcome, losses, setting, make_market(windows, setting.scale))


def score_part(forecast: Forecast, windows: Windows, *, naive: Naive | None = None) -> PartScores:
    """Every metric of a forecast [N, H, Q] of these windows, and its loss panel. NaN: undefined, as
    the Sharpe ratio of a forecast that never takes a position.

    Give `naive` (from `naive_part`) to score several forecasts of the same windows.
    Raises ForecastError where the forecast has not the windows' shape or is not finite.
    """
    naive = naive or naive_part(windows)
    values = _checked(forecast, len(windows), windows.horizon, forecast.levels)
    outcome = _outcome(Forecast(values, forecast.levels), windows, naive.setting)
    losses = loss_panel(outcome, windows, naive.setting.scale)
    trading = trade(outcome, naive.market)
    found = metrics.score(outcome, naive.outcome) | trading.scores
    found["dm_pvalue_vs_naive"] = compare(losses, naive.losses)
    return PartScores({f"{windows.part.name}_{k}": v for k, v in found.items()}, losses, trading)


def compare(losses: LossPanel, benchmark: LossPanel, *, metric: str = TESTED) -> float:
    """One-sided p-value that the first has lower scaled losses than the second."""
    lags = overlap_lags(losses.horizon, losses.stride)
    ours, theirs = (origin_means(panel.scaled(metric)) for panel in (losses, benchmark))
    return diebold_mariano(ours, theirs, lags=lags).pvalue


def _outcome(forecast: Forecast, windows: Windows, setting: Setting) -> Outcome:
    return Outcome(windows.labels, forecast.values, forecast.levels, windows.last_close, setting)


def make_scorer(
    panel: Panel,
    split: Split,
    *,
    seed: int = 0,
    batch: int = BATCH,
    steer: int | None = None,
    steer_seed: int = 0,
) -> Scorer:
    """The engine bound to tune: what training is given, and all it sees of tune: all windows, or
    about `steer` of them (`steering_windows`), drawn by `steer_seed`.

    It draws nothing from any global random state. Raises NotEnoughData, at once.
    """
    windows = Windows(panel, split, split.part("tune"))
    windows = steering_windows(windows, steer, steer_seed)
    naive = naive_part(windows)

    def score(predictor: Predictor) -> Scored:
        forecast = forecast_part(predictor, windows, seed=seed, batch=batch)
        found = score_part(forecast, windows, naive=naive)
        return Scored(found.scores, found.losses.losses)

    return score


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """What tune has to say on a config that asks for calibration."""

    calibration: Calibration  # fitted on all of tune: for every later forecast
    forecast: Forecast  # of tune, each half calibrated by the other


def calibrate(
    predictor: Predictor,
    config: Any,
    panel: Panel,
    split: Split,
    *,
    seed: int = 0,
    batch: int = BATCH,
) -> Tuned:
    """Fit what `config` asks for (centre, fit_scale, isotonic) to a raw predictor's forecasts of
    tune, the only part that is looked at.

    The halves are the earlier and the later origins. Raises NotEnoughData where no window of one
    half has labels clear of the other's; ForecastError.
    """
    windows = Windows(panel, split, split.part("tune"))
    forecast = forecast_part(predictor, windows, seed=seed, batch=batch)
    labels, closes = windows.labels, windows.last_close
    late = windows.origin >= (len(windows.part.origins) + 1) // 2
    crossed = cross_fitted(config, forecast, labels, closes, late, windows.label_span)
    return Tuned(fit_calibration(config, forecast, labels, closes), crossed)


def evaluate(
    predictor: Predictor,
    panel: Panel,
    split: Split,
    *,
    parts: Iterable[PartName] = SCORED_PARTS,
    seed: int = 0,
    batch: int = BATCH,
    out: Path | None = None,
    made: Mapping[PartName, Forecast] = MappingProxyType({}),
) -> dict[str, float]:
    """Scores of a predictor on each part, by full name; `test_*` among them are for sealing.

    Forecasts in `made` are scored as they are, those of other parts are asked for. Each part's
    `forecasts.npz`, `losses.npz` and `returns.npz` are written under `out`, where given.
    Raises ForecastError, NotEnoughData; DataError where a file cannot be written.
    """
    scores: dict[str, float] = {}
    for part in parts:
        windows = Windows(panel, split, split.part(part))
        forecast = made.get(part) or forecast_part(predictor, windows, seed=seed, batch=batch)
        found = score_part(forecast, windows)
        scores |= found.scores
        if out is not None:
            save_forecast(out / part / FORECASTS, forecast, windows)
            found.losses.save(out / part / LOSSES)
            found.trading.save(out / part / RETURNS, windows.fingerprint)
    return scores
