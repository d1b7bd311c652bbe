"""Where panels come from: the demo, a folder of files, one long file, a DataFrame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from foresweep.data.demo import demo_items
from foresweep.data.files import name_as_text
from foresweep.data.gate.actions import Actions, read_actions
from foresweep.data.gate.check import check
from foresweep.data.gate.report import Finding, QualityReport, first_lines, found
from foresweep.data.panel import VOLUME, Array, Panel, panel_from_frame
from foresweep.data.reading.cache import keep_panel, kept_panel, place_for
from foresweep.data.reading.columns import Fault, RawItem, items_of
from foresweep.data.reading.dialect import Layouts, Refused, read_typed
from foresweep.data.reading.formats import DOUBTFUL, is_prices, stem_of, tables_of
from foresweep.data.reading.frames import ONE_ITEM, Source, as_polars
from foresweep.data.reading.overrules import Overrules
from foresweep.errors import DataError

DEMO = "demo"
SEED_FOLDER = Path("trainingdata/train")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checked panel and what the gate saw on the way."""

    panel: Panel
    report: QualityReport
    kept_at: Path | None = None  # where it was kept from an earlier reading, if it was


def default_source(configured: Path | str | None = None, *, folder: Path | str = ".") -> str:
    """What is loaded where nothing is said: what the settings name, else `trainingdata/train` where
    it stands in `folder` and holds tables, else the demo panel."""
    if configured is not None:
        return str(configured)
    seed = Path(folder) / SEED_FOLDER
    return str(seed) if seed.is_dir() and any(is_prices(p.name) for p in seed.iterdir()) else DEMO


def load_panel(
    source: Source,
    *,
    actions: Path | str | None = None,
    columns: Mapping[str, str] | None = None,
    day_first: bool | None = None,
    tz: str | None = None,
    sep: str | None = None,
    decimal: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Loaded:
    """The panel of a source, through the data gate.

    `source`: "demo"; a folder of files of prices, one an item (a `test` folder beside a
    folder named `train` is joined item by item); one long file with an item column (or one item's
    file); a pandas or polars DataFrame with an item column or with columns for each ticker; a dict
    of DataFrames by item. `actions`: a file of splits and dividends (item, date, ratio). The rest
    says how files are to be read, and beats every guess (see `Overrules`); `progress` is told
    (files read, files in all). A large source is kept once it is read (see `cache`). Raises
    DataError when nothing usable is left, ConfigError, MissingExtra when the demo is not installed.
    """
    overrules = Overrules(columns or {}, day_first, tz, sep, decimal)
    listed = read_actions(actions) if actions is not None else None
    if isinstance(source, str) and source == DEMO:
        return _checked(demo_items(), (), DEMO, listed)
    if not isinstance(source, (str, Path)):
        return _checked(*_frame_items(source, overrules), "frame", listed)
    path, said = Path(source), name_as_text(source)
    files = files_of(path)
    place = place_for(said, files, actions, overrules)
    if place is not None and (found := kept_panel(place)) is not None:
        return Loaded(*found, kept_at=place)
    loaded = _checked(*_read_all(path, files, overrules, progress), said, listed)
    if place is not None:
        keep_panel(place, loaded.panel, loaded.report)
    return loaded


def _checked(
    raws: Sequence[RawItem], findings: Sequence[Finding], source: str, actions: Actions | None
) -> Loaded:
    frame, report = check(raws, source=source, actions=actions, findings=findings)
    return Loaded(panel_from_frame(frame, source=source), report)


def files_of(path: Path) -> list[Path]:
    """The table files of a source: the file itself, or a folder's and its test sibling's. Raises
    DataError where there is none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(
            f"{name_as_text(path)}: no such file or folder; use a folder of CSV files, or: demo"
        )
    files = _tables_in(path)
    if not files and (path / "train").is_dir():
        raise DataError(f"{name_as_text(path)}: no file of prices; did you mean {path / 'train'}?")
    if not files:
        raise DataError(
            f"{name_as_text(path)}: no file of prices (.csv, .tsv, .txt, .parquet, .feather, "
            ".json, .jsonl, .xlsx, packed or not) in this folder"
        )
    sibling = path.resolve().parent / "test"
    if path.resolve().name == "train" and sibling.is_dir():
        files += [path.parent / "test" / p.name for p in _tables_in(sibling)]
    return files


def _tables_in(folder: Path) -> list[Path]:
    try:
        return sorted(
            p for p in folder.iterdir() if is_prices(p.name) and not p.name.startswith(".")
        )
    except OSError as error:
        raise DataError(f"{name_as_text(folder)}: cannot be listed: {error.strerror}") from error


def _read_all(
    path: Path,
    files: Sequence[Path],
    overrules: Overrules,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[RawItem], list[Finding]]:
    """(items, findings about files) of a folder or of one file."""
    train: dict[str, RawItem] = {}
    test: dict[str, RawItem] = {}
    findings: list[Finding] = []
    twice: set[str] = set()
    folder = path.is_dir()
    known: Layouts = {}
    for k, file in enumerate(files):
        if progress is not None:
            progress(k, len(files))
        items, told = _items_in(file, overrules, known, folder=folder)
        findings += told
        into = test if folder and file.parent != path else train
        for raw in items:
            if raw.item in into or raw.item in twice:
                first = into.pop(raw.item).files[0] if raw.item in into else "another file"
                message = f"{first} is {raw.item!r}, too"
                findings.append(
                    found("ambiguous_item", message, file=name_as_text(file), item=raw.item)
                )
                twice.add(raw.item)
            else:
                into[raw.item] = raw
    unread = {f.item for f in findings}
    return _joined(train, test, _together(findings), unread)


def _items_in(
    file: Path, overrules: Overrules, known: Layouts, *, folder: bool
) -> tuple[list[RawItem], list[Finding]]:
    """(items of one file, findings about it)."""
    try:
        tables = tables_of(file, overrules, known)
    except Refused as problem:
        doubtful = folder and file.name.lower().endswith(DOUBTFUL)
        rules = ("unreadable", "empty_file") if doubtful else ()
        rule = "not_prices" if problem.rule in rules else problem.rule
        return [], [_about(file, Fault(rule, str(problem)))]
    raws: list[RawItem] = []
    told: list[Finding] = []
    for name, table in tables:
        one_item = name if folder or len(tables) > 1 or "item_id" not in table.header.at else None
        try:
            items, faults = items_of(
                table, file=name_as_text(file), item=one_item, overrules=overrules
            )
        except Refused as problem:
            told.append(_about(file, Fault(problem.rule, str(problem)), name))
            continue
        told += [_about(file, f, name) for f in faults]
        lost = sum(len(raw.line) for raw in items if not raw.item)
        if lost:
            told.append(_about(file, Fault("nameless_item", f"{lost} rows have no item"), name))
        raws += [raw for raw in items if raw.item]
    return raws, told


def _about(file: Path, fault: Fault, item: str | None = None) -> Finding:
    return found(
        fault.rule,
        fault.message,
        file=name_as_text(file),
        item=item or stem_of(name_as_text(file.name)),
    )


TOGETHER = ("read_as", "unused_column")


def _together(findings: Sequence[Finding]) -> list[Finding]:
    """One finding for what is said alike of many files."""
    alike: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        if finding.rule in TOGETHER:
            alike.setdefault((finding.rule, finding.message), []).append(finding)
    out = []
    for finding in findings:
        same = alike.get((finding.rule, finding.message), [finding])
        if len(same) == 1:
            out.append(finding)
        elif same[0] is finding:
            message = f"{finding.message} ({len(same)} files)"
            where = str(Path(finding.file).parent)
            out.append(found(finding.rule, message, file=where, item=None))
    return out


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

    def both(one: Array | None, other: Array | None) -> Array | None:
        return None if one is None or other is None else np.concatenate([one, other])

    return RawItem(
        item=first.item,
        files=first.files + second.files,
        file=np.concatenate([first.file, second.file + len(first.files)]),
        line=np.concatenate([first.line, second.line]),
        utc=np.concatenate([first.utc, second.utc]),
        wall=np.concatenate([first.wall, second.wall]),
        values=values,
        adjusted=both(first.adjusted, second.adjusted),
        has_volume=has_volume,
        faults=(*first.faults, *later),
        amount=both(first.amount, second.amount),
        dividends=both(first.dividends, second.dividends),
        splits=both(first.splits, second.splits),
    )


def _frame_items(source: Any, overrules: Overrules) -> tuple[list[RawItem], list[Finding]]:
    """(items of a DataFrame or of a dict of them, findings). Raises DataError where nothing in
    it can be read."""
    parts = dict(source) if isinstance(source, Mapping) else {None: source}
    raws: list[RawItem] = []
    told: list[Finding] = []
    for name, part in parts.items():
        frame = as_polars(part)
        where = "frame" if name is None else f"frame[{name!r}]"
        try:
            table = read_typed(frame, overrules)
            item = None if name is None else str(name)
            if name is None and "item_id" not in table.header.at and not table.labels:
                item = ONE_ITEM
            items, faults = items_of(table, file=where, item=item, overrules=overrules)
            if item == ONE_ITEM and name is None and _has_a_time_twice(items):
                raise Refused(
                    "missing_column",
                    "several rows at one time and no column item_id (or symbol, ticker, name)",
                )
        except Refused as problem:
            finding = found(problem.rule, str(problem), file=where, item=name)
            if name is None:
                raise DataError(first_lines([finding])) from problem
            told.append(finding)
            continue
        told += [found(f.rule, f.message, file=where, item=name) for f in faults]
        raws += [raw for raw in items if raw.item]
    return raws, _together(told)


def _has_a_time_twice(items: Sequence[RawItem]) -> bool:
    return any(len(np.unique(raw.utc)) < len(raw.utc) for raw in items)
