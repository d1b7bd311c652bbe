"""The head: one thread that opens runs, drives them through an engine, and closes them.

Workers report, the head that holds a trial's lease writes. Several heads may share a sweep; what
is to be run next is a source's business (trials.py).
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from foresweep.errors import SearchError, TrackerError, WorkerDied
from foresweep.evaluation.yardstick import EQUALS_LAST_VALUE
from foresweep.models.base import Resources, TrialPaused, TrialPruned
from foresweep.models.registry import BASELINES
from foresweep.models.training.loop import clear_states
from foresweep.records import STILL_LEARNING, Run, RunState
from foresweep.search.engines.base import (
    GO,
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
    TrialWaits,
    Waiting,
)
from foresweep.search.refitting import REFITS
from foresweep.search.stage import CONTAMINATED, Stage, is_contaminated
from foresweep.search.trial import CHECKPOINT, Prepared, RunSpec, RunTask, TrialResult
from foresweep.tracker.session import SystemWatch
from foresweep.tracker.tracker import Heartbeat, Tracker

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
"""How often a trial whose process died, or ran out of memory, is tried once more."""
BROKEN_OFF = (RunState.LOST, RunState.CANCELLED)
"""Ends of a run that say nothing of its config: the trial is still to be done."""


def seed_for(stage: Stage, model: str) -> int:
    """Baselines draw nothing: under one seed they are run once for all sweeps of a task."""
    return 0 if model in BASELINES else stage.plan.cut.seed


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
) -> RunSpec:
    """The first attempt at a trial, or the one after `attempts` (newest first)."""
    newest = attempts[0] if attempts else None
    return RunSpec(
        ground=stage.ground,
        prepared=prepared,
        trial=trial,
        seed=seed,
        resources=stage.plan.resources,
        attempt=newest.attempt + 1 if newest else 1,
        earlier=tuple(r.run_id for r in attempts),
        note=f"attempt {newest.attempt + 1} goes on from {newest.run_id}" if newest else "",
        cause=cause,
        tags=(CONTAMINATED,) if is_contaminated(stage, prepared) else (),
    )


def earlier_run(stage: Stage, prepared: Prepared, seed: int) -> Run | None:
    """The run that makes another needless; None where it is to be trained once more."""
    if stage.plan.again:
        return None
    return stage.tracker.find_trained(
        train_hash=prepared.train_hash,
        config_hash=prepared.config_hash,
        panel_hash=stage.ground.panel_hash,
        task_hash=stage.ground.task_hash,
        seed=seed,
    )


def open_run(tracker: Tracker, spec: RunSpec) -> Run:
    """Put a run on record as running."""
    prepared, ground = spec.prepared, spec.ground
    run = tracker.start_run(
        model=spec.model,
        hyperparams=prepared.config,
        sweep_id=spec.trial[0],
        trial_number=spec.trial[1],
        seed=spec.seed,
        attempt=spec.attempt,
        config_hash=prepared.config_hash,
        train_hash=prepared.train_hash,
        panel_hash=ground.panel_hash,
        task_hash=ground.task_hash,
        fingerprints=ground.fingerprints,
        resources=dataclasses.asdict(spec.resources),
        source=prepared.proposal.source,
        tags=spec.tags,
    )
    for note in filter(None, (prepared.proposal.note, spec.note)):
        tracker.add_note(run.run_id, note)
    return run


def complete_run(
    tracker: Tracker, run: Run, result: TrialResult, *, out: Path, started: float
) -> Run:
    """Put the scores of a run on record, whose files stand in `out`."""
    finished = tracker.finish_run(
        run.run_id,
        RunState.COMPLETE,
        scores=result.scores,
        checkpoint_path=result.checkpoint_path,
        forecasts_path=out,
        training_time_seconds=result.training_time_s + (run.training_time_seconds or 0.0),
        duration_seconds=time.perf_counter() - started + (run.duration_seconds or 0.0),
        peak_memory_mb=result.peak_memory_mb,
    )
    if result.still_learning:
        finished = tracker.add_tag(run.run_id, STILL_LEARNING)
    if result.equals_last_value and not run.is_baseline:
        return tracker.add_tag(run.run_id, EQUALS_LAST_VALUE)
    return finished


@contextmanager
def run_here(tracker: Tracker, spec: RunSpec) -> Iterator[Run]:
    """A run that is made by this very process in the block, which is to complete it; broken off, it
    is on record with its cause."""
    run = open_run(tracker, spec)
    try:
        yield run
    except KeyboardInterrupt:
        tracker.cancel_run(run.run_id)
        raise
    except Exception as error:  # whatever it is: on record, and raised again
        tracker.finish_run(run.run_id, RunState.FAILED, error=f"{type(error).__name__}: {error}")
        raise


@dataclass(frozen=True, slots=True)
class Attempt:
    """A run that goes on."""

    spec: RunSpec
    run: Run
    out: Path
    started: float
    watch: SystemWatch


PULSE_S = 1.0
"""How often the head asks whether it is to stop, and looks after trials that hang."""


class SweepStopped(SearchError):
    """Somebody asked the sweep to stop: `foresweep stop`."""


class Source(Protocol):
    """Says what is to be run next, and is told what came of it."""

    def next(self) -> RunSpec | None:
        """What to start now; None: nothing, at the moment or for good."""
        ...

    def ended(self, spec: RunSpec, run: Run) -> None:
        """A run came to its end, and there will be no further attempt; or it waits."""
        ...

    def others_work(self) -> bool:
        """Do other heads still train what belongs to this source?"""
        ...


@dataclass(slots=True)
class Head:
    """Not frozen: it holds the running jobs."""

    stage: Stage
    sweep_id: str = ""  # "": a single run, which no sweep waits for
    trial_timeout_s: float | None = None
    running: dict[Job, Attempt] = field(default_factory=dict)
    again: list[RunSpec] = field(default_factory=list)  # attempts that are due, leases held
    heartbeat: Heartbeat = field(init=False)
    _asked_at: float = 0.0

    def __post_init__(self) -> None:
        self.heartbeat = Heartbeat(self.stage.tracker)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Beats for the running runs. However the block ends, no process is left behind, and no
        run looks as if it went on."""
        try:
            with self.heartbeat:
                try:
                    yield
                finally:
                    for attempt in self.running.values():
                        attempt.watch.stop()
                    self.stage.engine.close()
        except KeyboardInterrupt:
            self._cancel("stopped by Ctrl-C")
            raise
        except SweepStopped:
            self._cancel("stopped by foresweep stop")
            raise
        except Exception as error:
            self._cancel(f"the sweep broke off: {error}")
            raise

    def _cancel(self, reason: str) -> None:
        """Put what ran here on record as stopped, whatever sweep its trial is of."""
        for attempt in self.running.values():
            self.stage.tracker.cancel_run(attempt.run.run_id, reason)
        self.running.clear()
        if self.sweep_id:
            self.stage.tracker.cancel_sweep(self.sweep_id, reason)  # and what had only been begun

    def drive(self, source: Source) -> None:
        """Run everything that a source has, here or in other heads.

        Raises SweepStopped; KeyboardInterrupt passes through.
        """
        engine = self.stage.engine
        waited = asked_twice = False
        while True:
            now = time.monotonic()
            if self.sweep_id and now - self._asked_at >= PULSE_S:
                self._asked_at = now
                if self.stage.tracker.heads.pulse(self.sweep_id).stop_asked:
                    raise SweepStopped(f"sweep {self.sweep_id} was asked to stop")
            started = False
            while engine.free > 0 and (spec := self.again.pop(0) if self.again else source.next()):
                self._start(source, spec)
                started = True
            if self.running:
                self._hear(source)
            if started or self.running:
                waited = asked_twice = False
            elif engine.free <= 0 or source.others_work():
                if not waited:
                    full = engine.free <= 0
                    why = "no worker is there" if full else "other processes train what is left"
                    self.stage.listen(Waiting(why))
                waited, asked_twice = True, False
                time.sleep(PULSE_S)
            elif asked_twice:
                return
            else:  # others may have left something behind
                waited, asked_twice = False, True

    def _start(self, source: Source, spec: RunSpec) -> None:
        """Put a run on record and begin with it."""
        stage = self.stage
        waited = spec.wakes != ""
        run = stage.tracker.heads.wake(spec.wakes) if waited else open_run(stage.tracker, spec)
        stage.listen(TrialStarted(run))
        if spec.cause:
            self._close(source, spec, self._failed(run, spec.cause))
            return
        out = stage.folder_of(run.run_id)
        watch = SystemWatch(partial(self._note_load, run.run_id), every_s=SYSTEM_EVERY_S)
        watch.start()
        attempt = Attempt(spec, run, out, time.perf_counter(), watch)
        task = RunTask(
            spec=spec,
            run_id=run.run_id,
            out=out,
            trained=None if waited else self._same_training(run, spec),
            earlier=tuple(map(stage.folder_of, spec.earlier)),
            continues=stage.folder_of(spec.continues) if spec.continues else None,
        )
        self.running[stage.engine.start(task, log=out / "training.log")] = attempt
        self.heartbeat.watch(run.run_id)

    def _same_training(self, run: Run, spec: RunSpec) -> Path | None:
        """The checkpoint of a run that was trained alike and is asked for its forecasts
        differently: another calibration, other sampling. Says so in a note. None: train."""
        tracker, ground = self.stage.tracker, spec.ground
        if self.stage.plan.again or run.is_baseline:
            return None
        earlier = tracker.find_trained(
            train_hash=spec.prepared.train_hash,
            panel_hash=ground.panel_hash,
            task_hash=ground.task_hash,
            seed=spec.seed,
        )
        if earlier is None or earlier.checkpoint_path is None:
            return None
        text = f"not trained: the weights are those of {earlier.run_id}, whose training is the same"
        tracker.add_note(run.run_id, text)
        return Path(earlier.checkpoint_path)

    def _note_load(self, run_id: str, second: int, found: Mapping[str, float]) -> None:
        """Put the machine's load beside a run's curves, at a low rate; never at the run's cost."""
        machine = {k: v for k, v in found.items() if k != HEAD_MEMORY}
        try:
            self.stage.tracker.log(run_id, second, machine)
        except TrackerError as error:
            logger.warning("system metrics of %s not written: %s", run_id, error)

    def _hear(self, source: Source) -> None:
        """Put on record what running jobs say, and end those that take longer than is allowed."""
        stage, limit = self.stage, self.trial_timeout_s
        for job, message in stage.engine.poll(PULSE_S, tuple(self.running)):
            if not isinstance(message, Progress):
                self._over(source, job, message)
                continue
            run = self.running[job].run
            stage.tracker.log(run.run_id, message.step, message.scores)
            stage.listen(TrialProgressed(run, message.step, message.scores))
            word = GO if stage.judge is None else stage.judge.look(run, message)
            answer(stage.engine, job, message, word)
        now = time.perf_counter()
        for job, attempt in tuple(self.running.items()):
            if limit is not None and now - attempt.started > limit:
                stage.engine.end(job)
                self._taken(job)
                cause = f"ended after --trial-timeout {limit:g} s; see {job.log}"
                self._close(source, attempt.spec, self._failed(attempt.run, cause))

    def _over(self, source: Source, job: Job, message: Done | Failed | Died) -> None:
        attempt = self._taken(job)
        spec, stage, tracker = attempt.spec, self.stage, self.stage.tracker
        try:
            result, out = outcome(message), attempt.out
            run = complete_run(tracker, attempt.run, result, out=out, started=attempt.started)
            stage.engine.needs(result.peak_memory_mb or 0.0)
            self._forget_states(attempt, but_own=result.still_learning)
        except TrialPaused:
            self._wait(source, attempt)
            return
        except TrialPruned:
            run_id = attempt.run.run_id
            run = tracker.finish_run(run_id, RunState.PRUNED, notes=self._why(run_id))
            self._forget_states(attempt)
        except TaskFailed as error:
            run = self._failed(attempt.run, error.failed.traceback)
        except WorkerDied as error:
            tracker.add_tag(attempt.run.run_id, DIED)  # first: a head may be killed in between
            run = self._failed(attempt.run, str(error))
        again = None if isinstance(message, Done) else self._once_more(spec, run, message)
        if again is None:
            self._close(source, spec, run)
            return
        self.stage.listen(TrialFinished(run))
        self.stage.listen(TrialRetried(run, again.note))
        self.again.append(again)

    def _wait(self, source: Source, attempt: Attempt) -> None:
        """Put a run on record as waiting; its files stay as they are."""
        before, now = attempt.run, time.perf_counter() - attempt.started
        run = self.stage.tracker.heads.pause(
            before.run_id,
            notes=self._why(before.run_id) or "waits",
            training_time_s=(before.training_time_seconds or 0.0) + now,
            duration_s=(before.duration_seconds or 0.0) + now,
        )
        if self.stage.judge is not None:
            self.stage.judge.end(run, attempt.out)
        self.stage.listen(TrialWaits(run))
        source.ended(attempt.spec, run)

    def _why(self, run_id: str) -> str | None:
        return None if self.stage.judge is None else self.stage.judge.reasons.get(run_id)

    def _forget_states(self, attempt: Attempt, *, but_own: bool = False) -> None:
        """Remove what a further attempt would go on from: there will be none. Of a run that is
        still learning its own stays: `train --continue` goes on from it."""
        stage, earlier = self.stage, attempt.spec.earlier
        for run_id in (*(() if but_own else (attempt.run.run_id,)), *earlier):
            clear_states(stage.folder_of(run_id) / CHECKPOINT)
        for run_id in earlier:
            if stage.tracker.get_run(run_id).state is RunState.COMPLETE:  # was only presumed lost
                continue
            for name in (CHECKPOINT, REFITS):
                shutil.rmtree(stage.folder_of(run_id) / name, ignore_errors=True)

    def _failed(self, run: Run, cause: str) -> Run:
        return self.stage.tracker.finish_run(run.run_id, RunState.FAILED, error=cause)

    def _taken(self, job: Job) -> Attempt:
        attempt = self.running.pop(job)
        attempt.watch.stop()
        self.heartbeat.unwatch(attempt.run.run_id)
        return attempt

    def _close(self, source: Source, spec: RunSpec, run: Run) -> None:
        if self.stage.judge is not None:
            self.stage.judge.end(run, self.stage.runs_dir / run.run_id)
        self.stage.listen(TrialFinished(run))
        source.ended(spec, run)

    def _once_more(self, spec: RunSpec, run: Run, message: Failed | Died) -> RunSpec | None:
        """Another attempt at what was killed or had too little memory, its lease held; None: the
        failure stands."""
        if spec.deaths >= MOST_DEATHS or not (isinstance(message, Died) or message.for_memory):
            return None
        resources, how = spec.resources, "with the same resources"
        if message.for_memory:
            halved = half_the_memory(spec.resources, spec.prepared.config)
            if halved is None:
                return None
            resources, how = halved, f"with micro-batches of {halved.micro_batch} windows"
        if not self.stage.tracker.heads.take_lease(*spec.trial):
            return None
        return replace(
            spec,
            resources=resources,
            attempt=spec.attempt + 1,
            earlier=(run.run_id, *spec.earlier),
            deaths=spec.deaths + 1,
            wakes="",
            note=f"attempt {spec.attempt + 1} goes on from {run.run_id}, {how}",
        )


def half_the_memory(resources: Resources, config: Any) -> Resources | None:
    """Half the windows of a backward pass, and so twice as many passes a step; None where it is
    one window already, or nothing is trained."""
    size = resources.micro_batch or config.get("batch_size")
    if not size or size < 2:
        return None
    return replace(resources, micro_batch=int(size) // 2)
