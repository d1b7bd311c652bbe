"""What the pages ask: a page of a ranking, counts, progress.

Each is answered by an index, so that a hundred thousand runs are no more work than a hundred.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, func, select, text

from foresweep.records import Run, RunState, split_name
from foresweep.tracker.queries.ranking import Ranking, best_query
from foresweep.tracker.queries.runs import refuse_test, standing
from foresweep.tracker.storage.schema import curves, run_of, runs, scores


@dataclass(frozen=True, slots=True)
class Beat:
    """A run that is said to run, and when its process was last heard of."""

    run_id: str
    sweep_id: str | None
    heartbeat_at: datetime | None
    last_step: int


@dataclass(frozen=True, slots=True)
class Progress:
    """A run as the picture of a search needs it; the score is the objective's, on tune."""

    run_id: str
    number: int
    model_name: str
    state: str
    is_baseline: bool
    score: float | None
    started_at: datetime | None


def ranked_page(
    connection: Connection, *, metric: str, fingerprint: str, limit: int, offset: int
) -> list[Run]:
    """Trained, complete runs of one fingerprint by a full metric name, from place `offset` on; of a
    config with several seeds the one that stands for it. Raises UsageError for test."""
    refuse_test(metric)
    wanted = best_query(Ranking(metric, require_checkpoint=False), fingerprint, offset + limit)
    ids = [row.run_id for row in connection.execute(wanted)][offset:]
    found = {r.run_id: r for r in _by_id(connection, ids)}
    ordered = [found[i] for i in ids if found[i].reproduces is None]
    return standing(connection, ordered, metric)


def best_of_sweep(
    connection: Connection, *, metric: str, fingerprint: str, sweep_id: str
) -> Run | None:
    """The best trained run of one sweep; None where none has the score. Raises UsageError for
    test."""
    refuse_test(metric)
    part, name = split_name(metric)
    query = (
        select(runs)
        .join(scores, scores.c.run_id == runs.c.run_id)
        .where(
            scores.c.metric == name,
            scores.c.part == part,
            scores.c.fingerprint == fingerprint,
            scores.c.state == RunState.COMPLETE.value,
            scores.c.is_baseline.is_(False),
            scores.c.value.is_not(None),
            scores.c.sweep_id == sweep_id,
        )
        .order_by(Ranking(metric).order(scores.c.value), scores.c.run_id)
    )
    row = connection.execute(query.limit(1)).mappings().first()
    return None if row is None else run_of(row)


def baselines(connection: Connection, *, metric: str, fingerprint: str) -> list[Run]:
    """Every complete baseline that was scored on these windows, oldest first."""
    part, name = split_name(metric)
    asked = select(scores.c.run_id).where(
        scores.c.metric == name,
        scores.c.part == part,
        scores.c.fingerprint == fingerprint,
        scores.c.state == RunState.COMPLETE.value,
        scores.c.is_baseline.is_(True),
    )
    return _by_id(connection, list(connection.execute(asked).scalars()))


def count_ranked(connection: Connection, *, metric: str, fingerprint: str) -> int:
    """How many trained runs `ranked_page` goes through, other seeds counted."""
    part, name = split_name(metric)
    asked = (
        scores.c.metric == name,
        scores.c.part == part,
        scores.c.fingerprint == fingerprint,
        scores.c.state == RunState.COMPLETE.value,
        scores.c.is_baseline.is_(False),
        scores.c.value.is_not(None),
    )
    return int(connection.execute(select(func.count()).where(*asked)).scalar_one())


def states_of(connection: Connection, sweep_id: str) -> Mapping[str, int]:
    """How many runs of a sweep are in each state, hidden ones too."""
    every = connection.execute(select(func.count()).where(runs.c.sweep_id == sweep_id)).scalar_one()
    others = [s.value for s in RunState if s is not RunState.COMPLETE]
    rows = connection.execute(
        select(runs.c.state, func.count())
        .where(runs.c.state.in_(others), _is_of(sweep_id))
        .group_by(runs.c.state)
    ).all()
    found = Counter({state: int(count) for state, count in rows})
    return Counter({RunState.COMPLETE.value: int(every) - found.total()}) + found


def ended_badly(connection: Connection, sweep_id: str, *, limit: int) -> list[Run]:
    """The newest runs of a sweep that failed, were lost, pruned or cancelled."""
    bad = [s.value for s in RunState if s.is_final and s is not RunState.COMPLETE]
    newest = (
        select(runs.c.run_id, runs.c.created_at)
        .where(runs.c.state.in_(bad), _is_of(sweep_id), runs.c.hidden_at.is_(None))
        .order_by(runs.c.created_at.desc(), runs.c.run_id.desc())
        .limit(limit)
    )
    return _by_id(connection, [row.run_id for row in connection.execute(newest)])[::-1]


def _is_of(sweep_id: str) -> ColumnElement[bool]:
    """Is a run of this sweep? Worded so that the index of states is gone through, not that of
    sweeps: those that are not complete are few, and a large sweep's runs are all of its file."""
    return func.coalesce(runs.c.sweep_id, "") == sweep_id


def beats(connection: Connection) -> list[Beat]:
    """Every run that is said to run, newest first."""
    running = runs.c.state == RunState.RUNNING.value  # sorted here: there, it may read every run
    query = select(runs.c.run_id, runs.c.sweep_id, runs.c.heartbeat_at).where(running)
    found = sorted(connection.execute(query).all(), key=lambda row: row.run_id, reverse=True)
    steps = select(curves.c.run_id, func.max(curves.c.last_step)).group_by(curves.c.run_id)
    mine = steps.where(curves.c.run_id.in_([row.run_id for row in found]))
    last = {row[0]: row[1] for row in connection.execute(mine)} if found else {}
    return [Beat(r.run_id, r.sweep_id, r.heartbeat_at, last.get(r.run_id, 0)) for r in found]


def progress(connection: Connection, sweep_id: str) -> list[Progress]:
    """The runs of a sweep that ended or run, by trial."""
    query = (
        select(
            runs.c.run_id,
            runs.c.trial_number,
            runs.c.model_name,
            runs.c.state,
            runs.c.is_baseline,
            runs.c.objective_score,
            runs.c.started_at,
        )
        .where(runs.c.sweep_id == sweep_id, runs.c.trial_number.is_not(None))
        .order_by(runs.c.trial_number)
    )
    return [Progress(*row) for row in connection.execute(query)]


def stamp(connection: Connection) -> object:
    """A value that differs after anything was written, of a PostgreSQL server: the place in its
    write-ahead log, which costs nothing to ask for."""
    ask = "pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn()"
    return connection.execute(
        text(f"SELECT CAST(CASE WHEN pg_is_in_recovery() THEN {ask} END AS text)")
    ).scalar()


def _by_id(connection: Connection, ids: list[str]) -> list[Run]:
    query = select(runs).where(runs.c.run_id.in_(ids)).order_by(runs.c.created_at)
    return [run_of(row) for row in connection.execute(query).mappings()]
