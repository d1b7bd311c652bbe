"""Files written whole or not at all, for everybody: bytes, JSON, arrays by name."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from foresweep.errors import DataError


def name_as_text(path: Path | str) -> str:
    """A path, or text with paths in it, as it can be stored and printed: bytes of a name that are
    no UTF-8 are written as \\xe9."""
    try:
        content = str(path).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair that no byte stands for
        content = str(path).encode("utf-8", "backslashreplace")
    return content.decode("utf-8", "backslashreplace")


def write_bytes_atomic(path: Path | str, content: bytes) -> None:
    """Write a file whole or not at all: temporary name, fsync, rename. Makes the folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid4().hex[:8]}.tmp")
    try:
        write_synced(temporary, content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file through to the disk; for a name that nobody reads yet."""
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename durable, where the system can open a folder (not on Windows)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json_atomic(path: Path | str, value: Any) -> None:
    """Write JSON (UTF-8, two spaces). Raises ValueError for NaN and infinity, which are no JSON:
    say null."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes_atomic(path, (text + "\n").encode())


def read_json(path: Path | str) -> Any:
    """What a JSON file holds. Raises DataError where it is missing or no JSON."""
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {first_line(error)}") from error


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Arrays by name, uncompressed and without pickle, whole or not at all. Raises DataError."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    try:
        write_bytes_atomic(path, buffer.getvalue())
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error


def read_npz(path: Path) -> dict[str, Any]:
    """Every array of a file, by name. Raises DataError where it is missing or broken, or says that
    it holds far more than its bytes can."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            require_room(stored.zip)
            return dict(stored)
    except (*UNPACKING, TypeError) as error:  # a bare array is no archive
        raise DataError(f"cannot read {path}: {first_line(error)}") from error


# What is packed, and how much may come out of it: a file of a few bytes can unpack to any size, and
# fill memory or disk before anybody sees what it holds.


MOST_TIMES = 100
"""A packed file may come out so many times as large: prices that never move pack to a fiftieth."""
ALWAYS_ROOM = 1 << 28
"""Bytes that may come out of the smallest file."""
UNPACKING = (
    *(OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile),
    *(MemoryError, NotImplementedError, RuntimeError),  # a size that is none; an odd or locked zip
)
"""What unpackers say of a file that is not whole, or holds more than it may."""
_OPEN: Mapping[str, Callable[[io.BytesIO], Any]] = {
    ".gz": lambda packed: gzip.GzipFile(fileobj=packed), ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}  # fmt: skip


def most_unpacked(packed: int) -> int:
    """Bytes that may come out of so many packed ones."""
    return ALWAYS_ROOM + MOST_TIMES * packed


def require_room_for(unpacked: int, packed: int) -> None:
    """Raises ValueError where more comes out than may."""
    most = most_unpacked(packed)
    if unpacked > most:
        raise ValueError(
            f"{packed:,} bytes that hold more than {most / 2**20:,.0f} MiB; if that is meant, give "
            f"it unpacked, or as CSV"
        )


def unpack(content: bytes, packing: str) -> bytes:
    """What a .gz, .bz2 or .xz holds. Raises one of UNPACKING, before too much has come out."""
    with _OPEN[packing](io.BytesIO(content)) as stream:
        found: bytes = stream.read(most_unpacked(len(content)) + 1)
    require_room_for(len(found), len(content))
    return found


def require_room(archive: zipfile.ZipFile) -> None:
    """Raises ValueError where a zip says that its files are larger than may come out of it; more
    than it says is never read."""
    inside = archive.infolist()
    packed = max((i.header_offset + i.compress_size for i in inside), default=0)
    require_room_for(sum(i.file_size for i in inside), packed)


def first_line(error: BaseException) -> str:
    """The first line of what a library said; of the system's, the reason without its number."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = said.strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
