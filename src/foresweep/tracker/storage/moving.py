"""Moving house: copies of whole databases, checked row by row, backups, and the health check."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from sqlalchemy import Boolean, Connection, Table, text

from foresweep.errors import DatabaseUnusable, TrackerError
from foresweep.tracker.storage import sqlite
from foresweep.tracker.storage.postgres import reset_counters
from foresweep.tracker.storage.schema import metadata
from foresweep.tracker.storage.store import Store, line_of
from foresweep.tracker.tracker import Tracker

CHUNK = 2_000
COUNTERS = {
    "test_looks": "look_id",
    "notes": "note_id",
    "verdicts": "verdict_id",
    "champions": "entry_id",
    "live_scores": "score_id",
    "live_checks": "check_id",
}
_WRONG = {
    "{} steps of runs that are not there": (
        "SELECT count(*) FROM curves WHERE NOT EXISTS"
        " (SELECT 1 FROM runs WHERE runs.run_id = curves.run_id)"
    ),
    "{} scores that say of their run what it is not": (
        "SELECT count(*) FROM scores JOIN runs ON runs.run_id = scores.run_id"
        " WHERE scores.model_name <> runs.model_name OR scores.state <>"
        " CASE WHEN runs.hidden_at IS NULL THEN runs.state ELSE 'hidden' END"
    ),
    "{} curves that do not count their points": (
        "SELECT count(*) FROM curves WHERE num_points <> (SELECT count(*) FROM curve_points AS p"
        " WHERE p.run_id = curves.run_id AND p.name = curves.name)"
    ),
}


@dataclass(frozen=True, slots=True)
class Health:
    """What a check has found."""

    problems: tuple[str, ...]
    repaired: tuple[str, ...]  # runs that were `running` though their process is gone
    num_runs: int

    @property
    def is_sound(self) -> bool:
        return not self.problems


def copy_database(source: str | Path, target: str | Path) -> dict[str, int]:
    """Copy every row of one database into another, empty one, of either kind, in one unit of
    work; then compare the two row by row. {table: number of rows}.

    What others write to the source meanwhile is not in the copy. Raises NotFound (no source),
    TrackerError where the target has runs already or a row came out different: then it stays
    empty.
    """
    with Store(source, create=False) as old, Store(target) as new, old.read() as reader:
        with new.write() as writer:
            _require_empty(writer, new.place)
            writer.execute(text("DELETE FROM record_chain"))  # its birth: the source's comes along
            tables = metadata.sorted_tables
            counts = {table.name: _copy_table(reader, writer, table) for table in tables}
            if new.is_postgres:
                reset_counters(writer, COUNTERS)
            for table in tables:
                _compare(reader, writer, table)
        return counts


def backup(database: str | Path, target: Path) -> None:
    """A sound copy as one SQLite file, made while others write; from PostgreSQL, too.

    Raises TrackerError where the target is there already, NotFound, DatabaseUnusable.
    """
    if target.exists():
        raise TrackerError(f"{target} is there already; give another path or move it away")
    with Store(database, create=False) as store:
        path = store.path
    if path is None:
        copy_database(database, target)
        return
    try:
        sqlite.backup(path, target)
    except (sqlite3.Error, OSError) as error:
        raise DatabaseUnusable(f"{target} cannot be written: {error}") from error


def check(tracker: Tracker) -> Health:
    """Repair stale runs, then look whether the database is sound and agrees with itself."""
    repaired = tracker.repair()
    with tracker.store.read() as connection:
        problems = [] if tracker.store.is_postgres else _damage(connection)
        for words, query in _WRONG.items():
            if number := connection.execute(text(query)).scalar():
                problems.append(words.format(number))
        num_runs = connection.execute(text("SELECT count(*) FROM runs")).scalar()
    return Health(tuple(problems), tuple(repaired), int(num_runs or 0))


def _damage(connection: Connection) -> list[str]:
    """What SQLite itself finds wrong with its file."""
    said = connection.execute(text("PRAGMA integrity_check")).scalars()
    damage = [line for line in said if line != "ok"]
    orphans = connection.execute(text("PRAGMA foreign_key_check")).all()
    return damage + [f"row {row[1]} of {row[0]} points to nothing in {row[2]}" for row in orphans]


def _require_empty(connection: Connection, place: str) -> None:
    for table in ("runs", "sweeps", "datasets", "imports"):
        if connection.execute(text(f"SELECT 1 FROM {table} LIMIT 1")).first() is not None:
            raise TrackerError(f"{place} has {table} already; copy into an empty database")


def _copy_table(reader: Connection, writer: Connection, table: Table) -> int:
    rows, count = _rows(reader, table), 0
    names = tuple(column.name for column in table.columns)
    line = line_of(writer)
    while chunk := list(islice(rows, CHUNK)):
        line.insert_many(table.name, names, chunk)
        count += len(chunk)
    return count


def _compare(reader: Connection, writer: Connection, table: Table) -> None:
    """Both ways at once: a row missing, added or changed on either side. Raises TrackerError."""
    with closing(_rows(reader, table)) as old, closing(_rows(writer, table)) as new:
        for theirs, ours in zip_longest(old, new):
            if theirs != ours:
                raise TrackerError(f"the copy of {table.name} differs: {theirs} became {ours}")


def _rows(connection: Connection, table: Table) -> Generator[tuple[Any, ...], None, None]:
    """A table's rows as stored, by primary key; truth values alike on every database."""
    names = ", ".join(column.name for column in table.columns)
    keys = ", ".join(column.name for column in table.primary_key.columns)
    truths = {n for n, column in enumerate(table.columns) if isinstance(column.type, Boolean)}
    query = text(f"SELECT {names} FROM {table.name} ORDER BY {keys}")
    with connection.execute(query, execution_options={"yield_per": CHUNK}) as found:
        for row in found:
            yield tuple(bool(v) if n in truths and v is not None else v for n, v in enumerate(row))
