"""A hidden run is nowhere to be seen, comes back as it was, and still counts as a trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from foresweep.errors import NotFound, TrackerError
from foresweep.records import Run
from foresweep.tracker.hiding import hide_run, is_hidden, show_run_again
from foresweep.tracker.tracker import Tracker
from tracker_data import CELLS, make_sweep

Finished = Callable[..., Run]


@pytest.fixture
def pair(tracker: Tracker, finished: Finished) -> tuple[Run, Run]:
    """(the better, the other), of one sweep."""
    sweep = make_sweep(tracker)
    runs = [
        finished("toto", {"val_pct_mae": m}, sweep=sweep, hyperparams={"lr": m}) for m in (1.0, 2.0)
    ]
    return runs[0], runs[1]


def shown(tracker: Tracker) -> list[list[str]]:
    """What every list, table and ranking shows."""
    best = tracker.get_best_model()
    return [
        [best.run_id] if best else [],
        [r.run_id for r in tracker.get_top_k_models(5)],
        [r.run_id for r in tracker.get_runs()],
        [r.run_id for r in tracker.get_runs(where="lr > 0", sort="lr")],
        list(tracker.compare_models()["run_id"]),
        list(tracker.get_hyperparameter_impact("toto", "lr")["run_id"]),
    ]


def test_a_hidden_run_is_in_no_list_table_or_ranking(
    tracker: Tracker, pair: tuple[Run, Run]
) -> None:
    better, other = pair
    hide_run(tracker, better.run_id)
    assert all(ids == [other.run_id] for ids in shown(tracker))
    assert tracker.summarise_hyperparam("toto", "lr").count == 1
    assert [r.run_id for r in tracker.get_runs(include_hidden=True)] == [
        better.run_id,
        other.run_id,
    ]


def test_a_run_that_is_brought_back_stands_where_it_stood(
    tracker: Tracker, pair: tuple[Run, Run]
) -> None:
    before = shown(tracker)
    hide_run(tracker, pair[0].run_id)
    hide_run(tracker, pair[0].run_id)  # twice is once
    assert show_run_again(tracker, pair[0].run_id[:-1]) == pair[0]
    assert shown(tracker) == before


def test_a_hidden_run_is_still_found_by_its_id_and_its_trial_counts(tracker: Tracker) -> None:
    sweep = make_sweep(tracker)
    trial = tracker.heads.add_trial(
        sweep.sweep_id, model="toto", config={}, config_hash="c", train_hash="t", source="s"
    )
    run = tracker.start_run(
        model="toto", hyperparams={}, sweep_id=sweep.sweep_id, trial_number=trial.number
    )
    tracker.finish_run(run.run_id, "failed")
    hide_run(tracker, run.run_id)
    assert tracker.get_run(run.run_id).state == "failed"
    assert len(tracker.get_trials(sweep.sweep_id)) == 1


def test_a_score_added_to_a_hidden_run_does_not_bring_it_into_a_ranking(
    tracker: Tracker, pair: tuple[Run, Run]
) -> None:
    hide_run(tracker, pair[0].run_id)
    tracker.add_scores(pair[0].run_id, {"val_smape": 0.1})
    assert tracker.get_best_model("val_smape") is None
    show_run_again(tracker, pair[0].run_id)
    best = tracker.get_best_model("val_smape")
    assert best is not None
    assert best.run_id == pair[0].run_id


def test_a_hidden_run_does_not_make_a_training_needless(tracker: Tracker, tmp_path: Path) -> None:
    run = tracker.start_run(
        model="drift", hyperparams={}, train_hash="t", panel_hash="p", task_hash="k", seed=0
    )
    tracker.finish_run(run.run_id, "complete", checkpoint_path=tmp_path)
    asked = {"train_hash": "t", "panel_hash": "p", "task_hash": "k", "seed": 0}
    assert tracker.find_trained(**asked) is not None  # type: ignore[arg-type]
    hide_run(tracker, run.run_id)
    assert tracker.find_trained(**asked) is None  # type: ignore[arg-type]


def test_forgotten_files_are_named_no_more_and_rank_no_more(
    tracker: Tracker, pair: tuple[Run, Run]
) -> None:
    told = hide_run(tracker, pair[0].run_id, forget_files=True)
    assert told.checkpoint_path == "somewhere"  # what there is to remove
    assert show_run_again(tracker, pair[0].run_id).checkpoint_path is None
    best = tracker.get_best_model(fingerprint=CELLS["val"])
    assert best is not None
    assert best.run_id == pair[1].run_id


def test_what_cannot_be_hidden_or_shown_says_so(tracker: Tracker) -> None:
    run = tracker.start_run(model="toto", hyperparams={})
    with pytest.raises(TrackerError, match="running"):
        hide_run(tracker, run.run_id)
    with pytest.raises(TrackerError, match="is not hidden"):
        show_run_again(tracker, run.run_id)
    with pytest.raises(NotFound):
        hide_run(tracker, "nothing")
    with tracker.store.read() as connection:
        assert not is_hidden(connection, run.run_id)
