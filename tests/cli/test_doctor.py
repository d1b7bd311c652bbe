"""`doctor`: it names the places that the other commands would use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foresweep.data.splits import Cut
from foresweep.evaluation.yardstick import alarm, implausible
from foresweep.search.plan import SweepPlan, by_hand
from foresweep.search.sweep import sweep
from foresweep.tracker.tracker import Tracker
from planted_model import installed
from shells import Shell


def test_the_doctor_names_the_data_that_the_settings_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORESWEEP_DATA", raising=False)
    shell = Shell(capsys)
    assert json.loads(shell("doctor", "--json"))["data"] == "demo"
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
