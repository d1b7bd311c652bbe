"""A database that is away for a while: waited for, told clearly, and nothing counted twice."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import postgres
from foresweep.errors import DatabaseUnusable, TrackerError
from foresweep.records import RunState
from foresweep.tracker.storage import store as store_module
from foresweep.tracker.storage.store import Store
from foresweep.tracker.tracker import Tracker
from tracker_data import make_sweep


class Lock:
    """Another process's write lock, let go after `work` was refused a few times."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, num_refusals: int) -> None:
        self._held = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._held.execute("BEGIN IMMEDIATE")
        self.num_refused, self._most = 0, num_refusals
        monkeypatch.setattr(store_module.time, "sleep", self._refused)

    def _refused(self, pause_s: float) -> None:
        self.num_refused += 1
        if self.num_refused == self._most:
            self._held.execute("COMMIT")

    def close(self) -> None:
        self._held.close()


@pytest.mark.parametrize("way", ["write", "work", "direct"])
def test_a_locked_database_is_waited_for(
    path: Path, empty: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    shutil.copy(empty, path)
    with Store(path, busy_timeout_s=0.001) as store:
        store.patience_s = 3600.0
        lock = Lock(path, monkeypatch, 3)
        say: dict[str, Callable[[], Any]] = {
            "write": lambda: write(store),
            "work": lambda: store.work(lambda c: c.execute(text(INSERT)).rowcount),
            "direct": lambda: store.direct(lambda line: line.execute(INSERT).rowcount),
        }
        assert say[way]() == 1
        assert lock.num_refused == 3
        lock.close()
        with store.read() as connection:
            assert connection.execute(text("SELECT count(*) FROM imports")).scalar() == 1


INSERT = "INSERT INTO imports VALUES ('h', 'p', 1, 'now')"


def write(store: Store) -> int:
    with store.write() as connection:
        return connection.execute(text(INSERT)).rowcount


@pytest.mark.parametrize("way", ["write", "work", "direct"])
def test_patience_ends(path: Path, empty: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    shutil.copy(empty, path)
    with Store(path, busy_timeout_s=0.001) as store:
        lock = Lock(path, monkeypatch, -1)
        with pytest.raises(TrackerError, match="stayed locked by another process; try again"):
            write(store) if way == "write" else getattr(store, way)(lambda any_: None)
        assert lock.num_refused == 0  # a store by itself has no patience; the tracker gives it
        lock.close()
    with Tracker(path) as tracker:
        assert tracker.store.patience_s == 60.0


def twice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every unit of work is stored, its answer is lost, and it is tried again."""
    work, direct = store.work, store.direct

    def again(do: Callable[[Any], Any]) -> Any:
        work(do)
        return work(do)

    def direct_again(do: Callable[[Any], Any], **how: Any) -> Any:
        direct(do, **how)
        return direct(do, **how)

    monkeypatch.setattr(store, "work", again)
    monkeypatch.setattr(store, "direct", direct_again)


def test_what_was_stored_though_its_answer_was_lost_is_not_stored_twice(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice(tracker.store, monkeypatch)
    sweep = make_sweep(tracker)
    facts: dict[str, Any] = {"config": {}, "config_hash": "c", "train_hash": "t", "source": "s"}
    trial = tracker.heads.add_trial(sweep.sweep_id, model="toto", **facts)
    run = tracker.start_run(
        model="toto", hyperparams={}, sweep_id=sweep.sweep_id, trial_number=trial.number
    )
    tracker.log(run.run_id, 1, {"loss": 2.0})
    tracker.log(run.run_id, 2, {"loss": 1.0})
    tracker.beat([run.run_id])
    done = tracker.finish_run(run.run_id, "complete", scores={"val_pct_mae": 1.0})
    logged = tracker.log_run("toto", {}, {"val_pct_mae": 2.0})
    assert tracker.get_trials(sweep.sweep_id) == [trial]
    assert [r.run_id for r in tracker.get_runs()] == [run.run_id, logged]
    assert tracker.get_run(run.run_id) == done
    (curve,) = tracker.get_curves(run.run_id)
    assert (curve.num_points, curve.lowest, curve.lowest_step) == (2, 1.0, 2)
    assert tracker.heads.add_trial(sweep.sweep_id, model="toto", **facts).number == 2


@pytest.mark.parametrize("harm", ["removed", "replaced"])
def test_a_file_that_is_gone_is_told_at_once(
    sqlite_tracker: Tracker, path: Path, empty: Path, harm: str
) -> None:
    run = sqlite_tracker.start_run(model="toto", hyperparams={})
    sqlite_tracker.log(run.run_id, 1, {"loss": 1.0})
    shutil.rmtree(path.parent)
    if harm == "replaced":
        path.parent.mkdir()
        shutil.copy(empty, path)
    for write_it in (
        lambda: sqlite_tracker.log(run.run_id, 2, {"loss": 1.0}),
        lambda: sqlite_tracker.finish_run(run.run_id, "complete"),
        lambda: sqlite_tracker.add_note(run.run_id, "n"),
    ):
        with pytest.raises(DatabaseUnusable, match=r"was removed or replaced while it was open"):
            write_it()


@pytest.mark.slow
def test_a_refused_user_is_not_tried_again(server: postgres.Server) -> None:
    url = server.url("nowhere")
    with pytest.raises(DatabaseUnusable, match="does not exist; make it with: createdb"):
        Store(url)


@pytest.mark.slow
def test_a_server_that_restarts_in_mid_write_loses_nothing_and_kills_nobody() -> None:
    with postgres.running() as server:
        server.execute("CREATE DATABASE sweeps")
        with Tracker(server.url("sweeps")) as tracker:
            run = tracker.start_run(model="toto", hyperparams={})
            halfway, goes_on = threading.Event(), threading.Event()
            acknowledged: list[int] = []

            def train() -> None:
                for step in range(400):
                    tracker.log(run.run_id, step, {"loss": float(step)})
                    acknowledged.append(step)
                    if step == 50:
                        halfway.set()
                tracker.finish_run(run.run_id, "complete", scores={"val_pct_mae": 1.0})
                goes_on.set()

            training = threading.Thread(target=train)
            training.start()
            assert halfway.wait(30)
            server.stop()
            server.start()
            assert goes_on.wait(60)
            training.join()
            assert tracker.get_run(run.run_id).state is RunState.COMPLETE
            assert [s for s, _ in tracker.get_curve(run.run_id, "loss")] == list(range(400))
            server.stop()
            tracker.store.patience_s = 0.0
            with pytest.raises(DatabaseUnusable, match="does not answer"):
                tracker.log_run("toto", {}, {})
            server.start()
            assert tracker.log_run("toto", {}, {})
            assert datetime.now(UTC) >= tracker.get_runs()[-1].created_at
