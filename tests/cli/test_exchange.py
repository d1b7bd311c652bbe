"""`import`, `export`, `db` and `--mirror`: what they hand over, and what they never do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from foresweep.cli.live import Mirrors
from foresweep.cli.manage import points_by_step
from foresweep.records import Run
from foresweep.search.events import Event, TrialFinished, TrialProgressed, TrialStarted
from foresweep.tracker.hiding import hide_run
from foresweep.tracker.tracker import Tracker
from runs import make_run
from shells import Shell

SECRET = 7.654321


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """In a folder with a database of one complete and one failed run."""
    monkeypatch.chdir(tmp_path)
    with Tracker("hyperparams/sweeps.db") as tracker:
        tracker.log_run("toto", {"lr": 1e-4}, {"val_pct_mae": 0.5, "test_pct_mae": SECRET})
        run = tracker.start_run(model="toto", hyperparams={})
        for step in (2, 1):
            tracker.log(run.run_id, step, {"loss": float(step), "skill": 0.0})
        tracker.finish_run(run.run_id, "failed")
    return Shell(capsys)


def test_an_export_comes_back_through_an_import(shell: Shell, tmp_path: Path) -> None:
    out = shell("export", "json", "-o", "mine.json")
    assert "1 runs; 1 not complete" in out
    printed = json.loads(shell("export", "json"))["runs"]
    assert printed == json.loads((tmp_path / "mine.json").read_text())["runs"]
    assert "1 new runs, 0 known" in shell("import", "json", "mine.json", "--db", "other.db")
    assert "0 new runs, 1 known" in shell("import", "json", "mine.json", "--db", "other.db")


def test_test_scores_leave_only_with_reveal_test_and_the_look_is_on_record(shell: Shell) -> None:
    assert str(SECRET) not in shell("export", "json")
    assert str(SECRET) in shell("export", "json", "--reveal-test")
    with Tracker("hyperparams/sweeps.db") as tracker:
        assert [look["why"] for look in tracker.judgings.test_looks()] == ["export to the screen"]


def test_an_import_says_what_it_left_out(shell: Shell, tmp_path: Path) -> None:
    shell("export", "json", "-o", "mine.json")
    held = json.loads((tmp_path / "mine.json").read_text())
    held["runs"] = [{"run_id": "x"}, held["runs"][0] | {"gpu": 1}]
    (tmp_path / "mine.json").write_text(json.dumps(held))
    shell("import", "json", "mine.json", "--db", "other.db")
    assert "run 0 left out" in shell.err
    assert "'gpu'" in shell.err
    assert "nowhere.json" in shell.error("import", "json", "nowhere.json", code=1)


def test_the_database_is_checked_copied_backed_up_and_upgraded(shell: Shell) -> None:
    with Tracker("hyperparams/sweeps.db") as tracker:
        hide_run(tracker, tracker.get_runs()[0].run_id)
    assert json.loads(shell("db", "check", "--json"))["is_sound"]
    assert "2 runs; sound" in shell("db", "check")
    assert "runs 2" in shell("db", "copy", "copy.db")
    assert "copy into an empty" in shell.error("db", "copy", "copy.db", code=1)
    shell("db", "backup", "backup.db")
    assert "there already" in shell.error("db", "backup", "backup.db", code=1)
    assert "the newest" in shell("db", "upgrade", "backup.db")
    for place in ("copy.db", "backup.db"):
        assert len(json.loads(shell("runs", "--json", "--db", place))) == 1
    assert "no database" in shell.error("db", "check", "--db", "none.db", code=1)


def test_a_check_that_finds_something_ends_with_1(shell: Shell) -> None:
    from sqlalchemy import text

    with Tracker("hyperparams/sweeps.db") as tracker, tracker.store.write() as connection:
        connection.execute(text("UPDATE scores SET state = 'lost'"))
    assert "problem: " in shell("db", "check", code=1)


def test_a_curve_is_handed_over_by_step(shell: Shell) -> None:
    with Tracker("hyperparams/sweeps.db") as tracker:
        run = tracker.get_runs(state="failed")[0]
        assert points_by_step(tracker, run) == {
            1: {"loss": 1.0, "skill": 0.0},
            2: {"loss": 2.0, "skill": 0.0},
        }


class Fake:
    """A mirror that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def has(self, run: Run) -> bool:
        return False

    def start(self, run: Run) -> None:
        self.told.append(("start", run.run_id))

    def log(self, run: Run, step: int, scores: Mapping[str, float]) -> None:
        self.told.append(("log", step, dict(scores)))

    def finish(self, run: Run) -> None:
        self.told.append(("finish", run.state))

    def close(self) -> None:
        self.told.append(("close",))


def test_the_events_of_a_sweep_reach_its_mirrors_and_the_view(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake, seen, said = Fake(), list[Event](), list[str]()
    monkeypatch.setattr("foresweep.cli.live.open_mirror", lambda name: lambda: fake)
    run = make_run("toto", 1, 1.0)
    events = [TrialStarted(run), TrialProgressed(run, 2, {"tune_r2": 1.0}), TrialFinished(run)]
    with Mirrors(["mlflow:sqlite:///x"], said.append) as mirrors:
        listen = mirrors.beside(seen.append)
        for event in events:
            listen(event)
    assert seen == events
    assert said == []
    assert fake.told == [
        ("start", run.run_id),
        ("log", 2, {"tune_r2": 1.0}),
        ("finish", "complete"),
        ("close",),
    ]


def test_a_mirror_that_is_unknown_is_refused_before_anything_runs(shell: Shell) -> None:
    line = shell.error("train", "-m", "drift", "--mirror", "mlfow", code=2)
    assert "did you mean 'mlflow'" in line
    assert len(json.loads(shell("runs", "--json"))) == 2
