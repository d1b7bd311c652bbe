"""Panels: masks, calendars, gaps, origins and the continued future."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given

from foresweep.data.panel import CLOSE, Panel, panel_from_frame
from foresweep.errors import DataError, UnknownName
from panels import every_day, make_frame, make_panel, walk_frame, weekdays
from strategies import ragged_panels


def _without(frame: pl.DataFrame, item: str, row: int) -> pl.DataFrame:
    """The frame without one item's `row`-th bar."""
    numbered = frame.with_columns(k=pl.int_range(pl.len()).over("item_id"))
    return numbered.filter((pl.col("item_id") != item) | (pl.col("k") != row)).drop("k")


def test_a_masked_row_stays_in_the_calendar_and_leaves_the_data() -> None:
    frame = make_frame(1, 100)
    close = frame["close"].to_numpy().copy()
    close[40] = np.nan
    panel = panel_from_frame(frame.with_columns(close=close))
    assert len(panel.timeline) == 100
    assert panel.bars[0].num_masked == 1
    assert panel.bars[0].sessions.tolist() == [*range(40), *range(41, 100)]


def test_a_missing_bar_is_a_gap_and_not_the_next_bar() -> None:
    panel = panel_from_frame(_without(make_frame(2, 100), "A1", 40))
    assert panel.bars[1].sessions.tolist() == [*range(40), *range(41, 100)]
    assert panel.bars[1].num_masked == 0


def test_the_rows_of_the_frame_come_back_whatever_their_order() -> None:
    frame = make_frame(3, 80)
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=3)
    assert panel_from_frame(shuffled).to_frame().equals(panel_from_frame(frame).to_frame())
    assert panel_from_frame(shuffled).hash == panel_from_frame(frame).hash


def test_volume_may_be_absent() -> None:
    panel = panel_from_frame(make_frame(1, 80).drop("volume"))
    assert (panel.bars[0].values[:, 4] == 0).all()


def test_a_missing_column_and_a_double_time_are_data_errors() -> None:
    frame = make_frame(1, 80)
    with pytest.raises(DataError, match="missing column close"):
        panel_from_frame(frame.drop("close"))
    with pytest.raises(DataError, match="two rows"):
        panel_from_frame(pl.concat([frame, frame[:1]]))
    with pytest.raises(DataError, match="no rows"):
        panel_from_frame(frame[:0])
    with pytest.raises(DataError, match="A0 has no whole row"):
        panel_from_frame(frame.with_columns(close=pl.lit(float("nan"))))


def test_the_hash_sees_prices_names_times_and_gaps() -> None:
    frame = make_frame(2, 100)
    plain = panel_from_frame(frame).hash
    dearer = frame.with_columns(close=pl.col("close") * (1 + 1e-12))
    renamed = frame.with_columns(item_id=pl.col("item_id").str.replace("A1", "B1"))
    later = frame.with_columns(timestamp=pl.col("timestamp") + pl.duration(days=7))
    others = [panel_from_frame(f).hash for f in (dearer, renamed, later)]
    assert len({plain, *others}) == 4
    alone = frame.filter(pl.col("item_id") == "A1")
    holed = panel_from_frame(_without(alone, "A1", 40))  # 40 is nobody's session
    gapped = panel_from_frame(_without(frame, "A1", 40)).select(["A1"])  # A0 has session 40
    assert holed.to_frame().equals(gapped.to_frame())
    assert holed.hash != gapped.hash


def test_selected_items_keep_the_calendars_of_the_whole_panel() -> None:
    panel = panel_from_frame(_without(make_frame(3, 100), "A1", 40))
    chosen = panel.select(["A2", "A1"])
    assert chosen.items == ("A1", "A2")
    assert chosen.bars[0].sessions.tolist() == panel.bars[1].sessions.tolist()
    assert np.array_equal(chosen.stacked[:99], panel.bars[1].values)
    with pytest.raises(UnknownName, match="did you mean 'A1'"):
        panel.select(["A1x"])


def test_bars_are_read_only_views_of_one_array() -> None:
    panel = make_panel(3, 100)
    assert all(np.shares_memory(panel.stacked, b.values) for b in panel.bars)
    assert np.array_equal(panel.stacked, np.concatenate([b.values for b in panel.bars]))
    with pytest.raises(ValueError, match="read-only"):
        panel.bars[0].values[0, 0] = 1.0


@given(ragged_panels())
def test_stacked_rows_are_each_items_rows_end_to_end(panel: Panel) -> None:
    for i in range(panel.num_items):
        span = slice(panel.offsets[i], panel.offsets[i + 1])
        assert np.array_equal(panel.stacked[span], panel.bars[i].values)
        assert np.array_equal(panel.stacked_sessions[span], panel.bars[i].sessions)
        calendar = panel.calendars[panel.calendar_of[i]]
        wanted = panel.timeline[calendar[panel.bars[i].sessions]]
        assert np.array_equal(panel.timestamps_of(i), wanted)
        assert np.array_equal(panel.timeline[panel.timeline_of(i)], wanted)


@given(ragged_panels())
def test_an_origin_has_a_bar_of_four_fifths_of_the_live_items(panel: Panel) -> None:
    eligible = set(panel.eligible.tolist())
    positions = [panel.timeline_of(i) for i in range(panel.num_items)]
    for t in range(len(panel.timeline)):
        live = sum(p[0] <= t <= p[-1] for p in positions)
        here = sum(t in p for p in positions)
        assert (t in eligible) == (here >= 0.8 * max(live, 1))


def test_a_round_the_clock_item_keeps_its_own_calendar() -> None:
    stocks = make_frame(2, 100)
    coin = walk_frame("COIN", every_day(140))
    panel = panel_from_frame(pl.concat([stocks, coin]))
    assert panel.calendar_of == (0, 0, 1)
    assert panel.bars[0].sessions.tolist() == list(range(100))
    assert panel.bars[2].sessions.tolist() == list(range(140))
    assert [panel.always_open(i) for i in range(3)] == [False, False, True]
    saturday = np.flatnonzero(panel.timeline == np.datetime64("2015-01-10"))
    assert panel.session_at(0, saturday).tolist() == [-1]
    assert panel.session_at(2, saturday).tolist() == [5]


def sessions_after(panel: Panel, item: int, session: int, count: int) -> np.ndarray:
    """[count] times of the sessions after one."""
    return panel.sessions_ahead(np.array([item]), np.array([session]), count)[0]


def test_the_future_of_weekdays_is_weekdays() -> None:
    panel = make_panel(1, 100)
    ahead = sessions_after(panel, 0, 99, 12)
    assert np.array_equal(ahead, weekdays(112)[100:])


def test_the_known_future_is_the_calendars_own() -> None:
    frame = make_frame(1, 100).filter(pl.col("timestamp") != pl.lit(weekdays(100)[50]))
    panel = panel_from_frame(frame)
    assert sessions_after(panel, 0, 49, 2).tolist() == weekdays(100)[51:53].tolist()


def test_a_stray_saturday_is_not_continued() -> None:
    times = np.sort(np.append(weekdays(100), np.datetime64("2015-05-16T00:00", "ns")))
    panel = panel_from_frame(walk_frame("A0", times))
    ahead = sessions_after(panel, 0, 100, 10).astype("datetime64[D]")
    assert np.is_busday(ahead).all()


def test_exchange_hours_are_continued_across_the_night_and_the_clock_change() -> None:
    hours = np.arange(7) * np.timedelta64(1, "h")
    summer, winter = np.timedelta64(13, "h"), np.timedelta64(14, "h")
    days = weekdays(100)
    opening = np.where(np.arange(100) < 60, summer, winter)
    times = (days[:, None] + opening[:, None] + hours).ravel()
    panel = panel_from_frame(walk_frame("A0", times))
    ahead = sessions_after(panel, 0, 699, 14)
    wanted = (weekdays(102)[100:, None] + winter + hours).ravel()
    assert np.array_equal(ahead, wanted)


def test_weekly_bars_are_continued_by_their_step() -> None:
    times = (np.datetime64("2015-01-02") + 7 * np.arange(120)).astype("datetime64[ns]")
    panel = panel_from_frame(walk_frame("A0", times))
    ahead = sessions_after(panel, 0, 119, 3)
    assert (np.diff(np.append(times[-1], ahead)) == np.timedelta64(7, "D")).all()


def test_close_column_is_the_fourth() -> None:
    frame = make_frame(1, 80)
    assert np.array_equal(panel_from_frame(frame).bars[0].values[:, CLOSE], frame["close"])


@pytest.mark.parametrize("step", ["MS", "ME", "QS", "QE", "BME", "BMS", "W-FRI", "YS"])
def test_dates_to_come_keep_the_rhythm_of_months_and_weeks(step: str) -> None:
    import pandas as pd

    index = pd.date_range("2004-01-01", periods=80, freq=step)
    frame = walk_frame("X", index[:70].to_numpy().astype("datetime64[ns]"))
    panel = panel_from_frame(frame)
    ahead = sessions_after(panel, 0, 69, 10)
    assert [str(t)[:10] for t in ahead] == [str(t)[:10] for t in index[70:].to_numpy()]


def test_a_week_that_ends_before_a_holiday_does_not_move_those_to_come() -> None:
    fridays = weekdays(400, "2015-01-02")[::5].copy()
    fridays[-1] -= np.timedelta64(1, "D")  # Good Friday
    panel = panel_from_frame(walk_frame("X", fridays))
    ahead = sessions_after(panel, 0, len(fridays) - 1, 2)
    assert (ahead - fridays[-1]).astype("timedelta64[D]").astype(int).tolist() == [8, 15]
