"""Tasks for the engine tests: in a module of their own, so that workers can import them."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from foresweep.search.channel import Channel


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
