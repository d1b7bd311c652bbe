"""Hiding a run, out of every list and still a trial that was made; taking a tag off it."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, select, update

from foresweep.errors import NotFound, TrackerError
from foresweep.records import Run, RunState
from foresweep.tracker.queries import runs as queries
from foresweep.tracker.storage import chain, schema
from foresweep.tracker.storage.schema import HIDDEN
from foresweep.tracker.storage.store import line_of
from foresweep.tracker.tracker import Tracker


def hide_run(tracker: Tracker, run_id: str, *, forget_files: bool = False) -> Run:
    """Hide a run that is finished or waits; the record as it was. Hiding it again changes nothing.

    `forget_files`: its checkpoint is about to be removed, so that the record shall not name it any
    more. Its losses stay: a verdict counts every trial. Raises NotFound, TrackerError for a run
    that goes on.
    """
    runs, scores = schema.runs, schema.scores
    with tracker.store.write() as connection:
        run = queries.get_run(connection, run_id)
        if not run.state.is_final and run.state is not RunState.WAITING:
            raise TrackerError(f"run {run.run_id} is {run.state}: stop it before it is removed")
        changed: dict[str, datetime | None] = {}
        if not is_hidden(connection, run.run_id):
            changed["hidden_at"] = datetime.now(UTC)
        if forget_files:
            changed["checkpoint_path"] = None
        of_run = scores.c.run_id == run.run_id
        if changed:
            connection.execute(update(runs).where(runs.c.run_id == run.run_id).values(changed))
        connection.execute(update(scores).where(of_run).values(state=HIDDEN))
        if forget_files:
            connection.execute(update(scores).where(of_run).values(has_checkpoint=False))
        if "hidden_at" in changed:
            entry = chain.hidden_entry(run.run_id, changed["hidden_at"])
            chain.append(line_of(connection), entry)
        return run


def show_run_again(tracker: Tracker, run_id: str) -> Run:
    """Bring a hidden run back to lists and rankings. Raises NotFound, TrackerError where it is
    not hidden."""
    runs, scores = schema.runs, schema.scores
    with tracker.store.write() as connection:
        run = queries.get_run(connection, run_id)
        if not is_hidden(connection, run.run_id):
            raise TrackerError(f"run {run.run_id} is not hidden")
        mine = runs.c.run_id == run.run_id
        connection.execute(update(runs).where(mine).values(hidden_at=None))
        of_run = scores.c.run_id == run.run_id
        connection.execute(update(scores).where(of_run).values(state=run.state.value))
        chain.append(line_of(connection), chain.hidden_entry(run.run_id, None))
        return run


def remove_tag(tracker: Tracker, run_id: str, tag: str) -> Run:
    """Take a tag off a run. Raises NotFound for a run or a tag that is not there."""
    with tracker.store.write() as connection:
        run = queries.get_run(connection, run_id)
        if tag not in run.tags:
            raise NotFound(f"run {run.run_id} has no tag {tag!r}")
        mine = schema.runs.c.run_id == run.run_id
        left = [t for t in run.tags if t != tag]
        connection.execute(update(schema.runs).where(mine).values(tags=left))
        return queries.get_run(connection, run.run_id)


def is_hidden(connection: Connection, run_id: str) -> bool:
    """Is this run hidden? `run_id` in full."""
    query = select(schema.runs.c.hidden_at).where(schema.runs.c.run_id == run_id)
    return connection.execute(query).scalar() is not None
