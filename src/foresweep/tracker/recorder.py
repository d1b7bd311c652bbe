"""Recorder: every write about runs. One call is one transaction, durable when it returns.

Safe for threads and for many processes on one database. Finished runs are immutable but for
notes, tags and scores added later; a lost run is only presumed dead and may still finish.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Self

from foresweep.errors import ConfigError, TrackerError
from foresweep.records import Run, RunState
from foresweep.tracker import creation, queries, writes
from foresweep.tracker.creation import NewRun
from foresweep.tracker.line import Line
from foresweep.tracker.liveness import GRACE, Owner, this_process
from foresweep.tracker.provenance import Environment, this_environment
from foresweep.tracker.reader import Reader
from foresweep.tracker.redaction import storable
from foresweep.tracker.rows import kept_scores, numbers_of, run_of, sound_name
from foresweep.tracker.schema import jsonable
from foresweep.tracker.session import BUFFER_S, Buffer, LoggedRun
from foresweep.tracker.steps import Numbers, log_steps

PATIENCE_S = 60.0
LARGEST_STEP = 2**63 - 1
CHUNK = 500
"""Runs a transaction of `log_runs`: others wait no longer for their turn."""


class Recorder(Reader):
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
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Open a path or URL (None: the settings' database); an empty place becomes one.

        A database that stays locked or a server that restarts is waited for up to `patience_s`
        in every later call. Raises DatabaseUnusable, NotFound where `create` is False and there
        is none.
        """
        super().__init__(database, create=create)
        self._grace = grace
        self._known_environments: set[str] = set()
        self._open_names: set[str] = set()
        self.repair()
        self.store.patience_s = patience_s

    def __enter__(self) -> Self:
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
            "notes": None if notes is None else storable(notes),
            "tags": [sound_name(tag) for tag in tags],
            "heartbeat_at": now,
            "worker_pid": worker_pid,
        }
        return self._add_run(row, {})

    def _add_run(self, row: dict[str, Any], numbers: Numbers) -> Run:
        self._sign(row)

        def put(line: Line) -> None:
            self._put_environment(line)
            creation.add_run(line, row, numbers)

        self.store.direct(put)
        self._known_environments.add(self._environment_id)
        return run_of(row)

    def _sign(self, row: dict[str, Any]) -> None:
        """Who writes for the run, and from which environment."""
        row |= self._owner.as_columns()
        row["git_commit"] = self._environment.git_commit
        row["environment_id"] = self._environment_id

    def _put_environment(self, line: Line) -> None:
        if self._environment_id not in self._known_environments:
            writes.put_environment(line, self._environment_id, self._environment)

    def log(self, run_id: str, step: int, metrics: Mapping[str, float]) -> None:
        """Put a running run's metrics at a step on record, the best over steps kept; durable
        when it returns.

        A step logged again replaces what it said. NaN and infinities are kept as "no number".
        Raises NotFound, TrackerError for a finished run, UsageError for `test_*`.
        """
        self.log_steps(run_id, {step: metrics})

    def log_steps(self, run_id: str, steps: Mapping[int, Mapping[str, float]]) -> None:
        """Several steps in one transaction. Raises as `log` does."""
        said = sorted((_as_step(step), self._open(m)) for step, m in steps.items() if m)
        self.store.direct(lambda line: log_steps(line, run_id, said))

    def _open(self, metrics: Mapping[str, float]) -> Numbers:
        """The metrics as stored numbers, none of them sealed. Raises UsageError, ConfigError."""
        for name in metrics.keys() - self._open_names:
            queries.refuse_test(name)
            self._open_names.add(name)
        return numbers_of(metrics)

    def buffered(self, run_id: str, *, every_s: float = BUFFER_S) -> Buffer:
        """A faster `log` for this run that is durable only after up to `every_s` seconds: that
        is what a kill may take. Use it as a context manager."""
        return Buffer(self, run_id, every_s=every_s)

    def run(
        self,
        model: str,
        hyperparams: Mapping[str, Any],
        *,
        notes: str | None = None,
        tags: Sequence[str] = (),
        seed: int | None = None,
        buffer_s: float | None = None,
        system_every_s: float | None = 30.0,
    ) -> LoggedRun:
        """A run of your own script, opened at once and closed when the `with` block ends:

            with tracker.run("toto", {"lr": 1e-4}, notes="first try") as run:
                run.log(step, {"loss": loss})
                run.finish({"val_pct_mae": 1.2}, checkpoint_path="runs/1")

        An exception inside ends it as failed, with its traceback; Ctrl-C as cancelled. With
        `buffer_s` steps are durable only after up to that many seconds. `system_every_s` is how
        often CPU, memory and GPU are noted (None: never). Raises ConfigError.
        """
        opened = self.start_run(
            model=model, hyperparams=hyperparams, notes=notes, tags=tags, seed=seed, source="script"
        )
        return LoggedRun(self, opened, buffer_s=buffer_s, system_every_s=system_every_s)

    def beat(self, run_ids: Iterable[str]) -> None:
        """Say that these runs and their sweeps live; a run presumed lost is running again."""
        if found := list(run_ids):
            now = datetime.now(UTC)
            self.store.work(lambda connection: writes.beat(connection, found, now))

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
            "error": None if error is None else storable(error),
            "training_time_seconds": training_time_seconds,
            "duration_seconds": duration_seconds,
            "peak_memory_mb": peak_memory_mb,
            "forecasts_path": None if forecasts_path is None else str(forecasts_path),
        } | ({} if notes is None else {"notes": storable(notes)})
        kept = kept_scores(numbers_of(scores or {}), ended.value)
        return self.store.work(
            lambda connection: writes.finish_run(connection, run_id, outcome, kept)
        )

    def cancel_run(self, run_id: str, reason: str = "stopped by Ctrl-C") -> Run:
        """Close a run that was stopped. Raises as `finish_run` does."""
        return self.finish_run(run_id, RunState.CANCELLED, error=reason)

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
        path = None if checkpoint_path is None else str(checkpoint_path)
        new = NewRun(model_name, hyperparams, metrics, path, training_time_seconds, notes)
        return self._add_run(_logged(new), numbers_of(metrics)).run_id

    def log_runs(self, runs: Iterable[NewRun]) -> list[str]:
        """Put many finished runs on record, far faster than one by one, and give their ids.

        Durable 500 at a time: after an error those before are on record. Raises ConfigError.
        """
        found: list[str] = []
        waiting = iter(runs)
        while chunk := list(islice(waiting, CHUNK)):
            pairs = [(_logged(new), numbers_of(new.metrics)) for new in chunk]
            for row, _ in pairs:
                self._sign(row)
            found += self._put_runs(pairs)
        return found

    def _put_runs(self, pairs: Sequence[tuple[dict[str, Any], Numbers]]) -> list[str]:
        def put(line: Line) -> list[str]:
            self._put_environment(line)
            return creation.add_runs(line, pairs)

        ids = self.store.direct(put, together=False)
        self._known_environments.add(self._environment_id)
        return ids


def _logged(new: NewRun) -> dict[str, Any]:
    """The row of a finished run. Raises ConfigError."""
    now = datetime.now(UTC)
    return writes.new_run(new.model_name, new.hyperparams, now, source="logged") | {
        "state": RunState.COMPLETE.value,
        "finished_at": now,
        "checkpoint_path": new.checkpoint_path,
        "training_time_seconds": new.training_time_seconds,
        "notes": None if new.notes is None else storable(new.notes),
    }


def _as_step(step: int) -> int:
    """Raises ConfigError where the database has no room for it."""
    if not -LARGEST_STEP <= step <= LARGEST_STEP:
        raise ConfigError(f"step is {step}; it must be below 2**63")
    return int(step)
