"""Options that several commands share, named once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foresweep.errors import UsageError

if TYPE_CHECKING:
    from foresweep.settings import Settings
    from foresweep.tracker.tracker import Tracker

Db = Annotated[
    str | None, typer.Option("--db", "--tracker-db", help="Database: a path or URL.", metavar="URL")
]
Runs = Annotated[
    Path | None, typer.Option("--runs", help="Folder of checkpoints, forecasts and logs.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="A folder of CSV or Parquet files, one long file, or 'demo'. "
        "Default: trainingdata/train if it is there, else the demo panel.",
    ),
]
Model = Annotated[str | None, typer.Option("--model", "-m", help="Only this model. Default: all.")]
Metric = Annotated[str, typer.Option(help="Score to rank by: val_... or tune_...; never test_....")]
SweepId = Annotated[str | None, typer.Option("--sweep", help="A sweep's id. Default: the latest.")]
RunId = Annotated[str, typer.Argument(help="A run's id, or a unique beginning of it.")]
Horizon = Annotated[int, typer.Option("--horizon", help="Bars forecast and scored.", min=1)]


def settings(db: str | None, runs: Path | None = None) -> Settings:
    from foresweep.settings import load_settings

    return load_settings(database=db, runs_dir=runs)


def open_tracker(db: str | None) -> Tracker:
    from foresweep.tracker.jsonfile import JsonTracker

    return JsonTracker(settings(db).database)


def parse_values(pairs: list[str]) -> dict[str, Any]:
    """`key=value` pairs, values as TOML where they read as such, else as text.

    Raises UsageError for a pair without '='.
    """
    import tomllib

    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {pair!r}: write it as key=value, e.g. --set lr=1e-4")
        try:
            found[key.strip()] = tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = text.strip()
    return found
