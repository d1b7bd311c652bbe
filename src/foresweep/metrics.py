"""What a forecast is worth: every metric, its direction, unit and formula, in one table.

Shape letters: N windows, H leads, Q quantile levels. Every metric is a plain function of an
`Outcome`, what was forecast and what came, and of the outcome of last-value on the same windows.
All errors are relative to the close at the origin, so no item weighs by its nominal price; every
window weighs the same, so a score is the mean of its loss panel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from foresweep.errors import UnknownName

Array: TypeAlias = NDArray[np.float64]

PARTS = ("train", "tune", "val", "test")
CHUNK = 64
"""Windows handled at a time by `Outcome.pinballs`: its working set stays in the cache."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What was forecast and what came. Its two main losses are computed once and kept."""

    labels: Array  # [N, H] closes after each origin
    quantiles: Array  # [N, H, Q] forecast prices, rising in Q
    levels: tuple[float, ...]  # [Q] rising, holds 0.5
    last_close: Array  # [N] close at each origin

    @property
    def median(self) -> Array:
        """[N, H]"""
        median: Array = self.quantiles[..., self.levels.index(0.5)]
        return median

    @cached_property
    def pct_errors(self) -> Array:
        """[N, H] absolute error of the median, percent of the last close."""
        return 100.0 * np.abs(self.median - self.labels) / self.last_close[:, None]

    @cached_property
    def pinballs(self) -> Array:
        """[N, H] pinball loss of the return to each lead in percent of the last close, mean of
        levels.

        Per level: max(level * (y - q), (level - 1) * (y - q)), without the factor 2 of some texts.
        Since that is (|y - q| + (2 level - 1) (y - q)) / 2, one pass over the errors is enough.
        """
        tilt = 2.0 * np.asarray(self.levels) - 1.0
        out = np.empty(self.labels.shape)
        for start in range(0, len(out), CHUNK):
            at = slice(start, start + CHUNK)
            error = self.labels[at, :, None] - self.quantiles[at]
            tilted = error @ tilt
            out[at] = np.abs(error, out=error).sum(axis=2) + tilted
        return out * (50.0 / len(tilt)) / self.last_close[:, None]


# Losses: [N, H], whose mean is the metric of the same name.


def pct_mae_loss(outcome: Outcome) -> Array:
    """[N, H] absolute error of the median, percent of the last close."""
    return outcome.pct_errors


def price_mae_loss(outcome: Outcome) -> Array:
    """[N, H] absolute error of the median, in price units (adjusted where prices are)."""
    error: Array = np.abs(outcome.median - outcome.labels)
    return error


def smape_loss(outcome: Outcome) -> Array:
    """[N, H] absolute error of the median, percent of the mean of forecast and actual size."""
    size: Array = np.abs(outcome.median) + np.abs(outcome.labels)
    return 200.0 * np.abs(outcome.median - outcome.labels) / size


def pinball_loss(outcome: Outcome) -> Array:
    """[N, H] pinball loss of the return to each lead, percent of the last close, mean of levels."""
    return outcome.pinballs


# Scores that are not a mean of losses.


def skill(value: float, baseline: float) -> float:
    """1 - value / baseline; 0 where both are nothing, -inf where only the baseline is."""
    if baseline == 0:
        return 0.0 if value == 0 else -np.inf
    return 1.0 - value / baseline


def rmse_pct(outcome: Outcome) -> float:
    """Root mean squared error of the median, percent of the last close."""
    return float(np.sqrt((pct_mae_loss(outcome) ** 2).mean()))


def r2(outcome: Outcome) -> float:
    """R2 of percentage moves from the last close, pooled over windows and leads."""
    moves = 100.0 * (outcome.labels / outcome.last_close[:, None] - 1.0)
    return skill(
        float((pct_mae_loss(outcome) ** 2).sum()), float(((moves - moves.mean()) ** 2).sum())
    )


def r2_vs_naive(outcome: Outcome, naive: Outcome) -> float:
    """1 - squared percentage error over that of last-value, both pooled."""
    squares = [float((pct_mae_loss(o) ** 2).sum()) for o in (outcome, naive)]
    return skill(squares[0], squares[1])


def coverage_80(outcome: Outcome) -> float:
    """Share of closes inside [q0.1, q0.9], borders included."""
    low, high = (outcome.quantiles[..., outcome.levels.index(level)] for level in (0.1, 0.9))
    return float(((outcome.labels >= low) & (outcome.labels <= high)).mean())


def directional_accuracy(outcome: Outcome) -> float:
    """Share of moves from the last close whose sign the median has.

    Cells where the close came back to the last close have no direction and are left out; a median
    equal to the last close names none and counts one half, as a coin would get.
    """
    base = outcome.last_close[:, None]
    actual, named = np.sign(outcome.labels - base), np.sign(outcome.median - base)
    points = np.where(named == 0, 0.5, named == actual)[actual != 0]
    return float(points.mean()) if points.size else 0.5


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table of metrics."""

    name: str
    unit: str
    higher_is_better: bool
    formula: str  # for people; y close, m median, q quantile, b last close
    source: str
    compute: Callable[[Outcome, Outcome], float] | None
    """(outcome, outcome of last-value) -> score; None: evaluation computes it from loss panels."""
    loss: Callable[[Outcome], Array] | None = None
    """[N, H] whose mean is the score, where there is one: what tests can run on."""
    target: float | None = None
    """The value to be near, where neither high nor low is good."""

    def badness(self, value: float) -> float:
        """Lower is better, whatever the metric's direction; NaN stays NaN."""
        if self.target is not None:
            return abs(value - self.target)
        return -value if self.higher_is_better else value


def _mean_of(
    name: str, unit: str, formula: str, source: str, loss: Callable[[Outcome], Array]
) -> Metric:
    """A metric that is the mean of a loss: lower is better."""
    return Metric(name, unit, False, formula, source, lambda o, _: float(loss(o).mean()), loss)


def _skill_of(name: str, formula: str, source: str, loss: Callable[[Outcome], Array]) -> Metric:
    """A skill against last-value on the same windows."""

    def compute(outcome: Outcome, naive: Outcome) -> float:
        return skill(float(loss(outcome).mean()), float(loss(naive).mean()))

    return Metric(name, "fraction", True, formula, source, compute)


_HYNDMAN = "Hyndman and Koehler 2006, Another look at measures of forecast accuracy"
_MURPHY = "Murphy 1988, Skill scores based on the mean square error"
_GNEITING = "Gneiting and Raftery 2007, Strictly proper scoring rules"
_ROWS = (
    _mean_of("pct_mae", "percent", "100 * mean |m - y| / b", _HYNDMAN, pct_mae_loss),
    Metric(
        "naive_pct_mae",
        "percent",
        False,
        "pct_mae of last-value: 100 * mean |b - y| / b",
        _HYNDMAN,
        lambda _, naive: float(pct_mae_loss(naive).mean()),
    ),
    _skill_of("skill", "1 - pct_mae / naive_pct_mae", _MURPHY, pct_mae_loss),
    _mean_of("price_mae", "price", "mean |m - y|", _HYNDMAN, price_mae_loss),
    Metric(
        "rmse_pct",
        "percent",
        False,
        "100 * sqrt(mean ((m - y) / b)^2)",
        _HYNDMAN,
        lambda o, _: rmse_pct(o),
    ),
    _mean_of("smape", "percent", "200 * mean |m - y| / (|m| + |y|)", _HYNDMAN, smape_loss),
    Metric(
        "r2",
        "fraction",
        True,
        "1 - sum (m - y)^2 / b^2 over sum (y / b - mean(y / b))^2, pooled over windows and leads",
        "coefficient of determination of percentage moves",
        lambda o, _: r2(o),
    ),
    Metric(
        "r2_vs_naive",
        "fraction",
        True,
        "1 - sum ((m - y) / b)^2 / sum ((b - y) / b)^2",
        "Campbell and Thompson 2008, out-of-sample R2 with last-value as the benchmark",
        r2_vs_naive,
    ),
    _mean_of(
        "pinball",
        "percent",
        "100 * mean over leads 1..H and levels of max(level * (y - q), (level - 1) * (y - q)) / b",
        "Koenker and Bassett 1978, Regression quantiles; " + _GNEITING,
        pinball_loss,
    ),
    _skill_of(
        "pinball_skill",
        "1 - pinball / pinball of last-value with quantiles from recent moves",
        _GNEITING,
        pinball_loss,
    ),
    Metric(
        "coverage_80",
        "fraction",
        True,
        "mean of q0.1 <= y <= q0.9; best is nearest to 0.8",
        "Christoffersen 1998, Evaluating interval forecasts",
        lambda o, _: coverage_80(o),
        target=0.8,
    ),
    Metric(
        "directional_accuracy",
        "fraction",
        True,
        "mean of sign(m - b) = sign(y - b) where y != b; m = b counts 1/2",
        "Pesaran and Timmermann 1992, A simple test of predictive performance",
        lambda o, _: directional_accuracy(o),
    ),
    Metric(
        "dm_pvalue_vs_naive",
        "probability",
        False,
        "one-sided Diebold-Mariano with the Harvey correction, on per-origin means of pct_mae "
        "losses over the volatility known at the origin",
        "Diebold and Mariano 1995; Harvey, Leybourne and Newbold 1997",
        None,
    ),
)

METRICS: Mapping[str, Metric] = MappingProxyType({m.name: m for m in _ROWS})
"""Every metric by its bare name."""

QUANTILE_METRICS = ("pinball", "pinball_skill", "coverage_80")
"""Metrics that look at more than the median."""

PANEL_LOSSES = ("pct_mae", "pinball")
"""Metrics whose losses are kept for every run, per window and per lead."""


def get_metric(name: str) -> Metric:
    """The metric of this bare name. Raises UnknownName with the nearest."""
    if name not in METRICS:
        raise UnknownName("metric", name, METRICS)
    return METRICS[name]


def split_name(name: str) -> tuple[str, str]:
    """`val_pct_mae` -> (`val`, `pct_mae`). Raises UnknownName with the nearest full name."""
    part, _, metric = name.partition("_")
    if part not in PARTS or metric not in METRICS:
        raise UnknownName("score", name, [f"{p}_{m}" for p in PARTS for m in METRICS])
    return part, metric


def score(outcome: Outcome, naive: Outcome) -> dict[str, float]:
    """Every metric of the table that the two outcomes alone decide, by bare name."""
    return {name: m.compute(outcome, naive) for name, m in METRICS.items() if m.compute}
