"""A real training that had to wait and was let go on later is the training it would have been."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from foresweep.data.splits import Cut
from foresweep.models.training.loop import has_states
from foresweep.records import Run, RunState
from foresweep.search.events import Event, TrialStarted
from foresweep.search.plan import SweepPlan
from foresweep.search.propose.modes import Proposal
from foresweep.search.sweep import sweep
from foresweep.tracker.tracker import Tracker
from known_baselines import know_baselines

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("promotion")]

SMALL = {"context_length": 64, "batch_size": 8, "max_steps": 16, "dropout": 0.1, "size": "tiny"}
PLAN = SweepPlan(
    models=("toto",),
    objective="pinball",
    cut=Cut(stride=40, max_context=64),
    pruning="promotion",
    proposals=tuple(
        Proposal("toto", {**SMALL, "lr": lr, "covariates": "none"}, "by hand")
        for lr in (3e-4, 1e-3, 3e-3, 6e-3)
    ),
)


def swept(plan: SweepPlan, folder: Path) -> tuple[list[Run], list[Event]]:
    folder.mkdir()
    know_baselines(folder / "sweeps.db", plan)
    heard: list[Event] = []
    sweep(plan, db=folder / "sweeps.db", runs=folder / "runs", listen=heard.append)
    with Tracker(folder / "sweeps.db") as tracker:
        return tracker.get_runs("toto"), heard


def curves(folder: Path, run: Run, upto: int = 99) -> dict[str, list[tuple[int, float]]]:
    """At scorings: what falls between is reported as time allows."""
    with Tracker(folder / "sweeps.db") as tracker:
        names = ("train_loss", "lr", "tune_pinball", "tune_pct_mae")
        found = {name: dict(tracker.get_curve(run.run_id, name)) for name in names}
    scored = [step for step in found["tune_pinball"] if step <= upto]
    return {name: [(step, curve[step]) for step in scored] for name, curve in found.items()}


def test_a_training_that_waited_is_what_it_would_have_been(tmp_path: Path) -> None:
    runs, heard = swept(PLAN, tmp_path / "rungs")
    (whole,) = (r for r in runs if r.state is RunState.COMPLETE)
    starts = [e.run.run_id for e in heard if isinstance(e, TrialStarted)]
    assert starts.count(whole.run_id) > 1, "it waited at least once"
    unbroken, _ = swept(replace(PLAN, pruning="none"), tmp_path / "unbroken")
    twins = {r.config_hash: r for r in unbroken}
    twin = twins[whole.config_hash]
    assert whole.metrics == twin.metrics
    assert curves(tmp_path / "rungs", whole) == curves(tmp_path / "unbroken", twin)
    for run in runs:  # up to where they wait, the others are theirs, too; and could go on
        mine = curves(tmp_path / "rungs", run)
        last = mine["tune_pinball"][-1][0]
        assert mine == curves(tmp_path / "unbroken", twins[run.config_hash], last)
        waits = run.state is RunState.WAITING
        assert has_states(tmp_path / "rungs" / "runs" / run.run_id / "checkpoint") == waits
