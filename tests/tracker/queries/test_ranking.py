from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Select, insert, text
from sqlalchemy.dialects import postgresql, sqlite

from foresweep.errors import NotFound, UnknownName, UsageError
from foresweep.records import Run
from foresweep.tracker.queries import ranking
from foresweep.tracker.queries.ranking import Ranking
from foresweep.tracker.storage import schema
from foresweep.tracker.tracker import Tracker
from tracker_data import make_sweep

Finished = Callable[..., Run]


def test_the_seeds_example_runs_as_written(tracker: Tracker) -> None:
    tracker.log_run(
        model_name="toto",
        hyperparams={"patch_size": 32, "learning_rate": 0.0003, "context_length": 512},
        metrics={"val_pct_mae": 0.45, "val_price_mae": 0.08, "val_r2": 0.35, "test_pct_mae": 0.48},
        checkpoint_path="path/to/checkpoint.pt",
    )
    best = tracker.get_best_model(metric="val_pct_mae", model_name="toto")
    assert best is not None
    assert f"{best.checkpoint_path}, MAE: {best.metrics['val_pct_mae']:.4f}" == (
        "path/to/checkpoint.pt, MAE: 0.4500"
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("minimize", [True, False])
def test_a_failed_score_never_wins(
    tracker: Tracker, finished: Finished, bad: float, minimize: bool
) -> None:
    finished("toto", {"val_pct_mae": bad})
    sound = finished("toto", {"val_pct_mae": 5.0})
    finished("toto", {"val_pct_mae": bad})
    ranked = tracker.get_top_k_models(10, minimize=minimize)
    assert [r.run_id for r in ranked] == [sound.run_id]


@pytest.mark.parametrize("state", ["failed", "pruned", "cancelled", "lost"])
def test_only_complete_runs_rank(tracker: Tracker, finished: Finished, state: str) -> None:
    finished("toto", {"tune_pct_mae": 0.1, "val_pct_mae": 0.1}, state=state)
    worse = finished("toto", {"tune_pct_mae": 1.0, "val_pct_mae": 1.0})
    for metric in ("tune_pct_mae", "val_pct_mae"):
        best = tracker.get_best_model(metric)
        assert best is not None
        assert best.run_id == worse.run_id


def test_a_metric_knows_its_own_direction(tracker: Tracker, finished: Finished) -> None:
    low = finished("toto", {"val_pct_mae": 1.0, "val_r2": 0.1})
    high = finished("toto", {"val_pct_mae": 2.0, "val_r2": 0.9})
    assert tracker.get_best_model("val_pct_mae") == low
    assert tracker.get_best_model("val_r2") == high
    assert tracker.get_best_model("val_r2", minimize=True) == low


def test_a_metric_of_ones_own_needs_a_direction(tracker: Tracker, finished: Finished) -> None:
    run = finished("toto", {"val_profit": 1.0})
    with pytest.raises(UsageError, match="'val_profit' is better is not known; say minimize"):
        tracker.get_best_model("val_profit")
    assert tracker.get_best_model("val_profit", minimize=False) == run


def test_ties_go_to_the_smaller_id(tracker: Tracker, finished: Finished) -> None:
    ids = [finished("toto", {"val_r2": 0.5}).run_id for _ in range(3)]
    assert [r.run_id for r in tracker.get_top_k_models(3, "val_r2")] == ids


def test_a_run_without_checkpoint_is_best_only_if_allowed(
    tracker: Tracker, finished: Finished
) -> None:
    bare = finished("toto", {"val_pct_mae": 1.0}, checkpoint_path=None)
    kept = finished("toto", {"val_pct_mae": 2.0})
    assert tracker.get_best_model() == kept
    assert tracker.get_best_model(require_checkpoint=False) == bare
    assert tracker.get_top_k_models(5) == [bare, kept]
    assert tracker.get_top_k_models(5, require_checkpoint=True) == [kept]


def test_baselines_rank_when_asked_for_or_named(tracker: Tracker, finished: Finished) -> None:
    naive = finished("last-value", {"val_pct_mae": 1.0}, checkpoint_path=None)
    trained = finished("toto", {"val_pct_mae": 2.0})
    assert tracker.get_best_model() == trained
    assert tracker.get_best_model(include_baselines=True) == naive
    assert tracker.get_best_model(model_name="last-value") == naive


def test_a_ranking_stays_within_the_latest_sweeps_fingerprint(
    tracker: Tracker, finished: Finished
) -> None:
    old = make_sweep(tracker, fingerprints={"val": "old"})
    easy = finished("toto", {"val_pct_mae": 0.1}, sweep=old)
    by_hand = finished("toto", {"val_pct_mae": 0.01})
    new = make_sweep(tracker, fingerprints={"val": "new"})
    hard = finished("toto", {"val_pct_mae": 3.0}, sweep=new)
    assert tracker.get_top_k_models(9) == [hard]
    assert tracker.get_top_k_models(9, sweep_id=old.sweep_id) == [easy]
    assert tracker.get_top_k_models(9, fingerprint="old") == [easy]
    assert tracker.get_top_k_models(9, fingerprint="") == [by_hand]
    assert list(tracker.compare_models()["run_id"]) == [hard.run_id]
    assert list(tracker.compare_models(fingerprint="")["run_id"]) == [by_hand.run_id]


def test_sweeps_of_equal_windows_stand_in_one_ranking(tracker: Tracker, finished: Finished) -> None:
    first = finished("toto", {"val_pct_mae": 1.0}, sweep=make_sweep(tracker))
    second = finished("kronos", {"val_pct_mae": 2.0}, sweep=make_sweep(tracker, models=["kronos"]))
    assert tracker.get_top_k_models(9) == [first, second]


def test_a_named_model_is_sought_in_the_latest_sweep_it_ran_in(
    tracker: Tracker, finished: Finished
) -> None:
    toto = finished("toto", {"val_pct_mae": 1.0}, sweep=make_sweep(tracker))
    kronos_sweep = make_sweep(tracker, models=["kronos"], fingerprints={"val": "other"})
    finished("kronos", {"val_pct_mae": 2.0}, sweep=kronos_sweep)
    mine = finished("mine", {"val_pct_mae": 3.0})
    assert tracker.get_best_model(model_name="toto") == toto
    assert tracker.get_best_model(model_name="mine") == mine
    assert tracker.get_best_model(model_name="nobody") is None


def test_an_unknown_sweep_is_refused(tracker: Tracker) -> None:
    with pytest.raises(NotFound, match="no sweep 'x'"):
        tracker.get_best_model(sweep_id="x")


def test_k_must_be_positive(tracker: Tracker) -> None:
    with pytest.raises(UsageError, match="k is 0"):
        tracker.get_top_k_models(0)


def test_a_run_without_the_metric_passes_no_filter(tracker: Tracker, finished: Finished) -> None:
    finished("toto", {"val_r2": 0.3})
    finished("toto", {"val_pct_mae": math.nan})
    low, high = (finished("toto", {"val_pct_mae": v}) for v in (1.0, 2.0))
    assert tracker.get_runs(min_metric_value={"val_pct_mae": 0.0}) == [low, high]
    assert tracker.get_runs(max_metric_value={"val_pct_mae": 9.0}) == [low, high]
    assert tracker.get_runs("toto", {"val_pct_mae": 1.5}) == [high]
    assert tracker.get_runs("toto", {"val_pct_mae": 1.0}, {"val_pct_mae": 1.0}) == [low]


def test_runs_are_filtered_by_what_they_are(tracker: Tracker, finished: Finished) -> None:
    sweep = make_sweep(tracker)
    a = finished("toto", {}, sweep=sweep)
    b = finished("kronos", {}, state="failed")
    c = finished("drift", {})
    assert tracker.get_runs() == [a, b, c]
    assert tracker.get_runs(limit=2) == [b, c]
    assert tracker.get_runs("kronos") == [b]
    assert tracker.get_runs(state="failed") == [b]
    assert tracker.get_runs(sweep_id=sweep.sweep_id) == [a]
    assert tracker.get_runs(fingerprint="cells-val") == [a]
    assert tracker.get_runs(fingerprint="", include_baselines=False) == [b]


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.floats(width=16) | st.none(), st.booleans()),
        max_size=12,
    ),
    st.integers(1, 5),
    st.booleans(),
    st.booleans(),
)
def test_the_best_are_those_a_plain_sort_finds(
    shared: Tracker,
    logged: list[tuple[str, float | None, bool]],
    k: int,
    minimize: bool,
    require_checkpoint: bool,
) -> None:
    sweep = make_sweep(shared, fingerprints={"val": f"cells-{len(shared.list_sweeps())}"})
    kept = []
    for model, value, has_checkpoint in logged:
        run = shared.start_run(
            model=model,
            hyperparams={},
            sweep_id=sweep.sweep_id,
            fingerprints=sweep.fingerprints,
        )
        path = "there" if has_checkpoint else None
        shared.finish_run(run.run_id, "complete", scores={"val_x": value}, checkpoint_path=path)
        counts = has_checkpoint or not require_checkpoint
        if model == "a" and value is not None and math.isfinite(value) and counts:
            kept.append((value if minimize else -value, run.run_id))
    found = shared.get_top_k_models(
        k,
        "val_x",
        "a",
        minimize,
        require_checkpoint=require_checkpoint,
        sweep_id=sweep.sweep_id,
    )
    assert [r.run_id for r in found] == [run_id for _, run_id in sorted(kept)[:k]]


@pytest.mark.parametrize("model_name", ["rare", None])
@pytest.mark.parametrize("minimize", [True, False])
def test_the_best_of_a_rare_model_is_a_probe_of_an_index(
    tracker: Tracker, model_name: str | None, minimize: bool
) -> None:
    _fill(tracker, 3_000)
    index = "ix_scores_model" if model_name else "ix_scores_all"
    if tracker.store.is_postgres:
        plan = postgres_plan(tracker, best_query(model_name, minimize))
        walks = [line for line in plan if "on scores" in line]
        assert walks
        assert all("Index Only Scan" in line and index in line for line in walks), plan
        whole = [line for line in plan if "Sort  (" in line and "Incremental" not in line]
        assert len(whole) <= len(walks) - 1, plan  # of what the arms have found, no more
        return
    plan = sqlite_plan(tracker, best_query(model_name, minimize))
    walks = [line for line in plan if "scores" in line]
    assert walks
    assert all(f"USING COVERING INDEX {index}" in line for line in walks), plan
    assert all("value>" in line or "has_checkpoint=?" in line for line in walks), plan
    assert not any("SCAN scores" in line for line in plan), plan


def best_query(model_name: str | None, minimize: bool) -> Select[Any]:
    return ranking.best_query(Ranking("val_pct_mae", model_name, minimize), "cells", k=1)


def sqlite_plan(tracker: Tracker, query: Select[Any]) -> list[str]:
    said = str(query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
    with tracker.store.read() as connection:
        return [row.detail for row in connection.execute(text(f"EXPLAIN QUERY PLAN {said}"))]


def postgres_plan(tracker: Tracker, query: Select[Any]) -> list[str]:
    said = str(query.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}))
    with tracker.store.write() as connection:
        connection.execute(text("ANALYZE scores"))
    with tracker.store.read() as connection:
        return list(connection.execute(text(f"EXPLAIN {said}")).scalars())


def _fill(tracker: Tracker, num_runs: int) -> None:
    """Many runs of a common model and one of a rare one, written as rows."""
    run = tracker.start_run(model="common", hyperparams={})
    with tracker.store.write() as connection:
        row = dict(
            connection.execute(schema.runs.select().where(schema.runs.c.run_id == run.run_id))
            .mappings()
            .one()
        )
        names = [("common", n) for n in range(num_runs)] + [("rare", num_runs)]
        copies = [{**row, "run_id": f"r{n}", "model_name": m} for m, n in names]
        connection.execute(insert(schema.runs), copies)
        told = {"part": "val", "metric": "pct_mae", "state": "complete", "is_baseline": False}
        told |= {"has_checkpoint": True, "fingerprint": "cells"}
        scores = [{**told, "run_id": f"r{n}", "model_name": m, "value": n / 10} for m, n in names]
        connection.execute(insert(schema.scores), scores)


class TestTables:
    def test_the_comparison_has_a_line_a_run(self, tracker: Tracker, finished: Finished) -> None:
        run = finished("toto", {"val_pct_mae": 1.5, "val_r2": math.nan, "test_pct_mae": 9.0})
        failed = finished("kronos", {}, state="failed", checkpoint_path=None)
        table = tracker.compare_models()
        assert list(table.columns) == [
            "run_id",
            "model",
            "timestamp",
            "state",
            "val_pct_mae",
            "val_r2",
            "checkpoint",
        ]
        assert list(table["run_id"]) == [run.run_id, failed.run_id]
        assert list(table["timestamp"]) == [run.timestamp[:10]] * 2
        assert list(table["checkpoint"]) == [True, False]
        assert math.isnan(table["val_pct_mae"][1])

    def test_the_comparison_takes_metrics_and_models(
        self, tracker: Tracker, finished: Finished
    ) -> None:
        finished("toto", {"val_x": 1.5})
        finished("kronos", {})
        table = tracker.compare_models(metrics=["val_x"], model_names=["toto"])
        assert table["val_x"].tolist() == [1.5]
        with pytest.raises(UnknownName, match="did you mean 'toto'"):
            tracker.compare_models(model_names=["totto"])

    def test_an_empty_database_gives_an_empty_table(self, tracker: Tracker) -> None:
        assert tracker.compare_models().empty
        assert tracker.get_hyperparameter_impact("toto", "lr").empty

    def test_the_impact_is_sorted_by_value_numbers_first(
        self, tracker: Tracker, finished: Finished
    ) -> None:
        for value in (0.1, "auto", 1e-3, 2):
            finished("toto", {"val_pct_mae": 1.0}, hyperparams={"lr": value})
        finished("toto", {"val_pct_mae": math.nan}, hyperparams={"lr": 9})
        finished("toto", {"val_pct_mae": 1.0}, hyperparams={"other": 9})
        finished("toto", {"tune_pct_mae": 1.0}, state="pruned", hyperparams={"lr": 9})
        finished("kronos", {"val_pct_mae": 1.0}, hyperparams={"lr": 9})
        table = tracker.get_hyperparameter_impact("toto", "lr")
        assert list(table.columns) == ["run_id", "lr", "val_pct_mae"]
        assert table["lr"].tolist() == [1e-3, 0.1, 2, "auto"]

    def test_an_unknown_hyperparameter_names_the_nearest(
        self, tracker: Tracker, finished: Finished
    ) -> None:
        finished("toto", {"val_pct_mae": 1.0}, hyperparams={"learning_rate": 0.1})
        with pytest.raises(UnknownName, match="did you mean 'learning_rate'"):
            tracker.get_hyperparameter_impact("toto", "learning_rat")


class TestFindTrained:
    FACTS = {"train_hash": "t", "panel_hash": "p", "task_hash": "k", "seed": 1}  # noqa: RUF012

    def test_a_complete_run_with_its_checkpoint_makes_training_needless(
        self, tracker: Tracker, finished: Finished, tmp_path: object
    ) -> None:
        run = finished("toto", {}, checkpoint_path=str(tmp_path), config_hash="c", **self.FACTS)
        assert tracker.find_trained(**self.FACTS) == run
        assert tracker.find_trained(**self.FACTS, config_hash="c") == run
        assert tracker.find_trained(**self.FACTS, config_hash="d") is None
        for name in self.FACTS:
            other = self.FACTS | {name: 2 if name == "seed" else "other"}
            assert tracker.find_trained(**other) is None

    def test_a_checkpoint_that_is_gone_must_be_trained_again(
        self, tracker: Tracker, finished: Finished
    ) -> None:
        finished("toto", {}, checkpoint_path="/nowhere/gone", **self.FACTS)
        finished("toto", {}, checkpoint_path=None, **self.FACTS)
        assert tracker.find_trained(**self.FACTS) is None

    @pytest.mark.parametrize("state", ["failed", "pruned", "cancelled"])
    def test_what_did_not_end_well_is_trained_again(
        self, tracker: Tracker, finished: Finished, tmp_path: object, state: str
    ) -> None:
        finished("toto", {}, state=state, checkpoint_path=str(tmp_path), **self.FACTS)
        assert tracker.find_trained(**self.FACTS) is None
