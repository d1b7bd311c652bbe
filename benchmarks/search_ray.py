"""Does the replay of Ray Tune's scheduler decide as a run of Ray Tune does?

    python benchmarks/search_ray.py [--seeds 0-4] [--trials 40]

A real `Tuner` with ASHAScheduler, one trial at a time, whose trainable reads recorded curves in
place of training; the configs are those that the replay drew. Compared is where each trial ended.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from search_curves import Curves, load
from search_efficiency import CURVES
from search_peers import Asha
from search_replay import Ledger, OutOfSteps

os.environ |= {"RAY_TUNE_DISABLE_STRICT_METRIC_CHECKING": "0", "RAY_AIR_NEW_OUTPUT": "0"}


@dataclass(slots=True)
class Noted(Ledger):
    """A ledger that also notes each config and how many scorings it was given."""

    given: dict[int, int] = field(default_factory=dict)
    most: int = 40

    def train(self, index: int, stop: Any) -> bool:
        if len(self.given) == self.most:
            raise OutOfSteps
        before = self.spent
        done = Ledger.train(self, index, stop)
        self.given[index] = (self.spent - before) * len(self.curves.steps) // self.curves.steps[-1]
        return done


def replayed(curves: Curves, seed: int, trials: int) -> dict[int, int]:
    """Scorings by config, in the order of the draws."""
    ledger = Noted(curves, budget=10**9, most=trials)
    try:
        Asha()(ledger, seed)
    except OutOfSteps:
        return ledger.given
    raise AssertionError("the search goes on until it is stopped")


def run(curves: Curves, indices: list[int], folder: Path) -> dict[int, int]:
    """The same by Ray Tune itself."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    def trainable(config: dict[str, Any]) -> None:
        for value in config["recorded"]["tune"]:
            tune.report({"pinball": value})

    scheduler = ASHAScheduler(max_t=len(curves.steps))
    asked = [{"index": i, "tune": curves.tune[i].tolist()} for i in indices]
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"recorded": tune.grid_search(asked)},
        tune_config=tune.TuneConfig(
            metric="pinball", mode="min", scheduler=scheduler, max_concurrent_trials=1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )  # fmt: skip
    results = tuner.fit()
    return {
        r.config["recorded"]["index"]: int(r.metrics["training_iteration"])
        for r in results
        if r.config and r.metrics
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--seeds", default="0-4")
    parser.add_argument("--trials", type=int, default=40)
    args = parser.parse_args()
    import ray

    curves = load(args.curves)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    first, last = (int(n) for n in args.seeds.split("-"))
    for seed in range(first, last + 1):
        expected = replayed(curves, seed, args.trials)
        with tempfile.TemporaryDirectory() as folder:
            found = run(curves, list(expected), Path(folder))
        equal = np.mean([found[i] == n for i, n in expected.items()])
        print(f"seed {seed}: {len(expected)} trials, {equal:.0%} end where the replay ends them")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
