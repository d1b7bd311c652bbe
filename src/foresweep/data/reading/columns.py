"""From a raw table to typed bars: column names in any case, timestamps of any kind, numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foresweep.data.panel import COLUMNS, Array, IntArray
from foresweep.errors import DataError

Times = NDArray[np.datetime64]

NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "timestamp": ("timestamp", "datetime", "date", "time"),
        "open": ("open",),
        "high": ("high",),
        "low": ("low",),
        "close": ("close",),
        "volume": ("volume", "vol"),
        "adjusted": ("adjclose", "adjustedclose", "closeadj", "adjusted"),
        "item_id": ("itemid", "symbol", "ticker", "name", "item"),
    }
)
"""Our name -> the names it may have, letters and digits only, small; the first found counts."""
REQUIRED = ("timestamp", *COLUMNS[:4])
NOTHING = ("", "nan", "null", "none", "na", "n/a", "-")
"""Words for a missing number."""
TIME_FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M:%S",
    "%Y%m%d",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%d.%m.%Y",
    "%d-%b-%Y",
    "%b %d, %Y",
)
ZONE = r"(?i):\d\d(?:\.\d+)?\s*(utc|gmt|z|[+-]\d\d:?\d\d|[+-]\d\d)$"


@dataclass(frozen=True, slots=True)
class Fault:
    """Rows (or, with none, a whole item) that break a rule."""

    rule: str
    message: str  # for rows: may hold {} for what the row says
    rows: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    said: Sequence[str] = ()  # [rows] what each row says


@dataclass(frozen=True, slots=True, eq=False)
class RawItem:
    """One item as its files say, before the gate: rows in the files' order."""

    item: str
    files: tuple[str, ...]
    file: IntArray  # [n] index in `files`
    line: IntArray  # [n] line of the CSV file (the header is line 1), or row from 1
    utc: Times  # [n] NaT where it cannot be read
    wall: Times  # [n] the clock as written, before its offset is taken off
    values: Array  # [n, 5] NaN where missing
    adjusted: Array | None  # [n] adjusted close
    has_volume: bool
    faults: tuple[Fault, ...] = ()


def canonical(columns: Sequence[str]) -> dict[str, str]:
    """Our name -> the table's, for every column that we know.

    Raises DataError where two columns are one name (`Close` and `close`).
    """
    bare: dict[str, str] = {}
    for column in columns:
        key = "".join(c for c in column.lower() if c.isalnum())
        if key in bare and any(key in names for names in NAMES.values()):
            raise DataError(f"two columns are {key!r}: {bare[key]!r} and {column!r}")
        bare[key] = column
    found = {}
    for ours, names in NAMES.items():
        hits = [bare[n] for n in names if n in bare]
        if hits:
            found[ours] = hits[0]
    return found


def missing_columns(columns: Mapping[str, str]) -> list[str]:
    """The required names that `canonical` did not find."""
    return [name for name in REQUIRED if name not in columns]


def raw_items(
    table: pl.DataFrame, columns: Mapping[str, str], *, file: str, item: str | None, first_line: int
) -> list[RawItem]:
    """Every item of a table: all rows as `item`, or, when that is None, by its item column.

    `first_line` is the number of the first data row (2 in a CSV file). Empty rows are left out.
    """
    table = table.select(pl.col(theirs).alias(ours) for ours, theirs in columns.items())
    table = table.with_row_index("line", first_line)
    table = table.filter(~pl.all_horizontal(pl.col(list(columns)).is_null()))
    if item is not None:
        return [_typed(table, file, item)]
    table = table.with_columns(pl.col("item_id").cast(pl.String).str.strip_chars())
    parts = table.partition_by("item_id", as_dict=True, maintain_order=True)
    return [_typed(part, file, str(name or "")) for (name,), part in parts.items()]


def _typed(table: pl.DataFrame, file: str, item: str) -> RawItem:
    utc, wall = _times(table["timestamp"])
    faults, columns = [], []
    unread = np.flatnonzero(np.isnat(utc))
    if len(unread):
        said = [repr(v) for v in table["timestamp"].gather(unread).to_list()]
        faults.append(Fault("bad_timestamp", "timestamp {} cannot be read", unread, said))
    names = [c for c in (*COLUMNS, "adjusted") if c in table.columns]
    for name in names:
        numbers, text = _numbers(table[name])
        columns.append(numbers)
        if len(text):
            said = [repr(v) for v in table[name].gather(text).to_list()]
            faults.append(Fault("not_a_number", f"{name} is {{}}, not a number", text, said))
    by_name = dict(zip(names, columns, strict=True))
    zeros = np.zeros(len(table))
    return RawItem(
        item=item,
        files=(file,),
        file=np.zeros(len(table), dtype=np.int64),
        line=table["line"].to_numpy().astype(np.int64),
        utc=utc,
        wall=wall,
        values=np.column_stack([by_name.get(c, zeros) for c in COLUMNS]),
        adjusted=by_name.get("adjusted"),
        has_volume="volume" in by_name,
        faults=tuple(faults),
    )


def parse_dates(column: pl.Series) -> Times:
    """[n] times of a column of any kind that `raw_items` reads, NaT where it cannot."""
    return _times(column)[0]


def _numbers(column: pl.Series) -> tuple[Array, IntArray]:
    """(numbers [n], NaN where there is none; rows that hold text in a number's place)."""
    if column.dtype != pl.String:
        numbers = column.cast(pl.Float64, strict=False)
        return numbers.fill_null(np.nan).to_numpy(), np.empty(0, dtype=np.int64)
    bare = column.str.strip_chars()
    numbers = bare.cast(pl.Float64, strict=False)
    unread = numbers.is_null() & bare.is_not_null()
    text = unread & ~bare.str.to_lowercase().is_in(list(NOTHING)) if unread.any() else unread
    return numbers.fill_null(np.nan).to_numpy(), np.flatnonzero(text.fill_null(False).to_numpy())


def _times(column: pl.Series) -> tuple[Times, Times]:
    """(UTC, wall clock) of a column of text, dates, datetimes or epoch numbers, as ns; NaT where
    it cannot be read. A stamp without a zone is taken as UTC."""
    kind = column.dtype
    if isinstance(kind, pl.Datetime) and kind.time_zone:
        zoned = column.dt.cast_time_unit("ns")
        utc = zoned.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return utc.to_numpy(), zoned.dt.replace_time_zone(None).to_numpy()
    if kind in (pl.Date, pl.Datetime):
        times = column.cast(pl.Datetime("ns")).to_numpy()
        return times, times
    text = column.cast(pl.String).str.strip_chars()
    epoch = _epoch(text)
    if epoch is not None:
        return epoch, epoch
    return _written_times(text)


def _epoch(text: pl.Series) -> Times | None:
    """Seconds, milli-, micro- or nanoseconds since 1970, told apart by their number of digits."""
    digits = text.str.contains(r"^\d{10,19}(\.0)?$")
    if not digits.fill_null(False).any():
        return None
    number = text.str.replace(r"\.0$", "").cast(pl.Int64, strict=False)
    length = int(number.cast(pl.String).str.len_chars().median() or 10)  # type: ignore[arg-type]
    scale = 10 ** {10: 9, 13: 6, 16: 3}.get(length, 0)
    times: Times = (number * scale).cast(pl.Datetime("ns")).to_numpy()
    return times


def _written_times(text: pl.Series) -> tuple[Times, Times]:
    """Times of written stamps: an offset (+01:00, Z) is read and taken off."""
    text = text.str.replace(r"^(\d{4}-\d\d-\d\d)T", "${1} ")
    shift = np.zeros(len(text), dtype="timedelta64[ns]")
    if text.str.contains(ZONE).fill_null(False).any():
        zone = text.str.extract(ZONE, 1).fill_null("z").str.to_lowercase()
        sign = (zone.str.starts_with("-")).cast(pl.Int64) * -2 + 1
        digits = zone.str.replace_all(r"[^\d]", "").str.pad_end(4, "0").cast(pl.Int64)
        seconds = sign * (digits // 100 * 3600 + digits % 100 * 60)
        shift = seconds.to_numpy().astype("timedelta64[s]").astype("timedelta64[ns]")
        text = text.str.replace(r"(?i)\s*(utc|gmt|z|[+-]\d\d:?\d\d|[+-]\d\d)$", "")
    wall = _best_format(text)
    return wall - shift, wall


def _best_format(text: pl.Series) -> Times:
    """The stamps read by the format that reads most of them; between equals (03/04/2020) the one
    under which time runs forward."""
    wanted = int(text.is_not_null().sum())
    best, score = None, (-1, False)
    for form in TIME_FORMATS:
        times = text.str.to_datetime(form, strict=False, time_unit="ns")
        reads = int(times.is_not_null().sum())
        if reads and (reads, True) > score:
            found = (reads, times.drop_nulls().is_sorted())
            best, score = (times, found) if found > score else (best, score)
        if score == (wanted, True):
            break
    if best is None:
        return np.full(len(text), np.datetime64("NaT"), dtype="datetime64[ns]")
    return best.to_numpy()
