"""One run of a trial, from its first line on record to its last.

A trial may need several attempts: its process was killed, its head died, somebody stopped the
sweep. Each is a run of its own, and goes on from what the one before left.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from foresweep.errors import TrackerError
from foresweep.models.base import Resources
from foresweep.models.registry import BASELINES
from foresweep.models.training_state import clear_states
from foresweep.records import Run, RunState
from foresweep.search.contamination import CONTAMINATED, is_contaminated
from foresweep.search.stage import Stage
from foresweep.search.trial import CHECKPOINT, Prepared, Trial, TrialResult
from foresweep.tracker.hardware import SystemWatch

logger = logging.getLogger(__name__)

EQUALS_LAST_VALUE = "equals last-value"
"""Tag of a trained run whose medians are all the last close: point metrics do not rank it."""
SYSTEM_EVERY_S = 30.0
HEAD_MEMORY = "system/process_memory_mb"  # of this process, not of the one that trains
DIED = "process died"
"""Tag of a failed run that ended without a word."""
MOST_DEATHS = 1
"""Of a trial's process that are answered by another attempt."""
BROKEN_OFF = (RunState.LOST, RunState.CANCELLED)
"""Ends of a run that say nothing of its config: the trial is still to be done."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What is to be run next: an attempt at a trial whose lease this process holds."""

    prepared: Prepared
    trial: tuple[str, int]  # sweep id, number
    seed: int
    resources: Resources
    attempt: int = 1
    earlier: tuple[str, ...] = ()  # run ids of attempts that were broken off, newest first
    deaths: int = 0  # of its process, in this head
    note: str = ""  # why it is tried once more
    cause: str = ""  # why it cannot be run at all


@dataclass(frozen=True, slots=True)
class Attempt:
    """A run that goes on."""

    assignment: Assignment
    run: Run
    out: Path
    started: float
    watch: SystemWatch


def seed_for(stage: Stage, model: str) -> int:
    """Baselines draw nothing: under one seed they are run once for all sweeps of a task."""
    return 0 if model in BASELINES else stage.plan.seed


def attempts_at(runs: Iterable[Run], number: int, seed: int) -> list[Run]:
    """The runs of a trial under a seed, newest attempt first; those that only reproduce another
    aside."""
    mine = [r for r in runs if (r.trial_number, r.seed) == (number, seed) and r.reproduces is None]
    return sorted(mine, key=lambda r: (r.attempt, r.run_id), reverse=True)


def is_open(attempts: Sequence[Run], dead: Collection[str] = ()) -> bool:
    """Is a trial still to be done? Its attempts, newest first: none; or the newest was broken off;
    or its process died, and its head too before the second attempt it was due; or it is one of the
    `dead` that somebody asks to be tried once more."""
    if not attempts or attempts[0].state in BROKEN_OFF:
        return True
    died = [r for r in attempts if DIED in r.tags]
    due = DIED in attempts[0].tags and len(died) <= MOST_DEATHS
    return due or attempts[0].run_id in dead


def next_attempt(
    stage: Stage,
    prepared: Prepared,
    trial: tuple[str, int],
    seed: int,
    attempts: Sequence[Run],
    *,
    cause: str = "",
) -> Assignment:
    """The first attempt at a trial, or the one after `attempts` (newest first)."""
    newest = attempts[0] if attempts else None
    return Assignment(
        prepared=prepared,
        trial=trial,
        seed=seed,
        resources=stage.plan.resources,
        attempt=newest.attempt + 1 if newest else 1,
        earlier=tuple(r.run_id for r in attempts),
        note=f"attempt {newest.attempt + 1} goes on from {newest.run_id}" if newest else "",
        cause=cause,
    )


def earlier_run(stage: Stage, prepared: Prepared, seed: int) -> Run | None:
    """The run that makes another needless; None where it is to be trained once more."""
    if stage.plan.again:
        return None
    return stage.tracker.find_trained(
        train_hash=prepared.train_hash,
        config_hash=prepared.config_hash,
        panel_hash=stage.panel_hash,
        task_hash=stage.task_hash,
        seed=seed,
    )


def open_run(stage: Stage, work: Assignment) -> Run:
    """Put the run on record."""
    prepared = work.prepared
    run = stage.tracker.start_run(
        model=prepared.proposal.model,
        hyperparams=prepared.config,
        sweep_id=work.trial[0],
        trial_number=work.trial[1],
        seed=work.seed,
        attempt=work.attempt,
        config_hash=prepared.config_hash,
        train_hash=prepared.train_hash,
        panel_hash=stage.panel_hash,
        task_hash=stage.task_hash,
        fingerprints=stage.fingerprints,
        resources=dataclasses.asdict(work.resources),
        source=prepared.proposal.source,
        tags=(CONTAMINATED,) if is_contaminated(stage, prepared) else (),
    )
    for note in filter(None, (prepared.proposal.note, work.note)):
        stage.tracker.add_note(run.run_id, note)
    return run


def begin(stage: Stage, work: Assignment, run: Run) -> tuple[Attempt, Trial]:
    """The attempt and the task to be started for it."""
    out = folder_of(stage, run.run_id)
    task = Trial(
        ground=stage.ground,
        model=work.prepared.proposal.model,
        config=work.prepared.config,
        resources=work.resources,
        seed=work.seed,
        out=out,
        run_id=run.run_id,
        fingerprints=stage.fingerprints,
        cutoff=work.prepared.cutoff,
        trained=_same_training(stage, run, work.prepared),
        earlier=tuple(folder_of(stage, run_id) for run_id in work.earlier),
    )
    watch = SystemWatch(_teller(stage, run.run_id), every_s=SYSTEM_EVERY_S)
    watch.start()
    return Attempt(work, run, out, time.perf_counter(), watch), task


def folder_of(stage: Stage, run_id: str) -> Path:
    """Where a run's files stand: absolute, so that the record holds from any folder."""
    return (stage.runs_dir / run_id).resolve()


def _teller(stage: Stage, run_id: str) -> Callable[[int, Mapping[str, float]], None]:
    """Puts the machine's load beside the run's curves, at a low rate; never at the run's cost."""

    def tell(second: int, found: Mapping[str, float]) -> None:
        machine = {k: v for k, v in found.items() if k != HEAD_MEMORY}
        try:
            stage.tracker.log(run_id, second, machine)
        except TrackerError as error:
            logger.warning("system metrics of %s not written: %s", run_id, error)

    return tell


def _same_training(stage: Stage, run: Run, prepared: Prepared) -> Path | None:
    """The checkpoint of a run that was trained alike and is asked for its forecasts differently:
    another calibration, other sampling. Says so in a note. None: train."""
    if stage.plan.again or run.is_baseline:
        return None
    earlier = stage.tracker.find_trained(
        train_hash=prepared.train_hash,
        panel_hash=stage.panel_hash,
        task_hash=stage.task_hash,
        seed=int(run.seed or 0),
    )
    if earlier is None or earlier.checkpoint_path is None:
        return None
    text = f"not trained: the weights are those of {earlier.run_id}, whose training is the same"
    stage.tracker.add_note(run.run_id, text)
    return Path(earlier.checkpoint_path)


def complete(stage: Stage, attempt: Attempt, result: TrialResult) -> Run:
    """The run with its scores."""
    tracker, run = stage.tracker, attempt.run
    finished = tracker.finish_run(
        run.run_id,
        RunState.COMPLETE,
        scores=result.scores,
        checkpoint_path=result.checkpoint_path,
        forecasts_path=attempt.out,
        training_time_seconds=result.training_time_s,
        duration_seconds=time.perf_counter() - attempt.started,
        peak_memory_mb=result.peak_memory_mb,
    )
    forget_states(stage, attempt)
    if result.equals_last_value and not run.is_baseline:
        return tracker.add_tag(run.run_id, EQUALS_LAST_VALUE)
    return finished


def forget_states(stage: Stage, attempt: Attempt) -> None:
    """Remove what a further attempt would go on from: there will be none."""
    for run_id in (attempt.run.run_id, *attempt.assignment.earlier):
        clear_states(folder_of(stage, run_id) / CHECKPOINT)
    for run_id in attempt.assignment.earlier:
        if stage.tracker.get_run(run_id).state is RunState.COMPLETE:  # was only presumed lost
            continue
        shutil.rmtree(folder_of(stage, run_id) / CHECKPOINT, ignore_errors=True)
