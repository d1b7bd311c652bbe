"""From a table to typed bars: times, numbers and items out of columns, each guess told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foresweep.data.panel import COLUMNS, Array, IntArray
from foresweep.data.reading.aliases import bare, nameless, role, understand, volume_unit, zone_of
from foresweep.data.reading.dates import (
    ReadTimes,
    Times,
    Wanted,
    clock_seconds,
    read_times,
    to_utc,
)
from foresweep.data.reading.dialect import Refused, Table
from foresweep.data.reading.numbers import decide_decimal, read_numbers
from foresweep.data.reading.overrules import Overrules
from foresweep.errors import DataError

EDGE = 20
"""A row without a time and without a price is a footer (or more preamble) only so near an end."""
EVENTS = r"(?i)dividend|stock split|capital gain"


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
    amount: Array | None = None  # [n] money that changed hands, NaN where missing
    dividends: Array | None = None  # [n] paid for a share whose first bar without it this is
    splits: Array | None = None  # [n] new shares for one old; 0, 1 or NaN: none


def raw_items(
    table: pl.DataFrame, columns: Mapping[str, str], *, file: str, item: str | None, first_line: int
) -> list[RawItem]:
    """Every item of a table whose `columns` (our name -> the table's) are known: all rows as
    `item`, or, when that is None, by its item column. Empty rows are left out."""
    names = tuple(columns.values())
    header = understand(names, columns)
    frame = table.select(pl.col(n).alias(f"c{k}") for k, n in enumerate(names))
    return items_of(Table(frame, names, header, first_line), file=file, item=item)[0]


def items_of(
    table: Table, *, file: str, item: str | None, overrules: Overrules | None = None
) -> tuple[list[RawItem], list[Fault]]:
    """(the items of a table, what was guessed or left out): all rows as `item`, or, when that is
    None or the table holds several, by its item column or its tickers.

    Raises Refused where times or numbers can be read in two ways, or hardly at all.
    """
    overrules = overrules or Overrules()
    tickers = _tickers(table)
    if len(tickers) > 1:
        return _wide(table, tickers, file, overrules)
    frame, at = table.frame, table.header.at
    frame = frame.with_row_index("line", table.first_line)
    known = [f"c{k}" for k in {*at.values(), *table.header.times}]
    if all(frame[name].null_count() for name in known):
        frame = frame.filter(~pl.all_horizontal(pl.col(known).is_null()))
    table = replace(table, frame=frame)
    times, guesses = _times(table, overrules)
    raw, left = _typed(table, times, file, item or "", overrules)
    raws = _by_item(raw, left.items, item)
    guesses = [*table.guesses, *_named(table), *guesses, *left.guesses]
    told = [Fault("read_as", "; ".join(guesses))] if guesses else []
    if table.header.unused:
        told.append(Fault("unused_column", ", ".join(table.header.unused)))
    return raws, [*told, *left.faults]


def _named(table: Table) -> list[str]:
    """Which columns are taken for prices, where their names are not the plain words."""
    pairs = [(n, table.names[table.header.at[n]]) for n in (*COLUMNS, "adjusted", "amount")
             if n in table.header.at]  # fmt: skip
    told = [f"{n} from {name!r}" for n, name in pairs if bare(name) not in (n, "vol", "adjclose")]
    return [", ".join(told)] if told else []


def _tickers(table: Table) -> list[str]:
    pairs = zip(table.names, table.labels, strict=True) if table.labels else ()
    return list(dict.fromkeys(lab for name, lab in pairs if lab and role(name) == "close"))


def _wide(
    table: Table, tickers: Sequence[str], file: str, overrules: Overrules
) -> tuple[list[RawItem], list[Fault]]:
    """Every ticker of a table that has columns for each."""
    raws: list[RawItem] = []
    told: list[Fault] = []
    for ticker in tickers:
        pairs = zip(table.names, table.labels, strict=True)
        names = tuple(n if lab in ("", ticker) else "" for n, lab in pairs)
        header = understand(names)
        if header.missing:
            message = f"{ticker} has no column {', '.join(header.missing)}"
            told.append(Fault("missing_column", message))
            continue
        own = replace(table, names=names, header=header, labels=())
        items, faults = items_of(own, file=file, item=ticker, overrules=overrules)
        raws += [_without_empty_ends(raw) for raw in items]
        told += [f for f in faults if f.rule not in {t.rule for t in told}]
    return raws, [*told, Fault("read_as", f"columns of {len(tickers)} items side by side")]


def _without_empty_ends(raw: RawItem) -> RawItem:
    """A ticker's rows from its first to its last price: the table is as long as its longest."""
    some = np.flatnonzero(np.isfinite(raw.values[:, :4]).any(axis=1))
    if not len(some):
        return raw
    return rows_of(raw, np.arange(some[0], some[-1] + 1))


def rows_of(raw: RawItem, rows: IntArray, *, item: str | None = None) -> RawItem:
    """Some rows of an item, in that order, with the faults among them."""
    place = np.full(len(raw.line), -1)
    place[rows] = np.arange(len(rows))
    faults = []
    for fault in raw.faults:
        kept = np.flatnonzero(place[fault.rows] >= 0)
        said = [fault.said[int(k)] for k in kept] if len(fault.said) else ()
        if len(kept) or not len(fault.rows):
            faults.append(Fault(fault.rule, fault.message, place[fault.rows[kept]], said))
    return replace(
        raw,
        item=raw.item if item is None else item,
        file=raw.file[rows],
        line=raw.line[rows],
        utc=raw.utc[rows],
        wall=raw.wall[rows],
        values=raw.values[rows],
        adjusted=None if raw.adjusted is None else raw.adjusted[rows],
        amount=None if raw.amount is None else raw.amount[rows],
        dividends=None if raw.dividends is None else raw.dividends[rows],
        splits=None if raw.splits is None else raw.splits[rows],
        faults=tuple(faults),
    )


def _by_item(raw: RawItem, items: pl.Series | None, item: str | None) -> list[RawItem]:
    """One raw item, or each of the item column's: where that is asked for or it names several."""
    if items is None:
        return [raw]
    names = items.fill_null("")
    distinct = names.unique(maintain_order=True).to_list()
    if item is not None and len([d for d in distinct if d]) < 2:
        return [raw]
    if len(distinct) == 1:
        return [replace(raw, item=distinct[0])]
    codes = names.replace_strict({n: k for k, n in enumerate(distinct)}, return_dtype=pl.Int64)
    order = np.argsort(codes.to_numpy(), kind="stable")
    counts = np.bincount(codes.to_numpy(), minlength=len(distinct))
    pieces = np.split(order, np.cumsum(counts)[:-1])
    return [rows_of(raw, rows, item=name) for name, rows in zip(distinct, pieces, strict=True)]


# Times


def _times(table: Table, overrules: Overrules) -> tuple[ReadTimes, list[str]]:
    """The times of a table, from the column (or the two) that tells most. Raises Refused."""
    header, problem = table.header, None
    zone = overrules.zone or header.zone
    wanted = Wanted(overrules.day_first, zone)
    best: tuple[int, ReadTimes] | None = None
    for k in header.times:
        column = table.frame[f"c{k}"]
        try:
            times = read_times(column, wanted)
        except DataError as error:
            problem = problem or Refused("ambiguous_dates", str(error))
            whole = _joined_text(table, k, wanted)
            if whole is None:
                continue
            best = (k, whole)
            break
        num = int((~np.isnat(times.utc)).sum())
        if num < 0.5 * len(column.drop_nulls()):
            continue
        if times.has_clock:
            best = (k, times)
            break
        with_clock = _with_clock(table, times, k, wanted)
        if with_clock is not None:
            best = (k, with_clock)
            break
        named = not nameless(table.names[k])
        if best is None or (named and _distinct(times) > 1.5 * _distinct(best[1])):
            best = (k, times)
    if best is None:
        if problem is not None:
            raise problem
        return _nothing_read(table, wanted)
    k, times = best
    if not times.has_clock:  # another column may say when on the day
        for other in header.times:
            if other != k and not nameless(table.names[other]):
                finer = _or_none(table.frame[f"c{other}"], wanted)
                if finer is not None and _distinct(finer) > 1.5 * _distinct(times):
                    k, times = other, finer
    return times, _time_guesses(table, k, times, zone, overrules)


def _or_none(column: pl.Series, wanted: Wanted) -> ReadTimes | None:
    try:
        return read_times(column, wanted)
    except DataError:
        return None


def _distinct(times: ReadTimes) -> int:
    return len(np.unique(times.utc[~np.isnat(times.utc)]))


def _with_clock(table: Table, days: ReadTimes, at: int, wanted: Wanted) -> ReadTimes | None:
    """Dates of one column and clocks of another as one time; None where no column has clocks."""
    for k in table.header.clock:
        if k == at:
            continue
        seconds = clock_seconds(table.frame[f"c{k}"])
        if seconds is None:
            continue
        zone = wanted.zone or zone_of(table.names[k])
        known = np.isfinite(seconds)
        nanos = np.round(np.where(known, seconds, 0) * 1e9).astype("timedelta64[ns]")
        wall = np.where(known, days.wall + nanos, np.datetime64("NaT", "ns"))
        utc = to_utc(wall, zone) if zone else wall
        said = (*days.forms, f"date and time from {table.names[at]} and {table.names[k]}")
        return ReadTimes(utc, wall, said, True, zone is not None)
    return None


def _joined_text(table: Table, at: int, wanted: Wanted) -> ReadTimes | None:
    """Dates that are open to two readings, read once more together with their clocks; None where
    that does not help."""
    for k in table.header.clock:
        seconds = None if k == at else clock_seconds(table.frame[f"c{k}"])
        if seconds is None:
            continue
        known = np.where(np.isfinite(seconds), seconds, 0)
        clocks = pl.Series(known * 1e9).cast(pl.Int64).cast(pl.Time).dt.strftime("%H:%M:%S")
        zone = wanted.zone or zone_of(table.names[k])
        try:
            times = read_times(
                table.frame[f"c{at}"].cast(pl.String) + " " + clocks, replace(wanted, zone=zone)
            )
        except DataError:
            continue
        said = f"date and time from {table.names[at]} and {table.names[k]}"
        return replace(times, forms=(*times.forms, said))
    return None


def _nothing_read(table: Table, wanted: Wanted) -> tuple[ReadTimes, list[str]]:
    k = table.header.at["timestamp"]
    said = table.frame[f"c{k}"].cast(pl.String).drop_nulls()
    if not len(said):
        nothing = np.full(len(table.frame), np.datetime64("NaT", "ns"))
        return ReadTimes(nothing, nothing), []
    raise Refused(
        "unreadable_dates",
        f"{table.names[k] or 'the first column'!r} holds {said[0]!r}: no date of the years 1900 "
        f"to {wanted.last_year} that can be read",
    )


def _time_guesses(
    table: Table, at: int, times: ReadTimes, zone: str | None, overrules: Overrules
) -> list[str]:
    said = list(times.forms)
    name = table.names[at]
    if role(name) != "timestamp" or len(table.header.times) > 1:
        said.append(f"time from {name!r}" if name else "time from the first column, without a name")
    if times.has_clock and not times.zoned and not zone:
        utc = times.utc[~np.isnat(times.utc)]
        if (utc.astype("datetime64[D]") != utc).any():
            said.append("a clock without a zone, taken as UTC (--tz says another)")
    return said


# Numbers


@dataclass(frozen=True, slots=True, eq=False)
class _Left:
    """What is said about a table beside its one raw item."""

    items: pl.Series | None
    guesses: list[str]
    faults: list[Fault]


def _typed(
    table: Table, times: ReadTimes, file: str, item: str, overrules: Overrules
) -> tuple[RawItem, _Left]:
    frame, header = table.frame, table.header
    at, guesses = dict(header.at), []
    columns = {n: frame[f"c{at[n]}"] for n in (*COLUMNS[:4], "adjusted") if n in at}
    volumes = [frame[f"c{k}"] for k in header.volumes]
    try:
        decimal = overrules.decimal or decide_decimal(
            list(columns.values()), volumes[0] if volumes else None, table.separator
        )
    except DataError as error:
        raise Refused("ambiguous_numbers", str(error)) from error
    if decimal == ",":
        guesses.append("decimal comma")
    elif any(c.dtype == pl.String and c.str.contains(r"\d,\d{3}").any() for c in columns.values()):
        guesses.append("commas between thousands")
    numbers = {n: read_numbers(c, decimal) for n, c in columns.items()}
    if "ts_event" in table.names:  # Databento's own form: whole numbers of 1e-9
        levels = np.concatenate([numbers[n][0] for n in COLUMNS[:4]])
        if np.nanmin(levels) >= 1e6 and (levels[np.isfinite(levels)] % 1 == 0).all():
            numbers |= {n: (numbers[n][0] / 1e9, numbers[n][1]) for n in COLUMNS[:4]}
            guesses.append("prices in units of 1e-9")
    chosen = _volume(table, volumes, decimal, guesses)
    if chosen is not None:
        numbers["volume"], columns["volume"] = chosen
    keep, faults = _left_out(times, numbers, columns)
    rows: IntArray | slice = slice(None) if keep.all() else np.flatnonzero(keep)
    place = np.cumsum(keep) - 1
    told = []
    unread = np.flatnonzero(np.isnat(times.utc) & keep)
    if len(unread):
        stamps = frame[f"c{at['timestamp']}"]
        said = [repr(v) for v in stamps.gather(unread).to_list()]
        told.append(Fault("bad_timestamp", "timestamp {} cannot be read", place[unread], said))
    for name, (_, text) in numbers.items():
        text = text[keep[text]]
        if len(text):
            said = [repr(v) for v in columns[name].gather(text).to_list()]
            told.append(Fault("not_a_number", f"{name} is {{}}, not a number", place[text], said))
    raw = RawItem(
        item=item,
        files=(file,),
        file=np.zeros(int(keep.sum()), dtype=np.int64),
        line=frame["line"].to_numpy().astype(np.int64)[rows],
        utc=times.utc[rows],
        wall=times.wall[rows],
        values=_columns_of(numbers, len(frame))[rows],
        adjusted=numbers["adjusted"][0][rows] if "adjusted" in numbers else None,
        has_volume="volume" in numbers,
        faults=tuple(told),
        amount=None if (amount := _amount(table, decimal, guesses)) is None else amount[rows],
        dividends=_plain(table, "dividends", decimal, rows),
        splits=_plain(table, "splits", decimal, rows),
    )
    items = None
    if "item_id" in at:
        items = frame[f"c{at['item_id']}"].cast(pl.String).str.strip_chars().filter(pl.Series(keep))
    return raw, _Left(items, guesses, faults)


def _columns_of(numbers: Mapping[str, tuple[Array, IntArray]], num: int) -> Array:
    """[num, 5] COLUMNS, zeros where a file has none."""
    out = np.zeros((num, len(COLUMNS)))
    for k, name in enumerate(COLUMNS):
        if name in numbers:
            out[:, k] = numbers[name][0]
    return out


def _volume(
    table: Table, volumes: Sequence[pl.Series], decimal: str, guesses: list[str]
) -> tuple[tuple[Array, IntArray], pl.Series] | None:
    """((numbers, rows of text), column) of the volume: the first column that is not all zeros."""
    header = table.header
    for k, column in zip(header.volumes, volumes, strict=True):
        numbers, text = read_numbers(column, decimal)
        if len(volumes) == 1 or np.nansum(np.abs(numbers)) > 0:
            if len(volumes) > 1:
                guesses.append(f"volume from {table.names[k]!r}")
            unit = volume_unit(table.names[k])
            if unit != 1:
                guesses.append(f"volume in units of {unit:g}")
                numbers = numbers * unit
            return (numbers, text), column
    return ((read_numbers(volumes[0], decimal)), volumes[0]) if volumes else None


def _amount(table: Table, decimal: str, guesses: list[str]) -> Array | None:
    """[n] the money that changed hands, in the file's own currency; None where no column has it (a
    turnover of at most 100 is a rate in percent, as akshare's)."""
    if "amount" not in table.header.at:
        return None
    k = table.header.at["amount"]
    numbers, _ = read_numbers(table.frame[f"c{k}"], decimal)
    if bare(table.names[k]) == "turnover" and not (numbers > 100).any():
        guesses.append(f"{table.names[k]!r} is a rate and not used")
        return None
    return numbers * volume_unit(table.names[k])


def _plain(table: Table, name: str, decimal: str, rows: IntArray | slice) -> Array | None:
    """[len(rows)] numbers of the column that is `name`, None where there is none."""
    if name not in table.header.at:
        return None
    return read_numbers(table.frame[f"c{table.header.at[name]}"], decimal)[0][rows]


def _left_out(
    times: ReadTimes,
    numbers: Mapping[str, tuple[Array, IntArray]],
    columns: Mapping[str, pl.Series],
) -> tuple[NDArray[np.bool_], list[Fault]]:
    """(rows that are bars or might be; what the others are): footers and lines that tell of a
    dividend or a split are no bars."""
    keep = np.ones(len(times.utc), dtype=bool)
    priceless = np.isnan(np.column_stack([numbers[c][0] for c in COLUMNS[:4]])).all(axis=1)
    if not priceless.any():
        return keep, []
    faults = []
    event = np.zeros(len(keep), dtype=bool)
    for name in COLUMNS[:4]:
        if columns[name].dtype == pl.String:
            hits = columns[name].str.contains(EVENTS).fill_null(False)
            event |= hits.to_numpy() & priceless
    if event.any():
        message = f"{int(event.sum())} lines tell of a dividend or split and are no bars"
        faults.append(Fault("event_line", message))
    ends = np.zeros(len(keep), dtype=bool)
    ends[:EDGE] = ends[-EDGE:] = True
    foot = priceless & np.isnat(times.utc) & ends & ~event
    bars = np.flatnonzero(~np.isnat(times.utc))
    if len(bars):
        foot[bars[0] : bars[-1]] = False
    if foot.any():
        message = f"{int(foot.sum())} lines above or under the table are no bars"
        faults.append(Fault("footer", message))
    keep &= ~(event | foot)
    return keep, faults
