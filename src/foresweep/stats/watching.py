"""Has what is in service become worse? Watched every day, for years, at one level in all.

The asymptotic form of `sequential` answers whether the mean since the beginning is above zero. Two
things make of it a watch that wakes up in time (measured in benchmarks/monitor.py):

- **Several beginnings.** What went wrong after a good half-year is hidden by it: the mean is still
  good, and the step reads as autocorrelation. So the test begins anew every `RESTART` origins, each
  time with a share of the level; the shares add to 1 however long it goes on, so that the chance
  that any of them is ever wrong stays below the level (Bonferroni over beginnings).
- **A variance that was known before.** Of 60 overlapping 5-bar losses 12 stand for themselves, and
  a variance from these alone costs all power. The losses on val, on which the champion was chosen,
  have 40 and more: they lend their variance, never their mean. Where the live one is larger, it
  counts: the two are pooled by their degrees of freedom, and never below val's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from foresweep.stats.sequential import BEST_AT, FEWEST, log_evidence, mixing_precision
from foresweep.stats.significance import Array, mean_errors

RESTART = 40
"""Origins between two beginnings."""
FIRST = 0.25
"""Share of the level of the first beginning: what is wrong from the start shows soon enough."""
SOONEST = 10
"""Origins before anything is said, where the variance was known before."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What is known beforehand of differences: no mean, only how much they vary."""

    variance: float  # of a mean over T bars, times T
    df: float


def reference_of(differences: Array, *, lags: int, stride: int, horizon: int) -> Reference | None:
    """Of differences [O] at every `stride`-th bar, `lags` of which share labels with the one before
    them; None where they are too few or do not vary.

    Of overlapping windows, one a bar, at most H (`horizon`) stand for one, as if each H-th stood
    alone: the reference errs to the safe side. Origins further apart than the horizon say nothing
    of the bars between.
    """
    known = differences[np.isfinite(differences)]
    found = mean_errors(known[:, None], lags=lags)
    error, df = float(found.error[0]), float(found.df[0])
    if not math.isfinite(error) or not error > 0 or len(known) < FEWEST * (lags + 1):
        return None
    return Reference(error**2 * len(known) * min(stride, horizon), df)


def shares(num: int) -> list[float]:
    """Of the level, for the first `num` beginnings: FIRST for the first, of the rest 1/2, 1/6, 1/12
    ...: 1 / (k (k + 1))."""
    return [FIRST if k == 0 else (1 - FIRST) / (k * (k + 1)) for k in range(num)]


def ever_above(
    differences: Array, *, lags: int, level: float, reference: Reference | None = None
) -> Array:
    """[T, K] the smallest p-value up to each origin, that the mean of each column of differences
    [T, K] (one row an origin, in time order, every bar) is not above 0, since the beginning or
    since any later one. Below `level` at any time: found, falsely with chance `level` at most.
    """
    num = len(differences)
    starts = range(0, max(num, 1), RESTART)
    best = np.zeros(differences.shape)  # log e, times its share of the level
    for start, share in zip(starts, shares(len(starts)), strict=True):
        rho = mixing_precision(level * share, BEST_AT)
        seen = differences[start:]
        for count in range(_soonest(lags, reference), len(seen) + 1):
            z = _z(seen[:count], lags, reference)
            log_e = log_evidence(z, count, rho) + math.log(share)
            row = best[start + count - 1]
            np.maximum(row, log_e, out=row)
    pvalues: Array = np.exp(-np.maximum.accumulate(best, axis=0)) if num else best
    return pvalues


def _soonest(lags: int, reference: Reference | None) -> int:
    return FEWEST * (lags + 1) if reference is None else max(SOONEST, 2 * (lags + 1))


def _z(seen: Array, lags: int, reference: Reference | None) -> Array:
    """[K] Student's t of the means, moved to the normal scale; -inf where nothing varies."""
    from scipy.special import ndtri, stdtr

    num = len(seen)
    found = mean_errors(seen, lags=lags)
    there = np.isfinite(found.error)
    live = np.where(there, found.error, 0.0) ** 2 * num
    df = np.where(there, found.df, 0.0)
    if reference is not None:
        pooled = (reference.variance * reference.df + live * df) / (reference.df + df)
        live, df = np.maximum(pooled, reference.variance), reference.df + df
    sound = live > 0
    t = seen.mean(axis=0) / np.sqrt(np.where(sound, live, 1.0) / num)
    tail = stdtr(np.where(sound, df, 1.0), -t)
    z: Array = np.where(sound, -ndtri(np.clip(tail, 1e-300, 1.0)), -np.inf)
    return z
