"""All reads of runs, sweeps and trials; test scores come from `sealed_scores` alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from datetime import datetime
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    exists,
    func,
    literal_column,
    select,
)

from foresweep.errors import NotFound, UnknownName, UsageError
from foresweep.records import (
    REPRODUCES,
    Run,
    RunState,
    Sweep,
    Trial,
    is_aside,
    is_sealed,
    is_surrogate,
    split_name,
)
from foresweep.tracker.queries.filters import Conditions, condition, order_by
from foresweep.tracker.storage import schema
from foresweep.tracker.storage.schema import cells_of, run_of, runs, sweep_of, trial_of

if TYPE_CHECKING:
    import pandas as pd

Found = TypeVar("Found")
scores, sweeps, trials = schema.scores, schema.sweeps, schema.trials
USUAL_METRICS = (
    *("val_pct_mae", "val_skill", "val_price_mae", "val_r2", "val_pinball", "val_coverage_80"),
    "val_directional_accuracy",
)


def get_run(connection: Connection, run_id: str) -> Run:
    """The run of this id or unique beginning of an id. Raises NotFound."""
    return run_of(_one(connection, runs.c.run_id, run_id, "run"))


def get_sweep(connection: Connection, sweep_id: str, *, aside: bool = False) -> Sweep:
    """The sweep of this id or unique beginning of one; "latest": of those that somebody asked for,
    with `aside` of updates and folds of a walk-forward, too. Raises NotFound."""
    if sweep_id != "latest":
        return sweep_of(_one(connection, sweeps.c.sweep_id, sweep_id, "sweep"))
    real = [s for s in list_sweeps(connection) if not is_surrogate(s.plan)]
    latest = real[0] if aside and real else _latest(real, lambda s: s.plan)
    if latest is None:
        raise NotFound("there is no sweep yet; start one with: foresweep sweep --model toto")
    return latest


def _one(connection: Connection, column: Column[Any], key: str, kind: str) -> Mapping[Any, Any]:
    table = column.table
    exact = connection.execute(select(table).where(column == key)).mappings().first()
    if exact is not None:
        return exact
    near = select(table).where(column.startswith(key, autoescape=True)).order_by(column)
    rows = connection.execute(near.limit(4)).mappings().all() if key else []
    if len(rows) == 1:
        return rows[0]
    if rows:
        some = ", ".join(row[column.name] for row in rows[:3])
        raise NotFound(f"{kind} {key!r} could be {some}{' ...' if len(rows) > 3 else ''}")
    raise NotFound(f"no {kind} {key!r} in this database; list them with: foresweep {kind}s")


def list_sweeps(connection: Connection, *, limit: int | None = None) -> list[Sweep]:
    """Sweeps, newest first."""
    query = newest_first(select(sweeps))
    return [sweep_of(row) for row in connection.execute(query.limit(limit)).mappings()]


def newest_first(query: Select[Any]) -> Select[Any]:
    """A query of sweeps in the order they were put on record, the last one first: by their places
    in the record's chain, which no clock moves. Those that are older than the chain have none, and
    are ordered by when they began."""
    entry = schema.record_chain.alias()
    stands = (entry.c.kind == literal_column("'sweep'")) & (entry.c.key == sweeps.c.sweep_id)
    place = select(entry.c.position).where(stands).limit(1).scalar_subquery()
    return query.order_by(
        func.coalesce(place, -1).desc(), sweeps.c.started_at.desc(), sweeps.c.sweep_id.desc()
    )


def get_trials(connection: Connection, sweep_id: str) -> list[Trial]:
    """The trials of a sweep by number."""
    query = select(trials).where(trials.c.sweep_id == sweep_id).order_by(trials.c.number)
    return [trial_of(row) for row in connection.execute(query).mappings()]


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs, and in what order: all that `Tracker.get_runs` can be asked. An empty field asks
    for nothing; a run without the value that one asks about does not pass."""

    model_name: str | None = None
    min_metric_value: Mapping[str, float] | None = None
    max_metric_value: Mapping[str, float] | None = None
    _: KW_ONLY
    state: str | None = None
    sweep_id: str | None = None
    fingerprint: str | None = None  # of val; "": of no sweep
    tags: Sequence[str] = ()  # all of them
    hyperparams: Mapping[str, Any] | None = None
    """A value, or (least, most) with None for an open end."""
    git_commit: str | None = None  # the beginning of one
    created_after: datetime | None = None
    created_before: datetime | None = None
    where: str | None = None  # in the language of `filters`: "lr < 1e-4 and val_skill > 0"
    include_baselines: bool = True
    include_hidden: bool = False
    sort: str | None = None  # a name or `name:desc`; else by age, oldest first
    limit: int | None = None  # the first ones of `sort`; else the newest ones

    def conditions(self, connection: Connection) -> list[ColumnElement[bool]]:
        """The SQL over `runs`. Raises UsageError, UnknownName."""
        asked: list[ColumnElement[bool]] = []
        for name in ("model_name", "state", "sweep_id", "fingerprint"):
            if (value := getattr(self, name)) is not None:
                asked.append(runs.c[name] == str(value))
        if not self.include_hidden:
            asked.append(runs.c.hidden_at.is_(None))
        if not self.include_baselines:
            asked.append(runs.c.is_baseline.is_(False))
        for name, least in (self.min_metric_value or {}).items():
            asked.append(_score(name).where(scores.c.value >= least).exists())
        for name, most in (self.max_metric_value or {}).items():
            asked.append(_score(name).where(scores.c.value <= most).exists())
        terms = Conditions(connection, "")
        asked += [terms.tagged(tag) for tag in self.tags]
        for name, wanted in (self.hyperparams or {}).items():
            asked += terms.hyperparam_is(name, wanted)
        if self.git_commit is not None:
            asked.append(runs.c.git_commit.startswith(self.git_commit, autoescape=True))
        if self.created_after is not None:
            asked.append(runs.c.created_at >= self.created_after)
        if self.created_before is not None:
            asked.append(runs.c.created_at < self.created_before)
        return asked + ([condition(connection, self.where)] if self.where is not None else [])


Asked = TypeVar("Asked")
Caller = TypeVar("Caller")
Answer = TypeVar("Answer")
P = ParamSpec("P")


def asked_by(
    value: Callable[P, Asked],
) -> Callable[[Callable[[Caller, Asked], Answer]], Callable[Concatenate[Caller, P], Answer]]:
    """Let a method that takes a value be called with the fields of that value."""

    def decorate(ask: Callable[[Caller, Asked], Answer]) -> Callable[..., Answer]:
        @wraps(ask)
        def call(caller: Caller, *fields: P.args, **more: P.kwargs) -> Answer:
            return ask(caller, value(*fields, **more))

        taken = [
            Parameter("self", Parameter.POSITIONAL_ONLY),
            *signature(value).parameters.values(),
        ]
        call.__signature__ = Signature(taken)  # type: ignore[attr-defined]
        return call

    return decorate


def get_runs(connection: Connection, asked: RunQuery) -> list[Run]:
    """The runs of a query. Raises UsageError for a filter on a test score or an expression that
    cannot be read, UnknownName."""
    order = order_by(connection, asked.sort) if asked.sort else []
    newest = (*order, runs.c.created_at.desc(), runs.c.run_id.desc())
    query = select(runs).where(*asked.conditions(connection)).order_by(*newest).limit(asked.limit)
    ordered = [run_of(row) for row in connection.execute(query).mappings()]
    return _with_late_seeds(connection, ordered if asked.sort else ordered[::-1])


def is_original() -> ColumnElement[bool]:
    """Does a run not reproduce another? As a condition."""
    return ~runs.c.source.startswith(f"{REPRODUCES}: ", autoescape=True)


def _score(name: str) -> Select[Any]:
    """This metric's score row of the outer query's run."""
    refuse_test(name)
    part, metric = split_name(name)
    return select(scores.c.run_id).where(
        scores.c.run_id == runs.c.run_id, scores.c.part == part, scores.c.metric == metric
    )


def refuse_test(name: str) -> None:
    """Raises UsageError where a name speaks of the sealed part."""
    if is_sealed(name):
        raise UsageError(
            f"{name!r}: test scores are sealed, nothing is chosen or listed by them; "
            f"use {'val_' + split_name(name)[1]!r}"
        )


def comparison(
    runs: Sequence[Run], metrics: Sequence[str] | None, model_names: Sequence[str] | None
) -> pd.DataFrame:
    """One line a run: run_id, model, timestamp (the day), state, metrics, checkpoint (bool).

    Without `metrics` the usual ones that some run has. A missing score is NaN. Raises UsageError
    for `test_*`, UnknownName for a model that has no run here.
    """
    import pandas as pd

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


def fingerprint_in_use(
    connection: Connection, *, part: str, model_name: str | None, sweep_id: str | None
) -> str:
    """The fingerprint that a ranking of `part` means: of the sweep named, else of the latest
    sweep (in which the model ran, where one is named), else "": the runs of no sweep."""
    if sweep_id is not None:
        return cells_of(get_sweep(connection, sweep_id).fingerprints, part)
    query = newest_first(select(sweeps.c.fingerprints, sweeps.c.plan))
    if model_name is not None:
        ran = exists().where(runs.c.sweep_id == sweeps.c.sweep_id, runs.c.model_name == model_name)
        query = query.where(ran)
    real = (row for row in connection.execute(query) if not is_surrogate(row.plan))
    found = _latest(real, lambda row: row.plan)
    return cells_of(found.fingerprints, part) if found is not None else ""


def _latest(rows: Iterable[Found], plan: Callable[[Found], Mapping[str, Any]]) -> Found | None:
    """Of rows, newest first, the first that somebody asked for, else the first."""
    first = None
    for one in rows:
        if not is_aside(plan(one)):
            return one
        first = one if first is None else first
    return first


def sealed_scores(connection: Connection, run_id: str) -> dict[str, float]:
    """A run's test scores by full name; the caller records the look in the same transaction."""
    query = select(scores).where(scores.c.run_id == run_id, scores.c.part == "test")
    rows = connection.execute(query.order_by(scores.c.metric)).mappings()
    return {
        f"test_{row['metric']}": math.nan if row["value"] is None else row["value"] for row in rows
    }


# Runs of one config that differ in seed: which of them stands for it.
#
# Nothing is marked in the database: the representative follows from the runs themselves. It is the
# run with the (lower) median loss on tune, the one that would be deployed; a lucky seed ranks
# nowhere. Which seeds it is the median of is settled by the first sweep that trained several:
# those that later sweeps add are marked as runs are read (`is_late_seed`), so that every table,
# ensemble and verdict means the same run.


AT_ONCE = 500
"""Hashes a query asks about."""


def by_config(found: Iterable[Run]) -> list[list[Run]]:
    """Runs grouped by config, in the order met; a run without a config hash stands alone, one that
    reproduces another stands nowhere: it would count that seed twice."""
    groups: dict[str, list[Run]] = {}
    for run in found:
        if run.reproduces is None:
            groups.setdefault(run.config_hash or run.run_id, []).append(run)
    return list(groups.values())


def first_round(found: Sequence[Run], begun: Iterable[datetime]) -> list[Run]:
    """Of one config's runs the seeds up to the first round that trained several: what later sweeps
    (`begun`: when sweeps of these windows began) added to it does not choose which seed stands for
    it, or seeds could be added until a lucky one does."""
    starts = sorted(begun)
    ranked = sorted(found, key=lambda run: (run.created_at, run.run_id))
    kept: list[Run] = []
    for run in ranked:
        closed = kept and len({r.seed for r in kept}) > 1
        later = kept and any(kept[-1].created_at < start <= run.created_at for start in starts)
        if closed and later:
            break
        kept.append(run)
    return kept


def _with_late_seeds(connection: Connection, found: list[Run]) -> list[Run]:
    """The same runs, those marked that are late seeds of a config among them."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in found:
        if run.config_hash and run.state is RunState.COMPLETE and not run.is_baseline:
            groups.setdefault((run.fingerprint, run.config_hash), []).append(run)
    several = [
        (fingerprint, kept)
        for (fingerprint, _), group in groups.items()
        if len({r.seed for r in group}) > 1
        for kept in by_config(group)
    ]
    if not several:
        return found
    begun: dict[str, list[datetime]] = {}
    for sweep in list_sweeps(connection):
        begun.setdefault(sweep.fingerprints.get("val", ""), []).append(sweep.started_at)
    late: set[str] = set()
    for fingerprint, group in several:
        settled = {run.run_id for run in first_round(group, begun.get(fingerprint, ()))}
        late |= {run.run_id for run in group} - settled
    return [replace(run, is_late_seed=True) if run.run_id in late else run for run in found]


def median_seed(found: Sequence[Run], metric: str) -> Run:
    """The run with the (lower) median loss on tune by a metric's bare name, late seeds aside; ties
    go to the smaller run id. A run without that score counts as the worst."""
    from foresweep.metrics import METRICS

    def badness(run: Run) -> tuple[float, str]:
        score = run.score(f"tune_{metric}")
        return (math.inf if score is None else METRICS[metric].badness(score)), run.run_id

    settled = [run for run in found if not run.is_late_seed]
    ranked = sorted(settled or found, key=badness)
    return ranked[(len(ranked) - 1) // 2]


def seeds_of(connection: Connection, run: Run) -> list[Run]:
    """The complete runs of a run's config on the same windows, by run id: itself alone where it has
    no config hash, and itself or not by its own state."""
    if not run.config_hash:
        return [run] if run.state is RunState.COMPLETE else []
    return _complete(connection, [run])


def standing(connection: Connection, found: Sequence[Run], metric: str) -> list[Run]:
    """Those of complete runs of one fingerprint, in their order, that stand for their configs by a
    metric's full name. Baselines and runs without a config hash stand for themselves, a run that
    reproduces another for nothing."""
    from foresweep.metrics import METRICS

    bare = split_name(metric)[1]
    seeded = _with_seeds(connection, found) if bare in METRICS else set()
    asked = [run for run in found if run.config_hash in seeded]
    groups = by_config(_complete(connection, asked)) if asked else []
    chosen = {group[0].config_hash: median_seed(group, bare).run_id for group in groups}
    return [
        run
        for run in found
        if run.reproduces is None and chosen.get(run.config_hash, run.run_id) == run.run_id
    ]


def _with_seeds(connection: Connection, found: Sequence[Run]) -> set[str]:
    """The config hashes of these runs that more than one run has, whatever became of it."""
    trained = [run for run in found if run.config_hash and not run.is_baseline]
    counted: Counter[str] = Counter()
    for k in range(0, len(trained), AT_ONCE):
        hashes = {run.train_hash for run in trained[k : k + AT_ONCE]}
        query = select(runs.c.config_hash).where(runs.c.train_hash.in_(hashes))
        counted.update(connection.execute(query).scalars())
    return {config for config, number in counted.items() if number > 1}


def _complete(connection: Connection, found: Sequence[Run]) -> list[Run]:
    """Every complete run of these runs' configs on their windows, by run id, hidden ones and
    reproductions aside.

    The database looks train hashes up, which is an index's work, and the rest is sifted here: told
    more, SQLite may choose to read every complete run instead.
    """
    same = {(run.config_hash, run.fingerprint) for run in found}
    rows: dict[str, Run] = {}
    for k in range(0, len(found), AT_ONCE):
        hashes = {run.train_hash for run in found[k : k + AT_ONCE]}
        query = select(runs).where(runs.c.train_hash.in_(hashes))
        for row in connection.execute(query).mappings():
            shown = row["state"] == RunState.COMPLETE.value and row["hidden_at"] is None
            if shown and (row["config_hash"], row["fingerprint"]) in same:
                rows[row["run_id"]] = run_of(row)
    known = [run for _, run in sorted(rows.items()) if run.reproduces is None]
    return _with_late_seeds(connection, known)
