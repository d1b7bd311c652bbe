"""What `sweep` and `train` do once they know what is asked: run it, go on with it, or list it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer

from foresweep.cli.options import open_existing, open_tracker, settings
from foresweep.errors import NotFound, UsageError

if TYPE_CHECKING:
    from foresweep.cli.live import Mirrors
    from foresweep.records import Sweep
    from foresweep.search.engines.crew import Crew
    from foresweep.search.events import Listener
    from foresweep.search.plan import SweepPlan
    from foresweep.tracker.tracker import Tracker

STOPPED = 130
RESOURCES = ("device", "threads", "micro_batch", "inference_batch", "gradient_checkpointing")
BESIDE_RESUME = (
    *("resume", "dry_run", "db", "runs", "mirror", "workers", "gpus", "engine", "address"),
    *("storage", "cpus_per_trial", "gpus_per_trial", "trial_timeout"),
    *("max_runs", "time_budget", "step_budget", *RESOURCES),
)
"""What may be said anew of a sweep that goes on: who works, how much more, where."""


class Places(Protocol):
    """Of the options, those about where things are."""

    @property
    def db(self) -> str | None: ...

    @property
    def runs(self) -> Path | None: ...

    @property
    def mirror(self) -> list[str] | None: ...


def as_horizons(text: str) -> tuple[int, ...]:
    """`5` or `1,5,20`. Raises UsageError."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise UsageError(f"--horizon {text!r}: write bars ahead as 5, or several as 1,5,20")
    return found


def run(plan: SweepPlan, asked: Places, crew: Crew) -> int:
    """Run a checked plan and draw it; the exit code."""
    from foresweep.search.sweep import run_sweep

    def work(tracker: Tracker, runs_dir: Path, listen: Listener) -> Sweep:
        return run_sweep(plan, tracker=tracker, runs_dir=runs_dir, listen=listen, crew=crew)

    with open_tracker(asked.db) as tracker:
        return _watched(tracker, plan, asked, work)


def run_all(plans: Iterable[SweepPlan], asked: Places, crew: Crew) -> int:
    """Run plans one after the other; the worst exit code. One that is stopped stops them all."""
    code = 0
    for plan in plans:
        code = max(code, run(plan, asked, crew))
        if code == STOPPED:
            break
    return code


def again(
    sweep_id: str,
    asked: Places,
    crew: Crew,
    budget: Mapping[str, Any],
    said: Collection[str],
    *,
    dry_run: bool,
) -> None:
    """Go on with a sweep on record; `said` are the options that were given. Raises UsageError for
    those that would make it another."""
    from foresweep.search.plan import plan_of
    from foresweep.search.sweep import resume_sweep

    _refuse_other_questions(sweep_id, said)
    with open_existing(asked.db) as tracker:
        sweep = tracker.get_sweep(sweep_id)
        plan = replace(plan_of(sweep), **{k: v for k, v in budget.items() if v is not None})
        plan = replace(plan, resources=replace(plan.resources, **_resources(asked, said)))
        if dry_run:
            list_only(plan, asked, crew)
            return

        def work(tracker: Tracker, runs_dir: Path, listen: Listener) -> Sweep:
            return resume_sweep(
                sweep.sweep_id, plan, tracker=tracker, runs_dir=runs_dir, listen=listen, crew=crew
            )

        raise typer.Exit(_watched(tracker, plan, asked, work))


def _refuse_other_questions(sweep_id: str, said: Collection[str]) -> None:
    other = sorted(set(said) - set(BESIDE_RESUME))
    if other:
        spelt = {"values": "--set", "files": "sweep files"}
        names = ", ".join(spelt.get(name, f"--{name.replace('_', '-')}") for name in other)
        raise UsageError(
            f"{names} beside --resume {sweep_id}: a sweep goes on as it was asked; begin a new one "
            f"for another question"
        )


def said_in(context: typer.Context) -> set[str]:
    """The parameters of a command that were given."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}


def _resources(asked: Places, said: Collection[str]) -> dict[str, Any]:
    return {name: getattr(asked, name) for name in said if name in RESOURCES}


def list_only(plan: SweepPlan, asked: Places, crew: Crew) -> None:
    """Print what would be trained and what it would cost."""
    from foresweep.cli.dryrun import draw
    from foresweep.cli.live import LiveView
    from foresweep.search.sweep import dry_run
    from foresweep.tracker.tracker import Tracker

    try:
        known = open_existing(asked.db)
    except NotFound:
        known = Tracker("sqlite://")  # in memory: nothing is left behind
    with known as tracker, LiveView(tracker, plan) as view:
        prepared, before, costs = dry_run(plan, tracker=tracker, listen=view.on_event, crew=crew)
        view.bars.stop()
        draw(view.console, plan, prepared, before, costs, crew.slots)


Work = Callable[["Tracker", Path, "Listener"], "Sweep"]


def _watched(tracker: Tracker, plan: SweepPlan, asked: Places, work: Work) -> int:
    """Do the work under the live view, repeated to mirrors."""
    from foresweep.cli.live import LiveView, Mirrors

    runs_dir = settings(asked.db, asked.runs).runs_dir
    with LiveView(tracker, plan) as view:
        mirrored: Mirrors
        with Mirrors(asked.mirror or [], view.say_warning) as mirrored, _terminated_as_ctrl_c():
            try:
                done = work(tracker, runs_dir, mirrored.beside(view.on_event))
            except KeyboardInterrupt:
                view.say_stopped()
                return STOPPED
        if done.state != "complete":
            view.say_stopped()
            return STOPPED
        view.conclude(done)
        return 0 if view.some_complete else 1


@contextmanager
def _terminated_as_ctrl_c() -> Iterator[None]:
    """A scheduler's SIGTERM stops a sweep as Ctrl-C does: what runs is on record as cancelled."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
