"""The local engine: each task in a fresh process, forked from a server that has done the imports.

A cold worker spends 6-9 s importing torch and the model packages; forked from a forkserver that
has them loaded it is ready in a tenth of a second. A worker that crashes, is killed or runs out
of memory fails its own task only; one whose head is gone leaves by itself.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from foresweep.errors import ForesweepError, WorkerDied
from foresweep.models.base import TrialPruned
from foresweep.search.channel import GO, STOP, Done, Failed, Message, PipeChannel, Progress

Task = Callable[[PipeChannel], Any]
"""What a worker does: picklable, takes its channel, returns a picklable result."""
OnProgress = Callable[[Progress], str | None]
"""Hears progress; what it returns after a scoring is why the task must stop (None: it goes on)."""

GRACE_S = 5.0
PRELOAD = "foresweep.search.preload"
PRELOADED_MODELS = "FORESWEEP_PRELOAD"
"""Names of models, separated by commas: the server inherits its environment and little else."""


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Runs tasks one after the other, each in its own process."""

    models: tuple[str, ...] = ()
    """Models whose imports are done beforehand."""

    def run(self, task: Task, *, log: Path, on_progress: OnProgress) -> Any:
        """The task's result. Its output goes to `log`; progress is handed on as it comes.

        Raises the ForesweepError that the task raised, or TrialPruned; WorkerDied when the process
        ended without a word; TaskFailed for any other exception.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        head, worker = _context(self.models).Pipe()
        process = _context(self.models).Process(
            target=_work, args=(task, worker, str(log)), daemon=True
        )
        with _hidden_main():
            process.start()
        worker.close()
        try:
            return _listen(process, head, log, on_progress)
        finally:
            head.close()
            _end(process)


class TaskFailed(ForesweepError):
    """A task raised something that is not a ForesweepError."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.error)
        self.failed = failed


def _context(models: tuple[str, ...]) -> Any:
    """forkserver where there is one; elsewhere spawn (works, but pays the imports each time)."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])
    os.environ[PRELOADED_MODELS] = ",".join(models)  # read when the server starts
    return context


def warm_up(models: tuple[str, ...]) -> None:
    """Start the server's imports now, in the background, while the head reads data."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by OpenMP when torch is first imported
    context = _context(models)
    if context.get_start_method() == "forkserver":
        from multiprocessing.forkserver import ensure_running

        with _hidden_main():
            ensure_running()


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


def _listen(process: BaseProcess, head: Connection, log: Path, on_progress: OnProgress) -> Any:
    while True:
        try:
            message: Message = head.recv()
        except EOFError:
            process.join(GRACE_S)
            raise WorkerDied(_obituary(process, log)) from None
        if isinstance(message, Progress):
            reason = on_progress(message)
            if message.losses is not None:
                _reply(head, STOP if reason else GO)
        elif isinstance(message, Done):
            return message.result
        else:
            raise _as_error(message)


def _reply(head: Connection, answer: str) -> None:
    """A worker that died meanwhile is met by the next `recv`."""
    with contextlib.suppress(OSError):
        head.send(answer)


def _as_error(failed: Failed) -> Exception:
    if failed.kind == TrialPruned.__name__:
        return TrialPruned()
    error = TaskFailed(failed)
    error.add_note(failed.traceback)
    return error


def _obituary(process: BaseProcess, log: Path) -> str:
    code = process.exitcode
    how = f"exit code {code}"
    if code is not None and code < 0:
        how = f"killed by {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            how += " (by hand, or by the kernel for want of memory)"
    return f"the trial's process {process.pid} ended without a word: {how}; see {log}"


def _end(process: BaseProcess) -> None:
    """Leave no process behind: a worker leaves when its pipe closes; one that hangs is killed."""
    process.join(GRACE_S if process.exitcode is None and not sys.exc_info()[0] else 0.5)
    if process.is_alive():
        process.kill()
        process.join()


def _work(task: Task, worker: Connection, log: str) -> None:
    """The worker's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the head's to answer
    _write_output_to(log)
    channel = PipeChannel(worker)
    try:
        message: Message = Done(task(channel))
    except TrialPruned:
        message = Failed("pruned", TrialPruned.__name__, "")
    except ForesweepError as error:
        message = _failed(error, str(error))
    except Exception as error:  # a model package may raise anything; the head records it
        message = _failed(error, f"{type(error).__name__}: {error}")
    channel.send(message)


def _failed(error: Exception, line: str) -> Failed:
    text = "".join(traceback.format_exception(error))
    print(text, file=sys.stderr, flush=True)
    return Failed(" ".join(line.split()), type(error).__name__, text)


def _write_output_to(log: str) -> None:
    """Send everything this process prints, C libraries included, to the log file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
