"""The part of a sweep that learns: configs are proposed one by one from what has come so far."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from foresweep.records import Run, RunState, Trial
from foresweep.search.events import SpaceNarrowed
from foresweep.search.plan import SweepPlan
from foresweep.search.propose.focus import Focus, focus
from foresweep.search.propose.modes import ADAPTIVE, FOCUSED, load_spaces, within
from foresweep.search.propose.tpe import (
    MOST_ATTEMPTS,
    Rounds,
    Sampler,
    Told,
    TpeSampler,
    earlier_runs,
    tell_all,
    told_of,
)
from foresweep.search.running.head import attempts_at, is_open, seed_for
from foresweep.search.stage import Stage, prepare_some
from foresweep.search.trial import Prepared, RunSpec
from foresweep.space import SearchSpace
from foresweep.tracker.tracker import Tracker

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Search:
    """One head's side of the search. Not frozen: it knows what was tried, here and elsewhere."""

    stage: Stage
    sweep_id: str
    fresh: Callable[[], Sampler]
    """A sampler that was told nothing."""
    budget: int
    """Trials that are proposed here, at most, of all heads together."""
    known: set[str] = field(default_factory=set)
    """Configs, by hash, that were tried or are on record."""
    number: int = 0
    """Of the trial that was proposed last."""
    told: list[Told] = field(default_factory=list)
    running: dict[int, Told] = field(default_factory=dict)  # by trial number
    proposed: int = 0
    sampler: Sampler = field(init=False)
    _met: set[int] = field(default_factory=set)  # trials of this head, and others' that ended
    _last: int = 0
    _stands: dict[int, tuple[object, ...]] = field(default_factory=dict)  # of those that wait
    _used_up: tuple[int, int, int] | None = None
    """What was known when nothing was found: it is not asked again before there is more."""

    def __post_init__(self) -> None:
        self.sampler = self.fresh()

    def next(self) -> Prepared | None:
        """The next config, ready to be tried as trial `number`; None: the budget or the space is
        used up."""
        self.number = self._look_around() + 1
        asked = (self.number, len(self.told), len(self.running))
        if self.proposed >= self.budget or asked == self._used_up:
            return None
        for attempt in range(MOST_ATTEMPTS):
            running = [self.running[n] for n in sorted(self.running)]
            proposal = self.sampler.ask(self.number, running, attempt=attempt)
            if proposal is None:
                break
            (found,) = prepare_some(self.stage, (proposal,))
            if found.refused:
                logger.info("%s %s: %s", proposal.model, dict(proposal.config), found.refused)
            elif found.config_hash not in self.known:
                return found
        self._used_up = asked
        return None

    def took(self, trial: Trial) -> None:
        """The config proposed last is a trial of this head."""
        self.proposed += 1
        self.known.add(trial.config_hash)

    def began(self, work: RunSpec) -> None:
        """A trial of this head runs."""
        number, p = work.trial[1], work.prepared
        self._met.add(number)
        self.known.add(p.config_hash)  # one that was taken over was not proposed here
        if not self._is_told(number):  # of one that waited it is known how far it came
            self.running[number] = Told(p.proposal.model, p.config, RunState.RUNNING, number=number)

    def tell(self, run: Run) -> None:
        """Take note of a trial that ended, or waits: then it may be told once more."""
        tracker, objectives = self.stage.tracker, self.stage.plan.objectives
        number = int(run.trial_number or 0)
        self.running.pop(number, None)
        if run.state is RunState.WAITING:
            self._met.discard(number)
            self._stands[number] = _stand(run)
        self.learn([told_of(run, tracker, objectives, sweep_id=self.sweep_id)])

    def learn(self, found: Iterable[Told]) -> None:
        """Tell the sampler. What it is told is always in the order of the trials, whoever ended
        first: the same results give the same proposals."""
        for told in sorted(found, key=lambda t: t.number or 0):
            again = told.number is not None and self._is_told(told.number)
            if again:
                self.told = [t for t in self.told if t.number != told.number]
            self.told.append(told)
            if again or (told.number is not None and told.number < self._last):
                self.sampler = self.fresh()
                tell_all(self.sampler, self.told)
            else:
                self.sampler.tell(told)
            self._last = max(self._last, told.number or 0)

    def _is_told(self, number: int) -> bool:
        return any(t.number == number for t in self.told)

    def _look_around(self) -> int:
        """How many trials the sweep has; what other heads have begun and ended is noted."""
        tracker = self.stage.tracker
        num_trials = tracker.heads.pulse(self.sweep_id).num_trials
        if num_trials == len(self._met):
            return num_trials
        runs = tracker.get_runs(sweep_id=self.sweep_id, include_hidden=True)
        trials = tracker.get_trials(self.sweep_id)
        others = [t for t in trials if t.number not in self._met]
        held = set(tracker.heads.held_elsewhere(self.sweep_id)) if others else set()
        by_trial: dict[int | None, list[Run]] = {}
        for run in runs:
            by_trial.setdefault(run.trial_number, []).append(run)
        for trial in others:
            self._note(trial, by_trial.get(trial.number, []), is_held=trial.number in held)
        self.proposed = sum(t.source == self.stage.plan.mode for t in trials)
        return len(trials)

    def _note(self, trial: Trial, runs: Iterable[Run], *, is_held: bool) -> None:
        """A trial of another head: running, or ended and told."""
        self.known.add(trial.config_hash)
        attempts = attempts_at(runs, trial.number, seed_for(self.stage, trial.model_name))
        if (is_held or is_open(attempts)) and self._is_told(trial.number):
            return  # it waited, and goes on elsewhere
        if is_held or is_open(attempts):
            self.running[trial.number] = Told(
                trial.model_name, trial.config, RunState.RUNNING, number=trial.number
            )
            return
        newest, is_told = attempts[0], self._is_told(trial.number)
        if newest.state is not RunState.WAITING:
            self._met.add(trial.number)
        if not is_told or self._stands.get(trial.number, _stand(newest)) != _stand(newest):
            self.tell(newest)
        self.running.pop(trial.number, None)
        self._stands[trial.number] = _stand(newest)


def _stand(run: Run) -> tuple[object, ...]:
    """Differs once a run that waited has gone on."""
    return run.run_id, run.state, run.training_time_seconds


def begin(
    stage: Stage,
    sweep_id: str,
    prepared: Iterable[Prepared],
    spaces: Mapping[str, SearchSpace | Focus],
) -> Search:
    """The search of a sweep that begins with `prepared`: earlier runs on the same windows, those of
    this sweep among them, are told first."""
    plan, tracker = stage.plan, stage.tracker
    spent = [p for p in prepared if not p.refused and not p.proposal.is_free]
    search = Search(stage, sweep_id, partial(_samplers, plan, spaces), plan.budget - len(spent))
    told: list[Told] = []
    for model in plan.trained:
        runs = earlier_runs(
            tracker, model=model, fingerprints=stage.ground.fingerprints, base=plan.base
        )
        told += [told_of(r, tracker, plan.objectives, sweep_id=sweep_id) for r in runs]
        if plan.again:  # what another sweep trained may be trained once more, not what this one did
            runs = [r for r in runs if r.sweep_id == sweep_id]
        search.known |= {r.config_hash for r in runs}
    search.learn(told)
    search.known |= {p.config_hash for p in spent}
    return search


def search_spaces(
    plan: SweepPlan,
    tracker: Tracker,
    fingerprints: Mapping[str, str],
    *,
    before: datetime | None = None,
) -> dict[str, SearchSpace | Focus]:
    """What each model of an adaptive sweep is searched in; {} in other modes. `before` leaves out
    later runs, so that a sweep that goes on is narrowed as it was.

    Raises SpaceError for a model with nothing to draw from, UsageError where a space is to be
    narrowed and too few runs are known.
    """
    if plan.mode not in ADAPTIVE or plan.proposals:
        return {}
    found: dict[str, SearchSpace | Focus] = {}
    files = load_spaces(plan.trained, plan.start, plan.mode, plan.spaces)
    for model, file in files.items():
        space = within(file.space, plan.step_cap, plan.cut.max_context)
        if plan.mode == FOCUSED:
            runs = earlier_runs(tracker, model=model, fingerprints=fingerprints, base=plan.base)
            if before is not None:
                runs = [r for r in runs if r.finished_at is not None and r.finished_at <= before]
            told = [told_of(r, tracker, plan.objectives, sweep_id="") for r in runs]
            found[model] = focus(model, space, told, plan.objective)
        else:
            found[model] = space
    return found


def write_narrowed(stage: Stage, sweep_id: str, spaces: Mapping[str, SearchSpace | Focus]) -> None:
    """Keep the spaces that were narrowed as sweep files, to be looked at and edited."""
    for model, narrowed in spaces.items():
        if isinstance(narrowed, Focus):
            file = stage.runs_dir / "spaces" / f"{sweep_id}-{model}.toml"
            file.parent.mkdir(exist_ok=True)
            file.write_text(narrowed.as_toml(stage.plan.objective), "utf-8")
            stage.listen(SpaceNarrowed(model, narrowed.num_runs, file))


def _samplers(plan: SweepPlan, spaces: Mapping[str, SearchSpace | Focus]) -> Rounds:
    """One sampler a model, told nothing."""
    return Rounds(
        {
            model: TpeSampler(
                model,
                found.space if isinstance(found, Focus) else found,
                objectives=plan.objectives,
                base=plan.base,
                seed=plan.cut.seed,
                source=plan.mode,
                at_edge=plan.mode != FOCUSED,
            )
            for model, found in spaces.items()
        }
    )
