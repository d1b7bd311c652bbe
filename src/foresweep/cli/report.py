"""`report`: what a sweep came to, in one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foresweep.cli.options import Db, Metric, SweepId, asked_sweep, metric_of, open_existing
from foresweep.errors import UsageError


def report(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .md file. Default: the screen.")
    ] = None,
    metric: Metric = None,
    sweep: SweepId = None,
    db: Db = None,
) -> None:
    """Write the report: last verdict, models side by side, best runs, hyperparameters, failures."""
    from foresweep.data.files import write_bytes_atomic
    from foresweep.reporting.report import sweep_report

    if output is not None and output.suffix not in (".md", ".markdown"):
        raise UsageError(f"--output {output}: the report is Markdown; give a name ending in .md")
    with open_existing(db) as tracker:
        asked = asked_sweep(tracker, sweep)
        text = sweep_report(tracker, asked, metric or metric_of(asked))
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_bytes_atomic(output, text.encode())
        typer.echo(f"Wrote {output}.")
