"""Runs repeated to MLflow: hyperparameters as params, scores as metrics, facts as tags."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from foresweep.integrations.mirror import facts_of, shown_scores
from foresweep.records import Run, RunState

EXPERIMENT = "foresweep"
DEFAULT_URI = "sqlite:///mlflow.db"
RUN_ID = "foresweep.run_id"
LONGEST_VALUE, LONGEST_NAME, LONGEST_TAG = 6000, 250, 5000
PARAMS_A_CALL, METRICS_A_CALL = 100, 1000
"""MLflow's own limits."""
STATUS = {
    RunState.COMPLETE: "FINISHED",
    RunState.FAILED: "FAILED",
    RunState.LOST: "FAILED",
    RunState.PRUNED: "KILLED",
    RunState.CANCELLED: "KILLED",
}


class MlflowMirror:
    """An experiment `foresweep` in an MLflow store.

    `uri`: of the tracking store; None: what MLFLOW_TRACKING_URI says, else sqlite:///mlflow.db in
    the working directory. Raises whatever MLflow raises.
    """

    def __init__(self, uri: str | None = None) -> None:
        self._client = MlflowClient(tracking_uri=uri or _default_uri())
        known = self._client.get_experiment_by_name(EXPERIMENT)
        self._experiment: str = (
            known.experiment_id if known else self._client.create_experiment(EXPERIMENT)
        )
        self._open: dict[str, str] = {}  # our id -> MLflow's

    def has(self, run: Run) -> bool:
        found = self._find(run)
        return found is not None and found.info.status != "RUNNING"

    def start(self, run: Run) -> None:
        """A new MLflow run, or the one that was begun for this run and never ended."""
        begun = self._find(run)
        if begun is None:
            begun = self._client.create_run(
                self._experiment,
                start_time=_milliseconds(run),
                tags=_tags(run),
                run_name=run.run_id[:LONGEST_NAME],
            )
        self._open[run.run_id] = begun.info.run_id
        params = [Param(_name(n), _text(v, LONGEST_VALUE)) for n, v in run.hyperparams.items()]
        for k in range(0, len(params), PARAMS_A_CALL):
            self._client.log_batch(begun.info.run_id, params=params[k : k + PARAMS_A_CALL])

    def log(self, run: Run, step: int, scores: Mapping[str, float]) -> None:
        at = _milliseconds(run)
        points = [Metric(_name(n), v, at, step) for n, v in shown_scores(scores).items()]
        self._send(self._open[run.run_id], points)

    def finish(self, run: Run) -> None:
        there = self._open.pop(run.run_id)
        at = _milliseconds(run)
        self._send(
            there, [Metric(_name(n), v, at, 0) for n, v in shown_scores(run.metrics).items()]
        )
        tags = [RunTag(n, v) for n, v in _tags(run).items()]
        self._client.log_batch(there, tags=tags)
        ended = None if run.finished_at is None else int(run.finished_at.timestamp() * 1000)
        self._client.set_terminated(there, STATUS.get(run.state, "FAILED"), end_time=ended)

    def close(self) -> None:
        for there in self._open.values():
            self._client.set_terminated(there, "KILLED")
        self._open.clear()

    def _send(self, there: str, points: list[Any]) -> None:
        for k in range(0, len(points), METRICS_A_CALL):
            self._client.log_batch(there, metrics=points[k : k + METRICS_A_CALL])

    def _find(self, run: Run) -> Any:
        """The MLflow run of our run, None where there is none."""
        wanted = run.run_id.replace("\\", "\\\\").replace("'", "\\'")
        query = f"tags.`{RUN_ID}` = '{wanted}'"
        found = self._client.search_runs([self._experiment], query, max_results=1)
        return found[0] if found else None


def _default_uri() -> str:
    import os

    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def _milliseconds(run: Run) -> int:
    return int((run.started_at or run.created_at).timestamp() * 1000)


def _tags(run: Run) -> dict[str, str]:
    told = {f"foresweep.{n}": _text(v, LONGEST_TAG) for n, v in facts_of(run).items()}
    said = {"mlflow.note.content": run.notes, "foresweep.tags": " ".join(run.tags)}
    return (
        {"model": run.model_name} | told | {n: _text(v, LONGEST_TAG) for n, v in said.items() if v}
    )


def _name(name: str) -> str:
    """MLflow takes letters, digits and `_-. :/` in names of params and metrics."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:LONGEST_NAME]


def _text(value: Any, longest: int) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= longest else text[: longest - 3] + "..."
