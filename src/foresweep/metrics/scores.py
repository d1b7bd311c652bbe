"""Scores that are not the mean of a loss: they say something of all windows together."""

from __future__ import annotations

import numpy as np

from foresweep.metrics.losses import pct_mae_loss
from foresweep.metrics.outcome import Array, Outcome

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
