"""No public read may show a test score but the one that records the look."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from foresweep.errors import UsageError
from foresweep.records import Run, RunState, SweepState
from foresweep.tracker.declaring import Declarations
from foresweep.tracker.jsonfile import JsonTracker
from foresweep.tracker.sealed import Judgings
from foresweep.tracker.storage.store import Store
from foresweep.tracker.tracker import NewRun, Tracker
from foresweep.tracker.writing.heads import Heads
from tracker_data import CELLS, make_sweep

SECRET = 7.654321
SEALED = {"test_pct_mae": SECRET, "Test/mae": SECRET, "test": SECRET, "TEST-r2": SECRET}
OPEN = {"tune_pct_mae": 1.0, "val_pct_mae": 2.0}
REVEALING = {"reveal_test"}
TALKS = {"get_best_model", "get_top_k_models"}  # show no score even when they choose by one


@pytest.fixture
def known(tracker: Tracker) -> dict[str, Any]:
    """A database where every kind of write was given test scores; ids to ask for."""
    sweep = make_sweep(tracker)
    trial = tracker.heads.add_trial(
        sweep.sweep_id, model="toto", config={}, config_hash="c", train_hash="t", source="s"
    )
    run = tracker.start_run(
        model="toto",
        hyperparams={"lr": 0.1},
        sweep_id=sweep.sweep_id,
        trial_number=trial.number,
        fingerprints=CELLS,
    )
    tracker.log(run.run_id, 1, {"loss": 1.0})
    tracker.finish_run(run.run_id, "complete", scores=OPEN | SEALED, checkpoint_path="/")
    tracker.add_scores(run.run_id, {"test_later": SECRET})
    tracker.log_run("toto", {"lr": 0.1}, OPEN | SEALED, "/")
    dataset = tracker.add_dataset(
        panel_hash="p", source="s", num_items=1, num_rows=1, starts_at="a", ends_at="b"
    )
    return {
        "run_id": run.run_id,
        "sweep_id": sweep.sweep_id,
        "dataset_id": dataset,
        "name": "loss",
        "metric": "val_pct_mae",
        "model_name": "toto",
        "model": "toto",
        "hyperparam": "lr",
        "hyperparams": {},
        "metrics": {"loss": 1.0},
        "scores": {"val_new": 1.0},
        "state": RunState.LOST,
        "number": trial.number,
        "k": 5,
        "step": 2,
        "steps": {2: {"loss": 1.0}},
        "runs": [NewRun("toto", {}, {"val_pct_mae": 1.0})],
        "run_ids": [run.run_id],
        "text": "t",
        "tag": "t",
        "config": {},
        "source": "s",
        "mode": "quick",
        "models": ["toto"],
        "objective": "pct_mae",
        "horizon": 1,
        "seed": 0,
        "fingerprints": {},
        "plan": {},
        "sweep_ids": [sweep.sweep_id],
        "judging": tracker.judgings.begin([run.run_id]),
        "told": {run.run_id: {"outcome": "hold"}},
        "why": "verdict",
        "notes": "n",
        "training_time_s": 1.0,
        "duration_s": 1.0,
        "facts": {"workers": 2},
        "question": "q",
        "horizons": [1],
        "max_trials": 3,
        "declaration_id": tracker.declarations.add(
            "q", models=["toto"], objective="pct_mae", horizons=[1], max_trials=3
        ).declaration_id,
        "num_items": 1,
        "num_rows": 1,
        "starts_at": "a",
        "ends_at": "b",
        **dict.fromkeys(("train_hash", "config_hash", "panel_hash", "task_hash"), "h"),
    }


PARTS = {
    "": Tracker,
    "heads.": Heads,
    "judgings.": Judgings,
    "declarations.": Declarations,
}


def public_methods() -> list[str]:
    return [
        f"{part}{name}"
        for part, its_class in PARTS.items()
        for name, _ in inspect.getmembers(its_class, inspect.isfunction)
        if not name.startswith("_") and name != "close"
    ]


def test_every_part_of_the_tracker_is_asked(tracker: Tracker) -> None:
    parts = {f"{name}.": type(value) for name, value in vars(tracker).items() if name[0] != "_"}
    assert parts == {n: c for n, c in PARTS.items() if n} | {"store.": Store}


def call(tracker: Tracker, name: str, known: dict[str, Any]) -> Any:
    """Call a method with what it must be told, on a run of its own where it ends one."""
    method = attrgetter(name)(tracker)
    needed = {
        p.name: known[p.name]
        for p in inspect.signature(method).parameters.values()
        if p.default is p.empty
    }
    if name == "finish_sweep":
        needed["state"] = SweepState.COMPLETE
    if name in ("log", "log_steps", "finish_run", "cancel_run"):
        needed["run_id"] = tracker.start_run(model="toto", hyperparams={}).run_id
    if name in ("heads.pause", "heads.wake"):
        needed["run_id"] = tracker.start_run(model="toto", hyperparams={}).run_id
    if name == "heads.wake":
        tracker.heads.pause(needed["run_id"], notes="n", training_time_s=1.0, duration_s=1.0)
    if name == "heads.say":
        return method(needed["sweep_id"], **known["facts"])
    if name == "compare_models":
        return method().to_csv()
    if name == "get_hyperparameter_impact":
        return method(**needed).to_csv()
    if name in TALKS:  # the strongest question: choose by the sealed score itself
        needed.pop("k", None)
        k = {"k": 5} if name == "get_top_k_models" else {}
        return method(metric="test_pct_mae", allow_test=True, minimize=True, **k)
    return method(**needed)


@pytest.mark.parametrize("name", [n for n in public_methods() if n not in REVEALING])
def test_no_method_shows_a_test_score(tracker: Tracker, known: dict[str, Any], name: str) -> None:
    shown = repr(call(tracker, name, known))
    assert str(SECRET) not in shown
    assert str(SECRET) not in repr(tracker.get_runs())


def test_the_one_door_shows_them_and_records_the_look(
    tracker: Tracker, known: dict[str, Any]
) -> None:
    scores = tracker.reveal_test(known["run_id"], who="ann", why="the paper is due")
    assert scores["test_pct_mae"] == SECRET
    assert set(scores.values()) == {SECRET}
    assert len(scores) == len(SEALED) + 1
    (look,) = tracker.judgings.test_looks(known["run_id"])
    assert (look["who"], look["why"], look["fingerprint"]) == (
        "ann",
        "the paper is due",
        "cells-test",
    )


def test_a_look_needs_a_reason(tracker: Tracker, known: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="say why"):
        tracker.reveal_test(known["run_id"], why=" ")
    assert tracker.judgings.test_looks() == []


@pytest.mark.parametrize(
    ("second", "equal"),
    [({"test_mae": 1.0, "test_r2": float("nan")}, True), ({"test_mae": 1.0}, False), ({}, None),
     ({"test_mae": 1.0000000000000002, "test_r2": float("nan")}, False)],
)  # fmt: skip
def test_of_a_reproduction_only_whether_its_test_is_the_same_is_told(
    tracker: Tracker, second: dict[str, float], equal: bool | None
) -> None:
    """To the last bit, without a look; of runs that have nothing to do with each other, nothing."""
    first = tracker.start_run(model="toto", hyperparams={})
    tracker.finish_run(first.run_id, "complete", scores={"test_mae": 1.0, "test_r2": float("nan")})
    for source, told in ((f"reproduces: {first.run_id}", equal), ("priority: x", None)):
        again = tracker.start_run(model="toto", hyperparams={}, source=source)
        tracker.finish_run(again.run_id, "complete", scores=second)
        assert tracker.judgings.has_equal_test(again.run_id) is told
    assert tracker.judgings.test_looks() == []


@pytest.mark.parametrize("metric", ["test_pct_mae", "Test-pct_mae", "test/pct_mae"])
def test_nothing_is_chosen_by_test(tracker: Tracker, known: dict[str, Any], metric: str) -> None:
    asked: list[Callable[[], object]] = [
        lambda: tracker.get_best_model(metric),
        lambda: tracker.get_top_k_models(3, metric),
        lambda: tracker.get_runs(min_metric_value={metric: 0.0}),
        lambda: tracker.get_runs(max_metric_value={metric: 0.0}),
        lambda: tracker.compare_models(metrics=["val_pct_mae", metric]),
        lambda: tracker.get_hyperparameter_impact("toto", "lr", metric),
    ]
    for ask in asked:
        with pytest.raises(UsageError, match="sealed"):
            ask()


def test_choosing_by_test_outright_is_marked_and_recorded(
    tracker: Tracker, known: dict[str, Any]
) -> None:
    best = tracker.get_best_model("test_pct_mae", allow_test=True)
    assert isinstance(best, Run)
    assert best.run_id == known["run_id"]
    assert "selected-on-test" in best.tags
    assert tracker.get_run(best.run_id).tags == best.tags
    assert [look["why"] for look in tracker.judgings.test_looks()] == ["selection by test_pct_mae"]


def test_allowing_test_changes_nothing_for_other_metrics(
    tracker: Tracker, known: dict[str, Any]
) -> None:
    best = tracker.get_best_model(allow_test=True)
    assert best is not None
    assert best.tags == ()
    assert tracker.judgings.test_looks() == []


def test_the_json_file_carries_no_test_score(tmp_path: Path) -> None:
    path = tmp_path / "sweep_results.json"
    with JsonTracker(path) as tracker:
        tracker.log_run("toto", {}, OPEN | SEALED, "/")
    assert str(SECRET) not in path.read_text()
    assert json.loads(path.read_text())["runs"][0]["metrics"] == OPEN
