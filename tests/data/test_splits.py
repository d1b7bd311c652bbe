"""Splits: parts never overlap, purged bars between, labels inside, one cut for all items."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foresweep.data.panel import Panel
from foresweep.data.splits import SHARES, Cut, make_split
from foresweep.data.windows import TrainWindows, Windows
from foresweep.errors import ConfigError, NotEnoughData
from panels import make_panel
from strategies import ragged_panels

horizons = st.integers(1, 6)


@given(ragged_panels(), horizons)
def test_parts_never_overlap_and_purge_the_horizon(panel: Panel, horizon: int) -> None:
    split = make_split(panel, Cut(horizon))
    for before, after in zip(split.parts, split.parts[1:], strict=False):
        assert before.stop <= after.start
        between = (panel.eligible >= before.stop) & (panel.eligible < after.start)
        assert between.sum() == horizon
    assert all(p.start < p.stop for p in split.parts)


@given(ragged_panels(), horizons)
def test_every_label_of_every_item_lies_inside_its_part(panel: Panel, horizon: int) -> None:
    split = make_split(panel, Cut(horizon))
    for part in split.parts[1:]:
        windows = Windows(panel, split, part)
        for item, row, origin in zip(windows.item, windows.row, windows.origin, strict=True):
            positions = panel.timeline_of(int(item))
            assert positions[row] == part.origins[origin]
            labels = positions[row + 1 : row + 1 + horizon]
            assert len(labels) == horizon
            assert labels[0] >= part.start
            assert labels[-1] < part.stop


@given(ragged_panels(), horizons)
def test_training_sees_no_bar_after_train(panel: Panel, horizon: int) -> None:
    split = make_split(panel, Cut(horizon))
    train = TrainWindows(panel, split, split.part("train"))
    stop = panel.timeline[split.part("train").stop - 1]
    for i in range(panel.num_items):
        assert (train.timestamps(i) <= stop).all()
        assert len(train.values(i)) == len(train.timestamps(i))
    try:
        item, row = train.starts(16, horizon)
    except NotEnoughData:
        return
    _, times = train.cut(item, row, 16 + horizon)
    assert (times <= stop).all()
    assert (times[:, 16] >= panel.timeline[split.part("train").start]).all()


@given(ragged_panels(), horizons)
def test_origins_are_eligible_and_a_stride_apart(panel: Panel, horizon: int) -> None:
    for part in make_split(panel, Cut(horizon)).parts[1:]:
        at = np.searchsorted(panel.eligible, part.origins)
        assert (panel.eligible[at] == part.origins).all()
        assert (np.diff(at) == part.stride).all()
        assert part.stride == max(1, min(horizon, (part.num_bars - horizon) // 40))


def test_the_cut_follows_the_shares() -> None:
    panel = make_panel(2, 2000)
    split = make_split(panel, Cut(5))
    assert [p.num_bars for p in split.parts] == [1300, 195, 245, 245]
    assert [p.start for p in split.parts] == [0, 1305, 1505, 1755]
    assert [p.stop for p in split.parts] == [1300, 1500, 1750, 2000]
    assert sum(SHARES) == pytest.approx(1)


def test_the_first_origin_is_the_bar_before_the_part_and_the_last_label_its_last_bar() -> None:
    split = make_split(make_panel(1, 2000), Cut(5, stride=1))
    tune = split.part("tune")
    assert tune.origins[0] == tune.start - 1
    assert tune.origins[-1] == tune.stop - 1 - 5
    assert len(split.part("train").origins) == 0


def test_effective_origins_do_not_share_labels() -> None:
    split = make_split(make_panel(1, 2000), Cut(10, stride=1))
    val = split.part("val")
    assert len(val.origins) == val.num_bars - 10 + 1
    assert val.effective_origins(10) == pytest.approx((val.num_bars - 10) / 10 + 1)


@given(ragged_panels(), horizons, st.integers(1, 4))
def test_stretches_are_all_origins_in_order_and_what_is_learnt_ends_h_bars_before(
    panel: Panel, horizon: int, refits: int
) -> None:
    try:
        split = make_split(panel, Cut(horizon, refits=refits))
    except ConfigError:
        assert refits > 1
        return
    for name in ("val", "test"):
        part, stretches = split.part(name), split.stretches(panel, name)
        assert len(stretches) == refits
        assert [s.first for s in stretches] == [0, *(s.last for s in stretches[:-1])]
        assert stretches[-1].last == len(part.origins)
        sizes = [s.last - s.first for s in stretches]
        assert max(sizes) - min(sizes) <= 1
        for s in stretches:
            bars = panel.eligible
            first_label = bars[bars > part.origins[s.first]][0]
            assert ((bars >= s.known) & (bars < first_label)).sum() == horizon
    assert split.stretches(panel, "val")[0].known == split.part("tune").stop
    assert split.stretches(panel, "test")[0].known == split.part("val").stop
    assert len(split.stretches(panel, "tune")) == 1


def test_the_stride_grows_before_items_are_left_out() -> None:
    panel = make_panel(10, 2000)
    split = make_split(panel, Cut(1, max_windows=1000))
    assert split.items == tuple(range(10))
    assert all(len(p.origins) <= 100 for p in split.parts)
    assert max(p.stride for p in split.parts) > 1
    fewer = make_split(panel, Cut(1, max_windows=180))
    assert len(fewer.items) == 3
    assert all(len(p.origins) <= 60 for p in fewer.parts)
    assert fewer.items == make_split(panel, Cut(1, max_windows=180)).items
    assert fewer.items != make_split(panel, Cut(1, max_windows=180, seed=1)).items


def test_a_horizon_longer_than_the_data_is_refused_with_numbers() -> None:
    with pytest.raises(NotEnoughData, match=r"horizon 90 is too long.*'tune'.*of 400"):
        make_split(make_panel(1, 400), Cut(90))
    with pytest.raises(NotEnoughData, match=r"'tune' would have 0 bars after 90 purged ones"):
        make_split(make_panel(1, 400), Cut(90))
    with pytest.raises(NotEnoughData, match=r"'train' would have 260 bars, of 400 in all"):
        make_split(make_panel(1, 400), Cut(300))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"stride": 0}, "stride=0"),
        ({"max_context": 0}, "max_context=0"),
        ({"max_context": 5000}, "use at most 250"),
        ({"max_windows": 0}, "max_windows=0"),
        ({"min_context": -1}, "min_context=-1"),
        ({"refits": 0}, "refits=0"),
        ({"refits": 99}, r"refits 99 is more than the \d+ origins of val or test"),
        ({"shares": (0.5, 0.5, 0.0, 0.0)}, "four positive numbers"),
        ({"shares": (0.9, 0.9, 0.1, 0.1)}, "add to 1"),
    ],
)
def test_a_senseless_split_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_split(make_panel(1, 400), Cut(5, **options))  # type: ignore[arg-type]


def test_a_horizon_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="horizon=0"):
        make_split(make_panel(1, 400), Cut(0))


def test_the_cut_hash_sees_the_cut_dates() -> None:
    panel = make_panel(2, 400)
    first = make_split(panel, Cut(5)).cut_hash(panel)
    assert first == make_split(panel, Cut(5)).cut_hash(make_panel(2, 400))
    assert first != make_split(panel, Cut(5, shares=(0.6, 0.15, 0.125, 0.125))).cut_hash(panel)
    assert first != make_split(panel, Cut(5)).cut_hash(make_panel(2, 400, seed=1))
