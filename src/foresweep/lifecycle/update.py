"""Online learning: the champion's weights trained on with the newest bars, and kept only if better.

    |--------------- old bars ---------------|------- new to the champion --------|
    |----------------- train ------------------------|. tune .|.... compared ....|

A small budget of steps at a lower rate, half of the windows drawn from bars that are new (a replay
of old ones keeps what was known), adapters only where the family has them (LoRA, merged
afterwards). Then parent and child forecast the newest bars, on which neither was trained, tuned or
selected; the child goes in service only where a paired test finds it better.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from foresweep.data.panel import Panel
from foresweep.data.splits import Cut, Part, Split
from foresweep.data.windows import Fresh, Windows
from foresweep.errors import NotEnoughData, SearchError, UsageError
from foresweep.evaluation.backtest import forecast_part, naive_part, score_part
from foresweep.evaluation.predict import Forecaster
from foresweep.evaluation.yardstick import ENOUGH_ORIGINS
from foresweep.lifecycle.champion import (
    Comparison,
    checkpoint_in_service,
    is_accepted,
    promote,
    require_champion,
)
from foresweep.lifecycle.evidence import LEVEL
from foresweep.lifecycle.scoring import measure_of, selected_until
from foresweep.models.base import hyperparameters
from foresweep.models.registry import BASELINES, ENSEMBLE, get_model
from foresweep.records import UPDATE, UPDATES, Run, SweepState
from foresweep.search.engines.local import LocalEngine
from foresweep.search.events import Listener
from foresweep.search.plan import SweepPlan
from foresweep.search.propose.modes import Proposal
from foresweep.search.running.head import next_attempt
from foresweep.search.running.once import drive_once, plan_of, require_complete
from foresweep.search.stage import (
    Stage,
    cutoffs,
    plan_record,
    prepare_some,
    require_writable,
    set_stage,
)
from foresweep.stats.significance import diebold_mariano, origin_means
from foresweep.tracker.service import Slot
from foresweep.tracker.tracker import Tracker

STEPS = 60
"""Optimiser steps, unless said."""
RATE = 0.3
"""Of the parent's learning rate: what is known is to be moved, not replaced."""
FRESH_SHARE = 0.5
"""Of the windows drawn: those with a label that the parent was not trained on."""
TUNE_BARS = 40


@dataclass(frozen=True, slots=True)
class Updated:
    """What came of it."""

    run: Run
    found: Comparison
    slot: Slot

    @property
    def promoted(self) -> bool:
        return self.found.is_better

    def as_json(self) -> dict[str, Any]:
        told = {"run_id": self.run.run_id, "promoted": self.promoted, "slot": self.slot.name}
        return asdict(self.found) | told


def update(
    tracker: Tracker,
    slot: Slot,
    panel: Panel,
    *,
    runs_dir: Path,
    listen: Listener,
    data: str = "",
    steps: int = STEPS,
    rate: float = RATE,
    fresh_share: float = FRESH_SHARE,
    compare_bars: int | None = None,
    finetune: str | None = None,
    seed: int = 0,
) -> Updated:
    """Train the champion of a slot on with `panel`'s newest bars and put what came of it in service
    where it is better on the newest `compare_bars` (default: 20 horizons, at least 60); otherwise
    nothing changes but the record.

    `finetune`: full or lora (default: lora where the family has it). Raises UsageError for a
    champion that has no weights of its own, NotEnoughData where too few bars are new to it,
    CheckpointError, SearchError where the training failed (it is on record with its cause).
    """
    entry = require_champion(slot)
    parent = tracker.get_run(entry.run_id)
    if parent.model_name in (*BASELINES, ENSEMBLE):
        raise UsageError(
            f"the champion of {slot.name}, run {parent.run_id}, is of {parent.model_name}, which "
            f"has no weights to train on; sweep again, or update a member of the ensemble"
        )
    checkpoint = checkpoint_in_service(entry)
    measure = measure_of(tracker, entry)
    if measure.sweep is None:
        raise UsageError(f"run {measure.run.run_id} is of no sweep: nothing says how it was cut")
    seen = selected_until(checkpoint.card)
    wanted = compare_bars or max(60, ENOUGH_ORIGINS * measure.horizon)
    cut = cut_for(panel, measure.horizon, wanted, seen, max_context=measure.max_context, seed=seed)
    base = plan_of(replace(parent, resources=dict(measure.run.resources)), measure.sweep)
    plan = replace(
        base,
        cut=cut,
        mode=UPDATE,
        data=data or panel.source,
        objective=measure.sweep.objective,
        size=None,
        pretrained=str(checkpoint.path),
        max_steps=steps,
    )
    config = config_for(parent, checkpoint.path, steps=steps, rate=rate, finetune=finetune)
    number = 1 + sum(r.updates == parent.run_id for r in tracker.get_runs(include_hidden=True))
    made, stage = _trained(tracker, plan, panel, config, parent, fresh_share, runs_dir, listen)
    child = Forecaster.load(Path(str(made.checkpoint_path)))
    windows = compared_windows(panel, stage.split)
    naive = naive_part(windows)
    losses = [
        score_part(forecast_part(one.predictor, windows), windows, naive=naive).losses
        for one in (child, Forecaster.load(checkpoint.path))
    ]
    ours, theirs = (origin_means(panel_of.scaled(measure.metric)) for panel_of in losses)
    test = diebold_mariano(ours, theirs, lags=measure.horizon - 1)
    found = Comparison(
        parent=parent.run_id,
        number=number,
        num_origins=test.num_origins,
        compared_from=str(panel.timeline[windows.part.start].astype("datetime64[s]")),
        parent_loss=float(np.nanmean(theirs)),
        child_loss=float(np.nanmean(ours)),
        pvalue=test.pvalue,
        level=LEVEL / number**2,
    )
    tracker.add_note(made.run_id, found.in_words())
    if not found.is_better:
        return Updated(made, found, slot)
    done = promote(
        tracker,
        made.run_id,
        slot=slot.name,
        comparison=found,
        accept_licence=is_accepted(checkpoint),
    )
    return Updated(made, found, done.slot)


def cut_for(
    panel: Panel,
    horizon: int,
    compare_bars: int,
    seen: np.datetime64 | None,
    *,
    max_context: int | None = None,
    seed: int = 0,
) -> Cut:
    """The newest `compare_bars` as val, TUNE_BARS before them as tune, all others as train; test is
    the shortest there can be, and nobody looks at it.

    Raises NotEnoughData where val would begin before `seen`, the last bar that the parent was
    trained, tuned or selected on.
    """
    bars = panel.eligible
    test, val = 2 * horizon, compare_bars + horizon
    tune = max(TUNE_BARS, 10 * horizon) + horizon
    train = len(bars) - test - val - tune
    new = len(bars) if seen is None else int((panel.timeline[bars] > seen).sum())
    if new < test + compare_bars or train < 2 * horizon:
        raise NotEnoughData(
            f"{new} bars are new to the champion, and {compare_bars} to compare on need "
            f"{test + compare_bars}; wait for {test + compare_bars - new} more, or compare on "
            f"fewer: --compare-bars N"
        )
    num = len(bars)
    shares = (train / num, tune / num, val / num, test / num)
    longest = max(train - 2 * horizon, 1)
    context = None if max_context is None else min(max_context, longest)
    return Cut(horizon=horizon, max_context=context, seed=seed, shares=shares)


def compared_windows(panel: Panel, split: Split) -> Windows:
    """Every bar of val as an origin."""
    val = split.part("val")
    bars = panel.eligible
    last = bars[bars < val.stop][: -split.horizon]
    before = bars[bars < val.start][-1:]
    origins = np.concatenate([before, last[last >= val.start]])
    return Windows(panel, split, Part("val", val.start, val.stop, val.num_bars, 1, origins))


def config_for(
    parent: Run, checkpoint: Path, *, steps: int, rate: float, finetune: str | None
) -> dict[str, Any]:
    """The parent's config, going on from its weights. Raises UsageError where the family cannot
    start from weights."""
    model = get_model(parent.model_name)
    fields = {h.name: h for h in hyperparameters(model.Config)}
    if "pretrained" not in fields or "max_steps" not in fields:
        raise UsageError(f"{parent.model_name} cannot start from weights; sweep it again")
    config = {
        k: v
        for k, v in parent.hyperparams.items()
        if k in fields and fields[k].stage != "architecture"
    }
    config |= {"pretrained": str(checkpoint), "size": None, "max_steps": steps, "max_epochs": None}
    if config.get("lr") is not None:
        config["lr"] = float(config["lr"]) * rate
    if "finetune" in fields:
        chosen = finetune or "lora"
        config["finetune"] = chosen
        dropped = ["freeze"] if chosen == "lora" else [k for k in config if k.startswith("lora_")]
        config |= {k: fields[k].default for k in dropped if k in fields}
    elif finetune is not None:
        raise UsageError(f"--finetune {finetune}: {parent.model_name} has no such choice")
    config |= getattr(model, "in_update", {})
    return {k: v for k, v in config.items() if k in fields}


def _trained(
    tracker: Tracker,
    plan: SweepPlan,
    panel: Panel,
    config: dict[str, Any],
    parent: Run,
    fresh_share: float,
    runs_dir: Path,
    listen: Listener,
) -> tuple[Run, Stage]:
    """The child, on record as the one trial of a sweep. Raises SearchError."""
    require_writable(runs_dir)
    engine = LocalEngine(plan.models)
    engine.warm_up()
    try:
        stage = set_stage(plan, tracker, engine, runs_dir, panel, listen)
        until = _trained_until(tracker, parent)
        if until is not None:
            fresh = Fresh(until, fresh_share)
            named = json.dumps([stage.ground.task_hash, str(until), fresh_share])
            task = hashlib.sha256(named.encode()).hexdigest()
            stage = replace(stage, ground=replace(stage.ground, fresh=fresh, task_hash=task))
        proposal = Proposal(plan.models[0], config, f"{UPDATES}: {parent.run_id}")
        (prepared,) = prepare_some(stage, (proposal,))
        if prepared.refused:
            raise SearchError(f"run {parent.run_id} cannot be trained on: {prepared.refused}")
        dataset = tracker.add_dataset(
            panel_hash=stage.ground.panel_hash,
            source=panel.source,
            num_items=panel.num_items,
            num_rows=panel.num_rows,
            starts_at=str(panel.timeline[0]),
            ends_at=str(panel.timeline[-1]),
        )
        sweep = tracker.create_sweep(
            models=plan.models,
            mode=UPDATE,
            objective=plan.objective,
            horizon=plan.cut.horizon,
            seed=plan.cut.seed,
            panel_hash=stage.ground.panel_hash,
            task_hash=stage.ground.task_hash,
            fingerprints=stage.ground.fingerprints,
            plan=plan_record(stage)
            | {"cutoffs": cutoffs((prepared,)), "updates": parent.run_id, "fresh": fresh_share},
            dataset_id=dataset,
        )
        state = SweepState.FAILED
        try:
            trial = tracker.heads.add_trial(sweep.sweep_id, **prepared.columns())
            place = (sweep.sweep_id, trial.number)
            made = drive_once(stage, next_attempt(stage, prepared, place, plan.cut.seed, ()))
            require_complete(made, "the training")
            state = SweepState.COMPLETE
        finally:
            tracker.finish_sweep(sweep.sweep_id, state)
    finally:
        engine.close()
    return made, stage


def _trained_until(tracker: Tracker, run: Run) -> np.datetime64 | None:
    """The last bar of the train part of a run's sweep; None where nobody says."""
    if run.sweep_id is None:
        return None
    parts = tracker.get_sweep(run.sweep_id).plan.get("parts", {})
    until = parts.get("train", {}).get("to")
    return None if until is None else np.datetime64(until, "ns")
