"""Several workers, trials that die, hang or run out of memory: real processes, killed for real."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import learning_model
from foresweep.data.splits import Cut
from foresweep.errors import UnknownName, UsageError
from foresweep.models.base import Resources
from foresweep.records import Run, RunState
from foresweep.search.events import (
    BudgetSpent,
    Event,
    SeveralWorkers,
    TrialFinished,
    TrialRetried,
    TrialStarted,
)
from foresweep.search.plan import SweepPlan
from foresweep.search.running.head import half_the_memory
from foresweep.search.sweep import Workers, sweep
from foresweep.tracker.tracker import Tracker
from known_baselines import know_baselines
from planted_model import plugin

pytestmark = pytest.mark.slow

RANDOM = SweepPlan(
    models=("guest",),
    mode="random",
    objective="pinball",
    max_runs=5,
    cut=Cut(stride=40, max_context=64),
)
SMART = replace(RANDOM, mode="smart", max_runs=8)
TWO = Workers(count=2)


class Place:
    """A folder with a database of its own, and what was heard there."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.db, self.runs_dir = folder / "sweeps.db", folder / "runs"
        self.heard: list[Event] = []
        know_baselines(self.db, RANDOM)

    def sweep(self, plan: SweepPlan, workers: Workers = TWO) -> list[Run]:
        """The runs of `guest` in a sweep, by trial and attempt."""
        done = sweep(
            plan, db=self.db, runs=self.runs_dir, listen=self.heard.append, workers=workers
        )
        with Tracker(self.db) as tracker:
            runs = tracker.get_runs("guest", sweep_id=done.sweep_id)
        return sorted(runs, key=lambda r: (r.trial_number or 0, r.attempt))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place")


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[None]:
    with plugin(tmp_path, module=learning_model.MODULE, space=learning_model.SPACE):
        yield


def scores(runs: list[Run]) -> list[tuple[object, ...]]:
    return [(r.trial_number, r.config_hash, r.state, sorted(r.metrics.items())) for r in runs]


@pytest.mark.usefixtures("guest")
def test_two_workers_find_what_one_finds(place: Place, tmp_path: Path) -> None:
    both = place.sweep(RANDOM)
    alone = Place(tmp_path / "alone").sweep(RANDOM, Workers())
    assert scores(both) == scores(alone)
    assert len(both) == 5


@pytest.mark.usefixtures("guest")
def test_two_trials_run_at_the_same_time(place: Place) -> None:
    place.sweep(RANDOM)
    running, most = 0, 0
    for event in place.heard:
        running += isinstance(event, TrialStarted)
        running -= isinstance(event, TrialFinished)
        most = max(most, running)
    assert most == 2
    assert SeveralWorkers(2, learns=False) in place.heard


@pytest.mark.usefixtures("guest")
def test_a_search_with_two_workers_asks_nothing_twice_and_spends_its_budget(place: Place) -> None:
    runs = place.sweep(SMART)
    assert len({r.config_hash for r in runs}) == len(runs) == 8
    assert [r.source for r in runs] == ["priority: first"] + 7 * ["smart"]
    assert {r.state for r in runs} == {RunState.COMPLETE}
    assert SeveralWorkers(2, learns=True) in place.heard  # said: another number may ask others


FATE = """
from pathlib import Path
from learning_model import Learner
import os, signal, time

ONCE = Path({once!r})


class Guest(Learner):
    name = "guest"

    def train(self, job):
        if job.out.parent.name.startswith("guest_"):  # no leak test
            self.meet(job.config, job.resources, job.out)
        return super().train(job)

    def meet(self, config, resources, out):
{fate}
"""
SPACE = (
    learning_model.SPACE
    + """
[[quick]]
name = "struck"
source = "made up"
config = { tilt = 0.5 }
[[quick]]
name = "spared"
source = "made up"
config = { tilt = 0.25 }
"""
)
QUICK = replace(RANDOM, mode="quick", max_runs=None)


def meets(folder: Path, fate: str) -> object:
    """The guest, with a fate."""
    text = FATE.format(once=str(folder / "once"), fate=textwrap.indent(fate, 8 * " "))
    return plugin(folder, module=text, space=SPACE)


KILLED_ONCE = """
if config.tilt == 0.5 and not ONCE.exists():
    ONCE.touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED = "if config.tilt == 0.5: os.kill(os.getpid(), signal.SIGKILL)"
HANGS = "if config.tilt == 0.5: time.sleep(600)"
GREEDY = """
if config.tilt == 0.5 and resources.micro_batch != 4:
    raise MemoryError("cannot allocate memory for 8 windows")
"""
BROKEN = "if config.tilt == 0.5: raise RuntimeError('no such kernel')"


def test_a_trial_whose_process_is_killed_is_tried_once_more(place: Place, tmp_path: Path) -> None:
    with meets(tmp_path, KILLED_ONCE):  # type: ignore[attr-defined]
        first, second, other = place.sweep(QUICK)
    assert (first.state, second.state, other.state) == ("failed", "complete", "complete")
    assert "SIGKILL" in (first.error or "")
    assert (first.trial_number, second.trial_number) == (other.trial_number - 1,) * 2  # type: ignore[operator]
    assert (first.attempt, second.attempt) == (1, 2)
    (retried,) = (e for e in place.heard if isinstance(e, TrialRetried))
    assert retried.run.run_id == first.run_id
    with Tracker(place.db) as tracker:
        assert first.run_id in str(tracker.get_notes(second.run_id))


def test_a_trial_that_is_killed_twice_fails_and_the_sweep_goes_on(
    place: Place, tmp_path: Path
) -> None:
    with meets(tmp_path, KILLED):  # type: ignore[attr-defined]
        runs = place.sweep(QUICK)
    assert [r.state for r in runs] == ["failed", "failed", "complete"]


def test_a_trial_that_hangs_is_ended_and_says_after_how_long(place: Place, tmp_path: Path) -> None:
    with meets(tmp_path, HANGS):  # type: ignore[attr-defined]
        hung, other = place.sweep(QUICK, Workers(count=2, trial_timeout_s=3.0))
    assert (hung.state, other.state) == ("failed", "complete")
    assert "--trial-timeout 3 s" in (hung.error or "")


def test_too_little_memory_is_answered_with_half_the_windows_at_once(
    place: Place, tmp_path: Path
) -> None:
    plan = replace(QUICK, resources=Resources(micro_batch=8))
    with meets(tmp_path, GREEDY):  # type: ignore[attr-defined]
        first, second, _ = place.sweep(plan)
    assert (first.state, second.state) == ("failed", "complete")
    assert first.config_hash == second.config_hash
    assert (first.resources["micro_batch"], second.resources["micro_batch"]) == (8, 4)


def test_what_is_wrong_with_a_config_is_not_tried_again(place: Place, tmp_path: Path) -> None:
    with meets(tmp_path, BROKEN):  # type: ignore[attr-defined]
        broken, other = place.sweep(QUICK)
    assert (broken.state, other.state) == ("failed", "complete")
    assert "no such kernel" in (broken.error or "")


def test_half_the_memory_is_half_the_windows_of_a_backward_pass() -> None:
    assert half_the_memory(Resources(), {"batch_size": 32}) == Resources(micro_batch=16)
    assert half_the_memory(Resources(micro_batch=5), {"batch_size": 32}) == Resources(micro_batch=2)
    assert half_the_memory(Resources(micro_batch=1), {"batch_size": 32}) is None
    assert half_the_memory(Resources(), {}) is None


@pytest.mark.usefixtures("guest")
def test_no_trial_begins_when_the_steps_are_spent(place: Place) -> None:
    runs = place.sweep(replace(SMART, step_budget=3 * learning_model.STEPS + 1), Workers())
    assert len(runs) == 3
    (said,) = (e for e in place.heard if isinstance(e, BudgetSpent))
    assert "48 of 49 steps" in said.why


@pytest.mark.usefixtures("guest")
def test_no_trial_begins_when_the_time_is_over(place: Place) -> None:
    runs = place.sweep(replace(SMART, time_budget_s=1e-9), Workers())
    assert runs == []
    assert any(isinstance(e, BudgetSpent) for e in place.heard)


def test_workers_say_what_they_cannot_do() -> None:
    with pytest.raises(UnknownName, match="did you mean 'local'"):
        Workers(engine="locale").checked()
    with pytest.raises(UsageError, match="each GPU has one worker"):
        Workers(count=3, gpus=("0",)).checked()
