"""Which items keep one calendar: those that trade at nearly the same times.

A bar that an item lacks is a gap only where its own exchange was open, so the holidays of another
exchange must not stand in its calendar. A lone item that only lacks bars, however many, stays in
the calendar of the others: absences that two items share are holidays, those of one are gaps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Rule: TypeAlias = Callable[[int, int, int], bool]

TOLERANCE = 0.015
"""Share of the common sessions in which the items of one calendar may differ. New York differs from
Tokyo in 8 %, from London and Toronto in 4 %, Paris from London in 1.75 % and from Frankfurt in
0.9 % (2012 to 2023)."""
FEW, FEW_SHARE = 4, 1 / 16
"""In a short overlap this many sessions may differ, but no more than this share."""
STRAYS = 0.002
"""Share of its sessions that an item which only lacks bars may have outside the calendar."""


class _Calendar:
    """The sessions of the items that keep it, and how many items these are."""

    def __init__(self, num_times: int) -> None:
        self.open = np.zeros(num_times, dtype=bool)
        self.first, self.last = num_times, -1
        self.num_items = 0

    def join(self, sessions: IntArray, num_items: int) -> None:
        self.open[sessions] = True
        self.first = min(self.first, int(sessions[0]))
        self.last = max(self.last, int(sessions[-1]))
        self.num_items += num_items

    def compare(self, sessions: IntArray) -> tuple[int, int, int]:
        """(sessions of both, of the item alone, of the calendar alone) where their spans meet."""
        first, last = max(self.first, int(sessions[0])), min(self.last, int(sessions[-1]))
        if first > last:
            return 0, 0, 0
        own = sessions[np.searchsorted(sessions, first) : np.searchsorted(sessions, last + 1)]
        both = int(self.open[own].sum())
        return both, len(own) - both, int(self.open[first : last + 1].sum()) - both


def group_by_calendar(sessions: Sequence[IntArray], num_times: int) -> list[int]:
    """[I] number of the calendar of each item, from 0; `sessions` [I] are rising positions on a
    timeline of `num_times`. Neither the items' order nor their names matter.

    The longest item opens the first calendar; each next joins the one it shares most sessions with
    among those it agrees with, or opens its own. Then lone items that only lack bars join.
    """
    owners: dict[bytes, list[int]] = {}
    for item, own in enumerate(sessions):
        owners.setdefault(np.ascontiguousarray(own, dtype=np.int64).tobytes(), []).append(item)
    order = sorted(owners, key=lambda key: (-len(key), key))
    calendars: list[_Calendar] = []
    found: dict[bytes, _Calendar] = {}
    for key in order:
        own = sessions[owners[key][0]]
        home = _best(own, calendars, _agrees)
        if home is None:
            home = _Calendar(num_times)
            calendars.append(home)
        home.join(own, len(owners[key]))
        found[key] = home
    for key in reversed(order):
        if found[key].num_items == 1:
            own = sessions[owners[key][0]]
            others = [c for c in calendars if c is not found[key]]
            home = _best(own, others, _only_lacks_bars)
            if home is not None:
                calendars.remove(found[key])
                home.join(own, 1)
                found[key] = home
    out = [0] * len(sessions)
    for key, items in owners.items():
        for item in items:
            out[item] = calendars.index(found[key])
    return out


def _best(own: IntArray, calendars: Sequence[_Calendar], fits: Rule) -> _Calendar | None:
    """The calendar, of those that fit, with most sessions of the item; the first of equals."""
    compared = [(c.compare(own), c) for c in calendars]
    fitting = [(counts[0], c) for counts, c in compared if fits(*counts)]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def _agrees(both: int, alone: int, lacking: int) -> bool:
    total = both + alone + lacking
    return alone + lacking <= max(TOLERANCE * total, min(FEW, FEW_SHARE * total))


def _only_lacks_bars(both: int, alone: int, lacking: int) -> bool:
    return alone <= STRAYS * both and lacking <= both
