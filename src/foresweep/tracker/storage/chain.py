"""Hash chains: none of the past can be changed, removed or inserted without the later ones telling.

Each entry's hash is over the hash before and what the entry says. Whoever mends an entry that he
changed breaks all that follow: only a hash kept elsewhere (a verdict's card, the mark that
`ledger verify` ends with) tells of a chain that was written anew from some place on.

There are two. The *record*: what was tried, judged, looked at and put in service; an entry says its
position and the digest of a row as it was when it could change no more. And the *forecasts* made in
service, each its own entry, so that they can be handed to somebody without the rest.
The order is given inside the transaction that writes the row, by one writer at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import Boolean, Connection, Float, Table, insert, select, text, update

from foresweep.records import RunState
from foresweep.tracker.storage import schema
from foresweep.tracker.storage.line import Line
from foresweep.tracker.storage.schema import Instant, Json, instant_text, json_text

LOCK = 0x636861696E
"""PostgreSQL's advisory lock of whoever writes the next entry, held to the end of its unit of
work; take it last, after the rows."""
GENESIS = "0" * 64
"""What stands before the first forecast."""
OWN = ("previous", "hash")
"""Columns of a forecast that are the chain's."""
REMOVED, INSERTED, CHANGED = "removed", "inserted", "changed"
BIRTH, BEFORE = "birth", "before"
"""Entries that name the rows which were there before any was chained, and before rows of their kind
were."""
RUN, SCORES, HIDDEN, TRIAL, SWEEP = "run", "scores", "hidden", "trial", "sweep"
VERDICT, LOOK, DECLARATION = "verdict", "look", "declaration"
CHAMPION = "champion"
ENDED = tuple(state.value for state in RunState if state.is_final and state is not RunState.LOST)
"""States of a run that is in the chain: a lost one may still go on."""

KEPT: dict[str, tuple[str, ...]] = {
    RUN: (
        *("run_id", "model_name", "created_at", "hyperparams", "git_commit", "state"),
        *("is_baseline", "sweep_id", "trial_number", "seed", "attempt", "config_hash"),
        *("train_hash", "panel_hash", "task_hash", "fingerprints", "fingerprint"),
        *("objective_score", "started_at", "finished_at", "error", "resources", "source"),
        *("training_time_seconds", "duration_seconds", "peak_memory_mb", "environment_id"),
    ),
    TRIAL: (
        *("sweep_id", "number", "model_name", "config", "config_hash", "train_hash", "source"),
        "created_at",
    ),
    SWEEP: (
        *("sweep_id", "name", "models", "mode", "objective", "horizon", "seed", "panel_hash"),
        *("task_hash", "fingerprints", "plan", "dataset_id", "environment_id", "started_at"),
    ),
    DECLARATION: (
        *("declaration_id", "question", "models", "objective", "horizons", "max_trials"),
        *("smallest_skill", "who", "declared_at"),
    ),
    VERDICT: ("judging_id", "run_id", "fingerprint", "outcome", "content", "who", "judged_at"),
    LOOK: (
        *("look_id", "run_id", "fingerprint", "panel_hash", "who", "why", "looked_at"),
        *("judging_id", "number"),
    ),
    CHAMPION: (
        *("entry_id", "entry_key", "slot", "action", "run_id", "checkpoint_path", "manifest"),
        *("verdict_id", "reason", "content", "who", "made_at"),
    ),
}
"""Columns that a row's digest holds: all that never change once it is written. Notes, tags and
where its files lie may change."""
TABLES: dict[str, Table] = {
    RUN: schema.runs,
    TRIAL: schema.trials,
    SWEEP: schema.sweeps,
    VERDICT: schema.verdicts,
    LOOK: schema.test_looks,
    DECLARATION: schema.declarations,
    CHAMPION: schema.champions,
}
KEYS = {
    RUN: ("run_id",),
    TRIAL: ("sweep_id", "number"),
    SWEEP: ("sweep_id",),
    VERDICT: ("judging_id", "run_id"),
    LOOK: ("look_id",),
    DECLARATION: ("declaration_id",),
    CHAMPION: ("entry_id",),
}
_APPEND = (
    "INSERT INTO record_chain (position, previous, hash, kind, key, digest, covers, at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_COLUMNS = ("position", "previous", "hash", "kind", "key", "digest", "covers", "at")
_LAST = (
    "SELECT coalesce(max(position), -1) AS position,"
    " coalesce((SELECT hash FROM record_chain ORDER BY position DESC LIMIT 1), '') AS hash"
    " FROM record_chain"
)
_APPEND_THERE = (  # the server itself reckons the hash: no way to it and back under the lock
    "INSERT INTO record_chain (position, previous, hash, kind, key, digest, covers, at)"
    " SELECT last.position + 1, last.hash, encode(sha256(convert_to("
    "last.hash || ' ' || (last.position + 1)::text || ' ' || ?, 'UTF8')), 'hex'), ?, ?, ?, ?, ?"
    f" FROM ({_LAST}) AS last"
)

# What every chain is.


def link(previous: str, said: str) -> str:
    """The hash of an entry: sha256 over the hash before it and what it says."""
    return sha256((previous + said).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at an entry, or at a stretch of them."""

    what: str  # removed, inserted, changed
    first: int
    last: int


@dataclass(slots=True)
class Walker:
    """Goes along a chain, entry by entry. Not frozen: it knows where it stands."""

    expected: int  # the number of the next entry
    last: str  # the hash of the one before

    def step(self, number: int, previous: str, own: str, said: str) -> list[Fault]:
        """What is wrong at the next entry: its place, the one before, its own hash."""
        found = []
        if number > self.expected:
            found.append(Fault(REMOVED, self.expected, number - 1))
        elif previous != self.last:
            found.append(Fault(INSERTED, number, number))
        if link(previous, said) != own:
            found.append(Fault(CHANGED, number, number))
        self.expected, self.last = number + 1, own
        return found


# The forecasts: rows that carry their own link, and a head that their writer notes.


def said_of(content: Mapping[str, Any]) -> str:
    """What a forecast says: JSON's own values, in the order of their names."""
    return "\n" + json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def head(connection: Connection, chain: str) -> tuple[int, str]:
    """(number of entries, hash of the last) as the writers left them; (0, GENESIS) of none."""
    table = schema.chains
    query = select(table.c.length, table.c.hash).where(table.c.chain == chain)
    row = connection.execute(query).first()
    return (0, GENESIS) if row is None else (int(row.length), str(row.hash))


def set_head(connection: Connection, chain: str, length: int, last: str) -> None:
    """In the transaction that added the entries."""
    table, values = schema.chains, {"length": length, "hash": last}
    done = connection.execute(update(table).where(table.c.chain == chain).values(values))
    if not done.rowcount:
        connection.execute(insert(table), {"chain": chain, **values})


def faults(
    entries: Iterable[Mapping[str, Any]],
    end: tuple[int, str],
    noted: tuple[int, str] | None = None,
    *,
    noun: str = "entry",
) -> list[str]:
    """What is wrong with such a chain, in words; [] of a sound one.

    `entries`: mappings with number (1, 2, 3, ...), previous, hash and the content, in order; `end`:
    (length, hash) as `head` gives it; `noted`: such a pair that somebody wrote down earlier.
    """
    found: list[str] = []
    walker, seen, number = Walker(1, GENESIS), {(0, GENESIS)}, 0
    for entry in entries:
        before, number = number, int(entry["number"])
        content = {k: v for k, v in entry.items() if k not in OWN}
        for fault in walker.step(
            number, str(entry["previous"]), str(entry["hash"]), said_of(content)
        ):
            found.append(_in_words(fault, noun, before))
        seen.add((number, walker.last))
    if number < end[0]:
        found.append(f"the last {noun} is {number}, but {end[0]} were written: removed at the end")
    elif number > end[0]:
        found.append(f"{noun} {end[0] + 1} and later were added past the writer: inserted")
    elif walker.last != end[1] and not found:
        found.append(f"{noun} {number} has another hash than its writer noted: replaced")
    if noted is not None and noted not in seen:
        found.append(f"no {noun} {noted[0]} has the hash that was noted: the chain was rewritten")
    return found


def _in_words(fault: Fault, noun: str, before: int) -> str:
    if fault.what == REMOVED:
        to = f" to {fault.last} are" if fault.last > fault.first else " is"
        return f"{noun} {fault.first}{to} missing: removed after it was written"
    if fault.what == INSERTED:
        return f"{noun} {fault.first} does not follow {noun} {before}: inserted or replaced"
    return f"{noun} {fault.first} is not what was written: changed"


# The record: a digest for each row.


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be put into the chain: a row's digest under its kind and key.

    `covers` names, as JSON, what of a key the digest holds: the later scores of a run.
    """

    kind: str
    key: str
    digest: str
    covers: str = ""


def append(line: Line, *entries: Entry) -> None:
    """Put entries at the end of the record, in the caller's unit of work: its last statement."""
    at = str(instant_text(datetime.now(UTC)))
    if line.is_postgres:
        line.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
        if len(entries) == 1:
            (e,) = entries
            own = _body(e, at)
            line.execute(_APPEND_THERE, (own, e.kind, e.key, e.digest, e.covers, at))
            return
    position, last = line.execute(_LAST).fetchone()
    rows = []
    for e in entries:
        position += 1
        previous, last = last, link(last, placed(position, _body(e, at)))
        rows.append((position, previous, last, e.kind, e.key, e.digest, e.covers, at))
    if len(rows) == 1:
        line.execute(_APPEND, rows[0])
    elif rows:
        line.insert_many("record_chain", _COLUMNS, rows)


def placed(position: int, body: str) -> str:
    """What an entry of the record says: its place and the hash of its own content."""
    return f" {position} {body}"


def body_of(kind: str, key: str, digest: str, covers: str, at: str) -> str:
    """The hash of an entry's own content."""
    return sha256(json.dumps([kind, key, digest, covers, at]).encode()).hexdigest()


def _body(entry: Entry, at: str) -> str:
    return body_of(entry.kind, entry.key, entry.digest, entry.covers, at)


# Digests: of a row as it is stored, so that one read back has the same.


def _number(value: Any) -> Any:
    """A float as every database gives it back: without the sign of zero."""
    return None if value is None else float(value) + 0.0


def _truth(value: Any) -> Any:
    return None if value is None else bool(value)


_AS_STORED: dict[type, Any] = {
    Json: json_text,
    Instant: instant_text,
    Float: _number,
    Boolean: _truth,
}
_ENCODERS = {
    kind: tuple((name, _AS_STORED.get(type(table.c[name].type))) for name in KEPT[kind])
    for kind, table in TABLES.items()
}
_STORED = {  # what a raw row needs: its texts are encoded already
    kind: tuple(encode if encode in (_number, _truth) else None for _, encode in encoders)
    for kind, encoders in _ENCODERS.items()
}


def entry_of(kind: str, row: Mapping[Any, Any], scores: Iterable[Mapping[str, Any]] = ()) -> Entry:
    """The entry of a row with Python's values; of a run together with its rows of scores."""
    values = [
        row[name] if encode is None else encode(row[name]) for name, encode in _ENCODERS[kind]
    ]
    key = " ".join(str(row[name]) for name in KEYS[kind])
    return Entry(kind, key, _digest(values, scores_held(scores) if kind == RUN else None))


def stored_digest(
    kind: str, values: Sequence[Any], scores: Iterable[Sequence[Any]] | None = None
) -> str:
    """The digest of a row as the database holds it, its values in the order of `KEPT`; `scores`
    are the (part, metric, value) of a run."""
    plain = [
        value if convert is None else convert(value)
        for value, convert in zip(values, _STORED[kind], strict=True)
    ]
    held = None if scores is None else sorted([p, m, _number(v)] for p, m, v in scores)
    return _digest(plain, held)


def scores_held(rows: Iterable[Mapping[str, Any]]) -> list[list[Any]]:
    """[part, metric, value] of rows of scores, sorted."""
    return sorted([row["part"], row["metric"], _number(row["value"])] for row in rows)


def scores_entry(run_id: str, rows: Sequence[Mapping[str, Any]]) -> Entry:
    """The entry of scores that were added to a run after its end."""
    held = scores_held(rows)
    names = json.dumps([name[:2] for name in held])
    return Entry(SCORES, run_id, scores_digest(held), names)


def scores_digest(held: Iterable[Sequence[Any]]) -> str:
    """The digest of (part, metric, value) of scores."""
    return _digest([], sorted([part, metric, _number(value)] for part, metric, value in held))


def hidden_entry(run_id: str, hidden_at: datetime | str | None) -> Entry:
    """The entry of a run that was hidden, or with None brought back."""
    text = instant_text(hidden_at) if isinstance(hidden_at, datetime) else hidden_at
    return Entry(HIDDEN, run_id, _digest([text], None))


def _digest(values: Sequence[Any], scores: Sequence[Sequence[Any]] | None) -> str:
    return sha256(json.dumps([values, scores]).encode()).hexdigest()


# Where a database comes from, as every card says it.


@dataclass(frozen=True, slots=True)
class Origin:
    """A database's id, since when it is chained, and how far the chain has come."""

    database_id: str
    chained_since: str  # ISO time in UTC
    num_entries: int
    last_hash: str


def origin(connection: Connection) -> Origin:
    """Of an open database."""
    born = connection.execute(text("SELECT key, at FROM record_chain WHERE position = 0")).first()
    position, last = connection.execute(text(_LAST)).one()
    database_id, since = ("", "") if born is None else born
    return Origin(database_id, since, int(position) + 1, last)
