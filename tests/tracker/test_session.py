from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from foresweep.errors import TrackerError, UsageError
from foresweep.records import Run, RunState
from foresweep.tracker import session
from foresweep.tracker import session as hardware
from foresweep.tracker.session import Buffer
from foresweep.tracker.tracker import NewRun, Tracker


def only_run(tracker: Tracker) -> Run:
    (run,) = tracker.get_runs()
    return run


class TestOnesOwnScript:
    def test_the_example_of_the_docs_runs_as_written(self, tracker: Tracker) -> None:
        with tracker.run("toto", {"lr": 1e-4}, notes="first", tags=["mine"], seed=3) as run:
            assert tracker.get_run(run.run_id).state is RunState.RUNNING
            for step in range(3):
                run.log(step, {"loss": 3.0 - step})
            run.finish({"val_pct_mae": 1.2}, checkpoint_path="runs/1", training_time_seconds=2.0)
        kept = only_run(tracker)
        assert (kept.state, kept.source, kept.notes, kept.seed) == (
            "complete",
            "script",
            "first",
            3,
        )
        assert (kept.metrics, kept.checkpoint_path) == ({"val_pct_mae": 1.2}, "runs/1")
        assert kept.tags == ("mine",)
        assert tracker.get_curve(kept.run_id, "loss") == [(0, 3.0), (1, 2.0), (2, 1.0)]
        assert kept.peak_memory_mb is not None
        assert kept.peak_memory_mb > 10
        assert tracker.get_best_model("val_pct_mae") == kept

    def test_the_page_about_the_tracker_shows_what_runs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        page = (Path(__file__).parents[2] / "docs/tracker.md").read_text(encoding="utf-8")
        (code,) = (b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "run.log" in b)
        exec(compile(code, "tracker.md", "exec"), {})
        with Tracker("sweeps.db") as tracker:
            assert only_run(tracker).metrics == {"val_pct_mae": 1.2}

    def test_the_end_of_the_block_completes_what_was_not_finished(self, tracker: Tracker) -> None:
        with tracker.run("toto", {}) as run:
            run.log(1, {"loss": 1.0})
        assert only_run(tracker).state is RunState.COMPLETE

    def test_an_exception_fails_the_run_with_its_traceback(self, tracker: Tracker) -> None:
        def train() -> None:
            with tracker.run("toto", {}):
                raise ValueError("no url like https://me:hunter2@host")

        with pytest.raises(ValueError, match="no url"):
            train()
        run = only_run(tracker)
        assert run.state is RunState.FAILED
        assert run.error is not None
        assert "Traceback" in run.error
        assert "in train" in run.error
        assert "hunter2" not in run.error

    @pytest.mark.parametrize("leaving", [KeyboardInterrupt(), SystemExit(1)])
    def test_who_leaves_cancels(self, tracker: Tracker, leaving: BaseException) -> None:
        with pytest.raises(type(leaving)), tracker.run("toto", {}):
            raise leaving
        assert only_run(tracker).state is RunState.CANCELLED

    def test_an_exception_after_the_finish_changes_nothing(self, tracker: Tracker) -> None:
        def train() -> None:
            with tracker.run("toto", {}) as run:
                run.finish({"val_pct_mae": 1.0})
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            train()
        assert only_run(tracker).state is RunState.COMPLETE

    def test_a_database_that_is_gone_does_not_hide_the_scripts_own_error(
        self, tracker: Tracker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*_: Any, **__: Any) -> Run:
            raise TrackerError("away")

        def train() -> None:
            with tracker.run("toto", {}, system_every_s=None):
                monkeypatch.setattr(tracker, "finish_run", away)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            train()
        assert "is not on record: away" in caplog.text

    def test_no_thread_stays_behind(self, tracker: Tracker) -> None:
        before = set(threading.enumerate())
        with tracker.run("toto", {}, buffer_s=60.0, system_every_s=60.0):
            assert len(set(threading.enumerate()) - before) == 3
        assert set(threading.enumerate()) == before

    def test_how_busy_the_machine_was_is_noted(self, tracker: Tracker) -> None:
        with tracker.run("toto", {}, system_every_s=0.01) as run:
            for _ in range(10_000):
                if tracker.get_curves(run.run_id):
                    break
        names = {curve.name for curve in tracker.get_curves(run.run_id)}
        assert {"system/cpu_pct", "system/memory_pct", "system/process_memory_mb"} <= names


class TestBuffer:
    def test_it_states_its_window_and_keeps_everything(self, tracker: Tracker) -> None:
        run = tracker.start_run(model="toto", hyperparams={})
        with tracker.buffered(run.run_id, every_s=30.0) as buffer:
            assert buffer.loss_window_s == 30.0
            for step in range(300):
                buffer.log(step, {"loss": float(step), "lr": 0.1})
            assert tracker.get_curves(run.run_id) == []  # nothing yet: that is the window
            buffer.flush()
            assert len(tracker.get_curve(run.run_id, "loss")) == 300
            buffer.log(300, {"loss": 300.0})
        curve = next(c for c in tracker.get_curves(run.run_id) if c.name == "loss")
        assert (curve.num_points, curve.lowest, curve.highest) == (301, 0.0, 300.0)

    def test_its_thread_writes_by_itself(self, tracker: Tracker) -> None:
        run = tracker.start_run(model="toto", hyperparams={})
        with tracker.buffered(run.run_id, every_s=0.01) as buffer:
            buffer.log(1, {"loss": 1.0})
            for _ in range(10_000):
                if tracker.get_curves(run.run_id):
                    break
            assert tracker.get_curve(run.run_id, "loss") == [(1, 1.0)]

    def test_what_the_database_refused_waits_and_comes_in_later(self) -> None:
        away = _Away()
        buffer = Buffer(away, "r", every_s=60.0)
        buffer.log(1, {"a": 1.0, "b": 1.0})
        with pytest.raises(TrackerError):
            buffer.flush()
        buffer.log(1, {"a": 2.0})
        away.is_back = True
        buffer.close()
        assert away.got == {1: {"a": 2.0, "b": 1.0}}

    def test_its_thread_warns_once_and_lives_on(self, caplog: pytest.LogCaptureFixture) -> None:
        away = _Away()
        with caplog.at_level(logging.WARNING):
            buffer = Buffer(away, "r", every_s=0.001)
            buffer.log(1, {"a": 1.0})
            assert away.asked_twice.wait(10)
            away.is_back = True
            buffer.close()
        assert [r.getMessage() for r in caplog.records] == ["points of r wait: away"]
        assert away.got == {1: {"a": 1.0}}

    def test_a_full_buffer_is_an_error_not_a_leak(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(session, "MOST_WAITING", 2)
        away = _Away()
        buffer = Buffer(away, "r", every_s=60.0)
        buffer.log(1, {"a": 1.0, "b": 2.0})
        with pytest.raises(TrackerError, match="2 points of r wait for the database"):
            buffer.log(2, {"a": 1.0})
        away.is_back = True
        buffer.close()

    def test_test_scores_stay_out(self, tracker: Tracker) -> None:
        run = tracker.start_run(model="toto", hyperparams={})
        with pytest.raises(UsageError, match="sealed"):
            tracker.log_steps(run.run_id, {1: {"loss": 1.0}, 2: {"test_pct_mae": 1.0}})
        assert tracker.get_curves(run.run_id) == []


class _Away:
    """A tracker whose database is away until it is back."""

    def __init__(self) -> None:
        self.is_back, self.got = False, dict[int, Mapping[str, float]]()
        self.num_asked, self.asked_twice = 0, threading.Event()

    def log_steps(self, run_id: str, steps: Mapping[int, Mapping[str, float]]) -> None:
        self.num_asked += 1
        if self.num_asked >= 2:
            self.asked_twice.set()
        if not self.is_back:
            raise TrackerError("away")
        self.got |= steps

    def log(self, run_id: str, step: int, metrics: Mapping[str, float]) -> None: ...

    def beat(self, run_ids: object) -> None: ...

    def finish_run(self, run_id: str, state: object, **_: Any) -> Run:
        raise AssertionError


def test_many_runs_at_once_are_those_logged_one_by_one(tracker: Tracker) -> None:
    new = [
        NewRun("toto", {"n": n}, {"val_pct_mae": float(n), "test_r2": 0.1}, f"c{n}", 1.5, "hi")
        for n in range(1200)
    ]
    new.append(NewRun("kronos", {}, {"val_pct_mae": math.nan}))
    ids = tracker.log_runs(iter(new))
    runs = tracker.get_runs()
    assert [run.run_id for run in runs] == ids
    assert [run.hyperparams for run in runs[:-1]] == [{"n": n} for n in range(1200)]
    assert tracker.get_best_model().checkpoint_path == "c0"  # type: ignore[union-attr]
    assert "test_r2" not in runs[0].metrics
    one = tracker.get_run(tracker.log_run("toto", {"n": 0}, {"val_pct_mae": 0.0}, "c0", 1.5, "hi"))
    same = [n for n in Run.__dataclass_fields__ if n not in ("run_id", "created_at", "started_at")]
    same.remove("finished_at")
    assert [getattr(one, n) for n in same] == [getattr(runs[0], n) for n in same]
    assert tracker.log_runs([]) == []


def test_the_best_over_steps_of_ended_runs_is_marked_for_its_index(tracker: Tracker) -> None:
    ended = tracker.start_run(model="toto", hyperparams={})
    running = tracker.start_run(model="toto", hyperparams={})
    for run in (ended, running):
        tracker.log(run.run_id, 1, {"loss": 1.0})
    tracker.finish_run(ended.run_id, "failed")
    with tracker.store.read() as connection:
        rows = connection.exec_driver_sql("SELECT run_id FROM curves WHERE is_final").scalars()
        assert list(rows) == [ended.run_id]


def test_what_the_machine_is_can_be_said() -> None:
    assert hardware.cpu_model()
    assert hardware.memory_mb() > 100
    assert isinstance(hardware.gpu_models(), list)


def test_threads_share_a_tracker(tracker: Tracker) -> None:
    run = tracker.start_run(model="toto", hyperparams={})
    failures: list[Exception] = []

    def work(name: str) -> None:
        try:
            for step in range(60):
                tracker.log(run.run_id, step, {name: float(step)})
                tracker.log_run(name, {}, {"val_pct_mae": float(step)})
        except TrackerError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [c.num_points for c in tracker.get_curves(run.run_id)] == [60] * 4
    assert len(tracker.get_runs()) == 241
