"""PostgreSQL as the database, by psycopg 3: locks, reconnection, and its errors in our words."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, DisconnectionError

from foresweep.errors import DatabaseUnusable, MissingExtra, TrackerError
from foresweep.tracker.provenance import redact
from foresweep.tracker.storage.line import Line

WRITE_LOCK, SCHEMA_LOCK = 0x666F7265, 0x73776565
"""Advisory locks: of the unhurried writers, and of whoever builds the tables."""
IDLE_S = 1.0
_REFUSALS = {
    "28": "refuses this user or password; mend the URL",
    "3D": "does not exist; make it with: createdb NAME",
    "42501": "forbids it; grant the user its tables or give another",
    "25006": "is read-only; give a server that takes writes",
    "53100": "cannot grow: the server's disk is full; nothing acknowledged is lost",
}
_HOPELESS = {  # said while connecting, where the driver gives no code
    "authentication failed": _REFUSALS["28"],
    "no password supplied": _REFUSALS["28"],
    "no pg_hba.conf entry": _REFUSALS["28"],
    "does not exist": _REFUSALS["3D"],
    "could not translate host name": "has no such host; mend the URL",
}
_HICCUPS = ("08", "57P", "53300", "40001", "40P01", "55P03")


@dataclass(frozen=True, slots=True)
class Postgres:
    """One PostgreSQL database."""

    url: URL
    busy_timeout_s: float
    path: None = None
    is_read_only: bool = False  # a server says so itself

    @property
    def place(self) -> str:
        return redact(self.url.render_as_string(hide_password=True)).replace("+psycopg", "", 1)

    @property
    def driver_errors(self) -> tuple[type[Exception], ...]:
        import psycopg

        return DBAPIError, psycopg.Error

    def prepare(self, *, create: bool) -> None:
        """The driver is there. Raises MissingExtra."""
        try:
            import psycopg  # noqa: F401
        except ImportError as error:
            raise MissingExtra("psycopg", "postgres") from error

    def engine(self) -> Engine:
        engine = create_engine(self.url, pool_size=2)
        wait_ms = int(self.busy_timeout_s * 1000)

        def on_connect(connection: Any, record: Any) -> None:
            connection.execute(f"SET lock_timeout = {wait_ms}")
            connection.commit()

        event.listen(engine, "connect", on_connect)
        event.listen(engine, "checkout", _on_checkout)
        event.listen(engine, "checkin", _on_checkin)
        event.listen(engine, "begin", _on_begin)
        return engine

    def reading(self, engine: Engine) -> Engine:
        """One view for the whole block."""
        return engine.execution_options(isolation_level="REPEATABLE READ", lock=None)

    def writing(self, engine: Engine) -> Engine:
        """Such writers take turns; the fast paths pass by and lock their rows."""
        return engine.execution_options(lock=WRITE_LOCK)

    def migrating(self, engine: Engine) -> Engine:
        return engine.execution_options(lock=SCHEMA_LOCK)

    def check_present(self, marks: dict[str, tuple[int, int]]) -> None:
        """A server that is gone says so itself."""

    def explained(self, error: BaseException) -> TrackerError:
        """The driver's error in our words: what, where, what to do."""
        if cause := _refusal(error):
            return DatabaseUnusable(f"{self.place} {cause}")
        if getattr(error, "sqlstate", None) == "55P03":
            return TrackerError(f"{self.place} stayed locked by another process; try again")
        if self.is_hiccup(error):
            return DatabaseUnusable(f"{self.place} does not answer: {_line(error)}")
        return TrackerError(f"{self.place}: {_line(error)}")

    def is_hiccup(self, error: BaseException) -> bool:
        """May the same work succeed a little later? The server restarts, two writers collided."""
        import psycopg

        if not isinstance(error, psycopg.Error) or _refusal(error):
            return False
        if error.sqlstate is None:  # the connection broke, or none could be had
            return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return error.sqlstate.startswith(_HICCUPS)

    def before_upgrade(self, connection: Connection, version: str, *, is_asked_for: bool) -> None:
        """A server's copy is its keeper's to make: the change must be asked for.

        Raises DatabaseUnusable.
        """
        if is_asked_for:
            return
        raise DatabaseUnusable(
            f"{self.place} is from an older foresweep (schema {version}); save it with pg_dump, "
            f"then run: foresweep db upgrade URL"
        )


class PostgresLine(Line):
    """A psycopg connection in autocommit; statements are prepared by the driver."""

    is_postgres = True
    for_update = " FOR NO KEY UPDATE"

    def __init__(self, driver: Any) -> None:
        """`transact` needs the driver in autocommit, so that BEGIN and COMMIT are ours."""
        self.driver = driver

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Any:
        return self.driver.execute(_dialect(sql), values)

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> Any:
        return self.driver.cursor().executemany(_dialect(sql), rows)

    def transact(self, do: Callable[[Line], Any], *, together: bool = True) -> Any:
        """`do` in one unit of work; it locks the rows it depends on.

        Statements travel together up to the first whose answer is asked for: on a busy machine a
        way to the server costs more than what it does there.
        """
        import psycopg

        if not self.driver.autocommit:
            self.driver.autocommit = True
        try:
            with self.driver.pipeline() if together else nullcontext():
                self.execute("BEGIN")
                answer = do(self)
                self.execute("COMMIT")
        except BaseException:
            with suppress(psycopg.Error):  # the first error is the one to tell
                self.driver.rollback()
            raise
        return answer

    def insert_many(
        self, table: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]
    ) -> None:
        with self.driver.cursor().copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    def close(self) -> None:
        self.driver.close()


def reset_counters(connection: Connection, counters: dict[str, str]) -> None:
    """Let numbers given out by the server ({table: column}) go on after copied rows."""
    for table, column in counters.items():
        connection.execute(
            text(
                f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'),"
                f" coalesce((SELECT max({column}) FROM {table}), 0) + 1, false)"
            )
        )


@cache
def _dialect(sql: str) -> str:
    return sql.replace("?", "%s")


def _on_checkout(connection: Any, record: Any, proxy: Any) -> None:
    """A connection that lay idle is asked first: its server may have been restarted. Asking each
    time would cost a read a way to the server."""
    import psycopg

    if time.monotonic() - record.info.get("used_at", 0.0) < IDLE_S:
        return
    try:
        connection.execute("SELECT 1")
        connection.rollback()
    except psycopg.OperationalError as error:
        raise DisconnectionError from error  # the pool opens another


def _on_checkin(connection: Any, record: Any) -> None:
    record.info["used_at"] = time.monotonic()


def _on_begin(connection: Connection) -> None:
    if lock := connection.get_execution_options().get("lock"):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({lock})")


def _refusal(error: BaseException) -> str | None:
    """Why trying again is no use, None where it may help."""
    code = getattr(error, "sqlstate", None)
    if code is not None:
        return next((why for start, why in _REFUSALS.items() if code.startswith(start)), None)
    said = str(error)
    return next((why for words, why in _HOPELESS.items() if words in said), None)


def _line(error: BaseException) -> str:
    return redact(" ".join(str(error).split()))
