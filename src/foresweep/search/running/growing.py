"""A test that goes on: the bars that came after a sweep's test, forecast as its test was.

The windows of the sweep's own test stay as they are; behind them come those of newer bars of the
same source, at the same stride, by the same weights. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from foresweep.data.panel import Panel, changed_bars
from foresweep.data.splits import PARTS, Cut, Split, make_split
from foresweep.data.tables import read_panel
from foresweep.errors import DataError, PanelChanged
from foresweep.evaluation.backtest import LOSSES, evaluate, last_value
from foresweep.models.registry import BASELINES
from foresweep.records import Run
from foresweep.search.engines.base import Channel, run_task
from foresweep.search.engines.local import LocalEngine
from foresweep.search.running.opening import SEALED, Source, mixed, sources_of
from foresweep.search.stage import cut_of, keep_panel, reopen, today
from foresweep.tracker.tracker import Tracker

GROWN = "grown"
"""Folder beside a run's parts, with what came after its own test in `test`."""


def lengthened(split: Split, old: Panel, new: Panel) -> Split:
    """The split with test up to the last bar of `new`, which holds `old` and what came since.

    Raises PanelChanged where the old bars or items are not the same: another test would be read.
    """
    if changed := changed_bars(old, new):
        raise PanelChanged(f"{changed}: the test cannot go on from there; give back the old data")
    if new.items != old.items or not np.array_equal(
        new.timeline[: len(old.timeline)], old.timeline
    ):
        raise PanelChanged(
            "the items or the days of the source are others than the sweep's: the test cannot go "
            "on from there; give the same items"
        )
    test, bars = split.part(SEALED), new.eligible
    first = int(np.searchsorted(bars, test.origins[0]))
    origins = bars[first : len(bars) - split.horizon : test.stride]
    if not np.array_equal(origins[: len(test.origins)], test.origins):
        raise PanelChanged("the bars that count are others than the sweep's; sweep again")
    more = int((bars >= test.stop).sum())
    longer = replace(test, stop=int(bars[-1]) + 1, num_bars=test.num_bars + more, origins=origins)
    parts = tuple(longer if name == SEALED else split.part(name) for name in PARTS)
    return replace(split, parts=parts)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Growing:
    """All that it takes to forecast a run's test with what came since."""

    run_id: str
    before: Path  # the sweep's panel
    now: Path
    cut: Cut
    sources: tuple[Source, ...]
    method: str | None  # of an ensemble
    out: Path

    def make(self) -> None:
        """Forecast and score; losses stand under `out` afterwards."""
        old, new = read_panel(self.before), read_panel(self.now)
        split = lengthened(make_split(old, self.cut), old, new)
        forecast = mixed(self.sources, self.method, new, split)
        evaluate(last_value(split), new, split, parts=(SEALED,), out=self.out,
                 made={SEALED: forecast})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Grow:
    """Task: forecast the grown tests of some runs."""

    runs: tuple[Growing, ...]

    def __call__(self, channel: Channel) -> int:
        for one in self.runs:
            one.make()
        return len(self.runs)


def newer_bars(tracker: Tracker, run: Run) -> tuple[Panel, Panel] | None:
    """(the sweep's panel, its source as it is today) where that holds newer bars that make an
    origin more; None where it does not, or is not there any more.

    Raises PanelChanged where old bars are not what they were.
    """
    sweep = tracker.get_sweep(str(run.sweep_id))
    old, split = reopen(sweep, Path(str(run.forecasts_path)).parent)
    try:
        new = today(sweep)
    except DataError:  # gone, or not to be read any more: the test ends where it ended
        return None
    longer = lengthened(split, old, new).part(SEALED)
    return (old, new) if len(longer.origins) > len(split.part(SEALED).origins) else None


def forecast_grown(tracker: Tracker, runs: Sequence[Run]) -> dict[str, Path]:
    """{run_id: file of losses of test and of what came since} of runs of one sweep; empty where
    nothing came. The caller has put on record that this test is read.

    Raises CheckpointError where weights are gone, PanelChanged.
    """
    found = newer_bars(tracker, runs[0])
    if found is None:
        return {}
    tasks = []
    for run in runs:
        folder = Path(str(run.forecasts_path))
        sweep = tracker.get_sweep(str(run.sweep_id))
        before, now = (keep_panel(folder.parent, panel) for panel in found)
        sources, method = sources_of(tracker, run)
        tasks.append(
            Growing(run.run_id, before, now, cut_of(sweep), sources, method, folder / GROWN)
        )
    models = {s.model for one in tasks for s in one.sources} - set(BASELINES)
    engine = LocalEngine(tuple(sorted(models)))
    engine.warm_up()
    try:
        with TemporaryDirectory() as scratch:
            run_task(engine, Grow(tuple(tasks)), log=Path(scratch) / "log")
    finally:
        engine.close()
    return {one.run_id: one.out / SEALED / LOSSES for one in tasks}
