"""Old bars: the same, re-based as a whole, or changed."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foresweep.data.panel import Panel, changed_bars, panel_from_frame
from panels import make_frame

FRAME = make_frame(3, 120)
TIMES = FRAME["timestamp"].unique().sort()
PRICES = ("open", "high", "low", "close")


def panel(frame: pl.DataFrame) -> Panel:
    return panel_from_frame(frame)


OLD = panel(FRAME.filter(pl.col("timestamp") < TIMES[100]))


def test_newer_bars_and_new_items_are_no_change() -> None:
    assert changed_bars(OLD, panel(FRAME)) == ""
    assert changed_bars(panel(FRAME.filter(pl.col("item_id") != "A1")), panel(FRAME)) == ""


@given(st.floats(0.2, 5))
def test_prices_that_were_rebased_as_a_whole_are_no_change(factor: float) -> None:
    rebased = FRAME.with_columns(pl.col(c) * factor for c in PRICES)
    assert changed_bars(OLD, panel(rebased)) == ""


@given(st.integers(1, 98), st.sampled_from([*PRICES]))
def test_one_price_that_moved_is_named_by_item_and_day(bar: int, column: str) -> None:
    here = (pl.col("item_id") == "A1") & (pl.col("timestamp") == TIMES[bar])
    moved = FRAME.with_columns(
        pl.when(here).then(pl.col(column) * 1.001).otherwise(pl.col(column)).alias(column)
    )
    said = changed_bars(OLD, panel(moved))
    assert said.startswith("A1 is not what it was on ")
    assert str(TIMES[bar])[:10] in said


def test_a_bar_that_is_gone_and_one_that_has_come_are_named() -> None:
    day = str(np.datetime64(TIMES[50], "D"))
    less = FRAME.filter(~((pl.col("item_id") == "A2") & (pl.col("timestamp") == TIMES[50])))
    assert changed_bars(OLD, panel(less)) == f"A2 has no bar on {day} any more"
    assert changed_bars(panel(less), panel(FRAME)) == f"A2 has a bar on {day} that was not there"


def test_an_item_that_is_gone_is_named() -> None:
    assert changed_bars(OLD, panel(FRAME.filter(pl.col("item_id") != "A0"))) == (
        "A0 is no longer there"
    )


@pytest.mark.parametrize("column", ["volume"])
def test_volume_may_be_revised(column: str) -> None:
    assert changed_bars(OLD, panel(FRAME.with_columns(pl.col(column) * 2))) == ""
