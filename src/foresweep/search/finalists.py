"""The finalists of a sweep, trained once more with other seeds: how much of a lead is chance.

Finalists are the best trials by tune. A finalist's checkpoint and losses are those of the (lower)
median seed by tune, the one that would be deployed; the others say how far chance alone carries.
They are further runs of the same trial, so that no count of trials grows by them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from foresweep.metrics import METRICS, QUANTILE_METRICS, ranked_by
from foresweep.records import Run, RunState
from foresweep.search.attempt import (
    EQUALS_LAST_VALUE,
    Assignment,
    attempts_at,
    earlier_run,
    is_open,
    next_attempt,
)
from foresweep.search.budget import Budget
from foresweep.search.events import FinalistsChosen, SeedsCompared, TrialSkipped
from foresweep.search.stage import Stage
from foresweep.search.trial import Prepared
from foresweep.tracker.seeds import median_seed


@dataclass(frozen=True, slots=True)
class Contender:
    """A config and its run under the sweep's own seed, made by it or known from an earlier one."""

    prepared: Prepared
    run: Run


def choose_finalists(
    contenders: Iterable[Contender], objective: str, count: int
) -> tuple[Contender, ...]:
    """The `count` best complete trials by the objective on tune, best first; ties go to the smaller
    run id.

    What was not asked for (baselines, untrained companions) is none, and where points are ranked
    neither is a forecast that equals the last close.
    """
    name, metric = f"tune_{objective}", METRICS[objective]
    able = [
        (metric.badness(score), c.run.run_id, c)
        for c in contenders
        if c.run.state is RunState.COMPLETE
        and not (c.run.is_baseline or c.prepared.proposal.is_free)
        and (objective in QUANTILE_METRICS or EQUALS_LAST_VALUE not in c.run.tags)
        and (score := c.run.score(name)) is not None
    ]
    return tuple(c for _, _, c in sorted(able, key=lambda found: found[:2])[:count])


@dataclass(slots=True)
class Finalist:
    """A finalist and the seeds it still lacks. Not frozen: they get fewer."""

    contender: Contender
    left: deque[int]
    is_running: bool = False

    @property
    def trial(self) -> tuple[str, int]:
        """Its own: where it was trained in another sweep, that one's."""
        return str(self.contender.run.sweep_id), int(self.contender.run.trial_number or 0)


@dataclass(slots=True)
class Seeds:
    """A source (head.py): the finalists' other seeds, one seed of a finalist at a time, since its
    trial has one lease. A seed that fails is on record with its cause, and the rest decide."""

    stage: Stage
    sweep_id: str
    budget: Budget
    finalists: list[Finalist]

    def next(self) -> Assignment | None:
        for finalist in self.finalists:
            if not finalist.is_running and (work := self._of(finalist)) is not None:
                finalist.is_running = True
                return work
        return None

    def ended(self, work: Assignment, run: Run) -> None:
        (finalist,) = (f for f in self.finalists if f.is_running and f.trial == work.trial)
        finalist.is_running = False
        self._trained(finalist)

    def others_work(self) -> bool:
        """A seed that is left although workers are free is held by another head."""
        return not self.budget.said and any(f.left for f in self.finalists)

    def _of(self, finalist: Finalist) -> Assignment | None:
        """The next seed of a finalist that nobody has trained or trains."""
        stage, prepared = self.stage, finalist.contender.prepared
        while finalist.left:
            known = earlier_run(stage, prepared, finalist.left[0])
            if known is not None:
                stage.listen(TrialSkipped(prepared, known))
                self._trained(finalist)
            elif not self._may_train(finalist):
                return None
            elif (work := self._leased(finalist)) is not None:
                return work
        return None

    def _may_train(self, finalist: Finalist) -> bool:
        """Does the budget allow another training, and is the trial's lease held here now?"""
        config = finalist.contender.prepared.config
        return self.budget.allows(config) and self.stage.tracker.take_lease(*finalist.trial)

    def _leased(self, finalist: Finalist) -> Assignment | None:
        """The next seed, its trial's lease held; None where another head has just ended it."""
        stage, (sweep_id, number), seed = self.stage, finalist.trial, finalist.left[0]
        stage.tracker.repair()
        runs = stage.tracker.get_runs(sweep_id=sweep_id, include_hidden=True)
        attempts = attempts_at(runs, number, seed)
        if attempts and not is_open(attempts) and sweep_id == self.sweep_id:
            stage.tracker.release_lease(sweep_id, number)
            self._trained(finalist)
            return None
        return next_attempt(
            stage, finalist.contender.prepared, finalist.trial, seed,
            attempts if is_open(attempts) else (),
        )  # fmt: skip

    def _trained(self, finalist: Finalist) -> None:
        finalist.left.popleft()
        if finalist.left:
            return
        runs = self.stage.tracker.get_seeds(finalist.contender.run.run_id)
        chosen = median_seed(runs, ranked_by(self.stage.plan.objective))
        self.stage.listen(SeedsCompared(tuple(runs), chosen))


def seeds_of_finalists(
    stage: Stage, sweep_id: str, contenders: Iterable[Contender], budget: Budget
) -> Seeds:
    """The source of everything that is left to do with the plan's other seeds."""
    plan = stage.plan
    chosen = choose_finalists(contenders, ranked_by(plan.objective), plan.num_finalists)
    stage.listen(FinalistsChosen(tuple(c.run for c in chosen), plan.seeds))
    return Seeds(stage, sweep_id, budget, [Finalist(c, deque(plan.other_seeds)) for c in chosen])
