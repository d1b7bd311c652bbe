"""What was forecast and what came, and every loss and score that is a function of the two.

Shape letters: N windows, H leads, Q quantile levels. All errors are relative to the close at the
origin, so no item weighs by its nominal price; in the mean of a loss every item weighs the same,
however many windows it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from foresweep.errors import UsageError

Array: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

CELLS = 4096
"""Cells (windows times leads) handled at a time: what is worked on stays in the cache."""

SAME = 1e-6
"""A median this near to the last close, as a share of it, is the last close: forecasts are kept
in single precision, and a move of 0.0001 percent is no signal."""


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What is known of each window beside its close: the same for every forecast of it."""

    scale: Array  # [N] percent: the item's volatility over the horizon, known at the origin
    usual_move: Array  # [N] price: mean absolute move from bar to bar, known at the origin
    train_move: Array  # [N] price: the same of all bars of train
    origin: IntArray  # [N] windows with the same number share their origin
    item: IntArray  # [N] windows with the same number are of one item

    def take(self, index: IntArray) -> Setting:
        return Setting(
            self.scale[index],
            self.usual_move[index],
            self.train_move[index],
            self.origin[index],
            self.item[index],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """What one pass over all quantiles finds."""

    median: Array  # [N, H] price
    pinballs: Array  # [N, H] percent of the last close, mean of levels
    below: Array  # [Q] share of closes at or below each quantile
    inside_80: float  # share of closes in [q0.1, q0.9]; NaN without these levels


@dataclass(frozen=True, eq=False)
class Outcome:
    """What was forecast and what came. The passes over all quantiles are made once and kept."""

    labels: Array  # [N, H] closes after each origin
    quantiles: Array  # [N, H, Q] forecast prices, rising in Q
    levels: tuple[float, ...]  # [Q] rising, holds 0.5
    last_close: Array  # [N] close at each origin
    setting: Setting | None = None

    @property
    def median(self) -> Array:
        """[N, H]"""
        return self._found.median

    @cached_property
    def errors(self) -> Array:
        """[N, H] absolute error of the median, price."""
        error = self.median - self.labels
        return np.abs(error, out=error)

    @cached_property
    def pct_errors(self) -> Array:
        """[N, H] absolute error of the median, percent of the last close."""
        return self.errors * (100.0 / self.last_close)[:, None]

    @property
    def pinballs(self) -> Array:
        """[N, H] pinball loss of the return to each lead in percent of the last close, mean of
        levels.

        Per level: max(level * (y - q), (level - 1) * (y - q)), without the factor 2 of some texts.
        """
        return self._found.pinballs

    @property
    def shares_below(self) -> Array:
        """[Q] share of closes at or below each quantile."""
        return self._found.below

    @property
    def share_inside_80(self) -> float:
        """Share of closes inside [q0.1, q0.9], borders included."""
        return self._found.inside_80

    @property
    def known(self) -> Setting:
        """The setting. Raises UsageError where it was not given."""
        if self.setting is None:
            raise UsageError(
                "this metric needs the volatility, the usual move and the origin of each window; "
                "give them as Outcome(..., setting=Setting(...))"
            )
        return self.setting

    @property
    def named_direction(self) -> NDArray[np.int8]:
        """[N, H] 1 where the median is above the last close, -1 below, 0 where it is the same."""
        base = self.last_close[:, None]
        up, down = self.median > base * (1.0 + SAME), self.median < base * (1.0 - SAME)
        return up.astype(np.int8) - down.astype(np.int8)

    def mean(self, losses: Array) -> float:
        """Mean of losses [N, H] over leads, an item's windows and items; without a setting every
        window weighs the same."""
        return item_mean(losses, None if self.setting is None else self.setting.item)

    def take(self, index: IntArray) -> Outcome:
        """The windows at `index`, in that order."""
        setting = None if self.setting is None else self.setting.take(index)
        labels, quantiles = self.labels[index], self.quantiles[index]
        return Outcome(labels, quantiles, self.levels, self.last_close[index], setting)

    @cached_property
    def _found(self) -> Pass:
        """Since pinball is (|y - q| + (2 level - 1) (y - q)) / 2, errors are needed once, and a
        mean over levels is a product with a vector. Levels are laid out first, each in one piece:
        about twice as fast as windows first, as forecasts come."""
        num, horizon, width = self.quantiles.shape
        tilt, ones = 2.0 * np.asarray(self.levels) - 1.0, np.ones(width)
        half = self.levels.index(0.5)
        band = [self.levels.index(x) for x in (0.1, 0.9) if x in self.levels]
        median, pinballs = np.empty((num, horizon)), np.empty((num, horizon))
        below, inside = np.zeros(width, dtype=np.int64), 0
        step = max(1, CELLS // horizon)
        for start in range(0, num, step):
            at = slice(start, start + step)
            error = np.array(self.quantiles[at].reshape(-1, width).T, order="C")
            median[at] = error[half].reshape(-1, horizon)
            np.subtract(self.labels[at].reshape(-1), error, out=error)
            under = error <= 0.0
            below += np.count_nonzero(under, axis=1)
            if len(band) == 2:
                inside += int(np.count_nonzero((error[band[0]] >= 0.0) & under[band[1]]))
            tilted = tilt @ error
            tilted += ones @ np.abs(error, out=error)
            pinballs[at] = tilted.reshape(-1, horizon)
        pinballs *= (50.0 / width) / self.last_close[:, None]
        cells = max(num * horizon, 1)
        share = inside / cells if len(band) == 2 else float("nan")
        return Pass(median, pinballs, below / cells, share)


def item_mean(losses: Array, item: IntArray | None) -> float:
    """Mean over leads, then over the windows of each item, then over items: an item that ends
    early, or has rows masked, counts like any other. `losses` [N] or [N, H], `item` [N].

    Where items have the same number of windows this is the plain mean, and is made as such.
    """
    counts = np.zeros(0) if item is None else np.bincount(item)
    counts = counts[counts > 0]
    if item is None or not len(counts) or (counts == counts[0]).all():
        return float(losses.mean())
    each = losses.mean(axis=1) if losses.ndim > 1 else losses
    sums = np.bincount(item, weights=each)[np.bincount(item) > 0]
    return float((sums / counts).mean())


def panel_mean(losses: Array) -> float:
    """`item_mean` of a panel of losses [O, I], NaN where an item has no window at an origin."""
    origin, item = np.nonzero(~np.isnan(losses))
    return item_mean(losses[origin, item], item)


# Losses [N, H], one a cell, whose mean over windows and leads is the metric of the same name.
#
# Only these can be tested: a test compares the losses of two forecasts window by window.


def pct_mae_loss(outcome: Outcome) -> Array:
    """[N, H] absolute error of the median, percent of the last close."""
    return outcome.pct_errors


def price_mae_loss(outcome: Outcome) -> Array:
    """[N, H] absolute error of the median, in price units (adjusted where prices are)."""
    return outcome.errors


def smape_loss(outcome: Outcome) -> Array:
    """[N, H] absolute error of the median, percent of the mean of forecast and actual size."""
    size = np.abs(outcome.median)
    size += np.abs(outcome.labels)
    return 200.0 * np.divide(outcome.errors, size, out=size)


def mase_loss(outcome: Outcome) -> Array:
    """[N, H] absolute error of the median over the usual move from bar to bar, of the year before
    the origin: not the published measure, which is `mase_train_loss`. Raises UsageError without a
    setting."""
    return price_mae_loss(outcome) / outcome.known.usual_move[:, None]


def mase_train_loss(outcome: Outcome) -> Array:
    """[N, H] absolute error of the median over the mean absolute move from bar to bar in train: the
    mean absolute scaled error as published (Hyndman and Koehler 2006), of one naive step. Raises
    UsageError without a setting."""
    return price_mae_loss(outcome) / outcome.known.train_move[:, None]


def pinball_loss(outcome: Outcome) -> Array:
    """[N, H] pinball loss of the return to each lead, percent of the last close, mean of levels."""
    return outcome.pinballs


def crps_loss(outcome: Outcome) -> Array:
    """[N, H] continuous ranked probability score of the return to each lead, percent of the last
    close, approximated by twice the mean pinball loss of the forecast's levels.

    The integral over all levels is taken as the mean over the few that are forecast: with 0.1 to
    0.9 the tails beyond count for nothing.
    """
    return 2.0 * outcome.pinballs


def scaled_pct_mae_loss(outcome: Outcome) -> Array:
    """[N, H] `pct_mae_loss` over the volatility known at the origin. Raises UsageError without a
    setting."""
    return pct_mae_loss(outcome) / outcome.known.scale[:, None]


def scaled_pinball_loss(outcome: Outcome) -> Array:
    """[N, H] `pinball_loss` over the volatility known at the origin. Raises UsageError without a
    setting."""
    return pinball_loss(outcome) / outcome.known.scale[:, None]


def scaled_crps_loss(outcome: Outcome) -> Array:
    """[N, H] `crps_loss` over the volatility known at the origin. Raises UsageError without a
    setting."""
    return crps_loss(outcome) / outcome.known.scale[:, None]


# Scores that are not the mean of a loss: they say something of all windows together.


TIED = 6
"""Decimals to which moves are compared, as `SAME`: what differs by rounding alone is tied."""
FEWEST_RANKED = 3
"""Items of an origin below which an order of them says nothing."""


def skill(value: float, baseline: float) -> float:
    """1 - value / baseline; 0 where both are nothing, -inf where only the baseline is."""
    if baseline == 0:
        return 0.0 if value == 0 else -np.inf
    return 1.0 - value / baseline


def rmse_pct(outcome: Outcome) -> float:
    """Root mean squared error of the median, percent of the last close."""
    return float(np.sqrt(_squares(pct_mae_loss(outcome)) / outcome.labels.size))


def r2(outcome: Outcome) -> float:
    """R2 of percentage moves from the last close, pooled over windows and leads."""
    moves = outcome.labels * (100.0 / outcome.last_close)[:, None]
    moves -= moves.mean()
    return skill(_squares(pct_mae_loss(outcome)), _squares(moves))


def r2_vs_naive(outcome: Outcome, naive: Outcome) -> float:
    """1 - squared percentage error over that of last-value, both pooled."""
    return skill(_squares(pct_mae_loss(outcome)), _squares(pct_mae_loss(naive)))


def _squares(values: Array) -> float:
    """Sum of squares."""
    return float(np.vdot(values, values))


def coverage_80(outcome: Outcome) -> float:
    """Share of closes inside [q0.1, q0.9], borders included; NaN without these levels."""
    return outcome.share_inside_80


def calibration_error(outcome: Outcome) -> float:
    """Mean over levels of |share of closes at or below the quantile - level|."""
    return float(np.abs(outcome.shares_below - np.asarray(outcome.levels)).mean())


def directional_accuracy(outcome: Outcome) -> float:
    """Share of moves from the last close whose sign the median has.

    Cells where the close came back to the last close have no direction and are left out; a median
    equal to the last close (to a millionth) names none and counts one half, as a coin would get.
    """
    base = outcome.last_close[:, None]
    up, down = outcome.labels > base, outcome.labels < base
    named = outcome.named_direction
    moved = up | down
    right = np.count_nonzero((up & (named > 0)) | (down & (named < 0)))
    none = np.count_nonzero(moved & (named == 0))
    num = np.count_nonzero(moved)
    return (right + 0.5 * none) / num if num else 0.5


def rank_ic(outcome: Outcome) -> float:
    """Spearman's correlation, across the items of an origin, of forecast and actual move to the
    last lead; mean over origins. Raises UsageError without a setting.

    Origins of fewer than three items, or where all items moved alike, are left out. Where a
    forecast moves all items alike it orders none, and the origin counts 0; one that never orders
    any has no information coefficient: NaN.
    """
    origin = outcome.known.origin
    ends = (outcome.median[:, -1], outcome.labels[:, -1])
    named, actual = (np.round(x / outcome.last_close, TIED) for x in ends)
    order = np.argsort(origin, kind="stable")
    starts = np.flatnonzero(np.diff(origin[order])) + 1
    pairs = (_rank_pair(named[i], actual[i]) for i in np.split(order, starts))
    found = [(n, a) for n, a in pairs if len(n) >= FEWEST_RANKED and a.any()]
    if not any(n.any() for n, _ in found):
        return float("nan")
    return float(np.mean([_cosine(n, a) if n.any() else 0.0 for n, a in found]))


def _rank_pair(named: Array, actual: Array) -> tuple[Array, Array]:
    return _centred_ranks(named), _centred_ranks(actual)


def _centred_ranks(values: Array) -> Array:
    """[I] ranks, ties sharing their mean, less the mean rank: all 0 where all is tied."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - (counts - 1) / 2)[place] - (len(values) + 1) / 2
    return ranks


def _cosine(one: Array, other: Array) -> float:
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))
