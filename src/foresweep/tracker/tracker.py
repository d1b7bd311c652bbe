"""Tracker: a database's runs, sweeps and trials, read and written.

Safe for threads and for many processes on one database. Finished runs are immutable but for
notes, tags and scores added later; a lost run is only presumed dead and may still finish.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import Column, Connection, Select, insert, select, update

from foresweep.errors import ConfigError, NotFound, TrackerError, UsageError
from foresweep.records import Curve, Run, RunState, Sweep, SweepState, Trial, is_sealed
from foresweep.settings import load_settings
from foresweep.tracker.declaring import Declarations
from foresweep.tracker.liveness import GRACE, Heartbeat, this_process
from foresweep.tracker.provenance import Environment, redact, this_environment
from foresweep.tracker.queries import runs as queries
from foresweep.tracker.queries.ranking import Ranking, best_runs
from foresweep.tracker.queries.runs import RunQuery, asked_by
from foresweep.tracker.sealed import (
    SELECTED_ON_TEST,
    Judging,
    Judgings,
    mark_chosen,
    record_look,
)
from foresweep.tracker.session import BUFFER_S, Buffer, LoggedRun
from foresweep.tracker.storage import chain, schema
from foresweep.tracker.storage.line import Line
from foresweep.tracker.storage.schema import (
    jsonable,
    kept_scores,
    new_id,
    numbers_of,
    real,
    run_of,
    sound_name,
    whole,
)
from foresweep.tracker.storage.store import Store, line_of
from foresweep.tracker.writing import runs as writes
from foresweep.tracker.writing.heads import Heads
from foresweep.tracker.writing.runs import NewRun
from foresweep.tracker.writing.steps import Numbers, log_steps

if TYPE_CHECKING:
    import pandas as pd

    from foresweep.tracker.queries.impact import HyperparamImpact

__all__ = ["SELECTED_ON_TEST", "Heartbeat", "Judging", "NewRun", "Tracker"]

PATIENCE_S = 60.0
CHUNK = 500
"""Runs a transaction of `log_runs`: others wait no longer for their turn."""


class Tracker:
    """A database's runs, read and written. Use it as a context manager, or close it.

    Opening it marks running runs whose process is gone as lost: on this machine at once, on
    another after `grace` without a heartbeat. One call is one transaction, durable when it
    returns. Names of metrics are full names: `val_pct_mae`.

    `heads` is what the heads of one sweep share (trials, leases, the word to stop), `judgings` what
    a verdict asks of the record and leaves on it, `declarations` what searches set out to do.
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
        settings = load_settings(database=database)
        self.store = Store(settings.database, synchronous=settings.synchronous, create=create)
        self.heads, self.judgings = Heads(self.store, grace), Judgings(self.store)
        self.declarations = Declarations(self.store)
        self._grace = grace
        self._known_environments: set[str] = set()
        self._open_names: set[str] = set()
        self.repair()
        self.store.patience_s = patience_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.store.close()

    @cached_property
    def _environment(self) -> Environment:
        """Looked up at the first write and then kept: asking git costs more than a run."""
        return this_environment()

    @cached_property
    def _environment_id(self) -> str:
        return self._environment.environment_id

    def _rows(self, query: Select[Any]) -> list[dict[str, Any]]:
        with self.store.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    # What is on record.

    def get_run(self, run_id: str) -> Run:
        """A run by its id or a unique beginning of it. Raises NotFound."""
        with self.store.read() as connection:
            return queries.get_run(connection, run_id)

    @asked_by(RunQuery)
    def get_runs(self, asked: RunQuery) -> list[Run]:
        """Runs, oldest first; with `limit` the newest ones; or in the order of `sort`.

        Asked by the fields of `RunQuery`, the first of them model_name, min_metric_value and
        max_metric_value. Without `fingerprint` runs of any windows come together. Raises
        UsageError for `test_*` and for an expression that cannot be read, UnknownName.
        """
        with self.store.read() as connection:
            return queries.get_runs(connection, asked)

    @asked_by(Ranking)
    def get_best_model(self, asked: Ranking) -> Run | None:
        """The best complete run, None where there is none, asked by the fields of `Ranking`:
        metric, model_name, minimize, require_checkpoint (True), and by keyword the rest.

        Choosing by a test score is refused unless `allow_test`; then the look is recorded and
        the run is marked `selected-on-test`. Raises UsageError, NotFound (no such sweep).
        """
        return next(iter(self._best(asked, 1)), None)

    def get_top_k_models(
        self,
        k: int,
        metric: str = "val_pct_mae",
        model_name: str | None = None,
        minimize: bool | None = None,
        *,
        require_checkpoint: bool = False,
        sweep_id: str | None = None,
        fingerprint: str | None = None,
        include_baselines: bool = False,
        allow_test: bool = False,
    ) -> list[Run]:
        """The k best complete runs, best first; ties go to the smaller run id. Raises as
        `get_best_model` does."""
        asked = Ranking(
            metric,
            model_name,
            minimize,
            require_checkpoint,
            sweep_id=sweep_id,
            fingerprint=fingerprint,
            include_baselines=include_baselines,
            allow_test=allow_test,
        )
        return self._best(asked, k)

    def _best(self, asked: Ranking, k: int) -> list[Run]:
        looks = asked.allow_test and is_sealed(asked.metric)
        opened = self.store.write if looks else self.store.read
        with opened() as connection:
            best = best_runs(connection, asked, k)
            if looks:
                best = [mark_chosen(connection, run, asked.metric) for run in best]
        return best

    def compare_models(
        self,
        metrics: Sequence[str] | None = None,
        model_names: Sequence[str] | None = None,
        *,
        sweep_id: str | None = None,
        fingerprint: str | None = None,
    ) -> pd.DataFrame:
        """One line a run of one fingerprint: run_id, model, timestamp (the day), state, the
        metrics, checkpoint (bool). Raises UsageError for `test_*`, NotFound."""
        cells = self.fingerprint_in_use(None, sweep_id) if fingerprint is None else fingerprint
        return queries.comparison(self.get_runs(fingerprint=cells), metrics, model_names)

    def get_hyperparameter_impact(
        self,
        model_name: str,
        hyperparam: str,
        metric: str = "val_pct_mae",
        *,
        sweep_id: str | None = None,
        fingerprint: str | None = None,
    ) -> pd.DataFrame:
        """run_id, the hyperparameter's value and the metric of every complete run of a model
        that has both, by value. Raises UnknownName, UsageError for `test_*`, NotFound."""
        import pandas as pd

        asked = (model_name, hyperparam, metric, sweep_id, fingerprint)
        return pd.DataFrame(self._values_and_scores(*asked), columns=["run_id", hyperparam, metric])

    def summarise_hyperparam(
        self,
        model_name: str,
        hyperparam: str,
        metric: str = "val_pct_mae",
        *,
        sweep_id: str | None = None,
        fingerprint: str | None = None,
    ) -> HyperparamImpact:
        """What a hyperparameter did to a metric: runs, mean and spread by value (numbers of many
        values in four bins), and a rank correlation. Raises as `get_hyperparameter_impact`."""
        from foresweep.tracker.queries.impact import impact_of

        rows = self._values_and_scores(model_name, hyperparam, metric, sweep_id, fingerprint)
        return impact_of(model_name, hyperparam, metric, ((value, y) for _, value, y in rows))

    def _values_and_scores(
        self,
        model_name: str,
        hyperparam: str,
        metric: str,
        sweep_id: str | None,
        fingerprint: str | None,
    ) -> list[tuple[str, Any, float]]:
        from foresweep.tracker.queries.impact import values_and_scores

        cells = fingerprint
        if cells is None:
            cells = self.fingerprint_in_use(model_name, sweep_id)
        with self.store.read() as connection:
            return values_and_scores(connection, model_name, hyperparam, metric, cells)

    def fingerprint_in_use(self, model_name: str | None = None, sweep_id: str | None = None) -> str:
        """The fingerprint of val that a table of runs means: that of the sweep named, else of the
        latest (in which the model ran), else "": the runs of no sweep. Raises NotFound."""
        with self.store.read() as connection:
            return queries.fingerprint_in_use(
                connection, part="val", model_name=model_name, sweep_id=sweep_id
            )

    def find_trained(
        self,
        *,
        train_hash: str,
        panel_hash: str,
        task_hash: str,
        seed: int,
        config_hash: str | None = None,
    ) -> Run | None:
        """The newest complete run that makes a new training needless (its checkpoint is still
        on disk, and it is none that reproduces another), or None. With `config_hash` its forecasts
        were asked for the same way, too."""
        runs = schema.runs
        same: dict[str, Any] = {"train_hash": train_hash, "panel_hash": panel_hash}
        same |= {"task_hash": task_hash, "seed": seed, "state": RunState.COMPLETE.value}
        if config_hash is not None:
            same["config_hash"] = config_hash
        query = select(runs).where(*(runs.c[name] == value for name, value in same.items()))
        newest = query.where(runs.c.hidden_at.is_(None)).order_by(runs.c.created_at.desc())
        for run in map(run_of, self._rows(newest)):
            if run.reproduces is None and (run.is_baseline or run.has_checkpoint_files):
                return run
        return None

    def get_sweep(self, sweep_id: str = "latest", *, aside: bool = False) -> Sweep:
        """A sweep by its id, a unique beginning of it, or "latest": of those that somebody asked
        for, with `aside` of updates and folds of a walk-forward, too. Raises NotFound."""
        with self.store.read() as connection:
            return queries.get_sweep(connection, sweep_id, aside=aside)

    def list_sweeps(self) -> list[Sweep]:
        """Every sweep, newest first."""
        with self.store.read() as connection:
            return queries.list_sweeps(connection)

    def get_trials(self, sweep_id: str) -> list[Trial]:
        """The trials of a sweep by number."""
        with self.store.read() as connection:
            return queries.get_trials(connection, sweep_id)

    def get_seeds(self, run_id: str) -> list[Run]:
        """The complete runs of a run's config on the same windows, whatever their seed, by run id;
        `median_seed` says which of them stands for the config. Raises NotFound."""
        with self.store.read() as connection:
            return queries.seeds_of(connection, queries.get_run(connection, run_id))

    def get_curves(self, run_id: str) -> list[Curve]:
        """What was logged over a run's steps, one line a metric: last, lowest, highest."""
        table = schema.curves
        columns = [table.c[name] for name in Curve.__dataclass_fields__]
        query = select(*columns).where(table.c.run_id == run_id).order_by(table.c.name)
        bests = ("last", "lowest", "highest")
        return [
            Curve(**row | {name: _or_nan(row[name]) for name in bests}) for row in self._rows(query)
        ]

    def get_curve(self, run_id: str, name: str) -> list[tuple[int, float]]:
        """(step, value) of one metric in order of steps; nan where a point was no number."""
        table = schema.curve_points
        query = select(table.c.step, table.c.value).order_by(table.c.step)
        mine = query.where(table.c.run_id == run_id, table.c.name == name)
        return [(row["step"], _or_nan(row["value"])) for row in self._rows(mine)]

    def get_environment(self, run_id: str) -> Mapping[str, object]:
        """Code, command, packages and machine that a run came from; {} for imported runs."""
        runs, places = schema.runs, schema.environments
        query = select(places.c.content).join(
            runs, runs.c.environment_id == places.c.environment_id
        )
        places_of_run = self._rows(query.where(runs.c.run_id == run_id))
        return places_of_run[0]["content"] if places_of_run else {}

    def get_notes(self, run_id: str) -> list[tuple[datetime, str, str]]:
        """(when, who, text) of the notes added to a run, oldest first."""
        table = schema.notes
        query = select(table.c.created_at, table.c.who, table.c.text).order_by(table.c.note_id)
        rows = self._rows(query.where(table.c.run_id == run_id))
        return [(row["created_at"], row["who"], row["text"]) for row in rows]

    def get_dataset(self, dataset_id: str) -> Mapping[str, object]:
        """A data set as `add_dataset` was told of it, findings included. Raises NotFound."""
        table = schema.datasets
        rows = self._rows(select(table).where(table.c.dataset_id == dataset_id))
        if not rows:
            raise NotFound(f"no data set {dataset_id!r} in this database")
        return rows[0]

    def reveal_test(self, run_id: str, *, who: str = "", why: str) -> dict[str, float]:
        """A run's test scores by full name. Every look is recorded in the same transaction.

        The one way to them. Raises NotFound, UsageError where `why` is empty.
        """
        if not why.strip():
            raise UsageError("say why the test scores are looked at: the look is recorded")
        with self.store.write() as connection:
            run = queries.get_run(connection, run_id)
            record_look(connection, run, who=who, why=why)
            return queries.sealed_scores(connection, run.run_id)

    # What is put on record of runs.

    def repair(self) -> list[str]:
        """Mark stale runs and sweeps as lost; the ids of those runs. None where the database can
        only be read."""
        if self.store.is_read_only:
            return []
        now = datetime.now(UTC)
        return writes.repair(self.store, now, this_process().machine, self._grace)

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
    ) -> Run:
        """Open a running run that this process writes for. Raises ConfigError for a
        hyperparameter that cannot be stored, by name."""
        now = datetime.now(UTC)
        row = writes.new_run(model, hyperparams, now, is_baseline=is_baseline, source=source) | {
            "state": RunState.RUNNING.value,
            "sweep_id": sweep_id,
            "trial_number": None if trial_number is None else whole(trial_number, "trial_number"),
            "seed": None if seed is None else whole(seed, "seed"),
            "attempt": whole(attempt, "attempt"),
            "config_hash": config_hash,
            "train_hash": train_hash,
            "panel_hash": panel_hash,
            "task_hash": task_hash,
            "fingerprints": dict(fingerprints or {}),
            "resources": jsonable(resources or {}, "resources"),
            "notes": writes.stored_text(notes, "notes"),
            "tags": [sound_name(tag) for tag in tags],
            "heartbeat_at": now,
        }
        return self._add_run(row, {})

    def _add_run(self, row: dict[str, Any], numbers: Numbers) -> Run:
        self._sign(row)

        def put(line: Line) -> None:
            self._put_environment(line)
            writes.add_run(line, row, numbers)

        self.store.direct(put)
        self._known_environments.add(self._environment_id)
        return run_of(row)

    def _sign(self, row: dict[str, Any]) -> None:
        """Who writes for the run, and from which environment."""
        row |= this_process().as_columns()
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
        said = sorted((whole(step, "step"), self._open(m)) for step, m in steps.items() if m)
        self.store.direct(lambda line: log_steps(line, run_id, said))

    def _open(self, metrics: Mapping[str, float]) -> Numbers:
        """The metrics as stored numbers, none of them sealed. Raises UsageError, ConfigError."""
        numbers = numbers_of(metrics)
        for name in numbers.keys() - self._open_names:
            queries.refuse_test(name)
            self._open_names.add(name)
        return numbers

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
            "checkpoint_path": writes.path_text(checkpoint_path),
            "error": writes.stored_text(error, "error"),
            "training_time_seconds": real(training_time_seconds, "training_time_seconds"),
            "duration_seconds": real(duration_seconds, "duration_seconds"),
            "peak_memory_mb": real(peak_memory_mb, "peak_memory_mb"),
            "forecasts_path": writes.path_text(forecasts_path),
        } | ({} if notes is None else {"notes": writes.stored_text(notes, "notes")})
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
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"a note needs words, not {text!r}")
        with self.store.write() as connection:
            writes.add_note(connection, run_id, text, who)

    def add_tag(self, run_id: str, tag: str) -> Run:
        """Add a tag to a run, whatever its state. Raises NotFound, ConfigError if empty."""
        if not sound_name(tag).strip():
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
        path = writes.path_text(checkpoint_path)
        new = NewRun(model_name, hyperparams, metrics, path, training_time_seconds, notes)
        return self._add_run(writes.logged_run(new), numbers_of(metrics)).run_id

    def log_runs(self, runs: Iterable[NewRun]) -> list[str]:
        """Put many finished runs on record, far faster than one by one, and give their ids.

        Durable 500 at a time: after an error those before are on record. Raises ConfigError.
        """
        run_ids: list[str] = []
        waiting = iter(runs)
        while chunk := list(islice(waiting, CHUNK)):
            pairs = [(writes.logged_run(new), numbers_of(new.metrics)) for new in chunk]
            for row, _ in pairs:
                self._sign(row)
            run_ids += self._put_runs(pairs)
        return run_ids

    def _put_runs(self, pairs: Sequence[tuple[dict[str, Any], Numbers]]) -> list[str]:
        def put(line: Line) -> list[str]:
            self._put_environment(line)
            return writes.add_runs(line, pairs)

        ids = self.store.direct(put, together=False)
        self._known_environments.add(self._environment_id)
        return ids

    # What is put on record of sweeps and their trials.

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
            "num_items": whole(num_items, "num_items"),
            "num_rows": whole(num_rows, "num_rows"),
            "starts_at": starts_at,
            "ends_at": ends_at,
            "findings": jsonable(findings, "findings"),
        }
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        row = {**content, "dataset_id": digest, "created_at": datetime.now(UTC)}

        def put(connection: Connection) -> str:
            if not _is_there(connection, schema.datasets.c.dataset_id, digest):
                connection.execute(insert(schema.datasets), row)
            return digest

        return self.store.work(put)

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
            "horizon": whole(horizon, "horizon"),
            "seed": whole(seed, "seed"),
            "panel_hash": panel_hash,
            "task_hash": task_hash,
            "fingerprints": dict(fingerprints),
            "plan": jsonable(plan, "plan"),
            "dataset_id": dataset_id,
            "state": SweepState.RUNNING.value,
            "started_at": now,
            "heartbeat_at": now,
            **this_process().as_columns(),
        }
        row["environment_id"] = self._environment_id

        def put(connection: Connection) -> Sweep:
            writes.put_environment(line_of(connection), self._environment_id, self._environment)
            if not _is_there(connection, schema.sweeps.c.sweep_id, row["sweep_id"]):
                connection.execute(insert(schema.sweeps), row)
                chain.append(line_of(connection), chain.entry_of(chain.SWEEP, row))
            return queries.get_sweep(connection, row["sweep_id"])

        return self.store.work(put)

    def finish_sweep(self, sweep_id: str, state: SweepState | str) -> Sweep:
        """Close a sweep: complete, cancelled or failed. Raises NotFound."""
        table = schema.sweeps
        done = {"state": SweepState(state).value, "finished_at": datetime.now(UTC)}

        def close(connection: Connection) -> Sweep:
            mine = table.c.sweep_id == queries.get_sweep(connection, sweep_id).sweep_id
            connection.execute(update(table).where(mine).values(done))
            return queries.get_sweep(connection, sweep_id)

        return self.store.work(close)

    def cancel_sweep(self, sweep_id: str, reason: str = "stopped by Ctrl-C") -> Sweep:
        """Close every run of a sweep that this process writes for, and, where no other head goes
        on, the sweep."""
        runs, running = schema.runs, RunState.RUNNING.value
        query = select(runs).where(runs.c.sweep_id == sweep_id, runs.c.state == running)
        for row in self._rows(query):
            if this_process().holds(row):
                self.cancel_run(row["run_id"], reason)
        if self.heads.held_elsewhere(sweep_id):
            return self.get_sweep(sweep_id)
        return self.finish_sweep(sweep_id, SweepState.CANCELLED)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _is_there(connection: Connection, column: Column[Any], key: str) -> bool:
    """Is there a row of this key?"""
    return connection.execute(select(column).where(column == key)).first() is not None
