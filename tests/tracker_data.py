"""Sweeps made by hand, for tests of the tracker."""

from __future__ import annotations

from typing import Any

from foresweep.records import Sweep
from foresweep.tracker.tracker import Tracker

CELLS = {"tune": "cells-tune", "val": "cells-val", "test": "cells-test"}


def make_sweep(tracker: Tracker, **changed: Any) -> Sweep:
    asked: dict[str, Any] = {
        "models": ["toto"],
        "mode": "quick",
        "objective": "pct_mae",
        "horizon": 5,
        "seed": 0,
        "panel_hash": "panel",
        "task_hash": "task",
        "fingerprints": CELLS,
        "plan": {"max_runs": 3},
    }
    return tracker.create_sweep(**asked | changed)
