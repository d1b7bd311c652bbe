"""A run of somebody's own script: opened, watched, logged, closed whatever happens."""

from __future__ import annotations

import contextlib
import logging
import platform
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Protocol

import psutil

from foresweep.errors import TrackerError, UsageError
from foresweep.records import Run, RunState
from foresweep.tracker.liveness import Heartbeat

# What the machine is and how busy it is: CPU, memory, and NVIDIA GPUs where pynvml is there.


MB = 1024 * 1024
CGROUP = Path("/sys/fs/cgroup")
logger = logging.getLogger(__name__)


def cpu_model() -> str:
    """The processor's name as it tells it, "" where it does not."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_mb() -> int:
    """The machine's memory."""
    return int(psutil.virtual_memory().total // MB)


def free_memory_mb() -> float:
    """Memory that processes may still take: the machine's, or less where this control group is held
    to less."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no control group, or "max"
        most, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        told = (line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        cached = int(dict(told).get("inactive_file", 0))  # files in memory, given up when asked for
        free = min(free, max(0, most - used + cached))
    return free / MB


def gpu_models() -> list[str]:
    """NVIDIA GPUs by name; [] where there is none, or no pynvml (package nvidia-ml-py)."""
    return [name for name, _ in _gpus()]


def peak_memory_mb() -> float:
    """The largest resident size of this process so far, whatever ran in it."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MB if sys.platform == "darwin" else peak / 1024  # bytes there, kB on Linux


def system_metrics() -> dict[str, float]:
    """How busy the machine is now: percent and MB, by names that begin with `system/`."""
    process = psutil.Process()
    metrics = {
        "system/cpu_pct": psutil.cpu_percent(),
        "system/memory_pct": psutil.virtual_memory().percent,
        "system/process_memory_mb": process.memory_info().rss / MB,
    }
    for number, (_, handle) in enumerate(_gpus()):
        metrics |= _gpu_metrics(number, handle)
    return metrics


class SystemWatch:
    """Tells how busy the machine is every `every_s` seconds from a thread; None: never."""

    def __init__(
        self, tell: Callable[[int, Mapping[str, float]], None], *, every_s: float | None
    ) -> None:
        """`tell(second, metrics)` gets whole seconds since the start and must not raise."""
        self._tell, self._every_s = tell, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="foresweep-system", daemon=True)

    def start(self) -> None:
        if self._every_s is not None:
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _loop(self) -> None:
        started = time.monotonic()
        psutil.cpu_percent()  # the first answer is about the time since this one
        while not self._stop.wait(self._every_s):
            try:
                metrics = system_metrics()
            except psutil.Error as error:
                logger.warning("system metrics end here: %s", error)
                return
            self._tell(round(time.monotonic() - started), metrics)


@cache
def _gpus() -> tuple[tuple[str, Any], ...]:
    """(name, handle) of each GPU, looked up once: asking the driver to start costs much."""
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
        return tuple((str(pynvml.nvmlDeviceGetName(h)), h) for h in handles)
    except pynvml.NVMLError:
        return ()


def _gpu_metrics(number: int, handle: Any) -> dict[str, float]:
    import pynvml

    try:
        load = pynvml.nvmlDeviceGetUtilizationRates(handle)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError:
        return {}
    return {
        f"system/gpu{number}_pct": float(load.gpu),
        f"system/gpu{number}_memory_mb": memory.used / MB,
    }


# A run that somebody's own script trains: opened, logged, closed whatever happens.


BUFFER_S = 1.0
MOST_WAITING = 100_000
"""Points a buffer holds while the database is away; one more is an error."""


class Writer(Protocol):
    """What a logged run needs of the tracker."""

    def log(self, run_id: str, step: int, metrics: Mapping[str, float]) -> None: ...

    def log_steps(self, run_id: str, steps: Mapping[int, Mapping[str, float]]) -> None: ...

    def beat(self, run_ids: Iterable[str]) -> None: ...

    def finish_run(
        self,
        run_id: str,
        state: RunState | str,
        *,
        scores: Mapping[str, float] | None = None,
        checkpoint_path: str | Path | None = None,
        error: str | None = None,
        training_time_seconds: float | None = None,
        duration_seconds: float | None = None,
        peak_memory_mb: float | None = None,
        notes: str | None = None,
    ) -> Run: ...


class Buffer:
    """Steps of one run, written in batches by a thread every `every_s` seconds.

    What was logged less than `every_s` (and one transaction) ago is lost when the process is
    killed; `flush` and the end of the block make everything durable.
    """

    def __init__(self, tracker: Writer, run_id: str, *, every_s: float = BUFFER_S) -> None:
        self.loss_window_s = every_s
        self._tracker, self._run_id = tracker, run_id
        self._steps: dict[int, dict[str, float]] = {}
        self._num_waiting = 0
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._stop = threading.Event()
        self._warned = False
        self._refused: UsageError | None = None
        self._thread = threading.Thread(target=self._loop, name="foresweep-buffer", daemon=True)
        self._thread.start()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep a step's metrics for the next batch. Raises TrackerError where the database has
        been away for so long that the buffer is full, UsageError where points before these were
        refused."""
        self._tell_refused()
        with self._lock:
            if self._num_waiting + len(metrics) > MOST_WAITING:
                raise TrackerError(
                    f"{self._num_waiting} points of {self._run_id} wait for the database: "
                    f"it takes none; see the warnings before this one"
                )
            self._steps.setdefault(step, {}).update(metrics)
            self._num_waiting += len(metrics)

    def flush(self) -> None:
        """Make everything logged so far durable. Raises as `Tracker.log` does."""
        with self._writing:
            with self._lock:
                steps, self._steps = self._steps, {}
                self._num_waiting = 0
            if not steps:
                return
            try:
                self._tracker.log_steps(self._run_id, steps)
            except TrackerError:
                self._put_back(steps)
                raise

    def close(self) -> None:
        """Flush, and take no more. Raises as `flush` does."""
        self._stop.set()
        self._thread.join()
        self.flush()
        self._tell_refused()

    def __enter__(self) -> Buffer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tell_refused(self) -> None:
        refused, self._refused = self._refused, None
        if refused is not None:
            raise refused

    def _put_back(self, steps: dict[int, dict[str, float]]) -> None:
        with self._lock:
            for step, metrics in steps.items():
                self._steps[step] = metrics | self._steps.get(step, {})
            self._num_waiting = sum(map(len, self._steps.values()))

    def _loop(self) -> None:
        while not self._stop.wait(self.loss_window_s):
            try:
                self.flush()
            except UsageError as error:  # is told to whoever logs next
                self._refused = error
            except TrackerError as error:
                if not self._warned:
                    logger.warning("points of %s wait: %s", self._run_id, error)
                self._warned = True


class LoggedRun:
    """An open run: log steps, finish it, or let the end of the block do that."""

    def __init__(
        self,
        tracker: Writer,
        run: Run,
        *,
        buffer_s: float | None = None,
        system_every_s: float | None = None,
    ) -> None:
        self.run_id = run.run_id
        self._tracker, self._started = tracker, monotonic()
        self._done: Run | None = None
        self._buffer = None if buffer_s is None else Buffer(tracker, run.run_id, every_s=buffer_s)
        self._heartbeat = Heartbeat(tracker, [run.run_id])
        self._watch = SystemWatch(self._note_system, every_s=system_every_s)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Put metrics at a step on record. Raises as `Tracker.log` does."""
        if self._buffer is None:
            self._tracker.log(self.run_id, step, metrics)
        else:
            self._buffer.log(step, metrics)

    def finish(
        self,
        metrics: Mapping[str, float] | None = None,
        *,
        checkpoint_path: str | Path | None = None,
        training_time_seconds: float | None = None,
        notes: str | None = None,
    ) -> Run:
        """Close the run as complete. Raises as `Tracker.finish_run` does."""
        self._flush()
        self._done = self._tracker.finish_run(
            self.run_id,
            RunState.COMPLETE,
            scores=metrics,
            checkpoint_path=checkpoint_path,
            training_time_seconds=training_time_seconds,
            duration_seconds=monotonic() - self._started,
            peak_memory_mb=peak_memory_mb(),
            notes=notes,
        )
        return self._done

    def __enter__(self) -> LoggedRun:
        self._heartbeat.__enter__()
        self._watch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watch.stop()
        self._heartbeat.__exit__(kind, error, trace)
        if self._done is not None:
            return
        if error is None:
            self.finish()
            return
        try:  # the script's own error is the one to tell
            self._end(*_ending(error))
        except TrackerError as failure:
            logger.warning("the end of %s is not on record: %s", self.run_id, failure)

    def _end(self, state: RunState, error: str) -> None:
        self._flush()
        self._done = self._tracker.finish_run(
            self.run_id,
            state,
            error=error,
            duration_seconds=monotonic() - self._started,
            peak_memory_mb=peak_memory_mb(),
        )

    def _flush(self) -> None:
        if self._buffer is not None:
            self._buffer.close()

    def _note_system(self, second: int, metrics: Mapping[str, float]) -> None:
        try:
            self._tracker.log(self.run_id, second, metrics)
        except TrackerError as error:
            logger.warning("system metrics of %s not written: %s", self.run_id, error)


def _ending(error: BaseException) -> tuple[RunState, str]:
    """How a run ends by an exception: Ctrl-C and leaving cancel it, all else is a failure."""
    if isinstance(error, KeyboardInterrupt):
        return RunState.CANCELLED, "stopped by Ctrl-C"
    if isinstance(error, SystemExit | GeneratorExit):
        return RunState.CANCELLED, f"the script left: {error!r}"
    return RunState.FAILED, "".join(traceback.format_exception(error))
