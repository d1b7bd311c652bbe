"""How far a sweep is: trials and steps done, the best so far, the time left."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from foresweep.cli.tables import config_name, number, percent, seconds
from foresweep.metrics import METRICS, ranked_by
from foresweep.models.registry import BASELINES
from foresweep.search.budget import planned_steps
from foresweep.search.proposals import ADAPTIVE

if TYPE_CHECKING:
    from foresweep.records import Run
    from foresweep.search.plan import SweepPlan
    from foresweep.search.trial import Prepared


def steps_of(config: Mapping[str, Any]) -> int:
    """Optimiser steps of a trial; a baseline counts as one."""
    return planned_steps(config) or 1


@dataclass(slots=True)
class Tally:
    """Not frozen: it counts. Baselines count as steps, not as trials."""

    plan: SweepPlan
    trials_planned: int = 0
    trials_done: int = 0
    steps_planned: int = 0
    steps_done: int = 0  # of trials that have ended
    running: dict[str, int] = field(default_factory=dict)  # steps by run
    best: Run | None = None  # by the objective on tune
    steps_taken: int = 0  # here, by trials that have ended: what the time left is reckoned from
    began: float | None = None

    @property
    def steps(self) -> int:
        return self.steps_done + sum(self.running.values())

    def planned(self, trials: Iterable[Prepared]) -> None:
        """The sweep's list; what a search will propose beyond it is taken to be like it."""
        found = list(trials)
        trained = [p for p in found if p.proposal.model not in BASELINES]
        self.trials_planned = len(trained)
        self.steps_planned = sum(steps_of(p.config) for p in found)
        more = self.plan.budget - sum(not p.proposal.is_free for p in trained)
        if self.plan.mode in ADAPTIVE and not self.plan.proposals and more > 0:
            each = [steps_of(p.config) for p in trained] or [self.plan.step_cap or 1]
            self.trials_planned += more
            self.steps_planned += round(more * sum(each) / len(each))

    def further(self, runs: Iterable[Run], times: int) -> None:
        """Each of these will be trained so many times more."""
        for run in runs:
            self.trials_planned += times
            self.steps_planned += times * steps_of(run.hyperparams)

    def start(self, run: Run) -> None:
        self.running[run.run_id] = 0
        if self.began is None and run.model_name not in BASELINES:
            self.began = time.monotonic()

    def skip(self, config: Mapping[str, Any], model: str) -> None:
        """It was done before."""
        self.steps_done += steps_of(config)
        self.trials_done += model not in BASELINES

    def end(self, run: Run) -> None:
        steps = steps_of(run.hyperparams)
        self.running.pop(run.run_id, None)
        self.steps_done += steps
        if run.model_name in BASELINES:
            return
        self.steps_taken += steps
        self.trials_done += 1
        if run.state == "complete" and self._cost(run) < self._cost(self.best):
            self.best = run

    def retry(self, run: Run) -> None:
        """It has ended, and is not done."""
        self.steps_done -= steps_of(run.hyperparams)
        self.steps_taken -= steps_of(run.hyperparams)
        self.trials_done -= 1

    def _cost(self, run: Run | None) -> float:
        metric = ranked_by(self.plan.objective)
        score = None if run is None else run.score(f"tune_{metric}")
        return float("inf") if score is None else METRICS[metric].badness(score)

    @property
    def seconds_left(self) -> float | None:
        """As fast as it went so far; None before a trial has ended."""
        if self.began is None or not self.steps_taken:
            return None
        rate = (time.monotonic() - self.began) / (self.steps_taken + sum(self.running.values()))
        return rate * max(0, self.steps_planned - self.steps)

    def place(self) -> str:
        """How many trials are done, and of how many."""
        return f"[{self.trials_done}/{max(self.trials_planned, self.trials_done)}]"

    def line(self) -> str:
        """All of it in a line."""
        said = [f"{self.place()} trials"]
        if self.best is not None:
            metric = ranked_by(self.plan.objective)
            score = number(self.best.score(f"tune_{metric}"))
            name = f"{self.best.model_name} {config_name(self.best)}".strip()
            skill = percent(self.best.score("tune_skill"))
            said.append(f"best tune {metric} {score} ({name}, skill {skill})")
        left = self.seconds_left
        if left and self.trials_done < self.trials_planned:
            said.append(f"about {seconds(left)} left")
        return ", ".join(said)
