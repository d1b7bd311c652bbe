"""What the tracker's calls write, each inside the caller's transaction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, delete, insert, select, text, update

from foresweep.errors import ConfigError, NotFound, TrackerError
from foresweep.records import Run, RunState, SweepState, Trial, split_name
from foresweep.tracker import queries, schema
from foresweep.tracker.liveness import Owner, is_gone
from foresweep.tracker.provenance import Environment, this_user
from foresweep.tracker.rows import new_id, open_metrics, run_of, score_rows, trial_of
from foresweep.tracker.schema import jsonable
from foresweep.tracker.store import Store

runs, sweeps, trials, leases = schema.runs, schema.sweeps, schema.trials, schema.leases

_POINT = text(
    "INSERT INTO curve_points (run_id, name, step, value, logged_at)"
    " VALUES (:run_id, :name, :step, :value, :logged_at)"
)
_CURVE = text(
    "INSERT INTO curves (run_id, name, num_points, last_step, last,"
    " lowest, lowest_step, highest, highest_step)"
    " VALUES (:run_id, :name, 1, :step, :value, :value, :best_step, :value, :best_step)"
    " ON CONFLICT (run_id, name) DO UPDATE SET"
    " num_points = curves.num_points + 1, last_step = excluded.last_step, last = excluded.last,"
    " lowest_step = CASE WHEN curves.lowest IS NULL OR excluded.lowest < curves.lowest"
    " THEN excluded.lowest_step ELSE curves.lowest_step END,"
    " lowest = CASE WHEN curves.lowest IS NULL OR excluded.lowest < curves.lowest"
    " THEN excluded.lowest ELSE curves.lowest END,"
    " highest_step = CASE WHEN curves.highest IS NULL OR excluded.highest > curves.highest"
    " THEN excluded.highest_step ELSE curves.highest_step END,"
    " highest = CASE WHEN curves.highest IS NULL OR excluded.highest > curves.highest"
    " THEN excluded.highest ELSE curves.highest END"
)


def add_dataset(connection: Connection, content: Mapping[str, Any]) -> str:
    """The id of this content, put on record where it is new."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    table = schema.datasets
    known = select(table.c.dataset_id).where(table.c.dataset_id == digest)
    if connection.execute(known).scalar() is None:
        row = {**content, "dataset_id": digest, "created_at": datetime.now(UTC)}
        connection.execute(insert(table), row)
    return digest


def put_environment(connection: Connection, environment_id: str, found: Environment) -> None:
    """An environment on record, once."""
    table = schema.environments
    known = select(table.c.environment_id).where(table.c.environment_id == environment_id)
    if connection.execute(known).scalar() is None:
        row = {"environment_id": environment_id, "content": found.as_dict()}
        connection.execute(insert(table), row)


def add_trial(connection: Connection, row: dict[str, Any], owner: Owner) -> Trial:
    """The trial under the sweep's next number; a sweep presumed lost is running again."""
    count = (
        update(sweeps)
        .where(sweeps.c.sweep_id == row["sweep_id"])
        .values(num_trials=sweeps.c.num_trials + 1, heartbeat_at=row["created_at"])
        .returning(sweeps.c.num_trials)
    )
    number = connection.execute(count).scalar()
    if number is None:
        raise NotFound(f"no sweep {row['sweep_id']!r} in this database")
    row["number"] = number
    connection.execute(insert(trials), row)
    _hold(connection, row["sweep_id"], number, owner, row["created_at"])
    _revive(connection, [row["sweep_id"]])
    return trial_of(row)


def take_lease(
    connection: Connection,
    sweep_id: str,
    number: int,
    owner: Owner,
    now: datetime,
    grace: timedelta,
) -> bool:
    """Hold a trial's lease, if it is free, ours, or held by a process that is gone."""
    held_by = and_(leases.c.sweep_id == sweep_id, leases.c.number == number)
    row = connection.execute(select(leases).where(held_by)).mappings().first()
    if row is not None:
        ours = all(row[name] == value for name, value in owner.as_columns().items())
        if not ours and not is_gone(row, now, machine=owner.machine, grace=grace):
            return False
        connection.execute(delete(leases).where(held_by))
    _hold(connection, sweep_id, number, owner, now)
    return True


def _hold(connection: Connection, sweep_id: str, number: int, owner: Owner, now: datetime) -> None:
    times = {"taken_at": now, "heartbeat_at": now}
    row = {"sweep_id": sweep_id, "number": number, **times, **owner.as_columns()}
    connection.execute(insert(leases), row)


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
    return {
        "model_name": model,
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
        **dict.fromkeys(("sweep_id", "checkpoint_path")),
    }


def _is_baseline(model: str) -> bool:
    from foresweep.models.registry import BASELINES

    return model in BASELINES


def add_run(
    connection: Connection, row: dict[str, Any], numbers: Mapping[str, float | None]
) -> Run:
    """The run under a new id, with its scores where it has some already."""
    row["run_id"] = new_id(row["model_name"], row["created_at"])
    taken = select(runs.c.run_id)
    while connection.execute(taken.where(runs.c.run_id == row["run_id"])).first():
        row["run_id"] = new_id(row["model_name"], row["created_at"])
    insert_run(connection, row, numbers)
    if row["sweep_id"] is not None:
        _revive(connection, [row["sweep_id"]])
    return run_of(_row(connection, row["run_id"]))


def insert_run(
    connection: Connection, row: dict[str, Any], numbers: Mapping[str, float | None]
) -> None:
    """A whole row of runs with its score rows."""
    row["fingerprint"] = row["fingerprints"].get("val", "")
    row["metrics"] = open_metrics(numbers)
    connection.execute(insert(runs), row)
    if numbers:
        connection.execute(insert(schema.scores), score_rows(row, numbers))


def require_unfinished(connection: Connection, run_id: str) -> RowMapping:
    """The row of a run that may still be written to: running, waiting or presumed lost.

    Raises NotFound, TrackerError.
    """
    row = _row(connection, run_id)
    if RunState(row["state"]).is_final and row["state"] != RunState.LOST:
        raise TrackerError(f"run {run_id} is {row['state']}: it cannot change any more")
    return row


def _row(connection: Connection, run_id: str) -> RowMapping:
    row = connection.execute(select(runs).where(runs.c.run_id == run_id)).mappings().first()
    if row is None:
        raise NotFound(f"no run {run_id!r} in this database")
    return row


def log_points(
    connection: Connection, run_id: str, step: int, numbers: Mapping[str, float | None]
) -> None:
    """One step's points and what they change in the curves' bests."""
    if not numbers:
        return
    curves = schema.curves
    query = select(curves.c.name).where(curves.c.run_id == run_id, curves.c.last_step >= step)
    behind = set(connection.execute(query).scalars()) & set(numbers)
    if behind:  # a resumed run says steps again: forget them, then count anew
        _forget_step(connection, run_id, step, behind)
    now = datetime.now(UTC).timestamp()
    points = [
        {"run_id": run_id, "name": name, "step": step, "value": value, "logged_at": now}
        for name, value in numbers.items()
    ]
    connection.execute(_POINT, points)
    bests = [
        {
            "run_id": run_id,
            "name": point["name"],
            "step": step,
            "value": point["value"],
            "best_step": None if point["value"] is None else step,
        }
        for point in points
        if point["name"] not in behind
    ]
    if bests:
        connection.execute(_CURVE, bests)
    for name in behind:
        _count_anew(connection, run_id, name)


def _forget_step(connection: Connection, run_id: str, step: int, names: set[str]) -> None:
    table = schema.curve_points
    connection.execute(
        delete(table).where(table.c.run_id == run_id, table.c.step == step, table.c.name.in_(names))
    )


def _count_anew(connection: Connection, run_id: str, name: str) -> None:
    """A curve's line from its points."""
    points = queries.get_curve(connection, run_id, name)
    sound = [(value, step) for step, value in points if value == value]
    lowest = min(sound, default=(None, None))
    highest = max(sound, key=lambda p: (p[0], -p[1]), default=(None, None))
    last_step, last = points[-1]
    table = schema.curves
    connection.execute(
        update(table)
        .where(table.c.run_id == run_id, table.c.name == name)
        .values(
            num_points=len(points),
            last_step=last_step,
            last=last if last == last else None,
            lowest=lowest[0],
            lowest_step=lowest[1],
            highest=highest[0],
            highest_step=highest[1],
        )
    )


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
        _revive(connection, [sweep_id])


def _revive(connection: Connection, sweep_ids: Sequence[str]) -> None:
    """A sweep presumed lost that is written to was not."""
    lost = and_(sweeps.c.sweep_id.in_(sweep_ids), sweeps.c.state == SweepState.LOST.value)
    back = {"state": SweepState.RUNNING.value, "finished_at": None}
    connection.execute(update(sweeps).where(lost).values(back))


def finish_run(
    connection: Connection,
    run: Mapping[Any, Any],
    outcome: Mapping[str, Any],
    numbers: Mapping[str, float | None],
) -> Run:
    """The run with its outcome and scores; the lease of its trial is given back."""
    objective = _objective(connection, run["sweep_id"])
    row = {**run, **outcome, "objective_score": numbers.get(f"tune_{objective}")}
    held = and_(leases.c.sweep_id == run["sweep_id"], leases.c.number == run["trial_number"])
    connection.execute(delete(leases).where(held))
    return _change(connection, row, (*outcome, "objective_score"), numbers)


def _objective(connection: Connection, sweep_id: str | None) -> str:
    """The bare name of the sweep's (first) objective, "" outside a sweep."""
    query = select(sweeps.c.objective).where(sweeps.c.sweep_id == sweep_id)
    return str(connection.execute(query).scalar() or "").split(",")[0].strip()


def _change(
    connection: Connection,
    row: dict[Any, Any],
    changed: Sequence[str],
    numbers: Mapping[str, float | None],
) -> Run:
    """The run with these columns as `row` has them and these scores added: rows for all, the
    open ones in its record."""
    values = {name: row[name] for name in changed}
    values["metrics"] = {**row["metrics"], **open_metrics(numbers)}
    connection.execute(update(runs).where(runs.c.run_id == row["run_id"]).values(values))
    if numbers:
        connection.execute(insert(schema.scores), score_rows(row, numbers))
    return run_of({**row, **values})


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
    return _change(connection, dict(row), (), numbers)


def add_note(connection: Connection, run_id: str, note: str, who: str) -> None:
    _row(connection, run_id)
    row = {"run_id": run_id, "text": note, "who": who or this_user()}
    connection.execute(insert(schema.notes), {**row, "created_at": datetime.now(UTC)})


def add_tag(connection: Connection, run_id: str, tag: str) -> Run:
    tags = list(dict.fromkeys((*_row(connection, run_id)["tags"], tag)))
    connection.execute(update(runs).where(runs.c.run_id == run_id).values(tags=tags))
    return queries.get_run(connection, run_id)


def is_owned(connection: Connection, run_id: str, owner: Owner) -> bool:
    """Does this process write for the run?"""
    row = _row(connection, run_id)
    return all(row[name] == value for name, value in owner.as_columns().items())


def repair(store: Store, now: datetime, machine: str, grace: timedelta) -> list[str]:
    """Mark running runs and sweeps whose process is gone as lost; the ids of the runs.

    Asks first and writes only where something is stale, so that opening stays cheap.
    """
    with store.read() as connection:
        found = _stale(connection, now, machine, grace)
    if not any(found):
        return []
    with store.write() as connection:
        stale_runs, stale_sweeps = _stale(connection, now, machine, grace)
        error = "its process ended without a word"
        connection.execute(
            update(runs)
            .where(runs.c.run_id.in_(stale_runs))
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
    found: list[list[str]] = []
    for table, key in ((runs, "run_id"), (sweeps, "sweep_id")):
        columns = (table.c.machine, table.c.pid, table.c.pid_start, table.c.heartbeat_at)
        query = select(table.c[key], *columns).where(table.c.state == "running")
        rows = connection.execute(query).mappings()
        found.append([r[key] for r in rows if is_gone(r, now, machine=machine, grace=grace)])
    living = select(runs.c.sweep_id).where(
        runs.c.state == RunState.RUNNING.value, runs.c.run_id.not_in(found[0])
    )
    busy = set(connection.execute(living).scalars())
    return found[0], [sweep_id for sweep_id in found[1] if sweep_id not in busy]
