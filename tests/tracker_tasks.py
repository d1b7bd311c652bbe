"""What other processes do to a database, for tests of many writers."""

from __future__ import annotations

import sys
from multiprocessing.synchronize import Barrier

from foresweep.tracker.tracker import Tracker


def open_and_log(place: str, together: Barrier, num_runs: int) -> None:
    """Wait for the others, open, log runs; any error ends the process with a failure."""
    together.wait(60)
    with Tracker(place) as tracker:
        for n in range(num_runs):
            tracker.log_run("toto", {"n": n}, {"val_pct_mae": float(n)})


def add_trials(place: str, together: Barrier, sweep_id: str, num_trials: int) -> None:
    """Wait for the others, add trials to one sweep, log steps of a run for each."""
    together.wait(60)
    with Tracker(place) as tracker:
        for _ in range(num_trials):
            trial = tracker.add_trial(
                sweep_id, model="toto", config={}, config_hash="c", train_hash="t", source="s"
            )
            run = tracker.start_run(
                model="toto", hyperparams={}, sweep_id=sweep_id, trial_number=trial.number
            )
            for step in range(5):
                tracker.log(run.run_id, step, {"loss": float(step)})
            tracker.finish_run(run.run_id, "complete", scores={"val_pct_mae": 1.0})


def start_and_wait(place: str, sweep_id: str) -> None:
    """Start a run, log acknowledged steps, say so, and wait to be killed."""
    tracker = Tracker(place)
    run = tracker.start_run(model="toto", hyperparams={}, sweep_id=sweep_id or None)
    for step in range(50):
        tracker.log(run.run_id, step, {"loss": float(step)})
    print(run.run_id, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    start_and_wait(*sys.argv[1:])
