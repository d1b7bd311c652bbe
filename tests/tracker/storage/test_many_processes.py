"""Several processes on one database: nothing is lost, nobody crashes, the dead are found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import tracker_tasks
from foresweep.records import RunState, SweepState
from foresweep.tracker.storage.verifying import verify
from foresweep.tracker.tracker import Tracker
from tracker_data import make_sweep

pytestmark = pytest.mark.slow


def run_together(task: Any, num_processes: int, place: str, *arguments: Any) -> list[int | None]:
    """Exit codes of processes that start their work at the same moment."""
    together = tracker_tasks.barrier(num_processes)
    return tracker_tasks.ended(
        tracker_tasks.crowd(task, num_processes, place, together, *arguments)
    )


def is_chained(tracker: Tracker) -> bool:
    """Is every row in one chain, whoever wrote before it?"""
    with tracker.store.read() as connection:
        return verify(connection).is_sound


@contextmanager
def other_process(place: str, sweep_id: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process with a running run, and that run's id."""
    process = subprocess.Popen(
        [sys.executable, tracker_tasks.__file__, place, sweep_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("num_processes", [6, pytest.param(16, marks=pytest.mark.soak)])
def test_processes_that_open_an_empty_database_at_once_all_succeed(
    bare_place: str, num_processes: int
) -> None:
    num_runs = 5
    codes = run_together(tracker_tasks.open_and_log, num_processes, bare_place, num_runs)
    assert codes == [0] * num_processes
    with Tracker(bare_place, create=False) as tracker:
        runs = tracker.get_runs()
        assert len({run.run_id for run in runs}) == len(runs) == num_processes * num_runs
        assert len(tracker.get_top_k_models(999)) == num_processes * num_runs
        assert is_chained(tracker)


def test_processes_that_share_a_sweep_get_numbers_of_their_own(
    tracker: Tracker, place: str
) -> None:
    sweep = make_sweep(tracker)
    codes = run_together(tracker_tasks.add_trials, 3, place, sweep.sweep_id, 15)
    assert codes == [0] * 3
    assert [t.number for t in tracker.get_trials(sweep.sweep_id)] == list(range(1, 46))
    runs = tracker.get_runs(sweep_id=sweep.sweep_id)
    assert {run.state for run in runs} == {RunState.COMPLETE}
    assert all(tracker.get_curves(run.run_id)[0].num_points == 5 for run in runs)
    assert is_chained(tracker)


def test_a_killed_process_loses_its_run_and_no_acknowledged_point(
    tracker: Tracker, place: str
) -> None:
    sweep = make_sweep(tracker)
    with other_process(place, sweep.sweep_id) as (process, run_id):
        with Tracker(place) as early:
            assert early.get_run(run_id).state is RunState.RUNNING
        process.kill()
        process.wait()
        with Tracker(place) as late:
            run = late.get_run(run_id)
            assert run.state is RunState.LOST
            assert run.error == "its process ended without a word"
            assert len(late.get_curve(run_id, "loss")) == 50
            assert late.get_sweep().state is SweepState.RUNNING  # this process opened it


def test_a_zombie_counts_as_dead(tracker: Tracker, place: str) -> None:
    with other_process(place) as (process, run_id):
        process.kill()  # and not waited for: its number is still taken
        assert process.stdout is not None
        process.stdout.read()  # ends when it is dead
        for _ in range(200):
            if tracker.repair():
                break
        assert tracker.get_run(run_id).state is RunState.LOST
