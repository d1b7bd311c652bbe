"""A footprint of prices that does not know names and dates: which moves a sweep has looked at.

Whoever renames an item or shifts its dates sees the same accidents again. So moves are hashed: of
every stretch of `WIDTH` close-to-close log returns (to a millionth, so that a history re-based as a
whole stays the same) 64 bits of SHA-256, of which those divisible by a power of two are kept. Two
panels that share stretches share hashes wherever in time and under whatever name they lie.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import Panel
from foresweep.data.splits import Split

WIDTH = 16
"""Returns hashed together."""
FEWEST_KINDS = 8
"""Different returns that a stretch must hold: still items and limit days look all alike."""
MOST = 2048
"""Hashes kept of a sweep. Coarser footprints hold a part of finer ones' hashes."""
CLOSE = 3

Hashes = NDArray[np.uint64]


def footprint_of(panel: Panel, split: Split) -> Hashes:
    """Rising hashes of the moves of all scored items from the first bar of tune to the last of
    test: whatever steered, ranked or confirmed."""
    first, last = split.part("tune").start, split.part("test").stop
    found: set[int] = set()
    for item in split.items:
        rows = panel.timeline_of(item)
        closes = panel.bars[item].values[(rows >= first) & (rows < last), CLOSE]
        found.update(_stretches(closes))
    kept, step = np.array(sorted(found), dtype=np.uint64), 1
    while len(kept) > MOST:
        step *= 2
        kept = kept[kept % np.uint64(step) == 0]
    return kept


def _stretches(closes: NDArray[np.float64]) -> Iterable[int]:
    moves = np.round(np.diff(np.log(closes)), 6) + 0.0
    for start in range(len(moves) - WIDTH + 1):
        stretch = moves[start : start + WIDTH]
        if len(np.unique(stretch)) >= FEWEST_KINDS:
            yield int.from_bytes(hashlib.sha256(stretch.tobytes()).digest()[:8], "little")


def written(hashes: Hashes) -> str:
    """Hashes as text for the record."""
    return base64.b64encode(hashes.astype("<u8").tobytes()).decode("ascii")
