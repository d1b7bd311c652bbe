"""Between records and rows: ids, score rows, and the record of a row."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from foresweep.errors import ConfigError
from foresweep.records import Run, RunState, Sweep, SweepState, Trial, is_sealed, split_name

HIDDEN = "hidden"
"""What the score rows of a hidden run have for a state, so that no ranking finds them."""


_RUN_FIELDS = tuple(Run.__dataclass_fields__)


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
    except (TypeError, ValueError) as error:
        raise ConfigError(f"metric {name!r} is {value!r}, not a number") from error
    return number if math.isfinite(number) else None


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Every metric by full name as a stored number."""
    return {sound_name(name): as_number(value, name) for name, value in metrics.items()}


def sound_name(name: str) -> str:
    """`name`, which every database can hold. Raises ConfigError for a NUL character or half of a
    surrogate pair."""
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
    found = {split_name(name): value for name, value in scores.items()}
    return [
        {
            **repeated,
            "part": part,
            "metric": metric,
            "value": value,
            "fingerprint": cells_of(run["fingerprints"], part),
        }
        for (part, metric), value in found.items()
    ]


def run_of(row: Mapping[Any, Any]) -> Run:
    """The record of a row of runs."""
    known = {name: row[name] for name in _RUN_FIELDS}
    known["state"] = RunState(known["state"])
    known["tags"] = tuple(known["tags"])
    known["metrics"] = {n: math.nan if v is None else v for n, v in known["metrics"].items()}
    return Run(**known)


def sweep_of(row: Mapping[Any, Any]) -> Sweep:
    """The record of a row of sweeps."""
    known = {name: row[name] for name in Sweep.__dataclass_fields__}
    return Sweep(**known | {"state": SweepState(row["state"]), "models": tuple(row["models"])})


def trial_of(row: Mapping[Any, Any]) -> Trial:
    """The record of a row of trials."""
    return Trial(**{name: row[name] for name in Trial.__dataclass_fields__})
