"""Tables of runs for people, as pandas frames. No test score enters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from foresweep.errors import UnknownName
from foresweep.records import Run
from foresweep.tracker.queries.runs import refuse_test

USUAL_METRICS = (
    *("val_pct_mae", "val_skill", "val_price_mae", "val_r2", "val_pinball", "val_coverage_80"),
    "val_directional_accuracy",
)


def comparison(
    runs: Sequence[Run], metrics: Sequence[str] | None, model_names: Sequence[str] | None
) -> pd.DataFrame:
    """One line a run: run_id, model, timestamp (the day), state, metrics, checkpoint (bool).

    Without `metrics` the usual ones that some run has. A missing score is NaN. Raises UsageError
    for `test_*`, UnknownName for a model that has no run here.
    """
    for name in metrics or ():
        refuse_test(name)
    models = {run.model_name for run in runs}
    for name in model_names or ():
        if name not in models:
            raise UnknownName("model", name, models, where="among these runs")
    chosen = [run for run in runs if not model_names or run.model_name in model_names]
    shown = metrics or [m for m in USUAL_METRICS if any(m in run.metrics for run in chosen)]
    lines = [_line(run, shown) for run in chosen]
    columns = ["run_id", "model", "timestamp", "state", *shown, "checkpoint"]
    return pd.DataFrame(lines, columns=columns)


def _line(run: Run, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "model": run.model_name,
        "timestamp": run.timestamp[:10],
        "state": str(run.state),
        **{name: run.metrics.get(name, float("nan")) for name in metrics},
        "checkpoint": run.checkpoint_path is not None,
    }


def impact(
    scored: Sequence[tuple[str, Mapping[str, Any], float | None]],
    model_name: str,
    hyperparam: str,
    metric: str,
) -> pd.DataFrame:
    """run_id, `hyperparam`, `metric` of the runs that have both, by value: numbers first, then
    texts. `scored`: (run_id, hyperparams, score) of the complete runs of a model.

    Raises UnknownName for a hyperparameter no run has.
    """
    known = {name for _, hyperparams, _ in scored for name in hyperparams}
    if scored and hyperparam not in known:
        raise UnknownName("hyperparameter", hyperparam, known, where=f"of {model_name}'s runs")
    lines = [
        {"run_id": run_id, hyperparam: hyperparams[hyperparam], metric: score}
        for run_id, hyperparams, score in scored
        if hyperparam in hyperparams and score is not None
    ]
    lines.sort(key=lambda line: _order(line[hyperparam]))
    return pd.DataFrame(lines, columns=["run_id", hyperparam, metric])


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by size, then everything else by its text."""
    if isinstance(value, int | float):
        return 0, float(value), ""
    return 1, 0.0, str(value)
