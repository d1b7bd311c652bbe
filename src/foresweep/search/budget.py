"""How long a sweep may go on: wall time of this head, and optimiser steps of all trials."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from foresweep.search.events import BudgetSpent
from foresweep.search.stage import Stage


def planned_steps(config: Mapping[str, Any]) -> int:
    """Optimiser steps that a resolved config asks for, of all its stages; 0 for one that trains
    nothing."""
    return int(config.get("max_steps") or 0)


@dataclass(slots=True)
class Budget:
    """Asked before each trial. Not frozen: it knows when it began, and says once that it is spent.

    Trials that run when the time is over go on to their end, and what was planned for them counts.
    """

    stage: Stage
    sweep_id: str
    began: float = field(default_factory=time.monotonic)
    said: bool = False

    def allows(self, config: Mapping[str, Any]) -> bool:
        """May a trial of this config begin? Once one may not, no other may."""
        if not self.said and (why := self._spent(config)):
            self.said = True
            self.stage.listen(BudgetSpent(why))
        return not self.said

    def _spent(self, config: Mapping[str, Any]) -> str:
        plan = self.stage.plan
        if plan.time_budget_s is not None:
            passed = time.monotonic() - self.began
            if passed >= plan.time_budget_s:
                return f"the time of {plan.time_budget_s:g} s is over"
        if plan.step_budget is not None:
            taken, wanted = self.steps_taken(), planned_steps(config)
            if taken + wanted > plan.step_budget:
                return (
                    f"{taken:,} of {plan.step_budget:,} steps are taken or under way, and the next "
                    f"trial takes {wanted:,}"
                )
        return ""

    def steps_taken(self) -> int:
        """Steps of all trials of the sweep; of running ones those they were planned for."""
        tracker = self.stage.tracker
        configs = {t.number: t.config for t in tracker.get_trials(self.sweep_id)}
        taken = 0
        for (number, _), (last, running) in tracker.steps_of(self.sweep_id).items():
            taken += planned_steps(configs[number]) if running else last
        return taken
