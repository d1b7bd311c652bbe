from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from foresweep.errors import DatabaseUnusable, NotFound, TrackerError
from foresweep.tracker import migrations
from foresweep.tracker.storage import schema
from foresweep.tracker.storage.sqlite import network_kind
from foresweep.tracker.storage.store import Store
from foresweep.tracker.tracker import Tracker


def test_an_empty_place_becomes_a_database_in_wal_mode(tmp_path: Path) -> None:
    with_folders = tmp_path / "a" / "b" / "sweeps.db"
    store = Store(with_folders)
    with store.read() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 1
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() == 30_000
    store.close()
    assert with_folders.exists()


def test_full_synchronous_is_there_for_the_asking(path: Path) -> None:
    store = Store(path, synchronous="FULL")
    with store.read() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
    store.close()


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}", "sqlite+pysqlite:///{}"])
def test_paths_and_urls_open_the_same_file(path: Path, empty: Path, form: str) -> None:
    Tracker(path).log_run("toto", {}, {})
    with Tracker(form.format(path)) as tracker:
        assert len(tracker.get_runs()) == 1


def test_the_tables_are_those_the_migrations_build(path: Path) -> None:
    store = Store(path)
    with store.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, schema.metadata)
    store.close()
    ours = [d for d in found if schema.VERSION_TABLE not in str(d)]
    assert ours == []


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


def test_what_fails_inside_a_unit_of_work_leaves_nothing(sqlite_tracker: Tracker) -> None:
    def half_done() -> None:
        with sqlite_tracker.store.write() as connection:
            connection.execute(text("INSERT INTO imports VALUES ('h', 'p', 1, 'now')"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half_done()
    with sqlite_tracker.store.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM imports")).scalar() == 0


def test_what_was_read_before_a_write_cannot_change_meanwhile(path: Path) -> None:
    store, other = Store(path), Store(path, busy_timeout_s=0.01)
    with (
        store.write() as connection,
        pytest.raises(TrackerError, match="stayed locked by another process"),
        other.write(),
    ):
        pytest.fail(f"two writers at once: {connection}")
    with store.write(), other.read() as reader:
        assert reader.execute(text("SELECT count(*) FROM runs")).scalar() == 0
    store.close()
    other.close()


def test_a_text_file_is_not_a_database(path: Path) -> None:
    path.write_text("run,score\n" * 1000)
    with pytest.raises(DatabaseUnusable, match=r"sweeps\.db is not a database; give another"):
        Store(path)
    assert path.read_text().startswith("run,score")


def test_a_damaged_database_is_named(sqlite_tracker: Tracker, path: Path) -> None:
    for _ in range(50):
        sqlite_tracker.log_run("toto", {"x": "y" * 500}, {})
    sqlite_tracker.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(DatabaseUnusable, match="is damaged; restore a copy"):
        Tracker(path).get_runs()


def test_a_read_only_database_is_named(path: Path, sqlite_tracker: Tracker) -> None:
    with (
        Store(f"sqlite:///file:{path}?mode=ro&uri=true") as store,
        pytest.raises(DatabaseUnusable, match="is read-only; give a place"),
        store.write() as connection,
    ):
        connection.execute(text("DELETE FROM runs"))


@pytest.fixture
def read_only(path: Path, sqlite_tracker: Tracker) -> Iterator[list[str]]:
    """The words before a command for which the folder of the database takes no writes."""
    sqlite_tracker.finish_run(
        sqlite_tracker.start_run(model="toto", hyperparams={}).run_id, "failed"
    )
    sqlite_tracker.start_run(model="toto", hyperparams={})  # not to be repaired: it cannot be
    sqlite_tracker.close()
    folder = path.parent
    if os.geteuid():
        folder.chmod(0o555)
        yield []
        folder.chmod(0o755)
        return
    mount = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    yield ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"]


def test_a_database_on_a_read_only_medium_can_be_read(path: Path, read_only: list[str]) -> None:
    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*read_only, sys.executable, "-m", "foresweep", *words, "--db", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    runs = ask("runs", "--where", "model = toto", "--json")
    assert runs.returncode == 0, runs.stderr
    assert [run["state"] for run in json.loads(runs.stdout)] == ["running", "failed"]
    run_id = json.loads(runs.stdout)[1]["run_id"]
    assert "failed" in ask("show", run_id).stdout
    refused = ask("note", run_id, "text")
    assert refused.returncode == 1
    assert "is read-only; give a place you may write to" in refused.stderr
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_place_where_no_folder_can_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseUnusable, match="cannot be made"):
        Store(tmp_path / "file" / "sweeps.db")


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match=r"is a folder; give a file in it"):
        Store(tmp_path)


def test_somebody_elses_database_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE experiments (id)")
    theirs.close()
    with pytest.raises(DatabaseUnusable, match=r"of something else \(experiments\)"):
        Store(path)


def test_a_database_from_a_newer_foresweep_is_refused(sqlite_tracker: Tracker, path: Path) -> None:
    with sqlite_tracker.store.write() as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(DatabaseUnusable, match=r"from a newer foresweep \(schema 9999"):
        Store(path)


def test_reading_does_not_make_a_database(path: Path) -> None:
    with pytest.raises(NotFound, match="no database at"):
        Tracker(path, create=False)
    assert not path.exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql+psycopg://me:hunter2@/db?host=/nowhere", "does not answer"),
        ("postgres://me:hunter2@/db?host=/nowhere", "postgresql://me:.*does not answer"),
        ("mysql://me:hunter2@host/db", "no such database kind; give a path"),
        ("nonsense://x", "nonsense.*: no such database kind"),
    ],
)
def test_what_cannot_be_reached_is_named_and_no_password_shown(url: str, message: str) -> None:
    with pytest.raises(DatabaseUnusable, match=message) as caught:
        Store(url)
    assert "hunter2" not in str(caught.value)


def mount(folder: Path, kind: str, options: str = "rw") -> SimpleNamespace:
    return SimpleNamespace(mountpoint=str(folder), fstype=kind, opts=options)


@pytest.mark.parametrize(
    ("kind", "options", "far"),
    [
        ("nfs4", "rw", True),
        ("cifs", "rw", True),
        ("NTFS", "rw,remote", True),
        ("ext4", "rw", False),
        ("tmpfs", "rw", False),
    ],
)
def test_a_network_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, options: str, far: bool
) -> None:
    mounts = [mount(Path("/"), "ext4"), mount(tmp_path, kind, options)]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: mounts)
    assert network_kind(tmp_path / "a" / "b.db") == (kind if far else None)
    if far:
        with pytest.raises(DatabaseUnusable, match=f"network folder .{kind}."):
            Store(tmp_path / "b.db")


def test_the_nearest_mount_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = [mount(Path("/"), "nfs"), mount(tmp_path, "ext4")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: mounts)
    assert network_kind(tmp_path / "a.db") is None
    assert network_kind(Path("/elsewhere/a.db")) == "nfs"


def test_an_existing_database_opens_without_the_migrations_library(
    sqlite_tracker: Tracker, path: Path
) -> None:
    heavy = "alembic", "pandas", "polars", "torch", "numpy"
    code = (
        f"import sys; from foresweep.tracker.tracker import Tracker; Tracker({str(path)!r});"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork beside threads, from 3.12 on
def test_a_forked_child_gets_connections_of_its_own(sqlite_tracker: Tracker) -> None:
    sqlite_tracker.log_run("toto", {}, {})
    ours = driver_connection(sqlite_tracker)
    child = os.fork()
    if child == 0:  # leave without pytest's own ending
        sqlite_tracker.log_run("kronos", {}, {})
        sound = (
            driver_connection(sqlite_tracker) is not ours and len(sqlite_tracker.get_runs()) == 2
        )
        os._exit(0 if sound else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert driver_connection(sqlite_tracker) is ours
    sqlite_tracker.log_run("toto", {}, {})
    assert [r.model_name for r in sqlite_tracker.get_runs()] == ["toto", "kronos", "toto"]


def driver_connection(tracker: Tracker) -> object:
    with tracker.store.read() as connection:
        return connection.connection.dbapi_connection
