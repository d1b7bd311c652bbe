"""A sweep from its plan to its last run, and the calls that scripts and notebooks make.

The head of the sweep is the only one that writes to the database; trials report to it. A trial
that fails, dies or is refused is on record with its cause, and the sweep goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from foresweep.data.reading.sources import Loaded, load_panel
from foresweep.errors import UsageError
from foresweep.records import Run, Sweep, SweepState
from foresweep.search.engines.base import Engine
from foresweep.search.engines.crew import Crew, make_engine
from foresweep.search.events import (
    DataReady,
    Estimated,
    Event,
    Listener,
    Planned,
    Resumed,
    SeedsCompared,
    SweepFinished,
    TrialFinished,
    TrialSkipped,
)
from foresweep.search.plan import SweepPlan, by_hand, plan_of
from foresweep.search.propose.adaptive import begin, search_spaces, write_narrowed
from foresweep.search.propose.modes import ADAPTIVE, Proposal, load_space, propose
from foresweep.search.propose.transfer import transfer_proposals
from foresweep.search.running.costs import Cost, costs_of
from foresweep.search.running.head import Head, SweepStopped
from foresweep.search.running.leaks import LeakTests
from foresweep.search.running.trials import (
    Budget,
    Trials,
    dead_runs,
    open_trials,
    seeds_of_finalists,
    skip_known,
)
from foresweep.search.stage import (
    SPARE,
    Stage,
    cutoffs,
    plan_record,
    prepare_all,
    reopen_for_more,
    require_writable,
    set_stage,
    settle,
)
from foresweep.search.trial import Prepared
from foresweep.settings import load_settings
from foresweep.tracker.tracker import Tracker

ALONE = Crew()


def run_sweep(
    plan: SweepPlan,
    *,
    tracker: Tracker,
    runs_dir: Path,
    listen: Listener,
    crew: Crew = ALONE,
) -> Sweep:
    """Run a sweep and give back its record; its state says whether it was stopped from elsewhere.

    Raises UsageError for a wrong plan, DataError for unusable data; KeyboardInterrupt passes
    through once the running trials are on record as cancelled.
    """
    plan = plan.checked()
    proposals_of(plan)  # refused before anything is read
    with _engine(crew, plan, runs_dir) as engine:
        loaded = load_panel(plan.data, actions=plan.actions, **plan.reading)
        stage = set_stage(plan, tracker, engine, runs_dir, loaded.panel, listen)
        search_spaces(
            fitting(stage), tracker, stage.fingerprints
        )  # refused before anything is trained
        listen(DataReady(loaded.panel, stage.split, loaded.report))
        first = transfer_proposals(fitting(stage), tracker, stage.fingerprints)
        prepared = prepare_all(stage, (*first, *proposals_of(fitting(stage))))
        if plan.mode == "full":  # a grid may be far larger than somebody thinks
            _estimate(stage, prepared)
        sweep = _open(stage, loaded, prepared)
        return _run(stage, sweep, prepared, crew)


def dry_run(
    plan: SweepPlan, *, tracker: Tracker, listen: Listener, crew: Crew = ALONE
) -> tuple[tuple[Prepared, ...], frozenset[str], dict[str, Cost]]:
    """What `run_sweep` would begin with; which of it was trained before, by config hash; and what
    each of the others costs here. Nothing is trained to its end and nothing is put on record.
    Raises as `run_sweep`."""
    plan = plan.checked()
    proposals_of(plan)  # refused before anything is read
    with TemporaryDirectory() as folder, _engine(crew, plan, Path(folder)) as engine:
        loaded = load_panel(plan.data, actions=plan.actions, **plan.reading)
        stage = set_stage(plan, tracker, engine, Path(folder), loaded.panel, listen)
        search_spaces(fitting(stage), tracker, stage.fingerprints)
        listen(DataReady(loaded.panel, stage.split, loaded.report))
        first = transfer_proposals(fitting(stage), tracker, stage.fingerprints)
        prepared = prepare_all(stage, (*first, *proposals_of(fitting(stage))))
        known, new = skip_known(stage, prepared)
        before = frozenset(c.prepared.config_hash for c in known)
        return prepared, before, costs_of(stage, tuple(new))


def _estimate(stage: Stage, prepared: tuple[Prepared, ...]) -> None:
    found = costs_of(stage, [p for p in prepared if not p.refused])
    seconds = sum(c.seconds for c in found.values())
    slots = max(1, stage.engine.slots)
    plan = stage.plan
    grids = {m: load_space(m, plan.start, plan.spaces).full.size for m in plan.trained}
    stage.listen(Estimated(len(found), seconds / slots, slots, grids))


def resume_sweep(
    sweep_id: str,
    plan: SweepPlan,
    *,
    tracker: Tracker,
    runs_dir: Path,
    listen: Listener,
    crew: Crew = ALONE,
) -> Sweep:
    """Go on with a sweep on record, or join its other heads; `plan` is its own (`plan_of`), in
    which nothing but budget and resources may have changed.

    Trials that were broken off go on from their last training state. Raises as `run_sweep`, and
    PanelChanged where old bars are not what they were.
    """
    sweep, plan = tracker.get_sweep(sweep_id), plan.checked()
    proposals_of(plan)  # refused before anything is read
    with _engine(crew, plan, runs_dir) as engine:
        panel, note = reopen_for_more(sweep, runs_dir)
        stage = set_stage(plan, tracker, engine, runs_dir, panel, listen)
        if (stage.panel_hash, stage.task_hash) != (sweep.panel_hash, sweep.task_hash):
            raise UsageError(f"sweep {sweep.sweep_id} was cut otherwise; begin a new one")
        known = sweep.started_at  # what the other model has learnt since is not of this sweep
        first = transfer_proposals(fitting(stage), tracker, stage.fingerprints, before=known)
        prepared = prepare_all(stage, (*first, *proposals_of(fitting(stage))))
        sweep = tracker.heads.reopen(sweep.sweep_id, {**sweep.plan, **plan_record(stage)})
        dead = dead_runs(stage, sweep.sweep_id)
        left = len(open_trials(stage, sweep.sweep_id, dead=dead))
        elsewhere = len(tracker.heads.held_elsewhere(sweep.sweep_id))  # neither done nor broken off
        listen(Resumed(sweep, sweep.num_trials - left - elsewhere, left, note))
        listen(_planned(sweep, prepared))
        return _run(stage, sweep, prepared, crew, dead)


def fitting(stage: Stage) -> SweepPlan:
    """The plan with contexts no longer than this panel allows: what is drawn must fit."""
    return replace(stage.plan, max_context=stage.split.max_context)


def proposals_of(plan: SweepPlan) -> tuple[Proposal, ...]:
    """What a checked plan begins with. Raises SpaceError, UnknownName."""
    return plan.proposals or propose(
        plan.models,
        plan.mode,
        base=plan.base,
        seed=plan.seed,
        count=SPARE * plan.budget,
        step_cap=plan.step_cap,
        spaces=plan.spaces,
        max_context=plan.max_context,
    )


@contextmanager
def _engine(crew: Crew, plan: SweepPlan, runs_dir: Path) -> Iterator[Engine]:
    """An engine that has begun its imports; no process of it is left after the block."""
    require_writable(runs_dir)
    engine = make_engine(crew.checked(), plan.models)
    try:
        engine.warm_up()
        yield engine
    finally:
        engine.close()


def _run(
    stage: Stage,
    sweep: Sweep,
    prepared: tuple[Prepared, ...],
    crew: Crew,
    dead: frozenset[str] = frozenset(),
) -> Sweep:
    """Everything that is left of a sweep that is open."""
    tracker, sweep_id = stage.tracker, sweep.sweep_id
    state = SweepState.FAILED
    head = Head(stage, sweep_id, crew.trial_timeout_s)
    try:
        with head.at_work():
            budget = Budget(stage, sweep_id)
            trials = _trials(stage, sweep, prepared, budget, dead)
            head.drive(trials)
            if stage.plan.seeds > 1:
                head.drive(seeds_of_finalists(stage, sweep_id, trials.contenders(), budget))
        state = SweepState.COMPLETE
    except (KeyboardInterrupt, SweepStopped) as error:
        by_hand = isinstance(error, KeyboardInterrupt)
        head.cancel("stopped by Ctrl-C" if by_hand else "stopped by foresweep stop")
        state = SweepState.CANCELLED
        if by_hand:
            raise
    except Exception as error:  # whatever it was, no run may look as if it went on
        head.cancel(f"the sweep broke off: {error}")
        raise
    finally:
        if not tracker.heads.held_elsewhere(sweep_id):  # else other heads go on with it
            sweep = tracker.finish_sweep(sweep_id, state)
    stage.listen(SweepFinished(sweep))
    return sweep


def _trials(
    stage: Stage,
    sweep: Sweep,
    prepared: tuple[Prepared, ...],
    budget: Budget,
    dead: frozenset[str],
) -> Trials:
    """The source of all trials. Every model that will be trained is tested for leaks here."""
    sweep_id = sweep.sweep_id
    known, new = skip_known(stage, prepared)
    leaks = LeakTests(stage, sweep_id)
    leaks.test_all([*new, *settle(stage, open_trials(stage, sweep_id, dead=dead))])
    search = None
    if stage.plan.mode in ADAPTIVE and not stage.plan.proposals:
        spaces = search_spaces(
            fitting(stage), stage.tracker, stage.fingerprints, before=sweep.started_at
        )
        write_narrowed(stage, sweep_id, spaces)
        search = begin(stage, sweep_id, prepared, spaces)
    return Trials(stage, sweep_id, new, leaks, budget, search, known, dead)


def _open(stage: Stage, loaded: Loaded, prepared: tuple[Prepared, ...]) -> Sweep:
    plan, tracker = stage.plan, stage.tracker
    dataset = tracker.add_dataset(
        panel_hash=stage.panel_hash,
        source=stage.panel.source,
        num_items=stage.panel.num_items,
        num_rows=stage.panel.num_rows,
        starts_at=str(stage.panel.timeline[0]),
        ends_at=str(stage.panel.timeline[-1]),
        findings=loaded.report.as_dict()["findings"],
    )
    sweep = tracker.create_sweep(
        models=plan.models,
        mode=plan.mode,
        objective=plan.objective,
        horizon=plan.horizon,
        seed=plan.seed,
        panel_hash=stage.panel_hash,
        task_hash=stage.task_hash,
        fingerprints=stage.fingerprints,
        plan=plan_record(stage) | {"cutoffs": cutoffs(prepared)},
        dataset_id=dataset,
    )
    stage.listen(_planned(sweep, prepared))
    return sweep


def _planned(sweep: Sweep, prepared: tuple[Prepared, ...]) -> Planned:
    chosen = tuple(p for p in prepared if not p.refused)
    return Planned(sweep, chosen, tuple(p for p in prepared if p.refused))


# The Python face of the search: one call from a script or a notebook.


def sweep(
    plan: SweepPlan,
    *,
    db: str | Path | None = None,
    runs: str | Path | None = None,
    listen: Listener | None = None,
    crew: Crew = ALONE,
) -> Sweep:
    """Run a sweep and give back its record.

    `db` and `runs` say where results live (default: as the command line does); `listen` is called
    with every event (search/events.py); `crew` says how many workers there are. Raises what
    `run_sweep` raises.
    """
    places = load_settings(database=db, runs_dir=runs)
    with Tracker(places.database) as tracker:
        return run_sweep(
            plan,
            tracker=tracker,
            runs_dir=places.runs_dir,
            listen=listen or _nobody_listens,
            crew=crew,
        )


def resume(
    sweep_id: str = "latest",
    *,
    db: str | Path | None = None,
    runs: str | Path | None = None,
    listen: Listener | None = None,
    crew: Crew = ALONE,
) -> Sweep:
    """Go on with a sweep on record, or join its other heads. Raises what `resume_sweep` raises."""
    places = load_settings(database=db, runs_dir=runs)
    with Tracker(places.database, create=False) as tracker:
        known = tracker.get_sweep(sweep_id)
        return resume_sweep(
            known.sweep_id,
            plan_of(known),
            tracker=tracker,
            runs_dir=places.runs_dir,
            listen=listen or _nobody_listens,
            crew=crew,
        )


def train(
    plan: SweepPlan,
    hyperparams: Mapping[str, Any],
    *,
    db: str | Path | None = None,
    runs: str | Path | None = None,
) -> Run:
    """Train one config of the plan's one model, tracked like any other; the run that came of it.

    Where an equal config was trained before, that run; of several seeds the median one. Raises what
    `run_sweep` raises.
    """
    found: list[Run] = []
    plan = by_hand(plan, hyperparams)
    (wanted,) = plan.proposals

    def listen(event: Event) -> None:
        if isinstance(event, TrialFinished | TrialSkipped):
            run = event.run if isinstance(event, TrialFinished) else event.earlier
            if run.model_name == wanted.model:
                found.append(run)
        elif isinstance(event, SeedsCompared):
            found.append(event.chosen)

    sweep(plan, db=db, runs=runs, listen=listen)
    return found[-1]


def _nobody_listens(event: Event) -> None:
    """The null listener."""
