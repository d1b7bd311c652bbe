"""Asynchronous halving that pauses: many trials start, the best of each rung go on, others wait.

A trial that waits keeps its training state on disk, and goes on from it when the rung has grown so
far that it is among the best there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from foresweep.records import RunState

RUNGS = (1, 2, 4)
"""Scorings, of the eight of a training, after which a trial may have to wait."""
KEEPS = 2
"""Of the trials that have come to a rung, the best one in so many go on."""


@dataclass(slots=True)
class Ladder:
    """Who of a model's trials goes on: ASHA with promotion (Li et al. 2020, A System for Massively
    Parallel Hyperparameter Tuning, algorithm 2), by the best objective on tune up to a rung.

    A rung is a share of a trial's own steps, told by its scorings. A trial that has come to a rung
    stands there for good, whatever became of it. Not frozen: it keeps what trials have shown.
    """

    rungs: tuple[int, ...] = RUNGS
    keeps: float = KEEPS
    shown: dict[int, dict[int, float]] = field(default_factory=dict)  # trial -> step -> badness
    waiting: set[int] = field(default_factory=set)
    passed: dict[int, int] = field(default_factory=dict)  # scorings after which it was let go on
    some_complete: bool = False

    def hear(self, trial: int, step: int, badness: float) -> None:
        """A trial was scored. A step that is said again replaces what it said."""
        self.shown.setdefault(trial, {})[step] = badness if math.isfinite(badness) else math.inf

    def learn(self, trial: int, state: RunState, series: Mapping[int, float] | None = None) -> None:
        """How a trial stands, and what is on record of it, badness by step."""
        for step, badness in (series or {}).items():
            self.hear(trial, step, badness)
        (self.waiting.add if state is RunState.WAITING else self.waiting.discard)(trial)
        self.some_complete |= state is RunState.COMPLETE

    def wake(self, trial: int) -> None:
        """A trial that waits goes on. Where its state is gone it comes by its rung once more, and
        need not wait there again."""
        self.waiting.discard(trial)
        self.passed[trial] = len(self.shown[trial])

    def stops(self, trial: int, step: int) -> str | None:
        """Why a trial that was scored at `step` has to wait; None: it goes on."""
        scorings = sum(s <= step for s in self.shown[trial])
        if scorings <= self.passed.get(trial, 0) or self._is_among_best(trial, scorings):
            return None
        there = self._at(scorings)
        return f"was {1 + there.index(trial)} of {len(there)} at this rung"

    def next(self, *, is_last_call: bool = False) -> list[int]:
        """Trials that wait and should go on, those that have come farthest first, of these the
        best. At the last call, where no trial is begun any more, all that wait, unless one is
        complete: a sweep too small for its rungs ends with a whole training all the same."""
        everybody = is_last_call and not self.some_complete
        able = []
        for trial in self.waiting:
            scorings = len(self.shown.get(trial, ()))
            if everybody or self._is_among_best(trial, scorings):
                able.append((-scorings, self._at(scorings).index(trial), trial))
        return [trial for _, _, trial in sorted(able)]

    def _is_among_best(self, trial: int, scorings: int) -> bool:
        if scorings not in self.rungs:
            return True
        there = self._at(scorings)
        return there.index(trial) < len(there) // self.keeps

    def _at(self, scorings: int) -> list[int]:
        """Trials that have come so far, best first; of equal ones the one that began first."""
        reached = {t: s for t, s in self.shown.items() if len(s) >= scorings}
        best = {t: min(s[k] for k in sorted(s)[:scorings]) for t, s in reached.items()}
        return sorted(best, key=lambda t: (best[t], t))
