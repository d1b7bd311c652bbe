"""`runs`, `compare`, `impact`, `note`, `tag`, `rm` on a database made by hand."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from foresweep.cli.manage import own_folder
from foresweep.records import Run
from foresweep.tracker.tracker import Tracker
from shells import Shell
from tracker_data import CELLS, make_sweep


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of a sweep with three runs, the last of which failed."""
    folder = tmp_path_factory.mktemp("query")
    with Tracker(folder / "made.db") as tracker:
        sweep = make_sweep(tracker)
        for n, (lr, loss, skill) in enumerate([(1e-5, "huber", 0.1), (1e-3, "[/b]", -0.1)]):
            add(tracker, n, {"lr": lr, "loss": loss, "same": 1}, skill, sweep.sweep_id)
        run = tracker.start_run(model="kronos", hyperparams={"lr": 0.5})
        tracker.finish_run(run.run_id, "failed", error="out of memory")
    return folder / "made.db"


def add(tracker: Tracker, n: int, hyperparams: dict[str, object], skill: float, sweep: str) -> Run:
    run = tracker.start_run(
        model="toto", hyperparams=hyperparams, sweep_id=sweep, fingerprints=CELLS, source=f"t: {n}"
    )
    scores = {"val_pct_mae": 1.0 + n, "val_skill": skill, "val_r2": float("nan"), "test_r2": 9.87}
    return tracker.finish_run(run.run_id, "complete", scores=scores)


@pytest.fixture
def shell(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """Works on a copy of its own."""
    copy = tmp_path / "hyperparams" / "sweeps.db"
    copy.parent.mkdir()
    copy.write_bytes(made.read_bytes())
    monkeypatch.chdir(tmp_path)
    return Shell(capsys)


def listed(shell: Shell, *args: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(shell("runs", "--json", *args))
    return found


def test_runs_are_filtered_sorted_and_limited(shell: Shell) -> None:
    assert [r["source"] for r in listed(shell, "--where", "lr<1e-2", "--sort", "lr:desc")] == [
        "t: 1",
        "t: 0",
    ]
    assert [r["source"] for r in listed(shell, "--sort", "val_skill:desc", "--limit", "1")] == [
        "t: 0"
    ]
    assert len(listed(shell, "--sweep", "latest")) == 2
    assert [r["model_name"] for r in listed(shell)] == ["kronos", "toto", "toto"]  # newest first
    assert shell("runs", "--state", "pruned") == "No run on record is as asked.\n"


def test_a_failed_score_is_null_in_json_and_empty_in_csv(shell: Shell) -> None:
    run = listed(shell, "--where", "lr=1e-5")[0]
    assert run["metrics"] == {"val_pct_mae": 1.0, "val_skill": 0.1, "val_r2": None}
    rows = list(csv.DictReader(io.StringIO(shell("runs", "--csv", "--sort", "lr"))))
    assert [(r["hp.lr"], r["hp.same"], r["val_pct_mae"], r["val_r2"]) for r in rows] == [
        ("1e-05", "1", "1.0", ""),
        ("0.001", "1", "2.0", ""),
        ("0.5", "", "", ""),
    ]


def test_the_table_shows_the_value_it_is_sorted_by_and_takes_brackets_as_they_are(
    shell: Shell,
) -> None:
    assert "1e-05" in shell("runs", "--sort", "lr")
    assert "[/b]" in shell("runs", "--sort", "loss")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["runs", "--where", "vall_skill > 0"], "did you mean 'val_skill'"),
        (["runs", "--where", "lr <"], "character 5"),
        (["runs", "--where", ""], "it ends here"),
        (["runs", "--sort", "test_r2"], "sealed"),
        (["runs", "--json", "--csv"], "give one"),
        (["impact", "lr", "--model", "toto", "--metric", "test_r2"], "sealed"),
        (["impact", "lrr", "--model", "toto"], "did you mean 'lr'"),
        (["compare", "toto"], "two runs"),
    ],
)
def test_bad_questions_end_in_one_line(shell: Shell, args: list[str], says: str) -> None:
    assert says in shell.error(*args, code=2)


def test_compare_shows_what_differs_and_doubts_other_windows(shell: Shell) -> None:
    a, b = (r["run_id"] for r in listed(shell, "--sort", "lr", "--limit", "2"))
    found = json.loads(shell("compare", str(a), str(b), "--json"))
    assert found["same_windows"]
    assert found["hyperparams"] == {"lr": [1e-5, 1e-3], "loss": ["huber", "[/b]"]}
    assert found["metrics"]["val_pct_mae"] == [1.0, 2.0]
    out = shell("compare", str(a), str(b))
    assert "cannot be compared" not in out
    assert "9.87" not in out
    other = listed(shell, "--state", "failed")[0]["run_id"]
    assert "cannot be compared" in shell("compare", str(a), str(other))


def test_impact_counts_by_value(shell: Shell) -> None:
    found = json.loads(shell("impact", "loss", "--model", "toto", "--json"))
    assert [(v["label"], v["count"]) for v in found["values"]] == [("[/b]", 1), ("huber", 1)]
    assert "1e-05" in shell("impact", "lr", "--model", "toto")


def test_a_note_and_a_tag_are_kept_and_found(shell: Shell) -> None:
    run = str(listed(shell, "--sort", "lr")[0]["run_id"])
    shell("note", run[:-2], "[see] the paper")
    shell("tag", run[:-2], "good")
    assert [r["run_id"] for r in listed(shell, "--tag", "good")] == [run]
    assert listed(shell, "--where", "tag = good")
    shown = shell("show", run)
    assert "[see] the paper" in shown
    assert "good" in shown
    assert json.loads(shell("show", run, "--json"))["notes_added"][0]["text"] == "[see] the paper"


def test_rm_hides_and_undo_brings_back(shell: Shell) -> None:
    run = str(listed(shell, "--sort", "lr")[0]["run_id"])
    assert "--undo" in shell("rm", run)
    assert run not in [r["run_id"] for r in listed(shell)]
    shell("rm", run, "--undo")
    assert run in [r["run_id"] for r in listed(shell)]
    assert "is not hidden" in shell.error("rm", run, "--undo", code=1)


def test_rm_removes_files_only_when_told_or_asked(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(listed(shell, "--sort", "lr")[0]["run_id"])
    folder = tmp_path / "hyperparams" / "runs" / run
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "model.safetensors").write_bytes(b"x" * 100)
    shell("rm", run)  # nobody can answer here: files stay
    assert folder.exists()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda _: False)
    shell("rm", run)
    assert folder.exists()
    assert "Removed" in shell("rm", run, "--yes")
    assert not folder.exists()
    assert folder.parent.exists()


@pytest.mark.parametrize("run_id", ["..", ".", "a/../../x", "link", "near", "nothing", ""])
def test_a_run_owns_no_folder_but_the_one_of_its_name(tmp_path: Path, run_id: str) -> None:
    """Imported runs may be called anything; nothing outside may go with them."""
    runs_dir = tmp_path / "runs"
    (runs_dir / "a").mkdir(parents=True)
    (tmp_path / "x").mkdir()
    (runs_dir / "link").symlink_to(tmp_path / "x")
    (runs_dir / "near").symlink_to(runs_dir / "a")
    assert own_folder(runs_dir, run_id) is None
    assert own_folder(runs_dir, "a") == runs_dir / "a"


def test_runs_and_status_tell_score_and_skill_in_the_sweeps_own_objective(
    shell: Shell, tmp_path: Path
) -> None:
    with Tracker(tmp_path / "own.db") as tracker:
        sweep = tracker.create_sweep(
            models=["toto"], mode="random", objective="crps", horizon=5, seed=0, panel_hash="p",
            task_hash="t", fingerprints={"val": "v", "tune": "u"}, plan={},
        )  # fmt: skip
        for model, crps in (("last-value", 4.0), ("toto", 3.0)):
            run = tracker.start_run(
                model=model, hyperparams={}, sweep_id=sweep.sweep_id, source="baseline",
                fingerprints={"val": "v", "tune": "u"}, is_baseline=model == "last-value",
            )  # fmt: skip
            scores = {"val_crps": crps, "tune_crps": crps, "val_pct_mae": 2.0, "val_skill": 0.0}
            tracker.finish_run(run.run_id, "complete", scores=scores)
    place = ("--db", str(tmp_path / "own.db"))
    listed = shell("runs", *place)
    assert "val_crps" in listed
    assert "val_pct_mae" not in listed
    assert "+25.00 %" in listed
    assert "tune crps 3.000, skill +25.00 %" in shell("status", *place)
    with Tracker(tmp_path / "own.db") as tracker:
        tracker.log_run("by-hand", {}, {"val_pct_mae": 9.0, "val_skill": 0.5})
    mixed = shell("runs", *place)
    assert "objective" in mixed
    assert "+25.00 %" in mixed
    assert "+50.00 %" in mixed
