"""Looks at the sealed test and judgings of val, counted over a lineage; what a lineage is.

Every look at the test of a lineage makes the next one harder to pass, and so does every new
fingerprint that is judged on val: chances that are taken again and again must be paid for.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from foresweep.errors import TrackerError
from foresweep.records import MOVES, REPRODUCES, Run, RunState, Sweep, is_surrogate
from foresweep.tracker.provenance import this_user
from foresweep.tracker.queries import runs as queries
from foresweep.tracker.storage import chain, schema
from foresweep.tracker.storage.schema import jsonable, new_id
from foresweep.tracker.storage.store import Store, line_of

test_looks, verdicts, runs = schema.test_looks, schema.verdicts, schema.runs
SELECTED_ON_TEST = "selected-on-test"


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
    added = insert(test_looks).returning(test_looks.c.look_id)
    look["look_id"] = connection.execute(added, look).scalar_one()
    chain.append(line_of(connection), chain.entry_of(chain.LOOK, look))


def mark_chosen(connection: Connection, run: Run, metric: str) -> Run:
    """The run, its tag and the look on record: it was chosen by what should only confirm."""
    record_look(connection, run, who="", why=f"selection by {metric}")
    tags = list(dict.fromkeys((*run.tags, SELECTED_ON_TEST)))
    connection.execute(update(runs).where(runs.c.run_id == run.run_id).values(tags=tags))
    return queries.get_run(connection, run.run_id)


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

    A fingerprint judged before keeps its number, unless trials have been completed on it since: who
    looks after every trial looks often. Those judged anew by one command share a number.
    """
    query = (
        select(verdicts.c.fingerprint, verdicts.c.judging_id, verdicts.c.judged_at)
        .join(runs, runs.c.run_id == verdicts.c.run_id)
        .where(runs.c.sweep_id.in_(list(sweep_ids)))
        .order_by(verdicts.c.verdict_id)
    )
    rows = list(connection.execute(query))
    cells = {*fingerprints, *(row.fingerprint for row in rows)}
    added: dict[str, list[datetime]] = {cell: [] for cell in cells}
    trials = select(runs.c.fingerprint, runs.c.finished_at).where(
        runs.c.fingerprint.in_(list(cells)),
        runs.c.state == RunState.COMPLETE.value,
        runs.c.is_baseline.is_(False),
        runs.c.source.not_like(f"{REPRODUCES}: %"),
        runs.c.finished_at.is_not(None),
    )
    for cell, finished_at in connection.execute(trials):
        added[cell].append(finished_at)
    order: list[str] = []
    number: dict[str, int] = {}
    seen: dict[str, datetime] = {}

    def is_new(cell: str, until: datetime | None) -> bool:
        after = seen.get(cell)
        return after is None or any(
            after < t and (until is None or t <= until) for t in added[cell]
        )

    for row in rows:
        if is_new(row.fingerprint, row.judged_at):
            if row.judging_id not in order:
                order.append(row.judging_id)
            number[row.fingerprint] = order.index(row.judging_id) + 1
        seen[row.fingerprint] = row.judged_at
    if any(is_new(cell, None) for cell in fingerprints):
        return len(order) + 1
    return max(number[cell] for cell in fingerprints)


def _looks(connection: Connection, sweep_ids: Iterable[str]) -> list[Mapping[Any, Any]]:
    """Rows of looks at runs of these sweeps, oldest first."""
    query = (
        select(test_looks.c.run_id, test_looks.c.judging_id, test_looks.c.number)
        .join(runs, runs.c.run_id == test_looks.c.run_id)
        .where(runs.c.sweep_id.in_(list(sweep_ids)))
        .order_by(test_looks.c.look_id)
    )
    return list(connection.execute(query).mappings())


# Lineage: all sweeps that were steered, ranked or sealed on cells of the same items and days.
#
# A cell is an item on one day of tune, val or test. Sweeps that share a cell have learnt from the
# same accidents, whatever their horizon, stride or last bar: their trials, judgings and looks at
# test count together, so that one more bar, one ticker less or H=4 after H=5 starts nothing anew.
# Nor does another name for an item or another day for a bar: moves are compared, too.


SEEN = ("tune", "val", "test")
FEWEST_SHARED = 2
"""Hashes of moves that two sweeps must share to have seen the same: one may be an accident."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a sweep was steered by, ranked and sealed on: items, the bars from tune's first to
    test's last, and hashes of the moves there."""

    items: frozenset[str] | None  # None: on record without its items, so it may be any
    first: str  # ISO times in UTC, which sort as they read
    last: str
    moves: frozenset[int] = frozenset()  # empty: of a version that kept none

    def meets(self, other: Footprint) -> bool:
        """Have both seen an item on a bar, or the same moves under other names or on other days?"""
        if len(self.moves & other.moves) >= FEWEST_SHARED:
            return True
        if not self.is_beside(other):
            return False
        return self.items is None or other.items is None or bool(self.items & other.items)

    def is_beside(self, other: Footprint) -> bool:
        """Do both hold a common day, whatever their items?"""
        return self.first <= other.last and other.first <= self.last


def footprint(plan: Mapping[str, Any]) -> Footprint | None:
    """The footprint that a sweep's plan records; None where it was recorded by hand."""
    parts = plan.get("parts") or {}
    ranked = [parts[name] for name in SEEN if name in parts]
    if not ranked:
        return None
    items = plan.get("items")
    return Footprint(
        items=None if items is None else frozenset(items),
        first=min(str(p["from"]) for p in ranked),
        last=max(str(p["to"]) for p in ranked),
        moves=_hashes(str(plan.get(MOVES, ""))),
    )


def _hashes(text: str) -> frozenset[int]:
    """64-bit numbers from the text in which a plan keeps them (`data.footprint`)."""
    whole = base64.b64decode(text)
    return frozenset(struct.unpack(f"<{len(whole) // 8}Q", whole))


@dataclass(frozen=True, slots=True)
class Lineage:
    """The sweeps whose cells meet those of the sweeps asked about, and what they have tried."""

    sweep_ids: tuple[str, ...]  # oldest first, those asked about among them
    num_trials: int  # configs times seeds, baselines aside; failed, pruned and hidden ones count
    num_complete: int  # of these, the ones with a complete run
    num_beside: int = 0  # sweeps over common days on other items: not counted, to be said


def lineage_of(connection: Connection, sweep_ids: Collection[str]) -> Lineage:
    """The lineage of some sweeps: direct meetings only. Raises NotFound."""
    asked = [queries.get_sweep(connection, sweep_id) for sweep_id in sweep_ids]
    mine = [_footprint_of(sweep) for sweep in asked]
    ids = {sweep.sweep_id for sweep in asked}
    known = [print_ for print_ in mine if print_ is not None]
    related, beside = [], 0
    for sweep in reversed(queries.list_sweeps(connection)):
        its = _footprint_of(sweep)
        if sweep.sweep_id in ids or (its is not None and any(o.meets(its) for o in known)):
            related.append(sweep.sweep_id)
        elif its is not None and any(o.is_beside(its) for o in known):
            beside += 1
    return Lineage(tuple(related), *_count_trials(connection, related), beside)


def _footprint_of(sweep: Sweep) -> Footprint | None:
    """None for one on surrogate prices: it tells nothing of the real ones."""
    return None if is_surrogate(sweep.plan) else footprint(sweep.plan)


def _count_trials(connection: Connection, sweep_ids: Collection[str]) -> tuple[int, int]:
    """(tried, complete) trials of these sweeps, baselines aside: every seed of a config is one."""
    table = schema.runs
    trained = (
        select(table.c.sweep_id, table.c.trial_number, table.c.seed, table.c.state)
        .where(table.c.sweep_id.in_(list(sweep_ids)), table.c.is_baseline.is_(False))
        .where(table.c.trial_number.is_not(None))
        .subquery()
    )
    cells = (trained.c.sweep_id, trained.c.trial_number, trained.c.seed)
    distinct = select(*cells).distinct()
    complete = distinct.where(trained.c.state == "complete")
    tried, done = (
        connection.execute(select(func.count()).select_from(q.subquery())).scalar() or 0
        for q in (distinct, complete)
    )
    return int(tried), int(done)


# Judgings: begun on record before val is read, a look recorded before test is.


@dataclass(frozen=True, slots=True)
class Judging:
    """One command's judging of a run, or of several of different horizons."""

    judging_id: str
    run_ids: tuple[str, ...]
    lineage: Lineage
    number: int  # j: which judging of the lineage on val this is
    next_look: int  # k: which look at the lineage's test it would be to open it now


class Judgings:
    """What a verdict asks of the record and leaves on it: a part of the tracker."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def lineage(self, sweep_ids: Collection[str]) -> Lineage:
        """The sweeps whose val or test cells meet those of these sweeps. Raises NotFound."""
        with self.store.read() as connection:
            return lineage_of(connection, sweep_ids)

    def origin(self) -> chain.Origin:
        """The database's id, since when it is chained, and the last hash of the chain."""
        with self.store.read() as connection:
            return chain.origin(connection)

    def begin(self, run_ids: Iterable[str], *, who: str = "") -> Judging:
        """Put on record that these runs are judged on val, before anything of it is read.

        Raises NotFound, TrackerError for a run of no sweep.
        """
        now, wanted = datetime.now(UTC), tuple(run_ids)
        judging_id = new_id("judging", now)
        begun = select(verdicts.c.verdict_id).where(verdicts.c.judging_id == judging_id).limit(1)

        def begin(connection: Connection) -> Judging:
            judged = [queries.get_run(connection, run_id) for run_id in wanted]
            lineage = lineage_of(connection, [_sweep_of(run) for run in judged])
            cells = {run.fingerprint for run in judged}
            number = judged_number(connection, cells, lineage.sweep_ids)
            ids = tuple(run.run_id for run in judged)
            next_look = look_number(connection, ids, lineage.sweep_ids)
            if connection.execute(begun).first() is None:  # a repeated transaction writes once
                rows = [
                    {
                        "judging_id": judging_id,
                        "run_id": run.run_id,
                        "fingerprint": run.fingerprint,
                        "outcome": "",
                        "content": {},
                        "who": who or this_user(),
                        "judged_at": now,
                    }
                    for run in judged
                ]
                connection.execute(insert(verdicts), rows)
                entries = (chain.entry_of(chain.VERDICT, row) for row in rows)
                chain.append(line_of(connection), *entries)
            return Judging(judging_id, ids, lineage, number, next_look)

        return self.store.work(begin)

    def record_look(
        self, judging: Judging, run_ids: Collection[str], *, why: str, who: str = ""
    ) -> int:
        """k, once it is on record that the test of these runs is opened for a verdict.

        The caller reads the test's loss panels after this returns, never before.
        """
        mine = select(test_looks.c.number).where(
            test_looks.c.judging_id == judging.judging_id, test_looks.c.run_id.in_(list(run_ids))
        )

        def look(connection: Connection) -> int:
            again = connection.execute(mine).scalars().first()
            if again is not None:
                return int(again)
            number = look_number(connection, run_ids, judging.lineage.sweep_ids)
            own = {"judging_id": judging.judging_id, "number": number}
            for run_id in run_ids:
                run = queries.get_run(connection, run_id)
                record_look(connection, run, who=who, why=why, **own)  # type: ignore[arg-type]
            return number

        return self.store.work(look)

    def end(self, judging: Judging, told: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep the verdicts {run_id: as JSON} of a judging; `outcome` stands by itself, too."""
        of_judging = update(verdicts).where(verdicts.c.judging_id == judging.judging_id)
        with self.store.write() as connection:
            for run_id, verdict in told.items():
                content = jsonable(verdict, "verdict")
                mine = of_judging.where(verdicts.c.run_id == run_id)
                told_now = mine.values(outcome=str(verdict["outcome"]), content=content)
                rows = connection.execute(told_now.returning(verdicts)).mappings().all()
                chain.append(line_of(connection), *(chain.entry_of(chain.VERDICT, r) for r in rows))

    def verdicts(self, run_id: str | None = None) -> list[Mapping[str, Any]]:
        """Every verdict (of one run), oldest first: judging_id, run_id, fingerprint, outcome ("":
        begun and not ended), content, who, judged_at. Test scores are left out of `content`."""
        query = select(verdicts).order_by(verdicts.c.verdict_id)
        if run_id is not None:
            query = query.where(verdicts.c.run_id == run_id)
        with self.store.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def test_looks(self, run_id: str | None = None) -> list[dict[str, Any]]:
        """Every recorded look at test scores (of one run), oldest first: run_id, fingerprint,
        panel_hash, who, why, looked_at, judging_id, number. It carries no score."""
        query = select(schema.test_looks).order_by(test_looks.c.look_id)
        if run_id is not None:
            query = query.where(test_looks.c.run_id == run_id)
        with self.store.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def has_test(self, run_id: str) -> bool:
        """Has a run test scores on record? None is told, so that it is no look."""
        with self.store.read() as connection:
            return bool(queries.sealed_scores(connection, run_id))

    def has_equal_test(self, run_id: str) -> bool | None:
        """Are the sealed scores of a run that reproduces another equal to that one's, to the last
        bit? None where one has none, or it reproduces nothing. No score is told, so that it is no
        look. Raises NotFound."""
        with self.store.read() as connection:
            run = queries.get_run(connection, run_id)
            if run.reproduces is None:
                return None
            mine, theirs = (
                queries.sealed_scores(connection, one) for one in (run.run_id, run.reproduces)
            )
        return mine == theirs if mine and theirs else None  # a failed score is the same nan in both


def _sweep_of(run: Run) -> str:
    """The sweep that a run came from. Raises TrackerError."""
    if run.sweep_id is None:
        raise TrackerError(
            f"run {run.run_id} was logged by hand: it has no losses on record to judge; write them "
            f"to a file and ask: foresweep verdict --losses FILE --benchmark NAME"
        )
    return run.sweep_id
