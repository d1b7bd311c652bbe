"""What is made of finished runs: `predict` and `ensemble`; and where the files of a run stand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foresweep.cli.options import (
    Data,
    Db,
    HowRead,
    Json,
    Runs,
    SweepId,
    open_existing,
    settings,
    sharing,
)

if TYPE_CHECKING:
    from foresweep.records import Run
    from foresweep.selection.ensembling import Made
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


class EnsembleMethod(StrEnum):
    """How forecasts are mixed."""

    greedy = "greedy"
    median = "median"
    mean = "mean"


def ensemble(
    top_k: Annotated[
        int, typer.Option(help="Trained runs that may take part: the best on tune.", min=1)
    ] = 5,
    method: Annotated[
        EnsembleMethod,
        typer.Option(
            help="greedy: weights by selection with replacement on tune; mean and median: all "
            "alike, with the best baseline."
        ),
    ] = EnsembleMethod.greedy,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Only runs of this model; repeatable."),
    ] = None,
    include_baselines: Annotated[
        bool,
        typer.Option(
            "--include-baselines/--no-baselines", help="May baselines be members? Default: yes."
        ),
    ] = True,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Loss that weights are to lower: pinball or pct_mae. Default: the sweep's "
            "objective, pct_mae where that has no losses per window."
        ),
    ] = None,
    sweep: SweepId = None,
    as_json: Json = False,
    db: Db = None,
    runs: Runs = None,
) -> None:
    """Mix the stored forecasts of the best runs and baselines; saved, scored and judged as a run.

    Members and weights are chosen on tune alone, and its own tune score is of two halves, each
    mixed by what was fitted on the other. Its checkpoint goes wherever a run's goes: predict, best,
    verdict.
    """
    from foresweep.selection.ensembling import Recipe, make_ensemble

    recipe = Recipe(
        top_k=top_k,
        method=method.value,
        metric=metric,
        models=_known(model or []),
        baselines=include_baselines,
    )
    runs_dir = settings(db, runs).runs_dir
    with open_existing(db) as tracker:
        made = make_ensemble(tracker, recipe, runs_dir=runs_dir, sweep_id=sweep)
    if as_json:
        typer.echo(json.dumps(_plain(made), indent=2))
    else:
        _draw_members(made)


def _known(models: list[str]) -> tuple[str, ...]:
    """Names in full. Raises UnknownName for one that nobody has installed."""
    from foresweep.search.propose.modes import expand_models

    return expand_models(models)


def _plain(made: Made) -> dict[str, Any]:
    return {
        "run_id": made.run.run_id,
        "is_new": made.is_new,
        "checkpoint_path": made.run.checkpoint_path,
        "metric": made.metric,
        "tune": made.tune,
        "val": made.val,
        "members": [
            {
                "run_id": p.run.run_id,
                "model": p.run.model_name,
                "weight": p.weight,
                "tune": p.tune,
                "val": p.val,
                "pvalue_val": p.pvalue,
            }
            for p in made.parts
        ],
        "left_out": list(made.left_out),
        "metrics": made.run.json_metrics,
    }


def _draw_members(made: Made) -> None:
    from foresweep.cli.tables import config_name, console, number, plain_table

    out = console()
    for line in made.left_out:
        out.print(f"{line}: not asked.", soft_wrap=True)
    name = made.metric
    table = plain_table("member", "config", ">weight", f">tune_{name}", f">val_{name}", ">p", "run")
    for p in made.parts:
        table.add_row(
            p.run.model_name,
            config_name(p.run) or "baseline",
            f"{p.weight:.2f}",
            number(p.tune, 4),
            number(p.val, 4),
            number(p.pvalue, 3),
            p.run.run_id,
        )
    table.add_row("ensemble", "", "1.00", number(made.tune, 4), number(made.val, 4), "", "")
    out.print(table)
    out.print(
        "p: one-sided Diebold-Mariano on val, that the ensemble beats this member alone; trials "
        "tried before are not counted. Its tune score is cross-fitted.",
        soft_wrap=True,
    )
    if made.is_new:
        out.print(f"Saved as run {made.run.run_id}.", soft_wrap=True)
    else:
        out.print(f"The same members and weights are on record: {made.run.run_id}.", soft_wrap=True)
    out.print(f"checkpoint {made.run.checkpoint_path}", soft_wrap=True)
    out.print(f"Judge it with: foresweep verdict {made.run.run_id}", soft_wrap=True)


# `reproduce`: train a run once more from its record and show what is different.
