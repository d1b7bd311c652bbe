"""Returns a bar of what a strategy search tried, from anybody's backtester: read, nothing guessed.

A column is a trial: vectorbt's `pf.returns()` with its levels of parameters, account values of
backtesting.py as `pct_change()`, closed trades of freqtrade (`reading.freqtrade`), any table.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foresweep.data.reading.freqtrade import ENDINGS, Journal, read_journals
from foresweep.data.reading.scores import refuse_scores
from foresweep.data.tables import PARQUET_ENDINGS, is_table, parse_table, stem, table_bytes
from foresweep.errors import DataError

Array = NDArray[np.float64]
Times = NDArray[np.datetime64]

DAY = re.compile(r"\d{4}-\d\d-\d\d")
TIMES = ("time", "date", "datetime", "timestamp", "origin")
ITEMS = ("item", "symbol", "asset", "ticker", "pair", "instrument")
"""Names of a column, or of a level of a heading, that tell series apart, not trials."""
EQUITY = "equity"
TYPICAL = 0.1
"""Mean size of a bar's return beyond which these are percents or an account's value."""
KNOWS = (
    "a table of returns has a column of dates (2024-05-31) and a column a trial, or the columns "
    "trial, time, return and, if there are several series, item"
)


@dataclass(frozen=True, slots=True, eq=False)
class ReturnTable:
    """Returns of K trials on T bars of I items, as fractions of the capital: 0.01 is 1 %."""

    trials: tuple[str, ...]  # [K]
    times: Times  # [T] seconds, rising
    items: tuple[str, ...]  # [I]
    returns: Array  # [K, T, I] NaN where there is none
    notes: tuple[str, ...] = ()


def read_returns(path: Path) -> ReturnTable:
    """Returns in a CSV or Parquet file, wide (a column a trial) or long (trial, time, item,
    return), in an account's `Equity` of backtesting.py, in freqtrade's export of a backtest or
    hyperopt, or in a folder of such files, one a trial.

    Raises DataError for a leaderboard (one score a trial), for percents, prices or account values,
    bars that repeat, times that are no dates, and where nothing is left.
    """
    if path.is_dir():
        found = _joined([_of_file(p) for p in sorted(path.iterdir()) if _is_readable(p)], path)
    else:
        found = _of_file(path)
    there = ~np.isnan(found.returns).all(axis=(0, 2))
    found = replace(found, times=found.times[there], returns=found.returns[:, there])
    if len(found.times) < 2:
        raise DataError(f"{path}: returns on {len(found.times)} bars; two at least are needed")
    _require_fractions(found, path)
    return found


def _is_readable(path: Path) -> bool:
    if not path.is_file() or path.name.startswith(".") or path.name.endswith(".meta.json"):
        return False  # freqtrade's notes on its own files
    return is_table(path) or path.name.lower().endswith(ENDINGS)


def _of_file(path: Path) -> ReturnTable:
    small = path.name.lower()
    if small.endswith(ENDINGS):
        return _of_journals(read_journals(path), path)
    if not is_table(path):
        raise DataError(
            f"{path}: returns are read from .csv, .csv.gz and .parquet files, freqtrade's .json, "
            f".zip and .fthypt, and folders of these"
        )
    if small.endswith(PARQUET_ENDINGS):
        frame = parse_table(table_bytes(path), str(path))
        times = [c for c in frame.columns if frame[c].dtype.is_temporal()]
        frame = frame.with_columns(pl.col(times).cast(pl.String))
        rows = [[c if c is not None else "" for c in row] for row in frame.rows()]
        heads = [list(frame.columns)]
        if times and frame.columns[0] not in times:  # pandas writes its index last
            at = frame.columns.index(times[0])
            rows = [[row[at], *row[:at], *row[at + 1 :]] for row in rows]
            heads = [[frame.columns[at], *heads[0][:at], *heads[0][at + 1 :]]]
    else:
        text = table_bytes(path).decode("utf-8-sig", "replace")
        rows = [row for row in csv.reader(io.StringIO(text)) if row]
        first = next((n for n, row in enumerate(rows) if DAY.match(row[0].strip())), len(rows))
        heads, rows = rows[: max(first, 1)], rows[max(first, 1) :]
    if not heads:
        raise DataError(f"{path} is empty; {KNOWS}")
    names = [cell.strip().lower() for cell in heads[0]]
    if "trial" in names and "return" in names:
        return _of_long(names, heads[1:] + rows, path)
    return _of_wide(heads, rows, path)


# A column a trial.


def _of_wide(heads: Sequence[Sequence[str]], rows: list[list[str]], path: Path) -> ReturnTable:
    """Headings of several levels are what pandas writes of columns with several levels."""
    if not rows or not DAY.match(str(rows[0][0])):
        every = [*heads, *rows]
        refuse_scores(path, heads[0], [str(row[0]) for row in every])
        raise DataError(
            f"{path} has no row that begins with a date; {KNOWS}; of one score a trial nobody can "
            f"tell skill from luck: see docs/verdict-elsewhere.md"
        )
    width = len(rows[0])
    if ragged := [n for n, row in enumerate(rows) if len(row) != width]:
        row = len(heads) + ragged[0] + 1
        raise DataError(f"{path}: row {row} has {len(rows[ragged[0]])} columns, not {width}")
    levels = [h for h in heads if any(str(c).strip() for c in h[1:])]  # less the index's own name
    if not levels or any(len(h) != width for h in levels):
        raise DataError(f"{path}: the headings do not name its {width} columns; {KNOWS}")
    refuse_scores(path, levels[0], [])
    times = _times([str(row[0]) for row in rows], path)
    small = [str(c).strip().lower() for c in levels[0]]
    if len(levels) == 1 and EQUITY in small:
        worth = _numbers([[row[small.index(EQUITY)]] for row in rows], [["Equity"]], path)
        return _table({(stem(path), "all"): _moves(worth[:, 0])}, times, path)
    values = _numbers([row[1:] for row in rows], [h[1:] for h in levels], path)
    columns: dict[tuple[str, str], Array] = {}
    for n in range(width - 1):
        own = [(str(h[0]).strip(), str(h[n + 1]).strip()) for h in levels]
        item = next((c for name, c in own if name.lower() in ITEMS and len(own) > 1), "all")
        said = [(name, c) for name, c in own if c and (name.lower() not in ITEMS or len(own) == 1)]
        alone = len(said) == 1  # the only level, or a name beside parameter sets
        key = (
            ", ".join(c if alone or not name else f"{name}={c}" for name, c in said),
            item or "all",
        )
        if not key[0] or key in columns:
            why = "has no name" if not key[0] else f"repeats the name {key[0]!r}"
            raise DataError(f"{path}: column {n + 2} {why}; a column is a trial, each named once")
        columns[key] = values[:, n]
    return _table(columns, times, path)


def _moves(worth: Array) -> Array:
    """Returns from an account's values; the first bar has none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.concatenate([[np.nan], worth[1:] / worth[:-1] - 1.0])


def _numbers(rows: list[list[str]], heads: Sequence[Sequence[str]], path: Path) -> Array:
    """[T, columns]; empty cells are NaN. Raises DataError where a cell is no number."""
    try:
        return np.array([[_number(c) for c in row] for row in rows], dtype=np.float64)
    except ValueError:
        for number, row in enumerate(rows):
            for n, cell in enumerate(row):
                try:
                    _number(cell)
                except ValueError as error:
                    name = ", ".join(str(h[n]) for h in heads)
                    raise DataError(
                        f"{path}: {cell!r} in column {name!r}, bar {number + 1}, is no number; "
                        f"leave out columns that hold no returns"
                    ) from error
        raise


def _number(cell: object) -> float:
    text = str(cell).strip()
    value = float(text) if text else np.nan
    return value if np.isfinite(value) else np.nan


def _times(cells: Sequence[str], path: Path) -> Times:
    """Seconds; zones are left off, as all bars of a file share theirs. Raises DataError."""
    times: list[np.datetime64] = []
    for cell in cells:
        try:
            time = np.datetime64(cell.strip()[:19].replace(" ", "T"), "s")
        except ValueError as error:
            raise DataError(f"{path}: {cell!r} is no date; {KNOWS}") from error
        if np.isnat(time):  # numpy's reading of an empty cell
            raise DataError(f"{path}: bar {len(times) + 1} has no date; {KNOWS}")
        times.append(time)
    return np.array(times)


# Trial, time, item, return.


def _of_long(names: Sequence[str], rows: Iterable[Sequence[str]], path: Path) -> ReturnTable:
    time = next((n for n in TIMES if n in names), None)
    if time is None:
        refuse_scores(path, names, [])
        raise DataError(f"{path} has no column time; {KNOWS}")
    item = next((n for n in ITEMS if n in names), None)
    at = {n: names.index(n) for n in ("trial", time, "return")}
    kept = list(rows)
    if not kept:
        raise DataError(f"{path} holds no row of returns; {KNOWS}")
    if ragged := [n for n, row in enumerate(kept) if len(row) != len(names)]:
        wrong = len(kept[ragged[0]])
        raise DataError(f"{path}: row {ragged[0] + 2} has {wrong} columns, not {len(names)}")
    values = _numbers([[row[at["return"]]] for row in kept], [["return"]], path)[:, 0]
    stamps = _times([str(row[at[time]]) for row in kept], path)
    times, place = np.unique(stamps, return_inverse=True)
    columns: dict[tuple[str, str], Array] = {}
    for n, row in enumerate(kept):
        key = (
            str(row[at["trial"]]).strip(),
            "all" if item is None else str(row[names.index(item)]),
        )
        column = columns.setdefault(key, np.full(len(times), np.nan))
        if not np.isnan(column[place[n]]):
            raise DataError(
                f"{path}: {key[0]!r} has two returns at {stamps[n]}; one bar, one return"
            )
        column[place[n]] = values[n]
    return _table(columns, times, path)


# freqtrade: what closed trades realised, day by day.


def _of_journals(journals: Sequence[Journal], path: Path) -> ReturnTable:
    """Day by day what closed trades realised over the wallet at the day's beginning."""
    first = min(j.first for j in journals)
    last = max(j.last for j in journals)
    days = np.arange(first, last + 1)
    columns: dict[tuple[str, str], Array] = {}
    notes: list[str] = []
    for j in journals:
        if (j.first, j.last) != (first, last):
            raise DataError(
                f"{path}: {j.name} was tested from {j.first} to {j.last}, others from {first} to "
                f"{last}; a verdict compares trials bar by bar: test them over the same days"
            )
        earned = np.zeros(len(days))
        for day, profit in j.profits.items():
            earned[int((np.datetime64(day, "D") - first).astype(int))] += profit
        before = j.wallet + np.concatenate([[0.0], np.cumsum(earned)[:-1]])
        if (before <= 0).any():
            raise DataError(f"{path}: {j.name} loses its whole wallet of {j.wallet:g}")
        columns[j.name, "all"] = earned / before
        if j.market is not None and (MARKET, "all") not in columns:
            columns[MARKET, "all"] = np.array([j.market.get(str(d), 0.0) for d in days])
    notes.append(
        "freqtrade's record is of closed trades: a day's return is what they realised over the "
        "wallet at its beginning, their fees within; what open trades were worth is not in it."
    )
    return replace(_table(columns, days.astype("datetime64[s]"), path), notes=tuple(notes))


MARKET = "market"
"""The trial that stands for holding freqtrade's pairs in equal parts."""


# All of them.


def _table(columns: Mapping[tuple[str, str], Array], times: Times, path: Path) -> ReturnTable:
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    if (twice := np.flatnonzero(np.diff(ordered) == np.timedelta64(0, "s"))).size:
        raise DataError(f"{path}: two bars at {ordered[twice[0]]}; one row a bar")
    trials = tuple(dict.fromkeys(t for t, _ in columns))
    items = tuple(sorted({i for _, i in columns}))
    returns = np.full((len(trials), len(times), len(items)), np.nan)
    for (trial, item), column in columns.items():
        returns[trials.index(trial), :, items.index(item)] = column[order]
    return ReturnTable(trials, ordered, items, returns)


def _joined(tables: Sequence[ReturnTable], path: Path) -> ReturnTable:
    """The trials of several files side by side, on all their bars. Raises DataError."""
    if not tables:
        raise DataError(f"{path}: no file of returns in this folder")
    times = np.unique(np.concatenate([t.times for t in tables]))
    columns: dict[tuple[str, str], Array] = {}
    for table in tables:
        at = np.searchsorted(times, table.times)
        for k, trial in enumerate(table.trials):
            for i, item in enumerate(table.items):
                if (trial, item) in columns and trial != MARKET:
                    raise DataError(f"{path}: two files hold a trial {trial!r}; name each once")
                column = np.full(len(times), np.nan)
                column[at] = table.returns[k, :, i]
                columns[trial, item] = column
    notes = tuple(dict.fromkeys(n for t in tables for n in t.notes))
    return replace(_table(columns, times, path), notes=notes)


def _require_fractions(table: ReturnTable, path: Path) -> None:
    """Raises DataError for what cannot be fractions of the capital."""
    with np.errstate(invalid="ignore"):
        below = np.argwhere(table.returns < -1.0)
    if len(below):
        k, t, _ = below[0]
        raise DataError(
            f"{path}: {table.trials[k]!r} returns {table.returns[tuple(below[0])]:g} at "
            f"{table.times[t]}, a loss of more than everything; returns are fractions of the "
            f"capital (0.01 is 1 %): divide percents by 100"
        )
    for k, trial in enumerate(table.trials):
        sizes = np.abs(table.returns[k])
        moves = sizes[sizes > 0]
        if len(moves) and moves.mean() > TYPICAL:
            raise DataError(
                f"{path}: {trial!r} moves by {moves.mean():g} a bar; returns are fractions of the "
                f"capital (0.01 is 1 %): divide percents by 100, and of prices or an account's "
                f"value give .pct_change()"
            )
