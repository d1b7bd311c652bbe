"""The Python face of the verdict: one call from a script or a notebook."""

from __future__ import annotations

from pathlib import Path

from foresweep.records import Verdict
from foresweep.selection.judged import verdict_on_runs
from foresweep.settings import load_settings
from foresweep.tracker.tracker import Tracker


def verdict(
    run_id: str | None = None,
    *,
    sweep_id: str | None = None,
    db: str | Path | None = None,
    who: str = "",
) -> Verdict:
    """The verdict on a run; without one, on the best on val of a sweep (default: the latest),
    judged together with those of the sweeps at other horizons that were asked for with it.

    Where every other gate is passed the sealed test is opened, and the look is on record. Raises
    what `verdict_on_runs` raises.
    """
    with Tracker(load_settings(database=db).database, create=False) as tracker:
        found = verdict_on_runs(tracker, [run_id], sweep_id=sweep_id, who=who)
        if len(found) == 1:
            return found[0]
        horizon = tracker.get_sweep(sweep_id or "latest").horizon
        return next(v for v in found if v.horizon == horizon)
