"""What a page is made of: sections of words, facts, tables and figures, whatever shows them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

Spec: TypeAlias = dict[str, Any]
"""A figure as plotly's own JSON: data and layout."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a table: words for people, the value for sorting and for machines."""

    text: str
    value: Any = None  # None: the text is the value
    href: str | None = None  # a page's address, as `Links` makes it
    mark: str = ""  # good, bad, warn, faint or code: how it is drawn
    title: str = ""  # what is said where one points at it

    @property
    def plain(self) -> Any:
        return self.text if self.value is None else self.value


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column. `sort`: by what a database sorts it, where it can."""

    label: str
    is_number: bool = False
    sort: str | None = None
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells. The first `num_pinned` rows stay on top, however the others are sorted."""

    name: str  # part of its address: letters, digits and -
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    num_pinned: int = 0
    num_all: int | None = None  # of how many rows these are some; None: they are all
    is_paged: bool = False  # live: ordered, filtered and paged by the database
    picks: tuple[str, ...] = ()  # a run's id for each row, where rows can be picked to compare

    def as_csv(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([c.label for c in self.columns])
        writer.writerows([_harmless(cell.plain) for cell in row] for row in self.rows)
        return out.getvalue()

    def as_json(self) -> str:
        names = [c.label for c in self.columns]
        rows = [dict(zip(names, (_jsonable(c.plain) for c in r), strict=True)) for r in self.rows]
        return json.dumps({"table": self.name, "rows": rows, "num_all": self.num_all}, indent=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture, built when it is asked for; `alt` says in words what it shows."""

    name: str
    title: str
    alt: str
    build: Callable[[], Spec]
    note: str = ""
    height: int = 340
    href: str = ""  # where a live page asks for it
    is_live: bool = False  # does it change while its sweep runs?


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph. Kind: "", good, bad, warn, empty (nothing here yet, and what to do) or log."""

    text: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values, side by side."""

    pairs: tuple[tuple[str, Cell], ...]
    kind: str = ""  # tiles: few and large


@dataclass(frozen=True, slots=True)
class Form:
    """What a live page lets one write or choose. A `post` changes the record, a get chooses."""

    name: str
    action: str
    button: str
    fields: tuple[Field, ...]
    is_post: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """One input: a line of text, several lines, or one of `options` (value, label)."""

    name: str
    label: str
    value: str = ""
    options: tuple[tuple[str, str], ...] = ()
    is_long: bool = False
    hint: str = ""
    is_hidden: bool = False  # sent along, for nobody to change


Block: TypeAlias = Words | Facts | Table | Figure | Form


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page under its own heading; a live one is looked at again while a sweep runs."""

    id: str
    title: str
    blocks: tuple[Block, ...]
    is_live: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its title, a line under it, and its sections."""

    id: str
    title: str
    lead: str
    sections: tuple[Section, ...]
    crumbs: tuple[tuple[str, str], ...] = field(default=())  # (label, address) of pages above

    def tables(self) -> Mapping[str, Table]:
        return {b.name: b for s in self.sections for b in s.blocks if isinstance(b, Table)}

    def figures(self) -> Mapping[str, Figure]:
        return {b.name: b for s in self.sections for b in s.blocks if isinstance(b, Figure)}


# Cells of numbers: what cannot be had is a dash, and no value for machines.


def number(value: float | None, digits: int = 4, *, mark: str = "") -> Cell:
    if value is None or not math.isfinite(value):
        return Cell("–", "", mark="faint")
    is_small = 0 < abs(value) < 10.0 ** (1 - digits)
    return Cell(f"{value:.2g}" if is_small else f"{value:.{digits}f}", value, mark=mark)


def share(value: float | None, *, digits: int = 2, is_marked: bool = False) -> Cell:
    """A share as signed percent; marked: green above nothing, red below."""
    if value is None or not math.isfinite(value):
        return Cell("–", "", mark="faint")
    mark = "" if not is_marked else "good" if value > 0 else "bad"
    return Cell(f"{100 * value:+.{digits}f} %", value, mark=mark)


def interval(low: float | None, high: float | None) -> Cell:
    """Two bounds in percent."""
    if low is None or high is None:
        return Cell("–", "", mark="faint")
    return Cell(f"{100 * low:+.1f} … {100 * high:+.1f} %", f"{low} {high}")


def took(seconds: float | None) -> Cell:
    """A duration."""
    if seconds is None:
        return Cell("–", "", mark="faint")
    if seconds < 60:
        return Cell(f"{seconds:.1f} s", seconds)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return Cell(f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s", seconds)


def when(moment: datetime | None) -> Cell:
    if moment is None:
        return Cell("–", "", mark="faint")
    return Cell(f"{moment:%Y-%m-%d %H:%M}", moment.isoformat(), mark="still")


def shown(value: Any) -> Cell:
    """A hyperparameter or a fact as it is best read."""
    if value is None:
        return Cell("–", "", mark="faint")
    if isinstance(value, bool):
        return Cell("yes" if value else "no", value)
    if isinstance(value, float):
        return Cell(f"{value:.6g}", value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return Cell(", ".join(str(v) for v in value))
    return Cell(str(value), value if isinstance(value, int) else None)


def _jsonable(value: Any) -> Any:
    if value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if isinstance(value, str | int | float | bool) else str(value)


def _harmless(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula is given a quote before it."""
    is_formula = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if is_formula else value
