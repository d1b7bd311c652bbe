"""Who ends a trial early, on tune alone: Hyperband at rungs of steps, and a race origin by origin.

Optuna's trial holds one series of numbers, so each pruner is asked through a study of its own that
nothing else sees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from foresweep.metrics import METRICS
from foresweep.search.tpe import new_study, quiet

if TYPE_CHECKING:
    import optuna

RUNGS = 8
"""Scorings of a training, the first at an eighth of its steps: no rung comes earlier."""
REDUCTION = 3
"""Of the trials at a rung, one in so many goes on (Hyperband's own default)."""
P_THRESHOLD = 0.05
FEWEST_ORIGINS = 8
"""Below, a rank test cannot tell two trials apart at this threshold with any power."""


UNJUDGED = 1
"""Scorings of a trial before it can lose a race. After an eighth of its steps the rank tells who
learns fast, not who ends well: among the better third of 221 trainings its correlation with the end
was -.11, an eighth later +.24 (benchmarks/search_efficiency.py)."""


class Pruner(Protocol):
    """Looks at a running trial after each of its scorings on tune."""

    def should_prune(
        self,
        trial: int,
        step: int,
        scores: Mapping[str, float],
        losses: Mapping[str, Sequence[float]],
    ) -> str | None:
        """Why trial number `trial` is not worth going on after `step`; None: it is. `scores` by
        full name; `losses` [origins] by metric, each origin's mean over items."""
        ...


@dataclass(slots=True)
class Hyperband:
    """Successive halving in brackets (Li et al. 2018; asynchronous as in ASHA, Li et al. 2020).

    Not frozen: it holds its study. A trial's place in a bracket follows from the order in which
    trials are first seen. A step that a resumed trial reports again gets the answer it got first:
    the others at its rung were judged beside that value.
    """

    objective: str
    max_steps: int
    study: optuna.Study = field(init=False)
    trials: dict[int, optuna.Trial] = field(default_factory=dict)
    answers: dict[tuple[int, int], str | None] = field(default_factory=dict)  # by trial and step

    def __post_init__(self) -> None:
        from optuna.pruners import HyperbandPruner

        lowest = max(1, math.ceil(self.max_steps / RUNGS))
        self.study = new_study(1, name="hyperband")  # the name decides who is in which bracket
        self.study.pruner = HyperbandPruner(
            min_resource=lowest, max_resource=self.max_steps, reduction_factor=REDUCTION
        )

    def should_prune(
        self,
        trial: int,
        step: int,
        scores: Mapping[str, float],
        losses: Mapping[str, Sequence[float]],
    ) -> str | None:
        value = scores.get(f"tune_{self.objective}", math.nan)
        if (trial, step) not in self.answers:
            self.answers[trial, step] = self._answer(trial, step, value)
        return self.answers[trial, step]

    def _answer(self, trial: int, step: int, value: float) -> str | None:
        shadow = self.trials.get(trial)
        if shadow is None:
            with quiet():
                shadow = self.trials[trial] = self.study.ask()
        shadow.report(METRICS[self.objective].badness(value), step)
        if not shadow.should_prune():
            return None
        return f"not among the best at {step} steps by tune_{self.objective} ({value:.4g})"


@dataclass(frozen=True, slots=True)
class Raced:
    """A trial's losses by step: [origins] each."""

    series: Mapping[int, tuple[float, ...]]

    def until(self, step: int) -> tuple[float, ...] | None:
        """The losses at the last scoring not after `step`: never more training than the other has
        had. None: it had not been scored by then."""
        earlier = [s for s in self.series if s <= step]
        return self.series[max(earlier)] if earlier else None


@dataclass(slots=True)
class Racing:
    """Wilcoxon's signed-rank test of a trial's losses by origin against the best run's at equal
    training. Origins are the instances: windows of one date move together. A trial's first scoring
    ends nothing.

    Not frozen: it keeps the losses of running trials and of the best run. A step that a resumed
    trial reports again takes the place of what it reported first.
    """

    metric: str
    best: Raced | None = None
    best_badness: float = math.inf
    running: dict[int, dict[int, tuple[float, ...]]] = field(default_factory=dict)

    def should_prune(
        self,
        trial: int,
        step: int,
        scores: Mapping[str, float],
        losses: Mapping[str, Sequence[float]],
    ) -> str | None:
        if self.metric not in losses:
            return None
        mine = tuple(losses[self.metric])
        series = self.running.setdefault(trial, {})
        series[step] = mine
        rival = None if self.best is None else self.best.until(step)
        if len(series) <= UNJUDGED or rival is None or len(rival) != len(mine):
            return None
        pair = np.array([mine, rival])
        both = pair[:, np.isfinite(pair).all(axis=0)]
        if both.shape[1] < FEWEST_ORIGINS or not _loses(both[0], both[1]):
            return None
        worse = 100 * (both[0].mean() / both[1].mean() - 1)
        return (
            f"{worse:.1f} % above the best run's {self.metric} at {step} steps, origin by origin "
            f"(Wilcoxon, p < {P_THRESHOLD})"
        )

    def end(self, trial: int, badness: float | None) -> Raced | None:
        """A trial is over; with its final badness where it is complete. Its losses, where it is
        the best by now: every later trial races against them."""
        raced = Raced(self.running.pop(trial, {}))
        if badness is None or not badness < self.best_badness or not raced.series:
            return None
        self.best, self.best_badness = raced, badness
        return raced


def _loses(mine: NDArray[np.float64], rival: NDArray[np.float64]) -> bool:
    """Is `mine` [origins] worse than `rival`, asked through a shadow study of two trials?"""
    if mine.mean() <= rival.mean():
        return False  # as Optuna's pruner would say, after a test that costs milliseconds
    from optuna.pruners import WilcoxonPruner
    from optuna.trial import create_trial

    with quiet():
        study = new_study(1)
        study.pruner = WilcoxonPruner(p_threshold=P_THRESHOLD)
        known = dict(enumerate(rival.tolist()))
        study.add_trial(create_trial(value=float(rival.mean()), intermediate_values=known))
        asked = study.ask()
        for origin, loss in enumerate(mine.tolist()):
            asked.report(loss, origin)
        return asked.should_prune()
