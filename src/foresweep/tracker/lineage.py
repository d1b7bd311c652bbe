"""Lineage: all sweeps that were ranked or sealed on cells of the same items and days.

A cell is an item on one day of val or test. Sweeps that share a cell have learnt from the same
accidents, whatever their horizon, stride or last bar: their trials, judgings and looks at test
count together, so that one more bar, one ticker less or H=4 after H=5 starts nothing anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from foresweep.records import Sweep
from foresweep.tracker import queries, schema

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
