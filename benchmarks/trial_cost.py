"""What a trial costs and where it goes: training, steering, scoring, records.

    python benchmarks/trial_cost.py [--panel demo] [--names 6] [--horizon 5 ...] [--model toto ...]
                                    [--steps 300] [--measure-before]

One trial a line, on one thread, with the family's default config at size tiny: the steps; its
scorings on the windows that steer; the scores of tune and val at the end; and all that is put on
record. Beside it what the same trial cost before: steered by all windows of tune, and with test
scored, too, reckoned from the seconds a window takes here (`--measure-before` measures it).
`--names N` repeats the panel's items, each with noise of its own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from foresweep.data.panel import COLUMNS, Panel, panel_from_frame
from foresweep.data.reading.sources import load_panel
from foresweep.data.splits import Cut, Split, make_split
from foresweep.data.windows import TrainWindows, Windows
from foresweep.evaluation.backtest import OPEN_PARTS, SCORED_PARTS, evaluate, make_scorer
from foresweep.evaluation.steering import steering_windows, windows_wanted
from foresweep.models.base import Facts, Predictor, Resources, Scored, TrainingJob, make_config
from foresweep.models.registry import FAMILIES, get_model
from foresweep.models.training.loop import EVALUATIONS
from foresweep.records import RunState
from foresweep.tracker.tracker import Tracker

NOISE = 0.005
"""Of the one-bar returns that make a copy of an item another item."""
HEADINGS = (
    "| model | names | H | training | steering | tune and val | records | trial | steering of "
    "training | before | times faster |"
)


def repeated(panel: Panel, names: int) -> Panel:
    """The panel's items, over and over until there are `names`; copies drift apart."""
    rng, frames = np.random.default_rng(0), []
    for k in range(names):
        bars = panel.bars[k % panel.num_items]
        apart = np.exp(np.cumsum(NOISE * rng.standard_normal(len(bars.values))) * (k > 0))
        values = bars.values.copy()
        values[:, :4] *= apart[:, None]
        times = panel.timestamps_of(k % panel.num_items)
        named = {"item_id": [f"N{k:04d}"] * len(values), "timestamp": times}
        frames.append(pl.DataFrame(named | dict(zip(COLUMNS, values.T, strict=True))))
    return panel_from_frame(pl.concat(frames), source=f"{panel.source}, {names} names")


class Watch:
    """The scorer and reporter of a training; knows how long it scored."""

    def __init__(self, panel: Panel, split: Split, steer: int | None) -> None:
        self.score = make_scorer(panel, split, steer=steer)
        self.seconds, self.reports = 0.0, []  # type: ignore[var-annotated]

    def __call__(self, predictor: Predictor) -> Scored:
        started = time.perf_counter()
        scored = self.score(predictor)
        self.seconds += time.perf_counter() - started
        return scored

    def report(self, step: int, scores: Any, losses: Any = None) -> None:
        self.reports.append((step, dict(scores)))


def trial(name: str, panel: Panel, split: Split, steps: int, *, before: bool) -> dict[str, float]:
    """Seconds of each part of one trial; `before`: as it was scored then."""
    train = TrainWindows(panel, split, split.part("train"))
    bars = sum(len(train.values(i)) for i in range(panel.num_items))
    model = get_model(name)
    values = {"size": "tiny", "max_steps": steps}
    config = make_config(model.Config, values, model=name)
    config = model.resolve(config, Facts(split.horizon, split.max_context, bars))
    resources = Resources(threads=1)
    watch = Watch(panel, split, None if before else windows_wanted(None, steps))
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        made = model.train(TrainingJob(
            train, config, resources, horizon=split.horizon, score=watch, report=watch.report,
            out=Path(folder) / "checkpoint",
        ))  # fmt: skip
        found["training"] = time.perf_counter() - started - watch.seconds
        found["steering"] = watch.seconds
        started = time.perf_counter()
        predictor = model.load(made, resources)
        parts = SCORED_PARTS if before else OPEN_PARTS
        scores = evaluate(predictor, panel, split, parts=parts, out=Path(folder) / "out")
        found["scoring"] = time.perf_counter() - started
        found["records"] = recorded(Path(folder) / "s.db", name, values, watch.reports, scores)
    return found


def recorded(db: Path, name: str, config: Any, reports: Any, scores: dict[str, float]) -> float:
    """Seconds that it takes to put all of it on record."""
    with Tracker(db) as tracker:
        started = time.perf_counter()
        run = tracker.start_run(model=name, hyperparams=config)
        for step, said in reports:
            tracker.log(run.run_id, step, said)
        tracker.finish_run(run.run_id, RunState.COMPLETE, scores=scores)
        return time.perf_counter() - started


def line(name: str, panel: Panel, horizon: int, asked: argparse.Namespace) -> str:
    split = make_split(panel, Cut(horizon))
    now = trial(name, panel, split, asked.steps, before=False)
    whole = sum(now.values())
    tune, val, test = (len(Windows(panel, split, split.part(p))) for p in SCORED_PARTS)
    a_window = now["scoring"] / (tune + val)
    then = now["training"] + now["records"]
    then += a_window * (EVALUATIONS * tune + tune + val + test)
    if asked.measure_before:
        then = sum(trial(name, panel, split, asked.steps, before=True).values())
    return (
        f"| {name} | {panel.num_items} | {horizon} | {now['training']:.1f} s "
        f"| {now['steering']:.1f} s | {now['scoring']:.1f} s | {now['records']:.2f} s "
        f"| {whole:.1f} s | {100 * now['steering'] / now['training']:.0f} % "
        f"| {'' if asked.measure_before else 'about '}{then:.0f} s | {then / whole:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--panel", default="demo")
    parser.add_argument("--names", type=int, action="append")
    parser.add_argument("--horizon", type=int, action="append")
    parser.add_argument("--model", action="append", choices=FAMILIES)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--measure-before", action="store_true")
    asked = parser.parse_args()
    panel = load_panel(asked.panel).panel
    print(HEADINGS, "|---|" + "---:|" * 10, sep="\n")
    for names in asked.names or [panel.num_items]:
        copies = panel if names == panel.num_items else repeated(panel, names)
        for horizon in asked.horizon or [5]:
            split = make_split(copies, Cut(horizon))
            tune = Windows(copies, split, split.part("tune"))
            some = steering_windows(tune, windows_wanted(None, asked.steps), 0)
            for name in asked.model or FAMILIES:
                print(line(name, copies, horizon, asked), flush=True)
            print(f"<!-- {len(some)} of {len(tune)} windows steer -->", flush=True)


if __name__ == "__main__":
    main()
