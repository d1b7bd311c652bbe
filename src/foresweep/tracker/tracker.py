"""Tracker: every write. One call is one transaction, durable when it returns.

Safe for threads and for many processes on one database. Finished runs are immutable but for
notes, tags and scores added later; a lost run is only presumed dead and may still finish.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, update

from foresweep.errors import ConfigError, TrackerError
from foresweep.records import Run, RunState, Sweep, SweepState, Trial
from foresweep.tracker import queries, schema, writes
from foresweep.tracker.liveness import GRACE, Heartbeat, Owner, this_process
from foresweep.tracker.provenance import Environment, redact, this_environment
from foresweep.tracker.reader import Reader
from foresweep.tracker.rows import kept_scores, new_id, numbers_of
from foresweep.tracker.schema import jsonable

__all__ = ["Heartbeat", "Tracker"]


class Tracker(Reader):
    """A database's runs, read and written.

    Opening it marks running runs whose process is gone as lost: on this machine at once, on
    another after `grace` without a heartbeat.
    """

    def __init__(
        self,
        database: str | Path | None = None,
        *,
        create: bool = True,
        grace: timedelta = GRACE,
    ) -> None:
        """Open a path or URL (None: the settings' database); an empty place becomes one.

        Raises DatabaseUnusable, NotFound where `create` is False and there is none.
        """
        super().__init__(database, create=create)
        self._grace = grace
        self.repair()

    def __enter__(self) -> Tracker:
        return self

    @property
    def _owner(self) -> Owner:
        """Asked anew each time: a forked child writes in its own name."""
        return this_process()

    @cached_property
    def _environment(self) -> Environment:
        """Looked up at the first write and then kept: asking git costs more than a run."""
        return this_environment()

    @cached_property
    def _environment_id(self) -> str:
        return self._environment.environment_id

    def repair(self) -> list[str]:
        """Mark stale runs and sweeps as lost; the ids of those runs."""
        return writes.repair(self.store, datetime.now(UTC), self._owner.machine, self._grace)

    def add_dataset(
        self,
        *,
        panel_hash: str,
        source: str,
        num_items: int,
        num_rows: int,
        starts_at: str,
        ends_at: str,
        findings: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Put a checked panel on record and give its id; equal content keeps its id."""
        content = {
            "panel_hash": panel_hash,
            "source": redact(source),
            "num_items": num_items,
            "num_rows": num_rows,
            "starts_at": starts_at,
            "ends_at": ends_at,
            "findings": jsonable(findings, "findings"),
        }
        with self.store.write() as connection:
            return writes.add_dataset(connection, content)

    def create_sweep(
        self,
        *,
        models: Sequence[str],
        mode: str,
        objective: str,
        horizon: int,
        seed: int,
        panel_hash: str,
        task_hash: str,
        fingerprints: Mapping[str, str],
        plan: Mapping[str, Any],
        dataset_id: str | None = None,
        name: str | None = None,
    ) -> Sweep:
        """Open a sweep. Raises ConfigError where the plan cannot be stored."""
        now = datetime.now(UTC)
        row = {
            "sweep_id": new_id(name or "sweep", now),
            "name": name,
            "models": list(models),
            "mode": mode,
            "objective": objective,
            "horizon": horizon,
            "seed": seed,
            "panel_hash": panel_hash,
            "task_hash": task_hash,
            "fingerprints": dict(fingerprints),
            "plan": jsonable(plan, "plan"),
            "dataset_id": dataset_id,
            "state": SweepState.RUNNING.value,
            "started_at": now,
            "heartbeat_at": now,
            **self._owner.as_columns(),
        }
        with self.store.write() as connection:
            row["environment_id"] = self._put_environment(connection)
            connection.execute(insert(schema.sweeps), row)
            return queries.get_sweep(connection, row["sweep_id"])

    def finish_sweep(self, sweep_id: str, state: SweepState | str) -> Sweep:
        """Close a sweep: complete, cancelled or failed. Raises NotFound."""
        table = schema.sweeps
        with self.store.write() as connection:
            sweep = queries.get_sweep(connection, sweep_id)
            done = {"state": SweepState(state).value, "finished_at": datetime.now(UTC)}
            connection.execute(update(table).where(table.c.sweep_id == sweep.sweep_id).values(done))
            return queries.get_sweep(connection, sweep.sweep_id)

    def add_trial(
        self,
        sweep_id: str,
        *,
        model: str,
        config: Mapping[str, Any],
        config_hash: str,
        train_hash: str,
        source: str,
    ) -> Trial:
        """Put a config into a sweep; the database gives its number, this process holds its
        lease. Raises NotFound, ConfigError."""
        row = {
            "sweep_id": sweep_id,
            "model_name": model,
            "config": jsonable(config, "config"),
            "config_hash": config_hash,
            "train_hash": train_hash,
            "source": source,
            "created_at": datetime.now(UTC),
        }
        with self.store.write() as connection:
            return writes.add_trial(connection, row, self._owner)

    def take_lease(self, sweep_id: str, number: int) -> bool:
        """Become the one head that writes for a trial. False while another living head is."""
        now = datetime.now(UTC)
        with self.store.write() as connection:
            return writes.take_lease(connection, sweep_id, number, self._owner, now, self._grace)

    def start_run(
        self,
        *,
        model: str,
        hyperparams: Mapping[str, Any],
        sweep_id: str | None = None,
        trial_number: int | None = None,
        seed: int | None = None,
        attempt: int = 1,
        config_hash: str = "",
        train_hash: str = "",
        panel_hash: str = "",
        task_hash: str = "",
        fingerprints: Mapping[str, str] | None = None,
        resources: Mapping[str, Any] | None = None,
        source: str = "",
        notes: str | None = None,
        tags: Sequence[str] = (),
        is_baseline: bool | None = None,
        worker_pid: int | None = None,
    ) -> Run:
        """Open a running run that this process writes for. Raises ConfigError for a
        hyperparameter that cannot be stored, by name."""
        now = datetime.now(UTC)
        row = writes.new_run(model, hyperparams, now, is_baseline=is_baseline, source=source) | {
            "state": RunState.RUNNING.value,
            "sweep_id": sweep_id,
            "trial_number": trial_number,
            "seed": seed,
            "attempt": attempt,
            "config_hash": config_hash,
            "train_hash": train_hash,
            "panel_hash": panel_hash,
            "task_hash": task_hash,
            "fingerprints": dict(fingerprints or {}),
            "resources": jsonable(resources or {}, "resources"),
            "notes": notes,
            "tags": list(tags),
            "heartbeat_at": now,
            "worker_pid": worker_pid,
        }
        with self.store.write() as connection:
            return self._add_run(connection, row, {})

    def _add_run(
        self, connection: Connection, row: dict[str, Any], numbers: Mapping[str, float | None]
    ) -> Run:
        row |= self._owner.as_columns() | {"git_commit": self._environment.git_commit}
        row["environment_id"] = self._put_environment(connection)
        return writes.add_run(connection, row, numbers)

    def _put_environment(self, connection: Connection) -> str:
        writes.put_environment(connection, self._environment_id, self._environment)
        return self._environment_id

    def log(self, run_id: str, step: int, metrics: Mapping[str, float]) -> None:
        """Put a running run's metrics at a step on record, the best over steps kept.

        A step logged again replaces what it said. NaN and infinities are kept as "no number".
        Raises NotFound, TrackerError for a finished run, UsageError for `test_*`.
        """
        for name in metrics:
            queries.refuse_test(name)
        numbers = numbers_of(metrics)
        with self.store.write() as connection:
            writes.require_unfinished(connection, run_id)
            writes.log_points(connection, run_id, int(step), numbers)

    def beat(self, run_ids: Iterable[str]) -> None:
        """Say that these runs and their sweeps live; a run presumed lost is running again."""
        if found := list(run_ids):
            with self.store.write() as connection:
                writes.beat(connection, found, datetime.now(UTC))

    def finish_run(
        self,
        run_id: str,
        state: RunState | str,
        *,
        scores: Mapping[str, float] | None = None,
        checkpoint_path: str | Path | None = None,
        error: str | None = None,
        training_time_seconds: float | None = None,
        duration_seconds: float | None = None,
        peak_memory_mb: float | None = None,
        forecasts_path: str | Path | None = None,
        notes: str | None = None,
    ) -> Run:
        """Close a run with its scores by full name; `test_*` goes to sealed rows.

        A score that is NaN or infinite is kept as failed-to-score; val and test scores of a run
        that did not end well are failed, too. Raises NotFound, TrackerError for a run that is
        already finished or a state that ends nothing, ConfigError for what is no number.
        """
        ended = RunState(state)
        if not ended.is_final:
            raise TrackerError(f"{run_id}: a run cannot be finished as {ended.value!r}")
        outcome = {
            "state": ended.value,
            "finished_at": datetime.now(UTC),
            "checkpoint_path": None if checkpoint_path is None else str(checkpoint_path),
            "error": None if error is None else redact(error),
            "training_time_seconds": training_time_seconds,
            "duration_seconds": duration_seconds,
            "peak_memory_mb": peak_memory_mb,
            "forecasts_path": None if forecasts_path is None else str(forecasts_path),
        } | ({} if notes is None else {"notes": notes})
        kept = kept_scores(numbers_of(scores or {}), ended.value)
        with self.store.write() as connection:
            run = writes.require_unfinished(connection, run_id)
            return writes.finish_run(connection, run, outcome, kept)

    def cancel_run(self, run_id: str, reason: str = "stopped by Ctrl-C") -> Run:
        """Close a run that was stopped. Raises as `finish_run` does."""
        return self.finish_run(run_id, RunState.CANCELLED, error=reason)

    def cancel_sweep(self, sweep_id: str, reason: str = "stopped by Ctrl-C") -> Sweep:
        """Close a sweep that was stopped, and every run of it that this process writes for."""
        for run in self.get_runs(sweep_id=sweep_id, state=RunState.RUNNING):
            with self.store.read() as connection:
                mine = writes.is_owned(connection, run.run_id, self._owner)
            if mine:
                self.cancel_run(run.run_id, reason)
        return self.finish_sweep(sweep_id, SweepState.CANCELLED)

    def add_scores(self, run_id: str, scores: Mapping[str, float]) -> Run:
        """Add scores to a finished run; a score that is there stays. Raises NotFound,
        TrackerError for one that is there or a run that has not finished, ConfigError."""
        with self.store.write() as connection:
            return writes.add_scores(connection, run_id, numbers_of(scores))

    def add_note(self, run_id: str, text: str, *, who: str = "") -> None:
        """Add a note to a run, whatever its state. Raises NotFound, ConfigError if empty."""
        if not text.strip():
            raise ConfigError("a note needs words")
        with self.store.write() as connection:
            writes.add_note(connection, run_id, text, who)

    def add_tag(self, run_id: str, tag: str) -> Run:
        """Add a tag to a run, whatever its state. Raises NotFound, ConfigError if empty."""
        if not tag.strip():
            raise ConfigError("a tag needs a word")
        with self.store.write() as connection:
            return writes.add_tag(connection, run_id, tag.strip())

    def log_run(
        self,
        model_name: str,
        hyperparams: Mapping[str, Any],
        metrics: Mapping[str, float],
        checkpoint_path: str | Path | None = None,
        training_time_seconds: float | None = None,
        notes: str | None = None,
    ) -> str:
        """Put a finished run on record and give its id. It stands beside other runs logged by
        hand and beside no sweep's; `test_*` goes to sealed rows. Raises ConfigError."""
        now = datetime.now(UTC)
        scores = numbers_of(metrics)
        row = writes.new_run(model_name, hyperparams, now, source="logged") | {
            "state": RunState.COMPLETE.value,
            "finished_at": now,
            "checkpoint_path": None if checkpoint_path is None else str(checkpoint_path),
            "training_time_seconds": training_time_seconds,
            "notes": notes,
        }
        with self.store.write() as connection:
            return self._add_run(connection, row, scores).run_id
