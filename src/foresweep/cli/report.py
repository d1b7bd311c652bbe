"""`report` and `dashboard`: what a sweep came to in one file, and all sweeps as live pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foresweep.cli.options import (
    Db,
    Metric,
    Runs,
    SweepId,
    asked_sweep,
    metric_of,
    open_existing,
    settings,
)
from foresweep.errors import UsageError

if TYPE_CHECKING:
    from foresweep.records import Sweep
    from foresweep.tracker.tracker import Tracker

MARKDOWN, HTML = (".md", ".markdown"), (".html", ".htm")


def report(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A .md or .html file. Default: Markdown on the screen."
        ),
    ] = None,
    metric: Metric = None,
    sweep: SweepId = None,
    db: Db = None,
    runs: Runs = None,
) -> None:
    """Write the report: last verdict, models side by side, best runs, hyperparameters, failures.

    As .html it is one file with every page and figure, which opens offline and asks for nothing.
    """
    from foresweep.data.files import name_as_text, write_bytes_atomic

    if output is not None and output.suffix not in (*MARKDOWN, *HTML):
        raise UsageError(f"--output {output}: give a name that ends in .md or .html")
    with open_existing(db) as tracker:
        asked = asked_sweep(tracker, sweep)
        if output is not None and output.suffix in HTML:
            text = _html(tracker, asked, metric, settings(db, runs).runs_dir)
        else:
            text = _markdown(tracker, asked, metric, settings(db, runs).runs_dir)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_bytes_atomic(output, name_as_text(text).encode())
        typer.echo(f"Wrote {output}.")


def _markdown(tracker: Tracker, asked: Sweep | None, metric: str | None, runs_dir: Path) -> str:
    from foresweep.reporting.render import report_markdown
    from foresweep.reporting.report import sweep_report
    from foresweep.reporting.views import Links, Site, SweepView

    if asked is None:
        return sweep_report(tracker, asked, metric or metric_of(asked))
    site = Site(tracker, runs_dir, Links(is_live=False))
    return report_markdown(site, SweepView(site, asked, metric))


def _html(tracker: Tracker, asked: Sweep | None, metric: str | None, runs_dir: Path) -> str:
    from foresweep.reporting.render import report_html
    from foresweep.reporting.views import Links, Site, SweepView

    if asked is None:
        raise UsageError("there is no sweep to show as .html yet; runs by hand go into a .md file")
    site = Site(tracker, runs_dir, Links(is_live=False))
    return report_html(site, SweepView(site, asked, metric))


def dashboard(
    port: Annotated[int, typer.Option(help="0: any free one.", min=0, max=65535)] = 8765,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine a token is asked for.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(help="What readers must give, 16 characters or more. Default: one is made."),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="No notes and tags from the pages.")
    ] = False,
    db: Db = None,
    runs: Runs = None,
) -> None:
    """Show all sweeps as live pages in a browser: what runs now, leaderboards, runs, verdicts."""
    from foresweep.reporting.dashboard import dashboard_app
    from foresweep.web import guard_for, listen, place_of, serve

    guard = guard_for(host, token, is_read_only=read_only)
    with open_existing(db) as tracker:
        app = dashboard_app(tracker, settings(db, runs).runs_dir, guard)
        with listen(host, port) as listening:
            place = place_of(host, listening)
            asked = f"?token={guard.token}" if guard.token else ""
            typer.echo(f"Pages of {tracker.store.place} at {place}{asked}  (Ctrl-C stops)")
            serve(app, listening)
