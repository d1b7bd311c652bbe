"""The trials of a sweep, then its finalists, as long as the budget lasts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from foresweep.evaluation.yardstick import EQUALS_LAST_VALUE
from foresweep.metrics import METRICS, QUANTILE_METRICS, ranked_by
from foresweep.records import Run, RunState, Trial
from foresweep.search.events import BudgetSpent, FinalistsChosen, SeedsCompared, TrialSkipped
from foresweep.search.propose.adaptive import Search
from foresweep.search.running.head import (
    DIED,
    attempts_at,
    earlier_run,
    is_open,
    next_attempt,
    seed_for,
)
from foresweep.search.running.leaks import LeakTests
from foresweep.search.running.promotion import Ladder
from foresweep.search.stage import Stage, settle
from foresweep.search.trial import Prepared, RunSpec
from foresweep.tracker.queries.runs import median_seed

# How long a sweep may go on: wall time of this head, and optimiser steps of all trials.


def planned_steps(config: Mapping[str, Any]) -> int:
    """Optimiser steps that a resolved config asks for, of all its stages; 0 for one that trains
    nothing."""
    return int(config.get("max_steps") or 0)


def ends_within(seconds: Sequence[float], workers: int, limit: float) -> tuple[float, ...]:
    """When each trial ends that begins within `limit` seconds, in seconds after the start: trials
    of `seconds` begin in their order, each where one of `workers` (1 or more) is free first.

    >>> ends_within([60, 600, 60, 60], workers=2, limit=100)
    (60.0, 600.0, 120.0)
    """
    free, ends = [0.0] * workers, []
    for took in seconds:
        if (begins := min(free)) >= limit:
            break
        ends.append(begins + took)
        free[free.index(begins)] = begins + took
    return tuple(ends)


@dataclass(slots=True)
class Budget:
    """Asked before each trial. Not frozen: it knows when it began, and says once that it is spent.

    Trials that run when the time is over go on to their end, and what was planned for them counts.
    """

    stage: Stage
    sweep_id: str
    began: float = field(default_factory=time.monotonic)
    said: bool = False

    def allows(self, config: Mapping[str, Any], *, done: int = 0) -> bool:
        """May a trial of this config begin, or go on that has `done` so many steps? Once one may
        not, no other may."""
        if not self.said and (why := self._spent(planned_steps(config) - done)):
            self.said = True
            self.stage.listen(BudgetSpent(why))
        return not self.said

    def _spent(self, wanted: int) -> str:
        plan = self.stage.plan
        if plan.time_budget_s is not None:
            passed = time.monotonic() - self.began
            if passed >= plan.time_budget_s:
                return f"the time of {plan.time_budget_s:g} s is over"
        if plan.step_budget is not None:
            taken = self.steps_taken()
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
        for (number, _), (last, running) in tracker.heads.steps_of(self.sweep_id).items():
            taken += planned_steps(configs[number]) if running else last
        return taken


# The finalists of a sweep, trained once more with other seeds: how much of a lead is chance.
#
# Finalists are the best trials by tune. A finalist's checkpoint and losses are those of the (lower)
# median seed by tune, the one that would be deployed; the others say how far chance alone carries.
# They are further runs of the same trial, so that no count of trials grows by them.


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

    def next(self) -> RunSpec | None:
        for finalist in self.finalists:
            if not finalist.is_running and (work := self._of(finalist)) is not None:
                finalist.is_running = True
                return work
        return None

    def ended(self, spec: RunSpec, run: Run) -> None:
        (finalist,) = (f for f in self.finalists if f.is_running and f.trial == spec.trial)
        finalist.is_running = False
        self._trained(finalist)

    def others_work(self) -> bool:
        """A seed that is left although workers are free is held by another head."""
        return not self.budget.said and any(f.left for f in self.finalists)

    def _of(self, finalist: Finalist) -> RunSpec | None:
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
        return self.budget.allows(config) and self.stage.tracker.heads.take_lease(*finalist.trial)

    def _leased(self, finalist: Finalist) -> RunSpec | None:
        """The next seed, its trial's lease held; None where another head has just ended it."""
        stage, (sweep_id, number), seed = self.stage, finalist.trial, finalist.left[0]
        stage.tracker.repair()
        runs = stage.tracker.get_runs(sweep_id=sweep_id, include_hidden=True)
        attempts = attempts_at(runs, number, seed)
        if attempts and not is_open(attempts) and sweep_id == self.sweep_id:
            stage.tracker.heads.release_lease(sweep_id, number)
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


# The trials of a sweep, one after the other: what was broken off, the list, then the search.


ORPHANS_EVERY_S = 2.0
"""How often a head looks for trials whose own head is gone."""


@dataclass(slots=True)
class Trials:
    """A source (head.py). Not frozen: it knows what is left."""

    stage: Stage
    sweep_id: str
    waiting: deque[Prepared]
    leaks: LeakTests
    budget: Budget
    search: Search | None = None
    known: list[Contender] = field(default_factory=list)  # made needless by runs of other sweeps
    dead: frozenset[str] = frozenset()
    """Runs whose process died, that somebody who resumes the sweep asks to be tried once more."""
    _settled: dict[str, Prepared] = field(default_factory=dict)  # by config hash
    _own: set[int] = field(default_factory=set)  # trials that this head has met, and none let wait
    _seen: dict[int, tuple[Any, ...]] = field(default_factory=dict)  # of others, as it was learnt
    _looked_at: float = 0.0

    def next(self) -> RunSpec | None:
        work = self._orphan() or self._promoted() or self._listed()
        if work is None and self.search is not None:
            work = self._searched(self.search)
        if work is None:
            work = self._promoted(is_last_call=True)
        if work is not None:
            self._own.add(work.trial[1])
            if self.search is not None:
                self.search.began(work)
        return work

    def ended(self, spec: RunSpec, run: Run) -> None:
        if run.state is RunState.WAITING:  # whoever has room next may let it go on
            self._own.discard(spec.trial[1])
        if self.search is not None:
            self.search.tell(run)

    def others_work(self) -> bool:
        self._looked_at = 0.0  # a head that died since the last look left what would be forgotten
        return bool(self.stage.tracker.heads.held_elsewhere(self.sweep_id))

    def _listed(self) -> RunSpec | None:
        """The next of the list that no head has tried."""
        if not self.waiting:
            return None
        there = {t.config_hash for t in self.stage.tracker.get_trials(self.sweep_id)}
        while self.waiting:
            p = self.waiting.popleft()
            if p.config_hash in there:  # it must not be what the budget is asked for
                continue
            if not p.proposal.is_free and not self.budget.allows(p.config):
                self.waiting.clear()
                return None
            trial = self.stage.tracker.heads.claim_trial(self.sweep_id, **p.columns())
            if trial is not None:
                return self._spec(p, trial, ())
        return None

    def _searched(self, search: Search) -> RunSpec | None:
        """What the sampler proposes next, claimed under the number it was proposed for."""
        while not self.budget.said and (p := search.next()) is not None:
            if not self.budget.allows(p.config):
                return None
            trial = self.stage.tracker.heads.claim_trial(
                self.sweep_id, **p.columns(), number=search.number
            )
            if trial is not None:
                search.took(trial)
                return self._spec(p, trial, ())
        return None

    def _orphan(self) -> RunSpec | None:
        """A trial that was begun and not ended, and that no living head holds."""
        now = time.monotonic()
        if now - self._looked_at < ORPHANS_EVERY_S or not self._is_shared():
            return None
        for trial in open_trials(self.stage, self.sweep_id, besides=self._own, dead=self.dead):
            found = self._adopt(trial)
            if found is not None:
                return found
        self._looked_at = now  # not before there is none left
        return None

    def _promoted(self, *, is_last_call: bool = False) -> RunSpec | None:
        """A trial that waits and is now among the best where it stands; at the last call, see
        Ladder. None once the budget is spent."""
        judge = self.stage.judge
        ladders = {} if judge is None else judge.ladders
        if not ladders or self.budget.said:
            return None
        waiting = self._look_at_ladders(ladders)
        for ladder in ladders.values():
            for number in ladder.next(is_last_call=is_last_call):
                if number in waiting and (found := self._woken(waiting[number])) is not None:
                    ladder.wake(number)
                    return found
        return None

    def _look_at_ladders(self, ladders: Mapping[str, Ladder]) -> dict[int, list[Run]]:
        """The attempts at each trial that waits, newest first. What other heads have shown, and
        what this sweep had when it went on, is learnt; what runs here is known better."""
        stage = self.stage
        runs = stage.tracker.get_runs(sweep_id=self.sweep_id)
        by_trial: dict[int, list[Run]] = {}
        for run in runs:
            if run.trial_number is not None and run.model_name in ladders:
                by_trial.setdefault(run.trial_number, []).append(run)
        waiting = {}
        for number, found in by_trial.items():
            attempts = attempts_at(found, number, stage.plan.cut.seed)
            if not attempts:
                continue
            if attempts[0].state is RunState.WAITING:
                waiting[number] = attempts
            if number not in self._own:
                self._learn(ladders[attempts[0].model_name], number, attempts)
        return waiting

    def _learn(self, ladder: Ladder, number: int, attempts: Sequence[Run]) -> None:
        newest = attempts[0]
        stands = (newest.run_id, newest.state, newest.training_time_seconds)
        if newest.state is RunState.RUNNING or self._seen.get(number) == stands:
            return
        self._seen[number] = stands
        name, badness = (
            f"tune_{self.stage.plan.objective}",
            METRICS[self.stage.plan.objective].badness,
        )
        series: dict[int, float] = {}
        for run in reversed(attempts):
            curve = self.stage.tracker.get_curve(run.run_id, name)
            series |= {step: badness(value) for step, value in curve}
        ladder.learn(number, newest.state, series)

    def _woken(self, attempts: Sequence[Run]) -> RunSpec | None:
        """A trial that waits, its lease held; None where another head was faster, or the budget is
        spent."""
        run, tracker = attempts[0], self.stage.tracker
        number = int(run.trial_number or 0)
        done = tracker.heads.steps_of(self.sweep_id).get((number, int(run.seed or 0)), (0, False))
        if not self.budget.allows(run.hyperparams, done=done[0]):
            return None
        if not tracker.heads.take_lease(self.sweep_id, number):
            return None
        if tracker.get_run(run.run_id).state is not RunState.WAITING:
            tracker.heads.release_lease(self.sweep_id, number)
            return None
        (trial,) = (t for t in tracker.get_trials(self.sweep_id) if t.number == number)
        (prepared,) = self.prepared_of([trial])
        spec = self._spec(prepared, trial, attempts[1:])
        return replace(spec, attempt=run.attempt, note="", wakes=run.run_id)

    def _is_shared(self) -> bool:
        """Are there trials that this head has not met? Of its own it knows what became."""
        return self.stage.tracker.heads.pulse(self.sweep_id).num_trials > len(self._own)

    def _adopt(self, trial: Trial) -> RunSpec | None:
        tracker = self.stage.tracker
        if not tracker.heads.take_lease(self.sweep_id, trial.number):
            return None
        runs = tracker.get_runs(sweep_id=self.sweep_id, include_hidden=True)
        (prepared,) = self.prepared_of([trial])
        attempts = attempts_at(runs, trial.number, seed_for(self.stage, prepared.proposal.model))
        if not is_open(attempts, self.dead):  # its head ended it while this one looked
            tracker.heads.release_lease(self.sweep_id, trial.number)
            return None
        return self._spec(prepared, trial, attempts)

    def _spec(self, p: Prepared, trial: Trial, attempts: Sequence[Run]) -> RunSpec:
        self._settled[p.config_hash] = p
        seed = seed_for(self.stage, p.proposal.model)
        place = (self.sweep_id, trial.number)
        return next_attempt(self.stage, p, place, seed, attempts, cause=self.leaks.cause(p))

    def prepared_of(self, trials: Sequence[Trial]) -> list[Prepared]:
        """Trials on record as this head would have tried them."""
        new = [t for t in trials if t.config_hash not in self._settled]
        for p in settle(self.stage, new):
            self._settled[p.config_hash] = p
        return [self._settled[t.config_hash] for t in trials]

    def contenders(self) -> list[Contender]:
        """Every config of the sweep that has a complete run under the sweep's own seed, whichever
        head made it, and those that runs of other sweeps made needless."""
        tracker = self.stage.tracker
        runs = tracker.get_runs(sweep_id=self.sweep_id, state=RunState.COMPLETE)
        known = {c.run.run_id for c in self.known}
        mine = {  # of several the first: a later one only repeats it
            r.trial_number: r
            for r in reversed(runs)
            if r.seed == self.stage.plan.cut.seed and r.run_id not in known and not r.reproduces
        }
        trials = [t for t in tracker.get_trials(self.sweep_id) if t.number in mine]
        there = {c.prepared.config_hash for c in self.known}  # another sweep may have made it since
        trials = [t for t in trials if t.config_hash not in there]
        pairs = zip(self.prepared_of(trials), trials, strict=True)
        return [*self.known, *(Contender(p, mine[t.number]) for p, t in pairs)]


def open_trials(
    stage: Stage,
    sweep_id: str,
    *,
    besides: Iterable[int] = (),
    dead: Collection[str] = (),
) -> list[Trial]:
    """Trials of a sweep that are to be tried (again), those aside that living heads hold."""
    tracker = stage.tracker
    passed = {*besides, *tracker.heads.held_elsewhere(sweep_id)}
    trials = [t for t in tracker.get_trials(sweep_id) if t.number not in passed]
    if not trials:
        return []
    tracker.repair()  # a head that died a moment ago
    runs = tracker.get_runs(sweep_id=sweep_id, include_hidden=True)
    return [
        t
        for t in trials
        if is_open(attempts_at(runs, t.number, seed_for(stage, t.model_name)), dead)
    ]


def dead_runs(stage: Stage, sweep_id: str) -> frozenset[str]:
    """The failed runs of a sweep whose process ended without a word."""
    runs = stage.tracker.get_runs(sweep_id=sweep_id, tags=(DIED,), include_hidden=True)
    return frozenset(r.run_id for r in runs)


def skip_known(
    stage: Stage, prepared: Sequence[Prepared]
) -> tuple[list[Contender], deque[Prepared]]:
    """What is on record for the same panel, task and seed, and what is left to try."""
    known: list[Contender] = []
    new: deque[Prepared] = deque()
    for p in prepared:
        earlier = None if p.refused else earlier_run(stage, p, seed_for(stage, p.proposal.model))
        if earlier:
            stage.listen(TrialSkipped(p, earlier))
            known.append(Contender(p, earlier))
        elif not p.refused:
            new.append(p)
    return known, new
