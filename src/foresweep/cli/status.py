"""`sweeps`, `status`, `stop`: what sweeps there are, how one stands, and how it is stopped."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foresweep.cli.options import Db, Json, open_existing
from foresweep.errors import UsageError

if TYPE_CHECKING:
    from foresweep.records import Run, Sweep
    from foresweep.tracker.tracker import Tracker

SweepArgument = Annotated[
    str, typer.Argument(help="A sweep's id, a unique beginning of it, or latest.", metavar="SWEEP")
]


def sweeps(
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 20,
    as_json: Json = False,
    db: Db = None,
) -> None:
    """List sweeps, newest first; those of one question at several horizons name their family."""
    from foresweep.cli.tables import console, plain_table
    from foresweep.search.plan import ASKED

    with open_existing(db) as tracker:
        found = tracker.list_sweeps()[:limit]
    if as_json:
        typer.echo(json.dumps([_plain(s) for s in found], indent=2))
        return
    table = plain_table(
        *("sweep", "state", "models", "mode", ">horizon", "objective", ">trials"),
        *("data", "started", "family"),
    )
    table.columns[0].no_wrap = True  # an id is there to be copied
    for s in found:
        table.add_row(
            *(s.sweep_id, _state(s), ", ".join(s.models), s.mode, str(s.horizon), s.objective),
            *(str(s.num_trials), str(s.plan.get("data", "-"))),
            *(f"{s.started_at:%Y-%m-%d %H:%M}", s.plan.get(ASKED, {}).get("family") or "-"),
        )
    console().print(table)


def status(sweep: SweepArgument = "latest", as_json: Json = False, db: Db = None) -> None:
    """How a sweep stands: trials by state, what runs now and for how long, what is left."""
    with open_existing(db) as tracker:
        found = tracker.get_sweep(sweep, aside=True)
        said = _status(tracker, found)
    if as_json:
        typer.echo(json.dumps(said, indent=2))
        return
    draw_status(said)


def stop(sweep: SweepArgument, db: Db = None) -> None:
    """Ask a running sweep to stop. What runs is on record as cancelled; --resume goes on."""
    with open_existing(db) as tracker:
        found = tracker.heads.ask_to_stop(sweep)
    if found.state != "running":  # it may have been asked before
        raise UsageError(f"sweep {found.sweep_id} does not run: it is {found.state.value}")
    typer.echo(
        f"Asked sweep {found.sweep_id} to stop; go on with it by: "
        f"foresweep sweep --resume {found.sweep_id}"
    )


def _state(sweep: Sweep) -> str:
    stopping = sweep.stop_asked_at is not None and sweep.state == "running"
    return "stopping" if stopping else sweep.state.value


def _plain(sweep: Sweep) -> dict[str, Any]:
    from foresweep.search.plan import ASKED

    return {
        "sweep_id": sweep.sweep_id,
        "state": _state(sweep),
        "models": list(sweep.models),
        "mode": sweep.mode,
        "horizon": sweep.horizon,
        "objective": sweep.objective,
        "seed": sweep.seed,
        "num_trials": sweep.num_trials,
        "data": sweep.plan.get("data"),
        "family": sweep.plan.get(ASKED, {}).get("family") or None,
        "started_at": sweep.started_at.isoformat(),
        "finished_at": sweep.finished_at.isoformat() if sweep.finished_at else None,
    }


def _status(tracker: Tracker, sweep: Sweep) -> dict[str, Any]:
    """What `status` says, as plain values."""
    from foresweep.evaluation.yardstick import LAST_VALUE, last_value, own_skill
    from foresweep.metrics import ranked_by
    from foresweep.search.plan import family_of

    runs = tracker.get_runs(sweep_id=sweep.sweep_id, include_hidden=True)
    now = datetime.now(UTC)
    curves = {r.run_id: tracker.get_curves(r.run_id) for r in runs if r.state == "running"}
    best, metric = best_by_tune(sweep, runs), ranked_by(sweep.objective)
    naive = last_value(tracker.get_runs(LAST_VALUE, fingerprint=sweep.fingerprints.get("val", "")))
    return _plain(sweep) | {
        "runs_by_state": dict(sorted(Counter(r.state.value for r in runs).items())),
        "running": [
            {
                "run_id": r.run_id,
                "attempt": r.attempt,
                "step": max(
                    (c.last_step for c in curves[r.run_id] if "/" not in c.name), default=0
                ),
                "of_steps": r.hyperparams.get("max_steps"),
                "seconds": round((now - (r.started_at or now)).total_seconds(), 1),
            }
            for r in runs
            if r.state == "running"
        ],
        "best_by_tune": None if best is None else best.run_id,
        "best_metric": metric,
        "best_score": None if best is None else best.score(f"tune_{metric}"),
        "best_skill": None if best is None else own_skill(best, "tune", metric, naive),
        "family": [s.sweep_id for s in family_of(sweep, tracker.list_sweeps())],
    }


def best_by_tune(sweep: Sweep, runs: Sequence[Run]) -> Run | None:
    """Of the trained ones, by the objective on tune: val is for the leaderboard."""
    from foresweep.metrics import METRICS, ranked_by

    metric = ranked_by(sweep.objective)
    known = [
        (METRICS[metric].badness(score), r.run_id, r)
        for r in runs
        if metric in METRICS
        and not r.is_baseline
        and r.state == "complete"
        and (score := r.score(f"tune_{metric}")) is not None
    ]
    return min(known)[2] if known else None


def draw_status(said: dict[str, Any]) -> None:
    """What `status` says of a sweep."""
    from foresweep.cli.tables import console, number, percent, plain_table, seconds

    out = console()
    states = ", ".join(f"{n} {state}" for state, n in said["runs_by_state"].items()) or "no run yet"
    out.print(
        f"Sweep {said['sweep_id']}: {said['state']}; {said['num_trials']} trials, runs: {states}."
    )
    if len(said["family"]) > 1:
        out.print(f"One question at {len(said['family'])} horizons: {', '.join(said['family'])}.")
    if said["running"]:
        table = plain_table("running", ">attempt", ">step", ">of", ">for")
        for r in said["running"]:
            step, of = str(r["step"]), str(r["of_steps"] or "-")
            table.add_row(r["run_id"], str(r["attempt"]), step, of, seconds(r["seconds"]))
        out.print(table)
    waiting = said["runs_by_state"].get("waiting")
    if waiting and said["state"] != "running":
        out.print(
            f"{waiting} wait at a rung, and count as cut short. More trials may let some go on: "
            f"foresweep sweep --resume {said['sweep_id']} --max-runs N"
        )
    if said["best_by_tune"]:
        skill = said["best_skill"]
        scored = f"tune {said['best_metric']} {number(said['best_score'])}"
        scored += "" if skill is None else f", skill {percent(skill, 2)}"
        out.print(f"Best by tune so far: {said['best_by_tune']} ({scored}).", soft_wrap=True)
    if said["state"] in ("cancelled", "lost", "failed"):
        out.print(f"Go on with it: foresweep sweep --resume {said['sweep_id']}")
