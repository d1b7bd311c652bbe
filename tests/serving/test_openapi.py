"""Bodies made from the server's own description, against it and to it: refused, never an error."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings

from foresweep.lifecycle.champion import promote
from foresweep.serving.app import Limits, serving_app
from foresweep.serving.live import Live
from foresweep.tracker.tracker import Tracker
from foresweep.web import Guard
from served_runs import a_run

if os.environ.get("CI"):
    import schemathesis
else:  # an environment from before it was a dependency
    schemathesis = pytest.importorskip("schemathesis")

PLACE = "http://127.0.0.1"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("openapi")
    with Tracker(folder / "sweeps.db") as tracker:
        promote(tracker, a_run(tracker, folder).run_id)
        app = serving_app(Live.open(tracker, None), Guard(is_api=True), limits=Limits(items=8))
        with TestClient(app, base_url=PLACE, raise_server_exceptions=False) as opened:
            yield opened


def statuses(client: TestClient, mode: str, count: int) -> Counter[int]:
    """What `count` requests were answered with that keep (positive) or break (negative) the
    description of POST /forecast."""
    spec = client.get("/openapi.json").json()
    operation = schemathesis.openapi.from_dict(spec)["/forecast"]["POST"]
    seen: Counter[int] = Counter()

    @settings(max_examples=count, suppress_health_check=list(HealthCheck), deadline=None)
    @given(case=operation.as_strategy(schemathesis.GenerationMode(mode)))
    def send(case: Any) -> None:
        asked = requests.Request(**case.as_transport_kwargs(base_url=PLACE)).prepare()
        answer = client.request(
            asked.method, asked.url, content=asked.body, headers=dict(asked.headers)
        )
        seen[answer.status_code] += 1
        assert answer.status_code < 500, answer.text
        assert "Traceback" not in answer.text
        if answer.status_code != 200:
            assert answer.json()["error"]
        if mode == "negative":
            assert answer.status_code != 200, asked.body

    send()
    return seen


@pytest.mark.parametrize("mode", ["negative", "positive"])
def test_what_breaks_the_description_or_barely_keeps_it_is_no_error_inside(
    client: TestClient, mode: str
) -> None:
    assert sum(statuses(client, mode, 20).values()) >= 20


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", ["negative", "positive"])
def test_a_thousand_bodies_are_no_error_inside(client: TestClient, mode: str) -> None:
    seen = statuses(client, mode, 1_000)
    print(f"{mode}: {dict(seen)}")  # for the figures in docs/serving.md
    assert sum(seen.values()) >= 1_000
