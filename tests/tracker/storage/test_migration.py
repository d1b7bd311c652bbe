"""A database of another age: refused, upgraded after a copy, or its keeper told how."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from foresweep.errors import DatabaseUnusable, NotFound
from foresweep.tracker import migrations
from foresweep.tracker.storage import schema
from foresweep.tracker.storage.store import Store
from foresweep.tracker.tracker import Tracker


def build(url: str, revision: str) -> None:
    """A database as that revision left it, with one run."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        row = {column.name: None for column in schema.runs.columns if column.name != "hidden_at"}
        row |= dict.fromkeys(("model_name", "config_hash", "train_hash", "panel_hash"), "m")
        row |= {"run_id": "old", "task_hash": "k", "fingerprint": "", "source": "logged"}
        row |= {"created_at": "2025-01-01T00:00:00.000000+00:00", "attempt": 1}
        row |= {"state": "complete", "is_baseline": False, "tags": "[]", "resources": "{}"}
        row |= {"hyperparams": '{"lr": 0.1}', "metrics": "{}", "fingerprints": "{}"}
        names = ", ".join(row)
        marks = ", ".join(f":{name}" for name in row)
        connection.execute(text(f"INSERT INTO runs ({names}) VALUES ({marks})"), row)
        connection.execute(
            text(
                "INSERT INTO curves (run_id, name, num_points, last_step, last, lowest,"
                " lowest_step, highest, highest_step) VALUES ('old', 'l', 1, 1, 1, 1, 1, 1, 1)"
            )
        )
    engine.dispose()


def version(place: Path) -> str:
    with sqlite3.connect(place) as raw:
        found = raw.execute(f"SELECT version_num FROM {schema.VERSION_TABLE}").fetchone()[0]
    raw.close()
    return str(found)


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("revision", [f"{n:04d}" for n in range(1, int(schema.HEAD))])
def test_an_older_file_is_upgraded_after_a_copy_was_made(
    path: Path, revision: str, asked: bool
) -> None:
    build(f"sqlite:///{path}", revision)
    Store(path, upgrade=asked).close()
    with Tracker(path) as tracker:
        assert tracker.get_run("old").hyperparams == {"lr": 0.1}
        tracker.log_run("toto", {}, {})
        with tracker.store.read() as connection:
            finals = connection.execute(text("SELECT is_final FROM curves")).scalars().all()
        assert finals == [int(revision < "0003")]  # 0003 marks those that were there
    copy = path.with_name(f"sweeps.db.schema-{revision}.bak")
    assert (version(path), version(copy)) == (schema.HEAD, revision)
    with sqlite3.connect(copy) as kept:
        assert kept.execute("SELECT run_id FROM runs").fetchall() == [("old",)]
    kept.close()


def test_a_copy_that_is_there_is_not_written_over(path: Path) -> None:
    taken = path.with_name("sweeps.db.schema-0001.bak")
    taken.write_text("precious")
    build(f"sqlite:///{path}", "0001")
    Tracker(path).close()
    assert taken.read_text() == "precious"
    assert version(path.with_name("sweeps.db.schema-0001-2.bak")) == "0001"


def test_an_upgrade_that_fails_leaves_the_old_database(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(f"sqlite:///{path}", "0001")
    real = migrations.upgrade

    def broken(connection: object) -> None:
        real(connection)  # type: ignore[arg-type]
        raise ZeroDivisionError

    monkeypatch.setattr(migrations, "upgrade", broken)
    with pytest.raises(ZeroDivisionError):
        Tracker(path)
    assert version(path) == "0001"


@pytest.mark.slow
def test_the_keeper_of_an_older_server_is_told_how(new_database) -> None:  # type: ignore[no-untyped-def]
    url = new_database(bare=True)
    build(url, "0001")
    with pytest.raises(
        DatabaseUnusable, match=r"older foresweep \(schema 0001\).*pg_dump.*upgrade"
    ):
        Tracker(url)
    Store(url, upgrade=True).close()
    with Tracker(url) as tracker:
        assert tracker.get_run("old").hyperparams == {"lr": 0.1}


def test_a_newer_database_is_refused(place: str) -> None:
    with Store(place) as store, store.write() as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(DatabaseUnusable, match=r"from a newer foresweep \(schema 9999"):
        Store(place)


def test_somebody_elses_tables_are_left_alone(bare_place: str) -> None:
    url = bare_place if "://" in bare_place else f"sqlite:///{bare_place}"
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE experiments (id int)"))
    engine.dispose()
    with pytest.raises(DatabaseUnusable, match=r"of something else \(experiments\)"):
        Store(bare_place)


def test_reading_makes_no_tables(bare_place: str) -> None:
    with pytest.raises(NotFound):
        Tracker(bare_place, create=False)
    with pytest.raises(NotFound):
        Tracker(bare_place, create=False)
