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
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from foresweep import __version__
from foresweep.errors import SearchError
from foresweep.search.channel import Died, Message, Progress, failed
from foresweep.search.engine import FOREVER, Job, Task
from foresweep.search.local import LocalEngine

SEEN_WITHIN_S = 10.0
"""A network folder may show a new file late."""


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
    probe: Path  # an empty file of the head's beside the log: this node must see it


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
        self._jobs: dict[int, Job] = {}
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
            _require_seen(order.probe)
            with self._starting:
                if order.number in self._ended:
                    return []
                job = self._engine.start(task, log=order.log, beside=True)
                self._jobs[order.number] = job
        except Exception as error:  # a task of a plug-in may raise anything when it is read
            return [failed(error)]
        return self.hear(order.number)

    def hear(self, number: int) -> list[Message]:
        """Wait for the next message of a task."""
        found = self._engine.poll(FOREVER, (self._jobs[number],))
        if not all(isinstance(m, Progress) for _, m in found):
            del self._jobs[number]
        return [_with_place(message) for _, message in found]

    def reply(self, number: int, answer: str) -> None:
        if number in self._jobs:
            self._engine.reply(self._jobs[number], answer)

    def end(self, number: int) -> None:
        """End a task now, or see that it never starts."""
        with self._starting:
            self._ended.add(number)
            if number in self._jobs:
                self._engine.kill(self._jobs[number])

    def close(self) -> None:
        for number in tuple(self._jobs):
            self.end(number)


def _require_seen(probe: Path) -> None:
    deadline = time.monotonic() + SEEN_WITHIN_S
    while not probe.exists():
        if time.monotonic() > deadline:
            raise SearchError(
                f"{socket.gethostname()} does not see {probe.parent}, where the head writes; put "
                f"the runs on a folder that every node has under the same path (--runs FOLDER), "
                f"or give a storage"
            )
        time.sleep(0.2)
    probe.unlink(missing_ok=True)


def _with_place(message: Message) -> Message:
    if isinstance(message, Died):
        return replace(message, how=f"{message.how} on {socket.gethostname()}")
    return message
