"""A made-up market whose bars are revealed one at a time, with something in service."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from foresweep.data.panel import Panel, panel_from_frame
from foresweep.lifecycle.inference import load_slot, record_forecasts
from foresweep.lifecycle.monitor import Check, monitor
from foresweep.tracker import service
from foresweep.tracker.service import Service
from foresweep.tracker.tracker import Tracker


@dataclass
class World:
    """What the past is: everything up to bar `now`. Nobody is handed a bar beyond it."""

    tracker: Tracker
    frame: pl.DataFrame  # all of it, which only `panel` reads
    slot: str
    now: int  # number of the newest bar
    offset_h: float = 20.0  # hours after the bar's time at which its day ends
    times: Any = field(init=False)
    kept: dict[int, Panel] = field(default_factory=dict)  # made before a fork: polars has threads

    def __post_init__(self) -> None:
        self.times = np.unique(self.frame["timestamp"].to_numpy())

    @property
    def clock(self) -> datetime:
        """The evening of the newest bar."""
        day = self.times[self.now].astype("datetime64[us]").astype(datetime)
        return day.replace(tzinfo=UTC) + timedelta(hours=self.offset_h)

    @property
    def panel(self) -> Panel:
        """The bars that are known now."""
        if self.now in self.kept:
            return self.kept[self.now]
        known = self.frame.filter(pl.col("timestamp") <= self.times[self.now])
        found = panel_from_frame(known, source="revealed")
        assert found.timeline[-1] == self.times[self.now]
        return found

    def forecast(self, patch: pytest.MonkeyPatch) -> int:
        """What is in service forecasts from the newest bar, tonight; how many were new."""
        clock = self.clock

        class Tonight(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
                return clock

        with patch.context() as tonight:
            tonight.setattr(service, "datetime", Tonight)
            serving = load_slot(Service(self.tracker.store).slot(self.slot))
            panel = self.panel
            made = [(one, one.forecast(panel)) for one in serving]
            return record_forecasts(self.tracker, made, source="test")

    def look(self, **more: Any) -> Check:
        """The monitor, tonight."""
        slot = Service(self.tracker.store).slot(self.slot)
        more.setdefault("now", self.clock)
        return monitor(self.tracker, slot, self.panel, **more)

    def live(self, bars: int, patch: pytest.MonkeyPatch) -> None:
        """So many bars come, and what is in service forecasts from each."""
        for _ in range(bars):
            self.forecast(patch)
            self.now += 1
