"""Block bootstrap: what is drawn, and intervals of means."""

from __future__ import annotations

import numpy as np
import pytest

from foresweep.stats.significance import (
    block_counts,
    block_indices,
    block_length,
    mean_interval,
    overlap_lags,
)


@pytest.mark.parametrize(
    ("horizon", "stride", "length"), [(5, 5, 1), (5, 4, 2), (5, 1, 5), (1, 1, 1)]
)
def test_a_block_holds_the_origins_whose_labels_overlap(horizon, stride, length):
    assert block_length(horizon, stride) == length == overlap_lags(horizon, stride) + 1


@pytest.mark.parametrize(("num", "block"), [(10, 1), (10, 3), (7, 7), (5, 20)])
def test_draws_are_whole_blocks_of_neighbours(num, block):
    drawn = block_indices(num, block=block, reps=50, seed=3)
    assert drawn.shape == (50, num)
    inside = np.arange(1, num) % min(block, num) != 0
    np.testing.assert_array_equal((np.diff(drawn) % num)[:, inside], 1)


def test_counts_are_those_of_the_draws_and_every_position_is_as_likely():
    drawn = block_indices(9, block=2, reps=4000, seed=1)
    counts = block_counts(9, block=2, reps=4000, seed=1)
    np.testing.assert_array_equal(counts.sum(axis=1), 9)
    np.testing.assert_array_equal(counts[17], np.bincount(drawn[17], minlength=9))
    np.testing.assert_allclose(counts.mean(axis=0), 1.0, atol=0.06)


def test_a_mean_by_counts_is_the_mean_of_what_was_drawn():
    values = np.random.default_rng(0).standard_normal(12)
    drawn = block_indices(12, block=5, reps=30, seed=1)
    counts = block_counts(12, block=5, reps=30, seed=1)
    np.testing.assert_allclose(counts @ values / 12, values[drawn].mean(axis=1))


def test_an_interval_keeps_items_together():
    rng = np.random.default_rng(0)
    shared = np.repeat(rng.standard_normal((80, 1)), 30, axis=1)
    own = rng.standard_normal((80, 30))
    wide, narrow = (mean_interval(x, block=1) for x in (shared, own))
    assert wide.standard_error > 3 * narrow.standard_error
    assert wide.standard_error == pytest.approx(1 / np.sqrt(80), rel=0.15)


def test_an_interval_covers_the_mean_of_overlapping_sums():
    covered = 0
    for seed in range(200):
        steps = np.random.default_rng(seed).standard_normal(124)
        sums = np.convolve(steps, np.ones(5), "valid")
        found = mean_interval(sums, block=5, seed=seed, reps=400)
        covered += found.lower < 0 < found.upper
    assert 0.85 <= covered / 200 <= 0.97


def test_cells_without_a_loss_do_not_count():
    panel = np.random.default_rng(0).standard_normal((20, 4))
    panel[3, 1] = panel[5] = np.nan
    found = mean_interval(panel, block=1)
    assert found.mean == pytest.approx(np.nanmean(panel))
    assert np.isnan(mean_interval(np.full((4, 2), np.nan), block=1).mean)


def test_every_cell_weighs_the_same_in_every_draw():
    panel = np.full((20, 6), 3.0)
    panel[::2, 1:] = np.nan
    found = mean_interval(panel, block=1)
    assert (found.lower, found.upper) == (pytest.approx(3.0), pytest.approx(3.0))
