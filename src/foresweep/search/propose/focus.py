"""A space narrowed around the best runs, by how much each hyperparameter mattered.

A hyperparameter matters as far as the best runs differ in it from all (PED-ANOVA, Watanabe et al.
2023, by Optuna). The narrowed space is written as a sweep file, to be looked at and edited.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foresweep.errors import NotEnoughData, UsageError
from foresweep.metrics import METRICS
from foresweep.records import Run, RunState, split_name
from foresweep.search.propose.tpe import Told, TpeSampler, quiet
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


# How much each hyperparameter mattered, over the runs of one model on one set of windows.
#
# PED-ANOVA (Watanabe, Bansal and Hutter 2023, as Optuna has it) compares where the best quarter of
# the runs lies with where all of them lie, one hyperparameter at a time. Shares always add to 1, so
# something looks important even where nothing is: each is held against the largest that comes when
# the scores are dealt out anew.


BEST_SHARE_OF_RUNS = 0.25
"""Runs that count as good. On 40 made-up runs of six hyperparameters, one of which mattered, a
quarter ranked it first in 39 of 40 cases, Optuna's default of a tenth in 23."""
ENOUGH = 40
FEWEST = 8
"""The best quarter is then two runs."""
SHUFFLES = 100

TOO_FEW = (
    f"Too few runs to say which mattered: {{num}}, and {ENOUGH} are needed. Of six hyperparameters "
    f"the one that matters came first in 39 of 40 cases with {ENOUGH} runs, in 23 with 20, in 14 "
    f"with 10; by chance in 7."
)


@dataclass(frozen=True, slots=True)
class Weight:
    """What one hyperparameter was worth."""

    hyperparam: str
    share: float  # of all importances, which add to 1
    pvalue: float  # that by chance some hyperparameter looks as important; all of them counted
    num_values: int


@dataclass(frozen=True, slots=True)
class Importance:
    """Every hyperparameter that varied, the most important first."""

    model_name: str
    metric: str  # full name
    num_runs: int
    weights: tuple[Weight, ...]

    @property
    def warning(self) -> str | None:
        """Said where runs are too few."""
        return None if self.num_runs >= ENOUGH else TOO_FEW.format(num=self.num_runs)


def importance(runs: Sequence[Run], metric: str, *, seed: int = 0) -> Importance:
    """Importance of what varied between complete runs of one model on the same windows.

    Raises NotEnoughData for fewer than FEWEST runs with the score, or where nothing varied.
    """
    scored = [r for r in runs if r.score(metric) is not None and r.reproduces is None]
    model = scored[0].model_name if scored else "this model"
    assert len({(r.model_name, r.fingerprint) for r in scored}) <= 1, "of one table only"
    if len(scored) < FEWEST:
        raise NotEnoughData(
            f"{len(scored)} complete runs of {model} have {metric}; importance needs {FEWEST} to "
            f"be reckoned and {ENOUGH} to mean something: run more configs"
        )
    columns = _varied(scored)
    if not columns:
        raise NotEnoughData(f"no hyperparameter varied between {len(scored)} runs of {model}")
    bad = np.array([_badness(r, metric) for r in scored])
    raw, luck = _reckon(columns, bad, seed)
    total = sum(raw.values()) or 1.0
    weights = [
        Weight(
            hyperparam=name,
            share=value / total,
            pvalue=(1 + int((luck >= value).sum())) / (1 + len(luck)),
            num_values=len({json.dumps(v) for v in columns[name]}),
        )
        for name, value in raw.items()
    ]
    ranked = sorted(weights, key=lambda w: -w.share)
    return Importance(model, metric, len(scored), tuple(ranked))


def _badness(run: Run, metric: str) -> float:
    value, bare = run.score(metric), split_name(metric)[1]
    assert value is not None
    return METRICS[bare].badness(value) if bare in METRICS else value


def _varied(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Values of every hyperparameter with two or more; words where not all are numbers."""
    found: dict[str, list[Any]] = {}
    for name in dict.fromkeys(n for r in runs for n in r.hyperparams):
        values = [r.hyperparams.get(name) for r in runs]
        if not all(_is_number(v) for v in values):
            values = [json.dumps(v, default=str, sort_keys=True) for v in values]
        if len(set(values)) > 1:
            found[name] = values
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _reckon(
    columns: Mapping[str, Sequence[Any]], bad: np.ndarray[Any, Any], seed: int
) -> tuple[dict[str, float], np.ndarray[Any, Any]]:
    """Importances by name, unnormalised, and the largest of each shuffle of the scores."""
    import optuna

    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE_OF_RUNS)
    study = _study(columns, bad)
    names = list(columns)

    def importances(values: np.ndarray[Any, Any]) -> dict[str, float]:
        return dict(
            evaluator.evaluate(study, params=names, target=lambda t: float(values[t.number]))
        )

    rng = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental, and minimises: both meant
        luck = [max(importances(rng.permutation(bad)).values()) for _ in range(SHUFFLES)]
        return importances(bad), np.array(luck)


def _study(columns: Mapping[str, Sequence[Any]], bad: np.ndarray[Any, Any]) -> Any:
    """A study in memory that holds these runs."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
    finally:
        optuna.logging.set_verbosity(level)
    distributions = {name: _distribution(values) for name, values in columns.items()}
    study.add_trials(
        optuna.trial.create_trial(
            params={name: values[n] for name, values in columns.items()},
            distributions=distributions,
            value=float(bad[n]),
        )
        for n in range(len(bad))
    )
    return study


def _distribution(values: Sequence[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(values[0], str):
        return CategoricalDistribution(sorted(set(values)))
    low, high = float(min(values)), float(max(values))
    return FloatDistribution(low, high, log=_is_spread_by_logs(np.array(values, dtype=float)))


def _is_spread_by_logs(values: np.ndarray[Any, Any]) -> bool:
    """Does the median lie nearer to the middle of the logs than to that of the numbers?"""
    if values.min() <= 0:
        return False

    def off_centre(x: np.ndarray[Any, Any]) -> float:
        return float(abs((np.median(x) - x.min()) / (x.max() - x.min()) - 0.5))

    return off_centre(np.log(values)) < off_centre(values)
