"""Do two workers do nearly twice the runs of one, on two cores?

The same sweep (random configs of tiny Chronos-2 on the demo panel, another seed each round) with
one worker and with two, in turns; from the first trial's start to the last one's end. What every
sweep does once before (data, leak tests, baselines) is left out.

    python benchmarks/workers.py [--trials 8] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from foresweep.data.splits import Cut
from foresweep.records import Run
from foresweep.search.plan import SweepPlan
from foresweep.search.sweep import Workers, sweep
from foresweep.tracker.tracker import Tracker

PLAN = SweepPlan(
    models=("chronos2",),
    mode="random",
    objective="pinball",
    cut=Cut(stride=10, max_context=128),
    max_steps=120,
)


def runs_per_hour(workers: int, trials: int, seed: int) -> float:
    """Of one sweep, in a place of its own."""
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder) / "sweeps.db"
        plan = replace(PLAN, max_runs=trials, cut=replace(PLAN.cut, seed=seed))
        sweep(plan, db=db, runs=Path(folder) / "runs", workers=Workers(count=workers))
        with Tracker(db) as tracker:
            runs = tracker.get_runs("chronos2")
        assert [r.state for r in runs] == ["complete"] * trials
        return 3600 * trials / seconds(runs)


def seconds(runs: list[Run]) -> float:
    """From the first start to the last end."""
    begun = min(r.started_at for r in runs if r.started_at)
    return (max(r.finished_at for r in runs if r.finished_at) - begun).total_seconds()


def measure(trials: int, rounds: int) -> None:
    ratios = []
    for seed in range(rounds):
        order = (1, 2) if seed % 2 == 0 else (2, 1)
        found = {workers: runs_per_hour(workers, trials, seed) for workers in order}
        ratios.append(found[2] / found[1])
        print(
            f"round {seed + 1}: 1 worker {found[1]:,.0f} runs an hour, 2 workers {found[2]:,.0f}: "
            f"{ratios[-1]:.2f}x (load {os.getloadavg()[0]:.1f})",
            flush=True,
        )
    print(f"median {statistics.median(ratios):.2f}x, lowest {min(ratios):.2f}x")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    measure(asked.trials, asked.rounds)
