"""The data gate's rules for one item: each looks at arrays and names the rows that break it.

Nothing here repairs anything: a row rule's rows are masked, an item rule's item is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import CLOSE, COLUMNS, HIGH, LOW, OPEN, VOLUME, Array, IntArray
from foresweep.data.reading.columns import Fault, RawItem
from foresweep.data.reading.dates import Times

TOLERANCE = 1e-3
"""An open or close may lie outside [low, high] by this share of the price (rounding)."""
MAX_BAD_SHARE = 0.01
"""An item with a larger share of bad rows (and more than one) is dropped."""
MIN_ROWS = 64
"""An item with fewer whole rows is too short for any split and context."""
STALE_BARS = 20
"""So many bars in a row that repeat the last close are a dead feed."""
FLIP_BARS = 3
"""A flip comes back within so many bars."""
CLOCK_MONTHS = (3, 4, 9, 10, 11)
"""Clocks are put back in these months, north and south."""
DAY = np.timedelta64(1, "D").astype("timedelta64[ns]")
BLOCK = 32


@dataclass(frozen=True, slots=True, eq=False)
class Ordered:
    """The rows of an item that can be placed in time, oldest first, one a time."""

    rows: IntArray  # [m] their rows in the raw item
    times: Times  # [m] rising; dates for daily bars
    daily: bool
    num_left_out: int  # bad rows that are not among them: unreadable times, copies
    faults: tuple[Fault, ...]  # rows count in the raw item
    fatal: bool  # the order itself cannot be trusted


def in_order(raw: RawItem) -> Ordered:
    """Sort what may be sorted: files newest first are read backwards, equal copies leave, files
    of one item join. Two different rows at one time are fatal: no rule can say which is true."""
    rows = np.flatnonzero(~np.isnat(raw.utc))
    daily = _is_daily(raw.utc[rows])
    times = _dates(raw.utc[rows], raw.wall[rows]) if daily else raw.utc[rows]
    hours = np.empty(0, dtype=times.dtype) if daily else _repeated_hours(raw, rows, times)
    aside = rows[np.isin(times, hours)]
    rows, times = rows[~np.isin(times, hours)], times[~np.isin(times, hours)]
    faults = _order_faults(raw, rows, times)
    if len(aside):
        faults.append(Fault("repeated_hour", "the clock goes back: {} comes twice", aside))
    order = np.argsort(times, kind="stable")
    rows, times = rows[order], times[order]
    twice = np.flatnonzero(times[1:] == times[:-1]) + 1
    differ = np.array([not _same_bar(raw, rows[k - 1], rows[k]) for k in twice], dtype=bool)
    fatal = bool(differ.any())
    if differ.any():
        at = rows[twice[differ]]
        faults.append(Fault("contradictory_timestamps", "another row has the time {}", at))
    same = rows[twice[~differ]]
    copies = same[raw.file[same] == raw.file[rows[twice[~differ] - 1]]]
    if len(copies):
        faults.append(Fault("duplicate_row", "repeats the row of {}", copies))
    once = np.concatenate([[True], times[1:] != times[:-1]])[: len(times)]
    said = tuple(_with_times(raw, f) for f in faults)
    num_left_out = len(raw.utc) - len(aside) - len(rows) + len(copies)
    return Ordered(rows[once], times[once], daily, num_left_out, said, fatal)


def _repeated_hours(raw: RawItem, rows: IntArray, times: Times) -> Times:
    """The times of intraday bars that come twice because a clock was put back: within one hour of
    a Sunday of spring or autumn, on no more than two days a year. Nothing where other times come
    twice as well."""
    order = np.argsort(times, kind="stable")
    when, row = times[order], rows[order]
    twice = np.flatnonzero(when[1:] == when[:-1]) + 1
    twice = twice[[not _same_bar(raw, row[k - 1], row[k]) for k in twice]] if len(twice) else twice
    hours = np.unique(when[twice])
    days = hours.astype("datetime64[D]")
    months = hours.astype("datetime64[M]").astype(np.int64) % 12 + 1
    years = np.unique(days).astype("datetime64[Y]")
    lone = [hours[days == d] for d in np.unique(days)]
    short = all(h[-1] - h[0] < np.timedelta64(1, "h") for h in lone)
    often = max((int((years == y).sum()) for y in np.unique(years)), default=0)
    sundays = ((days.astype(np.int64) + 3) % 7 == 6).all()  # on which clocks are put back
    good = sundays and np.isin(months, CLOCK_MONTHS).all() and short and often <= 2
    return hours if good else hours[:0]


def _with_times(raw: RawItem, fault: Fault) -> Fault:
    said = [show_time(t) for t in raw.utc[fault.rows]]
    return Fault(fault.rule, fault.message, fault.rows, said)


def show_time(time: np.datetime64) -> str:
    """`2017-07-31`, with the clock where it is not midnight."""
    text = str(time.astype("datetime64[s]"))
    return text.removesuffix("T00:00:00").replace("T", " ")


def _is_daily(times: Times) -> bool:
    """Are bars about a day or more apart?"""
    steps = np.abs(np.diff(times).astype(np.int64))
    steps = steps[steps > 0]
    return len(steps) == 0 or bool(np.median(steps) >= 20 * 3600 * 10**9)


def _dates(utc: Times, wall: Times) -> Times:
    """The session of daily bars: the date that the file writes, but UTC's where all bars begin at
    midnight UTC (a 24/7 market told in a local clock)."""
    midnight = utc.astype("datetime64[D]") == utc
    clock = utc if midnight.all() else wall
    return clock.astype("datetime64[D]").astype("datetime64[ns]")


def _order_faults(raw: RawItem, rows: IntArray, times: Times) -> list[Fault]:
    faults = []
    for file in range(len(raw.files)):
        here = raw.file[rows] == file
        steps = np.diff(times[here]).astype(np.int64)
        back = np.flatnonzero(steps < 0)
        if len(back) and (steps > 0).any():
            if len(back) > (steps > 0).sum():  # newest first, and here it is not
                back = np.flatnonzero(steps > 0)
            at = rows[here][back[:1] + 1]
            faults.append(Fault("unsorted", "{} stands out of order", at))
        elif len(back):
            faults.append(Fault("newest_first", "newest first: read backwards from {}", rows[:1]))
    return faults


def _same_bar(raw: RawItem, a: int, b: int) -> bool:
    same = np.array_equal(raw.values[a], raw.values[b], equal_nan=True)
    if raw.adjusted is None:
        return same
    return same and np.array_equal(raw.adjusted[a], raw.adjusted[b], equal_nan=True)


Flags = NDArray[np.bool_]


def _missing(v: Array) -> Flags:
    return np.asarray(~np.isfinite(v[:, :VOLUME]).all(axis=1))


def _not_positive(v: Array) -> Flags:
    return np.asarray((v[:, :VOLUME] <= 0).any(axis=1))


def _crossed(v: Array) -> Flags:
    return np.asarray(v[:, HIGH] < v[:, LOW])


def _outside(v: Array) -> Flags:
    room = TOLERANCE * v[:, HIGH]
    inner = v[:, [OPEN, CLOSE]]
    return np.asarray((inner.max(1) > v[:, HIGH] + room) | (inner.min(1) < v[:, LOW] - room))


ROW_RULES: tuple[tuple[str, Callable[[Array], Flags]], ...] = (
    ("missing_price", _missing),
    ("non_positive_price", _not_positive),
    ("high_below_low", _crossed),
    ("open_close_outside", _outside),
)


def show_bar(bar: Array) -> str:
    """`open 1, high 2, low 1, close nan` of one row."""
    return ", ".join(f"{c} {x:g}" for c, x in zip(COLUMNS[:VOLUME], bar, strict=False))


def broken_rows(values: Array, known: NDArray[np.bool_]) -> list[Fault]:
    """Faults of single bars [n, 5], each row under the first rule it breaks; `known` rows are bad
    already."""
    seen, faults = known.copy(), []
    with np.errstate(invalid="ignore"):
        for rule, broken in ROW_RULES:
            rows = np.flatnonzero(broken(values) & ~seen)
            if len(rows):
                seen[rows] = True
                faults.append(Fault(rule, "{}", rows, [show_bar(values[r]) for r in rows]))
    return faults


def bad_volumes(volume: Array) -> IntArray:
    """Rows whose volume is missing or negative."""
    with np.errstate(invalid="ignore"):
        return np.flatnonzero(~(np.isfinite(volume) & (volume >= 0)))


def flips(values: Array) -> list[tuple[int, float]]:
    """(row, ratio) of whole rows [n, 5] whose close jumps and is back within three bars, or whose
    high or low alone lies far away from its open and close.

    Far: 1.5 times (for highs and lows 2 times), and ten ordinary moves.
    """
    close = np.log(values[:, CLOSE])
    moves = np.diff(close)
    if not len(moves):
        return []
    usual = 10 * float(np.median(np.abs(moves))) / 0.6745
    found: dict[int, float] = {}
    for k in np.flatnonzero(np.abs(moves) > max(np.log(1.5), usual)).tolist():
        after = close[k + 2 : k + 2 + FLIP_BARS]
        back = np.flatnonzero(np.abs(after - close[k]) < abs(moves[k]) / 4)
        if len(back) and k not in found:
            rows = range(k + 1, k + 2 + int(back[0]))
            found |= {r: float(np.exp(close[r] - close[k])) for r in rows}
    body = np.log(values[:, [OPEN, CLOSE]])
    up = np.log(values[:, HIGH]) - body.max(1)
    down = body.min(1) - np.log(values[:, LOW])
    for r in np.flatnonzero(np.maximum(up, down) > max(np.log(2), usual)):
        found.setdefault(int(r), float(np.exp(up[r] if up[r] > down[r] else -down[r])))
    return sorted(found.items())


def too_many(num_bad: int, num_rows: int) -> bool:
    """More than one bad row, and more than 1 % of all."""
    return num_bad > 1 and num_bad > MAX_BAD_SHARE * num_rows


def stale_from(close: Array) -> tuple[int, int] | None:
    """(first row, bars) of the longest run of unmoved closes, if it is a dead feed's."""
    moved = np.flatnonzero(np.concatenate([[True], np.diff(close) != 0, [True]]))
    runs = np.diff(moved)
    longest = int(runs.argmax())
    return (int(moved[longest]), int(runs[longest])) if runs[longest] > STALE_BARS else None


def usual_step(times: Times) -> float:
    """Nanoseconds between neighbouring bars within a session (the lower quarter of all steps)."""
    steps = np.diff(times).astype(np.int64)
    at = (len(steps) - 1) // 4  # np.quantile says the same ten times slower
    return float(np.partition(steps, at)[at]) if len(steps) else np.nan


def frequency_change(times: Times) -> tuple[int, float, float] | None:
    """(row, step before, step after in days) where the rhythm of the bars changes by more than
    1.8 times, measured over blocks of 32 bars; None where it does not."""
    num_blocks = len(times) // BLOCK
    if num_blocks < 2:
        return None
    size, num_longer = divmod(len(times), num_blocks)  # as np.array_split cuts
    cut = num_longer * (size + 1)
    longer, others = times[:cut].reshape(-1, size + 1), times[cut:].reshape(-1, size)
    steps = np.concatenate([_usual_steps(longer), _usual_steps(others)])
    changed = np.flatnonzero(np.maximum(steps, steps[0]) > 1.8 * np.minimum(steps, steps[0]))
    if not len(changed):
        return None
    k = int(changed[0])
    row = k * size + min(k, num_longer)
    return row, steps[0] / DAY.astype(int), steps[k] / DAY.astype(int)


def _usual_steps(blocks: NDArray[np.datetime64]) -> Array:
    """[B] `usual_step` of each of B blocks [B, n] of rising times."""
    steps = np.sort(np.diff(blocks, axis=1).astype(np.int64), axis=1)
    return steps[:, int(0.25 * (steps.shape[1] - 1))].astype(np.float64)


def synthetic_signs(values: Array) -> Sequence[str]:
    """What real prices do not do, of whole rows [n, 5] with n >= 250."""
    if len(values) < 250:
        return ()
    returns = np.diff(np.log(values[:, CLOSE]))
    sizes = np.abs(returns - returns.mean())
    body = values[:, [OPEN, CLOSE]]
    up, down = values[:, HIGH] / body.max(1), values[:, LOW] / body.min(1)
    signs = []
    if _lag_one(returns) > 0.4:
        signs.append(f"returns follow each other smoothly (correlation {_lag_one(returns):.2f})")
    if (np.ptp(up) < 1e-4 and up[0] > 1.0001) or (np.ptp(down) < 1e-4 and down[0] < 0.9999):
        signs.append("high or low lies at a fixed share of the price")
    kurtosis = float(np.mean(sizes**4) / max(np.mean(sizes**2) ** 2, 1e-300)) - 3
    if kurtosis < 0.5 and _lag_one(sizes) < 0.05:
        signs.append(
            f"returns have neither fat tails (excess kurtosis {kurtosis:.2f}) nor quiet and "
            f"stormy times (correlation of sizes {_lag_one(sizes):.2f})"
        )
    return signs


def _lag_one(x: Array) -> float:
    centred = x - x.mean()
    power = float(centred @ centred)
    return float(centred[1:] @ centred[:-1]) / power if power > 0 else 0.0
