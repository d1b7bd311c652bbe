"""The demo panel: real daily prices that installed packages carry, so that no network is needed.

AAPL, GOOG, IBM and MSFT from bokeh-sampledata (BSD-3-Clause; AAPL and MSFT are not adjusted for
splits there, so prices are multiplied by adjusted / raw close) and the S&P 500 and NASDAQ indices
from arch (NCSA licence), in their common window 2004-08-19 .. 2013-03-01: 2,148 sessions.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import polars as pl

from foresweep.data.panel import Panel, panel_from_frame
from foresweep.data.reading.aliases import canonical
from foresweep.data.reading.columns import RawItem, raw_items
from foresweep.data.tables import parse_table, table_bytes
from foresweep.errors import DataError, MissingExtra

STOCKS = ("AAPL", "GOOG", "IBM", "MSFT")
INDICES = {"SP500": "sp500", "NASDAQ": "nasdaq"}
START, END = "2004-08-19", "2013-03-01"


def demo_items() -> list[RawItem]:
    """The six items as the packages' files say, in the common window, before the gate.

    Raises MissingExtra when bokeh-sampledata is not installed, DataError when its files have moved.
    """
    stocks = _package_table("bokeh_sampledata", "_data/stocks.csv.gz")
    parts = [(t, stocks.filter(pl.col("Ticker") == t), "%Y-%m-%d") for t in STOCKS]
    for item, name in INDICES.items():
        parts.append((item, _package_table("arch", f"data/{name}/{name}.csv.gz"), "%m/%d/%Y"))
    return [_demo_item(*part) for part in parts]


def demo_panel() -> Panel:
    """The demo panel through the gate: 6 items, 2,148 sessions. Raises MissingExtra."""
    from foresweep.data.gate.check import check

    frame, _ = check(demo_items(), source="demo")
    return panel_from_frame(frame, source="demo")


def _demo_item(item: str, table: pl.DataFrame, form: str) -> RawItem:
    table = table.with_columns(pl.col("Date").str.to_date(form))
    window = pl.col("Date").is_between(pl.lit(START).str.to_date(), pl.lit(END).str.to_date())
    columns = canonical(table.columns)
    (raw,) = raw_items(table.filter(window), columns, file=f"demo/{item}", item=item, first_line=1)
    return raw


def _package_table(package: str, inside: str) -> pl.DataFrame:
    """A CSV file of an installed package, without importing the package."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingExtra(package.replace("_", "-"), "demo")
    path = Path(spec.origin).parent / inside
    if not path.exists():
        raise DataError(
            f"{path} is not there: this version of {package} keeps its prices elsewhere"
        )
    return parse_table(table_bytes(path), path.name)
