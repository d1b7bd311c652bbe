"""Which of many trials beat the benchmark, counting them all: StepM, simultaneous bounds, MCS.

Everything here takes differences d [T, K] = benchmark loss - trial loss, one row an origin (mean
over its items) in time order, one column a trial: positive where the trial is better.

Each column is divided by its own Diebold-Mariano standard error before columns are compared. The
joint law of the largest statistic comes from a block bootstrap of all columns at once; its
quantile, on the normal scale, is moved to Student's t of each column's degrees of freedom, because
at 20 to 60 origins the bootstrap's own quantile rejects a true null two to four times too often.

A column that holds NaN or infinity at an origin where others do not, or that never varies (a trial
equal to the benchmark), shows nothing: it is never superior, takes no part in the joint law, and
its statistic, error and bounds are NaN. Rows that are NaN in every column are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from foresweep.stats.significance import Array, block_counts, mean_errors

Bools: TypeAlias = NDArray[np.bool_]

FEWEST_REPS = 2000
FURTHEST = 30.0
"""Standard deviations behind the benchmark, beyond any draw: further is no number."""
REPS_PER_LEVEL = 40.0
"""Draws expected beyond the critical value: at strict levels more are made, up to MOST_REPS."""
MOST_REPS = 40_000


@dataclass(frozen=True, slots=True, eq=False)
class StepM:
    """What the step-down test found. K trials; differences are benchmark - trial."""

    superior: Bools  # [K] better than the benchmark, all K counted, at `level`
    pvalue: Array  # [K] step-down adjusted: the smallest level at which it would be superior
    statistic: Array  # [K] t of each column
    mean_difference: Array  # [K] unit of the losses
    standard_error: Array  # [K] of the mean, Harvey correction and autocorrelation included
    df: Array  # [K] of Student's t
    inflation: Array  # [K] of the variance, by autocorrelation beyond shared labels
    critical: float  # normal value that the best of all K has to pass; inf: no column can be tested
    level: float
    num_tested: int  # columns that could be tested
    num_origins: int
    block: int  # origins
    reps: int

    @property
    def critical_t(self) -> Array:
        """[K] `critical` as Student's t of each column."""
        return _to_t(self.critical, self.df)


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """Bounds of the true mean difference of all K trials that hold together at 1 - level."""

    lower: Array  # [K] one-sided: with `upper` together they hold at 1 - 2 level
    upper: Array  # [K]


@dataclass(frozen=True, slots=True, eq=False)
class _Joint:
    """Columns that can be tested, and what the bootstrap says about them. B draws."""

    used: Bools  # [K]
    num: int
    mean: Array  # [K]
    error: Array  # [K]
    df: Array  # [K] of Student's t
    inflation: Array  # [K]
    draws: Array  # [B, used] deviations of the drawn means over their own sd
    block: int  # origins

    @property
    def statistic(self) -> Array:
        """[K]"""
        empty = np.full(self.mean.shape, np.nan)
        t: Array = np.divide(self.mean, self.error, out=empty, where=self.used)
        return t

    @property
    def normal(self) -> Array:
        """[used] statistic as the normal value that is as rare."""
        from scipy.special import ndtri, stdtr

        z: Array = -ndtri(stdtr(self.df[self.used], -self.statistic[self.used]))
        return z

    @property
    def behind(self) -> Array:
        """[used] where columns too far behind the benchmark to be its equals stand, on the scale of
        the draws; 0 for all others.

        Too far begins at sqrt(2 log log n) standard errors (Hansen 2005), n origins without shared
        labels, and counts fully at twice that: a trial that crosses a threshold by the third digit
        of its loss must not move the answer."""
        least = np.sqrt(2 * np.log(np.log(max(self.num / self.block, 4.0))))
        share = np.clip(-self.statistic[self.used] / least - 1.0, 0.0, 1.0)
        behind: Array = share * np.minimum(np.maximum(self.normal, -FURTHEST), 0.0)
        return behind


def stepm(
    d: Array,
    *,
    block: int,
    level: float = 0.05,
    reps: int | None = None,
    seed: int = 0,
) -> StepM:
    """Step-down test of every column at one familywise level (Romano and Wolf 2005, Econometrica),
    by adjusted p-values (Romano and Wolf 2016): superior is what is below the level.

    Columns too far behind the benchmark to be its equals count from where they stand, as in
    Hansen's test (Step-SPA: Hsu, Hsu and Kuan 2010, J. Empirical Finance): hopeless trials do not
    raise the bar for good ones. p is (1 + draws as large) / (1 + draws), never 0 (Davison and
    Hinkley 1997).
    `block` is `block_length(H, stride)`; `reps` defaults to 2000, more at strict levels.
    """
    reps = reps or reps_for(level)
    joint = _joint(d, block, reps, seed)
    t, z = joint.statistic, joint.normal
    pvalue, critical = np.ones(len(t)), float("inf")
    if joint.used.any():
        order = np.argsort(-z, kind="stable")
        draws = (joint.draws + joint.behind)[:, order]
        # the largest draw among a column and all that rank behind it
        largest = np.maximum.accumulate(draws[:, ::-1], axis=1)[:, ::-1]
        ranked = np.empty(len(z))
        as_large = 1 + (largest >= z[order]).sum(axis=0)
        ranked[order] = np.maximum.accumulate(as_large / (1 + reps))
        pvalue[joint.used] = ranked
        # nothing behind the benchmark is superior
        critical = max(float(np.quantile(largest[:, 0], 1 - level)), 0.0)
    return StepM(
        superior=pvalue < level,
        pvalue=pvalue,
        statistic=t,
        mean_difference=joint.mean,
        standard_error=joint.error,
        df=joint.df,
        inflation=joint.inflation,
        critical=critical,
        level=level,
        num_tested=int(joint.used.sum()),
        num_origins=joint.num,
        block=block,
        reps=reps,
    )


def reps_for(level: float) -> int:
    """Draws that leave about 40 beyond the critical value of this level; at least 2000."""
    return int(min(MOST_REPS, max(FEWEST_REPS, np.ceil(REPS_PER_LEVEL / level))))


def simultaneous_bounds(
    d: Array,
    *,
    block: int,
    level: float = 0.05,
    reps: int | None = None,
    seed: int = 0,
) -> Bounds:
    """One-sided bounds of every column's true mean, each side right for all K at once.

    mean -/+ c SE, c from the bootstrap's largest (smallest) deviation over all columns: they stay
    right for whichever column is looked at afterwards. A column that equals the benchmark at every
    origin has both bounds 0; one that cannot be tested has NaN: nothing is known about it.
    """
    joint = _joint(d, block, reps or reps_for(level), seed)
    low, high = np.full((2, len(joint.mean)), np.nan)
    if joint.used.any():
        below, above = (
            _to_t(float(np.quantile(extreme, 1 - level)), joint.df)
            for extreme in (joint.draws.max(axis=1), -joint.draws.min(axis=1))
        )
        low, high = joint.mean - below * joint.error, joint.mean + above * joint.error
    rows = ~np.isnan(d).all(axis=1)
    equal = (d[rows] == 0.0).all(axis=0) & bool(rows.any())
    low[equal] = high[equal] = 0.0
    return Bounds(low, high)


def mcs(
    losses: Array, *, block: int, level: float = 0.10, reps: int = 1000, seed: int = 0
) -> tuple[Bools, Array]:
    """Model confidence set of losses [T, K]: members [K], and their p-values [K] (arch).

    Hansen, Lunde and Nason (2011, Econometrica), range statistic: holds the best model with
    probability 1 - level. Columns with the same losses are one model. A column that is NaN where
    others are not is no member (p = 0); rows that are NaN everywhere are left out.
    """
    from arch.bootstrap import MCS

    rows = ~np.isnan(losses).all(axis=1)
    members, pvalues = np.zeros(losses.shape[1], dtype=bool), np.zeros(losses.shape[1])
    good = np.flatnonzero(np.isfinite(losses[rows]).all(axis=0) & bool(rows.any()))
    if not len(good):
        return members, pvalues
    unique, which = np.unique(losses[rows][:, good], axis=1, return_inverse=True)
    found = np.ones(unique.shape[1])
    if unique.shape[1] > 1:
        size = max(1, min(block, len(unique)))
        test = MCS(
            unique, level, reps=reps, block_size=size, method="R", bootstrap="circular", seed=seed
        )
        test.compute()
        found[np.asarray(test.pvalues.index, dtype=int)] = test.pvalues["Pvalue"].to_numpy()
    pvalues[good] = found[which.ravel()]
    return pvalues > level, pvalues


def _to_t(normal: float, df: Array) -> Array:
    """A critical value on the normal scale as one of Student's t."""
    from scipy.special import ndtr, stdtrit

    t: Array = -stdtrit(df, ndtr(-normal))
    return t


def _joint(d: Array, block: int, reps: int, seed: int) -> _Joint:
    values = np.asarray(d, dtype=np.float64)
    values = values[~np.isnan(values).all(axis=1)]
    num = len(values)
    finite = np.asarray(np.isfinite(values).all(axis=0) & (num > 0))
    safe = np.where(finite, values, 0.0)
    # what cannot be tested says nothing of how losses go on
    known = mean_errors(safe[:, finite], lags=block - 1)
    error, df, more = np.full((3, len(finite)), np.nan)
    error[finite], df[finite], more[finite] = known.error, known.df, known.inflation
    used = finite & np.isfinite(error)
    mean = np.where(finite, safe.mean(axis=0) if num else 0.0, np.nan)
    draws = np.zeros((reps, 0))
    if used.any():
        centred = safe[:, used] - mean[used]
        draws = block_counts(num, block=block, reps=reps, seed=seed) @ centred / num
        draws /= draws.std(axis=0)
    return _Joint(used, num, mean, np.where(used, error, np.nan), df, more, draws, block)
