"""The live pages: who may ask, what is escaped, what is written; nothing leaves its place."""

from __future__ import annotations

import asyncio
import html
import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from foresweep.errors import UsageError
from foresweep.reporting.dashboard import Answer, Kept, Watch, dashboard_app
from foresweep.tracker.tracker import Tracker
from foresweep.web import Guard, guard_for, is_loopback, listen
from judged_sweep import Planted, plant, spoil_test

BASE = "http://127.0.0.1:8765"
OURS = {"origin": BASE}
PAYLOADS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg/onload=alert(1)//",
    '"><script>alert(1)</script>',
    "'><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "javascript:alert(1)",
    '<a href="javascript:alert(1)">x</a>',
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "{{ 7 * 7 }}{% raw %}",
    "{{ ''.__class__.__mro__ }}",
    "<style>@import 'http://evil.example'</style>",
    "<meta http-equiv=refresh content='0;url=http://evil.example'>",
    "<base href='http://evil.example/'>",
    "<b onclick=alert(1)>bold</b><br>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<!--<img src='--><img src=x onerror=alert(1)>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    folder = tmp_path_factory.mktemp("dashboard")
    with Tracker(folder / "sweeps.db") as tracker:
        hyper = {"good": {"lr": 0.1, "note": PAYLOADS[0]}, "fair": {"lr": 0.2, "note": "plain"}}
        found = plant(
            tracker, folder / "runs", {"good": 0.1, "fair": 0.0}, hyperparams=hyper, items=3
        )
        spoil_test(found)
        yield found


def client(made: Planted, guard: Guard | None = None) -> TestClient:
    app = dashboard_app(made.tracker, made.folder, guard or Guard())
    return TestClient(app, base_url=BASE, follow_redirects=False)


@pytest.fixture
def browser(made: Planted) -> TestClient:
    return client(made)


def every_page(made: Planted) -> list[str]:
    sweep, good, fair = made.sweep.sweep_id, made.id("good"), made.id("fair")
    pages = [f"/{kind}/{sweep}" for kind in ("sweep", "models", "data", "verdict")]
    return ["/", "/runs", "/service", *pages, f"/run/{good}", f"/compare?run={good}&run={fair}"]


def csrf_of(browser: TestClient, run_id: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', browser.get(f"/run/{run_id}").text)
    assert found
    return found[1]


def test_every_page_answers_with_its_figures_and_tables(browser: TestClient, made: Planted) -> None:
    for place in every_page(made):
        answer = browser.get(place)
        assert answer.status_code == 200, place
        for source in re.findall(r'data-src="([^"]+)"', answer.text):
            figure = browser.get(html.unescape(source))
            assert figure.status_code == 200, source
            assert "layout" in figure.json()
        for table in re.findall(r'href="([^"]+/table/[^"]+)"', answer.text):
            found = browser.get(html.unescape(table))
            assert found.status_code == 200, table
            assert found.text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "localhost.evil.example",
             "127.0.0.1.evil.example", "10.0.0.1", "", "[::1", "user@127.0.0.1.evil.example"]
)  # fmt: skip
def test_a_foreign_host_is_refused(browser: TestClient, made: Planted, host: str) -> None:
    for place in every_page(made):
        assert browser.get(place, headers={"host": host}).status_code == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://127.0.0.1:8765.evil.example",
               "https://127.0.0.1", "file://"]
)  # fmt: skip
def test_a_foreign_origin_is_refused(browser: TestClient, made: Planted, origin: str) -> None:
    run = made.id("good")
    form = {"csrf": csrf_of(browser, run), "text": "from afar"}
    assert browser.get("/", headers={"origin": origin}).status_code == 403
    assert (
        browser.post(f"/run/{run}/note", data=form, headers={"origin": origin}).status_code == 403
    )
    assert "from afar" not in str(made.tracker.get_notes(run))


def test_a_change_needs_an_origin_and_the_csrf_word(browser: TestClient, made: Planted) -> None:
    run = made.id("good")
    word = csrf_of(browser, run)
    place = f"/run/{run}/note"
    assert browser.post(place, data={"csrf": word, "text": "x1"}).status_code == 403
    assert browser.post(place, data={"text": "x2"}, headers=OURS).status_code == 403
    assert (
        browser.post(place, data={"csrf": "guess", "text": "x3"}, headers=OURS).status_code == 403
    )
    assert browser.get(f"{place}?csrf={word}&text=x4").status_code in (404, 405)
    assert made.tracker.get_notes(run) == []


def test_notes_and_tags_are_written_and_shown(browser: TestClient, made: Planted) -> None:
    run = made.id("fair")
    word = csrf_of(browser, run)
    said = browser.post(f"/run/{run}/note", data={"csrf": word, "text": "look again"}, headers=OURS)
    assert said.status_code == 303
    browser.post(f"/run/{run}/tag", data={"csrf": word, "tag": "paper"}, headers=OURS)
    text = browser.get(said.headers["location"]).text
    assert "look again" in text
    assert "paper" in text
    assert made.tracker.get_run(run).tags == ("paper",)
    assert "Remove the tag paper" in text
    gone = {"csrf": word, "tag": "paper"}
    assert browser.post(f"/run/{run}/untag", data=gone, headers=OURS).status_code == 303
    assert made.tracker.get_run(run).tags == ()
    assert browser.post(f"/run/{run}/untag", data=gone, headers=OURS).status_code == 404
    for form in ({"text": " "}, {}):
        answer = browser.post(f"/run/{run}/note", data={"csrf": word, **form}, headers=OURS)
        assert answer.status_code == 400
    assert browser.post(f"/run/{run}/hide", data={"csrf": word}, headers=OURS).status_code == 404
    huge = {"csrf": word, "text": "x" * 100_000}
    assert browser.post(f"/run/{run}/note", data=huge, headers=OURS).status_code == 413


def test_read_only_shows_no_form_and_writes_nothing(made: Planted) -> None:
    guard = Guard(is_read_only=True)
    browser, run = client(made, guard), made.id("good")
    assert 'name="csrf"' not in browser.get(f"/run/{run}").text
    form = {"csrf": guard.csrf, "text": "no"}
    assert browser.post(f"/run/{run}/note", data=form, headers=OURS).status_code == 403
    assert made.tracker.get_notes(run) == []


def test_what_others_wrote_is_shown_as_text(browser: TestClient, made: Planted) -> None:
    assert len(PAYLOADS) >= 20
    run = made.tracker.start_run(
        model="toto",
        hyperparams={"note": PAYLOADS[1], PAYLOADS[2]: 1},
        sweep_id=made.sweep.sweep_id,
        source=f"quick: {PAYLOADS[5]}",
    )
    for payload in PAYLOADS:
        made.tracker.add_note(run.run_id, payload, who=PAYLOADS[6])
        made.tracker.add_tag(run.run_id, payload)
    made.tracker.finish_run(run.run_id, "failed", error="\n".join((*PAYLOADS, PAYLOADS[3])))
    pages = [
        f"/run/{run.run_id}",
        *every_page(made),
        f"/compare?run={run.run_id}&run={made.id('good')}",
    ]
    for place in pages:
        text = browser.get(place).text
        for payload in PAYLOADS:
            if "<" in payload:
                assert payload not in text, (place, payload)
        assert not re.search(r"<[^>]+ on\w+=", re.sub(r'"[^"]*"', '""', text)), place
        assert "49" not in re.findall(r"note.*?</p>", text)
    shown = html.unescape(browser.get(f"/run/{run.run_id}").text)
    for payload in PAYLOADS:
        assert payload in shown


def test_a_name_in_a_figure_is_no_tag(browser: TestClient, made: Planted) -> None:
    from foresweep.reporting.figures import Bar, skills

    spec = json.dumps(skills([Bar("<b>x</b><a href='javascript:alert(1)'>y</a>", 0.1)], "words"))
    assert "<" not in spec
    assert "&lt;b&gt;" in spec


@pytest.mark.parametrize(
    "place",
    ["/static/../pages.py", "/static/..%2f..%2fpages.py", "/static/%2e%2e/%2e%2e/pages.py",
     "/static//etc/passwd", "/static/pages.js/..", "/run/..%2f..%2fetc%2fpasswd", "/run/%00",
     "/static/blocks.html", "/sweep/../../etc/passwd", "/run/none/table/..%2f..%2fx.csv",
     "/run/none/figure/../../x"],
)  # fmt: skip
def test_no_path_leads_out(browser: TestClient, place: str) -> None:
    answer = browser.get(place)
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_a_log_beyond_the_folder_of_runs_is_not_read(made: Planted, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "training.log").write_text("secret of another folder")
    run = made.tracker.start_run(model="toto", hyperparams={}, sweep_id=made.sweep.sweep_id)
    made.tracker.finish_run(run.run_id, "complete", forecasts_path=outside)
    link = made.folder / run.run_id
    link.symlink_to(outside)
    text = client(made).get(f"/run/{run.run_id}").text
    assert "secret of another folder" not in text
    link.unlink()
    link.mkdir()
    (link / "training.log").write_text("its own <log>")
    assert "its own &lt;log&gt;" in client(made).get(f"/run/{run.run_id}").text


def test_answers_carry_a_policy_without_inline_script(browser: TestClient, made: Planted) -> None:
    for place in (*every_page(made), "/nowhere", "/static/pages.js"):
        headers = browser.get(place).headers
        policy = dict(
            p.strip().partition(" ")[::2] for p in headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?![^>]* src=)", browser.get("/").text)


def test_beyond_this_machine_a_token_is_made_and_asked_for(made: Planted) -> None:
    guard = guard_for("0.0.0.0", None, is_read_only=False)
    assert guard.token
    assert len(guard.token) >= 24
    browser = client(made, guard)
    for place in (*every_page(made), "/events", "/static/pages.js"):
        assert browser.get(place).status_code == 401
        assert browser.get(place, headers={"authorization": "Bearer wrong"}).status_code == 401
    bearer = {"authorization": f"Bearer {guard.token}"}
    assert browser.get("/", headers=bearer).status_code == 200
    welcome = browser.get(f"/sweep/latest?token={guard.token}&page=2")
    assert welcome.status_code == 303
    assert welcome.headers["location"] == "/sweep/latest?page=2"
    assert "HttpOnly" in welcome.headers["set-cookie"]
    assert "SameSite=Strict" in welcome.headers["set-cookie"]
    assert browser.get("/").status_code == 200  # the cookie is kept
    away = asyncio.run(answer_to(made, guard, "//evil.example/"))
    assert dict(away["headers"])[b"location"] == b"/"  # and not to another machine


async def answer_to(made: Planted, guard: Guard, path: str) -> dict[str, Any]:
    """The beginning of the answer to a path as it stands: a client would clean it first."""
    said: list[dict[str, Any]] = []
    scope = {
        "type": "http", "method": "GET", "path": path, "headers": [(b"host", b"127.0.0.1")],
        "query_string": f"token={guard.token}".encode(),
    }  # fmt: skip

    async def send(message: Any) -> None:
        said.append(message)

    await dashboard_app(made.tracker, made.folder, guard)(scope, None, send)  # type: ignore[arg-type]
    return said[0]


def test_loopback_needs_no_token_and_a_short_one_is_refused() -> None:
    assert guard_for("127.0.0.1", None, is_read_only=False).token is None
    assert is_loopback("::1")
    assert not is_loopback("evil.example")
    with pytest.raises(UsageError, match="16 characters"):
        guard_for("0.0.0.0", "short", is_read_only=False)


def test_beyond_this_machine_addresses_and_its_own_name_are_hosts_and_others_are_not() -> None:
    guard = guard_for("0.0.0.0", None, is_read_only=False)
    assert guard.allows_host("192.168.1.7:8765")
    assert guard.allows_host("[fe80::1]:8765")
    assert not guard.allows_host("evil.example:8765")
    assert not Guard("127.0.0.1").allows_host("192.168.1.7:8765")


def test_what_a_server_says_is_sent_at_once() -> None:
    """Else the second part of an answer waits 40 ms for the caller's word on the first."""

    class Seen(asyncio.Protocol):
        at_once = False

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            ours = transport.get_extra_info("socket")
            Seen.at_once = bool(ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.close()

    async def call(listening: socket.socket) -> None:
        server = await asyncio.get_running_loop().create_server(Seen, sock=listening)
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        await reader.read()
        writer.close()
        server.close()

    with listen("127.0.0.1", 0) as listening:
        asyncio.run(call(listening))
    assert Seen.at_once


def test_a_port_that_is_taken_is_said() -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match="--port 0"):
            listen("127.0.0.1", port)


def test_errors_are_pages_and_json_with_the_words_of_the_error(
    browser: TestClient, made: Planted
) -> None:
    sweep = made.sweep.sweep_id
    wrong = browser.get(f"/sweep/{sweep}", params={"where": "lr <"})
    assert wrong.status_code == 400
    assert "This page cannot be shown" in wrong.text
    sealed = browser.get(f"/sweep/{sweep}/table/leaderboard.json", params={"sort": "test_pct_mae"})
    assert sealed.status_code == 400
    assert "sealed" in sealed.json()["error"]
    assert browser.get(f"/sweep/{sweep}/figure/none").status_code == 404
    assert browser.get("/compare?run=x").status_code == 400
    for odd in ("page=0", "page=-1", "page=x", "page=" + "9" * 5000, "size=9999999", "page=²"):
        assert browser.get(f"/sweep/{sweep}?{odd}").status_code == 200


def test_runs_logged_by_hand_are_listed_beside_those_of_sweeps(
    browser: TestClient, made: Planted
) -> None:
    run_id = made.tracker.log_run("by-hand", {"lr": 0.5}, {"val_pct_mae": 9.25})
    newest = browser.get("/runs/table/runs.json?size=1").json()["rows"]
    assert [(r["run"], r["sweep"]) for r in newest] == [(run_id, "by hand")]
    best = browser.get("/runs/table/runs.json?sort=val_pct_mae&size=2").json()["rows"]
    assert best[0]["val_pct_mae"] <= best[1]["val_pct_mae"]
    found = browser.get("/runs", params={"where": "val_pct_mae > 9"}).text
    assert run_id in found
    assert made.id("good") not in found


def test_an_empty_database_says_what_to_do_next(tmp_path: Path) -> None:
    with Tracker(tmp_path / "empty.db") as tracker:
        app = dashboard_app(tracker, tmp_path, Guard())
        text = TestClient(app, base_url=BASE).get("/").text
    assert "Nothing runs" in text
    assert "foresweep sweep --model all --mode demo" in text


def test_a_write_wakes_every_open_page_once(made: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foresweep.reporting.dashboard.LOOK_EVERY_S", 0.01)
    stamps = iter([0, 0, 0, 1, *[1] * 10_000])

    async def go() -> list[str]:
        watch = Watch(lambda: next(stamps))
        pages = [watch.events() for _ in range(20)]
        for page in pages:
            assert (await anext(page)).startswith(":")
        waiting = [asyncio.create_task(anext(p)) for p in pages]
        await asyncio.sleep(0)
        looking = asyncio.create_task(watch.look())
        found = await asyncio.wait_for(asyncio.gather(*waiting), 5)
        looking.cancel()
        return found

    assert asyncio.run(go()) == ["event: changed\ndata: 1\n\n"] * 20


def test_nobody_looks_at_the_database_where_no_page_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("foresweep.reporting.dashboard.LOOK_EVERY_S", 0.001)
    looks: list[int] = []

    async def go() -> list[int]:
        watch = Watch(lambda: looks.append(1))
        looking = asyncio.create_task(watch.look())
        await asyncio.sleep(0.05)
        before = len(looks)
        page = watch.events()
        await anext(page)
        while len(looks) == before:
            await asyncio.sleep(0.001)
        await page.aclose()
        assert watch.num_open == 0
        looking.cancel()
        return [before, len(looks)]

    before, after = asyncio.run(go())
    assert before == 1 < after


def test_twenty_pages_of_a_sweep_are_one_page_made_until_the_database_changes() -> None:
    made: list[str] = []
    now = [(1, 1)]
    kept = Kept(lambda: tuple(now))

    def make() -> Answer:
        made.append("page")
        time.sleep(0.01)
        return 200, f"page {len(made)}", "text/html"

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: kept.get("/sweep/a?", make), range(20)))
    assert found == [(200, "page 1", "text/html")] * 20
    assert kept.get("/sweep/b?", make)[1] == "page 2"
    now[:] = [(2, 1)]
    assert kept.get("/sweep/a?", make)[1] == "page 3"
    now[:] = [(time.time_ns(), 1)]  # within a tick of the clock another write may look the same
    assert [kept.get("/sweep/a?", make)[1] for _ in range(2)] == ["page 4", "page 5"]


def test_a_page_that_leaves_takes_the_news_from_no_other() -> None:
    """What its connection was waiting for is cancelled more than once, as anyio does."""

    async def go() -> list[str]:
        watch = Watch(lambda: 0)
        left = []
        for _ in range(20):
            page = watch.events()
            await anext(page)
            left.append(asyncio.ensure_future(anext(page)))
        await asyncio.sleep(0.01)
        stays = watch.events()
        await anext(stays)
        news = asyncio.ensure_future(anext(stays))
        for _ in range(3):
            for page in left:
                page.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*left, return_exceptions=True)
        watch.tell()
        return [await asyncio.wait_for(news, 5)]

    assert asyncio.run(go()) == ["event: changed\ndata: 1\n\n"]
