"""Somebody is told: by a command, or by a POST; and if nobody was, that is an error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from foresweep.errors import ForesweepError, UsageError
from foresweep.lifecycle.notify import notify

MESSAGE = {"state": "ALARM", "reasons": ["no truth since 2021-06-30"]}


class Box(HTTPServer):
    """Takes what is posted; `answer` is its code."""

    answer = 200
    posted: list[tuple[str, str, bytes]]


class Handler(BaseHTTPRequestHandler):
    server: Box

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.path, self.headers["Content-Type"], body))
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the screen."""


@pytest.fixture
def box() -> Iterator[Box]:
    server = Box(("127.0.0.1", 0), Handler)
    server.posted = []
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_url_is_posted_the_message_as_json(box: Box) -> None:
    notify(f"http://127.0.0.1:{box.server_port}/hook?key=1", MESSAGE)
    ((path, kind, body),) = box.posted
    assert (path, kind) == ("/hook?key=1", "application/json")
    assert json.loads(body) == MESSAGE


def test_a_server_that_refuses_is_an_error_that_keeps_the_secret(box: Box) -> None:
    box.answer = 500
    with pytest.raises(ForesweepError, match=r"127.0.0.1 answered 500; nobody was told") as error:
        notify(f"http://127.0.0.1:{box.server_port}/SECRET", MESSAGE)
    assert "SECRET" not in str(error.value)


def test_a_server_that_is_not_there_is_an_error(box: Box) -> None:
    port = box.server_port
    box.server_close()
    with pytest.raises(ForesweepError, match="was not reached"):
        notify(f"http://127.0.0.1:{port}/", MESSAGE)


def test_a_command_is_handed_the_message_and_the_state(tmp_path: Path) -> None:
    out = tmp_path / "told.txt"
    code = (
        "import os, sys, pathlib; pathlib.Path(sys.argv[1]).write_text("
        "os.environ['FORESWEEP_STATE'] + sys.stdin.read())"
    )
    script = tmp_path / "tell.py"
    script.write_text(code)
    notify(f"{sys.executable} {script} '{out}'", MESSAGE)
    assert out.read_text() == "ALARM" + json.dumps(MESSAGE)


def test_a_command_that_fails_is_an_error_with_its_last_words() -> None:
    with pytest.raises(ForesweepError, match="ended with 3: no route"):
        notify(f"{sys.executable} -c 'import os; os.write(2, b\"no route\"); os._exit(3)'", MESSAGE)


def test_a_command_that_hangs_is_given_up() -> None:
    with pytest.raises(ForesweepError, match="did not end within"):
        notify(f"{sys.executable} -c 'import time; time.sleep(60)'", MESSAGE, patience_s=0.2)


@pytest.mark.parametrize(
    "target", ["", "ftp://there/x", "http:///x", "no-such-command-here", "a 'b"]
)
def test_what_cannot_tell_anybody_is_refused(target: str) -> None:
    with pytest.raises(UsageError, match="--notify"):
        notify(target, MESSAGE)
