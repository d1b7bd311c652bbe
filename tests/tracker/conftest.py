"""A database of its own for each test, on SQLite and on PostgreSQL, and runs to fill it with."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import postgres
from foresweep.records import Run, Sweep
from foresweep.tracker.storage import schema
from foresweep.tracker.tracker import Tracker

BACKENDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]  # it starts a server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sweeps.db"


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, built once: a copy is ready at once."""
    place = tmp_path_factory.mktemp("empty") / "empty.db"
    Tracker(place).close()
    return place


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    """A PostgreSQL server with the database `empty`, whose copies are ready at once."""
    with postgres.running() as started:
        started.execute("CREATE DATABASE empty")
        Tracker(started.url("empty")).close()
        yield started


@pytest.fixture(scope="session")
def new_database(server: postgres.Server) -> Callable[..., str]:
    """Makes a PostgreSQL database and gives its URL; with tables unless `bare`."""
    numbers = itertools.count()

    def make(*, bare: bool = False) -> str:
        name = f"t{next(numbers)}"
        server.execute(f"CREATE DATABASE {name} TEMPLATE {'template0' if bare else 'empty'}")
        return server.url(name)

    return make


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def emptied(new_database: Callable[..., str]) -> Callable[[], str]:
    """Gives the URL of one database, without rows again: far cheaper than a new one."""
    url = new_database()
    tables = [table.name for table in reversed(schema.metadata.sorted_tables)]
    clear = ";".join(f"DELETE FROM {name}" for name in tables)
    with psycopg.connect(url) as connection:
        (born,) = connection.execute("SELECT * FROM record_chain").fetchall()
    clear += f";UPDATE {schema.VERSION_TABLE} SET version_num = '{schema.HEAD}'"

    def empty_it() -> str:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(clear)  # type: ignore[call-overload]
            marks = ", ".join(["%s"] * len(born))
            connection.execute(f"INSERT INTO record_chain VALUES ({marks})", born)  # type: ignore[call-overload]
        return url

    return empty_it


@pytest.fixture
def place(backend: str, request: pytest.FixtureRequest) -> str:
    """Path or URL of a database that has its tables and no rows."""
    if backend == "postgresql":
        return str(request.getfixturevalue("emptied")())
    found = request.getfixturevalue("path")
    shutil.copy(request.getfixturevalue("empty"), found)
    return str(found)


@pytest.fixture
def bare_place(backend: str, request: pytest.FixtureRequest) -> str:
    """Path or URL where nothing is yet."""
    if backend == "postgresql":
        return str(request.getfixturevalue("new_database")(bare=True))
    return str(request.getfixturevalue("path"))


@pytest.fixture
def tracker(place: str) -> Iterator[Tracker]:
    with Tracker(place) as opened:
        yield opened


@pytest.fixture
def sqlite_tracker(path: Path, empty: Path) -> Iterator[Tracker]:
    """For what only SQLite has."""
    shutil.copy(empty, path)
    with Tracker(path) as opened:
        yield opened


@pytest.fixture(scope="module", params=BACKENDS)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tracker]:
    """One database for all examples of a property."""
    if request.param == "postgresql":
        place = request.getfixturevalue("new_database")()
    else:
        place = tmp_path_factory.mktemp("shared") / "shared.db"
        shutil.copy(request.getfixturevalue("empty"), place)
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
