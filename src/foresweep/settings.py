"""Where things live: the database, the runs and the data.

What is said in the call beats the environment, which beats `[tool.foresweep]` in the nearest
pyproject.toml, which beats the defaults:

    [tool.foresweep]
    db = "hyperparams/sweeps.db"        # FORESWEEP_DB: a path or a URL
    runs = "hyperparams/runs"           # FORESWEEP_RUNS: checkpoints, forecasts, logs
    data = "prices"                     # FORESWEEP_DATA: what is read where no --data is said
    synchronous = "NORMAL"              # FORESWEEP_SYNCHRONOUS: FULL also survives a power cut
    cache = "~/.cache/foresweep"        # FORESWEEP_CACHE: large panels, read once; or off
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from foresweep.errors import UnknownName, UsageError

Synchronous = Literal["NORMAL", "FULL"]

DEMO = "demo"
KEYS = ("db", "runs", "data", "synchronous", "cache")
UNREADABLE = (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError, RecursionError)
CACHE = "~/.cache/foresweep"
OFF = "off"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things live."""

    database: str = "hyperparams/sweeps.db"  # a path or a database URL
    runs_dir: Path = Path("hyperparams/runs")
    data: str | None = None  # a folder, a file or "demo"; None: trainingdata/train, else the demo
    synchronous: Synchronous = "NORMAL"


def load_settings(
    *,
    database: str | Path | None = None,
    runs_dir: str | Path | None = None,
    data: str | Path | None = None,
    synchronous: str | None = None,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Settings:
    """The settings for a call made in `folder` (default: the working directory).

    A relative path in pyproject.toml starts at that file's folder, any other at the working
    directory. Raises UnknownName for a key, UsageError for a file or value that cannot be read.
    """
    chosen = _from_pyproject(folder or Path.cwd()) | _from_environ(
        os.environ if environ is None else environ
    )
    said = {"db": database, "runs": runs_dir, "data": data, "synchronous": synchronous}
    chosen |= {key: str(value) for key, value in said.items() if value is not None}
    default = Settings()
    return Settings(
        database=chosen.get("db", default.database),
        runs_dir=Path(chosen.get("runs", default.runs_dir)),
        data=chosen.get("data", default.data),
        synchronous=_synchronous(chosen.get("synchronous", default.synchronous)),
    )


def cache_dir(
    *, environ: Mapping[str, str] | None = None, folder: Path | None = None
) -> Path | None:
    """Where panels that were read are kept, None where they are not. Raises as `load_settings`."""
    chosen = _from_pyproject(folder or Path.cwd()) | _from_environ(
        os.environ if environ is None else environ
    )
    place = chosen.get("cache", CACHE)
    return None if place == OFF else Path(place).expanduser()


def is_url(database: str) -> bool:
    """Is this a database URL rather than a path?"""
    return "://" in database


def _from_environ(environ: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k in KEYS if (v := environ.get(f"FORESWEEP_{k.upper()}", "").strip())}


def _from_pyproject(folder: Path) -> dict[str, str]:
    """`[tool.foresweep]` of the nearest pyproject.toml, {} where there is none."""
    for place in (folder, *folder.parents):
        file = place / "pyproject.toml"
        if file.is_file():
            return _read_table(file)
    return {}


def _read_table(file: Path) -> dict[str, str]:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("foresweep", {})
    except UNREADABLE as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    if not isinstance(table, dict):
        raise UsageError(f"{file}: [tool.foresweep] must be a table, not {table!r}")
    for key, value in table.items():
        if key not in KEYS:
            raise UnknownName("setting", key, KEYS, where=f"in [tool.foresweep] of {file}")
        if not isinstance(value, str) or not value:
            raise UsageError(f"{file}: [tool.foresweep] {key} = {value!r} must be a text")
    return {key: _anchored(key, value, file.parent) for key, value in table.items()}


def _anchored(key: str, value: str, folder: Path) -> str:
    """A path of pyproject.toml means the same wherever below it the call is made."""
    word = key == "synchronous" or (key, value) in (("data", DEMO), ("cache", OFF))
    if word or (key == "db" and is_url(value)):
        return value
    return str(folder / Path(value).expanduser())


def _synchronous(value: str) -> Synchronous:
    match value.upper():
        case "NORMAL":
            return "NORMAL"
        case "FULL":
            return "FULL"
    raise UsageError(f"synchronous is {value!r}; it must be NORMAL or FULL")
