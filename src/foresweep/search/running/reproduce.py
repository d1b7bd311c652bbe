"""A run on record, trained once more to see whether it gives the same scores.

The second training is a further run of the same trial, its source says of which: no count of trials
grows by it, and wherever runs compete the original stands.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from foresweep.data.splits import PARTS
from foresweep.data.windows import Windows
from foresweep.errors import ForesweepError, PanelChanged, SearchError, UsageError
from foresweep.models.base import Resources, config_hash, make_config
from foresweep.models.checkpoint import Cutoff, weights_cutoff
from foresweep.models.registry import ENSEMBLE, get_model
from foresweep.models.training.loop import clear_states
from foresweep.records import REPRODUCES, Run, RunState, Sweep
from foresweep.search.engines.base import Channel, Engine, Progress, TaskFailed, run_task
from foresweep.search.engines.local import LocalEngine
from foresweep.search.events import Listener, TrialFinished, TrialProgressed, TrialStarted
from foresweep.search.stage import (
    CONTAMINATED,
    ground_of,
    keep_panel,
    panel_file,
    reopen,
    require_writable,
)
from foresweep.search.trial import CHECKPOINT, Trial, TrialResult
from foresweep.tracker.tracker import Heartbeat, Tracker

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
    require_writable(runs_dir)
    engine = LocalEngine((run.model_name,))
    engine.warm_up()
    try:
        panel = _same_panel(run, sweep, runs_dir)
        cutoff = _same_config(run, sweep, engine, runs_dir)
        again = _open(run, tracker)
        listen(TrialStarted(again))
        task = Trial(
            ground=ground_of(sweep, panel),
            model=run.model_name,
            config=run.hyperparams,
            resources=Resources(**run.resources),
            seed=int(run.seed or 0),
            out=(runs_dir / again.run_id).resolve(),
            run_id=again.run_id,
            fingerprints=run.fingerprints,
            cutoff=cutoff,
        )
        with Heartbeat(tracker, (again.run_id,)):
            again = _train(task, again, tracker, engine, listen)
    finally:
        engine.close()
    listen(TrialFinished(again))
    return _compared(run, again, tracker)


def _same_panel(run: Run, sweep: Sweep, runs_dir: Path) -> Path:
    """The file of the very bars that a run was trained on. Raises PanelChanged where they are gone
    or cut or scored otherwise."""
    panel, split = reopen(sweep, runs_dir)
    windows = {p: Windows(panel, split, split.part(p)) for p in PARTS if p != "train"}
    if any(run.fingerprints.get(p) != w.fingerprint for p, w in windows.items()):
        raise PanelChanged(
            f"run {run.run_id} was scored on other windows, or by an earlier version of the "
            f"metrics: its scores and new ones cannot be held against each other; sweep again"
        )
    file = panel_file(runs_dir, panel)
    keep_panel(file, panel)
    return file


def _same_config(run: Run, sweep: Sweep, engine: Engine, runs_dir: Path) -> Cutoff | None:
    """Up to when the run's weights know the world. Raises SearchError where config and weights are
    not what they were."""
    task = Known(run.model_name, run.hyperparams, sweep.plan.get("pretrain_cutoff"))
    try:
        made: Made = run_task(engine, task, log=runs_dir / "prepare.log")
    except TaskFailed as error:
        raise SearchError(f"run {run.run_id} cannot be trained again: {error}") from error
    if made.config_hash != run.config_hash:
        raise SearchError(
            f"run {run.run_id} cannot be trained again: the hyperparameters of {run.model_name} or "
            f"the pretrained weights are not what they were (its config_hash is another); compare "
            f"with: foresweep show {run.run_id}"
        )
    return made.cutoff


@dataclass(frozen=True, slots=True)
class Made:
    """What a config comes to today."""

    config_hash: str
    cutoff: Cutoff | None


@dataclass(frozen=True, slots=True)
class Known:
    """Task: hash a resolved config as it is on record. Done in a worker: it reads weights."""

    model: str
    config: Mapping[str, object]
    said_cutoff: str | None

    def __call__(self, channel: Channel) -> Made:
        model = get_model(self.model)
        config = make_config(model.Config, self.config, model=self.model)
        weights = model.weights_hash(config)
        return Made(
            config_hash(config, model=self.model, weights_hash=weights),
            weights_cutoff(model, config, self.said_cutoff),
        )


def _sweep_of(run: Run, tracker: Tracker) -> Sweep:
    """The sweep that says on which bars a run was trained. Raises UsageError where there is nothing
    to train, or nothing to hold it against."""
    if run.reproduces is not None:
        raise UsageError(f"run {run.run_id} reproduces {run.reproduces}: reproduce that one")
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


def _open(run: Run, tracker: Tracker) -> Run:
    """A running run of the same trial, whose lease this process holds. Raises SearchError."""
    trial = str(run.sweep_id), int(run.trial_number or 0)
    if not tracker.heads.take_lease(*trial):
        raise SearchError(
            f"another process trains trial {trial[1]} of sweep {trial[0]} now; wait for its end"
        )
    same = tracker.get_runs(run.model_name, sweep_id=trial[0], include_hidden=True)
    attempts = [r.attempt for r in same if (r.trial_number, r.seed) == (trial[1], run.seed)]
    return tracker.start_run(
        model=run.model_name,
        hyperparams=run.hyperparams,
        sweep_id=trial[0],
        trial_number=trial[1],
        seed=run.seed,
        attempt=max(attempts) + 1,
        config_hash=run.config_hash,
        train_hash=run.train_hash,
        panel_hash=run.panel_hash,
        task_hash=run.task_hash,
        fingerprints=run.fingerprints,
        resources=run.resources,
        source=f"{REPRODUCES}: {run.run_id}",
        tags=[tag for tag in run.tags if tag == CONTAMINATED],
        is_baseline=run.is_baseline,
    )


def _train(task: Trial, run: Run, tracker: Tracker, engine: Engine, listen: Listener) -> Run:
    """The run with what came of it on record. Raises SearchError where it is no scores."""

    def on_progress(progress: Progress) -> None:
        tracker.log(run.run_id, progress.step, progress.scores)
        listen(TrialProgressed(run, progress.step, progress.scores))

    started = time.perf_counter()
    try:
        result: TrialResult = run_task(
            engine, task, log=task.out / "training.log", on_progress=on_progress, beside=False
        )
    except KeyboardInterrupt:
        tracker.cancel_run(run.run_id)
        raise
    except ForesweepError as error:
        cause = error.failed.traceback if isinstance(error, TaskFailed) else str(error)
        tracker.finish_run(run.run_id, RunState.FAILED, error=cause)
        raise SearchError(
            f"the second training failed: {error}; it is on record: foresweep show {run.run_id}"
        ) from error
    finally:
        clear_states(task.out / CHECKPOINT)  # nothing will go on from here
    return tracker.finish_run(
        run.run_id,
        RunState.COMPLETE,
        scores=result.scores,
        checkpoint_path=result.checkpoint_path,
        forecasts_path=task.out,
        training_time_seconds=result.training_time_s,
        duration_seconds=time.perf_counter() - started,
        peak_memory_mb=result.peak_memory_mb,
    )


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
