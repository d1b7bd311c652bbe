"""What was put in service, and every forecast that was made there: two tables that only grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from foresweep.errors import NotFound, TrackerError
from foresweep.tracker.provenance import this_user
from foresweep.tracker.queries import runs as queries
from foresweep.tracker.storage import chain, schema
from foresweep.tracker.storage.schema import instant_text, jsonable, new_id, real, whole
from foresweep.tracker.storage.store import Store, line_of

PROMOTE, ROLLBACK, SHADOW, RETIRE = "promote", "rollback", "shadow", "retire"
EVIDENCE = "promoted_by"
"""Key of an entry's content, and of a checkpoint's card: what put it in service where that was
neither a verdict nor force."""
CHAMPION = "champion"
FORECASTS = "forecasts_made"
"""Name of the chain of forecasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of a slot's history: what was put in service, or taken out, when, by whom and why."""

    entry_id: int
    slot: str
    action: str  # promote, rollback, shadow, retire
    run_id: str  # what is in service after it; of retire: what was taken out
    checkpoint_path: str
    manifest: str  # hash of the checkpoint's list of files
    verdict_id: int | None  # that allowed it
    reason: str | None  # where it was forced
    content: Mapping[str, Any]  # licence, refit, what it replaced, evidence of another kind
    who: str
    made_at: datetime

    @property
    def why(self) -> str:
        """What put it there, in words: the reason of force or of a rollback, an update's or
        a shadow's own comparison, or its verdict; "" where nobody said."""
        if self.reason:
            return f"forced: {self.reason}" if self.action == PROMOTE else self.reason
        if evidence := self.content.get(EVIDENCE):
            return str(evidence["words"])
        return "" if self.verdict_id is None else f"verdict {self.verdict_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """What is in service in a slot."""

    name: str
    champion: Entry | None
    before: tuple[Entry, ...] = ()  # champions that rollback returns to, the last one first
    shadows: tuple[Entry, ...] = ()
    since: datetime | None = None  # when the champion was put there, by a rollback too
    last_id: int = 0  # of the slot's newest entry: what a caller has seen
    history: tuple[Entry, ...] = field(default=(), repr=False)  # oldest first

    @property
    def pinned(self) -> tuple[Entry, ...]:
        """Whose checkpoints are needed: the champion, the one before it, the shadows."""
        own = () if self.champion is None else (self.champion,)
        return (*own, *self.before[:1], *self.shadows)


class Service:
    """A database's slots. `Service(tracker.store)`."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def slots(self) -> tuple[Slot, ...]:
        """Every slot that ever had a champion or a shadow, by name."""
        with self.store.read() as connection:
            names = select(schema.champions.c.slot).distinct().order_by(schema.champions.c.slot)
            return tuple(_slot(connection, name) for name in connection.execute(names).scalars())

    def slot(self, name: str) -> Slot:
        """A slot; an empty one where nothing was ever put into it."""
        with self.store.read() as connection:
            return _slot(connection, name)

    def change(
        self,
        slot: str,
        action: str,
        *,
        run_id: str | None = None,
        checkpoint_path: str = "",
        manifest: str = "",
        verdict_id: int | None = None,
        reason: str | None = None,
        content: Mapping[str, Any] | None = None,
        who: str = "",
        seen: int | None = None,
    ) -> Slot:
        """Put a run in service (promote, shadow), return to the champion before (rollback), or take
        a shadow out (retire); the slot as it is then. One transaction: of two calls at once one
        comes first.

        `seen`: the `last_id` that the caller decided upon; where the slot has moved on since, it is
        refused. Raises NotFound, TrackerError.
        """
        table, now = schema.champions, datetime.now(UTC)
        key = new_id(action, now)
        mine = select(table.c.entry_id).where(table.c.entry_key == key)

        def put(connection: Connection) -> Slot:
            if connection.execute(mine).first() is not None:  # a repeated transaction
                return _slot(connection, slot)
            found = _slot(connection, slot)
            if seen is not None and found.last_id != seen:
                raise TrackerError(
                    f"slot {slot} was changed by {found.history[-1].who or 'somebody'} at the same "
                    f"time ({found.history[-1].action}); look at it with: foresweep champion"
                )
            row: dict[str, Any] = {
                "entry_key": key,
                "slot": slot,
                "action": action,
                "verdict_id": verdict_id,
                "reason": reason,
                "who": who or this_user(),
                "made_at": now,
            }
            told = {"replaces": found.champion.run_id if found.champion else None}
            row["content"] = jsonable({**told, **(content or {})}, "content")
            if action in (ROLLBACK, RETIRE):
                row |= _of_earlier(found, action, run_id)
            else:
                run = queries.get_run(connection, str(run_id))
                row |= {"run_id": run.run_id, "checkpoint_path": checkpoint_path}
                row["manifest"] = manifest
                _refuse_twice(found, action, run.run_id, manifest)
            made = connection.execute(insert(table), row).inserted_primary_key
            assert made is not None
            row["entry_id"] = made[0]
            chain.append(line_of(connection), chain.entry_of(chain.CHAMPION, row))
            return _slot(connection, slot)

        return self.store.work(put)

    def pins(self, run_id: str) -> tuple[str, ...]:
        """Names of the slots that need a run's checkpoint."""
        return tuple(s.name for s in self.slots() if run_id in {e.run_id for e in s.pinned})

    # Forecasts.

    def record(self, made: Sequence[Mapping[str, Any]], *, source: str) -> int:
        """Put forecasts on record; the number of those that were not there. Durable on return.

        Each is a mapping: slot, role, run_id, manifest, item_id, origin (ISO), horizon, last_close,
        times [H] (ISO), levels [Q], quantiles [H][Q], input_hash. What the same checkpoint said of
        the same bars before stands; it is no second forecast. Raises ConfigError for what is no
        number.
        """
        table = schema.forecasts_made
        rows = [_forecast_row(one, source) for one in made]

        def put(connection: Connection) -> int:
            known = _known(connection, rows)
            number, last = chain.head(connection, FORECASTS)
            fresh = []
            for row in rows:
                once = tuple(row[name] for name in ONCE)
                if once in known:
                    continue
                known.add(once)
                number += 1
                row = {**row, "number": number}
                entry = {**row, "previous": last, "hash": chain.link(last, chain.said_of(row))}
                last = entry["hash"]
                fresh.append(entry)
            if fresh:
                connection.execute(insert(table), fresh)
                chain.set_head(connection, FORECASTS, number, last)
            return len(fresh)

        return self.store.work(put) if rows else 0

    def forecasts(self) -> list[dict[str, Any]]:
        """Every forecast on record in the order they were made, with every column of the table.
        Of several that one checkpoint made of an item at an origin (its bars were corrected in
        between) the first is scored."""
        table = schema.forecasts_made
        with self.store.read() as connection:
            rows = connection.execute(select(table).order_by(table.c.number)).mappings()
            return [dict(row) for row in rows]

    def head(self) -> tuple[int, str]:
        """(number of forecasts on record, hash of the last): what to show to a third party."""
        with self.store.read() as connection:
            return chain.head(connection, FORECASTS)

    def verify(self, noted: tuple[int, str] | None = None) -> list[str]:
        """What was changed, removed or inserted among the forecasts on record, in words; `noted`: a
        (number, hash) that was written down elsewhere and must be met, too."""
        table = schema.forecasts_made
        with self.store.read() as connection:
            query = select(table).order_by(table.c.number)
            rows = [dict(row) for row in connection.execute(query).mappings()]
            end = chain.head(connection, FORECASTS)
        return chain.faults(rows, end, noted, noun="forecast")


ONCE = ("slot", "role", "manifest", "item_id", "origin", "horizon", "input_hash")
"""What makes two forecasts the same."""
LOOKED_UP = 5_000
"""Forecasts looked for in one query: databases take some 30,000 values."""


def _known(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> set[tuple[Any, ...]]:
    """Of these forecasts those that are on record, by ONCE."""
    table, found = schema.forecasts_made, set()
    columns = [table.c[name] for name in ONCE]
    for some in (rows[k : k + LOOKED_UP] for k in range(0, len(rows), LOOKED_UP)):
        among = {name: sorted({row[name] for row in some}) for name in ONCE[:5]}
        query = select(*columns).where(*(table.c[k].in_(v) for k, v in among.items()))
        found |= {tuple(row) for row in connection.execute(query)}
    return found


def _forecast_row(made: Mapping[str, Any], source: str) -> dict[str, Any]:
    texts = ("slot", "role", "run_id", "manifest", "item_id", "origin", "input_hash")
    row: dict[str, Any] = {name: str(made[name]) for name in texts}
    row["horizon"] = whole(made["horizon"], "horizon")
    row["last_close"] = real(made["last_close"], "last_close")
    for name in ("times", "levels", "quantiles"):
        row[name] = jsonable(made[name], name)
    return row | {"source": source, "made_at": instant_text(datetime.now(UTC))}


def _found(row: Mapping[Any, Any]) -> str:
    return schema.found_now(row["checkpoint_path"], row["run_id"] or "") or ""


def _slot(connection: Connection, name: str) -> Slot:
    table = schema.champions
    query = select(table).where(table.c.slot == name).order_by(table.c.entry_id)
    fields = Entry.__dataclass_fields__
    history = tuple(
        Entry(**{k: row[k] for k in fields} | {"checkpoint_path": _found(row)})
        for row in connection.execute(query).mappings()
    )
    stack: list[Entry] = []
    shadows: dict[str, Entry] = {}
    for entry in history:
        if entry.action == PROMOTE:
            shadows.pop(entry.run_id, None)
            stack.append(entry)
        elif entry.action == ROLLBACK:
            stack.pop()
        elif entry.action == SHADOW:
            shadows[entry.run_id] = entry
        else:
            shadows.pop(entry.run_id, None)
    champion = stack[-1] if stack else None
    changes = [entry.made_at for entry in history if entry.action in (PROMOTE, ROLLBACK)]
    return Slot(
        name=name,
        champion=champion,
        since=changes[-1] if changes else None,
        before=tuple(reversed(stack[:-1])),
        shadows=tuple(shadows.values()),
        last_id=history[-1].entry_id if history else 0,
        history=history,
    )


def _of_earlier(slot: Slot, action: str, run_id: str | None) -> dict[str, Any]:
    """Columns of the entry that is returned to, or of the shadow that is taken out."""
    if action == ROLLBACK:
        if not slot.before:
            held = slot.champion.run_id if slot.champion else "nothing"
            raise NotFound(
                f"slot {slot.name} has {held} in service and nothing before it to return to"
            )
        earlier = slot.before[0]
    else:
        shadows = {e.run_id: e for e in slot.shadows}
        if run_id not in shadows:
            raise NotFound(
                f"{run_id} is no shadow of slot {slot.name}; its shadows: "
                f"{', '.join(shadows) or 'none'}"
            )
        earlier = shadows[run_id]
    return {k: getattr(earlier, k) for k in ("run_id", "checkpoint_path", "manifest")}


def _refuse_twice(slot: Slot, action: str, run_id: str, manifest: str) -> None:
    held = slot.champion
    if held is not None and (held.run_id, held.manifest) == (run_id, manifest):
        raise TrackerError(f"run {run_id} is the champion of slot {slot.name} already")
    if action == SHADOW and run_id in {e.run_id for e in slot.shadows}:
        raise TrackerError(f"run {run_id} is a shadow of slot {slot.name} already")
