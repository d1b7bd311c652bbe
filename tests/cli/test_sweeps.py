"""Sweeps from the command line: listed, watched, stopped, gone on with, and only planned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from foresweep.data.splits import Cut
from foresweep.search.plan import SweepPlan
from foresweep.search.sweep import sweep
from foresweep.tracker.tracker import Tracker
from panels import walk_frame, weekdays
from shells import Shell

pytestmark = pytest.mark.slow

SWEEP = ("sweep", "--model", "drift", "--data", "demo", "--stride", "40", "--max-context", "128")
DB = Path("hyperparams/sweeps.db")


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(capsys)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One sweep, made once: each test gets a copy."""
    folder = tmp_path_factory.mktemp("swept")
    plan = SweepPlan(("drift",), cut=Cut(stride=40, max_context=128))
    sweep(plan, db=folder / DB, runs=folder / "hyperparams" / "runs")
    return folder


@pytest.fixture
def swept(shell: Shell, place: Path, tmp_path: Path) -> Shell:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    return shell


def test_a_sweep_is_listed_and_its_state_is_told(swept: Shell) -> None:
    (one,) = json.loads(swept("sweeps", "--json"))
    said = json.loads(swept("status", "--json"))
    assert said["sweep_id"] == one["sweep_id"]
    assert (one["state"], one["models"], one["horizon"]) == ("complete", ["drift"], 5)
    assert said["runs_by_state"] == {"complete": one["num_trials"]}
    assert said["running"] == []
    assert one["sweep_id"] in swept("sweeps")
    assert "complete; 6 trials" in swept("status")


def test_a_running_trial_is_told_with_its_step_and_a_sweep_can_be_asked_to_stop(
    swept: Shell,
) -> None:
    with Tracker(DB) as tracker:
        begun = tracker.get_sweep()
        tracker.heads.reopen(begun.sweep_id, begun.plan)
        run = tracker.start_run(
            model="toto", hyperparams={"max_steps": 90}, sweep_id=begun.sweep_id, trial_number=9
        )
        tracker.log(run.run_id, 40, {"train_loss": 1.0})
        tracker.log(run.run_id, 77, {"system/cpu_pct": 1.0})
        (running,) = json.loads(swept("status", "--json"))["running"]
        assert (running["run_id"], running["step"], running["of_steps"]) == (run.run_id, 40, 90)
        assert run.run_id in swept("status")
        assert f"--resume {begun.sweep_id}" in swept("stop", "latest")
        assert json.loads(swept("sweeps", "--json"))[0]["state"] == "stopping"
        assert tracker.heads.pulse(begun.sweep_id).stop_asked


def test_a_sweep_that_does_not_run_cannot_be_stopped(swept: Shell) -> None:
    assert "does not run: it is complete" in swept.error("stop", "latest", code=2)
    with Tracker(DB) as tracker:  # nor once it has been stopped
        begun = tracker.get_sweep()
        tracker.heads.reopen(begun.sweep_id, begun.plan)
        tracker.heads.ask_to_stop(begun.sweep_id)
        tracker.cancel_sweep(begun.sweep_id)
    assert "does not run: it is cancelled" in swept.error("stop", "latest", code=2)


def test_a_finished_sweep_that_is_resumed_trains_nothing(swept: Shell) -> None:
    out = swept("sweep", "--resume", "latest")
    assert "Trials done: 6; broken off, to go on from their last training state: 0." in out
    with Tracker(DB) as tracker:
        assert len(tracker.list_sweeps()) == 1
        assert len(tracker.get_runs()) == 6


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seed", "3"), ("--model", "toto"), ("--horizon", "2"), ("--columns", "close=Last")],
)
def test_another_question_is_refused_beside_a_resumption(
    swept: Shell, option: str, value: str
) -> None:
    said = swept.error("sweep", "--resume", "latest", option, value, code=2)
    assert f"{option} beside --resume" in said


def test_how_files_are_read_is_on_record_and_holds_when_a_sweep_goes_on(
    shell: Shell, tmp_path: Path
) -> None:
    frame = walk_frame("X", weekdays(400)).drop("item_id")
    frame.rename({"close": "Last"}).with_columns(Settle=frame["close"]).write_csv("prices.csv")
    settle = ("--columns", "close=Settle")
    assert "may be 'Last' or 'Settle'" in shell.error("data", "check", "prices.csv", code=1)
    said = shell(
        "sweep", "--model", "drift", "--data", "prices.csv", "--max-context", "64", *settle
    )
    assert "Only baselines were run" in said
    assert "foresweep verdict" not in said  # it, best and predict would have nothing to look at
    assert "done" in shell("sweep", "--resume", "latest")
    with Tracker(DB) as tracker:
        assert tracker.get_sweep().plan["asked"]["reading"] == {"columns": {"close": "Settle"}}


def test_a_sweep_that_is_not_there_cannot_be_resumed(shell: Shell) -> None:
    assert "no database" in shell.error("sweep", "--resume", "latest", code=1)


def test_a_dry_run_lists_what_would_be_trained_and_leaves_nothing(shell: Shell) -> None:
    out = shell(*SWEEP, "--dry-run")
    assert "0 trials to train" in out
    assert not DB.exists()
    assert not Path("hyperparams/runs").exists()


def test_a_family_of_horizons_is_named_where_sweeps_are_listed(shell: Shell) -> None:
    shell(*SWEEP, "--horizon", "1,5")
    later, earlier = json.loads(shell("sweeps", "--json"))
    assert (earlier["horizon"], later["horizon"]) == (1, 5)
    assert earlier["family"] == later["family"] is not None
    said = json.loads(shell("status", "--json"))
    assert said["family"] == [earlier["sweep_id"], later["sweep_id"]]
    assert "One question at 2 horizons" in shell("status")
