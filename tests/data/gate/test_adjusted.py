"""Adjusted closes: believed where dividends, splits or prices bear them out, else not used."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from foresweep.data.demo import demo_items
from foresweep.data.gate.adjusted import believed
from foresweep.data.gate.rules import in_order
from foresweep.data.reading.sources import Loaded, load_panel
from panels import walk_frame, weekdays

BARS = 600
PAID = range(40, BARS, 63)
SPLIT = 300


def shares(split: float = 1.0) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
    """(prices as they were traded, split on day 300; right factor; dividends)."""
    frame = walk_frame("X", weekdays(BARS), volatility=0.01)
    before = np.where(np.arange(BARS) < SPLIT, split, 1.0)
    prices = [pl.Series(c, frame[c].to_numpy() * before) for c in ("open", "high", "low", "close")]
    frame = frame.with_columns(*prices)
    close = frame["close"].to_numpy()
    dividends, factor = np.zeros(BARS), 1 / before
    for k in PAID:
        dividends[k] = 0.008 * close[k - 1]
        factor[:k] *= 1 - 0.008
    return frame, factor, dividends


def load(frame: pl.DataFrame, factor: np.ndarray, **columns: np.ndarray) -> Loaded:
    return load_panel(frame.with_columns(adj_close=frame["close"] * factor, **columns))


def rules_of(loaded: Loaded) -> list[tuple[str, int | None]]:
    return [(f.rule, f.row) for f in loaded.report.findings]


def closes(loaded: Loaded) -> np.ndarray:
    return loaded.panel.bars[0].values[:, 3]


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("split", [1.0, 2.0, 0.1])
def test_right_adjusted_closes_are_used_without_a_word(told: bool, split: float) -> None:
    frame, factor, dividends = shares(split)
    loaded = load(frame, factor, **({"dividends": dividends} if told else {}))
    assert rules_of(loaded) == []
    assert closes(loaded) == pytest.approx(frame["close"].to_numpy() * factor)


def test_the_closes_of_vendors_are_rounded() -> None:
    frame, factor, dividends = shares()
    close = frame["close"].to_numpy() / 40
    small = frame.with_columns(
        open=np.round(close, 2),
        high=pl.col("high") / 40 + 0.01,
        low=pl.col("low") / 40 - 0.01,
        close=np.round(close, 2),
    )
    adjusted = np.round(close * factor, 2)
    loaded = load_panel(small.with_columns(adj_close=adjusted, dividends=dividends / 40))
    assert "adjusted_contradicted" not in dict(rules_of(loaded))


@pytest.mark.parametrize(
    ("day", "wrong"),
    [(PAID[3], 1 / 0.992), (PAID[3], 0.6), (200, 1.05), (200, 0.98)],
    ids=["left out", "a hundred times", "against time", "without a dividend"],
)
def test_a_step_that_its_dividend_does_not_explain_is_contradicted(day: int, wrong: float) -> None:
    frame, factor, dividends = shares()
    bad = np.where(np.arange(BARS) < day, factor * wrong, factor)
    loaded = load(frame, bad, dividends=dividends)
    assert rules_of(loaded) == [("adjusted_contradicted", day + 1)]
    assert str(weekdays(BARS)[day])[:10] in loaded.report.findings[0].message
    assert np.array_equal(closes(loaded), frame["close"])


@pytest.mark.parametrize(
    ("wrong", "found"), [(0.6, True), (1.05, True), (3.0, True), (0.98, False)]
)
def test_without_dividends_only_what_none_can_be_is_contradicted(wrong: float, found: bool) -> None:
    frame, factor, _ = shares()
    bad = np.where(np.arange(BARS) < 200, factor * wrong, factor)
    loaded = load(frame, bad)
    assert rules_of(loaded) == ([("adjusted_contradicted", 201)] if found else [])


def test_steps_in_every_bar_are_no_dividends() -> None:
    frame, factor, _ = shares()
    bad = factor * 0.99 ** np.arange(BARS)[::-1]
    assert rules_of(load(frame, bad))[0][0] == "adjusted_contradicted"


def test_adjusted_closes_with_many_holes_are_not_used_and_with_few_the_rows_are_not() -> None:
    frame, factor, _ = shares()
    holes = np.where(np.arange(BARS) % 20 == 7, np.nan, factor)
    loaded = load(frame, holes)
    assert rules_of(loaded) == [("patchy_adjusted", None)]
    assert np.array_equal(closes(loaded), frame["close"])
    holes = np.where(np.arange(BARS) == 77, np.nan, factor)
    assert rules_of(load(frame, holes)) == [("missing_adjusted", 78)]


def test_an_item_beside_one_with_adjusted_closes_needs_none() -> None:
    frame, factor, _ = shares()
    mixed = [frame.with_columns(adj_close=frame["close"] * factor), walk_frame("G", weekdays(BARS))]
    loaded = load_panel(pl.concat(mixed, how="diagonal"))
    assert loaded.report.findings == ()
    assert np.array_equal(loaded.panel.bars[0].values[:, 3], mixed[1]["close"])


def test_a_large_dividend_that_the_price_paid_is_believed() -> None:
    frame, _, _ = shares()
    paid = np.where(np.arange(BARS) < SPLIT, 1.0, 0.7)
    fallen = frame.with_columns(
        [pl.Series(c, frame[c].to_numpy() * paid) for c in ("open", "high", "low", "close")]
    )
    dividends = np.zeros(BARS)
    dividends[SPLIT] = 0.3 * fallen["close"][SPLIT - 1]
    factor = np.where(np.arange(BARS) < SPLIT, 0.7, 1.0)
    for told in ({}, {"dividends": dividends}):
        loaded = load(fallen, factor, **told)
        assert rules_of(loaded) == []
        assert closes(loaded) == pytest.approx(0.7 * frame["close"].to_numpy())


def test_contradicted_closes_leave_the_splits_that_the_price_shows() -> None:
    frame, factor, dividends = shares(4.0)
    bad = np.where(np.arange(BARS) < PAID[2], factor * 1.3, factor)
    loaded = load(frame, bad, dividends=dividends)
    assert rules_of(loaded) == [("adjusted_contradicted", PAID[2] + 1)]
    assert "but for 1 splits that both show" in loaded.report.findings[0].message
    terms = np.where(np.arange(BARS) < SPLIT, 0.25, 1.0)
    assert closes(loaded) == pytest.approx(frame["close"].to_numpy() * terms)


def test_contradicted_closes_that_lack_the_split_drop_the_item() -> None:
    frame, factor, dividends = shares(4.0)
    bad = np.where(np.arange(BARS) < SPLIT, factor * 4 * 1.3, factor)
    other = walk_frame("G", weekdays(BARS))
    mixed = pl.concat(
        [frame.with_columns(adj_close=frame["close"] * bad, dividends=dividends), other],
        how="diagonal",
    )
    loaded = load_panel(mixed)
    told = [f.rule for f in loaded.report.findings if f.item == "X"]
    assert told == ["adjusted_contradicted", "split_jump"]
    assert loaded.panel.items == ("G",)


@pytest.mark.parametrize("none", [0.0, 1.0, None])
def test_splits_that_the_file_tells_are_undone_where_prices_show_them(none: float | None) -> None:
    for split in (4.0, 0.1):
        frame, _, _ = shares(split)
        told = [none] * BARS
        told[SPLIT] = split
        loaded = load_panel(frame.with_columns(pl.Series("Stock Splits", told)))
        assert rules_of(loaded) == [("told_split", None)]
        terms = np.where(np.arange(BARS) < SPLIT, 1 / split, 1.0)
        assert closes(loaded) == pytest.approx(frame["close"].to_numpy() * terms)
        adjusted, _, _ = shares(1.0)
        loaded = load_panel(adjusted.with_columns(pl.Series("Stock Splits", told)))
        assert rules_of(loaded) == []
        assert np.array_equal(closes(loaded), adjusted["close"])


def test_real_adjusted_closes_are_believed() -> None:
    """Of the demo's four shares over eight years, with their dividends and Apple's split."""
    for raw in demo_items():
        ordered = in_order(raw)
        same, actions, told = believed(raw, ordered.rows, ordered.times, ())
        assert same is raw
        assert not actions
        assert not told
