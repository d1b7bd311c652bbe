"""The live pages over a PostgreSQL server: the same as over SQLite, written to and looked at."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

import postgres
from foresweep.reporting.dashboard import dashboard_app, stamp_of
from foresweep.tracker.storage.moving import copy_database
from foresweep.tracker.tracker import Tracker
from foresweep.web import Guard
from judged_sweep import Planted, plant

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("postgresql")]
BASE = "http://127.0.0.1:8765"
HYPER = {n: {"lr": 10.0**-k, "note": "<b>"} for k, n in enumerate(("good", "fair"), 2)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    folder = tmp_path_factory.mktemp("pages")
    with Tracker(folder / "sweeps.db") as tracker:
        found = plant(tracker, folder / "runs", {"good": 0.1, "fair": 0.0}, hyperparams=HYPER,
                      items=3, origins=30)  # fmt: skip
        bad = tracker.start_run(model="toto", hyperparams={}, sweep_id=found.sweep.sweep_id)
        tracker.finish_run(bad.run_id, "failed", error="ValueError: loss is nan")
        tracker.finish_sweep(found.sweep.sweep_id, "complete")
        yield found


@pytest.fixture(scope="module")
def server(made: Planted) -> Iterator[Tracker]:
    """The same rows in a PostgreSQL database."""
    with postgres.running() as started:
        started.execute("CREATE DATABASE pages")
        copy_database(made.tracker.store.path, started.url("pages"))
        with Tracker(started.url("pages")) as tracker:
            yield tracker


def browser_of(tracker: Tracker, made: Planted) -> TestClient:
    return TestClient(dashboard_app(tracker, made.folder, Guard()), base_url=BASE)


def test_every_page_and_table_is_as_over_sqlite(made: Planted, server: Tracker) -> None:
    here, there = browser_of(made.tracker, made), browser_of(server, made)
    sweep, good, fair = made.sweep.sweep_id, made.id("good"), made.id("fair")
    tables = 0
    for place in (
        "/", "/runs", "/runs?where=lr+<+1e-2&sort=val_pct_mae", f"/sweep/{sweep}",
        f"/sweep/{sweep}?sort=lr:desc&page=2&size=1", f"/models/{sweep}", f"/data/{sweep}",
        f"/verdict/{sweep}", f"/run/{good}", f"/compare?run={good}&run={fair}",
    ):  # fmt: skip
        ours, theirs = here.get(place), there.get(place)
        assert ours.status_code == theirs.status_code == 200, place
        for address in re.findall(r'href="([^"]+/table/[^"]+\.csv[^"]*)"', theirs.text):
            plain = address.replace("&amp;", "&")
            assert there.get(plain).text == here.get(plain).text, address
            tables += 1
    assert tables > 20


def test_a_write_is_seen_and_nothing_else_is(made: Planted, server: Tracker) -> None:
    stamp = stamp_of(server)
    before = stamp()
    assert before is not None
    browser = browser_of(server, made)
    page = browser.get(f"/run/{made.id('fair')}").text
    csrf = re.search(r'name="csrf" value="([^"]+)"', page)
    assert csrf
    form = {"csrf": csrf[1], "text": "seen on a server <i>"}
    said = browser.post(
        f"/run/{made.id('fair')}/note", data=form, headers={"origin": BASE}, follow_redirects=True
    )
    assert "seen on a server &lt;i&gt;" in said.text
    assert stamp() != before
    server.add_tag(made.id("good"), "paper")  # a change that no count of rows shows
    after = stamp()
    assert after != before
    assert "paper" in browser.get(f"/run/{made.id('good')}").text


def test_a_server_that_is_out_of_reach_is_no_change(made: Planted, server: Tracker) -> None:
    with postgres.running() as other:
        other.execute("CREATE DATABASE gone")
        tracker = Tracker(other.url("gone"))
        stamp = stamp_of(tracker)
        assert stamp() is not None
    assert stamp() is None
    tracker.close()
