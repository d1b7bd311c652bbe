"""The head's side of pruning: shows each scoring of a trial to the pruners.

It also keeps the losses of the best run, for the trials to come."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from foresweep.data.files import read_npz, write_npz
from foresweep.errors import DataError
from foresweep.metrics import METRICS
from foresweep.records import Run, RunState
from foresweep.search.channel import Progress
from foresweep.search.history import earlier_runs
from foresweep.search.plan import SweepPlan
from foresweep.search.proposals import load_space
from foresweep.search.pruning import Hyperband, Raced, Racing
from foresweep.space import Choice, SearchSpace
from foresweep.tracker.tracker import Tracker

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

    def ask(self, trial: int, progress: Progress) -> str | None:
        """Why a trial should end; every pruner hears of every scoring."""
        told = (trial, progress.step, progress.scores, progress.losses or {})
        reasons = [p.should_prune(*told) for p in (self.hyperband, self.racing) if p is not None]
        return next((r for r in reasons if r), None)


@dataclass(slots=True)
class Judge:
    """Who of a sweep's trials is cut short. Not frozen: it remembers why."""

    objective: str
    seed: int
    pruners: Mapping[str, Pruners]
    reasons: dict[str, str] = field(default_factory=dict)  # by run

    def look(self, run: Run, progress: Progress) -> str | None:
        """Why a run is to stop after a scoring; None: it goes on, or has come to its end anyway.

        Finalists trained with other seeds are not judged: their spread is what is wanted.
        """
        pruners = self.pruners.get(run.model_name)
        if pruners is None or progress.losses is None or run.seed != self.seed:
            return None
        reason = pruners.ask(int(run.trial_number or 0), progress)
        if reason is None or progress.step >= int(run.hyperparams.get("max_steps") or 0):
            return None
        self.reasons[run.run_id] = reason
        return reason

    def end(self, run: Run, out: Path) -> None:
        """A run is on record as it ended."""
        pruners = self.pruners.get(run.model_name)
        if pruners is None or pruners.racing is None or run.seed != self.seed:
            return
        raced = pruners.racing.end(int(run.trial_number or 0), _badness(run, self.objective))
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
        runs = earlier_runs(tracker, model=model, fingerprints=fingerprints, base=plan.base)
        pruners = Pruners(
            Hyperband(objective, _most_steps(plan, model)) if "hyperband" in kinds else None,
            Racing(objective) if "racing" in kinds else None,
        )
        _replay(pruners, runs, tracker, objective)
        found[model] = pruners
    return Judge(objective, plan.seed, found)


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
