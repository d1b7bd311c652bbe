"""The database itself: opened, checked, brought up to date, and every driver error translated.

SQLite in WAL mode with synchronous NORMAL: what a call has acknowledged survives the kill of any
process; a power cut may take the last transactions (FULL keeps those too), never integrity.
PostgreSQL keeps what its server's `synchronous_commit` says: by default everything.
A store may be used by several threads and not across a fork's two sides: a child process gets
connections of its own.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from foresweep.errors import DatabaseUnusable, NotFound
from foresweep.settings import Synchronous, is_url
from foresweep.tracker.storage.line import Line
from foresweep.tracker.storage.postgres import Postgres, PostgresLine
from foresweep.tracker.storage.schema import HEAD, VERSION_TABLE
from foresweep.tracker.storage.sqlite import Sqlite, SqliteLine

T = TypeVar("T")
BUSY_TIMEOUT_S = 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
_TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
    "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()",
}


class Store:
    """One open database. Close it, or use it as a context manager."""

    def __init__(
        self,
        database: str | Path,
        *,
        synchronous: Synchronous = "NORMAL",
        create: bool = True,
        upgrade: bool = False,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        """Open a path, a `sqlite:///` or a `postgresql://` URL; an empty place becomes a database.

        An older SQLite database is brought up to date after a copy was put beside it, an older
        PostgreSQL one only with `upgrade`. Raises NotFound when there is none and `create` is
        False; MissingExtra; DatabaseUnusable when it is corrupt, read-only, on a network folder,
        out of reach, older (PostgreSQL), from a newer foresweep, or not a database.
        """
        self._base = _base(database, synchronous, busy_timeout_s)
        self.url, self.place = self._base.url, self._base.place
        self.patience_s = 0.0
        """How long work is tried again while another process holds the lock or the server
        restarts; after it the error is raised."""
        self._base.prepare(create=create)
        self._pid = os.getpid()
        self._marks: dict[str, tuple[int, int]] = {}
        self._line: Line | None = None
        self._parents: list[Line] = []
        self._lock = threading.RLock()
        self._engine = self._base.engine()
        with self._translated(), ExitStack() as stack:
            stack.callback(self._engine.dispose)
            self._bring_up_to_date(create=create, upgrade=upgrade)
            stack.pop_all()

    @property
    def is_postgres(self) -> bool:
        return isinstance(self._base, Postgres)

    @property
    def is_read_only(self) -> bool:
        """Is it a file that can only be read here? Every write to it is refused."""
        return self._base.is_read_only

    @property
    def path(self) -> Path | None:
        """The file of an SQLite database."""
        return self._base.path

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view; other processes go on writing. Raises TrackerError."""
        with self._transaction(self._base.reading) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One unit of work: durable when the block ends, nothing of it on any error.

        Takes the write lock at once (waiting for it up to `patience_s`), so that what is read
        inside cannot change before what is written. Raises TrackerError.
        """
        self._base.check_present(self._marks)
        with self._transaction(self._base.writing) as connection:
            yield connection

    def work(self, do: Callable[[Connection], T]) -> T:
        """`do` in one `write()`, the whole of it again after a hiccup, up to `patience_s`.

        `do` may run twice, the second time upon its own work where a server fell silent between
        storing and saying so: it must know its own rows again. Raises TrackerError.
        """

        def once() -> T:
            with self._once(self._base.writing) as connection:
                return do(connection)

        return self._patiently(once)

    def direct(self, do: Callable[[Line], T], *, together: bool = True) -> T:
        """As `work`, below SQLAlchemy, for what must be fast. On PostgreSQL such writers do not
        take turns: `do` locks the rows that it depends on. `together` False: for many rows.
        Raises TrackerError."""

        def once() -> T:
            with self._lock:
                self._base.check_present(self._marks)
                answer: T = self._kept_line().transact(do, together=together)
                return answer

        return self._patiently(once)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every connection; the store may be used again."""
        ours = os.getpid() == self._pid
        with self._lock:
            self._drop_line(ours=ours)
            self._engine.dispose(close=ours)

    @contextmanager
    def _transaction(self, mode: Callable[[Engine], Engine]) -> Iterator[Connection]:
        """A block in a transaction; until it has begun, a hiccup is waited out."""
        self._own_after_fork()
        with self._translated(), ExitStack() as stack:
            yield self._patiently(lambda: stack.enter_context(mode(self._engine).begin()))

    @contextmanager
    def _once(self, mode: Callable[[Engine], Engine]) -> Iterator[Connection]:
        self._own_after_fork()
        self._base.check_present(self._marks)
        with mode(self._engine).begin() as connection:
            yield connection

    def _patiently(self, once: Callable[[], T]) -> T:
        """`once`, and again after a hiccup until patience ends; errors in our words."""
        until, pause_s = time.monotonic() + self.patience_s, FIRST_PAUSE_S
        while True:
            try:
                return once()
            except self._base.driver_errors as error:
                cause = _cause(error)
                may_pass = self._base.is_hiccup(cause)
                if may_pass:
                    self._forget_broken()
                if not may_pass or time.monotonic() + pause_s > until:
                    raise self._base.explained(cause) from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _forget_broken(self) -> None:
        """A server that came back knows the old connections no more."""
        if self.is_postgres:
            with self._lock:
                self._drop_line(ours=True)
                self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._base.driver_errors as error:
            raise self._base.explained(_cause(error)) from error

    def _kept_line(self) -> Line:
        """This process's own line; in memory the one connection that is the database."""
        self._own_after_fork()
        if self._line is None:
            fairy = self._engine.raw_connection()
            driver: Any = fairy.driver_connection
            if self._has_own_line:
                fairy.detach()
            self._line = _line_over(driver)
        return self._line

    @property
    def _has_own_line(self) -> bool:
        return self.is_postgres or self.path is not None

    def _own_after_fork(self) -> None:
        if os.getpid() != self._pid:  # the parent's connections are not ours to use or close
            self._drop_line(ours=False)
            self._engine.dispose(close=False)
            self._pid = os.getpid()

    def _drop_line(self, *, ours: bool) -> None:
        line, self._line = self._line, None
        if line is not None and not ours:
            self._parents.append(line)  # collecting it would close what is the parent's
        elif line is not None and self._has_own_line:
            line.close()

    def _bring_up_to_date(self, *, create: bool, upgrade: bool) -> None:
        """Build or migrate under an exclusive lock: of many openers, one does it, all succeed."""
        with self._base.reading(self._engine).begin() as connection:
            version = _version(connection, self.place)
        if version == HEAD:
            return
        if version is None and not create:
            raise NotFound(f"no foresweep tables in {self.place}; run a sweep first")
        with self._base.migrating(self._engine).begin() as connection:
            version = _version(connection, self.place)
            if version == HEAD:
                return
            from foresweep.tracker import migrations  # alembic: only when needed

            if version is not None:
                self._base.before_upgrade(connection, version, is_asked_for=upgrade)
            migrations.upgrade(connection)


def line_of(connection: Connection) -> Line:
    """The driver's connection of an open unit of work."""
    return _line_over(connection.connection.driver_connection)


def _line_over(driver: Any) -> Line:
    if isinstance(driver, sqlite3.Connection):
        return SqliteLine(driver)
    return PostgresLine(driver)


def _cause(error: Exception) -> BaseException:
    """The driver's own error."""
    return error.orig or error if isinstance(error, DBAPIError) else error


def _base(database: str | Path, synchronous: Synchronous, timeout_s: float) -> Sqlite | Postgres:
    """What kind of database a path or URL means. Raises DatabaseUnusable."""
    if not is_url(str(database)):
        url = URL.create("sqlite", database=str(Path(database).expanduser()))
        return Sqlite(url, synchronous, timeout_s)
    try:
        url = make_url(re.sub("^postgres:", "postgresql:", str(database)))
        kind = url.get_backend_name()
        url.get_dialect() if kind == "sqlite" else None
    except (ArgumentError, NoSuchModuleError) as error:
        raise DatabaseUnusable(f"{str(database).split('://')[0]}: no such database kind") from error
    if "@" in (url.host or ""):
        raise DatabaseUnusable(
            f"the {kind} URL has more than one @: write an @ of the user or password as %40"
        )
    if kind == "sqlite":
        return Sqlite(url, synchronous, timeout_s)
    if kind == "postgresql":
        return Postgres(url.set(drivername="postgresql+psycopg"), timeout_s)
    place = url.render_as_string(hide_password=True)
    raise DatabaseUnusable(
        f"{place}: no such database kind; give a path, sqlite:///PATH or postgresql://..."
    )


def _version(connection: Connection, place: str) -> str | None:
    """The database's revision, None where it is empty. Raises DatabaseUnusable."""
    query = _TABLES[connection.dialect.name]
    tables = set(connection.execute(text(query)).scalars())
    if not tables:
        return None
    if VERSION_TABLE not in tables:
        raise DatabaseUnusable(
            f"{place} is a database of something else ({', '.join(sorted(tables)[:3])}); "
            f"give another"
        )
    version = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    if version is not None and version > HEAD:
        raise DatabaseUnusable(
            f"{place} is from a newer foresweep (schema {version}, this one knows {HEAD}); "
            f"upgrade with: pip install -U foresweep"
        )
    return version
