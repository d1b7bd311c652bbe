"""A database in a folder of its own, and sweeps and runs to fill it with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from foresweep.records import Run, Sweep
from foresweep.tracker.tracker import Tracker


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sweeps.db"


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, built once: a copy is ready at once."""
    place = tmp_path_factory.mktemp("empty") / "empty.db"
    Tracker(place).close()
    return place


@pytest.fixture
def tracker(path: Path, empty: Path) -> Iterator[Tracker]:
    shutil.copy(empty, path)
    with Tracker(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, empty: Path) -> Iterator[Tracker]:
    """One database for all examples of a property."""
    place = tmp_path_factory.mktemp("shared") / "shared.db"
    shutil.copy(empty, place)
    with Tracker(place) as opened:
        yield opened


@pytest.fixture
def finished(tracker: Tracker) -> Callable[..., Run]:
    """Makes a finished run: finished("toto", {"val_pct_mae": 1.0}, sweep=..., state=...)."""

    def make(
        model: str,
        scores: dict[str, float],
        *,
        sweep: Sweep | None = None,
        state: str = "complete",
        checkpoint_path: str | None = "somewhere",
        **started: Any,
    ) -> Run:
        run = tracker.start_run(
            model=model,
            hyperparams=started.pop("hyperparams", {}),
            sweep_id=sweep.sweep_id if sweep else None,
            fingerprints=sweep.fingerprints if sweep else None,
            **started,
        )
        return tracker.finish_run(run.run_id, state, scores=scores, checkpoint_path=checkpoint_path)

    return make
