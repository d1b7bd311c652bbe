"""Commands that only read: what they rank by, where they look, and what they never create."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from foresweep.cli.main import main
from foresweep.cli.options import HowRead
from foresweep.cli.predict import read_items
from foresweep.data.tables import write_table
from foresweep.errors import UnknownName, UsageError
from foresweep.tracker.tracker import Tracker
from panels import walk_frame, weekdays
from shells import Shell
from tracker_data import CELLS, make_sweep

ERROR = "in train\nRuntimeError: out of memory"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a sweep by pinball with two complete runs and a failed one, whose paths are
    relative to it."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with Tracker("hyperparams/sweeps.db") as tracker:
        sweep = make_sweep(tracker, objective="pinball")
        for n, (mae, pinball) in enumerate([(1.0, 0.9), (2.0, 0.5)]):
            run = tracker.start_run(
                model="toto", hyperparams={}, sweep_id=sweep.sweep_id, fingerprints=CELLS,
                source=f"t: {n}",
            )  # fmt: skip
            own = Path("hyperparams/elsewhere") / run.run_id
            (own / "checkpoint").mkdir(parents=True)
            (own / "training.log").write_text(f"log of {n}\n")
            tracker.finish_run(
                run.run_id,
                "complete",
                scores={"val_pct_mae": mae, "val_pinball": pinball},
                checkpoint_path=own / "checkpoint",
                forecasts_path=own,
            )
        run = tracker.start_run(model="kronos", hyperparams={}, sweep_id=sweep.sweep_id)
        own = Path("hyperparams/runs") / run.run_id
        own.mkdir(parents=True)
        (own / "training.log").write_text(f"step 1\n{ERROR}\n")
        tracker.finish_run(run.run_id, "failed", error=ERROR)
    return folder


@pytest.fixture
def shell(work: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def test_best_and_report_rank_by_the_sweeps_objective(shell: Shell) -> None:
    assert json.loads(shell("best", "--json"))[0]["source"] == "t: 1"
    asked = shell("best", "--metric", "val_pct_mae", "--json")
    assert json.loads(asked)[0]["source"] == "t: 0"
    assert "best by `val_pinball`" in " ".join(shell("report").split())
    assert "best by `val_pct_mae`" in " ".join(shell("report", "--metric", "val_pct_mae").split())


def test_without_a_sweep_they_rank_by_val_pct_mae(shell: Shell) -> None:
    with Tracker("other.db") as tracker:
        tracker.log_run("toto", {}, {"val_pct_mae": 0.5})
    assert "with a val_pct_mae" in shell.error("best", "--db", "other.db", code=1)
    assert "val_pct_mae" in shell("report", "--db", "other.db")


def test_relative_paths_are_found_from_another_folder(
    shell: Shell, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database = str(work / "hyperparams" / "sweeps.db")
    found = json.loads(shell("best", "--db", database, "--json"))[0]
    assert Path(found["checkpoint_path"]).is_dir()
    assert shell("logs", found["run_id"], "--db", database) == "log of 1\n"


def test_relative_paths_start_where_the_run_was_started(
    shell: Shell, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path / "a" / "b" / "c"
    far.mkdir(parents=True)
    shutil.copy(work / "hyperparams" / "sweeps.db", far / "sweeps.db")
    monkeypatch.chdir(far)
    path = json.loads(shell("best", "--db", "sweeps.db", "--json"))[0]["checkpoint_path"]
    assert Path(path).is_relative_to(work)


def test_relative_paths_are_found_beside_a_database_that_moved(
    shell: Shell, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(work, moved)
    shutil.rmtree(work / "hyperparams" / "elsewhere")
    monkeypatch.chdir(tmp_path)
    database = str(moved / "hyperparams" / "sweeps.db")
    path = json.loads(shell("best", "--db", database, "--json"))[0]["checkpoint_path"]
    assert Path(path).is_relative_to(moved)


def test_a_log_without_a_word_is_said_to_be_empty(shell: Shell) -> None:
    found = json.loads(shell("best", "--json"))[0]
    file = next(Path.cwd().glob(f"**/{found['run_id']}/training.log"))
    file.write_text("")
    assert shell("logs", found["run_id"]) == ""
    assert "printed nothing" in shell.err


def test_the_log_beside_the_forecasts_comes_first(shell: Shell) -> None:
    run = json.loads(shell("best", "--json"))[0]["run_id"]
    other = Path("hyperparams/runs") / run
    other.mkdir(parents=True)
    (other / "training.log").write_text("of somebody else")
    assert shell("logs", run) == "log of 1\n"


def test_an_error_is_printed_once(shell: Shell) -> None:
    run = json.loads(shell("runs", "--state", "failed", "--json"))[0]["run_id"]
    log = Path("hyperparams/runs") / run / "training.log"
    assert shell("logs", run).count("RuntimeError") == 1
    log.write_text("step 1\n")
    assert shell("logs", run).count("RuntimeError") == 1
    log.unlink()
    assert shell("logs", run).count("RuntimeError") == 1


def test_a_run_without_log_or_error_says_where_it_was_looked_for(
    shell: Shell, tmp_path: Path
) -> None:
    database = str(tmp_path / "logless.db")
    with Tracker(database) as tracker:
        run = tracker.log_run("toto", {}, {"val_pct_mae": 0.5})
    assert "left no training.log" in shell.error("logs", run, "--db", database, code=1)


def test_a_state_that_is_mistyped_names_the_nearest(shell: Shell) -> None:
    assert "did you mean 'failed'" in shell.error("runs", "--state", "faild", code=2)


@pytest.mark.parametrize("columns", [60, 80, 110, 172])
def test_the_id_of_a_run_stays_in_one_piece(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    ids = [r["run_id"] for r in json.loads(shell("runs", "--json"))]
    monkeypatch.setenv("COLUMNS", str(columns))
    out = shell("runs")
    assert all(i in out for i in ids)
    assert "complete" in out or columns < 80
    assert len(out.strip().splitlines()) == 2 + len(ids) or columns < 80
    assert ("config" in out) == ("sweep" in out) == (columns >= 130)


@pytest.mark.parametrize(
    "call",
    [
        ["best"], ["runs"], ["show", "x"], ["logs", "x"], ["report"], ["compare", "x", "y"],
        ["impact", "lr", "--model", "toto"], ["export", "json"], ["note", "x", "y"],
        ["tag", "x", "y"], ["rm", "x"],
    ],
    ids=lambda call: call[0],
)  # fmt: skip
def test_no_reading_command_creates_a_database(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for place in ("sweps.db", "sweps.json", "sqlite:///sweps.db"):
        line = shell.error(*call, "--db", place, code=1)
        assert "no database at" in line
        assert "sweps" in line
    assert "foresweep sweep --model all --mode demo" in shell.error(*call, code=1)
    assert os.listdir() == []


def test_a_json_file_is_still_read_by_name(shell: Shell) -> None:
    shell("export", "json", "-o", "mine.json")
    assert len(json.loads(shell("runs", "--json", "--db", "mine.json"))) == 2
    Path("mine.json").unlink()
    assert len(json.loads(shell("runs", "--json", "--db", "mine.json"))) == 2


def test_show_counts_a_diff_and_does_not_print_it() -> None:
    from foresweep.cli.best import _in_a_line

    shown = _in_a_line({"host": "here", "git_diff": "-old\n+new", "packages": {"a": "1"}})
    assert shown == {"host": "here", "git_diff": "2 lines (--json)"}


@pytest.mark.slow
def test_names_that_are_no_utf8_and_a_console_that_is_not_end_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9"))
    folder.mkdir()
    frame = walk_frame("X", weekdays(300)).drop("item_id")
    for name in (b"A\xe9.csv", "B\u00dc.csv".encode()):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(frame.write_csv().encode())
    monkeypatch.chdir(tmp_path)
    db = "x.db"
    for command in (
        ("data", "check", str(folder)),
        ("data", "show", str(folder), "--json"),
        ("data", "show", str(folder)),
        ("sweep", "--model", "drift", "--max-context", "64", "--data", str(folder), "--db", db),
        ("runs", "--db", db),
        ("report", "-o", "r.md", "--db", db),
    ):
        out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as end:
            main(command)
        assert not end.value.code
        out.flush()
        said = out.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
        if command[:2] == ("data", "show"):
            assert "A\\xe9" in said.replace("\\\\", "\\")
            assert "B\\xdc" in said or "B\\u00dc" in said
    assert "d\\xe9" in Path("r.md").read_text()


def test_a_database_or_runs_folder_whose_name_is_no_utf8_is_read_or_refused_in_a_line(
    tmp_path: Path, shell: Shell
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9"))
    folder.mkdir()
    db = folder / "s.db"
    with Tracker(db) as tracker:
        tracker.log_run("toto", {"lr": 1e-3}, {"val_pct_mae": 2.0})
    assert "toto" in shell("runs", "--db", str(db))
    line = shell.error(
        "sweep",
        "--model",
        "drift",
        "--data",
        "demo",
        "--db",
        str(db),
        "--runs",
        str(folder),
        code=1,
    )
    assert "d\\xe9 has a name that is no UTF-8" in line


def test_of_items_asked_for_those_that_the_gate_left_out_are_named_and_the_rest_is_there(
    tmp_path: Path,
) -> None:
    for name, bars in (("LONG", 80), ("NEW", 20)):
        write_table(tmp_path / f"{name}.csv", walk_frame(name, weekdays(bars)).drop("item_id"))
    panel, left_out = read_items(str(tmp_path), None, HowRead(), ["LONG", "NEW"])
    assert panel.items == ("LONG",)
    assert "20 whole rows" in left_out["NEW"]
    with pytest.raises(UsageError, match=r"NEW is not forecast: .*20 whole rows"):
        read_items(str(tmp_path), None, HowRead(), ["NEW"])
    with pytest.raises(UnknownName, match="unknown item 'NOPE'"):
        read_items(str(tmp_path), None, HowRead(), ["NOPE"])
