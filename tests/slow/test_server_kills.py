"""A server killed at random moments: what it answered is on record, once."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from foresweep.lifecycle.champion import promote
from foresweep.tracker.service import ONCE, Service
from foresweep.tracker.tracker import Tracker
from served_runs import a_run, body_of

pytestmark = pytest.mark.slow
CLIENTS = 4


def test_a_killed_server_has_answered_nothing_that_is_not_on_record(tmp_path: Path) -> None:
    killed(tmp_path, kills=2)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_fifty_kills_lose_no_forecast_and_count_none_twice(tmp_path: Path) -> None:
    answered = killed(tmp_path, kills=50)
    print(f"50 kills: {answered} forecasts answered")  # for the figures in docs/serving.md


def killed(folder: Path, kills: int) -> int:
    """Kill a server at moments of chance, from before it listens on; how much it answered."""
    db, chance = folder / "sweeps.db", random.Random(0)
    with Tracker(db) as tracker:
        promote(tracker, a_run(tracker, folder).run_id)
    answered: list[tuple[Any, ...]] = []
    for kill in range(kills):
        listening = kill % 5 != 4  # every fifth is killed while it starts
        _one_life(db, kill, chance.uniform(0.0, 1.0), answered, listening=listening)
        with Tracker(db, create=False) as tracker:
            service = Service(tracker.store)
            rows = service.forecasts()
            assert service.verify() == []
        kept = {(r["item_id"], r["origin"], json.dumps(r["quantiles"])) for r in rows}
        assert set(answered) <= kept
        assert [r["number"] for r in rows] == list(range(1, len(rows) + 1))
        assert len({tuple(r[name] for name in ONCE) for r in rows}) == len(rows)
    assert answered
    return len(answered)


def _one_life(
    db: Path, kill: int, after_s: float, answered: list[tuple[Any, ...]], *, listening: bool
) -> None:
    words = [sys.executable, "-m", "foresweep", "serve", "--port", "0", "--db", str(db)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        timer = threading.Timer(after_s, process.kill)
        try:
            if not listening:
                timer.start()
            assert process.stdout is not None
            said = (word for line in process.stdout for word in line.split())
            place = next((word for word in said if "http://" in word), None)
            if place is None:  # killed before it listened
                return
            seeds = [10_000 * kill + 1_000 * k for k in range(CLIENTS)]
            if listening:  # one that has answered is killed at its work, not at its start
                _ask(place, seeds[-1] + 999, answered, times=1)
                timer.start()
            clients = [threading.Thread(target=_ask, args=(place, k, answered)) for k in seeds]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
        finally:
            timer.cancel()
            process.kill()


def _ask(place: str, seed: int, answered: list[tuple[Any, ...]], times: int = 1_000) -> None:
    """Another body each time, until nobody answers."""
    with httpx.Client() as client:
        for k in range(times):
            try:
                body = body_of(1, 40, seed + k)
                answer = client.post(f"{place}forecast", json=body, timeout=30)
            except httpx.HTTPError:
                return
            if answer.status_code == 503:  # its calendar is not made yet
                continue
            assert answer.status_code == 200, answer.text
            for one in answer.json()["forecasts"]:
                quantiles = list(zip(*one["quantiles"].values(), strict=True))
                answered.append((one["item_id"], one["origin"], json.dumps(quantiles)))
