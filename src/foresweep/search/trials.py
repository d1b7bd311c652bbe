"""The trials of a sweep, one after the other: what was broken off, the list, then the search."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from foresweep.records import Run, RunState, Trial
from foresweep.search.adaptive import Search
from foresweep.search.attempt import (
    DIED,
    Assignment,
    attempts_at,
    earlier_run,
    is_open,
    next_attempt,
    seed_for,
)
from foresweep.search.budget import Budget
from foresweep.search.choosing import settle
from foresweep.search.events import TrialSkipped
from foresweep.search.finalists import Contender
from foresweep.search.leaktesting import LeakTests
from foresweep.search.stage import Stage
from foresweep.search.trial import Prepared

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
    _own: set[int] = field(default_factory=set)  # trials that this head has met
    _looked_at: float = 0.0

    def next(self) -> Assignment | None:
        work = self._orphan() or self._listed()
        if work is None and self.search is not None:
            work = self._searched(self.search)
        if work is not None:
            self._own.add(work.trial[1])
            if self.search is not None:
                self.search.began(work)
        return work

    def ended(self, work: Assignment, run: Run) -> None:
        if self.search is not None:
            self.search.tell(run)

    def others_work(self) -> bool:
        return bool(self.stage.tracker.held_elsewhere(self.sweep_id))

    def _listed(self) -> Assignment | None:
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
            trial = self.stage.tracker.claim_trial(self.sweep_id, **columns_of(p))
            if trial is not None:
                return self._assignment(p, trial, ())
        return None

    def _searched(self, search: Search) -> Assignment | None:
        """What the sampler proposes next, claimed under the number it was proposed for."""
        while not self.budget.said and (p := search.next()) is not None:
            if not self.budget.allows(p.config):
                return None
            trial = self.stage.tracker.claim_trial(
                self.sweep_id, **columns_of(p), number=search.number
            )
            if trial is not None:
                search.took(trial)
                return self._assignment(p, trial, ())
        return None

    def _orphan(self) -> Assignment | None:
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

    def _is_shared(self) -> bool:
        """Are there trials that this head has not met? Of its own it knows what became."""
        return self.stage.tracker.pulse(self.sweep_id).num_trials > len(self._own)

    def _adopt(self, trial: Trial) -> Assignment | None:
        tracker = self.stage.tracker
        if not tracker.take_lease(self.sweep_id, trial.number):
            return None
        runs = tracker.get_runs(sweep_id=self.sweep_id, include_hidden=True)
        (prepared,) = self.prepared_of([trial])
        attempts = attempts_at(runs, trial.number, seed_for(self.stage, prepared.proposal.model))
        if not is_open(attempts, self.dead):  # its head ended it while this one looked
            tracker.release_lease(self.sweep_id, trial.number)
            return None
        return self._assignment(prepared, trial, attempts)

    def _assignment(self, p: Prepared, trial: Trial, attempts: Sequence[Run]) -> Assignment:
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
            if r.seed == self.stage.plan.seed and r.run_id not in known and not r.reproduces
        }
        trials = [t for t in tracker.get_trials(self.sweep_id) if t.number in mine]
        there = {c.prepared.config_hash for c in self.known}  # another sweep may have made it since
        trials = [t for t in trials if t.config_hash not in there]
        pairs = zip(self.prepared_of(trials), trials, strict=True)
        return [*self.known, *(Contender(p, mine[t.number]) for p, t in pairs)]


def columns_of(p: Prepared) -> dict[str, Any]:
    """What a trial's record says of a config."""
    return {
        "model": p.proposal.model,
        "config": p.config,
        "config_hash": p.config_hash,
        "train_hash": p.train_hash,
        "source": p.proposal.source,
    }


def open_trials(
    stage: Stage,
    sweep_id: str,
    *,
    besides: Iterable[int] = (),
    dead: Collection[str] = (),
) -> list[Trial]:
    """Trials of a sweep that are to be tried (again), those aside that living heads hold."""
    tracker = stage.tracker
    passed = {*besides, *tracker.held_elsewhere(sweep_id)}
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
