"""A panel that was read once is kept, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from foresweep.data.reading import cache
from foresweep.data.reading.sources import Loaded, load_panel
from foresweep.settings import cache_dir
from panels import walk_frame, weekdays


@pytest.fixture
def prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "SMALLEST", 0)
    monkeypatch.setenv("FORESWEEP_CACHE", str(tmp_path / "kept"))
    folder = tmp_path / "prices"
    folder.mkdir()
    for item in "AB":
        frame = walk_frame(item, weekdays(200)).drop("item_id")
        frame[5, "open"] = -1.0
        frame.write_csv(folder / f"{item}.csv")
    return folder


def same(one: Loaded, two: Loaded) -> bool:
    return (one.panel.hash, one.report) == (two.panel.hash, two.report)


def test_the_second_reading_is_kept_from_the_first_and_is_the_same(prices: Path) -> None:
    first = load_panel(prices)
    second = load_panel(prices)
    assert first.kept_at is None
    assert second.kept_at is not None
    assert same(first, second)
    assert len(second.report.findings) > 1


def test_another_file_time_option_or_reader_is_read_anew(
    prices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_panel(prices)
    assert load_panel(prices, tz="Asia/Tokyo").kept_at is None
    assert load_panel(prices / "A.csv").kept_at is None
    os.utime(prices / "A.csv", ns=(1, 1))
    assert load_panel(prices).kept_at is None
    assert load_panel(prices).kept_at is not None
    monkeypatch.setattr(cache, "READER", cache.READER + 1)
    assert load_panel(prices).kept_at is None


@pytest.mark.parametrize("ending", [".npz", ".json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_what_is_not_whole_is_passed_over_and_written_anew(
    prices: Path, ending: str, damage: str
) -> None:
    first = load_panel(prices)
    (kept,) = (prices.parent / "kept").glob(f"*{ending}")
    content = bytearray(kept.read_bytes())
    if damage == "gone":
        kept.unlink()
    elif damage == "cut":
        kept.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        kept.write_bytes(content)
    again = load_panel(prices)
    assert again.kept_at is None
    assert same(first, again)
    assert load_panel(prices).kept_at is not None


def test_only_the_last_panels_are_kept_and_none_where_that_is_said(
    prices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MOST_KEPT", 2)
    for zone in ("UTC", "Asia/Tokyo", "Europe/Berlin"):
        load_panel(prices, tz=zone)
    assert len(list((prices.parent / "kept").iterdir())) == 4
    assert load_panel(prices, tz="Europe/Berlin").kept_at is not None
    monkeypatch.setenv("FORESWEEP_CACHE", "off")
    assert cache_dir() is None
    assert load_panel(prices, tz="Europe/Berlin").kept_at is None


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    prices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (prices.parent / "kept").write_text("a file where the folder should be")
    first, second = load_panel(prices), load_panel(prices)
    assert second.kept_at is None
    assert same(first, second)


def test_small_sources_are_not_kept(prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SMALLEST", 10**9)
    load_panel(prices)
    assert load_panel(prices).kept_at is None


def test_progress_is_told_file_by_file(prices: Path) -> None:
    told: list[tuple[int, int]] = []
    load_panel(prices, progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 2), (1, 2)]
