"""What do steering windows cost in quality? The step they keep, beside the step all windows keep.

    python benchmarks/steering.py [--panel demo] [--horizon 1] [--model toto ...] [--seeds 2]
                                  [--steps 300] [--windows 1024] [--draws 20] [--stride N]

Each training is made once and scored on all of tune and val at its eight scorings. A window's loss
does not depend on its neighbours, so the score of any choice of windows follows from the losses of
all: for each of `--draws` choices the kept step is found, and its pinball on all of tune and on val
is held against that of the step that all windows keep.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import numpy as np

from foresweep.data.reading.sources import load_panel
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import TrainWindows, Windows
from foresweep.evaluation.backtest import forecast_part, make_scorer, naive_part, score_part
from foresweep.evaluation.steering import steering_windows
from foresweep.models.base import Facts, Predictor, Resources, Scored, TrainingJob, make_config
from foresweep.models.registry import FAMILIES, get_model


class Watch:
    """Training's scorer on all of tune, with val beside it."""

    def __init__(self, tune: Windows, val: Windows, seed: int) -> None:
        self.score = make_scorer(tune.panel, tune.split, seed=seed)
        self.tune, self.val, self.seed, self.naive = tune, val, seed, naive_part(val)
        self.losses: list[np.ndarray] = []  # a scoring: [N] pinball of every window of tune
        self.on_val: list[float] = []

    def __call__(self, predictor: Predictor) -> Scored:
        scored = self.score(predictor)
        self.losses.append(scored.losses["pinball"][self.tune.origin, self.tune.column])
        forecast = forecast_part(predictor, self.val, seed=self.seed)
        found = score_part(forecast, self.val, naive=self.naive)
        self.on_val.append(float(found.scores["val_pinball"]))
        return scored


def costs(name: str, panel: Any, split: Any, seed: int, asked: argparse.Namespace) -> np.ndarray:
    """[draws, 2] relative change of the kept step's pinball on all of tune and on val."""
    tune, val = (Windows(panel, split, split.part(part)) for part in ("tune", "val"))
    train = TrainWindows(panel, split, split.part("train"))
    bars = sum(len(train.values(i)) for i in range(panel.num_items))
    model, watch = get_model(name), Watch(tune, val, seed)
    values = {"size": "tiny", "max_steps": asked.steps}
    config = make_config(model.Config, values, model=name)
    config = model.resolve(config, Facts(split.horizon, split.max_context, bars))
    with tempfile.TemporaryDirectory() as folder:
        model.train(TrainingJob(
            train, config, Resources(threads=1), seed=seed, horizon=split.horizon, score=watch,
            out=Path(folder) / "checkpoint",
        ))  # fmt: skip
    losses, on_val = np.array(watch.losses), np.array(watch.on_val)
    whole = losses.mean(axis=1)
    best = int(np.argmin(whole))
    cells = {pair: n for n, pair in enumerate(zip(tune.origin, tune.column, strict=True))}
    found = []
    for draw in range(asked.draws):
        some = steering_windows(tune, asked.windows, draw)
        chosen = [cells[pair] for pair in zip(some.origin, some.column, strict=True)]
        kept = int(np.argmin(losses[:, chosen].mean(axis=1)))
        found.append((whole[kept] / whole[best] - 1, on_val[kept] / on_val[best] - 1))
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--panel", default="demo")
    parser.add_argument("--horizon", type=int, default=1)
    parser.add_argument("--model", action="append", choices=FAMILIES)
    parser.add_argument("--stride", type=int)
    for name, default in (("seeds", 2), ("steps", 300), ("windows", 1024), ("draws", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    panel = load_panel(asked.panel).panel
    split = make_split(panel, Cut(asked.horizon, asked.stride))
    tune = Windows(panel, split, split.part("tune"))
    some = steering_windows(tune, asked.windows, 0)
    print(f"{panel.num_items} items, horizon {split.horizon}: {len(some)} of {len(tune)} windows")
    print(
        "| model | trainings | another step kept | tune, mean | tune, worst | val, mean | CPU s |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in asked.model or FAMILIES:
        started = time.process_time()
        found = np.concatenate([costs(name, panel, split, s, asked) for s in range(asked.seeds)])
        other, (tune_, val_) = np.mean(found[:, 0] > 0), 100 * found.mean(axis=0)
        print(
            f"| {name} | {asked.seeds} | {100 * other:.0f} % | {tune_:+.3f} % "
            f"| {100 * found[:, 0].max():+.3f} % | {val_:+.3f} % "
            f"| {time.process_time() - started:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
