"""Asynchronous halving: many trials start, the better half of a rung goes on from where it stands,
the others wait and may still be let go on."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import learning_model
from foresweep.data.splits import Cut
from foresweep.errors import TrackerError, UsageError
from foresweep.records import Run, RunState
from foresweep.search.events import Event, TrialStarted, TrialWaits
from foresweep.search.plan import SweepPlan, plan_of
from foresweep.search.propose.modes import Proposal
from foresweep.search.running.promotion import Ladder
from foresweep.search.sweep import Workers, run_sweep, sweep
from foresweep.tracker.tracker import Tracker
from known_baselines import know_baselines
from planted_model import plugin

WAITING, COMPLETE = RunState.WAITING, RunState.COMPLETE
GUEST = learning_model.MODULE.replace(
    'name = "guest"',
    """name = "guest"

    def train(self, job):
        \"\"\"Keeps a state, notes each step that it takes, and may be killed after one.\"\"\"
        import os
        import time
        from pathlib import Path
        from foresweep.models.base import as_dict
        from foresweep.models.checkpoint import write_checkpoint
        from foresweep.models.training.loop import state_file
        state, folder = state_file(job.out, 0), Path({folder!r})
        begun = int(state.read_text()) if job.resume and state.exists() else 0
        for step in range(begun + 2, job.config.max_steps + 1, 2):
            if "guest_" in str(job.out):
                with (folder / "steps").open("a") as noted:
                    print(repr(job.config.tilt), step, file=noted)
                if step == 6 and (folder / "deadly").exists():
                    (folder / "deadly").unlink()
                    os.kill(os.getpid(), 9)
                while step == 6 and (folder / "closed").exists():
                    time.sleep(0.01)
            scored = job.score(self.after(job.config, step))
            try:
                job.report(step, scored.scores, scored.losses)
            finally:
                state.parent.mkdir(parents=True, exist_ok=True)
                state.write_text(str(step))
        return write_checkpoint(job.out, model=self.name, config=as_dict(job.config), card={})
""",
)
TRIALS = 9
PLAN = SweepPlan(
    models=("guest",),
    mode="random",
    objective="pinball",
    max_runs=TRIALS,
    cut=Cut(stride=40, max_context=64),
    pruning="promotion",
)


def stand(ladder: Ladder, trial: int, *badness: float) -> None:
    """A trial that was scored so, and waits after its last scoring."""
    ladder.learn(trial, WAITING, dict(enumerate(badness, 1)))


def test_the_better_half_of_a_rung_goes_on_as_it_grows() -> None:
    ladder = Ladder()
    stand(ladder, 1, 3.0)
    assert ladder.next() == []
    assert ladder.stops(1, 1) == "was 1 of 1 at this rung"
    stand(ladder, 2, 2.0)
    assert ladder.next() == [2]
    stand(ladder, 3, 1.0)
    assert ladder.next() == [3]
    stand(ladder, 4, 4.0)
    assert ladder.next() == [3, 2], "the best first; the fourth made room for one that had to wait"
    assert ladder.stops(2, 1) is None
    assert ladder.stops(1, 1) == "was 3 of 4 at this rung"


def test_who_has_come_farthest_goes_on_first_and_stands_at_every_rung_it_passed() -> None:
    ladder = Ladder()
    for trial, badness in enumerate((5.0, 4.0, 3.0, 1.0), 1):
        stand(ladder, trial, badness)
    stand(ladder, 1, 5.0, 2.0)
    stand(ladder, 2, 4.0, 2.5)
    assert ladder.next() == [1, 4, 3]
    stand(ladder, 4, 1.0, 0.5, 0.5, 0.5)
    assert ladder.next() == [3], "at the second rung 4 is the best, and is past it"


def test_between_two_rungs_and_beyond_the_last_nobody_stops() -> None:
    ladder = Ladder()
    ladder.learn(1, COMPLETE, dict.fromkeys(range(1, 9), 0.0))
    for scoring in range(1, 9):
        ladder.hear(2, scoring, 1.0)
        assert (ladder.stops(2, scoring) is None) == (scoring not in (1, 2, 4))


def test_the_best_so_far_counts_and_a_score_that_is_no_number_is_the_worst() -> None:
    ladder = Ladder()
    stand(ladder, 1, 1.0, 9.0)
    stand(ladder, 2, 2.0, 2.0)
    assert ladder.next() == [1]
    stand(ladder, 3, math.nan)
    stand(ladder, 4, 8.0)
    assert ladder.stops(3, 1) == "was 4 of 4 at this rung"


def test_a_rung_that_was_passed_is_not_waited_at_again() -> None:
    """As where the state of a trial is gone, and it begins anew."""
    ladder = Ladder()
    stand(ladder, 1, 1.0)
    ladder.wake(1)
    for trial in (2, 3, 4):
        stand(ladder, trial, 0.0)
    assert ladder.stops(1, 1) is None
    ladder.hear(1, 2, 1.0)
    assert ladder.stops(1, 2) is not None


def test_at_the_last_call_somebody_comes_to_the_end() -> None:
    ladder = Ladder()
    stand(ladder, 1, 3.0)
    stand(ladder, 2, 2.0, 2.0)
    assert ladder.next() == []
    assert ladder.next(is_last_call=True) == [2, 1]
    ladder.learn(3, COMPLETE, {})
    assert ladder.next(is_last_call=True) == []


def test_several_objectives_are_not_promoted_by() -> None:
    with pytest.raises(UsageError, match="several objectives"):
        replace(PLAN, models=("toto",), objective="pct_mae,sharpe").checked()


class Place:
    """A folder with a database of its own, and what was heard there."""

    def __init__(self, folder: Path, guest: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.db, self.runs_dir, self.guest = folder / "sweeps.db", folder / "runs", guest
        self.heard: list[Event] = []
        know_baselines(self.db, PLAN)
        (guest / "steps").write_text("")

    def sweep(self, plan: SweepPlan = PLAN, workers: Workers = Workers()) -> None:  # noqa: B008
        sweep(plan, db=self.db, runs=self.runs_dir, listen=self.heard.append, workers=workers)

    def resume(self, **changes: Any) -> None:
        with Tracker(self.db) as tracker:
            known = tracker.get_sweep()
            run_sweep(
                replace(plan_of(known), **changes), tracker=tracker, runs_dir=self.runs_dir,
                listen=self.heard.append, going_on=known.sweep_id,
            )  # fmt: skip

    def runs(self) -> list[Run]:
        with Tracker(self.db) as tracker:
            runs = tracker.get_runs("guest")
        return sorted(runs, key=lambda r: (r.trial_number or 0, r.attempt))

    def curves(self) -> dict[int, list[tuple[int, float]]]:
        """The objective's curve of each trial."""
        found: dict[int, list[tuple[int, float]]] = {}
        with Tracker(self.db) as tracker:
            for run in self.runs():
                curve = tracker.get_curve(run.run_id, "tune_pinball")
                found.setdefault(int(run.trial_number or 0), []).extend(curve)
        return found

    def steps(self) -> Counter[str]:
        """How often each step of each config was taken."""
        return Counter((self.guest / "steps").read_text().splitlines())

    def head(self, call: str) -> subprocess.Popen[str]:
        """Another process that is a head of the newest sweep here, or of a new one."""
        text = f"""if True:
            import sys
            sys.path[:0] = {[str(Path(__file__).parents[2]), str(self.guest)]!r}
            from pathlib import Path
            from foresweep.data.splits import Cut
            from foresweep.models.base import Resources
            from foresweep.search.plan import SweepPlan, plan_of
            from foresweep.search.sweep import resume, sweep
            from foresweep.space import Spaces
            def listen(event):
                print(type(event).__name__, flush=True)
            place = dict(db={str(self.db)!r}, runs={str(self.runs_dir)!r}, listen=listen)
            {call.replace("PLAN", repr(PLAN))}
            """
        here = [str(self.guest), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        return subprocess.Popen(
            [sys.executable, "-c", text], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(here)},
        )  # fmt: skip


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("guest")
    module = GUEST.replace("{folder!r}", repr(str(folder)))
    with plugin(folder, module=module, space=learning_model.SPACE):
        yield folder


@pytest.fixture
def place(tmp_path: Path, guest: Path) -> Place:
    return Place(tmp_path, guest)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, guest: Path) -> Place:
    place = Place(tmp_path_factory.mktemp("unbroken"), guest)
    place.sweep()
    place.taken = place.steps()  # type: ignore[attr-defined]
    return place


@pytest.mark.slow
def test_all_begin_few_end_and_no_step_is_taken_twice(unbroken: Place) -> None:
    runs, curves = unbroken.runs(), unbroken.curves()
    assert [r.trial_number for r in runs] == list(range(1, TRIALS + 1)), "one run a trial"
    assert {r.state for r in runs} == {WAITING, COMPLETE}
    given = {n: len(curve) for n, curve in curves.items()}
    assert {1, 8} <= set(given.values()) <= {1, 2, 4, 8}
    assert all((r.state is COMPLETE) == (given[r.trial_number or 0] == 8) for r in runs)
    taken = unbroken.taken  # type: ignore[attr-defined]
    assert set(taken.values()) == {1}
    assert len(taken) == sum(given.values()) < TRIALS * 8 / 2
    waits = next(r for r in runs if r.state is WAITING)
    said = r"waits at (2|4|8) of 16 steps: tune_pinball was \d of \d at this rung"
    assert re.fullmatch(said, str(waits.notes))
    assert waits.finished_at is None
    assert waits.training_time_seconds is not None


@pytest.mark.slow
def test_who_waits_may_still_be_let_go_on_in_a_larger_sweep(place: Place, guest: Path) -> None:
    plan = replace(PLAN, proposals=tuple(map(tilted, (0.5, 0.1))))
    place.sweep(plan)
    assert [len(curve) for curve in place.curves().values()] == [1, 8]
    place.resume(proposals=(*plan.proposals, *map(tilted, (1.0, 2.0, 3.0))))
    assert [len(curve) for curve in place.curves().values()] == [2, 8, 1, 1, 1]
    assert len(place.runs()) == 5
    assert set(place.steps().values()) == {1}


def tilted(tilt: float) -> Proposal:
    return Proposal("guest", {"tilt": tilt, "rate": 0.5, "max_steps": 16}, "by hand")


@pytest.mark.slow
def test_a_head_that_is_killed_between_two_rungs_changes_nothing(
    place: Place, guest: Path, unbroken: Place
) -> None:
    (guest / "closed").touch()
    head = place.head("sweep(PLAN, **place)")
    taken(place, head)
    head.kill()
    head.communicate()
    (guest / "closed").unlink()
    place.resume()
    assert [r.state for r in place.runs()].count(RunState.LOST) == 1
    assert place.curves() == unbroken.curves()
    states = {r.trial_number: r.state for r in place.runs()}  # of the newest attempt
    assert states == {r.trial_number: r.state for r in unbroken.runs()}


def taken(place: Place, head: subprocess.Popen[str]) -> None:
    """Wait until the head trains beyond a second rung, where the door is closed."""
    while not any(step.endswith(" 6") for step in place.steps()):
        assert head.poll() is None
        time.sleep(0.01)


@pytest.mark.slow
def test_a_worker_that_dies_after_it_was_let_go_on_goes_on_from_its_state(
    place: Place, guest: Path, unbroken: Place
) -> None:
    (guest / "deadly").touch()
    place.sweep()
    (died,) = (r for r in place.runs() if r.state is RunState.FAILED)
    again = next(r for r in place.runs() if r.attempt == 2)
    assert died.trial_number == again.trial_number
    assert place.curves() == unbroken.curves()
    assert sorted(place.steps().values())[-2:] == [1, 2], "the step it died in, and no other"


@pytest.mark.slow
def test_two_heads_share_the_rungs(place: Place, guest: Path) -> None:
    (guest / "closed").touch()
    first = place.head("sweep(PLAN, **place)")
    taken(place, first)
    second = place.head('resume("latest", **place)')
    assert second.stdout is not None
    while "TrialStarted" not in second.stdout.readline():
        assert second.poll() is None
    (guest / "closed").unlink()
    for head in (first, second):
        head.communicate(timeout=120)
    assert (first.returncode, second.returncode) == (0, 0)
    given = sorted(len(curve) for curve in place.curves().values())
    assert len(given) == TRIALS
    assert given[-1] == 8
    assert set(place.steps().values()) == {1}
    assert {r.state for r in place.runs()} == {WAITING, COMPLETE}
    assert not [c for n, c in Counter(r.trial_number for r in place.runs()).items() if c > 1]


@pytest.mark.slow
def test_a_search_learns_of_each_trial_once_and_as_far_as_it_came(
    place: Place, guest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foresweep.search.propose import adaptive

    searches: list[adaptive.Search] = []
    begin = adaptive.Search.__post_init__
    monkeypatch.setattr(
        adaptive.Search, "__post_init__", lambda self: (searches.append(self), begin(self))[1]
    )
    place.sweep(replace(PLAN, mode="smart", max_runs=12), Workers(count=2))
    (search,) = searches
    told = {t.number: t for t in search.told}
    assert sorted(t.number or 0 for t in search.told) == sorted(told) == list(range(1, 13))
    curves = place.curves()
    for run in place.runs():
        found = told[run.trial_number]
        assert found.state is run.state
        if run.state is WAITING:
            assert sorted(found.series) == [s for s, _ in curves[run.trial_number or 0]]
    assert not search.running
    woken = [e.run.run_id for e in place.heard if isinstance(e, TrialStarted)]
    assert max(Counter(woken).values()) > 1
    assert any(isinstance(e, TrialWaits) for e in place.heard)


@pytest.mark.slow
def test_only_what_waits_can_be_woken_and_what_has_ended_cannot_wait(unbroken: Place) -> None:
    whole = next(r for r in unbroken.runs() if r.state is COMPLETE)
    with Tracker(unbroken.db) as tracker:
        with pytest.raises(TrackerError, match="is complete: only one that waits goes on"):
            tracker.heads.wake(whole.run_id)
        with pytest.raises(TrackerError, match="is complete"):
            tracker.heads.pause(whole.run_id, notes="x", training_time_s=0.0, duration_s=0.0)
