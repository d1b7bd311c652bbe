"""The server answers what the champion forecasts, alone or in company, or says why it does not."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foresweep.data.gate.exchanges import calendar_kept
from foresweep.errors import DataError, ForecastError
from foresweep.evaluation.predict import predict_panel
from foresweep.lifecycle.champion import promote, rollback
from foresweep.lifecycle.inference import InService
from foresweep.serving import batching
from foresweep.serving.app import Limits, serving_app
from foresweep.serving.asked import EXAMPLE, Reader, _times
from foresweep.serving.batching import Batcher
from foresweep.serving.live import Live
from foresweep.tracker.service import Service
from foresweep.tracker.tracker import Tracker
from foresweep.web import Guard
from panels import make_panel
from served_runs import a_run, a_sweep, body_of, make_calendars

LIMITS = Limits(body_mb=0.25, items=8, horizon=10, time_s=20, waiting=64)


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    with Tracker(tmp_path_factory.mktemp("serving") / "sweeps.db") as opened:
        yield opened


@pytest.fixture(scope="module")
def runs(tracker: Tracker, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A champion and a challenger of the same slot."""
    make_calendars(EXAMPLE)
    folder, sweep = tmp_path_factory.mktemp("runs"), a_sweep(tracker)
    made = {m: a_run(tracker, folder, m, sweep=sweep) for m in ("drift", "last-value")}
    promote(tracker, made["drift"].run_id)
    return made


@pytest.fixture(scope="module")
def live(tracker: Tracker, runs: dict[str, Any]) -> Live:
    found = Live.open(tracker, None)
    found.look_every_s = 0.02
    return found


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[TestClient]:
    app = serving_app(live, Guard(is_api=True), limits=LIMITS)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=True) as opened:
        yield opened


def test_the_answer_is_the_champions_own_forecast(client: TestClient, runs: dict[str, Any]) -> None:
    wanted = predict_panel(Path(runs["drift"].checkpoint_path), make_panel(3, 100))
    told = client.post("/forecast", json=body_of()).json()
    assert (told["slot"], told["run_id"]) == ("prices-h5", runs["drift"].run_id)
    for n, one in enumerate(told["forecasts"]):
        assert one["quantiles"]["0.5"] == wanted.forecast.median[n].tolist()
        assert one["quantiles"]["0.9"] == wanted.forecast.values[n, :, -1].tolist()
        assert one["timestamp"] == [str(t.astype("datetime64[s]")) for t in wanted.times[n]]


def test_what_was_answered_is_on_record(client: TestClient, tracker: Tracker) -> None:
    told = client.post("/forecast", json=body_of(2, 90, 7, levels=[0.25], horizon=3)).json()
    rows = [r for r in Service(tracker.store).forecasts() if r["levels"] == [0.25, 0.5]]
    assert [r["item_id"] for r in rows] == ["A0", "A1"]
    assert rows[1]["quantiles"] == np.transpose(
        [told["forecasts"][1]["quantiles"][q] for q in ("0.25", "0.5")]
    ).tolist()  # fmt: skip
    assert rows[0]["source"] == "serve"
    assert Service(tracker.store).verify() == []


def test_many_at_once_get_what_each_would_get_alone(client: TestClient) -> None:
    bodies = [body_of(1, 64 + k, k, levels=[0.5 if k % 2 else 0.4]) for k in range(10)]
    alone = [client.post("/forecast", json=b).json() for b in bodies]
    with ThreadPoolExecutor(10) as pool:
        together = [*pool.map(lambda b: client.post("/forecast", json=b).json(), bodies)]
    assert together == alone


def test_while_a_calendar_is_made_others_are_answered(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foresweep.serving import asked

    known, new = body_of(1, 64, 1), body_of(1, 95, 2)
    alone = client.post("/forecast", json=known).json()
    begun, go_on, real = threading.Event(), threading.Event(), asked.times_ahead

    def slow(*args: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        return real(*args)

    monkeypatch.setattr(asked, "times_ahead", slow)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(client.post, "/forecast", json=new)
        assert begun.wait(20)
        assert client.post("/forecast", json=known).json() == alone
        assert not waits.done()
        go_on.set()
        assert waits.result(20).status_code == 200


def test_what_waits_while_a_batch_is_made_is_the_next_batch(live: Live) -> None:
    sizes: list[int] = []
    batcher = Batcher(live, record=False, on_batch=lambda n, *_: sizes.append(n))
    reader = Reader(8, 10, 32)
    questions = [reader.read(json.dumps(body_of(1, 64, k)).encode(), 5) for k in range(6)]
    other = reader.read(json.dumps(body_of(1, 64, horizon=2)).encode(), 5)
    futures = [batcher.put(q) for q in (*questions[:3], other, *questions[3:])]
    batcher.start()
    answers = [f.result(timeout=20) for f in futures]
    batcher.stop()
    assert sizes == [3, 1, 3]  # jobs of one horizon and the same levels go together
    assert [a.told.times.shape[1] for a in answers] == [5, 5, 5, 2, 5, 5, 5]
    asked = (*questions[:3], other, *questions[3:])
    closes = [float(q.items[0].values[-1, 3]) for q in asked]
    assert [float(a.told.last_close[0]) for a in answers] == closes  # to each his own


def test_bodies_that_come_together_are_counted_before_one_is_read(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a batch waits for those that are counted."""
    monkeypatch.setattr(live, "on_swap", live.on_swap)  # the module's app has its own
    batcher = Batcher(live, record=False)
    app = serving_app(live, Guard(is_api=True), limits=LIMITS, batcher=batcher)
    counted: list[int] = []
    real = Reader.read

    def read(*args: Any, **more: Any) -> Any:
        counted.append(batcher.arriving)
        return real(*args, **more)

    monkeypatch.setattr(Reader, "read", read)

    async def ask() -> list[int]:
        where = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
        async with where as client:
            posts = [client.post("/forecast", json=body_of(1, 64, k)) for k in range(5)]
            return [answer.status_code for answer in await asyncio.gather(*posts)]

    batcher.start()
    try:
        assert asyncio.run(ask()) == [200] * 5
    finally:
        batcher.stop()
    assert counted[0] == 5
    assert batcher.arriving == 0


def test_one_request_that_fails_fails_alone(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    real = batching.Batcher._together

    def poisoned(self: Batcher, served: InService, jobs: Any) -> Any:
        if any(job.question.items[0].item_id == "POISON" for job in jobs):
            raise ForecastError("1 of 1 forecasts are not finite")
        return real(self, served, jobs)

    monkeypatch.setattr(batching.Batcher, "_together", poisoned)
    bodies = [body_of(1, 64, k) for k in range(3)]
    bodies[1]["items"][0]["item_id"] = "POISON"
    reader, batcher = Reader(8, 10, 32), Batcher(live, record=False)
    futures = [batcher.put(reader.read(json.dumps(b).encode(), 5)) for b in bodies]
    batcher.start()
    assert futures[0].result(20).told.items == futures[2].result(20).told.items == ("A0",)
    with pytest.raises(ForecastError):
        futures[1].result(20)
    batcher.stop()


def test_a_promotion_takes_over_between_two_answers_and_a_rollback_back(
    client: TestClient, tracker: Tracker, runs: dict[str, Any]
) -> None:
    body, stop, statuses, seen = body_of(1, 64), threading.Event(), [], set()

    def ask() -> None:
        while not stop.is_set():
            answer = client.post("/forecast", json=body)
            statuses.append(answer.status_code)
            seen.add(answer.json()["run_id"])

    def wait_for(name: str) -> None:
        until = time.monotonic() + 20
        while client.get("/ready").json()["run_id"] != runs[name].run_id:
            assert time.monotonic() < until
            time.sleep(0.01)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    promote(tracker, runs["last-value"].run_id)
    wait_for("last-value")
    rollback(tracker)
    wait_for("drift")
    stop.set()
    for asker in askers:
        asker.join()
    assert set(statuses) == {200}
    assert seen <= {run.run_id for run in runs.values()}
    assert client.get("/champion").json()["champion"]["run_id"] == runs["drift"].run_id
    assert "foresweep_swaps_total 2.0" in client.get("/metrics").text


def test_a_champion_that_cannot_be_loaded_leaves_the_old_one_in_service(
    live: Live, tracker: Tracker, runs: dict[str, Any]
) -> None:
    own = Live.open(tracker, None)
    file = Path(runs["last-value"].checkpoint_path) / "config.json"
    kept = file.read_bytes()
    promote(tracker, runs["last-value"].run_id)
    file.write_text("{}")
    assert not own.look()
    assert own.current.champion.run_id == runs["drift"].run_id
    assert "altered" in own.trouble
    file.write_bytes(kept)
    rollback(tracker)
    assert own.look()
    assert own.trouble == ""


def test_a_shadow_is_on_record_and_answers_nobody(tracker: Tracker, runs: dict[str, Any]) -> None:
    from foresweep.lifecycle.champion import retire

    promote(tracker, runs["last-value"].run_id, shadow=True)
    own = Live.open(tracker, None)
    with TestClient(serving_app(own, Guard(is_api=True)), base_url="http://127.0.0.1") as client:
        told = client.post("/forecast", json=body_of(1, 77, 5)).json()
    retire(tracker, runs["last-value"].run_id)
    assert told["run_id"] == runs["drift"].run_id
    rows = [
        r for r in Service(tracker.store).forecasts() if r["run_id"] == runs["last-value"].run_id
    ]
    assert [(r["role"], r["item_id"]) for r in rows][-1] == ("shadow", "A0")
    assert rows[-1]["quantiles"][0][4] == rows[-1]["last_close"]


def test_a_server_that_is_ready_has_an_exchanges_calendar_at_hand(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    sought: list[int] = []
    monkeypatch.setattr(
        "foresweep.serving.asked.calendar_kept",
        lambda times: sought.append(len(times)) or calendar_kept(times),
    )
    app = serving_app(live, Guard(is_api=True))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert sought == [len(EXAMPLE["items"][0]["timestamp"])]
        assert client.post("/forecast", json=EXAMPLE).status_code == 200
    assert len(sought) == 1


def test_what_stood_there_at_the_start_is_not_looked_through_for_garbage_while_it_serves(
    live: Live,
) -> None:
    """With torch and pandas loaded a look takes a third of a second, and nobody is answered."""
    before = gc.get_freeze_count()
    with TestClient(serving_app(live, Guard(is_api=True)), base_url="http://127.0.0.1"):
        assert gc.get_freeze_count() > before + 50_000
    assert gc.get_freeze_count() == 0


# What is refused, and how.


def spoilt(change: Any) -> dict[str, Any]:
    body = body_of(2, 64)
    change(body)
    return body


def item(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = body["items"][0]
    return found


WRONG = {
    "no JSON": (b"{", "Invalid JSON"),
    "nothing": (b"", "Invalid JSON"),
    "an unknown key": (spoilt(lambda b: b.update(extra=1)), "extra: Extra inputs"),
    "no items": ({"items": []}, "items: List should have at least 1"),
    "too many items": (body_of(9, 40), "items: 9 in one request, at most 8"),
    "twice the same": (spoilt(lambda b: item(b).update(item_id="A1")), "'A1' stands there twice"),
    "too far ahead": (spoilt(lambda b: b.update(horizon=11)), "horizon: 11, at most 10"),
    "a level of 1": (spoilt(lambda b: b.update(levels=[1.0])), "levels.0: Input should be less"),
    "a price of 0": (spoilt(lambda b: item(b)["close"].__setitem__(3, 0)), "items.0.close.3"),
    "a text as price": (spoilt(lambda b: item(b)["close"].__setitem__(3, "9")), "items.0.close.3"),
    "NaN": (json.dumps(spoilt(lambda b: item(b)["low"].__setitem__(0, float("nan")))).encode(), ""),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_body_that_is_not_as_it_must_be_is_refused_with_the_reason(
    client: TestClient, name: str
) -> None:
    body, words = WRONG[name]
    kind = {"content-type": "application/json"}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post("/forecast", content=content, headers=kind)
    assert answer.status_code == 422
    assert words in answer.json()["error"]


BARS = {
    "short": (lambda i: [i[k].__delitem__(slice(31, None)) for k in i if k != "item_id"],
              "31 bars: at least 32 are needed"),
    "ragged": (lambda i: i["open"].pop(), "open has 63 values, timestamp has 64"),
    "high below low": (lambda i: i["high"].__setitem__(5, 1e-3), "bar 5: high 0.001 is below low"),
    "close outside": (lambda i: i["close"].__setitem__(5, 1e5), "bar 5: close 100000.0 is outside"),
    "no date": (lambda i: i["timestamp"].__setitem__(5, "soon"), "bar 5: 'soon' is no ISO date"),
    "a year too far": (lambda i: i["timestamp"].__setitem__(63, "9999-01-01"), "1900 to 2200"),
    "twice the same": (lambda i: i["timestamp"].__setitem__(5, i["timestamp"][4]),
                       "bar 5: 2015-01-09"),
    "backwards": (lambda i: i["timestamp"].__setitem__(5, "2001-01-01"), "does not come after"),
    "a giant": (lambda i: [i[k].__setitem__(5, 1e300) for k in ("open", "high", "low", "close")],
                "between 1e-15 and 1e15"),
}  # fmt: skip


@pytest.mark.parametrize("name", BARS)
def test_bars_that_cannot_be_are_refused_by_item_and_the_rest_forecast(
    client: TestClient, name: str
) -> None:
    change, words = BARS[name]
    body = body_of(2, 64)
    change(item(body))  # type: ignore[no-untyped-call]
    told = client.post("/forecast", json=body)
    assert told.status_code == 200
    assert words in told.json()["refused"]["A0"]
    assert [f["item_id"] for f in told.json()["forecasts"]] == ["A1"]
    alone = client.post("/forecast", json={"items": body["items"][:1]})
    assert alone.status_code == 422
    assert words in alone.json()["refused"]["A0"]


def test_a_body_too_large_another_type_and_a_full_queue_are_refused(
    client: TestClient, live: Live
) -> None:
    large = client.post(
        "/forecast", content=b" " * 300_000, headers={"content-type": "application/json"}
    )
    assert large.status_code == 413
    assert "at most 262,144" in large.json()["error"]
    assert client.post("/forecast", data={"a": "b"}).status_code == 415
    pieces = (b" " * 50_000 for _ in range(7))  # a length that is not said beforehand
    kind = {"content-type": "application/json"}
    assert client.post("/forecast", content=pieces, headers=kind).status_code == 413
    full = Batcher(live, record=False)
    full.put(_question(2))
    full.most_waiting = 3
    with pytest.raises(batching.Overloaded, match="2 forecasts wait already"):
        full.put(_question(2))


def _question(num: int) -> Any:
    return Reader(8, 10, 32).read(json.dumps(body_of(num, 64)).encode(), 5)


def test_an_answer_that_takes_too_long_or_is_not_on_record_is_a_503(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "record_forecasts", lambda *_, **__: 1 / 0)
    app = serving_app(live, Guard(is_api=True), limits=Limits(time_s=0.5))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        answer = client.post("/forecast", json=body_of(1, 64))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "not on record" in answer.json()["error"]
        monkeypatch.setattr(batching, "record_forecasts", lambda *_, **__: time.sleep(1))
        answer = client.post("/forecast", json=body_of(1, 65))
        assert answer.status_code == 503
        assert "not answered within 0.5 s" in answer.json()["error"]


def test_an_address_or_method_that_is_none_is_refused_in_the_same_form(client: TestClient) -> None:
    none, wrong = client.get("/nothing"), client.get("/forecast")
    assert (none.status_code, wrong.status_code) == (404, 405)
    assert none.json() == {"error": "GET /nothing: not found; GET / lists what is"}
    assert wrong.json()["error"].startswith("GET /forecast: method not allowed")
    assert wrong.headers["allow"] == "POST"


def test_a_token_is_asked_for_and_a_foreign_page_may_ask_nothing(live: Live) -> None:
    guard = Guard("0.0.0.0", "t" * 20, is_api=True)
    with TestClient(serving_app(live, guard), base_url="http://127.0.0.1") as client:
        assert client.post("/forecast", json=EXAMPLE).status_code == 401
        bearer = {"authorization": f"Bearer {'t' * 20}"}
        assert client.post("/forecast", json=EXAMPLE, headers=bearer).status_code == 200
        foreign = bearer | {"origin": "https://elsewhere.example"}
        assert client.post("/forecast", json=EXAMPLE, headers=foreign).status_code == 403
        assert client.get("/metrics").status_code == 401


# The other addresses.


def test_the_page_lists_the_addresses_and_its_example_runs(client: TestClient) -> None:
    text = client.get("/").text
    spec = client.get("/openapi.json").json()
    for path in ("/forecast", "/champion", "/leaderboard", "/health", "/ready", "/metrics"):
        assert path in text
        assert path in spec["paths"]
    example = spec["components"]["schemas"]["Asked"]["examples"][0]
    told = client.post("/forecast", json=example)
    assert told.status_code == 200
    assert list(told.json()["forecasts"][0]["quantiles"]) == ["0.1", "0.5", "0.9"]
    assert "script-src 'self'" in client.get("/").headers["content-security-policy"]
    assert "/forecast" in client.get("/page.js").text
    assert "--paper" in client.get("/pages.css").text
    assert client.get("/icon.svg").headers["content-type"] == "image/svg+xml"


def test_what_is_in_service_and_how_it_does_is_told(
    client: TestClient, runs: dict[str, Any]
) -> None:
    told = client.get("/champion").json()
    assert (told["slot"], told["model"], told["horizon"]) == ("prices-h5", "drift", 5)
    board = client.get("/leaderboard").json()
    assert {r["run_id"] for r in board["rows"] if r["in_service"]} == {runs["drift"].run_id}
    assert client.get("/health").json()["alive"] is True
    assert client.post("/forecast", json={"items": 7}).status_code == 422
    metrics = client.get("/metrics").text
    assert 'foresweep_requests_total{status="422"}' in metrics
    assert "foresweep_batch_requests_bucket" in metrics


WRITTEN = {
    "days": (["2024-02-28", "2024-02-29"], "2024-02-29"),
    "minutes": (["2024-02-28T09:30", "2024-02-28T09:31"], "2024-02-28T09:31"),
    "seconds": (["2024-02-28T09:30:00", "2024-02-28T09:30:59"], "2024-02-28T09:30:59"),
    "a blank": (["2024-02-28 09:30:00", "2024-02-28 09:31:00"], "2024-02-28T09:31"),
    "a zone": (["2024-02-28T09:30:00Z", "2024-02-28T23:30:00-05:00"], "2024-02-29T04:30"),
    "mixed": (["2024-02-28", "2024-02-28T09:31"], "2024-02-28T09:31"),
    "weeks": (["2024-W09-1", "2024-W09-2"], "2024-02-27"),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_times_are_read_however_they_are_written(name: str) -> None:
    texts, last = WRITTEN[name]
    found = _times(texts)
    assert found.dtype == np.dtype("datetime64[ns]")
    assert found[-1] == np.datetime64(last)


@pytest.mark.parametrize(
    "text", ["2023-02-29", "2024-13-01", "2024-01-0x", "1824-01-01", "2024-01-01T24:01", "", "0"]
)
def test_what_is_no_time_is_told_by_its_bar(text: str) -> None:
    with pytest.raises(DataError, match=r"^bar 1: "):
        _times(["2024-01-01" if len(text) == 10 else "2024-01-01T09:30", text])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
KEYS = ("item_id", "timestamp", "open", "high", "low", "close", "volume")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_body_whatever_is_in_it_is_more_than_a_4xx(client: TestClient, data: Any) -> None:
    body: Any = body_of(1, 40)
    where = data.draw(st.sampled_from(["whole", "key", "value", "top", "bytes"]))
    content = None
    if where == "whole":
        body = data.draw(JSON_VALUES)
    elif where == "key":
        body["items"][0][data.draw(st.sampled_from(KEYS))] = data.draw(JSON_VALUES)
    elif where == "value":
        column = body["items"][0][data.draw(st.sampled_from(KEYS[1:]))]
        column[data.draw(st.integers(0, 39))] = data.draw(JSON_VALUES)
    elif where == "top":
        body[data.draw(st.sampled_from(["horizon", "levels", "items"]))] = data.draw(JSON_VALUES)
    else:
        content = data.draw(st.binary(max_size=64))
    if content is None:
        content = json.dumps(body).encode()
    kind = {"content-type": "application/json"}
    answer = client.post("/forecast", content=content, headers=kind)
    assert answer.status_code == 200 or 400 <= answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text


def test_the_example_keeps_an_exchange_s_holidays_so_that_no_calendar_is_looked_for() -> None:
    (series,) = EXAMPLE["items"]
    kept = calendar_kept(np.array(series["timestamp"], dtype="datetime64[ns]"))
    assert getattr(kept, "name", kept) == "XNYS"
