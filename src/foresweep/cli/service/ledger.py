"""`ledger`: the record of forecasts, and whether it is what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from foresweep.cli.options import Db, Json, open_existing
from foresweep.errors import UsageError

app = typer.Typer(help="The hash-chained record of forecasts made.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """A group stays one, however few its commands are."""


@app.command()
def verify(
    noted: Annotated[
        str | None,
        typer.Option(
            help="A number and hash written down earlier: the chain must still go through it.",
            metavar="NUMBER:HASH",
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A file of `ledger export`, in place of the database.")
    ] = None,
    as_json: Json = False,
    db: Db = None,
) -> None:
    """Find a forecast that was changed, removed or inserted; exit 1 if there is one.

    It ends with the number and hash of the last forecast: hand them to somebody, and no later
    rewriting of the whole record can hide.
    """
    from foresweep.lifecycle.ledger import verify_file
    from foresweep.tracker.service import Service

    mark = None if noted is None else _mark(noted)
    if file is not None:
        faults, (number, last) = verify_file(file, mark)
        place = str(file)
    else:
        with open_existing(db) as tracker:
            service = Service(tracker.store)
            faults, (number, last) = service.verify(mark), service.head()
            place = tracker.store.place
    if as_json:
        told = {"place": place, "num_forecasts": number, "hash": last, "faults": faults}
        typer.echo(json.dumps(told, indent=2))
    else:
        for fault in faults:
            typer.echo(f"fault: {fault}")
        word = "NOT what was written" if faults else "as they were written"
        typer.echo(f"{place}: {number} forecasts, {word}.")
        typer.echo(f"The last: {number}:{last}")
    if faults:
        raise typer.Exit(1)


@app.command()
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="A .jsonl file.")],
    db: Db = None,
) -> None:
    """Write every forecast on record, one JSON line each, to be verified by anybody."""
    from foresweep.lifecycle.ledger import export_ledger

    if output.suffix.lower() != ".jsonl":
        raise UsageError(f"--output {output}: give a name that ends in .jsonl")
    with open_existing(db) as tracker:
        count = export_ledger(tracker, output)
    typer.echo(
        f"Wrote {output}: {count} forecasts. Check it: foresweep ledger verify --file {output}"
    )


def _mark(text: str) -> tuple[int, str]:
    number, _, digest = text.partition(":")
    if not number.strip().isdecimal() or len(digest.strip()) != 64:
        raise UsageError(f"--noted {text!r}: write it as `ledger verify` ends, NUMBER:HASH")
    return int(number), digest.strip()
