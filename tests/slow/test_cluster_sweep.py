"""A whole sweep on a Ray cluster of two nodes, one of which is killed in mid-run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from foresweep.data.splits import Cut
from foresweep.records import Run, RunState
from foresweep.search.events import Event, TrialProgressed, TrialRetried
from foresweep.search.plan import SweepPlan
from foresweep.search.sweep import Workers, sweep
from foresweep.tracker.tracker import Tracker
from known_baselines import know_baselines
from ray_nodes import Cluster, kill

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]
TRIALS = 2
PLAN = SweepPlan(
    models=("chronos2",),
    mode="random",
    cut=Cut(horizon=2, stride=40, max_context=64),
    max_steps=160,
    max_runs=TRIALS,
)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two nodes with one CPU, so that two trials at once are on both."""
    with pytest.MonkeyPatch.context() as patch:
        cluster = Cluster(patch)
        try:
            cluster.add()
            cluster.add()
            yield cluster
        finally:
            cluster.close()


def runs_of(db: Path) -> list[Run]:
    with Tracker(db) as tracker:
        runs = tracker.get_runs("chronos2")
    return sorted(runs, key=lambda r: (r.trial_number or 0, r.attempt))


def scores(runs: list[Run]) -> list[object]:
    return [(r.config_hash, sorted(r.metrics.items())) for r in runs if r.state == "complete"]


def test_a_node_is_killed_and_every_trial_ends_complete_as_on_one_machine(
    cluster: Cluster, tmp_path: Path
) -> None:
    heard: list[Event] = []

    def listen(event: Event) -> None:
        heard.append(event)
        if isinstance(event, TrialProgressed) and len(cluster.nodes) == 2:
            folder = tmp_path / "ray" / event.run.run_id
            if cluster.writes_in(folder, 1):  # it trains there: the other node keeps the books
                threading.Thread(target=kill, args=(cluster.nodes.pop(),)).start()

    for name in ("ray.db", "local.db"):
        know_baselines(tmp_path / name, PLAN)
    workers = Workers(engine="ray", address=cluster.address)
    done = sweep(
        PLAN, db=tmp_path / "ray.db", runs=tmp_path / "ray", listen=listen, workers=workers
    )
    assert done.state == "complete"
    assert len(cluster.nodes) == 1, "no trial was trained on the second node"
    found = runs_of(tmp_path / "ray.db")
    assert {r.trial_number for r in found if r.state == RunState.COMPLETE} == {
        r.trial_number for r in found
    }
    assert len({r.trial_number for r in found}) == TRIALS
    assert any(isinstance(e, TrialRetried) for e in heard)
    sweep(PLAN, db=tmp_path / "local.db", runs=tmp_path / "local")
    assert scores(found) == scores(runs_of(tmp_path / "local.db"))
