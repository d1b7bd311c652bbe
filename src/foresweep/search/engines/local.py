"""The local engine: each task in a fresh process, forked from a server that has done the imports.

A cold worker spends 6-9 s importing torch and the model packages; forked from a forkserver that
has them loaded it is ready in a tenth of a second. A worker that crashes, is killed or runs out
of memory fails its own task only; one whose head is gone leaves by itself, whatever it does.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from foresweep.errors import SearchError
from foresweep.models.base import TrialPruned
from foresweep.search.engines.base import (
    FOREVER,
    Died,
    Done,
    Job,
    Message,
    PipeChannel,
    Progress,
    Task,
    failed,
)
from foresweep.tracker.session import MB, free_memory_mb

GRACE_S = 5.0
PRELOAD = "foresweep.search.engines.preload"
PRELOADED_MODELS = "FORESWEEP_PRELOAD"
"""Names of models, separated by commas: the server inherits its environment and little else."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
OOM_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


@dataclass(slots=True)
class _Worker:
    """A process, the head's end of its pipe, and the GPU it has. Not frozen: a process moves."""

    process: BaseProcess
    head: Connection
    takes_slot: bool
    gpu: str | None
    kills_before: int  # for want of memory, on this machine


@dataclass(slots=True)
class LocalEngine:
    """Runs up to `workers` tasks at once, each in its own process. Not frozen: it holds them."""

    models: tuple[str, ...] = ()
    """Models whose imports are done beforehand."""
    workers: int = 1
    gpus: tuple[str, ...] = ()
    """One worker each, which sees no other (CUDA_VISIBLE_DEVICES); then `workers` says nothing."""
    is_bounded: bool = False
    """Are there fewer where free memory has no room for so many tasks as large as one measured?"""
    _running: dict[Job, _Worker] = field(default_factory=dict)
    _started: int = 0
    _need_mb: float = 0.0
    _room: int | None = None

    @property
    def slots(self) -> int:
        asked = len(self.gpus) or self.workers
        return asked if self._room is None else min(asked, self._room)

    @property
    def free(self) -> int:
        return self.slots - sum(w.takes_slot for w in self._running.values())

    def needs(self, memory_mb: float) -> None:
        """See Engine. What runs now counts as free: it will be done."""
        self._need_mb = max(self._need_mb, memory_mb)
        if self.is_bounded and self._need_mb > 0:
            taken = sum(_resident_mb(w.process.pid) for w in self._running.values())
            self._room = max(1, int((free_memory_mb() + taken) // self._need_mb))

    def warm_up(self) -> None:
        """Start the server's imports now, in the background, while the head reads data."""
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by OpenMP when torch is first imported
        context = _context(self.models)
        if context.get_start_method() == "forkserver":
            from multiprocessing.forkserver import ensure_running

            with _hidden_main():
                ensure_running()

    def start(self, task: Task, *, log: Path, beside: bool = False) -> Job:
        """See Engine. Raises SearchError where no slot is free."""
        if not beside and self.free < 1:
            raise SearchError(f"all {self.slots} workers are busy")
        log.parent.mkdir(parents=True, exist_ok=True)
        self._started += 1
        job = Job(self._started, log)
        gpu = self._gpu(beside)
        head, worker = _context(self.models).Pipe()
        process = _context(self.models).Process(
            target=_work,
            args=(task, worker, str(log), {} if gpu is None else {VISIBLE: gpu}),
            daemon=True,
        )
        with _hidden_main():
            process.start()
        worker.close()
        self._running[job] = _Worker(process, head, not beside, gpu, _memory_kills())
        return job

    def _gpu(self, beside: bool) -> str | None:
        """The first that no task has; a task beside the others shares the first of all."""
        taken = {w.gpu for w in self._running.values() if w.takes_slot}
        free = [g for g in self.gpus if beside or g not in taken]
        return free[0] if free else None

    def poll(
        self, timeout_s: float, jobs: Collection[Job] | None = None
    ) -> list[tuple[Job, Message]]:
        heard = self._running if jobs is None else {j: self._running[j] for j in jobs}
        if not heard:
            time.sleep(0.0 if timeout_s == FOREVER else timeout_s)
            return []
        pipes = {w.head: job for job, w in heard.items()}
        ready = wait(list(pipes), None if timeout_s == FOREVER else timeout_s)
        return [(job, self._receive(job)) for pipe, job in pipes.items() if pipe in ready]

    def _receive(self, job: Job) -> Message:
        worker = self._running[job]
        try:
            message: Message = worker.head.recv()
        except (EOFError, OSError):
            worker.process.join(GRACE_S)
            killed = worker.process.exitcode == -signal.SIGKILL
            short = killed and _memory_kills() > worker.kills_before
            message = Died(_obituary(worker.process, job.log, short), short)
        if not isinstance(message, Progress):
            self._leave(job, GRACE_S)
        return message

    def reply(self, job: Job, answer: str) -> None:
        if job in self._running:
            with contextlib.suppress(OSError):
                self._running[job].head.send(answer)

    def kill(self, job: Job) -> None:
        """Kill a running job's process; that it died is heard by the next poll, of whatever
        thread."""
        if (worker := self._running.get(job)) is not None:
            worker.process.kill()
            wait([worker.process.sentinel], GRACE_S)  # leaves the exit code to who polls

    def end(self, job: Job) -> None:
        if job in self._running:
            self.kill(job)
            self._leave(job, GRACE_S)

    def _leave(self, job: Job, grace_s: float) -> None:
        """Leave no process behind: a worker leaves when its pipe closes; one that hangs is
        killed."""
        worker = self._running.pop(job)
        worker.head.close()
        worker.process.join(grace_s)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()

    def close(self) -> None:
        for job in tuple(self._running):
            self.end(job)


def _resident_mb(pid: int | None) -> float:
    try:
        return float(psutil.Process(pid).memory_info().rss) / MB
    except psutil.Error:
        return 0.0


def _context(models: tuple[str, ...]) -> Any:
    """forkserver where there is one; elsewhere spawn (works, but pays the imports each time)."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])
    os.environ[PRELOADED_MODELS] = ",".join(models)  # read when the server starts
    return context


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    """Keep workers from importing the user's script again: one without a `__main__` guard would
    start the sweep once more in every worker."""
    main = sys.modules["__main__"]
    kept = {k: getattr(main, k) for k in ("__file__", "__spec__") if hasattr(main, k)}
    try:
        for name in kept:
            setattr(main, name, None)
        if "__file__" in kept:
            del main.__file__
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)


def _obituary(process: BaseProcess, log: Path, short: bool) -> str:
    code = process.exitcode
    how = f"exit code {code}"
    if code is not None and code < 0:
        how = f"killed by {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            how += " (by the kernel, for want of memory)" if short else " (by hand, as it seems)"
    return f"the trial's process {process.pid} ended without a word: {how}; see {log}"


def _memory_kills() -> int:
    """Processes that the kernel has killed for want of memory: in this control group where it
    counts them, else on this machine; 0 where nobody counts."""
    for counter in OOM_COUNTERS:
        with contextlib.suppress(OSError, ValueError):
            counts = dict(line.split() for line in counter.read_text().splitlines())
            if "oom_kill" in counts:
                return int(counts["oom_kill"])
    return 0


def _work(task: Task, worker: Connection, log: str, environment: Mapping[str, str]) -> None:
    """The worker's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the head's to answer
    os.environ.update(environment)
    threading.Thread(target=_leave_with_the_head, daemon=True).start()
    _write_output_to(log)
    channel = PipeChannel(worker)
    try:
        message: Message = Done(task(channel))
    except Exception as error:  # a model package may raise anything; the head records it
        message = failed(error)
        if not isinstance(error, TrialPruned):
            print(message.traceback, file=sys.stderr, flush=True)
    channel.send(message)


def _leave_with_the_head() -> None:
    """A head that was killed closes no file in order: its worker, in whatever long step, goes."""
    head = multiprocessing.parent_process()
    if head is not None:
        head.join()
        os._exit(1)


def _write_output_to(log: str) -> None:
    """Send everything this process prints, C libraries included, to the log file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
