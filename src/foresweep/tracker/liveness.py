"""Who writes for a run, whether that process still lives, and the beat that says so."""

from __future__ import annotations

import logging
import os
import platform
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import psutil

from foresweep.errors import TrackerError

BEAT_S = 15.0
GRACE = timedelta(seconds=120)
"""A run on another machine that has been silent for longer is lost."""

LONGEST_FAREWELL_S = 5.0
"""How long the end waits for a beat that hangs because the database is away."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Owner:
    """One process, told apart from a later one that got the same number."""

    host: str  # for people
    machine: str  # host, boot and pid namespace: only inside one of these do pids compare
    pid: int
    pid_start: str

    def as_columns(self) -> dict[str, Any]:
        return asdict(self)

    def holds(self, row: Mapping[Any, Any]) -> bool:
        """Is it this process that the row names as its writer?"""
        return all(row[name] == value for name, value in self.as_columns().items())


def this_process() -> Owner:
    """The process that calls; a forked child is another one."""
    return _process(os.getpid())


@cache
def _process(pid: int) -> Owner:
    """What never changes while a process lives is read once."""
    return Owner(platform.node(), _machine(), pid, pid_start(pid) or "")


def pid_start(pid: int) -> str | None:
    """When a process began, None where there is none; a zombie counts as none.

    On Linux in clock ticks since boot, which no change of the clock moves.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _pid_start_elsewhere(pid)
    return None if fields[0] in "ZX" else fields[19]


def _pid_start_elsewhere(pid: int) -> str | None:
    try:
        return f"{psutil.Process(pid).create_time():.0f}"
    except psutil.Error:
        return None


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    started = boot.read_text().strip() if boot.exists() else f"{psutil.boot_time():.0f}"
    namespace = Path("/proc/self/ns/pid")
    inside = os.readlink(namespace) if namespace.exists() else ""
    return f"{platform.node()} {started} {inside}".strip()


def is_gone(row: Mapping[Any, Any], now: datetime, *, machine: str, grace: timedelta) -> bool:
    """Is the process of this row (Owner's columns and `heartbeat_at`) no more?

    On this machine known at once; elsewhere believed after `grace` without a beat.
    """
    if row["machine"] == machine:
        return bool(pid_start(row["pid"]) != row["pid_start"])
    beat: datetime | None = row["heartbeat_at"]
    return beat is None or now - beat > grace


class Beats(Protocol):
    """What a heartbeat needs of the tracker."""

    def beat(self, run_ids: Iterable[str]) -> None: ...


class Heartbeat:
    """Beats for running runs from a thread while the block runs, and never harms it.

    with Heartbeat(tracker, [run.run_id]):
        ...
    """

    def __init__(
        self, tracker: Beats, run_ids: Iterable[str] = (), *, every_s: float = BEAT_S
    ) -> None:
        self._tracker, self._every_s = tracker, every_s
        self._runs = set(run_ids)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._warned = False
        self._thread = threading.Thread(target=self._loop, name="foresweep-heartbeat", daemon=True)

    def watch(self, run_id: str) -> None:
        """Beat for this run, too."""
        with self._lock:
            self._runs.add(run_id)

    def unwatch(self, run_id: str) -> None:
        """Beat for it no longer."""
        with self._lock:
            self._runs.discard(run_id)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(LONGEST_FAREWELL_S)

    def _loop(self) -> None:
        while not self._stop.wait(self._every_s):
            with self._lock:
                runs = tuple(self._runs)
            try:
                self._tracker.beat(runs)
            except TrackerError as error:
                if not self._warned:  # once: the database may be away for long
                    logger.warning("heartbeat not written: %s", error)
                self._warned = True
