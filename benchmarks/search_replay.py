"""Replays a search over recorded learning curves, its cost counted in training steps.

A method proposes from the whole space; it is answered by the nearest recorded config that it has
not tried, and told that config's own values: the same for every method. What it ends with is the
val pinball of its incumbent, the finished training that is best on tune.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from search_curves import MODEL, SETTINGS, Array, Curves, coordinates

from foresweep.records import RunState
from foresweep.search.engines.base import Progress
from foresweep.search.propose.modes import load_space
from foresweep.search.propose.tpe import Told, TpeSampler
from foresweep.search.running.pruning import Hyperband, Pruners, Racing
from foresweep.space import Choice

OBJECTIVE = "pinball"
RACE = partial(Racing, OBJECTIVE)


class OutOfSteps(Exception):
    """The budget is spent: the training that was running is not finished."""


@dataclass(slots=True)
class Ledger:
    """One search: what it has tried, what it has spent, and its incumbent at each time.

    Not frozen: it counts.
    """

    curves: Curves
    budget: int  # steps
    spent: int = 0
    trials: int = 0
    finished: int = 0
    best: float = np.inf
    history: list[tuple[int, float, float]] = field(default_factory=list)  # spent, tune, val
    free: Array = field(init=False)
    points: Array = field(init=False)

    def __post_init__(self) -> None:
        self.points = self.curves.points()
        self.free = np.ones(len(self.points), dtype=bool)

    def nearest(self, config: Mapping[str, Any]) -> int:
        """The recorded config that answers for one that was proposed, no other for the same."""
        if not self.free.any():
            raise OutOfSteps
        away = ((self.points - coordinates(self.curves.space, config)) ** 2).sum(axis=1)
        found = int(np.where(self.free, away, np.inf).argmin())
        self.free[found] = False
        self.trials += 1
        return found

    def train(self, index: int, stop: Callable[[int, int], bool]) -> bool:
        """Walk along a curve; `stop(index, scoring)` is asked after each scoring, and not heeded
        after the last. Is the training finished?"""
        tune, steps = self.curves.tune[index], self.curves.steps
        for k in range(len(steps)):
            self.pay(k)
            if not np.isfinite(tune[k]):
                return False
            last = k == len(steps) - 1
            stopped = stop(index, k)
            if last:
                self.finish(index)
            elif stopped:
                return False
        return True

    def pay(self, k: int) -> None:
        """The steps up to scoring `k` from the one before. Raises OutOfSteps."""
        steps = self.curves.steps
        self.spent += steps[k] - (steps[k - 1] if k else 0)
        if self.spent > self.budget:
            raise OutOfSteps

    def finish(self, index: int) -> None:
        """A training has come to its end."""
        self._keep(index, len(self.curves.steps) - 1)
        self.finished += 1

    def _keep(self, index: int, k: int) -> None:
        tune = float(np.nanmin(self.curves.tune[index, : k + 1]))
        if tune < self.best:
            self.best = tune
            self.history.append((self.spent, tune, float(self.curves.val[index, k])))

    def over(self, grid: Array) -> Array:
        """[2, G] tune and val of the incumbent at each number of steps; inf before the first."""
        out = np.full((2, len(grid)), np.inf)
        for spent, tune, val in self.history:
            out[:, grid >= spent] = [[tune], [val]]
        return out


class Method(Protocol):
    """Searches until its ledger says that the steps are spent."""

    def __call__(self, ledger: Ledger, seed: int) -> None: ...


def never(index: int, scoring: int) -> bool:
    return False


def searched(method: Method, curves: Curves, budget: int, seed: int) -> Ledger:
    ledger = Ledger(curves, budget)
    with suppress(OutOfSteps):
        method(ledger, seed)
    return ledger


def random_search(ledger: Ledger, seed: int) -> None:
    rng = np.random.default_rng(seed)
    while True:
        ledger.train(ledger.nearest(ledger.curves.space.sample(rng)), never)


Make = Callable[[Curves, int], TpeSampler]


def tpe(curves: Curves, seed: int, **how: Any) -> TpeSampler:
    """The sampler of `--mode smart`, as a sweep makes it."""
    return TpeSampler(MODEL, curves.space, objectives=(OBJECTIVE,), base={}, seed=seed, **how)


@dataclass(frozen=True, slots=True)
class Ours:
    """foresweep's own classes: the sampler of `smart`, or random draws, and its pruners."""

    sampler: Make | None = tpe
    priority: bool = False
    hyperband: Callable[[str, int], Hyperband] | None = None
    racing: Callable[[], Racing] | None = None

    def __call__(self, ledger: Ledger, seed: int) -> None:
        curves, rng = ledger.curves, np.random.default_rng(seed)
        sampler = self.sampler(curves, seed) if self.sampler else None
        pruners = Pruners(
            self.hyperband(OBJECTIVE, curves.steps[-1]) if self.hyperband else None,
            self.racing() if self.racing else None,
        )
        first = priority_configs(curves) if self.priority else []
        number = 0
        while True:
            number += 1
            if first:
                config: Mapping[str, Any] = first.pop(0)
            elif sampler is None:
                config = curves.space.sample(rng)
            else:
                proposal = sampler.ask(number)
                assert proposal is not None
                config = proposal.config
            told = _trained(ledger, ledger.nearest(config), number, pruners)
            if sampler is not None:
                sampler.tell(told)


def _trained(ledger: Ledger, index: int, number: int, pruners: Pruners) -> Told:
    """A trial as the head of a sweep sees it: shown to the pruners, and what is told of it."""
    curves = ledger.curves
    series: dict[int, dict[str, float]] = {}

    def stop(index: int, k: int) -> bool:
        step, value = curves.steps[k], float(curves.tune[index, k])
        series[step] = {OBJECTIVE: value}
        losses = {OBJECTIVE: tuple(curves.origins[index, k].tolist())}
        return pruners.ask(number, Progress(step, {f"tune_{OBJECTIVE}": value}, losses)) is not None

    done = ledger.train(index, stop)
    values = [v[OBJECTIVE] for v in series.values()]
    best = min(values, default=np.nan)
    if pruners.racing is not None:
        pruners.racing.end(number, best if done else None)
    if not done and len(values) == len(curves.steps):
        raise AssertionError("the last scoring ends nothing")
    state = RunState.COMPLETE if done else RunState.PRUNED
    scores = {OBJECTIVE: best} if done else {}
    return Told(MODEL, curves.configs[index], state, scores, {} if done else series, number)


def priority_configs(curves: Curves) -> list[dict[str, Any]]:
    """What `smart` begins with, moved into what was recorded."""
    usual = SETTINGS[curves.model].usual
    found = []
    for entry in load_space(curves.model, "scratch").entries["priority"]:
        config = {k: v for k, v in {**usual, **entry.config}.items() if k in usual}
        for name, d in curves.space.dimensions.items():
            if isinstance(d, Choice):
                able = [v for v in d.values if isinstance(v, int | float)]
                if config[name] not in d.values:
                    config[name] = min(able, key=lambda v: abs(v - config[name]))
            else:
                config[name] = min(max(config[name], d.low), d.high)
        found.append(config)
    return found
