"""`sweep_results.json` in the seed's form: read in once, written back after each logged run.

    {"runs": [{"run_id", "model_name", "timestamp", "hyperparams", "metrics", "checkpoint_path",
               "training_time_seconds", "notes", "git_commit"}, ...], "last_updated": ...}

Test scores go to sealed rows and are in no file that is written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select

from foresweep.data.tables import write_bytes_atomic
from foresweep.errors import ConfigError, TrackerError
from foresweep.records import Run, RunState
from foresweep.tracker import queries, schema, writes
from foresweep.tracker.rows import numbers_of, open_metrics
from foresweep.tracker.tracker import Tracker

FIELDS = (
    *("run_id", "model_name", "timestamp", "hyperparams", "metrics", "checkpoint_path"),
    *("training_time_seconds", "notes", "git_commit"),
)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file: how many runs are new, how many were known, what was left out."""

    num_new: int = 0
    num_known: int = 0
    left_out: tuple[str, ...] = ()


class JsonTracker(Tracker):
    """The tracker opened the seed's way.

    A `.json` path stands for the SQLite database beside it (same name, `.db`): the file's runs
    are read in once, and the file is written anew after every `log_run`. Any other path or URL
    is the database itself; none is the database of the settings.
    """

    def __init__(self, db_path: str | Path | None = None) -> None:
        """Raises DatabaseUnusable, TrackerError where the JSON file cannot be read."""
        path = None if db_path is None else Path(db_path)
        self._json = path if path is not None and path.suffix.lower() == ".json" else None
        super().__init__(db_path if self._json is None else self._json.with_suffix(".db"))
        if self._json is not None and self._json.exists():
            for reason in import_json(self, self._json).left_out:
                logger.warning("%s: %s", self._json, reason)

    def log_run(
        self,
        model_name: str,
        hyperparams: Mapping[str, Any],
        metrics: Mapping[str, float],
        checkpoint_path: str | Path | None = None,
        training_time_seconds: float | None = None,
        notes: str | None = None,
    ) -> str:
        """As `Tracker.log_run`; the JSON file, where there is one, then holds the run, too."""
        run_id = super().log_run(
            model_name, hyperparams, metrics, checkpoint_path, training_time_seconds, notes
        )
        if self._json is not None:
            try:
                export_json(self, self._json)
            except TrackerError as error:  # the run is safe: its database has it
                logger.warning("run %s is on record, but %s", run_id, error)
        return run_id


def import_json(tracker: Tracker, path: Path) -> Imported:
    """Read a seed's file into the database in one transaction; a file known by content is
    skipped. A record that is not sound is left out, with the reason.

    Raises TrackerError where the file is no JSON of that form.
    """
    content = _read(path)
    digest = hashlib.sha256(content).hexdigest()
    records = _records(content, path)
    with tracker.store.write() as connection:
        if _is_known(connection, digest):
            return Imported(num_known=len(records))
        found = [_import_record(connection, record, n) for n, record in enumerate(records)]
        num_new = found.count("new")
        _remember(connection, digest, path, num_new)
    left_out = tuple(f for f in found if f not in ("new", "known"))
    return Imported(num_new, found.count("known"), left_out)


def export_json(tracker: Tracker, path: Path) -> None:
    """Write every finished run in the seed's form, without test scores, in one step: a reader
    or a crash sees the old file or the new one. A file not written here is kept beside it."""
    with tracker.store.write() as connection:  # two writers take turns
        _keep_original(connection, path)
        runs = queries.get_runs(connection, state=RunState.COMPLETE)
        text = _as_text(runs)
        _remember(connection, hashlib.sha256(text).hexdigest(), path, len(runs))
        _replace(path, text)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrackerError(f"{path} cannot be read: {error.strerror}") from error


def _records(content: bytes, path: Path) -> Sequence[Any]:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise TrackerError(f"{path} is no sound JSON ({error}); mend it or move it away") from error
    runs = found.get("runs") if isinstance(found, dict) else None
    if not isinstance(runs, list):
        raise TrackerError(f'{path} has no list "runs"; give a file in the form of the tracker')
    return runs


def _import_record(connection: Connection, record: Any, position: int) -> str:
    """ "new", "known", or why the record was left out."""
    try:
        row, scores = _row(record)
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        return f"run {position} left out: {reason}"
    if _find_place(connection, row, scores):
        return "known"
    writes.insert_run(connection, row, scores)
    return "new"


def _find_place(
    connection: Connection, row: dict[str, Any], scores: Mapping[str, float | None]
) -> bool:
    """Is the run there already? Else its id is made free: the seed gave two runs of one second
    the same id, so the second becomes `id-2`."""
    wanted, runs = row["run_id"], schema.runs
    metrics = open_metrics(scores).items()  # more may have been added since
    for n in count(2):
        query = select(runs).where(runs.c.run_id == row["run_id"])
        known = connection.execute(query).mappings().first()
        if known is None:
            return False
        same = all(known[name] == row[name] for name in ("created_at", "hyperparams"))
        if same and metrics <= known["metrics"].items():
            return True
        row["run_id"] = f"{wanted}-{n}"
    return False


def _row(record: Any) -> tuple[dict[str, Any], dict[str, float | None]]:
    """A sound record's row of runs and its scores. Raises on the first thing that is not."""
    if not isinstance(record, dict):
        raise TypeError(f"a run must be a mapping, not {record!r}")
    at = datetime.fromisoformat(record["timestamp"])
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    row = writes.new_run(_text(record, "model_name"), record["hyperparams"], at, source="imported")
    texts = ("checkpoint_path", "notes", "git_commit")
    known = {name: _text_or_none(record, name) for name in texts}
    seconds = record.get("training_time_seconds")
    row |= known | {
        "run_id": _text(record, "run_id"),
        "state": RunState.COMPLETE.value,
        "finished_at": at,
        "training_time_seconds": None if seconds is None else float(seconds),
    }
    return row, numbers_of(dict(record["metrics"]))


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record[name]
    if not isinstance(value, str) or not value:
        raise TypeError(f"{name} is {value!r}, not a text")
    return value


def _text_or_none(record: Mapping[str, Any], name: str) -> str | None:
    return None if record.get(name) is None else _text(record, name)


def _is_known(connection: Connection, digest: str) -> bool:
    table = schema.imports
    query = select(table.c.content_hash).where(table.c.content_hash == digest)
    return connection.execute(query).first() is not None


def _remember(connection: Connection, digest: str, path: Path, num_runs: int) -> None:
    if not _is_known(connection, digest):
        row = {"content_hash": digest, "path": str(path), "num_runs": num_runs}
        connection.execute(insert(schema.imports), {**row, "imported_at": datetime.now(UTC)})


def _keep_original(connection: Connection, path: Path) -> None:
    """A file from elsewhere may hold more than is written back (test scores, own fields)."""
    original = path.with_suffix(".original.json")
    if path.exists() and not original.exists():
        content = _read(path)
        if not _is_ours(content):
            _replace(original, content)


def _is_ours(content: bytes) -> bool:
    return b'"written_by": "foresweep"' in content[:200]


def _as_text(runs: Sequence[Run]) -> bytes:
    content = {
        "written_by": "foresweep",
        "runs": [_record(run) for run in runs],
        "last_updated": datetime.now(UTC).replace(tzinfo=None).isoformat(),
    }
    return json.dumps(content, indent=2, allow_nan=False).encode()


def _record(run: Run) -> dict[str, Any]:
    """A run in the seed's form: naive UTC, a failed score null."""
    known = {name: getattr(run, name) for name in FIELDS}
    known["timestamp"] = run.created_at.replace(tzinfo=None).isoformat()
    known["hyperparams"] = dict(run.hyperparams)
    known["metrics"] = {n: None if math.isnan(v) else v for n, v in run.metrics.items()}
    return known


def _replace(path: Path, content: bytes) -> None:
    try:
        write_bytes_atomic(path, content)
    except OSError as error:
        raise TrackerError(f"{path} cannot be written: {error.strerror}") from error
