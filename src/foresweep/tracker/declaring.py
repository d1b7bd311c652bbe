"""Declarations: what a search set out to do, on record before anything of it is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from foresweep.errors import NotFound, UsageError
from foresweep.tracker.provenance import storable, this_user
from foresweep.tracker.storage import chain, schema
from foresweep.tracker.storage.schema import new_id, real, sound_name, whole
from foresweep.tracker.storage.store import Store, line_of

declarations = schema.declarations


@dataclass(frozen=True, slots=True)
class Declaration:
    """A question, and what was meant to be spent on it."""

    declaration_id: str
    question: str
    models: tuple[str, ...]
    objective: str
    horizons: tuple[int, ...]
    max_trials: int
    smallest_skill: float | None  # share of the benchmark's loss below which it is of no interest
    who: str
    declared_at: datetime


class Declarations:
    """A part of the tracker: `tracker.declarations`."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def add(
        self,
        question: str,
        *,
        models: Sequence[str],
        objective: str,
        horizons: Sequence[int],
        max_trials: int,
        smallest_skill: float | None = None,
        who: str = "",
    ) -> Declaration:
        """Put a declaration on record and into the hash chain. Raises UsageError where the question
        has no words."""
        if not question.strip():
            raise UsageError("a declaration needs a question in words")
        now = datetime.now(UTC)
        row: dict[str, Any] = {
            "declaration_id": new_id("declared", now),
            "question": storable(question.strip()),
            "models": [sound_name(model) for model in models],
            "objective": sound_name(objective),
            "horizons": [whole(horizon, "horizon") for horizon in horizons],
            "max_trials": whole(max_trials, "max_trials"),
            "smallest_skill": real(smallest_skill, "smallest_skill"),
            "who": who or this_user(),
            "declared_at": now,
        }
        mine = declarations.c.declaration_id == row["declaration_id"]

        def put(connection: Connection) -> Declaration:
            there = select(declarations.c.declaration_id).where(mine)
            if connection.execute(there).first() is None:  # a repeated transaction writes once
                connection.execute(insert(declarations), row)
                chain.append(line_of(connection), chain.entry_of(chain.DECLARATION, row))
            return _of(row)

        return self.store.work(put)

    def get(self, declaration_id: str) -> Declaration:
        """By its id, a unique beginning of it, or "latest". Raises NotFound."""
        found = self.every()
        if declaration_id == "latest" and found:
            return found[-1]
        named = [one for one in found if one.declaration_id.startswith(declaration_id)]
        if len(named) != 1:
            what = "no declaration" if not named else f"{len(named)} declarations begin with"
            raise NotFound(f"{what} {declaration_id!r}; make one with: foresweep declare QUESTION")
        return named[0]

    def every(self) -> list[Declaration]:
        """All of them, oldest first."""
        query = select(declarations).order_by(declarations.c.declared_at)
        with self.store.read() as connection:
            return [_of(row) for row in connection.execute(query).mappings()]


def _of(row: Mapping[Any, Any]) -> Declaration:
    known = {name: row[name] for name in Declaration.__dataclass_fields__}
    return Declaration(**known | {name: tuple(known[name]) for name in ("models", "horizons")})
