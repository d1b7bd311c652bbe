"""What the same search shows on surrogate prices: luck, or a leak."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foresweep.metrics import METRICS
from foresweep.models.registry import ENSEMBLE
from foresweep.records import Run, Sweep
from foresweep.search.plan import ASKED
from foresweep.search.running.leaks import hunt_fits
from foresweep.tracker.tracker import Tracker

POINTS = "pct_mae"
"""Judged by it, skill on flipped signs can only be a leak; `pinball` also rewards knowing how far
prices will move, and surrogates keep that."""

FITTED_LATE = "fitted on later bars"
"""Tag of a run on surrogate prices whose config fits something to bars after tune."""


def look_at_fits(tracker: Tracker, run_id: str, runs_dir: Path) -> None:
    """Train the config of a surrogate's candidate for a moment with bars after tune replaced, and
    put on record if anything that it fits moves, weights or calibration. So small a fit shows in no
    score: a scale or a level that was fitted on val gains less there than luck does.

    Raises what the hunt raises.
    """
    run = tracker.get_run(run_id)
    if run.model_name == ENSEMBLE:
        return
    found = hunt_fits(run, tracker.get_sweep(str(run.sweep_id)), runs_dir).findings
    if found:
        tracker.add_tag(run_id, FITTED_LATE)
        tracker.add_note(run_id, f"leak hunt: {found[0].says}")


def surrogates_of(tracker: Tracker, sweep: Sweep) -> tuple[dict[str, Any], ...]:
    """The last verdict on each surrogate of a sweep, as plain values, oldest first; () where it has
    none. `alarm`: something was found where nothing can be."""
    mine = {
        other.sweep_id: said
        for other in reversed(tracker.list_sweeps())
        for said in [other.plan.get(ASKED, {}).get("surrogate")]
        if said and said["of"] == sweep.sweep_id
    }
    if not mine:
        return ()
    of_run = {
        run.run_id: run
        for sweep_id in mine
        for run in tracker.get_runs(sweep_id=sweep_id, include_hidden=True)
    }
    last: dict[str, Mapping[str, Any]] = {}
    for judged in tracker.judgings.verdicts():
        run = of_run.get(judged["run_id"])
        if run is not None and judged["outcome"]:
            last[str(run.sweep_id)] = judged["content"]
    return tuple(_told(of_run[v["candidate"]], mine[of], v) for of, v in last.items())


def _told(run: Run, said: Mapping[str, Any], verdict: Mapping[str, Any]) -> dict[str, Any]:
    found = verdict["candidate"] in verdict["members"]
    late = FITTED_LATE in run.tags
    return {
        "sweep_id": run.sweep_id,
        "kind": said["kind"],
        "seed": said["seed"],
        "metric": verdict["metric"],
        "num_trials": verdict["num_trials"],
        "candidate": verdict["candidate"],
        "skills": {one["opponent"]: one["raw_skill"] for one in verdict["against"]},
        "found": found,
        "fitted_late": late,
        "alarm": late or (found and said["kind"] == "signs" and verdict["metric"] == POINTS),
    }


def in_words(told: Mapping[str, Any]) -> str:
    """One line of a surrogate's result."""
    how = {"signs": "signs of returns flipped", "blocks": "stretches of 20 bars in another order"}
    shown = " and ".join(
        f"{100 * skill:+.2g} % against {name}"
        for name, skill in told["skills"].items()
        if skill is not None
    )
    line = (
        f"On surrogate prices ({how[told['kind']]}, seed {told['seed']}) this search would have "
        f"shown {shown} on val ({METRICS[told['metric']].name}, best of {told['num_trials']})"
    )
    if told.get("fitted_late"):
        return (
            f"LEAK ALARM: {line[0].lower()}{line[1:]}; whatever it shows, something that its "
            f"candidate fits moves with bars after tune, which it must not know: foresweep doctor "
            f"--leaks {told['candidate']}"
        )
    if told["alarm"]:
        return (
            f"LEAK ALARM: {line[0].lower()}{line[1:]}, and passed for skill, where there is "
            f"nothing to foretell. Some forecast knows what it must not: foresweep doctor --leaks "
            f"{told['candidate']}"
        )
    if told["found"]:
        return f"{line}; it passed for skill, which these prices allow: they keep their volatility"
    return f"{line}, and nothing of it passed for skill"
