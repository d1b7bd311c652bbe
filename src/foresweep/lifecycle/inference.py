"""What is in service, loaded: the champion of a slot and its shadows, and forecasts put on record.

from foresweep import load_champion
load_champion("prices-h5").predict(frame)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foresweep.data.panel import Panel
from foresweep.data.reading.frames import Source
from foresweep.data.reading.sources import load_panel
from foresweep.errors import ForesweepError
from foresweep.evaluation.predict import Forecaster, PanelForecast, iso
from foresweep.lifecycle.champion import checkpoint_in_service, find_slot, require_champion
from foresweep.models.base import DEFAULT_LEVELS, Levels, Resources
from foresweep.settings import load_settings
from foresweep.tracker.service import CHAMPION, SHADOW, Entry, Service, Slot
from foresweep.tracker.tracker import Tracker

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A checkpoint, its hashes verified, ready to forecast."""

    forecaster: Forecaster

    @property
    def card(self) -> Mapping[str, Any]:
        """What is on record of it: run, scores on val, what it was trained on, licence."""
        return self.forecaster.card

    def predict(
        self,
        frame: Source | Panel,
        *,
        horizon: int | None = None,
        levels: Levels = DEFAULT_LEVELS,
    ) -> pd.DataFrame:
        """Quantiles of the next closes of every item, one line per item and lead: item_id,
        timestamp, predictions (the median), a column for each level, origin, lead, last_close.

        `frame`: whatever a sweep takes as data (a long DataFrame item_id, timestamp, open, high,
        low, close[, volume]; a folder), through the same data gate; or a Panel. Items with too few
        bars are left out and named in `.attrs["refused"]`. Raises DataError, NotEnoughData,
        ForecastError.
        """
        panel = frame if isinstance(frame, Panel) else load_panel(frame).panel
        return self.forecaster.predict(panel, horizon=horizon, levels=levels).to_frame()


@dataclass(frozen=True, slots=True, eq=False)
class InService(LoadedModel):
    """A run in service, loaded."""

    entry: Entry
    role: str  # champion or shadow

    @property
    def run_id(self) -> str:
        return self.entry.run_id

    def forecast(
        self, panel: Panel, *, horizon: int | None = None, levels: Levels = DEFAULT_LEVELS
    ) -> PanelForecast:
        """What `predict` gives, of a checked panel, as arrays."""
        return self.forecaster.predict(panel, horizon=horizon, levels=levels)


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """A slot's champion and shadows, loaded; a shadow that cannot be loaded is left out."""

    slot: Slot
    champion: InService
    shadows: tuple[InService, ...] = ()
    left_out: Mapping[str, str] | None = None  # run -> why

    def __iter__(self) -> Iterator[InService]:
        """The champion first."""
        return iter((self.champion, *self.shadows))


def load_champion(
    slot: str | None = None,
    *,
    db: str | Path | None = None,
    resources: Resources | None = None,
) -> InService:
    """The champion of a slot (default: the only one), its checkpoint verified and loaded.

    Raises NotFound, UsageError where there are several slots, CheckpointError.
    """
    with Tracker(load_settings(database=db).database, create=False) as tracker:
        entry = require_champion(find_slot(Service(tracker.store), slot))
    return load_entry(entry, CHAMPION, resources)


def load_slot(slot: Slot, resources: Resources | None = None) -> Serving:
    """A slot's champion and shadows, loaded. Raises NotFound, CheckpointError (of the champion)."""
    champion = load_entry(require_champion(slot), CHAMPION, resources)
    shadows, left_out = [], {}
    for entry in slot.shadows:
        try:
            shadows.append(load_entry(entry, SHADOW, resources))
        except ForesweepError as error:  # a shadow must never take the champion down
            left_out[entry.run_id] = str(error)
    return Serving(slot, champion, tuple(shadows), left_out)


def load_entry(entry: Entry, role: str, resources: Resources | None = None) -> InService:
    """Raises CheckpointError where it is gone or not what was put in service."""
    checkpoint = checkpoint_in_service(entry)
    return InService(Forecaster.load(checkpoint.path, resources), entry, role)


# On record.


def record_forecasts(
    tracker: Tracker, made: Mapping[InService, PanelForecast] | Any, *, source: str
) -> int:
    """Put forecasts of what is in service on record, hash-chained with the time they were made;
    how many were not there yet. Durable when it returns.

    `made`: (InService, PanelForecast) pairs, or a mapping of them; `source`: who asked (predict,
    serve, monitor). Raises TrackerError.
    """
    pairs = made.items() if isinstance(made, Mapping) else made
    rows = [row for served, told in pairs for row in ledger_rows(served, told)]
    return Service(tracker.store).record(rows, source=source)


def ledger_rows(served: InService, told: PanelForecast) -> list[dict[str, Any]]:
    """One row for the record per item of a forecast."""
    entry, levels = served.entry, [float(level) for level in told.forecast.levels]
    return [
        {
            "slot": entry.slot,
            "role": served.role,
            "run_id": entry.run_id,
            "manifest": entry.manifest,
            "item_id": item,
            "origin": iso(told.origins[n]),
            "horizon": told.times.shape[1],
            "last_close": float(told.last_close[n]),
            "times": [iso(time) for time in told.times[n]],
            "levels": levels,
            "quantiles": told.forecast.values[n].tolist(),
            "input_hash": told.input_hashes[n],
        }
        for n, item in enumerate(told.items)
    ]
