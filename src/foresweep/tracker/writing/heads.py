"""What the heads of one sweep share: trials and their numbers, leases, the word to stop.

A head is a process that runs a sweep's trials. Several may share a sweep: each trial has one
lease, a lease one owner, and the database gives out the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    delete,
    func,
    insert,
    select,
    update,
)

from foresweep.errors import NotFound, TrackerError
from foresweep.records import Run, RunState, Sweep, SweepState, Trial
from foresweep.tracker.liveness import Owner, is_gone, this_process
from foresweep.tracker.provenance import storable
from foresweep.tracker.queries.runs import get_sweep
from foresweep.tracker.storage import chain, schema
from foresweep.tracker.storage.schema import jsonable, real, run_of, trial_of
from foresweep.tracker.storage.store import Store, line_of
from foresweep.tracker.writing.steps import refuse_ended

runs, sweeps, trials, leases = schema.runs, schema.sweeps, schema.trials, schema.leases


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a head asks of its sweep again and again."""

    num_trials: int
    stop_asked: bool


class Heads:
    """This process among the heads of a database's sweeps: a part of the tracker."""

    def __init__(self, store: Store, grace: timedelta) -> None:
        self.store, self._grace = store, grace

    def pulse(self, sweep_id: str) -> Pulse:
        """How many trials a sweep has, and whether it was asked to stop: one row, by its key."""
        query = select(sweeps.c.num_trials, sweeps.c.stop_asked_at)
        with self.store.read() as connection:
            row = connection.execute(query.where(sweeps.c.sweep_id == sweep_id)).one()
        return Pulse(row.num_trials, row.stop_asked_at is not None)

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
        row = _trial_row(sweep_id, model, config, config_hash, train_hash, source)
        trial = self.store.work(lambda connection: _add_trial(connection, row))
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
        row = _trial_row(sweep_id, model, config, config_hash, train_hash, source)
        return self.store.work(
            lambda connection: _add_trial(connection, row, once=True, number=number)
        )

    def take_lease(self, sweep_id: str, number: int) -> bool:
        """Become the one head that writes for a trial. False while another living head is."""
        now, owner, lease = datetime.now(UTC), this_process(), _lease(sweep_id, number)

        def take(connection: Connection) -> bool:
            row = connection.execute(select(leases).where(lease)).mappings().first()
            if row is not None:
                if not owner.holds(row) and not self._is_gone(row, now, owner):
                    return False
                connection.execute(delete(leases).where(lease))
            _hold(connection, sweep_id, number, owner, now)
            return True

        return self.store.work(take)

    def release_lease(self, sweep_id: str, number: int) -> None:
        """Give a lease back that this process holds."""
        mine = (leases.c[name] == value for name, value in this_process().as_columns().items())
        with self.store.write() as connection:
            connection.execute(delete(leases).where(_lease(sweep_id, number), *mine))

    def pause(self, run_id: str, *, notes: str, training_time_s: float, duration_s: float) -> Run:
        """Let a running run wait: it has no process any more, and whoever holds its trial's lease,
        which is given back, may let it go on. Times are of all it has had so far. Raises NotFound,
        TrackerError for a run that has ended."""
        values = {
            "state": RunState.WAITING.value,
            "notes": storable(notes),
            "training_time_seconds": real(training_time_s, "training_time_seconds"),
            "duration_seconds": real(duration_s, "duration_seconds"),
        }

        def pause(connection: Connection) -> Run:
            row = _run(connection, run_id)
            refuse_ended(run_id, row["state"])
            connection.execute(update(runs).where(runs.c.run_id == run_id).values(values))
            if row["sweep_id"] is not None:
                mine = (leases.c[n] == v for n, v in this_process().as_columns().items())
                lease = _lease(row["sweep_id"], row["trial_number"])
                connection.execute(delete(leases).where(lease, *mine))
            return run_of({**row, **values})

        return self.store.work(pause)

    def wake(self, run_id: str) -> Run:
        """Let a waiting run go on, written for by this process, which holds its trial's lease.
        Raises NotFound, TrackerError for one that does not wait."""
        values = {
            **this_process().as_columns(),
            "state": RunState.RUNNING.value,
            "heartbeat_at": datetime.now(UTC),
            "notes": None,
        }

        def wake(connection: Connection) -> Run:
            row = _run(connection, run_id)
            done_before = all(row[n] == values[n] for n in ("state", "pid", "heartbeat_at"))
            if row["state"] != RunState.WAITING and not done_before:
                raise TrackerError(f"run {run_id} is {row['state']}: only one that waits goes on")
            connection.execute(update(runs).where(runs.c.run_id == run_id).values(values))
            return run_of({**row, **values})

        return self.store.work(wake)

    def held_elsewhere(self, sweep_id: str) -> list[int]:
        """Numbers of the trials that other living heads of a sweep train now."""
        now, owner = datetime.now(UTC), this_process()
        query = select(leases).where(leases.c.sweep_id == sweep_id).order_by(leases.c.number)
        with self.store.read() as connection:
            return [
                row["number"]
                for row in connection.execute(query).mappings()
                if not owner.holds(row) and not self._is_gone(row, now, owner)
            ]

    def steps_of(self, sweep_id: str) -> dict[tuple[int, int], tuple[int, bool]]:
        """{(trial, seed): (last step that was logged, does a run of it go on?)} of a sweep,
        baselines aside."""
        curves = schema.curves
        trained = and_(curves.c.run_id == runs.c.run_id, curves.c.name.not_like("system/%"))
        query = (
            select(
                runs.c.trial_number,
                runs.c.seed,
                func.max(curves.c.last_step),
                func.count().filter(runs.c.state == RunState.RUNNING.value),
            )
            .select_from(runs.outerjoin(curves, trained))
            .where(runs.c.sweep_id == sweep_id, runs.c.is_baseline.is_(False))
            .where(runs.c.trial_number.is_not(None))
            .group_by(runs.c.trial_number, runs.c.seed)
        )
        with self.store.read() as connection:
            rows = connection.execute(query).all()
        return {(row[0], row[1] or 0): (int(row[2] or 0), row[3] > 0) for row in rows}

    def ask_to_stop(self, sweep_id: str) -> Sweep:
        """Ask the heads of a running sweep to stop; they do so within seconds. Raises NotFound."""
        now = datetime.now(UTC)

        def ask(connection: Connection) -> Sweep:
            found = get_sweep(connection, sweep_id, aside=True).sweep_id
            mine = sweeps.c.sweep_id == found
            running = and_(mine, sweeps.c.state == SweepState.RUNNING.value)
            connection.execute(update(sweeps).where(running).values(stop_asked_at=now))
            return get_sweep(connection, found)

        return self.store.work(ask)

    def reopen(self, sweep_id: str, plan: Mapping[str, Any]) -> Sweep:
        """Become a head of a sweep, whatever became of it; `plan` replaces its record of what was
        asked. Raises NotFound, ConfigError."""
        back = {
            "state": SweepState.RUNNING.value,
            "finished_at": None,
            "stop_asked_at": None,
            "heartbeat_at": datetime.now(UTC),
            "plan": jsonable(plan, "plan"),
            **this_process().as_columns(),
        }

        def reopen(connection: Connection) -> Sweep:
            mine = sweeps.c.sweep_id == get_sweep(connection, sweep_id).sweep_id
            connection.execute(update(sweeps).where(mine).values(back))
            row = connection.execute(select(sweeps).where(mine)).mappings().one()
            chain.append(line_of(connection), chain.entry_of(chain.SWEEP, row))
            return get_sweep(connection, sweep_id)

        return self.store.work(reopen)

    def say(self, sweep_id: str, **facts: Any) -> Sweep:
        """Put what a head knows of its sweep beside the plan, for those who look on: JSON values by
        name. Raises NotFound, ConfigError."""
        more = jsonable(facts, "plan")

        def say(connection: Connection) -> Sweep:
            sweep = get_sweep(connection, sweep_id)
            mine = sweeps.c.sweep_id == sweep.sweep_id
            connection.execute(update(sweeps).where(mine).values(plan={**sweep.plan, **more}))
            row = connection.execute(select(sweeps).where(mine)).mappings().one()
            chain.append(line_of(connection), chain.entry_of(chain.SWEEP, row))
            return get_sweep(connection, sweep_id)

        return self.store.work(say)

    def _is_gone(self, row: Mapping[Any, Any], now: datetime, owner: Owner) -> bool:
        return is_gone(row, now, machine=owner.machine, grace=self._grace)


def _run(connection: Connection, run_id: str) -> RowMapping:
    query = select(runs).where(runs.c.run_id == run_id).with_for_update(key_share=True)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFound(f"no run {run_id!r} in this database")
    return row


def _lease(sweep_id: str, number: int) -> ColumnElement[bool]:
    return and_(leases.c.sweep_id == sweep_id, leases.c.number == number)


def _hold(connection: Connection, sweep_id: str, number: int, owner: Owner, now: datetime) -> None:
    times = {"taken_at": now, "heartbeat_at": now}
    row = {"sweep_id": sweep_id, "number": number, **times, **owner.as_columns()}
    connection.execute(insert(leases), row)


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


def _add_trial(
    connection: Connection, row: dict[str, Any], *, once: bool = False, number: int | None = None
) -> Trial | None:
    """The trial under the sweep's next number; a sweep presumed lost is running again.

    None: the config is in the sweep already and asked for `once`, or another `number` is next.
    """
    if "number" in row and (known := _same_trial(connection, row)) is not None:
        return known  # stored before, its answer was lost
    if once and _is_in_sweep(connection, row["sweep_id"], row["config_hash"]):
        return None
    if number is not None and _next_number(connection, row["sweep_id"]) != number:
        return None
    count = (
        update(sweeps)
        .where(sweeps.c.sweep_id == row["sweep_id"])
        .values(num_trials=sweeps.c.num_trials + 1, heartbeat_at=row["created_at"])
        .returning(sweeps.c.num_trials)
    )
    given = connection.execute(count).scalar()
    if given is None:
        raise NotFound(f"no sweep {row['sweep_id']!r} in this database")
    row["number"] = given
    connection.execute(insert(trials), row)
    _hold(connection, row["sweep_id"], given, this_process(), row["created_at"])
    revive(connection, row["sweep_id"])
    chain.append(line_of(connection), chain.entry_of(chain.TRIAL, row))
    return trial_of(row)


def _is_in_sweep(connection: Connection, sweep_id: str, config_hash: str) -> bool:
    same = and_(trials.c.sweep_id == sweep_id, trials.c.config_hash == config_hash)
    return connection.execute(select(trials.c.number).where(same)).first() is not None


def _next_number(connection: Connection, sweep_id: str) -> int:
    query = select(sweeps.c.num_trials).where(sweeps.c.sweep_id == sweep_id)
    return int(connection.execute(query).scalar() or 0) + 1


def _same_trial(connection: Connection, row: Mapping[str, Any]) -> Trial | None:
    same = (trials.c[name] == row[name] for name in ("sweep_id", "number", "created_at"))
    found = connection.execute(select(trials).where(*same)).mappings().first()
    return None if found is None else trial_of(found)


def revive(connection: Connection, sweep_id: str) -> None:
    """A sweep presumed lost that is written to was not."""
    lost = and_(sweeps.c.sweep_id == sweep_id, sweeps.c.state == SweepState.LOST.value)
    back = {"state": SweepState.RUNNING.value, "finished_at": None}
    connection.execute(update(sweeps).where(lost).values(back))
