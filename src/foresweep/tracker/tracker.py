"""Tracker: the whole of it: what Recorder writes about runs, and here sweeps and trials.

Safe for threads and for many processes on one database. Finished runs are immutable but for
notes, tags and scores added later; a lost run is only presumed dead and may still finish.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, update

from foresweep.records import Run, RunState, Sweep, SweepState, Trial
from foresweep.tracker import heads, queries, schema, writes
from foresweep.tracker.creation import NewRun
from foresweep.tracker.heads import Pulse
from foresweep.tracker.judging import Bench
from foresweep.tracker.liveness import Heartbeat
from foresweep.tracker.redaction import redact
from foresweep.tracker.rows import new_id
from foresweep.tracker.schema import jsonable
from foresweep.tracker.seeds import seeds_of
from foresweep.tracker.store import line_of

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
        `seeds.median_seed` says which of them stands for the config. Raises NotFound."""
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
