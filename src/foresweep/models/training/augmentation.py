"""Training windows, drawn and altered: mirrored price paths, merged bars.

Both are applied to whole bars, before any representation, and to training windows alone. Every
bar that a window is made of lies in train, its labels included, however many are merged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import CLOSE, HIGH, LOW, OPEN, VOLUME, Array, IntArray
from foresweep.data.windows import TrainWindows
from foresweep.errors import NotEnoughData
from foresweep.models.training.config import TrainingConfig

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Drawn:
    """B training windows of L bars, context first."""

    bars: Array  # [B, L, F]
    timestamps: NDArray[np.datetime64]  # [B, L]; of merged bars that of the last
    item: IntArray  # [B]
    row: IntArray  # [B] first row of the window among its item's
    merged: IntArray  # [B] rows that make a bar, 1: as they are
    flipped: Flags  # [B]


class Sampler:
    """Draws windows evenly from all of train, with the augmentations of a config.

    A learner makes one with the lengths of its window and calls `draw` with the loop's generator.
    Without augmentation it draws one number a window and gives the bars as they are.
    """

    def __init__(
        self, train: TrainWindows, context: int, labels: int, config: TrainingConfig
    ) -> None:
        """Raises NotEnoughData when no item has a window, `config.time_scale` times as long."""
        self._train, self._length = train, context + labels
        self._scale, self._flips = config.time_scale, config.sign_flip
        try:
            longest = train.starts(self._scale * context, self._scale * labels)
        except NotEnoughData as error:
            if self._scale == 1:
                raise
            raise NotEnoughData(f"time_scale={self._scale}: {error}") from error
        shorter = (train.starts(k * context, k * labels) for k in range(1, self._scale))
        self._starts = [*shorter, longest]

    def draw(self, rng: np.random.Generator, size: int) -> Drawn:
        """`size` windows."""
        if self._scale == 1:
            merged = np.ones(size, dtype=np.int64)
            chosen = rng.integers(len(self._starts[0][0]), size=size)
        else:
            merged = rng.integers(1, self._scale + 1, size=size)
            chosen = rng.integers(np.array([len(item) for item, _ in self._starts])[merged - 1])
        flipped = rng.random(size) < 0.5 if self._flips else np.zeros(size, dtype=bool)
        item, row = (self._pick(part, merged, chosen) for part in (0, 1))
        bars, times = self._cut(item, row, merged)
        if self._flips:
            bars[flipped] = mirror(bars[flipped])
        return Drawn(bars, times, item, row, merged, flipped)

    def _pick(self, part: int, merged: IntArray, chosen: IntArray) -> IntArray:
        out = np.empty_like(chosen)
        for k in np.unique(merged):
            out[merged == k] = self._starts[k - 1][part][chosen[merged == k]]
        return out

    def _cut(
        self, item: IntArray, row: IntArray, merged: IntArray
    ) -> tuple[Array, NDArray[np.datetime64]]:
        if self._scale == 1:
            return self._train.cut(item, row, self._length)
        bars = np.empty((len(item), self._length, VOLUME + 1))
        times = np.empty((len(item), self._length), dtype="datetime64[ns]")
        for k in np.unique(merged):
            same = merged == k
            found, at = self._train.cut(item[same], row[same], int(k) * self._length)
            bars[same], times[same] = merge(found, int(k)), at[:, k - 1 :: k]
        return bars, times


def mirror(bars: Array) -> Array:
    """Bars [B, L, F] whose log prices are mirrored about the window's first close: what rose by a
    factor falls by it, the high becomes the low. Volume stays."""
    out = bars.copy()
    about = bars[:, :1, CLOSE] ** 2
    for column, source in ((OPEN, OPEN), (HIGH, LOW), (LOW, HIGH), (CLOSE, CLOSE)):
        out[:, :, column] = about / bars[:, :, source]
    return out


def merge(bars: Array, k: int) -> Array:
    """Bars [B, k L, F] as [B, L, F], each of k that follow one another: the first open, the
    highest high, the lowest low, the last close, the volumes' sum."""
    parts = bars.reshape(len(bars), -1, k, bars.shape[-1])
    out = np.empty((*parts.shape[:2], bars.shape[-1]))
    out[..., OPEN] = parts[:, :, 0, OPEN]
    out[..., HIGH] = parts[..., HIGH].max(axis=2)
    out[..., LOW] = parts[..., LOW].min(axis=2)
    out[..., CLOSE] = parts[:, :, -1, CLOSE]
    out[..., VOLUME] = parts[..., VOLUME].sum(axis=2)
    return out
