"""The head of a sweep: one thread that starts trials, hears them, keeps each run on record.

Workers report, the head that holds a trial's lease writes. Several heads may share a sweep; what
is to be run next is a source's business (trials.py, finalists.py).
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from foresweep.errors import SearchError, TrackerError, WorkerDied
from foresweep.evaluation.yardstick import EQUALS_LAST_VALUE
from foresweep.models.base import Resources, TrialPruned
from foresweep.models.registry import BASELINES
from foresweep.models.training.loop import clear_states
from foresweep.records import Run, RunState
from foresweep.search.engines.base import (
    Died,
    Done,
    Failed,
    Job,
    Progress,
    TaskFailed,
    answer,
    outcome,
)
from foresweep.search.events import (
    TrialFinished,
    TrialProgressed,
    TrialRetried,
    TrialStarted,
    Waiting,
)
from foresweep.search.stage import CONTAMINATED, Stage, is_contaminated
from foresweep.search.trial import CHECKPOINT, Prepared, Trial, TrialResult
from foresweep.tracker.session import SystemWatch
from foresweep.tracker.tracker import Heartbeat

# One run of a trial, from its first line on record to its last.
#
# A trial may need several attempts: its process was killed, its head died, somebody stopped the
# sweep. Each is a run of its own, and goes on from what the one before left.


logger = logging.getLogger(__name__)

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


# The head of a sweep: one thread that starts trials, hears them, and puts them on record.


PULSE_S = 1.0
"""How often the head asks whether it is to stop, and looks after trials that hang."""


class SweepStopped(SearchError):
    """Somebody asked the sweep to stop: `foresweep stop`."""


class Source(Protocol):
    """Says what is to be run next, and is told what came of it."""

    def next(self) -> Assignment | None:
        """What to start now; None: nothing, at the moment or for good."""
        ...

    def ended(self, work: Assignment, run: Run) -> None:
        """An assignment came to its end; there will be no further attempt."""
        ...

    def others_work(self) -> bool:
        """Do other heads still train what belongs to this source?"""
        ...


@dataclass(slots=True)
class Head:
    """Not frozen: it holds the running jobs."""

    stage: Stage
    sweep_id: str
    trial_timeout_s: float | None = None
    running: dict[Job, Attempt] = field(default_factory=dict)
    again: list[Assignment] = field(default_factory=list)  # attempts that are due, leases held
    heartbeat: Heartbeat = field(init=False)
    _asked_at: float = 0.0

    def __post_init__(self) -> None:
        self.heartbeat = Heartbeat(self.stage.tracker)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Beats for the running runs; leaves no process behind, however the block ends."""
        with self.heartbeat:
            try:
                yield
            finally:
                for attempt in self.running.values():
                    attempt.watch.stop()
                self.stage.engine.close()

    def cancel(self, reason: str) -> None:
        """Put what ran here on record as stopped, whatever sweep its trial is of."""
        for attempt in self.running.values():
            self.stage.tracker.cancel_run(attempt.run.run_id, reason)
        self.running.clear()
        self.stage.tracker.cancel_sweep(self.sweep_id, reason)  # and what had only been begun

    def drive(self, source: Source) -> None:
        """Run everything that a source has, here or in other heads.

        Raises SweepStopped; KeyboardInterrupt passes through.
        """
        waited = False
        while True:
            self._heed()
            started = self._fill(source)
            if self.running:
                self._hear(source)
                waited = False
                continue
            if started:
                continue
            why = self._waits_for(source)
            if not why and not self._fill(source):  # others may have left something behind
                return
            if why and not waited:
                self.stage.listen(Waiting(why))
            waited = bool(why)
            time.sleep(PULSE_S if why else 0.0)

    def _waits_for(self, source: Source) -> str:
        """Why nothing runs although there is something to do; "" where there is not."""
        if self.stage.engine.free <= 0:
            return "no worker is there"
        return "other processes train what is left" if source.others_work() else ""

    def _fill(self, source: Source) -> bool:
        """Start what there is as long as workers are free. Was there anything?"""
        some = False
        while self.stage.engine.free > 0:
            work = self.again.pop(0) if self.again else source.next()
            if work is None:
                break
            some = True
            self._start(source, work)
        return some

    def _start(self, source: Source, work: Assignment) -> None:
        run = open_run(self.stage, work)
        self.stage.listen(TrialStarted(run))
        if work.cause:
            self._close(source, work, self._failed(run, work.cause))
            return
        attempt, task = begin(self.stage, work, run)
        job = self.stage.engine.start(task, log=attempt.out / "training.log")
        self.running[job] = attempt
        self.heartbeat.watch(run.run_id)

    def _hear(self, source: Source) -> None:
        for job, message in self.stage.engine.poll(PULSE_S, tuple(self.running)):
            if isinstance(message, Progress):
                self._progressed(job, message)
            else:
                self._over(source, job, message)
        self._end_what_hangs(source)

    def _progressed(self, job: Job, progress: Progress) -> None:
        run, judge = self.running[job].run, self.stage.judge
        self.stage.tracker.log(run.run_id, progress.step, progress.scores)
        self.stage.listen(TrialProgressed(run, progress.step, progress.scores))
        reason = None if judge is None else judge.look(run, progress)
        answer(self.stage.engine, job, progress, reason)

    def _over(self, source: Source, job: Job, message: Done | Failed | Died) -> None:
        attempt = self._taken(job)
        work, tracker = attempt.assignment, self.stage.tracker
        try:
            run = complete(self.stage, attempt, outcome(message))
        except TrialPruned:
            judge = self.stage.judge
            why = None if judge is None else judge.reasons.get(attempt.run.run_id)
            run = tracker.finish_run(attempt.run.run_id, RunState.PRUNED, notes=why)
            forget_states(self.stage, attempt)
        except TaskFailed as error:
            run = self._failed(attempt.run, error.failed.traceback)
        except WorkerDied as error:
            tracker.add_tag(attempt.run.run_id, DIED)  # first: a head may be killed in between
            run = self._failed(attempt.run, str(error))
        again = None if isinstance(message, Done) else self._once_more(work, run, message)
        if again is None:
            self._close(source, work, run)
            return
        self.stage.listen(TrialFinished(run))
        self.stage.listen(TrialRetried(run, again.note))
        self.again.append(again)

    def _failed(self, run: Run, cause: str) -> Run:
        return self.stage.tracker.finish_run(run.run_id, RunState.FAILED, error=cause)

    def _taken(self, job: Job) -> Attempt:
        attempt = self.running.pop(job)
        attempt.watch.stop()
        self.heartbeat.unwatch(attempt.run.run_id)
        return attempt

    def _close(self, source: Source, work: Assignment, run: Run) -> None:
        if self.stage.judge is not None:
            self.stage.judge.end(run, self.stage.runs_dir / run.run_id)
        self.stage.listen(TrialFinished(run))
        source.ended(work, run)

    def _once_more(self, work: Assignment, run: Run, message: Failed | Died) -> Assignment | None:
        """Another attempt at what was killed or had too little memory, its lease held; None: the
        failure stands."""
        if work.deaths >= MOST_DEATHS or not (isinstance(message, Died) or message.for_memory):
            return None
        resources, how = work.resources, "with the same resources"
        if message.for_memory:
            halved = half_the_memory(work.resources, work.prepared.config)
            if halved is None:
                return None
            resources, how = halved, f"with micro-batches of {halved.micro_batch} windows"
        if not self.stage.tracker.heads.take_lease(*work.trial):
            return None
        return replace(
            work,
            resources=resources,
            attempt=work.attempt + 1,
            earlier=(run.run_id, *work.earlier),
            deaths=work.deaths + 1,
            note=f"attempt {work.attempt + 1} goes on from {run.run_id}, {how}",
        )

    def _end_what_hangs(self, source: Source) -> None:
        """End the trials that take longer than is allowed."""
        limit = self.trial_timeout_s
        now = time.perf_counter()
        for job, attempt in tuple(self.running.items()):
            if limit is not None and now - attempt.started > limit:
                self.stage.engine.end(job)
                self._taken(job)
                cause = f"ended after --trial-timeout {limit:g} s; see {job.log}"
                self._close(source, attempt.assignment, self._failed(attempt.run, cause))

    def _heed(self) -> None:
        """Raises SweepStopped where somebody asked for it."""
        now = time.monotonic()
        if now - self._asked_at < PULSE_S:
            return
        self._asked_at = now
        if self.stage.tracker.heads.pulse(self.sweep_id).stop_asked:
            raise SweepStopped(f"sweep {self.sweep_id} was asked to stop")


def half_the_memory(resources: Resources, config: Any) -> Resources | None:
    """Half the windows of a backward pass, and so twice as many passes a step; None where it is
    one window already, or nothing is trained."""
    size = resources.micro_batch or config.get("batch_size")
    if not size or size < 2:
        return None
    return replace(resources, micro_batch=int(size) // 2)
