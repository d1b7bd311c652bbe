"""A living system for long campaigns: heads that sweep, a server, a dashboard and a monitor on one
database, each a process of its own, asked by clients that remember what was acknowledged."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

import learning_model
from foresweep.lifecycle.champion import promote
from foresweep.tracker.tracker import Tracker
from panels import make_frame
from served_runs import a_run

SLOT = "living"
MODULE = """import time
from learning_model import Learner


class Guest(Learner):
    name = "guest"

    def after(self, config, step):
        time.sleep(0.05)
        return super().after(config, step)
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def a_package(folder: Path, module: str = MODULE) -> dict[str, str]:
    """The environment of processes that have the model `guest` installed."""
    package = folder / "guest_package"
    (package / "spaces").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model.py").write_text(module)
    (package / "spaces" / "guest.toml").write_text(learning_model.SPACE)
    info = folder / "guest_plugin-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guest-plugin\nVersion: 0.1\n")
    told = "[foresweep.models]\nguest = guest_package.model:Guest\n"
    (info / "entry_points.txt").write_text(told)
    path = (str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in path if p)}


def prices(folder: Path) -> Path:
    """A folder with files of three items, 300 bars each."""
    folder.mkdir()
    for (name,), frame in make_frame(3, 300).group_by("item_id"):
        frame.drop("item_id").write_csv(folder / f"{name}.csv")
    return folder


def body_of(item: str) -> bytes:
    """A question to the server about one item."""
    frame = make_frame(1, 80).filter(pl.col("item_id") == "A0")
    told = {c: frame[c].to_list() for c in ("open", "high", "low", "close", "volume")}
    times = [str(t)[:10] for t in frame["timestamp"].to_numpy()]
    return json.dumps({"items": [{"item_id": item, "timestamp": times, **told}]}).encode()


def ask(url: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    """(status, text); 0 where nobody answered. Redirections are not followed."""
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.build_opener(_Straight).open(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""
    except (OSError, EOFError, ValueError):  # refused, reset or cut: the other side is gone
        return 0, ""


class _Straight(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass
class Living:
    """The places of a system, and how its parts are started."""

    folder: Path
    db: str
    env: dict[str, str] = field(init=False)
    data: Path = field(init=False)
    ports: dict[str, int] = field(init=False)
    noted: str = ""  # the run that notes are written to
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.env, self.data = a_package(self.folder / "site"), prices(self.folder / "prices")
        self.ports = {"server": free_port(), "dashboard": free_port()}
        self.log = self.folder / "errors.txt"
        with Tracker(self.db) as tracker:
            run = a_run(tracker, self.folder / "runs", "drift")
            promote(tracker, run.run_id, slot=SLOT)
            self.noted = run.run_id

    def start(self, *args: str, **more: Any) -> subprocess.Popen[str]:
        places = ("--db", self.db)
        with self.log.open("a") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "foresweep", *args, *places], cwd=self.folder, env=self.env,
                stdout=subprocess.DEVNULL, stderr=errors, text=True, **more,
            )  # fmt: skip

    def serve(self) -> subprocess.Popen[str]:
        return self.start("serve", "--slot", SLOT, "--port", str(self.ports["server"]))

    def dashboard(self) -> subprocess.Popen[str]:
        runs = str(self.folder / "runs")
        return self.start("dashboard", "--port", str(self.ports["dashboard"]), "--runs", runs)

    def monitor(self) -> subprocess.Popen[str]:
        return self.start("monitor", "--slot", SLOT, "--data", str(self.data))

    def url(self, part: str, path: str) -> str:
        return f"http://127.0.0.1:{self.ports[part]}/{path}"

    def forecast(self, item: str) -> bool:
        """Was a forecast answered?"""
        body = body_of(item)
        status, _ = ask(
            self.url("server", "forecast"), body, **{"content-type": "application/json"}
        )
        return status == 200

    def note(self, text: str) -> bool:
        """Was a note taken by the dashboard?"""
        page = self.url("dashboard", f"run/{self.noted}")
        status, html = ask(page)
        word = re.search(r'name="csrf" value="([^"]+)"', html)
        if status != 200 or word is None:
            return False
        form = urllib.parse.urlencode({"csrf": word[1], "text": text}).encode()
        origin = self.url("dashboard", "").rstrip("/")
        return ask(f"{page}/note", form, origin=origin)[0] == 303


class Client(threading.Thread):
    """Asks over and over, and remembers what was acknowledged."""

    def __init__(self, name: str, ask_once: Callable[[str], bool], pause_s: float) -> None:
        super().__init__(name=name, daemon=True)
        self.ask_once, self.pause_s = ask_once, pause_s
        self.acknowledged: list[str] = []
        self.num_asked = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(self.pause_s):
            self.num_asked += 1
            word = f"{self.name} {self.num_asked}"
            if self.ask_once(word):
                self.acknowledged.append(word)

    def end(self) -> None:
        self.ended.set()
        self.join(60)


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"{what}: not within {seconds} s"
        time.sleep(0.05)
