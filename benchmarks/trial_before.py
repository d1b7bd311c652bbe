"""The same trial by the code before: run by trial_cost.py, in an environment of that code.

    PYTHON benchmarks/trial_before.py BARS.parquet MODEL HORIZON STEPS WINDOWS

Written for commit 5b346c6, whose modules it names. Prints JSON: CPU seconds of a training step, of
a window's forecast, of scoring all windows of tune, val and test, and how many there are of each.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import numpy as np
import polars as pl
from foresweep.models.config import make_config  # type: ignore[import-not-found]

from foresweep.data.panel import panel_from_frame
from foresweep.data.splits import make_split
from foresweep.data.windows import TrainWindows, Windows
from foresweep.evaluation.backtest import evaluate
from foresweep.models.base import DEFAULT_LEVELS, Facts, Resources, Scored
from foresweep.models.registry import get_model

BATCH = 256


def unscored(predictor: Any) -> Scored:
    return Scored({"tune_pinball": 1.0, "tune_pct_mae": 1.0, "tune_skill": 0.0}, {})


def silent(*_: Any) -> None:
    """Nobody listens."""


def main() -> None:
    bars, name, horizon, steps, sample = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
    panel = panel_from_frame(pl.read_parquet(bars))
    split = make_split(panel, horizon)
    train = TrainWindows(panel, split, split.part("train"))
    rows = sum(len(train.values(i)) for i in range(panel.num_items))
    model, resources = get_model(name), Resources(threads=1)
    config = make_config(model.Config, {"size": "tiny", "max_steps": steps}, model=name)
    config = model.resolve(config, Facts(horizon, split.max_context, rows))
    parts = {p: Windows(panel, split, split.part(p)) for p in ("tune", "val", "test")}
    with tempfile.TemporaryDirectory() as folder:

        def trained(some: Any, out: str) -> tuple[Any, float]:
            started = time.process_time()
            made = model.train(  # type: ignore[call-arg]
                train, some, resources, seed=0, horizon=horizon, score=unscored,
                report=silent, out=Path(folder) / out,
            )  # fmt: skip
            return made, time.process_time() - started

        trained(dataclasses.replace(config, max_steps=8), "warm-up")
        _, short = trained(dataclasses.replace(config, max_steps=8), "short")
        made, whole = trained(config, "whole")
        predictor = model.load(made, resources)
        tune = parts["tune"]
        chosen = np.linspace(0, len(tune) - 1, min(sample, len(tune))).astype(int)
        length = min(predictor.context_length, split.max_context)
        asked = {"horizon": horizon, "levels": DEFAULT_LEVELS, "seed": 0}
        predictor.predict(tune.context(length, chosen[:16]), **asked)
        started = time.process_time()
        for at in range(0, len(chosen), BATCH):
            predictor.predict(tune.context(length, chosen[at : at + BATCH]), **asked)
        window = (time.process_time() - started) / len(chosen)
        last = get_model("last-value")
        naive = last.predictor(last.resolve(last.Config(), Facts(horizon, split.max_context, 0)))
        started = time.process_time()
        evaluate(naive, panel, split, out=Path(folder) / "out")
        engine = time.process_time() - started
    counts = {p: len(w) for p, w in parts.items()}
    found = {"step": (whole - short) / (steps - 8), "window": window, "engine": engine}
    print(json.dumps(found | counts))


if __name__ == "__main__":
    main()
