"""Runs and sweeps made by hand, for tests that read records."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from foresweep.records import Run, RunState, Sweep, SweepState

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


def make_sweep(
    *, plan: Mapping[str, Any] | None = None, sweep_id: str = "sweep_1", horizon: int = 5
) -> Sweep:
    """A complete sweep of toto."""
    return Sweep(
        sweep_id=sweep_id,
        name=None,
        models=("toto",),
        mode="random",
        objective="pct_mae",
        horizon=horizon,
        seed=0,
        panel_hash="p",
        task_hash="t",
        fingerprints={"tune": "a", "val": "b"},
        plan=plan or {},
        dataset_id=None,
        state=SweepState.COMPLETE,
        started_at=datetime(2026, 1, 2, tzinfo=UTC),
        finished_at=datetime(2026, 1, 3, tzinfo=UTC),
    )
