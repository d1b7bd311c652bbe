"""A year in service on real prices, its bars revealed one at a time.

Forecast, truth, monitor, shadow, swap, update, rollback; nothing ever reads a bar to come.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from foresweep.data.demo import demo_panel
from foresweep.data.panel import Panel, panel_from_frame
from foresweep.data.reading import sources
from foresweep.data.splits import Cut
from foresweep.lifecycle.champion import promote, rollback
from foresweep.lifecycle.evidence import promote_by_live
from foresweep.lifecycle.update import update
from foresweep.lifecycle.watches import State
from foresweep.records import Run
from foresweep.search.plan import SweepPlan
from foresweep.search.sweep import train
from foresweep.tracker.monitoring import Monitoring
from foresweep.tracker.service import Service
from foresweep.tracker.tracker import Tracker
from live_world import World

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("update")]
CONFIG = {"context_length": 64, "batch_size": 16, "lr": 2e-3}
SLOT = "demo"


class FutureRead(AssertionError):
    """A bar was asked for that has not come yet."""


class Guarded(World):
    """The demo's prices, which only come out of here, and only up to now."""

    def bars(self, last: np.datetime64) -> pl.DataFrame:
        if last > self.times[self.now]:
            raise FutureRead(f"{last} is after {self.times[self.now]}")
        return self.frame.filter(pl.col("timestamp") <= last)

    @property
    def panel(self) -> Panel:
        return panel_from_frame(self.bars(self.times[self.now]), source="revealed")

    def file(self, folder: Path) -> str:
        place = folder / f"until-{self.now}.parquet"
        self.bars(self.times[self.now]).write_parquet(place)
        return str(place)


def trained(world: Guarded, folder: Path, steps: int) -> Run:
    """A tiny Chronos-2 of so many steps, trained on what is known now."""
    plan = SweepPlan(
        models=("chronos2",),
        data=world.file(folder),
        cut=Cut(horizon=1, stride=10),
        objective="pinball",
    )
    config = CONFIG | {"max_steps": steps}
    return train(plan, config, db=folder / "sweeps.db", runs=folder / "runs")


def nobody(*_: object) -> object:
    raise FutureRead("the whole demo was read")


@pytest.mark.parametrize("bars", [50, pytest.param(250, marks=pytest.mark.soak)])
def test_a_live_year(bars: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = demo_panel().to_frame()
    monkeypatch.setattr(sources, "demo_items", nobody)
    with Tracker(tmp_path / "sweeps.db") as tracker:
        times = len(np.unique(frame["timestamp"].to_numpy()))
        world = Guarded(tracker, frame, SLOT, now=times - bars - 12)
        with pytest.raises(FutureRead):
            world.bars(world.times[world.now + 1])
        # a champion that learnt next to nothing, and beside it a shadow that learnt something
        weak, better = trained(world, tmp_path, 2), trained(world, tmp_path, 60)
        promote(tracker, weak.run_id, slot=SLOT, force_reason="to begin with")
        promote(tracker, better.run_id, slot=SLOT, shadow=True)
        states, swapped = [], None
        for day in range(bars):
            world.forecast(monkeypatch)
            world.now += 1
            if day % 10 and day != bars - 1:
                continue
            check = world.look()
            states.append(check.state)
            if check.shadows and check.shadows[0].is_found and swapped is None:
                swapped = day
                promote_by_live(tracker, better.run_id)
        assert swapped is not None, check
        # the champion that came out of it is trained on; whatever comes of it, one is in service
        slot = Service(tracker.store).slot(SLOT)
        done = update(
            tracker, slot, world.panel, runs_dir=tmp_path / "runs", listen=lambda _: None, steps=8,
            compare_bars=60, data=world.file(tmp_path),
        )  # fmt: skip
        slot = Service(tracker.store).slot(SLOT)
        held = done.run.run_id if done.promoted else better.run_id
        assert slot.champion is not None
        assert slot.champion.run_id == held
        before = slot.before[0].run_id
        assert rollback(tracker, SLOT, reason="for a test").champion.run_id == before  # type: ignore[union-attr]
        for _ in range(10):
            world.forecast(monkeypatch)
            world.now += 1
        world.look()
        _nothing_lost(world, tracker, bars + 10)
        assert State.ALARM in states or swapped < bars


def _nothing_lost(world: Guarded, tracker: Tracker, bars: int) -> None:
    """Each bar's forecasts of the champion are on record and scored, each in time and once."""
    made = [f for f in Service(tracker.store).forecasts() if f["role"] == "champion"]
    assert Service(tracker.store).verify() == []
    assert len(made) == 6 * bars
    scores = Monitoring(tracker.store).scores(SLOT, role="champion")
    assert sorted(r["number"] for r in scores) == sorted(f["number"] for f in made)
    assert all(r["note"] == "" for r in scores)
    assert max(f["origin"] for f in made) < str(world.times[world.now])[:19]
