"""Where a run's files stand, whatever folder the command is called in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foresweep.records import Run
    from foresweep.tracker.tracker import Tracker

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
