"""Panel: many items' OHLCV bars in one checked frame, and whether its old bars have changed.

Only whole rows are kept (masked rows are counted and left out, never repaired); each row knows
its session, the index of its bar in the item's calendar, so that a missing bar is seen as a gap
and never silently becomes the next one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foresweep.data.ahead import times_ahead
from foresweep.data.gate.calendars import group_by_calendar
from foresweep.data.gate.exchanges import Kept, calendar_kept, keeps_weekends, union_of
from foresweep.errors import DataError, UnknownName

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

COLUMNS = ("open", "high", "low", "close", "volume")
OPEN, HIGH, LOW, CLOSE, VOLUME = range(5)
AMOUNT = 5
"""Column of the money that changed hands, behind COLUMNS, in panels some item of which has it."""
QUOTED = 50
"""Closes that are looked at to see with how many decimals an item is quoted."""
LIVE_SHARE = 0.8
"""A timestamp can be an origin when this share of the live items has a bar there."""


@dataclass(frozen=True, slots=True)
class Bars:
    """The whole rows of one item, oldest first."""

    values: Array  # [n, 5] in the order of COLUMNS, [n, 6] with the amount; read-only
    sessions: IntArray  # [n] rising: index of each row in the item's calendar
    num_masked: int  # rows left out because one of their numbers is missing or was masked


@dataclass(frozen=True, eq=False)
class Panel:
    """Many items on one timeline. Build it with `load_panel` or `panel_from_frame`."""

    items: tuple[str, ...]
    timeline: NDArray[np.datetime64]  # [T] rising: every time at which some item has a bar
    calendars: tuple[IntArray, ...]  # per calendar (exchange, 24/7): its times in `timeline`
    calendar_of: tuple[int, ...]  # [I] the calendar each item keeps
    bars: tuple[Bars, ...]  # [I]
    source: str = "frame"  # what it was read from, for people

    @property
    def num_items(self) -> int:
        return len(self.items)

    @property
    def columns(self) -> tuple[str, ...]:
        """[F] of `bars` and `stacked`: COLUMNS, and `amount` where some item has it."""
        return COLUMNS if self.bars[0].values.shape[1] == len(COLUMNS) else (*COLUMNS, "amount")

    @property
    def num_rows(self) -> int:
        return sum(len(b.values) for b in self.bars)

    @cached_property
    def hash(self) -> str:
        """sha256 of names, times, sessions and whole rows: equal content, equal hash.

        Sessions count, because they say where a bar is missing: the same rows with another gap
        make other windows.
        """
        digest = hashlib.sha256("\n".join(self.items).encode())
        for i, bars in enumerate(self.bars):
            digest.update(self.timestamps_of(i).astype("int64").tobytes())
            digest.update(bars.sessions.astype("int64").tobytes())
            digest.update(np.ascontiguousarray(bars.values).tobytes())
        return digest.hexdigest()

    @cached_property
    def offsets(self) -> IntArray:
        """[I + 1] where each item's whole rows begin in `stacked` and `stacked_times`."""
        return np.concatenate([[0], np.cumsum([len(b.values) for b in self.bars])])

    @cached_property
    def stacked(self) -> Array:
        """[R, F] the whole rows of all items end to end, so that a batch is one gather. Shares
        memory with `bars` where the panel was built here."""
        return _stack([b.values for b in self.bars])

    @cached_property
    def stacked_times(self) -> NDArray[np.datetime64]:
        """[R] time of each row of `stacked`."""
        times: NDArray[np.datetime64] = self.timeline[self._positions]
        return times

    @cached_property
    def stacked_sessions(self) -> IntArray:
        """[R] session of each row of `stacked`, in its item's calendar."""
        return np.concatenate([b.sessions for b in self.bars])

    @cached_property
    def _positions(self) -> IntArray:
        """[R] timeline position of each row of `stacked`."""
        pairs = zip(self.calendar_of, self.bars, strict=True)
        return np.concatenate([self.calendars[k][b.sessions] for k, b in pairs])

    def index(self, item_id: str) -> int:
        """Position of an item. Raises UnknownName."""
        if item_id not in self.items:
            raise UnknownName("item", item_id, self.items)
        return self.items.index(item_id)

    def decimals(self, item: int) -> int:
        """Digits after the point that an item's prices are quoted with: those of its last closes,
        two at least; of prices that were multiplied (adjusted) six significant digits in all."""
        closes = self.bars[item].values[-QUOTED:, CLOSE]
        before = int(np.floor(np.log10(np.abs(closes).max())))
        for digits in range(2, max(2, 8 - before) + 1):  # nine significant ones: a rate, a coin
            if np.allclose(np.round(closes, digits), closes, rtol=1e-12, atol=0):
                return digits
        return max(2, 5 - before)

    def always_open(self, item: int) -> bool:
        """Does the item keep a calendar with weekends (24/7)?"""
        return keeps_weekends(self.timestamps_of(item))

    def timeline_of(self, item: int) -> IntArray:
        """[n] position in `timeline` of each whole row of an item."""
        return self._positions[self.offsets[item] : self.offsets[item + 1]]

    def timestamps_of(self, item: int) -> NDArray[np.datetime64]:
        """[n] time of each whole row of an item."""
        times: NDArray[np.datetime64] = self.stacked_times[
            self.offsets[item] : self.offsets[item + 1]
        ]
        return times

    def session_at(self, item: int, positions: IntArray) -> IntArray:
        """Session of the item's calendar at each timeline position, -1 where it has none."""
        calendar = self.calendars[self.calendar_of[item]]
        at = np.searchsorted(calendar, positions)
        found = calendar[np.minimum(at, len(calendar) - 1)] == positions
        return np.where(found, at, -1)

    def sessions_ahead(
        self, item: IntArray, session: IntArray, count: int
    ) -> NDArray[np.datetime64]:
        """[N, count] times of the `count` sessions after session [N] of item [N].

        Beyond the panel they are continued: on the sessions of the exchange whose calendar they
        keep, else at their own rhythm (weekdays stay weekdays).
        """
        out = np.empty((len(item), count), dtype="datetime64[ns]")
        kinds = np.asarray(self.calendar_of)[item]
        for kind in np.unique(kinds):
            here = kinds == kind
            wanted = session[here][:, None] + np.arange(1, count + 1)
            times = self.timeline[self.calendars[kind]]
            beyond = int(wanted.max()) + 1 - len(times)
            if beyond > 0:
                times = np.concatenate([times, times_ahead(times, beyond, self.kept[kind])])
            out[here] = times[wanted]
        return out

    @cached_property
    def kept(self) -> tuple[Kept | None, ...]:
        """Per calendar: the exchange (or 24/7, 24/5) whose sessions it keeps, None for none."""
        return tuple(calendar_kept(self.timeline[c]) for c in self.calendars)

    @cached_property
    def eligible(self) -> IntArray:
        """[E] timeline positions that can be origins: LIVE_SHARE of the live items have a bar."""
        live = np.zeros(len(self.timeline) + 1, dtype=np.int64)
        here = np.zeros(len(self.timeline), dtype=np.int64)
        for i in range(self.num_items):
            positions = self.timeline_of(i)
            live[positions[0]] += 1
            live[positions[-1] + 1] -= 1
            here[positions] += 1
        return np.flatnonzero(here >= LIVE_SHARE * np.maximum(np.cumsum(live)[:-1], 1))

    def select(self, items: Sequence[str]) -> Panel:
        """The panel of these items alone, in the panel's order, on the same calendars (a bar that
        only others have stays a gap). Raises UnknownName."""
        chosen = sorted({self.index(i) for i in items})
        return replace(
            self,
            items=tuple(self.items[i] for i in chosen),
            calendar_of=tuple(self.calendar_of[i] for i in chosen),
            bars=tuple(self.bars[i] for i in chosen),
        )

    def to_frame(self) -> pl.DataFrame:
        """Long frame item_id, timestamp and `columns` of the whole rows."""
        parts = [
            pl.DataFrame(
                {"item_id": [name] * len(bars.values), "timestamp": self.timestamps_of(i)}
                | {c: bars.values[:, k] for k, c in enumerate(self.columns)}
            )
            for i, (name, bars) in enumerate(zip(self.items, self.bars, strict=True))
        ]
        return pl.concat(parts)


def panel_from_frame(frame: pl.DataFrame, *, source: str = "frame") -> Panel:
    """Panel of a long frame: item_id, timestamp, open, high, low, close and, optionally, volume and
    amount (derived in the rows that have none).

    Rows with a missing or NaN price are masked: they stay in the calendar and leave the data.
    Raises DataError on missing columns, no rows, or two rows of one item at one time.
    """
    missing = {"item_id", "timestamp", *COLUMNS[:4]} - set(frame.columns)
    if missing:
        raise DataError(f"{source}: missing column {', '.join(sorted(missing))}")
    if "volume" not in frame.columns:
        frame = frame.with_columns(volume=pl.lit(0.0))
    frame = frame.select(
        pl.col("item_id").cast(pl.String),
        pl.col("timestamp").cast(pl.Datetime("ns")),
        *[pl.col(c).cast(pl.Float64) for c in (*COLUMNS, "amount") if c in frame.columns],
    )
    if frame.is_empty():
        raise DataError(f"{source}: no rows")
    if _in_order(frame):
        return _assemble(frame, source)
    frame = frame.sort("item_id", "timestamp")
    twice = frame.filter(pl.struct("item_id", "timestamp").is_duplicated())
    if len(twice):
        raise DataError(f"{source}: {twice['item_id'][0]} has two rows at {twice['timestamp'][0]}")
    return _assemble(frame, source)


def _in_order(frame: pl.DataFrame) -> bool:
    """Do items follow each other by name, and each item's times rise? Then nothing is to be sorted,
    and no time is there twice."""
    runs = frame["item_id"].rle().struct.unnest()
    names = runs["value"].to_list()
    if None in names or any(a >= b for a, b in pairwise(names)):
        return False
    rising = np.diff(frame["timestamp"].to_numpy()) > np.timedelta64(0)
    rising[np.cumsum(runs["len"].to_numpy())[:-1].astype(np.int64) - 1] = True
    return bool(rising.all())


def _assemble(frame: pl.DataFrame, source: str) -> Panel:
    """Panel of a checked frame, sorted by item and time."""
    times = frame["timestamp"].to_numpy()
    values = frame.select(COLUMNS).to_numpy()
    lengths = frame.group_by("item_id", maintain_order=True).len()
    names = lengths["item_id"].to_list()
    edges = np.concatenate([[0], np.cumsum(lengths["len"].to_numpy())]).astype(np.int64)
    spans = [slice(a, b) for a, b in pairwise(edges)]
    timeline = union_of([times[s] for s in spans])
    where = np.searchsorted(timeline, times)
    calendar_of = calendar_groups([times[s] for s in spans])
    calendars = []
    for n in range(max(calendar_of) + 1):
        open_then = np.zeros(len(timeline), dtype=bool)
        for span, kind in zip(spans, calendar_of, strict=True):
            if kind == n:
                open_then[where[span]] = True
        calendars.append(np.flatnonzero(open_then))
    whole = np.isfinite(values).all(axis=1)
    if "amount" in frame.columns:
        amount = frame["amount"].fill_null(np.nan).to_numpy()
        amount = np.where(np.isfinite(amount), amount, derived_amount(values))
        values = np.column_stack([values, amount])
    kept = np.ascontiguousarray(values[whole])
    ends = np.cumsum(whole)
    bars = []
    for name, span, kind in zip(names, spans, calendar_of, strict=True):
        good = whole[span]
        if not good.any():
            raise DataError(f"{source}: {name} has no whole row")
        stop = ends[span.stop - 1]
        sessions = np.searchsorted(calendars[kind], where[span][good])
        bars.append(
            Bars(_frozen(kept)[stop - good.sum() : stop], _frozen(sessions), int((~good).sum()))
        )
    return Panel(
        items=tuple(names),
        timeline=timeline,
        calendars=tuple(calendars),
        calendar_of=tuple(calendar_of),
        bars=tuple(bars),
        source=source,
    )


def derived_amount(bars: Array) -> Array:
    """[...] the money that changed hands in bars [..., F] that do not tell it: the volume times the
    mean of the four prices, as Kronos' authors do."""
    amount: Array = bars[..., VOLUME] * bars[..., :VOLUME].mean(axis=-1)
    return amount


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array


def _stack(parts: Sequence[Array]) -> Array:
    """The parts end to end: the array they are consecutive slices of, else a copy."""
    base = parts[0].base
    whole = isinstance(base, np.ndarray) and base.shape == (sum(map(len, parts)), parts[0].shape[1])
    if isinstance(base, np.ndarray) and whole and all(p.base is base for p in parts):
        starts = np.cumsum([0, *map(len, parts)])
        if all(_address(p) == _address(base[a:]) for p, a in zip(parts, starts, strict=False)):
            return base
    return np.concatenate(parts)


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def calendar_groups(times: Sequence[NDArray[np.datetime64]]) -> list[int]:
    """[I] number of the calendar that each item keeps, from its times: 24/7 items apart, the others
    and those by exchange (see `group_by_calendar`)."""
    timeline = union_of(times)
    open_at_weekends = [keeps_weekends(t) for t in times]
    out = [0] * len(times)
    start = 0
    for kind in sorted(set(open_at_weekends)):
        members = [i for i, k in enumerate(open_at_weekends) if k == kind]
        sessions = [np.searchsorted(timeline, times[i]) for i in members]
        groups = group_by_calendar(sessions, len(timeline))
        for i, group in zip(members, groups, strict=True):
            out[i] = start + group
        start += max(groups) + 1
    return out


# Are the old bars of a panel still what they were? Newer ones do not matter.


TOLERANCE = 1e-4
"""Of log returns and of a bar's shape: dividends re-base adjusted prices, and move no return by
more than rounding."""

Times = NDArray[np.datetime64]


def changed_bars(old: Panel, new: Panel) -> str:
    """The first change of an item's old bars in words, "" where there is none.

    Compared are the log returns of the close and each bar's shape (open, high and low against the
    close): prices that were re-based as a whole have not changed.
    """
    for i, item in enumerate(old.items):
        if item not in new.items:
            return f"{item} is no longer there"
        found = _of_item(old, i, new, new.index(item))
        if found:
            return f"{item} {found}"
    return ""


def _of_item(old: Panel, i: int, new: Panel, j: int) -> str:
    then, now = old.timestamps_of(i), new.timestamps_of(j)
    within = (now >= then[0]) & (now <= then[-1])
    gone, come = np.setdiff1d(then, now), np.setdiff1d(now[within], then)
    if len(gone):
        return f"has no bar on {_day(gone[0])} any more"
    if len(come):
        return f"has a bar on {_day(come[0])} that was not there"
    before, after = old.bars[i].values, new.bars[j].values[within]
    moved = np.abs(_moves(before) - _moves(after)).max(axis=1)
    wrong = np.flatnonzero(moved > TOLERANCE)
    if not len(wrong):
        return ""
    by = f"a log return is off by {moved[wrong[0]]:.2g}"
    return f"is not what it was on {_day(then[wrong[0]])} ({by})"


def _moves(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, 4] log return of the close (0 at the first bar), and open, high and low against it."""
    logs = np.log(values[:, [OPEN, HIGH, LOW, CLOSE]])
    close = logs[:, 3]
    returns = np.diff(close, prepend=close[:1])
    return np.column_stack([returns, logs[:, :3] - close[:, None]])


def _day(time: np.datetime64) -> str:
    return str(time.astype("datetime64[s]")).removesuffix("T00:00:00")
