"""How a trial talks to the head of its sweep: messages over a pipe, one way but for an answer.

The worker never writes to the database; it reports, and the head that holds the trial writes.
After each scoring on tune the worker waits for the head to say whether to go on, so that where a
trial ends depends on its scores and not on who was faster.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

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


Message: TypeAlias = Progress | Done | Failed


class HeadGone(SystemExit):
    """The head's end of the pipe is closed: nobody waits for this worker any more."""


@dataclass(slots=True)
class PipeChannel:
    """The worker's end. Given to training as its `report`; not frozen, it remembers the time."""

    connection: Connection
    last_sent: float = 0.0

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
        if losses is None and now - self.last_sent < PROGRESS_EVERY_S:
            return
        self.last_sent = now
        means = None if losses is None else {k: origin_means(v) for k, v in losses.items()}
        self.send(Progress(step, {k: float(v) for k, v in scores.items()}, means))
        if losses is not None and self._answer() == STOP:
            raise TrialPruned

    def _answer(self) -> Any:
        try:
            return self.connection.recv()
        except (EOFError, OSError) as error:
            raise HeadGone(1) from error

    def send(self, message: Message) -> None:
        try:
            self.connection.send(message)
        except OSError as error:
            raise HeadGone(1) from error


def origin_means(losses: NDArray[np.float64]) -> tuple[float, ...]:
    """[origins] mean over items of a loss panel [origins, items]; nan where an origin has none."""
    known = ~np.isnan(losses)
    counts = known.sum(axis=1)
    sums = np.where(known, losses, 0.0).sum(axis=1)
    return tuple(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).tolist())
