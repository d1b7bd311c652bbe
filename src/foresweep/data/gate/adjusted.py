"""Adjusted closes against the closes, dividends and splits beside them.

The step of Close / Adj Close from one bar to the next is what a dividend or a split took from the
price. It must equal 1 - dividend / last close where the file tells its dividends; where it does
not, small steps back may be dividends, and a large one must be seen in the price. One step that is
neither makes a false return, and all older bars are scaled by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from foresweep.data.gate.actions import Action
from foresweep.data.gate.jumps import NEAR, nearest_split
from foresweep.data.gate.rules import TOLERANCE, too_many
from foresweep.data.panel import CLOSE, HIGH, LOW, Array, IntArray
from foresweep.data.reading.columns import Fault, RawItem
from foresweep.data.reading.dates import Times

EXACT = 0.005
"""A step may miss its dividend by this much of the price, and by the rounding of both closes."""
DIVIDEND = np.log(1 / 0.85)
"""A larger step (15 %) must be seen in the price as well."""
UNSEEN = 0.6
"""It is seen where the move differs from it by less than this share of it."""
PER_YEAR = 14
"""More steps than that are no dividends: some pay monthly."""
YEAR = np.timedelta64(365, "D")


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """Of neighbouring sound rows: what a step is, and what the file says of it."""

    rows: IntArray  # [k] of the later one
    moves: Array  # log close
    steps: Array  # log of close / adjusted close, earlier less later: below 0 for a dividend
    paid: Array  # log(1 - dividend / last close)
    slack: Array  # of the rounding
    told: bool  # are dividends told?


def believed(
    raw: RawItem, rows: IntArray, times: Times, actions: Sequence[Action]
) -> tuple[RawItem, list[Action], list[Fault]]:
    """(the item, without its adjusted closes where they are contradicted; its actions, with the
    splits that the file tells or shows; what is said) of an item's `rows` in order of `times`.

    An item whose adjusted closes are contradicted is used as it was traded, its older bars brought
    to new terms by those splits alone: any jump that is left is judged like every other.
    """
    faults: list[Fault] = []
    known = [*actions]
    if raw.adjusted is not None:
        lacking = _lacking(raw, rows)
        if len(rows) and lacking == len(rows):
            raw = replace(raw, adjusted=None)  # the column is that of other items
        elif too_many(lacking, len(rows)):
            message = f"{lacking} of {len(rows)} adjusted closes are missing: used as it was traded"
            faults.append(Fault("patchy_adjusted", message))
            raw = replace(raw, adjusted=None)
    if raw.adjusted is not None:
        found = _steps(raw, rows)
        wrong = _wrong(found, raw, rows, times)
        if len(wrong):
            both = _in_both(found, times)
            faults.append(_told(found, wrong, rows, times, len(both)))
            raw = replace(raw, adjusted=None)
            known += both
    if raw.adjusted is None and raw.splits is not None:
        listed = {a.date.astype("datetime64[D]") for a in known}
        named = _named(raw, rows, times)
        named = [a for a in named if a.date.astype("datetime64[D]") not in listed]
        if named:
            says = ", ".join(f"{str(a.date)[:10]} {a.ratio:g}" for a in named[:3])
            more = f" and {len(named) - 3} more" if len(named) > 3 else ""
            faults.append(Fault("told_split", f"{says}{more}"))
            known += named
    return raw, known, faults


def _lacking(raw: RawItem, rows: IntArray) -> int:
    """Rows with a close and no adjusted one."""
    assert raw.adjusted is not None
    with np.errstate(invalid="ignore"):
        have = (raw.adjusted[rows] > 0) & np.isfinite(raw.adjusted[rows])
    return int((np.isfinite(raw.values[rows, CLOSE]) & ~have).sum())


def _steps(raw: RawItem, rows: IntArray) -> _Steps:
    assert raw.adjusted is not None
    bars, adjusted = raw.values[rows], raw.adjusted[rows]
    with np.errstate(invalid="ignore"):
        sound = (bars[:, CLOSE] > 0) & (adjusted > 0) & np.isfinite(bars[:, CLOSE] + adjusted)
        sound &= bars[:, CLOSE] <= (1 + TOLERANCE) * bars[:, HIGH]
        sound &= bars[:, CLOSE] >= (1 - TOLERANCE) * bars[:, LOW]
    at = np.flatnonzero(sound)
    close, adjusted = bars[at, CLOSE], adjusted[at]
    factor = np.log(adjusted / close)
    slack = _unit(adjusted) / adjusted + _unit(close) / close
    paid = np.zeros(max(len(at) - 1, 0))
    told = raw.dividends is not None and bool((raw.dividends > 0).any())
    if raw.dividends is not None and len(at):
        sums = np.cumsum(np.nan_to_num(raw.dividends[rows]))[at]
        paid = np.log1p(-np.minimum(np.diff(sums) / close[:-1], 0.95))
    return _Steps(
        rows=at[1:],
        moves=np.diff(np.log(close)),
        steps=-np.diff(factor),
        paid=paid,
        slack=(slack[1:] + slack[:-1]) / 2,
        told=told,
    )


def _unit(prices: Array) -> float:
    """The unit to which prices are rounded: 0.01, ...; 0 where they are not."""
    for digits in range(7):
        scaled = prices * 10.0**digits
        if (np.abs(scaled - np.round(scaled)) < 1e-4).all():
            return float(10.0**-digits)
    return 0.0


def _wrong(found: _Steps, raw: RawItem, rows: IntArray, times: Times) -> IntArray:
    """Which of the steps nothing explains."""
    off = EXACT + found.slack
    large = np.abs(found.steps) > DIVIDEND
    seen = large & (np.abs(found.moves - found.steps) < UNSEEN * np.abs(found.steps))
    if found.told:
        good = np.abs(found.steps - found.paid) <= off
        if raw.splits is not None:  # of a close as it was traded
            split = raw.splits[rows][found.rows]
            with np.errstate(divide="ignore", invalid="ignore"):
                both = found.paid - np.log(np.where(split > 0, split, 1.0))
            good |= np.abs(found.steps - both) <= off
    else:
        good = found.steps <= off
        often = int((found.steps < -off).sum())
        if len(times) and often > PER_YEAR * max(1.0, (times[-1] - times[0]) / YEAR):
            good &= found.steps >= -off
    wrong: IntArray = np.flatnonzero(~(np.where(large, False, good) | seen))
    return wrong


def _in_both(found: _Steps, times: Times) -> list[Action]:
    """Steps that the price shows, as actions: splits where a real ratio is near."""
    size = found.steps - found.paid
    agree = np.abs(found.moves - found.steps) < UNSEEN * np.abs(size)
    actions = []
    for k in np.flatnonzero((np.abs(size) > DIVIDEND) & agree):
        _, split = nearest_split(float(size[k]))
        date = times[found.rows[k]]
        if abs(split - size[k]) < NEAR:
            actions.append(Action(date, float(np.exp(-split))))
        else:
            actions.append(Action(date, float(np.exp(-size[k])), "dividend"))
    return actions


def _named(raw: RawItem, rows: IntArray, times: Times) -> list[Action]:
    """The splits that the file tells and the prices show: others are in the prices already."""
    assert raw.splits is not None
    ratios = np.nan_to_num(raw.splits[rows], nan=1.0)
    close = raw.values[rows, CLOSE]
    actions = []
    for k in np.flatnonzero((ratios > 0) & (ratios != 1) & np.isfinite(ratios)):
        earlier = close[:k][close[:k] > 0]
        if len(earlier) and close[k] > 0:
            size = np.log(ratios[k])
            if abs(np.log(close[k] / earlier[-1]) + size) < abs(size) / 2:
                actions.append(Action(times[k], float(ratios[k])))
    return actions


def _told(found: _Steps, wrong: IntArray, rows: IntArray, times: Times, num_splits: int) -> Fault:
    k = int(wrong[0])
    at = found.rows[k]
    step, paid = 1 - np.exp(found.steps[k]), 1 - np.exp(found.paid[k])
    dividend = f"its dividend is {100 * paid:.3g} %" if found.told else "no dividend or split shows"
    days = f"on {len(wrong)} days, first {str(times[at])[:10]}" if len(wrong) > 1 else (
        f"on {str(times[at])[:10]}"
    )  # fmt: skip
    splits = f", but for {num_splits} splits that both show" if num_splits else ""
    message = (
        f"{days}: the adjusted close steps by {100 * step:.3g} % of the price, {dividend}; "
        f"the item is used as it was traded{splits}"
    )
    return Fault("adjusted_contradicted", message, rows[[at]])
