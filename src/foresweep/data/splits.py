"""Splits: the four parts of time, cut the same way for all items.

    |------ train ------|..|-- tune --|..|--- val ---|..|--- test ---|      .. H bars purged

`train` is learnt from, `tune` steers the sweep, `val` ranks, `test` is sealed. An origin belongs
to a part when all its H labels lie inside that part; its context may reach back over the border.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from foresweep.errors import ConfigError, NotEnoughData

if TYPE_CHECKING:
    from foresweep.data.panel import IntArray, Panel

PartName = Literal["train", "tune", "val", "test"]
PARTS: tuple[PartName, ...] = ("train", "tune", "val", "test")
SHARES = (0.65, 0.10, 0.125, 0.125)
WANTED_ORIGINS = 40
FEWEST_ORIGINS = 60
"""The stride grows down to this many origins before items are left out (`max_windows`)."""
MIN_CONTEXT = 32
DEFAULT_MAX_CONTEXT = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One part of time: timeline positions [start, stop) and the origins scored in it."""

    name: PartName
    start: int
    stop: int
    num_bars: int  # eligible bars in it
    stride: int  # bars between origins
    origins: IntArray  # [O] timeline positions

    def effective_origins(self, horizon: int) -> float:
        """Origins that share no label."""
        return origins_apart(len(self.origins), self.num_bars, horizon)


def origins_apart(count: int, bars: int, horizon: int) -> float:
    """Of `count` origins in a part those that share no label: min(count, (bars - H) / H + 1)."""
    return min(float(count), (bars - horizon) / horizon + 1)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """The cut of one panel for one horizon: frozen with the sweep."""

    horizon: int
    max_context: int  # the longest context a config may ask for
    min_context: int  # a window with fewer whole rows before it is not scored
    parts: tuple[Part, Part, Part, Part]
    items: tuple[int, ...]  # indices of the scored items (all, unless max_windows left some out)

    def part(self, name: PartName) -> Part:
        return self.parts[PARTS.index(name)]

    def cut_hash(self, panel: Panel) -> str:
        """sha256 of the panel's content and the cut dates: the `panel_hash` of a sweep."""
        digest = hashlib.sha256(panel.hash.encode())
        for part in self.parts:
            digest.update(panel.timeline[[part.start, part.stop - 1]].astype("int64").tobytes())
        return digest.hexdigest()


def make_split(
    panel: Panel,
    horizon: int,
    *,
    shares: tuple[float, float, float, float] = SHARES,
    stride: int | None = None,
    max_context: int | None = None,
    min_context: int = MIN_CONTEXT,
    max_windows: int = 100_000,
    seed: int = 0,
) -> Split:
    """Cut a panel by time into train, tune, val and test, with `horizon` bars purged between.

    `stride` defaults to max(1, min(H, (bars in part - H) // 40)): about 40 origins or more. When a
    part would hold more than `max_windows` windows, its stride grows down to 60 origins, then a
    seeded subset of items is scored. Raises NotEnoughData, ConfigError.
    """
    sizes = {"horizon": horizon, "stride": stride, "max_context": max_context}
    sizes |= {"min_context": min_context, "max_windows": max_windows}
    for name, value in sizes.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value} must be at least 1")
    if len(shares) != 4 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ConfigError(f"shares {shares} must be four positive numbers that add to 1")
    bars = panel.eligible
    edges = [round(float(e) * len(bars)) for e in np.cumsum((0.0, *shares))]
    parts = []
    for k, name in enumerate(PARTS):
        first = edges[k] + (horizon if k else 0)
        parts.append(_cut(panel, name, bars, first, edges[k + 1], horizon, stride, max_windows))
    fewest = max(1, max_windows // max(len(p.origins) for p in parts[1:]))
    items = tuple(range(panel.num_items))
    if fewest < len(items):
        chosen = np.random.default_rng(seed).choice(len(items), fewest, replace=False)
        items = tuple(sorted(int(i) for i in chosen))
    longest = max(edges[1] - 2 * horizon, min_context)
    if max_context is not None and max_context > longest:
        raise ConfigError(
            f"max_context {max_context} is more than the {longest} bars that train leaves; "
            f"use at most {longest}"
        )
    ceiling = max_context or min(DEFAULT_MAX_CONTEXT, longest)
    return Split(horizon, ceiling, min(min_context, ceiling), tuple(parts), items)  # type: ignore[arg-type]


def _cut(
    panel: Panel,
    name: PartName,
    bars: IntArray,
    first: int,
    end: int,
    horizon: int,
    stride: int | None,
    max_windows: int,
) -> Part:
    """One part over eligible bars [first, end)."""
    num = end - first
    if num < horizon:
        purged = f" after {horizon} purged ones" if name != "train" else ""
        raise NotEnoughData(
            f"horizon {horizon} is too long for this panel: {name!r} would have "
            f"{max(num, 0)} bars{purged}, of {len(bars)} in all; "
            f"use a shorter horizon or more history"
        )
    step = stride or max(1, min(horizon, (num - horizon) // WANTED_ORIGINS))
    if name == "train":
        origins = bars[:0]
    else:
        step = _grown(step, num - horizon, panel.num_items, max_windows)
        origins = bars[first - 1 : end - horizon : step]
    start = int(bars[first - 1]) + 1 if first else int(bars[0])
    return Part(name, start, int(bars[end - 1]) + 1, num, step, origins)


def _grown(step: int, room: int, num_items: int, max_windows: int) -> int:
    """The stride, grown until a part holds at most `max_windows` or only 60 origins are left."""
    allowed = max(FEWEST_ORIGINS, max_windows // num_items)
    return max(step, -(-room // max(allowed - 1, 1))) if room // step + 1 > allowed else step
