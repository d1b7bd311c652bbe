"""`predict`: a table of forecasts from a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from foresweep.cli.options import Data


def predict(
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Checkpoint folder. Default: the one named in .best_model_path."),
    ] = None,
    data: Data = None,
    horizon: Annotated[
        int | None, typer.Option(help="Bars ahead. Default: the checkpoint's own.", min=1)
    ] = None,
    actions: Annotated[
        str | None, typer.Option(help="Splits file: item, date, ratio (ratio 1: a real move).")
    ] = None,
    item: Annotated[list[str] | None, typer.Option(help="Only these items; repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Forecast the next bars of every item with the chosen checkpoint."""
    from foresweep.cli.tables import report_lines
    from foresweep.data.sources import default_source, load_panel
    from foresweep.lifecycle.predict import predict_panel
    from foresweep.selection.export import read_exported_path
    from foresweep.settings import load_settings

    chosen = checkpoint or read_exported_path(Path.cwd())
    loaded = load_panel(data or default_source(load_settings().data), actions=actions)
    for line in report_lines(loaded.report):
        typer.echo(line, err=True)
    panel = loaded.panel
    found = predict_panel(chosen, panel.select(item) if item else panel, horizon=horizon)
    if as_json:
        typer.echo(json.dumps(found.records(), indent=2))
        return
    _draw(found)


def _draw(found: object) -> None:
    from foresweep.cli.tables import console, plain_table
    from foresweep.lifecycle.predict import PanelForecast

    assert isinstance(found, PanelForecast)
    out = console()
    low, high = (found.forecast.levels.index(x) for x in (0.1, 0.9))
    table = plain_table(
        "item", "origin", ">last close", "forecast for", ">median", ">move", ">10 %", ">90 %"
    )
    for n, name in enumerate(found.items):
        values, close = found.forecast.values[n, -1], found.last_close[n]
        median = found.forecast.median[n, -1]
        table.add_row(
            name,
            str(found.origins[n].astype("datetime64[m]")).replace("T00:00", ""),
            f"{close:,.2f}",
            str(found.times[n, -1].astype("datetime64[m]")).replace("T00:00", ""),
            f"{median:,.2f}",
            f"{100 * (median / close - 1):+.2f} %",
            f"{values[low]:,.2f}",
            f"{values[high]:,.2f}",
        )
    ahead = found.forecast.values.shape[1]
    out.print(
        f"Forecast {ahead} bars ahead by {found.model} (run {found.card.get('run_id', '?')}):"
    )
    out.print(table)
    if not found.card.get("beats_naive", False):
        out.print(
            "This checkpoint does not beat the last close on val: read the medians as no better "
            "than today's price."
        )
