"""Runs and sweeps made by hand, for tests that read records."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from foresweep.records import Run, RunState

BASELINE_NAMES = ("last-value", "drift", "seasonal-naive", "random-walk", "har")


def make_run(
    model: str,
    number: int,
    score: float | None,
    *,
    skill: float | None = None,
    hyperparams: Mapping[str, Any] | None = None,
    state: RunState = RunState.COMPLETE,
    error: str | None = None,
    fingerprint: str = "f" * 64,
) -> Run:
    """A run with val_pct_mae `score`; ids rise with `number`."""
    metrics = {} if score is None else {"val_pct_mae": score}
    if skill is not None:
        metrics["val_skill"] = skill
    return Run(
        run_id=f"{model}_{number:03d}",
        model_name=model,
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
        hyperparams=hyperparams or {},
        metrics=metrics,
        state=state,
        is_baseline=model in BASELINE_NAMES,
        fingerprints={"val": fingerprint},
        error=error,
        source=f"test: {number}",
    )
