"""Returns from other people's backtesters: what is read, and what is refused with what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from foresweep.data.reading.returns import ReturnTable, read_returns
from foresweep.errors import DataError
from freqtrade_export import backtest, strategy, zipped

DAYS = [f"2024-01-{d:02d}" for d in range(1, 9)]
SMALL = [0.01, -0.02, 0.0, 0.01, 0.02, -0.01, 0.0, 0.01]


def written(folder: Path, text: str, name: str = "returns.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def wide(*heads: str, columns: int = 2, values: Sequence[Any] = SMALL) -> str:
    rows = [",".join([day, *[str(v)] * columns]) for day, v in zip(DAYS, values, strict=False)]
    return "\n".join([*heads, *rows]) + "\n"


def of(table: ReturnTable, trial: str, item: str = "all") -> list[float]:
    found: list[float] = table.returns[
        table.trials.index(trial), :, table.items.index(item)
    ].tolist()
    return found


def test_a_column_is_a_trial(tmp_path: Path) -> None:
    table = read_returns(written(tmp_path, wide("Date,a,b")))
    assert (table.trials, table.items) == (("a", "b"), ("all",))
    assert of(table, "b") == SMALL
    assert str(table.times[0]) == "2024-01-01T00:00:00"


def test_levels_of_a_heading_are_parameters_and_symbols_are_items(tmp_path: Path) -> None:
    heads = ("fast,5,5,hold", "slow,10,20,", "symbol,X,Y,X", "Date,,,")
    table = read_returns(written(tmp_path, wide(*heads, columns=3)))
    assert table.trials == ("fast=5, slow=10", "fast=5, slow=20", "hold")
    assert table.items == ("X", "Y")
    assert np.isnan(of(table, "fast=5, slow=10", "Y")).all()


def test_a_long_table_is_the_same(tmp_path: Path) -> None:
    rows = [f"{t},{d},{v}" for t in ("a", "b") for d, v in zip(DAYS, SMALL, strict=True)]
    long = read_returns(written(tmp_path, "\n".join(["trial,time,return", *reversed(rows)])))
    table = read_returns(written(tmp_path, wide("Date,a,b"), "wide.csv"))
    assert set(long.trials) == set(table.trials)
    assert of(long, "a") == of(table, "a")
    with pytest.raises(DataError, match="'a' has two returns at 2024-01-01"):
        read_returns(written(tmp_path, "\n".join(["trial,time,return", *rows, rows[0]])))


def test_pandas_parquet_with_its_index_last_is_read(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": SMALL, "b": SMALL, "Date": DAYS})
    frame.with_columns(pl.col("Date").str.to_datetime()).write_parquet(tmp_path / "r.parquet")
    assert read_returns(tmp_path / "r.parquet").trials == ("a", "b")


def test_rows_in_any_order_are_put_in_time_order(tmp_path: Path) -> None:
    head, *rows = wide("Date,a", columns=1).splitlines()
    table = read_returns(written(tmp_path, "\n".join([head, *reversed(rows)])))
    assert of(table, "a") == SMALL


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; a table of returns has"),
        ("Date,a\n", "has no row that begins with a date"),
        ("day,a\n1,0.1\n2,0.1\n", "has no row that begins with a date"),
        (wide("Date,a,a"), "column 3 repeats the name 'a'"),
        (wide("Date,a,"), "column 3 has no name"),
        (wide("Date,a", columns=1) + "2024-01-08,0.01\n", "two bars at 2024-01-08"),
        (wide("Date,a", columns=1) + "2024-01-09,0.01,3\n", "row 10 has 3 columns, not 2"),
        (wide("Date,a", columns=1) + "2024-01-09,long\n", "'long' in column 'a', bar 9, is no"),
        (wide("Date,a", columns=1) + "2024-01-32,0\n", "is no date"),
        (wide("Date,a", values=[100.0, 101, 99, 98], columns=1), "give .pct_change()"),
        (wide("Date,a", values=[0.5, -0.7, 0.9, 0.4], columns=1), "divide percents by 100"),
        (wide("Date,a", values=[0.01, -1.5], columns=1), "a loss of more than everything"),
        (wide("Date,a", values=[0.01], columns=1), "returns on 1 bars"),
        (wide("Date,a", columns=1) + ",0.01\n", "bar 9 has no date"),
        ("trial,return\na,0.1\n", "has no column time"),
        ("trial,time,return\na,2024-01-08,0.1\na,2024-01-09\n", "row 3 has 2 columns, not 3"),
    ],
)
def test_what_cannot_be_returns_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError) as told:
        read_returns(written(tmp_path, text))
    assert said in str(told.value)
    assert str(tmp_path) in str(told.value)


@pytest.mark.parametrize(
    ("text", "what", "do"),
    [
        ("model,score_val,pred_time_val\nETS,-0.1,3\n", "AutoGluon's leaderboard",
         "predictor.backtest_predictions()"),
        (",Size,EntryBar,ExitBar,PnL\n0,3,1,2,5.0\n", "a list of trades of backtesting.py",
         "stats['_equity_curve']['Equity'].pct_change()"),
        ("number,value,state\n0,0.3,COMPLETE\n", "Optuna's table of trials", "keep each trial's"),
        ("run_id,experiment_id,status\na,1,FINISHED\n", "MLflow's table of runs", "log each run's"),
        (",Total Return [%],Sharpe Ratio\n5,3.0,1.2\n", "the statistics of vectorbt",
         "pf.returns()"),
        ("key,trades,profit_total_pct\nA,3,1.2\n", "freqtrade's comparison", ".fthypt"),
    ],
)  # fmt: skip
def test_a_leaderboard_is_refused_with_what_to_export(
    tmp_path: Path, text: str, what: str, do: str
) -> None:
    with pytest.raises(DataError) as told:
        read_returns(written(tmp_path, text))
    assert f"is {what}" in str(told.value)
    assert do in str(told.value)
    assert "one score a trial does not tell skill from the luck" in str(told.value)


def test_files_of_another_kind_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="returns are read from"):
        read_returns(written(tmp_path, "x", "pf.pkl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file of returns in this folder"):
        read_returns(tmp_path / "empty")


# freqtrade, by the layout of its export.


def test_a_day_of_freqtrade_is_what_its_closed_trades_realised(tmp_path: Path) -> None:
    made = {"2024-01-02": 100.0, "2024-01-04": -110.0}
    path = written(tmp_path, backtest(A=strategy(made), B=strategy({})), "backtest-result-1.json")
    table = read_returns(path)
    assert table.trials == ("A", "B")
    assert of(table, "A") == pytest.approx([0, 0.1, 0, -0.1, 0, 0, 0, 0])
    assert of(table, "B") == [0.0] * 8
    assert "closed trades" in table.notes[0]


def test_a_zip_of_freqtrade_has_its_market_beside(tmp_path: Path) -> None:
    name = "backtest-result-2024-01-09_10-00-00"
    moves = np.cumsum([0.0, 0.01, 0.0, -0.02, 0.0, 0.0, 0.0, 0.03])
    path = zipped(
        tmp_path / f"{name}.zip", backtest(A=strategy({"2024-01-02": 50.0})), DAYS, moves.tolist()
    )
    table = read_returns(path)
    assert table.trials == ("A", "market")
    assert of(table, "market") == pytest.approx([0, 0.01, 0, -0.02, 0, 0, 0, 0.03])
    assert read_returns(path.rename(tmp_path / "mine.zip")).trials == ("A", "market")


def test_every_epoch_of_a_hyperopt_is_a_trial(tmp_path: Path) -> None:
    lines = [
        json.dumps({"current_epoch": n, "loss": 1.0, "results_metrics": strategy({day: 10.0 * n})})
        for n, day in enumerate(DAYS[1:4], start=1)
    ]
    table = read_returns(written(tmp_path, "\n".join(lines), "strategy_A.fthypt"))
    assert table.trials == ("epoch 1", "epoch 2", "epoch 3")
    assert of(table, "epoch 2")[2] == pytest.approx(0.02)


def test_a_folder_joins_freqtrade_and_a_column_that_buys_and_holds(tmp_path: Path) -> None:
    written(tmp_path, backtest(A=strategy({"2024-01-02": 50.0})), "backtest-result-1.json")
    written(tmp_path, "{}", "backtest-result-1.meta.json")
    written(tmp_path, wide("Date,hold", columns=1), "hold.csv")
    assert set(read_returns(tmp_path).trials) == {"A", "hold"}
    written(tmp_path, wide("Date,hold", columns=1), "hold2.csv")
    with pytest.raises(DataError, match="two files hold a trial 'hold'"):
        read_returns(tmp_path)


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("{}", "x.json", "is not freqtrade's export"),
        ("[1]", "x.json", "is not freqtrade's export"),
        ("no json", "x.json", "is not freqtrade's export"),
        ('{"strategy": {}}', "x.json", "holds no strategy"),
        ("no zip", "x.zip", "is not freqtrade's export"),
        ('{"current_epoch": 1}', "x.fthypt", "is not freqtrade's export"),
        (backtest(A=strategy({"2024-01-02": -1000.0})), "x.json", "A loses its whole wallet"),
        (
            backtest(A=strategy({}), B=strategy({}, backtest_end="2024-01-20")),
            "x.json",
            "test them over the same days",
        ),
    ],
)
def test_what_freqtrade_did_not_write_is_refused(
    tmp_path: Path, text: str, name: str, said: str
) -> None:
    with pytest.raises(DataError) as told:
        read_returns(written(tmp_path, text, name))
    assert said in str(told.value)
