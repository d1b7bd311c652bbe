"""Makes the files beside it: what vectorbt, backtesting.py and AutoGluon write, by the examples of
docs/verdict-elsewhere.md as they stand there.

    python tests/foreign/make.py vectorbt|backtesting|autogluon

Each in an environment of its own that has the package (vectorbt, backtesting or
autogluon.timeseries); none of them is needed to run the tests. Prices are a random walk, seeded.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "verdict-elsewhere.md"
BARS = 420


def code(title: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (found,) = (b for b in blocks if b.startswith(f"# {title}\n"))
    return str(found)


def walk(seed: int, bars: int = BARS) -> pd.Series:
    moves = 0.01 * np.random.default_rng(seed).standard_normal(bars) + 0.0003
    days = pd.date_range("2018-01-01", periods=bars, freq="D", name="Date")
    return pd.Series(100 * np.exp(np.cumsum(moves)), index=days, name="Close")


def ohlc(seed: int) -> pd.DataFrame:
    close = walk(seed)
    opened = close.shift(1).fillna(100.0)
    columns = {"Open": opened, "High": np.maximum(opened, close) * 1.002}
    columns |= {"Low": np.minimum(opened, close) * 0.998, "Close": close}
    return pd.DataFrame(columns).assign(Volume=1000)


def vectorbt() -> dict[str, Any]:
    return {"close": walk(1)}


def backtesting() -> dict[str, Any]:
    from backtesting import Backtest, Strategy
    from backtesting.lib import crossover

    def mean(values: Any, window: int) -> Any:
        return pd.Series(values).rolling(window).mean()

    class Cross(Strategy):
        fast, slow = 10, 30

        def init(self) -> None:
            self.quick = self.I(mean, self.data.Close, self.fast)
            self.slower = self.I(mean, self.data.Close, self.slow)

        def next(self) -> None:
            if crossover(self.quick, self.slower):
                self.buy()
            elif crossover(self.slower, self.quick):
                self.position.close()

    Cross.__qualname__ = "Cross"
    globals()["Cross"] = Cross  # where the optimiser's workers look for it
    prices = ohlc(2)
    bt = Backtest(prices, Cross, cash=10_000, commission=0.001, finalize_trades=True)
    stats = bt.run()
    stats["_equity_curve"].to_csv("equity.csv")
    stats["_trades"].to_csv("trades.csv")
    stats.drop(["_strategy", "_equity_curve", "_trades"]).to_csv("stats.csv")
    return {"bt": bt, "prices": prices}


def autogluon() -> dict[str, Any]:
    from autogluon.timeseries import TimeSeriesDataFrame, TimeSeriesPredictor

    frames = [
        walk(seed, 260).reset_index().assign(item_id=f"X{seed}").rename(
            columns={"Date": "timestamp", "Close": "target"}
        )
        for seed in (3, 4)
    ]  # fmt: skip
    data = TimeSeriesDataFrame.from_data_frame(pd.concat(frames))
    predictor = TimeSeriesPredictor(
        prediction_length=5, quantile_levels=[0.1, 0.5, 0.9], freq="D", path="ag", verbosity=0
    )
    models: dict[str, Any] = {"Naive": {}, "SeasonalNaive": {"seasonal_period": 5}, "Average": {}}
    predictor.fit(data.slice_by_timestep(None, -205), hyperparameters=models)
    predictor.leaderboard().to_csv("leaderboard.csv", index=False)
    return {"predictor": predictor, "data": data}


def main(which: str) -> None:
    made = {"vectorbt": vectorbt, "backtesting": backtesting, "autogluon": autogluon}[which]
    title = {"backtesting": "backtesting.py"}.get(which, which)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        names = made()
        exec(compile(code(f"{title}: export"), str(PAGE), "exec"), names)
        for file in sorted(Path(folder).glob("*.csv")):
            frame = file.read_text(encoding="utf-8")
            short = re.sub(r"(\d\.\d{7})\d+", r"\1", frame)  # enough digits to judge by
            (HERE / file.name).write_text(short, encoding="utf-8")
        os.chdir(HERE)


if __name__ == "__main__":
    main(sys.argv[1])
