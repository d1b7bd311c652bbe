"""A space narrowed around the best runs: what matters keeps their range, the rest is fixed.

A hyperparameter matters as far as the best runs differ in it from all (PED-ANOVA, Watanabe et al.
2023, by Optuna). The narrowed space is written as a sweep file, to be looked at and edited.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foresweep.errors import UsageError
from foresweep.metrics import METRICS
from foresweep.records import RunState
from foresweep.search.sampler import Told
from foresweep.search.tpe import TpeSampler, quiet
from foresweep.space import Choice, Dimension, Float, Int, SearchSpace

FEWEST_RUNS = 10
"""Complete runs of a model below which its best say nothing of a range."""
BEST_SHARE = 0.25
FEWEST_BEST = 4
QUANTILES = (0.1, 0.9)
"""Of the best runs' values: the narrowed range, widened to hold the best run of all."""


@dataclass(frozen=True, slots=True)
class Focus:
    """What became of a space."""

    model: str
    space: SearchSpace
    importance: Mapping[str, float]  # shares, adding to 1; of hyperparameters that all runs have
    num_runs: int
    best: Told

    def as_toml(self, objective: str) -> str:
        """A sweep file of the narrowed space."""
        lines = [
            f"# {self.model}: narrowed around the best of {self.num_runs} runs by tune_{objective}",
            f"# ({self.best.scores[objective]:.6g}). How far each hyperparameter told good runs",
            "# from others stands beside it; what mattered less than average is fixed.",
            f"model = {json.dumps(self.model)}",
        ]
        for name, dimension in self.space.dimensions.items():
            share = self.importance.get(name)
            said = f"  # {100 * share:.0f} %" if share is not None else ""
            lines += ["", f"[space.{name}]{said}", *_as_toml(dimension)]
            if name in self.space.when:
                inside = ", ".join(f"{k} = {_word(v)}" for k, v in self.space.when[name].items())
                lines.append(f"when = {{ {inside} }}")
        return "\n".join(lines) + "\n"


def focus(model: str, space: SearchSpace, told: Sequence[Told], objective: str) -> Focus:
    """Narrow a model's space around the best of the runs told. Raises UsageError for too few."""
    badness = METRICS[objective].badness
    scored = [t for t in told if t.state == RunState.COMPLETE and objective in t.scores]
    ranked = sorted(
        (t for t in scored if math.isfinite(t.scores[objective])),
        key=lambda t: badness(t.scores[objective]),
    )
    if len(ranked) < FEWEST_RUNS:
        raise UsageError(
            f"--mode focused: {model} has {len(ranked)} complete runs on these windows, and fewer "
            f"than {FEWEST_RUNS} say little; sweep it with --mode smart or random first"
        )
    best = ranked[: max(FEWEST_BEST, round(BEST_SHARE * len(ranked)))]
    importance = _importance(model, space, ranked, objective)
    average = 1 / max(1, len(importance))
    dimensions = {
        name: _narrowed(d, name, best)
        if importance.get(name, average) >= average
        else _fixed(d, best[0].config.get(name))
        for name, d in space.dimensions.items()
    }
    return Focus(model, SearchSpace(dimensions, space.when), importance, len(ranked), best[0])


def _importance(
    model: str, space: SearchSpace, told: Sequence[Told], objective: str
) -> dict[str, float]:
    """Shares of the hyperparameters that every run has, adding to 1."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    sampler = TpeSampler(model, space, objectives=(objective,), base={}, seed=0)
    for one in told:
        sampler.tell(one)
    with quiet():
        found = get_param_importances(sampler.study, evaluator=PedAnovaImportanceEvaluator())
    total = sum(found.values())
    return {k: v / total for k, v in found.items()} if total > 0 else {}


def _narrowed(dimension: Dimension, name: str, best: Sequence[Told]) -> Dimension:
    """The dimension as the best runs have it; as it is where they say nothing of it."""
    values = [t.config[name] for t in best if t.config.get(name) is not None]
    if not values:
        return dimension
    if isinstance(dimension, Choice):
        seen = tuple(v for v in dimension.values if v in values)
        return Choice(seen) if seen else dimension
    low, high = (float(x) for x in np.quantile(values, QUANTILES))
    first = best[0].config.get(name)
    low, high = (min(low, first), max(high, first)) if first is not None else (low, high)
    low, high = max(low, dimension.low), min(high, dimension.high)
    if isinstance(dimension, Float):
        return Float(low, high, dimension.log) if low < high else Choice((low,))
    step = dimension.step
    start = dimension.low + step * math.floor((low - dimension.low) / step)
    stop = dimension.low + step * math.ceil((high - dimension.low) / step)
    stop = min(stop, dimension.low + step * ((dimension.high - dimension.low) // step))
    return Int(start, stop, step, dimension.log) if start < stop else Choice((start,))


def _fixed(dimension: Dimension, value: Any) -> Dimension:
    """The dimension at the best run's value, if it has one that lies in it."""
    if value is None:
        return dimension
    if isinstance(dimension, Choice):
        return Choice((value,)) if value in dimension.values else dimension
    return Choice((value,)) if dimension.low <= value <= dimension.high else dimension


def _as_toml(dimension: Dimension) -> list[str]:
    if isinstance(dimension, Choice):
        return [f"choices = [{', '.join(_word(v) for v in dimension.values)}]"]
    lines = [f"low = {_word(dimension.low)}", f"high = {_word(dimension.high)}"]
    if isinstance(dimension, Int) and dimension.step > 1:
        lines.append(f"step = {dimension.step}")
    return lines + (["log = true"] if dimension.log else [])


def _word(value: Any) -> str:
    """A value of a hyperparameter in TOML."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_word(v) for v in value)}]"
    return json.dumps(value)
