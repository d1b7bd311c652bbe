"""How a task's files get to its node and back: a folder that all nodes see, or a storage.

A file has one name everywhere: its absolute path on the head. In a storage, which is a folder
behind any fsspec URL (file:///mnt/share/sweeps, s3://bucket/sweeps), the same path lies under the
URL; on a worker, under a scratch folder. What a task wrote leaves the storage when the task is
over; what tasks read stays there for the next one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

from foresweep.errors import MissingExtra, SearchError, UsageError
from foresweep.search.engines.base import FOREVER, Died, Done, Message, Task, failed

logger = logging.getLogger(__name__)
T = TypeVar("T")

Known: TypeAlias = dict[Path, tuple[int, int]]
"""Files that are stored, as they were then."""
HOME = Path("/")
"""Where the head has its files."""
PART = ".part"
"""Ends the name of a file in the storage that is not whole yet."""
STATE = ".state"
"""A training state lies beside the checkpoint folder to be, under its name and this."""
KEEP_EVERY_S = 1.0
SEEN_WITHIN_S = 10.0
"""A network folder may show a new file late."""


class Way(Protocol):
    """How the files of one task travel. Made by the head, used by the worker's host."""

    @property
    def every_s(self) -> float:
        """How often the host is to `keep`."""
        ...

    def arrive(self, task: Task, log: Path) -> tuple[Task, Path]:
        """On the node: the task and its log with the paths they have there.

        Raises SearchError where the files cannot be had."""
        ...

    def keep(self) -> None:
        """On the node: put away what another attempt would need."""
        ...

    def leave(self, message: Message) -> Message:
        """On the node: hand over what was written; the last message, as the head reads it."""
        ...

    def back(self) -> None:
        """On the head, when the task is over. Raises SearchError."""
        ...


@dataclass(frozen=True, slots=True)
class Shared:
    """Every node sees the head's files under the same paths."""

    probe: Path  # an empty file of the head's beside the log: the node must see it
    every_s: float = FOREVER

    def arrive(self, task: Task, log: Path) -> tuple[Task, Path]:
        deadline = time.monotonic() + SEEN_WITHIN_S
        while not self.probe.exists():
            if time.monotonic() > deadline:
                raise SearchError(
                    f"{socket.gethostname()} does not see {log.parent}, where the head writes; "
                    f"put the runs on a folder that every node has under the same path "
                    f"(--runs FOLDER), or give a storage"
                )
            time.sleep(0.2)
        return task, log

    def keep(self) -> None:
        pass

    def leave(self, message: Message) -> Message:
        return message

    def back(self) -> None:
        self.probe.unlink(missing_ok=True)


def shared(log: Path) -> Shared:
    probe = log.parent / f".seen-{uuid.uuid4().hex}"
    probe.touch()
    return Shared(probe)


@dataclass(frozen=True, slots=True)
class Storage:
    """Files by way of an fsspec URL."""

    url: str

    def check(self) -> None:
        """Find out now, not after the first training, that it cannot be used.

        Raises UsageError for a URL of this process alone, MissingExtra, SearchError.
        """
        if self.url.startswith("memory:"):
            raise UsageError(f"{self.url} is in one process's memory; give a URL all nodes reach")
        with self._told():
            files, base = self._open()
            probe = f"{base}/.writable-{uuid.uuid4().hex}"
            files.makedirs(base, exist_ok=True)
            files.pipe_file(probe, b"")
            files.rm(probe)

    def push(self, path: Path, *, root: Path = HOME, known: Known | None = None) -> None:
        """Store the file or folder that has this path under `root`; not what is `known`."""
        known = {} if known is None else known
        with self._told():
            files, base = self._open()
            for file in _files(_under(root, path)):
                stamp = _stamp(file)
                if known.get(file) != stamp:
                    name = f"{base}/{file.relative_to(root).as_posix()}"
                    files.makedirs(name.rpartition("/")[0], exist_ok=True)
                    files.put_file(str(file), name + PART)
                    files.mv(name + PART, name)
                    known[file] = stamp

    def fetch(self, path: Path, *, root: Path = HOME) -> None:
        """Bring what is stored of this file or folder to `root`."""
        with self._told():
            files, base = self._open()
            files.invalidate_cache()
            for name in files.find(_name(base, path)):
                if not name.endswith(PART):
                    local = root / name.removeprefix(base).lstrip("/")
                    local.parent.mkdir(parents=True, exist_ok=True)
                    files.get_file(name, str(local))

    def remove(self, path: Path) -> None:
        with self._told():
            files, base = self._open()
            if files.exists(top := _name(base, path)):
                files.rm(top, recursive=True)

    def _open(self) -> tuple[Any, str]:
        """Raises MissingExtra where the package behind the URL is not installed."""
        try:
            import fsspec
        except ModuleNotFoundError as error:
            raise MissingExtra("fsspec", "ray") from error
        files, base = fsspec.core.url_to_fs(self.url)
        return files, str(base).rstrip("/")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except MissingExtra:
            raise
        except Exception as error:  # a storage's client may raise anything
            line = " ".join(str(error).split())
            raise SearchError(f"storage {self.url}: {type(error).__name__}: {line}") from error


@dataclass(slots=True)
class Carried:
    """By way of a storage, from the head's files into a scratch folder and back. Not frozen: it
    remembers what it has put away."""

    storage: Storage
    reads: tuple[Path, ...]
    writes: tuple[Path, ...]  # the task's `out`, and its log
    every_s: float = KEEP_EVERY_S
    _scratch: Path | None = None  # where the files are on the worker
    _kept: Known = field(default_factory=dict)

    def arrive(self, task: Task, log: Path) -> tuple[Task, Path]:
        scratch = self._scratch = Path(tempfile.mkdtemp(prefix="foresweep-"))
        for path in self.reads:
            self.storage.fetch(path, root=scratch)
        return moved(task, lambda p: _under(scratch, p)), _under(scratch, log)

    def keep(self) -> None:
        """Store training states that are new. One that cannot be stored costs time, if ever."""
        if (scratch := self._scratch) is None:
            return
        written = [_under(scratch, p) for p in self.writes]
        for state in [s for w in written for s in w.rglob("*" + STATE) if s.is_dir()]:
            try:
                self.storage.push(_home(scratch, state), root=scratch, known=self._kept)
            except SearchError as error:
                if state.exists():  # else the training has ended
                    logger.warning("a training state was not put away: %s", error)

    def leave(self, message: Message) -> Message:
        scratch, self._scratch = self._scratch, None
        if scratch is None:  # it never arrived
            return message
        try:
            for path in self.writes:
                self.storage.push(path, root=scratch, known=self._kept)
            for gone in [f for f in self._kept if not f.exists()]:
                self.storage.remove(_home(scratch, gone))
        except SearchError as error:
            return failed(error)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if isinstance(message, Died):
            how = message.how.replace(f"{scratch}{os.sep}", os.sep)
            return dataclasses.replace(message, how=how)
        if isinstance(message, Done):
            return Done(moved(message.result, lambda p: _home(scratch, p)))
        return message

    def back(self) -> None:
        for path in self.writes:
            self.storage.fetch(path)
            self.storage.remove(path)


def carried(storage: Storage, task: Task, log: Path, known: Known) -> Carried:
    """Store what a task reads: every path in it, with the training state beside it.

    Raises SearchError where it cannot be stored."""
    paths: list[Path] = []

    def note(path: Path) -> Path:
        paths.extend((path, path.with_name(path.name + STATE)))
        return path

    moved(task, note)
    for path in paths:
        storage.push(path, known=known)
    out = getattr(task, "out", None)
    return Carried(storage, tuple(paths), (log,) if out is None else (out, log))


def moved(value: T, move: Callable[[Path], Path]) -> T:
    """A task or a result with every path in it moved: in its fields, and in theirs. What holds no
    path is left as it is."""
    old: Any = value
    new: Any = value
    if isinstance(value, Path):
        new = move(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        if changed := _changed(parts, move):
            new = dataclasses.replace(value, **changed)
    elif type(old) is dict:
        new = {**old, **changed} if (changed := _changed(old, move)) else old
    elif type(old) in (list, tuple) and (changed := _changed(dict(enumerate(old)), move)):
        new = type(old)(changed.get(i, v) for i, v in enumerate(old))
    return new  # type: ignore[no-any-return]


def _changed(values: dict[Any, Any], move: Callable[[Path], Path]) -> dict[Any, Any]:
    return {k: new for k, v in values.items() if (new := moved(v, move)) is not v}


def _under(root: Path, path: Path) -> Path:
    return root / path.relative_to(path.anchor)


def _home(scratch: Path, path: Path) -> Path:
    """The head's name of a file on a worker."""
    return HOME / path.relative_to(scratch) if path.is_relative_to(scratch) else path


def _name(base: str, path: Path) -> str:
    return f"{base}/{path.relative_to(path.anchor).as_posix()}"


def _files(place: Path) -> list[Path]:
    """Whole files: this one, or those in this folder."""
    found = [place] if place.is_file() else sorted(place.rglob("*"))
    return [f for f in found if f.is_file() and f.suffix != ".tmp"]


def _stamp(file: Path) -> tuple[int, int]:
    """Changes when the file does."""
    found = file.stat()
    return found.st_mtime_ns, found.st_size
