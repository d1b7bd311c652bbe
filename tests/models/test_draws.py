"""Random numbers of a forecast."""

from __future__ import annotations

import numpy as np
import pytest

from foresweep.data.windows import Context, make_context
from foresweep.models.base import uniforms
from panels import make_panel


@pytest.fixture(scope="module")
def context() -> Context:
    panel = make_panel(2, 60)
    item, row = np.array([0, 0, 1, 1]), np.array([40, 41, 40, 41])
    return make_context(panel, item, row, 8, 3)


def test_draws_are_the_windows_own_whatever_stands_beside_them(context: Context) -> None:
    drawn = uniforms(context, seed=3, shape=(5, 2))
    order = np.array([2, 0, 3])
    np.testing.assert_array_equal(uniforms(context.take(order), seed=3, shape=(5, 2)), drawn[order])


def test_draws_do_not_depend_on_how_much_context_is_seen(context: Context) -> None:
    drawn = uniforms(context, seed=3, shape=(4,))
    np.testing.assert_array_equal(uniforms(context.last(2), seed=3, shape=(4,)), drawn)


def test_item_origin_and_seed_all_change_the_draws(context: Context) -> None:
    drawn = np.concatenate([uniforms(context, seed=s, shape=(4,)) for s in (0, 1)])
    assert len(np.unique(drawn)) == drawn.size


def test_more_samples_begin_with_the_same_ones(context: Context) -> None:
    few, many = (uniforms(context, seed=0, shape=(s, 3)) for s in (4, 9))
    np.testing.assert_array_equal(many[:, :4], few)


def test_draws_are_uniform(context: Context) -> None:
    drawn = uniforms(context, seed=0, shape=(20_000,))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    np.testing.assert_allclose(drawn.mean(axis=1), 0.5, atol=0.01)
    np.testing.assert_allclose(np.quantile(drawn, 0.9, axis=1), 0.9, atol=0.01)
