"""A Ray cluster of several nodes on this machine, for the tests of the Ray engine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from functools import cache
from pathlib import Path

import psutil
import pytest

RAY = Path(sys.executable).with_name("ray")
OBJECTS_BYTES = 80_000_000
UP_WITHIN_S = 60.0


@cache
def secret() -> str:
    """One for all clusters of this process: Ray reads it once and keeps it."""
    return uuid.uuid4().hex + uuid.uuid4().hex


class Cluster:
    """Nodes with one CPU each; the first also keeps the books."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # sockets want short names
        token = self.folder / "token"
        token.write_text(secret())
        patch.setenv("RAY_AUTH_MODE", "token")  # Ray listens on every interface
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        if "ray" in sys.modules:  # it has read its environment once, when it was imported
            from ray._raylet import Config

            Config.initialize("")
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.nodes: list[subprocess.Popen[bytes]] = []

    def add(self, *options: str, cpus: int = 1) -> subprocess.Popen[bytes]:
        books = [f"--port={self.port}", f"--temp-dir={self.folder}", "--no-monitor"]
        quiet = ["--include-dashboard=false", "--include-log-monitor=false"]
        first = ["--head", *books, *quiet]
        where = [f"--address={self.address}"] if self.nodes else first
        with (self.folder / f"node-{len(self.nodes)}.log").open("w") as log:
            node = subprocess.Popen(
                [RAY, "start", *where, f"--num-cpus={cpus}", "--block", *options,
                 f"--object-store-memory={OBJECTS_BYTES}", "--node-ip-address=127.0.0.1"],
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.nodes.append(node)
        wait_until_up(node, Path(log.name))
        return node

    def index_of(self, pid: int) -> int:
        """The node that a process runs on."""
        above = {p.pid for p in psutil.Process(pid).parents()}
        return next(i for i, node in enumerate(self.nodes) if node.pid in above)

    def writes_in(self, folder: Path, index: int) -> bool:
        """Does a process of this node print into a file of the folder now?"""
        for process in psutil.Process(self.nodes[index].pid).children(recursive=True):
            try:
                printed = Path(f"/proc/{process.pid}/fd/1").readlink()
            except OSError:  # it has ended meanwhile
                continue
            if printed.is_relative_to(folder):
                return True
        return False

    def close(self) -> None:
        for node in reversed(self.nodes):
            kill(node, signal.SIGTERM)
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_until_up(node: subprocess.Popen[bytes], log: Path) -> None:
    """One after the other: nodes that start together take each other's ports."""
    deadline = time.monotonic() + UP_WITHIN_S
    while "Ray runtime started" not in log.read_text():
        assert node.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def kill(node: subprocess.Popen[bytes], how: int = signal.SIGKILL) -> None:
    """End a node with its workers."""
    everyone = psutil.Process(node.pid).children(recursive=True) if node.poll() is None else []
    for process in [node, *everyone] if how == signal.SIGKILL else [node]:
        with_signal(process.pid, how)
    node.wait(30)
    _, alive = psutil.wait_procs(everyone, timeout=10)
    for process in alive:
        with_signal(process.pid, signal.SIGKILL)


def with_signal(pid: int, how: int) -> None:
    if psutil.pid_exists(pid):
        os.kill(pid, how)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
