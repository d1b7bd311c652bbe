"""The pages, live: one application over a database, which looks again when the database changed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qs

from foresweep.errors import ForesweepError, MissingExtra, NotFound, UsageError
from foresweep.reporting import overview, pages, render, verdictpage
from foresweep.reporting.blocks import Page, Section, Words
from foresweep.reporting.render import EXTRA, Context
from foresweep.reporting.runpage import MOST_COMPARED, compare_page, run_page
from foresweep.reporting.sweeppage import sweep_page
from foresweep.reporting.views import PAGE, Asked, Links, Site
from foresweep.tracker.hiding import remove_tag
from foresweep.tracker.tracker import Tracker
from foresweep.web import LOOKS, App, Guard, Guarded

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

LOOK_EVERY_S = 1.0
KEPT_S, MOST_KEPT = 1.0, 64
SETTLED_S = 0.05
"""A file that was written to less long ago may be written to again within a tick of its clock."""
KEEP_ALIVE_S = 15.0
MOST_BODY = 64 * 1024
MOST_PAGE_SIZE = 500


def dashboard_app(tracker: Tracker, runs_dir: Path, guard: Guard) -> App:
    """The ASGI application. Raises MissingExtra."""
    try:
        import fastapi
    except ImportError as error:
        raise MissingExtra(error.name or "fastapi", EXTRA) from error
    render.templates()
    render.static("plotly.js")
    site = Site(tracker, runs_dir, Links(is_live=True), can_write=not guard.is_read_only)
    watch = Watch(stamp_of(tracker))
    kept = Kept(watch.stamp)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        looking = asyncio.create_task(watch.look())
        warming = asyncio.create_task(asyncio.to_thread(_warm, site))
        yield
        looking.cancel()
        warming.cancel()

    app = fastapi.FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    _Routes(site, guard, watch, kept).add_to(app)
    return Guarded(app, guard)


def _warm(site: Site) -> None:
    """Make the latest sweep's page once, so that the first reader does not wait for imports."""
    try:
        sweep_page(site.sweep("latest"), Asked())
    except ForesweepError:  # whoever asks for that page is told
        return


# What changed: the database's files are looked at, never its tables.


def stamp_of(tracker: Tracker) -> Callable[[], object]:
    """A value that differs after a write: times and sizes of an SQLite file and its log, which cost
    nothing to ask for; of a server the place in its own log."""
    path = tracker.store.path
    if path is None:
        return lambda: _server_stamp(tracker)
    files = (path, path.with_name(f"{path.name}-wal"))

    def stamp() -> object:
        found = []
        for file in files:
            try:
                said = file.stat()
                found.append((said.st_mtime_ns, said.st_size))
            except OSError:
                found.append((0, 0))
        return tuple(found)

    return stamp


def _is_settled(stamp: object) -> bool:
    """Is it certain that what changes from now on gives another stamp? Not of a file that was
    written to within a tick of its clock."""
    if not isinstance(stamp, tuple):
        return True
    return bool(time.time_ns() - max(stamp)[0] > 1e9 * SETTLED_S)


def _server_stamp(tracker: Tracker) -> object:
    from foresweep.tracker.queries.pages import stamp

    try:
        with tracker.store.read() as connection:
            return stamp(connection)
    except ForesweepError:  # out of reach for a moment: nothing is known to have changed
        return None


@dataclass(slots=True, eq=False)
class Watch:
    """Looks at the database for all open pages at once, and wakes them when it changed."""

    stamp: Callable[[], object]
    version: int = 0
    num_open: int = 0  # nobody looks where no page is open
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once, by the next change. No condition: a page that leaves is cancelled several times
    over, and would let go of a lock that another page holds."""

    async def look(self) -> None:
        """Until it is cancelled."""
        last = self.stamp()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if not self.num_open:
                continue  # what changes meanwhile is told to the first page that opens
            now = await asyncio.to_thread(self.stamp)
            if now != last:
                last = now
                self.tell()

    def tell(self) -> None:
        """Wake every open page."""
        self.version += 1
        told, self.changed = self.changed, asyncio.Event()
        told.set()

    async def events(self) -> AsyncIterator[str]:
        """Server-sent events of one page: `changed`, and a word now and then to keep it open."""
        seen = self.version
        self.num_open += 1
        try:
            yield ": here\n\n"
            while True:
                changed = self.changed
                if self.version != seen:
                    seen = self.version
                    yield f"event: changed\ndata: {seen}\n\n"
                    continue
                try:
                    await asyncio.wait_for(changed.wait(), KEEP_ALIVE_S)
                except TimeoutError:
                    yield ": still here\n\n"
        finally:
            self.num_open -= 1


Answer: TypeAlias = tuple[int, str, str]
"""Status, text and media type."""


@dataclass(slots=True, eq=False)
class Kept:
    """Answers, each made once for all who ask for it while the database stays as it is: when it
    changes, twenty open pages of a sweep are one page made. What is told by the clock (`heard of
    5 s ago`) may be a second old."""

    stamp: Callable[[], object]
    answers: dict[str, tuple[object, float, Answer]] = field(default_factory=dict)
    making: dict[str, Lock] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def get(self, address: str, make: Callable[[], Answer]) -> Answer:
        """The answer of an address; who asks for it while it is made waits for it."""
        with self.lock:
            if len(self.answers) > MOST_KEPT:
                self.answers.clear()
                self.making = {a: lock for a, lock in self.making.items() if lock.locked()}
            mine = self.making.setdefault(address, Lock())
        with mine:
            stamp, now = self.stamp(), time.monotonic()
            known = self.answers.get(address)
            if known is not None and known[0] == stamp and now - known[1] < KEPT_S:
                return known[2]
            made = make()
            if _is_settled(stamp):
                self.answers[address] = (stamp, now, made)
            return made


# Addresses.


@dataclass(frozen=True, slots=True)
class _Routes:
    """What answers an address. Pages are made in threads: the database may take its time."""

    site: Site
    guard: Guard
    watch: Watch
    kept: Kept

    def add_to(self, app: FastAPI) -> None:
        app.get("/events")(self.events())
        app.get("/static/{name}")(self.static())
        for kind, path in KINDS.items():
            self._add(app, kind, path)
        app.post("/run/{key}/{what}")(self.change())

    def _add(self, app: FastAPI, kind: str, path: str) -> None:
        from fastapi import Request, Response

        def show(request: Request) -> Response:
            return self.answer(request, kind, "html", "")

        def table(request: Request) -> Response:
            name, ending = (request.path_params[k] for k in ("name", "ending"))
            return self.answer(request, kind, ending, name)

        def figure(request: Request) -> Response:
            return self.answer(request, kind, "figure", request.path_params["name"])

        for function in (show, table, figure):
            function.__annotations__ = {"request": Request, "return": Response}
        base = path.rstrip("/")
        app.get(path)(show)
        app.get(f"{base}/table/{{name}}.{{ending}}")(table)
        app.get(f"{base}/figure/{{name}}")(figure)

    def answer(self, request: Request, kind: str, form: str, name: str) -> Response:
        """A page, or a table or figure of it; an error in the same form."""
        from fastapi.responses import Response

        def make() -> Answer:
            try:
                return self._answer(request, kind, form, name)
            except ForesweepError as error:
                status = (
                    404 if isinstance(error, NotFound) else 400 if error.exit_code == 2 else 500
                )
                if form == "html":
                    return status, self._html(request, _failed(error), kind), "text/html"
                return status, json.dumps(render.as_machine(error)), "application/json"

        address = f"{request.url.path}?{request.url.query}"
        status, text, media = self.kept.get(address, make)
        return Response(text, status, {"cache-control": "no-store"}, f"{media}; charset=utf-8")

    def _answer(self, request: Request, kind: str, form: str, name: str) -> Answer:
        page = self._page(kind, request.path_params.get("key", ""), asked_of(request))
        if form == "html":
            return 200, self._html(request, page, kind), "text/html"
        if form == "figure":
            figure = page.figures().get(name)
            if figure is None:
                raise NotFound(f"this page has no figure {name!r}")
            return 200, render.spec_json(render.built(figure)), "application/json"
        table = page.tables().get(name)
        if table is None or form not in ("csv", "json"):
            raise NotFound(f"this page has no table {name!r} as {form}")
        text = table.as_csv() if form == "csv" else table.as_json()
        return 200, text, "text/csv" if form == "csv" else "application/json"

    def _page(self, kind: str, key: str, asked: Asked) -> Page:
        site = self.site
        if kind == "overview":
            return overview.overview(site, asked)
        if kind == "runs":
            return overview.runs_page(site, asked)
        if kind == "service":
            return pages.service_page(site)
        if kind == "run":
            return run_page(site, site.tracker.get_run(key), asked)
        if kind == "compare":
            if not 2 <= len(asked.runs) <= MOST_COMPARED:
                raise UsageError(
                    f"pick 2 to {MOST_COMPARED} runs to compare, not {len(asked.runs)}"
                )
            return compare_page(site, [site.tracker.get_run(r) for r in asked.runs], asked)
        view = site.sweep(key)
        if kind == "sweep":
            return sweep_page(view, asked)
        if kind == "models":
            return pages.models_page(view, asked)
        made: Mapping[str, Any] = {
            "data": pages.data_page,
            "verdict": verdictpage.verdict_page,
        }
        page: Page = made[kind](view)
        return page

    def _html(self, request: Request, page: Page, kind: str) -> str:
        path = request.scope["path"]
        context = Context(
            is_live=True,
            path=path,
            base=path.rstrip("/"),
            asked=asked_of(request),
            csrf=self.guard.csrf,
            query=request.url.query,
        )
        menu = self._menu(kind, request.path_params.get("key", ""))
        return render.live_html(page, context, menu=menu, can_write=self.site.can_write)

    def _menu(self, kind: str, key: str) -> list[tuple[str, str, bool]]:
        """The pages beside this one: of its sweep, else of the latest."""
        sweep_id = key if kind in OF_A_SWEEP else ""
        try:
            if kind == "run":
                sweep_id = self.site.tracker.get_run(key).sweep_id or ""
            sweep_id = sweep_id or self.site.tracker.get_sweep("latest").sweep_id
        except NotFound:
            sweep_id = ""
        links = self.site.links
        found = [("Overview", "/", kind == "overview"), ("Runs", "/runs", kind == "runs")]
        for name, label in OF_A_SWEEP.items() if sweep_id else ():
            found.append((label, links.to(name, sweep_id) or "/", kind == name))
        return [*found, ("In service", "/service", kind == "service")]

    def events(self) -> Callable[..., Any]:
        from fastapi.responses import StreamingResponse

        async def events() -> Any:
            headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
            return StreamingResponse(self.watch.events(), 200, headers, "text/event-stream")

        return events

    def static(self) -> Callable[..., Any]:
        from fastapi.responses import Response

        def static(name: str) -> Any:
            try:
                content = render.static(name)
            except KeyError:
                return Response("no such file", 404, media_type="text/plain")
            keep = {"cache-control": "public, max-age=3600"}
            return Response(content, 200, keep, LOOKS.get(name, "text/javascript"))

        return static

    def change(self) -> Callable[..., Any]:
        """A note or a tag, from a form of ours."""
        from fastapi import Request
        from fastapi.concurrency import run_in_threadpool
        from fastapi.responses import Response

        async def change(request: Request) -> Any:
            body = b""
            async for piece in request.stream():
                body += piece
                if len(body) > MOST_BODY:
                    return Response("too long", 413, media_type="text/plain")
            form = {k: v[-1] for k, v in parse_qs(body.decode("utf-8", "replace")).items()}
            if not self.guard.accepts(form.get("csrf", "")):
                return Response("this form is not of this server: load its page again", 403)
            key, what = (request.path_params[k] for k in ("key", "what"))
            try:
                run_id = await run_in_threadpool(self._write, key, what, form)
            except ForesweepError as error:
                status = 404 if isinstance(error, NotFound) else 400
                return Response(str(error), status, media_type="text/plain")
            return Response(status_code=303, headers={"location": f"/run/{run_id}#notes-part"})

        change.__annotations__ = {"request": Request, "return": Any}
        return change

    def _write(self, key: str, what: str, form: Mapping[str, str]) -> str:
        tracker = self.site.tracker
        run = tracker.get_run(key)
        if what == "note" and form.get("text", "").strip():
            tracker.add_note(run.run_id, form["text"].strip(), who="dashboard")
        elif what == "tag" and form.get("tag", "").strip():
            tracker.add_tag(run.run_id, form["tag"].strip())
        elif what == "untag" and form.get("tag", "") in run.tags:
            remove_tag(tracker, run.run_id, form["tag"])
        elif what == "untag":
            raise NotFound(f"run {run.run_id} has no tag {form.get('tag', '')!r}")
        elif what in ("note", "tag"):
            raise UsageError(f"the {what} is empty")
        else:
            raise NotFound(f"nothing is written at {what!r}")
        return run.run_id


KINDS = {
    "overview": "/",
    "sweep": "/sweep/{key}",
    "models": "/models/{key}",
    "data": "/data/{key}",
    "verdict": "/verdict/{key}",
    "runs": "/runs",
    "run": "/run/{key}",
    "compare": "/compare",
    "service": "/service",
}
OF_A_SWEEP = {"sweep": "Sweep", "models": "Models", "data": "Data", "verdict": "Verdict"}


def asked_of(request: Request) -> Asked:
    """What a reader chose, from an address."""
    given = request.query_params
    return Asked(
        sort=given.get("sort", "").strip(),
        where=given.get("where", "").strip(),
        page=_count(given.get("page"), 1, 1_000_000),
        size=_count(given.get("size"), PAGE, MOST_PAGE_SIZE),
        item=given.get("item", ""),
        origin=given.get("origin", ""),
        runs=tuple(dict.fromkeys(given.getlist("run"))),
        metric=given.get("metric", "").strip(),
    )


def _count(text: str | None, usual: int, most: int) -> int:
    is_sound = text is not None and text.isdecimal() and len(text) < 10 and int(text) > 0
    return min(int(text or 0), most) if is_sound else usual


def _failed(error: ForesweepError) -> Page:
    words = (Words(str(error), "bad"),)
    section = Section("why", "Why", words)
    return Page("error", "This page cannot be shown", "", (section,), (("Overview", "/"),))
