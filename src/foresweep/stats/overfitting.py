"""How much of the winner's lead is the luck of having tried many.

Differences d [T, K] are benchmark loss - trial loss, one row an origin in time order, one column a
trial, as in `stepm`; positive where the trial is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import e

import numpy as np

from foresweep.stats.significance import Array, block_counts, block_length

MOST_BLOCKS = 16
FEWEST_BLOCKS = 6
"""Fewer leave at most 6 ways of halving the origins: too few to speak of a probability."""
EULER = 0.5772156649015329


@dataclass(frozen=True, slots=True)
class Cscv:
    """Combinatorially symmetric cross-validation: pick on one half of the blocks, look at the
    other, over all halvings."""

    probability_of_loss: float  # share in which the pick loses to the benchmark on the other half
    pbo: float | None  # share in which the pick is no better than the median of all trials there


@dataclass(frozen=True, slots=True)
class Sharpe:
    """A Sharpe ratio per bar (not annualised) and the chance that its true value is above
    `threshold`."""

    ratio: float
    threshold: float  # 0, or the best that N skill-free trials are expected to show
    probability: float
    num: int


def cscv_blocks(num_origins: int, horizon: int, stride: int) -> int:
    """Largest even number <= 16 whose blocks hold at least max(2, ceil(H / stride)) origins; below
    `FEWEST_BLOCKS` there is too little evidence for CSCV. 0 where not even two blocks fit."""
    least = max(2, block_length(horizon, stride))
    return min(MOST_BLOCKS, 2 * (num_origins // (2 * least)))


def cscv(d: Array, *, num_blocks: int) -> Cscv | None:
    """Bailey, Borwein, Lopez de Prado and Zhu (2017, J. Computational Finance), on differences.

    The blocks are neighbours in time, as equal as can be; a pick is the column with the highest
    mean on its half (ties: the first). A tie with the benchmark is no loss. PBO counts a pick at
    the median as below it, as the paper does (logit <= 0), and is None of a single trial, which is
    its own median. Columns that are not finite somewhere and rows that are NaN everywhere are left
    out; None where no column or fewer origins than blocks remain. Raises ValueError for an odd
    number of blocks.
    """
    if num_blocks < 2 or num_blocks % 2:
        raise ValueError(f"num_blocks {num_blocks} must be even and at least 2")
    values = _finite(d)
    if not values.shape[1] or len(values) < num_blocks:
        return None
    parts = np.array_split(values, num_blocks)
    sums = np.array([part.sum(axis=0) for part in parts])
    sizes = np.array([len(part) for part in parts], dtype=np.float64)
    chosen = np.array(list(combinations(range(num_blocks), num_blocks // 2)))
    inside = np.zeros((len(chosen), num_blocks))
    np.put_along_axis(inside, chosen, 1.0, axis=1)
    seen = (inside @ sums) / (inside @ sizes)[:, None]
    unseen = ((1 - inside) @ sums) / ((1 - inside) @ sizes)[:, None]
    pick = seen.argmax(axis=1)
    got = np.take_along_axis(unseen, pick[:, None], axis=1)
    # its rank, from 1, among all trials on the other half; ties share their mean
    rank = (unseen < got).sum(axis=1) + ((unseen == got).sum(axis=1) + 1) / 2
    below = rank / (values.shape[1] + 1) <= 0.5
    pbo = float(below.mean()) if values.shape[1] > 1 else None
    return Cscv(float((got[:, 0] < 0).mean()), pbo)


def effective_trials(d: Array, num_trials: int | None = None) -> float:
    """Number of independent trials that `num_trials` (default: K) correlated ones amount to.

    r + (1 - r) N with r the mean correlation between columns, at least 0 (Bailey and Lopez de
    Prado 2014, appendix A.3). Counts every trial of the lineage when `num_trials` does: those
    without losses are taken to be as correlated as the others.
    """
    values = _finite(d)
    num = float(values.shape[1] if num_trials is None else num_trials)
    values = values[:, values.std(axis=0) > 0] if len(values) else values
    if values.shape[1] < 2 or num <= 1:
        return num
    correlation = np.asarray(np.corrcoef(values, rowvar=False))
    mean = float(correlation[np.triu_indices(len(correlation), 1)].mean())
    share = min(max(mean, 0.0), 1.0)
    return share + (1 - share) * num


def expected_maximum(num: float) -> float:
    """Expected largest of `num` independent standard normals, by Bailey and Lopez de Prado's
    (2014) approximation (1 - g) Z(1 - 1/N) + g Z(1 - 1/(N e)), g = 0.5772; 0 for one trial."""
    from scipy.special import ndtri

    if num <= 1:
        return 0.0
    found = (1 - EULER) * ndtri(1 - 1 / num) + EULER * ndtri(1 - 1 / (num * e))
    return max(0.0, float(found))


def expected_best(standard_errors: Array, num_effective: float) -> float:
    """Mean difference that the best of `num_effective` trials without skill is expected to show:
    the median standard error times `expected_maximum`: trials that are far off vary most, and say
    nothing on what luck can do for the others. Unit of the losses."""
    known = standard_errors[np.isfinite(standard_errors)]
    if not len(known):
        return float("nan")
    return float(np.median(known)) * expected_maximum(num_effective)


def debiased_best(d: Array, *, block: int, seed: int = 0) -> float | None:
    """The highest mean of a column, less the optimism of having picked the highest.

    The optimism is the bootstrap's mean of (mean of its own winner as drawn - as seen): it takes
    off about two thirds of the true one among trials without skill, and hardly anything from a
    winner that stands out. None where no column is finite.
    """
    values = _finite(d)
    if not values.size:
        return None
    mean = values.mean(axis=0)
    counts = block_counts(len(values), block=block, reps=2000, seed=seed)
    drawn = counts @ values / len(values)
    optimism = float((drawn.max(axis=1) - mean[drawn.argmax(axis=1)]).mean())
    return float(mean.max()) - optimism


def overtuning(inner: Sequence[float], outer: Sequence[float]) -> float | None:
    """What the last trials of a search cost on data that did not steer it, in units of the losses.

    Of trials in the order in which they were tried, with losses on the part that steers (`inner`:
    tune) and on one that does not (`outer`: val). The incumbent after t trials is the one of them
    with the lowest inner loss. Overtuning = outer(last incumbent) - min over all incumbents of
    outer, >= 0. Schneider, Bischl and Feurer (2025), Overtuning in Hyperparameter Optimization,
    PMLR 293:17. Trials with a loss that is not finite are skipped; None where none is left.
    """
    path: list[float] = []
    lowest = np.inf
    for steers, ranks in zip(inner, outer, strict=True):
        if np.isfinite(steers) and np.isfinite(ranks) and steers < lowest:
            lowest = steers
            path.append(ranks)
    return path[-1] - min(path) if path else None


def probabilistic_sharpe(returns: Array, *, threshold: float = 0.0) -> Sharpe | None:
    """Chance that the true Sharpe ratio per bar is above `threshold`, given skew and fat tails.

    Bailey and Lopez de Prado (2012): Z((SR - SR*) sqrt(T - 1) / sqrt(1 - skew SR + (kurtosis - 1)
    / 4 SR^2)), SR with the standard deviation of T - 1 degrees of freedom. NaN returns are left
    out; None with fewer than 3, or where they never vary.
    """
    kept = np.asarray(returns, dtype=np.float64)
    kept = kept[np.isfinite(kept)]
    if len(kept) < 3 or kept.std() <= 1e-12 * np.abs(kept).max(initial=0.0):
        return None
    z = (kept - kept.mean()) / kept.std()
    skew, kurtosis = float((z**3).mean()), float((z**4).mean())
    ratio = float(kept.mean() / kept.std(ddof=1))
    return sharpe_from_moments(ratio, len(kept), skew, kurtosis, threshold=threshold)


def sharpe_from_moments(
    ratio: float, num: int, skew: float, kurtosis: float, *, threshold: float = 0.0
) -> Sharpe:
    """The same from a Sharpe ratio per bar over `num` bars and its returns' moments; a normal's
    kurtosis is 3."""
    from scipy.special import ndtr

    spread = np.sqrt(max(1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2, 1e-12))
    probability = float(ndtr((ratio - threshold) * np.sqrt(num - 1) / spread))
    return Sharpe(ratio, threshold, probability, num)


def deflated_sharpe(
    returns: Array, trial_ratios: Array, *, num_effective: float | None = None
) -> Sharpe | None:
    """`probabilistic_sharpe` above what the best of N skill-free trials is expected to show.

    Bailey and Lopez de Prado (2014): threshold = sd of the trials' Sharpe ratios per bar times
    `expected_maximum(N)`; N defaults to their number. With one trial the threshold is 0.
    """
    known = np.asarray(trial_ratios, dtype=np.float64)
    known = known[np.isfinite(known)]
    num = float(len(known)) if num_effective is None else num_effective
    spread = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    return probabilistic_sharpe(returns, threshold=spread * expected_maximum(num))


def _finite(d: Array) -> Array:
    """Rows with a value, columns finite in all of them."""
    rows = np.asarray(d, dtype=np.float64)
    rows = rows[~np.isnan(rows).all(axis=1)]
    return rows[:, np.isfinite(rows).all(axis=0)]
