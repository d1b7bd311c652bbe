"""Does mixing tiny models with baselines beat every one of them? Mean pinball on real prices.

    python benchmarks/ensembles.py --data FOLDER --horizon 1,5 --out FOLDER

A sweep trains four tiny Totos from scratch (medians at the last close, one factor a lead on the
spread, fitted on tune) beside every baseline, raw and calibrated; `ensemble` then mixes them by
several recipes, weights fitted on tune. Each ensemble stands beside its parts and beside every
baseline, on val and on test, with the one-sided Diebold-Mariano p on scaled losses that it is the
better one. Several recipes are looked at, so a single p-value below .05 proves nothing by itself.

Runs are kept in a database under --out: a benchmark that was stopped goes on where it stood.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from foresweep.data.splits import Cut
from foresweep.errors import ModelError
from foresweep.evaluation.backtest import LOSSES, compare
from foresweep.evaluation.losses import LossPanel, load_losses
from foresweep.evaluation.yardstick import baseline_name
from foresweep.records import Run
from foresweep.search.plan import SweepPlan
from foresweep.search.propose.modes import Proposal
from foresweep.search.sweep import sweep
from foresweep.selection.ensembling import Recipe, make_ensemble
from foresweep.tracker.tracker import Tracker

STRIDES = {1: 2, 5: 5}
"""Bars between origins by horizon: daily ones at H = 1 cost twice the time here."""
METRIC, PARTS = "pinball", ("val", "test")
SHARED = {"size": "tiny", "context_length": 128, "batch_size": 16, "lr": 2e-3, "max_steps": 300}
CALIBRATED = {"centre": True, "fit_scale": True}
TOTOS: Mapping[str, Mapping[str, Any]] = {
    "bars": {"sign_flip": True},
    "over volatility": {"sign_flip": True, "scaling": "volatility"},
    "closes": {"covariates": "none"},
    "closes, long": {"covariates": "none", "lr": 1e-3, "max_steps": 1000, "nll_weight": 1.0},
}
RECIPES: Mapping[str, Recipe] = {
    "half the best Toto, half the best baseline": Recipe(top_k=1, method="mean"),
    "mean of the three best Totos and the best baseline": Recipe(top_k=3, method="mean"),
    "median of the three best Totos and the best baseline": Recipe(top_k=3, method="median"),
    "greedy, Totos and baselines": Recipe(top_k=3, method="greedy"),
    "greedy, Totos alone": Recipe(top_k=3, method="greedy", baselines=False),
    "greedy, baselines alone": Recipe(models=("kronos",), method="greedy"),
}


@dataclass(frozen=True)
class Line:
    """One forecast with a name."""

    name: str
    run: Run

    def losses(self, part: str) -> LossPanel:
        return load_losses(Path(str(self.run.forecasts_path)) / part / LOSSES)

    def mean(self, part: str) -> float:
        return float(np.nanmean(self.losses(part).losses[METRIC]))


def trained(data: str, horizon: int, out: Path) -> None:
    """The sweep of a horizon; what is on record is not trained again."""
    proposals = tuple(
        Proposal("toto", {**SHARED, **CALIBRATED, **more}, f"by hand: {name}")
        for name, more in TOTOS.items()
    )
    plan = SweepPlan(
        models=("toto",),
        mode="by hand",
        data=data,
        cut=Cut(horizon=horizon, stride=STRIDES.get(horizon)),
        objective=METRIC,
        max_runs=len(proposals),
        proposals=proposals,
    )
    sweep(plan, db=out / "sweeps.db", runs=out / "runs")


def mixed(tracker: Tracker, sweep_id: str, out: Path) -> Iterator[tuple[Line, Mapping[str, float]]]:
    """Every recipe's ensemble with its weights; a recipe that finds no mix is passed over."""
    for name, recipe in RECIPES.items():
        try:
            made = make_ensemble(tracker, recipe, runs_dir=out / "runs", sweep_id=sweep_id)
        except ModelError as error:
            print(f"{name}: {error}")
            continue
        yield Line(name, made.run), {p.run.run_id: p.weight for p in made.parts}


def named(run: Run) -> str:
    name = run.source.partition(": ")[2]
    return baseline_name(run) if run.is_baseline else f"Toto ({name})"


def report(tracker: Tracker, horizon: int, out: Path) -> str:
    """The tables of one horizon. The sweep whose runs they are: the latest that trained them."""
    found = [s for s in tracker.list_sweeps() if s.horizon == horizon]
    cells = found[0].fingerprints["val"]
    runs = [r for r in tracker.get_runs(fingerprint=cells) if r.state == "complete"]
    singles = [Line(named(r), r) for r in runs if r.model_name != "ensemble"]
    lines = {line.run.run_id: line for line in singles}
    naive = [line for line in singles if line.run.is_baseline]
    best = min(naive, key=lambda line: line.run.metrics[f"tune_{METRIC}"])
    val = best.losses("val")
    text = [f"### H = {horizon}, {len(val.origins)} val origins {val.stride} bars apart", ""]
    text += [f"Benchmark, the best baseline on tune: **{best.name}**.", ""]
    text += ["| | tune | val | test | skill val | skill test | p val | p test |"]
    text += ["|---|---|---|---|---|---|---|---|"]
    text += [row(line, best) for line in sorted(singles, key=lambda one: one.mean("val"))]
    made = list(mixed(tracker, found[0].sweep_id, out))
    text += [row(line, best) for line, _ in made]
    for line, weights in made:
        parts = [lines[name] for name in weights]
        beside = [*parts, *(n for n in naive if n not in parts)]
        text += ["", f"{line.name} ({said(lines, weights)}) against", ""]
        text += against(line, beside, len(parts))
    return "\n".join(text) + "\n"


def said(lines: Mapping[str, Line], weights: Mapping[str, float]) -> str:
    return ", ".join(f"{w:.2f} {lines[name].name}" for name, w in weights.items())


def row(line: Line, best: Line) -> str:
    """One forecast beside the benchmark."""
    cells = [line.name, f"{line.run.metrics[f'tune_{METRIC}']:.4f}"]
    cells += [f"{line.mean(part):.4f}" for part in PARTS]
    cells += [f"{100 * (1 - line.mean(p) / best.mean(p)):+.2f} %" for p in PARTS]
    same = line.run.run_id == best.run.run_id
    cells += ["-" if same else better(line, best, p) for p in PARTS]
    return "| " + " | ".join(cells) + " |"


def against(line: Line, others: Sequence[Line], num_parts: int) -> list[str]:
    """One ensemble beside each of its parts, then beside the other baselines."""
    text = ["| | skill val | skill test | p val | p test |", "|---|---|---|---|---|"]
    for k, other in enumerate(others):
        cells = [f"{other.name}{' (part)' if k < num_parts else ''}"]
        cells += [f"{100 * (1 - line.mean(p) / other.mean(p)):+.2f} %" for p in PARTS]
        cells += [better(line, other, p) for p in PARTS]
        text.append("| " + " | ".join(cells) + " |")
    return text


def better(line: Line, other: Line, part: str) -> str:
    p = compare(line.losses(part), other.losses(part), metric=METRIC)
    return f"{p:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="a folder, or demo")
    parser.add_argument("--horizon", default="1,5")
    parser.add_argument("--out", type=Path, default=Path(".foresweep/ensembles"))
    parser.add_argument("--table", action="store_true", help="train nothing")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for horizon in (int(h) for h in asked.horizon.split(",")):
        if not asked.table:
            trained(asked.data, horizon, asked.out)
        with Tracker(asked.out / "sweeps.db") as tracker:
            print(report(tracker, horizon, asked.out), flush=True)


if __name__ == "__main__":
    main()
