"""A model that learns in no time: its forecasts start far off and come nearer step by step.

The sweeps that search are tested with it. `tilt` is what it ends with (0 is best), `rate` how fast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from foresweep.data.windows import Context
from foresweep.models.base import (
    Checkpoint,
    Facts,
    Forecast,
    Levels,
    Predictor,
    TrainingJob,
    as_dict,
    config_class,
    hyper,
)
from foresweep.models.baselines.naive import BaselineConfig, Drift, Walk
from foresweep.models.checkpoint import write_checkpoint

MODULE = """from learning_model import Learner


class Guest(Learner):
    name = "guest"
"""
SPACE = """model = "guest"
[[priority]]
name = "first"
source = "where the tests begin"
config = { tilt = 1.0, rate = 0.5 }
[space.tilt]
low = -3.0
high = 3.0
[space.rate]
low = 0.05
high = 1.0
log = true
[space.kind]
choices = ["plain", "bent"]
[space]
max_steps = 16
[space.bend]
low = 0.1
high = 2.0
when = { kind = "bent" }
[full.tilt]
choices = [-1.0, 0.0, 1.0]
[full.rate]
choices = [0.1, 0.5]
"""
STEPS = 16


@config_class
class LearnerConfig(BaselineConfig):
    """What can be chosen."""

    max_steps: int = hyper(STEPS, "steps", unit="steps", probe=(8, 16), ge=1)
    tilt: float = hyper(0.0, "what it ends with", unit="%", probe=(0.0, 1.0))
    rate: float = hyper(0.5, "how fast it comes near", probe=(0.1, 0.5), gt=0)
    kind: Literal["plain", "bent"] = hyper("plain", "shape", probe=("plain", "bent"))
    bend: float | None = hyper(None, "of bent", unit="%", probe=(0.1, 1.0, {"kind": "bent"}))
    samples: int = hyper(1, "forecasts averaged", stage="inference", probe=(1, 4), ge=1)


@dataclass(frozen=True)
class Off:
    """Last-value, off by so many percent."""

    percent: float
    context_length: int = 32

    def predict(self, context: Context, *, horizon: int, levels: Levels, seed: int) -> Forecast:
        made = Walk(self.context_length).predict(context, horizon=horizon, levels=levels, seed=seed)
        return Forecast(made.values * (1 + self.percent / 100), levels)


class Learner(Drift):
    """The family."""

    name: ClassVar[str] = "learner"
    Config: ClassVar[type[Any]] = LearnerConfig

    def resolve(self, config: Any, facts: Facts) -> Any:
        steps = min(config.max_steps, facts.step_cap or config.max_steps)
        return replace(super().resolve(config, facts), max_steps=steps)

    def train(self, job: TrainingJob) -> Checkpoint:
        for step in range(2, job.config.max_steps + 1, 2):
            scored = job.score(self.after(job.config, step))
            job.report(step, scored.scores, scored.losses)
        return write_checkpoint(job.out, model=self.name, config=as_dict(job.config), card={})

    def predictor(self, config: Any) -> Predictor:
        return self.after(config, config.max_steps)

    def after(self, config: Any, step: int) -> Off:
        end = abs(config.tilt) + (config.bend or 0.0) + 0.1 / config.samples
        return Off(end + 5 * math.exp(-config.rate * step))
