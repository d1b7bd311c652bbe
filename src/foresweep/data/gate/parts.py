"""Parts of an item that are set aside, so that the rest of it can be used."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from foresweep.data.gate.rules import (
    BLOCK,
    MAX_BAD_SHARE,
    MIN_ROWS,
    STALE_BARS,
    TOLERANCE,
    Flags,
    frequency_change,
    too_many,
)
from foresweep.data.panel import CLOSE, HIGH, LOW, OPEN, VOLUME, Array, IntArray
from foresweep.data.reading.dates import Times

MOST_ASIDE = 0.5
"""No more than this share of an item's rows is set aside: beyond it the item is dead."""
BAD_BEGINNING = 0.05
"""A beginning with at least this share of bad rows is cut off."""
LIMITS = (0.05, 0.1, 0.15, 0.2, 0.3)
"""Price limits of a day, as shares of the last close (China 5, 10, 20 and 30 %, Korea 15 and 30 %,
Taiwan, Thailand and Vietnam others of these)."""
LIMIT_DAYS = 3
"""So few days at a limit, or fewer, may be chance."""
BEYOND = 0.002
"""No more than this share of the days (a first day of trading) may go beyond the limit."""
TICK = 0.01


def suspended(values: Array) -> IntArray:
    """Rows of daily bars [n, 5] in which nothing was traded: one price, that of the day before,
    and no volume, of an item that usually has one."""
    whole = np.flatnonzero(np.isfinite(values).all(axis=1))
    bars = values[whole]
    if not len(bars) or np.median(bars[:, VOLUME]) <= 0:
        return whole[:0]
    flat = (np.ptp(bars[:, :VOLUME], axis=1) == 0) & (bars[:, VOLUME] == 0)
    flat[0] = False
    flat[1:] &= bars[1:, CLOSE] == bars[:-1, CLOSE]
    found: IntArray = whole[flat]
    return found


def stale_rows(values: Array) -> IntArray:
    """Rows [n, 5] that repeat the close of more than STALE_BARS in a row; the first of them is a
    price."""
    whole = np.flatnonzero(np.isfinite(values).all(axis=1))
    if not len(whole):
        return whole
    moved = np.flatnonzero(np.concatenate([[True], np.diff(values[whole, CLOSE]) != 0, [True]]))
    runs = [whole[a + 1 : b] for a, b in pairwise(moved) if b - a > STALE_BARS]
    return np.concatenate(runs) if runs else whole[:0]


def patchy_opens(values: Array) -> IntArray:
    """Rows [n, 5] whose open is missing, not positive or outside [low, high] while high, low and
    close are sound."""
    opened, high, low, close = (values[:, k] for k in (OPEN, HIGH, LOW, CLOSE))
    with np.errstate(invalid="ignore"):
        room = TOLERANCE * high
        sound = np.isfinite(high + low + close) & (low > 0)
        sound &= (close <= high + room) & (close >= low - room)
        within = (opened > 0) & (opened <= high + room) & (opened >= low - room)
    return np.flatnonzero(sound & ~within)


def limit_days(values: Array) -> tuple[float, IntArray]:
    """(limit, rows) of days [n, 5] that closed at their high or low, a price limit away from the
    last close to half a tick, of an item that hardly ever moves further; no rows where it has no
    limit."""
    whole = np.flatnonzero(np.isfinite(values[:, :VOLUME]).all(axis=1))
    high, low, close = (values[whole, k] for k in (HIGH, LOW, CLOSE))
    if len(whole) < MIN_ROWS or not (close > 0).all():
        return 0.0, whole[:0]
    move = close[1:] / close[:-1] - 1
    for limit in LIMITS:
        if (np.abs(move) > limit + TICK / close[:-1]).mean() > BEYOND:
            continue
        edge = np.where(move > 0, high[1:], low[1:])
        at = np.abs(close[1:] - close[:-1] * (1 + np.sign(move) * limit)) < 0.51 * TICK
        hits = np.flatnonzero(at & (move != 0) & (close[1:] == edge)) + 1
        if len(hits) > LIMIT_DAYS:
            return limit, whole[hits]
    return 0.0, whole[:0]


def good_from(bad: Flags) -> int:
    """First row of the part without a bad beginning: the earliest from which on no more than 1 % of
    the rows are bad, if those before are mostly worse (5 %) and most of the item is left; else 0.
    """
    num = len(bad)
    if not too_many(int(bad.sum()), num):
        return 0
    after = np.cumsum(bad[::-1])[::-1]
    left = num - np.arange(num)
    good = np.flatnonzero((after <= 1) | (after <= MAX_BAD_SHARE * left))
    if not len(good):
        return 0
    start = int(good[0])
    enough = num - start >= max(MIN_ROWS, (1 - MOST_ASIDE) * num)
    return start if enough and bad[:start].mean() >= BAD_BEGINNING else 0


def rhythm_from(times: Times) -> tuple[int, float, float] | None:
    """(row, days between bars before, after) from which on bars [n] have one rhythm, if that is
    more than half of them; None where all have one or there is no such part."""
    change = frequency_change(times)
    if change is None:
        return None
    row, before, after = change
    start = row + BLOCK
    rest = times[start:]
    enough = len(rest) >= MIN_ROWS and len(rest) > MOST_ASIDE * len(times)
    return (start, before, after) if enough and frequency_change(rest) is None else None
