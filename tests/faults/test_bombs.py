"""Small files that hold far more than fits: told in a line before memory or disk is full."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from foresweep.data import files
from foresweep.data.files import read_npz, unpack
from foresweep.data.reading.freqtrade import read_journals
from foresweep.data.tables import read_panel, read_table
from foresweep.errors import ForesweepError
from foresweep.lifecycle.bundle import open_bundle
from panels import make_frame
from shells import Shell

BOMB = "bytes that hold more than"
RULES = ("unreadable", "not_prices")
ROWS = 400_000
ZEROS = b"0" * 8 * ROWS


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return buffer.getvalue()


def columns(write: str, **how: str) -> bytes:
    buffer = io.BytesIO()
    frame = pl.DataFrame({name: pl.repeat(1.0, ROWS, eager=True) for name in "abcdefgh"})
    getattr(frame, write)(buffer, **how)
    return buffer.getvalue()


def endless() -> bytes:
    """An archive whose array says that it has 10^15 numbers."""
    buffer = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**15,)}
    np.lib.format.write_array_header_1_0(buffer, header)
    return zipped(format_npy=buffer.getvalue())


PRICES: dict[str, Callable[[], bytes]] = {
    "a.csv.gz": lambda: gzip.compress(ZEROS),
    "b.csv.bz2": lambda: bz2.compress(ZEROS),
    "c.csv.xz": lambda: lzma.compress(ZEROS),
    "d.zip": lambda: zipped(a_csv=ZEROS[: len(ZEROS) // 2], b_csv=ZEROS[: len(ZEROS) // 2]),
    "e.xlsx": lambda: zipped(sheet_xml=ZEROS),
    "f.parquet": lambda: columns("write_parquet"),
    "g.feather": lambda: columns("write_ipc", compression="zstd"),
}


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little may come out of a small file: bombs of some megabytes are enough here."""
    monkeypatch.setattr(files, "ALWAYS_ROOM", 1 << 16)


def test_prices_that_unpack_to_far_too_much_are_told_file_by_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_frame(1, 300).drop("item_id").write_csv(tmp_path / "sound.csv")
    for name, make in PRICES.items():
        (tmp_path / name).write_bytes(make())
    told = json.loads(Shell(capsys)("data", "check", str(tmp_path), "--json", code=1))["findings"]
    said = {f["item"]: f["message"] for f in told if f["rule"] in RULES}
    assert sorted(said) == sorted(name.partition(".")[0] for name in PRICES)
    for text in said.values():
        assert BOMB in text, text
        assert "give it unpacked, or as CSV" in text, text


@pytest.mark.parametrize(
    ("name", "make", "read", "says"),
    [
        ("a.npz", lambda: zipped(a_npy=ZEROS), read_npz, BOMB),
        ("b.npz", endless, read_npz, "Unable to allocate"),
        ("c.npz", lambda: zipped(a_npy=ZEROS), read_panel, BOMB),
        ("d.npz", endless, read_panel, "Unable to allocate"),
        ("e.csv.gz", PRICES["a.csv.gz"], read_table, BOMB),
        ("f.parquet", PRICES["f.parquet"], read_table, BOMB),
        ("g.zip", lambda: zipped(a_json=ZEROS), read_journals, BOMB),
        ("h.zip", lambda: zipped(bundle_json=ZEROS), open_bundle, BOMB),
        ("i.zip", lambda: zipped(bundle_json=b"{}")[:-40], open_bundle, "not a zip file"),
    ],
)
def test_other_files_that_say_too_much_are_refused_in_a_line(
    name: str, make: Callable[[], bytes], read: Callable[[Path], object], says: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(make())
    with pytest.raises(ForesweepError, match=says) as told:
        read(file)
    assert str(file) in str(told.value)
    assert "\n" not in str(told.value)


def test_a_bomb_is_left_before_it_has_come_out() -> None:
    packed = gzip.compress(ZEROS * 8)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=BOMB):
            unpack(packed, ".gz")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < len(ZEROS) * 4


def test_prices_that_pack_well_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"2024-01-02,1.5,1.5,1.5,1.5,0\n" * 4000
    monkeypatch.setattr(files, "ALWAYS_ROOM", 0)
    assert unpack(bz2.compress(text[:2000]), ".bz2") == text[:2000]
