"""SQLite as the database: WAL mode, locks that wait, and its errors in our words."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Connection, Engine, StaticPool, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from foresweep.errors import DatabaseUnusable, NotFound, TrackerError
from foresweep.settings import Synchronous
from foresweep.tracker.storage.line import Line

NETWORK = {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "ceph", "glusterfs"} | {
    "lustre", "beegfs", "gpfs", "davfs", "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "webdav",
}  # fmt: skip
LOG_PAGES = 4_000
"""Pages (4 kB) of the write-ahead log before it is folded into the file, which waits for the
disk: four times SQLite's own choice, so four times rarer."""
CACHE_KB = 16_000
_CAUSES = {
    "SQLITE_NOTADB": "is not a database; give another path or move the file away",
    "SQLITE_CORRUPT": "is damaged; restore a copy, or save what is left with `sqlite3 .recover`",
    "SQLITE_READONLY": "is read-only; give a place you may write to, or mend its permissions",
    "SQLITE_CANTOPEN": "cannot be opened; check that its folder exists and may be written to",
    "SQLITE_PERM": "may not be opened; mend its permissions",
    "SQLITE_FULL": "cannot grow: the disk is full; nothing acknowledged is lost",
    "SQLITE_IOERR": "cannot be read or written: the disk refused; nothing acknowledged is lost",
}
SMALLEST = 512
"""Bytes of SQLite's smallest page: no database has fewer."""
_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")


@dataclass(frozen=True, slots=True)
class Sqlite:
    """One SQLite file, or a database in memory."""

    url: URL
    synchronous: Synchronous
    busy_timeout_s: float

    @property
    def place(self) -> str:
        name = self.url.database or ":memory:"
        if name.isascii():
            return name
        from foresweep.data.files import name_as_text  # loads numpy, which opening does without

        return name_as_text(name)

    @property
    def path(self) -> Path | None:
        """The file, None where the database is in memory or named by SQLite's own URI."""
        name = self.url.database
        if not name or name == ":memory:" or name.startswith("file:"):
            return None
        return Path(name)

    @property
    def is_read_only(self) -> bool:
        """Does the file's medium, its folder or its mode forbid to write? It can be read, then."""
        if self.path is None or not self.path.is_file():
            return False
        if not os.access(self.path, os.W_OK):
            return True
        return not os.access(self.path.parent, os.W_OK) and not _log_of(self.path).exists()

    @property
    def driver_errors(self) -> tuple[type[Exception], ...]:
        # a damaged schema may hold bytes that even SQLite's own complaint about it cannot be
        # decoded from
        return DBAPIError, sqlite3.Error, UnicodeDecodeError

    def prepare(self, *, create: bool) -> None:
        """The file can be made where it shall be, on a disk that can lock.

        Raises NotFound, DatabaseUnusable.
        """
        if self.path is None:
            return
        if not create and not (self.path.exists() and self.path.stat().st_size):  # or an empty file
            raise NotFound(
                f"no database at {self.place}; run a sweep first, or say where with --db"
            )
        if self.path.is_file() and 0 < self.path.stat().st_size < SMALLEST:
            # SQLite itself takes a file of one byte for an empty one, and writes over it
            raise DatabaseUnusable(f"{self.place} {_CAUSES['SQLITE_NOTADB']}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise DatabaseUnusable(f"{self.place} cannot be made: {reason}") from error
        if self.path.is_dir():
            raise DatabaseUnusable(
                f"{self.place} is a folder; give a file in it, like {self.place}/sweeps.db"
            )
        if kind := network_kind(self.path.resolve()):
            raise DatabaseUnusable(
                f"{self.place} is on a network folder ({kind}), where SQLite cannot be shared "
                f"safely; put it on a local disk with --db or FORESWEEP_DB"
            )

    def engine(self) -> Engine:
        """An engine whose driver commits by itself, so that every BEGIN is ours to choose."""
        pool: dict[str, Any] = {"pool_size": 2}
        if self.url.database in (None, "", ":memory:"):  # one connection is one database
            pool = {"poolclass": StaticPool}
        timeout = {"isolation_level": None, "timeout": self.busy_timeout_s}
        is_read_only, url = self.is_read_only, self.url
        if is_read_only and self.path is not None:
            url = URL.create("sqlite", database=_read_only_uri(self.path), query={"uri": "true"})
        engine = create_engine(url, connect_args=timeout, **pool)

        def on_connect(connection: sqlite3.Connection, record: Any) -> None:
            if not is_read_only:
                _enter_wal(connection, self.busy_timeout_s)
                connection.execute(f"PRAGMA synchronous={self.synchronous}")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute(f"PRAGMA wal_autocheckpoint={LOG_PAGES}")
            connection.execute(f"PRAGMA cache_size=-{CACHE_KB}")

        event.listen(engine, "connect", on_connect)
        event.listen(engine, "begin", _on_begin)
        return engine

    def reading(self, engine: Engine) -> Engine:
        return engine.execution_options(begin="BEGIN")

    def writing(self, engine: Engine) -> Engine:
        """Takes the write lock at once: no other process writes meanwhile."""
        return engine.execution_options(begin="BEGIN IMMEDIATE")

    def migrating(self, engine: Engine) -> Engine:
        """As writing, and no reader enters where the file is not yet in WAL mode."""
        return engine.execution_options(begin="BEGIN EXCLUSIVE")

    def check_present(self, marks: dict[str, tuple[int, int]]) -> None:
        """The file is still the one that was opened: SQLite itself goes on writing into a file
        that has been deleted. Raises DatabaseUnusable."""
        if self.path is None:
            return
        try:
            stat = os.stat(self.path)
            mark = stat.st_dev, stat.st_ino
        except OSError:
            mark = None
        if mark is None or marks.setdefault("file", mark) != mark:
            raise DatabaseUnusable(
                f"{self.place} was removed or replaced while it was open; put it back, then open "
                f"it again"
            )

    def explained(self, error: BaseException) -> TrackerError:
        """The driver's error in our words: what, where, what to do."""
        name = str(getattr(error, "sqlite_errorname", ""))
        if isinstance(error, UnicodeDecodeError):
            name = "SQLITE_CORRUPT"
        for code, cause in _CAUSES.items():
            if name.startswith(code):
                return DatabaseUnusable(f"{self.place} {cause}")
        if name.startswith(_BUSY):
            return TrackerError(f"{self.place} stayed locked by another process; try again")
        return TrackerError(f"{self.place}: {error}")

    def is_hiccup(self, error: BaseException) -> bool:
        """May the same work succeed a little later?"""
        return str(getattr(error, "sqlite_errorname", "")).startswith(_BUSY)

    def before_upgrade(self, connection: Connection, version: str, *, is_asked_for: bool) -> None:
        """Put a copy of the database beside it."""
        if self.path is None:
            return
        if self.is_read_only:
            raise DatabaseUnusable(
                f"{self.place} is from an older foresweep (schema {version}) and read-only; copy "
                f"it to a place that may be written to"
            )
        number, target = 1, self.path.with_name(f"{self.path.name}.schema-{version}.bak")
        while target.exists():
            number += 1
            target = self.path.with_name(f"{self.path.name}.schema-{version}-{number}.bak")
        backup(self.path, target)


class SqliteLine(Line):
    """The driver's own connection."""

    is_postgres = False
    for_update = ""

    def __init__(self, driver: sqlite3.Connection) -> None:
        self.driver = driver
        self.execute = driver.execute
        self.executemany = driver.executemany

    def transact(self, do: Callable[[Line], Any], *, together: bool = True) -> Any:
        """`do` in one unit of work under the write lock."""
        self.driver.execute("BEGIN IMMEDIATE")
        try:
            answer = do(self)
            self.driver.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # the first error is the one to tell
                self.driver.rollback()
            raise
        return answer

    def insert_many(
        self, table: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]
    ) -> None:
        marks = ", ".join("?" * len(columns))
        sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
        self.driver.executemany(sql, rows)

    def close(self) -> None:
        self.driver.close()


def backup(source: Path, target: Path) -> None:
    """A sound copy of a database that others may be writing: SQLite's own online backup, under
    a temporary name until it is whole and on disk. Raises sqlite3.Error, OSError."""
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        theirs, ours = sqlite3.connect(source), sqlite3.connect(partial)
        try:
            theirs.backup(ours)
            ours.execute("PRAGMA journal_mode=DELETE")  # one file: no log beside the copy
        finally:
            theirs.close()
            ours.close()
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def network_kind(path: Path) -> str | None:
    """The file system under `path` where it is a network's, else None."""
    mounts = {Path(p.mountpoint): p for p in psutil.disk_partitions(all=True)}
    for folder in (path, *path.parents):
        if mount := mounts.get(folder):
            far = mount.fstype.lower() in NETWORK or "remote" in mount.opts.split(",")
            return mount.fstype if far else None
    return None


def _log_of(path: Path) -> Path:
    """The write-ahead log beside a database."""
    return path.with_name(f"{path.name}-wal")


def _read_only_uri(path: Path) -> str:
    """SQLite's name for a file that nobody here may write. Without a log beside it nothing can be
    missing, and SQLite need not lock it, which takes a file that could not be made."""
    log = _log_of(path)
    whole = not log.exists() or not log.stat().st_size
    return f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if whole else ''}"


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options()["begin"])


def _enter_wal(connection: sqlite3.Connection, timeout_s: float) -> None:
    """WAL is a mark in the file; setting it does not wait for others, so we do."""
    until = time.monotonic() + timeout_s
    while connection.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > until:
                raise
            time.sleep(0.005)
