"""Who ends a trial early, on tune alone: Hyperband, a race by origins, the head's side.

Optuna's trial holds one series of numbers, so each pruner is asked through a study of its own that
nothing else sees.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foresweep.data.files import read_npz, write_npz
from foresweep.errors import DataError
from foresweep.metrics import METRICS
from foresweep.records import STEERING, Run, RunState
from foresweep.search.engines.base import GO, PAUSE, STOP, Progress
from foresweep.search.plan import SweepPlan
from foresweep.search.propose.modes import load_space
from foresweep.search.propose.tpe import earlier_runs, new_study, quiet
from foresweep.search.running.promotion import Ladder
from foresweep.space import Choice, SearchSpace
from foresweep.tracker.tracker import Tracker

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


@dataclass(slots=True)
class Hyperband:
    """Successive halving in brackets (Li et al. 2018; asynchronous as in ASHA, Li et al. 2020).

    Not frozen: it holds its study. A trial's place in a bracket follows from the order in which
    trials are first seen. A step that a resumed trial reports again gets the answer it got first:
    the others at its rung were judged beside that value.

    As every pruner it says why trial number `trial` is not worth going on after `step`; None: it
    is. `scores` are by full name; `losses` [origins] by metric, each origin's mean over items.
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


# The head's side of pruning: shows each scoring of a trial to the pruners.
#
# It also keeps the losses of the best run, for the trials to come.


logger = logging.getLogger(__name__)

LONGEST = 1000
"""Steps of the longest trainings where neither the space nor a cap says a number."""
RACED = Path("tune") / "race.npz"
"""Beside a run's forecasts: its losses [scorings, origins] on tune, if it was the best so far."""


@dataclass(frozen=True, slots=True)
class Pruners:
    """The pruners of one model: trials of different families do not race each other."""

    hyperband: Hyperband | None
    racing: Racing | None
    ladder: Ladder | None = None  # lets trials wait, and ends none

    def ask(self, trial: int, progress: Progress) -> str | None:
        """Why a trial should end; every pruner hears of every scoring."""
        told = (trial, progress.step, progress.scores, progress.losses or {})
        reasons = [p.should_prune(*told) for p in (self.hyperband, self.racing) if p is not None]
        return next((r for r in reasons if r), None)


@dataclass(slots=True)
class Judge:
    """Who of a sweep's trials is cut short, or has to wait. Not frozen: it remembers why."""

    objective: str
    seed: int
    pruners: Mapping[str, Pruners]
    reasons: dict[str, str] = field(default_factory=dict)  # by run

    def look(self, run: Run, progress: Progress) -> str:
        """What is said to a run after a scoring: to go on, to stop, or to wait. A run that has come
        to its end anyway goes on.

        Finalists trained with other seeds are not judged: their spread is what is wanted.
        """
        pruners = self.pruners.get(run.model_name)
        if pruners is None or progress.losses is None or run.seed != self.seed:
            return GO
        number, most = int(run.trial_number or 0), int(run.hyperparams.get("max_steps") or 0)
        reason, ladder, word = pruners.ask(number, progress), pruners.ladder, STOP
        if ladder is not None:
            score = progress.scores.get(f"tune_{self.objective}", math.nan)
            ladder.hear(number, progress.step, METRICS[self.objective].badness(score))
            if reason is None and (place := ladder.stops(number, progress.step)):
                word = PAUSE
                reason = f"waits at {progress.step} of {most} steps: tune_{self.objective} {place}"
        if reason is None or progress.step >= most:
            return GO
        self.reasons[run.run_id] = reason
        return word

    @property
    def ladders(self) -> dict[str, Ladder]:
        """By model, where its trials may have to wait."""
        return {m: p.ladder for m, p in self.pruners.items() if p.ladder is not None}

    def end(self, run: Run, out: Path) -> None:
        """A run is on record as it ended, or as it waits."""
        pruners, number = self.pruners.get(run.model_name), int(run.trial_number or 0)
        if pruners is None or run.seed != self.seed:
            return
        if pruners.ladder is not None:
            pruners.ladder.learn(number, run.state)
        if pruners.racing is None or run.state is RunState.WAITING:
            return
        raced = pruners.racing.end(number, _badness(run, self.objective))
        if raced is not None and raced.series:
            steps = sorted(raced.series)
            losses = np.array([raced.series[s] for s in steps])
            try:
                write_npz(out / RACED, {"steps": np.array(steps), "losses": losses})
            except DataError as error:  # later sweeps race against another; this one goes on
                logger.warning("%s", error)


def judge_of(plan: SweepPlan, tracker: Tracker, fingerprints: Mapping[str, str]) -> Judge | None:
    """The judge of a sweep, told of earlier runs on the same windows; None where nothing is pruned.

    Raises SpaceError.
    """
    kinds = plan.pruners
    if not kinds:
        return None
    (objective,) = plan.objectives
    found = {}
    for model in plan.trained:
        known = earlier_runs(tracker, model=model, fingerprints=fingerprints, base=plan.base)
        # scores on the way are of the windows that steer: those of others are no measure
        runs = [r for r in known if r.fingerprints.get(STEERING) == fingerprints.get(STEERING)]
        pruners = Pruners(
            Hyperband(objective, _most_steps(plan, model)) if "hyperband" in kinds else None,
            Racing(objective) if "racing" in kinds else None,
            Ladder() if "promotion" in kinds else None,
        )
        _replay(pruners, runs, tracker, objective)
        found[model] = pruners
    return Judge(objective, plan.cut.seed, found)


def _replay(pruners: Pruners, runs: list[Run], tracker: Tracker, objective: str) -> None:
    """Show the pruners what earlier trials learned. They are numbered below zero."""
    name = f"tune_{objective}"
    for number, run in enumerate(runs, -len(runs)):
        if pruners.hyperband is not None:
            for step, value in tracker.get_curve(run.run_id, name):
                pruners.hyperband.should_prune(number, step, {name: value}, {})
        badness = _badness(run, objective)
        if pruners.racing is not None and badness is not None and run.forecasts_path:
            raced = _raced(Path(run.forecasts_path) / RACED)
            if raced is not None:
                pruners.racing.running[number] = dict(raced.series)
                pruners.racing.end(number, badness)


def _raced(path: Path) -> Raced | None:
    """A run's losses by step; None where they were not kept."""
    if not path.exists():
        return None
    try:
        arrays = read_npz(path)
    except DataError as error:
        logger.warning("%s", error)
        return None
    rows = zip(arrays["steps"].tolist(), arrays["losses"].tolist(), strict=True)
    return Raced({int(step): tuple(losses) for step, losses in rows})


def _badness(run: Run, objective: str) -> float | None:
    score = run.score(f"tune_{objective}")
    if run.state != RunState.COMPLETE or score is None:
        return None
    return METRICS[objective].badness(score)


def _most_steps(plan: SweepPlan, model: str) -> int:
    """The most steps that a config of a model may take: where Hyperband's brackets end."""
    cap = plan.step_cap or LONGEST
    file = load_space(model, plan.start, plan.spaces)
    asked = [e.config.get("max_steps") for found in file.entries.values() for e in found]
    asked += [_highest(file.space), _highest(file.full)]
    return min(cap, max((int(s) for s in asked if s), default=cap))


def _highest(space: SearchSpace) -> int | None:
    steps = space.dimensions.get("max_steps")
    if isinstance(steps, Choice):
        return max((v for v in steps.values if v), default=None)
    return None if steps is None else int(steps.high)
