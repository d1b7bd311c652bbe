"""Where panels come from: the demo, a folder of files, one long file, a DataFrame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import polars as pl

from foresweep.data.demo import demo_items
from foresweep.data.gate.actions import Actions, read_actions
from foresweep.data.gate.check import check
from foresweep.data.gate.report import Finding, QualityReport, first_lines, found
from foresweep.data.panel import VOLUME, Panel, panel_from_frame
from foresweep.data.reading.columns import Fault, RawItem, canonical, missing_columns, raw_items
from foresweep.data.tables import PARQUET_ENDINGS, is_table, parse_table, stem, table_bytes
from foresweep.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

DEMO = "demo"
SEED_FOLDER = Path("trainingdata/train")
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

Source: TypeAlias = "str | Path | pl.DataFrame | pd.DataFrame"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checked panel and what the gate saw on the way."""

    panel: Panel
    report: QualityReport


def default_source(configured: Path | str | None = None, *, folder: Path | str = ".") -> str:
    """What is loaded where nothing is said: what the settings name, else `trainingdata/train` where
    it stands in `folder` and holds tables, else the demo panel."""
    if configured is not None:
        return str(configured)
    seed = Path(folder) / SEED_FOLDER
    return str(seed) if seed.is_dir() and any(map(is_table, seed.iterdir())) else DEMO


def load_panel(source: Source, *, actions: Path | str | None = None) -> Loaded:
    """The panel of a source, through the data gate.

    `source`: "demo"; a folder of CSV or Parquet files, one an item (a `test` folder beside a
    folder named `train` is joined item by item); one long file with an item column (or one item's
    file); a pandas or polars DataFrame with an item column. `actions`: a file of splits and
    dividends (item, date, ratio). Raises DataError when nothing usable is left, MissingExtra when
    the demo is not installed.
    """
    listed = read_actions(actions) if actions is not None else None
    if isinstance(source, str) and source == DEMO:
        return _checked(demo_items(), (), DEMO, listed)
    if not isinstance(source, (str, Path)):
        return _checked(_frame_items(source), (), "frame", listed)
    path = Path(source)
    raws, findings = _read_all(path, _files(path))
    return _checked(raws, findings, str(source), listed)


def _checked(
    raws: Sequence[RawItem], findings: Sequence[Finding], source: str, actions: Actions | None
) -> Loaded:
    frame, report = check(raws, source=source, actions=actions, findings=findings)
    return Loaded(panel_from_frame(frame, source=source), report)


def _files(path: Path) -> list[Path]:
    """The table files of a source: the file itself, or a folder's and its test sibling's."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder; use a folder of CSV files, or: demo")
    files = _tables_in(path)
    if not files and (path / "train").is_dir():
        raise DataError(f"{path}: no CSV or Parquet file; did you mean {path / 'train'}?")
    if not files:
        raise DataError(f"{path}: no CSV or Parquet file in this folder")
    sibling = path.resolve().parent / "test"
    if path.resolve().name == "train" and sibling.is_dir():
        files += [path.parent / "test" / p.name for p in _tables_in(sibling)]
    return files


def _tables_in(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if is_table(p) and not p.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error


Content: TypeAlias = "bytes | Fault"


def _content(path: Path) -> Content:
    """A file's bytes, or what keeps it from being read as text."""
    try:
        content = table_bytes(path)
    except DataError as error:
        return Fault("unreadable", str(error).removeprefix(f"{path}: "))
    if path.name.lower().endswith(PARQUET_ENDINGS):
        return content
    if content.startswith(UTF16_MARKS) or b"\0" in content[:1000]:
        return Fault("encoding", "looks like UTF-16; save it as UTF-8")
    if not content.removeprefix(b"\xef\xbb\xbf").strip():
        return Fault("empty_file", "the file is empty")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        return Fault("encoding", f"byte {error.start} is not UTF-8; save it as UTF-8")
    return content


def _read_all(path: Path, files: Sequence[Path]) -> tuple[list[RawItem], list[Finding]]:
    """(items, findings about files) of a folder or of one file."""
    train: dict[str, RawItem] = {}
    test: dict[str, RawItem] = {}
    findings: list[Finding] = []
    for file in files:
        name = stem(file)
        items, fault = _items_of(file, _content(file), one_item=name if path.is_dir() else None)
        if fault is not None:
            findings.append(found(fault.rule, fault.message, file=str(file), item=name))
        into = test if path.is_dir() and file.parent != path else train
        for raw in items:
            if raw.item in into:
                message = f"{into[raw.item].files[0]} is {raw.item!r}, too"
                findings.append(found("ambiguous_item", message, file=str(file), item=raw.item))
                del into[raw.item]
            else:
                into[raw.item] = raw
    unread = {f.item for f in findings}
    return _joined(train, test, findings, unread)


def _joined(
    train: dict[str, RawItem],
    test: dict[str, RawItem],
    findings: list[Finding],
    unread: set[str | None],
) -> tuple[list[RawItem], list[Finding]]:
    """Join each item's train and test files; say what was joined and what is not used."""
    both = sorted(train.keys() & test.keys())
    if both:
        where = str(Path(test[both[0]].files[0]).parent)
        message = f"{len(both)} items continue in {where}; the parts are cut by time alone"
        findings.append(found("joined", message, file=where, item=None))
    for item in sorted(test.keys() - train.keys() - unread):
        message = "has no file in train: not used"
        findings.append(found("only_in_test", message, file=test[item].files[0], item=item))
    raws = [_join(raw, test[name]) if name in test else raw for name, raw in train.items()]
    return raws, findings


def _join(first: RawItem, second: RawItem) -> RawItem:
    """The rows of two files of one item, one after the other."""
    start = len(first.line)
    later = [replace(f, rows=f.rows + start if len(f.rows) else f.rows) for f in second.faults]
    values = np.concatenate([first.values, second.values])
    has_volume = first.has_volume and second.has_volume
    if not has_volume:
        values[:, VOLUME] = 0.0
    adjusted = None
    if first.adjusted is not None and second.adjusted is not None:
        adjusted = np.concatenate([first.adjusted, second.adjusted])
    return RawItem(
        item=first.item,
        files=first.files + second.files,
        file=np.concatenate([first.file, second.file + len(first.files)]),
        line=np.concatenate([first.line, second.line]),
        utc=np.concatenate([first.utc, second.utc]),
        wall=np.concatenate([first.wall, second.wall]),
        values=values,
        adjusted=adjusted,
        has_volume=has_volume,
        faults=(*first.faults, *later),
    )


def _items_of(
    file: Path, content: Content, *, one_item: str | None
) -> tuple[list[RawItem], Fault | None]:
    """(items of one file, what is wrong with the file as a whole)."""
    if isinstance(content, Fault):
        return [], content
    try:
        table = parse_table(content, str(file))
    except DataError as error:
        return [], Fault("unreadable", str(error).removeprefix(f"{file}: "))
    first = 1 if file.name.lower().endswith(PARQUET_ENDINGS) else 2
    return _items_of_table(table, str(file), one_item, default=stem(file), first_line=first)


def _items_of_table(
    table: pl.DataFrame, file: str, one_item: str | None, *, default: str | None, first_line: int
) -> tuple[list[RawItem], Fault | None]:
    try:
        columns = canonical(table.columns)
    except DataError as error:
        return [], Fault("ambiguous_column", str(error))
    missing = missing_columns(columns)
    if missing:
        has = ", ".join(table.columns[:8])
        return [], Fault("missing_column", f"no column {', '.join(missing)}; it has {has}")
    if table.is_empty():
        return [], Fault("empty_file", "the file has a header and no rows")
    if one_item is None and "item_id" not in columns:
        one_item = default
        if one_item is None:
            return [], Fault("missing_column", "no column item_id (or symbol, ticker, name)")
    items = raw_items(table, columns, file=file, item=one_item, first_line=first_line)
    named = [raw for raw in items if raw.item]
    lost = sum(len(raw.line) for raw in items if not raw.item)
    fault = Fault("nameless_item", f"{lost} rows have no item") if lost else None
    return named, fault


def _frame_items(source: Any) -> list[RawItem]:
    """Items of a DataFrame. Raises DataError where columns are missing."""
    frame = source if isinstance(source, pl.DataFrame) else _from_pandas(source)
    items, fault = _items_of_table(frame, "frame", None, default=None, first_line=1)
    if fault is not None:
        raise DataError(first_lines([found(fault.rule, fault.message, file="frame", item=None)]))
    return items


def _from_pandas(frame: Any) -> pl.DataFrame:
    """A pandas frame as polars; an index with a name (a time, an item) becomes a column."""
    if not hasattr(frame, "columns") or not hasattr(frame, "reset_index"):
        raise DataError(f"cannot load a panel from a {type(frame).__name__}; see load_panel")
    named = frame.reset_index() if any(n is not None for n in frame.index.names) else frame
    if str(frame.index.dtype).startswith("datetime64") and frame.index.name is None:
        named = frame.rename_axis("timestamp").reset_index()
    return pl.DataFrame([_column(str(name), named[name]) for name in named.columns])


def _column(name: str, column: Any) -> pl.Series:
    zone = getattr(column.dt, "tz", None) if hasattr(column, "dt") else None
    if zone is not None:
        utc = column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
        return pl.Series(name, utc).dt.replace_time_zone("UTC").dt.convert_time_zone(str(zone))
    if column.dtype.kind in "fiubM":
        return pl.Series(name, column.to_numpy())
    return pl.Series(name, [None if v is None or v != v else str(v) for v in column])
