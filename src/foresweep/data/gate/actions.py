"""Splits and dividends: an actions file, adjusted closes, and the look of an unexplained split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foresweep.data.panel import VOLUME, Array
from foresweep.data.reading.aliases import canonical
from foresweep.data.reading.dates import parse_dates
from foresweep.data.tables import read_table
from foresweep.errors import DataError

Kind = Literal["split", "dividend"]
FORWARD = (1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 50, 100)
REVERSE = (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 100)
"""New shares for one old (a price falls so many times), and old shares for one new."""
NEIGHBOURS = 5
"""Bars on each side that must keep a split's new level."""


@dataclass(frozen=True, slots=True)
class Action:
    """On `date` one old share became `ratio` new ones; ratio 1: the move of that day was real."""

    date: np.datetime64  # the first session at the new price
    ratio: float
    kind: Kind = "split"  # a dividend's ratio leaves volume alone


Actions = Mapping[str, Sequence[Action]]


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


@dataclass(frozen=True, slots=True)
class Jump:
    """A move that looks like a split: the row of its first bar, the price's ratio to the bar
    before, and the split that it resembles."""

    row: int
    move: float
    split: str


def split_like_jumps(opened: Array, close: Array) -> list[Jump]:
    """Jumps near a split ratio that last, oldest first; `opened` and `close` [n] are whole rows.

    Near: the gap from the last close to the open, and the close itself, both lie about as far from
    the ratio as an ordinary night and an ordinary few days move. Lasting: the median close of the
    next bars is nearer to the new level than to the old one.
    """
    if len(close) < 2:
        return []
    moves = np.diff(np.log(close))
    usual = float(np.median(np.abs(moves))) / 0.6745
    gaps = np.log(opened[1:] / close[:-1])
    found = []
    for k in np.flatnonzero(np.abs(moves) > np.log(1.35)):
        name, size = _nearest_split(gaps[k])
        near_gap = abs(gaps[k] - size) < np.clip(2 * usual, 0.02, 0.06)
        near_close = abs(moves[k] - size) < np.clip(5 * usual, 0.04, 0.15)
        if near_gap and near_close and _lasts(close, int(k) + 1, size):
            found.append(Jump(int(k) + 1, float(np.exp(moves[k])), name))
    return found


def _nearest_split(gap: float) -> tuple[str, float]:
    """(name, log move) of the split whose move is nearest to a log price gap."""
    known = [(f"{n:g}-for-1", -np.log(n)) for n in FORWARD]
    known += [(f"1-for-{n:g}", np.log(n)) for n in REVERSE]
    return min(known, key=lambda split: abs(split[1] - gap))


def _lasts(close: Array, row: int, size: float) -> bool:
    before = np.median(close[max(0, row - NEIGHBOURS) : row])
    after = np.median(close[row : row + NEIGHBOURS])
    return bool(abs(np.log(after / before) - size) < abs(size) / 2)


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
