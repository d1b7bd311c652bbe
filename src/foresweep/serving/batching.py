"""One thread forecasts, one writes: what waits while a batch is made is the next batch.

Nobody waits for company that is not coming: a batch is held open, for MAX_WAIT_S at most, only
while other bodies that have come are being read. A forecast is answered once it is on record.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from foresweep.errors import ForesweepError
from foresweep.evaluation.predict import PanelForecast
from foresweep.lifecycle.inference import InService, Serving, record_forecasts
from foresweep.models.base import Forecast
from foresweep.serving.asked import Item, Question, context_of
from foresweep.serving.live import Live

logger = logging.getLogger(__name__)
MAX_WAIT_S = 0.02
"""Reading 50 bodies takes this long, and a window alone costs a model several in company."""
MOST_WINDOWS = 256
"""Windows of a batch: beyond it no model gains, and an answer waits longer."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A question's forecasts and who made them."""

    served: InService
    told: PanelForecast


@dataclass(slots=True, eq=False)
class Job:
    """A question in the queue."""

    question: Question
    done: Future[Answer] = field(default_factory=Future)

    @property
    def kind(self) -> tuple[Any, ...]:
        """Jobs of one kind can be forecast together."""
        return self.question.horizon, self.question.levels

    def __len__(self) -> int:
        return len(self.question.items)


class Overloaded(ForesweepError):
    """More waits than can be answered in time."""


@dataclass(slots=True, eq=False)
class Batcher:
    """The queue, the thread of the model and that of the record."""

    live: Live
    record: bool = True
    most_waiting: int = 2048  # windows
    max_wait_s: float = MAX_WAIT_S
    together: bool = True  # False: one request at a time, to measure what batching gains
    on_batch: Callable[[int, int, float], None] = lambda requests, windows, seconds: None
    on_record: Callable[[int], None] = lambda new: None
    arriving: int = 0
    """Bodies that came and are being read: a batch may wait for them. Of the event loop alone."""
    _jobs: queue.Queue[Job | None] = field(default_factory=queue.Queue)
    _made: queue.Queue[tuple[list[tuple[Job, Answer]], list[Answer]] | None] = field(
        default_factory=lambda: queue.Queue(maxsize=64)
    )
    _waiting: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for name, work in (("model", self._forecast_all), ("record", self._record_all)):
            thread = threading.Thread(target=work, name=f"foresweep-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Answer what waits, then end."""
        self._jobs.put(None)
        for thread in self._threads:
            thread.join(timeout=30)

    @property
    def is_alive(self) -> bool:
        return bool(self._threads) and all(t.is_alive() for t in self._threads)

    @property
    def waiting(self) -> int:
        """Windows in the queue."""
        return self._waiting

    def put(self, question: Question) -> Future[Answer]:
        """Raises Overloaded where too much waits already."""
        job = Job(question)
        with self._lock:
            if self._waiting + len(job) > self.most_waiting and self._waiting:
                raise Overloaded(
                    f"{self._waiting} forecasts wait already; ask again in a moment, or in fewer "
                    f"and larger requests"
                )
            self._waiting += len(job)
        self._jobs.put(job)
        return job.done

    # The thread of the model.

    def _forecast_all(self) -> None:
        held: Job | None = None
        while True:
            first = held if held is not None else self._jobs.get()
            held = None
            if first is None:
                break
            batch, held, ends = self._gather(first)
            self._forecast(batch)
            if ends:
                break
        self._made.put(None)

    def _gather(self, first: Job) -> tuple[list[Job], Job | None, bool]:
        """(jobs of one kind, the next of another kind, is it the end?)"""
        batch, windows = [first], len(first)
        until = time.monotonic() + self.max_wait_s
        while self.together and windows < MOST_WINDOWS:
            try:
                left = until - time.monotonic() if self.arriving > 0 else 0
                job = self._jobs.get(timeout=left) if left > 0 else self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return batch, None, True
            if job.kind != first.kind:
                return batch, job, False
            batch.append(job)
            windows += len(job)
        return batch, None, False

    def _forecast(self, batch: Sequence[Job]) -> None:
        with self._lock:
            self._waiting -= sum(map(len, batch))
        wanted = [job for job in batch if job.done.set_running_or_notify_cancel()]
        if not wanted:
            return
        started, serving = time.perf_counter(), self.live.current
        answers = self._answers(serving.champion, wanted)
        self.on_batch(len(wanted), sum(map(len, wanted)), time.perf_counter() - started)
        pairs = [(job, answer) for job, answer in answers if answer is not None]
        if self.record:
            self._made.put((pairs, []))
            self._shadows(serving, [job for job, _ in pairs])
        else:
            _resolve(pairs)

    def _answers(
        self, served: InService, jobs: Sequence[Job]
    ) -> Iterable[tuple[Job, Answer | None]]:
        """Each job's answer, None where it failed and was told. One that fails in company is asked
        again alone: what is wrong with one request is no matter of the others."""
        try:
            return [*zip(jobs, self._together(served, jobs), strict=True)]
        except Exception as error:
            if len(jobs) > 1:
                return [pair for job in jobs for pair in self._answers(served, [job])]
            if not isinstance(error, ForesweepError):
                logger.exception("run %s made no forecast", served.run_id)
            jobs[0].done.set_exception(error)
            return [(jobs[0], None)]

    def _together(self, served: InService, jobs: Sequence[Job]) -> list[Answer]:
        items: list[Item] = [item for job in jobs for item in job.question.items]
        horizon, levels = jobs[0].question.horizon, jobs[0].question.levels
        forecaster = served.forecaster
        context = context_of(items, forecaster.predictor.context_length)
        made = forecaster.predictor.predict(context, horizon=horizon, levels=levels, seed=0)
        told = forecaster.told(context, made.checked(len(items), horizon), {})
        edges = np.cumsum([0, *map(len, jobs)])
        return [
            Answer(served, _part(told, int(edges[k]), int(edges[k + 1]))) for k in range(len(jobs))
        ]

    def _shadows(self, serving: Serving, jobs: Sequence[Job]) -> None:
        """On record alone, after the champion's answer is on its way."""
        for shadow in serving.shadows if jobs else ():
            try:
                self._made.put(([], self._together(shadow, jobs)))
            except Exception as error:  # whatever a shadow does, the champion answers
                level = logging.WARNING if isinstance(error, ForesweepError) else logging.ERROR
                logger.log(level, "shadow %s made no forecast: %s", shadow.run_id, error)

    # The thread of the record.

    def _record_all(self) -> None:
        ended = False
        while not ended:
            made = [self._made.get()]
            while len(made) < 64 and not self._made.empty():
                made.append(self._made.get())
            ended = None in made
            some = [one for one in made if one is not None]
            if some:
                self._record(
                    [p for one in some for p in one[0]], [a for one in some for a in one[1]]
                )

    def _record(self, pairs: Sequence[tuple[Job, Answer]], shadows: Sequence[Answer]) -> None:
        rows = [(a.served, a.told) for a in (*(answer for _, answer in pairs), *shadows)]
        try:
            self.on_record(record_forecasts(self.live.tracker, rows, source="serve"))
        except Exception as error:
            logger.exception("forecasts are not on record")
            for job, _ in pairs:
                job.done.set_exception(NotRecorded(f"the forecast is not on record: {error}"))
            return
        _resolve(pairs)


class NotRecorded(ForesweepError):
    """A forecast could not be put on record, so it is not given out."""


def _resolve(pairs: Iterable[tuple[Job, Answer]]) -> None:
    for job, answer in pairs:
        job.done.set_result(answer)


def _part(told: PanelForecast, start: int, stop: int) -> PanelForecast:
    """The items from `start` to `stop`."""
    return replace(
        told,
        items=told.items[start:stop],
        origins=told.origins[start:stop],
        last_close=told.last_close[start:stop],
        times=told.times[start:stop],
        forecast=Forecast(told.forecast.values[start:stop], told.forecast.levels),
        input_hashes=told.input_hashes[start:stop],
    )
