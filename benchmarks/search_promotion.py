"""Asynchronous halving that pauses and promotes, replayed by the sweep's own classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.trial import TrialState
from search_curves import MODEL, Curves
from search_replay import OBJECTIVE, RACE, Ledger, Make, priority_configs, tpe

from foresweep.records import RunState
from foresweep.search.propose.tpe import Told, TpeSampler
from foresweep.search.running.promotion import KEEPS, RUNGS, Ladder
from foresweep.search.running.pruning import Racing

SERIES, ONE_RUNG = "series", "one rung"


@dataclass(slots=True)
class Trial:
    """A training that may wait. Not frozen: it goes on."""

    number: int
    index: int  # of the recorded config
    scorings: int = 0
    state: RunState = RunState.RUNNING


@dataclass(frozen=True, slots=True)
class Promoting:
    """`--pruning promotion` with one worker: who waits and should go on comes first, else a new
    trial is begun. The sampler hears of all of them, as far as they have come."""

    rungs: tuple[int, ...] = RUNGS
    keeps: float = KEEPS
    sampler: Make | None = tpe
    priority: bool = False
    racing: Callable[[], Racing] | None = None
    told: str = SERIES

    def __call__(self, ledger: Ledger, seed: int) -> None:
        curves, rng = ledger.curves, np.random.default_rng(seed)
        learner = None if self.sampler is None else _Learner(self.sampler(curves, seed))
        ladder, racing = Ladder(self.rungs, self.keeps), self.racing() if self.racing else None
        first = priority_configs(curves) if self.priority else []
        trials: list[Trial] = []
        while True:
            if waking := ladder.next():
                trial = trials[waking[0] - 1]
                ladder.wake(trial.number)
            else:
                config = first.pop(0) if first else self._drawn(trials, curves, learner, rng)
                trial = Trial(len(trials) + 1, ledger.nearest(config))
                trials.append(trial)
            _go_on(trial, ledger, ladder, racing)

    def _drawn(
        self,
        trials: Sequence[Trial],
        curves: Curves,
        learner: _Learner | None,
        rng: np.random.Generator,
    ) -> Mapping[str, Any]:
        if learner is None:
            return curves.space.sample(rng)
        learner.learn(_by_rung(trials, curves) if self.told == ONE_RUNG else _told(trials, curves))
        proposal = learner.tpe.ask(len(trials) + 1)
        assert proposal is not None
        return proposal.config


def _go_on(trial: Trial, ledger: Ledger, ladder: Ladder, racing: Racing | None) -> None:
    """Train until the trial has to wait or is over."""
    curves, number = ledger.curves, trial.number
    for k in range(trial.scorings, len(curves.steps)):
        ledger.pay(k)
        trial.scorings, value = k + 1, float(curves.tune[trial.index, k])
        if not np.isfinite(value):
            trial.state = RunState.FAILED
            return
        ladder.hear(number, curves.steps[k], value)
        lost = None
        if racing is not None:
            losses = {OBJECTIVE: tuple(curves.origins[trial.index, k].tolist())}
            lost = racing.should_prune(number, curves.steps[k], {}, losses)
        if trial.scorings == len(curves.steps):
            trial.state = RunState.COMPLETE
            ledger.finish(trial.index)
            best = float(np.nanmin(curves.tune[trial.index]))
        elif lost:
            trial.state, best = RunState.PRUNED, None
        elif ladder.stops(number, curves.steps[k]):
            trial.state = RunState.WAITING
            ladder.learn(number, trial.state)
            return
        else:
            continue
        ladder.learn(number, trial.state)
        if racing is not None:
            racing.end(number, best)
        return


def _told(trials: Sequence[Trial], curves: Curves) -> list[Told]:
    """As a sweep's sampler is told: of whole trainings the best, of others how far they came."""
    found = []
    for t in trials:
        seen, config = curves.tune[t.index, : t.scorings], curves.configs[t.index]
        if t.state is RunState.COMPLETE:
            scores = {OBJECTIVE: float(np.nanmin(seen))}
            found.append(Told(MODEL, config, t.state, scores, {}, t.number))
            continue
        series = {curves.steps[k]: {OBJECTIVE: float(v)} for k, v in enumerate(seen)}
        found.append(Told(MODEL, config, t.state, {}, series, t.number))
    return found


def _by_rung(trials: Sequence[Trial], curves: Curves) -> list[Told]:
    """As BOHB (Falkner et al. 2018): values of one rung alone, the highest that enough trials have
    come to."""
    enough, whole = len(curves.space.dimensions) + 2, len(curves.steps)
    counts = [sum(t.scorings >= r for t in trials) for r in (*RUNGS, whole)]
    rung = max((r for r, n in zip((*RUNGS, whole), counts, strict=True) if n >= enough), default=1)
    return [
        Told(
            MODEL,
            curves.configs[t.index],
            RunState.COMPLETE,
            {OBJECTIVE: float(np.nanmin(curves.tune[t.index, :rung]))},
            {},
            t.number,
        )
        for t in trials
        if t.scorings >= rung and t.state is not RunState.FAILED
    ]


@dataclass(slots=True)
class _Learner:
    """A sampler whose tellings may change. A sweep makes a new one then; here what was told of a
    trial that went on is replaced in its study, which proposes the same and is ten times faster."""

    tpe: TpeSampler
    told: dict[int, tuple[Told, int]] = field(default_factory=dict)  # by trial; place in the study

    def learn(self, tellings: Sequence[Told]) -> None:
        storage: Any = self.tpe.study._storage
        trials = storage._studies[self.tpe.study._study_id].trials
        now = {int(t.number or 0): t for t in tellings}
        for number, (_, place) in list(self.told.items()):
            if number not in now:  # of another rung: TPE looks past what failed
                trials[place].state = TrialState.FAIL
                del self.told[number]
        for number, told in now.items():
            if number not in self.told:
                self.told[number] = (told, len(trials))
                self.tpe.tell(told)
            elif self.told[number][0] != told:
                place = self.told[number][1]
                new = self.tpe._frozen(told)
                new.number, new._trial_id = trials[place].number, trials[place]._trial_id
                trials[place] = new
                self.told[number] = (told, place)


def promotions() -> dict[str, Promoting]:
    """What the rule's constants were chosen among, on the curves of Chronos-2."""
    rungs = {"3 rungs, one in 2": ((1, 2, 4), 2), "rungs 1 and 3, one in 3": ((1, 3), 3)}
    rungs |= {"from the second scoring, one in 2": ((2, 4), 2), "rung 2, one in 3": ((2,), 3)}
    found = {}
    for name, (at, keeps) in rungs.items():
        for told in (SERIES, ONE_RUNG):
            label = f"TPE alone, promotion, {name}, learning by {told}"
            found[label] = Promoting(at, keeps, told=told)
        found[f"random, promotion, {name}"] = Promoting(at, keeps, sampler=None)
        found[f"TPE alone, promotion, {name}, racing"] = Promoting(at, keeps, racing=RACE)
    return found
