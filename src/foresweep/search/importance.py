"""How much each hyperparameter mattered, over the runs of one model on one set of windows.

PED-ANOVA (Watanabe, Bansal and Hutter 2023, as Optuna has it) compares where the best quarter of
the runs lies with where all of them lie, one hyperparameter at a time. Shares always add to 1, so
something looks important even where nothing is: each is held against the largest that comes when
the scores are dealt out anew.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foresweep.errors import NotEnoughData
from foresweep.metrics import METRICS
from foresweep.records import Run, split_name

BEST_SHARE = 0.25
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

    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
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
