"""Mirrored and merged training windows: what they are made of, and where that ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from foresweep.data.panel import CLOSE, HIGH, LOW, OPEN, VOLUME
from foresweep.data.windows import TrainWindows
from foresweep.errors import NotEnoughData
from foresweep.evaluation.contract import contract_panel, contract_split
from foresweep.evaluation.leaks import replace_after
from foresweep.models.training.config import TrainingConfig
from foresweep.models.training.optimisation import Drawn, WindowSampler, merge, mirror

PANEL = contract_panel()
SPLIT = contract_split(PANEL)
TRAIN = TrainWindows(PANEL, SPLIT, SPLIT.part("train"))
CONTEXT, LABELS = 20, 4


def sampler(train: TrainWindows = TRAIN, **values: Any) -> WindowSampler:
    return WindowSampler(train, CONTEXT, LABELS, TrainingConfig(**values))


def draw(seed: int = 0, size: int = 400, train: TrainWindows = TRAIN, **values: Any) -> Drawn:
    return sampler(train, **values).draw(np.random.default_rng(seed), size)


def test_without_augmentation_windows_are_train_s_own() -> None:
    found = draw()
    chosen = np.random.default_rng(0).integers(len(TRAIN.starts(CONTEXT, LABELS)[0]), size=400)
    item, row = (x[chosen] for x in TRAIN.starts(CONTEXT, LABELS))
    bars, times = TRAIN.cut(item, row, CONTEXT + LABELS)
    np.testing.assert_array_equal(found.bars, bars)
    np.testing.assert_array_equal(found.timestamps, times)
    assert (found.merged == 1).all()
    assert not found.flipped.any()


def test_a_mirrored_window_moves_the_other_way_and_keeps_its_first_close() -> None:
    bars = draw().bars
    turned = mirror(bars)
    np.testing.assert_allclose(turned[:, 0, CLOSE], bars[:, 0, CLOSE], rtol=1e-12)
    moves = np.diff(np.log(bars[..., CLOSE]), axis=1)
    np.testing.assert_allclose(np.diff(np.log(turned[..., CLOSE]), axis=1), -moves, atol=1e-12)
    span = np.log(bars[..., HIGH] / bars[..., LOW])
    np.testing.assert_allclose(np.log(turned[..., HIGH] / turned[..., LOW]), span, atol=1e-12)
    np.testing.assert_array_equal(turned[..., VOLUME], bars[..., VOLUME])
    np.testing.assert_allclose(mirror(turned), bars, rtol=1e-12)


@pytest.mark.parametrize("alter", [mirror, lambda bars: merge(bars, 3)])
def test_altered_bars_are_still_bars(alter: Any) -> None:
    bars = alter(draw().bars)
    assert (bars[..., HIGH] >= bars[..., [OPEN, CLOSE]].max(axis=-1) * (1 - 1e-12)).all()
    assert (bars[..., LOW] <= bars[..., [OPEN, CLOSE]].min(axis=-1) * (1 + 1e-12)).all()


def test_half_of_the_windows_are_mirrored() -> None:
    found = draw(sign_flip=True)
    assert 150 < found.flipped.sum() < 250
    bars, _ = TRAIN.cut(found.item, found.row, CONTEXT + LABELS)
    np.testing.assert_array_equal(found.bars[~found.flipped], bars[~found.flipped])
    np.testing.assert_array_equal(found.bars[found.flipped], mirror(bars)[found.flipped])


def test_merged_bars_are_those_of_a_slower_market() -> None:
    hand = np.array([[[1, 5, 1, 2, 10], [2, 4, 0.5, 3, 20], [3, 9, 3, 8, 1], [8, 8, 2, 2, 2]]])
    np.testing.assert_array_equal(merge(hand, 2)[0], [[1, 5, 0.5, 3, 30], [3, 9, 2, 2, 3]])
    np.testing.assert_array_equal(merge(hand, 1), hand)


def test_every_number_of_merged_bars_is_drawn_evenly() -> None:
    found = draw(time_scale=3, size=900)
    counts = np.bincount(found.merged)[1:]
    assert len(counts) == 3
    assert (np.abs(counts - 300) < 60).all()
    for n in range(20):
        k, row = int(found.merged[n]), found.row[n]
        rows = TRAIN.values(found.item[n])[row : row + k * (CONTEXT + LABELS)]
        np.testing.assert_array_equal(found.bars[n], merge(rows[None], k)[0])
        times = TRAIN.timestamps(found.item[n])[row : row + k * (CONTEXT + LABELS)]
        np.testing.assert_array_equal(found.timestamps[n], times[k - 1 :: k])


def test_no_window_holds_a_bar_after_train_however_many_are_merged() -> None:
    """With every later bar replaced the same windows are drawn, to the bit, and the last bar of
    train is in reach."""
    blank = replace_after(PANEL, SPLIT.part("train").stop - 1)
    later = TrainWindows(blank, SPLIT, SPLIT.part("train"))
    options = {"time_scale": 4, "sign_flip": True, "size": 6000}
    found, again = draw(**options), draw(train=later, **options)
    np.testing.assert_array_equal(found.bars, again.bars)
    np.testing.assert_array_equal(found.timestamps, again.timestamps)
    ends = found.row + found.merged * (CONTEXT + LABELS)
    for k in range(1, 5):
        last = [e == len(TRAIN.values(i)) for e, i in zip(ends, found.item, strict=True)]
        assert np.any(np.array(last) & (found.merged == k)), f"no window of {k} reaches the end"


def test_draws_are_the_generator_s_alone() -> None:
    options = {"time_scale": 3, "sign_flip": True}
    np.testing.assert_array_equal(draw(seed=5, **options).bars, draw(seed=5, **options).bars)
    assert not np.array_equal(draw(seed=6, **options).bars, draw(seed=5, **options).bars)


def test_a_panel_too_short_for_its_longest_windows_is_said_so() -> None:
    with pytest.raises(
        NotEnoughData, match=r"time_scale=16: no item has 640 \+ 64 consecutive bars"
    ):
        WindowSampler(TRAIN, 40, LABELS, TrainingConfig(time_scale=16))
