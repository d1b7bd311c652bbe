"""Files in and out: exact, atomic, and one clear error where they are broken."""

from __future__ import annotations

import contextlib
import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings

from foresweep.data.panel import Panel
from foresweep.data.splits import Cut, make_split
from foresweep.data.tables import read_panel, read_table, stem, write_panel, write_table
from foresweep.data.windows import Windows
from foresweep.errors import DataError
from panels import make_frame, make_panel
from strategies import ragged_panels


@given(panel=ragged_panels())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_written_panel_comes_back_exactly(tmp_path: Path, panel: Panel) -> None:
    write_panel(tmp_path / "panel.npz", panel)
    back = read_panel(tmp_path / "panel.npz")
    assert back.hash == panel.hash
    assert (back.items, back.calendar_of, back.source) == (
        panel.items,
        panel.calendar_of,
        panel.source,
    )
    assert np.array_equal(back.timeline, panel.timeline)
    assert back.timeline.dtype == panel.timeline.dtype
    assert all(map(np.array_equal, back.calendars, panel.calendars))
    for ours, theirs in zip(back.bars, panel.bars, strict=True):
        assert np.array_equal(ours.values, theirs.values)
        assert np.array_equal(ours.sessions, theirs.sessions)
        assert ours.num_masked == theirs.num_masked
    assert np.array_equal(back.eligible, panel.eligible)


def test_a_panel_read_back_gives_the_same_windows_and_is_read_only(tmp_path: Path) -> None:
    panel = make_panel(3, 400)
    write_panel(tmp_path / "panel.npz", panel)
    back = read_panel(tmp_path / "panel.npz")
    prints = [
        Windows(p, make_split(p, Cut(5)), make_split(p, Cut(5)).part("val")).fingerprint
        for p in (panel, back)
    ]
    assert prints[0] == prints[1]
    assert np.shares_memory(back.stacked, back.bars[2].values)
    with pytest.raises(ValueError, match="read-only"):
        back.bars[0].values[0, 0] = 1.0


def test_a_selected_panel_survives_the_file(tmp_path: Path) -> None:
    chosen = make_panel(3, 100).select(["A0", "A2"])
    write_panel(tmp_path / "panel.npz", chosen)
    assert read_panel(tmp_path / "panel.npz").hash == chosen.hash


def test_a_panel_file_cut_short_is_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "panel.npz"
    write_panel(path, make_panel(2, 100))
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"panel\.npz: not a whole panel file .*delete this"):
            read_panel(path)
    with pytest.raises(DataError, match=r"absent\.csv: cannot be read: No such file"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(DataError, match=r"absent\.npz: cannot be opened: No such file"):
        read_panel(tmp_path / "absent.npz")


def test_a_damaged_byte_of_a_panel_file_is_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "panel.npz"
    write_panel(path, make_panel(2, 100))
    whole = path.read_bytes()
    for at in range(5, len(whole), len(whole) // 50):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        with contextlib.suppress(DataError):  # a byte between two arrays may say nothing
            assert read_panel(path).hash == make_panel(2, 100).hash


def test_no_pickle_is_ever_loaded(tmp_path: Path) -> None:
    path = tmp_path / "evil.npz"
    np.savez(path, format=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="not a whole panel file"):
        read_panel(path)


@pytest.mark.parametrize("name", ["a.parquet", "a.pq"])
def test_parquet_comes_back_exactly(tmp_path: Path, name: str) -> None:
    frame = make_frame(2, 70)
    write_table(tmp_path / name, frame)
    assert read_table(tmp_path / name).equals(frame)


def test_csv_comes_back_as_text_that_holds_every_digit(tmp_path: Path) -> None:
    frame = make_frame(1, 70)
    write_table(tmp_path / "a.csv", frame)
    back = read_table(tmp_path / "a.csv")
    assert set(back.dtypes) == {pl.String}
    assert back["close"].cast(pl.Float64).equals(frame["close"])
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    assert read_table(tmp_path / "b.csv.gz").equals(back)


def test_an_unknown_ending_is_refused_and_broken_tables_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.csv or \.parquet"):
        write_table(tmp_path / "a.xlsx", make_frame(1, 70))
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    (tmp_path / "a.csv.gz").write_bytes(b"no gzip")
    (tmp_path / "b.csv").write_bytes(b"a,b\n1,2,3\n")
    for name in ("a.parquet", "a.csv.gz", "b.csv", "absent.csv"):
        with pytest.raises(DataError, match=name):
            read_table(tmp_path / name)


def test_the_stem_of_a_table_is_its_item() -> None:
    names = ["AAPL.csv", "AAPL.csv.gz", "AAPL.Parquet", "BRK.B.csv"]
    assert [stem(Path(n)) for n in names] == ["AAPL", "AAPL", "AAPL", "BRK.B"]
