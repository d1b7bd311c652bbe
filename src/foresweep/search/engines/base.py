"""The door of the engines, and how a trial talks to the head of its sweep.

A sweep has one head, and the head is one thread: it starts tasks, polls for their messages and
answers. Local processes (local.py) and a Ray cluster (ray.py) stand behind the same door and
pass the same tests.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from foresweep.errors import ForesweepError, WorkerDied
from foresweep.models.base import TrialPaused, TrialPruned
from foresweep.stats.significance import Array, origin_means

# How a trial talks to the head of its sweep: messages one way, but for an answer.
#
# The worker never writes to the database; it reports, and the head that holds the trial writes.
# After each scoring on tune the worker waits for the head to say whether to go on, so that where a
# trial ends depends on its scores and not on who was faster.


PROGRESS_EVERY_S = 0.2
GO, STOP, PAUSE = "go", "stop", "pause"


@dataclass(frozen=True, slots=True)
class Progress:
    """Training went on. Scores and losses are there at evaluation steps only."""

    step: int
    scores: Mapping[str, float]
    losses: Mapping[str, tuple[float, ...]] | None = None  # [origins] by metric: means over items


@dataclass(frozen=True, slots=True)
class Done:
    """The task returned."""

    result: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The task raised: one line for people, the traceback for the record."""

    error: str
    kind: str  # the exception's class name
    traceback: str = field(repr=False)

    @property
    def for_memory(self) -> bool:
        """Was there too little memory, on a GPU or on the machine?"""
        short = any(words in self.error for words in ("allocate memory", "out of memory"))
        return short or self.kind in ("MemoryError", "OutOfMemoryError")


@dataclass(frozen=True, slots=True)
class Died:
    """The task's process ended without a word: said by its engine."""

    how: str
    for_memory: bool = False  # the kernel killed it for want of memory, as far as can be seen


Message: TypeAlias = Progress | Done | Failed | Died


class HeadGone(SystemExit):
    """The head's end of the channel is closed: nobody waits for this worker any more."""


class Channel:
    """The worker's end. Given to training as its `report`."""

    _last_sent = 0.0

    def __call__(
        self,
        step: int,
        scores: Mapping[str, float],
        losses: Mapping[str, Array] | None = None,
    ) -> None:
        """Report a step. Steps without evaluation are thinned out to a few a second.

        `losses` [origins, items] by metric. Raises TrialPruned when the head answers a scoring
        with stop, TrialPaused when with pause; HeadGone when there is no head.
        """
        now = time.monotonic()
        if losses is None and now - self._last_sent < PROGRESS_EVERY_S:
            return
        self._last_sent = now
        means = None
        if losses is not None:
            means = {k: tuple(origin_means(v).tolist()) for k, v in losses.items()}
        self.send(Progress(step, {k: float(v) for k, v in scores.items()}, means))
        if losses is None or (word := self.answer()) == GO:
            return
        raise TrialPaused if word == PAUSE else TrialPruned

    def send(self, message: Message) -> None:
        """Raises HeadGone."""
        raise NotImplementedError

    def answer(self) -> str:
        """What the head says to a scoring. Raises HeadGone."""
        raise NotImplementedError


class PipeChannel(Channel):
    """Over a pipe, on one machine."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def send(self, message: Message) -> None:
        try:
            self.connection.send(message)
        except OSError as error:
            raise HeadGone(1) from error

    def answer(self) -> str:
        try:
            return str(self.connection.recv())
        except (EOFError, OSError) as error:
            raise HeadGone(1) from error


def failed(error: BaseException) -> Failed:
    """An exception in the words of a message."""
    text = "".join(traceback.format_exception(error))
    if isinstance(error, TrialPruned):
        return Failed("pruned", type(error).__name__, "")
    ours = isinstance(error, ForesweepError)
    line = str(error) if ours else f"{type(error).__name__}: {error}"
    return Failed(" ".join(line.split()), type(error).__name__, text)


# The door of the engines: what starts tasks somewhere and hears what becomes of them.


Task: TypeAlias = Callable[[Channel], Any]
"""What a worker does: picklable, takes its channel, returns a picklable result."""
OnProgress: TypeAlias = Callable[[Progress], str | None]
"""Hears progress; what it returns after a scoring is why the task must stop (None: it goes on)."""
FOREVER: float = float("inf")


@dataclass(frozen=True, slots=True)
class Job:
    """A task that was started."""

    number: int  # unique in its engine
    log: Path  # what it prints


class Engine(Protocol):
    """Runs tasks, each in a process of its own. Used by one thread."""

    @property
    def slots(self) -> int:
        """Tasks that may run at once."""
        ...

    @property
    def free(self) -> int:
        """Slots without a task."""
        ...

    def needs(self, memory_mb: float) -> None:
        """A task was measured to take so much memory: an engine that chose itself how many run at
        once starts no more than free memory has room for."""
        ...

    def warm_up(self) -> None:
        """Begin with what takes long (imports), in the background."""
        ...

    def start(self, task: Task, *, log: Path, beside: bool = False) -> Job:
        """Start a task; its output goes to `log`. `beside`: a short one that takes no slot.

        Raises SearchError where no slot is free, or the engine cannot be had.
        """
        ...

    def poll(
        self, timeout_s: float, jobs: Collection[Job] | None = None
    ) -> list[tuple[Job, Message]]:
        """What came from running jobs (or from these alone), in the order it came; waits up to
        `timeout_s` for a first message. After Done, Failed or Died a job is over and its slot is
        free."""
        ...

    def reply(self, job: Job, answer: str) -> None:
        """GO, STOP or PAUSE, after a Progress with losses: the task waits for it. A job that has
        ended meanwhile is met by the next poll."""
        ...

    def end(self, job: Job) -> None:
        """End a running job now, whatever it does; nothing more is heard of it."""
        ...

    def close(self) -> None:
        """End every job; leave no process behind."""
        ...


class TaskFailed(ForesweepError):
    """A task raised something: one line for people, the traceback for the record."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.error)
        self.failed = failed
        self.add_note(failed.traceback)


def run_task(
    engine: Engine,
    task: Task,
    *,
    log: Path,
    on_progress: OnProgress = lambda _: None,
    beside: bool = True,
) -> Any:
    """The result of one task, waited for; other jobs of the engine wait for the head meanwhile.

    Raises TrialPruned; WorkerDied when its process ended without a word; TaskFailed for any
    exception of the task.
    """
    job = engine.start(task, log=log, beside=beside)
    try:
        while True:
            for _, message in engine.poll(FOREVER, (job,)):
                if isinstance(message, Progress):
                    answer(engine, job, message, STOP if on_progress(message) else GO)
                else:
                    return outcome(message)
    except BaseException:
        engine.end(job)
        raise


def answer(engine: Engine, job: Job, progress: Progress, word: str) -> None:
    """Let a task go on after a scoring, or not."""
    if progress.losses is not None:
        engine.reply(job, word)


def outcome(message: Done | Failed | Died) -> Any:
    """The result of a task that is over. Raises as `run_task` does, and TrialPaused."""
    if isinstance(message, Done):
        return message.result
    if isinstance(message, Died):
        raise WorkerDied(message.how)
    for kind in (TrialPaused, TrialPruned):
        if message.kind == kind.__name__:
            raise kind
    raise TaskFailed(message)
