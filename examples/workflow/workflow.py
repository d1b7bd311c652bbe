"""The whole circle on real prices, in about a minute, by the commands you would type.

    python examples/workflow/workflow.py [FOLDER]

Sweep, analyse, focus, select, deploy, monitor, alarm, sweep again. Only the days go faster: the
demo's prices are moved so that they end today; bars to come are held back and revealed one at a
time. The networks are tiny and trained for a few steps, so the verdict does not promote one.
Somebody puts the worst of them in service all the same, by force and on record, and the monitor
finds out.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from foresweep.data.demo import demo_panel
from foresweep.data.reading.sources import load_panel
from foresweep.lifecycle.inference import load_slot, record_forecasts
from foresweep.tracker.service import Service
from foresweep.tracker.tracker import Tracker

LIVE_BARS = 40
SMALL = "--stride 20 --max-context 64 --max-steps 4"
WATCH, ALARM = 5, 6


def run(command: str, *codes: int, cwd: Path) -> str:
    """A command as it would be typed; one of `codes` (or 0) is how it may end."""
    print(f"\n$ {command}", flush=True)
    words = shlex.split(command)
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=cwd, capture_output=True, text=True, check=False
    )
    print(done.stdout, end="", flush=True)
    if done.returncode not in (0, *codes):
        raise SystemExit(f"ended with {done.returncode}: {done.stderr}")
    return done.stdout


def prices_until_today() -> tuple[pl.DataFrame, np.ndarray]:
    """The demo's bars with their last LIVE_BARS in the days to come, and all of their times."""
    frame = demo_panel().to_frame()
    times = np.unique(frame["timestamp"].to_numpy())
    ends = times[-1 - LIVE_BARS].astype("datetime64[D]").astype(datetime)
    days = (datetime.now(UTC).date() - ends).days
    weeks = -(-days // 7)  # whole ones: weekdays stay weekdays, and no bar to come is past
    frame = frame.with_columns(pl.col("timestamp") + pl.duration(days=7 * weeks))
    return frame, np.unique(frame["timestamp"].to_numpy())


def main(folder: Path) -> None:
    frame, times = prices_until_today()
    prices = folder / "prices.parquet"
    now = len(times) - 1 - LIVE_BARS

    def reveal(last: np.datetime64) -> None:
        frame.filter(pl.col("timestamp") <= last).write_parquet(prices)

    reveal(times[now])
    question = "--data prices.parquet --horizon 1 --objective pinball --model chronos2"
    # sweep, analyse, focus
    run(f"foresweep sweep {question} --mode random --max-runs 10 {SMALL}", cwd=folder)
    run("foresweep best --top-k 3", cwd=folder)
    run("foresweep impact lr --model chronos2", cwd=folder)
    run(f"foresweep sweep {question} --mode focused --max-runs 1 {SMALL}", cwd=folder)
    # select: 3 and 4 are verdicts, not errors
    run("foresweep verdict", 3, 4, cwd=folder)
    run("foresweep best --export-path", cwd=folder)
    # deploy
    with Tracker(folder / "hyperparams" / "sweeps.db") as tracker:
        runs = [r for r in tracker.get_runs("chronos2") if r.state == "complete"]
        worst = max(runs, key=lambda r: r.score("val_pinball") or 0.0)
    run(f"foresweep promote {worst.run_id} --force --reason 'I like it'", cwd=folder)
    run("foresweep predict --data prices.parquet --record", cwd=folder)
    # the days go by: forecast, then the next bar
    with Tracker(folder / "hyperparams" / "sweeps.db") as tracker:
        (slot,) = Service(tracker.store).slots()
        serving = load_slot(slot)
        for bar in times[now:-1]:
            panel = load_panel(frame.filter(pl.col("timestamp") <= bar).to_pandas()).panel
            made = [(one, one.forecast(panel)) for one in serving]
            record_forecasts(tracker, made, source="workflow")
    reveal(times[-1])
    # monitor: a forecast of the newest bar is made first, as each evening
    run("foresweep predict --data prices.parquet --record", cwd=folder)
    said = run("foresweep monitor --data prices.parquet", WATCH, ALARM, cwd=folder)
    assert said.startswith("ALARM"), "a network of four steps does worse than the benchmark"
    # sweep again: the very line that the alarm printed, made small
    (line,) = [x.strip() for x in said.splitlines() if x.strip().startswith("foresweep sweep")]
    run(f"{line.replace('--max-runs 20', '--max-runs 1')} {SMALL}", cwd=folder)
    run("foresweep champion", cwd=folder)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        place = Path(sys.argv[1])
        place.mkdir(parents=True, exist_ok=True)
        main(place)
    else:
        with tempfile.TemporaryDirectory() as chosen:
            main(Path(chosen))
