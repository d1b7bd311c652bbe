"""Is the record what was written? The hash chain walked, and every row held against it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, text

from foresweep.records import split_name
from foresweep.tracker.storage import chain
from foresweep.tracker.storage.chain import (
    HIDDEN,
    KEPT,
    KEYS,
    LOOK,
    RUN,
    SCORES,
    SWEEP,
    TABLES,
)
from foresweep.tracker.storage.schema import cells_of

CHUNK = 2_000
RENEWED = (SWEEP, chain.VERDICT, HIDDEN)
"""Kinds whose row the tracker itself may change, with a further entry; others are written once."""
_WORDS = {
    RUN: "run",
    chain.TRIAL: "trial",
    SWEEP: "sweep",
    chain.VERDICT: "verdict",
    LOOK: "test look",
    chain.DECLARATION: "declaration",
    chain.CHAMPION: "change of what is in service",
    SCORES: "scores added to run",
    HIDDEN: "removal of run",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it was written."""

    kind: str  # run, trial, sweep, verdict, look, champion ...; "chain": an entry itself
    key: str
    what: str  # changed, removed, inserted
    words: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What walking the chain has found."""

    database_id: str
    chained_since: str
    num_entries: int
    last_hash: str
    before: Mapping[str, int]  # rows older than the chain, by kind: nothing is known of them
    problems: tuple[Problem, ...]

    @property
    def is_sound(self) -> bool:
        return not self.problems


@dataclass(slots=True)
class _Told:
    """What the chain says: the newest digest of every row, and which rows are older than it."""

    digests: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    added: dict[str, list[tuple[set[tuple[str, str]], str]]] = field(
        default_factory=lambda: defaultdict(list)
    )  # run id -> (names, digest) of scores that came after its end
    before: dict[str, set[str]] = field(default_factory=dict)
    num_before: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def tell(self, kind: str, key: str, what: str, words: str) -> None:
        named = words if kind == "chain" else f"{_WORDS[kind]} {key} {words}"
        self.problems.append(Problem(kind, key, what, named))


def verify(connection: Connection, *, holds: str | None = None) -> Verified:
    """Walk the chain; hold every run, score, trial, sweep, verdict, test look and champion against
    it.

    `holds` is a hash that was noted earlier (a verdict's card has one): a chain that was written
    anew since does not hold it. One consistent view; memory grows with the number of entries.
    """
    told = _Told()
    _walk(connection, told, holds)
    for kind in TABLES:
        _compare(connection, kind, told)
    _compare_hidden(connection, told)
    origin = chain.origin(connection)
    return Verified(
        database_id=origin.database_id,
        chained_since=origin.chained_since,
        num_entries=origin.num_entries,
        last_hash=origin.last_hash,
        before=told.num_before,
        problems=tuple(told.problems),
    )


def _walk(connection: Connection, told: _Told, holds: str | None) -> None:
    """Entry by entry: its own hash, the one before, its place."""
    walker, seen = chain.Walker(0, ""), holds is None
    columns = "position, previous, hash, kind, key, digest, covers, at"
    for row in _stream(connection, f"SELECT {columns} FROM record_chain ORDER BY position"):
        position, previous, own, kind, key, digest, covers, at = row
        name = f"entry {position} ({_WORDS.get(kind, kind)} {key})"
        said = chain.placed(position, chain.body_of(kind, key, digest, covers, at))
        for fault in walker.step(position, previous, own, said):
            told.tell("chain", str(fault.first), fault.what, _broken(fault, name))
        seen = seen or own == holds
        if kind == chain.BIRTH and position == 0:
            told.before = {of: set(keys) for of, keys in _json(covers, {}).items()}
        elif kind == chain.BEFORE:
            for of, keys in _json(covers, {}).items():
                told.before.setdefault(of, set()).update(keys)
        elif kind == SCORES:
            told.added[key].append(({(p, m) for p, m in _json(covers, [])}, digest))
        elif key in told.digests[kind] and kind not in RENEWED:
            words = f"{name} is the second of its key: a row was removed and another put in"
            told.tell("chain", str(position), "inserted", words)
        else:
            told.digests[kind][key] = digest
    if not seen:
        words = f"no entry has the hash {holds}: the chain was written anew since it was noted"
        told.tell("chain", str(walker.expected), "removed", words)


def _broken(fault: chain.Fault, name: str) -> str:
    if fault.what == chain.REMOVED:
        until = f" to {fault.last}" if fault.last > fault.first else ""
        return f"entry {fault.first}{until} of the chain was removed, before {name}"
    if fault.what == chain.INSERTED:
        return f"{name} does not follow the one before it: one of them was put in its place"
    return f"{name} was changed: its hash is not that of its content"


def _stream(connection: Connection, sql: str) -> Iterator[Any]:
    with connection.execute(text(sql), execution_options={"yield_per": CHUNK}) as found:
        yield from found


def _json(covers: str, otherwise: Any) -> Any:
    """What an entry names or a column holds; nothing where somebody broke it, which its hash or
    its digest tells."""
    try:
        found = json.loads(covers)
    except (ValueError, TypeError, RecursionError):
        return otherwise
    return found if isinstance(found, type(otherwise)) else otherwise


def _compare(connection: Connection, kind: str, told: _Told) -> None:
    """Every row of a kind against its entry, and every entry against the rows."""
    digests, old = told.digests[kind], told.before.get(kind, set())
    rows = _runs(connection, told) if kind == RUN else _rows(connection, kind)
    seen: set[str] = set()
    for key, digest, may_change in rows:
        seen.add(key)
        if key in digests:
            if digest != digests[key]:
                told.tell(kind, key, "changed", "was changed after it was written")
        elif key in old:
            told.num_before[kind] = told.num_before.get(kind, 0) + 1
        elif not may_change:
            told.tell(kind, key, "inserted", "was inserted: the chain does not know it")
    for key in sorted((digests.keys() | old) - seen):
        told.tell(kind, key, "removed", "was removed from the database")


def _rows(connection: Connection, kind: str) -> Iterator[tuple[str, str, bool]]:
    """(key, digest as it stands, may it still change?) of every row."""
    at = [KEPT[kind].index(name) for name in KEYS[kind]]
    for row in _stream(connection, f"SELECT {', '.join(KEPT[kind])} FROM {TABLES[kind].name}"):
        yield " ".join(str(row[n]) for n in at), chain.stored_digest(kind, tuple(row)), False


def _runs(connection: Connection, told: _Told) -> Iterator[tuple[str, str, bool]]:
    """As `_rows`, of runs with their scores, by run id."""
    columns, last = KEPT[RUN], len(KEPT[RUN])
    at = {name: n for n, name in enumerate(columns)}
    sql = f"SELECT {', '.join(columns)}, metrics FROM runs ORDER BY run_id"
    scores = groupby(
        _stream(
            connection,
            "SELECT run_id, part, metric, value, model_name, is_baseline, sweep_id, fingerprint"
            " FROM scores ORDER BY run_id, part, metric",
        ),
        key=lambda row: str(row.run_id),
    )
    upcoming = next(scores, None)
    for row in _stream(connection, sql):
        run_id, mine = str(row[0]), []
        while upcoming is not None and upcoming[0] <= run_id:  # those of no run: see `db check`
            mine = list(upcoming[1]) if upcoming[0] == run_id else []
            upcoming = next(scores, None)
        if run_id in told.digests[RUN]:
            fixed = (row[at["model_name"]], bool(row[at["is_baseline"]]), row[at["sweep_id"]])
            cells = _json(row[at["fingerprints"]], {})
            if any(
                (s.model_name, bool(s.is_baseline), s.sweep_id) != fixed
                or s.fingerprint != cells_of(cells, s.part)
                for s in mine
            ):
                told.tell(RUN, run_id, "changed", "has scores that say of it what it is not")
            if _open(mine) != {split_name(n): v for n, v in _json(row[last], {}).items()}:
                told.tell(RUN, run_id, "changed", "shows other scores than are on record for it")
        held = [(s.part, s.metric, s.value) for s in mine]
        for names, digest in told.added.pop(run_id, ()):
            later = [s for s in held if s[:2] in names]
            held = [s for s in held if s[:2] not in names]
            if chain.scores_digest(later) != digest:
                told.tell(SCORES, run_id, "changed", "were changed or removed")
        yield (
            run_id,
            chain.stored_digest(RUN, tuple(row)[:last], held),
            row[at["state"]] not in chain.ENDED,
        )
    for run_id in sorted(told.added):
        told.tell(SCORES, run_id, "removed", "were removed with it")


def _open(scores: Iterable[Any]) -> dict[tuple[str, str], float | None]:
    return {(s.part, s.metric): s.value for s in scores if s.part != "test"}


def _compare_hidden(connection: Connection, told: _Told) -> None:
    """Is a run hidden that nobody hid, or shown that is hidden?"""
    digests, old = told.digests[HIDDEN], told.before.get(HIDDEN, set())
    shown = chain.hidden_entry("", None).digest
    for run_id, hidden_at in _stream(connection, "SELECT run_id, hidden_at FROM runs"):
        now = chain.hidden_entry(run_id, hidden_at).digest
        before = run_id in old and run_id not in digests
        if (hidden_at is None) if before else now != digests.get(run_id, shown):
            did = "brought back" if hidden_at is None else "hidden"
            words = f"was not this tracker's: it was {did} by another hand"
            told.tell(HIDDEN, run_id, "changed", words)
