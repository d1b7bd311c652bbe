"""`doctor`: what is installed, where things live, and what stands in the way."""

from __future__ import annotations

import json
import platform
import sys
from typing import Any

import typer

from foresweep import __version__
from foresweep.cli.options import Db, Json, Runs, open_tracker, settings
from foresweep.errors import ForesweepError

PACKAGES = (
    "torch", "transformers", "chronos-forecasting", "timecopilot-toto", "kronos-finance", "peft",
    "polars", "sqlalchemy", "bokeh-sampledata", "arch",
)  # fmt: skip


def doctor(as_json: Json = False, db: Db = None, runs: Runs = None) -> None:
    """Check packages, device, database and folders; exit 1 if something is in the way."""
    facts, problems = _facts(db, runs)
    if as_json:
        typer.echo(json.dumps({**facts, "problems": problems}, indent=2, default=str))
    else:
        from foresweep.cli.tables import console, plain_table

        table = plain_table("what", "found")
        for key, value in facts.items():
            table.add_row(key, str(value))
        out = console()
        out.print(table)
        for problem in problems:
            out.print(f"problem: {problem}", style="red")
        if not problems:
            out.print("Nothing stands in the way.")
    if problems:
        raise typer.Exit(1)


def _facts(db: str | None, runs: Any) -> tuple[dict[str, Any], list[str]]:
    import os

    from foresweep.data.sources import default_source
    from foresweep.models.registry import get_model, model_names

    places = settings(db, runs)
    problems: list[str] = []
    facts: dict[str, Any] = {
        "foresweep": __version__,
        "python": sys.version.split()[0],
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "device": _device(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set (trials set their own)"),
        "data": default_source(places.data),
        "database": places.database,
        "runs folder": places.runs_dir,
    }
    facts |= {name: _version(name) or "not installed" for name in PACKAGES}
    for name in model_names():
        try:
            get_model(name)
        except ForesweepError as error:
            problems.append(f"{name}: {error}")
    try:
        with open_tracker(db) as tracker:
            facts["sweeps on record"] = len(tracker.list_sweeps())
    except ForesweepError as error:
        problems.append(str(error))
    return facts, problems


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device() -> str:
    from foresweep.models.devices import pick_device

    try:
        return pick_device("auto")
    except ForesweepError as error:
        return str(error)
