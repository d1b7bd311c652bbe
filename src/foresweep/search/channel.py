"""How a trial talks to the head of its sweep: messages one way, but for an answer.

The worker never writes to the database; it reports, and the head that holds the trial writes.
After each scoring on tune the worker waits for the head to say whether to go on, so that where a
trial ends depends on its scores and not on who was faster.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foresweep.errors import ForesweepError
from foresweep.models.base import TrialPruned

PROGRESS_EVERY_S = 0.2
GO, STOP = "go", "stop"


@dataclass(frozen=True, slots=True)
class Progress:
    """Training went on. Scores and losses are there at evaluation steps only."""

    step: int
    scores: Mapping[str, float]
    losses: Mapping[str, tuple[float, ...]] | None = None  # [origins] by metric: means over items


@dataclass(frozen=True, slots=True)
class Done:
    """The task returned."""

    result: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The task raised: one line for people, the traceback for the record."""

    error: str
    kind: str  # the exception's class name
    traceback: str = field(repr=False)

    @property
    def for_memory(self) -> bool:
        """Was there too little memory, on a GPU or on the machine?"""
        short = any(words in self.error for words in ("allocate memory", "out of memory"))
        return short or self.kind in ("MemoryError", "OutOfMemoryError")


@dataclass(frozen=True, slots=True)
class Died:
    """The task's process ended without a word: said by its engine."""

    how: str
    for_memory: bool = False  # the kernel killed it for want of memory, as far as can be seen


Message: TypeAlias = Progress | Done | Failed | Died


class HeadGone(SystemExit):
    """The head's end of the channel is closed: nobody waits for this worker any more."""


class Channel:
    """The worker's end. Given to training as its `report`."""

    _last_sent = 0.0

    def __call__(
        self,
        step: int,
        scores: Mapping[str, float],
        losses: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> None:
        """Report a step. Steps without evaluation are thinned out to a few a second.

        `losses` [origins, items] by metric. Raises TrialPruned when the head answers a scoring
        with stop; HeadGone when there is no head.
        """
        now = time.monotonic()
        if losses is None and now - self._last_sent < PROGRESS_EVERY_S:
            return
        self._last_sent = now
        means = None if losses is None else {k: origin_means(v) for k, v in losses.items()}
        self.send(Progress(step, {k: float(v) for k, v in scores.items()}, means))
        if losses is not None and self.answer() == STOP:
            raise TrialPruned

    def send(self, message: Message) -> None:
        """Raises HeadGone."""
        raise NotImplementedError

    def answer(self) -> str:
        """What the head says to a scoring. Raises HeadGone."""
        raise NotImplementedError


class PipeChannel(Channel):
    """Over a pipe, on one machine."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def send(self, message: Message) -> None:
        try:
            self.connection.send(message)
        except OSError as error:
            raise HeadGone(1) from error

    def answer(self) -> str:
        try:
            return str(self.connection.recv())
        except (EOFError, OSError) as error:
            raise HeadGone(1) from error


def failed(error: BaseException) -> Failed:
    """An exception in the words of a message."""
    text = "".join(traceback.format_exception(error))
    if isinstance(error, TrialPruned):
        return Failed("pruned", TrialPruned.__name__, "")
    ours = isinstance(error, ForesweepError)
    line = str(error) if ours else f"{type(error).__name__}: {error}"
    return Failed(" ".join(line.split()), type(error).__name__, text)


def origin_means(losses: NDArray[np.float64]) -> tuple[float, ...]:
    """[origins] mean over items of a loss panel [origins, items]; nan where an origin has none."""
    known = ~np.isnan(losses)
    counts = known.sum(axis=1)
    sums = np.where(known, losses, 0.0).sum(axis=1)
    return tuple(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).tolist())
