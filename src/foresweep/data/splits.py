"""Splits: the four parts of time, cut the same way for all items.

    |------ train ------|..|-- tune --|..|--- val ---|..|--- test ---|      .. H bars purged

`train` is learnt from, `tune` steers the sweep, `val` ranks, `test` is sealed. An origin belongs
to a part when all its H labels lie inside that part; its context may reach back over the border.

Where a config is refitted as time goes on, val and test are each forecast in stretches of origins,
every one by weights that learnt up to H bars before its first label (`Split.stretches`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
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
REFITTED: tuple[PartName, ...] = ("val", "test")
"""Parts that are forecast in stretches where a config is refitted."""
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


@dataclass(frozen=True, slots=True)
class Stretch:
    """Origins of a part that the same weights forecast."""

    number: int  # 1, 2, ...
    first: int  # origins [first, last) of the part
    last: int
    known: int  # timeline position before which lies all that these weights may have learnt from


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """The cut of one panel for one horizon: frozen with the sweep."""

    horizon: int
    max_context: int  # the longest context a config may ask for
    min_context: int  # a window with fewer whole rows before it is not scored
    parts: tuple[Part, Part, Part, Part]
    items: tuple[int, ...]  # indices of the scored items (all, unless max_windows left some out)
    refits: int = 1  # stretches of val and of test

    def part(self, name: PartName) -> Part:
        return self.parts[PARTS.index(name)]

    def stretches(self, panel: Panel, name: PartName) -> tuple[Stretch, ...]:
        """The stretches of a part, as long as can be alike, in their order. What is learnt for one
        ends H bars before its first label, as one part ends before the next."""
        part, bars = self.part(name), panel.eligible
        num = self.refits if name in REFITTED else 1
        edges = [k * len(part.origins) // num for k in range(num + 1)]
        found = []
        for number, (first, last) in enumerate(pairwise(edges), start=1):
            at = int(np.searchsorted(bars, part.origins[first]))
            known = int(bars[at - self.horizon]) + 1
            found.append(Stretch(number, first, last, known))
        return tuple(found)

    def cut_hash(self, panel: Panel) -> str:
        """sha256 of the panel's content and the cut dates: the `panel_hash` of a sweep."""
        digest = hashlib.sha256(panel.hash.encode())
        for part in self.parts:
            digest.update(panel.timeline[[part.start, part.stop - 1]].astype("int64").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Cut:
    """How a panel is cut into windows, as it was asked: one value from the command line to the
    record."""

    horizon: int = 5  # bars forecast and scored, and purged between parts
    stride: int | None = None  # bars between origins; None: about 40 origins a part
    max_context: int | None = None  # bars; None: 1,024, or what train leaves
    max_windows: int = 100_000  # of a part
    seed: int = 0  # draws the items that are scored where there are too many windows
    shares: tuple[float, float, float, float] = SHARES
    min_context: int = MIN_CONTEXT
    refits: int = 1  # stretches of val and of test, each forecast by weights that are refitted


def make_split(panel: Panel, cut: Cut) -> Split:
    """Cut a panel by time into train, tune, val and test, with H bars purged between.

    The stride defaults to max(1, min(H, (bars in part - H) // 40)): about 40 origins or more. When
    a part would hold more than `max_windows` windows, its stride grows down to 60 origins, then a
    seeded subset of items is scored. Raises NotEnoughData, ConfigError.
    """
    for name in ("horizon", "stride", "max_context", "min_context", "max_windows", "refits"):
        value = getattr(cut, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value} must be at least 1")
    horizon, shares, min_context, max_context = (
        cut.horizon, cut.shares, cut.min_context, cut.max_context,
    )  # fmt: skip
    if len(shares) != 4 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ConfigError(f"shares {shares} must be four positive numbers that add to 1")
    bars = panel.eligible
    edges = [round(float(e) * len(bars)) for e in np.cumsum((0.0, *shares))]
    parts = []
    for k, name in enumerate(PARTS):
        first = edges[k] + (horizon if k else 0)
        parts.append(_part(panel, cut, name, first, edges[k + 1]))
    most = min(len(p.origins) for p in parts if p.name in REFITTED)
    if cut.refits > most:
        raise ConfigError(
            f"refits {cut.refits} is more than the {most} origins of val or test: no stretch may "
            f"be empty; use at most {most}, or a smaller stride"
        )
    fewest = max(1, cut.max_windows // max(len(p.origins) for p in parts[1:]))
    items = tuple(range(panel.num_items))
    if fewest < len(items):
        chosen = np.random.default_rng(cut.seed).choice(len(items), fewest, replace=False)
        items = tuple(sorted(int(i) for i in chosen))
    longest = max(edges[1] - 2 * horizon, min_context)
    if max_context is not None and max_context > longest:
        raise ConfigError(
            f"max_context {max_context} is more than the {longest} bars that train leaves; "
            f"use at most {longest}"
        )
    ceiling = max_context or min(DEFAULT_MAX_CONTEXT, longest)
    return Split(
        horizon, ceiling, min(min_context, ceiling), tuple(parts), items, cut.refits  # type: ignore[arg-type]
    )  # fmt: skip


def _part(panel: Panel, cut: Cut, name: PartName, first: int, end: int) -> Part:
    """One part over eligible bars [first, end)."""
    bars, horizon, num = panel.eligible, cut.horizon, end - first
    if num < horizon:
        purged = f" after {horizon} purged ones" if name != "train" else ""
        raise NotEnoughData(
            f"horizon {horizon} is too long for this panel: {name!r} would have "
            f"{max(num, 0)} bars{purged}, of {len(bars)} in all; "
            f"use a shorter horizon or more history"
        )
    step = cut.stride or max(1, min(horizon, (num - horizon) // WANTED_ORIGINS))
    if name == "train":
        origins = bars[:0]
    else:
        # it grows until the part holds at most `max_windows`, or only 60 origins are left
        room, allowed = num - horizon, max(FEWEST_ORIGINS, cut.max_windows // panel.num_items)
        if room // step + 1 > allowed:
            step = max(step, -(-room // max(allowed - 1, 1)))
        origins = bars[first - 1 : end - horizon : step]
    start = int(bars[first - 1]) + 1 if first else int(bars[0])
    return Part(name, start, int(bars[end - 1]) + 1, num, step, origins)
