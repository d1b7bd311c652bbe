"""Files of known bars as anybody might write them: names, dates, numbers, packing in any mix."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HEADERS = {
    "plain": ("Date", "Open", "High", "Low", "Close", "Volume"),
    "small": ("timestamp", "open", "high", "low", "close", "vol"),
    "kronos": ("timestamps", "open", "high", "low", "close", "volume"),
    "binance": ("open_time", "open", "high", "low", "close", "volume"),
    "metatrader": ("<DATE>", "<OPEN>", "<HIGH>", "<LOW>", "<CLOSE>", "<VOL>"),
    "alpha vantage": ("timestamp", "1. open", "2. high", "3. low", "4. close", "5. volume"),
    "nasdaq": ("Date", "Open", "High", "Low", "Close/Last", "Volume"),
    "investing": ("Date", "Open", "High", "Low", "Price", "Vol."),
    "polygon": ("t", "o", "h", "l", "c", "v"),
    "pandas": ("", "Open", "High", "Low", "Close", "Volume"),
    "quantmod": ("Index", "X.Open", "X.High", "X.Low", "X.Close", "X.Volume"),
    "german": ("Datum", "Eröffnung", "Hoch", "Tief", "Schlusskurs", "Volumen"),
    "french": ("Date", "Ouverture", "Plus haut", "Plus bas", "Clôture", "Volume"),
    "spanish": ("Fecha", "Apertura", "Máximo", "Mínimo", "Último", "Vol."),
    "italian": ("Data", "Apertura", "Massimo", "Minimo", "Chiusura", "Volume"),
    "portuguese": ("Data", "Abertura", "Máxima", "Mínima", "Fechamento", "Volume"),
    "polish": ("Data", "Otwarcie", "Najwyższy", "Najniższy", "Zamknięcie", "Wolumen"),
    "russian": ("Дата", "Откр.", "Макс.", "Мин.", "Цена", "Объём"),
    "turkish": ("Tarih", "Açılış", "Yüksek", "Düşük", "Kapanış", "Hacim"),
    "chinese": ("日期", "开盘价", "最高价", "最低价", "收盘价", "成交量"),
    "taiwanese": ("日期", "開盤價", "最高價", "最低價", "收盤價", "成交量"),
    "japanese": ("日付", "始値", "高値", "安値", "終値", "出来高"),
    "korean": ("날짜", "시가", "고가", "저가", "종가", "거래량"),
}
LEGACY = {"german": "cp1252", "french": "cp1252", "spanish": "cp1252", "italian": "cp1252",
          "portuguese": "cp1252", "polish": "cp1250", "russian": "cp1251", "turkish": "cp1254",
          "chinese": "gb18030", "taiwanese": "big5", "japanese": "cp932",
          "korean": "cp949"}  # fmt: skip
DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y",
    "%m-%d-%Y", "%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%y", "%d/%m/%y",
    "%m/%d/%y", "%y/%m/%d", "%d.%m.%y", "%a, %d %b %Y", "%A, %B %d, %Y", "%Y年%m月%d日", "%Y-%b-%d",
    "%d%m%Y", "%y%m%d", "epoch s", "epoch ms", "epoch us", "epoch ns", "excel",
)  # fmt: skip
CLOCKS = (
    " %H:%M", " %H:%M:%S", "T%H:%M:%S", " %H:%M:%S.000", " %I:%M %p", " %I:%M:%S %p",
    "T%H:%M:%SZ", " %H:%M:%S+00:00", " %H:%M:%S UTC", " %H%M%S",
)  # fmt: skip
SPANS = {
    "days": ("2011-12-19", "B"),
    "all days": ("2019-05-01", "D"),
    "weeks": ("2014-01-03", "7D"),
    "months": ("1994-08-01", "MS"),
    "month ends": ("1996-01-31", "ME"),
    "hours": ("2024-01-01", "h"),
    "five minutes": ("2024-03-01 09:30", "5min"),
    "half hours, first days": ("2024-05-01", "30min"),
    "old hours": ("1996-11-02", "h"),
}


@dataclass(frozen=True)
class Form:
    """How a file is written."""

    span: str
    header: str
    date: str
    clock: str
    separator: str
    decimal: str
    thousands: str
    level: float
    suffix: str  # of volumes
    currency: str
    quoted: bool
    newest_first: bool
    apart: bool  # date and time in columns of their own
    encoding: str
    preamble: int
    footer: bool
    ending: str
    packing: str
    order: tuple[int, ...]
    num: int

    @property
    def intraday(self) -> bool:
        return "hours" in self.span or "minutes" in self.span


CHOICES: dict[str, Sequence[Any]] = {
    "span": list(SPANS),
    "header": list(HEADERS),
    "date": DATES,
    "clock": CLOCKS,
    "separator": [",", ",", ";", "\t", "|"],
    "decimal": [".", ".", ","],
    "thousands": ["", "", "group", " ", "'"],
    "level": [0.8, 60.0, 999.0, 5000.0, 250_000.0],
    "suffix": ["", "", "K", "M"],
    "currency": ["", "", "$", "€", "¥"],
    "quoted": [False, True],
    "newest_first": [False, True],
    "apart": [False, True],
    "encoding": ["utf-8", "utf-8-sig", "utf-16", "legacy"],
    "preamble": [0, 0, 1, 3],
    "footer": [False, True],
    "ending": ["csv", "csv", "txt", "tsv"],
    "packing": ["", "", "", "gz", "zip"],
    "num": [80, 200, 300],
}
"""What each part of a form is chosen from."""


def a_form(chance: random.Random) -> Form:
    """Any form."""
    chosen = {name: chance.choice(values) for name, values in CHOICES.items()}
    return Form(**chosen, order=tuple(chance.sample(range(6), 6)))


@cache
def bars(span: str, level: float, num: int) -> pd.DataFrame:
    start, step = SPANS[span]
    index = pd.date_range(start, periods=num, freq=step)
    rng = np.random.default_rng(5)
    close = level * np.exp(np.cumsum(rng.standard_t(4, num) * 0.009))
    opened = np.r_[level, close[:-1]] * np.exp(rng.normal(0, 0.003, num))
    top, bottom = np.maximum(opened, close), np.minimum(opened, close)
    high = top * np.exp(np.abs(rng.normal(0, 0.005, num)))
    low = bottom * np.exp(-np.abs(rng.normal(0, 0.005, num)))
    volume = np.round(1e6 * np.exp(rng.normal(0, 0.4, num)), -3)
    columns = {"open": opened, "high": high, "low": low, "close": close}
    return pd.DataFrame(columns, index=index).round(2).assign(volume=volume)


def number(x: float, form: Form, *, price: bool) -> str:
    if not price and form.suffix:
        scaled = x / {"K": 1e3, "M": 1e6}[form.suffix]
        return f"{scaled:.3f}".replace(".", form.decimal) + form.suffix
    text = f"{x:,.2f}" if price else f"{x:,.0f}"
    group = "" if form.thousands == "" else form.thousands
    if form.thousands == "group":
        group = "." if form.decimal == "," else ","
    text = text.replace(",", "~").replace(".", form.decimal).replace("~", group)
    return form.currency + text if price else text


def stamps(form: Form, index: pd.DatetimeIndex) -> list[tuple[str, str]]:
    """(date or whole stamp, clock of its own column) of each bar."""
    if form.date.startswith("epoch"):
        scale = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[form.date.split()[1]]
        return [(str(t.value // scale), "") for t in index]
    if form.date == "excel":
        days = (index - pd.Timestamp("1899-12-30")) / pd.Timedelta(days=1)
        return [(f"{d:.8f}".rstrip("0").rstrip("."), "") for d in days]
    dates = [t.strftime(form.date) for t in index]
    if not form.intraday:
        return [(d, "") for d in dates]
    clocks = [t.strftime(form.clock) for t in index]
    if form.apart:
        return [(d, c.strip(" T").removesuffix("Z").split("+")[0].removesuffix(" UTC"))
                for d, c in zip(dates, clocks, strict=True)]  # fmt: skip
    return [(d + c, "") for d, c in zip(dates, clocks, strict=True)]


def text_of(form: Form) -> tuple[str, pd.DataFrame]:
    """The file's text, and the bars that it tells."""
    frame = bars(form.span, form.level, form.num)
    turned = frame[::-1] if form.newest_first else frame
    names = list(HEADERS[form.header])
    times = stamps(form, turned.index)
    cells = [
        [stamp, *(number(x, form, price=k < 4) for k, x in enumerate(row))]
        for (stamp, _), row in zip(times, turned.to_numpy(), strict=True)
    ]
    order = list(form.order)
    if form.header in ("pandas", "quantmod"):  # the first column has no name of its own
        order = [0, *(k for k in order if k)]
    rows = [[names[k] for k in order], *([row[k] for k in order] for row in cells)]
    if any(clock for _, clock in times):
        at = order.index(0) + 1
        extra = ["Time", *(clock for _, clock in times)]
        rows = [[*row[:at], cell, *row[at:]] for row, cell in zip(rows, extra, strict=True)]
    lines = [form.separator.join(_cell(c, form) for c in row) for row in rows]
    above = ["Prices of a test", "Currency: none", "made, not copied"][: form.preamble]
    return "\n".join([*above, *lines, *(["End of file"] if form.footer else [])]) + "\n", frame


def write(form: Form, folder: Path) -> tuple[Path, pd.DataFrame]:
    text, frame = text_of(form)
    return put(form, text, folder), frame


def put(form: Form, text: str, folder: Path) -> Path:
    """A text in the form's encoding and packing."""
    encoding = LEGACY.get(form.header, "cp1252") if form.encoding == "legacy" else form.encoding
    try:
        content = text.encode(encoding)
    except UnicodeEncodeError:  # no sign for this currency there
        content = text.encode("utf-8")
    path = folder / f"X.{form.ending}"
    path.write_bytes(content)
    if form.packing:
        path = _packed(path, content, form.packing)
    return path


def _cell(text: str, form: Form) -> str:
    return f'"{text}"' if form.quoted or form.separator in text else text


def _packed(path: Path, content: bytes, packing: str) -> Path:
    import gzip
    import zipfile

    packed = path.with_name(f"{path.name}.{packing}")
    path.unlink()
    if packing == "gz":
        packed.write_bytes(gzip.compress(content))
    else:
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("X.csv", content)
    return packed
