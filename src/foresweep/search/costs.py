"""What a sweep will cost on this machine: real steps of some of its configs, scaled to all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from foresweep.errors import ForesweepError
from foresweep.models.base import Resources
from foresweep.models.config import make_config
from foresweep.models.devices import on_device
from foresweep.models.registry import BASELINES, get_model
from foresweep.models.training import EVALUATIONS
from foresweep.search.budget import planned_steps
from foresweep.search.channel import Channel
from foresweep.search.engine import run_task
from foresweep.search.estimate import Estimate, measured
from foresweep.search.stage import Stage
from foresweep.search.trial import Ground, Prepared

MOST_MEASURED = 4
"""Configs of a model that are measured; the others are scaled by steps, batch and context."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one trial."""

    parameters: int | None  # None: its size was not looked at
    seconds: float


@dataclass(frozen=True, slots=True)
class MeasureTrial:
    """Task: a few steps of one resolved config on the sweep's own panel."""

    ground: Ground
    model: str
    config: Mapping[str, Any]
    resources: Resources
    folder: Path

    def __call__(self, channel: Channel) -> tuple[Estimate, int, int]:
        """The estimate, and the windows of tune and of all scored parts."""
        panel, split = self.ground.load()
        model = get_model(self.model)
        config = make_config(model.Config, self.config, model=self.model)
        found = measured(
            model, config, panel, split, on_device(self.resources), self.ground.seed, self.folder
        )
        tune, *rest = (
            len(split.part(p).origins) * len(split.items) for p in ("tune", "val", "test")
        )
        return found, tune, tune + sum(rest)


def costs_of(stage: Stage, prepared: Sequence[Prepared]) -> dict[str, Cost]:
    """What each config costs, by config hash; baselines, which cost nothing to speak of, aside.

    Evenly spaced ones of each model are measured. One that cannot be trained is left out: the
    sweep says why when it comes to it.
    """
    found: dict[str, Cost] = {}
    trained = [p for p in prepared if not p.refused and p.proposal.model not in BASELINES]
    for model in dict.fromkeys(p.proposal.model for p in trained):
        mine = [p for p in trained if p.proposal.model == model]
        known = {p.config_hash: c for p in _spread(mine) if (c := _measure(stage, p)) is not None}
        if not known:
            continue
        rate = fmean(
            known[p.config_hash].seconds / _work(p) for p in mine if p.config_hash in known
        )
        scaled = {p.config_hash: Cost(None, rate * _work(p)) for p in mine}
        found |= scaled | known
    return found


def _spread(configs: Sequence[Prepared]) -> list[Prepared]:
    """At most so many of them, from the first to the last."""
    if len(configs) <= MOST_MEASURED:
        return list(configs)
    last = len(configs) - 1
    return [configs[k * last // (MOST_MEASURED - 1)] for k in range(MOST_MEASURED)]


def _work(p: Prepared) -> float:
    """What training time goes with: bars that are read."""
    batch, context = (int(p.config.get(k) or 1) for k in ("batch_size", "context_length"))
    return max(1, planned_steps(p.config)) * batch * context


def _measure(stage: Stage, p: Prepared) -> Cost | None:
    with TemporaryDirectory() as folder:
        task = MeasureTrial(
            stage.ground, p.proposal.model, p.config, stage.plan.resources, Path(folder)
        )
        try:
            found, tune, scored = run_task(stage.engine, task, log=Path(folder) / "log")
        except ForesweepError:  # what it is will be on record when it is tried
            return None
    step = sum(s.seconds_per_step or 0.0 for s in found.stages) / max(1, len(found.stages))
    windows = scored + (EVALUATIONS * tune if planned_steps(p.config) else 0)
    seconds = planned_steps(p.config) * step + windows * found.seconds_per_forecast
    return Cost(found.parameters, seconds)
