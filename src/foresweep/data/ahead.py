"""Times to come: the bars after the last, on an exchange's sessions or at the bars' own rhythm."""

from __future__ import annotations

import numpy as np

from foresweep.data.gate.exchanges import (
    DAY,
    RECENT,
    ROUND_THE_CLOCK,
    IntArray,
    Kept,
    Times,
    local_clock,
    times_kept_ahead,
    utc_of,
)

CLOCKS = ("America/New_York", "Europe/London", "Europe/Berlin")
"""Zones that put their clocks forward and back, whose clock a market may keep in UTC stamps."""
STEADY = 0.8
"""Share of the weeks that a time of the week needs to be one at which bars usually are."""
BETTER = 0.02
"""A zone's clock is kept where this share more of the bars is at such times than in UTC."""


def times_ahead(calendar: Times, count: int, kept: Kept | None = None) -> Times:
    """[count] times after the last of `calendar`: on the sessions of the exchange that it keeps;
    else at its rhythm: the usual step, or, across nights and weekends, the times of day and
    weekdays seen before, on the clock (UTC's, or a zone's of CLOCKS) on which they stand still."""
    step = np.median(np.diff(calendar[-500:]).astype(np.int64)).astype(np.int64)
    day = np.int64(DAY)
    months = _continued_months(calendar, count)
    if months is not None:
        return months
    if 6 * day < step < 8 * day:  # the usual weekday, whatever a holiday made of the last week
        weekdays = (calendar[-26:].astype("datetime64[D]").astype(np.int64) + 3) % 7
        shift = int(np.bincount(weekdays).argmax()) - int(weekdays[-1])
        first = calendar[-1] + np.timedelta64(shift, "D")
        weeks: Times = first + np.arange(1, count + 1) * np.timedelta64(7, "D")
        return weeks
    if step >= 5 * day:  # weekly or slower: no weekday pattern to keep
        ahead: Times = calendar[-1] + (np.arange(1, count + 1) * step).astype("timedelta64[ns]")
        return ahead
    if kept is not None and kept.name == ROUND_THE_CLOCK:
        steps: Times = calendar[-1] + (np.arange(1, count + 1) * step).astype("timedelta64[ns]")
        return steps
    if kept is not None and kept.is_exchange:
        return times_kept_ahead(calendar, kept, count)
    zone = None if step >= day // 2 else _steady_clock(calendar)
    return _weeks_ahead(calendar, count, zone)


def _weeks_ahead(calendar: Times, count: int, zone: str | None) -> Times:
    """[count] times after the last at the times of the week, on a zone's clock, seen before."""
    recent = local_clock(calendar[calendar > calendar[-1] - np.timedelta64(28, "D")], zone)
    seen = _slots_of_the_week(recent.astype("int64"), DAY)
    week = int(recent[-1].astype("int64")) // (7 * DAY)
    out = calendar[:0]
    while len(out) < count:
        ahead = utc_of((week * 7 * DAY + seen).astype("datetime64[ns]"), zone)
        out = np.concatenate([out, ahead[ahead > calendar[-1]]])  # NaT, an hour left out, is not
        week += 1
    return out[:count]


def _steady_clock(calendar: Times) -> str | None:
    """The zone on whose clock intraday bars come at the same times of the week all year, None for
    UTC: where the last 60 weeks show no clear difference."""
    year = calendar[calendar > calendar[-1] - np.timedelta64(420, "D")][-4 * RECENT :]
    if len(np.unique(year.astype("datetime64[M]"))) < 3:
        return None
    found: dict[str | None, float] = {z: _steadiness(local_clock(year, z)) for z in (None, *CLOCKS)}
    best = max(CLOCKS, key=lambda zone: found[zone])
    return best if found[best] > found[None] + BETTER else None


def _steadiness(local: Times) -> float:
    """Share of the bars at a time of the week at which there is a bar in most weeks."""
    nanos = local.astype("datetime64[ns]").astype(np.int64)
    _, at, counts = np.unique(nanos % (7 * DAY), return_inverse=True, return_counts=True)
    num_weeks = (nanos[-1] - nanos[0]) / (7 * DAY)
    return float((counts[at] >= STEADY * num_weeks).mean())


def _continued_months(calendar: Times, count: int) -> Times | None:
    """`count` times after the last where bars are whole months apart, on the same day of the month
    or on its last (weekday); None for any other rhythm."""
    recent = calendar[-24:]
    months = recent.astype("datetime64[M]")
    gaps, counts = np.unique(np.diff(months).astype(np.int64), return_counts=True)
    if len(recent) < 4 or gaps[0] < 1 or counts.max() < 0.9 * counts.sum():
        return None
    gap = gaps[counts.argmax()]
    days = recent.astype("datetime64[D]")
    clock = recent - days
    day_of_month = (days - months.astype("datetime64[D]")).astype(np.int64)
    ahead = months[-1] + gap * np.arange(1, count + 1)
    last_days = [(m + 1).astype("datetime64[D]") - 1 for m in (months, ahead)]
    weekdays = [np.busday_offset(d, 0, roll="backward") for d in last_days]
    firsts = [
        np.busday_offset(m.astype("datetime64[D]"), 0, roll="forward") for m in (months, ahead)
    ]
    if (day_of_month == day_of_month[0]).all() and day_of_month[0] < 28:
        found = ahead.astype("datetime64[D]") + day_of_month[0]
    elif (days == last_days[0]).all():
        found = last_days[1]
    elif (days == weekdays[0]).mean() > 0.9:  # a holiday may have been the last weekday
        found = weekdays[1]
    elif (days == firsts[0]).mean() > 0.9:
        found = firsts[1]
    else:
        return None
    out: Times = found.astype("datetime64[ns]") + clock[-1]
    return out


def _slots_of_the_week(recent: IntArray, day: int) -> IntArray:
    """Nanoseconds into the week that have bars now: in at least two of the last four weeks (an
    earlier clock, before daylight saving, or a stray bar, is not continued)."""
    last_weeks = recent[recent > recent[-1] - 28 * day]
    slots, counts = np.unique(last_weeks % (7 * day), return_counts=True)
    usual: IntArray = slots[counts >= min(2, counts.max())]
    return usual
