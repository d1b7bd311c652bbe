"""The door of the engines: what starts tasks somewhere and hears what becomes of them.

A sweep has one head, and the head is one thread: it starts tasks, polls for their messages and
answers. Local processes (local.py) and a Ray cluster (cluster.py) stand behind the same door and
pass the same tests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from foresweep.errors import ForesweepError, WorkerDied
from foresweep.models.base import TrialPruned
from foresweep.search.channel import GO, STOP, Channel, Died, Done, Failed, Message, Progress

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
        """GO or STOP, after a Progress with losses: the task waits for it. A job that has ended
        meanwhile is met by the next poll."""
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
                    answer(engine, job, message, on_progress(message))
                else:
                    return outcome(message)
    except BaseException:
        engine.end(job)
        raise


def answer(engine: Engine, job: Job, progress: Progress, reason: str | None) -> None:
    """Let a task go on after a scoring, or, for a reason, not."""
    if progress.losses is not None:
        engine.reply(job, STOP if reason else GO)


def outcome(message: Done | Failed | Died) -> Any:
    """The result of a task that is over. Raises as `run_task` does."""
    if isinstance(message, Done):
        return message.result
    if isinstance(message, Died):
        raise WorkerDied(message.how)
    if message.kind == TrialPruned.__name__:
        raise TrialPruned
    raise TaskFailed(message)
