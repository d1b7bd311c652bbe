"""Parts that are set aside: opens, a bad beginning; price limits are marked."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from foresweep.data.reading.sources import Loaded, load_panel
from panels import walk_frame, weekdays

BARS = 400


def item(num_bars: int = BARS) -> pl.DataFrame:
    return walk_frame("X", weekdays(num_bars))


def changed(column: str, rows: object, value: object) -> pl.DataFrame:
    frame = item()
    values = frame[column].to_numpy().copy()
    values[rows] = value
    return frame.with_columns(pl.Series(column, values))


def load(frame: pl.DataFrame) -> Loaded:
    good = [walk_frame(n, weekdays(BARS)) for n in ("G1", "G2")]
    return load_panel(pl.concat([frame, *good], how="diagonal"))


def rules_of(loaded: Loaded) -> list[str]:
    return [f.rule for f in loaded.report.findings if f.item == "X"]


def bars_of(loaded: Loaded) -> np.ndarray:
    return loaded.panel.bars[loaded.panel.index("X")].values


@pytest.mark.parametrize("value", [np.nan, 0.0, -1.0, 1e6])
def test_patchy_opens_are_set_aside_and_the_bars_kept(value: float) -> None:
    rows = np.arange(0, BARS, 20)
    loaded = load(changed("open", rows, value))
    assert rules_of(loaded) == ["patchy_open"]
    assert "20 of 400 opens" in next(f.message for f in loaded.report.findings if f.item == "X")
    bars = bars_of(loaded)
    assert len(bars) == BARS
    assert np.array_equal(bars[:, 0], bars[:, 3])
    assert np.array_equal(bars[:, 1:], item().select("high", "low", "close", "volume").to_numpy())


def test_few_bad_opens_mask_their_rows_alone() -> None:
    loaded = load(changed("open", [50, 90, 130], np.nan))
    assert rules_of(loaded) == ["missing_price"] * 3
    assert not np.array_equal(bars_of(loaded)[:, 0], bars_of(loaded)[:, 3])


def test_opens_of_bars_that_are_bad_altogether_are_not_patchy() -> None:
    frame = item()
    bad = pl.int_range(pl.len()) % 20 == 0
    prices = [pl.when(bad).then(None).otherwise(pl.col(c)).alias(c) for c in ("open", "close")]
    loaded = load(frame.with_columns(*prices))
    assert "patchy_open" not in rules_of(loaded)
    assert "too_many_bad_rows" in rules_of(loaded)


@pytest.mark.parametrize("gone", [60, 150])
def test_an_item_with_a_bad_beginning_is_cut_to_what_is_good(gone: int) -> None:
    rows = np.arange(5, gone, 4)
    loaded = load(changed("close", rows, np.nan))
    assert rules_of(loaded)[-1] == "bad_beginning"
    message = [f.message for f in loaded.report.findings if f.item == "X"][-1]
    last = int(rows[-1])
    start = loaded.panel.timestamps_of(loaded.panel.index("X"))[0]
    assert f"begins on {str(start)[:10]}" in message
    assert rows[-5] < np.searchsorted(weekdays(BARS), start) <= last + 1
    whole = item()["close"].to_numpy()
    assert np.isin(bars_of(loaded)[:, 3], whole).all()
    assert bars_of(loaded)[-1, 3] == whole[-1]


def test_text_in_the_place_of_opens_is_told_as_such() -> None:
    opens = [f"{v}" if k % 20 else "closed" for k, v in enumerate(item()["open"])]
    frame = item().with_columns(pl.Series("open", opens))
    said = load_panel({"X": frame, "G": walk_frame("G", weekdays(BARS)).drop("item_id")}).report
    assert {f.rule for f in said.findings if f.item == "X"} == {"not_a_number", "too_many_bad_rows"}


def test_a_beginning_that_is_hardly_worse_than_the_rest_is_not_cut() -> None:
    loaded = load(changed("close", np.arange(0, 180, 30), np.nan))
    assert "bad_beginning" not in rules_of(loaded)
    assert "too_many_bad_rows" in rules_of(loaded)


def test_bad_rows_all_over_or_in_most_of_it_drop_the_item_and_say_what_is_left() -> None:
    for rows in (np.arange(0, BARS, 40), np.arange(0, 250, 10)):
        loaded = load(changed("close", rows, np.nan))
        assert loaded.panel.items == ("G1", "G2")
        (error,) = [f for f in loaded.report.errors if f.item == "X"]
        left = BARS - len(rows)
        assert error.message.endswith(f"{left} are left, 396 would be needed")


def test_a_beginning_of_another_rhythm_is_cut_off() -> None:
    weekly = weekdays(1000, "2001-01-01")[::5][:150]
    times = np.concatenate([weekly, weekdays(BARS)])
    loaded = load(walk_frame("X", times))
    assert rules_of(loaded) == ["bad_beginning"]
    own = loaded.panel.timestamps_of(loaded.panel.index("X"))
    assert own[0] >= weekdays(BARS)[0]
    assert len(own) >= BARS - 32


def limited(limit: float, *, bound: bool = True, seed: int = 3) -> pl.DataFrame:
    """A stormy share whose day's move is bound by a limit, in cents."""
    rng = np.random.default_rng(seed)
    close = [2000.0]
    for move in 0.4 * limit * rng.standard_t(4, BARS - 1):
        top, bottom = (round(close[-1] * (1 + s * limit), 2) for s in (1, -1))
        free = round(close[-1] * float(np.exp(move)), 2)
        close.append(min(max(free, bottom), top) if bound else free)
    prices = np.array(close)
    opened = np.concatenate([prices[:1], prices[:-1]])
    columns = {
        "open": opened,
        "high": np.maximum(opened, prices),
        "low": np.minimum(opened, prices),
        "close": prices,
        "volume": np.full(BARS, 1e6),
    }
    return pl.DataFrame({"item_id": ["X"] * BARS, "timestamp": weekdays(BARS)} | columns)


@pytest.mark.parametrize("limit", [0.05, 0.1, 0.2, 0.3])
def test_days_at_a_price_limit_are_marked_and_kept(limit: float) -> None:
    frame = limited(limit)
    close = frame["close"].to_numpy()
    at = [
        k for k in range(1, BARS)
        if min(abs(close[k] - close[k - 1] * (1 + s * limit)) for s in (1, -1)) < 0.0051
    ]  # fmt: skip
    loaded = load(frame)
    (finding,) = [f for f in loaded.report.findings if f.rule == "price_limit"]
    assert finding.message.startswith(f"{len(at)} days closed at the limit of {100 * limit:g} %")
    assert str(weekdays(BARS)[at[0]])[:10] in finding.message
    assert len(bars_of(loaded)) == BARS


def test_a_share_without_limits_has_none() -> None:
    frame = limited(0.1, bound=False)
    close = frame["close"].to_numpy().copy()
    for k in range(20, BARS, 40):  # ten days by chance: others go further
        close[k:] *= round(close[k - 1] * 1.1, 2) / close[k]
        close[k] = round(close[k - 1] * 1.1, 2)
    prices = {c: np.maximum(close, frame[c] / frame["close"] * close) for c in ("open", "high")}
    assert "price_limit" not in rules_of(load(frame.with_columns(close=close, **prices)))
