"""The leak hunt on a run on record, or on a model that is trained for a moment."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from foresweep.data.panel import Panel
from foresweep.data.sources import load_panel
from foresweep.data.splits import Split
from foresweep.data.windows import TrainWindows
from foresweep.errors import NotFound, UsageError
from foresweep.evaluation.backtest import make_scorer
from foresweep.evaluation.leakhunt import Hunt, hunt, hunt_training
from foresweep.models.base import Checkpoint, Facts, ForecastModel, Resources
from foresweep.models.calibration import load_predictor
from foresweep.models.checkpoint import read_checkpoint
from foresweep.models.config import make_config
from foresweep.models.registry import ENSEMBLE, get_model
from foresweep.records import Run, Sweep
from foresweep.search.plan import SweepPlan, by_hand
from foresweep.search.reopen import reopen
from foresweep.search.trial import LEAK_STEPS, Ground, prepare


def hunt_run(run: Run, sweep: Sweep, runs_dir: Path) -> Hunt:
    """Hunt in the forecasts of a run's checkpoint, and in a short training of its config; an
    ensemble trains nothing, so that only its forecasts are looked at.

    Raises NotFound without a checkpoint, CheckpointError, PanelChanged, UsageError.
    """
    if not run.has_checkpoint_files:
        raise NotFound(
            f"run {run.run_id} has no checkpoint on this disk to ask; name its model instead: "
            f"foresweep doctor --leaks {run.model_name}"
        )
    panel, split = reopen(sweep, runs_dir)
    checkpoint = read_checkpoint(Path(str(run.checkpoint_path)))
    model = get_model(checkpoint.model)
    predictor = load_predictor(model, checkpoint, Resources())
    found = hunt(predictor, panel, split, seed=run.seed or 0)
    if checkpoint.model == ENSEMBLE:
        return found
    config = make_config(model.Config, checkpoint.config, model=checkpoint.model)
    return _joined(found, _training(model, config, panel, split, run.seed or 0))


def hunt_model(name: str, *, data: str, horizon: int = 5, size: str = "tiny") -> Hunt:
    """Train the default config of a model for a moment and hunt in it.

    Raises UnknownName, UsageError where the config cannot be tried, DataError.
    """
    plan = by_hand(SweepPlan(models=(name,), data=data, horizon=horizon, size=size).checked(), {})
    panel = load_panel(data).panel
    split = Ground(Path(), horizon).cut(panel)
    train = TrainWindows(panel, split, split.part("train"))
    bars = sum(len(train.values(i)) for i in range(panel.num_items))
    ready = prepare(plan.proposals[0], Facts(horizon, split.max_context, bars, LEAK_STEPS), plan)
    if ready.refused:
        raise UsageError(f"{name} cannot be tried as it comes: {ready.refused}")
    model = get_model(ready.proposal.model)
    config = make_config(model.Config, ready.config, model=ready.proposal.model)
    with TemporaryDirectory() as folder:
        checkpoint = _trained(model, config, panel, split, Path(folder))
        found = hunt(load_predictor(model, checkpoint, Resources()), panel, split)
    return _joined(found, _training(model, config, panel, split, 0))


def _trained(
    model: ForecastModel, config: Any, panel: Panel, split: Split, folder: Path
) -> Checkpoint:
    made = model.train(
        TrainWindows(panel, split, split.part("train")),
        config,
        Resources(),
        seed=0,
        horizon=split.horizon,
        score=make_scorer(panel, split),
        report=lambda *_: None,
        out=folder / "checkpoint",
    )
    return read_checkpoint(made.path)


def _training(model: ForecastModel, config: Any, panel: Panel, split: Split, seed: int) -> Hunt:
    """The hunt in a training of two steps, which is as leaky as a long one."""
    if getattr(config, "max_steps", None):
        config = dataclasses.replace(config, max_steps=min(config.max_steps, LEAK_STEPS))
    with TemporaryDirectory() as folder:
        return hunt_training(model, config, panel, split, out=Path(folder), seed=seed)


def _joined(one: Hunt, two: Hunt) -> Hunt:
    return Hunt((*one.looked, *two.looked), (*one.findings, *two.findings))
