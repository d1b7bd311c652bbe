"""Records: the frozen values that the tracker hands out. They know no database."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

PARTS = ("train", "tune", "val", "test")
"""As in data.splits; said again here, so that reading records loads no data library."""
_SEALED = re.compile(r"test(?![a-z0-9])", re.IGNORECASE)


class RunState(StrEnum):
    """Where a run stands. Compares equal to its own word."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    LOST = "lost"  # its process is gone and told nobody
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """No more steps can come. A lost run is final unless its process turns up again."""
        return self not in (RunState.WAITING, RunState.RUNNING)


class SweepState(StrEnum):
    """Where a sweep stands."""

    RUNNING = "running"
    COMPLETE = "complete"
    CANCELLED = "cancelled"
    FAILED = "failed"
    LOST = "lost"


def split_name(full_name: str) -> tuple[str, str]:
    """(part, metric) of a score's full name; the part is "" where the name carries none.

    >>> split_name("val_pct_mae"), split_name("duration")
    (('val', 'pct_mae'), ('', 'duration'))
    """
    if is_sealed(full_name):
        return "test", full_name[4:].lstrip("_-/. ") or full_name
    part, _, metric = full_name.partition("_")
    return (part, metric) if metric and part in PARTS else ("", full_name)


def is_sealed(full_name: str) -> bool:
    """Does this name speak of the test part? `test_mae`, `test/mae` and `Test-MAE` do."""
    return _SEALED.match(full_name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One question: panel, split, horizon, models, space, objective and budget."""

    sweep_id: str
    name: str | None
    models: tuple[str, ...]
    mode: str
    objective: str
    horizon: int
    seed: int
    panel_hash: str
    task_hash: str
    fingerprints: Mapping[str, str]  # part -> hash of its (item, origin, label) cells
    plan: Mapping[str, Any]  # space, budget and whatever else a resumed sweep must know
    dataset_id: str | None
    state: SweepState
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One config in a sweep, with a number unique in it."""

    sweep_id: str
    number: int  # 1, 2, 3 ... given out by the database
    model_name: str
    config: Mapping[str, Any]
    config_hash: str
    train_hash: str
    source: str  # how it was proposed
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of a config. `metrics` never holds a test score."""

    run_id: str
    model_name: str
    created_at: datetime
    hyperparams: Mapping[str, Any]
    metrics: Mapping[str, float]  # by full name; nan: failed to score
    checkpoint_path: str | None = None
    training_time_seconds: float | None = None
    notes: str | None = None
    git_commit: str | None = None
    state: RunState = RunState.COMPLETE
    is_baseline: bool = False
    sweep_id: str | None = None
    trial_number: int | None = None
    seed: int | None = None
    attempt: int = 1
    config_hash: str = ""
    train_hash: str = ""
    panel_hash: str = ""
    task_hash: str = ""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    objective_score: float | None = None  # the sweep's objective on tune
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None  # what failed, with its traceback
    tags: tuple[str, ...] = ()
    resources: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""  # how the config was proposed
    forecasts_path: str | None = None  # forecasts and loss panels of the run
    peak_memory_mb: float | None = None
    duration_seconds: float | None = None  # from start to end, scoring and overhead included

    @property
    def timestamp(self) -> str:
        """`created_at` in ISO form."""
        return self.created_at.isoformat()

    @property
    def fingerprint(self) -> str:
        """Fingerprint of val: only equal ones stand in one table. "": logged by hand."""
        return self.fingerprints.get("val", "")

    @property
    def has_checkpoint_files(self) -> bool:
        """Is the checkpoint still on this machine's disk?"""
        return self.checkpoint_path is not None and Path(self.checkpoint_path).exists()

    def score(self, full_name: str) -> float | None:
        """A score by full name, None where it is missing or failed."""
        value = self.metrics.get(full_name)
        return None if value is None or math.isnan(value) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A metric's value for one run and part; None where it failed to score."""

    run_id: str
    part: str
    metric: str
    value: float | None

    @property
    def full_name(self) -> str:
        return f"{self.part}_{self.metric}" if self.part else self.metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One metric over a run's steps, with the best of both directions kept."""

    run_id: str
    name: str
    num_points: int
    last_step: int
    last: float  # nan: the point was no number
    lowest: float
    lowest_step: int | None
    highest: float
    highest_step: int | None
