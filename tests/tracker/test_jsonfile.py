from __future__ import annotations

import json
import logging
import math
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foresweep.errors import TrackerError
from foresweep.tracker.jsonfile import Exported, JsonTracker, dump_json, export_json, import_json
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


def test_a_second_import_says_again_what_is_not_there(path: Path) -> None:
    write(path, RUN, "not a run")
    with Tracker(path.with_suffix(".db")) as tracker:
        first, second = import_json(tracker, path), import_json(tracker, path)
        assert (first.num_new, first.num_known, len(first.left_out)) == (1, 0, 1)
        assert (second.num_new, second.num_known) == (0, 1)
        assert second.left_out == first.left_out


def test_a_time_with_its_offset_comes_back_with_it(path: Path) -> None:
    times = {
        "a": "2025-11-12T10:11:12+09:00",
        "b": "2025-11-12T10:11:12-03:30",
        "c": "2025-11-12T10:11:12",
    }
    write(path, *(RUN | {"run_id": k, "timestamp": v} for k, v in times.items()))
    with Tracker(path.with_suffix(".db")) as tracker:
        import_json(tracker, path)
        back = {r["run_id"]: r["timestamp"] for r in json.loads(dump_json(tracker))["runs"]}
        assert back == times
        assert tracker.get_run("a").created_at == datetime.fromisoformat(times["a"])
        assert import_json(tracker, path).num_known == 3


def test_what_is_no_number_is_left_out_and_its_run_is_not(path: Path) -> None:
    metrics = {
        "val_r2": [1, 2],
        "val_mase": {"a": 1},
        "val_smape": "high",
        "big": 10**400,
        "val_pct_mae": 1.5,
    }
    write(path, RUN | {"metrics": metrics, "training_time_seconds": math.inf})
    with Tracker(path.with_suffix(".db")) as tracker:
        done = import_json(tracker, path)
        (run,) = tracker.get_runs()
    assert (done.num_new, dict(run.metrics), run.training_time_seconds) == (
        1,
        {"val_pct_mae": 1.5},
        None,
    )
    assert [reason.split("'")[0] for reason in done.left_out] == [
        *["run 0 without metric "] * 4,
        "run 0 without training_time_seconds is inf: it must be a finite number or None",
    ]


def test_an_empty_checkpoint_path_of_a_file_is_none(path: Path) -> None:
    write(path, RUN | {"checkpoint_path": "", "notes": ""})
    with JsonTracker(path) as tracker:
        (run,) = tracker.get_runs()
        assert (run.checkpoint_path, run.notes) == (None, None)
        assert tracker.get_best_model() is None


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
    write(path, BARE)
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
        (RUN | {"metrics": 3}, "not iterable"),
        (RUN | {"notes": "a\x00b"}, "no database can hold"),
        (RUN | {"timestamp": "0001-01-01T00:00:00+23:00"}, "out of range"),
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


def test_a_file_cut_off_in_the_middle_is_read_up_to_the_cut(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = write(path, RUN, RUN | {"run_id": "second"}, RUN | {"run_id": "third"})
    cut = content[: content.index(b"third") + 20]
    path.write_bytes(cut)
    with caplog.at_level(logging.WARNING), JsonTracker(path) as tracker:
        assert {r.run_id for r in tracker.get_runs()} == {RUN["run_id"], "second"}
        tracker.log_run("toto", {}, {})
    assert "not sound after run 1" in caplog.text
    assert path.with_suffix(".original.json").read_bytes() == cut  # somebody may mend it yet
    assert len(json.loads(path.read_text())["runs"]) == 3


def test_fields_without_a_place_are_named(path: Path) -> None:
    write(path, RUN | {"gpu": "A100"}, RUN | {"run_id": "b", "gpu": "H200", "score": 1})
    with Tracker(path.with_suffix(".db")) as tracker:
        assert import_json(tracker, path).left_out == (
            "field 'gpu' of 2 runs left out",
            "field 'score' of 1 runs left out",
        )


def test_what_another_program_adds_to_an_open_file_is_not_lost(path: Path) -> None:
    with JsonTracker(path) as tracker:
        tracker.log_run("toto", {}, {})
        held = json.loads(path.read_text())
        held["runs"].append(RUN | {"run_id": "added", "own": 1})
        path.write_text(json.dumps(held))
        tracker.log_run("toto", {}, {})
        assert len(tracker.get_runs()) == 3
    assert "added" in {r["run_id"] for r in json.loads(path.read_text())["runs"]}
    assert json.loads(path.with_suffix(".original.json").read_text()) == held


@pytest.mark.parametrize("field", ["notes", "model_name", "timestamp"])
def test_a_file_that_was_changed_by_hand_is_kept(path: Path, field: str) -> None:
    with JsonTracker(path) as tracker:
        tracker.log_run("toto", {}, {"val_r2": 1.0})
        held = json.loads(path.read_text())
        held["runs"][0][field] = "mine"
        path.write_text(json.dumps(held))
        tracker.log_run("toto", {}, {})
    assert json.loads(path.with_suffix(".original.json").read_text()) == held


def test_a_file_of_another_database_is_kept_and_one_of_ours_is_not(path: Path) -> None:
    with Tracker(path.with_suffix(".db")) as mine, Tracker(path.with_name("other.db")) as other:
        other.log_run("toto", {}, {})
        export_json(other, path)
        theirs = path.read_bytes()
        for _ in range(2):
            mine.log_run("toto", {}, {})
            export_json(mine, path)
    assert [p.read_bytes() for p in path.parent.glob("*.original*.json")] == [theirs]


def test_every_file_that_held_more_is_kept_under_a_name_of_its_own(path: Path) -> None:
    with Tracker(path.with_suffix(".db")) as tracker:
        for n in (1, 2):
            path.write_text(f'{{"mine": {n}}}')
            export_json(tracker, path)
    kept = [path.with_suffix(f".original{n}.json").read_text() for n in ("", "-2")]
    assert kept == ['{"mine": 1}', '{"mine": 2}']


def test_test_scores_come_out_only_on_demand_and_the_look_is_on_record(path: Path) -> None:
    write(
        path, RUN | {"metrics": {"val_pct_mae": 0.4, "test_pct_mae": 0.48}}, RUN | {"run_id": "b"}
    )
    with Tracker(path.with_suffix(".db")) as tracker:
        import_json(tracker, path)
        assert "test_" not in dump_json(tracker)
        export_json(tracker, path)
        assert "test_" not in path.read_text()
        assert tracker.judgings.test_looks() == []
        export_json(tracker, path, reveal_test=True)
        assert '"test_pct_mae": 0.48' in path.read_text()
        (look,) = tracker.judgings.test_looks()
    assert (look["run_id"], look["why"]) == (RUN["run_id"], f"export to {path}")


def test_runs_that_have_no_place_in_this_form_are_counted(path: Path) -> None:
    with Tracker(path.with_suffix(".db")) as tracker:
        tracker.log_run("toto", {}, {})
        run = tracker.start_run(model="toto", hyperparams={})
        tracker.finish_run(run.run_id, "failed")
        assert export_json(tracker, path) == Exported(num_runs=1, num_left_out=1)


NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
METRICS = st.sampled_from(
    ["val_pct_mae", "val_r2", "tune_x", "duration", "test_r2", "test_pct_mae"]
)
RECORDS = st.fixed_dictionaries(
    {
        "run_id": NAMES,
        "model_name": NAMES,
        "timestamp": st.datetimes().map(datetime.isoformat),
        "hyperparams": st.dictionaries(st.text(), JSON, max_size=4),
        "metrics": st.dictionaries(METRICS, st.floats(allow_infinity=False) | st.none()),
        "checkpoint_path": st.none() | NAMES,
        "training_time_seconds": st.none() | st.floats(0, 1e9),
        "notes": st.none() | NAMES,
        "git_commit": st.none() | NAMES,
    }
)


def nulled(record: dict[str, Any]) -> dict[str, Any]:
    """The record as this form writes it: naive times to the microsecond, a failed score null."""
    metrics = {n: None if v is None or math.isnan(v) else v for n, v in record["metrics"].items()}
    return record | {"metrics": metrics}


def by_id(records: Any) -> list[Any]:
    return sorted(records, key=lambda r: str(r["run_id"]))


@settings(max_examples=25)
@given(st.lists(RECORDS, max_size=4, unique_by=lambda r: r["run_id"]))
def test_any_sound_file_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, empty: Path, records: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("json") / "sweep_results.json"
    shutil.copy(empty, path.with_suffix(".db"))
    write(path, *records)
    with Tracker(path.with_suffix(".db")) as tracker:
        found = import_json(tracker, path)
        back = json.loads(dump_json(tracker, reveal_test=True))["runs"]
    assert (found.num_new, found.left_out) == (len(records), ())
    assert by_id(back) == by_id(map(nulled, records))


@settings(max_examples=40)
@given(st.data(), st.lists(RECORDS, min_size=1, max_size=3, unique_by=lambda r: r["run_id"]))
def test_a_file_cut_anywhere_gives_whole_runs_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, shared: Tracker, data: st.DataObject, records: Any
) -> None:
    path = tmp_path_factory.mktemp("json") / "sweep_results.json"
    content = write(path, *records)
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    try:
        found = import_json(shared, path)
    except TrackerError as error:
        told = str(error)
        assert "sweep_results.json" in told
    else:
        assert found.num_new + found.num_known <= len(records)
        assert found.left_out or found.num_known


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
