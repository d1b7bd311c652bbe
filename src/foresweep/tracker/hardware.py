"""What the machine is and how busy it is: CPU, memory, and NVIDIA GPUs where pynvml is there."""

from __future__ import annotations

import logging
import platform
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psutil

MB = 1024 * 1024
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
    found = {
        "system/cpu_pct": psutil.cpu_percent(),
        "system/memory_pct": psutil.virtual_memory().percent,
        "system/process_memory_mb": process.memory_info().rss / MB,
    }
    for number, (_, handle) in enumerate(_gpus()):
        found |= _gpu_metrics(number, handle)
    return found


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
                found = system_metrics()
            except psutil.Error as error:
                logger.warning("system metrics end here: %s", error)
                return
            self._tell(round(time.monotonic() - started), found)


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
