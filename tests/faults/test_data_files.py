"""Malformed files of prices: refused in one line, or read with no bar that was not there."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

import broken
from dialects import CHOICES, Form, a_form, bars, put, text_of
from foresweep.data.reading.sources import Loaded, load_panel
from foresweep.errors import DataError

SAID_OF_ANY = {"read_as", "unused_column", "newest_first", "survivorship", "calendar", "synthetic"}
"""Rules whose findings say nothing of a row that was left out."""
CELLS = (
    *("", " ", "NaN", "n/a", "-", "--", "null", "None", "TRUE", "#DIV/0!", "=1+1", "½", "٣٤"),
    *("-1", "0", "0x10", "1e400", "-1e400", "1e-320", "inf", "-inf", "9" * 400, "1.2.3", "1,2,3"),
    *("1_000", "1e5", "12abc", '"', "'", '""', '"open', "\x00", "\x1b[2J", "\x85", "<b>1</b>"),
    *("0000-00-00", "9999-12-31", "2262-04-12", "1677-09-21", "31/02/2020", "2020-13-01", "now"),
    *("-5", "1e18", "99999999999999999999", "12:60", "24:00:00", "Friday", "2020", "2020-W01-1"),
)  # fmt: skip
Damage = Callable[[list[str], Form, random.Random], tuple[str, list[str], int]]
"""(lines, form, chance) -> (what was done, lines, how many lines tell something else now)."""


def _rows(lines: list[str], form: Form) -> range:
    """The lines of bars."""
    return range(form.preamble + 1, len(lines) - 1 - form.footer)


def _cell(lines: list[str], form: Form, chance: random.Random) -> tuple[str, list[str], int]:
    num = chance.choice([1, 1, 1, 2, 40])
    for at in chance.sample(_rows(lines, form), num):
        cells = lines[at].split(form.separator)
        cells[chance.randrange(len(cells))] = put_there = chance.choice(CELLS)
        lines[at] = form.separator.join(cells)
    return f"{num} cells, the last {put_there!r:.30}", lines, num


def _one_cell_everywhere(
    lines: list[str], form: Form, chance: random.Random
) -> tuple[str, list[str], int]:
    k, put_there = chance.randrange(6), chance.choice(CELLS)
    for at in _rows(lines, form):
        cells = lines[at].split(form.separator)
        cells[k % len(cells)] = put_there
        lines[at] = form.separator.join(cells)
    return f"column {k} is {put_there!r:.30}", lines, len(lines)


def _ragged(lines: list[str], form: Form, chance: random.Random) -> tuple[str, list[str], int]:
    num = chance.choice([1, 3])
    for at in chance.sample(_rows(lines, form), num):
        cells = lines[at].split(form.separator)
        match chance.choice(["fewer", "more", "one", "other"]):
            case "fewer":
                cells = cells[:-1]
            case "more":
                cells = [*cells, cells[-1], cells[0]]
            case "one":
                cells = cells[:1]
            case "other":
                cells = ["&".join(cells)]
        lines[at] = form.separator.join(cells)
    return f"{num} ragged lines", lines, num


def _strange_line(
    lines: list[str], form: Form, chance: random.Random
) -> tuple[str, list[str], int]:
    at = chance.randrange(len(lines))
    line = chance.choice(
        ["", form.separator * 5, "<html>", "# a comment", '"', "\x00\x00", "Total", lines[0],
         "名前", "x" * 200_000, form.separator.join(["9"] * 6)]
    )  # fmt: skip
    return f"{line!r:.30} at {at}", [*lines[:at], line, *lines[at:]], 2 if '"' in line else 1


def _twice(lines: list[str], form: Form, chance: random.Random) -> tuple[str, list[str], int]:
    at = chance.choice(_rows(lines, form))
    end = min(at + chance.choice([1, 5, 60]), len(lines) - 1)
    return f"{end - at} lines twice", [*lines[:end], *lines[at:]], 0


def _lost(lines: list[str], form: Form, chance: random.Random) -> tuple[str, list[str], int]:
    at = chance.choice(_rows(lines, form))
    return "lines lost", [*lines[:at], *lines[at + chance.choice([1, 5, 60]) :]], 0


def _moved(lines: list[str], form: Form, chance: random.Random) -> tuple[str, list[str], int]:
    """The order of the rows is another; what they say is the same."""
    rows = _rows(lines, form)
    moved = [lines[at] for at in rows]
    match chance.choice(["shuffled", "one", "turned"]):
        case "shuffled":
            chance.shuffle(moved)
        case "one":
            moved.insert(chance.randrange(len(moved)), moved.pop(chance.randrange(len(moved))))
        case "turned":
            half = len(moved) // 2
            moved = moved[half:] + moved[:half]
    return "rows moved", [*lines[: rows.start], *moved, *lines[rows.stop :]], 0


def _header(lines: list[str], form: Form, chance: random.Random) -> tuple[str, list[str], int]:
    at = form.preamble
    names = lines[at].split(form.separator)
    k = chance.randrange(len(names))
    match chance.choice(["lost", "renamed", "twice", "empty", "two lines", "repeated"]):
        case "lost":
            return "no header", [*lines[:at], *lines[at + 1 :]], 0
        case "renamed":
            names[k] = chance.choice(["Foo", "\x00", "1", "名", '"', "Bid", "Settle"])
        case "twice":
            names[k] = names[k - 1]
        case "empty":
            names[k] = ""
        case "two lines":
            return "header twice", [*lines[: at + 1], *lines[at:]], 0
        case "repeated":
            step = chance.choice([1, 50])
            body = [x for n, line in enumerate(lines[at + 1 :])
                    for x in ([lines[at], line] if n % step == 0 else [line])]  # fmt: skip
            return "header again and again", [*lines[:at], *body], 0
    lines[at] = form.separator.join(names)
    return f"column {k} {names[k]!r:.20}", lines, 0


def _other_half(lines: list[str], form: Form, chance: random.Random) -> tuple[str, list[str], int]:
    """From the middle on another form: of dates, of numbers, of separators."""
    what = chance.choice(["date", "decimal", "separator", "suffix", "currency"])
    others = [v for v in CHOICES[what] if v != getattr(form, what)]
    other, _ = text_of(replace(form, **{what: chance.choice(others)}))
    half = len(lines) // 2
    return (
        f"{what} {getattr(form, what)!r} to the middle",
        lines[:half] + other.split("\n")[half:],
        0,
    )


DAMAGES: dict[str, Damage] = {
    "cell": _cell, "column": _one_cell_everywhere, "ragged": _ragged, "strange line": _strange_line,
    "twice": _twice, "lost": _lost, "moved": _moved, "header": _header, "other half": _other_half,
}  # fmt: skip
IN_PLACE = ("cell", "ragged", "strange line")
"""Damages after which every other row is still there."""


def read(path: Path) -> Loaded | str:
    """The panel of a file, or `refused: ...`, or `wrong: ...`; the file is as it was."""
    before = broken.contents(path.parent)
    try:
        loaded = load_panel(path)
    except BaseException as error:  # a library's own panic is none of Exception
        said = broken.refusal(error)
        if said.startswith("refused") and not isinstance(error, DataError):
            return f"wrong: {type(error).__name__}: {error}"
        return said
    if broken.contents(path.parent) != before:
        return "wrong: reading has changed a file"
    return loaded


def judged(loaded: Loaded, truth: pd.DataFrame, form: Form, kind: str, touched: int) -> str:
    """`read: ...` where no more bars are not the truth's than lines were touched, and a row that
    is not there is told; else `wrong: ...`."""
    at = np.timedelta64(2, "ms") if form.date == "excel" else np.timedelta64(0)
    wanted = truth.index.to_numpy().astype("datetime64[ns]")
    num_wrong, num_right, first = 0, 0, ""
    for i, found in enumerate(loaded.panel.bars):
        width = 5 if found.values[:, 4].any() else 4  # a volume that is not used is 0 throughout
        for time, values in zip(loaded.panel.timestamps_of(i), found.values, strict=True):
            k = int(np.argmin(np.abs(wanted - time)))
            if abs(wanted[k] - time) <= at and np.allclose(
                values[:width], truth.to_numpy()[k, :width], rtol=1e-9
            ):
                num_right += 1
            else:
                num_wrong += 1
                first = first or f"{time} {values} for {wanted[k]} {truth.to_numpy()[k]}"
    if num_wrong > touched:
        return f"wrong: {num_wrong} bars that are not in the file, {touched} lines touched: {first}"
    told = [f for f in loaded.report.findings if f.rule not in SAID_OF_ANY]
    if kind in IN_PLACE and num_right + num_wrong < len(truth) and not told:
        return f"wrong: {len(truth) - num_right - num_wrong} rows lost without a word"
    return f"read: {num_right} of {len(truth)}"


def damage_text(folder: Path, chance: random.Random) -> tuple[str, str]:
    """(outcome, what was done) of a damaged text."""
    form = a_form(chance)
    text, truth = text_of(form)
    kind = chance.choice(list(DAMAGES))
    what, lines, touched = DAMAGES[kind](text.split("\n"), form, chance)
    found = read(put(form, "\n".join(lines), folder))
    if not isinstance(found, str):
        found = judged(found, truth, form, kind, touched)
    return found, f"{kind}: {what} {form}"


def damage_bytes(folder: Path, chance: random.Random) -> tuple[str, str]:
    """(outcome, what was done) of a packed or plain text whose bytes are damaged."""
    form = a_form(chance)
    text, truth = text_of(form)
    path = put(form, text, folder)
    before = path.read_bytes()
    what, after = broken.damaged(before, chance)
    path.write_bytes(after)
    found = read(path)
    if not isinstance(found, str):  # a stretch of 512 bytes is some twenty lines; zip knows its sum
        found = judged(found, truth, form, what, 24)
    return found, f"{what} {form}"


def written(form: str, frame: pd.DataFrame) -> bytes:
    """A frame with a date column in a form that is no text of columns."""
    out, table = io.BytesIO(), pl.from_pandas(frame.reset_index(names="date"))
    match form:
        case "parquet":
            table.write_parquet(out)
        case "feather":
            table.write_ipc(out)
        case "xlsx":
            table.write_excel(out)
        case "json":
            return table.with_columns(pl.col("date").cast(pl.String)).write_json().encode()
        case "jsonl":
            return table.with_columns(pl.col("date").cast(pl.String)).write_ndjson().encode()
    return out.getvalue()


TABLES = ("parquet", "feather", "xlsx", "json", "jsonl")


def damage_table(folder: Path, chance: random.Random) -> tuple[str, str]:
    """(outcome, what was done) of a Parquet, Feather, spreadsheet or JSON file. Parquet and Feather
    hold no sums of their bytes: a price that was changed there is a price."""
    kind = chance.choice(TABLES)
    frame = bars("days", 60.0, 80)
    content = written(kind, frame)
    if kind in ("json", "jsonl") and chance.random() < 0.6:
        what, text = broken.retyped(content.decode(), chance)
        after = text.encode("utf-8", "replace")
    else:
        what, after = broken.damaged(content, chance)
    (folder / f"X.{kind}").write_bytes(after)
    found = read(folder / f"X.{kind}")
    if not isinstance(found, str):
        touched = 10_000 if kind in ("parquet", "feather") else 24
        form = Form(**{n: v[0] for n, v in CHOICES.items()}, order=tuple(range(6)))
        found = judged(found, frame, form, what, touched)
    return found, f"{kind}: {what}"


KINDS = (damage_text, damage_text, damage_text, damage_bytes, damage_table)


def campaign(folder: Path, num: int, seed: int) -> broken.Seen:
    seen = broken.Seen()
    for number, chance in broken.chances(num, seed):
        own = folder / str(number)
        own.mkdir()
        outcome, what = KINDS[number % len(KINDS)](own, chance)
        seen.add(outcome, f"case {number}: {what}")
        for path in own.iterdir():
            path.unlink()
        own.rmdir()
    return seen


def test_a_malformed_file_is_refused_in_a_line_or_read_with_no_bar_that_is_not_in_it(
    tmp_path: Path,
) -> None:
    seen = campaign(tmp_path, 60, seed=0)
    seen.require_none_wrong()
    assert min(seen.outcomes["refused"], seen.outcomes["read"]) >= 10, seen.outcomes


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_two_thousand_malformed_files(tmp_path: Path) -> None:
    campaign(tmp_path, 2000, seed=1).require_none_wrong()
