"""What a trial costs and where it goes: training, steering, scoring, records.

    python benchmarks/trial_cost.py [--panel demo] [--names 6 ...] [--horizon 5 ...]
                                    [--model toto ...] [--steps 300] [--timed 56]
                                    [--windows 1024] [--before PYTHON]

One trial a line, on one thread, in CPU seconds, with the family's default config at size tiny: the
steps; its eight scorings on the windows that steer; the scores of tune and val at the end; and all
that is put on record. To be bounded it times some steps, one scoring of the steering windows, as
many windows of tune, and reckons the trial of `--steps` steps and of all windows from them.

`--before` names a Python that has the code of commit 5b346c6 installed: the same trial by it, timed
in turns with ours, steered by all windows of tune, and with test scored, too. `--names N` repeats
the panel's items, each with noise of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import numpy as np
import polars as pl

from foresweep.data.panel import COLUMNS, Panel, panel_from_frame
from foresweep.data.reading.sources import load_panel
from foresweep.data.splits import Cut, Split, make_split
from foresweep.data.windows import TrainWindows, Windows
from foresweep.evaluation.backtest import (
    OPEN_PARTS,
    evaluate,
    forecast_part,
    last_value,
    make_scorer,
)
from foresweep.evaluation.steering import steering_windows, windows_wanted
from foresweep.models.base import Facts, Resources, TrainingJob, make_config
from foresweep.models.registry import FAMILIES, get_model
from foresweep.models.training.loop import EVALUATIONS
from foresweep.records import RunState
from foresweep.tracker.tracker import Tracker

NOISE = 0.005
"""Of the one-bar returns that make a copy of an item another item."""
FEWEST = EVALUATIONS
"""Steps of the training that is taken off the timed one: what comes before the first step and
after the last is counted once, and no step twice."""
HEADINGS = (
    "| model | names | H | training | steering | tune and val | records | trial | steering of "
    "training | ms a window | before | its training | ms a window | times cheaper |"
)


def repeated(panel: Panel, names: int) -> Panel:
    """The panel's items, over and over until there are `names`; copies drift apart."""
    return panel_from_frame(long_frame(panel, names), source=f"{panel.source}, {names} names")


def long_frame(panel: Panel, names: int) -> pl.DataFrame:
    """The bars of `repeated`, one a row."""
    rng, frames = np.random.default_rng(0), []
    for k in range(names):
        bars = panel.bars[k % panel.num_items]
        apart = np.exp(np.cumsum(NOISE * rng.standard_normal(len(bars.values))) * (k > 0))
        values = bars.values.copy()
        values[:, :4] *= apart[:, None]
        times = panel.timestamps_of(k % panel.num_items)
        named = {"item_id": [f"N{k:04d}"] * len(values), "timestamp": times}
        frames.append(pl.DataFrame(named | dict(zip(COLUMNS, values.T, strict=True))))
    return pl.concat(frames)


def trial(name: str, panel: Panel, split: Split, asked: argparse.Namespace) -> dict[str, float]:
    """CPU seconds of each part of one trial of `asked.steps` steps, and of a window."""
    train = TrainWindows(panel, split, split.part("train"))
    bars = sum(len(train.values(i)) for i in range(panel.num_items))
    model, resources = get_model(name), Resources(threads=1)
    facts = Facts(split.horizon, split.max_context, bars)
    values = {"size": "tiny", "max_steps": asked.steps}
    tune, val = (Windows(panel, split, split.part(part)) for part in OPEN_PARTS)
    some = steering_windows(tune, asked.windows, 1)
    score = make_scorer(panel, split, steer=windows_wanted(None, asked.steps))
    with tempfile.TemporaryDirectory() as folder:

        def spent(do: Any) -> tuple[Any, float]:
            started = time.process_time()
            made = do()
            return made, time.process_time() - started

        def trained(steps: int, turn: str = "timed") -> tuple[Any, float]:
            asked_for = {**values, "max_steps": steps}
            config = model.resolve(make_config(model.Config, asked_for, model=name), facts)
            out = Path(folder) / f"{turn}{steps}"
            job = TrainingJob(train, config, resources, horizon=split.horizon, out=out)
            return spent(lambda: model.train(job))

        trained(FEWEST, "warm-up")
        _, short = trained(FEWEST)
        made, whole = trained(asked.timed)
        step = (whole - short) / (asked.timed - FEWEST)
        predictor = model.load(made, resources)
        scored, once = spent(lambda: score(predictor))
        _, forecasts = spent(lambda: forecast_part(predictor, some))
        out = Path(folder) / "out"
        scores, engine = spent(
            lambda: evaluate(last_value(split), panel, split, parts=OPEN_PARTS, out=out)
        )
        reports = [(k + 1, scored.scores) for k in range(EVALUATIONS)]
        records = recorded(Path(folder) / "s.db", name, values, reports, scores)
    window = forecasts / len(some)
    return {
        "step": step,
        "window": window,
        "training": short + (asked.steps - FEWEST) * step,
        "steering": EVALUATIONS * once,
        "scoring": window * (len(tune) + len(val)) + engine,
        "records": records,
    }


def before(name: str, bars: Path, horizon: int, asked: argparse.Namespace) -> dict[str, float]:
    """The same trial by the code before, in CPU seconds; it was steered by all windows of tune."""
    script = Path(__file__).with_name("trial_before.py")
    command = [asked.before, str(script), str(bars), name, str(horizon)]
    command += [str(asked.timed), str(asked.windows)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(answer.splitlines()[-1])
    windows = (EVALUATIONS + 1) * found["tune"] + found["val"] + found["test"]
    every = found["tune"] + found["val"] + found["test"]
    engine = found["engine"] * windows / every
    found["training"] = asked.steps * found["step"]
    found["trial"] = found["training"] + windows * found["window"] + engine
    return found


def recorded(db: Path, name: str, config: Any, reports: Any, scores: dict[str, float]) -> float:
    """CPU seconds that it takes to put all of it on record."""
    with Tracker(db) as tracker:
        started = time.process_time()
        run = tracker.start_run(model=name, hyperparams=config)
        for step, said in reports:
            tracker.log(run.run_id, step, said)
        tracker.finish_run(run.run_id, RunState.COMPLETE, scores=scores)
        return time.process_time() - started


def line(
    name: str, panel: Panel, bars: Path, horizon: int, turn: int, asked: argparse.Namespace
) -> str:
    """One line; `turn` says which side is timed first."""
    split = make_split(panel, Cut(horizon))
    then = before(name, bars, horizon, asked) if asked.before and turn % 2 else None
    now = trial(name, panel, split, asked)
    if asked.before and then is None:
        then = before(name, bars, horizon, asked)
    whole = sum(now[part] for part in ("training", "steering", "scoring", "records"))
    cells = f"| {name} | {panel.num_items} | {horizon} "
    for part in ("training", "steering", "scoring", "records"):
        cells += f"| {now[part]:.1f} s, {100 * now[part] / whole:.0f} % "
    cells += f"| {whole:.0f} s | {100 * now['steering'] / now['training']:.0f} % "
    cells += f"| {1000 * now['window']:.2f} "
    if then is None:
        return cells + "| | | | |"
    return cells + (
        f"| {then['trial']:.0f} s | {then['training']:.0f} s | {1000 * then['window']:.2f} "
        f"| {then['trial'] / whole:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--panel", default="demo")
    parser.add_argument("--names", type=int, action="append")
    parser.add_argument("--horizon", type=int, action="append")
    parser.add_argument("--model", action="append", choices=FAMILIES)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--timed", type=int, default=56)
    parser.add_argument("--windows", type=int, default=1024)
    parser.add_argument("--before", metavar="PYTHON")
    asked = parser.parse_args()
    panel = load_panel(asked.panel).panel
    print(HEADINGS, "|---|" + "---:|" * 13, sep="\n")
    turn = 0
    for names in asked.names or [panel.num_items]:
        frame = long_frame(panel, names)
        copies = panel_from_frame(frame, source=f"{panel.source}, {names} names")
        with tempfile.TemporaryDirectory() as folder:
            bars = Path(folder) / "bars.parquet"
            frame.write_parquet(bars)
            for horizon in asked.horizon or [5]:
                for name in asked.model or FAMILIES:
                    print(line(name, copies, bars, horizon, turn, asked), flush=True)
                    turn += 1
                split = make_split(copies, Cut(horizon))
                tune = Windows(copies, split, split.part("tune"))
                some = steering_windows(tune, windows_wanted(None, asked.steps), 0)
                print(f"<!-- {len(some)} of {len(tune)} windows steer -->", flush=True)


if __name__ == "__main__":
    main()
