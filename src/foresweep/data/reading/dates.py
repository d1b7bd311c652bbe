"""Times as people write them: dates in any order, clocks, zones, epochs, stamps of digits.

What one row leaves open (03/04/2020) the whole column decides, and the spacing that results; what
that leaves open is refused with both readings named.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foresweep.data.panel import IntArray
from foresweep.data.reading.aliases import ZONES
from foresweep.errors import DataError

Times = NDArray[np.datetime64]
FIRST_YEAR = 1900
NAT = np.datetime64("NaT", "ns")

_MONTHS = """
1 january jan januar janvier janv enero ene gennaio gen januari styczeń stycznia sty ocak oca январь января янв leden ledna tháng1 jän
2 february feb februar février févr fev fév febrero febbraio fevereiro februari luty lutego lut şubat şub февраль февраля фев únor
3 march mar märz mrz mär mars marzo março maart mrt marzec marca mart март марта
4 april apr avril avr abril abr aprile kwiecień kwietnia kwi nisan nis апрель апреля апр duben
5 may mai mayo maggio mag maio mei maj maja mayıs май мая květen
6 june jun juni juin junio giugno giu junho czerwiec czerwca cze haziran haz июнь июня июн červen
7 july jul juli juillet juil julio luglio lug julho lipiec lipca lip temmuz tem июль июля июл červenec
8 august aug août aoû aout agosto ago augustus augusti sierpień sierpnia sie ağustos ağu август августа авг srpen
9 september sep sept septembre septiembre settembre set setembro wrzesień września wrz eylül eyl сентябрь сентября сен сент září
10 october oct oktober okt octobre octubre ottobre ott outubro out październik października paź ekim eki октябрь октября окт říjen
11 november nov novembre noviembre novembro listopad listopada lis kasım kas ноябрь ноября ноя нояб
12 december dec dezember dez décembre déc diciembre dic dicembre dezembro grudzień grudnia gru aralık ara декабрь декабря дек prosinec
"""  # noqa: E501
MONTHS: Mapping[str, int] = MappingProxyType(
    {w: int(n) for n, *words in map(str.split, _MONTHS.strip().splitlines()) for w in words}
)
"""A month's name or its short form, small -> its number, in the languages of the vendors."""
_WEEKDAY = (
    r"(?i)^(?:mon|tue|tues|wed|thu|thur|thurs|fri|sat|sun|montag|dienstag|mittwoch|donnerstag"
    r"|freitag|mo|di|mi|do|fr|lun|mer|jeu|ven|sam|dim|lundi|mardi|mercredi|jeudi|vendredi"
    r"|(?:mon|tues|wednes|thurs|fri|satur|sun)day)[.,]*\s+"
)
_HALF = r"(?i:[ap]\.?\s?m\b\.?|上午|下午|午前|午後|오전|오후)"
CLOCK = (
    rf"(?:^|[\sT,\-_;年月日])\s*({_HALF})?\s*(\d{{1,2}}):(\d{{2}})(?::(\d{{2}})(?:[.,:](\d{{1,9}}))?)?"
    rf"\s*({_HALF})?"
)
HOUR = rf"[\s\-](\d{{1,2}})\s?-?\s?({_HALF})$"
"""`2020-07-01 12-AM`."""
ZONE = (
    r"(?i)(?::\d\d(?:[.,]\d+)?|m\.?)\s*\[?("
    r"(?:utc|gmt|z)?\s*[+-]\d{1,2}:?(?:\d\d)?|z|[a-z]{2,4}|[a-z]+/[a-z_]+(?:/[a-z_]+)?"
    r")\]?\s*(?:\(.*\))?$"
)
_COMPACT = {
    r"^(\d{8})[ T_;]+(\d\d)(\d\d)(\d\d)(\d{3}\d*)?$": "${1} ${2}:${3}:${4}.${5}0",
    r"^(\d{8})[ T_;]+(\d\d)(\d\d)$": "${1} ${2}:${3}",
    r"^(.*\D.*[^:\d])(\d\d)(\d\d)(\d\d)$": "${1}${2}:${3}:${4}",
}
DIGITS = r"^-?\d+(?:\.\d+)?(?:[eE]\+?\d+)?$"


@dataclass(frozen=True, slots=True, eq=False)
class ReadTimes:
    """A column of times."""

    utc: Times  # [n] NaT where it cannot be read
    wall: Times  # [n] the clock as written
    forms: tuple[str, ...] = ()  # what was guessed, in words
    has_clock: bool = False
    zoned: bool = True  # a zone is written, said or not needed


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is known beforehand about a column of times."""

    day_first: bool | None = None
    zone: str | None = None  # of stamps that name none
    today: dt.date | None = None

    @property
    def last_year(self) -> int:
        return (self.today or dt.date.today()).year + 1


def parse_dates(column: pl.Series) -> Times:
    """[n] times of a column of any kind that `read_times` reads, NaT where it cannot."""
    return read_times(column).utc


def read_times(column: pl.Series, wanted: Wanted | None = None) -> ReadTimes:
    """The times of a column of text, dates, datetimes or numbers, as ns. A stamp without a zone
    is taken as `wanted.zone`'s, else as UTC; a year outside 1900 to next year cannot be read.

    Raises DataError where the column can be read in two ways that differ.
    """
    wanted = wanted or Wanted()
    kind = column.dtype
    if isinstance(kind, pl.Datetime) and kind.time_zone:
        utc = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        wall = column.dt.replace_time_zone(None)
        return ReadTimes(_ns(utc, wanted), _ns(wall, wanted), has_clock=True)
    if kind in (pl.Date, pl.Datetime):
        days = _ns(column.cast(pl.Datetime("us") if kind == pl.Date else kind), wanted)
        made = _in_zone(days, wanted, has_clock=kind != pl.Date)
        return replace(made, zoned=True)
    if kind == pl.String and (plain := _plain_iso(column, wanted)) is not None:
        return plain
    text = column.cast(pl.String).str.strip_chars().str.strip_chars("'\"")
    plain = _plain_iso(text, wanted)
    if plain is not None:
        return plain
    text = pl.select(
        pl.when(text.str.to_lowercase().is_in(["", "nan", "nat", "null", "none"]))
        .then(None).otherwise(text)
    ).to_series()  # fmt: skip
    digits = text.str.contains(DIGITS).fill_null(False)
    if digits.any() and int(digits.sum()) >= 0.5 * int(text.is_not_null().sum()):
        return _of_digits(text, wanted)
    return _written(text, wanted)


def _ns(column: pl.Series, wanted: Wanted) -> Times:
    """Datetimes as ns, NaT outside the years that can be."""
    low, high = column.min(), column.max()
    known = isinstance(low, dt.date) and isinstance(high, dt.date)
    if known and low.year >= FIRST_YEAR and high.year <= wanted.last_year:  # type: ignore[union-attr]
        return column.cast(pl.Datetime("ns")).to_numpy()
    year = column.dt.year()
    good = year.is_between(FIRST_YEAR, wanted.last_year)
    return pl.select(pl.when(good).then(column)).to_series().cast(pl.Datetime("ns")).to_numpy()


def _plain_iso(text: pl.Series, wanted: Wanted) -> ReadTimes | None:
    """A whole column of 2020-01-02 or 2020-01-02 09:30[:00[.000]], read at once; else None."""
    first = text[0] if len(text) else None
    if first is None or not re.match(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?$", first):
        return None
    length = len(first)
    mark = "T" if "T" in first else " "
    form = "%Y-%m-%d" + ("" if length == 10 else f"{mark}%H:%M" if length == 16
                         else f"{mark}%H:%M:%S%.f")  # fmt: skip
    try:  # mostly every row is like the first
        if (text.str.len_chars() == length).all():
            days = text.str.to_datetime(form, strict=True, time_unit="us")
            return _in_zone(_ns(days, wanted), wanted, has_clock=length > 10)
    except pl.exceptions.PolarsError:
        pass  # then some row is of another kind
    if not text.str.contains(r"^\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?$").all():
        return None
    times = text.str.to_datetime(form, strict=False, time_unit="us")
    if times.null_count() != text.null_count():
        return None
    return _in_zone(_ns(times, wanted), wanted, has_clock=length > 10)


def _in_zone(wall: Times, wanted: Wanted, *, has_clock: bool) -> ReadTimes:
    """Wall times to UTC by the zone that is said, if there is one."""
    if not has_clock or not wanted.zone or wanted.zone in ("UTC", "Etc/UTC"):
        return ReadTimes(wall, wall, (), has_clock, wanted.zone is not None or not has_clock)
    said = (f"clock of {wanted.zone}",)
    return ReadTimes(to_utc(wall, wanted.zone), wall, said, has_clock, True)


def to_utc(wall: Times, zone: str) -> Times:
    """UTC of a zone's wall clock. Of an hour that comes twice the rows up to where the clock
    goes back are the first; an hour that never was is NaT."""
    series = pl.Series(wall)
    early, late = (
        series.dt.replace_time_zone(zone, ambiguous=a, non_existent="null")
        .dt.convert_time_zone("UTC")
        .dt.replace_time_zone(None)
        .to_numpy()
        for a in ("earliest", "latest")
    )
    twice = np.flatnonzero(early != late)
    twice = twice[~np.isnat(early[twice])]
    out: Times = early.copy()
    if not len(twice):
        return out
    days = wall.astype("datetime64[D]")
    falling = len(wall) > 1 and bool(np.sum(np.diff(wall) < np.timedelta64(0)) > len(wall) / 2)
    for day in np.unique(days[twice]):
        rows = twice[days[twice] == day]
        rows = rows[::-1] if falling else rows
        back = np.flatnonzero(np.diff(wall[rows]) <= np.timedelta64(0))
        if len(back):
            out[rows[back[0] + 1 :]] = late[rows[back[0] + 1 :]]
    return out


# Digits: epochs, stamps, serial days


_UNITS = (("seconds", 1e8, 9), ("milliseconds", 1e11, 6), ("microseconds", 1e14, 3),
          ("nanoseconds", 1e17, 0))  # fmt: skip
"""(name, least count that can only be this unit: 1973, power to nanoseconds)"""


def _of_digits(text: pl.Series, wanted: Wanted) -> ReadTimes:
    whole = text.str.replace(r"\.0+$", "")
    length = whole.str.len_chars().fill_null(0)
    plain = whole.str.contains(r"^\d+$").fill_null(False)
    best = int(length.filter(plain).mode().max() or 0) if plain.any() else 0  # type: ignore[arg-type]
    if best in (10, 12, 14, 17, 20):
        times = _digit_stamps(whole, best, wanted)
        if _share(times, text) >= 0.98:
            made = _in_zone(times, wanted, has_clock=True)
            return ReadTimes(made.utc, made.wall, ("stamps of digits YYYYMMDDhhmm...",
                             *made.forms), True, made.zoned)  # fmt: skip
    if best == 8:
        return _eight_digits(whole, wanted)
    if best in (5, 6):
        return _short_digits(whole, best, wanted)
    if best == 4 and _share(_calendar(whole.cast(pl.Int64, strict=False), 1, 1), text) > 0.98:
        raise DataError("the time is a year alone")
    return _epochs(text, wanted)


def _share(times: Times, text: pl.Series) -> float:
    return float((~np.isnat(times)).sum()) / max(int(text.is_not_null().sum()), 1)


def _digit_stamps(text: pl.Series, length: int, wanted: Wanted) -> Times:
    """YYYYMMDDhh[mm[ss[fff[fff]]]]"""
    head, tail = text.str.slice(0, min(length, 14)), text.str.slice(14)
    right = text.str.len_chars() == length
    head = pl.select(pl.when(right).then(head)).to_series()
    parts = [head.str.slice(a, 2).cast(pl.Int64, strict=False) for a in (4, 6, 8, 10, 12)]
    parts = [p.fill_null(0) if k > 2 else p for k, p in enumerate(parts)]
    days = _calendar(head.str.slice(0, 4).cast(pl.Int64, strict=False), parts[0], parts[1], wanted)
    fraction = tail.str.pad_end(9, "0").cast(pl.Int64, strict=False)
    return _with_clock(days, parts[2], parts[3], parts[4], fraction)


def _calendar(year: Any, month: Any, day: Any, wanted: Wanted | None = None) -> Times:
    """[n] midnights of dates, NaT where there is none, or its year cannot be."""
    y, m, d = (_whole(x) for x in (year, month, day))
    last = (wanted or Wanted()).last_year
    good = (y >= FIRST_YEAR) & (y <= last) & (m >= 1) & (m <= 12) & (d >= 1) & (d <= 31)
    months = (np.where(good, y - 1970, 0) * 12 + np.where(good, m, 1) - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (np.where(good, d, 1) - 1)
    good &= days.astype("datetime64[M]") == months
    out: Times = np.where(good, days.astype("datetime64[ns]"), NAT)
    return out


def _whole(x: Any) -> IntArray:
    if isinstance(x, pl.Series):
        return x.fill_null(-1).to_numpy().astype(np.int64)
    return np.asarray(x, dtype=np.int64)


def _with_clock(days: Times, hour: Any, minute: Any, second: Any, fraction: Any) -> Times:
    h, m, s, f = (_whole(x) for x in (hour, minute, second, fraction))
    midnight = (h == 24) & (m == 0) & (s == 0)
    good = ((h >= 0) & (h < 24) | midnight) & (m >= 0) & (m < 60) & (s >= 0) & (s < 60)
    nanos = ((h * 60 + m) * 60 + s) * 10**9 + np.maximum(f, 0)
    out: Times = np.where(good, days + np.where(good, nanos, 0).astype("timedelta64[ns]"), NAT)
    return out


def _eight_digits(text: pl.Series, wanted: Wanted) -> ReadTimes:
    a, b = (text.str.slice(k, 2).cast(pl.Int64, strict=False) for k in (0, 2))
    year = text.str.slice(4, 4).cast(pl.Int64, strict=False)
    right = text.str.len_chars() == 8
    first = _calendar(
        text.str.slice(0, 4).cast(pl.Int64, strict=False),
        text.str.slice(4, 2).cast(pl.Int64, strict=False),
        text.str.slice(6, 2).cast(pl.Int64, strict=False),
        wanted,
    )
    options = {"YYYYMMDD": first}
    if _share(first, text) < 0.98:
        options |= {"DDMMYYYY": _calendar(year, b, a, wanted)}
        options |= {"MMDDYYYY": _calendar(year, a, b, wanted)}
    good = right.fill_null(False).to_numpy()
    options = {name: np.where(good, times, NAT) for name, times in options.items()}
    name, times = choose(options, wanted, text)
    said = () if name == "YYYYMMDD" else (f"dates as {name}",)
    return ReadTimes(times, times, said)


def _short_digits(text: pl.Series, length: int, wanted: Wanted) -> ReadTimes:
    """YYMMDD and its orders, YYYYMM, or days since 1899-12-30 as spreadsheets count them."""
    if length == 5:
        number = text.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
        good = (number > 1) & (number < 60_000)
        nanos = np.round(np.where(good, number, 0) * 86_400_000) * 1_000_000
        times = np.datetime64("1899-12-30", "ns") + nanos.astype("timedelta64[ns]")
        times = np.where(good, times, NAT)
        inside = _between_years(times, wanted)
        if float(good.mean()) > 0.9 and not inside[good].all():
            times = np.where(inside, times, NAT)
        made = _in_zone(times, wanted, has_clock=bool(np.any(number[good] % 1 > 0)))
        said = ("days as a spreadsheet counts them (1 is 1900-01-01)", *made.forms)
        return ReadTimes(made.utc, made.wall, said, made.has_clock, made.zoned)
    a, b, c = (text.str.slice(k, 2).cast(pl.Int64, strict=False) for k in (0, 2, 4))
    year, month = (text.str.slice(k, n).cast(pl.Int64, strict=False) for k, n in ((0, 4), (4, 2)))
    options = {
        "YYMMDD": _calendar(_century(a, wanted), b, c, wanted),
        "DDMMYY": _calendar(_century(c, wanted), b, a, wanted),
        "MMDDYY": _calendar(_century(c, wanted), a, b, wanted),
        "YYYYMM": _calendar(year, month, 1, wanted),
    }
    right = (text.str.len_chars() == 6).fill_null(False).to_numpy()
    options = {n: np.where(right, times, NAT) for n, times in options.items()}
    name, times = choose(options, wanted, text)
    return ReadTimes(times, times, (f"dates as {name}",))


def _between_years(times: Times, wanted: Wanted) -> NDArray[np.bool_]:
    first = np.datetime64(f"{FIRST_YEAR}-01-01", "ns")
    last = np.datetime64(f"{wanted.last_year + 1}-01-01", "ns")
    return np.asarray((times >= first) & (times < last))


def _epochs(text: pl.Series, wanted: Wanted) -> ReadTimes:
    """Counts since 1970, the unit of each told by its own size."""
    whole = text.str.replace(r"\.0+$", "")
    number = whole.cast(pl.Int64, strict=False)
    loose = text.cast(pl.Float64, strict=False)
    size = loose.abs().fill_null(0.0).to_numpy()
    found = loose.is_not_null().to_numpy()
    unit = np.full(len(text), -1)
    for k, (_, least, _) in enumerate(_UNITS):
        most = least / 1e8 * (dt.datetime(wanted.last_year + 1, 1, 1).timestamp())
        earliest = least / 1e8 * 2.3e9
        negative = (loose < 0).fill_null(False).to_numpy()
        unit[found & (size >= least) & (size <= np.where(negative, earliest, most))] = k
    units = np.unique(unit[unit >= 0])
    if len(units) == 1:  # counts of the first years say nothing of their unit: the others do
        small = found & (size < _UNITS[units[0]][1])
        unit[small] = units[0]
    times = np.full(len(text), NAT)
    exact = number.fill_null(0).to_numpy()
    is_exact = number.is_not_null().to_numpy()
    for k, (_, _, power) in enumerate(_UNITS):
        own = unit == k
        ints = np.where(own & is_exact, exact, 0) * 10**power
        rounded = np.where(own & ~is_exact, loose.fill_null(0.0).to_numpy(), 0.0)
        parts = np.floor(rounded)
        frac = np.round((rounded - parts) * 1e6) * 10 ** max(power - 6, 0) if power >= 6 else 0
        floats = parts.astype(np.int64) * 10**power + np.asarray(frac).astype(np.int64)
        nanos = np.where(is_exact, ints, floats)
        times = np.where(own, nanos.astype("datetime64[ns]"), times)
    times = np.where(_between_years(times, wanted), times, NAT)
    names = [f"{_UNITS[k][0]} ({int((unit == k).sum())} rows)" for k in units]
    said = [f"times as {_UNITS[units[0]][0]} since 1970"] if len(units) == 1 else []
    if len(units) > 1:
        said = ["times since 1970 in " + " and ".join(names)]
    wall = times
    if wanted.zone and not np.isnat(times).all():
        local = pl.Series(times).dt.replace_time_zone("UTC").dt.convert_time_zone(wanted.zone)
        wall = local.dt.replace_time_zone(None).to_numpy()
    return ReadTimes(times, wall, tuple(said), True, True)


# Written dates


_THREE = r"^(\d{1,4})\s?[-/.\s年년_]\s?(\d{1,2})\s?[-/.\s月월_]\s?(\d{1,4})\s?[日일.]?$"
_TWO = r"^(\d{1,4})\s?[-/.年년M]\s?(\d{1,4})\s?[月월]?$"
_DAY_MONTH = r"^(\d{1,2})[\s.\-/_]*(?:de\s+)?([^\W\d_]+)[\s.,\-/_]*(?:de\s+)?'?(\d{4}|\d{2})$"
_MONTH_DAY = r"^([^\W\d_]+)[\s.\-/_]*(\d{1,2})[\s.,\-/_]+'?(\d{4}|\d{2})$"
_YEAR_FIRST = r"^(\d{4})[\s.\-/_]*([^\W\d_]+)[\s.\-/_]*(\d{1,2})$"
_MONTH_YEAR = r"^([^\W\d_]+)[\s.\-/_,]*'?(\d{4}|\d{2})$"


def _century(year: pl.Series, wanted: Wanted) -> pl.Series:
    """The year that two digits mean: this century's up to next year's, else the last one's."""
    base = wanted.last_year // 100 * 100
    recent = year + base
    two = year < 100
    return pl.select(
        pl.when(two & (recent > wanted.last_year)).then(recent - 100)
        .when(two).then(recent).otherwise(year)
    ).to_series()  # fmt: skip


def _written(text: pl.Series, wanted: Wanted) -> ReadTimes:
    """Times of written stamps: an offset (+01:00, Z, EST) is read and taken off."""
    for form, colons in _COMPACT.items():  # 20240102 093000
        text = text.str.replace(form, colons)
    zone = text.str.extract(ZONE, 1)
    none = zone.str.contains(rf"^{_HALF}$").fill_null(True)
    zones = pl.select(pl.when(~none).then(zone)).to_series()
    zones = zones.str.replace_all(" ", "").str.to_lowercase()
    parts = text.str.extract_groups(CLOCK).struct.unnest()
    hour = parts[:, 1].cast(pl.Int64, strict=False)
    half = pl.select(pl.coalesce(parts[:, 0], parts[:, 5])).to_series()
    early = text.str.extract_groups(HOUR).struct.unnest()
    with_hour = hour.is_null() & early[:, 0].is_not_null()
    if with_hour.any():
        bare = early[:, 0].cast(pl.Int64)
        hour = pl.select(pl.when(with_hour).then(bare).otherwise(hour)).to_series()
        half = pl.select(pl.coalesce(half, early[:, 1])).to_series()
    hour = _of_day(hour, half)
    has_clock = hour.is_not_null()
    days_text = text
    if has_clock.any():
        # what is left of the stamp without clock and zone; ctime writes the year behind the clock
        behind = text.str.replace(ZONE.replace("(?::", "(:", 1), "${1}")
        days_text = pl.select(
            pl.when(has_clock)
            .then(behind.str.replace(CLOCK, " ").str.replace(HOUR, ""))
            .otherwise(text)
        ).to_series()
    days_text = days_text.str.strip_chars(" ,-;").str.replace(r"(\d)[Tt]$", "${1}")
    days_text = days_text.str.replace(_WEEKDAY, "")
    days_text = days_text.str.replace(r"\s*[(（][^)）]*[)）]", "")
    days_text = days_text.str.replace(r"(?:[,，\s]+|星期|周|週)[一二三四五六日天]$", "")
    days_text = days_text.str.replace(r"(?i)(\d)(?:st|nd|rd|th)\b", "${1}").str.strip_chars(" ,")
    minute, second = (parts[:, k].cast(pl.Int64, strict=False).fill_null(0) for k in (2, 3))
    fraction = parts[:, 4].str.pad_end(9, "0").cast(pl.Int64, strict=False).fill_null(0)
    options = {
        name: _with_clock(days, hour.fill_null(0), minute, second, fraction)
        for name, days in _day_options(days_text, wanted).items()
    }
    name, wall = choose(options, wanted, text)
    made = _zoned(wall, zones, wanted, has_clock=bool(has_clock.any()))
    said: tuple[str, ...] = (f"dates {name}",) if name else ()
    if len(set(half.drop_nulls().to_list()[:9])):
        said += ("a clock of 12 hours",)
    return ReadTimes(made.utc, wall, (*said, *made.forms), made.has_clock, made.zoned)


def _of_day(hour: pl.Series, half: pl.Series) -> pl.Series:
    """The hour of 24, from one of 12 where morning or afternoon is said."""
    late = half.str.contains(r"(?i)^p|下|後|후").fill_null(False)
    early = half.is_not_null() & ~late
    return pl.select(
        pl.when(late & (hour < 12)).then(hour + 12)
        .when(early & (hour == 12)).then(0).otherwise(hour)
    ).to_series()  # fmt: skip


def _day_options(text: pl.Series, wanted: Wanted) -> dict[str, Times]:
    """Each reading of a column of dates by name: one where nothing is open."""
    three = text.str.extract_groups(_THREE).struct.unnest()
    a, b, c = (three[:, k].cast(pl.Int64, strict=False) for k in range(3))
    length_a, length_c = three[:, 0].str.len_chars(), three[:, 2].str.len_chars()
    iso = (length_a == 4) & (length_c <= 2)
    year_last = (length_a <= 2) & (length_c == 4)
    short = (length_a <= 2) & (length_c <= 2)
    fixed = np.where(_flag(iso), _calendar(a, b, c, wanted), NAT)
    compact = text.str.extract_groups(r"^(\d{4})(\d\d)(\d\d)$").struct.unnest()
    y, m, d = (compact[:, k].cast(pl.Int64, strict=False) for k in range(3))
    fixed = np.where(np.isnat(fixed), _calendar(y, m, d, wanted), fixed)
    solid = text.str.contains(r"^\d{8}$").fill_null(False)
    if solid.any() and np.isnat(fixed[_flag(solid)]).mean() > 0.02:
        eight = text.str.extract_groups(r"^(\d\d)(\d\d)(\d{4})$").struct.unnest()
        a, b, c = (eight[:, k].cast(pl.Int64, strict=False) for k in range(3))
        rest = np.where(_flag(solid), NAT, fixed)
        day_first, month_first = _calendar(c, b, a, wanted), _calendar(c, a, b, wanted)
        return {
            "day first": np.where(_flag(solid), day_first, rest),
            "month first": np.where(_flag(solid), month_first, rest),
        }
    six_digits = _flag(text.str.contains(r"^\d{6}$"))
    if six_digits.any() and np.isnat(fixed[six_digits]).all():
        pairs = text.str.extract_groups(r"^(\d\d)(\d\d)(\d\d)$").struct.unnest()
        a, b, c = (pairs[:, k].cast(pl.Int64, strict=False) for k in range(3))
        ways = {
            "year first": (_century(a, wanted), b, c),
            "day first": (_century(c, wanted), b, a),
            "month first": (_century(c, wanted), a, b),
        }
        return {n: np.where(six_digits, _calendar(*w, wanted), fixed) for n, w in ways.items()}
    roc = (three[:, 0].str.len_chars() == 3) & (length_c <= 2)
    if roc.fill_null(False).any():  # 108/01/02: Taiwan counts its years from 1912
        own = _flag((length_a <= 3) & (length_c <= 2))
        return {"with Taiwan's years": np.where(own, _calendar(a + 1911, b, c, wanted), fixed)}
    named, says_more = _month_names(text, wanted)
    fixed = np.where(np.isnat(fixed), named, fixed)
    fixed = np.where(np.isnat(fixed), _months_alone(text, wanted), fixed)
    open_rows = year_last | short
    if not open_rows.fill_null(False).any():
        if says_more is not None:
            both = {"as day, month, year": fixed}
            other = np.where(np.isnat(says_more), fixed, says_more)
            return both | {"as year, month, day": other}
        return {"": fixed}
    full, early = _century(c, wanted), _century(a, wanted)
    day_first = _calendar(full, b, a, wanted)
    month_first = _calendar(full, a, b, wanted)
    own = _flag(open_rows)
    options = {
        "day first": np.where(own, day_first, fixed),
        "month first": np.where(own, month_first, fixed),
    }
    if short.fill_null(False).any() and not year_last.fill_null(False).any():
        options["year first"] = np.where(own, _calendar(early, b, c, wanted), fixed)
    if wanted.day_first is not None:
        keep = "day first" if wanted.day_first else "month first"
        return {keep: options[keep]}
    return options


def _flag(rows: pl.Series) -> NDArray[np.bool_]:
    return rows.fill_null(False).to_numpy().astype(bool)


def _month_names(text: pl.Series, wanted: Wanted) -> tuple[Times, Times | None]:
    """([n] dates with a month's name; the other reading where 10-Mar-17 may be of 2010)."""
    out = np.full(len(text), NAT)
    other = None
    for form, (day, month, year) in {
        _DAY_MONTH: (0, 1, 2),
        _MONTH_DAY: (1, 0, 2),
        _YEAR_FIRST: (2, 1, 0),
    }.items():
        got = text.str.extract_groups(form).struct.unnest()
        if not got[:, 0].is_not_null().any():
            continue
        d, y = (got[:, k].cast(pl.Int64, strict=False) for k in (day, year))
        m = month_number(got[:, month])
        found = _calendar(_century(y, wanted), m, d, wanted)
        out = np.where(np.isnat(out), found, out)
        if form == _DAY_MONTH and (got[:, year].str.len_chars() == 2).any():
            other = _calendar(_century(d, wanted), m, y, wanted)
    return out, other


def month_number(name: pl.Series) -> pl.Series:
    """The month that each name means, null where it is none."""
    return name.str.to_lowercase().replace_strict(MONTHS, default=None, return_dtype=pl.Int64)


def _months_alone(text: pl.Series, wanted: Wanted) -> Times:
    """2015-01, 01/2015, Jan 2015: the first of the month."""
    two = text.str.extract_groups(_TWO).struct.unnest()
    a, b = (two[:, k].cast(pl.Int64, strict=False) for k in (0, 1))
    first = _calendar(a, b, 1, wanted)
    out: Times = np.where(np.isnat(first), _calendar(b, a, 1, wanted), first)
    named = text.str.extract_groups(_MONTH_YEAR).struct.unnest()
    year = named[:, 1].cast(pl.Int64, strict=False)
    four = pl.select(pl.when(named[:, 1].str.len_chars() == 4).then(year)).to_series()
    words = _calendar(four, month_number(named[:, 0]), 1, wanted)
    return np.where(np.isnat(out), words, out)


def _zoned(wall: Times, zones: pl.Series, wanted: Wanted, *, has_clock: bool) -> ReadTimes:
    """Wall times to UTC by the zones that their stamps name, else by the one that is said."""
    plain = _in_zone(wall, wanted, has_clock=has_clock)
    if not zones.is_not_null().any():
        return plain
    utc = plain.utc.copy()
    said = []
    for name in zones.unique().drop_nulls().to_list():
        rows = _flag(zones == name)
        if np.isnat(wall[rows]).all():  # words in a footer
            continue
        offset = re.fullmatch(r"(?:utc|gmt|z)?([+-])(\d{1,2}):?(\d\d)?", name)
        if offset:
            sign, hours, minutes = offset.groups()
            shift = (int(hours) * 60 + int(minutes or 0)) * (-1 if sign == "-" else 1)
            utc[rows] = wall[rows] - np.timedelta64(shift, "m")
        else:
            utc[rows] = to_utc(wall[rows], _known_zone(name))
            if name not in ("z", "utc", "gmt"):
                said.append(f"clock of {name.upper() if '/' not in name else _known_zone(name)}")
    return ReadTimes(utc, wall, tuple(said), has_clock, bool(zones.is_not_null().all()))


def _known_zone(name: str) -> str:
    """The zone of a name in a stamp. Raises DataError where it has several meanings or none."""
    if name in ZONES:
        return ZONES[name]
    from zoneinfo import available_timezones

    exact = [z for z in available_timezones() if z.lower() == name and "/" in z]
    if exact:
        return exact[0]
    also = {"cst": "Chicago (UTC-6) or China (UTC+8)", "ist": "India, Israel or Ireland"}
    why = also.get(name, "no clock that is known")
    raise DataError(f"the zone {name.upper()} is {why}: leave it out of the stamps and give --tz")


# The choice between readings


def choose(options: Mapping[str, Times], wanted: Wanted, text: pl.Series) -> tuple[str, Times]:
    """The one reading that stands: it reads more rows than the others, or time runs one way in it
    alone, or its longest gap is by far the shortest. Raises DataError where two stand that differ.
    """
    names = list(options)
    if len(names) == 1:
        return names[0], options[names[0]]
    num = {n: int((~np.isnat(t)).sum()) for n, t in options.items()}
    most = max(num.values())
    if most == 0:
        return names[0], options[names[0]]
    close = [n for n in names if num[n] >= 0.98 * most]
    distinct: list[str] = []
    for n in close:
        if not any(np.array_equal(options[n], options[d], equal_nan=True) for d in distinct):
            distinct.append(n)
    if len(distinct) == 1:
        return distinct[0], options[distinct[0]]
    forward = [n for n in distinct if _one_way(options[n])]
    if len(forward) == 1 and num[forward[0]] == most:
        return forward[0], options[forward[0]]
    ranked = sorted((_unevenness(options[n]), n) for n in (forward or distinct))
    if ranked[0][0] * 2 <= ranked[1][0] and num[ranked[0][1]] == most:
        return ranked[0][1], options[ranked[0][1]]
    one, two = ranked[0][1], ranked[1][1]
    differ = np.flatnonzero(options[one] != options[two])
    row = int(differ[0])
    raise DataError(
        f"{text[row]!r} may be {_shown(options[one][row])} ({one}) or {_shown(options[two][row])} "
        f"({two}), and no row tells: say --day-first or --no-day-first"
    )


def _shown(time: np.datetime64) -> str:
    return str(time.astype("datetime64[D]")) if not np.isnat(time) else "no date"


def _one_way(times: Times) -> bool:
    steps = np.diff(times[~np.isnat(times)]).astype(np.int64)
    return bool((steps >= 0).all() or (steps <= 0).all())


def _unevenness(times: Times) -> float:
    """The longest gap between neighbouring times over the usual one."""
    steps = np.diff(np.unique(times[~np.isnat(times)])).astype(np.int64)
    return float(steps.max() / np.median(steps)) if len(steps) else 1.0


def clock_seconds(column: pl.Series) -> NDArray[np.float64] | None:
    """[n] seconds into the day of a column that holds clocks alone (09:30, 9:30 PM, 93000, 930),
    NaN where empty; None where it holds something else."""
    if column.dtype == pl.Time:
        return (column.cast(pl.Int64) / 1e9).fill_null(np.nan).to_numpy()
    text = column.cast(pl.String).str.strip_chars().str.replace(r"\.0+$", "")
    filled = text.drop_nulls()
    filled = filled.filter(filled != "")
    if not len(filled):
        return None
    if filled.str.contains(r"^\d{1,6}$").all():
        longest = int(filled.str.len_chars().max())  # type: ignore[arg-type]
        digits = text.str.zfill(4 if longest <= 4 else 6).str.pad_end(6, "0")
        parts = [digits.str.slice(k, 2).cast(pl.Int64, strict=False) for k in (0, 2, 4)]
        half = None
    elif filled.str.contains(
        rf"^(?:{_HALF}\s*)?\d{{1,2}}:\d\d(?::\d\d)?(?:[.,]\d+)?\s*{_HALF}?$"
    ).all():
        got = ("x " + text).str.extract_groups(CLOCK).struct.unnest()
        half = pl.select(pl.coalesce(got[:, 0], got[:, 5])).to_series()
        parts = [got[:, k].cast(pl.Int64, strict=False) for k in (1, 2, 3)]
        parts[0] = _of_day(parts[0], half)
    else:
        return None
    h, m, s = (p.cast(pl.Float64).fill_null(0.0 if k else np.nan).to_numpy()
               for k, p in enumerate(parts))  # fmt: skip
    good = (h <= 24) & (m < 60) & (s < 60)
    seconds = np.where(good, (h * 60 + m) * 60 + s, np.nan)
    return seconds if np.isfinite(seconds).mean() > 0.9 else None
