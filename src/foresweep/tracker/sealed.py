"""Looks at the sealed test and judgings of val, counted over a lineage; what a lineage is.

Every look at the test of a lineage makes the next one harder to pass, and so does every new
fingerprint that is judged on val: chances that are taken again and again must be paid for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select

from foresweep.records import Run, Sweep
from foresweep.tracker.provenance import this_user
from foresweep.tracker.queries import runs as queries
from foresweep.tracker.storage import schema

test_looks, verdicts, runs = schema.test_looks, schema.verdicts, schema.runs


def record_look(
    connection: Connection,
    run: Run,
    *,
    who: str,
    why: str,
    judging_id: str | None = None,
    number: int | None = None,
) -> None:
    """Put a look at a run's test scores on record, in the transaction that reads them."""
    look = {
        "run_id": run.run_id,
        "fingerprint": run.fingerprints.get("test", ""),
        "panel_hash": run.panel_hash,
        "who": who or this_user(),
        "why": why,
        "looked_at": datetime.now(UTC),
        "judging_id": judging_id,
        "number": number,
    }
    connection.execute(insert(test_looks), look)


def look_number(connection: Connection, run_ids: Collection[str], sweep_ids: Iterable[str]) -> int:
    """k: which look at the test of these sweeps it is to open the test of these runs now.

    Runs that a verdict opened before keep the number of that look: to read one's own result again
    is no look. Else 1 + the looks at other runs; runs opened by one verdict are one look.
    """
    rows = _looks(connection, sweep_ids)
    judged = {r["run_id"]: int(r["number"]) for r in reversed(rows) if r["number"] is not None}
    if all(run_id in judged for run_id in run_ids):
        return max(judged[run_id] for run_id in run_ids)
    first: dict[str, str] = {}  # run -> the look that opened it
    for row in rows:
        first.setdefault(row["run_id"], row["judging_id"] or row["run_id"])
    others = {look for run_id, look in first.items() if run_id not in run_ids}
    known = [judged[run_id] for run_id in run_ids if run_id in judged]
    return max(len(others) + 1, *known, 1)


def judged_number(
    connection: Connection, fingerprints: Collection[str], sweep_ids: Iterable[str]
) -> int:
    """j: which judging of these sweeps on val it is to judge runs of these fingerprints now.

    A fingerprint judged before keeps its number; those first judged by one command share one.
    """
    query = (
        select(verdicts.c.fingerprint, verdicts.c.judging_id)
        .join(runs, runs.c.run_id == verdicts.c.run_id)
        .where(runs.c.sweep_id.in_(list(sweep_ids)))
        .order_by(verdicts.c.verdict_id)
    )
    first: dict[str, str] = {}
    for row in connection.execute(query):
        first.setdefault(row.fingerprint, row.judging_id)
    order = list(dict.fromkeys(first.values()))
    if all(f in first for f in fingerprints):
        return max(order.index(first[f]) + 1 for f in fingerprints)
    return len(order) + 1


def begin_verdict(connection: Connection, run: Run, *, judging_id: str, who: str) -> None:
    """Put on record that a run's val is about to be judged, before anything of it is read."""
    row = {
        "judging_id": judging_id,
        "run_id": run.run_id,
        "fingerprint": run.fingerprint,
        "outcome": "",
        "content": {},
        "who": who or this_user(),
        "judged_at": datetime.now(UTC),
    }
    connection.execute(insert(verdicts), row)


def _looks(connection: Connection, sweep_ids: Iterable[str]) -> list[Mapping[Any, Any]]:
    """Rows of looks at runs of these sweeps, oldest first."""
    query = (
        select(test_looks.c.run_id, test_looks.c.judging_id, test_looks.c.number)
        .join(runs, runs.c.run_id == test_looks.c.run_id)
        .where(runs.c.sweep_id.in_(list(sweep_ids)))
        .order_by(test_looks.c.look_id)
    )
    return list(connection.execute(query).mappings())


# Lineage: all sweeps that were ranked or sealed on cells of the same items and days.
#
# A cell is an item on one day of val or test. Sweeps that share a cell have learnt from the same
# accidents, whatever their horizon, stride or last bar: their trials, judgings and looks at test
# count together, so that one more bar, one ticker less or H=4 after H=5 starts nothing anew.


RANKED = ("val", "test")


@dataclass(frozen=True, slots=True)
class Footprint:
    """Where a sweep was ranked and sealed: items, and the bars from val's first to test's last."""

    items: frozenset[str] | None  # None: on record without its items, so it may be any
    first: str  # ISO times in UTC, which sort as they read
    last: str

    def meets(self, other: Footprint) -> bool:
        """Is there an item and a bar that both were ranked or sealed on?"""
        if self.last < other.first or other.last < self.first:
            return False
        return self.items is None or other.items is None or bool(self.items & other.items)


def footprint(plan: Mapping[str, Any]) -> Footprint | None:
    """The footprint that a sweep's plan records; None where it was recorded by hand."""
    parts = plan.get("parts") or {}
    found = [parts[name] for name in RANKED if name in parts]
    if not found:
        return None
    items = plan.get("items")
    return Footprint(
        items=None if items is None else frozenset(items),
        first=min(str(p["from"]) for p in found),
        last=max(str(p["to"]) for p in found),
    )


@dataclass(frozen=True, slots=True)
class Lineage:
    """The sweeps whose cells meet those of the sweeps asked about, and what they have tried."""

    sweep_ids: tuple[str, ...]  # oldest first, those asked about among them
    num_trials: int  # configs tried, baselines aside; failed, pruned and hidden ones count
    num_complete: int  # of these, the ones with a complete run


def lineage_of(connection: Connection, sweep_ids: Collection[str]) -> Lineage:
    """The lineage of some sweeps: direct meetings only. Raises NotFound."""
    asked = [queries.get_sweep(connection, sweep_id) for sweep_id in sweep_ids]
    mine = [footprint(sweep.plan) for sweep in asked]
    ids = {sweep.sweep_id for sweep in asked}
    every = reversed(queries.list_sweeps(connection))
    related = tuple(s.sweep_id for s in every if s.sweep_id in ids or _meets(s, mine))
    return Lineage(related, *_count_trials(connection, related))


def _meets(sweep: Sweep, others: Collection[Footprint | None]) -> bool:
    its = footprint(sweep.plan)
    return its is not None and any(o is not None and o.meets(its) for o in others)


def _count_trials(connection: Connection, sweep_ids: Collection[str]) -> tuple[int, int]:
    """(tried, complete) trials of these sweeps, baselines aside."""
    table = schema.runs
    trained = (
        select(table.c.sweep_id, table.c.trial_number, table.c.state)
        .where(table.c.sweep_id.in_(list(sweep_ids)), table.c.is_baseline.is_(False))
        .where(table.c.trial_number.is_not(None))
        .subquery()
    )
    distinct = select(trained.c.sweep_id, trained.c.trial_number).distinct()
    complete = distinct.where(trained.c.state == "complete")
    tried, done = (
        connection.execute(select(func.count()).select_from(q.subquery())).scalar() or 0
        for q in (distinct, complete)
    )
    return int(tried), int(done)
