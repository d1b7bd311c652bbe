from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from foresweep.errors import TrackerError
from foresweep.records import RunState, SweepState
from foresweep.tracker import liveness
from foresweep.tracker.liveness import Heartbeat, is_gone, pid_start, this_process
from foresweep.tracker.storage import schema
from foresweep.tracker.tracker import Tracker
from tracker_data import make_sweep

HOUR = timedelta(hours=1)
NO_PID = 2**22 + 1  # beyond the largest process number of Linux


def change(tracker: Tracker, table: Any, **values: Any) -> None:
    with tracker.store.write() as connection:
        connection.execute(update(table).values(**values))


def test_this_process_is_alive() -> None:
    me = this_process()
    assert (me.pid, me.pid_start) == (os.getpid(), pid_start(os.getpid()))
    assert pid_start(NO_PID) is None


def test_where_there_is_no_proc_psutil_answers() -> None:
    assert liveness._pid_start_elsewhere(os.getpid()) == liveness._pid_start_elsewhere(os.getpid())
    assert liveness._pid_start_elsewhere(NO_PID) is None


@pytest.mark.parametrize(
    ("changed", "gone"),
    [
        ({}, False),
        ({"pid": NO_PID}, True),
        ({"pid_start": "another process with this number"}, True),
        ({"machine": "elsewhere"}, False),
        ({"machine": "elsewhere", "pid": NO_PID}, False),
        ({"machine": "elsewhere", "heartbeat_at": datetime.now(UTC) - HOUR}, True),
        ({"machine": "elsewhere", "heartbeat_at": None}, True),
        ({"heartbeat_at": datetime.now(UTC) - HOUR}, False),
    ],
)
def test_a_process_is_gone_by_number_here_and_by_silence_elsewhere(
    changed: dict[str, Any], gone: bool
) -> None:
    me, now = this_process(), datetime.now(UTC)
    row = me.as_columns() | {"heartbeat_at": now} | changed
    assert is_gone(row, now, machine=me.machine, grace=timedelta(minutes=2)) is gone


def test_a_living_run_is_left_alone(tracker: Tracker, place: str) -> None:
    run = tracker.start_run(model="toto", hyperparams={})
    with Tracker(place) as other:
        assert other.get_run(run.run_id).state is RunState.RUNNING
        assert other.repair() == []


def test_every_opening_repairs(tracker: Tracker, place: str) -> None:
    make_sweep(tracker)
    run = tracker.start_run(model="toto", hyperparams={})
    done = tracker.start_run(model="toto", hyperparams={})
    tracker.finish_run(done.run_id, "complete")
    change(tracker, schema.runs, pid=NO_PID)
    change(tracker, schema.sweeps, pid=NO_PID)
    with Tracker(place) as other:
        assert other.get_run(run.run_id).state is RunState.LOST
        assert other.get_run(done.run_id).state is RunState.COMPLETE
        assert other.get_sweep().state is SweepState.LOST


def test_a_sweep_lives_while_one_of_its_runs_does(tracker: Tracker, place: str) -> None:
    sweep = make_sweep(tracker)
    tracker.start_run(model="toto", hyperparams={}, sweep_id=sweep.sweep_id)
    change(tracker, schema.sweeps, pid=NO_PID)
    with Tracker(place) as other:
        assert other.get_sweep().state is SweepState.RUNNING


def test_the_grace_is_for_other_machines(tracker: Tracker, place: str) -> None:
    run = tracker.start_run(model="toto", hyperparams={})
    change(tracker, schema.runs, machine="elsewhere", heartbeat_at=datetime.now(UTC) - HOUR)
    with Tracker(place, grace=2 * HOUR) as patient:
        assert patient.get_run(run.run_id).state is RunState.RUNNING
    with Tracker(place) as other:
        assert other.get_run(run.run_id).state is RunState.LOST


def test_a_run_presumed_lost_may_come_back(tracker: Tracker) -> None:
    sweep = make_sweep(tracker)
    run = tracker.start_run(model="toto", hyperparams={}, sweep_id=sweep.sweep_id)
    lost = {"state": "lost", "error": "its process ended without a word"}
    change(tracker, schema.runs, **lost)
    change(tracker, schema.sweeps, state="lost")
    tracker.beat([run.run_id])
    back = tracker.get_run(run.run_id)
    assert (back.state, back.error, back.finished_at) == (RunState.RUNNING, None, None)
    assert tracker.get_sweep().state is SweepState.RUNNING
    change(tracker, schema.runs, **lost)
    tracker.log(run.run_id, 1, {"loss": 1.0})
    assert tracker.finish_run(run.run_id, "complete").state is RunState.COMPLETE


def test_a_beat_does_not_wake_what_has_ended(tracker: Tracker) -> None:
    run = tracker.start_run(model="toto", hyperparams={})
    failed = tracker.finish_run(run.run_id, "failed", error="boom")
    tracker.beat([run.run_id])
    tracker.beat([])
    assert tracker.get_run(run.run_id) == failed


def test_a_lease_has_one_living_owner(tracker: Tracker) -> None:
    sweep = make_sweep(tracker)
    facts: dict[str, Any] = {"config": {}, "config_hash": "", "train_hash": "", "source": ""}
    number = tracker.heads.add_trial(sweep.sweep_id, model="toto", **facts).number
    assert tracker.heads.take_lease(sweep.sweep_id, number)  # ours already
    change(tracker, schema.leases, machine="elsewhere")
    assert not tracker.heads.take_lease(sweep.sweep_id, number)
    change(tracker, schema.leases, heartbeat_at=datetime.now(UTC) - HOUR)
    assert tracker.heads.take_lease(sweep.sweep_id, number)


def test_a_beat_keeps_the_lease_and_the_end_gives_it_back(tracker: Tracker) -> None:
    sweep = make_sweep(tracker)
    facts: dict[str, Any] = {"config": {}, "config_hash": "", "train_hash": "", "source": ""}
    number = tracker.heads.add_trial(sweep.sweep_id, model="toto", **facts).number
    run = tracker.start_run(
        model="toto", hyperparams={}, sweep_id=sweep.sweep_id, trial_number=number
    )
    change(tracker, schema.leases, machine="elsewhere", heartbeat_at=datetime.now(UTC) - HOUR)
    change(tracker, schema.runs, machine="elsewhere")  # its head is there, too
    tracker.beat([run.run_id])
    assert not tracker.heads.take_lease(sweep.sweep_id, number)
    tracker.finish_run(run.run_id, "complete")
    assert tracker.heads.take_lease(sweep.sweep_id, number)


class _Recorder:
    """A tracker that only counts beats, and can fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.seen = error, list[tuple[str, ...]]()
        self.twice = threading.Event()

    def beat(self, run_ids: Iterable[str]) -> None:
        self.seen.append(tuple(run_ids))
        if len(self.seen) >= 2:
            self.twice.set()
        if self.error:
            raise self.error


class TestHeartbeat:
    def test_it_beats_while_the_block_runs_and_not_after(self) -> None:
        recorder = _Recorder()
        with Heartbeat(recorder, ["a"], every_s=0.001):
            assert recorder.twice.wait(10)
        seen = len(recorder.seen)
        assert set(recorder.seen) == {("a",)}
        assert "foresweep-heartbeat" not in {t.name for t in threading.enumerate()}
        assert len(recorder.seen) == seen

    def test_runs_may_join_and_leave(self) -> None:
        recorder = _Recorder()
        beating = Heartbeat(recorder, ["a"], every_s=0.001)
        beating.watch("b")
        beating.unwatch("a")
        with beating:
            assert recorder.twice.wait(10)
        assert set(recorder.seen) == {("b",)}

    def test_a_database_that_is_away_is_told_once_and_harms_nothing(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        recorder = _Recorder(TrackerError("away"))
        with (
            caplog.at_level(logging.WARNING),
            Heartbeat(recorder, ["a"], every_s=0.001),
        ):
            assert recorder.twice.wait(10)
        assert [r.getMessage() for r in caplog.records] == ["heartbeat not written: away"]

    def test_an_error_of_the_block_passes_through(self) -> None:
        with pytest.raises(KeyboardInterrupt), Heartbeat(_Recorder(), ["a"]):
            raise KeyboardInterrupt

    def test_it_keeps_a_real_run_alive(self, tracker: Tracker) -> None:
        run = tracker.start_run(model="toto", hyperparams={})
        change(tracker, schema.runs, state="lost")
        with Heartbeat(tracker, [run.run_id], every_s=0.001):
            for _ in range(2000):
                if tracker.get_run(run.run_id).state is RunState.RUNNING:
                    break
        assert tracker.get_run(run.run_id).state is RunState.RUNNING


def test_the_end_of_a_run_leaves_the_lease_of_the_head_that_took_over(tracker: Tracker) -> None:
    sweep = tracker.create_sweep(
        models=["toto"], mode="quick", objective="pct_mae", horizon=5, seed=0,
        panel_hash="p", task_hash="t", fingerprints={}, plan={},
    )  # fmt: skip
    trial = tracker.heads.add_trial(
        sweep.sweep_id, model="toto", config={}, config_hash="c", train_hash="t", source="quick"
    )
    run = tracker.start_run(
        model="toto", hyperparams={}, sweep_id=sweep.sweep_id, trial_number=trial.number
    )
    change(tracker, schema.leases, machine="elsewhere")
    tracker.finish_run(run.run_id, "complete")
    assert tracker.heads.held_elsewhere(sweep.sweep_id) == [trial.number]
