from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest

from foresweep.errors import TrackerError
from foresweep.tracker.jsonfile import JsonTracker, export_json, import_json
from foresweep.tracker.tracker import Tracker

RUN: dict[str, Any] = {
    "run_id": "toto_20251112_101112",
    "model_name": "toto",
    "timestamp": "2025-11-12T10:11:12.123456",
    "hyperparams": {"patch_size": 32, "learning_rate": 0.0003, "sizes": [1, 2]},
    "metrics": {"val_pct_mae": 0.45, "val_r2": -85.04},
    "checkpoint_path": "checkpoints/best.pt",
    "training_time_seconds": 12.5,
    "notes": "aligned with the paper",
    "git_commit": "e4e3e8d",
}
BARE = {name: RUN[name] for name in ("run_id", "model_name", "timestamp", "hyperparams", "metrics")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sweep_results.json"


def write(path: Path, *runs: Any) -> bytes:
    path.write_text(json.dumps({"runs": runs, "last_updated": "2025-11-12T10:11:13"}))
    return path.read_bytes()


def test_a_seeds_file_is_read_in_and_comes_back_without_loss(path: Path) -> None:
    second = RUN | {"run_id": "kronos_1", "model_name": "kronos", "notes": None}
    write(path, RUN, second)
    with JsonTracker(path) as tracker:
        runs = tracker.get_runs()
        export_json(tracker, path)
    assert [r.run_id for r in runs] == ["kronos_1", RUN["run_id"]]  # of one moment: by id
    assert runs[1].hyperparams == RUN["hyperparams"]
    assert (runs[1].source, runs[1].fingerprint) == ("imported", "")
    written = json.loads(path.read_text())["runs"]
    assert sorted(written, key=lambda r: r["run_id"]) == [second, RUN]


def test_the_database_stands_beside_the_file(path: Path) -> None:
    JsonTracker(path).close()
    assert path.with_suffix(".db").exists()
    assert not path.exists()  # nothing to write yet


def test_any_other_path_is_the_database_itself(tmp_path: Path) -> None:
    with JsonTracker(tmp_path / "mine.db") as tracker:
        tracker.log_run("toto", {}, {})
    assert sorted(p.name for p in tmp_path.glob("*.db")) == ["mine.db"]
    assert not list(tmp_path.glob("*.json"))


def test_without_a_path_the_settings_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORESWEEP_DB", str(tmp_path / "set.db"))
    JsonTracker().close()
    assert (tmp_path / "set.db").exists()


def test_a_file_is_read_in_once(path: Path) -> None:
    write(path, RUN)
    for _ in range(3):
        with JsonTracker(path) as tracker:
            assert len(tracker.get_runs()) == 1


def test_what_was_added_to_the_file_is_read_in_later(path: Path) -> None:
    write(path, RUN)
    JsonTracker(path).close()
    write(path, RUN, RUN | {"run_id": "new"})
    with JsonTracker(path) as tracker:
        assert {r.run_id for r in tracker.get_runs()} == {RUN["run_id"], "new"}


def test_scores_added_since_do_not_bring_a_run_in_twice(path: Path) -> None:
    write(path, RUN)
    with JsonTracker(path) as tracker:
        tracker.add_scores(RUN["run_id"], {"val_mase": 0.9})
    write(path, RUN, RUN | {"run_id": "new"})
    for _ in range(2):
        with JsonTracker(path) as tracker:
            assert {r.run_id for r in tracker.get_runs()} == {RUN["run_id"], "new"}


def test_a_file_known_by_content_is_not_looked_through_again(path: Path) -> None:
    write(path, RUN, "not a run")
    with Tracker(path.with_suffix(".db")) as tracker:
        assert len(import_json(tracker, path).left_out) == 1
        assert import_json(tracker, path).left_out == ()


def test_a_logged_run_is_in_the_file_at_once(path: Path) -> None:
    write(path, RUN)
    with JsonTracker(path) as tracker:
        run_id = tracker.log_run("toto", {"lr": 0.1}, {"val_pct_mae": math.nan}, "x.pt", 3.0, "n")
        run = tracker.get_run(run_id)
    found = json.loads(path.read_text())
    assert [r["run_id"] for r in found["runs"]] == [RUN["run_id"], run_id]
    assert found["runs"][1] == {
        "run_id": run_id,
        "model_name": "toto",
        "timestamp": run.created_at.replace(tzinfo=None).isoformat(),
        "hyperparams": {"lr": 0.1},
        "metrics": {"val_pct_mae": None},
        "checkpoint_path": "x.pt",
        "training_time_seconds": 3.0,
        "notes": "n",
        "git_commit": run.git_commit,
    }
    with JsonTracker(path) as again:
        assert len(again.get_runs()) == 2


def test_the_original_is_kept_beside_what_is_written_over_it(path: Path) -> None:
    content = write(path, RUN | {"metrics": {"val_r2": 1.0, "test_r2": 0.5}})
    with JsonTracker(path) as tracker:
        tracker.log_run("toto", {}, {})
        tracker.log_run("toto", {}, {})
    assert (path.parent / "sweep_results.original.json").read_bytes() == content
    assert "test_r2" not in path.read_text()


def test_test_scores_of_a_file_go_to_sealed_rows(path: Path) -> None:
    write(path, RUN | {"metrics": {"val_pct_mae": 0.45, "test_pct_mae": 0.48}})
    with JsonTracker(path) as tracker:
        (run,) = tracker.get_runs()
        assert run.metrics == {"val_pct_mae": 0.45}
        assert tracker.reveal_test(run.run_id, why="test") == {"test_pct_mae": 0.48}


def test_imported_runs_rank_among_themselves(path: Path) -> None:
    better = RUN | {"run_id": "better", "metrics": {"val_pct_mae": 0.1}}
    broken = RUN | {"run_id": "broken", "metrics": {"val_pct_mae": math.nan}}
    write(path, broken, RUN, better)
    with JsonTracker(path) as tracker:
        best = tracker.get_best_model()
    assert best is not None
    assert best.run_id == "better"


def test_two_runs_of_one_id_both_come_in(path: Path) -> None:
    other = RUN | {"hyperparams": {"patch_size": 64}}
    write(path, RUN, other, RUN)
    with Tracker(path.with_suffix(".db")) as tracker:
        found = import_json(tracker, path)
        assert (found.num_new, found.num_known) == (2, 1)
        runs = {r.run_id: r.hyperparams["patch_size"] for r in tracker.get_runs()}
    assert runs == {RUN["run_id"]: 32, f"{RUN['run_id']}-2": 64}


def test_a_record_with_only_what_it_must_have_comes_in(path: Path) -> None:
    write(path, BARE | {"some_field_of_ones_own": 1})
    with JsonTracker(path) as tracker:
        (run,) = tracker.get_runs()
    assert (run.checkpoint_path, run.notes, run.git_commit) == (None, None, None)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({k: v for k, v in RUN.items() if k != "metrics"}, "'metrics' is missing"),
        (RUN | {"timestamp": "yesterday"}, "yesterday"),
        (RUN | {"timestamp": None}, "must be str"),
        (RUN | {"model_name": 3}, "model_name is 3"),
        (RUN | {"run_id": ""}, "run_id is ''"),
        (RUN | {"hyperparams": {"lr": math.nan}}, "is nan"),
        (RUN | {"hyperparams": [1]}, "must be a mapping"),
        (RUN | {"metrics": {"val_r2": "high"}}, "'high', not a number"),
        (RUN | {"metrics": 3}, "not iterable"),
        (RUN | {"training_time_seconds": "long"}, "could not convert"),
        ("a run", "must be a mapping"),
    ],
)
def test_an_unsound_record_is_left_out_and_told(
    path: Path, bad: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(path, bad, RUN | {"run_id": "sound"})
    with caplog.at_level(logging.WARNING), JsonTracker(path) as tracker:
        assert [r.run_id for r in tracker.get_runs()] == ["sound"]
    (told,) = [r.getMessage() for r in caplog.records]
    assert "run 0 left out" in told
    assert reason in told


@pytest.mark.parametrize("content", [b'{"runs": [', b"[]", b'{"runs": 3}', b"", b"\xff\xfe\x00"])
def test_a_file_that_is_not_of_this_form_is_refused_and_kept(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(TrackerError, match=r"sweep_results\.json"):
        JsonTracker(path)
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_written_does_not_harm_the_run(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with JsonTracker(path) as tracker, caplog.at_level(logging.WARNING):
        path.mkdir()
        run_id = tracker.log_run("toto", {}, {})
        assert tracker.get_run(run_id)
    assert f"run {run_id} is on record, but {path} cannot be" in caplog.text
