"""Sweeps that are broken off, stopped or shared: nothing is lost and nothing is done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import learning_model
from foresweep.data.splits import Cut
from foresweep.errors import PanelChanged, UsageError
from foresweep.records import Run, RunState, Sweep
from foresweep.search.events import Event, Resumed, TrialFinished, TrialStarted, Waiting
from foresweep.search.plan import SweepPlan
from foresweep.search.sweep import Workers, resume, sweep
from foresweep.tracker.tracker import Tracker
from known_baselines import know_baselines
from panels import make_frame
from planted_model import plugin

pytestmark = pytest.mark.slow

GATED = learning_model.MODULE.replace(
    'name = "guest"',
    """name = "guest"

    def train(self, job):
        import time
        from pathlib import Path
        closed = job.out.parent.name.startswith("guest_") and job.config.tilt != 1.0
        while closed and not Path({gate!r}).exists():
            time.sleep(0.01)
        return super().train(job)
""",
)
"""The first config, whose tilt is 1, is trained at once; the others wait until a file is there."""
TRIALS = 4
PLAN = SweepPlan(
    models=("guest",),
    mode="smart",
    objective="pinball",
    max_runs=TRIALS,
    cut=Cut(stride=40, max_context=64),
)


class Place:
    """A folder with a database of its own, and what was heard there."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.db, self.runs_dir = folder / "sweeps.db", folder / "runs"
        self.heard: list[Event] = []
        know_baselines(self.db, PLAN)

    def sweep(self, plan: SweepPlan) -> Sweep:
        return sweep(plan, db=self.db, runs=self.runs_dir, listen=self.heard.append)

    def resume(self, sweep_id: str = "latest", workers: Workers = Workers()) -> Sweep:  # noqa: B008
        self.heard.clear()
        return resume(
            sweep_id, db=self.db, runs=self.runs_dir, listen=self.heard.append, workers=workers
        )

    def runs(self, model: str | None = "guest") -> list[Run]:
        """By trial and attempt."""
        with Tracker(self.db) as tracker:
            runs = tracker.get_runs(model)
        return sorted(runs, key=lambda r: (r.trial_number or 0, r.attempt))

    def sweep_record(self) -> Sweep:
        with Tracker(self.db) as tracker:
            return tracker.get_sweep()

    def head(self, code: str, folder: Path) -> subprocess.Popen[str]:
        """Another process that is a head: `code` is run with place, plan, sweep and resume."""
        script = f"""
            import sys
            sys.path[:0] = {[str(Path(__file__).parents[2]), str(folder)]!r}
            from pathlib import Path
            from foresweep.search.plan import SweepPlan
            from foresweep.search.sweep import resume, sweep
            from foresweep.search.events import TrialFinished, TrialStarted
            plan = {PLAN!r}
            place = dict(db=Path({str(self.db)!r}), runs=Path({str(self.runs_dir)!r}))
            def listen(event):
                if isinstance(event, TrialFinished) and event.run.model_name == "guest":
                    print("ended", event.run.run_id, flush=True)
                if isinstance(event, TrialStarted) and event.run.model_name == "guest":
                    print("began", event.run.run_id, flush=True)
            """
        here = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
        text = (
            "from foresweep.data.splits import Cut\nfrom foresweep.models.base import Resources\n"
            "from foresweep.space import Spaces\n" + textwrap.dedent(script) + textwrap.dedent(code)
        )
        return subprocess.Popen(
            [sys.executable, "-c", text],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *here])},
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place")


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture
def guest(tmp_path: Path, gate: Path) -> Iterator[Path]:
    folder = tmp_path / "guest"
    folder.mkdir()
    module = GATED.replace("{gate!r}", repr(str(gate)))
    with plugin(folder, module=module, space=learning_model.SPACE):
        yield folder


@pytest.fixture
def opened(guest: Path, gate: Path) -> Path:
    """The guest, nothing of which waits."""
    gate.touch()
    return guest


SWEEP, RESUME = "sweep(plan, listen=listen, **place)", "resume(listen=listen, **place)"


def heard(head: subprocess.Popen[str], word: str) -> str:
    """The run of the next line that begins with this word."""
    assert head.stdout is not None
    for line in head.stdout:
        said, run_id = line.split()
        if said == word:
            return str(run_id)
    raise AssertionError(f"the head ended before it said {word!r}")


def ended(head: subprocess.Popen[str]) -> list[str]:
    """What the head said until its end."""
    assert head.stdout is not None
    lines = head.stdout.read().splitlines()
    head.stdout.close()
    head.wait(timeout=60)
    return lines


def killed_in_its_second_trial(place: Place, folder: Path, gate: Path) -> str:
    """Begin the plan in another process, kill that with -9; the run that it was in."""
    head = place.head(SWEEP, folder)
    heard(head, "ended")
    run_id = heard(head, "began")
    head.kill()
    ended(head)
    gate.touch()
    return run_id


def test_a_sweep_whose_head_is_killed_goes_on_where_it_stood(
    place: Place, guest: Path, gate: Path, tmp_path: Path
) -> None:
    killed_in_its_second_trial(place, guest, gate)
    (before,) = (r.run_id for r in place.runs() if r.state == RunState.COMPLETE)
    assert place.resume().state == "complete"
    assert not [r for r in place.runs(None) if r.state in ("running", "waiting")]
    complete = [r for r in place.runs() if r.state == RunState.COMPLETE]
    assert complete[0].run_id == before
    assert len({r.trial_number for r in complete}) == len(complete) == TRIALS
    unbroken = Place(tmp_path / "unbroken")
    unbroken.sweep(PLAN)
    assert [r.hyperparams for r in complete] == [r.hyperparams for r in unbroken.runs()]


def test_what_was_broken_off_is_a_further_attempt_at_the_same_trial(
    place: Place, guest: Path, gate: Path
) -> None:
    broken = killed_in_its_second_trial(place, guest, gate)
    place.resume()
    (said,) = (e for e in place.heard if isinstance(e, Resumed))
    assert said.num_open == 1
    lost, again = (r for r in place.runs() if r.trial_number == said.num_done + 1)
    assert (lost.run_id, lost.state, lost.attempt) == (broken, RunState.LOST, 1)
    assert (again.config_hash, again.state, again.attempt) == (lost.config_hash, "complete", 2)


def test_two_heads_share_a_sweep_and_no_trial_is_run_twice(
    place: Place, guest: Path, gate: Path
) -> None:
    first = place.head(SWEEP, guest)
    heard(first, "ended")
    second = place.head(RESUME, guest)
    heard(second, "began")
    gate.touch()
    lines = [*ended(first), *ended(second)]
    assert (first.returncode, second.returncode) == (0, 0)
    runs = place.runs()
    assert len(runs) == len({r.config_hash for r in runs}) == TRIALS
    assert {r.state for r in runs} == {RunState.COMPLETE}
    assert (
        len([line for line in lines if line.startswith("ended")]) == TRIALS - 1
    )  # the first was read
    assert place.sweep_record().state == "complete"


def test_a_head_takes_over_what_another_leaves_behind(
    place: Place, guest: Path, gate: Path
) -> None:
    first = place.head(SWEEP, guest)
    heard(first, "ended")
    broken = heard(first, "began")
    second = place.head(RESUME, guest)
    assert heard(second, "began") != broken
    first.kill()
    ended(first)
    gate.touch()
    ended(second)
    assert second.returncode == 0
    done = [r.trial_number for r in place.runs() if r.state == RunState.COMPLETE]
    assert len(set(done)) == len(done) == TRIALS
    assert place.sweep_record().state == "complete"


@pytest.mark.usefixtures("opened")
def test_a_sweep_that_is_asked_to_stop_stops_and_can_go_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    # four such trials end within a second: the head asks before each, not once a second
    monkeypatch.setattr("foresweep.search.running.head.PULSE_S", 0.0)

    def listen(event: Event) -> None:
        if isinstance(event, TrialFinished) and event.run.model_name == "guest":
            with Tracker(place.db) as other:
                other.heads.ask_to_stop("latest")

    stopped = sweep(PLAN, db=place.db, runs=place.runs_dir, listen=listen)
    assert stopped.state == "cancelled"
    left = [r for r in place.runs() if r.state != RunState.COMPLETE]
    assert all(r.state == "cancelled" and "foresweep stop" in (r.error or "") for r in left)
    assert len(place.runs()) < TRIALS
    assert place.resume().state == "complete"
    assert len([r for r in place.runs() if r.state == RunState.COMPLETE]) == TRIALS


def test_ctrl_c_leaves_nothing_running_and_the_sweep_can_go_on(
    place: Place, guest: Path, gate: Path
) -> None:
    head = place.head(SWEEP, guest)
    heard(head, "ended")
    broken = heard(head, "began")
    head.send_signal(signal.SIGINT)
    ended(head)
    assert head.returncode != 0
    assert place.sweep_record().state == "cancelled"
    (run,) = (r for r in place.runs(None) if r.state != RunState.COMPLETE)
    assert (run.run_id, run.state, run.error) == (broken, "cancelled", "stopped by Ctrl-C")
    gate.touch()
    place.resume(workers=Workers(count=2))
    assert len([r for r in place.runs() if r.state == RunState.COMPLETE]) == TRIALS


@pytest.mark.usefixtures("opened")
def test_a_sweep_that_is_done_is_not_done_again(place: Place) -> None:
    place.sweep(replace(PLAN, max_runs=3))
    before = [r.run_id for r in place.runs(None)]
    assert place.resume().state == "complete"
    assert [r.run_id for r in place.runs(None)] == before


@pytest.mark.usefixtures("opened")
def test_equal_configs_that_are_asked_for_again_are_not_trained_anew_by_a_resumption(
    place: Place,
) -> None:
    place.sweep(replace(PLAN, mode="random", max_runs=3))
    place.sweep(replace(PLAN, mode="random", max_runs=3, again=True))
    before = [r.run_id for r in place.runs(None)]
    place.resume()
    assert [r.run_id for r in place.runs(None)] == before


@pytest.mark.usefixtures("opened")
def test_the_seeds_of_finalists_go_on_too(place: Place) -> None:
    plan = replace(PLAN, mode="random", max_runs=3, seeds=3, finalists=2)

    def listen(event: Event) -> None:
        if isinstance(event, TrialFinished) and event.run.seed == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(plan, db=place.db, runs=place.runs_dir, listen=listen)
    assert place.resume().state == "complete"
    complete = [r for r in place.runs() if r.state == RunState.COMPLETE]
    by_config = sorted(
        sum(o.config_hash == r.config_hash for o in complete) for r in complete if r.seed == 0
    )
    assert by_config == [1, 3, 3]
    assert len(complete) == 7


def write_prices(folder: Path, bars: int, *, moved: int | None = None) -> Path:
    """Four items in one file; of the first, all prices of one bar `moved` by a hundredth."""
    frame = make_frame(4, 700)
    times = frame["timestamp"].unique().sort()
    if moved is not None:
        here = (pl.col("item_id") == "A0") & (pl.col("timestamp") == times[moved])
        prices = ("open", "high", "low", "close")
        frame = frame.with_columns(
            pl.when(here).then(pl.col(c) * 1.01).otherwise(pl.col(c)).alias(c) for c in prices
        )
    folder.mkdir(exist_ok=True)
    frame.filter(pl.col("timestamp") < times[bars]).write_csv(folder / "prices.csv")
    return folder / "prices.csv"


@pytest.mark.usefixtures("opened")
def test_old_bars_that_changed_are_refused_and_newer_ones_left_out(
    place: Place, tmp_path: Path
) -> None:
    file = write_prices(tmp_path / "data", 640)
    place.sweep(replace(PLAN, data=str(file), max_runs=2))
    write_prices(tmp_path / "data", 690)
    place.resume()
    (said,) = (e for e in place.heard if isinstance(e, Resumed))
    assert "50 newer bars" in said.source_note
    write_prices(tmp_path / "data", 690, moved=300)
    with pytest.raises(PanelChanged, match=r"A0 is not what it was on .* Begin a new sweep"):
        place.resume()


def test_a_sweep_recorded_by_hand_cannot_be_resumed(place: Place) -> None:
    with Tracker(place.db) as tracker:
        tracker.create_sweep(
            models=["toto"], mode="random", objective="pct_mae", horizon=5, seed=0,
            panel_hash="p", task_hash="t", fingerprints={}, plan={},
        )  # fmt: skip
    with pytest.raises(UsageError, match="does not say what was asked"):
        place.resume()


def test_a_head_that_waits_for_others_says_so(place: Place, guest: Path, gate: Path) -> None:
    """All that is left is trained by the other one."""
    first = place.head(
        "from dataclasses import replace; plan = replace(plan, max_runs=2)\n" + SWEEP, guest
    )
    heard(first, "ended")
    heard(first, "began")

    def listen(event: Event) -> None:
        place.heard.append(event)
        if isinstance(event, Waiting):
            gate.touch()

    resume(db=place.db, runs=place.runs_dir, listen=listen)
    ended(first)
    assert first.returncode == 0
    assert [e.why for e in place.heard if isinstance(e, Waiting)] == [
        "other processes train what is left"
    ]
    assert [r.state for r in place.runs()] == ["complete", "complete"]


@pytest.mark.usefixtures("opened")
def test_a_sweep_that_breaks_off_leaves_no_run_running(place: Place) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, TrialStarted) and event.run.model_name == "guest":
            raise ValueError("the screen is broken")

    with pytest.raises(ValueError, match="screen"):
        sweep(PLAN, db=place.db, runs=place.runs_dir, listen=listen)
    (run,) = place.runs()
    assert (run.state, run.error) == ("cancelled", "the sweep broke off: the screen is broken")
    assert place.sweep_record().state == "failed"
    assert place.resume().state == "complete"
