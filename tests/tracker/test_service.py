"""Slots and forecasts on record, on both databases: whole, in order, and telling when tampered."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import text

from foresweep.records import Run
from foresweep.tracker.service import PROMOTE, ROLLBACK, Service
from foresweep.tracker.storage.moving import copy_database
from foresweep.tracker.tracker import Tracker


def made(number: int, run: Run, **other: Any) -> dict[str, Any]:
    return {
        "slot": "s", "role": "champion", "run_id": run.run_id, "manifest": "m",
        "item_id": f"I{number}", "origin": "2020-01-06T00:00:00", "horizon": 2,
        "last_close": 100.125, "times": ["2020-01-07T00:00:00", "2020-01-08T00:00:00"],
        "levels": [0.1, 0.5, 0.9], "quantiles": [[99.1, 100.0, 101.3], [98.0, 100.1, 1e-9]],
        "input_hash": "h",
    } | other  # fmt: skip


@pytest.fixture
def run(finished: Callable[..., Run]) -> Run:
    return finished("drift", {})


@pytest.fixture
def ledger(tracker: Tracker, run: Run) -> Service:
    """Six forecasts, two a call."""
    service = Service(tracker.store)
    for k in range(0, 6, 2):
        assert service.record([made(k, run), made(k + 1, run)], source="test") == 2
    return service


def test_a_sound_record_has_no_fault_and_ends_in_its_head(ledger: Service) -> None:
    rows = ledger.forecasts()
    assert [r["number"] for r in rows] == [1, 2, 3, 4, 5, 6]
    assert all(b["previous"] == a["hash"] for a, b in pairwise(rows))
    assert ledger.head() == (6, rows[-1]["hash"])
    assert ledger.verify() == []
    assert ledger.verify((4, rows[3]["hash"])) == []


TAMPERED = {
    "UPDATE forecasts_made SET last_close = 101 WHERE number = 3": "forecast 3 is not what was",
    "UPDATE forecasts_made SET made_at = '2019' WHERE number = 6": "forecast 6 is not what was",
    "DELETE FROM forecasts_made WHERE number = 2": "forecast 2 is missing",
    "DELETE FROM forecasts_made WHERE number IN (2, 3)": "forecast 2 to 3 are missing",
    "DELETE FROM forecasts_made WHERE number = 6": "the last forecast is 5, but 6 were written",
    "DELETE FROM forecasts_made": "the last forecast is 0, but 6 were written",
    "UPDATE forecasts_made SET previous = hash WHERE number = 4": "forecast 4 does not follow",
    "UPDATE chains SET hash = 'x'": "has another hash than its writer noted",
}


@pytest.mark.parametrize("statement", TAMPERED)
def test_what_was_changed_removed_or_replaced_is_named(ledger: Service, statement: str) -> None:
    with ledger.store.write() as connection:
        connection.execute(text(statement))
    assert any(TAMPERED[statement] in fault for fault in ledger.verify())


def test_an_entry_made_up_to_fit_the_chain_is_found_at_its_end_and_in_its_middle(
    ledger: Service, run: Run
) -> None:
    rows = ledger.forecasts()
    with ledger.store.write() as connection:  # a forger who knows how the chain is made
        connection.execute(text("UPDATE chains SET length = 3, hash = :h"), {"h": rows[2]["hash"]})
        connection.execute(text("DELETE FROM forecasts_made WHERE number > 3"))
    ledger.record([made(9, run)], source="forged")
    assert ledger.verify() == []  # only what was noted elsewhere tells
    assert ledger.verify((6, rows[5]["hash"])) == [
        "no forecast 6 has the hash that was noted: the chain was rewritten"
    ]
    with ledger.store.write() as connection:
        connection.execute(text("UPDATE chains SET length = 3"))
    assert "forecast 4 and later were added past the writer: inserted" in ledger.verify()


def test_writers_at_once_make_one_chain(ledger: Service, run: Run) -> None:
    def write(k: int) -> None:
        with Tracker(str(place)) as own:
            for n in range(5):
                Service(own.store).record([made(100 * k + n, run)], source="test")

    place = ledger.store.path or ledger.store.url.render_as_string(hide_password=False)
    threads = [threading.Thread(target=write, args=(k,)) for k in range(1, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.head()[0] == 21
    assert ledger.verify() == []


def test_a_copied_database_keeps_its_chain_and_slots(
    ledger: Service, run: Run, tmp_path: Any
) -> None:
    ledger.change("s", PROMOTE, run_id=run.run_id, manifest="m")
    place = ledger.store.path or ledger.store.url.render_as_string(hide_password=False)
    copy_database(str(place), tmp_path / "copy.db")
    with Tracker(tmp_path / "copy.db") as other:
        copied = Service(other.store)
        assert copied.verify() == []
        assert copied.head() == ledger.head()
        copied.change("s", PROMOTE, run_id=run.run_id, manifest="other")
        copied.change("s", ROLLBACK)
        assert copied.slot("s").champion == ledger.slot("s").champion


def test_two_changes_at_once_of_what_was_seen_let_one_pass(tracker: Tracker, run: Run) -> None:
    service = Service(tracker.store)
    seen = service.slot("s").last_id
    passed, gate = [], threading.Barrier(4)

    def put(k: int) -> None:
        gate.wait()
        try:
            service.change("s", PROMOTE, run_id=run.run_id, manifest=f"m{k}", seen=seen)
            passed.append(k)
        except Exception as error:
            assert "at the same time" in str(error)  # noqa: PT017

    threads = [threading.Thread(target=put, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 1
    assert [e.manifest for e in service.slot("s").history] == [f"m{passed[0]}"]
