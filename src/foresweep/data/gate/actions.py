"""Splits and dividends: an actions file, adjusted closes, and the look of an unexplained split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foresweep.data.files import write_bytes_atomic
from foresweep.data.gate.jumps import LARGE, Jump
from foresweep.data.panel import VOLUME, Array
from foresweep.data.reading.aliases import canonical
from foresweep.data.reading.dates import parse_dates
from foresweep.data.tables import read_table
from foresweep.errors import DataError

Kind = Literal["split", "dividend"]


@dataclass(frozen=True, slots=True)
class Action:
    """On `date` one old share became `ratio` new ones; ratio 1: the move of that day was real."""

    date: np.datetime64  # the first session at the new price
    ratio: float
    kind: Kind = "split"  # a dividend's ratio leaves volume alone


Actions = Mapping[str, Sequence[Action]]


@dataclass(frozen=True, slots=True)
class Draft:
    """A line of an actions file as the gate would write it, and what it saw."""

    item: str
    date: str
    ratio: float
    kind: Kind
    seen: str

    @property
    def line(self) -> str:
        """As it stands in the file: `X,2014-06-09,7,split`."""
        return f"{self.item},{self.date},{self.ratio:g},{self.kind}"


def write_actions(path: Path | str, drafts: Sequence[Draft], listed: Actions | None = None) -> None:
    """An actions file of the lines `listed` already and the drafts, for people to go through.

    Raises DataError where the file is there already or cannot be written.
    """
    if Path(path).exists():
        raise DataError(f"{path} is there already and is not overwritten: choose another name")
    old = [(i, a) for i, actions in (listed or {}).items() for a in actions]
    rows = [(i, str(a.date)[:10], a.ratio, a.kind, "") for i, a in old]
    rows += [(d.item, d.date, d.ratio, d.kind, d.seen) for d in drafts]
    columns = ["item", "date", "ratio", "kind", "seen"]
    table = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row", strict=False)
    write_bytes_atomic(path, table.write_csv().encode())


def read_actions(path: Path | str) -> dict[str, list[Action]]:
    """Actions by item from a table of item, date, ratio and, optionally, kind (split, dividend).

    Raises DataError naming the row.
    """
    table = read_table(path)
    names = {c.strip().lower(): c for c in table.columns}
    known = canonical(table.columns)
    item, date = known.get("item_id"), known.get("timestamp")
    if item is None or date is None or "ratio" not in names:
        raise DataError(f"{path}: an actions file has the columns item, date, ratio[, kind]")
    try:
        dates = parse_dates(table[date])
    except DataError as error:
        open_to_both = str(error).partition(": say")[0]
        raise DataError(f"{path}: {open_to_both}: write dates as 2014-06-09") from error
    found: dict[str, list[Action]] = {}
    for k, row in enumerate(table.iter_rows(named=True)):
        ratio = _ratio(row[names["ratio"]])
        kind = str(row.get(names.get("kind", ""), None) or "split").strip().lower()
        if np.isnat(dates[k]) or ratio is None or kind not in ("split", "dividend"):
            raise DataError(
                f"{path}:{k + 2}: wants an item, a date, a ratio above 0 and the kind split or "
                f"dividend, got {', '.join(repr(v) for v in row.values())}"
            )
        action = Action(dates[k], ratio, "dividend" if kind == "dividend" else "split")
        found.setdefault(str(row[item]).strip(), []).append(action)
    return found


def _ratio(value: object) -> float | None:
    number = pl.Series([str(value)]).str.strip_chars().cast(pl.Float64, strict=False)[0]
    return float(number) if number is not None and 0 < number < np.inf else None


def adjust_by_close(values: Array, adjusted: Array) -> Array:
    """[n, 5] OHLC times adjusted / raw close; volume as it is. A row whose factor is not a
    positive number becomes NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = adjusted / values[:, 3]
    factor = np.where(np.isfinite(factor) & (factor > 0), factor, np.nan)
    out = values.copy()
    out[:, :VOLUME] *= factor[:, None]
    return out


def tells_of_splits(close: Array, adjusted: Array) -> bool:
    """Does an adjusted close say anything: does it ever move against the close?"""
    whole = np.isfinite(close) & np.isfinite(adjusted) & (close > 0) & (adjusted > 0)
    factor = np.log(adjusted[whole] / close[whole])
    return bool(len(factor)) and bool(np.ptp(factor) > 1e-3)


def adjust_by_actions(
    values: Array, times: NDArray[np.datetime64], actions: Sequence[Action]
) -> Array:
    """[n, 5] the bars before each action at its new terms: prices divided by the ratio, volume
    (for splits) multiplied by it."""
    out = values.copy()
    for action in actions:
        before = times < action.date
        out[before, :VOLUME] /= action.ratio
        if action.kind == "split":
            out[before, VOLUME] *= action.ratio
    return out


def contradicted(
    close: Array, times: NDArray[np.datetime64], actions: Sequence[Action]
) -> list[Action]:
    """Actions whose price move is not in the data: applied, they would make the jump that they
    should explain (the prices are adjusted already, or the date is wrong)."""
    wrong = []
    for action in actions:
        at = int(np.searchsorted(times, action.date))
        size = np.log(action.ratio)
        if abs(size) < np.log(1.25) or not 0 < at < len(times):
            continue
        move = np.log(close[at] / close[at - 1])
        if abs(move + size) > abs(move):
            wrong.append(action)
    return wrong


def unexplained(
    jumps: Sequence[Jump], times: NDArray[np.datetime64], actions: Sequence[Action]
) -> list[Jump]:
    """The jumps that no action of ratio 1 on that day (or in the gap before it) calls real."""
    real = [a.date for a in actions if a.ratio == 1]
    left = []
    for jump in jumps:
        day = times[jump.row].astype("datetime64[D]")
        if not any(times[jump.row - 1] < d and d.astype("datetime64[D]") <= day for d in real):
            left.append(jump)
    return left


def drafts_for(item: str, day: str, jump: Jump) -> list[Draft]:
    """The lines that would explain a jump, the likeliest first: a split with its ratio, a spin-off
    or special dividend by what the price lost over night, a real move."""
    seen = f"price {jump.move:.3g} times the bar before, open {jump.gap:.3g} times"
    split = Draft(item, day, jump.ratio, "split", f"{seen}: like a {jump.split} split")
    lost = float(f"{1 / jump.gap:.4g}")
    event = Draft(item, day, lost, "dividend", f"{seen}: like a spin-off or a special dividend")
    joined = Draft(item, day, lost, "split", f"{seen}: like a split of an odd ratio")
    real = Draft(item, day, 1.0, "split", f"{seen}: like a real move")
    if jump.kind == "split":
        return [split, real] if jump.ratio < 1 else [split, event, real]
    if jump.kind == "event":
        return [joined, real] if jump.gap > 1 else [event, real]
    return [real, event] if jump.gap < np.exp(-LARGE) else [real]
