"""What must work with nothing but `pip install foresweep`, at the lowest versions it says it takes.

`make lowest` runs it in an environment of its own (constraints-lowest.txt), where there is neither
pytest nor torch: data in, runs on record, a sweep of the baselines, its table, verdict and report.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

import foresweep as fs

ROOT = Path(__file__).parents[1]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints-lowest.txt").read_text("utf-8").split()
    if "==" in line
)


def prices(name: str, seed: int) -> pd.DataFrame:
    """900 daily bars of a random walk."""
    draw = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(0.01 * draw.standard_normal(900)))
    opened = close * np.exp(0.002 * draw.standard_normal(900))
    return pd.DataFrame(
        {
            "date": pd.bdate_range("2015-01-01", periods=900),
            "open": opened,
            "high": np.maximum(opened, close) * 1.003,
            "low": np.minimum(opened, close) * 0.997,
            "close": close,
            "volume": draw.integers(1_000, 9_000, 900),
            "ticker": name,
        }
    )


def said(*words: str, codes: tuple[int, ...] = (0,)) -> str:
    """What a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "foresweep", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode in codes, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def main() -> None:
    for name in ("numpy", "pandas", "polars", "sqlalchemy", "pydantic", "optuna", "typer"):
        assert version(name) == PINS[name], f"{name} is {version(name)}, pinned {PINS[name]}"
    assert find_spec("torch") is None, "this environment is to have no extras"
    bars = pd.concat([prices("AAA", 1), prices("BBB", 2)])
    Path("data").mkdir()
    for ticker, frame in bars.groupby("ticker"):
        frame.drop(columns="ticker").to_csv(f"data/{ticker}.csv", index=False)

    sweep = fs.sweep(["last-value", "drift", "har"], bars, horizon=5)
    assert sweep.state == "complete"
    board = sweep.leaderboard()
    assert set(board["model"]) >= {"last-value", "drift", "har"}
    naive = board.loc[board["model"] == "last-value", "val_pct_mae"]
    assert np.isfinite(naive).all()
    with fs.Tracker().run("mine", {"lr": 1e-3}) as run:
        run.log(0, {"loss": 1.0})
        run.finish({"val_pct_mae": 1.94})

    assert "AAA" in said("data", "check", "data")
    assert "drift" in said("runs")
    assert "mine" in said("runs", "--model", "mine")
    said("report", "-o", "report.md")
    assert "last-value" in Path("report.md").read_text("utf-8")
    said("verdict", codes=(0, 1, 2, 3, 4))
    said("db", "verify")
    refused = subprocess.run(
        [sys.executable, "-m", "foresweep", "sweep", "--model", "toto", "--data", "data"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pip install 'foresweep[models]'" in refused.stderr, refused.stderr


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        main()
        os.chdir(ROOT)
    print(f"the lowest versions work: foresweep {fs.__version__}, numpy {np.__version__}")
