"""`import` and `export`: runs to and from other forms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foresweep.cli.options import Db, Model, open_existing, open_tracker
from foresweep.cli.query import Where
from foresweep.errors import NotFound

if TYPE_CHECKING:
    from foresweep.records import Run
    from foresweep.tracker.tracker import Tracker

import_app = typer.Typer(help="Read runs of other forms in.", no_args_is_help=True)
export_app = typer.Typer(help="Hand runs to other forms and trackers.", no_args_is_help=True)
Sweep = Annotated[str | None, typer.Option("--sweep", help="Only this sweep; 'latest' too.")]


@import_app.command("json")
def import_json_file(
    file: Annotated[Path, typer.Argument(help="A sweep_results.json.")], db: Db = None
) -> None:
    """Read a sweep_results.json in, as far as it is sound; say what was left out."""
    from foresweep.tracker.jsonfile import import_json

    with open_tracker(db) as tracker:
        found = import_json(tracker, file)
    for reason in found.left_out:
        typer.echo(f"{file}: {reason}", err=True)
    typer.echo(f"{found.num_new} new runs, {found.num_known} known before.")


@import_app.callback()
@export_app.callback()
def _group() -> None:
    """A group stays one, however few its commands are."""


@export_app.command("json")
def export_json_file(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .json file. Default: the screen.")
    ] = None,
    reveal_test: Annotated[
        bool,
        typer.Option("--reveal-test", help="Test scores, too: each look goes on record."),
    ] = False,
    db: Db = None,
) -> None:
    """Write the complete runs in the form of sweep_results.json."""
    from foresweep.tracker.jsonfile import dump_json, export_json

    with open_existing(db) as tracker:
        if output is None:
            typer.echo(dump_json(tracker, reveal_test=reveal_test))
            return
        done = export_json(tracker, output, reveal_test=reveal_test)
    left = f"; {done.num_left_out} not complete, left out" if done.num_left_out else ""
    typer.echo(f"Wrote {output}: {done.num_runs} runs{left}.")


@export_app.command("mlflow")
def export_mlflow(
    to: Annotated[
        str | None,
        typer.Option(help="Tracking URI. Default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db."),
    ] = None,
    model: Model = None,
    sweep: Sweep = None,
    where: Where = None,
    db: Db = None,
) -> None:
    """Repeat finished runs to MLflow; what is there already stays as it is. No test scores."""
    _repeat(f"mlflow:{to}" if to else "mlflow", model, sweep, where, db)


@export_app.command("wandb")
def export_wandb(
    offline: Annotated[
        bool, typer.Option("--offline", help="Into ./wandb, for `wandb sync` later.")
    ] = False,
    model: Model = None,
    sweep: Sweep = None,
    where: Where = None,
    db: Db = None,
) -> None:
    """Repeat finished runs to Weights & Biases, under their own ids. No test scores."""
    _repeat("wandb:offline" if offline else "wandb", model, sweep, where, db)


def _repeat(
    mirror: str, model: str | None, sweep: str | None, where: str | None, db: str | None
) -> None:
    from foresweep.integrations.mirror import copy_runs, open_mirror

    opener = open_mirror(mirror)
    with open_existing(db) as tracker:
        sweep_id = tracker.get_sweep(sweep).sweep_id if sweep else None
        found = tracker.get_runs(model_name=model, sweep_id=sweep_id, where=where)
        chosen = [run for run in found if run.state.is_final]
        if not chosen:
            raise NotFound("no finished run to export; list them with: foresweep runs")
        name = mirror.partition(":")[0]
        count = copy_runs(name, opener, chosen, lambda run: points_by_step(tracker, run))
    known = f"; {len(chosen) - count} were there already" if count < len(chosen) else ""
    typer.echo(f"{count} runs repeated to {name}{known}.")


def points_by_step(tracker: Tracker, run: Run) -> dict[int, dict[str, float]]:
    """step -> scores of a run's curves, by rising step."""
    found: dict[int, dict[str, float]] = {}
    for curve in tracker.get_curves(run.run_id):
        for step, value in tracker.get_curve(run.run_id, curve.name):
            found.setdefault(step, {})[curve.name] = value
    return dict(sorted(found.items()))
