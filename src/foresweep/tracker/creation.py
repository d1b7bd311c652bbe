"""New runs with their scores, below SQLAlchemy: one by one, and many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foresweep.errors import ConfigError
from foresweep.tracker import schema
from foresweep.tracker.line import Line
from foresweep.tracker.rows import cells_of, new_id, open_metrics, score_rows
from foresweep.tracker.schema import Instant, Json, instant_text, json_text

_ENCODERS: dict[type, Callable[[Any], Any]] = {Json: json_text, Instant: instant_text}
_RUN = tuple((c.name, _ENCODERS.get(type(c.type))) for c in schema.runs.columns)
_RUN_COLUMNS = tuple(name for name, _ in _RUN)
_SCORE_COLUMNS = tuple(c.name for c in schema.scores.columns)
_INSERT_RUN = (
    f"INSERT INTO runs ({', '.join(_RUN_COLUMNS)})"
    f" VALUES ({', '.join('?' * len(_RUN_COLUMNS))})"
    " ON CONFLICT (run_id) DO NOTHING RETURNING run_id"
)
_INSERT_SCORE = (
    f"INSERT INTO scores ({', '.join(_SCORE_COLUMNS)})"
    f" VALUES ({', '.join('?' * len(_SCORE_COLUMNS))})"
)
_INSERT_SCORES_AT_ONCE = (
    "INSERT INTO scores (run_id, part, metric, value, model_name, state, is_baseline,"
    " has_checkpoint, fingerprint, sweep_id)"
    " SELECT ?, part, metric, value, ?, ?, ?, ?, fingerprint, ?"
    " FROM unnest(?::text[], ?::text[], ?::float8[], ?::text[])"
    " AS s (part, metric, value, fingerprint)"
)
_REVIVE = (  # a sweep presumed lost that is written to was not
    "UPDATE sweeps SET state = 'running', finished_at = NULL WHERE sweep_id = ? AND state = 'lost'"
)
_OWN = "SELECT created_at, pid_start FROM runs WHERE run_id = ?"


@dataclass(frozen=True, slots=True)
class NewRun:
    """A finished run for `Tracker.log_runs`."""

    model_name: str
    hyperparams: Mapping[str, Any]
    metrics: Mapping[str, float]
    checkpoint_path: str | None = None
    training_time_seconds: float | None = None
    notes: str | None = None


def add_run(line: Line, row: dict[str, Any], numbers: Mapping[str, float | None]) -> None:
    """The run under a new id, with its scores where it has some already. Called again with the
    same row after its answer was lost, it finds its own work and leaves it."""
    if row["run_id"] is not None and _is_there(line, row):
        return
    row["run_id"] = new_id(row["model_name"], row["created_at"])
    while not _insert(line, row, numbers):  # another run of this moment drew the same id
        row["run_id"] = new_id(row["model_name"], row["created_at"])


def insert_run(line: Line, row: dict[str, Any], numbers: Mapping[str, float | None]) -> None:
    """A whole row of runs, id included, with its score rows. Raises ConfigError where the id is
    taken."""
    if not _insert(line, row, numbers):
        raise ConfigError(f"there is a run {row['run_id']!r} already")


def add_runs(
    line: Line, pairs: Sequence[tuple[dict[str, Any], Mapping[str, float | None]]]
) -> list[str]:
    """Many runs, in the same unit of work; their ids."""
    if pairs[0][0]["run_id"] is not None and _is_there(line, pairs[0][0]):
        return [row["run_id"] for row, _ in pairs]  # stored before, the answer was lost
    taken: set[str] = set()
    for row, numbers in pairs:
        row["run_id"] = new_id(row["model_name"], row["created_at"])
        while row["run_id"] in taken or _is_taken(line, row["run_id"]):
            row["run_id"] = new_id(row["model_name"], row["created_at"])
        taken.add(row["run_id"])
        _complete(row, numbers)
    line.insert_many("runs", _RUN_COLUMNS, [_encoded(row) for row, _ in pairs])
    scores = (score for row, numbers in pairs for score in score_rows(row, numbers))
    insert_scores(line, scores)
    return [row["run_id"] for row, _ in pairs]


def insert_scores(line: Line, scores: Iterable[Mapping[str, Any]]) -> None:
    """Rows of the scores table."""
    found = [tuple(score[name] for name in _SCORE_COLUMNS) for score in scores]
    if found:
        line.insert_many("scores", _SCORE_COLUMNS, found)


def _insert(line: Line, row: dict[str, Any], numbers: Mapping[str, float | None]) -> bool:
    """False where the id is taken."""
    _complete(row, numbers)
    if line.execute(_INSERT_RUN, _encoded(row)).fetchone() is None:
        return False
    if row["sweep_id"] is not None:
        line.execute(_REVIVE, (row["sweep_id"],))
    if numbers and line.is_postgres:
        _scores_at_once(line, row, numbers)
    elif numbers:
        rows = score_rows(row, numbers)
        line.executemany(_INSERT_SCORE, [tuple(r[n] for n in _SCORE_COLUMNS) for r in rows])
    return True


def _scores_at_once(
    line: Line, row: Mapping[str, Any], numbers: Mapping[str, float | None]
) -> None:
    """A run's scores in one statement: each costs a way to the server."""
    rows = score_rows(row, numbers)
    varying = [[r[name] for r in rows] for name in ("part", "metric", "value", "fingerprint")]
    fixed = [rows[0][name] for name in ("model_name", "state", "is_baseline", "has_checkpoint")]
    line.execute(_INSERT_SCORES_AT_ONCE, (row["run_id"], *fixed, row["sweep_id"], *varying))


def _complete(row: dict[str, Any], numbers: Mapping[str, float | None]) -> None:
    """What follows from the rest of the row."""
    row["fingerprint"] = cells_of(row["fingerprints"], "val")
    row["metrics"] = open_metrics(numbers)


def _encoded(row: Mapping[str, Any]) -> tuple[Any, ...]:
    get = row.get
    return tuple(get(name) if encode is None else encode(get(name)) for name, encode in _RUN)


def _is_taken(line: Line, run_id: str) -> bool:
    return line.execute(_OWN, (run_id,)).fetchone() is not None


def _is_there(line: Line, row: Mapping[str, Any]) -> bool:
    """Is it this very run that stands under its id?"""
    found = line.execute(_OWN, (row["run_id"],)).fetchone()
    mine = instant_text(row["created_at"]), row.get("pid_start")
    return found is not None and tuple(found) == mine
