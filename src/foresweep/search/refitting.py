"""A config trained again on newer bars than its own training saw, as a model in service is.

    |------ train ------|..|- tune -|..|- val 1 -|- val 2 -|..|- test 1 -|- test 2 -|
    own training: learns|..| steers    forecasts
    |------------------------- refit -------|.. H    forecasts
    |--------------------------- refit -------------------|..   forecasts

Steps and calibration were settled by tune, once; only the weights become newer. A trial trains its
refits for val; those for test are trained when it is opened.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from foresweep.data.panel import Panel
from foresweep.data.splits import Part, PartName, Split, Stretch
from foresweep.data.windows import TrainWindows, Windows
from foresweep.errors import CheckpointError
from foresweep.evaluation.backtest import forecast_part
from foresweep.models.base import (
    Array,
    Checkpoint,
    Forecast,
    ForecastModel,
    Levels,
    Predictor,
    Resources,
    TrainingJob,
    as_dict,
    make_config,
)
from foresweep.models.calibration import FILE as CALIBRATION
from foresweep.models.calibration import load_predictor
from foresweep.models.checkpoint import add_json, derive_checkpoint, read_checkpoint, read_json
from foresweep.models.training.loop import adopt_states, has_states

REFITS = "refits"
"""Folder in a run's own: of the weights that forecast a stretch, `val-2` or `test-1`."""


def bars_before(panel: Panel, split: Split, stop: int) -> TrainWindows:
    """What there is to learn from before timeline position `stop`, from the first bar of train."""
    train, bars = split.part("train"), panel.eligible
    part = Part("train", train.start, stop, int((bars < stop).sum()), 1, train.origins)
    return TrainWindows(panel, replace(split, parts=(part, *split.parts[1:])), part)


def steps_kept(own: Checkpoint) -> int | None:
    """Optimiser steps that a training's kept weights took; None of a family that takes none."""
    return int(own.card.get("fitted", {}).get("step") or 0) or None


def retrained(
    model: ForecastModel,
    own: Checkpoint,
    windows: TrainWindows,
    *,
    resources: Resources,
    seed: int,
    horizon: int,
    out: Path,
    resume: Path | None = None,
) -> Checkpoint:
    """The config of a checkpoint trained from its start on `windows`, for as many steps as its kept
    weights took; the learning rate's schedule ends there. Nothing is scored on the way, so its last
    step is kept; its calibration is carried over, since no bar is left to fit one on.

    Raises what training raises.
    """
    job = TrainingJob(
        windows,
        _shortened(model, own),
        resources,
        seed=seed,
        horizon=horizon,
        out=out,
        resume=resume,
    )
    return _calibrated_as(own, read_checkpoint(model.train(job).path))


@dataclass(frozen=True, slots=True)
class Refits:
    """A run's forecasts of a part by weights that are refitted before each stretch of it."""

    model: ForecastModel
    own: Checkpoint  # of its own training, calibrated where its config asks for it
    resources: Resources
    seed: int
    out: Path  # the run's folder
    before: tuple[Path, ...] = ()  # of runs whose refits, or states of them, are the same

    def forecast(self, panel: Panel, split: Split, name: PartName) -> Forecast:
        """Of all windows of a part, [N, H, Q]. Raises what training and forecasting raise."""
        windows = Windows(panel, split, split.part(name))
        values: list[Array] = []
        levels: Levels = ()
        for stretch in split.stretches(panel, name):
            mine = (windows.origin >= stretch.first) & (windows.origin < stretch.last)
            if len(windows) and not mine.any():  # without any, forecasting says why
                continue
            predictor = self.predictor(panel, split, name, stretch)
            some = replace(windows, only=np.flatnonzero(mine))
            made = forecast_part(predictor, some, seed=self.seed)
            values.append(made.values)
            levels = made.levels
        return Forecast(np.concatenate(values), levels)  # windows are in the order of origins

    def predictor(self, panel: Panel, split: Split, name: PartName, stretch: Stretch) -> Predictor:
        """What forecasts a stretch: of the first of val, as where nothing is refitted, the run's
        own weights."""
        if (name, stretch.number) == ("val", 1):
            return load_predictor(self.model, self.own, self.resources)
        place = Path(REFITS) / f"{name}-{stretch.number}"
        out = self.out / place
        known = next(filter(is_whole, (out, *(folder / place for folder in self.before))), None)
        if known is None:
            earlier = [folder / place for folder in self.before]
            goes_on = has_states(out) or adopt_states(earlier, out) is not None
            checkpoint = retrained(
                self.model,
                self.own,
                bars_before(panel, split, stretch.known),
                resources=self.resources,
                seed=self.seed,
                horizon=split.horizon,
                out=out,
                resume=out if goes_on else None,
            )
        elif known == out:
            checkpoint = _calibrated_as(self.own, read_checkpoint(out))
        else:
            config = as_dict(_shortened(self.model, self.own))
            checkpoint = derive_checkpoint(known, out, config=config, leave=(CALIBRATION,))
            checkpoint = _calibrated_as(self.own, checkpoint)
        return load_predictor(self.model, checkpoint, self.resources)


def is_whole(checkpoint: Path) -> bool:
    """Was a training written to its end?"""
    try:
        read_checkpoint(checkpoint)
    except CheckpointError:
        return False
    return True


def _shortened(model: ForecastModel, own: Checkpoint) -> Any:
    """The config of a checkpoint, ending where its kept weights were."""
    config, steps = make_config(model.Config, own.config, model=model.name), steps_kept(own)
    if steps is None:
        return config
    change = getattr(model, "longer", None)
    return change(config, steps) if change else replace(config, max_steps=steps)


def _calibrated_as(own: Checkpoint, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with the calibration that was fitted to the own training's tune."""
    stored = read_json(own, CALIBRATION)
    return checkpoint if stored is None else add_json(checkpoint, CALIBRATION, stored)
