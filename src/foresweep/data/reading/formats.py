"""Files of any kind as tables: text, Parquet, Feather, JSON, spreadsheets, packed or not."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

import polars as pl

from foresweep.data.files import UNPACKING, first_line, name_as_text, require_room, unpack
from foresweep.data.reading.aliases import PRICES, role
from foresweep.data.reading.dialect import (
    HEAD,
    Layouts,
    Refused,
    Table,
    read_plain,
    read_text,
    read_typed,
    vendor_of,
)
from foresweep.data.reading.overrules import Overrules
from foresweep.data.tables import read_columns

TEXT = (".csv", ".tsv", ".txt", ".tab", ".psv")
PARQUET = (".parquet", ".pq")
FEATHER = (".feather", ".arrow", ".ipc")
JSON = (".json", ".jsonl", ".ndjson")
EXCEL = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")
PACKED = (".gz", ".bz2", ".xz", ".zip")
READ = TEXT + PARQUET + FEATHER + JSON + EXCEL
LARGE = 1 << 26
"""Bytes of a file of text beyond which it is read from the disk, not from memory."""
DOUBTFUL = (".txt", ".json", ".zip", ".gz", ".xls", ".ods", ".tab")
"""Endings of files that often hold no prices at all: without any they are passed over."""
MAGIC = (
    (b"\x1f\x8b", "gzip"), (b"PK\x03\x04", "zip"), (b"PAR1", "Parquet"), (b"ARROW1", "Feather"),
    (b"FEA1", "old Feather"), (b"\x80\x02", "pickle"), (b"\x80\x03", "pickle"),
    (b"\x80\x04", "pickle"), (b"\x80\x05", "pickle"), (b"\x89HDF", "HDF5"),
    (b"SQLite format 3", "SQLite"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"),
    (b"\xd0\xcf\x11\xe0", "old Excel"), (b"%PDF", "PDF"), (b"7z\xbc\xaf", "7-Zip"),
    (b"Rar!", "RAR"), (b"\x28\xb5\x2f\xfd", "Zstandard"),
)  # fmt: skip
Named = tuple[str, Table]


def ending(name: str) -> tuple[str, str]:
    """(ending of the table, ending of its packing) of a file's name, small; "" where none."""
    small = name.lower()
    packing = next((e for e in PACKED if small.endswith(e)), "")
    inner = small.removesuffix(packing)
    return next((e for e in READ if inner.endswith(e)), ""), packing


def is_prices(name: str) -> bool:
    """Does a name end like a file that may hold prices?"""
    table, packing = ending(name)
    return bool(table) or packing == ".zip"


def stem_of(name: str) -> str:
    """A file's name without its endings: `AAPL.csv.gz` -> `AAPL`."""
    table, packing = ending(name)
    return name[: len(name) - len(table) - len(packing)] or name


def tables_of(path: Path, overrules: Overrules, known: Layouts | None = None) -> list[Named]:
    """(stem, table) of every table in a file; one but for archives and JSON of several items.
    `known` has the layouts of files before it, and gets its own: many files begin alike.

    Raises Refused, naming the gate's rule.
    """
    name = name_as_text(path.name)
    try:
        if ending(name)[0] in TEXT and not ending(name)[1]:
            large = path.stat().st_size > LARGE
            content = _head(path) if large else path.read_bytes()
            table = read_plain(path if large else content, content[:HEAD], overrules,
                               {} if known is None else known)  # fmt: skip
            if table is not None:
                return [(stem_of(name), table)]
        content = path.read_bytes()
    except OSError as error:
        raise Refused("unreadable", f"cannot be read: {error.strerror or error}") from error
    return _tables(name, content, overrules)


def _head(path: Path) -> bytes:
    """Whole lines from a file's beginning."""
    with path.open("rb") as stream:
        return stream.read(HEAD).rpartition(b"\n")[0] + b"\n"


def _tables(name: str, content: bytes, overrules: Overrules) -> list[Named]:
    table, packing = ending(name)
    if packing == ".zip" or (content[:4] == b"PK\x03\x04" and table in ("", *TEXT)):
        return _zipped(name, content, overrules)
    if packing:
        content = _unpacked(content, packing)
    item = stem_of(name)
    kind = kind_of(content)
    if not content.strip():
        raise Refused("empty_file", "the file is empty")
    if table in PARQUET or kind == "Parquet":
        return [(item, read_typed(_opened(pl.scan_parquet, content), overrules))]
    if table in FEATHER or kind == "Feather":
        if kind == "old Feather":
            raise Refused("unreadable", "Feather of version 1: save it as Parquet")
        return [(item, read_typed(_opened(pl.scan_ipc, content), overrules))]
    if table in EXCEL:
        return [(item, _sheet(content, overrules))]
    if table in JSON and kind is None:
        return _json(item, content, overrules)
    if kind == "gzip":
        return _tables(name.removesuffix(".gz"), _unpacked(content, ".gz"), overrules)
    if kind is not None:
        never = " (never opened: a pickle can run any program)" if kind == "pickle" else ""
        raise Refused("unreadable", f"is {kind}, not text{never}; save it as CSV or Parquet")
    return [(item, read_text(content, overrules))]


def _unpacked(content: bytes, packing: str) -> bytes:
    try:
        return unpack(content, packing)
    except UNPACKING as error:
        raise Refused("unreadable", f"cannot be unpacked: {first_line(error)}") from error


def kind_of(content: bytes) -> str | None:
    """What a file is by its first bytes, None where it may be text."""
    return next((kind for magic, kind in MAGIC if content.startswith(magic)), None)


_HUSHED = Lock()


@contextmanager
def _hushed() -> Iterator[None]:
    """polars' own threads write a backtrace to the process's standard error before a panic over a
    broken file is an exception here; nobody who reads prices is helped by it."""
    with _HUSHED, ExitStack() as stack:
        with suppress(OSError):  # a process may have none
            kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, 2)
            os.dup2(nowhere, 2)
            os.close(nowhere)
        yield


def _opened(scan: Callable[..., pl.LazyFrame], content: bytes) -> pl.DataFrame:
    try:
        with _hushed():
            return read_columns(scan, content)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise Refused("unreadable", first_line(error)) from error


def _zipped(name: str, content: bytes, overrules: Overrules) -> list[Named]:
    """Every table of an archive; an only one has the archive's name."""
    found: list[Named] = []
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            require_room(archive)
            inside = [
                i for i in archive.infolist()
                if not i.is_dir() and not PurePosixPath(i.filename).name.startswith((".", "__"))
                and not i.filename.startswith("__MACOSX")
                and ending(i.filename)[0] and not i.filename.lower().endswith(".zip")
            ]  # fmt: skip
            if not inside:
                raise Refused("unreadable", "no table in this archive")
            for member in inside:
                got = _tables(PurePosixPath(member.filename).name, archive.read(member), overrules)
                found += got
    except UNPACKING as error:
        raise Refused("unreadable", f"cannot be unpacked: {first_line(error)}") from error
    return [(stem_of(name), found[0][1])] if len(found) == 1 else found


def _sheet(content: bytes, overrules: Overrules) -> Table:
    """The first sheet of a spreadsheet."""
    from importlib.util import find_spec

    if find_spec("fastexcel") is None:
        raise Refused(
            "unreadable", 'a spreadsheet needs the extra "excel": pip install "foresweep[excel]"'
        )
    try:
        if kind_of(content) == "zip":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                require_room(archive)
        frame = pl.read_excel(io.BytesIO(content), has_header=False, raise_if_empty=False)
    except Exception as error:  # the reader's own kinds of error are many, and compiled
        raise Refused("unreadable", first_line(error)) from error
    if frame.is_empty():
        raise Refused("empty_file", "the first sheet is empty")
    rows = frame.select(pl.all().cast(pl.String)).fill_null("")
    text = rows.write_csv(include_header=False)
    return read_text(text.encode(), replace(overrules, sep=None))


# JSON


def _json(item: str, content: bytes, overrules: Overrules) -> list[Named]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused("encoding", "JSON is UTF-8, and this is not") from error
    try:
        value = json.loads(text)
    except ValueError:
        try:
            value = [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError) as error:
            raise Refused("unreadable", f"no JSON: {first_line(error)}") from error
    except RecursionError as error:
        raise Refused("unreadable", "JSON too deep to be a table") from error
    found = _rows_of_json(value)
    if not found:
        raise Refused("unreadable", "JSON in which no table of prices is found")
    one = len(found) == 1
    return [
        (item if one or not name else name, _json_table(rows, overrules)) for name, rows in found
    ]


def _rows_of_json(value: Any, depth: int = 0) -> list[tuple[str, Any]]:
    """(name, records | columns | bare rows) of every table in a JSON value."""
    if depth > 4:
        return []
    if isinstance(value, list):
        if len(value) > 1 and all(isinstance(v, (dict, list)) for v in value):
            return [("", value)]
        return [f for v in value for f in _rows_of_json(v, depth + 1)]
    if not isinstance(value, dict):
        return []
    if set(value) >= {"columns", "data"} and isinstance(value["columns"], list):
        return [("", _split_orient(value))]
    if "timestamp" in value and isinstance(value.get("indicators"), dict):
        quote = value["indicators"]["quote"][0]
        adjusted = (value["indicators"].get("adjclose") or [{}])[0]
        columns = {"timestamp": value["timestamp"], **quote, **adjusted}
        return [(str(value.get("meta", {}).get("symbol", "")), columns)]
    lists = {k: v for k, v in value.items() if isinstance(v, list) and v
             and not isinstance(v[0], (dict, list))}  # fmt: skip
    if len(lists) >= 5 and len({len(v) for v in lists.values()}) == 1:
        return [("", lists)]
    inner = {k: v for k, v in value.items() if isinstance(v, dict)}
    by_column = len({role(k) for k in inner} & {*PRICES}) == len(PRICES)
    if len(inner) > 1 and not by_column and all(_is_bar(v) for v in inner.values()):
        return [("", [{"date": k, **v} for k, v in inner.items()])]
    columns_of = {k: v for k, v in inner.items() if v and not isinstance(next(iter(v.values())),
                  (dict, list))}  # fmt: skip
    if len(columns_of) >= 4 and len({tuple(v) for v in columns_of.values()}) == 1:
        index = list(next(iter(columns_of.values())))
        named = {k: list(v.values()) for k, v in columns_of.items()}
        return [("", named if "date" in {k.lower() for k in named} else {"index": index, **named})]
    found = []
    for key, part in value.items():
        for name, rows in _rows_of_json(part, depth + 1):
            found.append((name or key, rows))
    return found


def _is_bar(value: Mapping[str, Any]) -> bool:
    return len(value) >= 4 and not any(isinstance(v, (dict, list)) for v in value.values())


def _split_orient(value: Mapping[str, Any]) -> dict[str, list[Any]]:
    columns = [" ".join(map(str, c)) if isinstance(c, list) else str(c) for c in value["columns"]]
    rows = [r for r in value["data"] if isinstance(r, list) and len(r) == len(columns)]
    named: dict[str, list[Any]] = {c: [r[k] for r in rows] for k, c in enumerate(columns)}
    index = value.get("index")
    if isinstance(index, list) and len(index) == len(rows):
        return {"index": index, **named}
    return named


def _json_table(rows: Any, overrules: Overrules) -> Table:
    if isinstance(rows, list) and isinstance(rows[0], list):
        vendor = vendor_of(rows)
        if vendor is None:
            raise Refused("no_header", "rows without names: which column is which is not known")
        rows = {n: [r[k] for r in rows] for k, n in enumerate(vendor[1])}
    if isinstance(rows, list):
        rows = [_unnested(r) if isinstance(r, dict) else r for r in rows]
        names = list(dict.fromkeys(k for r in rows if isinstance(r, dict) for k in r))
        rows = {n: [r.get(n) for r in rows if isinstance(r, dict)] for n in names}
    frame = pl.DataFrame([_series(str(n), v) for n, v in rows.items()])
    return read_typed(frame, overrules)


def _unnested(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A candle whose prices lie one level deeper ("mid": {"o": ...}) laid flat. Raises Refused
    where they are bid and ask."""
    inner = {
        k: v for k, v in row.items()
        if isinstance(v, dict) and {*PRICES} <= {role(str(name)) for name in v}
    }  # fmt: skip
    if len(inner) > 1 and "mid" not in inner:
        raise Refused("ambiguous_column", f"prices are {' and '.join(inner)}: keep one of them")
    chosen = inner.get("mid") or next(iter(inner.values()), {})
    return {**{k: v for k, v in row.items() if k not in inner}, **chosen}


def _series(name: str, values: Sequence[Any]) -> pl.Series:
    if any(isinstance(v, (str, dict, list)) for v in values):
        return pl.Series(name, [None if v is None else str(v) for v in values], pl.String)
    if all(v is None or (isinstance(v, int) and abs(v) < 2**63) for v in values):
        return pl.Series(name, values, pl.Int64)
    return pl.Series(name, [None if v is None else float(v) for v in values], pl.Float64)
