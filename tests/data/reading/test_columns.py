"""Raw tables to typed bars: any column case and order, any common timestamp."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foresweep.data.reading.aliases import canonical
from foresweep.data.reading.columns import RawItem, raw_items
from foresweep.data.reading.dates import parse_dates
from foresweep.data.tables import parse_table
from foresweep.errors import DataError
from panels import make_frame, weekdays

HEADERS = {
    "timestamp": ["Date", "date", "TIMESTAMP", "Datetime"],
    "open": ["Open", "open", "OPEN "],
    "high": ["High", "HIGH"],
    "low": ["Low", "low"],
    "close": ["Close", "close"],
    "volume": ["Volume", "vol"],
    "adjusted": ["Adj Close", "adj_close", "Adj. Close", "AdjustedClose"],
}


def _read(content: bytes) -> RawItem:
    table = parse_table(content, "x.csv")
    (raw,) = raw_items(table, canonical(table.columns), file="x.csv", item="X", first_line=2)
    return raw


def _csv(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_csv(buffer)
    return buffer.getvalue()


@given(
    st.permutations(list(HEADERS)),
    st.data(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_any_column_case_and_order_and_line_ending_gives_the_same_bars(
    order: list[str], data: st.DataObject, crlf: bool, mark: bool, end: bool
) -> None:
    frame = make_frame(1, 6).drop("item_id").with_columns(adjusted=pl.col("close") * 0.5)
    plain = _read(_csv(frame))
    names = {c: data.draw(st.sampled_from(HEADERS[c])) for c in order}
    content = _csv(frame.select(order).rename(names))
    content = content.replace(b"\n", b"\r\n") if crlf else content
    content = content if end else content.rstrip()
    raw = _read(b"\xef\xbb\xbf" * mark + content)
    assert np.array_equal(raw.values, plain.values)
    assert np.array_equal(raw.utc, plain.utc)
    assert raw.adjusted is not None
    assert plain.adjusted is not None
    assert np.array_equal(raw.adjusted, plain.adjusted)
    assert raw.line.tolist() == [2, 3, 4, 5, 6, 7]
    assert raw.faults == ()


def test_columns_that_are_not_ours_are_ignored() -> None:
    raw = _read(b"Date,Open,High,Low,Close,Name,vwap\n2020-01-02,1,2,1,2,AAPL,x\n")
    assert raw.values.tolist() == [[1, 2, 1, 2, 0]]
    assert raw.item == "X"
    assert not raw.has_volume
    assert raw.adjusted is None
    assert raw.faults == ()


def test_doubled_columns_are_named() -> None:
    with pytest.raises(DataError, match="'Close' and 'close'"):
        canonical(["Date", "Close", "close"])
    canonical(["Date", "x", "X"])  # not ours: of no interest


def test_text_in_a_number_is_a_fault_and_a_word_for_nothing_is_not() -> None:
    content = b"Date,Open,High,Low,Close\n2020-01-02,1,2,1,oops\n2020-01-03,1,2,n/a,2\n"
    raw = _read(content)
    (fault,) = raw.faults
    assert (fault.rule, fault.rows.tolist(), list(fault.said)) == ("not_a_number", [0], ["'oops'"])
    assert np.isnan(raw.values[0, 3])
    assert np.isnan(raw.values[1, 2])


def test_empty_lines_are_no_rows_but_count_as_lines() -> None:
    raw = _read(b"Date,Open,High,Low,Close\n2020-01-02,1,2,1,2\n\n2020-01-03,1,2,1,2\n\n\n")
    assert raw.line.tolist() == [2, 4]


def test_a_long_table_is_taken_apart_by_item() -> None:
    frame = make_frame(3, 5).rename({"item_id": "Ticker"})
    table = parse_table(_csv(frame.sample(fraction=1.0, shuffle=True, seed=1)), "x.csv")
    raws = raw_items(table, canonical(table.columns), file="x.csv", item=None, first_line=2)
    assert sorted(r.item for r in raws) == ["A0", "A1", "A2"]
    assert sorted(line for r in raws for line in r.line.tolist()) == list(range(2, 17))


WRITTEN = {
    "iso": "%Y-%m-%d",
    "slashes": "%Y/%m/%d",
    "compact": "%Y%m%d",
    "american": "%m/%d/%Y",
    "european": "%d/%m/%Y",
    "german": "%d.%m.%Y",
    "months": "%d-%b-%Y",
    "words": "%b %d, %Y",
    "midnight": "%Y-%m-%d 00:00:00",
    "T": "%Y-%m-%dT00:00:00",
    "fraction": "%Y-%m-%d 00:00:00.000",
    "zulu": "%Y-%m-%dT00:00:00Z",
    "offset": "%Y-%m-%d 00:00:00+00:00",
    "word zone": "%Y-%m-%d 00:00:00 UTC",
}


@pytest.mark.parametrize("form", WRITTEN.values(), ids=WRITTEN.keys())
@pytest.mark.parametrize("start", ["2015-01-05", "1999-12-27", "2024-02-26"])
def test_dates_are_read_in_every_common_form(form: str, start: str) -> None:
    times = weekdays(30, start)
    text = pl.Series(times).dt.strftime(form)
    assert np.array_equal(parse_dates(text), times)


def test_single_digit_american_dates_are_read() -> None:
    text = pl.Series(["1/4/1999", "1/5/1999", "12/13/1999"])
    assert parse_dates(text).astype("datetime64[D]").astype(str).tolist() == [
        "1999-01-04",
        "1999-01-05",
        "1999-12-13",
    ]


def test_an_ambiguous_date_is_read_so_that_time_runs_forward() -> None:
    european = pl.Series(["05/01/2015", "06/01/2015", "02/02/2015"])  # 5, 6 January, 2 February
    assert parse_dates(european).astype("datetime64[D]").astype(str).tolist() == [
        "2015-01-05",
        "2015-01-06",
        "2015-02-02",
    ]


@pytest.mark.parametrize(("power", "digits"), [(9, 10), (6, 13), (3, 16), (0, 19)])
def test_epoch_numbers_are_read_by_their_digits(power: int, digits: int) -> None:
    times = weekdays(10) + np.timedelta64(15, "h")
    number = times.astype(np.int64) // 10**power
    assert len(str(number[0])) == digits
    for column in (pl.Series(number), pl.Series([str(n) for n in number])):
        assert np.array_equal(parse_dates(column), times)


@given(st.sampled_from(["+01:00", "-0500", "+05:30", "-08"]), st.integers(0, 23))
def test_an_offset_is_taken_off(offset: str, hour: int) -> None:
    text = pl.Series([f"2020-03-05T{hour:02}:30:00{offset}"])
    minutes = {"+01:00": 60, "-0500": -300, "+05:30": 330, "-08": -480}[offset]
    wanted = np.datetime64("2020-03-05T00:30", "ns") + np.timedelta64(hour * 60 - minutes, "m")
    assert parse_dates(text)[0] == wanted


def test_zoned_and_plain_datetime_columns_are_read() -> None:
    times = weekdays(5) + np.timedelta64(15, "h")
    plain = pl.Series(times)
    zoned = plain.dt.replace_time_zone("UTC").dt.convert_time_zone("America/New_York")
    assert np.array_equal(parse_dates(plain), times)
    assert np.array_equal(parse_dates(plain.dt.cast_time_unit("ms")), times)
    assert np.array_equal(parse_dates(zoned), times)
    assert np.array_equal(parse_dates(plain.dt.date()), weekdays(5))


def test_an_unreadable_stamp_is_a_fault_with_its_row() -> None:
    raw = _read(b"Date,Open,High,Low,Close\n2020-01-02,1,2,1,2\nsoon,1,2,1,2\n,1,2,1,2\n")
    (fault,) = raw.faults
    assert fault.rule == "bad_timestamp"
    assert fault.rows.tolist() == [1, 2]
    assert fault.said[0] == "'soon'"
