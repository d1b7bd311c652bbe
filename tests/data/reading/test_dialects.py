"""Files as vendors write them: each read as pandas, told what the file is, reads it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from foresweep.data.reading.dialect import decode
from foresweep.data.reading.sources import load_panel
from foresweep.errors import DataError

OHLCV = ["open", "high", "low", "close", "volume"]


def bars(index: pd.DatetimeIndex, level: float = 60.0, seed: int = 3) -> pd.DataFrame:
    """A walk with lawful bars of two decimals."""
    rng = np.random.default_rng(seed)
    n = len(index)
    close = level * np.exp(np.cumsum(rng.standard_t(4, n) * 0.009))
    opened = np.r_[level, close[:-1]] * np.exp(rng.normal(0, 0.003, n))
    frame = pd.DataFrame({"open": opened, "close": close}, index=index).round(2)
    high = frame.max(axis=1) * np.exp(np.abs(rng.normal(0, 0.005, n)))
    low = frame.min(axis=1) * np.exp(-np.abs(rng.normal(0, 0.005, n)))
    frame["high"], frame["low"] = np.ceil(high * 100) / 100, np.floor(low * 100) / 100
    frame["volume"] = np.round(1e6 * np.exp(rng.normal(0, 0.4, n)))
    return frame[OHLCV]


DAYS = bars(pd.date_range("2011-12-19", periods=300, freq="B"))
HOURS = bars(pd.date_range("2024-01-01", periods=300, freq="h"))
MONTHS = bars(pd.date_range("2004-08-01", periods=120, freq="MS"))


def rows(form: Callable[[pd.Timestamp, Any], str], frame: pd.DataFrame = DAYS) -> str:
    return "\n".join(form(t, r) for t, r in zip(frame.index, frame.itertuples(), strict=True))


def plain(r: Any, *names: str) -> str:
    return ",".join(f"{getattr(r, n)}" for n in names or OHLCV)


def comma(x: float) -> str:
    return f"{x:.2f}".replace(".", ",")


def millis(t: pd.Timestamp) -> int:
    return int(t.timestamp() * 1000)


@dataclass(frozen=True)
class Dialect:
    """A file, and what pandas must be told to read it: names of the five columns, how its times
    are made of the table."""

    text: str
    columns: dict[str, str]
    when: Callable[[pd.DataFrame], Any]
    pandas: dict[str, Any] = field(default_factory=dict)
    ending: str = "csv"
    encoding: str = "utf-8"


def _same(**other: str) -> dict[str, str]:
    return {c: c for c in OHLCV} | other


TITLE = {c: c.capitalize() for c in OHLCV}
KLINE = "open_time,open,high,low,close,volume,close_time,quote,count,tb,tq,ignore"


def _kline(t: pd.Timestamp, r: Any, unit: int = 1) -> str:
    return f"{millis(t) * unit},{plain(r)},{millis(t) * unit + 9},1.5,3,1,1,0"


DIALECTS = {
    "kronos": Dialect(
        "timestamps,open,high,low,close,volume,amount\n"
        + rows(lambda t, r: f"{t:%Y-%m-%d %H:%M:%S},{plain(r)},{r.volume * r.close:.2f}", HOURS),
        _same(),
        lambda f: pd.to_datetime(f["timestamps"]),
    ),
    "yfinance, three rows of header": Dialect(
        "Price,Close,High,Low,Open,Volume\nTicker,X,X,X,X,X\nDate,,,,,\n"
        + rows(lambda t, r: f"{t:%Y-%m-%d},{plain(r, 'close', 'high', 'low', 'open', 'volume')}"),
        TITLE,
        lambda f: pd.to_datetime(f["Price"]),
        {"skiprows": [1, 2]},
    ),
    "binance, no header": Dialect(
        rows(_kline),
        {c: i for i, c in enumerate(OHLCV, 1)},  # type: ignore[misc]
        lambda f: pd.to_datetime(f[0], unit="ms"),
        {"header": None},
    ),
    "binance, microseconds": Dialect(
        KLINE + "\n" + rows(lambda t, r: _kline(t, r, 1000), HOURS),
        _same(),
        lambda f: pd.to_datetime(f["open_time"], unit="us"),
    ),
    "two digits of a year": Dialect(
        "Date,Open,High,Low,Close,Volume\n" + rows(lambda t, r: f"{t.day}-{t:%b-%y},{plain(r)}"),
        TITLE,
        lambda f: pd.to_datetime(f["Date"], format="%d-%b-%y"),
    ),
    "investing.com": Dialect(
        '﻿"Date","Price","Open","High","Low","Vol.","Change %"\n'
        + "\n".join(
            rows(
                lambda t, r: (
                    f'"{t:%m/%d/%Y}","{r.close:,.2f}","{r.open:,.2f}","{r.high:,.2f}",'
                    f'"{r.low:,.2f}","{r.volume / 1e6:.6f}M","0.1%"'
                )
            ).splitlines()[::-1]
        ),
        {"open": "Open", "high": "High", "low": "Low", "close": "Price", "volume": "Vol."},
        lambda f: pd.to_datetime(f["Date"], format="%m/%d/%Y"),
        {"converters": {"Vol.": lambda v: round(float(v[:-1]) * 1e6)}},
    ),
    "investing.com in German": Dialect(
        '"Datum","Zuletzt","Eröffn.","Hoch","Tief","Vol.","+/- %"\n'
        + rows(
            lambda t, r: (
                f'"{t:%d.%m.%Y}","{comma(r.close)}","{comma(r.open)}","{comma(r.high)}",'
                f'"{comma(r.low)}","{r.volume / 1e3:.3f}K","0,1%"'.replace(".", ",").replace(
                    t.strftime("%d,%m,%Y"), t.strftime("%d.%m.%Y")
                )
            )
        ),
        {"open": "Eröffn.", "high": "Hoch", "low": "Tief", "close": "Zuletzt", "volume": "Vol."},
        lambda f: pd.to_datetime(f["Datum"], format="%d.%m.%Y"),
        {
            "decimal": ",",
            "converters": {"Vol.": lambda v: round(float(v[:-1].replace(",", ".")) * 1e3)},
        },
    ),
    "stooq, text": Dialect(
        "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>\n"
        + rows(lambda t, r: f"X.US,60,{t:%Y%m%d},{t:%H%M%S},{plain(r)},0", HOURS),
        {c: f"<{c.upper()}>" for c in OHLCV[:4]} | {"volume": "<VOL>"},
        lambda f: pd.to_datetime(f["<DATE>"] + f["<TIME>"], format="%Y%m%d%H%M%S"),
        {"dtype": {"<DATE>": str, "<TIME>": str}},
        ending="txt",
    ),
    "metatrader": Dialect(
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
        + rows(
            lambda t, r: f"{t:%Y.%m.%d}\t{t:%H:%M:%S}\t" + plain(r).replace(",", "\t") + "\t0\t2",
            HOURS,
        ),
        {c: f"<{c.upper()}>" for c in OHLCV[:4]} | {"volume": "<TICKVOL>"},
        lambda f: pd.to_datetime(f["<DATE>"] + " " + f["<TIME>"], format="%Y.%m.%d %H:%M:%S"),
        {"sep": "\t"},
    ),
    "a line above": Dialect(
        "https://www.example.org\nunix,date,symbol,open,high,low,close,Volume X,Volume USD\n"
        + rows(lambda t, r: f"{millis(t)},{t:%Y-%m-%d %H:%M:%S},X/USD,{plain(r)},1", HOURS),
        _same(volume="Volume X"),
        lambda f: pd.to_datetime(f["date"]),
        {"skiprows": 1},
    ),
    "tushare": Dialect(
        ",ts_code,trade_date,open,high,low,close,pre_close,pct_chg,vol,amount\n"
        + rows(lambda t, r: f"0,6.SH,{t:%Y%m%d},{plain(r, *OHLCV[:4])},1,0,{r.volume},1"),
        _same(volume="vol"),
        lambda f: pd.to_datetime(f["trade_date"], format="%Y%m%d"),
    ),
    "semicolons and commas": Dialect(
        "Datum;Eröffnung;Hoch;Tief;Schluss;Volumen\n"
        + rows(
            lambda t, r: (
                f"{t:%d.%m.%Y};{comma(r.open)};{comma(r.high)};{comma(r.low)};"
                f"{comma(r.close)};{r.volume:.0f}"
            )
        ),
        dict(zip(OHLCV, ("Eröffnung", "Hoch", "Tief", "Schluss", "Volumen"), strict=True)),
        lambda f: pd.to_datetime(f["Datum"], format="%d.%m.%Y"),
        {"sep": ";", "decimal": ",", "encoding": "cp1252"},
        encoding="cp1252",
    ),
    "nasdaq": Dialect(
        "Date,Close/Last,Volume,Open,High,Low\n"
        + rows(lambda t, r: f"{t:%m/%d/%Y},${r.close},{r.volume:.0f},${r.open},${r.high},${r.low}"),
        TITLE | {"close": "Close/Last"},
        lambda f: pd.to_datetime(f["Date"], format="%m/%d/%Y"),
        {"converters": {c: lambda v: float(v[1:]) for c in ("Close/Last", "Open", "High", "Low")}},
    ),
    "akshare, GBK": Dialect(
        "日期,开盘,收盘,最高,最低,成交量,成交额\n"
        + rows(lambda t, r: f"{t:%Y-%m-%d},{plain(r, 'open', 'close', 'high', 'low', 'volume')},1"),
        dict(zip(OHLCV, ("开盘", "最高", "最低", "收盘", "成交量"), strict=True)),
        lambda f: pd.to_datetime(f["日期"]),
        {"encoding": "gbk"},
        encoding="gbk",
    ),
    "morning and afternoon": Dialect(
        "Date,Open,High,Low,Close,Volume\n"
        + rows(lambda t, r: f"{t.month}/{t.day}/{t.year} {t:%I:%M:%S %p},{plain(r)}", HOURS),
        TITLE,
        lambda f: pd.to_datetime(f["Date"], format="%m/%d/%Y %I:%M:%S %p"),
    ),
    "dukascopy, local": Dialect(
        "Local time,Open,High,Low,Close,Volume\n"
        + rows(lambda t, r: f"{t:%d.%m.%Y %H:%M:%S}.000 GMT+0800,{plain(r)}", HOURS),
        TITLE,
        lambda f: (
            pd.to_datetime(f["Local time"].str.removesuffix(" GMT+0800"), dayfirst=True)
            - pd.Timedelta(hours=8)
        ),
    ),
    "months, day first": Dialect(
        "Date,Open,High,Low,Close,Volume\n" + rows(lambda t, r: f"{t:%d/%m/%Y},{plain(r)}", MONTHS),
        TITLE,
        lambda f: pd.to_datetime(f["Date"], format="%d/%m/%Y"),
    ),
    "months, month first, newest first": Dialect(
        "Date,Open,High,Low,Close,Volume\n"
        + rows(lambda t, r: f"{t:%m/%d/%Y},{plain(r)}", MONTHS[::-1]),
        TITLE,
        lambda f: pd.to_datetime(f["Date"], format="%m/%d/%Y"),
    ),
    "stamps of digits": Dialect(
        "time,open,high,low,close,volume\n"
        + rows(lambda t, r: f"{t:%Y%m%d%H%M},{plain(r)}", HOURS),
        _same(),
        lambda f: pd.to_datetime(f["time"].astype(str), format="%Y%m%d%H%M"),
    ),
    "UTF-16, tabs": Dialect(
        "Date\tOpen\tHigh\tLow\tClose\tVolume\n"
        + rows(lambda t, r: f"{t:%Y/%m/%d}\t" + plain(r).replace(",", "\t")),
        TITLE,
        lambda f: pd.to_datetime(f["Date"]),
        {"sep": "\t", "encoding": "utf-16"},
        encoding="utf-16",
    ),
}


def oracle(content: bytes, dialect: Dialect) -> pd.DataFrame:
    """The file as pandas reads it, oldest first."""
    given = {"thousands": "," if dialect.pandas.get("decimal") != "," else None}
    table = pd.read_csv(io.BytesIO(content), **given | dialect.pandas)  # type: ignore[arg-type]
    names = {theirs: ours for ours, theirs in dialect.columns.items()}
    found = table.rename(columns=names)[OHLCV].astype(float)
    return found.set_axis(pd.DatetimeIndex(dialect.when(table))).sort_index()


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS.keys())
def test_a_file_is_read_as_pandas_reads_it(tmp_path: Path, dialect: Dialect) -> None:
    content = dialect.text.encode(dialect.encoding)
    path = tmp_path / f"X.{dialect.ending}"
    path.write_bytes(content)
    panel = load_panel(path).panel
    wanted = oracle(content, dialect)
    assert np.array_equal(panel.timestamps_of(0), wanted.index.to_numpy().astype("datetime64[ns]"))
    assert panel.bars[0].values[:, :5] == pytest.approx(wanted.to_numpy(), rel=1e-12)
    assert load_panel(tmp_path).panel.items == ("X",)


def _load(tmp_path: Path, text: str, **how: Any) -> Any:
    path = tmp_path / "X.csv"
    path.write_text(text)
    return load_panel(path, **how)


def test_every_guess_is_told_and_the_plain_form_has_none(tmp_path: Path) -> None:
    text = "Date,Open,High,Low,Close,Volume\n" + rows(lambda t, r: f"{t:%Y-%m-%d},{plain(r)}")
    assert _load(tmp_path, text).report.findings == ()
    text = DIALECTS["semicolons and commas"].text
    (finding,) = _load(tmp_path, text).report.findings
    assert finding.rule == "read_as"
    for word in ("semicolon", "day first", "decimal comma", "close from 'Schluss'"):
        assert word in finding.message


ONE_DAY = pd.date_range("2024-05-01 00:00", periods=100, freq="10min")


def test_a_date_that_can_be_two_days_is_refused_until_somebody_says_which(tmp_path: Path) -> None:
    text = "Date,Open,High,Low,Close\n" + rows(
        lambda t, r: f"{t:%d/%m/%Y %H:%M},{plain(r, *OHLCV[:4])}", bars(ONE_DAY)
    )
    with pytest.raises(DataError, match=r"2024-05-01 .day first. or 2024-01-05"):
        _load(tmp_path, text)
    assert str(_load(tmp_path, text, day_first=True).panel.timeline[0])[:10] == "2024-05-01"
    assert str(_load(tmp_path, text, day_first=False).panel.timeline[0])[:10] == "2024-01-05"


def test_days_and_months_are_not_swapped_over_the_first_days_of_a_month(tmp_path: Path) -> None:
    week = bars(pd.date_range("2024-05-01", periods=8 * 24, freq="h"))
    text = "Date,Open,High,Low,Close\n" + rows(
        lambda t, r: f"{t:%d/%m/%Y %H:%M},{plain(r, *OHLCV[:4])}", week
    )
    assert np.array_equal(_load(tmp_path, text).panel.timeline, week.index.to_numpy())


def test_thousands_or_a_fraction_is_refused_until_somebody_says_which(tmp_path: Path) -> None:
    frame = bars(DAYS.index, level=2000).round(0).clip(lower=1000)
    text = "Date,Open,High,Low,Close\n" + rows(
        lambda t, r: (
            f'{t:%Y-%m-%d},"{r.open:,.0f}","{r.high:,.0f}","{r.low:,.0f}","{r.close:,.0f}"'
        ),
        frame,
    )
    with pytest.raises(DataError, match="--decimal"):
        _load(tmp_path, text)
    assert _load(tmp_path, text, decimal=".").panel.stacked[0, 3] == frame["close"].iloc[0]
    assert _load(tmp_path, text, decimal=",").panel.stacked[0, 3] == frame["close"].iloc[0] / 1e3


def test_columns_are_chosen_by_name_or_by_number(tmp_path: Path) -> None:
    text = "Date,Open,High,Low,Last,Settle\n" + rows(
        lambda t, r: f"{t:%Y-%m-%d},{plain(r, *OHLCV[:4])},{r.close}"
    )
    with pytest.raises(DataError, match="close may be 'Last' or 'Settle'"):
        _load(tmp_path, text)
    assert _load(tmp_path, text, columns={"close": "Settle"}).panel.num_rows == 300
    bare = rows(lambda t, r: f"{t:%d-%m-%Y},{plain(r)}")
    with pytest.raises(DataError, match="no_header"):
        _load(tmp_path, bare)
    numbers = {"date": "1", "open": "2", "high": "3", "low": "4", "close": "5"}
    assert _load(tmp_path, bare, columns=numbers).panel.num_rows == 300


def test_the_clock_of_an_exchange_becomes_utc_with_its_summer(tmp_path: Path) -> None:
    local = pd.date_range("2024-03-04 09:30", "2024-03-22 15:30", freq="h", tz="America/New_York")
    frame = bars(local[(local.hour >= 9) & (local.hour < 16) & (local.dayofweek < 5)])
    text = "Date,Open,High,Low,Close\n" + rows(
        lambda t, r: f"{t:%Y-%m-%d %H:%M},{plain(r, *OHLCV[:4])}", frame
    )
    panel = _load(tmp_path, text, tz="America/New_York").panel
    utc = frame.index.tz_convert("UTC").tz_localize(None)
    assert np.array_equal(panel.timeline, utc.to_numpy())


def test_the_hour_that_comes_twice_is_told_apart_by_the_order_of_the_rows(tmp_path: Path) -> None:
    utc = pd.date_range("2024-10-26", periods=48 * 4, freq="15min", tz="UTC")
    frame = bars(utc.tz_convert("Europe/Berlin"))
    for turned in (frame, frame[::-1]):
        text = "Date,Open,High,Low,Close\n" + rows(
            lambda t, r: f"{t:%Y-%m-%d %H:%M},{plain(r, *OHLCV[:4])}", turned
        )
        panel = _load(tmp_path, text, tz="Europe/Berlin").panel
        assert np.array_equal(panel.timeline, utc.tz_localize(None).to_numpy())


@pytest.mark.parametrize("year", ["0811", "1066", "2127"])
def test_a_year_that_cannot_be_is_refused_in_text_and_in_types(tmp_path: Path, year: str) -> None:
    text = "Date,Open,High,Low,Close\n" + rows(
        lambda t, r: f"{year}-{t:%m-%d},{plain(r, *OHLCV[:4])}", DAYS[9:90]
    )
    with pytest.raises(DataError, match="years 1900"):
        _load(tmp_path, text)


def test_two_tickers_side_by_side_are_two_items(tmp_path: Path) -> None:
    other = bars(DAYS.index, seed=9)
    wide = pd.concat({"AAA": DAYS, "BBB": other}, axis=1).swaplevel(axis=1).sort_index(axis=1)
    wide.index.name = "Date"
    by_name = {"AAA": DAYS, "BBB": other}
    flat = wide.copy()
    flat.columns = pd.Index([f"{c}_{t}" for c, t in wide.columns])
    for frame in (wide, flat):
        path = tmp_path / "wide.csv"
        frame.to_csv(path)
        for source in (path, frame):
            panel = load_panel(source).panel
            assert panel.items == ("AAA", "BBB")
            for k, name in enumerate(panel.items):
                assert np.array_equal(panel.bars[k].values, by_name[name].to_numpy())
    assert load_panel(by_name).panel.items == ("AAA", "BBB")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    text = "Date,Open,High,Low,Close,Close\n" + rows(
        lambda t, r: f"{t:%Y-%m-%d},{plain(r, *OHLCV[:4])},{r.close * 0.9}"
    )
    with pytest.raises(DataError, match="two columns are 'close'"):
        _load(tmp_path, text)


def test_seconds_of_nine_digits_and_mixed_units_are_told_apart_row_by_row(tmp_path: Path) -> None:
    old = bars(pd.date_range("1999-01-04", periods=900, freq="B"))
    stamps = (old.index.astype("int64") // 10**9).to_numpy()
    for units in ([1], [1000, 1_000_000], [1, 10**9]):
        scale = np.repeat(units, -(-900 // len(units)))[:900]
        text = "time,Open,High,Low,Close\n" + "\n".join(
            f"{s * k},{plain(r, *OHLCV[:4])}"
            for s, k, r in zip(stamps.tolist(), scale.tolist(), old.itertuples(), strict=True)
        )
        assert np.array_equal(_load(tmp_path, text).panel.timeline, old.index.to_numpy())


def test_footers_and_dividend_lines_are_no_bars(tmp_path: Path) -> None:
    lines = rows(lambda t, r: f'"{t:%b %d, %Y}",{plain(r)}').splitlines()
    lines.insert(40, '"Feb 10, 2012",0.24 Dividend,,,,')
    text = "Date,Open,High,Low,Close,Volume\n" + "\n".join([*lines, "Source: somebody"])
    loaded = _load(tmp_path, text)
    assert np.array_equal(loaded.panel.bars[0].values, DAYS.to_numpy())
    assert {"event_line", "footer"} <= set(loaded.report.counts)


JSONS: dict[str, Callable[[], Any]] = {
    "alpha vantage": lambda: {
        "Meta Data": {"2. Symbol": "IBM"},
        "Time Series (Daily)": {
            f"{t:%Y-%m-%d}": {f"{k}. {c}": str(r[c]) for k, c in enumerate(OHLCV, 1)}
            for t, r in DAYS[::-1].iterrows()
        },
    },
    "yahoo": lambda: {
        "chart": {
            "result": [
                {
                    "meta": {"symbol": "X"},
                    "timestamp": [millis(t) // 1000 for t in DAYS.index],
                    "indicators": {"quote": [{c: DAYS[c].tolist() for c in OHLCV}]},
                }
            ]
        }
    },
    "polygon": lambda: {
        "results": [{"t": millis(t)} | {c[0]: v for c, v in r.items()} for t, r in DAYS.iterrows()]
    },
    "binance": lambda: [
        [millis(t), *map(str, r), millis(t) + 9, "1", 2, "3", "4", "0"]
        for t, r in zip(DAYS.index, DAYS.to_numpy(), strict=True)
    ],
    "pandas, split": lambda: json.loads(DAYS.to_json(orient="split")),
    "pandas, columns": lambda: json.loads(DAYS.to_json()),
    "pandas, index": lambda: json.loads(DAYS.to_json(orient="index")),
    "records": lambda: json.loads(
        DAYS.reset_index(names="date").to_json(orient="records", date_format="iso")
    ),
}


@pytest.mark.parametrize("make", JSONS.values(), ids=JSONS.keys())
def test_json_of_any_shape_is_read(tmp_path: Path, make: Callable[[], Any]) -> None:
    path = tmp_path / "X.json"
    path.write_text(json.dumps(make()))
    panel = load_panel(path).panel
    assert np.array_equal(panel.timeline, DAYS.index.to_numpy())
    assert np.array_equal(panel.bars[0].values[:, :5], DAYS.to_numpy())


@pytest.mark.parametrize("kind", ["feather", "xlsx", "zip", "gz", "bz2", "parquet", "jsonl"])
def test_every_kind_of_file_gives_the_same_panel(tmp_path: Path, kind: str) -> None:
    frame = DAYS.rename(columns=TITLE).rename_axis("Date").reset_index()
    path = tmp_path / f"X.{kind}"
    text = frame.to_csv(index=False).encode()
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inside.csv", text)
            archive.writestr("__MACOSX/._inside.csv", b"\0\0")
    elif kind == "xlsx":
        pytest.importorskip("fastexcel")
        pytest.importorskip("xlsxwriter")
        pl.from_pandas(frame).write_excel(path)
    elif kind == "jsonl":
        frame.to_json(path, orient="records", lines=True, date_format="iso")
    elif kind == "parquet":
        frame.to_parquet(path)
    elif kind == "feather":
        pl.from_pandas(frame).write_ipc(path)
    else:
        pack = {"gz": gzip.compress, "bz2": bz2.compress}[kind]
        path = tmp_path / f"X.csv.{kind}"
        path.write_bytes(pack(text))
    panel = load_panel(tmp_path).panel
    assert panel.items == ("X",)
    assert np.array_equal(panel.timeline, DAYS.index.to_numpy())
    assert np.array_equal(panel.bars[0].values[:, :5], DAYS.to_numpy())


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("X.csv", b"\x80\x04\x95" + b"x" * 99, "pickle, not text .never opened"),
        ("X.csv", b"PK\x03\x04" + b"x" * 99, "unpacked"),
        ("X.csv", b"SQLite format 3\0" + b"x" * 99, "SQLite"),
        ("X.csv", b"\xff\xfeD\x00a", "UTF-16"),
        ("X.csv.gz", b"no gzip", "unpacked"),
        ("X.json", b"{nothing", "no JSON"),
        ("X.feather", b"ARROW1 and no more", "unreadable"),
    ],
)
def test_a_file_of_another_kind_is_named(
    tmp_path: Path, name: str, content: bytes, word: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=word):
        load_panel(path)


def test_three_files_of_one_item_are_none(tmp_path: Path) -> None:
    text = "Date,Open,High,Low,Close\n" + rows(lambda t, r: f"{t:%Y-%m-%d},{plain(r, *OHLCV[:4])}")
    for name in ("X.csv", "X.tsv", "X.txt", "Y.csv"):
        (tmp_path / name).write_text(text)
    loaded = load_panel(tmp_path)
    assert loaded.panel.items == ("Y",)
    assert loaded.report.counts["ambiguous_item"] == 2


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("café", "cp1252"), ("Größe", "cp1252"), ("示例", "gb18030"), ("例", "cp932")],
)
def test_a_few_letters_do_not_make_a_rare_encoding(name: str, encoding: str) -> None:
    rows = "".join(f"{name},2020-01-{day:02d},1,2,1,2\n" for day in range(1, 32))
    text, _ = decode(f"Name,Date,Open,High,Low,Close\n{rows}".encode(encoding))
    assert text.count(f"{name},2020-01-") == 31
