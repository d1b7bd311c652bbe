"""Quantile forecasts of given windows by AutoGluon, statsforecast and mlforecast: run by
autogluon.py, with `python -P`, in an environment that has them and knows no foresweep.

    PYTHON -P benchmarks/foreign_forecasts.py WINDOWS.npz FORECASTS.npz SIDE [SECONDS]

SIDE is autogluon, lightgbm, AutoETS, AutoARIMA or Theta. WINDOWS holds `closes` [R] of all items
one after the other, `first` [I + 1] where each begins, `known` [I] rows of an item up to the end of
tune, and of the windows their `item` [N] and `row` [N] (the origin), the horizon and the levels
[Q]. FORECASTS gets `values` [N, H, Q], prices, and the CPU seconds of this process and its
children.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import warnings
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pandas as pd

CONTEXT = 500
"""Bars that the local models of statsforecast are fitted on for each window: two years of days."""
MODELS = ("Naive", "SeasonalNaive", "ETS", "Theta", "RecursiveTabular", "DirectTabular")
"""Of AutoGluon: all that need neither a download nor, on a CPU, more time than all the others."""
LAGS = (1, 2, 3, 5, 10, 20)
VAL_WINDOWS = 3
"""Of AutoGluon's own backtest, the last ones of tune: its models are fitted on what is before."""


def frame_of(windows: Any, rows: np.ndarray, y: np.ndarray, id_: str, time: str, to: str) -> Any:
    """A long frame of each item's first `rows` bars, on a clock of sessions: markets close."""
    parts = []
    for i, count in enumerate(rows):
        values = y[windows["first"][i] :][:count]
        clock = pd.date_range("2000-01-01", periods=count, freq="D")
        parts.append(pd.DataFrame({id_: f"item{i:04d}", time: clock, to: values}))
    return pd.concat(parts, ignore_index=True)


def by_origin(windows: Any) -> list[np.ndarray]:
    """Windows [n] of each place in time that some items share; every item once in each."""
    order = np.lexsort((windows["item"], windows["row"] - windows["known"][windows["item"]]))
    groups: list[list[int]] = []
    for n in order:
        if not groups or any(windows["item"][m] == windows["item"][n] for m in groups[-1]):
            groups.append([])
        groups[-1].append(int(n))
    return [np.array(g) for g in groups]


def autogluon(windows: Any, levels: list[float], seconds: float) -> np.ndarray:
    """AutoGluon-TimeSeries: Naive, ETS, Theta, two kinds of LightGBM, and their ensemble."""
    from autogluon.timeseries import TimeSeriesDataFrame, TimeSeriesPredictor

    horizon = int(windows["horizon"])
    ids = ("item_id", "timestamp", "target")
    out = np.empty((len(windows["item"]), horizon, len(levels)))
    with tempfile.TemporaryDirectory() as folder:
        known = frame_of(windows, windows["known"], windows["closes"], *ids)
        predictor = TimeSeriesPredictor(
            prediction_length=horizon, quantile_levels=levels, eval_metric="WQL", freq="D",
            path=folder, verbosity=0,
        )  # fmt: skip
        predictor.fit(
            TimeSeriesDataFrame.from_data_frame(known),
            hyperparameters={name: {} for name in MODELS},
            num_val_windows=VAL_WINDOWS,
            time_limit=seconds,
            random_seed=0,
        )
        print(predictor.leaderboard().iloc[:, :4].to_string(), file=sys.stderr)
        for group in by_origin(windows):
            rows = np.zeros(len(windows["known"]), int)
            rows[windows["item"][group]] = windows["row"][group] + 1
            seen = frame_of(windows, rows, windows["closes"], *ids)
            made = predictor.predict(TimeSeriesDataFrame.from_data_frame(seen), random_seed=0)
            for n in group:
                one = made.loc[f"item{windows['item'][n]:04d}"]
                out[n] = one[[str(q) for q in levels]].to_numpy()
    return out


def lightgbm(windows: Any, levels: list[float], seconds: float) -> np.ndarray:
    """LightGBM on lags of daily log returns by mlforecast, with its own conformal intervals."""
    from lightgbm import LGBMRegressor
    from mlforecast import MLForecast
    from mlforecast.target_transforms import Differences
    from mlforecast.utils import PredictionIntervals

    horizon, logs = int(windows["horizon"]), np.log(windows["closes"])
    ids = ("unique_id", "ds", "y")
    model = LGBMRegressor(
        n_estimators=100, num_leaves=15, learning_rate=0.05, verbosity=-1, n_jobs=1, random_state=0
    )
    forecast = MLForecast(
        models={"m": model}, freq="D", lags=list(LAGS), target_transforms=[Differences([1])]
    )
    forecast.fit(
        frame_of(windows, windows["known"], logs, *ids),
        prediction_intervals=PredictionIntervals(n_windows=20, h=horizon),
    )
    every = frame_of(windows, np.diff(windows["first"]), logs, *ids)
    place = every.groupby("unique_id").cumcount().to_numpy()
    owner = every["unique_id"].str.removeprefix("item").astype(int).to_numpy()
    known = windows["known"].copy()
    out = np.empty((len(windows["item"]), horizon, len(levels)))
    for group in by_origin(windows):
        until = known.copy()
        until[windows["item"][group]] = windows["row"][group] + 1
        forecast.update(every[(place >= known[owner]) & (place < until[owner])])
        known = until
        made = forecast.predict(horizon, level=both_sides(levels))
        for n in group:
            one = made[made["unique_id"] == f"item{windows['item'][n]:04d}"]
            out[n] = np.exp(quantiles(one, "m", levels))
    return out


def both_sides(levels: list[float]) -> list[int]:
    """Central intervals, in percent, whose ends are the levels."""
    return sorted({round(100 * abs(2 * q - 1)) for q in levels if q != 0.5})


def quantiles(found: Any, name: str, levels: list[float]) -> np.ndarray:
    """[H, Q] of a frame or dict with columns NAME, NAME-lo-80 ..., never crossing."""
    columns = []
    for q in levels:
        side = "" if q == 0.5 else f"-{'lo' if q < 0.5 else 'hi'}-{round(100 * abs(2 * q - 1))}"
        columns.append(np.asarray(found[f"{name}{side}"], dtype=float))
    return np.sort(np.stack(columns, axis=-1), axis=-1)


def statsforecast(windows: Any, levels: list[float], side: str) -> np.ndarray:
    """A local model on log closes, fitted anew for each window on its last CONTEXT bars."""
    from statsforecast.models import AutoARIMA, AutoETS, Theta

    horizon, logs = int(windows["horizon"]), np.log(windows["closes"])
    make = {
        "AutoETS": lambda: AutoETS(season_length=1),
        "AutoARIMA": lambda: AutoARIMA(season_length=1),
        "Theta": lambda: Theta(season_length=1),
    }[side]
    out = np.empty((len(windows["item"]), horizon, len(levels)))
    for n, (item, row) in enumerate(zip(windows["item"], windows["row"], strict=True)):
        stop = windows["first"][item] + row + 1
        y = logs[max(windows["first"][item], stop - CONTEXT) : stop]
        made = make().forecast(y, horizon, level=both_sides(levels))
        named = {k.replace("mean", "m", 1) if k == "mean" else f"m-{k}": v for k, v in made.items()}
        out[n] = np.exp(quantiles(named, "m", levels))
    return out


def main() -> None:
    warnings.simplefilter("ignore")
    source, target, side = sys.argv[1:4]
    seconds = float(sys.argv[4]) if len(sys.argv) > 4 else 600.0
    windows = dict(np.load(source))
    levels = [round(float(q), 3) for q in windows["levels"]]
    sides = {"autogluon": autogluon, "lightgbm": lightgbm}
    if side in sides:
        values = sides[side](windows, levels, seconds)
    else:
        values = statsforecast(windows, levels, side)
    spent = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        used = resource.getrusage(who)
        spent += used.ru_utime + used.ru_stime
    np.savez(target, values=np.sort(values, axis=-1), cpu_s=spent)


if __name__ == "__main__":
    main()
