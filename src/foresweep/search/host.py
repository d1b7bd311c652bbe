"""A slot on some node of a cluster: a local engine there, which the head drives from afar.

The cluster's own worker is only a host. Each task runs in a process of its own, forked from a
server that has done the imports, as on one machine: a task costs a fork, its memory is its own,
and its death has a name.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from foresweep import __version__
from foresweep.errors import SearchError
from foresweep.models.base import TrialPruned
from foresweep.search.channel import Died, Message, Progress, failed
from foresweep.search.engine import Job, Task
from foresweep.search.local import LocalEngine
from foresweep.search.storage import Way


@dataclass(frozen=True, slots=True)
class Setting:
    """What a host takes over from its head."""

    models: tuple[str, ...]
    folder: str  # the head's working directory: relative names of weights start there
    environment: Mapping[str, str]
    version: str = __version__


@dataclass(frozen=True, slots=True)
class Order:
    """A task on its way to a host."""

    number: int
    task: bytes  # pickled: a task that cannot be read is the task's failure, not the host's
    log: Path
    way: Way


@dataclass(frozen=True, slots=True)
class _Work:
    """A task that runs here."""

    job: Job
    way: Way
    listening: threading.Lock = field(default_factory=threading.Lock)


class Host:
    """Runs tasks on a node. Its methods are called from several threads at once."""

    def __init__(self, setting: Setting) -> None:
        """Raises SearchError where another foresweep is installed than the head's."""
        if setting.version != __version__:
            raise SearchError(
                f"{socket.gethostname()} has foresweep {__version__}, the head {setting.version}: "
                f"install the same version on every node"
            )
        os.environ.update(setting.environment)
        with contextlib.suppress(OSError):  # another machine, another tree
            os.chdir(setting.folder)
        self._works: dict[int, _Work] = {}
        self._ended: set[int] = set()
        self._starting = threading.Lock()
        self._engine = LocalEngine(setting.models)
        self._engine.warm_up()

    def stand(self) -> None:
        """Never returns: who waits for it hears at once when the host is gone."""
        threading.Event().wait()

    def start(self, order: Order) -> list[Message]:
        """Start a task and wait for its first message."""
        try:
            task: Task = pickle.loads(order.task)
            task, log = order.way.arrive(task, order.log)
            with self._starting:
                if order.number in self._ended:
                    raise TrialPruned  # nobody hears it
                job = self._engine.start(task, log=log, beside=True)
                self._works[order.number] = _Work(job, order.way)
        except Exception as error:  # a task of a plug-in may raise anything when it is read
            return [order.way.leave(failed(error))]
        return self.hear(order.number)

    def hear(self, number: int) -> list[Message]:
        """Wait for the next message of a task; none where it has been ended."""
        work = self._works.get(number)
        if work is None:
            return []
        with work.listening:
            return self._hear(number, work) if number in self._works else []

    def _hear(self, number: int, work: _Work) -> list[Message]:
        work.way.keep()
        while not (found := self._engine.poll(work.way.every_s, (work.job,))):
            work.way.keep()
        ((_, message),) = found
        if isinstance(message, Progress):
            return [message]
        message = work.way.leave(_with_place(message))
        del self._works[number]
        return [message]

    def reply(self, number: int, answer: str) -> None:
        if number in self._works:
            self._engine.reply(self._works[number].job, answer)

    def end(self, number: int) -> None:
        """End a task now, or see that it never starts; what it wrote is handed over."""
        with self._starting:
            self._ended.add(number)
        if (work := self._works.get(number)) is not None:
            self._engine.kill(work.job)
        while number in self._works:
            self.hear(number)

    def close(self) -> None:
        """End every task."""
        for number in tuple(self._works):
            self.end(number)


def _with_place(message: Message) -> Message:
    """A death with the name of the machine."""
    if isinstance(message, Died):
        return replace(message, how=f"{message.how} (on {socket.gethostname()})")
    return message
