"""The tables, as SQLAlchemy Core, and what stands between their rows and records.

Score rows repeat what a ranking asks of their run (model, state, checkpoint, fingerprint), so
that the best of a rare model among many runs is one probe of an index. Rows of part `test` are
sealed: no read hands them out but the one that records the look.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    TypeDecorator,
    false,
    literal_column,
)
from sqlalchemy import Text as _Text

from foresweep.errors import ConfigError, DatabaseUnusable
from foresweep.records import Run, RunState, Sweep, SweepState, Trial, is_sealed, split_name
from foresweep.settings import load_settings

HEAD = "0011"
"""The newest migration. Revisions are counted, so that a newer database is known by its number."""
VERSION_TABLE = "foresweep_version"
LARGEST = 2**63 - 1
"""Whole numbers beyond it have no room in a column."""


Text = _Text().with_variant(_Text(collation="C"), "postgresql")
"""Sorts by its bytes on every database, whatever language the server speaks."""
_encode = json.JSONEncoder(allow_nan=False).encode
_decode = json.JSONDecoder().decode
_EMPTY: dict[str, type] = {"{}": dict, "[]": list}


class Json(TypeDecorator[Any]):
    """A JSON value as text; numbers come back to the last bit, tuples come back as lists."""

    impl = _Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return json_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        if value is None or value in _EMPTY:  # most columns of most runs are empty
            return None if value is None else _EMPTY[value]()
        try:
            return _decode(value)
        except (ValueError, TypeError, RecursionError) as error:
            raise damaged("value", value) from error


class Instant(TypeDecorator[datetime]):
    """An aware time as ISO text in UTC to the microsecond, which sorts as it reads."""

    impl = _Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        return instant_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        try:
            return None if value is None else datetime.fromisoformat(value)
        except (ValueError, TypeError) as error:
            raise damaged("time", value) from error


def damaged(what: str, value: Any) -> DatabaseUnusable:
    """The error of a row that holds what foresweep never writes."""
    return DatabaseUnusable(
        f"the database is damaged: a {what} on record reads {value!r:.60}; see foresweep db check, "
        f"and restore a copy"
    )


def json_text(value: Any) -> str | None:
    return None if value is None else _encode(value)


def instant_text(value: datetime | None) -> str | None:
    return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")


metadata = MetaData()

datasets = Table(
    "datasets",
    metadata,
    Column("dataset_id", Text, primary_key=True),
    Column("panel_hash", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("num_items", Integer, nullable=False),
    Column("num_rows", BigInteger, nullable=False),
    Column("starts_at", Text, nullable=False),
    Column("ends_at", Text, nullable=False),
    Column("findings", Json, nullable=False),
    Column("created_at", Instant, nullable=False),
)

environments = Table(
    "environments",
    metadata,
    Column("environment_id", Text, primary_key=True),  # sha256 of the content
    Column("content", Json, nullable=False),
)


def _owner() -> list[Column[Any]]:
    """The process that writes for a row: how others know whether it still lives."""
    return [
        Column("host", Text),
        Column("machine", Text),
        Column("pid", Integer),
        Column("pid_start", Text),
        Column("heartbeat_at", Instant),
    ]


sweeps = Table(
    "sweeps",
    metadata,
    Column("sweep_id", Text, primary_key=True),
    Column("name", Text),
    Column("models", Json, nullable=False),
    Column("mode", Text, nullable=False),
    Column("objective", Text, nullable=False),
    Column("horizon", Integer, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("panel_hash", Text, nullable=False),
    Column("task_hash", Text, nullable=False),
    Column("fingerprints", Json, nullable=False),
    Column("plan", Json, nullable=False),
    Column("dataset_id", Text, ForeignKey("datasets.dataset_id")),
    Column("environment_id", Text, ForeignKey("environments.environment_id")),
    Column("num_trials", Integer, nullable=False, default=0),
    Column("state", Text, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("finished_at", Instant),
    *_owner(),
    Column("stop_asked_at", Instant),  # by another process; its heads see it and stop
    Index("ix_sweeps_started", "started_at"),
    Index("ix_sweeps_state", "state"),
)

trials = Table(
    "trials",
    metadata,
    Column("sweep_id", Text, ForeignKey("sweeps.sweep_id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("model_name", Text, nullable=False),
    Column("config", Json, nullable=False),
    Column("config_hash", Text, nullable=False),
    Column("train_hash", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Index("ix_trials_config", "sweep_id", "config_hash"),
)

leases = Table(
    "leases",
    metadata,
    Column("sweep_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("taken_at", Instant, nullable=False),
    *_owner(),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("model_name", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("hyperparams", Json, nullable=False),
    Column("metrics", Json, nullable=False),  # the open scores, as the record shows them
    Column("checkpoint_path", Text),
    Column("training_time_seconds", Float),
    Column("duration_seconds", Float),
    Column("notes", Text),
    Column("git_commit", Text),
    Column("state", Text, nullable=False),
    Column("is_baseline", Boolean, nullable=False),
    Column("sweep_id", Text, ForeignKey("sweeps.sweep_id")),
    Column("trial_number", Integer),
    Column("seed", BigInteger),
    Column("attempt", Integer, nullable=False),
    Column("config_hash", Text, nullable=False),
    Column("train_hash", Text, nullable=False),
    Column("panel_hash", Text, nullable=False),
    Column("task_hash", Text, nullable=False),
    Column("fingerprints", Json, nullable=False),
    Column("fingerprint", Text, nullable=False),  # of val; "": of no sweep
    Column("objective_score", Float),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    Column("error", Text),
    Column("tags", Json, nullable=False),
    Column("resources", Json, nullable=False),
    Column("source", Text, nullable=False),
    Column("forecasts_path", Text),
    Column("peak_memory_mb", Float),
    Column("environment_id", Text, ForeignKey("environments.environment_id")),
    *_owner(),
    Column("worker_pid", Integer),  # empty; kept, as SQLite before 3.35 drops no column
    Column("hidden_at", Instant),  # a hidden run is in no list and no ranking, and still a trial
    Index("ix_runs_created", "created_at"),
    Index("ix_runs_model", "model_name", "created_at"),
    Index("ix_runs_sweep", "sweep_id", "model_name", "trial_number"),
    Index("ix_runs_state", "state"),
    Index("ix_runs_trained", "train_hash", "seed"),
)

scores = Table(
    "scores",
    metadata,
    Column("run_id", Text, ForeignKey("runs.run_id"), primary_key=True),
    Column("part", Text, primary_key=True),
    Column("metric", Text, primary_key=True),
    Column("value", Float),  # NULL: failed to score
    Column("model_name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("is_baseline", Boolean, nullable=False),
    Column("has_checkpoint", Boolean, nullable=False),
    Column("fingerprint", Text, nullable=False),  # "": of no sweep
    Column("sweep_id", Text),
    Index(
        "ix_scores_model",
        *("metric", "part", "fingerprint", "model_name", "state", "is_baseline"),
        *("has_checkpoint", "value", "run_id"),
    ),
    Index(
        "ix_scores_all",
        *("metric", "part", "fingerprint", "state", "is_baseline"),
        *("has_checkpoint", "value", "run_id"),
    ),
)

curve_points = Table(
    "curve_points",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("value", Float),  # NULL: was no number
    Column("logged_at", Float, nullable=False),  # seconds since 1970: one small number a point
    sqlite_with_rowid=False,
)

curves = Table(
    "curves",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("num_points", BigInteger, nullable=False),
    Column("last_step", BigInteger, nullable=False),
    Column("last", Float),
    Column("lowest", Float),
    Column("lowest_step", BigInteger),
    Column("highest", Float),
    Column("highest_step", BigInteger),
    Column("is_final", Boolean, nullable=False, server_default=false()),  # its run has ended
    sqlite_with_rowid=False,
)
for _best in ("lowest", "highest"):  # of ended runs only: a step of a running one stays cheap
    Index(
        f"ix_curves_{_best}",
        curves.c.name,
        curves.c[_best],
        curves.c.run_id,
        sqlite_where=curves.c.is_final.is_(True),
        postgresql_where=curves.c.is_final.is_(True),
    )

test_looks = Table(
    "test_looks",
    metadata,
    Column("look_id", Integer, primary_key=True),
    Column("run_id", Text, ForeignKey("runs.run_id"), nullable=False),
    Column("fingerprint", Text, nullable=False),  # of the test part
    Column("panel_hash", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("looked_at", Instant, nullable=False),
    Column("judging_id", Text),  # of the verdict that looked; NULL: looked at by hand
    Column("number", Integer),  # which look of its lineage it was
    Index("ix_test_looks_fingerprint", "fingerprint"),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("verdict_id", Integer, primary_key=True),
    Column("judging_id", Text, nullable=False),  # runs judged by one command share it
    Column("run_id", Text, ForeignKey("runs.run_id"), nullable=False),
    Column("fingerprint", Text, nullable=False),  # of val
    Column("outcome", Text, nullable=False),  # "": begun, not ended
    Column("content", Json, nullable=False),
    Column("who", Text, nullable=False),
    Column("judged_at", Instant, nullable=False),
    Index("ix_verdicts_run", "run_id"),
)

champions = Table(  # what was put in service and taken out again: rows are added, never changed
    "champions",
    metadata,
    Column("entry_id", Integer, primary_key=True),
    Column("entry_key", Text, nullable=False),  # knows a repeated transaction
    Column("slot", Text, nullable=False),
    Column("action", Text, nullable=False),  # promote, rollback, shadow, retire
    Column("run_id", Text, ForeignKey("runs.run_id"), nullable=False),
    Column("checkpoint_path", Text, nullable=False),
    Column("manifest", Text, nullable=False),  # hash of the checkpoint's list of files
    Column("verdict_id", Integer),
    Column("reason", Text),  # where it was forced
    Column("content", Json, nullable=False),
    Column("who", Text, nullable=False),
    Column("made_at", Instant, nullable=False),
    Index("ix_champions_key", "entry_key", unique=True),
    Index("ix_champions_slot", "slot"),
)

forecasts_made = Table(  # an item at an origin each, hash-chained in the order they were made
    "forecasts_made",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("slot", Text, nullable=False),
    Column("role", Text, nullable=False),  # champion or shadow
    Column("run_id", Text, ForeignKey("runs.run_id"), nullable=False),
    Column("manifest", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("origin", Text, nullable=False),  # ISO time of the last bar seen
    Column("horizon", Integer, nullable=False),
    Column("last_close", Float, nullable=False),
    Column("times", Json, nullable=False),  # [H] ISO times of the bars forecast
    Column("levels", Json, nullable=False),  # [Q]
    Column("quantiles", Json, nullable=False),  # [H][Q] prices
    Column("input_hash", Text, nullable=False),  # of the bars that were seen
    Column("source", Text, nullable=False),  # the command that asked
    Column("made_at", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index(
        "ix_forecasts_once",
        *("slot", "role", "manifest", "item_id", "origin", "horizon", "input_hash"),
        unique=True,
    ),
    Index("ix_forecasts_origin", "slot", "origin"),
)

live_scores = Table(  # what became of a forecast: one row each, written once
    "live_scores",
    metadata,
    Column("score_id", Integer, primary_key=True),  # the order in which a test takes them in
    Column("number", Integer, ForeignKey("forecasts_made.number"), nullable=False),
    Column("slot", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("horizon", Integer, nullable=False),
    Column("metric", Text, nullable=False),
    Column("loss", Float),  # NULL: not counted, `note` says why
    Column("last_value_loss", Float),
    Column("benchmark", Text, nullable=False),
    Column("benchmark_loss", Float),
    Column("scale", Float),  # percent: volatility over the horizon, known at the origin
    Column("covered", Float),  # share of leads inside the widest band of quantiles
    Column("note", Text, nullable=False),
    Column("scored_at", Instant, nullable=False),
    Index("ix_live_scores_number", "number", unique=True),
    Index("ix_live_scores_slot", "slot", "role"),
)

live_checks = Table(  # what a monitor found, each time it looked
    "live_checks",
    metadata,
    Column("check_id", Integer, primary_key=True),
    Column("check_key", Text, nullable=False),  # knows a repeated transaction
    Column("slot", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("content", Json, nullable=False),
    Column("checked_at", Instant, nullable=False),
    Index("ix_live_checks_key", "check_key", unique=True),
    Index("ix_live_checks_slot", "slot"),
)

chains = Table(  # where the hash chain of forecasts ends
    "chains",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("length", Integer, nullable=False),
    Column("hash", Text, nullable=False),
)

notes = Table(
    "notes",
    metadata,
    Column("note_id", Integer, primary_key=True),
    Column("run_id", Text, ForeignKey("runs.run_id"), nullable=False),
    Column("text", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Index("ix_notes_run", "run_id"),
)

declarations = Table(  # what a search set out to do: rows are added, never changed
    "declarations",
    metadata,
    Column("declaration_id", Text, primary_key=True),
    Column("question", Text, nullable=False),
    Column("models", Json, nullable=False),
    Column("objective", Text, nullable=False),
    Column("horizons", Json, nullable=False),
    Column("max_trials", Integer, nullable=False),
    Column("smallest_skill", Float),
    Column("who", Text, nullable=False),
    Column("declared_at", Instant, nullable=False),
)

record_chain = Table(  # see foresweep.tracker.storage.chain
    "record_chain",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("previous", Text, nullable=False),  # the hash of the entry before
    Column("hash", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("covers", Text, nullable=False),
    Column("at", Text, nullable=False),
)
Index(  # where each sweep stands in it: their order, whatever a clock said
    "ix_record_chain_sweeps",
    record_chain.c.key,
    record_chain.c.position,
    sqlite_where=record_chain.c.kind == literal_column("'sweep'"),
    postgresql_where=record_chain.c.kind == literal_column("'sweep'"),
)

imports = Table(
    "imports",
    metadata,
    Column("content_hash", Text, primary_key=True),
    Column("path", Text, nullable=False),
    Column("num_runs", Integer, nullable=False),
    Column("imported_at", Instant, nullable=False),
)


DEEPEST = 100
"""Lists and mappings inside each other that a JSON value may have."""


def jsonable(value: Any, name: str, *, depth: int = 0) -> Any:
    """`value` in JSON's own types: numpy scalars become numbers, tuples lists.

    Raises ConfigError naming what cannot be stored: NaN, infinities, whole numbers beyond any
    float, keys that are no texts, what is nested too deep, anything that is no number, text, truth
    value, list or mapping.
    """
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            raise ConfigError(f"{name} is too large: no database keeps such a number")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"{name} is {value}: it cannot be stored; use a number or None")
        return float(value)
    if depth > DEEPEST:
        raise ConfigError(f"{name[:60]}... is nested more than {DEEPEST} deep")
    if isinstance(value, Mapping):
        return {
            _key(k, name): jsonable(v, f"{name}[{k!r}]", depth=depth + 1) for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [jsonable(v, f"{name}[{i}]", depth=depth + 1) for i, v in enumerate(value)]
    raise ConfigError(f"{name} is a {type(value).__name__}: it cannot be stored as JSON")


def _key(key: Any, name: str) -> str:
    if not isinstance(key, str):
        raise ConfigError(f"{name} has the key {key!r}: keys must be texts")
    return key


def whole(value: Any, name: str) -> int:
    """A whole number (numpy's, too). Raises ConfigError by name for anything else and where the
    database has no room for it."""
    try:
        number = int(value)
        is_whole = bool(number == value)
    except (TypeError, ValueError, OverflowError):
        is_whole = False
    if not is_whole:
        raise ConfigError(f"{name} is {value!r}: it must be a whole number")
    if not -LARGEST <= number <= LARGEST:
        raise ConfigError(f"{name} is too large: it must be below 2**63")
    return number


def real(value: Any, name: str) -> float | None:
    """A finite number (numpy's, too), or None. Raises ConfigError by name."""
    try:
        number = None if value is None else float(value)
    except OverflowError as error:
        raise ConfigError(f"{name} is too large: it must be a finite number or None") from error
    except (TypeError, ValueError):
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise ConfigError(f"{name} is {value!r}: it must be a finite number or None")
    return number


# Between records and rows: ids, score rows, and the record of a row.


HIDDEN = "hidden"
"""What the score rows of a hidden run have for a state, so that no ranking finds them."""


_RUN_FIELDS = tuple(name for name in Run.__dataclass_fields__ if name != "is_late_seed")
"""What a row holds of a run; whether it is a late seed follows from the others (`queries.runs`)."""


def new_id(name: str, now: datetime) -> str:
    """`toto_20261122_174501_8f3a2c1b`: name, UTC second, then 4 hex digits of the second's
    fraction, so that ids of a name sort by time, and 4 of chance."""
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-_")[:48] or "run"
    fraction = now.microsecond * 65536 // 1_000_000
    return f"{kept}_{now:%Y%m%d_%H%M%S}_{fraction:04x}{secrets.token_hex(2)}"


def as_number(value: Any, name: str) -> float | None:
    """A finite float, or None: the score failed. Raises ConfigError for what is no number."""
    if value is None:
        return None
    try:
        number = float(value)
    except OverflowError as error:
        raise ConfigError(f"metric {name!r} is too large for a number of any database") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"metric {name!r} is {value!r}, not a number") from error
    return number if math.isfinite(number) else None


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Every metric by full name as a stored number."""
    return {sound_name(name): as_number(value, name) for name, value in metrics.items()}


def sound_name(name: str) -> str:
    """`name`, which every database can hold. Raises ConfigError for a NUL character or half of a
    surrogate pair, and for what is no text."""
    if not isinstance(name, str):
        raise ConfigError(f"the name {name!r} is a {type(name).__name__}, not a text")
    if "\0" in name or not (name.isascii() or _is_unicode(name)):
        raise ConfigError(f"the name {name!r} has a character that no database stores")
    return name


def _is_unicode(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def kept_scores(scores: Mapping[str, float | None], state: str) -> dict[str, float | None]:
    """A run that did not end well has no val and no test score: NULL, never imputed."""
    if state == RunState.COMPLETE:
        return dict(scores)
    return {n: None if split_name(n)[0] in ("val", "test") else v for n, v in scores.items()}


def open_metrics(scores: Mapping[str, float | None]) -> dict[str, float | None]:
    """The scores without those of test."""
    return {name: value for name, value in scores.items() if not is_sealed(name)}


def cells_of(fingerprints: Mapping[str, str], part: str) -> str:
    """The fingerprint that makes scores of `part` comparable; a name without a part stands
    with val, "" where there is none."""
    return fingerprints.get(part) or fingerprints.get("val", "")


def score_rows(run: Mapping[Any, Any], scores: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Rows of the scores table for a run's row as it will stand when they are written."""
    repeated = {
        "run_id": run["run_id"],
        "model_name": run["model_name"],
        "state": HIDDEN if run.get("hidden_at") else str(run["state"]),
        "is_baseline": run["is_baseline"],
        "has_checkpoint": run["checkpoint_path"] is not None,
        "sweep_id": run["sweep_id"],
    }
    by_part = {split_name(name): value for name, value in scores.items()}
    return [
        {
            **repeated,
            "part": part,
            "metric": metric,
            "value": value,
            "fingerprint": cells_of(run["fingerprints"], part),
        }
        for (part, metric), value in by_part.items()
    ]


def run_of(row: Mapping[Any, Any]) -> Run:
    """The record of a row of runs."""
    known = {name: row[name] for name in _RUN_FIELDS}
    for name in ("checkpoint_path", "forecasts_path"):
        known[name] = found_now(known[name], known["run_id"])
    try:
        known["state"] = RunState(known["state"])
        known["tags"] = tuple(known["tags"])
        known["metrics"] = {n: math.nan if v is None else v for n, v in known["metrics"].items()}
    except (ValueError, TypeError, AttributeError) as error:
        held = [known[name] for name in ("state", "tags", "metrics")]
        raise damaged(f"run {known['run_id']!r:.60}", held) from error
    return Run(**known)


def found_now(path: str | None, run_id: str) -> str | None:
    """A path below the folder of a run, as it is found from here: the folder of all runs may have
    moved with the database, to another machine or into a container; it then is the settings'."""
    folder, name, rest = (path or "").partition(f"{os.sep}{run_id}")
    if path is None or not name or not os.path.isabs(folder) or os.path.isdir(folder):
        return path
    moved = _runs_folder(os.getcwd(), os.environ.get("FORESWEEP_RUNS")) + name
    return moved + rest if os.path.isdir(moved) else path


@lru_cache(maxsize=8)
def _runs_folder(_here: str, _said: str | None) -> str:
    return str(load_settings().runs_dir.absolute())


def sweep_of(row: Mapping[Any, Any]) -> Sweep:
    """The record of a row of sweeps."""
    known = {name: row[name] for name in Sweep.__dataclass_fields__}
    try:
        known |= {"state": SweepState(row["state"]), "models": tuple(row["models"])}
    except (ValueError, TypeError) as error:
        held = [row["state"], row["models"]]
        raise damaged(f"sweep {row['sweep_id']!r:.60}", held) from error
    return Sweep(**known)


def trial_of(row: Mapping[Any, Any]) -> Trial:
    """The record of a row of trials."""
    return Trial(**{name: row[name] for name in Trial.__dataclass_fields__})
