"""What one stated trading rule would have earned on a forecast: no more than a plausibility check.

    signal     at the close of the origin: the sign of (median at lead H - last close); a median
               equal to the last close (to a millionth) has no sign and takes no position
    size       in proportion to 1 / volatility known at the origin, so that the sizes of all items
               scored at that origin add to 1: no borrowed money
    fill       at the open of the bar after the origin, left at the first open after lead H; the
               last position of a part is left at its last close, so that no part sees another
    sleeves    ceil(H / stride) overlap, each with an equal share of the capital
    cost       in basis points of every change of position, buying and selling alike; positions of
               several sleeves in one item are netted. Weights are held from bar to bar; what they
               drift between is not traded
    beside it  the same with every sign up and equal sizes: always long. `sharpe` is of the excess
    year       as many bars as the panel's timeline has in a year

A rule that never trades has no score (NaN), not 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foresweep.data.files import read_npz, write_npz
from foresweep.data.panel import CLOSE, OPEN, IntArray
from foresweep.data.windows import Windows
from foresweep.errors import ConfigError, DataError, ForecastError
from foresweep.metrics import TRADING_METRICS, Outcome
from foresweep.models.base import Array

COST_BPS = 5.0
"""Basis points of the capital traded, in every stored score: scores at other costs are not of one
table."""
CALMEST = 0.25
"""No item counts as calmer than this share of the median volatility of its origin's items: one
that never moves would take all the capital."""
YEAR = np.timedelta64(365 * 24 * 3600 + 6 * 3600, "s")


@dataclass(frozen=True, slots=True, eq=False)
class Trading:
    """What the rule did. T bars, from the first fill to the last exit."""

    scores: dict[str, float]  # by bare name; NaN: undefined
    net: Array  # [T] return of each bar after cost, fraction of the capital
    gross: Array  # [T] before cost
    always_long: Array  # [T] the same of always-long equal weight, after cost
    traded: Array  # [T] sum of absolute changes of position, fraction of the capital
    bars_per_year: float

    @property
    def excess(self) -> Array:
        """[T] what `sharpe` is of: net of the rule less always-long."""
        return self.net - self.always_long

    def save(self, path: Path, fingerprint: str) -> None:
        """Write what a deflated Sharpe ratio is made of, and of which windows. Raises DataError."""
        returns = Returns(self.excess, bool(self.traded.any()), self.bars_per_year, fingerprint)
        write_npz(path, {name: np.array(getattr(returns, name)) for name in Returns.__slots__})


@dataclass(frozen=True, slots=True, eq=False)
class Returns:
    """What is stored of the rule at the stored cost."""

    excess: Array  # [T] net of the rule less always-long, fraction of the capital
    trades: bool  # False: it never takes a position, and the excess says nothing of it
    bars_per_year: float
    fingerprint: str  # of the windows


def load_returns(path: Path) -> Returns:
    """The stored returns of a run on a part. Raises DataError."""
    arrays = read_npz(path)
    if missing := [name for name in Returns.__slots__ if name not in arrays]:
        raise DataError(f"{path} holds no returns: {', '.join(missing)} is missing")
    return Returns(
        arrays["excess"],
        bool(arrays["trades"]),
        float(arrays["bars_per_year"]),
        str(arrays["fingerprint"]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """What the windows of a part can be traded at: the same for every forecast of them."""

    size: Array  # [N] share of the capital of a sleeve in each window
    equal: Array  # [N] the same for always-long
    num_sleeves: int
    growth: Array  # [N, H] return from the open of each lead to the next open, fraction
    bar: IntArray  # [N, H] which bar of the T each lead is
    cell: IntArray  # [N, H] which of the C (item, bar) cells, neighbours in time side by side
    bar_of_cell: IntArray  # [C]
    joined: NDArray[np.bool_]  # [C - 1] is the next cell the same item's next bar?
    num_bars: int
    bars_per_year: float


def make_market(windows: Windows, scale: Array) -> Market:
    """The market of a part; `scale` [N] is the volatility known at each origin."""
    ahead = np.arange(1, windows.horizon + 1)
    rows = (windows.panel.offsets[windows.item] + windows.row)[:, None] + ahead
    cells, cell = np.unique(rows, return_inverse=True)
    cell = cell.reshape(rows.shape)
    place = _timeline_places(windows)
    bar_of_cell = place[cells] - place[cells].min(initial=len(windows.panel.timeline))
    return Market(
        size=_sizes(1.0 / _floored(scale, windows.origin), windows.origin),
        equal=_sizes(np.ones(len(windows)), windows.origin),
        num_sleeves=-(-windows.horizon // windows.part.stride),
        growth=_growth(windows, cells, place)[cell],
        bar=bar_of_cell[cell],
        cell=cell,
        bar_of_cell=bar_of_cell,
        joined=np.diff(cells) == 1,  # never across items: an item's first row is no label
        num_bars=int(bar_of_cell.max(initial=-1)) + 1,
        bars_per_year=bars_per_year(windows.panel.timeline),
    )


def trade(outcome: Outcome, market: Market, *, cost_bps: float = COST_BPS) -> Trading:
    """The rule on the medians of an outcome of the market's windows. Raises ForecastError for
    another number of windows, ConfigError for a cost below 0 or not finite."""
    if not 0 <= cost_bps < np.inf:
        raise ConfigError(f"cost_bps={cost_bps} must be 0 or more basis points, and finite")
    if len(outcome.labels) != len(market.size):
        raise ForecastError(
            f"{len(outcome.labels)} forecasts for {len(market.size)} windows to trade"
        )
    sign = outcome.named_direction[:, -1]
    gross, traded = _walk(sign * market.size, market)
    long_gross, long_traded = _walk(market.equal, market)
    rate = cost_bps / 1e4
    net, beside = gross - rate * traded, long_gross - rate * long_traded
    scores = dict.fromkeys(TRADING_METRICS, float("nan"))
    if sign.any():
        ratio, error = sharpe(net - beside, market.bars_per_year)
        scores = {
            "sharpe": ratio,
            "sharpe_se": error,
            "max_drawdown": max_drawdown(net),
            "turnover": float(traded.mean()) * market.bars_per_year,
        }
    return Trading(scores, net, gross, beside, traded, market.bars_per_year)


def sharpe(returns: Array, bars_per_year: float, *, lags: int | None = None) -> tuple[float, float]:
    """Annualised Sharpe ratio of returns [T], and its standard error.

    The error is that of Lo (2002): the delta method on mean and variance, with the long-run
    variance by Bartlett's weights and 4 (T / 100)^(2/9) lags, Newey and West's rule, unless
    given. NaN for fewer than 2 bars, and where no return differs from another.
    """
    num = len(returns)
    if num < 2:
        return float("nan"), float("nan")
    mean, deviation = float(returns.mean()), float(returns.std(ddof=1))
    if deviation <= 1e-12 * max(1.0, abs(mean)):
        return float("nan"), float("nan")
    ratio = mean / deviation
    standard = (returns - mean) / deviation
    influence = standard - 0.5 * ratio * (standard**2 - 1.0)
    chosen = int(4 * (num / 100) ** (2 / 9)) if lags is None else lags
    error = np.sqrt(bartlett_variance(influence, min(chosen, num - 1)) / num)
    return float(np.sqrt(bars_per_year) * ratio), float(np.sqrt(bars_per_year) * error)


def bartlett_variance(values: Array, lags: int) -> float:
    """Long-run variance of a series [T] with Bartlett's weights (Newey and West 1987)."""
    centred = values - values.mean()
    num = len(values)
    covariances = [float(centred[k:] @ centred[: num - k]) / num for k in range(lags + 1)]
    weights = 1 - np.arange(1, lags + 1) / (lags + 1)
    return covariances[0] + 2.0 * float(weights @ np.array(covariances[1:]))


def max_drawdown(returns: Array) -> float:
    """Percent that the compounded value of returns [T] falls at most from its highest before; 100
    where all is lost."""
    value = np.cumprod(np.maximum(1.0 + returns, 0.0))
    highest = np.maximum.accumulate(np.concatenate([[1.0], value]))[1:]
    return float(100.0 * (1.0 - value / highest).max(initial=0.0))


def bars_per_year(timeline: NDArray[np.datetime64]) -> float:
    """Bars that a timeline has in a year of 365.25 days. Of a single bar: NaN."""
    if len(timeline) < 2:
        return float("nan")
    return float((len(timeline) - 1) * (YEAR / (timeline[-1] - timeline[0])))


def _walk(weight: Array, market: Market) -> tuple[Array, Array]:
    """(return before cost, capital traded) [T], [T] of positions `weight` [N] held over H bars."""
    share = weight / market.num_sleeves
    num, num_cells = market.num_bars, len(market.bar_of_cell)
    earned = _sums(market.bar, share[:, None] * market.growth, num)
    held = _sums(market.cell, np.repeat(share[:, None], market.cell.shape[1], axis=1), num_cells)
    before, after = np.zeros(num_cells), np.zeros(num_cells)
    before[1:], after[:-1] = held[:-1] * market.joined, held[1:] * market.joined
    ends = np.concatenate([~market.joined, [True]])[:num_cells]
    change = np.abs(held - before) + np.abs(held) * ends
    return earned, _sums(market.bar_of_cell, change, num)


def _sums(place: IntArray, values: Array, num: int) -> Array:
    """[num] sums of the values at each place."""
    return np.asarray(np.bincount(place.ravel(), values.ravel(), num), dtype=np.float64)


def _sizes(weight: Array, origin: IntArray) -> Array:
    """[N] weights that add to 1 at each origin."""
    total = _sums(origin, weight, int(origin.max(initial=0)) + 1)
    sizes: Array = weight / total[origin]
    return sizes


def _floored(scale: Array, origin: IntArray) -> Array:
    """[N] volatilities, none below a share of the median of its origin; origins are in order."""
    begins = np.diff(origin, prepend=-1) > 0
    groups = np.split(scale, np.flatnonzero(begins)[1:])
    medians = np.array([np.median(group) if len(group) else 0.0 for group in groups])
    floored: Array = np.maximum(scale, CALMEST * medians[np.cumsum(begins) - 1])
    return floored


def _timeline_places(windows: Windows) -> IntArray:
    """[R] place on the panel's timeline of every whole row."""
    panel = windows.panel
    return np.concatenate([panel.timeline_of(i) for i in range(panel.num_items)])


def _item_of(windows: Windows, rows: IntArray) -> IntArray:
    return np.searchsorted(windows.panel.offsets, rows, side="right") - 1


def _growth(windows: Windows, cells: IntArray, place: IntArray) -> Array:
    """[C] return from the open of each row to the item's next open within the part, else to its
    own close."""
    stacked = windows.panel.stacked
    following = np.minimum(cells + 1, len(stacked) - 1)
    same = _item_of(windows, following) == _item_of(windows, cells)
    inside = (following > cells) & same & (place[following] < windows.part.stop)
    left = np.where(inside, stacked[following, OPEN], stacked[cells, CLOSE])
    growth: Array = left / stacked[cells, OPEN] - 1.0
    return growth
