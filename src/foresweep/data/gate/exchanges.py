"""Which exchange's calendar a set of times keeps, and that calendar's sessions.

exchange_calendars takes tenths of a second to seconds for each exchange, so a table of holidays
with a fixed date and of opening hours (its own, checked by a test) leaves one or two to ask for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

Times: TypeAlias = NDArray[np.datetime64]
IntArray = NDArray[np.int64]

ROUND_THE_CLOCK, WEEKDAYS = "24/7", "24/5"
STRAYS = 0.004
"""Share of the days that may lie outside an exchange's sessions. Paris has 1.2 % outside London's,
Toronto 2 % outside New York's."""
LEAST_SESSIONS = 0.9
"""Share of the sessions in their span on which some item must have a bar."""
DATED = 0.2
"""An exchange is not asked for where more than this share of its dated holidays have bars."""
HOLIDAYS = 2
"""So many holidays of an exchange without bars are needed, where no opening hours tell it."""
CERTAIN = 8
"""Where so many do, and nothing else differs, no other exchange is asked for."""
WEEKDAYS_HELD = 0.99
"""Share of all weekdays that 24/5 needs: exchanges have 96 to 98 %."""
RECENT = 60_000
"""So many of the last intraday times tell the hours."""
MINUTE = 60 * 10**9
DAY = 24 * 60 * MINUTE
KEPT_DAYS = 20
"""Sessions back from the end whose times of day are those to come."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What tells an exchange before its calendar is made."""

    code: str
    place: str
    zone: str
    hours: tuple[tuple[int, int], ...]  # minutes into the local day, without the lunch break
    holidays: tuple[str, ...]  # MM-DD on which it never opens


def _hours(*said: str) -> tuple[tuple[int, int], ...]:
    """`9:30-16` as minutes into the day."""

    def minutes(text: str) -> int:
        hour, _, minute = text.partition(":")
        return 60 * int(hour) + int(minute or 0)

    spans = (tuple(map(minutes, s.split("-"))) for s in said)
    return tuple((a, b) for a, b in spans)


EXCHANGES = (
    Exchange("XNYS", "New York", "America/New_York", _hours("9:30-16"),
             ("01-01", "07-04", "12-25")),
    Exchange("XLON", "London", "Europe/London", _hours("8-16:30"), ("01-01", "12-25", "12-26")),
    Exchange("XETR", "Frankfurt", "Europe/Berlin", _hours("9-17:30"),
             ("01-01", "05-01", "12-24", "12-25", "12-26", "12-31")),
    Exchange("XTKS", "Tokyo", "Asia/Tokyo", _hours("9-11:30", "12:30-15:30"),
             ("01-01", "01-02", "01-03", "12-31", "02-11", "04-29", "05-03", "11-03", "11-23")),
    Exchange("XSHG", "Shanghai", "Asia/Shanghai", _hours("9:30-11:30", "13-15"),
             ("01-01", "05-01", "10-01", "10-02", "10-03")),
    Exchange("XHKG", "Hong Kong", "Asia/Hong_Kong", _hours("9:30-12", "13-16"),
             ("01-01", "05-01", "07-01", "10-01", "12-25")),
    Exchange("XBOM", "Mumbai", "Asia/Kolkata", _hours("9:15-15:30"),
             ("01-26", "05-01", "08-15", "10-02", "12-25")),
    Exchange("XKRX", "Seoul", "Asia/Seoul", _hours("9-15:30"),
             ("01-01", "03-01", "05-01", "05-05", "06-06", "08-15", "10-03", "12-25", "12-31")),
    Exchange("XPAR", "Paris", "Europe/Paris", _hours("9-17:30"),
             ("01-01", "05-01", "12-25", "12-26")),
    Exchange("XSWX", "Zurich", "Europe/Zurich", _hours("9-17:30"),
             ("01-01", "01-02", "05-01", "08-01", "12-24", "12-25", "12-26", "12-31")),
    Exchange("XSTO", "Stockholm", "Europe/Stockholm", _hours("9-17:30"),
             ("01-01", "01-06", "05-01", "06-06", "12-24", "12-25", "12-26", "12-31")),
    Exchange("XTSE", "Toronto", "America/Toronto", _hours("9:30-16"),
             ("01-01", "07-01", "12-25", "12-26")),
    Exchange("XASX", "Sydney", "Australia/Sydney", _hours("10-16"),
             ("01-01", "01-26", "04-25", "12-25", "12-26")),
)  # fmt: skip
"""Where two fit equally well the first counts. XNSE has XBOM's sessions, XSHE XSHG's:
exchange_calendars 4.11 knows neither."""


@dataclass(frozen=True)
class Kept:
    """The calendar that times keep."""

    name: str  # an exchange's code, 24/5, 24/7
    place: str = ""
    zone: str | None = None  # of intraday times in UTC; None: times are days, or a local clock
    daily: bool = True
    also: tuple[str, ...] = ()  # exchanges that fit as well

    @property
    def is_exchange(self) -> bool:
        return self.name not in (ROUND_THE_CLOCK, WEEKDAYS)


def calendar_kept(times: Times) -> Kept | None:
    """The calendar that fits rising `times` [n], bars of a day or shorter: the exchange that holds
    nearly all of their days and has few others, else 24/7 or 24/5 where they run so; None where
    none fits."""
    if len(times) < 2:
        return None
    step = int(np.median(np.diff(times).astype(np.int64)))
    daily = step >= 20 * 60 * MINUTE
    if step > 1.5 * DAY:
        return None
    if keeps_weekends(times):
        return Kept(ROUND_THE_CLOCK, daily=daily) if _never_closes(times, daily) else None
    found: list[tuple[float, Kept]] = []
    days: dict[str | None, Times] = {}  # by zone
    for exchange in EXCHANGES:
        for zone in (None,) if daily else (exchange.zone, None):
            if not daily and not _in_hours(local_clock(times[-RECENT:], zone), exchange, step):
                continue
            if zone not in days:
                days[zone] = _days(times, zone)
            share, closed = _likeness(days[zone], exchange)
            if share == 1 and closed >= CERTAIN:
                return Kept(exchange.code, exchange.place, zone, daily)
            if share and (closed >= HOLIDAYS or not daily):
                kept = Kept(exchange.code, exchange.place, zone, daily)
                found.append((share, kept))
                break  # stamps in UTC say more than the same on a local clock
    found.sort(key=lambda f: -f[0])
    if found:
        also = tuple(k.name for share, k in found[1:] if share == found[0][0])
        return replace(found[0][1], also=also)
    return Kept(WEEKDAYS, daily=daily) if _all_weekdays(times, daily) else None


def union_of(times: Sequence[Times]) -> Times:
    """[T] rising: every time of some rising arrays, once."""
    if len(times) == 1:
        return times[0]
    every = np.sort(np.concatenate(times), kind="stable")  # runs that rise are merged
    once: Times = every[np.concatenate([[True], every[1:] != every[:-1]])[: len(every)]]
    return once


def keeps_weekends(times: Times) -> bool:
    """Does an item trade on weekends (24/7) rather than in exchange hours?"""
    weekday = (times.astype("datetime64[D]").astype(np.int64) + 3) % 7  # Monday is 0
    return bool((weekday >= 5).mean() > 0.1)


def local_clock(times: Times, zone: str | None) -> Times:
    """[n] the clock of a zone at times in UTC; as they are where no zone is given."""
    if zone is None:
        return times
    series = pl.Series(times).dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    out: Times = series.dt.replace_time_zone(None).to_numpy()
    return out


def _days(times: Times, zone: str | None) -> Times:
    """The days of a zone's clock on which there are bars."""
    hours = times.astype("datetime64[h]")
    some = hours[np.flatnonzero(np.concatenate([[True], hours[1:] != hours[:-1]]))]
    days = local_clock(some.astype("datetime64[ns]"), zone).astype("datetime64[D]")
    return union_of([np.sort(days), days[:0]])


def utc_of(local: Times, zone: str | None) -> Times:
    """[n] times in UTC of a zone's clock; the first of an hour that comes twice."""
    if zone is None:
        return local
    series = pl.Series(local).dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    out: Times = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None).to_numpy()
    return out


def _in_hours(local: Times, exchange: Exchange, step: int) -> bool:
    """Do intraday bars fill an exchange's opening hours and keep its lunch break? A bar may be
    stamped at its beginning or its end."""
    nanos = local.astype("datetime64[ns]").astype(np.int64) % DAY
    first, last = exchange.hours[0][0] * MINUTE, exchange.hours[-1][1] * MINUTE
    slots, counts = np.unique(nanos, return_counts=True)
    inside = 0
    for opens, closes in exchange.hours:
        within = (slots > opens * MINUTE - step) & (slots <= closes * MINUTE)
        if np.diff(slots[within]).max(initial=0) > max(2 * step, 35 * MINUTE):
            return False  # a lunch break that the exchange does not keep
        inside += int(counts[within].sum())
    if inside < 0.98 * len(nanos):
        return False
    low, high = np.quantile(nanos, (0.02, 0.98))
    early, late = max(2 * step, 35 * MINUTE), max(2 * step, 70 * MINUTE)  # Tokyo closed at 15:00
    return bool(low <= first + early and high >= last - late)


def _likeness(days: Times, exchange: Exchange) -> tuple[float, int]:
    """(how alike days and an exchange's sessions are: those of both over those of either, 0 where
    too many are of one alone; weekdays in their span on which it is closed)."""
    dated = _dated(exchange, int(str(days[0])[:4]), int(str(days[-1])[:4]))
    inside = dated[(dated >= days[0]) & (dated <= days[-1])]
    if len(inside) and np.isin(inside, days).mean() > DATED:
        return 0.0, 0
    sessions = sessions_of(exchange.code, days[0], days[-1])
    if not len(sessions):
        return 0.0, 0
    days = days[days <= sessions_end(exchange.code, days[-1])]
    both = int(np.isin(days, sessions).sum())
    closed = int(np.busday_count(days[0], days[-1] + 1)) - len(sessions)
    if len(days) - both > STRAYS * len(days) or both < LEAST_SESSIONS * len(sessions):
        return 0.0, closed
    return both / (len(days) + len(sessions) - both), closed


@lru_cache(maxsize=1024)
def _dated(exchange: Exchange, first: int, last: int) -> Times:
    """[D] weekdays of some years that are holidays of an exchange with a fixed date."""
    days = [f"{year}-{day}" for year in range(first, last + 1) for day in exchange.holidays]
    every: Times = np.array(days, dtype="datetime64[D]")
    weekdays: Times = every[np.is_busday(every)]
    return weekdays


def _all_weekdays(times: Times, daily: bool) -> bool:
    days = _days(times, None)
    weekdays = int(np.busday_count(days[0], days[-1] + 1))
    held = int(np.is_busday(days).sum()) >= WEEKDAYS_HELD * weekdays
    return held and (daily or _all_hours(times))


def _never_closes(times: Times, daily: bool) -> bool:
    """Are there bars on Saturdays and on Sundays (Riyadh has Sundays alone), at all hours?"""
    weekday = (times.astype("datetime64[D]").astype(np.int64) + 3) % 7
    both = min((weekday == 5).mean(), (weekday == 6).mean()) > 0.1
    return bool(both) and (daily or _all_hours(times))


def _all_hours(times: Times) -> bool:
    hours = times[-RECENT:].astype("datetime64[h]").astype(np.int64) % 24
    return len(np.unique(hours)) == 24


# Calendars


@dataclass(frozen=True)
class Sessions:
    """An exchange's sessions over some years."""

    days: Times  # [S]
    opens: IntArray  # [S] nanoseconds into the local day
    closes: IntArray  # [S]
    last_known: np.datetime64  # its holidays are not known beyond


def sessions_of(code: str, first: np.datetime64, last: np.datetime64) -> Times:
    """[S] dates of an exchange's sessions as far as they are known, both ends included."""
    days = calendar_of(code, first, last).days
    within: Times = days[(days >= first) & (days <= last)]
    return within


def sessions_end(code: str, last: np.datetime64) -> np.datetime64:
    """The last day of which an exchange's calendar knows whether it is a session."""
    return calendar_of(code, last, last).last_known


def calendar_of(code: str, first: np.datetime64, last: np.datetime64) -> Sessions:
    """An exchange's calendar from the year of `first` to the year after that of `last`, or as far
    as it is known."""
    years = [int(str(d.astype("datetime64[Y]"))) for d in (first, last)]
    return _within(code, years[0], years[1] + 1)


@lru_cache(maxsize=512)
def _within(code: str, first: int, last: int) -> Sessions:
    """Some years of a calendar that is made by the decade: each making takes tenths of a second,
    and a server is asked of one year after the other."""
    whole = _made(code, first // 10 * 10, last // 10 * 10 + 9)
    if not len(whole.days):  # an exchange that began within the decade
        return _made(code, first, last)
    begin, end = np.datetime64(f"{first}-01-01"), np.datetime64(f"{last}-12-31")
    kept = (whole.days >= begin) & (whole.days <= end)
    known = min(whole.last_known, end)
    return Sessions(whole.days[kept], whole.opens[kept], whole.closes[kept], known)


@lru_cache(maxsize=64)
def _made(code: str, first: int, last: int) -> Sessions:
    import exchange_calendars

    for year in range(last, first - 1, -1):
        try:
            calendar = exchange_calendars.get_calendar(
                code, start=f"{first}-01-01", end=f"{year}-12-31"
            )
            break
        except ValueError:  # holidays are on record up to some year: XSHG, XBOM
            continue
    else:
        nothing = np.empty(0, dtype=np.int64)
        none: Times = np.empty(0, dtype="datetime64[D]")
        return Sessions(none, nothing, nothing, np.datetime64(f"{first - 1}-12-31"))
    schedule = calendar.schedule
    days = schedule.index.to_numpy().astype("datetime64[D]")
    opens, closes = (
        schedule[name].dt.tz_convert(calendar.tz).dt.tz_localize(None).to_numpy()
        for name in ("open", "close")
    )
    into = [(t - days).astype("timedelta64[ns]").astype(np.int64) for t in (opens, closes)]
    return Sessions(days, into[0], into[1], np.datetime64(f"{year}-12-31"))


# Times to come


def times_kept_ahead(times: Times, kept: Kept, count: int) -> Times:
    """[count] times of the bars after the last of `times`, on an exchange's sessions: its holidays
    are left out, a half day ends early, and intraday bars stay on its clock whatever the clocks
    elsewhere do. Where holidays are not known any more every weekday is a session."""
    local = local_clock(times[-RECENT:], kept.zone)
    last_day = local[-1].astype("datetime64[D]")
    if kept.daily:
        days, *_ = _days_ahead(kept.name, last_day, count)
        sessions: Times = days[:count].astype("datetime64[ns]")
        return sessions
    slots = _slots_of_the_day(local)
    days, opens, closes, usual_open = _days_ahead(
        kept.name, last_day - 1, count // max(len(slots) // 2, 1) + 4
    )
    all_of_them = days.astype("datetime64[ns]")[:, None] + slots.astype("timedelta64[ns]")
    at_end = int(slots.min() > usual_open)  # bars are stamped at their end: none at the open
    open_now = (slots >= opens[:, None] + at_end) & (slots < closes[:, None] + at_end)
    ahead = utc_of(all_of_them[open_now], kept.zone)
    ahead = ahead[ahead > times[-1]]  # never NaT: no exchange is open when a clock is put forward
    to_come: Times = ahead[:count]
    return to_come


def _slots_of_the_day(local: Times) -> IntArray:
    """[K] nanoseconds into the local day at which at least half of the last sessions have a bar."""
    days = local.astype("datetime64[D]")
    recent = local[days >= np.unique(days)[-KEPT_DAYS:][0]]
    into = (recent - recent.astype("datetime64[D]")).astype("timedelta64[ns]").astype(np.int64)
    slots, counts = np.unique(into, return_counts=True)
    num_days = min(KEPT_DAYS, len(np.unique(days)))
    usual: IntArray = slots[counts >= max(1, num_days / 2)]
    return usual if len(usual) else slots


def _days_ahead(
    code: str, after: np.datetime64, count: int
) -> tuple[Times, IntArray, IntArray, int]:
    """([>= count] session days after a day; when each opens late and closes early, else 0 and a
    whole day, in nanoseconds into it; the usual opening)."""
    year = np.timedelta64(366, "D")
    calendar = calendar_of(code, after - year, after + np.timedelta64(2 * count + 30, "D"))
    before = np.flatnonzero(calendar.days <= after)[-250:]
    rows = calendar.days > after
    days, opens, closes = calendar.days[rows], calendar.opens[rows], calendar.closes[rows]
    usual_open, usual_close = (
        int(np.median(x[before])) if len(before) else 0 for x in (calendar.opens, calendar.closes)
    )
    opens = np.where(opens > usual_open, opens, 0)
    closes = np.where(closes < usual_close, closes, DAY)
    if len(days) < count:
        last = max(after, calendar.last_known)
        missing = np.busday_offset(last + 1, np.arange(count - len(days)), roll="forward")
        days = np.concatenate([days, missing])
        opens = np.concatenate([opens, np.zeros(len(missing), dtype=np.int64)])
        closes = np.concatenate([closes, np.full(len(missing), DAY)])
    return days, opens, closes, usual_open


def told(kept: Kept, last: np.datetime64) -> str:
    """One line about an exchange's calendar."""
    as_well = f", as well as of {', '.join(kept.also)}" if kept.also else ""
    text = f"sessions of {kept.name} ({kept.place}){as_well}"
    if not kept.daily:
        text += " on its own clock" if kept.zone is None else f", the clock of {kept.zone}"
    end = sessions_end(kept.name, last)
    if end.astype("datetime64[Y]") <= last.astype("datetime64[Y]"):
        text += f"; its holidays are known to {end}, beyond that every weekday is taken for one"
    return text
