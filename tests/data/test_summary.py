"""The summary counts what the panel and its split hold."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import polars as pl
import pytest

from foresweep.cli.data import parts_line, sparkline
from foresweep.data.panel import CLOSE, panel_from_frame
from foresweep.data.splits import Cut, make_split
from foresweep.data.summary import summarise
from foresweep.data.windows import TrainWindows, Windows
from foresweep.errors import ConfigError
from panels import every_day, make_frame, make_panel, walk_frame, weekdays


def test_the_summary_counts_bars_gaps_and_windows() -> None:
    frame = make_frame(2, 400)
    close = frame["close"].to_numpy().copy()
    close[10] = np.nan
    gone = (pl.col("item_id") == "A1") & (pl.col("timestamp") == weekdays(400)[20])
    panel = panel_from_frame(frame.with_columns(close=close).filter(~gone))
    summary = summarise(panel, horizon=4)
    assert (summary.num_items, summary.num_times, summary.num_bars) == (2, 400, 798)
    assert (summary.num_masked, summary.step, summary.horizon) == (1, "1 day", 4)
    assert [(i.num_bars, i.num_masked, i.num_missing) for i in summary.items] == [
        (399, 1, 1),
        (399, 0, 1),
    ]
    split = make_split(panel, Cut(4))
    assert [p.name for p in summary.parts] == ["train", "tune", "val", "test"]
    for part in summary.parts[1:]:
        windows = Windows(panel, split, split.part(part.name))  # type: ignore[arg-type]
        assert part.num_windows == len(windows)
        assert part.num_origins == windows.shape[0]
    assert summary.max_context == split.max_context
    assert summary.parts[0].start == "2015-01-05"
    json.dumps(asdict(summary), allow_nan=False)


def test_the_windows_of_train_are_counted_at_a_context_that_is_named() -> None:
    panel = make_panel(2, 2000)
    summary = summarise(panel, horizon=5)
    assert (summary.train_context, summary.max_context) == (128, 1024)
    train = TrainWindows(panel, make_split(panel, Cut(5)), make_split(panel, Cut(5)).part("train"))
    assert summary.parts[0].num_windows == len(train.starts(128, 5)[0]) == 2 * (1300 - 128 - 5 + 1)
    assert summarise(panel, horizon=5, max_context=64).train_context == 64


def test_a_panel_too_short_for_the_horizon_is_summarised_with_the_reason() -> None:
    summary = summarise(make_panel(1, 100), horizon=50)
    assert summary.parts == ()
    assert summary.max_context is None
    assert summary.train_context is None
    assert "horizon 50 is too long" in summary.problem


def test_a_senseless_horizon_is_refused() -> None:
    with pytest.raises(ConfigError):
        summarise(make_panel(1, 100), horizon=0)


def test_the_step_is_told_in_words() -> None:
    def step(times: np.ndarray) -> str:
        return summarise(panel_from_frame(walk_frame("X", times))).step

    minutes = np.datetime64("2015-01-05T14:30", "ns") + np.arange(300) * np.timedelta64(15, "m")
    assert step(minutes) == "15 min"
    assert step(every_day(300)[::7]) == "7 days"
    assert step(minutes[::8]) == "2 h"
    assert summarise(panel_from_frame(walk_frame("X", every_day(300)))).items[0].always_open


def test_the_picture_shows_closes_where_they_are_and_marks_what_is_set_aside() -> None:
    late = walk_frame("B", weekdays(400)[200:])
    frame = pl.concat([walk_frame("A", weekdays(400)), late]).with_row_index("k")
    bad = pl.when(pl.col("k") == 155).then(float("nan")).otherwise(pl.col("close"))
    panel = panel_from_frame(frame.with_columns(close=bad).drop("k"))
    summary = summarise(panel)
    one, two = summary.items
    assert [k for k, n in enumerate(one.aside) if n] == [15]
    assert one.closes[-1] == panel.bars[0].values[-1, CLOSE]
    assert [c is None for c in two.closes] == [True] * 20 + [False] * 20
    drawn, marks = sparkline(one.closes, one.aside, "_-^").splitlines()
    assert (len(drawn), marks.rstrip()) == (40, " " * 15 + "^")
    low = min(range(40), key=lambda k: one.closes[k] or np.inf)
    assert drawn[low] == "_"
    assert sparkline(two.closes, two.aside, "_-^")[:20].isspace()
    assert parts_line(summary.parts).split("|") == ["", "train" + 20 * " ", "tun", "val ", "test"]
