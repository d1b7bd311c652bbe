"""What other processes do to a database, for tests of many writers."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from foresweep.errors import DatabaseUnusable
from foresweep.tracker.tracker import Tracker
from worker_server import context


def crowd(task: Any, num_processes: int, *arguments: Any) -> list[Any]:
    """Started processes that each run `task`; they come from a server that has the tracker
    imported, so that starting many is cheap."""
    found = [
        context().Process(target=task, args=arguments, daemon=True) for _ in range(num_processes)
    ]
    for process in found:
        process.start()
    return found


def barrier(num_processes: int) -> Barrier:
    return context().Barrier(num_processes)


def ended(processes: Sequence[Any]) -> list[int | None]:
    """Their exit codes, when all have left."""
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


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
            trial = tracker.heads.add_trial(
                sweep_id, model="toto", config={}, config_hash="c", train_hash="t", source="s"
            )
            run = tracker.start_run(
                model="toto", hyperparams={}, sweep_id=sweep_id, trial_number=trial.number
            )
            for step in range(5):
                tracker.log(run.run_id, step, {"loss": float(step)})
            tracker.finish_run(run.run_id, "complete", scores={"val_pct_mae": 1.0})


def write_until_killed(place: str, acknowledged: Path) -> None:
    """Runs of 20 steps, one after the other; every answer of the tracker is noted outside."""
    notes = os.open(acknowledged / str(os.getpid()), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    with Tracker(place) as tracker:
        while True:
            run = tracker.start_run(model="toto", hyperparams={"pid": os.getpid()})
            os.write(notes, f"{run.run_id} started\n".encode())
            for step in range(20):
                tracker.log(run.run_id, step, {f"m{n}": step + n / 10 for n in range(5)})
                os.write(notes, f"{run.run_id} {step}\n".encode())
            tracker.finish_run(run.run_id, "complete", scores={"val_pct_mae": 1.0})
            os.write(notes, f"{run.run_id} finished\n".encode())


def write_until_full(place: str, most_bytes: int) -> None:
    """Log steps on a disk that ends at `most_bytes`; say how many were acknowledged."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Tracker(place) as tracker:
        run = tracker.start_run(model="toto", hyperparams={})
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
        step = 0
        try:
            while True:
                tracker.log(run.run_id, step, {f"m{n}": 1.0 for n in range(50)})
                step += 1
        except DatabaseUnusable as error:
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
            tracker.finish_run(run.run_id, "failed", error=f"{step} steps; {error}")


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
