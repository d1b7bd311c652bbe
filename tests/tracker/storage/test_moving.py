from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from foresweep.errors import NotFound, TrackerError
from foresweep.records import Run
from foresweep.tracker.storage import moving
from foresweep.tracker.storage.moving import backup, check, copy_database
from foresweep.tracker.tracker import Tracker
from tracker_data import CELLS, make_sweep

pytestmark = pytest.mark.slow

NO_PID = 2**22 + 1


def fill(tracker: Tracker) -> list[Run]:
    """Something in every corner: sweeps, trials, curves, failed scores, notes, looks."""
    sweep = make_sweep(tracker)
    facts = {"config": {"lr": 0.1}, "config_hash": "c", "train_hash": "t", "source": "s"}
    number = tracker.heads.add_trial(sweep.sweep_id, model="toto", **facts).number  # type: ignore[arg-type]
    run = tracker.start_run(
        model="toto",
        hyperparams={"é": 1e-300, "n": None},
        sweep_id=sweep.sweep_id,
        trial_number=number,
        fingerprints=CELLS,
    )
    for step in range(5):
        tracker.log(run.run_id, step, {"loss": 1 / (step + 3), "bad": float("nan")})
    tracker.finish_run(
        run.run_id,
        "complete",
        scores={"val_pct_mae": 0.1 + 0.2, "test_pct_mae": None},  # type: ignore[dict-item]
    )
    tracker.add_note(run.run_id, "looks odd")
    tracker.reveal_test(run.run_id, why="a test")
    tracker.log_run("kronos", {"x": [1, {"y": "z"}]}, {"val_r2": -1e308})
    return tracker.get_runs()


@pytest.fixture
def other_place(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """An empty place of the other kind."""
    if backend == "sqlite":
        return str(request.getfixturevalue("new_database")(bare=True))
    return str(tmp_path / "moved.db")


def test_a_database_moves_to_the_other_kind_and_back_without_loss(
    tracker: Tracker, place: str, other_place: str, tmp_path: Path
) -> None:
    runs = fill(tracker)
    counts = copy_database(place, other_place)
    assert (counts["runs"], counts["curve_points"], counts["scores"]) == (2, 10, 3)
    assert copy_database(other_place, tmp_path / "back.db") == counts
    for there in (other_place, tmp_path / "back.db"):
        with Tracker(there) as moved:
            assert repr(moved.get_runs()) == repr(runs)
            assert repr(moved.get_curves(runs[0].run_id)) == repr(
                tracker.get_curves(runs[0].run_id)
            )
            moved.add_note(runs[0].run_id, "goes on")  # numbers given out go on, too
            assert [note for _, _, note in moved.get_notes(runs[0].run_id)][-1] == "goes on"


def test_a_database_that_holds_runs_is_not_written_over(
    tracker: Tracker, place: str, other_place: str
) -> None:
    fill(tracker)
    with Tracker(other_place) as other:
        other.log_run("toto", {}, {})
    with pytest.raises(TrackerError, match="has runs already; copy into an empty database"):
        copy_database(place, other_place)


def test_a_row_that_came_out_different_undoes_the_copy(
    tracker: Tracker, place: str, other_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tracker)
    whole = moving._copy_table

    def lossy(reader: object, writer: object, table: object) -> int:
        count = whole(reader, writer, table)  # type: ignore[arg-type]
        if table.name == "runs":  # type: ignore[attr-defined]
            writer.execute(text("UPDATE runs SET notes = 'x'"))  # type: ignore[attr-defined]
        return count

    monkeypatch.setattr(moving, "_copy_table", lossy)
    with pytest.raises(TrackerError, match="the copy of runs differs"):
        copy_database(place, other_place)
    with Tracker(other_place) as other:
        assert other.get_runs() == []


def test_no_source_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        copy_database(tmp_path / "none.db", tmp_path / "copy.db")
    with pytest.raises(NotFound):
        backup(tmp_path / "none.db", tmp_path / "copy.db")
    assert list(tmp_path.iterdir()) == []


def test_a_backup_is_one_file_that_opens(tracker: Tracker, place: str, tmp_path: Path) -> None:
    runs = fill(tracker)
    target = tmp_path / "backup" / "copy.db"
    target.parent.mkdir()
    with tracker.run("toto", {}, system_every_s=None) as writing:  # others go on
        writing.log(1, {"loss": 1.0})
        backup(place, target)
        writing.log(2, {"loss": 1.0})
    assert [p.name for p in target.parent.iterdir()] == ["copy.db"]
    with sqlite3.connect(target) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    copy.close()
    with Tracker(target) as kept:
        assert repr(kept.get_runs()[:2]) == repr(runs)
    with pytest.raises(TrackerError, match="is there already"):
        backup(place, target)


def test_a_sound_database_is_said_to_be(tracker: Tracker) -> None:
    fill(tracker)
    found = check(tracker)
    assert (found.problems, found.repaired, found.num_runs) == ((), (), 2)
    assert found.is_sound


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("UPDATE scores SET state = 'failed' WHERE metric = 'r2'", "1 scores that say"),
        ("UPDATE curves SET num_points = 9 WHERE name = 'loss'", "1 curves that do not count"),
        ("UPDATE curves SET run_id = 'ghost' WHERE name = 'loss'", "1 steps of runs that are not"),
    ],
)
def test_what_does_not_agree_is_named(tracker: Tracker, harm: str, said: str) -> None:
    fill(tracker)
    with tracker.store.write() as connection:
        connection.execute(text(harm))
    assert check(tracker).problems[0].startswith(said)


def test_a_check_repairs_stale_runs(tracker: Tracker) -> None:
    run = tracker.start_run(model="toto", hyperparams={})
    with tracker.store.write() as connection:
        connection.execute(text(f"UPDATE runs SET pid = {NO_PID}"))
    assert check(tracker).repaired == (run.run_id,)


def test_a_row_that_points_to_nothing_is_named(path: Path, empty: Path) -> None:
    shutil.copy(empty, path)
    with sqlite3.connect(path) as raw:
        raw.execute("INSERT INTO notes VALUES (1, 'ghost', 't', 'w', 'now')")
    raw.close()
    with Tracker(path) as tracker:
        assert check(tracker).problems == ("row 1 of notes points to nothing in runs",)
