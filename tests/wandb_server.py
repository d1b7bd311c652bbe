"""A stand-in of W&B's API on loopback: as much of it as a run online asks for."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Told:
    """What runs said, by their ids."""

    url: str = ""
    refuses: bool = False  # the key
    opened: dict[str, dict[str, Any]] = field(default_factory=dict)  # as they were first asked for
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    summary: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)  # exit codes
    files: dict[str, bytes] = field(default_factory=dict)
    heard: list[bytes] = field(default_factory=list)  # every body, whatever it was


@contextmanager
def running() -> Iterator[Told]:
    told = Told()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"told": told}))
    told.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    told: Told

    def log_message(self, *_: object) -> None:
        pass

    def _body(self) -> bytes:
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            content = gzip.decompress(content)
        self.told.heard.append(content)
        return content

    def _answer(self, content: Any, status: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        self.told.files[self.path.rpartition("/")[2]] = self._body()
        self._answer({})

    def do_POST(self) -> None:
        asked = json.loads(self._body())
        if self.told.refuses:
            self._answer({"errors": [{"message": "permission denied"}]}, 401)
        elif self.path.endswith("/graphql"):
            self._answer({"data": self._graphql(asked["query"], asked.get("variables") or {})})
        else:
            self._stream(self.path.split("/")[-2], asked)
            self._answer({"exitcode": None, "limits": {}})

    def _graphql(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        if "upsertBucket" in query:
            self.told.opened.setdefault(given["name"], given)
            project = {"name": given["project"], "entity": {"name": "local"}}
            known = {"id": "1", "name": given["name"], "displayName": given["name"]}
            return {"upsertBucket": {"bucket": {**known, "project": project}, "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": n, "uploadUrl": f"{self.told.url}/put/{n}"} for n in given["files"]]
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
        return {"model": None}

    def _stream(self, run: str, said: dict[str, Any]) -> None:
        files = said.get("files") or {}
        lines = files.get("wandb-history.jsonl", {}).get("content", [])
        self.told.history.setdefault(run, []).extend(map(json.loads, lines))
        for line in files.get("wandb-summary.json", {}).get("content", []):
            self.told.summary[run] = json.loads(line)
        if said.get("complete"):
            self.told.ended[run] = said["exitcode"]
