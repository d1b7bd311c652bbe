"""Heads and workers of a real sweep killed with -9 at random moments: every trial is completed, and
none is trained anew where there was something to go on from."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from foresweep.data.splits import Cut
from foresweep.records import Run, RunState, Sweep
from foresweep.search.plan import SweepPlan
from foresweep.tracker.tracker import Tracker
from known_baselines import know_baselines

pytestmark = pytest.mark.slow
PLAN = (
    *("sweep", "--model", "chronos2", "--mode", "random", "--data", "demo", "--horizon", "2"),
    *("--stride", "20", "--max-context", "64", "--max-steps", "48"),
)
RESUME = ("sweep", "--resume", "latest")


class Campaign:
    """A sweep, begun once and resumed after each death of its head; where it comes to its end
    before its kills do, another with the next seed. So it takes as long as its kills, whatever the
    machine."""

    def __init__(self, folder: Path, trials: int, seed: int) -> None:
        self.folder, self.trials, self.chance = folder, trials, random.Random(seed)
        self.killed = {"head": 0, "worker": 0}
        self.errors, self.said = folder / "errors.txt", folder / "said.txt"
        self.begun = 0
        cut = Cut(horizon=2, stride=20, max_context=64)
        know_baselines(folder / "sweeps.db", SweepPlan((), cut=cut))

    def start(self) -> subprocess.Popen[str]:
        begun = len(self.sweeps()) == self.begun  # else a head was killed before its sweep stood
        if begun and self.is_complete():
            self.begun, begun = self.begun + 1, False
        new = (*PLAN, "--max-runs", str(self.trials), "--seed", str(self.begun))
        places = ("--db", str(self.folder / "sweeps.db"), "--runs", str(self.folder / "runs"))
        asked = RESUME if begun else new
        command = [sys.executable, "-m", "foresweep", *asked, "--workers", "2", *places]
        with self.errors.open("a") as errors, self.said.open("a") as said:
            return subprocess.Popen(command, stdout=said, stderr=errors, text=True)

    def _require_sound(self, head: subprocess.Popen[str]) -> None:
        """A head that nobody killed has come to its end in order."""
        assert head.wait(timeout=900) == 0, self.errors.read_text()

    def run(self, kills: Sequence[str]) -> None:
        """Kill these, heads and workers, then let the sweep come to its end."""
        head = self.start()
        while (done := sum(self.killed.values())) < len(kills):
            self._wait_for_scorings(head)
            if head.poll() is not None:
                self._require_sound(head)
                head = self.start()
            elif kills[done] == "head":
                head.kill()
                head.wait(timeout=60)
                self.killed["head"] += 1
                head = self.start()
            else:
                self._kill_a_worker(head)
        for _ in range(3):
            self._require_sound(head)
            if self.is_complete():
                return
            head = self.start()

    def _wait_for_scorings(self, head: subprocess.Popen[str]) -> None:
        """Until a trial is being trained and a few more scorings are on record, and a moment: a
        head that is killed before it has begun anything proves nothing."""
        wanted, before = self.chance.randint(0, 3), None
        while head.poll() is None:
            runs = self.runs()
            scored = sum(len(self.scorings(r)) for r in runs)
            if before is None and any(r.state == RunState.RUNNING for r in runs):
                before = scored
            if before is not None and scored >= before + wanted:
                break
            time.sleep(0.05)
        time.sleep(self.chance.uniform(0.0, 0.2))

    def _kill_a_worker(self, head: subprocess.Popen[str]) -> None:
        training = [p for p in workers(head) if p.is_running()]
        if training:
            self.chance.choice(training).kill()
            self.killed["worker"] += 1

    def sweeps(self) -> list[Sweep]:
        """Newest first, that of the baselines aside."""
        with Tracker(self.folder / "sweeps.db") as tracker:
            return [s for s in tracker.list_sweeps() if "chronos2" in s.models]

    def runs(self) -> list[Run]:
        """Of all sweeps, by trial and attempt."""
        with Tracker(self.folder / "sweeps.db") as tracker:
            found = tracker.get_runs("chronos2")
        return sorted(found, key=lambda r: (r.sweep_id or "", r.trial_number or 0, r.attempt))

    def is_complete(self) -> bool:
        """Has every trial of the newest sweep come to its end? True before the first one."""
        for newest in self.sweeps()[:1]:
            runs = [r for r in self.runs() if r.sweep_id == newest.sweep_id]
            done = {r.trial_number for r in runs if r.state == RunState.COMPLETE}
            return len(done) == self.trials
        return True

    def scorings(self, run: Run) -> list[int]:
        with Tracker(self.folder / "sweeps.db") as tracker:
            return [step for step, _ in tracker.get_curve(run.run_id, "tune_pinball")]


def workers(head: subprocess.Popen[str]) -> list[psutil.Process]:
    """head -> forkserver -> workers"""
    try:
        return [w for server in psutil.Process(head.pid).children() for w in server.children()]
    except psutil.NoSuchProcess:
        return []


def check(campaign: Campaign) -> None:
    """Every trial complete once, nothing left running, no scoring made twice but the last."""
    with Tracker(campaign.folder / "sweeps.db") as tracker:
        assert not [r for r in tracker.get_runs() if r.state in ("running", "waiting")]
        assert {s.state for s in tracker.list_sweeps()} == {"complete"}
    assert len(campaign.sweeps()) == campaign.begun
    by_trial: dict[tuple[str | None, int | None], list[Run]] = defaultdict(list)
    for run in campaign.runs():
        by_trial[run.sweep_id, run.trial_number].append(run)
    assert len(by_trial) == campaign.trials * campaign.begun
    for attempts in by_trial.values():
        assert [r.state for r in attempts].count(RunState.COMPLETE) == 1
        assert attempts[-1].state == RunState.COMPLETE
        seen = 0
        for run in attempts:
            steps = campaign.scorings(run)
            if steps:  # a scoring whose state was not yet written when the kill came is repeated
                assert steps[0] >= seen, (
                    f"{run.run_id} began anew at {steps[0]}, {seen} were scored"
                )
                seen = steps[-1]


def test_a_few_kills_lose_no_trial(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, trials=2, seed=0)
    campaign.run(("head", "worker"))
    check(campaign)
    assert campaign.killed == {"head": 1, "worker": 1}
    (failed,) = (r for r in campaign.runs() if r.state == RunState.FAILED)
    assert "SIGKILL" in str(failed.error)
    assert "SIGKILL" in campaign.said.read_text()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_twenty_kills_lose_no_trial_of_twelve(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, trials=12, seed=1)
    campaign.run(campaign.chance.choices(("head", "worker"), k=20))
    check(campaign)
    assert sum(campaign.killed.values()) == 20, campaign.killed
    print(
        campaign.begun,
        campaign.killed,
        [(r.trial_number, r.attempt, r.state.value) for r in campaign.runs()],
    )
