"""The Python face of the search: one call from a script or a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foresweep.records import Run, Sweep
from foresweep.search.crew import Crew
from foresweep.search.events import Event, Listener, SeedsCompared, TrialFinished, TrialSkipped
from foresweep.search.plan import SweepPlan, by_hand
from foresweep.search.planrecord import plan_of
from foresweep.search.sweep import ALONE, resume_sweep, run_sweep
from foresweep.settings import load_settings
from foresweep.tracker.tracker import Tracker


def sweep(
    plan: SweepPlan,
    *,
    db: str | Path | None = None,
    runs: str | Path | None = None,
    listen: Listener | None = None,
    crew: Crew = ALONE,
) -> Sweep:
    """Run a sweep and give back its record.

    `db` and `runs` say where results live (default: as the command line does); `listen` is called
    with every event (search/events.py); `crew` says how many workers there are. Raises what
    `run_sweep` raises.
    """
    places = load_settings(database=db, runs_dir=runs)
    with Tracker(places.database) as tracker:
        return run_sweep(
            plan,
            tracker=tracker,
            runs_dir=places.runs_dir,
            listen=listen or _nobody_listens,
            crew=crew,
        )


def resume(
    sweep_id: str = "latest",
    *,
    db: str | Path | None = None,
    runs: str | Path | None = None,
    listen: Listener | None = None,
    crew: Crew = ALONE,
) -> Sweep:
    """Go on with a sweep on record, or join its other heads. Raises what `resume_sweep` raises."""
    places = load_settings(database=db, runs_dir=runs)
    with Tracker(places.database, create=False) as tracker:
        known = tracker.get_sweep(sweep_id)
        return resume_sweep(
            known.sweep_id,
            plan_of(known),
            tracker=tracker,
            runs_dir=places.runs_dir,
            listen=listen or _nobody_listens,
            crew=crew,
        )


def train(
    plan: SweepPlan,
    hyperparams: Mapping[str, Any],
    *,
    db: str | Path | None = None,
    runs: str | Path | None = None,
) -> Run:
    """Train one config of the plan's one model, tracked like any other; the run that came of it.

    Where an equal config was trained before, that run; of several seeds the median one. Raises what
    `run_sweep` raises.
    """
    found: list[Run] = []
    plan = by_hand(plan, hyperparams)
    (wanted,) = plan.proposals

    def listen(event: Event) -> None:
        if isinstance(event, TrialFinished | TrialSkipped):
            run = event.run if isinstance(event, TrialFinished) else event.earlier
            if run.model_name == wanted.model:
                found.append(run)
        elif isinstance(event, SeedsCompared):
            found.append(event.chosen)

    sweep(plan, db=db, runs=runs, listen=listen)
    return found[-1]


def _nobody_listens(event: Event) -> None:
    """The null listener."""
