"""What people use instead, on exactly our windows: pinball and pct_mae, and who provably leads.

    python benchmarks/autogluon.py --python PYTHON [--data demo ...] [--horizon 1,5] [--origins 24]
                                   [--max-steps 300] [--seconds 600] [--side ...] [--out FOLDER]

PYTHON is the interpreter of an environment of its own with AutoGluon-TimeSeries:

    python3 -m venv ag && ag/bin/pip install torch==2.13.0 autogluon.timeseries==1.6.3

It is given closes up to the end of tune (fitted on train, its own backtest on tune), and then, for
`--origins` origins of val evenly apart, each window's history: forecasts come back as a file and
are scored by the engine that scores our own. The local models of statsforecast are fitted anew on
each window. Ours: HAR, and of each family the `--mode quick` config with the lowest pinball on
tune, with an ensemble of the best and HAR in equal parts. CPU seconds are told of every line, a
trial's own tuning included. `verdict --losses` then judges all of them on val; test stays sealed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import numpy as np
import polars as pl

from foresweep.data.panel import CLOSE, Panel
from foresweep.data.reading.sources import load_panel
from foresweep.data.splits import Cut, Split, make_split
from foresweep.data.windows import TrainWindows, Windows
from foresweep.evaluation.backtest import (
    evaluate,
    forecast_part,
    last_value,
    make_scorer,
    naive_part,
    score_part,
)
from foresweep.evaluation.steering import windows_wanted
from foresweep.models.base import (
    DEFAULT_LEVELS,
    Facts,
    Forecast,
    Resources,
    TrainingJob,
    make_config,
)
from foresweep.models.registry import FAMILIES, get_model
from foresweep.search.propose.modes import propose
from foresweep.stats.significance import diebold_mariano, origin_means, overlap_lags

SIDES = ("autogluon", "AutoETS", "AutoARIMA", "Theta", "lightgbm")
NAMES = {
    "autogluon": "AutoGluon-TimeSeries",
    "AutoETS": "statsforecast AutoETS",
    "AutoARIMA": "statsforecast AutoARIMA",
    "Theta": "statsforecast Theta",
    "lightgbm": "LightGBM, mlforecast",
}


@dataclass(frozen=True)
class Entry:
    """A line: forecasts [N, H, Q] of the chosen val windows, and CPU seconds spent on them."""

    name: str
    forecast: Forecast
    cpu_s: float


def chosen(val: Windows, origins: int) -> Windows:
    """The windows of so many origins, evenly apart."""
    every = np.unique(val.origin)
    kept = every[np.linspace(0, len(every) - 1, min(origins, len(every))).round().astype(int)]
    return replace(val, only=np.flatnonzero(np.isin(val.origin, kept)))


def handed_over(windows: Windows, file: Path) -> None:
    """What the other side is given: see foreign_forecasts.py."""
    panel, split = windows.panel, windows.split
    closes = [bars.values[:, CLOSE] for bars in panel.bars]
    stop = split.part("tune").stop
    known = [np.searchsorted(panel.timeline_of(i), stop) for i in range(panel.num_items)]
    np.savez(
        file,
        closes=np.concatenate(closes),
        first=np.cumsum([0, *map(len, closes)]),
        known=np.array(known),
        item=windows.item,
        row=windows.row,
        horizon=windows.horizon,
        levels=np.array(DEFAULT_LEVELS),
    )


def foreign(side: str, windows: Windows, asked: argparse.Namespace) -> Entry:
    """The other environment's forecasts of these windows. Raises CalledProcessError."""
    script = Path(__file__).with_name("foreign_forecasts.py")
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "windows.npz", Path(folder) / "forecasts.npz"
        handed_over(windows, given)
        command = [asked.python, "-P", str(script), str(given), str(made), side]
        subprocess.run([*command, str(asked.seconds)], check=True, cwd=folder)
        found = np.load(made)
        return Entry(NAMES[side], Forecast(found["values"], DEFAULT_LEVELS), float(found["cpu_s"]))


def baseline(name: str, panel: Panel, split: Split, windows: Windows) -> Entry:
    """A baseline of ours, as a sweep resolves it."""
    started = time.process_time()
    if name == "last-value":
        predictor = last_value(split)
    else:
        predictor = trained(name, {}, panel, split, None)[0]
    made = forecast_part(predictor, windows)
    return Entry(name, made, time.process_time() - started)


def trained(
    name: str, values: Any, panel: Panel, split: Split, cap: int | None
) -> tuple[Any, float]:
    """The predictor of a config, and its pinball on all of tune."""
    train = TrainWindows(panel, split, split.part("train"))
    bars = sum(len(train.values(i)) for i in range(panel.num_items))
    model, resources = get_model(name), Resources(threads=1)
    config = make_config(model.Config, values, model=name)
    config = model.resolve(config, Facts(split.horizon, split.max_context, bars, step_cap=cap))
    steer = windows_wanted(None, getattr(config, "max_steps", None) or 1)
    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob(
            train, config, resources, horizon=split.horizon,
            score=make_scorer(panel, split, steer=steer), out=Path(folder) / "checkpoint",
        )  # fmt: skip
        predictor = model.load(model.train(job), resources)
        tuned = evaluate(predictor, panel, split, parts=("tune",))
    return predictor, tuned["tune_pinball"]


def our_best(
    name: str, panel: Panel, split: Split, windows: Windows, cap: int
) -> tuple[Entry, float]:
    """The family's quick config that is best on tune, of all of them, and its pinball there."""
    started, found = time.process_time(), []
    for proposal in propose((name,), "quick", base={"size": "tiny"}, seed=0, count=3):
        predictor, pinball = trained(name, proposal.config, panel, split, cap)
        note = proposal.source.partition(": ")[2]
        found.append((pinball, note, forecast_part(predictor, windows)))
    pinball, note, forecast = min(found, key=lambda one: one[0])
    entry = Entry(f"{name}, best of {len(found)} ({note})", forecast, time.process_time() - started)
    return entry, pinball


def judged(entries: list[Entry], windows: Windows, folder: Path) -> str:
    """The verdict's answer on their pinball."""
    rows = []
    naive = naive_part(windows)
    for entry in entries:
        losses = score_part(entry.forecast, windows, naive=naive).losses
        pinball = losses.losses["pinball"]
        for o, i in zip(*np.nonzero(np.isfinite(pinball)), strict=True):
            row = (entry.name, str(losses.origins[o])[:10], losses.items[i], "val")
            rows.append((*row, float(pinball[o, i]), float(losses.scale[o, i])))
    file = folder / "losses.csv"
    pl.DataFrame(
        rows, schema=["trial", "origin", "item", "part", "loss", "scale"], orient="row"
    ).write_csv(file)
    origins = np.unique(windows.origin)
    stride = int(np.min(np.diff(windows.part.origins[origins])))
    foresweep = str(Path(sys.executable).with_name("foresweep"))
    command = [foresweep, "verdict", "--losses", str(file), "--benchmark", "har"]
    command += ["--horizon", str(windows.horizon), "--stride", str(stride)]
    command += ["--pretrain-cutoff", "none"]
    said = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in said.stdout.splitlines() if line.strip()]
    return lines[0] if said.returncode in (0, 3, 4) and lines else said.stderr.strip()


def table(entries: list[Entry], windows: Windows) -> str:
    """Pinball, pct_mae, coverage; skill and one-sided p against HAR."""
    naive = naive_part(windows)
    scored = {e.name: score_part(e.forecast, windows, naive=naive) for e in entries}
    har = scored["har"]
    origins = np.unique(windows.origin)
    stride = int(np.min(np.diff(windows.part.origins[origins])))
    lags = overlap_lags(windows.horizon, stride)

    def means(name: str) -> Any:
        found = origin_means(scored[name].losses.scaled("pinball"))
        return found[np.isfinite(found)]

    lines = [
        "| | pinball | pct_mae | 80 % band | skill over HAR | p | CPU s |",
        "|---|" + "---:|" * 6,
    ]
    for entry in sorted(entries, key=lambda e: scored[e.name].scores["val_pinball"]):
        own = scored[entry.name].scores
        skill = 100 * (1 - own["val_pinball"] / har.scores["val_pinball"])
        p = "-"
        if entry.name != "har":
            p = f"{diebold_mariano(means(entry.name), means('har'), lags=lags).pvalue:.3f}"
        lines.append(
            f"| {entry.name} | {own['val_pinball']:.4f} | {own['val_pct_mae']:.4f} "
            f"| {own['val_coverage_80']:.2f} | {skill:+.2f} % | {p} | {entry.cpu_s:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--python", required=True, help="of the environment with AutoGluon")
    parser.add_argument("--data", action="append", help="demo (default) or a folder; repeatable")
    parser.add_argument("--horizon", default="1,5")
    parser.add_argument("--origins", type=int, default=24)
    parser.add_argument("--max-steps", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=600, help="AutoGluon's time limit")
    parser.add_argument("--side", action="append", choices=SIDES)
    parser.add_argument("--model", action="append", choices=FAMILIES)
    asked = parser.parse_args()
    for data in asked.data or ["demo"]:
        panel = load_panel(data).panel
        for horizon in map(int, asked.horizon.split(",")):
            split = make_split(panel, Cut(horizon))
            windows = chosen(Windows(panel, split, split.part("val")), asked.origins)
            entries = [baseline(name, panel, split, windows) for name in ("last-value", "har")]
            best = []
            for name in asked.model or FAMILIES:
                entry, pinball = our_best(name, panel, split, windows, asked.max_steps)
                entries.append(entry)
                best.append((pinball, entry))
            first = min(best, key=lambda one: one[0])[1]
            half = (first.forecast.values + entries[1].forecast.values) / 2
            name = f"half {first.name.partition(',')[0]}, half HAR"
            spent = first.cpu_s + entries[1].cpu_s
            entries.append(Entry(name, Forecast(half, DEFAULT_LEVELS), spent))
            for side in asked.side or SIDES:
                try:
                    entries.append(foreign(side, windows, asked))
                except subprocess.CalledProcessError as error:
                    print(f"{NAMES[side]} made no forecast: {error}", flush=True)
            print(f"\n### {Path(data).name}, H = {horizon}, {len(np.unique(windows.origin))} of "
                  f"{len(windows.part.origins)} val origins, {len(windows)} windows\n")  # fmt: skip
            print(table(entries, windows))
            with tempfile.TemporaryDirectory() as folder:
                print(f"\n`verdict --losses`: {judged(entries, windows, Path(folder))}", flush=True)


if __name__ == "__main__":
    main()
