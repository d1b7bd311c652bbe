"""Every part of a living system killed with -9 at random moments: head, workers, dashboard, server,
monitor and PostgreSQL. Nothing that was acknowledged is lost, and everything goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import postgres
from foresweep.records import RunState
from foresweep.tracker.service import Service
from foresweep.tracker.storage.moving import check
from foresweep.tracker.storage.verifying import verify
from foresweep.tracker.tracker import Tracker
from living import Client, Living, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(3600)]
KILLS = int(os.environ.get("KILLS", "50"))
PATIENCE_S = 900.0
"""On a machine that is busy with much else a process takes minutes to start."""
TRIALS = 8
SWEEP = (
    *("--mode", "random", "--horizon", "2", "--stride", "40", "--max-context", "64"),
    *("--max-runs", str(TRIALS), "--workers", "2"),
)
PARTS = ("head", "worker", "dashboard", "server", "monitor", "postgres")
SOUND = {"head": (0,), "dashboard": (), "server": (), "monitor": (0, 5, 6)}
"""How each part may end by itself."""


class Campaign:
    """A system, what has been killed of it, and what was acknowledged."""

    def __init__(self, folder: Path, server: postgres.Server, seed: int) -> None:
        self.postgres, self.chance = server, random.Random(seed)
        self.living = Living(folder, server.url("sweeps"))
        self.killed: Counter[str] = Counter()
        self.away = [0.0]  # when PostgreSQL was killed
        self.begun = 0
        self.ended: Counter[str] = Counter()
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.since: dict[str, float] = {}
        self.clients = (
            Client("forecast", self.living.forecast, 0.1),
            Client("note", self.living.note, 0.2),
        )

    def start(self, part: str) -> None:
        starts = {
            "head": self._head, "dashboard": self.living.dashboard,
            "server": self.living.serve, "monitor": self.living.monitor,
        }  # fmt: skip
        self.since[part] = time.monotonic()
        self.processes[part] = starts[part]()

    def _head(self) -> subprocess.Popen[str]:
        """The newest sweep goes on; where it has come to its end, another begins."""
        with Tracker(self.living.db) as tracker:
            sweeps = [s for s in tracker.list_sweeps() if "guest" in s.models]
        runs = ("--runs", str(self.living.folder / "runs"))
        if sweeps and sweeps[0].state != "complete":
            return self.living.start(
                "sweep", "--resume", sweeps[0].sweep_id, "--workers", "2", *runs
            )
        self.begun += 1
        data = ("-m", "guest", "--data", str(self.living.data), "--seed", str(self.begun))
        return self.living.start("sweep", *data, *SWEEP, *runs)

    def tend(self) -> None:
        """Start anew what has ended; what nobody killed has ended in order, or because PostgreSQL
        was away while it began."""
        for part, process in list(self.processes.items()):
            code = process.poll()
            if code is None:
                continue
            self.ended[part] += 1
            excused = self.away[-1] + 10 > self.since[part] and code == 1
            assert code in SOUND[part] or excused, (part, code, self.living.log.read_text()[-3000:])
            self.start(part)

    def kill(self, part: str) -> bool:
        """Was there one to kill?"""
        if part == "postgres":
            self.away.append(time.monotonic())
            self.postgres.stop(self.chance.choice([signal.SIGQUIT, signal.SIGKILL]))
            time.sleep(self.chance.uniform(0.0, 2.0))
            self.postgres.start()
            return True
        if part == "worker":
            found = workers(self.processes["head"])
            if not found:
                return False
            self.chance.choice(found).kill()
            return True
        process = self.processes[part]
        if process.poll() is not None:
            return False
        process.kill()
        process.wait(60)
        self.start(part)
        return True

    def run(self, kills: int) -> None:
        for part in ("head", "dashboard", "server", "monitor"):
            self.start(part)
        for client in self.clients:
            client.start()
        self.go_on()
        while sum(self.killed.values()) < kills:
            time.sleep(self.chance.uniform(0.0, 1.5))
            self.tend()
            part = self.chance.choice(PARTS)
            if self.kill(part):
                self.killed[part] += 1
                self.go_on()

    def go_on(self) -> None:
        """Until forecasts are answered and notes taken again, and a head lives."""
        before = [len(c.acknowledged) for c in self.clients]

        def all_go_on() -> bool:
            self.tend()
            return all(
                len(c.acknowledged) > n + 1 for c, n in zip(self.clients, before, strict=True)
            )

        try:
            wait_until(all_go_on, PATIENCE_S, f"after {sum(self.killed.values())} kills")
        except AssertionError as error:
            now = {c.name: (len(c.acknowledged), c.num_asked) for c in self.clients}
            states = {part: process.poll() for part, process in self.processes.items()}
            log = self.living.log.read_text()[-2000:]
            raise AssertionError(
                f"{error}; killed {dict(self.killed)}, acknowledged and asked {now}, before "
                f"{before}, processes {states}\n{log}"
            ) from error

    def end(self) -> None:
        """The sweep comes to its end, and everybody is told to leave."""
        for client in self.clients:
            client.end()
        head = self.processes.pop("head")
        for process in self.processes.values():
            process.terminate()
            process.wait(60)
        for _ in range(4):
            assert head.wait(900) in (0, 1)
            with Tracker(self.living.db) as tracker:
                if {s.state for s in tracker.list_sweeps() if "guest" in s.models} == {"complete"}:
                    return
            head = self._head()
        raise AssertionError(self.living.log.read_text()[-3000:])

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


def workers(head: subprocess.Popen[str]) -> list[psutil.Process]:
    """head -> forkserver -> workers"""
    try:
        return [w for server in psutil.Process(head.pid).children() for w in server.children()]
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    with postgres.running([]) as found:
        found.execute("CREATE DATABASE sweeps")
        yield found


def test_fifty_kills_of_everything_lose_nothing_acknowledged(
    tmp_path: Path, server: postgres.Server
) -> None:
    campaign = Campaign(tmp_path, server, seed=int(os.environ.get("CAMPAIGN_SEED", "0")))
    try:
        campaign.run(KILLS)
        campaign.end()
    finally:
        campaign.stop()
    forecasts, notes = campaign.clients
    with Tracker(campaign.living.db) as tracker:
        health = check(tracker)
        assert health.problems == ()
        with tracker.store.read() as connection:
            chained = verify(connection)
        assert chained.is_sound, chained.problems
        on_record = {f["item_id"] for f in Service(tracker.store).forecasts()}
        noted = [text for _, _, text in tracker.get_notes(campaign.living.noted)]
        assert set(forecasts.acknowledged) <= on_record
        assert set(notes.acknowledged) <= set(noted)
        assert not [r for r in tracker.get_runs() if not r.state.is_final]
        for sweep in tracker.list_sweeps():
            if "guest" not in sweep.models:
                continue
            by_trial = Counter(
                r.trial_number for r in tracker.get_runs("guest", sweep_id=sweep.sweep_id)
                if r.state is RunState.COMPLETE
            )  # fmt: skip
            assert sorted(by_trial.values()) == [1] * TRIALS, (sweep.sweep_id, by_trial)
    print(
        dict(campaign.killed), f"{campaign.begun} sweeps of {TRIALS} trials;",
        f"{len(forecasts.acknowledged)} forecasts of {forecasts.num_asked} asked for and",
        f"{len(notes.acknowledged)} notes of {notes.num_asked} acknowledged, all on record;",
        f"the record's chain of {chained.num_entries} entries is sound;",
        f"ended by themselves: {dict(campaign.ended)}",
    )  # fmt: skip
