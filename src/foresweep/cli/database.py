"""`db`: check, copy, back up and upgrade the database."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from foresweep.cli.options import Db, Json, settings

app = typer.Typer(help="Look after the database.", no_args_is_help=True)


@app.command()
def check(as_json: Json = False, db: Db = None) -> None:
    """Mark runs whose process is gone as lost; exit 1 if the database is not sound."""
    from foresweep.tracker.moving import check as check_database
    from foresweep.tracker.tracker import Tracker

    with Tracker(settings(db).database, create=False) as tracker:
        place, health = tracker.store.place, check_database(tracker)
    if as_json:
        plain = {"database": place, "is_sound": health.is_sound, **dataclasses.asdict(health)}
        typer.echo(json.dumps(plain, indent=2))
    else:
        for run_id in health.repaired:
            typer.echo(f"lost: {run_id} (its process is gone)")
        for problem in health.problems:
            typer.echo(f"problem: {problem}")
        sound = "sound" if health.is_sound else "not sound; copy it away before anything else"
        typer.echo(f"{place}: {health.num_runs} runs; {sound}.")
    if not health.is_sound:
        raise typer.Exit(1)


@app.command()
def copy(
    target: Annotated[str, typer.Argument(help="An empty place: a path or a URL.")],
    as_json: Json = False,
    db: Db = None,
) -> None:
    """Copy the whole database to an empty one, of either kind, and compare row by row."""
    from foresweep.tracker.moving import copy_database

    counts = copy_database(settings(db).database, target)
    if as_json:
        typer.echo(json.dumps(counts, indent=2))
    else:
        told = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        typer.echo(f"Copied and compared row by row: {told or 'no rows'}.")


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="A new file.")],
    db: Db = None,
) -> None:
    """A sound copy as one SQLite file, made while others write."""
    from foresweep.tracker.moving import backup as write_backup

    write_backup(settings(db).database, target)
    typer.echo(f"Wrote {target}.")


@app.command()
def upgrade(
    database: Annotated[str | None, typer.Argument(help="A path or URL. Default: as --db.")] = None,
    db: Db = None,
) -> None:
    """Bring the database of an older foresweep up to date (SQLite: a copy is put beside it)."""
    from foresweep.tracker.schema import HEAD
    from foresweep.tracker.store import Store

    with Store(settings(database or db).database, create=False, upgrade=True) as store:
        typer.echo(f"{store.place} has schema {HEAD}, the newest.")
