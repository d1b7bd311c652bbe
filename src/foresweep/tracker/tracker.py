"""Tracker: a database's runs, sweeps, trials and verdicts, read and written.

Safe for threads and for many processes on one database. Finished runs are immutable but for
notes, tags and scores added later; a lost run is only presumed dead and may still finish.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import Connection, insert, select, update

from foresweep.errors import ConfigError, NotFound, TrackerError, UsageError
from foresweep.records import (
    Curve,
    Run,
    RunState,
    Score,
    Sweep,
    SweepState,
    Trial,
    is_sealed,
    split_name,
)
from foresweep.settings import load_settings
from foresweep.tracker import sealed as looks
from foresweep.tracker.liveness import GRACE, Heartbeat, Owner, this_process
from foresweep.tracker.provenance import Environment, redact, storable, this_environment
from foresweep.tracker.queries import runs as queries
from foresweep.tracker.queries.filters import Filters
from foresweep.tracker.queries.ranking import Aim, aim_of, best_runs
from foresweep.tracker.queries.runs import seeds_of
from foresweep.tracker.sealed import Lineage, lineage_of, record_look
from foresweep.tracker.session import BUFFER_S, Buffer, LoggedRun
from foresweep.tracker.storage import schema
from foresweep.tracker.storage.line import Line
from foresweep.tracker.storage.schema import (
    jsonable,
    kept_scores,
    new_id,
    numbers_of,
    run_of,
    sound_name,
)
from foresweep.tracker.storage.store import Store, line_of
from foresweep.tracker.writing import heads
from foresweep.tracker.writing import runs as creation
from foresweep.tracker.writing import runs as writes
from foresweep.tracker.writing.heads import Pulse
from foresweep.tracker.writing.runs import NewRun
from foresweep.tracker.writing.steps import Numbers, log_steps

if TYPE_CHECKING:
    import pandas as pd

    from foresweep.tracker.queries.impact import HyperparamImpact

# Reader: every question that can be asked of the database. Test scores come out by one door.


SELECTED_ON_TEST = "selected-on-test"


class Reader:
    """A database's runs, read. Use it as a context manager, or close it.

    Names of metrics are full names: `val_pct_mae`. A ranking stays within one fingerprint, the
    same windows scored by the same rules: `sweep_id` or `fingerprint` says which; else that of
    the latest sweep (in which `model_name` ran); else, with no sweep, runs logged by hand.
    """

    def __init__(self, database: str | Path | None = None, *, create: bool = False) -> None:
        """Open a path or URL, None: the settings' database.

        Raises NotFound where there is none and `create` is False, DatabaseUnusable.
        """
        settings = load_settings(database=database)
        self.store = Store(settings.database, synchronous=settings.synchronous, create=create)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.store.close()

    def get_run(self, run_id: str) -> Run:
        """A run by its id or a unique beginning of it. Raises NotFound."""
        with self.store.read() as connection:
            return queries.get_run(connection, run_id)

    def get_runs(
        self,
        model_name: str | None = None,
        min_metric_value: Mapping[str, float] | None = None,
        max_metric_value: Mapping[str, float] | None = None,
        *,
        state: str | None = None,
        sweep_id: str | None = None,
        fingerprint: str | None = None,
        tags: Sequence[str] = (),
        hyperparams: Mapping[str, object] | None = None,
        git_commit: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        where: str | None = None,
        include_baselines: bool = True,
        include_hidden: bool = False,
        sort: str | None = None,
        limit: int | None = None,
    ) -> list[Run]:
        """Runs, oldest first; with `limit` the newest ones; or in the order of `sort`, a name
        or `name:desc`. `fingerprint` is of val ("": of no sweep); without it runs of any windows
        come together. `hyperparams` asks for a value, or for a range as (least, most); `where`
        is an expression like `lr < 1e-4 and val_skill > 0`.

        A run without the value of a filter does not pass it. Raises UsageError for `test_*` and
        for an expression that cannot be read, UnknownName.
        """
        filters = Filters(
            where=where,
            tags=tags,
            hyperparams=hyperparams or {},
            git_commit=git_commit,
            created_after=created_after,
            created_before=created_before,
        )
        with self.store.read() as connection:
            return queries.get_runs(
                connection,
                model_name=model_name,
                min_metric_value=min_metric_value,
                max_metric_value=max_metric_value,
                state=state,
                sweep_id=sweep_id,
                fingerprint=fingerprint,
                include_baselines=include_baselines,
                include_hidden=include_hidden,
                filters=filters,
                sort=sort,
                limit=limit,
            )

    def get_best_model(
        self,
        metric: str = "val_pct_mae",
        model_name: str | None = None,
        minimize: bool | None = None,
        require_checkpoint: bool = True,
        *,
        sweep_id: str | None = None,
        fingerprint: str | None = None,
        include_baselines: bool = False,
        allow_test: bool = False,
    ) -> Run | None:
        """The best complete run, None where there is none. `minimize` None: the metric's own way,
        for `val_coverage_80` the nearest to 0.8.

        Choosing by a test score is refused unless `allow_test`; then the look is recorded and
        the run is marked `selected-on-test`. Raises UsageError, NotFound (no such sweep).
        """
        best = self.get_top_k_models(
            1,
            metric,
            model_name,
            minimize,
            require_checkpoint=require_checkpoint,
            sweep_id=sweep_id,
            fingerprint=fingerprint,
            include_baselines=include_baselines,
            allow_test=allow_test,
        )
        return best[0] if best else None

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
        """The k best complete runs, best first; ties go to the smaller run id.

        Baselines rank where they are asked for, by `include_baselines` or by name. Raises as
        `get_best_model` does.
        """
        if k < 1:
            raise UsageError(f"k is {k}; it must be at least 1")
        if not allow_test:
            queries.refuse_test(metric)
        aim = aim_of(metric) if minimize is None else Aim(minimize=minimize)
        opened = self.store.write if is_sealed(metric) else self.store.read
        with opened() as connection:
            cells = fingerprint
            if cells is None:
                cells = queries.fingerprint_in_use(
                    connection,
                    part=split_name(metric)[0],
                    model_name=model_name,
                    sweep_id=sweep_id,
                )
            best = best_runs(
                connection,
                metric=metric,
                fingerprint=cells,
                aim=aim,
                k=k,
                model_name=model_name,
                require_checkpoint=require_checkpoint,
                include_baselines=include_baselines,
            )
            if is_sealed(metric):
                best = [_marked(connection, run, metric) for run in best]
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
        from foresweep.tracker.queries.tables import comparison

        with self.store.read() as connection:
            cells = self._cells(connection, None, sweep_id, fingerprint)
            runs = queries.get_runs(connection, fingerprint=cells)
        return comparison(runs, metrics, model_names)

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
        from foresweep.tracker.queries.tables import impact

        queries.refuse_test(metric)
        with self.store.read() as connection:
            cells = self._cells(connection, model_name, sweep_id, fingerprint)
            scored = queries.hyperparams_and_score(
                connection, model_name=model_name, metric=metric, fingerprint=cells
            )
        return impact(scored, model_name, hyperparam, metric)

    def summarise_hyperparam(
        self,
        model_name: str,
        hyperparam: str,
        metric: str = "val_pct_mae",
        *,
        sweep_id: str | None = None,
        fingerprint: str | None = None,
    ) -> HyperparamImpact:
        """What a hyperparameter did to a metric, counted by the database: runs, mean and spread
        by value (numbers of many values in four bins), and a rank correlation. Raises
        UnknownName, UsageError for `test_*`, NotFound."""
        from foresweep.tracker.queries.impact import hyperparam_impact

        queries.refuse_test(metric)
        with self.store.read() as connection:
            cells = self._cells(connection, model_name, sweep_id, fingerprint)
            return hyperparam_impact(
                connection,
                model_name=model_name,
                hyperparam=hyperparam,
                metric=metric,
                fingerprint=cells,
            )

    def _cells(
        self,
        connection: Connection,
        model_name: str | None,
        sweep_id: str | None,
        fingerprint: str | None,
    ) -> str:
        """The fingerprint of val that a table of runs means."""
        if fingerprint is not None:
            return fingerprint
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
        on disk), or None. With `config_hash` its forecasts were asked for the same way, too."""
        with self.store.read() as connection:
            return queries.find_trained(
                connection,
                train_hash=train_hash,
                panel_hash=panel_hash,
                task_hash=task_hash,
                seed=seed,
                config_hash=config_hash,
            )

    def get_sweep(self, sweep_id: str = "latest") -> Sweep:
        """A sweep by its id, a unique beginning of it, or "latest". Raises NotFound."""
        with self.store.read() as connection:
            return queries.get_sweep(connection, sweep_id)

    def list_sweeps(self) -> list[Sweep]:
        """Every sweep, newest first."""
        with self.store.read() as connection:
            return queries.list_sweeps(connection)

    def get_trials(self, sweep_id: str) -> list[Trial]:
        """The trials of a sweep by number."""
        with self.store.read() as connection:
            return queries.get_trials(connection, sweep_id)

    def get_scores(self, run_id: str) -> list[Score]:
        """Every open score of a run: nothing of test."""
        with self.store.read() as connection:
            return queries.get_scores(connection, run_id)

    def get_curves(self, run_id: str) -> list[Curve]:
        """What was logged over a run's steps, one line a metric: last, lowest, highest."""
        with self.store.read() as connection:
            return queries.get_curves(connection, run_id)

    def get_curve(self, run_id: str, name: str) -> list[tuple[int, float]]:
        """(step, value) of one metric in order of steps; nan where a point was no number."""
        with self.store.read() as connection:
            return queries.get_curve(connection, run_id, name)

    def get_environment(self, run_id: str) -> Mapping[str, object]:
        """Code, command, packages and machine that a run came from; {} for imported runs."""
        runs, places = schema.runs, schema.environments
        query = select(places.c.content).join(
            runs, runs.c.environment_id == places.c.environment_id
        )
        with self.store.read() as connection:
            found = connection.execute(query.where(runs.c.run_id == run_id)).scalar()
        return found or {}

    def get_notes(self, run_id: str) -> list[tuple[datetime, str, str]]:
        """(when, who, text) of the notes added to a run, oldest first."""
        table = schema.notes
        query = select(table.c.created_at, table.c.who, table.c.text).order_by(table.c.note_id)
        with self.store.read() as connection:
            found = connection.execute(query.where(table.c.run_id == run_id)).all()
        return [(row.created_at, row.who, row.text) for row in found]

    def get_dataset(self, dataset_id: str) -> Mapping[str, object]:
        """A data set as `add_dataset` was told of it, findings included. Raises NotFound."""
        table = schema.datasets
        query = select(table).where(table.c.dataset_id == dataset_id)
        with self.store.read() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFound(f"no data set {dataset_id!r} in this database")
        return {str(name): value for name, value in row.items()}

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

    def has_equal_test(self, run_id: str) -> bool | None:
        """Are the sealed scores of a run that reproduces another equal to that one's, to the last
        bit? None where one has none, or it reproduces nothing. No score is told, so that it is no
        look. Raises NotFound."""
        with self.store.read() as connection:
            run = queries.get_run(connection, run_id)
            if run.reproduces is None:
                return None
            return queries.are_sealed_scores_equal(connection, run.run_id, run.reproduces)

    def get_test_looks(self, run_id: str | None = None) -> list[Mapping[str, object]]:
        """Every recorded look at test scores (of one run), oldest first: run_id, fingerprint,
        panel_hash, who, why, looked_at, judging_id, number. It carries no score."""
        table = schema.test_looks
        query = select(table).order_by(table.c.look_id)
        if run_id is not None:
            query = query.where(table.c.run_id == run_id)
        with self.store.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [{str(name): value for name, value in row.items()} for row in rows]


def _marked(connection: Connection, run: Run, metric: str) -> Run:
    """The run, its tag and the look on record: it was chosen by what should only confirm."""
    record_look(connection, run, who="", why=f"selection by {metric}")
    tags = tuple(dict.fromkeys((*run.tags, SELECTED_ON_TEST)))
    table = schema.runs
    connection.execute(update(table).where(table.c.run_id == run.run_id).values(tags=list(tags)))
    return queries.get_run(connection, run.run_id)


# Recorder: every write about runs. One call is one transaction, durable when it returns.
#
# Safe for threads and for many processes on one database. Finished runs are immutable but for
# notes, tags and scores added later; a lost run is only presumed dead and may still finish.


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


# Bench: what a verdict asks of the record and leaves on it: lineage, judgings, looks, verdicts.


@dataclass(frozen=True, slots=True)
class Judging:
    """One command's judging of a run, or of several of different horizons."""

    judging_id: str
    run_ids: tuple[str, ...]
    lineage: Lineage
    number: int  # j: which judging of the lineage on val this is
    next_look: int  # k: which look at the lineage's test it would be to open it now


class Bench(Recorder):
    """What a verdict needs of the tracker."""

    def get_lineage(self, sweep_ids: Collection[str]) -> Lineage:
        """The sweeps whose val or test cells meet those of these sweeps. Raises NotFound."""
        with self.store.read() as connection:
            return lineage_of(connection, sweep_ids)

    def begin_judging(self, run_ids: Iterable[str], *, who: str = "") -> Judging:
        """Put on record that these runs are judged on val, before anything of it is read.

        Raises NotFound, TrackerError for a run of no sweep.
        """
        judging_id, wanted = new_id("judging", datetime.now(UTC)), tuple(run_ids)

        def begin(connection: Connection) -> Judging:
            found = [queries.get_run(connection, run_id) for run_id in wanted]
            lineage = lineage_of(connection, [_sweep_of(run) for run in found])
            cells = {run.fingerprint for run in found}
            number = looks.judged_number(connection, cells, lineage.sweep_ids)
            ids = tuple(run.run_id for run in found)
            next_look = looks.look_number(connection, ids, lineage.sweep_ids)
            if not _is_begun(connection, judging_id):  # a repeated transaction writes once
                for run in found:
                    looks.begin_verdict(connection, run, judging_id=judging_id, who=who)
            return Judging(judging_id, ids, lineage, number, next_look)

        return self.store.work(begin)

    def record_test_look(
        self, judging: Judging, run_ids: Collection[str], *, why: str, who: str = ""
    ) -> int:
        """k, once it is on record that the test of these runs is opened for a verdict.

        The caller reads the test's loss panels after this returns, never before.
        """

        def look(connection: Connection) -> int:
            table = schema.test_looks
            mine = select(table.c.number).where(
                table.c.judging_id == judging.judging_id, table.c.run_id.in_(list(run_ids))
            )
            again = connection.execute(mine).scalars().first()
            if again is not None:
                return int(again)
            number = looks.look_number(connection, run_ids, judging.lineage.sweep_ids)
            for run_id in run_ids:
                looks.record_look(
                    connection,
                    queries.get_run(connection, run_id),
                    who=who,
                    why=why,
                    judging_id=judging.judging_id,
                    number=number,
                )
            return number

        return self.store.work(look)

    def end_judging(self, judging: Judging, verdicts: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep the verdicts {run_id: as JSON} of a judging; `outcome` stands by itself, too."""
        table = schema.verdicts
        with self.store.write() as connection:
            for run_id, content in verdicts.items():
                done = {
                    "outcome": str(content["outcome"]),
                    "content": jsonable(content, "verdict"),
                }
                mine = (table.c.judging_id == judging.judging_id) & (table.c.run_id == run_id)
                connection.execute(update(table).where(mine).values(done))

    def get_verdicts(self, run_id: str | None = None) -> list[Mapping[str, Any]]:
        """Every verdict (of one run), oldest first: judging_id, run_id, fingerprint, outcome ("":
        begun and not ended), content, who, judged_at. Test scores are left out of `content`."""
        table = schema.verdicts
        query = select(table).order_by(table.c.verdict_id)
        if run_id is not None:
            query = query.where(table.c.run_id == run_id)
        with self.store.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [{str(name): value for name, value in row.items()} for row in rows]


def _sweep_of(run: Run) -> str:
    """The sweep that a run came from. Raises TrackerError."""
    if run.sweep_id is None:
        raise TrackerError(
            f"run {run.run_id} was logged by hand: it has no losses on record to judge; write them "
            f"to a file and ask: foresweep verdict --losses FILE --benchmark NAME"
        )
    return run.sweep_id


def _is_begun(connection: Connection, judging_id: str) -> bool:
    table = schema.verdicts
    query = select(table.c.verdict_id).where(table.c.judging_id == judging_id).limit(1)
    return connection.execute(query).first() is not None


# Tracker: the whole of it: what Recorder writes about runs, and here sweeps and trials.


__all__ = ["Heartbeat", "NewRun", "Tracker"]


class Tracker(Bench):
    """A database's runs and sweeps, read and written."""

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
        return self.store.work(lambda connection: writes.add_dataset(connection, content))

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
        row["environment_id"] = self._environment_id

        def put(connection: Connection) -> Sweep:
            writes.put_environment(line_of(connection), self._environment_id, self._environment)
            if not writes.is_there(connection, schema.sweeps.c.sweep_id, row["sweep_id"]):
                connection.execute(insert(schema.sweeps), row)
            return queries.get_sweep(connection, row["sweep_id"])

        return self.store.work(put)

    def finish_sweep(self, sweep_id: str, state: SweepState | str) -> Sweep:
        """Close a sweep: complete, cancelled or failed. Raises NotFound."""
        table = schema.sweeps
        done = {"state": SweepState(state).value, "finished_at": datetime.now(UTC)}

        def close(connection: Connection) -> Sweep:
            sweep = queries.get_sweep(connection, sweep_id)
            connection.execute(update(table).where(table.c.sweep_id == sweep.sweep_id).values(done))
            return queries.get_sweep(connection, sweep.sweep_id)

        return self.store.work(close)

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
        trial = self._put_trial(
            self._trial_row(sweep_id, model, config, config_hash, train_hash, source)
        )
        assert trial is not None
        return trial

    def claim_trial(
        self,
        sweep_id: str,
        *,
        model: str,
        config: Mapping[str, Any],
        config_hash: str,
        train_hash: str,
        source: str,
        number: int | None = None,
    ) -> Trial | None:
        """As `add_trial`, where several heads share a sweep: None where one of them has put the
        config into it already, or has taken the `number` that it was proposed for."""
        row = self._trial_row(sweep_id, model, config, config_hash, train_hash, source)
        return self._put_trial(row, once=True, number=number)

    def _put_trial(
        self, row: dict[str, Any], *, once: bool = False, number: int | None = None
    ) -> Trial | None:
        return self.store.work(
            lambda connection: writes.add_trial(
                connection, row, self._owner, once=once, number=number
            )
        )

    @staticmethod
    def _trial_row(
        sweep_id: str,
        model: str,
        config: Mapping[str, Any],
        config_hash: str,
        train_hash: str,
        source: str,
    ) -> dict[str, Any]:
        return {
            "sweep_id": sweep_id,
            "model_name": model,
            "config": jsonable(config, "config"),
            "config_hash": config_hash,
            "train_hash": train_hash,
            "source": source,
            "created_at": datetime.now(UTC),
        }

    def take_lease(self, sweep_id: str, number: int) -> bool:
        """Become the one head that writes for a trial. False while another living head is."""
        now = datetime.now(UTC)
        return self.store.work(
            lambda connection: writes.take_lease(
                connection, sweep_id, number, self._owner, now, self._grace
            )
        )

    def release_lease(self, sweep_id: str, number: int) -> None:
        """Give a lease back that this process holds."""
        with self.store.write() as connection:
            heads.release(connection, sweep_id, number, self._owner)

    def pulse(self, sweep_id: str) -> Pulse:
        """How many trials a sweep has, and whether it was asked to stop."""
        with self.store.read() as connection:
            return heads.pulse(connection, sweep_id)

    def held_elsewhere(self, sweep_id: str) -> list[int]:
        """Numbers of the trials that other living heads of a sweep train now."""
        now = datetime.now(UTC)
        with self.store.read() as connection:
            return heads.held_elsewhere(connection, sweep_id, self._owner, now, self._grace)

    def steps_of(self, sweep_id: str) -> dict[tuple[int, int], tuple[int, bool]]:
        """{(trial, seed): (last step that was logged, does a run of it go on?)} of a sweep,
        baselines aside."""
        with self.store.read() as connection:
            return heads.steps_of(connection, sweep_id)

    def stop_sweep(self, sweep_id: str) -> Sweep:
        """Ask the heads of a running sweep to stop; they do so within seconds. Raises NotFound."""
        now = datetime.now(UTC)
        return self.store.work(lambda connection: heads.ask_to_stop(connection, sweep_id, now))

    def reopen_sweep(self, sweep_id: str, plan: Mapping[str, Any]) -> Sweep:
        """Become a head of a sweep, whatever became of it; `plan` replaces its record of what was
        asked. Raises NotFound, ConfigError."""
        now, kept = datetime.now(UTC), jsonable(plan, "plan")
        return self.store.work(
            lambda connection: heads.reopen(connection, sweep_id, self._owner, now, kept)
        )

    def get_seeds(self, run_id: str) -> list[Run]:
        """The complete runs of a run's config on the same windows, whatever their seed, by run id;
        `median_seed` says which of them stands for the config. Raises NotFound."""
        with self.store.read() as connection:
            return seeds_of(connection, queries.get_run(connection, run_id))

    def cancel_sweep(self, sweep_id: str, reason: str = "stopped by Ctrl-C") -> Sweep:
        """Close every run of a sweep that this process writes for, and, where no other head goes
        on, the sweep."""
        for run in self.get_runs(sweep_id=sweep_id, state=RunState.RUNNING):
            with self.store.read() as connection:
                mine = writes.is_owned(connection, run.run_id, self._owner)
            if mine:
                self.cancel_run(run.run_id, reason)
        if self.held_elsewhere(sweep_id):
            return self.get_sweep(sweep_id)
        return self.finish_sweep(sweep_id, SweepState.CANCELLED)
