"""The database itself: opened, checked, brought up to date, and every driver error translated.

SQLite in WAL mode with synchronous NORMAL: what a call has acknowledged survives the kill of any
process; a power cut may take the last transactions (FULL keeps those too), never integrity.
A store may be used by several threads and not across a fork's two sides: a child process gets
connections of its own.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from foresweep.errors import DatabaseUnusable, NotFound, TrackerError
from foresweep.settings import Synchronous, is_url
from foresweep.tracker.schema import HEAD, VERSION_TABLE

BUSY_TIMEOUT_S = 30.0
NETWORK = {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "ceph", "glusterfs"} | {
    "lustre", "beegfs", "gpfs", "davfs", "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "webdav",
}  # fmt: skip
_CAUSES = {
    "SQLITE_NOTADB": "is not a database; give another path or move the file away",
    "SQLITE_CORRUPT": "is damaged; restore a copy, or save what is left with `sqlite3 .recover`",
    "SQLITE_READONLY": "is read-only; give a place you may write to, or mend its permissions",
    "SQLITE_CANTOPEN": "cannot be opened; check that its folder exists and may be written to",
    "SQLITE_PERM": "may not be opened; mend its permissions",
    "SQLITE_FULL": "cannot grow: the disk is full; nothing acknowledged is lost",
    "SQLITE_IOERR": "cannot be read or written: the disk refused",
}


class Store:
    """One open database. Close it, or use it as a context manager."""

    def __init__(
        self,
        database: str | Path,
        *,
        synchronous: Synchronous = "NORMAL",
        create: bool = True,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        """Open a path or a `sqlite:///` URL; an empty place becomes a database.

        Raises NotFound when there is none and `create` is False; DatabaseUnusable when it is
        corrupt, read-only, on a network folder, from a newer foresweep, or not a database.
        """
        self.url = _as_url(database)
        self.place = self.url.render_as_string(hide_password=True).removeprefix("sqlite:///")
        _check_folder(self.url, self.place, create=create)
        self._pid = os.getpid()
        self._engine = _engine(self.url, synchronous, busy_timeout_s)
        try:
            self._bring_up_to_date()
        except DBAPIError as error:
            self._engine.dispose()
            raise explained(error, self.place) from error
        except TrackerError:
            self._engine.dispose()
            raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view; other processes go on writing. Raises TrackerError."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One unit of work: durable when the block ends, nothing of it on any error.

        Takes the write lock at once, so that what is read inside cannot change before what is
        written. Raises TrackerError.
        """
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose(close=os.getpid() == self._pid)

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        if os.getpid() != self._pid:  # forked: the parent's connections are not ours to use
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        try:
            with self._engine.execution_options(begin=begin).begin() as connection:
                yield connection
        except DBAPIError as error:
            raise explained(error, self.place) from error

    def _bring_up_to_date(self) -> None:
        """Build or migrate under an exclusive lock: of many openers, one does it, all succeed."""
        with self._engine.execution_options(begin="BEGIN").begin() as connection:
            if _version(connection, self.place) == HEAD:
                return
        with self._engine.execution_options(begin="BEGIN EXCLUSIVE").begin() as connection:
            if _version(connection, self.place) != HEAD:
                from foresweep.tracker.migrations import upgrade  # alembic: only when needed

                upgrade(connection)


def explained(error: DBAPIError, place: str) -> TrackerError:
    """The driver's error in our words: what, where, what to do."""
    name = str(getattr(error.orig, "sqlite_errorname", ""))
    for code, cause in _CAUSES.items():
        if name.startswith(code):
            return DatabaseUnusable(f"{place} {cause}")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return TrackerError(f"{place} stayed locked by another process; try again")
    return TrackerError(f"{place}: {error.orig}")


def _as_url(database: str | Path) -> URL:
    if not is_url(str(database)):
        return URL.create("sqlite", database=str(Path(database).expanduser()))
    try:
        url = make_url(str(database))
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError) as error:
        raise DatabaseUnusable(f"{str(database).split('://')[0]}: no such database kind") from error
    if url.get_backend_name() != "sqlite":
        place = url.render_as_string(hide_password=True)
        raise DatabaseUnusable(f"{place}: only SQLite is supported; give a path or sqlite:///PATH")
    return url


def _check_folder(url: URL, place: str, *, create: bool) -> None:
    """The file can be made where it shall be, on a disk that can lock."""
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        return
    path = Path(url.database)
    if not create and not path.exists():
        raise NotFound(f"no database at {place}; run a sweep first, or say where with --db")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseUnusable(f"{place} cannot be made: {error.strerror or error}") from error
    if path.is_dir():
        raise DatabaseUnusable(f"{place} is a folder; give a file in it, like {place}/sweeps.db")
    if kind := network_kind(path.resolve()):
        raise DatabaseUnusable(
            f"{place} is on a network folder ({kind}), where SQLite cannot be shared safely; "
            f"put it on a local disk with --db or FORESWEEP_DB"
        )


def network_kind(path: Path) -> str | None:
    """The file system under `path` where it is a network's, else None."""
    mounts = {Path(p.mountpoint): p for p in psutil.disk_partitions(all=True)}
    for folder in (path, *path.parents):
        if mount := mounts.get(folder):
            far = mount.fstype.lower() in NETWORK or "remote" in mount.opts.split(",")
            return mount.fstype if far else None
    return None


def _engine(url: URL, synchronous: Synchronous, busy_timeout_s: float) -> Engine:
    """An engine whose driver commits by itself, so that every BEGIN is ours to choose."""
    engine = create_engine(
        url, connect_args={"isolation_level": None, "timeout": busy_timeout_s}, pool_size=2
    )

    def on_connect(connection: sqlite3.Connection, record: Any) -> None:
        _enter_wal(connection, busy_timeout_s)
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")

    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options()["begin"])

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def _enter_wal(connection: sqlite3.Connection, timeout_s: float) -> None:
    """WAL is a mark in the file; setting it does not wait for others, so we do."""
    until = time.monotonic() + timeout_s
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > until:
                raise
            time.sleep(0.005)


def _version(connection: Connection, place: str) -> str | None:
    """The database's revision, None where it is empty. Raises DatabaseUnusable."""
    query = text("SELECT name FROM sqlite_master WHERE type = 'table'")
    tables = set(connection.execute(query).scalars())
    if not tables:
        return None
    if VERSION_TABLE not in tables:
        raise DatabaseUnusable(
            f"{place} is a database of something else ({', '.join(sorted(tables)[:3])}); "
            f"give another path"
        )
    version = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    if version is not None and version > HEAD:
        raise DatabaseUnusable(
            f"{place} is from a newer foresweep (schema {version}, this one knows {HEAD}); "
            f"upgrade with: pip install -U foresweep"
        )
    return version
