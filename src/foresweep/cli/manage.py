"""`note`, `tag`, `rm`: what may still be said about a finished run, and how it goes away."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foresweep.cli.options import Db, RunId, Runs, open_existing, settings
from foresweep.errors import TrackerError

if TYPE_CHECKING:
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
    db: Db = None,
) -> None:
    """Tag a run; `runs --tag` finds it."""
    with open_existing(db) as tracker:
        tagged = tracker.add_tag(tracker.get_run(run).run_id, tag)
    typer.echo(f"{tagged.run_id}: {', '.join(tagged.tags)}")


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
        found = tracker.get_run(run)
        folder = own_folder(settings(db, runs).runs_dir, found.run_id)
        remove = folder is not None and (yes or _asked(folder))
        if remove:
            _refuse_member(tracker, found.run_id)
        hide_run(tracker, found.run_id, forget_files=remove)
        typer.echo(f"{found.run_id} is hidden; bring it back with: foresweep rm {run} --undo")
        if folder is not None and remove:
            _remove(folder)
        elif found.has_checkpoint_files:
            typer.echo(f"Its files stay: {folder or found.checkpoint_path}")


def _refuse_member(tracker: Tracker, run_id: str) -> None:
    """Raises TrackerError where an ensemble could not forecast any more without its files."""
    from foresweep.selection.ensembling import ensembles_of

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
    question = f"Remove {folder} ({size:.1f} MiB: checkpoint, forecasts, log) too?"
    return sys.stdin.isatty() and typer.confirm(question)


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise TrackerError(
            f"{error.filename or folder} cannot be removed: {error.strerror}; the run is hidden, "
            f"remove the folder by hand"
        ) from error
    typer.echo(f"Removed {folder}.")
