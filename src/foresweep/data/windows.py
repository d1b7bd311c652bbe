"""Windows: one item at one origin, its context before and its labels after.

    |------- context (C whole rows) -------|--- labels (H bars) ---|
                                           ^ origin: the last bar a model may see

`Windows` are what a part is scored on; `TrainWindows` are what a model may learn from. Both cut
views out of the panel's own arrays: a bar is copied only when a batch is put together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import CLOSE, Array, IntArray, Panel
from foresweep.data.splits import REFITTED, Part, Split
from foresweep.errors import NotEnoughData

METRIC_VERSION, BEFORE_ITEMS = 2, 1
"""Part of every fingerprint: raise it when a metric's definition changes. Version 2: every item
weighs the same. Where all items have as many windows nothing changed, and 1 still stands."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a model may see. Shapes: N windows, C bars, F columns, H bars ahead."""

    values: Array  # [N, C, F] float64, raw prices, volume, amount; NaN where `mask` is False
    columns: tuple[str, ...]
    item_ids: tuple[str, ...]  # [N]
    timestamps: NDArray[np.datetime64]  # [N, C]; NaT where `mask` is False
    future_timestamps: NDArray[np.datetime64]  # [N, H] calendar, no values
    mask: NDArray[np.bool_]  # [N, C] False on the left where an item has fewer than C whole rows

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def last_close(self) -> Array:
        """[N] close of the origin."""
        return self.values[:, -1, self.columns.index("close")]

    @property
    def lengths(self) -> IntArray:
        """[N] whole rows seen by each window."""
        return np.asarray(self.mask.sum(axis=1), dtype=np.int64)

    def column(self, name: str) -> Array:
        """[N, C] one column."""
        return self.values[:, :, self.columns.index(name)]

    def take(self, index: IntArray | slice) -> Context:
        """The windows at `index`, in that order."""
        chosen = np.arange(len(self))[index]
        return Context(
            values=self.values[chosen],
            columns=self.columns,
            item_ids=tuple(self.item_ids[i] for i in chosen),
            timestamps=self.timestamps[chosen],
            future_timestamps=self.future_timestamps[chosen],
            mask=self.mask[chosen],
        )

    def last(self, length: int) -> Context:
        """The same windows seen through their last `length` bars."""
        return Context(
            values=self.values[:, -length:],
            columns=self.columns,
            item_ids=self.item_ids,
            timestamps=self.timestamps[:, -length:],
            future_timestamps=self.future_timestamps,
            mask=self.mask[:, -length:],
        )


def make_context(panel: Panel, item: IntArray, row: IntArray, length: int, horizon: int) -> Context:
    """Contexts of `length` bars ending at whole row `row` [N] of item `item` [N]."""
    back = np.arange(1 - length, 1)
    mask = row[:, None] + back >= 0
    gather = np.where(mask, (panel.offsets[item] + row)[:, None] + back, 0)
    values, past = panel.stacked[gather], panel.stacked_times[gather]
    values[~mask], past[~mask] = np.nan, np.datetime64("NaT")
    session = panel.stacked_sessions[panel.offsets[item] + row]
    future = panel.sessions_ahead(item, session, horizon)
    ids = tuple(panel.items[i] for i in item)
    return Context(values, panel.columns, ids, past, future, mask)


@dataclass(frozen=True, eq=False)
class Windows:
    """The scored windows of one part: every valid (origin, item) cell, origins first.

    A cell is valid when the origin and all H labels are whole rows of the item and at least
    `split.min_context` whole rows stand before it; all others are NaN in the loss panel.
    """

    panel: Panel
    split: Split
    part: Part
    only: IntArray | None = None  # indices of those to keep, among all of the part; None: all

    @property
    def horizon(self) -> int:
        return self.split.horizon

    @property
    def shape(self) -> tuple[int, int]:
        """(origins, items)"""
        return len(self.part.origins), len(self.split.items)

    @cached_property
    def _cells(self) -> tuple[IntArray, IntArray, IntArray]:
        origin, item, row = [], [], []
        for column, i in enumerate(self.split.items):
            rows = _rows_with_labels(self.panel, i, self.part, self.horizon)
            good = np.flatnonzero(rows >= self.split.min_context - 1)
            origin.append(good)
            item.append(np.full(len(good), column))
            row.append(rows[good])
        at, column_of, row_of = (np.concatenate(x) for x in (origin, item, row))
        order = np.lexsort((column_of, at))
        if self.only is not None:
            order = order[self.only]
        return at[order], column_of[order], row_of[order]

    @property
    def origin(self) -> IntArray:
        """[N] index of the window's origin in `part.origins`."""
        return self._cells[0]

    @property
    def column(self) -> IntArray:
        """[N] index of the window's item in `split.items`: its column in a loss panel."""
        return self._cells[1]

    @property
    def item(self) -> IntArray:
        """[N] index of the window's item in `panel.items`."""
        return np.asarray(self.split.items)[self.column]

    @property
    def row(self) -> IntArray:
        """[N] the origin's row among its item's whole rows."""
        return self._cells[2]

    @property
    def _at(self) -> IntArray:
        """[N] the origin's row in `panel.stacked`."""
        at: IntArray = self.panel.offsets[self.item] + self.row
        return at

    def __len__(self) -> int:
        return len(self.row)

    @cached_property
    def label_bars(self) -> Array:
        """[N, H, F] the bars after each origin. Never given to a model."""
        ahead = np.arange(1, self.horizon + 1)
        bars: Array = self.panel.stacked[self._at[:, None] + ahead]
        return bars

    @property
    def labels(self) -> Array:
        """[N, H] closes after each origin. Never given to a model."""
        return self.label_bars[:, :, CLOSE]

    @property
    def label_span(self) -> tuple[IntArray, IntArray]:
        """[N], [N] the places on the panel's timeline of each window's first and last label."""
        first, last = np.empty(len(self), np.int64), np.empty(len(self), np.int64)
        for i in np.unique(self.item):
            own = self.item == i
            times = self.panel.timeline_of(int(i))
            first[own], last[own] = times[self.row[own] + 1], times[self.row[own] + self.horizon]
        return first, last

    @cached_property
    def last_close(self) -> Array:
        """[N] close at each origin."""
        closes: Array = self.panel.stacked[self._at, CLOSE]
        return closes

    def context(self, length: int, select: slice | IntArray = slice(None)) -> Context:
        """Contexts of `length` bars for the selected windows."""
        return make_context(self.panel, self.item[select], self.row[select], length, self.horizon)

    def batches(self, length: int, size: int) -> Iterator[tuple[slice, Context]]:
        """All windows in order, `size` at a time."""
        for start in range(0, len(self), size):
            chosen = slice(start, min(start + size, len(self)))
            yield chosen, self.context(length, chosen)

    def as_panel(self, values: Array) -> Array:
        """Lay [N, ...] out as [origins, items, ...], NaN where a cell is not valid."""
        out = np.full((*self.shape, *values.shape[1:]), np.nan)
        out[self.origin, self.column] = values
        return out

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every (item, origin, label) cell, the horizon and the metric version, and of how
        often what forecasts them was refitted: such losses stand in no table with others.

        Labels enter as moves from the origin's close, to 1e-8: a re-based (dividend-adjusted)
        history keeps its fingerprint, another price does not.
        """
        counts = np.bincount(self.column)
        alike = len(np.unique(counts[counts > 0])) <= 1
        version = BEFORE_ITEMS if alike else METRIC_VERSION
        times = self.split.refits if self.part.name in REFITTED else 1
        how = f" refits {times}" if times > 1 else ""
        digest = hashlib.sha256(f"metrics {version} horizon {self.horizon}{how}".encode())
        digest.update("\n".join(self.panel.items[i] for i in self.split.items).encode())
        digest.update(self.panel.timeline[self.part.origins].astype("int64").tobytes())
        digest.update(self.origin.astype("int64").tobytes())
        digest.update(self.column.astype("int64").tobytes())
        moves = np.round(self.labels / self.last_close[:, None], 8) + 0.0
        digest.update(moves.tobytes())
        return digest.hexdigest()


def _rows_with_labels(panel: Panel, item: int, part: Part, horizon: int) -> IntArray:
    """[O] the origin's row, or -1 where the origin or one of its H labels is not a whole row, or
    a label lies outside the part (an item with a calendar of its own may reach further)."""
    sessions, times = panel.bars[item].sessions, panel.timeline_of(item)
    wanted = panel.session_at(item, part.origins)  # -1 where its calendar has no such session
    row = np.searchsorted(sessions, wanted)
    inside = (wanted >= 0) & (row + horizon < len(sessions))
    safe = np.where(inside, row, 0)
    first, last = np.minimum([safe + 1, safe + horizon], len(sessions) - 1)
    whole = (sessions[safe] == wanted) & (sessions[last] == wanted + horizon)
    within = (times[first] >= part.start) & (times[last] < part.stop)
    return np.where(inside & whole & within, row, -1)


@dataclass(frozen=True, slots=True)
class Fresh:
    """Newer bars that a training is to see more often than their number says; the rest of what it
    draws is a replay of the old ones."""

    after: np.datetime64  # windows whose last label is later are fresh
    share: float  # of the windows drawn, below 1


@dataclass(frozen=True, eq=False)
class TrainWindows:
    """What a model may learn from: the bars of one part, and no bar after it.

    The arrays end where the part ends, so no code that is handed this can see further.
    """

    panel: Panel
    split: Split
    part: Part
    fresh: Fresh | None = None

    @cached_property
    def _ends(self) -> IntArray:
        """[I] number of whole rows of each item before the part's end."""
        return np.array(
            [
                np.searchsorted(self.panel.timeline_of(i), self.part.stop, side="left")
                for i in range(self.panel.num_items)
            ]
        )

    @property
    def items(self) -> tuple[str, ...]:
        return self.panel.items

    def values(self, item: int) -> Array:
        """[n, F] a view of the item's whole rows up to the part's end."""
        return self.panel.bars[item].values[: self._ends[item]]

    def timestamps(self, item: int) -> NDArray[np.datetime64]:
        """[n] the times of `values(item)`."""
        return self.panel.timestamps_of(item)[: self._ends[item]]

    def starts(self, context: int, labels: int) -> tuple[IntArray, IntArray]:
        """(item [M], row [M]) of every window of `context` + `labels` rows whose labels all lie
        in the part, on consecutive sessions. `row` is the first row of the context.

        Raises NotEnoughData when no item is long enough.
        """
        items, rows = [], []
        for i in range(self.panel.num_items):
            sessions = self.panel.bars[i].sessions[: self._ends[i]]
            times = self.panel.timeline_of(i)[: self._ends[i]]
            last = np.arange(context - 1, len(sessions) - labels)  # row of the origin
            whole = sessions[last + labels] - sessions[last] == labels
            inside = times[last + 1] >= self.part.start
            good = last[whole & inside]
            items.append(np.full(len(good), i))
            rows.append(good - context + 1)
        item, row = np.concatenate(items), np.concatenate(rows)
        if not len(item):
            longest = int(self._ends.max(initial=0))
            raise NotEnoughData(
                f"no item has {context} + {labels} consecutive bars in {self.part.name!r} "
                f"(the longest has {longest}); use a shorter context or horizon, or more data"
            )
        return (item, row) if self.fresh is None else self._more_often(item, row, context + labels)

    def _more_often(self, item: IntArray, row: IntArray, length: int) -> tuple[IntArray, IntArray]:
        """The windows, those with a fresh label so often that they are about their share."""
        assert self.fresh is not None
        last = self.panel.stacked_times[self.panel.offsets[item] + row + length - 1]
        new = last > self.fresh.after
        num, share = int(new.sum()), self.fresh.share
        times = round(share / (1 - share) * (len(new) - num) / max(num, 1))
        more = max(times - 1, 0)
        return (
            np.concatenate([item, *[item[new]] * more]),
            np.concatenate([row, *[row[new]] * more]),
        )

    def cut(
        self, item: IntArray, row: IntArray, length: int
    ) -> tuple[Array, NDArray[np.datetime64]]:
        """[B, length, F] bars and [B, length] times, from row `row` [B] of item `item` [B].

        Raises IndexError where a window would leave the part.
        """
        if len(row) and (np.min(row) < 0 or np.any(row + length > self._ends[item])):
            raise IndexError(f"a window of {length} rows leaves {self.part.name!r}")
        gather = (self.panel.offsets[item] + row)[:, None] + np.arange(length)
        return self.panel.stacked[gather], self.panel.stacked_times[gather]
