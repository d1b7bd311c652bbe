"""Block bootstrap of series in time: whole blocks of origins are drawn, with all that they hold.

A draw is kept as counts, how often each origin is in it, so that the means of any number of series
under any number of draws are one matrix product, and every series sees the same draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]


def block_length(horizon: int, stride: int) -> int:
    """Origins whose labels overlap, ceil(H / stride): the shortest block that holds them."""
    return -(-horizon // stride)


def block_indices(num: int, *, block: int, reps: int, seed: int) -> NDArray[np.int64]:
    """[reps, num] positions drawn by the circular block bootstrap (Politis and Romano 1992).

    Blocks of `block` neighbours start anywhere, the end joined to the beginning, so every position
    is drawn equally often; the last block is cut where `num` is no multiple.
    """
    block = max(1, min(block, num))
    starts = np.random.default_rng(seed).integers(num, size=(reps, -(-num // block)))
    drawn: NDArray[np.int64] = (starts[:, :, None] + np.arange(block)) % num
    return drawn.reshape(reps, -1)[:, :num]


def block_counts(num: int, *, block: int, reps: int, seed: int) -> Array:
    """[reps, num] how often each position is in each draw; rows add to `num`."""
    drawn = block_indices(num, block=block, reps=reps, seed=seed)
    return counts_of(drawn)


def counts_of(drawn: NDArray[np.int64]) -> Array:
    """[reps, num] counts of drawn positions [reps, num]."""
    reps, num = drawn.shape
    flat = (drawn + num * np.arange(reps)[:, None]).ravel()
    return np.bincount(flat, minlength=reps * num).reshape(reps, num).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its two-sided percentile interval, in the unit of the values."""

    mean: float
    lower: float
    upper: float
    standard_error: float


def mean_interval(
    panel: Array, *, block: int, level: float = 0.95, reps: int = 2000, seed: int = 0
) -> Interval:
    """Interval of the mean over all cells of [O, I] (or [O]): origins drawn in blocks, items kept
    together, so that a bad day is bad for all. NaN cells do not count.

    Percentile interval (Efron 1979); with fewer than some 40 origins it is too narrow. Without a
    finite cell everything is NaN.
    """
    values = panel.reshape(len(panel), -1)
    valid = np.isfinite(values)
    kept = valid.any(axis=1)
    total = np.where(valid, values, 0.0).sum(axis=1)[kept]
    cells = valid.sum(axis=1).astype(np.float64)[kept]
    if not len(total):
        return Interval(*(4 * [float("nan")]))
    counts = block_counts(len(total), block=block, reps=reps, seed=seed)
    means = (counts @ total) / (counts @ cells)
    tail = (1 - level) / 2
    lower, upper = (float(x) for x in np.quantile(means, [tail, 1 - tail]))
    return Interval(float(total.sum() / cells.sum()), lower, upper, float(means.std(ddof=1)))
