"""Kinds of files of vendors and brokers that no other test holds: each read as it was meant."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from foresweep.data.reading.sources import load_panel
from foresweep.errors import DataError

BARS = 80
RNG = np.random.default_rng(5)
CLOSE = (60 * np.exp(np.cumsum(RNG.normal(0, 0.01, BARS)))).round(2)
OPEN = (np.r_[60, CLOSE[:-1]] * np.exp(RNG.normal(0, 0.001, BARS))).round(2)
FRAME = pd.DataFrame(
    {
        "o": OPEN,
        "h": np.maximum(OPEN, CLOSE) + 0.25,
        "l": np.minimum(OPEN, CLOSE) - 0.25,
        "c": CLOSE,
        "v": RNG.integers(10_000, 900_000, BARS),
    },
    index=pd.date_range("2010-10-01", periods=BARS, freq="B"),
).round(2)
PRICES = ("o", "h", "l", "c")


def lines(form: Callable[[pd.Timestamp, Any], str]) -> str:
    return "\n".join(form(t, r) for t, r in zip(FRAME.index, FRAME.itertuples(), strict=True))


def bar(r: Any, order: str = "ohlcv", scale: float = 1.0) -> str:
    """The fields of a bar in an order of its letters."""
    return ",".join(f"{getattr(r, k) * (1 if k == 'v' else scale):.10g}" for k in order)


def millis(t: pd.Timestamp) -> int:
    return int(t.timestamp() * 1000)


def iso(t: pd.Timestamp) -> str:
    return f"{t:%Y-%m-%d}"


FILES = {
    "prices one level deeper.json": json.dumps(
        {
            "candles": [
                {"time": iso(t), "volume": int(r.v), "mid": {k: str(r[k]) for k in PRICES}}
                for t, r in FRAME.iterrows()
            ]
        }
    ),
    "rows of milliseconds.json": json.dumps(
        [[millis(t), *map(float, r)] for t, r in zip(FRAME.index, FRAME.to_numpy(), strict=True)]
    ),
    "years of Taiwan, two digits and three.csv": "日期,開盤價,最高價,最低價,收盤價,成交股數\n"
    + lines(lambda t, r: f"{t.year - 1911:02}/{t:%m/%d},{bar(r)}"),
    "a weekday behind the date.csv": "时间,开盘,收盘,最高,最低,总手\n"
    + lines(lambda t, r: f'"{iso(t)},{"一二三四五六日"[t.dayofweek]}",{bar(r, "ochlv")}'),
    "a footer that speaks of a zone of two meanings.csv": "Time,Open,High,Low,Latest,Volume\n"
    + lines(lambda t, r: f"{iso(t)},{bar(r)}")
    + '\n"Downloaded as of 01-02-2020 10:00am CST"\n',
    "prices in billionths.csv": "ts_event,rtype,open,high,low,close,volume\n"
    + lines(lambda t, r: f"{millis(t)}000000,33,{bar(r, 'ohlc', 1e9)},{r.v}"),
    "names of CRSP.csv": "PERMNO,date,TICKER,OPENPRC,ASKHI,BIDLO,PRC,VOL,RET\n"
    + lines(lambda t, r: f"14593,{t:%Y%m%d},X,{bar(r)},0.01"),
    "volumes of two currencies.csv": "Timestamp,Open,High,Low,Close,Volume_(BTC),Volume_(USD)\n"
    + lines(lambda t, r: f"{millis(t) // 1000},{bar(r)},{r.v * r.c:.2f}"),
    "pieces before their worth.csv": "Datum,Erster,Hoch,Tief,Schlusskurs,Volumen,Stuecke\n"
    + lines(lambda t, r: f"{iso(t)},{bar(r, 'ohlc')},{r.v * r.c:.0f},{r.v}"),
    "pasted from a page.tsv": "Date\tOpen\tHigh\tLow\tClose Close price adjusted for splits.\t"
    "Volume\n" + lines(lambda t, r: f"{t:%b} {t.day}, {t.year}\t" + bar(r).replace(",", "\t")),
    "languages.csv": "Datum,Öppen,Högst,Lägst,Senaste,Vol.\n"
    + lines(lambda t, r: f"{iso(t)},{bar(r)}"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_vendors_own_form_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(FILES[name], encoding="utf-8")
    panel = load_panel(path).panel
    assert np.array_equal(panel.timestamps_of(0), FRAME.index.to_numpy().astype("datetime64[ns]"))
    assert panel.bars[0].values[:, :5] == pytest.approx(FRAME.to_numpy(), rel=1e-12)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Date,Open,High,Low,Close,Volume,volume\n" + lines(lambda t, r: f"{iso(t)},{bar(r)},1"),
         "two columns are 'volume'"),
        (json.dumps([{"time": iso(t), "bid": dict.fromkeys(PRICES, 1), "ask": dict.fromkeys(PRICES,
                      2)} for t in FRAME.index]), "bid and ask"),
        (json.dumps([[millis(t), r.o, r.c, r.h, r.l, 1.0] for t, r in FRAME.iterrows()]),
         "rows without names"),
        (json.dumps([[millis(t), r.c, r.h, r.l, r.o, 1.0] for t, r in FRAME.iterrows()]),
         "rows without names"),
    ],
)  # fmt: skip
def test_what_could_be_two_things_is_refused(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / ("x.json" if text.startswith("[") else "x.csv")
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        load_panel(path)
