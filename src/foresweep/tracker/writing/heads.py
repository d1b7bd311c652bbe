"""What the heads of one sweep know of each other, and how a sweep is stopped and opened again.

A head is a process that runs a sweep's trials. Several may share a sweep: each trial has one
lease, a lease one owner, and the database gives out the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, delete, func, select, update

from foresweep.records import RunState, Sweep, SweepState
from foresweep.tracker.liveness import Owner, is_gone
from foresweep.tracker.queries import runs as queries
from foresweep.tracker.storage import schema

runs, sweeps, leases = schema.runs, schema.sweeps, schema.leases


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a head asks of its sweep again and again."""

    num_trials: int
    stop_asked: bool


def pulse(connection: Connection, sweep_id: str) -> Pulse:
    """One row, by its key."""
    query = select(sweeps.c.num_trials, sweeps.c.stop_asked_at)
    row = connection.execute(query.where(sweeps.c.sweep_id == sweep_id)).one()
    return Pulse(row.num_trials, row.stop_asked_at is not None)


def held_elsewhere(
    connection: Connection, sweep_id: str, owner: Owner, now: datetime, grace: timedelta
) -> list[int]:
    """Numbers of the trials whose leases living other heads hold."""
    query = select(leases).where(leases.c.sweep_id == sweep_id).order_by(leases.c.number)
    return [
        row["number"]
        for row in connection.execute(query).mappings()
        if not _is_of(row, owner) and not is_gone(row, now, machine=owner.machine, grace=grace)
    ]


def release(connection: Connection, sweep_id: str, number: int, owner: Owner) -> None:
    """Give a lease of one's own back."""
    mine = (leases.c[name] == value for name, value in owner.as_columns().items())
    held = and_(leases.c.sweep_id == sweep_id, leases.c.number == number)
    connection.execute(delete(leases).where(held, *mine))


def ask_to_stop(connection: Connection, sweep_id: str, now: datetime) -> Sweep:
    """Leave word for the heads of a sweep. Raises NotFound."""
    sweep = queries.get_sweep(connection, sweep_id)
    running = and_(sweeps.c.sweep_id == sweep.sweep_id, sweeps.c.state == SweepState.RUNNING.value)
    connection.execute(update(sweeps).where(running).values(stop_asked_at=now))
    return queries.get_sweep(connection, sweep.sweep_id)


def reopen(
    connection: Connection, sweep_id: str, owner: Owner, now: datetime, plan: Mapping[str, Any]
) -> Sweep:
    """The sweep, running again with this process as a head of it. Raises NotFound."""
    sweep = queries.get_sweep(connection, sweep_id)
    back = {
        "state": SweepState.RUNNING.value,
        "finished_at": None,
        "stop_asked_at": None,
        "heartbeat_at": now,
        "plan": plan,
        **owner.as_columns(),
    }
    connection.execute(update(sweeps).where(sweeps.c.sweep_id == sweep.sweep_id).values(back))
    return queries.get_sweep(connection, sweep.sweep_id)


def steps_of(connection: Connection, sweep_id: str) -> dict[tuple[int, int], tuple[int, bool]]:
    """{(trial, seed): (last step that was logged, does a run of it go on?)}, baselines aside."""
    curves = schema.curves
    query = (
        select(
            runs.c.trial_number,
            runs.c.seed,
            func.max(curves.c.last_step),
            func.count().filter(runs.c.state == RunState.RUNNING.value),
        )
        .select_from(
            runs.outerjoin(
                curves, and_(curves.c.run_id == runs.c.run_id, curves.c.name.not_like("system/%"))
            )
        )
        .where(runs.c.sweep_id == sweep_id, runs.c.is_baseline.is_(False))
        .where(runs.c.trial_number.is_not(None))
        .group_by(runs.c.trial_number, runs.c.seed)
    )
    return {
        (row[0], row[1] or 0): (int(row[2] or 0), row[3] > 0) for row in connection.execute(query)
    }


def _is_of(row: Mapping[Any, Any], owner: Owner) -> bool:
    return all(row[name] == value for name, value in owner.as_columns().items())
