"""Reader: every question that can be asked of the database. Test scores come out by one door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select, update

from foresweep.errors import NotFound, UsageError
from foresweep.records import Curve, Run, Score, Sweep, Trial, is_sealed, split_name
from foresweep.settings import load_settings
from foresweep.tracker import queries, schema
from foresweep.tracker.filters import Filters
from foresweep.tracker.looks import record_look
from foresweep.tracker.ranking import Aim, aim_of, best_runs
from foresweep.tracker.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from foresweep.tracker.impact import HyperparamImpact

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
        from foresweep.tracker.tables import comparison

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
        from foresweep.tracker.tables import impact

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
        from foresweep.tracker.impact import hyperparam_impact

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
