"""A sweep from its plan to its last run: data, gate, leak tests, baselines, trials.

The head of the sweep is the only one that writes to the database; trials report to it. A trial
that fails, dies or is refused is on record with its cause, and the sweep goes on.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from foresweep.data.sources import Loaded, load_panel
from foresweep.errors import ConfigError, ForesweepError, LeakFound, TrackerError, WorkerDied
from foresweep.models.base import TrialPruned
from foresweep.models.registry import BASELINES
from foresweep.records import Run, Sweep
from foresweep.search.adaptive import begin, search_spaces
from foresweep.search.channel import Progress
from foresweep.search.contamination import CONTAMINATED, cutoffs, is_contaminated
from foresweep.search.events import (
    DataReady,
    LeakTested,
    Listener,
    Planned,
    SweepFinished,
    TrialFinished,
    TrialProgressed,
    TrialSkipped,
    TrialStarted,
)
from foresweep.search.finalists import EQUALS_LAST_VALUE, Contender, train_finalists
from foresweep.search.local import LocalEngine, TaskFailed, warm_up
from foresweep.search.plan import SweepPlan
from foresweep.search.proposals import ADAPTIVE, Proposal, baseline_proposals, propose
from foresweep.search.stage import Stage, plan_record, require_writable, set_stage
from foresweep.search.transfer import transfer_proposals
from foresweep.search.trial import LeakTest, Prepare, Prepared, Trial, TrialResult
from foresweep.tracker.hardware import SystemWatch
from foresweep.tracker.tracker import Heartbeat, Tracker

logger = logging.getLogger(__name__)

SYSTEM_EVERY_S = 30.0
HEAD_MEMORY = "system/process_memory_mb"  # of this process, not of the one that trains
SPARE = 4
"""Proposals drawn for each trial wanted: those that cannot be tried must not eat the budget."""


def run_sweep(plan: SweepPlan, *, tracker: Tracker, runs_dir: Path, listen: Listener) -> Sweep:
    """Run a sweep and give back its record.

    Raises UsageError for a wrong plan, DataError for unusable data; KeyboardInterrupt passes
    through once the running trial is on record as cancelled.
    """
    plan = plan.checked()
    proposals = plan.proposals or propose(
        plan.models,
        plan.mode,
        base=plan.base,
        seed=plan.seed,
        count=SPARE * plan.budget,
        step_cap=plan.step_cap,
        spaces=plan.spaces,
        max_context=plan.max_context,
    )
    require_writable(runs_dir)
    engine = LocalEngine(plan.models)
    warm_up(engine.models)
    loaded = load_panel(plan.data, actions=plan.actions)
    stage = set_stage(plan, tracker, engine, runs_dir, loaded.panel, listen)
    proposals = (*transfer_proposals(plan, tracker, stage.fingerprints), *proposals)
    search_spaces(plan, tracker, stage.fingerprints)  # refused before anything is trained
    listen(DataReady(loaded.panel, stage.split, loaded.report))
    prepared = _prepare(stage, proposals)
    sweep = _open(stage, loaded, prepared)
    state = "failed"
    try:
        tried, new = _by_what_is_known(stage, prepared)
        causes = {
            model: _untestable(stage, sweep, [p for p in new if p.proposal.model == model])
            for model in dict.fromkeys(p.proposal.model for p in new)
        }
        for p in new:
            tried.append(Contender(p, _try(stage, sweep, p, causes[p.proposal.model])))
        if plan.mode in ADAPTIVE:
            tried += _search(stage, sweep, prepared, causes)
        if plan.seeds > 1:
            train_finalists(stage, tried, attempt=partial(_attempt, stage), earlier=_earlier)
        state = "complete"
    except KeyboardInterrupt:
        tracker.cancel_sweep(sweep.sweep_id)
        state = "cancelled"
        raise
    finally:
        sweep = tracker.finish_sweep(sweep.sweep_id, state)
    listen(SweepFinished(sweep))
    return sweep


def _search(
    stage: Stage, sweep: Sweep, first: tuple[Prepared, ...], causes: dict[str, str]
) -> Iterator[Contender]:
    """Go on from results: one config is proposed, tried and told after the other."""
    search = begin(stage, sweep, first)
    number = len(stage.tracker.get_trials(sweep.sweep_id)) + 1
    while (p := search.next(number)) is not None:
        model = p.proposal.model
        if model not in causes:  # all of its first configs had been trained before
            causes[model] = _untestable(stage, sweep, [p])
        run = _try(stage, sweep, p, causes[model])
        search.tell(run)
        number += 1
        yield Contender(p, run)


def _prepare(stage: Stage, proposals: tuple[Proposal, ...]) -> tuple[Prepared, ...]:
    """The baselines and the first distinct configs that can be tried, up to the budget, with
    whatever was refused on the way. Raises ConfigError where nothing can be tried."""
    found: tuple[Prepared, ...] = stage.engine.run(
        Prepare(stage.ground, (*baseline_proposals(stage.plan.objective), *proposals), stage.plan),
        log=stage.runs_dir / "prepare.log",
        on_progress=lambda _: None,
    )
    chosen = _choose(found, stage.plan.budget)
    asked = [p for p in chosen if not p.proposal.is_free]
    if asked and all(p.refused for p in asked):
        reasons = dict.fromkeys(str(p.refused) for p in asked)
        raise ConfigError(f"no config of this sweep can be tried: {'; '.join(reasons)}")
    return tuple(sorted(chosen, key=lambda p: not p.proposal.is_free))


def _choose(found: Sequence[Prepared], budget: int) -> list[Prepared]:
    """The distinct ones in order, the budget spent on those that cost; one companion a model."""
    seen: set[str] = set()
    accompanied: set[str] = set()
    chosen: list[Prepared] = []
    for p in found:
        proposal = p.proposal
        spare = proposal.is_companion and proposal.model in accompanied
        if p.config_hash in seen or spare or (budget == 0 and not proposal.is_free):
            continue
        chosen.append(p)
        if p.refused:
            continue
        seen.add(p.config_hash)
        budget -= not proposal.is_free
        if proposal.is_companion:
            accompanied.add(proposal.model)
    return [
        p
        for p in chosen
        if not (p.refused and p.proposal.is_companion and p.proposal.model in accompanied)
    ]


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
    chosen = tuple(p for p in prepared if not p.refused)
    stage.listen(Planned(sweep, chosen, tuple(p for p in prepared if p.refused)))
    return sweep


def _by_what_is_known(
    stage: Stage, prepared: tuple[Prepared, ...]
) -> tuple[list[Contender], list[Prepared]]:
    """What is on record for the same panel, task and seed, and what is left to train."""
    known, new = [], []
    for p in prepared:
        earlier = None if p.refused else _earlier(stage, p, _seed(stage, p))
        if earlier:
            stage.listen(TrialSkipped(p, earlier))
            known.append(Contender(p, earlier))
        elif not p.refused:
            new.append(p)
    return known, new


def _earlier(stage: Stage, prepared: Prepared, seed: int) -> Run | None:
    """The run that makes another needless; None where it is to be trained once more."""
    if stage.plan.again:
        return None
    return stage.tracker.find_trained(
        train_hash=prepared.train_hash,
        config_hash=prepared.config_hash,
        panel_hash=stage.panel_hash,
        task_hash=stage.task_hash,
        seed=seed,
    )


def _same_training(stage: Stage, run: Run, prepared: Prepared) -> Path | None:
    """The checkpoint of a run that was trained alike and is asked for its forecasts differently:
    another calibration, other sampling. Says so in a note. None: train."""
    if stage.plan.again or run.is_baseline:
        return None
    earlier = stage.tracker.find_trained(
        train_hash=prepared.train_hash,
        panel_hash=stage.panel_hash,
        task_hash=stage.task_hash,
        seed=int(run.seed or 0),
    )
    if earlier is None or earlier.checkpoint_path is None:
        return None
    text = f"not trained: the weights are those of {earlier.run_id}, whose training is the same"
    stage.tracker.add_note(run.run_id, text)
    return Path(earlier.checkpoint_path)


def _seed(stage: Stage, prepared: Prepared) -> int:
    """Baselines draw nothing: under one seed they are run once for all sweeps of a task."""
    return 0 if prepared.proposal.model in BASELINES else stage.plan.seed


def _untestable(stage: Stage, sweep: Sweep, configs: Sequence[Prepared]) -> str:
    """Why no config of a model could be tested for leaks; "" once one has passed.

    What was not tested is not trained: its trials go on record as failed with this cause. A config
    that trains goes first: it says more than weights as they are.
    """
    cause = ""
    for config in sorted(configs, key=lambda p: p.config.get("finetune") == "none"):
        cause = _test_for_leaks(stage, sweep, config)
        if not cause:
            break
    return cause


def _test_for_leaks(stage: Stage, sweep: Sweep, first: Prepared) -> str:
    """One short training; "" where it passed, else why it could not be done.

    Raises LeakFound: no score of such a model means anything.
    """
    model = first.proposal.model
    out = stage.runs_dir / f".leaktest-{sweep.sweep_id}-{model}"
    started = time.perf_counter()
    task = LeakTest(stage.ground, model, first.config, stage.plan.resources, stage.plan.seed, out)
    try:
        stage.engine.run(task, log=out / "training.log", on_progress=lambda _: None)
    except TaskFailed as error:
        if error.failed.kind == LeakFound.__name__:
            raise LeakFound(f"{model}: {error}; its scores would mean nothing") from error
        return f"the leak test could not be done: {error.failed.traceback}"
    except WorkerDied as error:
        return f"the leak test could not be done: {error}"
    finally:
        shutil.rmtree(out, ignore_errors=True)
    stage.listen(LeakTested(model, time.perf_counter() - started))
    return ""


def _try(stage: Stage, sweep: Sweep, prepared: Prepared, cause: str) -> Run:
    """Put a trial on record and run it, or, with a `cause`, say why it was not run."""
    trial = stage.tracker.add_trial(
        sweep.sweep_id,
        model=prepared.proposal.model,
        config=prepared.config,
        config_hash=prepared.config_hash,
        train_hash=prepared.train_hash,
        source=prepared.proposal.source,
    )
    seed = _seed(stage, prepared)
    return _attempt(stage, prepared, (sweep.sweep_id, trial.number), seed, cause=cause)


def _attempt(
    stage: Stage, prepared: Prepared, trial: tuple[str, int], seed: int, *, cause: str = ""
) -> Run:
    """One run of a trial whose lease this process holds, on record whatever comes of it."""
    tracker = stage.tracker
    run = tracker.start_run(
        model=prepared.proposal.model,
        hyperparams=prepared.config,
        sweep_id=trial[0],
        trial_number=trial[1],
        seed=seed,
        config_hash=prepared.config_hash,
        train_hash=prepared.train_hash,
        panel_hash=stage.panel_hash,
        task_hash=stage.task_hash,
        fingerprints=stage.fingerprints,
        resources=dataclasses.asdict(stage.plan.resources),
        source=prepared.proposal.source,
        tags=(CONTAMINATED,) if is_contaminated(stage, prepared) else (),
    )
    if prepared.proposal.note:
        tracker.add_note(run.run_id, prepared.proposal.note)
    stage.listen(TrialStarted(run))
    if cause:
        finished = tracker.finish_run(run.run_id, "failed", error=cause)
    else:
        with Heartbeat(tracker, (run.run_id,)):
            finished = _execute(stage, run, prepared)
            if stage.judge is not None:
                stage.judge.end(finished, stage.runs_dir / run.run_id)
    stage.listen(TrialFinished(finished))
    return finished


def _execute(stage: Stage, run: Run, prepared: Prepared) -> Run:
    """Run one trial in its process and put what came of it on record, whatever it was."""
    tracker = stage.tracker
    out = (stage.runs_dir / run.run_id).resolve()  # the record must hold from any folder

    def on_progress(progress: Progress) -> str | None:
        tracker.log(run.run_id, progress.step, progress.scores)
        stage.listen(TrialProgressed(run, progress.step, progress.scores))
        return None if stage.judge is None else stage.judge.look(run, progress)

    task = Trial(
        ground=stage.ground,
        model=prepared.proposal.model,
        config=prepared.config,
        resources=stage.plan.resources,
        seed=int(run.seed or 0),
        out=out,
        run_id=run.run_id,
        fingerprints=stage.fingerprints,
        cutoff=prepared.cutoff,
        trained=_same_training(stage, run, prepared),
    )
    started = time.perf_counter()
    try:
        with _watched(tracker, run.run_id):
            result: TrialResult = stage.engine.run(
                task, log=out / "training.log", on_progress=on_progress
            )
    except KeyboardInterrupt:
        tracker.finish_run(run.run_id, "cancelled", error="stopped by Ctrl-C")
        raise
    except TrialPruned:
        why = None if stage.judge is None else stage.judge.reasons.get(run.run_id)
        return tracker.finish_run(run.run_id, "pruned", notes=why)
    except TaskFailed as error:
        return tracker.finish_run(run.run_id, "failed", error=error.failed.traceback)
    except ForesweepError as error:
        return tracker.finish_run(run.run_id, "failed", error=str(error))
    finished = tracker.finish_run(
        run.run_id,
        "complete",
        scores=result.scores,
        checkpoint_path=result.checkpoint_path,
        forecasts_path=out,
        training_time_seconds=result.training_time_s,
        duration_seconds=time.perf_counter() - started,
        peak_memory_mb=result.peak_memory_mb,
    )
    if result.equals_last_value and not run.is_baseline:
        return tracker.add_tag(run.run_id, EQUALS_LAST_VALUE)
    return finished


@contextmanager
def _watched(tracker: Tracker, run_id: str) -> Iterator[None]:
    """Put the machine's load beside the run's curves, at a low rate; never at the run's cost."""

    def tell(second: int, found: Mapping[str, float]) -> None:
        machine = {k: v for k, v in found.items() if k != HEAD_MEMORY}
        try:
            tracker.log(run_id, second, machine)
        except TrackerError as error:
            logger.warning("system metrics of %s not written: %s", run_id, error)

    watch = SystemWatch(tell, every_s=SYSTEM_EVERY_S)
    watch.start()
    try:
        yield
    finally:
        watch.stop()
