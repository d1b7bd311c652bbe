"""Tasks for the engine tests: in a module of their own, so that workers can import them."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foresweep.models.registry import get_model
from foresweep.search.engines.base import Channel

SCORED = {"pct_mae": np.array([[1.0, 3.0], [2.0, np.nan]])}
"""Losses [origins, items]."""


@dataclass(frozen=True)
class Endless:
    """Report the worker's pid until the pipe closes."""

    def __call__(self, channel: Channel) -> None:
        step = 0
        while True:
            step += 1
            channel(step, {"pid": float(os.getpid())})


@dataclass(frozen=True)
class Twice:
    number: int

    def __call__(self, channel: Channel) -> int:
        return 2 * self.number


@dataclass(frozen=True)
class Report:
    """Report a few steps and give back a number."""

    def __call__(self, channel: Channel) -> int:
        for step in (1, 2, 3):
            channel(step, {"tune_pct_mae": step / 10}, {})
        print("printed by the trial")
        return 42


@dataclass(frozen=True)
class Raise:
    error: Exception

    def __call__(self, channel: Channel) -> None:
        raise self.error


@dataclass(frozen=True)
class KillItself:
    signal: int

    def __call__(self, channel: Channel) -> None:
        os.kill(os.getpid(), self.signal)


@dataclass(frozen=True)
class SayPid:
    def __call__(self, channel: Channel) -> int:
        return os.getpid()


@dataclass(frozen=True)
class Loaded:
    """Which of these modules were there before the task did anything."""

    names: tuple[str, ...]

    def __call__(self, channel: Channel) -> tuple[str, ...]:
        return tuple(n for n in self.names if n in sys.modules)


@dataclass(frozen=True)
class Scored:
    """Score `steps` times, telling the pid; give back how many scorings were heard."""

    steps: int = 3

    def __call__(self, channel: Channel) -> int:
        for step in range(1, self.steps + 1):
            channel(step, {"pid": float(os.getpid())}, SCORED)
        return self.steps


@dataclass(frozen=True)
class Hang:
    """Tell the pid, then be in one long step that reports nothing."""

    def __call__(self, channel: Channel) -> None:
        channel(1, {"pid": float(os.getpid())})
        time.sleep(600)


@dataclass(frozen=True)
class Chatter:
    """Report so often that most of it is thinned out, then a last scoring."""

    def __call__(self, channel: Channel) -> str:
        until = time.monotonic() + 0.5
        step = 0
        while time.monotonic() < until:
            step += 1
            channel(step, {})
        channel(step + 1, {}, {})
        return "said everything"


@dataclass(frozen=True)
class Environment:
    """What these variables are in the worker."""

    names: tuple[str, ...]

    def __call__(self, channel: Channel) -> tuple[str | None, ...]:
        return tuple(os.environ.get(n) for n in self.names)


@dataclass(frozen=True)
class Writer:
    """Read a file; write, as a training does, a state after each scoring, at the end a result and
    no state. Go on from the state of an earlier attempt."""

    source: Path
    out: Path
    earlier: tuple[Path, ...] = ()
    steps: int = 3

    def __call__(self, channel: Channel) -> Written:
        states = self.out / "checkpoint.state"
        states.mkdir(parents=True)
        found = [e / "checkpoint.state" / "0.txt" for e in self.earlier]
        done = next((int(f.read_text()) for f in found if f.exists()), 0)
        for step in range(done + 1, self.steps + 1):
            channel(step, {"pid": float(os.getpid())}, {})
            (states / "0.txt").write_text(str(step))
        print("printed by the writer")
        shutil.rmtree(states)
        (self.out / "checkpoint").mkdir()
        (self.out / "checkpoint" / "result.txt").write_text(self.source.read_text())
        return Written(self.out / "checkpoint", str(self.source), done)


@dataclass(frozen=True)
class Written:
    path: Path
    source: str  # as the worker knew it
    resumed_from: int


@dataclass(frozen=True)
class Find:
    """Which class stands behind a model's name, in the worker."""

    model: str

    def __call__(self, channel: Channel) -> str:
        return type(get_model(self.model)).__module__


@dataclass(frozen=True)
class CudaIsUntouched:
    """Is torch there, and CUDA not initialised, neither here nor where this was forked from?"""

    def __call__(self, channel: Channel) -> bool:
        import torch

        return not torch.cuda.is_initialized() and not torch.cuda._is_in_bad_fork()
