"""A run on record, trained once more to see whether it gives the same scores.

The second training is a further run of the same trial, its source says of which: no count of trials
grows by it, and wherever runs compete the original stands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from foresweep.errors import PanelChanged, SearchError, UsageError
from foresweep.models.registry import ENSEMBLE
from foresweep.models.training.loop import clear_states
from foresweep.records import REPRODUCES, Run, RunState, Sweep
from foresweep.search.engines.base import TaskFailed, run_task
from foresweep.search.engines.local import LocalEngine
from foresweep.search.events import Listener
from foresweep.search.propose.modes import Proposal
from foresweep.search.running.head import MOST_DEATHS
from foresweep.search.running.once import drive_once, plan_of, require_complete
from foresweep.search.stage import (
    CONTAMINATED,
    Stage,
    reopen,
    require_writable,
    set_stage,
)
from foresweep.search.trial import CHECKPOINT, Prepared, RunSpec, Settle
from foresweep.tracker.tracker import Tracker

PLACES = ("git_commit", "python", "platform", "cpu_model", "gpu_models")
"""What of an environment may move a score, beside its packages."""


@dataclass(frozen=True, slots=True)
class Versions:
    """Something that is not what it was when the run was trained."""

    name: str
    then: str  # "none" where it was not there
    now: str


@dataclass(frozen=True, slots=True)
class Compared:
    """A score of both trainings, in its metric's unit; None where it is undefined or not there."""

    name: str
    then: float | None
    now: float | None

    @property
    def difference(self) -> float | None:
        """Now less then; None where one is missing."""
        return None if self.then is None or self.now is None else self.now - self.then

    @property
    def share(self) -> float:
        """|difference| over the larger of the two; infinite where one is missing."""
        if self.then == self.now:
            return 0.0
        if self.then is None or self.now is None:
            return math.inf
        return abs(self.now - self.then) / max(abs(self.then), abs(self.now))


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What came of training a run once more."""

    original: Run
    again: Run
    versions: tuple[Versions, ...]  # what differs
    scores: tuple[Compared, ...]  # tune and val, by name
    is_test_equal: bool | None  # to the last bit; None: one has none on record

    @property
    def is_bit_for_bit(self) -> bool:
        """Is every score the same to the last bit, the sealed ones included?"""
        return self.is_test_equal is not False and all(s.share == 0 for s in self.scores)

    @property
    def worst(self) -> Compared | None:
        """The score with the largest difference, as a share of the score; None without scores."""
        return max(self.scores, key=lambda s: s.share, default=None)

    def in_words(self) -> str:
        """The outcome in half a sentence."""
        if self.is_bit_for_bit:
            return f"reproduced bit for bit, all {len(self.scores)} scores of tune and val"
        worst = self.worst
        if worst is None or worst.share == 0:
            return "not reproduced bit for bit: scores of test differ, those of tune and val do not"
        how = "is undefined in one of them"
        if math.isfinite(worst.share):
            how = f"the most, by {100 * worst.share:.2g} %"
        num = sum(s.share > 0 for s in self.scores)
        return (
            f"not reproduced bit for bit: {num} of {len(self.scores)} scores differ, {worst.name} "
            f"{how}"
        )


def reproduce(run: Run, *, tracker: Tracker, runs_dir: Path, listen: Listener) -> Reproduction:
    """Train a run from its record: the same bars and cut, config, seed and resources. Forecasts of
    weights that the run took from an earlier one are made of weights trained anew. The model's leak
    test is not repeated.

    Raises UsageError for a run that cannot be trained again, PanelChanged where the bars are not
    there, SearchError where the config or its weights are not what they were, or where the training
    did not come to its end (it is on record with its cause).
    """
    sweep = _sweep_of(run, tracker)
    plan = plan_of(run, sweep, again=True)
    require_writable(runs_dir)
    engine = LocalEngine(plan.models)
    engine.warm_up()
    try:
        panel, _ = reopen(sweep, runs_dir)
        stage = set_stage(plan, tracker, engine, runs_dir, panel, listen)
        again = drive_once(stage, _spec_of(run, stage))
    finally:
        engine.close()
    clear_states(stage.folder_of(again.run_id) / CHECKPOINT)  # nothing will go on from here
    require_complete(again, "the second training")
    return _compared(run, again, tracker)


def _spec_of(run: Run, stage: Stage) -> RunSpec:
    """A further run of the same trial, whose lease this process holds.

    Raises PanelChanged where the windows are not what they were, SearchError where config and
    weights are not, or another process trains the trial.
    """
    found = stage.ground.fingerprints
    if any(run.fingerprints.get(part) != there for part, there in found.items()):
        raise PanelChanged(
            f"run {run.run_id} was scored on other windows, or by an earlier version of the "
            f"metrics: its scores and new ones cannot be held against each other; sweep again"
        )
    proposal = Proposal(run.model_name, run.hyperparams, f"{REPRODUCES}: {run.run_id}")
    known = Prepared(proposal, run.hyperparams, run.config_hash, run.train_hash)
    task = Settle((known,), stage.plan.pretrain_cutoff, anew=True)
    try:
        (prepared,) = run_task(stage.engine, task, log=stage.runs_dir / "prepare.log")
    except TaskFailed as error:
        raise SearchError(f"run {run.run_id} cannot be trained again: {error}") from error
    if prepared.config_hash != run.config_hash:
        raise SearchError(
            f"run {run.run_id} cannot be trained again: the hyperparameters of {run.model_name} or "
            f"the pretrained weights are not what they were (its config_hash is another); compare "
            f"with: foresweep show {run.run_id}"
        )
    trial = str(run.sweep_id), int(run.trial_number or 0)
    if not stage.tracker.heads.take_lease(*trial):
        raise SearchError(
            f"another process trains trial {trial[1]} of sweep {trial[0]} now; wait for its end"
        )
    same = stage.tracker.get_runs(run.model_name, sweep_id=trial[0], include_hidden=True)
    attempts = [r.attempt for r in same if (r.trial_number, r.seed) == (trial[1], run.seed)]
    return RunSpec(
        ground=stage.ground,
        prepared=prepared,
        seed=int(run.seed or 0),
        resources=stage.plan.resources,
        trial=trial,
        attempt=max(attempts) + 1,
        deaths=MOST_DEATHS,  # no further attempt: it is asked for by hand
        tags=tuple(tag for tag in run.tags if tag == CONTAMINATED),
    )


def _sweep_of(run: Run, tracker: Tracker) -> Sweep:
    """The sweep that says on which bars a run was trained. Raises UsageError where there is nothing
    to train, or nothing to hold it against."""
    if run.reproduces is not None:
        raise UsageError(f"run {run.run_id} reproduces {run.reproduces}: reproduce that one")
    if run.continues is not None:
        raise UsageError(
            f"run {run.run_id} goes on where {run.continues} ended, with a state that is not its "
            f"own: reproduce {run.continues}"
        )
    if run.model_name == ENSEMBLE:
        members = ", ".join(run.hyperparams.get("members", ())) or "those it was made of"
        raise UsageError(
            f"run {run.run_id} is an ensemble, which trains nothing: reproduce its members "
            f"({members})"
        )
    if run.sweep_id is None or run.trial_number is None:
        raise UsageError(
            f"run {run.run_id} was logged by hand: nothing says on which bars and how it was "
            f"trained, so it cannot be trained again; runs of sweep and train can"
        )
    if run.state != RunState.COMPLETE:
        raise UsageError(
            f"run {run.run_id} is {run.state.value}: it has no scores to hold a second training "
            f"against; those that have: foresweep runs --state complete"
        )
    return tracker.get_sweep(run.sweep_id)


def _compared(run: Run, again: Run, tracker: Tracker) -> Reproduction:
    """Both runs side by side; what came of it is noted with both."""
    places = (tracker.get_environment(run.run_id), tracker.get_environment(again.run_id))
    names = [n for n in again.metrics if n in run.metrics]  # others were added by hand, or later
    found = Reproduction(
        original=run,
        again=again,
        versions=differing(*places),
        scores=tuple(Compared(n, run.score(n), again.score(n)) for n in sorted(names)),
        is_test_equal=tracker.judgings.has_equal_test(again.run_id),
    )
    tracker.add_note(again.run_id, f"trains {run.run_id} once more: {found.in_words()}")
    tracker.add_note(run.run_id, f"trained once more as {again.run_id}: {found.in_words()}")
    return found


def differing(then: Mapping[str, object], now: Mapping[str, object]) -> tuple[Versions, ...]:
    """What two environments on record differ in: code, Python, machine, and package by package."""
    packages = [p if isinstance(p := e.get("packages"), Mapping) else {} for e in (then, now)]
    named = {n: (packages[0].get(n), packages[1].get(n)) for n in {**packages[0], **packages[1]}}
    named |= {n: (then.get(n), now.get(n)) for n in PLACES}
    return tuple(Versions(n, _word(a), _word(b)) for n, (a, b) in sorted(named.items()) if a != b)


def _word(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value) or "none"
    return "none" if value is None else str(value)
