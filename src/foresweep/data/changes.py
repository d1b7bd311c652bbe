"""Are the old bars of a panel still what they were? Newer ones do not matter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import CLOSE, HIGH, LOW, OPEN, Panel

TOLERANCE = 1e-4
"""Of log returns and of a bar's shape: dividends re-base adjusted prices, and move no return by
more than rounding."""

Times = NDArray[np.datetime64]


def changed_bars(old: Panel, new: Panel) -> str:
    """The first change of an item's old bars in words, "" where there is none.

    Compared are the log returns of the close and each bar's shape (open, high and low against the
    close): prices that were re-based as a whole have not changed.
    """
    for i, item in enumerate(old.items):
        if item not in new.items:
            return f"{item} is no longer there"
        found = _of_item(old, i, new, new.index(item))
        if found:
            return f"{item} {found}"
    return ""


def _of_item(old: Panel, i: int, new: Panel, j: int) -> str:
    then, now = old.timestamps_of(i), new.timestamps_of(j)
    within = (now >= then[0]) & (now <= then[-1])
    gone, come = np.setdiff1d(then, now), np.setdiff1d(now[within], then)
    if len(gone):
        return f"has no bar on {_day(gone[0])} any more"
    if len(come):
        return f"has a bar on {_day(come[0])} that was not there"
    before, after = old.bars[i].values, new.bars[j].values[within]
    moved = np.abs(_moves(before) - _moves(after)).max(axis=1)
    wrong = np.flatnonzero(moved > TOLERANCE)
    if not len(wrong):
        return ""
    by = f"a log return is off by {moved[wrong[0]]:.2g}"
    return f"is not what it was on {_day(then[wrong[0]])} ({by})"


def _moves(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, 4] log return of the close (0 at the first bar), and open, high and low against it."""
    logs = np.log(values[:, [OPEN, HIGH, LOW, CLOSE]])
    close = logs[:, 3]
    returns = np.diff(close, prepend=close[:1])
    return np.column_stack([returns, logs[:, :3] - close[:, None]])


def _day(time: np.datetime64) -> str:
    return str(time.astype("datetime64[s]")).removesuffix("T00:00:00")
