"""`note`, `tag`, `rm`, `import`, `export`, `db`: what is done to the record."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foresweep.cli.options import (
    Db,
    Json,
    Model,
    RunId,
    Runs,
    harmless,
    open_existing,
    open_tracker,
    settings,
)
from foresweep.cli.runs import Where
from foresweep.errors import NotFound, TrackerError

if TYPE_CHECKING:
    from foresweep.records import Run
    from foresweep.tracker.tracker import Tracker


def note(
    run: RunId,
    text: Annotated[str, typer.Argument(help="What to remember about it.")],
    db: Db = None,
) -> None:
    """Add a note to a run; `show` prints it."""
    with open_existing(db) as tracker:
        run_id = tracker.get_run(run).run_id
        tracker.add_note(run_id, text)
    typer.echo(f"Noted for {run_id}.")


def tag(
    run: RunId,
    tag: Annotated[str, typer.Argument(help="One word to find it by.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take it off again.")] = False,
    db: Db = None,
) -> None:
    """Tag a run; `runs --tag` finds it."""
    from foresweep.tracker.hiding import remove_tag

    with open_existing(db) as tracker:
        run_id = tracker.get_run(run).run_id
        tagged = remove_tag(tracker, run_id, tag) if remove else tracker.add_tag(run_id, tag)
    typer.echo(harmless(f"{tagged.run_id}: {', '.join(tagged.tags) or 'no tag'}"))


def rm(
    run: RunId,
    yes: Annotated[bool, typer.Option("--yes", help="Remove its files without asking.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Bring a hidden run back.")] = False,
    db: Db = None,
    runs: Runs = None,
) -> None:
    """Hide a run and, after asking, remove its files; it still counts as a trial."""
    from foresweep.tracker.hiding import hide_run, show_run_again

    with open_existing(db) as tracker:
        if undo:
            back = show_run_again(tracker, run)
            typer.echo(f"{back.run_id} is back{'' if back.checkpoint_path else ', without files'}.")
            return
        chosen = tracker.get_run(run)
        folder = own_folder(settings(db, runs).runs_dir, chosen.run_id)
        remove = folder is not None and (yes or _asked(folder))
        if remove:
            _refuse_needed(tracker, chosen.run_id)
        hide_run(tracker, chosen.run_id, forget_files=remove)
        typer.echo(f"{chosen.run_id} is hidden; bring it back with: foresweep rm {run} --undo")
        if folder is not None and remove:
            _remove(folder)
        elif chosen.has_checkpoint_files:
            typer.echo(f"Its files stay: {folder or chosen.checkpoint_path}")


def _refuse_needed(tracker: Tracker, run_id: str) -> None:
    """Raises TrackerError where it is in service, or an ensemble could not forecast any more
    without its files."""
    from foresweep.lifecycle.champion import refuse_in_service
    from foresweep.selection.ensembling import ensembles_of

    refuse_in_service(tracker, run_id)
    if pinned := [one.run_id for one in ensembles_of(tracker, run_id)]:
        raise TrackerError(
            f"the files of run {run_id} are needed: it is a member of {', '.join(pinned)}; remove "
            f"that first, or hide the run without --yes"
        )


def own_folder(runs_dir: Path, run_id: str) -> Path | None:
    """The folder that a sweep made for this run, None where there is none. An imported run may
    be called anything, `..` included: only a folder directly in `runs_dir` is its own."""
    folder = runs_dir / run_id
    own = folder.is_dir() and not folder.is_symlink() and folder.name == run_id
    return folder if own and folder.resolve().parent == runs_dir.resolve() else None


def _asked(folder: Path) -> bool:
    """Ask a person; where nobody can answer, files stay."""
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 2**20
    question = f"Remove {folder} ({size:.1f} MiB: checkpoint, forecasts, log), its losses kept?"
    return sys.stdin.isatty() and typer.confirm(question)


def _remove(folder: Path) -> None:
    """Remove all but the losses: without those of its losers a sweep's winner would look less lucky
    than it was."""
    from foresweep.evaluation.backtest import LOSSES

    try:
        for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before it
            if path.is_symlink() or (path.is_file() and path.name != LOSSES):
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        if not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise TrackerError(
            f"{error.filename or folder} cannot be removed: {error.strerror}; the run is hidden, "
            f"remove the folder by hand"
        ) from error
    kept = " but for its losses, which verdicts count" if folder.exists() else ""
    typer.echo(f"Removed {folder}{kept}.")


# `import` and `export`: runs to and from other forms.


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
        done = import_json(tracker, file)
    for reason in done.left_out:
        typer.echo(harmless(f"{file}: {reason}"), err=True)
    typer.echo(f"{done.num_new} new runs, {done.num_known} known before.")


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


@export_app.command("bundle")
def export_bundle(
    run: RunId,
    output: Annotated[Path, typer.Option("--output", "-o", help="A .zip file.")] = Path(
        "model.zip"
    ),
    db: Db = None,
) -> None:
    """A run in one file: weights, card, verdict and the losses that give it again anywhere."""
    from foresweep.lifecycle.bundle import write_bundle

    with open_existing(db) as tracker:
        said = write_bundle(tracker, run, output)
    judged = said["verdict"]["outcome"] if said["verdict"] else "never judged"
    typer.echo(
        f"Wrote {output}: run {said['run']['run_id']}, {judged}, {len(said['files'])} files."
    )
    if said["verdict"]:
        typer.echo(f"Judge it again anywhere: foresweep verdict --bundle {output}")


@export_app.command("hf")
def export_hf(
    run: RunId,
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    bare: Annotated[
        bool,
        typer.Option(
            "--bare",
            help="The network alone, although its loader will not prepare its inputs or calibrate.",
        ),
    ] = False,
    db: Db = None,
) -> None:
    """A run's network in the files of its authors, LoRA merged, for their own loader."""
    from foresweep.lifecycle.champion import checkpoint_of
    from foresweep.models.authors import write_authors

    with open_existing(db) as tracker:
        checkpoint = checkpoint_of(tracker.get_run(run))
    lost = write_authors(checkpoint, folder, bare=bare)
    typer.echo(f"Wrote {folder}: {checkpoint.model} in its authors' files.")
    for what in lost:
        typer.echo(f"Left out: {what}.")


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


@export_app.command("optuna")
def export_optuna_studies(
    storage: Annotated[str, typer.Argument(help="Where, as Optuna writes it: sqlite:///study.db.")],
    model: Model = None,
    sweep: Sweep = None,
    db: Db = None,
) -> None:
    """Write ended trials as studies of Optuna, one for each sweep and model, for optuna-dashboard.
    What is there already stays as it is. No test scores."""
    from foresweep.reporting.studies import export_optuna, told

    with open_existing(db) as tracker:
        sweeps = [tracker.get_sweep(sweep)] if sweep else tracker.list_sweeps()[::-1]
        done = export_optuna(tracker, storage, sweeps, model)
    if not done:
        raise NotFound(
            f"no trial{_chosen_by(model=model, sweep=sweep)} has ended (a baseline is none: it is "
            f"an attribute of a study); list all runs with: foresweep runs"
        )
    for line in told(done, storage):
        typer.echo(line)


def _chosen_by(**options: str | None) -> str:
    """The options that chose, as they were typed; "" where there were none."""
    said = [f"--{name} {shlex.quote(value)}" for name, value in options.items() if value]
    return f" by {' '.join(said)}" if said else ""


def _repeat(
    mirror: str, model: str | None, sweep: str | None, where: str | None, db: str | None
) -> None:
    from foresweep.integrations.mirror import copy_runs, open_mirror

    opener = open_mirror(mirror)
    with open_existing(db) as tracker:
        sweep_id = tracker.get_sweep(sweep).sweep_id if sweep else None
        runs = tracker.get_runs(model_name=model, sweep_id=sweep_id, where=where)
        chosen = [run for run in runs if run.state.is_final]
        if not chosen:
            these = _chosen_by(model=model, sweep=sweep, where=where)
            raise NotFound(f"no finished run{these} to export; list them with: foresweep runs")
        name = mirror.partition(":")[0]
        count = copy_runs(name, opener, chosen, lambda run: points_by_step(tracker, run))
    known = f"; {len(chosen) - count} were there already" if count < len(chosen) else ""
    typer.echo(f"{count} runs repeated to {name}{known}.")


def points_by_step(tracker: Tracker, run: Run) -> dict[int, dict[str, float]]:
    """step -> scores of a run's curves, by rising step."""
    points: dict[int, dict[str, float]] = {}
    for curve in tracker.get_curves(run.run_id):
        for step, value in tracker.get_curve(run.run_id, curve.name):
            points.setdefault(step, {})[curve.name] = value
    return dict(sorted(points.items()))


# `db`: check, copy, back up and upgrade the database.


app = typer.Typer(help="Look after the database.", no_args_is_help=True)


@app.command()
def check(as_json: Json = False, db: Db = None) -> None:
    """Mark runs whose process is gone as lost; exit 1 if the database is not sound."""
    from foresweep.tracker.storage.moving import check as check_database
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
def verify(
    holds: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="A hash noted earlier, as on a verdict's card."),
    ] = None,
    as_json: Json = False,
    db: Db = None,
) -> None:
    """Hold the record against its hash chain; name what was changed, removed or inserted and
    exit 1."""
    from foresweep.tracker.storage.verifying import verify as walk

    with open_existing(db) as tracker:
        place = tracker.store.place
        with tracker.store.read() as connection:
            found = walk(connection, holds=holds)
    if as_json:
        plain = {"database": place, "is_sound": found.is_sound, **dataclasses.asdict(found)}
        typer.echo(json.dumps(plain, indent=2))
    else:
        for problem in found.problems:
            typer.echo(f"{problem.what}: {problem.words}")
        if found.before:
            told = ", ".join(f"{kind} {count}" for kind, count in found.before.items())
            typer.echo(f"Before the chain began, so nothing is known of them: {told}.")
        sound = "all as it was written" if found.is_sound else "NOT as it was written"
        typer.echo(
            f"{place}: database {found.database_id}, chained since {found.chained_since[:19]}; "
            f"{found.num_entries} entries, last hash {found.last_hash}; {sound}."
        )
    if not found.is_sound:
        raise typer.Exit(1)


@app.command()
def copy(
    target: Annotated[str, typer.Argument(help="An empty place: a path or a URL.")],
    as_json: Json = False,
    db: Db = None,
) -> None:
    """Copy the whole database to an empty one, of either kind, and compare row by row."""
    from foresweep.tracker.storage.moving import copy_database

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
    from foresweep.tracker.storage.moving import backup as write_backup

    write_backup(settings(db).database, target)
    typer.echo(f"Wrote {target}.")


@app.command()
def upgrade(
    database: Annotated[str | None, typer.Argument(help="A path or URL. Default: as --db.")] = None,
    db: Db = None,
) -> None:
    """Bring the database of an older foresweep up to date (SQLite: a copy is put beside it)."""
    from foresweep.tracker.storage.schema import HEAD
    from foresweep.tracker.storage.store import Store

    with Store(settings(database or db).database, create=False, upgrade=True) as store:
        typer.echo(f"{store.place} has schema {HEAD}, the newest.")
