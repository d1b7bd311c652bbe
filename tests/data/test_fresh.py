"""Newer bars are drawn as often as they are asked to be; the rest is a replay of old ones."""

from __future__ import annotations

import numpy as np
import pytest

from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import Fresh, TrainWindows
from panels import make_panel


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_windows_with_a_fresh_label_have_their_share(share: float) -> None:
    panel = make_panel(num_bars=600)
    split = make_split(panel, Cut(horizon=5))
    part = split.part("train")
    after = panel.timeline[part.stop - 40]
    plain = TrainWindows(panel, split, part)
    fresh = TrainWindows(panel, split, part, Fresh(after, share))
    item, row = fresh.starts(32, 5)
    last = panel.stacked_times[panel.offsets[item] + row + 36]
    assert (last > after).mean() == pytest.approx(share, abs=0.03)
    old = set(zip(*map(tuple, plain.starts(32, 5)), strict=True))
    assert set(zip(item, row, strict=True)) == old  # none is lost, none is made up
    assert last.max() <= panel.timeline[part.stop - 1]


def test_where_more_bars_are_fresh_than_asked_for_nothing_is_repeated() -> None:
    panel = make_panel(num_bars=600)
    split = make_split(panel, Cut(horizon=5))
    part = split.part("train")
    plain = TrainWindows(panel, split, part).starts(32, 5)
    fresh = TrainWindows(panel, split, part, Fresh(panel.timeline[0], 0.5)).starts(32, 5)
    assert all(np.array_equal(a, b) for a, b in zip(plain, fresh, strict=True))
