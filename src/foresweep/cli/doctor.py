"""`doctor`: what is installed, where things live, and what stands in the way."""

from __future__ import annotations

import json
import platform
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
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
    settings,
)
from foresweep.errors import ForesweepError, MissingExtra, NotFound, UsageError

if TYPE_CHECKING:
    from foresweep.evaluation.leaks import Hunt
    from foresweep.tracker.tracker import Tracker

PACKAGES = (
    "torch", "transformers", "chronos-forecasting", "timecopilot-toto", "kronos-finance", "peft",
    "polars", "sqlalchemy", "bokeh-sampledata", "arch",
)  # fmt: skip

CLOCKS_DIFFER = timedelta(minutes=5)
LEAST_FREE = 2**30
"""Bytes on the disk of the runs: a sweep of small models writes less."""


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
    """Check packages, device, data, database, folders and clock; exit 1 if something is in the way,
    and say what to do about it. Nothing is made or changed.

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
            out.print(f"problem: {problem}", style="red", soft_wrap=True)
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
    """(what was found, what stands in the way and what to do about it). Nothing is made."""
    import os
    import shutil

    from foresweep.data.reading.sources import default_source
    from foresweep.models.registry import get_model, model_names
    from foresweep.settings import cache_dir

    places = settings(db, runs)
    data = default_source(places.data)
    facts: dict[str, Any] = {
        "foresweep": __version__,
        "python": sys.version.split()[0],
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "device": _device(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set (trials set their own)"),
        "git": shutil.which("git") or "not found: runs are recorded without a commit",
        "data": data,
        "database": places.database,
        "runs folder": places.runs_dir,
        "cache": _of_cache(cache_dir()),
    }
    facts |= {name: _version(name) or _not_installed(name) for name in PACKAGES}
    problems = _of_data(data)
    try:
        for name in model_names():
            try:
                get_model(name)
            except ForesweepError as error:
                problems.append(f"{name}: {error}")
    except ForesweepError as error:  # of all plug-ins together
        problems.append(str(error))
    facts["sweeps on record"], troubles = _of_database(db)
    return facts, [*problems, *troubles, *_of_runs_folder(places.runs_dir)]


def _of_data(place: str) -> list[str]:
    from importlib.util import find_spec

    from foresweep.data.reading.sources import DEMO, files_of

    if place == DEMO:
        there = find_spec("bokeh_sampledata") is not None
        return [] if there else [f"data: {MissingExtra('bokeh-sampledata', 'demo')}"]
    try:
        files_of(Path(place))
    except ForesweepError as error:
        return [f"data: {error} (--data, FORESWEEP_DATA or data in [tool.foresweep] names them)"]
    return []


def _of_database(db: str | None) -> tuple[int | str, list[str]]:
    """(sweeps on record, what is wrong)."""
    from foresweep.data.files import name_as_text
    from foresweep.settings import is_url

    place = settings(db).database
    try:
        with open_existing(db) as tracker:
            return len(tracker.list_sweeps()), _of_clock(tracker)
    except NotFound:
        above = _above(Path(place).expanduser())
        if is_url(place) or _may_write(above):
            return "none: there is no database yet", []
        return "none", [
            f"database {name_as_text(place)}: {name_as_text(above)} may not be written to; give "
            f"another place with --db or FORESWEEP_DB, or mend its permissions"
        ]
    except ForesweepError as error:
        return "unknown", [f"database: {error}"]


def _of_clock(tracker: Tracker) -> list[str]:
    """Times on record go by this machine's clock, and so does the order of runs."""
    newest = max((run.created_at for run in tracker.get_runs(limit=1)), default=None)
    now = datetime.now(UTC)
    if newest is None or newest - now < CLOCKS_DIFFER:
        return []
    return [
        f"clock: the newest run on record began at {newest:%Y-%m-%d %H:%M} UTC, and it is "
        f"{now:%Y-%m-%d %H:%M} here: set this machine's clock (timedatectl set-ntp true), for runs "
        f"are dated by it and listed by those dates"
    ]


def _of_runs_folder(folder: Path) -> list[str]:
    import shutil

    from foresweep.data.files import name_as_text

    above, said = _above(folder), name_as_text(folder)
    if not above.is_dir() or not _may_write(above):
        what = "may not be written to" if above.is_dir() else "is no folder"
        return [
            f"runs folder {said}: {name_as_text(above)} {what}; give another with --runs or "
            f"FORESWEEP_RUNS, or mend its permissions"
        ]
    free = shutil.disk_usage(above).free
    if free >= LEAST_FREE:
        return []
    return [
        f"runs folder {said}: {free / 2**20:.0f} MiB are free there, and each run keeps a "
        f"checkpoint and its forecasts: free some space, or give another with --runs or "
        f"FORESWEEP_RUNS"
    ]


def _of_cache(folder: Path | None) -> str:
    if folder is None:
        return "off: large panels are read anew each time"
    closed = "" if _may_write(_above(folder)) else " (not writable: large panels are read anew)"
    return f"{folder}{closed}"


def _above(path: Path) -> Path:
    """The path itself or the nearest above it that is there."""
    import os

    path = path.absolute()
    return next((p for p in (path, *path.parents) if os.path.exists(p)), path)


def _may_write(path: Path) -> bool:
    import os

    return os.access(path, os.W_OK | (os.X_OK if path.is_dir() else 0))


def _not_installed(package: str) -> str:
    extra = "demo" if package == "bokeh-sampledata" else "models"
    return f"not installed: pip install 'foresweep[{extra}]'"


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
