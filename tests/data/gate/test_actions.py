"""Actions: what the file says, what prices show, what a split looks like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foresweep.data.gate.actions import (
    Action,
    Draft,
    adjust_by_actions,
    adjust_by_close,
    read_actions,
    tells_of_splits,
    write_actions,
)
from foresweep.errors import DataError
from panels import walk_frame, weekdays


def test_an_actions_file_is_read_in_any_case_and_order(tmp_path: Path) -> None:
    path = tmp_path / "actions.csv"
    path.write_text("RATIO,Date,Symbol\n2,2005-02-28,AAPL\n7,06/09/2014,AAPL\n1,2000-09-29,IBM\n")
    with pytest.raises(DataError, match=r"actions\.csv: '06/09/2014' may be 2014-06-09"):
        read_actions(path)  # one form of dates a file
    path.write_text("RATIO,Date,Symbol\n2,2005-02-28,AAPL\n7,2014-06-09,AAPL\n1,2000-09-29,IBM\n")
    found = read_actions(path)
    assert [(a.ratio, str(a.date)[:10], a.kind) for a in found["AAPL"]] == [
        (2.0, "2005-02-28", "split"),
        (7.0, "2014-06-09", "split"),
    ]
    assert found["IBM"][0].ratio == 1


@pytest.mark.parametrize(
    "row", ["AAPL,2005-02-28,0", "AAPL,2005-02-28,-2", "AAPL,soon,2", "AAPL,2005-02-28,two"]
)
def test_a_senseless_action_is_named_with_its_row(tmp_path: Path, row: str) -> None:
    path = tmp_path / "actions.csv"
    path.write_text(f"item,date,ratio\nIBM,2001-01-02,2\n{row}\n")
    with pytest.raises(DataError, match=r"actions\.csv:3"):
        read_actions(path)


def test_an_actions_file_without_its_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "actions.csv"
    path.write_text("item,date\nAAPL,2005-02-28\n")
    with pytest.raises(DataError, match="columns item, date, ratio"):
        read_actions(path)
    path.write_text("item,date,ratio,kind\nAAPL,2005-02-28,2,merger\n")
    with pytest.raises(DataError, match="split or dividend"):
        read_actions(path)


def _bars(seed: int = 0, num_bars: int = 200) -> np.ndarray:
    frame = walk_frame("X", weekdays(num_bars), seed)
    return frame.select("open", "high", "low", "close", "volume").to_numpy()


def test_adjusting_by_a_ratio_makes_the_same_returns_as_by_the_adjusted_close() -> None:
    bars, times = _bars(), weekdays(200)
    raw = adjust_by_actions(bars, times, [Action(times[80], 0.25)])  # undo a 4-for-1 split
    assert raw[79, 3] == pytest.approx(bars[79, 3] * 4)
    assert raw[79, 4] == pytest.approx(bars[79, 4] / 4)
    assert np.array_equal(raw[80:], bars[80:])
    by_ratio = adjust_by_actions(raw, times, [Action(times[80], 4.0)])
    by_close = adjust_by_close(raw, bars[:, 3])
    assert by_ratio[:, :4] == pytest.approx(bars[:, :4])
    assert by_close[:, :4] == pytest.approx(bars[:, :4])
    assert tells_of_splits(raw[:, 3], bars[:, 3])
    assert not tells_of_splits(bars[:, 3], bars[:, 3])


def test_a_draft_is_read_back_as_it_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "draft.csv"
    drafts = [
        Draft("0700", "2014-05-15", 5.0, "split", "price 0.2 times"),
        Draft("A,B", "2012-10-02", 1.517, "dividend", 'like a "spin-off"'),
    ]
    listed = {"AAPL": [Action(np.datetime64("2005-02-28", "ns"), 2.0)]}
    write_actions(path, drafts, listed)
    found = read_actions(path)
    assert [(i, str(a.date)[:10], a.ratio, a.kind) for i, (a,) in found.items()] == [
        ("AAPL", "2005-02-28", 2.0, "split"),
        ("0700", "2014-05-15", 5.0, "split"),
        ("A,B", "2012-10-02", 1.517, "dividend"),
    ]
    with pytest.raises(DataError, match="is there already and is not overwritten"):
        write_actions(path, [])
