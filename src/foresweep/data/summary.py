"""A panel in a few plain numbers: what `foresweep data show` prints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foresweep.data.gate.rules import DAY, show_time, usual_step
from foresweep.data.panel import CLOSE, Panel
from foresweep.data.splits import Cut, Part, Split, make_split
from foresweep.data.windows import TrainWindows, Windows
from foresweep.errors import NotEnoughData

WIDTH = 40
"""Stretches of time that an item's picture has."""
USUAL_CONTEXT = 128
"""Bars of context at which the windows of train are counted."""


@dataclass(frozen=True, slots=True)
class ItemSummary:
    """One item: its span, its whole rows, and what is missing between them."""

    item_id: str
    start: str
    end: str
    num_bars: int
    num_masked: int
    num_missing: int  # sessions of its calendar inside its span without a whole row
    always_open: bool  # trades on weekends
    calendar: str  # the exchange whose sessions it keeps, 24/7, 24/5, or empty: its own days
    closes: tuple[float | None, ...]  # [WIDTH] last close of each stretch of the panel's time
    aside: tuple[int, ...]  # [WIDTH] bars of each stretch that are masked or missing


@dataclass(frozen=True, slots=True)
class PartSummary:
    """One part of time for one horizon."""

    name: str
    first: int  # the first of the WIDTH stretches in which it lies
    start: str
    end: str
    num_bars: int
    stride: int
    num_origins: int
    effective_origins: float  # that share no labels
    num_windows: int  # scored; for train: with `train_context` bars, that a model may learn from


@dataclass(frozen=True, slots=True)
class PanelSummary:
    """A panel, and its parts for one horizon (none, with the reason, where it is too short)."""

    source: str
    hash: str
    start: str
    end: str
    step: str  # between neighbouring bars: `1 day`, `15 min`
    num_items: int
    num_times: int
    num_bars: int
    num_masked: int
    horizon: int
    max_context: int | None
    train_context: int | None  # context of the windows counted for train: longer ones are fewer
    items: tuple[ItemSummary, ...]
    parts: tuple[PartSummary, ...]
    problem: str


def summarise(panel: Panel, *, horizon: int = 5, max_context: int | None = None) -> PanelSummary:
    """The summary of a panel and of its split for `horizon`. Raises ConfigError."""
    split, problem = None, ""
    try:
        split = make_split(panel, Cut(horizon, max_context=max_context))
    except NotEnoughData as error:
        problem = str(error)
    return PanelSummary(
        source=panel.source,
        hash=panel.hash,
        start=show_time(panel.timeline[0]),
        end=show_time(panel.timeline[-1]),
        step=_step(panel),
        num_items=panel.num_items,
        num_times=len(panel.timeline),
        num_bars=panel.num_rows,
        num_masked=sum(b.num_masked for b in panel.bars),
        horizon=horizon,
        max_context=split.max_context if split else None,
        train_context=_train_context(split) if split else None,
        items=tuple(_item(panel, i) for i in range(panel.num_items)),
        parts=tuple(_part(panel, split, p) for p in split.parts) if split else (),
        problem=problem,
    )


def _item(panel: Panel, item: int) -> ItemSummary:
    times, bars = panel.timestamps_of(item), panel.bars[item]
    span = int(bars.sessions[-1] - bars.sessions[0]) + 1
    closes, aside = _picture(panel, item)
    return ItemSummary(
        item_id=panel.items[item],
        start=show_time(times[0]),
        end=show_time(times[-1]),
        num_bars=len(times),
        num_masked=bars.num_masked,
        num_missing=span - len(times),
        always_open=panel.always_open(item),
        calendar=kept.name if (kept := panel.kept[panel.calendar_of[item]]) else "",
        closes=closes,
        aside=aside,
    )


def _picture(panel: Panel, item: int) -> tuple[tuple[float | None, ...], tuple[int, ...]]:
    """(last close, bars that are masked or missing) of each of WIDTH stretches of the timeline."""
    bars, positions = panel.bars[item], panel.timeline_of(item)
    closes: list[float | None] = [None] * WIDTH
    stretch = positions * WIDTH // len(panel.timeline)
    last = np.flatnonzero(np.diff(stretch, append=WIDTH))
    for k in last:
        closes[int(stretch[k])] = float(bars.values[k, CLOSE])
    lived = np.arange(bars.sessions[0], bars.sessions[-1] + 1)
    gone = panel.calendars[panel.calendar_of[item]][np.setdiff1d(lived, bars.sessions)]
    aside = np.bincount(gone * WIDTH // len(panel.timeline), minlength=WIDTH)
    return tuple(closes), tuple(int(n) for n in aside)


def _part(panel: Panel, split: Split, part: Part) -> PartSummary:
    return PartSummary(
        name=part.name,
        first=min(part.start * WIDTH // len(panel.timeline), WIDTH - 1),
        start=show_time(panel.timeline[part.start]),
        end=show_time(panel.timeline[part.stop - 1]),
        num_bars=part.num_bars,
        stride=part.stride,
        num_origins=len(part.origins),
        effective_origins=part.effective_origins(split.horizon),
        num_windows=_num_windows(panel, split, part),
    )


def _num_windows(panel: Panel, split: Split, part: Part) -> int:
    if part.name != "train":
        return len(Windows(panel, split, part))
    try:
        return len(TrainWindows(panel, split, part).starts(_train_context(split), split.horizon)[0])
    except NotEnoughData:
        return 0


def _train_context(split: Split) -> int:
    return min(USUAL_CONTEXT, split.max_context)


def _step(panel: Panel) -> str:
    """The usual step of the item with the most bars, in words."""
    longest = int(np.argmax([len(b.values) for b in panel.bars]))
    step = usual_step(panel.timestamps_of(longest))
    units = (("day", 1.0), ("h", 24.0), ("min", 1440.0), ("s", 86400.0))
    for unit, per_day in units:
        count = step / DAY.astype(int) * per_day
        if count >= 1:
            return f"{count:.3g} {unit}{'s' if unit == 'day' and count > 1 else ''}"
    return "less than a second" if step == step else "one bar"
