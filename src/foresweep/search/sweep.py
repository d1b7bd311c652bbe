"""A sweep from its plan to its last run: data, gate, leak tests, baselines, trials.

The head of the sweep is the only one that writes to the database; trials report to it. A trial
that fails, dies or is refused is on record with its cause, and the sweep goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foresweep.data.panel import Panel
from foresweep.data.sources import Loaded, load_panel
from foresweep.data.splits import PARTS, Split
from foresweep.data.tables import write_panel
from foresweep.data.windows import Windows
from foresweep.errors import ConfigError, ForesweepError, LeakFound, SearchError
from foresweep.models.base import TrialPruned
from foresweep.models.registry import BASELINES
from foresweep.records import Run, Sweep
from foresweep.search.channel import Progress
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
from foresweep.search.local import LocalEngine, TaskFailed, warm_up
from foresweep.search.plan import SweepPlan
from foresweep.search.proposals import Proposal, baseline_proposals, propose
from foresweep.search.trial import Ground, LeakTest, Prepare, Prepared, Trial, TrialResult
from foresweep.tracker.tracker import Heartbeat, Tracker

PRELOAD = ("foresweep.search.trial", "foresweep.models.baselines")
PRELOAD_OF = {
    "toto": "foresweep.models.toto",
    "kronos": "foresweep.models.kronos",
    "chronos2": "foresweep.models.chronos2",
}


@dataclass(frozen=True, slots=True)
class _Stage:
    """What every trial of the sweep needs."""

    plan: SweepPlan
    tracker: Tracker
    engine: LocalEngine
    runs_dir: Path
    ground: Ground
    panel: Panel
    split: Split
    task_hash: str
    panel_hash: str
    fingerprints: Mapping[str, str]
    listen: Listener


def run_sweep(plan: SweepPlan, *, tracker: Tracker, runs_dir: Path, listen: Listener) -> Sweep:
    """Run a sweep and give back its record.

    Raises UsageError for a wrong plan, DataError for unusable data; KeyboardInterrupt passes
    through once the running trial is on record as cancelled.
    """
    plan = plan.checked()
    proposals = plan.proposals or propose(
        plan.models, plan.mode, base=plan.base, seed=plan.seed, max_runs=plan.max_runs
    )
    _writable(runs_dir)
    engine = LocalEngine((*PRELOAD, *(PRELOAD_OF[m] for m in plan.models if m in PRELOAD_OF)))
    warm_up(engine.preload)
    loaded = load_panel(plan.data)
    stage = _stage(plan, tracker, engine, runs_dir, loaded.panel, listen)
    listen(DataReady(loaded.panel, stage.split, loaded.report))
    prepared = _prepare(stage, (*baseline_proposals(), *proposals))
    sweep = _open(stage, loaded, prepared)
    state = "failed"
    try:
        new = _not_trained_before(stage, prepared)
        for model in dict.fromkeys(p.proposal.model for p in new):
            _test_for_leaks(stage, sweep, next(p for p in new if p.proposal.model == model))
        for p in new:
            _try(stage, sweep, p)
        state = "complete"
    except KeyboardInterrupt:
        state = "cancelled"
        raise
    finally:
        sweep = tracker.finish_sweep(sweep.sweep_id, state)
    listen(SweepFinished(sweep))
    return sweep


def _writable(runs_dir: Path) -> None:
    """Find out now, not after the first training, that results cannot be written."""
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        probe = runs_dir / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SearchError(
            f"cannot write to the runs folder {runs_dir}: {error.strerror}; "
            f"give another with --runs FOLDER or FORESWEEP_RUNS"
        ) from error


def _stage(
    plan: SweepPlan,
    tracker: Tracker,
    engine: LocalEngine,
    runs_dir: Path,
    panel: Panel,
    listen: Listener,
) -> _Stage:
    path = runs_dir / "panels" / f"{panel.hash[:16]}.npz"
    ground = Ground(
        panel_path=path,
        horizon=plan.horizon,
        stride=plan.stride,
        max_context=plan.max_context,
        max_windows=plan.max_windows,
        seed=plan.seed,
    )
    split = ground.cut(panel)
    if not path.exists():
        write_panel(path, panel)
    windows = {n: Windows(panel, split, split.part(n)) for n in PARTS if n != "train"}
    return _Stage(
        plan=plan,
        tracker=tracker,
        engine=engine,
        runs_dir=runs_dir,
        ground=ground,
        panel=panel,
        split=split,
        task_hash=task_hash(split, plan.objective),
        panel_hash=split.cut_hash(panel),
        fingerprints={name: w.fingerprint for name, w in windows.items()},
        listen=listen,
    )


def task_hash(split: Split, objective: str) -> str:
    """sha256 of what is asked: horizon, strides, longest context, objective."""
    asked = [split.horizon, [p.stride for p in split.parts], split.max_context, objective]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _prepare(stage: _Stage, proposals: tuple[Proposal, ...]) -> tuple[Prepared, ...]:
    found: tuple[Prepared, ...] = stage.engine.run(
        Prepare(stage.ground, proposals, stage.plan.step_cap),
        log=stage.runs_dir / "prepare.log",
        on_progress=lambda _: None,
    )
    twice: set[str] = set()
    distinct = []
    for p in found:
        if p.refused or p.config_hash not in twice:
            distinct.append(p)
        twice.add(p.config_hash)
    if all(p.refused for p in found if p.proposal.source != "baseline"):
        reasons = dict.fromkeys(str(p.refused) for p in found if p.refused)
        raise ConfigError(f"no config of this sweep can be tried: {'; '.join(reasons)}")
    return tuple(distinct)


def _open(stage: _Stage, loaded: Loaded, prepared: tuple[Prepared, ...]) -> Sweep:
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
        plan=plan_record(stage),
        dataset_id=dataset,
    )
    chosen = tuple(p for p in prepared if not p.refused)
    stage.listen(Planned(sweep, chosen, tuple(p for p in prepared if p.refused)))
    return sweep


def plan_record(stage: _Stage) -> dict[str, Any]:
    """What was asked and how the parts were cut, for the sweep's record."""
    split, panel = stage.split, stage.panel
    return {
        "max_runs": stage.plan.max_runs,
        "size": stage.plan.base["size"],
        "pretrained": stage.plan.pretrained,
        "max_steps": stage.plan.step_cap,
        "max_context": split.max_context,
        "data": stage.plan.data,
        "parts": {
            part.name: {
                "from": str(panel.timeline[part.start].astype("datetime64[s]")),
                "to": str(panel.timeline[part.stop - 1].astype("datetime64[s]")),
                "bars": part.num_bars,
                "stride": part.stride,
                "origins": len(part.origins),
                "effective_origins": round(part.effective_origins(split.horizon), 1),
            }
            for part in split.parts
        },
    }


def _not_trained_before(stage: _Stage, prepared: tuple[Prepared, ...]) -> list[Prepared]:
    """What is left to train; the rest is on record for the same panel, task and seed."""
    new = []
    for p in prepared:
        earlier = None if p.refused or stage.plan.again else _earlier(stage, p)
        if earlier:
            stage.listen(TrialSkipped(p, earlier))
        elif not p.refused:
            new.append(p)
    return new


def _earlier(stage: _Stage, prepared: Prepared) -> Run | None:
    return stage.tracker.find_trained(
        train_hash=prepared.train_hash,
        config_hash=prepared.config_hash,
        panel_hash=stage.panel_hash,
        task_hash=stage.task_hash,
        seed=_seed(stage, prepared),
    )


def _seed(stage: _Stage, prepared: Prepared) -> int:
    """Baselines draw nothing: under one seed they are run once for all sweeps of a task."""
    return 0 if prepared.proposal.model in BASELINES else stage.plan.seed


def _test_for_leaks(stage: _Stage, sweep: Sweep, first: Prepared) -> None:
    """One short training per model. Raises LeakFound: no score of such a model means anything."""
    model = first.proposal.model
    out = stage.runs_dir / f".leaktest-{sweep.sweep_id}-{model}"
    started = time.perf_counter()
    task = LeakTest(stage.ground, model, first.config, stage.plan.resources, stage.plan.seed, out)
    try:
        stage.engine.run(task, log=out / "training.log", on_progress=lambda _: None)
    except TaskFailed as error:
        if error.failed.kind == LeakFound.__name__:
            raise LeakFound(f"{model}: {error}; its scores would mean nothing") from error
        return  # a model that cannot be trained says so in its trials, on record
    finally:
        shutil.rmtree(out, ignore_errors=True)
    stage.listen(LeakTested(model, time.perf_counter() - started))


def _try(stage: _Stage, sweep: Sweep, prepared: Prepared) -> None:
    plan, tracker = stage.plan, stage.tracker
    trial = tracker.add_trial(
        sweep.sweep_id,
        model=prepared.proposal.model,
        config=prepared.config,
        config_hash=prepared.config_hash,
        train_hash=prepared.train_hash,
        source=prepared.proposal.source,
    )
    run = tracker.start_run(
        model=prepared.proposal.model,
        hyperparams=prepared.config,
        sweep_id=sweep.sweep_id,
        trial_number=trial.number,
        seed=_seed(stage, prepared),
        config_hash=prepared.config_hash,
        train_hash=prepared.train_hash,
        panel_hash=stage.panel_hash,
        task_hash=stage.task_hash,
        fingerprints=stage.fingerprints,
        resources=dataclasses.asdict(plan.resources),
        source=prepared.proposal.source,
    )
    stage.listen(TrialStarted(run))
    with Heartbeat(tracker, (run.run_id,)):
        finished = _execute(stage, run, prepared)
    stage.listen(TrialFinished(finished))


def _execute(stage: _Stage, run: Run, prepared: Prepared) -> Run:
    """Run one trial in its process and put what came of it on record, whatever it was."""
    tracker = stage.tracker
    out = stage.runs_dir / run.run_id

    def on_progress(progress: Progress) -> None:
        tracker.log(run.run_id, progress.step, progress.scores)
        stage.listen(TrialProgressed(run, progress.step, progress.scores))

    task = Trial(
        ground=stage.ground,
        model=prepared.proposal.model,
        config=prepared.config,
        resources=stage.plan.resources,
        seed=_seed(stage, prepared),
        out=out,
        run_id=run.run_id,
        fingerprints=stage.fingerprints,
    )
    started = time.perf_counter()
    try:
        result: TrialResult = stage.engine.run(
            task, log=out / "training.log", on_progress=on_progress
        )
    except KeyboardInterrupt:
        tracker.finish_run(run.run_id, "cancelled", error="stopped by Ctrl-C")
        raise
    except TrialPruned:
        return tracker.finish_run(run.run_id, "pruned")
    except TaskFailed as error:
        return tracker.finish_run(run.run_id, "failed", error=error.failed.traceback)
    except ForesweepError as error:
        return tracker.finish_run(run.run_id, "failed", error=str(error))
    return tracker.finish_run(
        run.run_id,
        "complete",
        scores=result.scores,
        checkpoint_path=result.checkpoint_path,
        forecasts_path=out,
        training_time_seconds=result.training_time_s,
        duration_seconds=time.perf_counter() - started,
        peak_memory_mb=result.peak_memory_mb,
    )
