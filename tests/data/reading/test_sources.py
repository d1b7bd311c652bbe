"""Sources: folders, long files, frames; broken files give findings, never a traceback."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foresweep.data.panel import panel_from_frame
from foresweep.data.reading.sources import Loaded, default_source, load_panel
from foresweep.data.tables import write_table
from foresweep.errors import DataError
from panels import every_day, make_frame, walk_frame, weekdays

TITLES = {
    "timestamp": "Date",
    "open": "Open",
    "high": "High",
    "low": "Low",
    "close": "Close",
    "volume": "Volume",
}


def csv_text(frame: pl.DataFrame) -> str:
    """One item's bars in the seed's look."""
    dates = frame.with_columns(pl.col("timestamp").dt.date()).drop("item_id").rename(TITLES)
    buffer = io.BytesIO()
    dates.write_csv(buffer)
    return buffer.getvalue().decode()


def write_item(folder: Path, item: str, num_bars: int = 300, seed: int = 0) -> Path:
    """A good file of weekday bars."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{item}.csv"
    path.write_text(csv_text(walk_frame(item, weekdays(num_bars), seed)))
    return path


def with_line(path: Path, number: int, line: str) -> None:
    """Replace one line of a file, counted as an editor does."""
    lines = path.read_text().splitlines()
    lines[number - 1] = line
    path.write_text("\n".join(lines) + "\n")


def told(loaded: Loaded, rule: str) -> list[tuple[str, int | None]]:
    """(file name, row) of every finding of a rule."""
    return [(Path(f.file).name, f.row) for f in loaded.report.findings if f.rule == rule]


def test_a_folder_of_files_is_a_panel_of_their_stems(tmp_path: Path) -> None:
    for item in ("AAPL", "MSFT"):
        write_item(tmp_path, item)
    (tmp_path / "notes.txt").write_text("not a table")
    loaded = load_panel(tmp_path)
    wanted = pl.concat([walk_frame(i, weekdays(300)) for i in ("AAPL", "MSFT")])
    assert loaded.panel.items == ("AAPL", "MSFT")
    assert loaded.panel.hash == panel_from_frame(wanted).hash
    assert told(loaded, "not_prices") == [("notes.txt", None)]
    assert len(loaded.report.findings) == 1
    assert loaded.panel.source == str(tmp_path)


def test_every_broken_file_gives_its_finding_and_the_good_ones_are_used(tmp_path: Path) -> None:
    good = [write_item(tmp_path, f"GOOD{k}") for k in range(3)]
    text = good[0].read_text()
    no_close = pl.read_csv(good[0]).drop("Close")
    no_close.write_csv(tmp_path / "NOCLOSE.csv")
    word = write_item(tmp_path, "WORD")
    with_line(word, 42, "2015-03-02,1,2,oops,1.5,100")
    double = write_item(tmp_path, "DOUBLE")
    with_line(double, 11, double.read_text().splitlines()[9].replace(",", ",9", 1))
    crossed = write_item(tmp_path, "CROSSED")
    with_line(crossed, 7, crossed.read_text().splitlines()[6][:10] + ",20,19,21,20,100")
    (tmp_path / "EMPTY.csv").write_text("")
    (tmp_path / "HEADER.csv").write_text(text.splitlines()[0] + "\n")
    (tmp_path / "FOUR.csv").write_text("\n".join(text.splitlines()[:5]) + "\n")
    (tmp_path / "WIDE.csv").write_bytes(text.encode("utf-16"))
    (tmp_path / "LATIN.csv").write_bytes(text.replace("Volume", "Menge für").encode("latin-1"))
    (tmp_path / "RAGGED.csv").write_text(text + "2016-06-06,1,2,1,2,3,4,5,6,7\n")
    (tmp_path / "PARQUET.parquet").write_bytes(b"PAR1 but no more")
    loaded = load_panel(tmp_path)
    assert told(loaded, "missing_column") == [("NOCLOSE.csv", None)]
    assert told(loaded, "not_a_number") == [("WORD.csv", 42)]
    assert told(loaded, "contradictory_timestamps") == [("DOUBLE.csv", 11)]
    assert told(loaded, "high_below_low") == [("CROSSED.csv", 7)]
    assert told(loaded, "empty_file") == [("EMPTY.csv", None), ("HEADER.csv", None)]
    assert told(loaded, "too_short") == [("FOUR.csv", None)]
    assert told(loaded, "read_as") == [("LATIN.csv", None), ("WIDE.csv", None)]
    assert told(loaded, "unused_column") == [("LATIN.csv", None)]
    assert told(loaded, "unreadable") == [("PARQUET.parquet", None), ("RAGGED.csv", None)]
    assert loaded.panel.items == (*("CROSSED", "GOOD0", "GOOD1", "GOOD2", "LATIN", "WIDE", "WORD"),)
    masked = {i: b.num_masked for i, b in zip(loaded.panel.items, loaded.panel.bars, strict=True)}
    assert [i for i, num in masked.items() if num] == ["CROSSED", "WORD"]
    assert {f.severity for f in loaded.report.findings if f.item == "WORD"} == {"warning"}
    assert loaded.report.dropped == (
        *("DOUBLE", "EMPTY", "FOUR", "HEADER", "NOCLOSE", "PARQUET", "RAGGED"),
    )


def test_nothing_usable_is_one_error_that_names_the_first_findings(tmp_path: Path) -> None:
    (tmp_path / "A.csv").write_text("")
    (tmp_path / "B.csv").write_text("Date,Open\n2020-01-02,1\n")
    with pytest.raises(DataError, match=r"no usable item; .*A\.csv: empty_file.*B\.csv: missing_"):
        load_panel(tmp_path)


@pytest.mark.parametrize("make", [False, True])
def test_an_absent_or_empty_folder_is_named(tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "prices"
    if make:
        folder.mkdir()
    with pytest.raises(DataError, match="prices: no "):
        load_panel(folder)


def test_the_folder_above_train_is_told_where_to_look(tmp_path: Path) -> None:
    write_item(tmp_path / "trainingdata" / "train", "AAPL")
    with pytest.raises(DataError, match=r"did you mean .*train\?"):
        load_panel(tmp_path / "trainingdata")


def _split_in_two(folder: Path, item: str, *, overlap: int = 0, change: float = 1.0) -> None:
    frame = walk_frame(item, weekdays(400))
    later = frame[300 - overlap :]
    first = pl.int_range(pl.len()) == 0
    later = later.with_columns(
        pl.when(first).then(pl.col("volume") * change).otherwise(pl.col("volume")).alias("volume")
    )
    for part, rows in (("train", frame[:300]), ("test", later)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / f"{item}.csv").write_text(csv_text(rows))


def test_train_and_test_folders_are_joined_item_by_item(tmp_path: Path) -> None:
    _split_in_two(tmp_path, "AAPL")
    _split_in_two(tmp_path, "IBM", overlap=20)
    _split_in_two(tmp_path, "MSFT", overlap=20, change=1.5)
    write_item(tmp_path / "train", "KO", 300)
    write_item(tmp_path / "test", "NEW", 300)
    loaded = load_panel(tmp_path / "train")
    assert loaded.panel.items == ("AAPL", "IBM", "KO")
    assert [len(b.values) for b in loaded.panel.bars] == [400, 400, 300]
    assert np.array_equal(loaded.panel.bars[0].values, _values("AAPL"))
    assert np.array_equal(loaded.panel.bars[1].values, _values("IBM"))
    assert told(loaded, "contradictory_timestamps") == [("MSFT.csv", 2)]
    assert told(loaded, "only_in_test") == [("NEW.csv", None)]
    assert len(told(loaded, "joined")) == 1
    (fault,) = [f for f in loaded.report.findings if f.rule == "contradictory_timestamps"]
    assert Path(fault.file).parent.name == "test"


def _values(item: str) -> np.ndarray:
    frame = walk_frame(item, weekdays(400))
    return frame.select("open", "high", "low", "close", "volume").to_numpy()


def test_a_test_folder_beside_another_name_is_not_touched(tmp_path: Path) -> None:
    write_item(tmp_path / "prices", "AAPL")
    write_item(tmp_path / "test", "AAPL", seed=3)
    assert load_panel(tmp_path / "prices").report.findings == ()


def test_one_long_file_is_taken_apart_by_its_item_column(tmp_path: Path) -> None:
    frame = make_frame(3, 200)
    for column, name in (("item_id", "a.csv"), ("Symbol", "b.csv"), ("ticker", "c.parquet")):
        write_table(
            tmp_path / name, frame.rename({"item_id": column} if column != "item_id" else {})
        )
        assert load_panel(tmp_path / name).panel.hash == panel_from_frame(frame).hash


def test_rows_of_parquet_count_from_one_and_lines_of_csv_from_the_header(tmp_path: Path) -> None:
    frame = walk_frame("X", weekdays(200))
    low = frame["low"].to_numpy().copy()
    low[10] = np.nan
    for name, row in (("a.parquet", 11), ("a.csv", 12)):
        write_table(tmp_path / name, frame.with_columns(low=low))
        assert told(load_panel(tmp_path / name), "missing_price") == [(name, row)]


def test_rows_of_a_long_file_without_an_item_are_told(tmp_path: Path) -> None:
    frame = make_frame(2, 200).with_columns(
        item_id=pl.when(pl.int_range(pl.len()) == 5).then(None).otherwise("item_id")
    )
    write_table(tmp_path / "long.csv", frame)
    loaded = load_panel(tmp_path / "long.csv")
    assert told(loaded, "nameless_item") == [("long.csv", None)]
    assert loaded.panel.items == ("A0", "A1")


def test_a_file_without_an_item_column_is_one_item(tmp_path: Path) -> None:
    assert load_panel(write_item(tmp_path, "AAPL")).panel.items == ("AAPL",)


def test_two_files_of_one_item_drop_it(tmp_path: Path) -> None:
    write_item(tmp_path, "AAPL")
    write_item(tmp_path, "IBM")
    write_table(tmp_path / "AAPL.parquet", walk_frame("AAPL", weekdays(300)).drop("item_id"))
    loaded = load_panel(tmp_path)
    assert loaded.panel.items == ("IBM",)
    assert told(loaded, "ambiguous_item") == [("AAPL.parquet", None)]


def test_frames_of_both_libraries_give_the_same_panel() -> None:
    frame = make_frame(3, 200)
    wanted = panel_from_frame(frame).hash
    pandas = _as_pandas(frame)
    assert load_panel(frame).panel.hash == wanted
    assert load_panel(pandas).panel.hash == wanted
    assert load_panel(pandas.set_index("timestamp")).panel.hash == wanted
    assert load_panel(pandas.set_index(["item_id", "timestamp"])).panel.hash == wanted
    assert load_panel(pandas.set_index("timestamp").rename_axis(None)).panel.hash == wanted


def _as_pandas(frame: pl.DataFrame):  # type: ignore[no-untyped-def]
    import pandas as pd

    return pd.DataFrame({c: frame[c].to_numpy() for c in frame.columns})


def test_a_frame_with_zoned_stamps_is_keyed_by_its_own_session_date() -> None:
    pandas = _as_pandas(make_frame(1, 200))
    wanted = weekdays(200)
    for zone in ("Asia/Tokyo", "America/New_York"):
        zoned = pandas.assign(timestamp=pandas["timestamp"].dt.tz_localize(zone))
        assert np.array_equal(load_panel(zoned).panel.timeline, wanted)


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(DataError, match="from a list"):
        load_panel([1, 2])  # type: ignore[arg-type]


def test_daily_bars_are_keyed_by_the_date_that_the_exchange_writes(tmp_path: Path) -> None:
    frame = walk_frame("AAPL", weekdays(200))
    for name, form in {
        "alpaca": "%Y-%m-%dT05:00:00Z",
        "tokyo": "%Y-%m-%d 00:00:00+09:00",
        "new york": "%Y-%m-%d 00:00:00-05:00",
        "plain": "%Y-%m-%d",
    }.items():
        text = frame.with_columns(pl.col("timestamp").dt.strftime(form))
        write_table(tmp_path / f"{name}.csv", text)
        assert np.array_equal(load_panel(tmp_path / f"{name}.csv").panel.timeline, weekdays(200))


def test_round_the_clock_days_told_in_a_local_clock_keep_their_utc_date(tmp_path: Path) -> None:
    frame = walk_frame("BTC", every_day(200)).with_columns(
        pl.col("timestamp").dt.offset_by("-5h").dt.strftime("%Y-%m-%d %H:%M:%S-05:00")
    )
    write_table(tmp_path / "BTC.csv", frame)
    assert np.array_equal(load_panel(tmp_path / "BTC.csv").panel.timeline, every_day(200))


def test_hourly_stamps_become_utc(tmp_path: Path) -> None:
    hours = (weekdays(60)[:, None] + (14 + np.arange(7)) * np.timedelta64(1, "h")).ravel()
    frame = walk_frame("AAPL", hours).with_columns(
        pl.col("timestamp").dt.offset_by("-5h").dt.strftime("%Y-%m-%d %H:%M:%S-05:00")
    )
    write_table(tmp_path / "AAPL.csv", frame)
    assert np.array_equal(load_panel(tmp_path / "AAPL.csv").panel.timeline, hours)


def test_joined_files_have_volume_only_where_both_do(tmp_path: Path) -> None:
    _split_in_two(tmp_path, "AAPL")
    second = tmp_path / "test" / "AAPL.csv"
    pl.read_csv(second).drop("Volume").write_csv(second)
    loaded = load_panel(tmp_path / "train")
    assert len(loaded.panel.bars[0].values) == 400
    assert (loaded.panel.bars[0].values[:, 4] == 0).all()


def test_the_actions_file_brings_prices_to_todays_terms(tmp_path: Path) -> None:
    folder = tmp_path / "prices"
    write_item(folder, "AAPL")
    plain = load_panel(folder)
    actions = tmp_path / "actions.csv"
    actions.write_text(f"item,date,ratio\nAAPL,{str(weekdays(300)[150])[:10]},1.2\n")
    adjusted = load_panel(folder, actions=actions)
    ratio = plain.panel.bars[0].values[:, 3] / adjusted.panel.bars[0].values[:, 3]
    assert ratio == pytest.approx(np.where(np.arange(300) < 150, 1.2, 1.0))


def test_the_default_is_the_seeds_folder_where_it_holds_tables(tmp_path: Path) -> None:
    assert default_source(folder=tmp_path) == "demo"
    (tmp_path / "trainingdata" / "train").mkdir(parents=True)
    assert default_source(folder=tmp_path) == "demo"
    write_item(tmp_path / "trainingdata" / "train", "AAPL")
    assert default_source(folder=tmp_path) == str(tmp_path / "trainingdata" / "train")


def test_what_the_settings_name_is_the_default_and_must_be_there(tmp_path: Path) -> None:
    write_item(tmp_path / "trainingdata" / "train", "AAPL")
    named = default_source(tmp_path / "prices", folder=tmp_path)
    assert named == str(tmp_path / "prices")
    with pytest.raises(DataError, match="prices: no such file or folder"):
        load_panel(named)


@given(st.binary(max_size=400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_a_finding_and_never_a_traceback(tmp_path: Path, content: bytes) -> None:
    write_item(tmp_path, "GOOD", 100)
    (tmp_path / "FUZZ.csv").write_bytes(content)
    loaded = load_panel(tmp_path)
    assert loaded.panel.items == ("GOOD",)
    assert any(f.item == "FUZZ" and f.severity == "error" for f in loaded.report.findings)


@given(
    st.lists(
        st.tuples(
            st.integers(2, 200),
            st.integers(0, 5),
            st.sampled_from(
                ["", "x", "-1", "0", "1e999", "nan", "2015-01-05", '"', ",", "\x00", "٣"]
            ),
        ),
        min_size=1,
        max_size=12,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damaged_cell_is_masked_or_drops_the_item(
    tmp_path: Path, damage: list[tuple[int, int, str]]
) -> None:
    write_item(tmp_path, "GOOD", 100)
    path = write_item(tmp_path, "HURT", 250)
    lines = path.read_text().splitlines()
    for line, column, value in damage:
        cells = lines[line].split(",")
        if column < len(cells):
            cells[column] = value
        lines[line] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    loaded = load_panel(tmp_path)
    assert "GOOD" in loaded.panel.items
    assert any(f.item == "HURT" for f in loaded.report.findings)
    if "HURT" in loaded.panel.items:
        values = loaded.panel.bars[loaded.panel.index("HURT")].values
        assert np.isfinite(values).all()
        assert (values[:, :4] > 0).all()
