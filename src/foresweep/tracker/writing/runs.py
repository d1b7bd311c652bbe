"""New runs, their ends and all else the tracker writes, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, delete, insert, select, update

from foresweep.errors import ConfigError, NotFound, TrackerError
from foresweep.records import Run, RunState, SweepState, split_name
from foresweep.tracker.liveness import is_gone
from foresweep.tracker.provenance import Environment, storable, this_user
from foresweep.tracker.queries import runs as queries
from foresweep.tracker.storage import chain, schema
from foresweep.tracker.storage.line import Line
from foresweep.tracker.storage.schema import (
    Instant,
    Json,
    cells_of,
    instant_text,
    json_text,
    jsonable,
    new_id,
    open_metrics,
    real,
    run_of,
    score_rows,
    sound_name,
)
from foresweep.tracker.storage.store import Store, line_of
from foresweep.tracker.writing.heads import revive
from foresweep.tracker.writing.steps import refuse_ended

# New runs with their scores, below SQLAlchemy: one by one, and many at once.


_ENCODERS: dict[type, Callable[[Any], Any]] = {Json: json_text, Instant: instant_text}
_RUN = tuple((c.name, _ENCODERS.get(type(c.type))) for c in schema.runs.columns)
_RUN_COLUMNS = tuple(name for name, _ in _RUN)
_SCORE_COLUMNS = tuple(c.name for c in schema.scores.columns)
_INSERT_RUN = (
    f"INSERT INTO runs ({', '.join(_RUN_COLUMNS)})"
    f" VALUES ({', '.join('?' * len(_RUN_COLUMNS))})"
    " ON CONFLICT (run_id) DO NOTHING RETURNING run_id"
)
_INSERT_SCORE = (
    f"INSERT INTO scores ({', '.join(_SCORE_COLUMNS)})"
    f" VALUES ({', '.join('?' * len(_SCORE_COLUMNS))})"
)
_INSERT_SCORES_AT_ONCE = (
    "INSERT INTO scores (run_id, part, metric, value, model_name, state, is_baseline,"
    " has_checkpoint, fingerprint, sweep_id)"
    " SELECT ?, part, metric, value, ?, ?, ?, ?, fingerprint, ?"
    " FROM unnest(?::text[], ?::text[], ?::float8[], ?::text[])"
    " AS s (part, metric, value, fingerprint)"
)
_REVIVE = (  # a sweep presumed lost that is written to was not
    "UPDATE sweeps SET state = 'running', finished_at = NULL WHERE sweep_id = ? AND state = 'lost'"
)
_OWN = "SELECT created_at, pid_start FROM runs WHERE run_id = ?"


@dataclass(frozen=True, slots=True)
class NewRun:
    """A finished run for `Tracker.log_runs`."""

    model_name: str
    hyperparams: Mapping[str, Any]
    metrics: Mapping[str, float]
    checkpoint_path: str | None = None
    training_time_seconds: float | None = None
    notes: str | None = None


def add_run(line: Line, row: dict[str, Any], numbers: Mapping[str, float | None]) -> None:
    """The run under a new id, with its scores where it has some already. Called again with the
    same row after its answer was lost, it finds its own work and leaves it."""
    if row["run_id"] is not None and _is_there(line, row):
        return
    row["run_id"] = new_id(row["model_name"], row["created_at"])
    while not _insert(line, row, numbers):  # another run of this moment drew the same id
        row["run_id"] = new_id(row["model_name"], row["created_at"])


def add_runs(
    line: Line, pairs: Sequence[tuple[dict[str, Any], Mapping[str, float | None]]]
) -> list[str]:
    """Many runs, in the same unit of work; their ids."""
    if pairs[0][0]["run_id"] is not None and _is_there(line, pairs[0][0]):
        return [row["run_id"] for row, _ in pairs]  # stored before, the answer was lost
    taken: set[str] = set()
    for row, numbers in pairs:
        row["run_id"] = new_id(row["model_name"], row["created_at"])
        while row["run_id"] in taken or _is_taken(line, row["run_id"]):
            row["run_id"] = new_id(row["model_name"], row["created_at"])
        taken.add(row["run_id"])
        _complete(row, numbers)
    line.insert_many("runs", _RUN_COLUMNS, [_encoded(row) for row, _ in pairs])
    scores = (score for row, numbers in pairs for score in score_rows(row, numbers))
    insert_scores(line, scores)
    ended = [(row, numbers) for row, numbers in pairs if row["state"] in chain.ENDED]
    entries = (chain.entry_of(chain.RUN, row, score_rows(row, n)) for row, n in ended)
    chain.append(line, *entries)
    return [row["run_id"] for row, _ in pairs]


def insert_scores(line: Line, scores: Iterable[Mapping[str, Any]]) -> None:
    """Rows of the scores table."""
    rows = [tuple(score[name] for name in _SCORE_COLUMNS) for score in scores]
    if rows:
        line.insert_many("scores", _SCORE_COLUMNS, rows)


def _insert(line: Line, row: dict[str, Any], numbers: Mapping[str, float | None]) -> bool:
    """False where the id is taken."""
    _complete(row, numbers)
    if line.execute(_INSERT_RUN, _encoded(row)).fetchone() is None:
        return False
    if row["sweep_id"] is not None:
        line.execute(_REVIVE, (row["sweep_id"],))
    rows = score_rows(row, numbers)
    if rows and line.is_postgres:
        _scores_at_once(line, row, rows)
    elif rows:
        line.executemany(_INSERT_SCORE, [tuple(r[n] for n in _SCORE_COLUMNS) for r in rows])
    if row["state"] in chain.ENDED:
        chain.append(line, chain.entry_of(chain.RUN, row, rows))
    return True


def _scores_at_once(line: Line, row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """A run's scores in one statement: each costs a way to the server."""
    varying = [[r[name] for r in rows] for name in ("part", "metric", "value", "fingerprint")]
    fixed = [rows[0][name] for name in ("model_name", "state", "is_baseline", "has_checkpoint")]
    line.execute(_INSERT_SCORES_AT_ONCE, (row["run_id"], *fixed, row["sweep_id"], *varying))


def _complete(row: dict[str, Any], numbers: Mapping[str, float | None]) -> None:
    """What follows from the rest of the row."""
    row["fingerprint"] = cells_of(row["fingerprints"], "val")
    row["metrics"] = open_metrics(numbers)


def _encoded(row: Mapping[str, Any]) -> tuple[Any, ...]:
    get = row.get
    return tuple(get(name) if encode is None else encode(get(name)) for name, encode in _RUN)


def _is_taken(line: Line, run_id: str) -> bool:
    return line.execute(_OWN, (run_id,)).fetchone() is not None


def _is_there(line: Line, row: Mapping[str, Any]) -> bool:
    """Is it this very run that stands under its id?"""
    found = line.execute(_OWN, (row["run_id"],)).fetchone()
    mine = instant_text(row["created_at"]), row.get("pid_start")
    return found is not None and tuple(found) == mine


# What the tracker's calls write, each inside the caller's transaction.


runs, sweeps, trials, leases = schema.runs, schema.sweeps, schema.trials, schema.leases


def put_environment(line: Line, environment_id: str, found: Environment) -> None:
    """An environment on record, once."""
    sql = "INSERT INTO environments (environment_id, content) VALUES (?, ?)"
    values = environment_id, schema.json_text(found.as_dict())
    line.execute(f"{sql} ON CONFLICT (environment_id) DO NOTHING", values)


def new_run(
    model: str,
    hyperparams: Mapping[str, Any],
    now: datetime,
    *,
    source: str,
    is_baseline: bool | None = None,
) -> dict[str, Any]:
    """A run's row with nothing known but its config. Raises ConfigError."""
    if not isinstance(hyperparams, Mapping):
        raise ConfigError(f"hyperparams must be a mapping, not {hyperparams!r}")
    return dict.fromkeys(runs.columns.keys()) | {
        "model_name": sound_name(model),
        "hyperparams": jsonable(hyperparams, "hyperparams"),
        "created_at": now,
        "started_at": now,
        "is_baseline": _is_baseline(model) if is_baseline is None else is_baseline,
        "source": source,
        "attempt": 1,
        "fingerprints": {},
        "resources": {},
        "tags": [],
        **dict.fromkeys(("config_hash", "train_hash", "panel_hash", "task_hash"), ""),
    }


def logged_run(new: NewRun) -> dict[str, Any]:
    """The row of a finished run. Raises ConfigError."""
    now = datetime.now(UTC)
    return new_run(new.model_name, new.hyperparams, now, source="logged") | {
        "state": RunState.COMPLETE.value,
        "finished_at": now,
        "checkpoint_path": path_text(new.checkpoint_path),
        "training_time_seconds": real(new.training_time_seconds, "training_time_seconds"),
        "notes": stored_text(new.notes, "notes"),
    }


def path_text(path: str | Path | None) -> str | None:
    """A path as it is stored: an empty one is none."""
    return None if path is None or not str(path) else str(path)


def stored_text(text: str | None, name: str) -> str | None:
    """A text without secrets, or None. Raises ConfigError for what is no text."""
    if text is not None and not isinstance(text, str):
        raise ConfigError(f"{name} is {text!r}, not a text")
    return None if text is None else storable(text)


def _is_baseline(model: str) -> bool:
    from foresweep.models.registry import BASELINES

    return model in BASELINES


def insert_run(
    connection: Connection, row: dict[str, Any], numbers: Mapping[str, float | None]
) -> None:
    """A whole row of runs with its score rows. Raises ConfigError where the id is taken."""
    if not _insert(line_of(connection), row, numbers):
        raise ConfigError(f"there is a run {row['run_id']!r} already")


def require_unfinished(connection: Connection, run_id: str) -> RowMapping:
    """The row of a run that may still be written to: running, waiting or presumed lost.

    Raises NotFound, TrackerError.
    """
    row = _row(connection, run_id, lock=True)
    refuse_ended(run_id, row["state"])
    return row


def _row(connection: Connection, run_id: str, *, lock: bool = False) -> RowMapping:
    query = select(runs).where(runs.c.run_id == run_id)
    if lock:  # steps are logged by writers that take no turns with this one
        query = query.with_for_update(key_share=True)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFound(f"no run {run_id!r} in this database")
    return row


def beat(connection: Connection, run_ids: Sequence[str], now: datetime) -> None:
    """Mark runs, their sweeps and leases as alive at `now`."""
    alive = runs.c.run_id.in_(run_ids)
    states = (RunState.RUNNING.value, RunState.LOST.value)
    connection.execute(
        update(runs)
        .where(alive, runs.c.state.in_(states))
        .values(heartbeat_at=now, state=RunState.RUNNING.value, finished_at=None, error=None)
    )
    query = select(runs.c.sweep_id, runs.c.trial_number).where(alive)
    for sweep_id, number in connection.execute(query).all():
        held = and_(leases.c.sweep_id == sweep_id, leases.c.number == number)
        connection.execute(update(leases).where(held).values(heartbeat_at=now))
        mine = sweeps.c.sweep_id == sweep_id
        connection.execute(update(sweeps).where(mine).values(heartbeat_at=now))
        revive(connection, sweep_id)


def finish_run(
    connection: Connection,
    run_id: str,
    outcome: Mapping[str, Any],
    numbers: Mapping[str, float | None],
) -> Run:
    """The run with its outcome and scores; the lease of its trial is given back.

    Raises NotFound, TrackerError for a run that has ended otherwise.
    """
    there = _row(connection, run_id)
    if (there["state"], there["finished_at"]) == (outcome["state"], outcome["finished_at"]):
        return run_of(there)  # stored before, its answer was lost
    run = require_unfinished(connection, run_id)
    connection.execute(
        update(schema.curves).where(schema.curves.c.run_id == run["run_id"]).values(is_final=True)
    )
    objective = _objective(connection, run["sweep_id"])
    row = {**run, **outcome, "objective_score": numbers.get(f"tune_{objective}")}
    held = and_(leases.c.sweep_id == run["sweep_id"], leases.c.number == run["trial_number"])
    its_own = (leases.c[name] == run[name] for name in ("machine", "pid", "pid_start"))
    connection.execute(delete(leases).where(held, *its_own))  # not that of a head which took over
    ended, rows = _change(connection, row, (*outcome, "objective_score"), numbers)
    if run["state"] == RunState.LOST:  # scores may have been added while it was thought dead
        table = schema.scores
        mine = select(table).where(table.c.run_id == run_id)
        rows = [dict(score) for score in connection.execute(mine).mappings()]
    chain.append(line_of(connection), chain.entry_of(chain.RUN, row, rows))
    return ended


def _objective(connection: Connection, sweep_id: str | None) -> str:
    """The bare name of the sweep's objective, of several the one that ranks; "" outside a sweep."""
    query = select(sweeps.c.objective).where(sweeps.c.sweep_id == sweep_id)
    said = str(connection.execute(query).scalar() or "")
    if "," not in said:
        return said
    from foresweep.metrics import ranked_by

    return ranked_by(said)


def _change(
    connection: Connection,
    row: dict[Any, Any],
    changed: Sequence[str],
    numbers: Mapping[str, float | None],
) -> tuple[Run, list[dict[str, Any]]]:
    """The run with these columns as `row` has them and these scores added: rows for all, which
    are given, too, the open ones in its record."""
    values = {name: row[name] for name in changed}
    values["metrics"] = {**row["metrics"], **open_metrics(numbers)}
    connection.execute(update(runs).where(runs.c.run_id == row["run_id"]).values(values))
    rows = score_rows(row, numbers)
    insert_scores(line_of(connection), rows)
    return run_of({**row, **values}), rows


def add_scores(connection: Connection, run_id: str, numbers: Mapping[str, float | None]) -> Run:
    """The finished run with more scores. Raises NotFound, TrackerError."""
    row = _row(connection, run_id)
    if not RunState(row["state"]).is_final:
        raise TrackerError(f"run {run_id} is {row['state']}: give its scores to finish_run")
    table = schema.scores
    query = select(table.c.part, table.c.metric).where(table.c.run_id == run_id)
    there = {(part, metric) for part, metric in connection.execute(query)}
    for name in numbers:
        if split_name(name) in there:
            raise TrackerError(f"run {run_id} has {name!r} already; a score never changes")
    run, rows = _change(connection, dict(row), (), numbers)
    if rows and row["state"] in chain.ENDED:
        chain.append(line_of(connection), chain.scores_entry(run_id, rows))
    return run


def add_note(connection: Connection, run_id: str, note: str, who: str) -> None:
    _row(connection, run_id)
    row = {"run_id": run_id, "text": storable(note), "who": who or this_user()}
    connection.execute(insert(schema.notes), {**row, "created_at": datetime.now(UTC)})


def add_tag(connection: Connection, run_id: str, tag: str) -> Run:
    tags = list(dict.fromkeys((*_row(connection, run_id)["tags"], tag)))
    connection.execute(update(runs).where(runs.c.run_id == run_id).values(tags=tags))
    return queries.get_run(connection, run_id)


def repair(store: Store, now: datetime, machine: str, grace: timedelta) -> list[str]:
    """Mark running runs and sweeps whose process is gone as lost; the ids of the runs.

    Asks first and writes only where something is stale, so that opening stays cheap.
    """
    with store.read() as connection:
        stale = _stale(connection, now, machine, grace)
    if not any(stale):
        return []
    with store.write() as connection:
        stale_runs, stale_sweeps = _stale(connection, now, machine, grace)
        error = "its process ended without a word"
        connection.execute(
            update(runs)
            .where(runs.c.run_id.in_(stale_runs))
            .where(runs.c.state == RunState.RUNNING.value)
            .values(state=RunState.LOST.value, finished_at=now, error=error)
        )
        connection.execute(
            update(sweeps)
            .where(sweeps.c.sweep_id.in_(stale_sweeps))
            .values(state=SweepState.LOST.value, finished_at=now)
        )
    return stale_runs


def _stale(
    connection: Connection, now: datetime, machine: str, grace: timedelta
) -> tuple[list[str], list[str]]:
    """(run ids, sweep ids) that are `running` though their process is gone. A sweep with a
    living run is alive, whichever process opened it."""
    gone: list[list[str]] = []
    for table, key in ((runs, "run_id"), (sweeps, "sweep_id")):
        columns = (table.c.machine, table.c.pid, table.c.pid_start, table.c.heartbeat_at)
        query = select(table.c[key], *columns).where(table.c.state == "running")
        rows = connection.execute(query).mappings()
        gone.append([r[key] for r in rows if is_gone(r, now, machine=machine, grace=grace)])
    living = select(runs.c.sweep_id).where(
        runs.c.state == RunState.RUNNING.value, runs.c.run_id.not_in(gone[0])
    )
    busy = set(connection.execute(living).scalars())
    return gone[0], [sweep_id for sweep_id in gone[1] if sweep_id not in busy]
