"""Forecasts with their truth as losses: what is counted, and what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from foresweep.data.reading.losses import read_long_table
from foresweep.errors import DataError

ROWS = {
    "item_id": ["X"] * 4,
    "timestamp": ["2024-01-02", "2024-01-03"] * 2,
    "mean": [101.0, 102.0, 100.0, 100.0],
    "0.1": [99.0, 98.0, 98.0, 97.0],
    "0.9": [103.0, 106.0, 102.0, 103.0],
    "target": [104.0, 97.0, 104.0, 97.0],
    "trial": ["ETS", "ETS", "Naive", "Naive"],
    "origin": ["2024-01-01"] * 4,
    "part": ["val"] * 4,
}


def read(folder: Path, **changed: Any) -> Any:
    made = {k: v for k, v in (ROWS | changed).items() if v is not None}
    pl.DataFrame(made).write_csv(folder / "forecasts.csv")
    return read_long_table(folder / "forecasts.csv")


def test_a_loss_is_the_mean_pinball_of_its_window(tmp_path: Path) -> None:
    table = read(tmp_path)
    assert table.trials == ("ETS", "Naive")
    assert (table.items, table.origins) == (("X",), ("2024-01-01",))
    ets = ((0.1 * 5 + 0.9 * 1) / 2 + (0.9 * 1 + 0.1 * 9) / 2) / 2
    naive = ((0.1 * 6 + 0.9 * 2) / 2 + (0.1 * 0 + 0.1 * 6) / 2) / 2
    assert table.loss.tolist() == pytest.approx([ets, naive])


def test_with_the_last_value_a_loss_is_percent_of_it(tmp_path: Path) -> None:
    plain, percent = (read(tmp_path, last=last).loss for last in (None, [50.0] * 4))
    assert percent == pytest.approx(2 * plain)


def test_without_quantiles_it_is_the_absolute_error_of_the_mean(tmp_path: Path) -> None:
    table = read(tmp_path, **{"0.1": None, "0.9": None})
    assert table.loss.tolist() == pytest.approx([4.0, 3.5])


def test_autogluons_words_and_ours_are_the_same(tmp_path: Path) -> None:
    table = read(tmp_path, trial=None, model=ROWS["trial"], origin=None, cutoff=ROWS["origin"])
    assert table.trials == ("ETS", "Naive")


def test_a_window_that_stops_early_is_left_out_and_counted(tmp_path: Path) -> None:
    table = read(tmp_path, **{"0.9": [103.0, 106.0, 102.0, None]})
    assert table.trials == ("ETS",)
    assert table.left_out == {
        "with no number for a forecast or what came": 1,
        "(windows) of fewer bars than others forecast there": 1,
    }


def test_forecasts_without_their_truth_or_origin_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="forecasts without a column origin: add the model"):
        read(tmp_path, origin=None)
    with pytest.raises(DataError, match="has no column loss"):
        read(tmp_path, target=None)


def test_autogluons_leaderboard_is_refused_with_what_to_export(tmp_path: Path) -> None:
    (tmp_path / "leaderboard.csv").write_text("model,score_val,fit_order\nETS,-0.1,1\n")
    with pytest.raises(DataError) as told:
        read_long_table(tmp_path / "leaderboard.csv")
    assert "is AutoGluon's leaderboard" in str(told.value)
    assert "predictor.backtest_predictions()" in str(told.value)
