"""A small Hugging Face hub on loopback: the part of its protocol that a download speaks."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "c0ffee" + "0" * 34
OLDER = "decade" + "0" * 34
LARGE = 1000
"""Bytes from which the hub keeps a file by its sha256, as the real one does with weights."""


@dataclass
class Hub:
    """Repositories by id, their files by name; what was asked of it."""

    files: dict[str, dict[str, bytes]]
    older: dict[str, dict[str, bytes]] = field(default_factory=dict)  # at the commit OLDER
    gated: set[str] = field(default_factory=set)
    stops_after: int | None = None  # bytes of a large file, once
    altered: bool = False  # a large file's bytes are not those of its hash
    asked: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def downloads(self) -> list[str]:
        return [line for line in self.asked if line.startswith("GET") and "/resolve/" in line]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub at `hub.url` while the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

        def do_HEAD(self) -> None:
            self._answer(has_body=False)

        def do_GET(self) -> None:
            self._answer(has_body=True)

        def _answer(self, *, has_body: bool) -> None:
            path = unquote(self.path.partition("?")[0])
            hub.asked.append(f"{self.command} {path}")
            api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?/?", path)
            file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            repo = (api or file)[1] if (api or file) else ""  # type: ignore[index]
            if repo not in hub.files:
                return self._refuse(401, "RepoNotFound", "Invalid username or password.")
            if repo in hub.gated and (file or (api and api[2] == "tree")):
                return self._refuse(401, "GatedRepo", "Access to this model is restricted.")
            revision = (api[3] or "main") if api else file[2]  # type: ignore[index]
            commit = {"main": COMMIT, COMMIT: COMMIT}.get(revision)
            files = hub.files[repo]
            if revision == OLDER and repo in hub.older:
                commit, files = OLDER, hub.older[repo]
            if commit is None:
                return self._refuse(404, "RevisionNotFound", "Invalid rev id")
            if api:
                listed = [_entry(n, c) for n, c in files.items()]
                info = {"id": repo, "sha": commit, "siblings": [{"rfilename": n} for n in files]}
                return self._json(listed if api[2] == "tree" else info)
            assert file
            if file[3] not in files:
                return self._refuse(404, "EntryNotFound", "Entry not found")
            return self._file(files[file[3]], commit, has_body=has_body)

        def _file(self, content: bytes, commit: str, *, has_body: bool) -> None:
            large = len(content) >= LARGE
            start, whole = 0, len(content)
            if asked := self.headers.get("Range"):
                hub.ranges.append(asked)
                start = int(asked.removeprefix("bytes=").partition("-")[0])
            self.send_response(206 if start else 200)
            etag = _etag(content)
            if large:
                self.send_header("X-Linked-Etag", f'"{etag}"')
                self.send_header("X-Linked-Size", str(whole))
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", commit)
            self.send_header("Accept-Ranges", "bytes")
            if start:
                self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
            self.send_header("Content-Length", str(whole - start))
            self.end_headers()
            if not has_body:
                return
            sent = content[start:]
            if large and hub.altered:
                sent = sent[:-1] + bytes([sent[-1] ^ 1])
            if large and hub.stops_after is not None:
                sent, hub.stops_after = sent[: hub.stops_after], None
                self.close_connection = True
            self.wfile.write(sent)

        def _json(self, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def _refuse(self, status: int, code: str, message: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def files_in(folder: Path) -> dict[str, bytes]:
    """What a repository of this folder holds."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def _etag(content: bytes) -> str:
    if len(content) >= LARGE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(name: str, content: bytes) -> dict[str, object]:
    found: dict[str, object] = {"type": "file", "path": name, "size": len(content)}
    found["oid"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if len(content) >= LARGE:
        oid = hashlib.sha256(content).hexdigest()
        found["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
    return found
