"""What a config and a whole sweep will cost on this machine, from a few real steps."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foresweep.data.demo import demo_panel
from foresweep.data.panel import Panel
from foresweep.data.splits import Split, make_split
from foresweep.data.windows import TrainWindows, Windows
from foresweep.errors import ConfigError, ForesweepError, UnknownName, UsageError
from foresweep.evaluation.backtest import OPEN_PARTS
from foresweep.models.base import (
    DEFAULT_LEVELS,
    Facts,
    ForecastModel,
    Predictor,
    Resources,
    Scored,
    TrainingJob,
    TrialPruned,
    bf16_is_fast,
    make_config,
    on_device,
)
from foresweep.models.registry import BASELINES, get_model, resolved
from foresweep.models.training.loop import (
    EVALUATIONS,
    count_parameters,
    peak_device_memory_mb,
    watched_steps,
)
from foresweep.search.engines.base import Channel, TaskFailed, run_task
from foresweep.search.engines.local import LocalEngine
from foresweep.search.plan import SweepPlan, by_hand
from foresweep.search.running.trials import planned_steps
from foresweep.search.stage import Stage
from foresweep.search.trial import Prepared, RunSpec, fitting
from foresweep.tracker.session import peak_memory_mb

# What a config costs on this machine: a few of its real steps, in a process of their own.


TIMED_STEPS = 4
FORECASTS = 16
"""Windows of the forecast that is timed."""


@dataclass(frozen=True, slots=True)
class StageCost:
    """One optimiser's steps: most families have one, Kronos from scratch a tokenizer before it."""

    trained_parameters: int
    seconds_per_step: float | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What was measured."""

    model: str
    config: Mapping[str, Any]  # resolved
    device: str
    threads: int
    parameters: int  # of all networks, trained or not
    stages: tuple[StageCost, ...]  # empty where nothing is trained
    seconds_per_forecast: float  # a window, FORECASTS at a time
    memory_before_mb: float  # of the process, before the network was built
    peak_memory_mb: float  # of the process
    device_memory_mb: float | None  # allocated on a GPU at most

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def estimate(plan: SweepPlan, values: Mapping[str, Any]) -> Estimate:
    """Take a few steps of a config on the demo panel, in a worker, and say what they cost.

    Raises what a training by hand raises for its config; UsageError for a baseline.
    """
    plan = by_hand(plan, values).checked()
    (proposal,) = plan.proposals
    if proposal.model in BASELINES:
        raise UsageError(f"{proposal.model} has no network: there is nothing to estimate")
    engine = LocalEngine(plan.models)
    engine.warm_up()
    with tempfile.TemporaryDirectory() as folder:
        task = Measure(plan, Path(folder))
        try:
            found: Estimate = run_task(engine, task, log=Path(folder) / "log")
        except TaskFailed as error:
            if error.failed.kind in (ConfigError.__name__, UnknownName.__name__):
                raise UsageError(str(error)) from error
            raise
    return found


@dataclass(frozen=True, slots=True)
class Measure:
    """Task: the steps of the plan's one config, on the demo panel."""

    plan: SweepPlan
    folder: Path

    def __call__(self, channel: Channel) -> Estimate:
        (proposal,) = self.plan.proposals
        resources = on_device(self.plan.resources)
        panel = demo_panel()
        split = make_split(panel, self.plan.cut)
        train = TrainWindows(panel, split, split.part("train"))
        model = get_model(proposal.model)
        bars = sum(len(train.values(i)) for i in range(panel.num_items))
        fast = bf16_is_fast(resources.device)
        facts = Facts(split.horizon, split.max_context, bars, self.plan.step_cap, fast)
        values = fitting(model.Config, proposal.config)
        config = resolved(model, make_config(model.Config, values, model=model.name), facts)
        return measured(model, config, panel, split, resources, self.plan.cut.seed, self.folder)


def measured(
    model: ForecastModel,
    config: Any,
    panel: Panel,
    split: Split,
    resources: Resources,
    seed: int,
    folder: Path,
) -> Estimate:
    """Take a few steps of a resolved config and look at what they cost."""
    short = config
    if getattr(config, "max_steps", None):
        short = replace(config, max_steps=EVALUATIONS * (TIMED_STEPS + 1))
    look = Look(Windows(panel, split, split.part("tune")), split.max_context)
    train = TrainWindows(panel, split, split.part("train"))
    before = peak_memory_mb()
    with watched_steps() as stages, contextlib.suppress(TrialPruned):
        # pruned at the first scoring: everything is known, and no state was written
        job = TrainingJob(
            train, short, resources, seed=seed, horizon=split.horizon,
            score=look, report=stop_when_scored, out=folder / "checkpoint",
        )  # fmt: skip
        model.train(job)
    return Estimate(
        model=model.name,
        config=asdict(config),
        device=resources.device,
        threads=resources.threads,
        parameters=look.parameters,
        stages=tuple(StageCost(s.trained_parameters, s.seconds_per_step) for s in stages),
        seconds_per_forecast=look.seconds,
        memory_before_mb=before,
        peak_memory_mb=peak_memory_mb(),
        device_memory_mb=peak_device_memory_mb(resources.device),
    )


@dataclass(slots=True)
class Look:
    """A scorer that looks at what it is given, and scores nothing."""

    windows: Windows
    max_context: int
    parameters: int = 0
    seconds: float = 0.0

    def __call__(self, predictor: Predictor) -> Scored:
        self.parameters = count_parameters(predictor)
        length = min(predictor.context_length, self.max_context)
        context = self.windows.context(length, np.arange(FORECASTS))
        horizon = self.windows.horizon
        started = time.perf_counter()
        predictor.predict(context, horizon=horizon, levels=DEFAULT_LEVELS, seed=0)
        self.seconds = (time.perf_counter() - started) / FORECASTS
        return Scored({"tune_pinball": 1.0}, {})


def stop_when_scored(
    step: int, scores: Mapping[str, float], losses: Mapping[str, NDArray[np.float64]] | None = None
) -> None:
    """A reporter that ends training at its first scoring. Raises TrialPruned."""
    if losses is not None:
        raise TrialPruned


# What a sweep will cost on this machine: real steps of some of its configs, scaled to all.


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

    spec: RunSpec
    folder: Path

    def __call__(self, channel: Channel) -> tuple[Estimate, int, int]:
        """The estimate, the windows that steer and those of all scored parts."""
        model, config, panel, split = self.spec.load()
        resources = on_device(self.spec.resources)
        found = measured(model, config, panel, split, resources, self.spec.seed, self.folder)
        tune, *rest = (len(split.part(p).origins) * len(split.items) for p in OPEN_PARTS)
        return found, min(tune, self.spec.ground.steer or tune), tune + sum(rest)


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
        spec = RunSpec(stage.ground, p, stage.plan.cut.seed, stage.plan.resources)
        task = MeasureTrial(spec, Path(folder))
        try:
            found, steering, scored = run_task(stage.engine, task, log=Path(folder) / "log")
        except ForesweepError:  # what it is will be on record when it is tried
            return None
    step = sum(s.seconds_per_step or 0.0 for s in found.stages) / max(1, len(found.stages))
    windows = scored + (EVALUATIONS * steering if planned_steps(p.config) else 0)
    times = stage.plan.cut.refits
    seconds = times * planned_steps(p.config) * step + windows * found.seconds_per_forecast
    return Cost(found.parameters, seconds)
