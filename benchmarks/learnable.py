"""Does a sweep find what is there to be found, and is the verdict's `promote` more than a word?

Writes eight made-up daily series whose moves mostly go back the next day, so that a regression on
ten past returns beats last-value by 17 % one bar ahead: no market is like that.

python benchmarks/learnable.py FOLDER
foresweep train --model chronos2 --horizon 1 --data FOLDER --max-steps 1500 \
    --set max_steps=1500 --set lr=1e-3 --set context_length=64
foresweep verdict
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

BARS, ITEMS, LAGS, TRAIN = 1400, 8, 10, 900


def made_up(rng: np.random.Generator) -> pd.DataFrame:
    """date, open, high, low, close, volume: a random walk of 0.4 % a day, and on top of it moves of
    2 % that mostly go back at once (an AR(1) of 0.2)."""
    walk, away = np.cumsum(rng.normal(0, 0.004, BARS)), np.zeros(BARS)
    for t in range(1, BARS):
        away[t] = 0.2 * away[t - 1] + rng.normal(0, 0.02)
    close = 50 * np.exp(walk + away)
    first = close * np.exp(rng.normal(0, 0.002, BARS))
    columns = {
        "date": pd.bdate_range("2016-01-04", periods=BARS),
        "open": first,
        "high": np.maximum(first, close) * 1.003,
        "low": np.minimum(first, close) * 0.997,
        "close": close,
        "volume": rng.integers(100_000, 1_000_000, BARS),
    }
    return pd.DataFrame(columns).round(4)


def errors(close: np.ndarray) -> tuple[float, float]:
    """Mean absolute error of a bar's log return after TRAIN bars: of last-value, of a regression on
    LAGS past returns fitted before."""
    moves = np.diff(np.log(close))
    past = np.stack([moves[LAGS - 1 - k : len(moves) - 1 - k] for k in range(LAGS)], axis=1)
    new = moves[LAGS:]
    weights = np.linalg.lstsq(past[:TRAIN], new[:TRAIN], rcond=None)[0]
    left = new[TRAIN:] - past[TRAIN:] @ weights
    return float(np.abs(new[TRAIN:]).mean()), float(np.abs(left).mean())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    drawn, found = np.random.default_rng(3), []
    for k in range(ITEMS):
        frame = made_up(drawn)
        frame.to_csv(folder / f"S{k}.csv", index=False)
        found.append(errors(frame["close"].to_numpy()))
    naive, fitted = np.mean(found, axis=0)
    print(f"{ITEMS} series in {folder}; a regression beats last-value by {1 - fitted / naive:.1%}")
