"""`doctor`: what is installed, where things live, and what stands in the way."""

from __future__ import annotations

import json
import platform
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foresweep import __version__
from foresweep.cli.options import (
    Data,
    Db,
    Horizon,
    Json,
    Runs,
    open_existing,
    open_tracker,
    settings,
)
from foresweep.errors import ForesweepError, UsageError

if TYPE_CHECKING:
    from foresweep.evaluation.leaks import Hunt

PACKAGES = (
    "torch", "transformers", "chronos-forecasting", "timecopilot-toto", "kronos-finance", "peft",
    "polars", "sqlalchemy", "bokeh-sampledata", "arch",
)  # fmt: skip


def doctor(
    leaks: Annotated[
        str | None,
        typer.Option(
            "--leaks",
            metavar="RUN|MODEL",
            help="Hunt for leaks instead: in a run by its id, or in a model by its name, which is "
            "trained for a moment.",
        ),
    ] = None,
    data: Data = None,
    horizon: Horizon = 5,
    as_json: Json = False,
    db: Db = None,
    runs: Runs = None,
) -> None:
    """Check packages, device, database and folders; exit 1 if something is in the way.

    With --leaks: change the target, later bars, the order of items and of windows, and the bars of
    each part before a short training; say what a forecast depends on that it must not know, and
    exit 1 if there is any. --data and --horizon are for a model; a run has its own.
    """
    if leaks is not None:
        _hunt(leaks, data, horizon, as_json, db, runs)
        return
    if data is not None:
        raise UsageError("--data says where to hunt for leaks; give --leaks MODEL with it")
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


def _hunt(
    name: str, data: str | None, horizon: int, as_json: bool, db: str | None, runs: Any
) -> None:
    """Print what the hunt looked at and found; exit 1 where it found something."""
    from foresweep.data.reading.sources import default_source
    from foresweep.evaluation.yardstick import alarm
    from foresweep.models.registry import model_names
    from foresweep.search.running.leaks import hunt_model, hunt_run

    warning = None
    if name.strip().lower() in model_names():
        source = data or default_source(settings(db, runs).data)
        found = hunt_model(name, data=source, horizon=horizon)
    else:
        with open_existing(db) as tracker:
            run = tracker.get_run(name)
            if run.sweep_id is None:
                raise UsageError(
                    f"run {run.run_id} was logged by hand: nothing says on which bars; hunt in its "
                    f"model: foresweep doctor --leaks MODEL"
                )
            sweep = tracker.get_sweep(run.sweep_id)
        found = hunt_run(run, sweep, settings(db, runs).runs_dir)
        warning = alarm(run.run_id, run.score("val_skill"))
    if as_json:
        findings = [{"probe": f.probe, "says": f.says} for f in found.findings]
        plain = {"looked": found.looked, "findings": findings, "implausible": warning is not None}
        typer.echo(json.dumps(plain, indent=2))
    else:
        _draw_hunt(name, found, warning)
    if found.findings:
        raise typer.Exit(1)


def _draw_hunt(name: str, found: Hunt, warning: str | None) -> None:
    from foresweep.cli.tables import console, plain_table
    from foresweep.evaluation.leaks import PROBES

    table = plain_table("looked for", "found")
    for probe in PROBES:
        if probe in found.looked:
            table.add_row(probe, "; ".join(found.of(probe)) or "nothing")
        else:
            table.add_row(probe, "not looked: nothing is trained")
    out = console()
    out.print(table)
    if not found.findings:
        out.print(f"{name} depends on nothing that it must not know, as far as this can show.")
    if warning:
        out.print(warning, style="red", soft_wrap=True)


def _facts(db: str | None, runs: Any) -> tuple[dict[str, Any], list[str]]:
    import os

    from foresweep.data.reading.sources import default_source
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
    from foresweep.models.base import pick_device

    try:
        return pick_device("auto")
    except ForesweepError as error:
        return str(error)
