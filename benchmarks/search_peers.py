"""Optuna's loop and Ray Tune's scheduler on recorded curves, by their own code."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from search_curves import Curves
from search_replay import Ledger

from foresweep.space import Choice, Float, Int

Pruner = Callable[[int], Any]


def hyperband(scorings: int) -> Any:
    """As in Optuna's documentation, with scorings for epochs."""
    from optuna.pruners import HyperbandPruner

    return HyperbandPruner(min_resource=1, max_resource=scorings, reduction_factor=3)


def median(scorings: int) -> Any:
    """Optuna's default."""
    from optuna.pruners import MedianPruner

    return MedianPruner()


def nop(scorings: int) -> Any:
    from optuna.pruners import NopPruner

    return NopPruner()


@dataclass(frozen=True, slots=True)
class Optuna:
    """`study.optimize` with defaults: an objective that reports each scoring and may be pruned, and
    gives back its best value."""

    pruner: Pruner = hyperband
    sampler: Callable[[int], Any] | None = None

    def __call__(self, ledger: Ledger, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = self.sampler(seed) if self.sampler else optuna.samplers.TPESampler(seed=seed)
        pruner = self.pruner(len(ledger.curves.steps))
        study = optuna.create_study(sampler=sampler, pruner=pruner, study_name=f"s{seed}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study.optimize(lambda trial: _objective(trial, ledger), catch=())


def _objective(trial: Any, ledger: Ledger) -> float:
    import optuna

    space, tune = ledger.curves.space, ledger.curves.tune
    index = ledger.nearest({n: _suggest(trial, n, d) for n, d in space.dimensions.items()})
    _correct(trial, ledger.curves.configs[index])
    seen: list[float] = []

    def stop(index: int, k: int) -> bool:
        seen.append(float(tune[index, k]))
        trial.report(seen[-1], k + 1)
        return bool(trial.should_prune())

    if not ledger.train(index, stop):
        raise optuna.TrialPruned
    return min(seen)


def _suggest(trial: Any, name: str, d: Any) -> Any:
    if isinstance(d, Float):
        return trial.suggest_float(name, d.low, d.high, log=d.log)
    if isinstance(d, Int):
        return trial.suggest_int(name, d.low, d.high, step=d.step, log=d.log)
    assert isinstance(d, Choice)
    return trial.suggest_categorical(name, d.values)


def _correct(trial: Any, config: Mapping[str, Any]) -> None:
    """What was asked for becomes what was recorded, on the study's books, too."""
    storage, number = trial.study._storage, trial._trial_id
    for name, d in trial.distributions.items():
        storage.set_trial_param(number, name, d.to_internal_repr(config[name]), d)


@dataclass(frozen=True, slots=True)
class Asha:
    """Random draws under Ray Tune's own ASHAScheduler, its results handed to it as the controller
    of a real run does; defaults, with the number of scorings as `max_t`."""

    settings: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, ledger: Ledger, seed: int) -> None:
        from ray.tune.schedulers import ASHAScheduler

        curves, rng = ledger.curves, np.random.default_rng(seed)
        scheduler = ASHAScheduler(
            metric="pinball", mode="min", max_t=len(curves.steps), **self.settings
        )
        number = 0
        while True:
            number += 1
            one = _Watched(scheduler, SimpleNamespace(trial_id=str(number)), curves)
            scheduler.on_trial_add(None, one.trial)
            ledger.train(ledger.nearest(curves.space.sample(rng)), one)


@dataclass(frozen=True, slots=True)
class _Watched:
    """A trial whose results are shown to Ray Tune's scheduler."""

    scheduler: Any
    trial: Any
    curves: Curves

    def __call__(self, index: int, k: int) -> bool:
        """Does the scheduler stop it?"""
        result = {"pinball": float(self.curves.tune[index, k]), "training_iteration": k + 1}
        return bool(self.scheduler.on_trial_result(None, self.trial, result) == "STOP")
