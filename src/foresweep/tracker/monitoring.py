"""What became of forecasts that were made in service, and what a monitor found.

Two tables that only grow, in the order in which they were written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, and_, exists, insert, select

from foresweep.tracker.service import ONCE
from foresweep.tracker.storage import schema
from foresweep.tracker.storage.schema import jsonable, new_id, real
from foresweep.tracker.storage.store import Store

NUMBERS = ("loss", "last_value_loss", "benchmark_loss", "scale", "covered")


class Monitoring:
    """A database's live scores and checks. `Monitoring(tracker.store)`."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def unscored(self, slot: str) -> list[dict[str, Any]]:
        """Forecasts of a slot that nothing has become of yet, in the order they were made. Of
        several by one checkpoint of an item at an origin the first alone is ever scored."""
        made, again = schema.forecasts_made, schema.forecasts_made.alias()
        scored = exists().where(schema.live_scores.c.number == made.c.number)
        twin = exists().where(
            and_(*(again.c[n] == made.c[n] for n in ONCE[:-1]), again.c.number < made.c.number)
        )
        query = select(made).where(made.c.slot == slot, ~scored, ~twin).order_by(made.c.number)
        return self._rows(query)

    def put_scores(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Write down what became of forecasts, by their `number`; how many were not there yet: of
        two monitors at once one writes a row and the other finds it. One transaction, durable when
        it returns. Raises ConfigError for what is no number."""
        table, now = schema.live_scores, datetime.now(UTC)
        ready = [
            {**row, **{n: real(row.get(n), n) for n in NUMBERS}, "scored_at": now} for row in rows
        ]

        def put(connection: Connection) -> int:
            numbers = [row["number"] for row in ready]
            known: set[int] = set()
            for start in range(0, len(numbers), 500):
                some = table.c.number.in_(numbers[start : start + 500])
                known |= set(connection.execute(select(table.c.number).where(some)).scalars())
            fresh = [row for row in ready if row["number"] not in known]
            if fresh:
                connection.execute(insert(table), fresh)
            return len(fresh)

        return self.store.work(put) if ready else 0

    def scores(
        self, slot: str, *, role: str | None = None, manifest: str | None = None
    ) -> list[dict[str, Any]]:
        """What became of a slot's forecasts, in the order it was written down."""
        table = schema.live_scores
        query = select(table).where(table.c.slot == slot).order_by(table.c.score_id)
        asked = {"role": role, "manifest": manifest}
        return self._rows(query.where(*(table.c[k] == v for k, v in asked.items() if v)))

    def last_origin(self, slot: str, role: str, manifest: str) -> str | None:
        """The newest origin (ISO) that a checkpoint in service has forecast from."""
        made = schema.forecasts_made
        query = select(made.c.origin).where(
            made.c.slot == slot, made.c.role == role, made.c.manifest == manifest
        )
        newest = self._rows(query.order_by(made.c.origin.desc()).limit(1))
        return newest[0]["origin"] if newest else None

    def put_check(self, slot: str, state: str, content: Mapping[str, Any]) -> None:
        """Write down what a monitor found. Raises ConfigError for what cannot be stored."""
        table, now = schema.live_checks, datetime.now(UTC)
        key = new_id("check", now)
        row = {"check_key": key, "slot": slot, "state": state, "checked_at": now}
        row["content"] = jsonable(content, "content")

        def put(connection: Connection) -> None:
            if connection.execute(select(table).where(table.c.check_key == key)).first() is None:
                connection.execute(insert(table), row)

        self.store.work(put)

    def checks(self, slot: str, *, limit: int = 1) -> list[dict[str, Any]]:
        """The newest checks of a slot, newest first: slot, state, content, checked_at."""
        table = schema.live_checks
        query = select(table).where(table.c.slot == slot).order_by(table.c.check_id.desc())
        return self._rows(query.limit(limit))

    def _rows(self, query: Any) -> list[dict[str, Any]]:
        with self.store.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]
