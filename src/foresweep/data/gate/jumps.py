"""Jumps of a price: which are splits, which other events of the share, which are moves.

A split leaves the company as it was, so the day after it is an ordinary day at another price: the
open gaps, the close stays there, and neither volume (in the new shares) nor the bar's range grows.
A crash of the same size is the busiest day of the year.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import CLOSE, HIGH, LOW, OPEN, VOLUME, Array, IntArray

FORWARD = (1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 50, 100)
REVERSE = (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 100)
"""New shares for one old (a price falls so many times), and old shares for one new."""
NEAR = 0.02
"""The first bar's range comes so near to a split's ratio, or it is none."""
LARGE = 0.2
"""Log size of a jump that is looked at: the price is 0.82 or 1.22 times the bar before."""
NEIGHBOURS = 5
"""Bars on each side that must keep a jump's new level."""
USUAL_BARS = 20
"""Bars before a jump whose volume and range are the usual ones."""
SMALL = 0.5
"""Log size of the smallest ratio, 3-for-2, that is often met by spin-offs."""
STIR, STIR_UNSEEN = 2.7, 2.0
"""More of it (see `_quiet`) is news; the second without volume. Of 93,000 days of 31 large American
shares 2006 to 2017, 0.6 % have more."""
SURGE = 1.3
"""So is a log volume so far above the usual (3.7 times)."""
SESSION = np.timedelta64(4, "h")
"""Intraday bars so far apart belong to two sessions."""
DAY = np.timedelta64(1, "D")

Kind = Literal["split", "event", "move"]


@dataclass(frozen=True, slots=True)
class Jump:
    """A jump that lasts."""

    row: int  # of its first bar
    move: float  # its close, in closes of the bar before
    gap: float  # its open, likewise
    kind: Kind
    split: str = ""  # 2-for-1
    ratio: float = 1.0  # new shares for one old


def find_jumps(bars: Array, times: NDArray[np.datetime64] | None = None) -> list[Jump]:
    """Jumps of whole rows [n, 5] that last, oldest first; bars of a day (`times` [n]) count
    together.

    A split: within 2 % of a real ratio; open and close agree with it to the size of ordinary nights
    and days; the neighbours keep the new level; and volume and range do not stir. An event (a
    spin-off, a special dividend, an odd ratio): as quiet, but near no ratio. All else is a move.
    """
    starts = _sessions(len(bars), times)
    days = bars if len(starts) == len(bars) else _days(bars, starts)
    if len(days) < 2:
        return []
    logs = np.log(days[:, :VOLUME])
    moves = np.diff(logs[:, CLOSE])
    gaps = logs[1:, OPEN] - logs[:-1, CLOSE]
    found = []
    for k in np.flatnonzero(np.maximum(np.abs(moves), np.abs(gaps)) > LARGE).tolist():
        jump = _judge(days, logs, moves, float(gaps[k]), k)
        if jump is not None:
            found.append(replace(jump, row=int(starts[jump.row])))
    return found


def _judge(days: Array, logs: Array, moves: Array, gap: float, k: int) -> Jump | None:
    """What the jump from day k to day k + 1 is; None where it is no large one or does not last."""
    row, move = k + 1, float(moves[k])
    around = np.delete(moves[max(0, k - 40) : k + 41], min(k, 40))
    usual = float(np.median(np.abs(around))) / 0.6745 if len(around) else 0.0
    day = np.clip(8 * usual, 0.04, 0.2)
    name, size = nearest_split(gap)
    if (
        _near(logs, row, gap - size, size, usual)
        and abs(move - size) < day
        and _lasts(logs[:, CLOSE], row, size)
        and _quiet(days, row, float(np.exp(-size)), abs(gap - size) / usual if usual else 0.0)
    ):
        ratio = float(f"{np.exp(-size):.6g}")
        return Jump(row, float(np.exp(move)), float(np.exp(gap)), "split", name, ratio)
    if abs(move) < max(LARGE, 4 * usual) or not _lasts(logs[:, CLOSE], row, move):
        return None
    quiet = abs(gap) > LARGE and abs(move - gap) < day and _quiet(days, row, 1.0)
    return Jump(row, float(np.exp(move)), float(np.exp(gap)), "event" if quiet else "move")


def _near(logs: Array, row: int, off: float, size: float, usual: float) -> bool:
    """Do the bar and the one before, at the split's new terms, come within 2 % of each other, and
    does the open gap by the ratio but for an ordinary night (`off`)? Spin-offs often fall by about
    a third: 3-for-2 is held to the last close and to a narrower night."""
    if abs(size) < SMALL:
        level = logs[row - 1, CLOSE] + size
        away = max(logs[row, LOW] - level, level - logs[row, HIGH])
        return bool(
            away <= np.clip(usual, NEAR / 2, NEAR) and abs(off) < np.clip(2 * usual, NEAR, 0.06)
        )
    before = logs[row - 1] + size
    away = max(logs[row, LOW] - before[HIGH], before[LOW] - logs[row, HIGH])
    return bool(away <= NEAR and abs(off) < np.clip(4 * usual, NEAR, 0.1))


def nearest_split(gap: float) -> tuple[str, float]:
    """(name, log move) of the split whose move is nearest to a log price gap."""
    known = [(f"{n:g}-for-1", -np.log(n)) for n in FORWARD]
    known += [(f"1-for-{n:g}", np.log(n)) for n in REVERSE]
    return min(known, key=lambda split: abs(split[1] - gap))


def _lasts(close: Array, row: int, size: float) -> bool:
    """Is the median log close of the next bars nearer to the new level than to the old one?"""
    before = np.median(close[max(0, row - NEIGHBOURS) : row])
    after = np.median(close[row : row + NEIGHBOURS])
    return bool(abs(after - before - size) < abs(size) / 2)


def _quiet(days: Array, row: int, shares: float, off: float = 0.0) -> bool:
    """Is it a day like those before? Summed are log range, range of the next bars and volume, each
    against the usual, and half of what the open is `off` the ratio beyond one usual move. One old
    share is `shares` new ones, in which volume is counted, or not where the file's volumes are
    adjusted already: the nearer one counts. Moves of the size of 3-for-2 are common, so that less
    is borne; those above two are rare, and more is.
    """
    size = abs(float(np.log(shares)))
    rare = -0.4 if 0 < size < SMALL else 0.3 * max(0.0, size - np.log(2))
    before = slice(max(0, row - USUAL_BARS), row)
    ranges = np.log(days[:, HIGH] / days[:, LOW])
    usual = float(np.median(ranges[before]))
    stir = 0.5 * max(0.0, off - 1)
    if usual > 0:
        later = ranges[row + 1 : row + 1 + NEIGHBOURS]
        seen = [ranges[row], *([float(np.median(later))] if len(later) else [])]
        stir += float(np.log(np.maximum(seen, usual / 10) / usual).sum())
    volumes = days[before, VOLUME]
    volumes = volumes[volumes > 0]
    if not len(volumes) or days[row, VOLUME] <= 0:
        return stir < STIR_UNSEEN + rare
    grown = float(np.log(days[row, VOLUME] / np.median(volumes)))
    grown = min(grown, grown - float(np.log(shares)), key=abs)
    return grown < SURGE + rare and stir + grown < STIR + rare


def _sessions(num_bars: int, times: NDArray[np.datetime64] | None) -> IntArray:
    """[d] first row of each session: of daily bars every row, of intraday bars those after a
    night."""
    every: IntArray = np.arange(num_bars)
    if times is None or num_bars < 2:
        return every
    nights = np.flatnonzero(np.diff(times) >= SESSION) + 1
    if not len(nights) or len(nights) > num_bars / 2:
        return every
    starts = np.concatenate([[0], nights])
    spans = times[np.append(nights, num_bars) - 1] - times[starts]
    return every if np.median(spans) >= DAY else starts  # weeks of a market open day and night


def _days(bars: Array, starts: IntArray) -> Array:
    """[d, 5] the bars of each session as one."""
    ends = np.append(starts[1:], len(bars)) - 1
    out = np.empty((len(starts), len(bars[0])))
    out[:, OPEN], out[:, CLOSE] = bars[starts, OPEN], bars[ends, CLOSE]
    out[:, HIGH] = np.maximum.reduceat(bars[:, HIGH], starts)
    out[:, LOW] = np.minimum.reduceat(bars[:, LOW], starts)
    out[:, VOLUME] = np.add.reduceat(bars[:, VOLUME], starts)
    return out
