"""`doctor`: it names the places that the other commands would use."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from foresweep.data.splits import Cut
from foresweep.evaluation.yardstick import alarm, implausible
from foresweep.search.plan import SweepPlan, by_hand
from foresweep.search.sweep import sweep
from foresweep.tracker.tracker import Tracker
from planted_model import installed, plugin
from shells import Shell


def test_the_doctor_names_the_data_that_the_settings_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORESWEEP_DATA", raising=False)
    shell = Shell(capsys)
    assert json.loads(shell("doctor", "--json"))["data"] == "demo"
    (tmp_path / "prices" / "daily").mkdir(parents=True)
    (tmp_path / "prices" / "daily" / "A.csv").touch()
    monkeypatch.setenv("FORESWEEP_DATA", "prices/daily")
    assert json.loads(shell("doctor", "--json"))["data"] == "prices/daily"


def test_the_doctor_hunts_for_leaks_in_a_model_and_names_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(capsys)
    honest = json.loads(shell("doctor", "--leaks", "drift", "--data", "demo", "--json"))
    assert honest["findings"] == []
    assert "training" in honest["looked"]
    with installed(tmp_path):
        said = json.loads(shell("doctor", "--leaks", "leaky", "--data", "demo", "--json", code=1))
        assert {f["probe"] for f in said["findings"]} == {"item order", "window order"}
        assert "other items are left out" in shell(
            "doctor", "--leaks", "leaky", "--data", "demo", code=1
        )


def test_the_doctor_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    told = json.loads(Shell(capsys)("doctor", "--json"))
    assert told["sweeps on record"] == "none: there is no database yet"
    assert list(tmp_path.iterdir()) == []


def problem(shell: Shell, *args: str) -> str:
    """The one thing that the doctor finds wrong."""
    (found,) = json.loads(shell("doctor", "--json", *args, code=1))["problems"]
    assert f"problem: {found}" in shell("doctor", *args, code=1)
    return str(found)


def test_the_doctor_says_of_each_finding_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shell = Shell(capsys)
    (tmp_path / "file").write_text("no database, no folder")
    (tmp_path / "empty").mkdir()
    assert "give another path or move the file away" in problem(shell, "--db", "file")
    assert "like empty/sweeps.db" in problem(shell, "--db", "empty")
    assert "is no folder; give another with --runs" in problem(shell, "--runs", "file/runs")
    with monkeypatch.context() as patch:
        patch.setenv("FORESWEEP_DATA", "nowhere")
        assert "use a folder of CSV files, or: demo (--data" in problem(shell)
        patch.setenv("FORESWEEP_DATA", "empty")
        assert "no file of prices" in problem(shell)
    with monkeypatch.context() as patch:
        patch.setattr("foresweep.cli.doctor.LEAST_FREE", 2**80)
        assert "free some space, or give another with --runs" in problem(shell)
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda path, mode: False)
        said = json.loads(shell("doctor", "--json", code=1))["problems"]
        assert ["give another place with --db" in said[0], "with --runs" in said[1]] == [True] * 2
    with Tracker(tmp_path / "a.db") as tracker:
        tracker.log_run("toto", {}, {"val_pct_mae": 1.0})
    with monkeypatch.context() as patch:
        patch.setattr("foresweep.cli.doctor.CLOCKS_DIFFER", timedelta(days=-1))
        assert "set this machine's clock" in problem(shell, "--db", "a.db")
    with plugin(tmp_path, module="1 / 0\n"):
        assert "guest-plugin cannot be imported" in problem(shell)
        assert "reinstall that package" in problem(shell)


def test_the_doctor_takes_data_for_a_hunt_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--leaks" in Shell(capsys).error("doctor", "--data", "demo", code=2)


@pytest.mark.slow
def test_a_run_is_hunted_on_its_own_bars_and_an_implausible_one_is_flagged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(capsys)
    db, runs = tmp_path / "sweeps.db", tmp_path / "runs"
    sweep(
        by_hand(SweepPlan(models=("drift",), cut=Cut(stride=40, max_context=64)), {}),
        db=db,
        runs=runs,
    )
    with Tracker(db) as tracker:
        drift = tracker.get_runs("drift")[0]
    places = ("--db", str(db), "--runs", str(runs))
    assert "nothing that it must not know" in shell("doctor", "--leaks", drift.run_id, *places)
    assert implausible(0.16)
    assert not any(implausible(x) for x in (None, float("nan"), 0.15, -1.0))
    assert "doctor --leaks R" in (alarm("R", 0.2) or "")
    assert alarm("R", 0.1) is None
    with Tracker(db) as tracker:
        alone = tracker.log_run("guest", {}, {"val_pct_mae": 1.0})
    assert "logged by hand" in shell.error("doctor", "--leaks", alone, *places, code=2)


def test_show_flags_a_skill_that_is_too_good_to_be_true(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell, db = Shell(capsys), tmp_path / "runs.db"
    with Tracker(db) as tracker:
        ids = [tracker.log_run("toto", {}, {"val_skill": skill}) for skill in (0.2, 0.1)]
    said = [shell("show", one, "--db", str(db)) for one in ids]
    assert "Too good to be true" in said[0]
    assert f"doctor --leaks {ids[0]}" in " ".join(said[0].split())
    assert "Too good" not in said[1]
