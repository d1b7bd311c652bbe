"""What a hyperparameter did, against pandas and scipy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from foresweep.errors import UnknownName, UsageError
from foresweep.records import Run
from foresweep.tracker.tracker import Tracker
from tracker_data import make_sweep

Finished = Callable[..., Run]
VALUES = st.sampled_from([1, 2, 4.0, 8, "a", "b", True, False, None, [1]])


@given(st.lists(st.tuples(VALUES, st.integers(-50, 50).map(lambda n: n / 8)), max_size=12))
def test_counts_means_spread_and_rank_are_those_of_pandas(
    shared: Tracker, cases: list[tuple[object, float]]
) -> None:
    sweep = make_sweep(shared, fingerprints={"val": repr(cases)})
    for value, score in cases:
        run = shared.start_run(
            model="toto",
            hyperparams={"x": value},
            sweep_id=sweep.sweep_id,
            fingerprints=sweep.fingerprints,
        )
        shared.finish_run(run.run_id, "complete", scores={"val_pct_mae": score})
    if not any(value is not None for value, _ in cases):
        return
    found = shared.summarise_hyperparam("toto", "x", sweep_id=sweep.sweep_id)
    given_ = [(v, s) for v, s in cases if v is not None]
    frame = pd.DataFrame({"label": [_label(v) for v, _ in given_], "y": [s for _, s in given_]})
    wanted = frame.groupby("label")["y"].agg(["count", "mean", "std", "min", "max"])
    assert found.count == len(given_)
    assert {v.label for v in found.values} == set(wanted.index)
    for value in found.values:
        row = wanted.loc[value.label]
        got = (value.mean, value.spread or np.nan, value.lowest, value.highest)
        assert value.count == row["count"]
        assert got == pytest.approx((row["mean"], row["std"] or np.nan, row["min"], row["max"]),
                                    nan_ok=True)  # fmt: skip
    _check_rank(found.rank_correlation, given_)


def _label(value: object) -> str:
    if isinstance(value, list):
        return "(other)"
    return str(value) if isinstance(value, str | bool) else f"{value:g}"


def _check_rank(found: float | None, cases: list[tuple[object, float]]) -> None:
    numbers = [(v, s) for v, s in cases if isinstance(v, int | float) and not isinstance(v, bool)]
    x, y = ([p[i] for p in numbers] for i in (0, 1))
    if len(numbers) < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(x, y).statistic)


def test_many_numbers_come_in_four_bins_beside_the_words(
    tracker: Tracker, finished: Finished
) -> None:
    for n in range(12):
        finished("toto", {"val_pct_mae": float(n)}, hyperparams={"lr": n / 100})
    finished("toto", {"val_pct_mae": 3.0}, hyperparams={"lr": "auto"})
    found = tracker.summarise_hyperparam("toto", "lr")
    assert [(v.label, v.count) for v in found.values] == [
        ("0 .. 0.02", 3),
        ("0.03 .. 0.05", 3),
        ("0.06 .. 0.08", 3),
        ("0.09 .. 0.11", 3),
        ("auto", 1),
    ]
    assert found.rank_correlation == pytest.approx(1.0)


def test_other_models_failed_runs_and_other_windows_are_not_counted(
    tracker: Tracker, finished: Finished
) -> None:
    finished("toto", {"val_pct_mae": 1.0}, hyperparams={"lr": 1})
    finished("kronos", {"val_pct_mae": 9.0}, hyperparams={"lr": 1})
    finished("toto", {"val_pct_mae": 9.0}, hyperparams={"lr": 1}, state="failed")
    finished("toto", {"val_pct_mae": float("nan")}, hyperparams={"lr": 1})
    sweep = make_sweep(tracker)
    finished("toto", {"val_pct_mae": 9.0}, hyperparams={"lr": 1}, sweep=sweep)
    found = tracker.summarise_hyperparam("toto", "lr", fingerprint="")
    assert (found.count, found.values[0].highest) == (1, 1.0)


def test_an_unknown_hyperparameter_and_a_sealed_metric_are_refused(
    tracker: Tracker, finished: Finished
) -> None:
    assert tracker.summarise_hyperparam("toto", "lr").count == 0  # no run yet: nothing to name
    finished("toto", {"val_pct_mae": 1.0}, hyperparams={"learning_rate": 1})
    with pytest.raises(UnknownName, match="did you mean 'learning_rate'"):
        tracker.summarise_hyperparam("toto", "learning_rat")
    with pytest.raises(UsageError, match="sealed"):
        tracker.summarise_hyperparam("toto", "learning_rate", "test_pct_mae")
