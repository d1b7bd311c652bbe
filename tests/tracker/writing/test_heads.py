"""Heads that share a sweep: one config is one trial, one trial has one lease; on every database."""

from __future__ import annotations

import threading

import pytest

from foresweep.records import Sweep
from foresweep.tracker.tracker import Tracker


@pytest.fixture
def sweep(tracker: Tracker) -> Sweep:
    return tracker.create_sweep(
        models=["toto"], mode="random", objective="pct_mae", horizon=5, seed=0,
        panel_hash="p", task_hash="t", fingerprints={"val": "v"}, plan={},
    )  # fmt: skip


def columns(name: str) -> dict[str, object]:
    return {
        "model": "toto", "config": {"lr": 0.1}, "config_hash": name, "train_hash": name,
        "source": "random",
    }  # fmt: skip


def test_a_config_is_claimed_once_and_a_number_by_one(tracker: Tracker, sweep: Sweep) -> None:
    first = tracker.heads.claim_trial(sweep.sweep_id, **columns("a"))  # type: ignore[arg-type]
    assert first is not None
    assert tracker.heads.claim_trial(sweep.sweep_id, **columns("a")) is None  # type: ignore[arg-type]
    assert tracker.heads.claim_trial(sweep.sweep_id, **columns("b"), number=1) is None  # type: ignore[arg-type]
    second = tracker.heads.claim_trial(sweep.sweep_id, **columns("b"), number=2)  # type: ignore[arg-type]
    assert (first.number, second and second.number) == (1, 2)
    assert tracker.heads.pulse(sweep.sweep_id).num_trials == 2


def test_of_many_that_claim_at_once_each_config_has_one_trial(
    tracker: Tracker, sweep: Sweep
) -> None:
    got: list[tuple[str, int]] = []

    def claim() -> None:
        for k in range(12):
            trial = tracker.heads.claim_trial(sweep.sweep_id, **columns(f"c{k}"))  # type: ignore[arg-type]
            if trial is not None:
                got.append((trial.config_hash, trial.number))

    heads = [threading.Thread(target=claim) for _ in range(4)]
    for head in heads:
        head.start()
    for head in heads:
        head.join()
    assert sorted(name for name, _ in got) == sorted(f"c{k}" for k in range(12))
    assert sorted(number for _, number in got) == list(range(1, 13))


def test_a_lease_that_was_given_back_is_free(tracker: Tracker, sweep: Sweep) -> None:
    trial = tracker.heads.claim_trial(sweep.sweep_id, **columns("a"))  # type: ignore[arg-type]
    assert trial is not None
    with tracker.store.read() as connection:
        held = "SELECT count(*) FROM leases"
        assert connection.exec_driver_sql(held).scalar() == 1
    tracker.heads.release_lease(sweep.sweep_id, trial.number)
    with tracker.store.read() as connection:
        assert connection.exec_driver_sql(held).scalar() == 0
    assert tracker.heads.held_elsewhere(sweep.sweep_id) == []


def test_the_steps_of_a_sweep_are_those_that_were_logged(tracker: Tracker, sweep: Sweep) -> None:
    for name, state in (("a", "complete"), ("b", "pruned"), ("c", None)):
        trial = tracker.heads.claim_trial(sweep.sweep_id, **columns(name))  # type: ignore[arg-type]
        assert trial is not None
        run = tracker.start_run(
            model="toto", hyperparams={}, sweep_id=sweep.sweep_id, trial_number=trial.number, seed=0
        )
        tracker.log(run.run_id, 7 * trial.number, {"train_loss": 1.0})
        tracker.log(run.run_id, 999, {"system/cpu_pct": 1.0})
        if state:
            tracker.finish_run(run.run_id, state)
    assert tracker.heads.steps_of(sweep.sweep_id) == {
        (1, 0): (7, False), (2, 0): (14, False), (3, 0): (21, True)
    }  # fmt: skip


def test_a_sweep_that_runs_can_be_asked_to_stop_and_one_that_does_not_cannot(
    tracker: Tracker, sweep: Sweep
) -> None:
    assert not tracker.heads.pulse(sweep.sweep_id).stop_asked
    assert tracker.heads.ask_to_stop("latest").stop_asked_at is not None
    assert tracker.heads.pulse(sweep.sweep_id).stop_asked
    assert tracker.heads.reopen(sweep.sweep_id, {"x": 1}).stop_asked_at is None
    assert not tracker.heads.pulse(sweep.sweep_id).stop_asked
    tracker.finish_sweep(sweep.sweep_id, "complete")
    assert tracker.heads.ask_to_stop(sweep.sweep_id).stop_asked_at is None
