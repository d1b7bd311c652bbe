"""Block bootstrap: how often each origin is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from foresweep.stats.significance import block_counts, block_length, overlap_lags
from independent_verdict import draws


@pytest.mark.parametrize(
    ("horizon", "stride", "length"), [(5, 5, 1), (5, 4, 2), (5, 1, 5), (1, 1, 1)]
)
def test_a_block_holds_the_origins_whose_labels_overlap(horizon, stride, length):
    assert block_length(horizon, stride) == length == overlap_lags(horizon, stride) + 1


@pytest.mark.parametrize(("num", "block"), [(10, 1), (10, 3), (7, 7), (9, 2)])
def test_counts_are_those_of_whole_blocks_of_neighbours(num, block):
    counts = block_counts(num, block=block, reps=50, seed=0)
    drawn = draws(num, block, 50)
    inside = np.arange(1, num) % block != 0
    np.testing.assert_array_equal((np.diff(drawn) % num)[:, inside], 1)
    for row, positions in zip(counts, drawn, strict=True):
        np.testing.assert_array_equal(row, np.bincount(positions, minlength=num))


def test_every_position_is_as_likely_and_a_block_longer_than_the_series_is_the_series():
    counts = block_counts(9, block=2, reps=4000, seed=1)
    np.testing.assert_array_equal(counts.sum(axis=1), 9)
    np.testing.assert_allclose(counts.mean(axis=0), 1.0, atol=0.06)
    np.testing.assert_array_equal(block_counts(5, block=20, reps=3, seed=1), 1.0)
