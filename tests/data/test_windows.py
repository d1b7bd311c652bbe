"""Windows: contexts end at the origin, labels follow it, NaN only where the panel has a hole."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foresweep.data.panel import CLOSE, Panel, panel_from_frame
from foresweep.data.splits import Cut, PartName, make_split
from foresweep.data.windows import TrainWindows, Windows
from foresweep.errors import NotEnoughData
from panels import every_day, make_frame, make_panel, walk_frame, weekdays
from strategies import ragged_panels

BARS = 400


def _windows(panel: Panel, part: PartName = "val", horizon: int = 5) -> Windows:
    split = make_split(panel, Cut(horizon))
    return Windows(panel, split, split.part(part))


def _changed(frame: pl.DataFrame, item: str, time: np.datetime64, column: str) -> pl.DataFrame:
    """The frame with one number 1 % larger."""
    here = (pl.col("item_id") == item) & (pl.col("timestamp") == pl.lit(time))
    larger = pl.when(here).then(pl.col(column) * 1.01).otherwise(pl.col(column))
    return frame.with_columns(larger.alias(column))


@given(ragged_panels(), st.integers(1, 6), st.integers(33, 80))
def test_a_cell_is_nan_exactly_where_origin_label_or_context_is_missing(
    panel: Panel, horizon: int, length: int
) -> None:
    split = make_split(panel, Cut(horizon))
    part = split.part("val")
    windows = Windows(panel, split, part)
    valid = np.isfinite(windows.as_panel(np.zeros(len(windows))))
    for o, position in enumerate(part.origins):
        for i in range(panel.num_items):
            assert valid[o, i] == _cell_is_valid(panel, i, int(position), horizon, part.stop)
    context = windows.context(length)
    assert np.array_equal(np.isnan(context.values[..., CLOSE]), ~context.mask)


def _cell_is_valid(panel: Panel, item: int, position: int, horizon: int, stop: int) -> bool:
    """The definition, bar by bar."""
    calendar = panel.calendars[panel.calendar_of[item]].tolist()
    whole = set(panel.timeline_of(item).tolist())
    if position not in whole or sum(p <= position for p in whole) < 32:
        return False
    labels = [p for p in calendar if p > position][:horizon]
    return len(labels) == horizon and labels[-1] < stop and all(p in whole for p in labels)


def test_context_and_labels_are_the_bars_before_and_after_the_origin() -> None:
    panel = make_panel(3, BARS)
    windows = _windows(panel)
    context = windows.context(40)
    for n in range(len(windows)):
        bars, row = panel.bars[windows.item[n]].values, windows.row[n]
        assert np.array_equal(context.values[n], bars[row - 39 : row + 1])
        assert np.array_equal(windows.label_bars[n], bars[row + 1 : row + 6])
        assert windows.last_close[n] == bars[row, CLOSE] == context.last_close[n]
        stamps = panel.timestamps_of(int(windows.item[n]))
        assert np.array_equal(context.timestamps[n], stamps[row - 39 : row + 1])
        assert np.array_equal(context.future_timestamps[n], stamps[row + 1 : row + 6])
    assert np.array_equal(windows.labels, windows.label_bars[:, :, CLOSE])


def test_a_context_skips_masked_rows_and_takes_older_ones() -> None:
    frame = make_frame(1, BARS)
    split_at = make_split(make_panel(1, BARS), Cut(5)).part("val").origins[0]
    close = frame["close"].to_numpy().copy()
    close[split_at - 3] = np.nan
    panel = panel_from_frame(frame.with_columns(close=close))
    context = _windows(panel).context(40)
    rows = [*range(split_at - 40, split_at - 3), *range(split_at - 2, split_at + 1)]
    assert np.array_equal(context.values[0, :, CLOSE], close[rows])
    assert context.mask[0].all()


def test_a_short_history_is_masked_on_the_left() -> None:
    panel = make_panel(1, BARS)
    windows = _windows(panel, "tune")
    context = windows.context(BARS)
    assert context.lengths.tolist() == (windows.row + 1).tolist()
    assert not context.mask[0, 0]
    assert np.isnat(context.timestamps[0, 0])
    assert np.isnan(context.values[0, 0]).all()
    assert np.array_equal(context.last(40).values, windows.context(40).values)


def test_batches_in_any_size_and_selection_give_the_same_contexts() -> None:
    windows = _windows(make_panel(3, BARS))
    whole = windows.context(40)
    for size in (1, 7, 1000):
        parts = [context.values for _, context in windows.batches(40, size)]
        assert np.array_equal(np.concatenate(parts), whole.values)
    chosen = np.array([5, 2, 9])
    taken = whole.take(chosen)
    assert np.array_equal(taken.values, windows.context(40, chosen).values)
    assert taken.item_ids == windows.context(40, chosen).item_ids


def test_windows_go_origin_by_origin_and_lay_out_as_a_panel() -> None:
    windows = _windows(make_panel(3, BARS))
    assert (np.diff(windows.origin) >= 0).all()
    table = windows.as_panel(windows.last_close)
    assert table.shape == windows.shape
    assert np.array_equal(table[windows.origin, windows.column], windows.last_close)


def test_training_values_are_views_of_the_panel() -> None:
    panel = make_panel(2, BARS)
    split = make_split(panel, Cut(5))
    train = TrainWindows(panel, split, split.part("train"))
    assert np.shares_memory(train.values(1), panel.bars[1].values)
    assert len(train.values(1)) == 260


def test_a_training_cut_is_the_rows_from_its_start() -> None:
    panel = make_panel(3, BARS)
    split = make_split(panel, Cut(5))
    train = TrainWindows(panel, split, split.part("train"))
    item, row = train.starts(40, 5)
    chosen = np.array([0, len(item) // 2, len(item) - 1])
    values, times = train.cut(item[chosen], row[chosen], 45)
    for n, k in enumerate(chosen):
        assert np.array_equal(values[n], train.values(item[k])[row[k] : row[k] + 45])
        assert np.array_equal(times[n], train.timestamps(item[k])[row[k] : row[k] + 45])
    assert len(item) == 3 * (260 - 45 + 1)


def test_a_training_window_never_spans_a_gap_in_its_labels() -> None:
    frame = make_frame(2, BARS)
    holed = frame.filter((pl.col("item_id") == "A0") | (pl.col("timestamp") != weekdays(BARS)[100]))
    panel = panel_from_frame(holed)
    split = make_split(panel, Cut(5))
    train = TrainWindows(panel, split, split.part("train"))
    item, row = train.starts(40, 5)
    origins = set((row[item == 1] + 39).tolist())
    assert 94 in origins  # its labels are rows 95..99
    assert origins.isdisjoint(range(95, 100))
    assert 100 in origins


@pytest.mark.parametrize(("item", "row"), [(0, 216), (1, -1)])
def test_a_cut_that_leaves_the_part_is_refused(item: int, row: int) -> None:
    panel = make_panel(2, BARS)
    split = make_split(panel, Cut(5))
    train = TrainWindows(panel, split, split.part("train"))
    train.cut(np.array([0]), np.array([215]), 45)
    with pytest.raises(IndexError, match="leaves 'train'"):
        train.cut(np.array([item]), np.array([row]), 45)


def test_a_context_longer_than_train_is_refused_with_numbers() -> None:
    panel = make_panel(2, BARS)
    split = make_split(panel, Cut(5))
    with pytest.raises(NotEnoughData, match=r"258 \+ 5.*longest has 260"):
        TrainWindows(panel, split, split.part("train")).starts(258, 5)


@pytest.mark.parametrize("part", ["tune", "val", "test"])
def test_the_fingerprint_sees_labels_items_and_horizon(part: PartName) -> None:
    frame = make_frame(3, BARS)
    windows = _windows(panel_from_frame(frame), part)
    label = windows.part.origins[2] + 3
    time = windows.panel.timeline[label]
    changed = _windows(panel_from_frame(_changed(frame, "A1", time, "close")), part)
    fewer = _windows(panel_from_frame(frame.filter(pl.col("item_id") != "A2")), part)
    other = _windows(
        panel_from_frame(frame.with_columns(pl.col("item_id").replace("A2", "B"))), part
    )
    longer = _windows(panel_from_frame(frame), part, horizon=6)
    prints = {w.fingerprint for w in (windows, changed, fewer, other, longer)}
    assert len(prints) == 5


@given(st.integers(0, 2), st.integers(0, BARS - 1))
def test_the_fingerprint_does_not_see_a_bar_outside_its_part(item: int, bar: int) -> None:
    frame = make_frame(3, BARS)
    windows = _windows(panel_from_frame(frame))
    part = windows.part
    changed = _changed(frame, f"A{item}", windows.panel.timeline[bar], "close")
    same = _windows(panel_from_frame(changed)).fingerprint == windows.fingerprint
    seen = part.origins[0] <= bar <= part.origins[-1] + 5  # stride 1: every bar between counts
    assert part.stride == 1
    assert same == (not seen)


def test_the_fingerprint_survives_rebasing() -> None:
    frame = make_frame(2, BARS)
    rebased = frame.with_columns(pl.col("open", "high", "low", "close") * 0.97)
    assert (
        _windows(panel_from_frame(frame)).fingerprint
        == _windows(panel_from_frame(rebased)).fingerprint
    )


def test_a_label_on_a_masked_row_empties_only_the_cells_that_need_it() -> None:
    frame = make_frame(6, BARS)
    part = make_split(make_panel(6, BARS), Cut(5)).part("val")
    hole = int(part.origins[6])
    low = frame["low"].to_numpy().copy()
    low[hole] = np.nan  # A0
    windows = _windows(panel_from_frame(frame.with_columns(low=low)))
    valid = np.isfinite(windows.as_panel(np.zeros(len(windows))))
    assert valid[:, 1:].all()
    touched = (part.origins <= hole) & (hole <= part.origins + 5)
    assert np.array_equal(valid[:, 0], ~touched)


def test_a_stock_among_coins_is_not_scored_beyond_its_part() -> None:
    """Five coins make weekends eligible; ten sessions of a stock then last fourteen bars."""
    coins = [walk_frame(f"C{k}", every_day(700)) for k in range(5)]
    panel = panel_from_frame(pl.concat([*coins, walk_frame("S", weekdays(500))]))
    split = make_split(panel, Cut(10, stride=1))
    for part in split.parts[1:]:
        windows = Windows(panel, split, part)
        stock = windows.item == panel.index("S")
        positions = panel.timeline_of(panel.index("S"))
        assert positions[windows.row[stock] + 10].max() < part.stop
        assert stock.any()
        last = part.origins[windows.origin[~stock]].max()
        assert part.origins[windows.origin[stock]].max() < last == part.origins[-1]


def test_a_window_needs_exactly_the_least_context() -> None:
    panel = make_panel(1, BARS)
    first = int(make_split(panel, Cut(5)).part("tune").origins[0])
    for least, scored in ((first + 1, True), (first + 2, False)):
        split = make_split(panel, Cut(5, min_context=least, max_context=least))
        windows = Windows(panel, split, split.part("tune"))
        assert (windows.row[0] == first) == scored


def test_training_labels_begin_inside_the_part() -> None:
    panel = make_panel(2, BARS)
    split = make_split(panel, Cut(5))
    val = TrainWindows(panel, split, split.part("val"))
    _, times = val.cut(*val.starts(40, 5), 45)
    assert times[:, 40].min() == panel.timeline[split.part("val").start]
