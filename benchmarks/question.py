"""The question a user asks, from CSVs to the verdict: how long, and where does it go?

    python benchmarks/question.py --data FOLDER [--names 440] [--bars 1260] [--out FOLDER]

440 daily names of five years are written as CSV files (the panel's own, repeated, each copy with
noise of its own), then the commands run as a user types them:

    foresweep sweep --model all --mode quick --horizon 5 --data CSVS
    foresweep verdict

Every half second the CPU seconds (user and system) of every process below are read, so that each
trial's training and scoring, the leak tests and the head have their own; wall time stands beside
it. On a machine that others use as well, CPU seconds over the number of cores are what a quiet one
would need at least.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import polars as pl
import psutil
from trial_cost import repeated

from foresweep.data.panel import Panel
from foresweep.data.reading.sources import load_panel
from foresweep.models.checkpoint import CARD
from foresweep.search.trial import CHECKPOINT
from foresweep.tracker.tracker import Tracker

EVERY_S = 0.5
TRAINING, SCORING = "training and steering", "tune and val"
HEAD = "head: reading, gate, records"


def write_csvs(panel: Panel, names: int, bars: int, folder: Path) -> None:
    """The last `bars` bars of each of `names` items, a CSV file each."""
    many = repeated(panel, names)
    folder.mkdir(parents=True, exist_ok=True)
    for item, name in enumerate(many.items):
        values, times = many.bars[item].values[-bars:], many.timestamps_of(item)[-bars:]
        columns = ("open", "high", "low", "close", "volume")
        frame = {"date": times.astype("datetime64[D]")}
        frame |= dict(zip(columns, values.T[: len(columns)], strict=True))
        pl.DataFrame(frame).write_csv(folder / f"{name}.csv")


def watched(command: list[str], cwd: Path) -> tuple[int, float, dict[tuple[str, str], float]]:
    """Exit code, wall seconds, and CPU seconds by (run or part, what it did)."""
    started = time.perf_counter()
    head = psutil.Popen(command, cwd=cwd)
    spent: dict[tuple[str, str], float] = defaultdict(float)
    last: dict[int, float] = {}
    while head.poll() is None:
        for process in (head, *head.children(recursive=True)):
            try:
                times = process.cpu_times()
                doing = (HEAD, "") if process == head else _doing(process.pid)
            except (psutil.Error, OSError):
                continue  # it ended between the listing and the look
            now = times.user + times.system
            spent[doing] += now - last.get(process.pid, 0.0)
            last[process.pid] = now
        time.sleep(EVERY_S)
    return head.returncode, time.perf_counter() - started, dict(spent)


def _doing(pid: int) -> tuple[str, str]:
    """Whose work a process does, by the log that it writes to: a run's stands in its folder."""
    log = Path(os.readlink(f"/proc/{pid}/fd/1"))
    if log.name != "training.log":
        return "other workers: checking configs", ""
    if log.parent.name.startswith(".leaktest"):
        return "leak tests", ""
    trained = (log.parent / CHECKPOINT / CARD).exists()
    return log.parent.name, SCORING if trained else TRAINING


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", default="demo")
    parser.add_argument("--names", type=int, default=440)
    parser.add_argument("--bars", type=int, default=1260)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--max-steps", type=int)
    asked = parser.parse_args()
    out = asked.out or Path(tempfile.mkdtemp())
    write_csvs(load_panel(asked.data).panel, asked.names, asked.bars, out / "csv")
    foresweep = str(Path(sys.executable).with_name("foresweep"))
    sweep = [foresweep, "sweep", "--model", "all", "--mode", "quick", "--horizon", "5"]
    sweep += ["--data", str(out / "csv")]
    sweep += ["--max-steps", str(asked.max_steps)] if asked.max_steps else []
    code, wall, spent = watched(sweep, out)
    if code:
        raise SystemExit(f"the sweep ended with {code}")
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = subprocess.run([foresweep, "verdict"], cwd=out).returncode
    if answer not in (0, 3, 4):
        raise SystemExit(f"the verdict ended with {answer}")
    judged, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    judging = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    with Tracker(out / "hyperparams" / "sweeps.db") as tracker:
        runs = {run.run_id: run for run in tracker.get_runs()}
    rows: dict[tuple[str, str], float] = defaultdict(float)
    for (who, what), seconds in spent.items():
        run = runs.get(who)
        name = who if run is None else "baselines" if run.is_baseline else f"{run.model_name}"
        where = "" if run is None or run.is_baseline else f"{run.source.partition(': ')[2]}: "
        rows[name, where + what] += seconds
    print("\n| part | CPU seconds | share |\n|---|---:|---:|")
    total = sum(spent.values()) + judging
    for (name, what), seconds in sorted(rows.items()):
        part = ", ".join(filter(None, (name, what)))
        print(f"| {part} | {seconds:.0f} | {100 * seconds / total:.0f} % |")
    print(f"| verdict | {judging:.0f} | {100 * judging / total:.0f} % |")
    print(f"| all | {total:.0f} | 100 % |")
    cores = os.cpu_count() or 1
    print(
        f"\n{(wall + judged) / 60:.1f} minutes by the clock; {total / 60:.1f} CPU minutes, over "
        f"{cores} cores {total / 60 / cores:.1f}; load {os.getloadavg()[0]:.1f} at the end."
    )


if __name__ == "__main__":
    main()
