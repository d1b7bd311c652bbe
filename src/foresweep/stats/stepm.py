"""Which of many trials beat the benchmark, counting them all: StepM, SPA, simultaneous bounds, MCS.

Everything here takes differences d [T, K] = benchmark loss - trial loss, one row an origin (mean
over its items) in time order, one column a trial: positive where the trial is better.

Each column is divided by its own Diebold-Mariano standard error before columns are compared. The
joint law of the largest statistic comes from a block bootstrap of all columns at once; its
quantile, on the normal scale, is moved to Student's t of the effective origins less one, because
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

from foresweep.stats.significance import Array, block_counts, standard_errors

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
    statistic: Array  # [K] t of each column (plain: its mean difference)
    mean_difference: Array  # [K] unit of the losses
    standard_error: Array  # [K] of the mean, Harvey correction included
    critical: float  # what the best of all K has to pass; inf where no column can be tested
    last_critical: float  # what the last step asked
    level: float
    num_tested: int  # columns that could be tested
    num_origins: int
    effective_origins: float
    block: int  # origins
    reps: int


@dataclass(frozen=True, slots=True)
class Spa:
    """P-values of "no trial beats the benchmark": lower and upper bracket the consistent one."""

    lower: float
    consistent: float
    upper: float


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """Bounds of the true mean difference of all K trials that hold together at 1 - level."""

    lower: Array  # [K] one-sided: with `upper` together they hold at 1 - 2 level
    upper: Array  # [K]
    critical_lower: float
    critical_upper: float


@dataclass(frozen=True, slots=True, eq=False)
class _Joint:
    """Columns that can be tested, and what the bootstrap says about them. B draws."""

    used: Bools  # [K]
    num: int
    mean: Array  # [K]
    error: Array  # [K]
    draws: Array  # [B, used] deviations of the drawn means over their own sd (plain: as they are)
    df: float  # of Student's t; inf: plain
    effective: float  # origins

    def to_t(self, c: float) -> float:
        """A critical value on the normal scale as one of Student's t."""
        from scipy.special import ndtr, stdtrit

        return c if np.isinf(self.df) else float(-stdtrit(self.df, ndtr(-c)))

    def to_normal(self, t: Array) -> Array:
        """Student's t as the normal value that is as rare."""
        from scipy.special import ndtri, stdtr

        found: Array = t if np.isinf(self.df) else -ndtri(stdtr(self.df, -t))
        return found

    @property
    def statistic(self) -> Array:
        """[K]"""
        if np.isinf(self.df):
            return np.where(self.used, self.mean, np.nan)
        return np.divide(self.mean, self.error, out=_nans(self.mean), where=self.used)

    @property
    def behind(self) -> Array:
        """[used] statistic, on the scale of the draws, of columns too far behind the benchmark to
        be its equals: below -sqrt(2 log log n) standard errors (Hansen 2005); 0 for all others."""
        t = self.mean[self.used] / self.error[self.used]
        far = t < -np.sqrt(2 * np.log(np.log(max(self.effective, 3.0))))
        stand = np.maximum(self.to_normal(self.statistic[self.used]), -FURTHEST)
        return np.where(far, stand, 0.0)


def stepm(
    d: Array,
    *,
    block: int,
    effective_origins: float,
    level: float = 0.05,
    reps: int | None = None,
    seed: int = 0,
    studentised: bool = True,
) -> StepM:
    """Step-down test of every column at one familywise level (Romano and Wolf 2005, Econometrica).

    Columns too far behind the benchmark to be its equals count from where they stand, as in
    Hansen's test (Step-SPA: Hsu, Hsu and Kuan 2010, J. Empirical Finance): hopeless trials do not
    raise the bar for good ones.
    `block` is `bootstrap.block_length(H, stride)`, `effective_origins` those without shared labels;
    `reps` defaults to 2000, more at strict levels. `studentised=False` compares plain means by the
    bootstrap's own quantile, as arch does: for comparison only, it misses what varies little.
    """
    reps = reps or reps_for(level)
    joint = _joint(d, block, effective_origins, reps, seed, studentised)
    t = joint.statistic
    superior, criticals = _step_down(joint, level)
    return StepM(
        superior=superior,
        pvalue=_adjusted(joint),
        statistic=t,
        mean_difference=joint.mean,
        standard_error=joint.error,
        critical=criticals[0],
        last_critical=criticals[-1],
        level=level,
        num_tested=int(joint.used.sum()),
        num_origins=joint.num,
        effective_origins=effective_origins,
        block=block,
        reps=reps,
    )


def reps_for(level: float) -> int:
    """Draws that leave about 40 beyond the critical value of this level; at least 2000."""
    return int(min(MOST_REPS, max(FEWEST_REPS, np.ceil(REPS_PER_LEVEL / level))))


def _step_down(joint: _Joint, level: float) -> tuple[Bools, list[float]]:
    """Superior columns [K], and the critical value of each step."""
    t, draws = joint.statistic[joint.used], joint.draws + joint.behind
    found, criticals = np.zeros(len(t), dtype=bool), []
    while not found.all():
        c = float(np.quantile(draws[:, ~found].max(axis=1), 1 - level))
        criticals.append(joint.to_t(max(c, 0.0)))  # nothing behind the benchmark is superior
        more = ~found & (t > criticals[-1])
        found |= more
        if not more.any():
            break
    superior = np.zeros(len(joint.used), dtype=bool)
    superior[joint.used] = found
    return superior, criticals or [float("inf")]


def _adjusted(joint: _Joint) -> Array:
    """[K] step-down p-values (Romano and Wolf 2016); 1 for columns that cannot be tested."""
    pvalue = np.ones(len(joint.used))
    z = joint.to_normal(joint.statistic[joint.used])
    order = np.argsort(-z, kind="stable")
    draws = (joint.draws + joint.behind)[:, order]
    # the largest draw among a column and all that rank behind it
    largest = np.maximum.accumulate(draws[:, ::-1], axis=1)[:, ::-1]
    share = (largest >= z[order]).mean(axis=0)
    ranked = np.empty(len(z))
    ranked[order] = np.maximum.accumulate(share)
    pvalue[joint.used] = ranked
    return pvalue


def spa(
    d: Array,
    *,
    block: int,
    effective_origins: float,
    reps: int = FEWEST_REPS,
    seed: int = 0,
    studentised: bool = True,
) -> Spa:
    """Hansen's (2005, JBES) test that no column beats the benchmark.

    The three p-values differ in which columns far behind the benchmark still count: none (lower),
    those within sqrt(2 log log T) standard errors (consistent), all (upper). 1 where no column can
    be tested.
    """
    joint = _joint(d, block, effective_origins, reps, seed, studentised)
    if not joint.used.any():
        return Spa(1.0, 1.0, 1.0)
    stat = joint.to_normal(joint.statistic[joint.used])
    shifts = [np.minimum(stat, 0.0), joint.behind, np.zeros(len(stat))]
    best = [(joint.draws + shift).max(axis=1) for shift in shifts]
    return Spa(*(float((drawn > stat.max()).mean()) for drawn in best))


def simultaneous_bounds(
    d: Array,
    *,
    block: int,
    effective_origins: float,
    level: float = 0.05,
    reps: int | None = None,
    seed: int = 0,
) -> Bounds:
    """One-sided bounds of every column's true mean, each side right for all K at once.

    mean -/+ c SE, c from the bootstrap's largest (smallest) deviation over all columns: they stay
    right for whichever column is looked at afterwards. A column that equals the benchmark at every
    origin has both bounds 0; one that cannot be tested has NaN: nothing is known about it.
    """
    joint = _joint(d, block, effective_origins, reps or reps_for(level), seed, True)
    low, high = _nans(joint.mean), _nans(joint.mean)
    criticals = [float("inf"), float("inf")]
    if joint.used.any():
        for k, extreme in enumerate((joint.draws.max(axis=1), -joint.draws.min(axis=1))):
            criticals[k] = joint.to_t(float(np.quantile(extreme, 1 - level)))
        low = joint.mean - criticals[0] * joint.error
        high = joint.mean + criticals[1] * joint.error
    same = _equal_to_benchmark(d)
    low[same] = high[same] = 0.0
    return Bounds(low, high, criticals[0], criticals[1])


def upper_skill(d: Array, benchmark: Array, bounds: Bounds) -> Array:
    """[K] simultaneous upper bounds of scaled skill: those of the mean difference over the mean of
    the benchmark's losses [T]; infinite where nothing is known about a trial.

    The benchmark's own mean is taken as known: it moves the bound by a few percent of itself.
    """
    share = bounds.upper / float(np.nanmean(benchmark))
    return np.where(np.isnan(share), np.inf, share)


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


def _joint(
    d: Array, block: int, effective: float, reps: int, seed: int, studentised: bool
) -> _Joint:
    values = np.asarray(d, dtype=np.float64)
    values = values[~np.isnan(values).all(axis=1)]
    num = len(values)
    finite = np.isfinite(values).all(axis=0) & (num > 0)
    safe = np.where(finite, values, 0.0)
    error = standard_errors(safe, lags=block - 1)
    used = finite & np.isfinite(error)
    mean = np.where(finite, safe.mean(axis=0) if num else 0.0, np.nan)
    draws = np.zeros((reps, 0))
    if used.any():
        centred = safe[:, used] - mean[used]
        draws = block_counts(num, block=block, reps=reps, seed=seed) @ centred / num
    if studentised and used.any():
        draws /= draws.std(axis=0)
    df = max(effective - 1.0, 1.0) if studentised else float("inf")
    return _Joint(used, num, mean, np.where(used, error, np.nan), draws, df, effective)


def _equal_to_benchmark(d: Array) -> Bools:
    """[K] columns that are 0 at every origin where any column has a value."""
    rows = ~np.isnan(d).all(axis=1)
    same: Bools = (d[rows] == 0.0).all(axis=0) & bool(rows.any())
    return same


def _nans(like: Array) -> Array:
    return np.full(like.shape, np.nan)
