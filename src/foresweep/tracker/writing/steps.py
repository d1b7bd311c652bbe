"""Points of a running run, and the best over steps beside them: the path that must be fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from foresweep.errors import NotFound, TrackerError
from foresweep.records import RunState
from foresweep.tracker.storage.line import Line

Numbers: TypeAlias = Mapping[str, float | None]

_STANDS = (
    "SELECT state, (SELECT max(last_step) FROM curves WHERE curves.run_id = runs.run_id)"
    " FROM runs WHERE run_id = ?"
)
_POINT = "INSERT INTO curve_points (run_id, name, step, value, logged_at) VALUES (?, ?, ?, ?, ?)"
_POINTS_AT_ONCE = (
    "INSERT INTO curve_points (run_id, name, step, value, logged_at)"
    " SELECT ?, name, step, value, ?"
    " FROM unnest(?::text[], ?::bigint[], ?::float8[]) AS p (name, step, value)"
)
_INTO_CURVES = (
    "INSERT INTO curves"
    " (run_id, name, num_points, last_step, last, lowest, lowest_step, highest, highest_step)"
)
_KEEP_BEST = (
    " ON CONFLICT (run_id, name) DO UPDATE SET"
    " num_points = curves.num_points + 1, last_step = excluded.last_step, last = excluded.last,"
    " lowest_step = CASE WHEN curves.lowest IS NULL OR excluded.lowest < curves.lowest"
    " THEN excluded.lowest_step ELSE curves.lowest_step END,"
    " lowest = CASE WHEN curves.lowest IS NULL OR excluded.lowest < curves.lowest"
    " THEN excluded.lowest ELSE curves.lowest END,"
    " highest_step = CASE WHEN curves.highest IS NULL OR excluded.highest > curves.highest"
    " THEN excluded.highest_step ELSE curves.highest_step END,"
    " highest = CASE WHEN curves.highest IS NULL OR excluded.highest > curves.highest"
    " THEN excluded.highest ELSE curves.highest END"
)
_CURVE = f"{_INTO_CURVES} VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?){_KEEP_BEST}"
_CURVES_AT_ONCE = (
    f"{_INTO_CURVES} SELECT ?, name, 1, step, value, value, best, value, best"
    " FROM unnest(?::text[], ?::bigint[], ?::float8[], ?::bigint[]) AS p (name, step, value, best)"
    f"{_KEEP_BEST}"
)
_BEHIND = "SELECT name FROM curves WHERE run_id = ? AND last_step >= ?"
_FORGET = "DELETE FROM curve_points WHERE run_id = ? AND name = ? AND step = ?"
_OF_CURVE = "SELECT step, value FROM curve_points WHERE run_id = ? AND name = ? ORDER BY step"
_CORRECT = (
    "UPDATE curves SET num_points = ?, last_step = ?, last = ?, lowest = ?, lowest_step = ?,"
    " highest = ?, highest_step = ? WHERE run_id = ? AND name = ?"
)


def log_steps(line: Line, run_id: str, steps: Sequence[tuple[int, Numbers]]) -> None:
    """Points of one or more steps in rising order, and what they change in the curves' bests.

    A step said again replaces what it said. Raises NotFound, TrackerError for a run that has
    ended.
    """
    last = _last_step(line, run_id)
    now = datetime.now(UTC).timestamp()
    for step, numbers in steps:
        if last is not None and step <= last:  # a resumed run says steps again
            _log_again(line, run_id, step, numbers, now)
        else:
            _log_new(line, run_id, step, numbers, now)


def _last_step(line: Line, run_id: str) -> int | None:
    """The newest step on record of a run that may be written to. Raises NotFound, TrackerError."""
    row = line.execute(_STANDS + line.for_update, (run_id,)).fetchone()
    if row is None:
        raise NotFound(f"no run {run_id!r} in this database")
    refuse_ended(run_id, row[0])
    last: int | None = row[1]
    return last


def refuse_ended(run_id: str, state: str) -> None:
    """A run that may be written to is running, waiting or presumed lost. Raises TrackerError."""
    if RunState(state).is_final and state != RunState.LOST:
        raise TrackerError(f"run {run_id} is {state}: it cannot change any more")


def _log_new(line: Line, run_id: str, step: int, numbers: Numbers, now: float) -> None:
    """A step after every step that the run has said."""
    if line.is_postgres:
        _at_once(line, run_id, step, numbers, now)
        return
    line.executemany(_POINT, [(run_id, name, step, v, now) for name, v in numbers.items()])
    line.executemany(
        _CURVE,
        [
            (run_id, name, step, v, v, best, v, best)
            for name, v in numbers.items()
            for best in (None if v is None else step,)
        ],
    )


def _at_once(line: Line, run_id: str, step: int, numbers: Numbers, now: float) -> None:
    """A step in two statements, however many its metrics: each costs a way to the server."""
    names, values = list(numbers), list(numbers.values())
    steps = [step] * len(names)
    bests = [None if value is None else step for value in values]
    line.execute(_POINTS_AT_ONCE, (run_id, now, names, steps, values))
    line.execute(_CURVES_AT_ONCE, (run_id, names, steps, values, bests))


def _log_again(line: Line, run_id: str, step: int, numbers: Numbers, now: float) -> None:
    """A step at or before the newest: forget what it said, then count those curves anew."""
    rows = line.execute(_BEHIND, (run_id, step)).fetchall()
    behind = sorted({name for (name,) in rows} & set(numbers))
    line.executemany(_FORGET, [(run_id, name, step) for name in behind])
    line.executemany(_POINT, [(run_id, name, step, numbers[name], now) for name in behind])
    for name in behind:
        _count_anew(line, run_id, name)
    if fresh := {name: value for name, value in numbers.items() if name not in behind}:
        _log_new(line, run_id, step, fresh, now)


def _count_anew(line: Line, run_id: str, name: str) -> None:
    """A curve's line from its points."""
    summary = summary_of(line.execute(_OF_CURVE, (run_id, name)).fetchall())
    line.execute(_CORRECT, (*summary, run_id, name))


def summary_of(points: Sequence[tuple[int, float | None]]) -> tuple[Any, ...]:
    """(num_points, last_step, last, lowest, lowest_step, highest, highest_step) of a curve's
    (step, value) in order of steps; of equal bests the first."""
    sound = [(value, step) for step, value in points if value is not None]
    lowest = min(sound, default=(None, None))
    highest = max(sound, key=lambda p: (p[0], -p[1]), default=(None, None))
    return len(points), *points[-1], *lowest, *highest
