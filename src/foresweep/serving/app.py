"""The addresses of the server: forecasts, what is in service, how it does."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from foresweep import __version__
from foresweep.data.splits import MIN_CONTEXT
from foresweep.errors import ForesweepError, UsageError
from foresweep.evaluation.predict import iso
from foresweep.selection.leaderboard import leaderboard
from foresweep.serving.asked import EXAMPLE, Asked, Question, Reader, Unseen
from foresweep.serving.batching import Answer, Batcher, NotRecorded, Overloaded
from foresweep.serving.live import Live
from foresweep.serving.page import PAGE_SCRIPT, page
from foresweep.tracker.service import Entry
from foresweep.web import LOOKS, App, Guard, Guarded, look

logger = logging.getLogger(__name__)
METRIC = "val_pct_mae"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask."""

    body_mb: float = 8.0
    items: int = 512
    horizon: int = 64
    time_s: float = 30.0
    waiting: int = 2048  # windows in the queue


class Refused(Exception):
    """A request that is answered with a status and the reason."""

    def __init__(self, status: int, reason: str, **more: Any) -> None:
        super().__init__(reason)
        self.status, self.more = status, more


class Meters:
    """What /metrics tells, of this server alone."""

    def __init__(self, live: Live, batcher: Batcher) -> None:
        self.registry = CollectorRegistry()
        named: dict[str, Any] = {"registry": self.registry, "namespace": "foresweep"}
        self.requests = Counter(
            "requests", "Requests for forecasts, by HTTP status.", ["status"], **named
        )
        self.windows = Counter("forecasts", "Items forecast.", **named)
        self.recorded = Counter("recorded", "Forecasts put on record.", **named)
        self.swaps = Counter("swaps", "Champions taken over while serving.", **named)
        self.seconds = Histogram(
            "request_seconds", "From the first byte to the answer.", **named,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )  # fmt: skip
        self.model_seconds = Histogram(
            "model_seconds", "A batch in the model.", **named,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
        )  # fmt: skip
        self.batch = Histogram(
            "batch_requests", "Requests answered by one batch.", **named,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
        )  # fmt: skip
        waiting = Gauge("waiting", "Items in the queue.", **named)
        waiting.set_function(lambda: batcher.waiting)
        trouble = Gauge("swap_failed", "1: what was promoted last cannot be loaded.", **named)
        trouble.set_function(lambda: float(bool(live.trouble)))
        batcher.on_batch = self._batched
        batcher.on_record = self.recorded.inc
        live.on_swap = self.swaps.inc

    def _batched(self, requests: int, windows: int, seconds: float) -> None:
        self.batch.observe(requests)
        self.windows.inc(windows)
        self.model_seconds.observe(seconds)


def serving_app(
    live: Live, guard: Guard, *, limits: Limits | None = None, batcher: Batcher | None = None
) -> App:
    """The ASGI application over a slot in service."""
    most = limits or Limits()
    work = batcher or Batcher(live)
    work.most_waiting = most.waiting
    meters = Meters(live, work)
    slowly = ThreadPoolExecutor(1, "foresweep-calendar")
    reader = Reader(most.items, most.horizon, MIN_CONTEXT)

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        example, horizon = json.dumps(EXAMPLE).encode(), live.current.champion.forecaster.horizon
        await asyncio.to_thread(reader.read, example, horizon)  # loads the exchanges' calendars
        work.start()
        live.start()
        gc.collect()
        gc.freeze()  # a look through all that the heavy libraries made takes a third of a second
        yield
        gc.unfreeze()
        live.stop()
        await asyncio.to_thread(work.stop)
        slowly.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title="foresweep", version=__version__, lifespan=life, docs_url=None, redoc_url=None,
        description="Forecasts by the champion of a slot: bars in, quantiles of the closes out.",
    )  # fmt: skip
    for status in (404, 405):
        app.add_exception_handler(status, _no_such)
    _Routes(live, work, meters, most, reader, slowly).add_to(app)
    return Guarded(app, guard)


@dataclass(frozen=True, slots=True)
class _Routes:
    live: Live
    work: Batcher
    meters: Meters
    limits: Limits
    reader: Reader
    slowly: Executor  # one thread: whoever waits for the same calendar finds it made

    def add_to(self, app: FastAPI) -> None:
        app.post(
            "/forecast", summary="Forecast the next closes", response_model=None,
            openapi_extra={"requestBody": BODY}, responses=ANSWERS,
        )(self.forecast())  # fmt: skip
        for path, summary, answer in (
            ("/champion", "What is in service", self.champion),
            ("/leaderboard", "The runs of the champion's sweep, on val", self.leaderboard),
            ("/health", "Is the server alive?", self.health),
            ("/ready", "Can it forecast now?", self.ready),
            ("/metrics", "Counters and latencies, for Prometheus", self.metrics),
        ):
            app.get(path, summary=summary, response_model=None)(self._safe(answer))
        app.get("/", include_in_schema=False)(self._safe(lambda: self.page(app)))
        app.get("/docs", include_in_schema=False)(self._safe(lambda: self.page(app)))
        app.get("/page.js", include_in_schema=False)(
            self._safe(lambda: Response(PAGE_SCRIPT, 200, media_type="text/javascript"))
        )
        for name, kind in LOOKS.items():
            app.get(f"/{name}", include_in_schema=False)(
                self._safe(partial(Response, look(name), 200, media_type=kind))
            )
        plain = app.openapi

        def openapi() -> dict[str, Any]:
            spec = plain()
            spec.setdefault("components", {}).setdefault("schemas", {}).update(SCHEMAS)
            return spec

        app.openapi = openapi  # type: ignore[method-assign]

    def _safe(self, answer: Callable[[], Response]) -> Callable[..., Any]:
        """In a thread, as the database may take its time; an error of ours in one line."""

        async def respond() -> Response:
            try:
                return await asyncio.to_thread(answer)
            except ForesweepError as error:
                return _failed(503, str(error))
            except Exception:
                logger.exception("a page could not be made")
                return _failed(500, "an error inside; its log says more")

        return respond

    def forecast(self) -> Callable[..., Any]:
        async def forecast(request: Request) -> Response:
            started = time.perf_counter()
            try:
                async with asyncio.timeout(self.limits.time_s):
                    response = await self._forecast(request)
            except Refused as refused:
                response = _failed(refused.status, str(refused), **refused.more)
            except TimeoutError:
                response = _failed(
                    503,
                    f"not answered within {self.limits.time_s:g} s: ask for less; bars that keep "
                    f"no exchange's holidays: once more, their calendar is being made",
                )
            except Exception:
                logger.exception("a forecast could not be made")
                response = _failed(500, "an error inside; its log says more")
            self.meters.requests.labels(response.status_code).inc()
            self.meters.seconds.observe(time.perf_counter() - started)
            return response

        forecast.__annotations__ = {"request": Request, "return": Response}
        return forecast

    async def _forecast(self, request: Request) -> Response:
        work = self.work
        body = await self._body(request)
        work.arriving += 1
        try:
            await asyncio.sleep(0)  # all bodies that are here are counted before one is read
            champion = self.live.current.champion
            try:
                question = await self._read(body, champion.forecaster.horizon)
            except UsageError as error:
                raise Refused(422, str(error)) from error
            if not question.items:
                raise Refused(422, "no item can be forecast", refused=question.refused)
            try:
                future = work.put(question)
            except Overloaded as error:
                raise Refused(429, str(error)) from error
        finally:
            work.arriving -= 1
        try:
            answer = await asyncio.wrap_future(future)
        except NotRecorded as error:
            raise Refused(503, str(error)) from error
        except ForesweepError as error:  # the model cannot: a horizon it was not calibrated for
            raise Refused(422, str(error)) from error
        return Response(_json(answer, question.refused), 200, media_type="application/json")

    async def _read(self, body: bytes, horizon: int) -> Question:
        """Here where it is a matter of a fraction of a millisecond; by the reader's own thread
        where a calendar must first be found, so that nobody else waits for it."""
        try:
            return self.reader.read(body, horizon, at_hand=True)
        except Unseen as unseen:
            loop = asyncio.get_running_loop()
            self.work.arriving -= 1  # no batch is to wait for it
            try:
                return await loop.run_in_executor(self.slowly, unseen.go_on)
            finally:
                self.work.arriving += 1

    async def _body(self, request: Request) -> bytes:
        most = int(self.limits.body_mb * 2**20)
        said = request.headers.get("content-length", "")
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
        if kind.lower() != "application/json":
            raise Refused(415, f"the body is {kind!r}: send application/json")
        parts, size = [], int(said) if said.isdecimal() and len(said) < 19 else 0
        if size > most:
            raise Refused(413, f"the body has {size:,} bytes, at most {most:,}")
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise Refused(413, f"the body has more than {most:,} bytes")
            parts.append(part)
        return b"".join(parts)

    def champion(self) -> Response:
        current = self.live.current
        told = {
            "slot": self.live.name,
            "champion": _entry(current.champion.entry)
            | {"since": (current.slot.since or current.champion.entry.made_at).isoformat()},
            "model": current.champion.forecaster.model,
            "horizon": current.champion.forecaster.horizon,
            "context_length": current.champion.forecaster.predictor.context_length,
            "beats_naive": bool(current.champion.forecaster.card.get("beats_naive", False)),
            "shadows": [_entry(s.entry) for s in current.shadows],
            "left_out": dict(current.left_out or {}),
            "swaps": self.live.num_swaps,
            "trouble": self.live.trouble,
        }
        return JSONResponse(told)

    def leaderboard(self) -> Response:
        tracker = self.live.tracker
        run = tracker.get_run(self.live.current.champion.run_id)
        board = leaderboard(tracker.get_runs(fingerprint=run.fingerprint), metric=METRIC)
        rows = [
            {
                "place": row.place,
                "run_id": row.run.run_id,
                "model": row.run.model_name,
                "score": row.score,
                "skill": row.skill,
                "note": row.note,
                "in_service": row.run.run_id == run.run_id,
            }
            for row in board.rows[:100]
        ]
        return JSONResponse({"metric": METRIC, "fingerprint": run.fingerprint, "rows": rows})

    def health(self) -> Response:
        return JSONResponse({"alive": True, "version": __version__})

    def ready(self) -> Response:
        if not self.work.is_alive:
            return _failed(503, "the thread of the model has ended: start the server again")
        return JSONResponse({"ready": True, "run_id": self.live.current.champion.run_id})

    def metrics(self) -> Response:
        return Response(generate_latest(self.meters.registry), 200, media_type=CONTENT_TYPE)

    def page(self, app: FastAPI) -> Response:
        return Response(page(app.openapi()), 200, media_type="text/html; charset=utf-8")


def _json(answer: Answer, refused: Mapping[str, str]) -> bytes:
    entry, told = answer.served.entry, answer.told
    levels = [f"{level:g}" for level in told.forecast.levels]
    values = told.forecast.values.transpose(0, 2, 1).tolist()  # [N, Q, H]
    found = {
        "slot": entry.slot,
        "run_id": entry.run_id,
        "model": told.model,
        "horizon": told.times.shape[1],
        "forecasts": [
            {
                "item_id": item,
                "origin": iso(told.origins[n]),
                "last_close": float(told.last_close[n]),
                "timestamp": [iso(time) for time in told.times[n]],
                "quantiles": dict(zip(levels, values[n], strict=True)),
            }
            for n, item in enumerate(told.items)
        ],
        "refused": dict(refused),
    }
    return json.dumps(found).encode()


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "run_id": entry.run_id,
        "since": entry.made_at.isoformat(),
        "by": entry.who,
        "verdict_id": entry.verdict_id,
        "forced": entry.reason,
        "why": entry.why,
        "manifest": entry.manifest,
    }


async def _no_such(request: Request, error: Any) -> Response:
    """An address or method that is none, in the form of every other refusal; `error` is the
    HTTPException of FastAPI's router."""
    answer = _failed(
        error.status_code,
        f"{request.method} {request.url.path}: {str(error.detail).lower()}; GET / lists what is",
    )
    answer.headers.update(error.headers or {})  # a 405 names the methods that are allowed
    return answer


def _failed(status: int, reason: str, **more: Any) -> Response:
    headers = {"retry-after": "1"} if status in (429, 503) else {}
    return JSONResponse({"error": reason, **more}, status, headers)


REF = "#/components/schemas/{model}"


def _schemas() -> dict[str, Any]:
    whole = Asked.model_json_schema(ref_template=REF)
    inner: dict[str, Any] = whole.pop("$defs", {})
    return {**inner, "Asked": whole, "Answer": ANSWER, "Refusal": REFUSAL}


_NUMBERS = {"type": "array", "items": {"type": "number"}}
ANSWER = {
    "type": "object",
    "required": ["slot", "run_id", "model", "horizon", "forecasts", "refused"],
    "properties": {
        "slot": {"type": "string"},
        "run_id": {"type": "string"},
        "model": {"type": "string"},
        "horizon": {"type": "integer"},
        "forecasts": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "item_id": {"type": "string"},
                    "origin": {"type": "string", "description": "the last bar that was seen"},
                    "last_close": {"type": "number"},
                    "timestamp": {"type": "array", "items": {"type": "string"}},
                    "quantiles": {"type": "object", "additionalProperties": _NUMBERS},
                },
            },
        },
        "refused": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
REFUSAL = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string"},
        "refused": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
SCHEMAS = _schemas()


def _answer(words: str, schema: str = "Refusal") -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": REF.format(model=schema)}}}
    return {"description": words, "content": content}


BODY = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": REF.format(model="Asked")}}},
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _answer("Quantiles by item; items that could not be forecast, with the reason.", "Answer"),
    413: _answer("The body is too large."),
    415: _answer("The body is no JSON."),
    422: _answer("The bars are not as they must be: the reason, by item where it is one's."),
    429: _answer("Too much waits already: ask again in a moment."),
    503: _answer("Not answered in time, or not on record."),
}
