"""A metric with a target is ranked by its distance from it."""

from __future__ import annotations

from collections.abc import Callable

from foresweep.records import Run
from foresweep.tracker.tracker import Tracker

Finished = Callable[..., Run]


def coverage(finished: Finished, value: float, model: str = "toto", **more: object) -> Run:
    return finished(model, {"val_coverage_80": value}, **more)


def test_the_nearest_to_the_target_is_best(tracker: Tracker, finished: Finished) -> None:
    far, near, below = (coverage(finished, v) for v in (0.99, 0.84, 0.74))
    assert tracker.get_best_model("val_coverage_80") == near
    assert tracker.get_top_k_models(9, "val_coverage_80") == [near, below, far]
    assert tracker.get_top_k_models(1, "val_coverage_80") == [near]
    assert tracker.get_best_model("val_coverage_80", minimize=False) == far
    assert tracker.get_best_model("val_coverage_80", minimize=True) == below


def test_ranking_by_a_target_asks_for_the_same_runs(tracker: Tracker, finished: Finished) -> None:
    naive = coverage(finished, 0.8, "last-value", checkpoint_path=None)
    bare = coverage(finished, 0.81, checkpoint_path=None)
    coverage(finished, 0.8, state="failed")
    coverage(finished, float("nan"))
    kept, other = coverage(finished, 0.7), coverage(finished, 0.6, "kronos")
    asked = "val_coverage_80"
    assert tracker.get_best_model(asked) == kept
    assert tracker.get_best_model(asked, include_baselines=True) == naive
    assert tracker.get_best_model(asked, "last-value") == naive
    assert tracker.get_best_model(asked, "kronos") == other
    assert tracker.get_top_k_models(9, asked) == [bare, kept, other]
    assert tracker.get_top_k_models(9, asked, fingerprint="elsewhere") == []
