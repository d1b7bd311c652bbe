"""`sweep_results.json` in the seed's form: read in once, written back after each logged run.

    {"runs": [{"run_id", "model_name", "timestamp", "hyperparams", "metrics", "checkpoint_path",
               "training_time_seconds", "notes", "git_commit"}, ...], "last_updated": ...}

Test scores go to sealed rows, and into a file only where a look at them is asked for and
recorded. A file that is not sound is read as far as it is; what was left out is said.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select

from foresweep.data.files import write_bytes_atomic
from foresweep.errors import ConfigError, TrackerError
from foresweep.records import Run, RunState
from foresweep.tracker.queries import runs as queries
from foresweep.tracker.queries.runs import RunQuery
from foresweep.tracker.sealed import record_look
from foresweep.tracker.storage import schema
from foresweep.tracker.storage.schema import as_number, open_metrics, real
from foresweep.tracker.tracker import Tracker
from foresweep.tracker.writing import runs as writes
from foresweep.tracker.writing.steps import Numbers

FIELDS = (
    *("run_id", "model_name", "timestamp", "hyperparams", "metrics", "checkpoint_path"),
    *("training_time_seconds", "notes", "git_commit"),
)
_AFTER = re.compile(r"\s*,?\s*")
logger = logging.getLogger(__name__)


IMPORTED = "imported"
"""Source of a run from a file; behind it the offset of its time, where the file had one."""
LOOK = "export to {path}"
"""Why a test score was looked at, as the record of the look says it."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file: how many runs are new, how many were known, what was left out."""

    num_new: int = 0
    num_known: int = 0
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Exported:
    """What a file holds: so many complete runs; so many others have no place in this form."""

    num_runs: int
    num_left_out: int


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
        self._read_in()

    def _read_in(self) -> None:
        """The runs of the JSON file that are not known yet."""
        if self._json is not None and self._json.exists() and not self.store.is_read_only:
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
                self._read_in()  # somebody else may have added to the file
                export_json(self, self._json)
            except TrackerError as error:  # the run is safe: its database has it
                logger.warning("run %s is on record, but %s", run_id, error)
        return run_id


def import_json(tracker: Tracker, path: Path) -> Imported:
    """Read a seed's file into the database in one transaction; of a file known by content
    nothing is new. What is not sound (a record, a field, the rest of a file that was cut off) is
    left out, with the reason.

    Raises TrackerError where nothing of the file is of that form.
    """
    content = _read(path)
    digest = hashlib.sha256(content).hexdigest()
    records, faults = _records(content, path)
    with tracker.store.write() as connection:
        is_known = _is_known(connection, digest)
        if is_known and _is_ours(content):
            return Imported(num_known=len(records))
        sound, left_out = _sound(records)
        num_new = 0 if is_known else sum(_bring_in(connection, *one) for one in sound)
        _remember(connection, digest, path, num_new)
    left_out += [*_unknown_fields(records), *faults]
    return Imported(num_new, len(sound) - num_new, tuple(left_out))


def export_json(tracker: Tracker, path: Path, *, reveal_test: bool = False) -> Exported:
    """Write every complete run in the seed's form in one step: a reader or a crash sees the old
    file or the new one. A file that holds more than is written back is kept beside it.

    Test scores are left out, unless `reveal_test`: then the look at each is on record before
    the file is there. Raises TrackerError where it cannot be written.
    """
    with tracker.store.write() as connection:  # two writers take turns
        text, exported = _export(connection, str(path), reveal_test)
        _keep_original(path, text)
        _remember(connection, hashlib.sha256(text).hexdigest(), path, exported.num_runs)
        if not reveal_test:
            _replace(path, text)
    if reveal_test:  # a file that is there while its looks are not would be a hole in the record
        _replace(path, text)
    return exported


def dump_json(tracker: Tracker, *, reveal_test: bool = False) -> str:
    """What `export_json` writes, as a text."""
    with tracker.store.write() as connection:
        return _export(connection, "the screen", reveal_test)[0].decode()


def _export(connection: Connection, place: str, reveal_test: bool) -> tuple[bytes, Exported]:
    every = queries.get_runs(connection, RunQuery())
    runs = [run for run in every if run.state == RunState.COMPLETE]
    sealed: dict[str, dict[str, float]] = {}
    if reveal_test:
        sealed = {run.run_id: queries.sealed_scores(connection, run.run_id) for run in runs}
        for run in runs:
            if sealed[run.run_id]:
                record_look(connection, run, who="", why=LOOK.format(path=place))
    return _as_text(runs, sealed), Exported(len(runs), len(every) - len(runs))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrackerError(f"{path} cannot be read: {error.strerror}") from error


def _records(content: bytes, path: Path) -> tuple[Sequence[Any], tuple[str, ...]]:
    """The records of the list "runs", as far as the file is sound, and where it is not."""
    try:
        held = json.loads(content)
    except (ValueError, RecursionError) as error:
        return _salvaged(content, path, error)
    runs = held.get("runs") if isinstance(held, dict) else None
    if not isinstance(runs, list):
        raise TrackerError(f'{path} has no list "runs"; give a file in the form of the tracker')
    return runs, ()


def _salvaged(
    content: bytes, path: Path, error: Exception
) -> tuple[Sequence[Any], tuple[str, ...]]:
    """The whole records before the first fault. Raises TrackerError where there is none."""
    text = content.decode("utf-8", errors="replace")
    opening = re.search(r'"runs"\s*:\s*\[\s*', text)
    whole: list[Any] = []
    at = opening.end() if opening else 0
    decoder = json.JSONDecoder()
    while opening and text[at : at + 1] == "{":
        try:
            record, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            break
        whole.append(record)
        at = _AFTER.match(text, at).end()  # type: ignore[union-attr]  # matches anything
    if not whole:
        raise TrackerError(f"{path} is no sound JSON ({error}); mend it or move it away") from error
    rest = f"the file is not sound after run {len(whole) - 1} (character {at}): {error}"
    return whole, (f"{rest}; what comes later is left out",)


def _unknown_fields(records: Sequence[Any]) -> list[str]:
    """Fields that have no place in the database, once each with the number of runs."""
    held = [name for r in records if isinstance(r, dict) for name in r if name not in FIELDS]
    return [f"field {name!r} of {held.count(name)} runs left out" for name in dict.fromkeys(held)]


def _sound(records: Sequence[Any]) -> tuple[list[tuple[dict[str, Any], Numbers]], list[str]]:
    """(row of runs, scores) of every sound record, and what was left out of the others."""
    sound: list[tuple[dict[str, Any], Numbers]] = []
    left_out: list[str] = []
    for n, record in enumerate(records):
        try:
            row, scores, without = _row(record)
        except (ConfigError, LookupError, TypeError, ValueError, ArithmeticError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            left_out.append(f"run {n} left out: {reason}")
            continue
        sound.append((row, scores))
        left_out += [f"run {n} without {reason}" for reason in without]
    return sound, left_out


def _bring_in(connection: Connection, row: dict[str, Any], scores: Numbers) -> bool:
    """Put a run on record; False where it is there already."""
    if _find_place(connection, row, scores):
        return False
    writes.insert_run(connection, row, scores)
    return True


def _find_place(connection: Connection, row: dict[str, Any], scores: Numbers) -> bool:
    """Is the run there already? Else its id is made free: the seed gave two runs of one second
    the same id, so the second becomes `id-2`."""
    wanted, runs = row["run_id"], schema.runs
    metrics = open_metrics(scores).items()  # more may have been added since
    for n in count(2):
        query = select(runs).where(runs.c.run_id == row["run_id"])
        there = connection.execute(query).mappings().first()
        if there is None:
            return False
        same = all(there[name] == row[name] for name in ("created_at", "hyperparams"))
        if same and metrics <= there["metrics"].items():
            return True
        row["run_id"] = f"{wanted}-{n}"
    return False


def _row(record: Any) -> tuple[dict[str, Any], dict[str, float | None], list[str]]:
    """A record's row of runs, its scores, and why a metric or time was left out of them. Raises on
    the first thing without which it is no run."""
    if not isinstance(record, dict):
        raise TypeError(f"a run must be a mapping, not {record!r}")
    said = datetime.fromisoformat(record["timestamp"])
    at = said.replace(tzinfo=UTC) if said.tzinfo is None else said.astimezone(UTC)
    source = IMPORTED if said.tzinfo is None else f"{IMPORTED} {said:%z}"
    row = writes.new_run(_text(record, "model_name"), record["hyperparams"], at, source=source)
    texts = ("checkpoint_path", "notes", "git_commit")
    row |= {
        name: None if record.get(name) in (None, "") else _text(record, name) for name in texts
    } | {
        "run_id": _text(record, "run_id"),
        "state": RunState.COMPLETE.value,
        "finished_at": at,
    }
    scores: dict[str, float | None] = {}
    without = []
    for name, value in dict(record["metrics"]).items():
        try:
            scores[_storable(name, "the name of a metric")] = as_number(value, name)
        except (ConfigError, ValueError) as error:
            without.append(str(error))
    try:
        seconds = real(record.get("training_time_seconds"), "training_time_seconds")
    except ConfigError as error:
        seconds, without = None, [*without, str(error)]
    return row | {"training_time_seconds": seconds}, scores, without


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record[name]
    if not isinstance(value, str) or not value:
        raise TypeError(f"{name} is {value!r}, not a text")
    return _storable(value, name)


def _storable(text: str, what: str) -> str:
    """A text that every database takes. Raises ValueError."""
    if "\x00" in text or (not text.isprintable() and any("\ud800" <= c <= "\udfff" for c in text)):
        raise ValueError(f"{what} is {text!r}, which no database can hold")
    return text


def _is_known(connection: Connection, digest: str) -> bool:
    table = schema.imports
    query = select(table.c.content_hash).where(table.c.content_hash == digest)
    return connection.execute(query).first() is not None


def _remember(connection: Connection, digest: str, path: Path, num_runs: int) -> None:
    if not _is_known(connection, digest):
        row = {"content_hash": digest, "path": str(path), "num_runs": num_runs}
        connection.execute(insert(schema.imports), {**row, "imported_at": datetime.now(UTC)})


def _keep_original(path: Path, text: bytes) -> None:
    """Keep a file that may hold more than the `text` that is written in its place (test scores, own
    fields, changes made by hand, a part that could not be read, runs of another database) under a
    free name beside it."""
    if not path.is_file():
        return
    content = _read(path)
    if _is_ours(content) and _ids(content) <= _ids(text):
        return
    for n in count(1):
        kept = path.with_suffix(".original.json" if n == 1 else f".original-{n}.json")
        if not kept.exists():
            _replace(kept, content)
        if _read(kept) == content:
            return


def _is_ours(content: bytes) -> bool:
    """Written here, whole, and not changed since in a way that would be lost. Files of older
    versions do not say their digest: theirs are taken for unchanged where every record is sound."""
    try:
        held = json.loads(content)
    except (ValueError, RecursionError):
        return False
    if not isinstance(held, dict) or held.get("written_by") != "foresweep":
        return False
    runs = held.get("runs")
    if not isinstance(runs, list):
        return False
    if "runs_sha256" in held:
        return bool(held["runs_sha256"] == _digest(runs))
    known = all(isinstance(r, dict) and set(r) <= set(FIELDS) for r in runs)
    return known and not _sound(runs)[1]


def _ids(content: bytes) -> set[str]:
    """The run ids of a file that was written here."""
    return {str(record["run_id"]) for record in json.loads(content)["runs"]}


def _digest(records: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()


def _as_text(runs: Sequence[Run], sealed: Mapping[str, Mapping[str, float]]) -> bytes:
    records = [_record(run, sealed.get(run.run_id, {})) for run in runs]
    content = {
        "written_by": "foresweep",
        "runs": records,
        "runs_sha256": _digest(records),
        "last_updated": datetime.now(UTC).replace(tzinfo=None).isoformat(),
    }
    return json.dumps(content, indent=2, allow_nan=False).encode()


def _record(run: Run, sealed: Mapping[str, float]) -> dict[str, Any]:
    """A run in the seed's form; a failed score is null."""
    record = {name: getattr(run, name) for name in FIELDS}
    record["timestamp"] = _moment(run)
    seconds = run.training_time_seconds
    record["training_time_seconds"] = (
        None if seconds is None or not math.isfinite(seconds) else seconds
    )
    record["hyperparams"] = dict(run.hyperparams)
    metrics = {**run.metrics, **sealed}
    record["metrics"] = {n: None if math.isnan(v) else v for n, v in metrics.items()}
    return record


def _moment(run: Run) -> str:
    """When it was made: naive UTC, or with the offset that it came in with."""
    offset = run.source.removeprefix(f"{IMPORTED} ")
    if offset == run.source:
        return run.created_at.replace(tzinfo=None).isoformat()
    return run.created_at.astimezone(datetime.strptime(offset, "%z").tzinfo).isoformat()


def _replace(path: Path, content: bytes) -> None:
    try:
        write_bytes_atomic(path, content)
    except OSError as error:
        raise TrackerError(f"{path} cannot be written: {error.strerror}") from error
