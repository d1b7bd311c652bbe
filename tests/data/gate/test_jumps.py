"""Jumps: splits on quiet days near a real ratio, spin-offs near none, crashes on busy ones."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foresweep.data.gate.jumps import FORWARD, Jump, find_jumps
from foresweep.data.reading.sources import load_panel
from panels import walk_frame, weekdays

DAY = 150


def bars(seed: int = 0, num_bars: int = 300) -> np.ndarray:
    """[n, 5] a quiet walk that opens at the last close."""
    frame = walk_frame("X", weekdays(num_bars), seed, volatility=0.01)
    out = frame.select("open", "high", "low", "close", "volume").to_numpy().copy()
    out[1:, 0] = out[:-1, 3]
    out[:, 1], out[:, 2] = out[:, :4].max(axis=1), out[:, :4].min(axis=1)
    return out


def jumped(move: float, *, volume: float = 1.0, shares: float = 1.0, span: float = 1.0,
           seed: int = 0, day: int = DAY) -> np.ndarray:  # fmt: skip
    """Prices from `day` on times `move` and volumes times `shares`; that day's volume and range
    times `volume` and `span`."""
    out = bars(seed)
    out[day:, :4] *= move
    out[day:, 4] *= shares
    out[day, 4] *= volume
    out[day, 1] *= 1 + 0.01 * (span - 1)
    out[day, 2] /= 1 + 0.01 * (span - 1)
    return out


def only(values: np.ndarray) -> Jump:
    (jump,) = find_jumps(values)
    return jump


@given(st.sampled_from(FORWARD), st.integers(30, 269), st.integers(0, 20), st.booleans(),
       st.booleans())  # fmt: skip
def test_every_planted_split_is_seen_on_its_day(
    ratio: float, day: int, seed: int, reverse: bool, counted: bool
) -> None:
    if reverse and ratio in (1.5, 2.5):
        return
    shares = 1 / ratio if reverse else ratio
    values = jumped(1 / shares, shares=shares if counted else 1.0, seed=seed, day=day)
    jump = next(j for j in find_jumps(values) if j.row == day)
    assert jump.kind == "split"
    assert jump.split == (f"1-for-{ratio:g}" if reverse else f"{ratio:g}-for-1")
    assert jump.ratio == pytest.approx(shares, rel=1e-5)


@given(st.integers(0, 200))
def test_an_ordinary_walk_has_no_jump(seed: int) -> None:
    assert find_jumps(bars(seed, 400)) == []


def test_a_jump_that_goes_back_is_none() -> None:
    values = jumped(0.5)
    values[DAY + 2 :, :4] *= 2
    assert find_jumps(values) == []


@pytest.mark.parametrize(
    ("move", "kind"),
    [(0.5, "split"), (0.51, "split"), (0.53, "event"), (0.663, "split"), (0.659, "event"),
     (0.70, "event"), (0.714, "event"), (0.63, "event"), (1 / 3, "split"), (0.35, "event"),
     (2.02, "split"), (2.2, "event"), (10.0, "split")],
)  # fmt: skip
def test_only_two_percent_from_a_real_ratio_is_a_split(move: float, kind: str) -> None:
    assert only(jumped(move)).kind == kind


@pytest.mark.parametrize(("off", "kind"), [(0.0, "split"), (0.015, "split"), (0.03, "event")])
def test_a_stormy_share_gets_no_wider_window(off: float, kind: str) -> None:
    """Its nights move by more than 3 %, but these two bars stand still."""
    frame = walk_frame("X", weekdays(300), 0, volatility=0.03)
    values = frame.select("open", "high", "low", "close", "volume").to_numpy().copy()
    values[DAY:, :4] *= 0.5 * np.exp(off) * values[DAY - 1, 3] / values[DAY, 3]
    for day in (DAY - 1, DAY):
        values[day, :3] = values[day, 3]
    assert next(j for j in find_jumps(values) if j.row == DAY).kind == kind


@pytest.mark.parametrize("move", [0.5, 2 / 3, 0.34, 0.72, 2.0, 1.4])
def test_a_day_of_news_is_a_move_at_any_ratio(move: float) -> None:
    assert only(jumped(move, volume=15, span=6)).kind == "move"
    assert only(jumped(move, volume=20)).kind == "move"
    without = jumped(move, span=12)
    without[:, 4] = 0
    assert only(without).kind == "move"


def test_the_volume_that_a_split_makes_is_no_news() -> None:
    assert only(jumped(0.1, shares=10)).kind == "split"
    assert only(jumped(0.1, shares=10, volume=2)).kind == "split"
    assert only(jumped(0.5, volume=15)).kind == "move"


def test_a_fall_that_opens_between_two_ratios_is_no_split() -> None:
    """Opens at 0.58 and closes at 0.65 of the last close: only the close is like 3 for 2."""
    values = bars()
    before = values[DAY - 1, 3]
    values[DAY:, :4] *= 0.65 * before / values[DAY, 3]
    values[DAY, 0] = values[DAY, 2] = 0.58 * before
    assert only(values).kind != "split"
    values[DAY, 0] = values[DAY, 1] = 0.665 * before
    values[DAY, 2] = values[DAY, 3]
    assert only(values).kind == "split"


def test_a_fall_during_the_day_is_a_move() -> None:
    values = bars()
    values[DAY:, 3] /= 2
    values[DAY + 1 :, :3] /= 2
    values[DAY, 2] = values[DAY, 3]
    assert only(values).kind == "move"


def test_the_bars_of_a_day_count_together() -> None:
    """The first minutes of every session are busy: that is no news."""
    times = (weekdays(60)[:, None] + (14 + np.arange(7)) * np.timedelta64(1, "h")).ravel()
    frame = walk_frame("X", times, volatility=0.004)
    values = frame.select("open", "high", "low", "close", "volume").to_numpy().copy()
    values[::7, 4] *= 8
    at = 7 * 30
    values[at:, :4] *= 0.5
    values[at, 0] = values[at - 1, 3] * 0.5
    values[at, 1], values[at, 2] = values[at, :4].max(), values[at, :4].min()
    (jump,) = find_jumps(values, times)
    assert (jump.row, jump.split) == (at, "2-for-1")
    assert find_jumps(values, times + np.timedelta64(5, "h"))[0].row == at


def test_the_weeks_of_a_market_open_day_and_night_are_no_sessions() -> None:
    hours = np.datetime64("2015-01-05", "ns") + np.arange(24 * 7 * 20) * np.timedelta64(1, "h")
    times = hours[(hours.astype("datetime64[D]").astype(int) + 3) % 7 < 5]
    week = np.arange(len(times)) // 120 == 10
    close = 100 * np.exp(np.cumsum(0.0025 * week))  # 35 % in a week, hour by hour
    values = np.column_stack([close, close, close, close, np.ones(len(times))])
    assert find_jumps(values, times) == []


def _frame(move: float, **how: float) -> pl.DataFrame:
    values = jumped(move, **how)  # type: ignore[arg-type]
    columns = dict(zip(("open", "high", "low", "close", "volume"), values.T, strict=True))
    return pl.DataFrame({"item_id": ["X"] * 300, "timestamp": weekdays(300)} | columns)


@pytest.mark.parametrize(
    ("move", "how", "rule", "lines"),
    [
        (0.5, {}, "split_jump", ["2,split (a split)", "2,dividend (a spin-off", "1,split (a real"]),
        (0.1, {"shares": 10.0}, "split_jump", ["10,split (a split)"]),
        (0.714, {}, "event_jump", ["1.401,dividend (a spin-off", "1,split (a real move)"]),
        (1.3, {}, "event_jump", ["0.7692,split (a split)", "1,split (a real move)"]),
        (0.714, {"volume": 10.0, "span": 4.0}, "large_move", ["1,split (a real move)"]),
    ],
)
def test_each_jump_prints_the_lines_to_paste(
    move: float, how: dict[str, float], rule: str, lines: list[str]
) -> None:
    good = walk_frame("G", weekdays(300))
    loaded = load_panel(pl.concat([_frame(move, **how), good]))
    (finding,) = [f for f in loaded.report.findings if f.item == "X"]
    assert finding.rule == rule
    day = str(weekdays(300)[DAY])[:10]
    for line in lines:
        assert f"X,{day},{line}" in finding.message
    assert ("X" in loaded.panel.items) == (rule != "split_jump")
    (draft,) = loaded.report.drafts
    assert draft.line in finding.message
