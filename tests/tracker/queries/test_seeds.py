"""Of a config's seeds the median one by tune ranks: neither the lucky nor the unlucky one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from foresweep.records import Run
from foresweep.selection.leaderboard import leaderboard
from foresweep.tracker.hiding import hide_run
from foresweep.tracker.queries import runs as seeds
from foresweep.tracker.queries.runs import by_config, median_seed
from foresweep.tracker.tracker import Tracker
from tracker_data import make_sweep

Finished = Callable[..., Run]


@pytest.fixture
def trained(tracker: Tracker, finished: Finished) -> Callable[..., Run]:
    """Makes a complete run of a config in one sweep: trained("a", tune, val, seed=1)."""
    sweep = make_sweep(tracker)

    def make(config: str, tune: float, val: float, *, seed: int = 0, **more: object) -> Run:
        scores = {"tune_pct_mae": tune, "val_pct_mae": val, "tune_r2": -tune, "val_r2": -val}
        hashes = {"config_hash": config, "train_hash": f"train {config}"}
        return finished("toto", scores, sweep=sweep, seed=seed, **hashes, **more)

    return make


def test_the_median_seed_by_tune_ranks_and_the_lucky_one_does_not(
    tracker: Tracker, trained: Callable[..., Run]
) -> None:
    trained("a", 1.0, 0.1, seed=0)  # best on tune, and far the best on val
    median = trained("a", 2.0, 3.0, seed=1)
    trained("a", 3.0, 0.5, seed=2)
    other = trained("b", 2.5, 2.0)
    assert tracker.get_best_model() == other
    assert tracker.get_top_k_models(9) == [other, median]
    assert tracker.get_top_k_models(1) == [other]  # though three seeds stand before it on val
    assert tracker.get_top_k_models(9, "val_r2") == [other, median]
    assert tracker.get_top_k_models(9, "tune_pct_mae") == [median, other]


def test_a_further_seed_moves_the_choice_and_a_failed_or_hidden_one_does_not(
    tracker: Tracker, trained: Callable[..., Run]
) -> None:
    first = trained("a", 1.0, 1.0, seed=0)
    trained("a", 0.5, 0.5, seed=1, state="failed")
    hidden = trained("a", 0.4, 0.4, seed=2)
    hide_run(tracker, hidden.run_id)
    assert tracker.get_seeds(first.run_id) == [first]
    assert tracker.get_best_model() == first
    second = trained("a", 0.8, 2.0, seed=3)
    assert {r.run_id for r in tracker.get_seeds(first.run_id)} == {first.run_id, second.run_id}
    assert tracker.get_top_k_models(9) == [second]  # of two the better on tune: the lower median


def test_seeds_that_a_later_sweep_adds_move_no_choice_anywhere(
    tracker: Tracker, trained: Callable[..., Run]
) -> None:
    settled = [trained("a", tune, tune, seed=k) for k, tune in enumerate((1.0, 2.0, 3.0))]
    make_sweep(tracker)
    late = [trained("a", 2.5, 0.1, seed=3), trained("a", 2.6, 0.2, seed=4)]  # 2.5: median of five
    every = tracker.get_runs()
    assert [r.run_id for r in every if r.is_late_seed] == [r.run_id for r in late]
    assert median_seed(every, "pct_mae").run_id == settled[1].run_id
    assert tracker.get_top_k_models(9) == [settled[1]]
    best = leaderboard(every, metric="val_pct_mae").best
    assert best is not None
    assert best.run.run_id == settled[1].run_id
    assert best.seeds is not None
    assert best.seeds.num_seeds == 5  # they say how far chance carries all the same


def test_configs_keep_their_own_seeds_and_other_windows_are_another_question(
    tracker: Tracker, finished: Finished, trained: Callable[..., Run]
) -> None:
    one, two = trained("a", 1.0, 1.0), trained("b", 1.0, 2.0)
    elsewhere = make_sweep(tracker, fingerprints={"val": "other cells"})
    finished("toto", {"tune_pct_mae": 0.1, "val_pct_mae": 0.1}, sweep=elsewhere, seed=1,
             config_hash="a", train_hash="train a")  # fmt: skip
    assert tracker.get_seeds(one.run_id) == [one]
    assert tracker.get_top_k_models(9, fingerprint=one.fingerprint) == [one, two]


def test_runs_without_a_config_hash_stand_for_themselves(
    tracker: Tracker, finished: Finished
) -> None:
    runs = [finished("toto", {"val_pct_mae": s, "tune_pct_mae": s}) for s in (1.0, 2.0, 3.0)]
    assert tracker.get_top_k_models(9) == runs
    assert tracker.get_seeds(runs[1].run_id) == [runs[1]]


def test_a_metric_of_ones_own_has_no_median_and_every_seed_ranks(
    tracker: Tracker, finished: Finished
) -> None:
    runs = [
        finished("toto", {"val_profit": float(s)}, seed=s, config_hash="a", train_hash="t")
        for s in range(3)
    ]
    assert tracker.get_top_k_models(9, "val_profit", minimize=True) == runs


def test_a_run_without_a_tune_score_counts_as_the_worst(trained: Callable[..., Run]) -> None:
    runs = [trained("a", float("nan"), 1.0), trained("a", 5.0, 1.0), trained("a", 6.0, 1.0)]
    assert median_seed(runs, "pct_mae") == runs[2]
    assert median_seed(runs, "r2") == runs[2]  # higher is better: -5, -6, none
    assert [len(group) for group in by_config([*runs, trained("b", 1.0, 1.0)])] == [3, 1]


def test_many_configs_are_asked_about_a_part_at_a_time(
    tracker: Tracker, trained: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds, "AT_ONCE", 2)
    medians = []
    for k in range(5):
        runs = [trained(f"config {k}", float(s), k + 0.1 * s, seed=s) for s in (2, 0, 1)]
        medians.append(runs[2])
    assert tracker.get_top_k_models(3) == medians[:3]
    assert tracker.get_top_k_models(50) == medians


def test_a_run_that_reproduces_another_is_no_further_seed(
    tracker: Tracker, trained: Callable[..., Run]
) -> None:
    """Better or worse: with it the lucky one of two trainings of one seed would be chosen."""
    lr = {"hyperparams": {"lr": 0.1}}
    first = trained("a", 2.0, 2.0, **lr)
    again = trained("a", 1.0, 1.0, source=f"reproduces: {first.run_id}", **lr)
    assert again.reproduces == first.run_id
    assert by_config([first, again]) == [[first]]
    assert tracker.get_seeds(again.run_id) == [first]
    assert tracker.get_top_k_models(9) == [first]
    assert tracker.get_hyperparameter_impact("toto", "lr")["run_id"].tolist() == [first.run_id]
    assert tracker.summarise_hyperparam("toto", "lr").count == 1
    hide_run(tracker, first.run_id)
    assert tracker.get_top_k_models(9) == []


def test_a_run_that_reproduces_another_makes_no_training_needless(
    tracker: Tracker, trained: Callable[..., Run]
) -> None:
    more = {"panel_hash": "p", "task_hash": "k", "checkpoint_path": "/"}
    asked = {"train_hash": "train a", "panel_hash": "p", "task_hash": "k", "seed": 0}
    first = trained("a", 2.0, 2.0, **more)
    trained("a", 1.0, 1.0, source=f"reproduces: {first.run_id}", **more)
    assert tracker.find_trained(**asked) == first
    hide_run(tracker, first.run_id)
    assert tracker.find_trained(**asked) is None
