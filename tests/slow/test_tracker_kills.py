"""Writers killed at random moments and a disk that ends: what was acknowledged is there."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import postgres
import tracker_tasks
from foresweep.records import RunState
from foresweep.tracker.storage.moving import check
from foresweep.tracker.tracker import Tracker

pytestmark = pytest.mark.slow


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "sweeps.db")
        return
    with postgres.running() as server:
        server.execute("CREATE DATABASE sweeps")
        yield server.url("sweeps")


def kill_writers(place: str, folder: Path, num_rounds: int, seed: int) -> None:
    """Four writers a round, all killed at a moment of chance; then everything is looked at."""
    chance = random.Random(seed)
    Tracker(place).close()
    for number in range(num_rounds):
        acknowledged = folder / f"round-{number}"
        acknowledged.mkdir()
        writers = tracker_tasks.crowd(tracker_tasks.write_until_killed, 4, place, acknowledged)
        while len(list(acknowledged.iterdir())) < 4:
            writers[0].join(0.005)  # until all write
        for writer in writers:
            writers[0].join(chance.uniform(0.0, 0.15))
            writer.kill()
        assert tracker_tasks.ended(writers) == [-9] * 4
        look(place, acknowledged)


def look(place: str, acknowledged: Path) -> None:
    with Tracker(place) as tracker:
        assert tracker.get_runs(state=RunState.RUNNING) == []
        assert check(tracker).problems == ()
        for notes in acknowledged.iterdir():
            for run_id, last in last_words(notes).items():
                curves = tracker.get_curves(run_id)
                state = tracker.get_run(run_id).state
                if last == "finished":
                    assert state is RunState.COMPLETE
                elif last != "started":
                    assert state in (RunState.LOST, RunState.COMPLETE)
                    assert len(curves) == 5
                    for curve in curves:  # a step is there whole or not at all
                        assert curve.last_step >= int(last)
                        assert curve.num_points == curve.last_step + 1


def last_words(notes: Path) -> dict[str, str]:
    """The last thing acknowledged of each run; a line cut by the kill was none."""
    lines = notes.read_text().split("\n")[:-1]
    return dict(line.split(" ") for line in lines)  # type: ignore[misc]


def test_killed_writers_lose_nothing_acknowledged(place: str, tmp_path: Path) -> None:
    kill_writers(place, tmp_path, num_rounds=2, seed=0)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_two_hundred_kills_lose_nothing_acknowledged(place: str, tmp_path: Path) -> None:
    kill_writers(place, tmp_path, num_rounds=200, seed=1)


def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path) -> None:
    place = str(tmp_path / "sweeps.db")
    Tracker(place).close()
    (code,) = tracker_tasks.ended(
        tracker_tasks.crowd(tracker_tasks.write_until_full, 1, place, 600_000)
    )
    assert code == 0
    with Tracker(place) as tracker:
        assert check(tracker).problems == ()
        (run,) = tracker.get_runs()
        assert run.error is not None
        told = re.match(r"(\d+) steps; .*nothing acknowledged is lost", run.error)
        assert told is not None, run.error
        assert int(told[1]) > 10
        assert len(tracker.get_curve(run.run_id, "m0")) >= int(told[1])
