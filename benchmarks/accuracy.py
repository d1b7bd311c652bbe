"""Models beside hard baselines on real prices: mean pinball, raw and with equal post-processing.

    python benchmarks/accuracy.py --data demo --horizon 1,5 --seeds 3 --out FOLDER

Small models trained from scratch, and Fracast (weights trained elsewhere, where its plug-in is
installed) as it is and tuned, against last-value, drift, random walks and HAR. "Raw" is what a
model says; "calibrated" has its median moved to the last close and one factor a lead on its spread,
fitted on tune, and baselines get the same. Models are trained once a seed; their losses are
averaged over seeds before they are compared, so the p-value is of the method, not of a lucky seed.

Every finished cell is kept as JSON under --out: a run that was stopped goes on where it stood.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from foresweep.data.panel import Panel
from foresweep.data.reading.sources import load_panel
from foresweep.data.splits import Cut, PartName, Split, make_split
from foresweep.data.windows import TrainWindows, Windows
from foresweep.evaluation.backtest import calibrate, forecast_part, make_scorer, score_part
from foresweep.models.base import (
    Array,
    Facts,
    Forecast,
    Predictor,
    Resources,
    TrainingJob,
    hyperparameters,
    make_config,
)
from foresweep.models.calibration import Calibrated
from foresweep.models.checkpoint import read_checkpoint
from foresweep.models.registry import BASELINES, get_model, model_names
from foresweep.stats.significance import diebold_mariano, overlap_lags

STRIDE = 5
STEER_STRIDE = 20  # origins that choose the kept step: fewer, since they are scored eight times
PARTS: tuple[PartName, ...] = ("tune", "val", "test")
FORMS = ("raw", "calibrated")


@dataclass(frozen=True)
class Entry:
    """One line of the table."""

    name: str
    model: str
    config: Mapping[str, Any]

    @property
    def draws(self) -> bool:
        """Does another seed give another result?"""
        return self.model not in BASELINES and self.config.get("finetune") != "none"


BASELINE_ENTRIES = (
    Entry("last-value", "last-value", {}),
    Entry("drift", "drift", {}),
    Entry("random walk, EWMA", "random-walk", {}),
    Entry("random walk, Garman-Klass", "random-walk", {"volatility": "garman-klass"}),
    Entry("HAR", "har", {}),
)
TRAINED = (
    Entry(
        "Toto, scratch",
        "toto",
        {"context_length": 128, "batch_size": 8, "lr": 2e-3, "max_steps": 200, "sign_flip": True},
    ),
    Entry(
        "Chronos-2, scratch",
        "chronos2",
        {"context_length": 128, "batch_size": 16, "lr": 1e-3, "max_steps": 200},
    ),
    Entry(
        "Kronos, scratch",
        "kronos",
        {"context_length": 96, "batch_size": 16, "lr": 2e-3, "max_steps": 300, "d_model": 32}
        | {"ff_dim": 64, "token_bits": 5, "tokenizer_d_model": 32, "num_samples": 32},
    ),
)
WEIGHTS = {"pretrained": "published", "size": None}
PLUGGED = (
    Entry(
        "Fracast, zero-shot",
        "fracast",  # over 2048 positions, as it was trained, a forecast takes four times as long
        {**WEIGHTS, "finetune": "none", "context_length": 512, "window": 512},
    ),
    Entry(
        "Fracast, tuned",
        "fracast",
        {**WEIGHTS, "context_length": 128, "window": 128, "batch_size": 16, "lr": 3e-4}
        | {"max_steps": 200},
    ),
)


def entries() -> tuple[Entry, ...]:
    """Every line that this installation can make."""
    return (*BASELINE_ENTRIES, *TRAINED, *(e for e in PLUGGED if e.model in model_names()))


@dataclass(frozen=True)
class Cell:
    """One entry with one seed on one panel and horizon."""

    data: str
    horizon: int
    entry: Entry
    seed: int

    def file(self, folder: Path) -> Path:
        name = f"{Path(self.data).name}-h{self.horizon}-{self.entry.name}-s{self.seed}"
        return folder / f"{name.replace(', ', '_').replace(' ', '_')}.json"


def cells(data: str, horizons: list[int], seeds: int) -> Iterator[Cell]:
    """Seed by seed, so that what is there after a while is a whole table of fewer seeds."""
    for seed in range(seeds):
        for horizon in horizons:
            for entry in entries():
                if entry.draws or seed == 0:
                    yield Cell(data, horizon, entry, seed)


def run(cell: Cell, panel: Panel, folder: Path) -> dict[str, Any]:
    """Train, and score raw and calibrated: means, coverage, and losses by origin."""
    started = time.process_time()
    split = make_split(panel, Cut(cell.horizon, stride=STRIDE))
    model, out = get_model(cell.entry.model), folder / f".{os.getpid()}"
    config = make_config(model.Config, cell.entry.config, model=cell.entry.model)
    train = TrainWindows(panel, split, split.part("train"))
    bars = sum(len(train.values(i)) for i in range(panel.num_items))
    config = model.resolve(config, Facts(cell.horizon, split.max_context, bars))
    shutil.rmtree(out, ignore_errors=True)
    try:
        checkpoint = model.train(
            TrainingJob(
                train,
                config,
                Resources(inference_batch=128),
                seed=cell.seed,
                horizon=cell.horizon,
                score=make_scorer(panel, make_split(panel, Cut(cell.horizon, stride=STEER_STRIDE))),
                out=out / "checkpoint",
            )
        )
        predictor = model.load(read_checkpoint(checkpoint.path), Resources(inference_batch=128))
        trained = time.process_time() - started
        return scored(predictor, post_processing(cell.entry), panel, split, cell.seed) | {
            "train_cpu_s": trained,
            "cpu_s": time.process_time() - started,
        }
    finally:
        shutil.rmtree(out, ignore_errors=True)


def post_processing(entry: Entry) -> Any:
    """What everybody gets: medians at the last close, where they are not, and a fitted scale."""
    model = get_model(entry.model)
    fields = {h.name for h in hyperparameters(model.Config)}
    assert {"centre", "fit_scale"} <= fields, f"{entry.model} takes no calibration"

    @dataclass(frozen=True)
    class Post:
        centre: bool = True
        fit_scale: bool = True
        isotonic: bool = False

    return Post()


def scored(
    predictor: Predictor, post: Any, panel: Panel, split: Split, seed: int
) -> dict[str, Any]:
    """Scores and losses of each form and part; no part is forecast twice."""
    tuned = calibrate(predictor, post, panel, split, seed=seed)
    found: dict[str, Any] = {form: {} for form in FORMS}
    for name in PARTS:
        windows = Windows(panel, split, split.part(name))
        raw = forecast_part(predictor, windows, seed=seed)
        made = {"raw": raw, "calibrated": tuned.forecast}
        if name != "tune":
            again = Calibrated(_Given(raw), tuned.calibration)
            context = windows.context(1)
            made["calibrated"] = again.predict(
                context, horizon=windows.horizon, levels=raw.levels, seed=seed
            )
        for form, forecast in made.items():
            part = score_part(forecast, windows)
            panel_losses = part.losses
            found[form][name] = {
                "pinball": part.scores[f"{name}_pinball"],
                "pct_mae": part.scores[f"{name}_pct_mae"],
                "coverage_80": part.scores[f"{name}_coverage_80"],
                "losses": _plain(np.nanmean(panel_losses.losses["pinball"], axis=1)),
                "scaled": _plain(np.nanmean(panel_losses.scaled("pinball"), axis=1)),
            }
    return found | {"scale": list(tuned.calibration.scale or ())}


@dataclass(frozen=True)
class _Given:
    """A predictor that has said it already."""

    forecast: Forecast
    context_length: int = 1

    def predict(self, *_: Any, **__: Any) -> Forecast:
        return self.forecast


def _plain(values: Array) -> list[float]:
    return [float(x) for x in values]


def report(data: str, horizon: int, seeds: int, folder: Path) -> str:
    """The table of one panel and horizon, from the cells that are there."""
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in entries():
        several = range(seeds if entry.draws else 1)
        files = [Cell(data, horizon, entry, s).file(folder) for s in several]
        found[entry.name] = [json.loads(f.read_text()) for f in files if f.is_file()]
    names = [e.name for e in BASELINE_ENTRIES if found[e.name]]
    if not names:
        return f"### {Path(data).name}, H = {horizon}: nothing yet\n"
    best, form = min(
        ((n, f) for n in names for f in FORMS),
        key=lambda x: found[x[0]][0][x[1]]["tune"]["pinball"],
    )
    benchmark = found[best][0][form]
    origins = len(benchmark["val"]["losses"])
    lines = [
        f"### {Path(data).name}, H = {horizon}, {origins} val origins",
        "",
        f"Benchmark, best baseline on tune: **{best}, {form}** "
        f"(val {benchmark['val']['pinball']:.4f}, test {benchmark['test']['pinball']:.4f}).",
        "",
        "| | seeds | raw val | raw test | calibrated val | calibrated test "
        "| skill val | skill test | p val | p test | coverage | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [line(n, runs, benchmark, horizon) for n, runs in found.items() if runs]
    return "\n".join(lines) + "\n"


def line(name: str, runs: list[dict[str, Any]], benchmark: Mapping[str, Any], horizon: int) -> str:
    """One entry: pinball with its spread over seeds; skill, p and coverage of the calibrated."""
    cells = [name, str(len(runs))]
    for form in FORMS:
        for part in ("val", "test"):
            values = [r[form][part]["pinball"] for r in runs]
            spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.4f}{spread}")
    for part in ("val", "test"):
        mean = float(np.mean([r["calibrated"][part]["pinball"] for r in runs]))
        cells.append(f"{100 * (1 - mean / benchmark[part]['pinball']):+.2f} %")
    for part in ("val", "test"):
        ours = np.mean([r["calibrated"][part]["scaled"] for r in runs], axis=0)
        theirs = np.array(benchmark[part]["scaled"])
        same = np.array_equal(ours, theirs)
        p = diebold_mariano(ours, theirs, lags=overlap_lags(horizon, STRIDE)).pvalue
        cells.append("-" if same else f"{p:.3f}")
    cells.append(f"{np.mean([r['calibrated']['test']['coverage_80'] for r in runs]):.2f}")
    cells.append(f"{np.mean([r['cpu_s'] for r in runs]):.0f}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", action="append", help="demo (default) or a folder; repeatable")
    parser.add_argument("--horizon", default="1,5")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(".foresweep/accuracy"))
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    horizons = [int(h) for h in asked.horizon.split(",")]
    panels: dict[str, Panel] = {}
    todo = {d: list(cells(d, horizons, asked.seeds)) for d in asked.data or ["demo"]}
    every = sorted((c for some in todo.values() for c in some), key=lambda c: c.seed)
    for cell in [] if asked.table else every:
        file = cell.file(asked.out)
        if file.is_file():
            continue
        if cell.data not in panels:
            panels[cell.data] = load_panel(cell.data).panel
        result = run(cell, panels[cell.data], asked.out)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(result))
        part.rename(file)
        print(f"{file.stem}: {result['cpu_s']:.1f} CPU s", flush=True)
    for data in todo:
        for horizon in horizons:
            print(report(data, horizon, asked.seeds, asked.out))


if __name__ == "__main__":
    main()
