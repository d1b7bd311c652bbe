"""`data check|show`: the gate, and what a panel would be cut into."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from foresweep.cli.options import Horizon, Json

app = typer.Typer(help="Check and describe market data.", no_args_is_help=True)
Source = Annotated[
    str | None,
    typer.Argument(help="A folder, a file or 'demo'. Default: trainingdata/train or demo."),
]
Actions = Annotated[
    str | None, typer.Option(help="Splits file: item, date, ratio (ratio 1: a real move).")
]


@app.command()
def check(source: Source = None, actions: Actions = None, as_json: Json = False) -> None:
    """Run the data gate: every finding names file, row and rule; exit 1 if an item was dropped."""
    from foresweep.cli.tables import console, plain_table
    from foresweep.data.sources import default_source, load_panel

    loaded = load_panel(source or default_source(), actions=actions)
    report = loaded.report
    if as_json:
        typer.echo(json.dumps([f.as_dict() for f in report.findings], indent=2))
    else:
        table = plain_table("severity", "file", ">row", "item", "rule", "what")
        for f in report.findings:
            table.add_row(f.severity, f.file, str(f.row or ""), f.item, f.rule, f.message)
        out = console()
        if report.findings:
            out.print(table)
        for line in report.summary_lines():
            out.print(line)
        out.print(f"{loaded.panel.num_items} items can be used.")
    if any(f.severity == "error" for f in report.findings):
        raise typer.Exit(1)


@app.command()
def show(
    source: Source = None,
    horizon: Horizon = 5,
    actions: Actions = None,
    as_json: Json = False,
) -> None:
    """Items, dates, masked rows, and the four parts for a horizon."""
