"""`predict`, and where the files of a run stand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foresweep.cli.options import Data, HowRead, sharing

if TYPE_CHECKING:
    from foresweep.records import Run
    from foresweep.tracker.tracker import Tracker


@sharing(HowRead)
def predict(
    how: HowRead,
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
    from foresweep.data.reading.sources import default_source, load_panel
    from foresweep.evaluation.predict import predict_panel
    from foresweep.selection.export import read_exported_path
    from foresweep.settings import load_settings

    chosen = checkpoint or read_exported_path(Path.cwd())
    place = data or default_source(load_settings().data)
    loaded = load_panel(place, actions=actions, **how.said)
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
    from foresweep.evaluation.predict import PanelForecast

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


# Where a run's files stand, whatever folder the command is called in.


LEVELS = 3
"""Folders above the database in which a relative path of an older record is looked for."""


def with_checkpoint(tracker: Tracker, run: Run) -> Run:
    """The run with the path of its checkpoint as it is found from here."""
    if run.checkpoint_path is None:
        return run
    found = standing(tracker, run, Path(run.checkpoint_path))
    return run if found is None else dataclasses.replace(run, checkpoint_path=str(found))


def find_log(tracker: Tracker, run: Run, runs_dir: Path) -> Path | None:
    """The run's training.log: in its own folder, else in that of its name in `runs_dir`."""
    folders = [runs_dir / run.run_id]
    if run.forecasts_path is not None:
        own = standing(tracker, run, Path(run.forecasts_path))
        folders = [*([own, own.parent] if own else []), *folders]
    logs = (folder / "training.log" for folder in folders)
    return next((log for log in logs if log.is_file()), None)


def standing(tracker: Tracker, run: Run, path: Path) -> Path | None:
    """A path of the record where it exists; a relative one starts where the run was started,
    in a folder above the database, or here."""
    if path.is_absolute():
        return path if path.exists() else None
    return next((p for f in _starts(tracker, run) if (p := f / path).exists()), None)


def _starts(tracker: Tracker, run: Run) -> Iterator[Path]:
    folder = tracker.get_environment(run.run_id).get("folder")
    if isinstance(folder, str):
        yield Path(folder)
    if tracker.store.path is not None:
        yield from list(tracker.store.path.resolve().parents)[:LEVELS]
    yield Path.cwd()
