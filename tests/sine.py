"""The sine test's harness: prices that a working pipeline must forecast nearly perfectly.

Four items share one period and differ in phase, level and amplitude, so that a bar's offset, a
wrong scale, a forgotten loc or another item's statistics all cost more skill than noise does. A
perfect forecaster whose path is one bar early or late reaches a skill of .80 at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foresweep.data.panel import CLOSE, Panel
from foresweep.data.splits import Cut, Split, make_split
from foresweep.data.windows import TrainWindows, Windows
from foresweep.models.base import (
    DEFAULT_LEVELS,
    Checkpoint,
    Facts,
    Forecast,
    Predictor,
    Resources,
    Scored,
    Scorer,
    TrainingJob,
)

HORIZON, NUM_BARS = 8, 2000
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in (1, 2))]
"""Of a training that a test judges: one of them always, the others in the long campaigns."""


@dataclass(frozen=True)
class Case:
    """A panel with its cut and the windows that are scored."""

    panel: Panel
    split: Split

    @property
    def train(self) -> TrainWindows:
        return TrainWindows(self.panel, self.split, self.split.part("train"))

    def windows(self, part: str) -> Windows:
        return Windows(self.panel, self.split, self.split.part(part))  # type: ignore[arg-type]

    @property
    def facts(self) -> Facts:
        bars = sum(len(self.train.values(i)) for i in range(self.panel.num_items))
        return Facts(self.split.horizon, self.split.max_context, bars)


def make_case(panel: Panel, horizon: int = HORIZON) -> Case:
    return Case(panel, make_split(panel, Cut(horizon)))


def pinball_scorer(windows: Windows, *, every: int = 1) -> Scorer:
    """Mean pinball loss, in percent of the last close, over every `every`-th window."""
    index = np.arange(0, len(windows), every)
    levels = np.array(DEFAULT_LEVELS)

    def score(predictor: Predictor) -> Scored:
        context = windows.context(predictor.context_length, index)
        found = predictor.predict(context, horizon=windows.horizon, levels=DEFAULT_LEVELS, seed=0)
        base = windows.last_close[index][:, None, None]
        error = 100 * (windows.labels[index][..., None] - found.values) / base
        loss = np.maximum(levels * error, (levels - 1) * error).mean()
        return Scored({"tune_pinball": float(loss)}, {})

    return score


def silent(step: int, scores: Any, losses: Any = None) -> None:
    """A reporter that says nothing."""


def train_case(
    model: Any, config: Any, case: Case, out: Path, *, seed: int, every: int = 4, **more: Any
) -> Checkpoint:
    """Resolve and train a config on a case, steered by tune as in a sweep."""
    checkpoint: Checkpoint = model.train(
        TrainingJob(
            case.train,
            model.resolve(config, case.facts),
            more.pop("resources", Resources()),
            seed=seed,
            horizon=case.split.horizon,
            score=more.pop("score", pinball_scorer(case.windows("tune"), every=every)),
            report=more.pop("report", silent),
            out=out,
            **more,
        )
    )
    return checkpoint


def forecast_test(predictor: Predictor, case: Case) -> Forecast:
    """The network's own forecast of the test windows, nothing done to it afterwards."""
    windows = case.windows("test")
    return predictor.predict(
        windows.context(predictor.context_length),
        horizon=case.split.horizon,
        levels=DEFAULT_LEVELS,
        seed=0,
    )


@dataclass(frozen=True)
class Judged:
    """Skill against last-value, also against the truth moved one bar, and the slope of the actual
    on the forecast move."""

    skill: float
    early: float  # skill against the truth one bar early
    late: float  # and one bar late
    slope: float

    def faults(self, *, skill: float, slope: float, moved: float = 0.10) -> list[str]:
        """What is wrong: nothing, for a working pipeline."""
        found = []
        if not self.skill >= skill:
            found.append(f"skill {self.skill:.3f} < {skill}")
        if not abs(self.slope - 1) <= slope:
            found.append(f"slope {self.slope:.3f} is not 1 +- {slope}")
        if not max(self.early, self.late) <= self.skill - moved:
            found.append(f"truth moved by a bar: {self.early:.3f}, {self.late:.3f}")
        return found


def judge(median: np.ndarray, case: Case, part: str = "test") -> Judged:
    """Judge median forecasts [N, H] of the part's windows."""
    windows = case.windows(part)
    base = windows.last_close[:, None]
    truth = windows.labels
    after = np.array(
        [
            case.panel.bars[i].values[min(r + 1 + windows.horizon, NUM_BARS - 1), CLOSE]
            for i, r in zip(windows.item, windows.row, strict=True)
        ]
    )
    path = np.concatenate([base, truth, after[:, None]], axis=1)
    known = windows.row + 1 + windows.horizon < NUM_BARS

    def skill(moved: np.ndarray) -> float:
        error = np.abs(median - moved)[known] / base[known]
        naive = np.abs(base - moved)[known] / base[known]
        return float(1 - error.mean() / naive.mean())

    forecast, actual = median / base - 1, truth / base - 1
    slope = float((forecast * actual).sum() / (forecast**2).sum())
    return Judged(skill(truth), skill(path[:, :-2]), skill(path[:, 2:]), slope)
