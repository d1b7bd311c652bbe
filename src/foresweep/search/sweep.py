"""A sweep from its plan to its last run, and the calls that scripts and notebooks make.

The head of the sweep is the only one that writes to the database; trials report to it. A trial
that fails, dies or is refused is on record with its cause, and the sweep goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from foresweep.data.gate.report import QualityReport
from foresweep.data.reading.sources import load_panel
from foresweep.data.surrogate import surrogate_panel
from foresweep.errors import UnknownName, UsageError
from foresweep.models.hub import fetch_weights
from foresweep.models.registry import BASELINES
from foresweep.records import Run, Sweep, SweepState, steering_words
from foresweep.search.engines.base import Engine
from foresweep.search.engines.local import LocalEngine
from foresweep.search.events import (
    DataReady,
    Estimated,
    Event,
    FetchingWeights,
    Listener,
    Planned,
    Resumed,
    SeedsCompared,
    SeveralWorkers,
    SweepFinished,
    TrialFinished,
    TrialSkipped,
    Waiting,
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
    fitting,
    plan_record,
    prepare_all,
    reopen,
    reopen_for_more,
    require_writable,
    set_stage,
    settle,
)
from foresweep.search.trial import Prepared
from foresweep.settings import load_settings
from foresweep.tracker.session import gpu_models
from foresweep.tracker.tracker import Tracker

LOCAL, RAY = "local", "ray"
ENGINES = (LOCAL, RAY)
FEW_CORES = 4


@dataclass(frozen=True, slots=True)
class Workers:
    """Who does the work of a sweep. No part of the question: others give the same answers."""

    engine: str = LOCAL
    count: int | None = None  # trials at once; None: one here, what a cluster has room for there
    is_auto: bool = False  # local: `count` is a choice of ours, fewer where memory is short
    gpus: tuple[str, ...] = ()  # local: CUDA device numbers, one worker each
    trial_timeout_s: float | None = None  # a trial that takes longer is ended
    address: str | None = None  # ray: of a running cluster; None: one is started on this machine
    storage: str | None = None  # ray: fsspec URL by which files travel; None: shared folders
    trial_cpus: float | None = None  # ray: what a trial takes of a node; None: 1
    trial_gpus: float | None = None  # None: 0

    @property
    def slots(self) -> int:
        """Trials at once, as far as it is said."""
        return len(self.gpus) or self.count or 1

    def checked(self) -> Workers:
        """These workers. Raises UnknownName, UsageError."""
        if self.engine not in ENGINES:
            raise UnknownName("engine", self.engine, ENGINES)
        if self.count is not None and self.count < 1:
            raise UsageError(f"--workers {self.count}: at least 1")
        of_ray = {
            "--address": self.address,
            "--storage": self.storage,
            "--cpus-per-trial": self.trial_cpus,
            "--gpus-per-trial": self.trial_gpus,
        }
        idle = [n for n, value in of_ray.items() if value is not None]
        if self.engine == LOCAL and idle:
            raise UsageError(f"{idle[0]} is for --engine ray; local workers have no such thing")
        if self.engine == RAY and self.gpus:
            raise UsageError("--gpus is for local workers; a cluster shares by --gpus-per-trial")
        if self.gpus and self.count is not None:
            raise UsageError(
                f"--workers {self.count} beside --gpus {','.join(self.gpus)}: each GPU has one "
                f"worker; leave --workers out"
            )
        return self

    def make_engine(self, models: tuple[str, ...]) -> Engine:
        """Their engine, not warmed up. Raises MissingExtra, UnknownName, UsageError."""
        self.checked()
        if self.engine == LOCAL:
            return LocalEngine(
                models, workers=self.count or 1, gpus=self.gpus, is_bounded=self.is_auto
            )
        from foresweep.search.engines.ray import RayEngine

        return RayEngine(
            models,
            address=self.address,
            cpus=1.0 if self.trial_cpus is None else self.trial_cpus,
            gpus=self.trial_gpus or 0.0,
            workers=self.count,
            storage=self.storage,
        )


ALONE = Workers()


def workers_here(device: str, trials: int) -> Workers:
    """As many local workers as this machine has use for (`--workers auto`): one for each GPU of a
    sweep that may use them, else one for each core this process may run on, and no more than there
    are trials. The engine starts fewer where free memory has no room for them."""
    kind = device.partition(":")[0]
    if kind == "mps" or ":" in device:  # one device, however many cores feed it
        return Workers(count=1, is_auto=True)
    gpus = () if kind == "cpu" else gpu_numbers()
    if gpus:
        return Workers(gpus=gpus[: max(1, trials)], is_auto=True)
    return Workers(count=max(1, min(cores(), trials)), is_auto=True)


def cores() -> int:
    """CPU cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_each(asked: int | None, workers: int) -> int:
    """Torch threads of a trial: 1 on few cores, where two spinning teams are many times slower
    than one; else the cores shared among the workers."""
    if asked is not None:
        return asked
    here = os.cpu_count() or 1
    return 1 if here <= FEW_CORES else max(1, here // workers)


def gpu_numbers() -> tuple[str, ...]:
    """CUDA device numbers that this process may use."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        return tuple(n.strip() for n in said.split(",") if n.strip().isdigit())
    return tuple(str(n) for n in range(len(gpu_models())))


def run_sweep(
    plan: SweepPlan,
    *,
    tracker: Tracker,
    runs_dir: Path,
    listen: Listener,
    workers: Workers = ALONE,
    going_on: str | None = None,
) -> Sweep:
    """Run a sweep and give back its record; its state says whether it was stopped from elsewhere.

    `going_on`: the sweep on record to go on with, or whose other heads to join; `plan` is then its
    own (`plan_of`), in which nothing but budget and resources may have changed. Trials that were
    broken off go on from their last training state.

    Raises UsageError for a wrong plan, DataError for unusable data, PanelChanged where old bars are
    not what they were; KeyboardInterrupt passes through once the running trials are on record as
    cancelled.
    """
    plan = plan.checked()
    if plan.declared is not None:
        said = tracker.declarations.get(plan.declared)
        plan = replace(plan, declared=said.declaration_id)
    old = None if going_on is None else tracker.get_sweep(going_on)
    with _set(plan, tracker, runs_dir, listen, workers, old) as (stage, prepared, source):
        dead: frozenset[str] = frozenset()
        if isinstance(source, QualityReport):
            sweep = _open(stage, prepared, source)
        else:
            assert old is not None
            sweep = tracker.heads.reopen(old.sweep_id, {**old.plan, **plan_record(stage)})
            dead = dead_runs(stage, sweep.sweep_id)
            left = len(open_trials(stage, sweep.sweep_id, dead=dead))
            elsewhere = len(tracker.heads.held_elsewhere(sweep.sweep_id))  # neither done nor left
            listen(Resumed(sweep, sweep.num_trials - left - elsewhere, left, source))
        chosen = tuple(p for p in prepared if not p.refused)
        listen(Planned(sweep, chosen, tuple(p for p in prepared if p.refused)))
        state = SweepState.FAILED
        head = Head(stage, sweep.sweep_id, workers.trial_timeout_s)
        try:
            with head.at_work():
                budget = Budget(stage, sweep.sweep_id)
                trials = _trials(stage, sweep, prepared, budget, dead)
                if stage.engine.slots > 1:
                    listen(SeveralWorkers(stage.engine.slots, learns(plan)))
                head.drive(trials)
                if plan.seeds > 1:
                    finalists = trials.contenders()
                    head.drive(seeds_of_finalists(stage, sweep.sweep_id, finalists, budget))
            state = SweepState.COMPLETE
        except (KeyboardInterrupt, SweepStopped) as error:
            state = SweepState.CANCELLED
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            if not tracker.heads.held_elsewhere(sweep.sweep_id):  # else other heads go on with it
                sweep = tracker.finish_sweep(sweep.sweep_id, state)
    listen(SweepFinished(sweep))
    return sweep


def learns(plan: SweepPlan) -> bool:
    """Does what a sweep does next depend on what has ended by then, and so on how many trials run
    at once?"""
    return bool(plan.pruners) or (plan.mode in ADAPTIVE and not plan.proposals)


def dry_run(
    plan: SweepPlan, *, tracker: Tracker, listen: Listener, workers: Workers = ALONE
) -> tuple[tuple[Prepared, ...], frozenset[str], dict[str, Cost]]:
    """What `run_sweep` would begin with; which of it was trained before, by config hash; and what
    each of the others costs here. Nothing is trained to its end and nothing is put on record.
    Raises as `run_sweep`."""
    plan = plan.checked()
    with (
        TemporaryDirectory() as folder,
        _set(plan, tracker, Path(folder), listen, workers) as (stage, prepared, _),
    ):
        known, new = skip_known(stage, prepared)
        before = frozenset(c.prepared.config_hash for c in known)
        return prepared, before, costs_of(stage, tuple(new))


@contextmanager
def _set(
    plan: SweepPlan,
    tracker: Tracker,
    runs_dir: Path,
    listen: Listener,
    workers: Workers,
    old: Sweep | None = None,
) -> Iterator[tuple[Stage, tuple[Prepared, ...], QualityReport | str]]:
    """The stage of a checked plan, what it begins with, and what there is to say of its data: the
    gate's report, or of an `old` sweep how its source stands today. No process of the engine, which
    has begun its imports, is left after the block."""
    proposals_of(plan)  # refused before anything is read
    require_writable(runs_dir)
    if plan.pretrained and workers.engine == LOCAL:
        for model in plan.trained:
            fetch_weights(model, plan.pretrained, lambda *told: listen(FetchingWeights(*told)))
    engine = workers.make_engine(plan.models)
    source: QualityReport | str
    try:
        _warmed_up(engine, workers, listen)
        if old is None:
            loaded = load_panel(plan.data, actions=plan.actions, **plan.reading)
            panel, source = loaded.panel, loaded.report
            if plan.surrogate is not None:
                real, _ = reopen(tracker.get_sweep(plan.surrogate["of"]), runs_dir)
                kind, seed = plan.surrogate["kind"], plan.surrogate["seed"]
                panel = surrogate_panel(real, kind, seed=seed)
        else:
            panel, source = reopen_for_more(old, runs_dir)
        stage = set_stage(plan, tracker, engine, runs_dir, panel, listen)
        ground, cells = stage.ground, stage.ground.fingerprints
        if isinstance(source, QualityReport):
            search_spaces(fitting(stage), tracker, cells)  # refused before anything is trained
            listen(DataReady(panel, stage.split, source, steering_words(cells)))
        elif old and (ground.panel_hash, ground.task_hash) != (old.panel_hash, old.task_hash):
            raise UsageError(f"sweep {old.sweep_id} was cut otherwise; begin a new one")
        # what the other model has learnt since an old sweep began is not of that sweep
        before = None if old is None else old.started_at
        first = transfer_proposals(fitting(stage), tracker, cells, before=before)
        yield stage, prepare_all(stage, (*first, *proposals_of(fitting(stage)))), source
    finally:
        engine.close()


def _warmed_up(engine: Engine, workers: Workers, listen: Listener) -> None:
    """The engine begins with what takes long; of Ray, on a busy machine minutes, that is said."""
    if workers.engine == RAY:
        where = "of this machine" if workers.address == "auto" else f"at {workers.address}"
        joined = f"the Ray cluster {where} is being joined"
        here = "Ray is being started on this machine; if it is busy, that takes minutes"
        listen(Waiting(joined if workers.address else here))
    engine.warm_up()
    if workers.engine == RAY and engine.slots:
        listen(Waiting("Ray's first worker is loading the models; then the leak tests begin"))


def proposals_of(plan: SweepPlan) -> tuple[Proposal, ...]:
    """What a checked plan begins with. Raises SpaceError, UnknownName."""
    return plan.proposals or propose(
        plan.models,
        plan.mode,
        base=plan.base,
        seed=plan.cut.seed,
        count=SPARE * plan.budget,
        step_cap=plan.step_cap,
        spaces=plan.spaces,
        max_context=plan.cut.max_context,
    )


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
    stage.tracker.heads.say(
        sweep_id,
        workers=stage.engine.slots,
        planned=_planned(stage.plan, prepared),
        skipped=[c.run.run_id for c in known if c.run.sweep_id != sweep_id],
    )
    leaks = LeakTests(stage, sweep_id)
    leaks.test_all([*new, *settle(stage, open_trials(stage, sweep_id, dead=dead))])
    search = None
    if stage.plan.mode in ADAPTIVE and not stage.plan.proposals:
        spaces = search_spaces(
            fitting(stage), stage.tracker, stage.ground.fingerprints, before=sweep.started_at
        )
        write_narrowed(stage, sweep_id, spaces)
        search = begin(stage, sweep_id, prepared, spaces)
    return Trials(stage, sweep_id, new, leaks, budget, search, known, dead)


def _planned(plan: SweepPlan, prepared: tuple[Prepared, ...]) -> int:
    """Trained trials that a sweep means to come to: its list, and what a search may propose."""
    listed = [p for p in prepared if not p.refused and p.proposal.model not in BASELINES]
    searches = plan.mode in ADAPTIVE and not plan.proposals
    more = plan.budget - sum(not p.proposal.is_free for p in listed) if searches else 0
    return len(listed) + max(0, more)


def _open(stage: Stage, prepared: tuple[Prepared, ...], report: QualityReport) -> Sweep:
    """A new sweep on record."""
    plan, ground, panel = stage.plan, stage.ground, stage.panel
    if plan.mode == "full":  # a grid may be far larger than somebody thinks
        costs = costs_of(stage, [p for p in prepared if not p.refused])
        seconds, slots = sum(c.seconds for c in costs.values()), max(1, stage.engine.slots)
        grids = {m: load_space(m, plan.start, plan.spaces).full.size for m in plan.trained}
        stage.listen(Estimated(len(costs), seconds / slots, slots, grids))
    dataset = stage.tracker.add_dataset(
        panel_hash=ground.panel_hash,
        source=panel.source,
        num_items=panel.num_items,
        num_rows=panel.num_rows,
        starts_at=str(panel.timeline[0]),
        ends_at=str(panel.timeline[-1]),
        findings=report.as_dict()["findings"],
    )
    return stage.tracker.create_sweep(
        models=plan.models,
        mode=plan.mode,
        objective=plan.objective,
        horizon=plan.cut.horizon,
        seed=plan.cut.seed,
        panel_hash=ground.panel_hash,
        task_hash=ground.task_hash,
        fingerprints=ground.fingerprints,
        plan=plan_record(stage) | {"cutoffs": cutoffs(prepared)},
        dataset_id=dataset,
    )


# The Python face of the search: one call from a script or a notebook.


def sweep(
    plan: SweepPlan,
    *,
    db: str | Path | None = None,
    runs: str | Path | None = None,
    listen: Listener | None = None,
    workers: Workers = ALONE,
) -> Sweep:
    """Run a sweep and give back its record.

    `db` and `runs` say where results live (default: as the command line does); `listen` is called
    with every event (search/events.py); `workers` says how many there are. Raises what
    `run_sweep` raises.
    """
    places = load_settings(database=db, runs_dir=runs)
    with Tracker(places.database) as tracker:
        return run_sweep(
            plan,
            tracker=tracker,
            runs_dir=places.runs_dir,
            listen=listen or _nobody_listens,
            workers=workers,
        )


def resume(
    sweep_id: str = "latest",
    *,
    db: str | Path | None = None,
    runs: str | Path | None = None,
    listen: Listener | None = None,
    workers: Workers = ALONE,
) -> Sweep:
    """Go on with a sweep on record, or join its other heads. Raises what `run_sweep` raises."""
    places = load_settings(database=db, runs_dir=runs)
    with Tracker(places.database, create=False) as tracker:
        known = tracker.get_sweep(sweep_id)
        return run_sweep(
            plan_of(known),
            going_on=known.sweep_id,
            tracker=tracker,
            runs_dir=places.runs_dir,
            listen=listen or _nobody_listens,
            workers=workers,
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
