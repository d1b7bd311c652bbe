"""Options about who works and for how long."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foresweep.cli import sweep as command
from foresweep.cli.sweep import Asked, EngineName, Workforce, as_horizons, as_seconds
from foresweep.errors import UsageError
from foresweep.records import Sweep, SweepState
from foresweep.search.plan import SweepPlan, at_horizons
from foresweep.search.sweep import Workers, gpu_numbers, threads_each
from runs import make_sweep


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30min", 1800), ("30m", 1800), ("2h", 7200), ("1h30min", 5400),
     ("1.5h", 5400), ("1d", 86400), ("1 h 30 min", 5400)],
)  # fmt: skip
def test_a_time_is_written_as_people_write_it(text: str, seconds: float) -> None:
    assert as_seconds("--time-budget", text) == seconds


@given(st.integers(0, 99), st.integers(0, 59), st.integers(1, 59))
def test_hours_minutes_and_seconds_add_up(hours: int, minutes: int, seconds: int) -> None:
    found = as_seconds("--x", f"{hours}h{minutes}min{seconds}s")
    assert found == 3600 * hours + 60 * minutes + seconds


@pytest.mark.parametrize("text", ["", "soon", "2 weeks", "1h30", "-1h", "0s", "h", "1h;"])
def test_what_is_no_time_is_refused_by_its_option(text: str) -> None:
    with pytest.raises(UsageError, match="--time-budget"):
        as_seconds("--time-budget", text)


def test_a_number_without_its_unit_is_asked_about() -> None:
    with pytest.raises(UsageError, match=r"--time-budget '10': of what\? Write 10s, 10m or 10h"):
        as_seconds("--time-budget", "10")


def test_gpus_are_numbers_and_each_is_one_worker() -> None:
    assert Workforce(gpus="0, 1").workers_meant().gpus == ("0", "1")
    assert Workforce(gpus="0,1").workers_meant().slots == 2
    with pytest.raises(UsageError, match="device numbers"):
        Workforce(gpus="cuda:0").workers_meant()
    with pytest.raises(UsageError, match="device numbers"):
        Workforce(gpus="").workers_meant()


@pytest.mark.parametrize(
    ("cores", "asked", "workers", "threads"),
    [(2, None, 2, 1), (4, None, 1, 1), (16, None, 2, 8), (16, None, 99, 1), (16, 3, 2, 3)],
)
def test_threads_follow_from_cores_and_workers(
    cores: int, asked: int | None, workers: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert threads_each(asked, workers) == threads


def test_horizons_are_whole_bars() -> None:
    assert as_horizons("5") == (5,)
    assert as_horizons("1,5, 20") == (1, 5, 20)
    for text in ("", "0", "1,,5", "five", "-1"):
        with pytest.raises(UsageError, match="--horizon"):
            as_horizons(text)


def test_options_of_a_cluster_are_refused_where_there_is_none() -> None:
    for workforce in (
        Workforce(address="auto"),
        Workforce(storage="file:///x"),
        Workforce(gpus_per_trial=0.5),
    ):
        with pytest.raises(UsageError, match="is for --engine ray"):
            workforce.workers_meant()
    with pytest.raises(UsageError, match="--gpus is for local workers"):
        Workforce(engine=EngineName.ray, gpus="0").workers_meant()
    assert Workforce(engine=EngineName.ray, cpus_per_trial=0.5).workers_meant().trial_cpus == 0.5


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_family_that_is_stopped_begins_no_further_sweep(
    by_hand: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ended the sweep of one horizon, and the next began."""
    begun: list[int] = []

    def run_sweep(plan: SweepPlan, **_: object) -> Sweep:
        begun.append(plan.cut.horizon)
        if by_hand:
            raise KeyboardInterrupt
        return replace(make_sweep(), state=SweepState.CANCELLED)

    monkeypatch.setattr("foresweep.search.sweep.run_sweep", run_sweep)
    plans = at_horizons(SweepPlan(("drift",)), (1, 5, 20))
    asked = Asked(db=str(tmp_path / "sweeps.db"), runs=tmp_path)
    assert command.run_all(plans, asked, Workers()) == command.STOPPED
    assert begun == [1]


def test_a_gpu_is_named_once() -> None:
    with pytest.raises(UsageError, match="name each once"):
        Workforce(gpus="0,0").workers_meant()


@pytest.mark.parametrize(
    ("device", "gpus", "trials", "count", "numbers"),
    [
        ("auto", (), 9, 6, ()),
        ("cpu", ("0", "1"), 9, 6, ()),
        ("auto", (), 4, 4, ()),
        ("auto", ("0", "1"), 9, None, ("0", "1")),
        ("cuda", ("0", "1"), 1, None, ("0",)),
        ("cuda:1", ("0", "1"), 9, 1, ()),
        ("mps", (), 9, 1, ()),
    ],
)
def test_auto_is_one_worker_a_gpu_else_a_core_and_no_more_than_trials(
    device: str,
    gpus: tuple[str, ...],
    trials: int,
    count: int | None,
    numbers: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("foresweep.search.sweep.gpu_numbers", lambda: gpus)
    monkeypatch.setattr("foresweep.search.sweep.cores", lambda: 6)
    for said in (None, "auto"):
        found = Workforce(workers=said).workers_meant(device, trials)
        assert (found.count, found.gpus, found.is_auto) == (count, numbers, True)
    found = Workforce(workers="3").workers_meant(device, trials)
    assert (found.count, found.gpus, found.is_auto) == (3, (), False)


def test_gpus_that_are_hidden_from_the_process_are_none_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("foresweep.search.sweep.gpu_models", lambda: ["A", "B", "C"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_numbers() == ("0", "1", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert gpu_numbers() == ("2",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_numbers() == ()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"workers": "many"}, "--workers 'many': give a number, or auto"),
        ({"workers": "0"}, "--workers 0: at least 1"),
        ({"workers": "auto", "gpus": "0"}, "leave --workers out"),
    ],
)
def test_what_is_no_number_of_workers_is_refused(said: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Workforce(**said).workers_meant()
