"""What can be done to a forecast after training, the same for models and baselines.

    centre      every quantile is moved by the same log distance, so that the median is the last
                close: a model's own location is mostly noise on prices
    fit_scale   the distance of every quantile from the median is multiplied by one factor a lead
    isotonic    quantiles are read at other levels: those that came true as often as they should

They act in this order, on log moves since the origin, so rescaled prices give rescaled forecasts.
All are fitted on tune alone: for tune's own scores on one half of it and applied to the other, for
everything later on all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foresweep.data.files import first_line
from foresweep.data.windows import Context
from foresweep.errors import CheckpointError, ConfigError, ForecastError, NotEnoughData
from foresweep.models.base import (
    Array,
    Checkpoint,
    Forecast,
    ForecastModel,
    Levels,
    Predictor,
    Resources,
    config_class,
    hyper,
)
from foresweep.models.checkpoint import add_json, read_json

FILE = "calibration.json"
SMALLEST_SCALE, LARGEST_SCALE = 0.2, 5.0
"""Factors are cut here: beyond, tune holds too little to say anything."""
OUTERMOST = 1e-4
"""Levels are read no closer to 0 and 1 than this."""


@config_class
class CalibrationConfig:
    """What a forecast may be put through after training; none of it needs training again."""

    centre: bool = hyper(
        False,
        "move every median to the last close; only where the objective looks at quantiles",
        stage="calibration",
        probe=(False, True),
    )
    fit_scale: bool = hyper(
        False,
        "multiply each lead's distance from the median by the factor best on tune by pinball",
        stage="calibration",
        probe=(False, True),
    )
    isotonic: bool = hyper(
        False,
        "read quantiles at the levels that came true on tune as often as they should",
        stage="calibration",
        probe=(False, True),
    )


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted calibration. H leads, K levels."""

    centre: bool = False
    scale: tuple[float, ...] | None = None  # [H]
    levels: Levels = ()  # [K] that were looked at, where isotonic; a forecast must hold them
    coverage: Levels = ()  # [K] share of closes at or below the quantile of each level, rising
    num_windows: int = 0  # that it was fitted on

    def apply(self, forecast: Forecast, last_close: Array, levels: Levels) -> Forecast:
        """Calibrated quantiles at `levels` of a forecast that holds them, and more where isotonic.

        Raises ForecastError for more leads than it was fitted on.
        """
        moves = np.log(forecast.values / last_close[:, None, None])
        moves = self.spread(moves, forecast.levels)
        moves = read_at(moves, forecast.levels, self._sources(levels))
        return Forecast(last_close[:, None, None] * np.exp(np.sort(moves, axis=-1)), levels)

    def spread(self, moves: Array, levels: Levels) -> Array:
        """Moves [N, H, Q], centred and stretched as far as this calibration does."""
        middle = moves[..., levels.index(0.5), None]
        kept: Array = np.zeros_like(middle) if self.centre else middle
        if self.scale is None:
            return moves - middle + kept if self.centre else moves
        leads = moves.shape[1]
        if leads > len(self.scale):
            raise ForecastError(
                f"calibrated for {len(self.scale)} bars ahead, asked for {leads}; "
                f"train with horizon {leads}"
            )
        stretched: Array = kept + np.array(self.scale[:leads])[:, None] * (moves - middle)
        return stretched

    def _sources(self, levels: Levels) -> Array:
        """[Q] normal scores of the levels at which the quantiles for `levels` are read.

        Between two shares that came true, linear in normal scores; beyond the outermost, straight
        on along the line from the median's.
        """
        asked = _scores(levels)
        if not self.coverage:
            return asked
        share, own = _scores(self.coverage), _scores(self.levels)
        distinct, group = np.unique(share, return_inverse=True)
        middle = np.bincount(group, own) / np.bincount(group)  # levels of equal share: between
        sources = np.interp(asked, distinct, middle)
        centre = int(group[self.levels.index(0.5)])
        for end, outside in ((0, asked < distinct[0]), (-1, asked > distinct[-1])):
            run = distinct[end] - distinct[centre]
            slope = (middle[end] - middle[centre]) / run if run else 1.0
            sources[outside] = middle[end] + slope * (asked[outside] - distinct[end])
        if self.centre:
            sources[asked == 0.0] = 0.0
        return np.clip(sources, *_scores((OUTERMOST, 1 - OUTERMOST)))


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A predictor whose forecasts are calibrated."""

    inner: Predictor
    calibration: Calibration

    @property
    def context_length(self) -> int:
        return self.inner.context_length

    def predict(self, context: Context, *, horizon: int, levels: Levels, seed: int) -> Forecast:
        """Price quantiles of the close, [N, H, Q]. Raises ForecastError."""
        asked = tuple(sorted({*levels, *self.calibration.levels}))
        raw = self.inner.predict(context, horizon=horizon, levels=asked, seed=seed)
        return self.calibration.apply(raw, context.last_close, levels)


def wants_calibration(config: Any) -> bool:
    """Does a config ask for anything of the kind? Plug-ins without these fields do not."""
    return any(getattr(config, name, False) for name in ("centre", "fit_scale", "isotonic"))


def fit_calibration(
    config: Any, forecast: Forecast, labels: Array, last_close: Array
) -> Calibration:
    """The calibration that `config` asks for, fitted to forecasts [N, H, K] of closes [N, H].

    Raises NotEnoughData without a window.
    """
    if not len(labels):
        raise NotEnoughData(
            "nothing to fit a calibration on: tune has no window whose labels are clear of the "
            "other half's; use more history, or leave centre, fit_scale and isotonic out"
        )
    truth = np.log(labels / last_close[:, None])
    moves = np.log(forecast.values / last_close[:, None, None])
    fitted = Calibration(centre=config.centre, num_windows=len(labels))
    if config.fit_scale:
        centred = fitted.spread(moves, forecast.levels)
        fitted = replace(fitted, scale=_scales(centred, truth, forecast.levels))
    if config.isotonic:
        spread = fitted.spread(moves, forecast.levels)
        coverage = _coverage(spread, truth, forecast.levels, pinned=config.centre)
        fitted = replace(fitted, levels=forecast.levels, coverage=coverage)
    return fitted


def cross_fitted(
    config: Any,
    forecast: Forecast,
    labels: Array,
    last_close: Array,
    late: NDArray[np.bool_],
    spans: tuple[NDArray[Any], NDArray[Any]],
) -> Forecast:
    """The forecast of tune, each half calibrated by what was fitted on the other.

    `late` [N] tells the later half; `spans` are the times [N] of each window's first and last
    label. A window is not fitted on when its labels reach into those of the half that is scored.
    Raises NotEnoughData where nothing is left to fit on.
    """
    first, last = spans
    values = np.empty_like(forecast.values)
    for scored in (~late, late):
        if not scored.any():
            continue
        clear = (last < first[scored].min()) | (first > last[scored].max())
        fitted = fit_calibration(
            config,
            Forecast(forecast.values[clear], forecast.levels),
            labels[clear],
            last_close[clear],
        )
        part = Forecast(forecast.values[scored], forecast.levels)
        values[scored] = fitted.apply(part, last_close[scored], forecast.levels).values
    return Forecast(values, forecast.levels)


def refuse_centre_under(
    objectives: Sequence[str], config: Any, *, quantile_metrics: tuple[str, ...]
) -> None:
    """Raises ConfigError for a centred config where no objective looks at more than medians."""
    if getattr(config, "centre", False) and not set(objectives) & set(quantile_metrics):
        raise ConfigError(
            f"centre=true makes every median the last close: under objective "
            f"{','.join(objectives)!r} that is last-value in disguise; use --objective "
            f"{quantile_metrics[0]}, or centre=false"
        )


def store_calibration(checkpoint: Checkpoint, calibration: Calibration) -> Checkpoint:
    """The checkpoint with its calibration beside the weights. Raises CheckpointError."""
    return add_json(checkpoint, FILE, asdict(calibration))


def load_predictor(model: ForecastModel, checkpoint: Checkpoint, resources: Resources) -> Predictor:
    """The predictor of a checkpoint that was read, calibrated where its config asks for it: what
    is scored and what is served. Raises CheckpointError, for what is whole and yet none, too: a
    hand that writes new hashes can make a card or a config say anything."""
    try:
        return _loaded(model, checkpoint, resources)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint.path} cannot be loaded as {checkpoint.model}: {type(error).__name__}: "
            f"{first_line(error)}; restore it from a copy, or train it again"
        ) from error


def _loaded(model: ForecastModel, checkpoint: Checkpoint, resources: Resources) -> Predictor:
    inner = model.load(checkpoint, resources)
    stored = read_json(checkpoint, FILE)
    if stored is None:
        if any(checkpoint.config.get(k) for k in ("centre", "fit_scale", "isotonic")):
            raise CheckpointError(
                f"{checkpoint.path} asks for a calibration and holds no {FILE}: its run never came "
                f"so far; run it again"
            )
        return inner
    return Calibrated(inner, _from_json(stored))


def _from_json(stored: Mapping[str, Any]) -> Calibration:
    scale = stored["scale"]
    if scale is not None and not all(SMALLEST_SCALE <= x <= LARGEST_SCALE for x in scale):
        raise ValueError(f"{FILE} holds a factor that no calibration fits")
    return Calibration(
        centre=bool(stored["centre"]),
        scale=None if scale is None else tuple(float(x) for x in scale),
        levels=tuple(float(x) for x in stored["levels"]),
        coverage=tuple(float(x) for x in stored["coverage"]),
        num_windows=int(stored["num_windows"]),
    )


def _scales(moves: Array, truth: Array, levels: Levels) -> tuple[float, ...]:
    """[H] the factor of each lead with the least pinball loss of log moves."""
    middle = moves[..., levels.index(0.5)]
    away, error = moves - middle[..., None], truth - middle
    return tuple(_scale(away[:, h], error[:, h], levels) for h in range(moves.shape[1]))


def _scale(away: Array, error: Array, levels: Levels) -> float:
    """The s with the least sum of pinball losses of `error` [N] against s * `away` [N, Q].

    Each term is |away| times the pinball loss of error / away against s, at the level or, where
    away is negative, one minus it: so s is a weighted quantile of those ratios, found exactly.
    """
    off = away != 0
    if not off.any():
        return 1.0
    weight = np.abs(away[off])
    ratio = np.broadcast_to(error[:, None], away.shape)[off] / away[off]
    level = np.broadcast_to(np.array(levels), away.shape)[off]
    target = float((weight * np.where(away[off] > 0, level, 1 - level)).sum())
    order = np.argsort(ratio, kind="stable")
    at = int(np.searchsorted(np.cumsum(weight[order]), target))
    best = float(ratio[order][min(at, len(order) - 1)])
    return min(max(best, SMALLEST_SCALE), LARGEST_SCALE)


def _coverage(moves: Array, truth: Array, levels: Levels, *, pinned: bool) -> Levels:
    """[K] share of closes below each quantile, ties half, over windows and leads, made to rise by
    isotonic regression; `pinned` keeps that of the median at one half."""
    from scipy.optimize import isotonic_regression

    below = (truth[..., None] > moves).mean(axis=(0, 1))
    at_most = (truth[..., None] >= moves).mean(axis=(0, 1))
    share = 1.0 - (below + at_most) / 2.0
    if pinned:
        level = np.array(levels)
        share = np.where(level < 0.5, np.minimum(share, 0.5), np.maximum(share, 0.5))
        share[level == 0.5] = 0.5
    rising = isotonic_regression(share).x
    return tuple(float(x) for x in np.clip(rising, 0.0, 1.0))


def read_at(moves: Array, own: Levels, scores: Array) -> Array:
    """[N, H, Q] of moves [N, H, K] known at levels `own`, at normal scores [Q]: linear in the
    normal score, going on straight beyond the outermost two levels."""
    if len(own) == 1:
        return np.repeat(moves, len(scores), axis=-1)
    grid = _scores(own)
    right = np.clip(np.searchsorted(grid, scores), 1, len(grid) - 1)
    share = (scores - grid[right - 1]) / (grid[right] - grid[right - 1])
    read: Array = (1 - share) * moves[..., right - 1] + share * moves[..., right]
    return read


def at_levels(moves: Array, own: Levels, levels: Levels) -> Array:
    """[N, H, Q] at `levels` of moves [N, H, K] known at levels `own`: see `read_at`."""
    return read_at(moves, own, _scores(levels))


def _scores(levels: Levels) -> Array:
    """Normal scores of levels, none closer to 0 and 1 than OUTERMOST; 0 of one half."""
    normal = NormalDist().inv_cdf
    inside = [min(max(level, OUTERMOST), 1 - OUTERMOST) for level in levels]
    return np.array([0.0 if level == 0.5 else normal(level) for level in inside])
