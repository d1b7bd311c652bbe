"""The head of a sweep: one thread that starts trials, hears them, and puts them on record.

Workers report, the head that holds a trial's lease writes. Several heads may share a sweep; what
is to be run next is a source's business (trials.py, finalists.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from foresweep.errors import SearchError, WorkerDied
from foresweep.models.base import Resources, TrialPruned
from foresweep.records import Run, RunState
from foresweep.search.attempt import (
    DIED,
    MOST_DEATHS,
    Assignment,
    Attempt,
    begin,
    complete,
    forget_states,
    open_run,
)
from foresweep.search.channel import Died, Done, Failed, Progress
from foresweep.search.engine import Job, TaskFailed, answer, outcome
from foresweep.search.events import (
    TrialFinished,
    TrialProgressed,
    TrialRetried,
    TrialStarted,
    Waiting,
)
from foresweep.search.stage import Stage
from foresweep.tracker.tracker import Heartbeat

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
        if not self.stage.tracker.take_lease(*work.trial):
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
        if self.stage.tracker.pulse(self.sweep_id).stop_asked:
            raise SweepStopped(f"sweep {self.sweep_id} was asked to stop")


def half_the_memory(resources: Resources, config: Any) -> Resources | None:
    """Half the windows of a backward pass, and so twice as many passes a step; None where it is
    one window already, or nothing is trained."""
    size = resources.micro_batch or config.get("batch_size")
    if not size or size < 2:
        return None
    return replace(resources, micro_batch=int(size) // 2)
