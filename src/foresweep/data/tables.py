"""Tables and panels in and out of files; every write is atomic."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from foresweep.data.files import (
    UNPACKING,
    first_line,
    require_room,
    require_room_for,
    unpack,
    write_bytes_atomic,
    write_json_atomic,
)
from foresweep.data.panel import Bars, IntArray, Panel
from foresweep.errors import DataError

PANEL_FORMAT = 1
"""Raise it when the layout of a written panel changes."""
AGAIN = "delete this file and run again: it is written anew"
CSV_ENDINGS = (".csv", ".csv.gz")
PARQUET_ENDINGS = (".parquet", ".pq")
TABLE_ENDINGS = CSV_ENDINGS + PARQUET_ENDINGS


def is_table(path: Path) -> bool:
    """Does the name end like a table (CSV, gzipped CSV, Parquet)?"""
    return path.name.lower().endswith(TABLE_ENDINGS)


def stem(path: Path) -> str:
    """The file's name without its table ending: `data/AAPL.csv.gz` -> `AAPL`."""
    endings = sorted(TABLE_ENDINGS, key=len, reverse=True)
    found = [e for e in endings if path.name.lower().endswith(e)]
    return path.name[: -len(found[0])] if found else path.stem


def parse_table(content: bytes, name: str) -> pl.DataFrame:
    """Frame of a file's bytes: CSV columns stay text (row k is line k + 2), Parquet's are typed.

    A leading byte-order mark is dropped. Raises DataError with the reader's own first line.
    """
    try:
        if name.lower().endswith(PARQUET_ENDINGS):
            return read_columns(pl.scan_parquet, content)
        return pl.read_csv(content, infer_schema=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise DataError(f"{name}: {first_line(error)}") from error


CELL = 8
"""Bytes of a value in memory, about."""


def read_columns(scan: Callable[[io.BytesIO], pl.LazyFrame], content: bytes) -> pl.DataFrame:
    """The frame of Parquet or Arrow. Raises what polars does; ValueError for a table that says it
    is far larger than its file, which repeats nothing so often, before it is read."""
    rows = scan(io.BytesIO(content)).select(pl.len()).collect().item()
    lazy = scan(io.BytesIO(content))
    require_room_for(rows * len(lazy.collect_schema()) * CELL, len(content))
    return lazy.collect()


def table_bytes(path: Path) -> bytes:
    """A table file's content, gunzipped where the name ends in .gz. Raises DataError."""
    try:
        content = path.read_bytes()
        return unpack(content, ".gz") if path.name.lower().endswith(".gz") else content
    except UNPACKING as error:
        raise DataError(f"{path}: cannot be read: {first_line(error)}") from error


def read_table(path: Path | str) -> pl.DataFrame:
    """Frame of a CSV or Parquet file (see `parse_table`). Raises DataError."""
    return parse_table(table_bytes(Path(path)), str(path))


def write_table(path: Path | str, frame: pl.DataFrame) -> None:
    """Write a frame as CSV or Parquet, by the name's ending. Raises DataError for others."""
    target, buffer = Path(path), io.BytesIO()
    if target.name.lower().endswith(PARQUET_ENDINGS):
        frame.write_parquet(buffer)
    elif target.name.lower().endswith(".csv"):
        frame.write_csv(buffer)
    else:
        raise DataError(
            f"{path}: cannot write this kind of table; end the name in .csv or .parquet"
        )
    write_bytes_atomic(target, buffer.getvalue())


def write_records(
    path: Path | str, records: Sequence[Mapping[str, Any]], *, times: Sequence[str] = ()
) -> None:
    """Write records of equal keys as CSV, Parquet or JSON, by the name's ending; `times` are their
    ISO times, which Parquet keeps as times. Raises DataError for other endings."""
    if Path(path).name.lower().endswith(".json"):
        write_json_atomic(path, [dict(record) for record in records])
        return
    frame = pl.DataFrame([dict(record) for record in records], infer_schema_length=None)
    if Path(path).name.lower().endswith(PARQUET_ENDINGS):
        stamps = [pl.col(name).str.to_datetime(time_unit="ns") for name in times]
        frame = frame.with_columns(stamps)
    write_table(path, frame)


def write_panel(path: Path | str, panel: Panel) -> None:
    """Write a panel so that `read_panel` gives it back exactly: calendars, sessions, masked rows
    counted, equal hash. An uncompressed .npz without pickle."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        format=np.array(PANEL_FORMAT),
        source=np.array(panel.source),
        items=np.array(panel.items),
        timeline=panel.timeline.astype("datetime64[ns]").view("int64"),
        calendars=np.concatenate(panel.calendars),
        calendar_lengths=np.array([len(c) for c in panel.calendars]),
        calendar_of=np.array(panel.calendar_of),
        values=panel.stacked,
        sessions=panel.stacked_sessions,
        lengths=np.array([len(b.values) for b in panel.bars]),
        num_masked=np.array([b.num_masked for b in panel.bars]),
    )
    write_bytes_atomic(path, buffer.getvalue())


def read_panel(path: Path | str) -> Panel:
    """The panel that `write_panel` wrote. Raises DataError where it is missing, cut short or of
    another version; the file is a copy, so the way out is to delete it."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as kept:
            require_room(kept.zip)
            found = {name: kept[name] for name in kept.files}
        if int(found["format"]) != PANEL_FORMAT:
            raise DataError(f"{path}: written by another version of foresweep; {AGAIN}")
        return _panel_of(found)
    except (FileNotFoundError, PermissionError) as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror or error}") from error
    except (*UNPACKING, KeyError, IndexError, TypeError) as error:
        raise DataError(f"{path}: not a whole panel file ({first_line(error)}); {AGAIN}") from error


def _panel_of(found: dict[str, Any]) -> Panel:
    values, sessions = found["values"].copy(), found["sessions"]  # owned, so that bars share it
    for array in (values, sessions):
        array.setflags(write=False)
    pieces = zip(
        _slices(values, found["lengths"]),
        _slices(sessions, found["lengths"]),
        found["num_masked"],
        strict=True,
    )
    return Panel(
        items=tuple(str(i) for i in found["items"]),
        timeline=found["timeline"].view("datetime64[ns]"),
        calendars=tuple(_slices(found["calendars"], found["calendar_lengths"])),
        calendar_of=tuple(int(k) for k in found["calendar_of"]),
        bars=tuple(Bars(v, s, int(m)) for v, s, m in pieces),
        source=str(found["source"]),
    )


def _slices(array: Any, lengths: IntArray) -> list[Any]:
    """Views of consecutive pieces."""
    edges = np.concatenate([[0], np.cumsum(lengths)])
    return [array[a:b] for a, b in pairwise(edges)]
