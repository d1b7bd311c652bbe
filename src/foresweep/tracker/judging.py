"""Bench: what a verdict asks of the record and leaves on it: lineage, judgings, looks, verdicts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select, update

from foresweep.errors import TrackerError
from foresweep.records import Run
from foresweep.tracker import looks, queries, schema
from foresweep.tracker.lineage import Lineage, lineage_of
from foresweep.tracker.recorder import Recorder
from foresweep.tracker.rows import new_id
from foresweep.tracker.schema import jsonable


@dataclass(frozen=True, slots=True)
class Judging:
    """One command's judging of a run, or of several of different horizons."""

    judging_id: str
    run_ids: tuple[str, ...]
    lineage: Lineage
    number: int  # j: which judging of the lineage on val this is
    next_look: int  # k: which look at the lineage's test it would be to open it now


class Bench(Recorder):
    """What a verdict needs of the tracker."""

    def get_lineage(self, sweep_ids: Collection[str]) -> Lineage:
        """The sweeps whose val or test cells meet those of these sweeps. Raises NotFound."""
        with self.store.read() as connection:
            return lineage_of(connection, sweep_ids)

    def begin_judging(self, run_ids: Iterable[str], *, who: str = "") -> Judging:
        """Put on record that these runs are judged on val, before anything of it is read.

        Raises NotFound, TrackerError for a run of no sweep.
        """
        judging_id, wanted = new_id("judging", datetime.now(UTC)), tuple(run_ids)

        def begin(connection: Connection) -> Judging:
            found = [queries.get_run(connection, run_id) for run_id in wanted]
            lineage = lineage_of(connection, [_sweep_of(run) for run in found])
            cells = {run.fingerprint for run in found}
            number = looks.judged_number(connection, cells, lineage.sweep_ids)
            ids = tuple(run.run_id for run in found)
            next_look = looks.look_number(connection, ids, lineage.sweep_ids)
            if not _is_begun(connection, judging_id):  # a repeated transaction writes once
                for run in found:
                    looks.begin_verdict(connection, run, judging_id=judging_id, who=who)
            return Judging(judging_id, ids, lineage, number, next_look)

        return self.store.work(begin)

    def record_test_look(
        self, judging: Judging, run_ids: Collection[str], *, why: str, who: str = ""
    ) -> int:
        """k, once it is on record that the test of these runs is opened for a verdict.

        The caller reads the test's loss panels after this returns, never before.
        """

        def look(connection: Connection) -> int:
            table = schema.test_looks
            mine = select(table.c.number).where(
                table.c.judging_id == judging.judging_id, table.c.run_id.in_(list(run_ids))
            )
            again = connection.execute(mine).scalars().first()
            if again is not None:
                return int(again)
            number = looks.look_number(connection, run_ids, judging.lineage.sweep_ids)
            for run_id in run_ids:
                looks.record_look(
                    connection,
                    queries.get_run(connection, run_id),
                    who=who,
                    why=why,
                    judging_id=judging.judging_id,
                    number=number,
                )
            return number

        return self.store.work(look)

    def end_judging(self, judging: Judging, verdicts: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep the verdicts {run_id: as JSON} of a judging; `outcome` stands by itself, too."""
        table = schema.verdicts
        with self.store.write() as connection:
            for run_id, content in verdicts.items():
                done = {
                    "outcome": str(content["outcome"]),
                    "content": jsonable(content, "verdict"),
                }
                mine = (table.c.judging_id == judging.judging_id) & (table.c.run_id == run_id)
                connection.execute(update(table).where(mine).values(done))

    def get_verdicts(self, run_id: str | None = None) -> list[Mapping[str, Any]]:
        """Every verdict (of one run), oldest first: judging_id, run_id, fingerprint, outcome ("":
        begun and not ended), content, who, judged_at. Test scores are left out of `content`."""
        table = schema.verdicts
        query = select(table).order_by(table.c.verdict_id)
        if run_id is not None:
            query = query.where(table.c.run_id == run_id)
        with self.store.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [{str(name): value for name, value in row.items()} for row in rows]


def _sweep_of(run: Run) -> str:
    """The sweep that a run came from. Raises TrackerError."""
    if run.sweep_id is None:
        raise TrackerError(
            f"run {run.run_id} was logged by hand: it has no losses on record to judge; write them "
            f"to a file and ask: foresweep verdict --losses FILE --benchmark NAME"
        )
    return run.sweep_id


def _is_begun(connection: Connection, judging_id: str) -> bool:
    table = schema.verdicts
    query = select(table.c.verdict_id).where(table.c.judging_id == judging_id).limit(1)
    return connection.execute(query).first() is not None
