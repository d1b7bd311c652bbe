from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from sqlalchemy import text

from foresweep.errors import ConfigError, NotFound, TrackerError, UsageError
from foresweep.records import Run, RunState, SweepState, is_sealed
from foresweep.tracker.jsonfile import dump_json
from foresweep.tracker.queries.runs import fingerprint_in_use
from foresweep.tracker.tracker import NewRun, Tracker
from tracker_data import CELLS, make_sweep

Finished = Callable[..., Run]


def test_a_sweep_comes_back_as_it_was_asked(tracker: Tracker) -> None:
    sweep = make_sweep(tracker, models=["toto", "kronos"], name="first", plan={"grid": [1, 2.5]})
    assert tracker.get_sweep(sweep.sweep_id) == sweep
    assert (sweep.models, sweep.plan, sweep.fingerprints) == (
        ("toto", "kronos"),
        {"grid": [1, 2.5]},
        CELLS,
    )
    assert sweep.sweep_id.startswith("first_")
    assert sweep.state is SweepState.RUNNING


def test_the_latest_sweep_is_the_newest(tracker: Tracker) -> None:
    first, second = make_sweep(tracker), make_sweep(tracker)
    assert tracker.get_sweep("latest").sweep_id == second.sweep_id
    assert [s.sweep_id for s in tracker.list_sweeps()] == [second.sweep_id, first.sweep_id]


def test_the_latest_sweep_is_the_last_put_on_record_whatever_the_clock_says(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_sweep(tracker)
    clock = type("Clock", (), {"now": lambda zone: datetime.now(zone) - timedelta(days=1)})
    monkeypatch.setattr("foresweep.tracker.tracker.datetime", clock)
    second = make_sweep(tracker, fingerprints={"val": "other"})
    assert second.started_at < first.started_at
    assert [s.sweep_id for s in tracker.list_sweeps()] == [second.sweep_id, first.sweep_id]
    assert tracker.get_sweep("latest") == second
    with tracker.store.read() as connection:
        asked = {"part": "val", "model_name": None, "sweep_id": None}
        assert fingerprint_in_use(connection, **asked) == "other"  # what a ranking means


@pytest.mark.parametrize("asked", [{"mode": "update"}, {"mode": "random", "fold": 1}])
def test_the_latest_is_a_search_that_was_asked_for_and_no_update_or_fold_where_there_is_one(
    tracker: Tracker, asked: dict[str, Any]
) -> None:
    cells = {"part": "val", "model_name": None, "sweep_id": None}
    other = make_sweep(tracker, plan={"asked": asked}, fingerprints={"val": "other"})
    assert tracker.get_sweep("latest") == other
    with tracker.store.read() as connection:
        assert fingerprint_in_use(connection, **cells) == "other"
    mine = make_sweep(tracker, plan={"asked": {"mode": "random", "fold": None}})
    newer = make_sweep(tracker, plan={"asked": asked}, fingerprints={"val": "other"})
    assert tracker.get_sweep("latest") == mine
    assert tracker.get_sweep("latest", aside=True) == newer
    with tracker.store.read() as connection:
        assert fingerprint_in_use(connection, **cells) == CELLS["val"]
    assert tracker.heads.ask_to_stop("latest").sweep_id == newer.sweep_id


def test_sweeps_that_are_older_than_the_chain_stand_before_those_in_it(tracker: Tracker) -> None:
    old, new = make_sweep(tracker), make_sweep(tracker)
    with tracker.store.write() as connection:
        connection.execute(text("DELETE FROM record_chain WHERE key = :key"), {"key": old.sweep_id})
    assert [s.sweep_id for s in tracker.list_sweeps()] == [new.sweep_id, old.sweep_id]


def test_without_a_sweep_the_latest_is_refused_with_what_to_do(tracker: Tracker) -> None:
    with pytest.raises(NotFound, match="no sweep yet; start one with"):
        tracker.get_sweep("latest")


def test_a_sweep_is_closed_with_its_state(tracker: Tracker) -> None:
    closed = tracker.finish_sweep(make_sweep(tracker).sweep_id, "cancelled")
    assert closed.state is SweepState.CANCELLED
    assert closed.finished_at is not None


def test_trials_are_numbered_from_one_in_each_sweep(tracker: Tracker) -> None:
    sweeps = [make_sweep(tracker), make_sweep(tracker)]
    facts = {"model": "toto", "config": {"lr": 0.1}, "config_hash": "c", "train_hash": "t"}
    numbers = [
        tracker.heads.add_trial(s.sweep_id, source="grid", **facts).number for s in sweeps * 2
    ]
    assert numbers == [1, 1, 2, 2]
    assert [t.number for t in tracker.get_trials(sweeps[0].sweep_id)] == [1, 2]
    assert tracker.get_trials(sweeps[0].sweep_id)[0].config == {"lr": 0.1}


def test_a_trial_of_no_sweep_is_refused(tracker: Tracker) -> None:
    with pytest.raises(NotFound, match="no sweep 'none'"):
        tracker.heads.add_trial(
            "none", model="toto", config={}, config_hash="", train_hash="", source=""
        )


def test_a_run_keeps_what_it_was_started_with(tracker: Tracker) -> None:
    sweep = make_sweep(tracker)
    run = tracker.start_run(
        model="toto",
        hyperparams={"lr": 1e-4, "size": "tiny", "layers": [1, 2]},
        sweep_id=sweep.sweep_id,
        trial_number=3,
        seed=2**40,
        attempt=2,
        config_hash="c",
        train_hash="t",
        panel_hash="p",
        task_hash="k",
        fingerprints=CELLS,
        resources={"device": "cpu"},
        source="priority: paper",
        tags=("a",),
    )
    again = tracker.get_run(run.run_id)
    assert again == run
    assert (run.state, run.seed, run.attempt, run.source) == (
        "running",
        2**40,
        2,
        "priority: paper",
    )
    assert run.hyperparams == {"lr": 1e-4, "size": "tiny", "layers": [1, 2]}
    assert (run.fingerprint, run.resources, run.tags) == ("cells-val", {"device": "cpu"}, ("a",))


def test_a_finished_run_has_its_outcome(tracker: Tracker) -> None:
    sweep = make_sweep(tracker)
    run = tracker.start_run(
        model="toto", hyperparams={}, sweep_id=sweep.sweep_id, fingerprints=CELLS
    )
    done = tracker.finish_run(
        run.run_id,
        "complete",
        scores={"tune_pct_mae": 1.0, "val_pct_mae": np.float32(1.5)},
        checkpoint_path=Path("runs/x"),
        training_time_seconds=2.5,
        duration_seconds=4.0,
        peak_memory_mb=100.0,
        forecasts_path="runs/x/forecasts.npz",
        notes="fine",
    )
    assert done == tracker.get_run(run.run_id)
    assert done.metrics == {"tune_pct_mae": 1.0, "val_pct_mae": 1.5}
    assert done.objective_score == 1.0
    assert (done.state, done.checkpoint_path, done.notes) == ("complete", "runs/x", "fine")
    assert done.finished_at >= done.started_at


@pytest.mark.parametrize("state", ["complete", "pruned", "failed", "cancelled"])
def test_what_has_ended_cannot_change(tracker: Tracker, finished: Finished, state: str) -> None:
    run = finished("toto", {}, state=state)
    with pytest.raises(TrackerError, match=f"is {state}: it cannot change"):
        tracker.finish_run(run.run_id, "complete", scores={"val_pct_mae": 0.1})
    with pytest.raises(TrackerError, match="cannot change"):
        tracker.log(run.run_id, 1, {"loss": 1.0})
    assert tracker.get_run(run.run_id) == run


def test_running_is_no_way_to_end(tracker: Tracker) -> None:
    run = tracker.start_run(model="toto", hyperparams={})
    with pytest.raises(TrackerError, match="cannot be finished as 'running'"):
        tracker.finish_run(run.run_id, "running")


def test_a_failed_run_keeps_its_traceback_without_secrets(tracker: Tracker) -> None:
    run = tracker.start_run(model="toto", hyperparams={})
    trace = 'Traceback ...\n  connect("postgresql://me:hunter2@host/db")\nOSError: no'
    error = tracker.finish_run(run.run_id, "failed", error=trace).error or ""
    assert "OSError: no" in error
    assert "hunter2" not in error


def test_the_val_scores_of_a_pruned_run_are_not_kept(tracker: Tracker, finished: Finished) -> None:
    run = finished("toto", {"tune_pct_mae": 1.0, "val_pct_mae": 0.1}, state="pruned")
    assert run.score("tune_pct_mae") == 1.0
    assert run.score("val_pct_mae") is None


def test_a_metric_that_is_no_number_is_refused_by_name(tracker: Tracker) -> None:
    run = tracker.start_run(model="toto", hyperparams={})
    with pytest.raises(ConfigError, match="'val_pct_mae' is 'low', not a number"):
        tracker.finish_run(run.run_id, "complete", scores={"val_pct_mae": "low"})  # type: ignore[dict-item]
    assert tracker.get_run(run.run_id).state == RunState.RUNNING


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
def test_a_failed_score_is_shown_as_failed(finished: Finished, bad: float) -> None:
    assert math.isnan(finished("toto", {"val_pct_mae": bad}).metrics["val_pct_mae"])


def test_later_scores_are_added_and_none_is_changed(tracker: Tracker, finished: Finished) -> None:
    run = finished("toto", {"val_pct_mae": 1.0})
    more = tracker.add_scores(run.run_id, {"val_mase": 0.9, "test_mase": 0.8})
    assert more.metrics == {"val_pct_mae": 1.0, "val_mase": 0.9}
    with pytest.raises(TrackerError, match="has 'val_mase' already"):
        tracker.add_scores(run.run_id, {"val_mase": 0.1})
    open_run = tracker.start_run(model="toto", hyperparams={})
    with pytest.raises(TrackerError, match="give its scores to finish_run"):
        tracker.add_scores(open_run.run_id, {"val_mase": 0.1})


def test_notes_and_tags_go_on_after_the_end(tracker: Tracker, finished: Finished) -> None:
    run = finished("toto", {})
    tracker.add_note(run.run_id, "looks odd", who="ann")
    tracker.add_note(run.run_id, "was odd", who="bob")
    assert [(who, text) for _, who, text in tracker.get_notes(run.run_id)] == [
        ("ann", "looks odd"),
        ("bob", "was odd"),
    ]
    tracker.add_tag(run.run_id, "odd")
    assert tracker.add_tag(run.run_id, " odd ").tags == ("odd",)
    with pytest.raises(ConfigError):
        tracker.add_note(run.run_id, " ")
    with pytest.raises(ConfigError):
        tracker.add_tag(run.run_id, "")


def test_cancelling_a_sweep_leaves_no_run_running(tracker: Tracker) -> None:
    sweep = make_sweep(tracker)
    for _ in range(2):
        tracker.start_run(model="toto", hyperparams={}, sweep_id=sweep.sweep_id)
    other = tracker.start_run(model="toto", hyperparams={})
    assert tracker.cancel_sweep(sweep.sweep_id).state is SweepState.CANCELLED
    assert [r.state for r in tracker.get_runs(sweep_id=sweep.sweep_id)] == ["cancelled"] * 2
    assert tracker.get_run(other.run_id).state is RunState.RUNNING


def test_a_data_set_of_equal_content_keeps_its_id(tracker: Tracker) -> None:
    facts: dict[str, Any] = {
        "panel_hash": "p",
        "source": "demo",
        "num_items": 6,
        "num_rows": 100,
        "starts_at": "2004-08-19",
        "ends_at": "2013-03-01",
        "findings": [{"file": "A.csv", "row": 3, "rule": "high-low"}],
    }
    first = tracker.add_dataset(**facts)
    assert tracker.add_dataset(**facts) == first
    assert tracker.add_dataset(**facts | {"num_rows": 99}) != first
    assert tracker.get_dataset(first)["findings"] == facts["findings"]
    with pytest.raises(NotFound):
        tracker.get_dataset("none")


class TestCurves:
    def test_the_best_over_steps_is_kept_both_ways(self, tracker: Tracker) -> None:
        run = tracker.start_run(model="toto", hyperparams={})
        for step, value in enumerate([3.0, 1.0, 2.0, 1.0], start=1):
            tracker.log(run.run_id, step, {"tune_pct_mae": value})
        (curve,) = tracker.get_curves(run.run_id)
        assert (curve.lowest, curve.lowest_step) == (1.0, 2)
        assert (curve.highest, curve.highest_step) == (3.0, 1)
        assert (curve.last, curve.last_step, curve.num_points) == (1.0, 4, 4)
        assert tracker.get_curve(run.run_id, "tune_pct_mae") == [(1, 3), (2, 1), (3, 2), (4, 1)]

    def test_a_point_that_is_no_number_is_kept_and_never_best(self, tracker: Tracker) -> None:
        run = tracker.start_run(model="toto", hyperparams={})
        for step, value in enumerate([math.nan, 2.0, -math.inf, math.inf]):
            tracker.log(run.run_id, step, {"loss": value})
        (curve,) = tracker.get_curves(run.run_id)
        assert (curve.lowest, curve.highest, curve.num_points) == (2.0, 2.0, 4)
        assert (curve.lowest_step, curve.highest_step) == (1, 1)
        assert math.isnan(curve.last)
        assert [math.isnan(v) for _, v in tracker.get_curve(run.run_id, "loss")] == [
            True,
            False,
            True,
            True,
        ]

    def test_a_step_said_again_replaces_what_it_said(self, tracker: Tracker) -> None:
        run = tracker.start_run(model="toto", hyperparams={})
        for step, value in [(1, 5.0), (2, 0.5), (3, 4.0), (2, 3.0)]:
            tracker.log(run.run_id, step, {"loss": value, f"only-{step}": value})
        curve = next(c for c in tracker.get_curves(run.run_id) if c.name == "loss")
        assert (curve.lowest, curve.lowest_step, curve.highest_step) == (3.0, 2, 1)
        assert (curve.last_step, curve.last, curve.num_points) == (3, 4.0, 3)

    @given(st.lists(st.tuples(st.integers(0, 6), st.floats(width=16)), min_size=1, max_size=12))
    def test_curves_agree_with_their_points(
        self, shared: Tracker, said: list[tuple[int, float]]
    ) -> None:
        run = shared.start_run(model="toto", hyperparams={})
        for step, value in said:
            shared.log(run.run_id, step, {"m": value})
        kept = {s: v if math.isfinite(v) else math.nan for s, v in said}
        points = sorted(kept.items())
        got = shared.get_curve(run.run_id, "m")
        assert [s for s, _ in got] == [s for s, _ in points]
        np.testing.assert_array_equal([v for _, v in got], [v for _, v in points])
        (curve,) = shared.get_curves(run.run_id)
        sound = [v for _, v in points if not math.isnan(v)]
        assert curve.num_points == len(points)
        assert curve.last_step == points[-1][0]
        np.testing.assert_array_equal(curve.lowest, min(sound, default=math.nan))
        np.testing.assert_array_equal(curve.highest, max(sound, default=math.nan))

    def test_a_curve_of_test_scores_is_refused(self, tracker: Tracker) -> None:
        run = tracker.start_run(model="toto", hyperparams={})
        with pytest.raises(UsageError, match="sealed"):
            tracker.log(run.run_id, 1, {"loss": 1.0, "test_pct_mae": 1.0})
        assert tracker.get_curves(run.run_id) == []

    def test_a_run_nobody_started_cannot_be_logged(self, tracker: Tracker) -> None:
        with pytest.raises(NotFound, match="no run 'ghost'"):
            tracker.log("ghost", 1, {"loss": 1.0})


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class TestHyperparameters:
    @given(st.dictionaries(st.text(), json_values, max_size=6))
    def test_any_json_value_comes_back_equal(
        self, shared: Tracker, hyperparams: dict[str, Any]
    ) -> None:
        back = shared.get_run(shared.log_run("toto", hyperparams, {})).hyperparams
        assert back == hyperparams
        assert repr(back) == repr(hyperparams)  # 1 stays an int, -0.0 keeps its sign

    def test_numpy_scalars_come_back_as_numbers(self, tracker: Tracker) -> None:
        given_ = {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": (1, 2)}
        back = tracker.get_run(tracker.log_run("toto", given_, {})).hyperparams
        assert back == {"a": 0.5, "b": 3, "c": True, "d": [1, 2]}

    @pytest.mark.parametrize(
        ("bad", "named"),
        [
            ({"lr": math.nan}, r"hyperparams\['lr'\] is nan"),
            ({"net": {"clip": [1, math.inf]}}, r"hyperparams\['net'\]\['clip'\]\[1\] is inf"),
            ({"path": Path("x")}, r"hyperparams\['path'\] is a "),
            ({"by": {1: 2}}, r"hyperparams\['by'\] has the key 1"),
            ({"w": np.ones(2)}, r"hyperparams\['w'\] is a ndarray"),
            ([1], "must be a mapping"),
        ],
    )
    def test_what_cannot_be_stored_is_refused_by_name(
        self, tracker: Tracker, bad: Any, named: str
    ) -> None:
        with pytest.raises(ConfigError, match=named):
            tracker.log_run("toto", bad, {})
        assert tracker.get_runs() == []


@example("to\0to", "x")
@example("toto", "\ud800")
@given(st.text(), st.text())
def test_any_name_comes_back_or_is_refused_by_name(
    shared: Tracker, model: str, metric: str
) -> None:
    assume(not is_sealed(metric))
    if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in model + metric):
        with pytest.raises(ConfigError, match="no database stores"):
            shared.log_run(model, {}, {metric: 1.0})
        return
    run = shared.get_run(shared.log_run(model, {}, {metric: 1.0}))
    assert (run.model_name, run.metrics) == (model, {metric: 1.0})


@given(st.text(st.characters(exclude_categories=[])))
def test_any_error_text_is_kept(shared: Tracker, said: str) -> None:
    run = shared.start_run(model="toto", hyperparams={})
    kept = shared.finish_run(run.run_id, "failed", error=f"Traceback {said} end", notes=said)
    assert shared.get_run(run.run_id) == kept
    assert (kept.error or "").startswith("Traceback ")


class TestIds:
    def test_runs_of_one_second_have_ids_of_their_own_in_order_of_time(
        self, tracker: Tracker
    ) -> None:
        ids = [tracker.log_run("toto", {}, {}) for _ in range(200)]
        assert len(set(ids)) == 200
        assert [r.run_id for r in tracker.get_runs()] == ids
        assert ids[0][:-9] <= ids[-1][:-9]

    def test_an_id_is_found_by_a_unique_beginning(self, tracker: Tracker) -> None:
        toto, kronos = tracker.log_run("toto", {}, {}), tracker.log_run("kronos", {}, {})
        assert tracker.get_run("tot").run_id == toto
        assert tracker.get_run(kronos[:-2]).run_id == kronos

    def test_an_ambiguous_beginning_names_the_candidates(self, tracker: Tracker) -> None:
        ids = [tracker.log_run("toto", {}, {}) for _ in range(2)]
        with pytest.raises(NotFound, match=f"could be {ids[0]}, {ids[1]}"):
            tracker.get_run("toto_")

    @pytest.mark.parametrize("key", ["", "%", "toto%", "_", "nothing"])
    def test_wildcards_and_nothing_find_nothing(self, tracker: Tracker, key: str) -> None:
        tracker.log_run("toto", {}, {})
        with pytest.raises(NotFound, match="no run"):
            tracker.get_run(key)

    def test_a_strange_model_name_gives_an_id_that_is_a_file_name(self, tracker: Tracker) -> None:
        run = tracker.get_run(tracker.log_run("../my model/é?", {}, {}))
        assert run.model_name == "../my model/é?"
        assert "/" not in run.run_id
        assert run.run_id.startswith("my-model_")


def test_every_run_knows_what_it_came_from(tracker: Tracker, finished: Finished) -> None:
    run = finished("toto", {})
    place = tracker.get_environment(run.run_id)
    assert place["git_commit"] == run.git_commit
    assert {"command", "packages", "host", "python", "git_dirty", "git_diff"} <= set(place)


def test_a_named_baseline_is_known_as_one(tracker: Tracker) -> None:
    assert tracker.start_run(model="last-value", hyperparams={}).is_baseline
    assert not tracker.start_run(model="toto", hyperparams={}).is_baseline
    assert tracker.start_run(model="toto", hyperparams={}, is_baseline=True).is_baseline


@pytest.mark.parametrize("number", [np.int64(3), np.int8(3), np.float32(3), np.bool_(True)])
def test_numpy_numbers_are_kept_as_numbers(tracker: Tracker, number: Any) -> None:
    run_id = tracker.log_run("toto", {"a": number}, {"val_r2": number}, None, number)
    sweep = make_sweep(tracker, seed=np.int64(7), horizon=np.int32(5))
    run = tracker.start_run(model="toto", hyperparams={}, seed=np.int64(8), attempt=np.int16(2),
                            sweep_id=sweep.sweep_id, trial_number=np.int32(1))  # fmt: skip
    tracker.log(run.run_id, np.int64(2), {"loss": number})
    tracker.finish_run(run.run_id, "complete", training_time_seconds=number,
                       duration_seconds=number, peak_memory_mb=number)  # fmt: skip
    kept = tracker.get_run(run_id), tracker.get_run(run.run_id)
    for one in kept:
        assert one.training_time_seconds == float(number)
        json.dumps(dataclasses.asdict(one), default=datetime.isoformat)
    assert (kept[1].seed, kept[1].attempt, kept[1].trial_number) == (8, 2, 1)
    assert tracker.get_curve(run.run_id, "loss") == [(2, float(number))]
    assert dump_json(tracker)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"training_time_seconds": math.inf}, "training_time_seconds is inf"),
        ({"training_time_seconds": 10**5_000}, "training_time_seconds is too large"),
        ({"training_time_seconds": "long"}, "training_time_seconds is 'long'"),
        ({"metrics": {1: 2.0}}, "the name 1 is a int"),
        ({"metrics": {"val_r2": 10**400}}, "metric 'val_r2' is too large"),
        ({"metrics": {"val_r2": [1.0]}}, "metric 'val_r2' is"),
        ({"notes": 3}, "notes is 3, not a text"),
        ({"model_name": 3}, "the name 3 is a int"),
        ({"hyperparams": {"lr": 10**5_000}}, "too large"),
        ({"hyperparams": {"deep": functools.reduce(lambda x, _: [x], range(2_000), 1)}}, "deep"),
        (
            {"hyperparams": {"deep": functools.reduce(lambda x, _: {"x": x}, range(2_000), 1)}},
            "deep",
        ),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(
    tracker: Tracker, wrong: dict[str, Any], named: str
) -> None:
    sound: dict[str, Any] = {"model_name": "toto", "hyperparams": {}, "metrics": {}}
    with pytest.raises(ConfigError, match=re.escape(named)):
        tracker.log_run(**sound | wrong)
    with pytest.raises(ConfigError):
        tracker.log_runs([NewRun(**sound | wrong)])
    assert tracker.get_runs() == []


def test_notes_tags_seeds_and_steps_are_refused_by_name(tracker: Tracker) -> None:
    run = tracker.start_run(model="toto", hyperparams={})
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: tracker.log(run.run_id, 7.5, {"loss": 1.0}), "step is 7.5"),  # type: ignore[arg-type]
        (lambda: tracker.log(run.run_id, math.nan, {"loss": 1.0}), "step is nan"),  # type: ignore[arg-type]
        (lambda: tracker.log(run.run_id, None, {"loss": 1.0}), "step is None"),  # type: ignore[arg-type]
        (lambda: tracker.log(run.run_id, 1, {2: 1.0}), "the name 2"),  # type: ignore[dict-item]
        (lambda: tracker.start_run(model="toto", hyperparams={}, seed=2**63), "seed is too large"),
        (lambda: tracker.start_run(model="toto", hyperparams={}, tags=[3]), "the name 3"),  # type: ignore[list-item]
        (lambda: tracker.add_note(run.run_id, 3), "not 3"),  # type: ignore[arg-type]
        (lambda: tracker.add_tag(run.run_id, 3), "the name 3"),  # type: ignore[arg-type]
        (lambda: tracker.finish_run(run.run_id, "failed", error=3), "error is 3"),  # type: ignore[arg-type]
        (lambda: tracker.finish_run(run.run_id, "complete", duration_seconds=math.nan), "duration"),
    ]
    for ask, named in refused:
        with pytest.raises(ConfigError, match=re.escape(named)):
            ask()
    tracker.log(run.run_id, 7.0, {"loss": 1.0})  # type: ignore[arg-type]
    assert tracker.get_curve(run.run_id, "loss") == [(7, 1.0)]


def test_an_empty_checkpoint_path_is_none(tracker: Tracker) -> None:
    tracker.log_run("toto", {}, {"val_pct_mae": 1.0}, "")
    tracker.log_runs([NewRun("toto", {}, {"val_pct_mae": 1.0}, "")])
    run = tracker.start_run(model="toto", hyperparams={})
    tracker.finish_run(run.run_id, "complete", scores={"val_pct_mae": 1.0}, checkpoint_path="")
    assert [r.checkpoint_path for r in tracker.get_runs()] == [None] * 3
    assert tracker.get_best_model() is None
    assert tracker.get_runs(where="has_checkpoint = true") == []
