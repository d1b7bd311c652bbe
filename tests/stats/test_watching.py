"""A watch over loss differences: seldom wrong, soon awake, also after a good half-year."""

from __future__ import annotations

import numpy as np
import pytest

from foresweep.stats.sequential import SequentialTest
from foresweep.stats.watching import (
    RESTART,
    Reference,
    ever_above,
    reference_of,
    shares,
)

YEAR = 250


def overlapping(lags: int, columns: int, seed: int = 0, years: int = 1) -> np.ndarray:
    """Means of lags + 1 neighbours of fat-tailed noise, [T, K], of variance 1."""
    noise = (
        np.random.default_rng(seed).standard_t(5, (years * YEAR + lags, columns)) / (5 / 3) ** 0.5
    )
    size = lags + 1
    total = np.cumsum(np.vstack([np.zeros(columns), noise]), axis=0)
    return (total[size:] - total[:-size]) / size**0.5


def known(lags: int) -> Reference:
    found = reference_of(
        overlapping(lags, 1, seed=99)[:: lags + 1, 0], lags=0, stride=lags + 1, horizon=lags + 1
    )
    assert found is not None
    return found


@pytest.mark.parametrize("lags", [0, 4])
@pytest.mark.parametrize("informed", [True, False])
def test_a_mean_of_zero_is_seldom_found_in_a_year(lags: int, informed: bool) -> None:
    reference = known(lags) if informed else None
    pvalues = ever_above(overlapping(lags, 100), lags=lags, level=0.05, reference=reference)
    assert (pvalues[-1] < 0.05).mean() <= 0.05


@pytest.mark.parametrize(("lags", "since"), [(0, 0), (0, 125), (4, 0), (4, 125)])
def test_a_step_is_found_within_60_origins_whenever_it_comes(lags: int, since: int) -> None:
    d = overlapping(lags, 30, seed=3)
    d[since:] += 2.5 if lags else 1.0
    pvalues = ever_above(d, lags=lags, level=0.05, reference=known(lags))
    assert (pvalues[since + 60 - 1] < 0.05).mean() >= 0.9


def test_a_step_after_a_good_half_year_is_lost_on_a_test_that_never_begins_anew() -> None:
    """Why there are several beginnings."""
    d = overlapping(0, 1, seed=3)[:, 0]
    d[125:] += 1.0
    d[:125] -= 1.0  # it was better than the benchmark before
    plain = SequentialTest(level=0.05)
    assert not plain.update(d[:185]).found
    assert ever_above(d[:185, None], lags=0, level=0.05, reference=known(0))[-1, 0] < 0.05


def test_with_one_beginning_it_is_the_sequential_test_at_its_share_of_the_level() -> None:
    d = overlapping(0, 1, seed=5)[:RESTART, 0] + 0.9
    plain = SequentialTest(level=0.0125).update(d).pvalue
    assert ever_above(d[:, None], lags=0, level=0.05)[-1, 0] == pytest.approx(4 * plain, rel=1e-12)


def test_pvalues_only_fall_and_a_longer_record_does_not_change_them() -> None:
    d = overlapping(0, 3, seed=7)
    whole = ever_above(d, lags=0, level=0.05)
    assert (np.diff(whole, axis=0) <= 0).all()
    assert np.array_equal(ever_above(d[:130], lags=0, level=0.05), whole[:130])


def test_the_shares_of_the_level_never_add_to_more_than_all_of_it() -> None:
    assert shares(3) == [0.25, 0.375, 0.125]
    assert 0.99 < sum(shares(200)) < 1


def test_of_no_record_and_of_forecasts_alike_nothing_is_said() -> None:
    assert ever_above(np.zeros((0, 1)), lags=0, level=0.05).shape == (0, 1)
    assert (ever_above(np.zeros((90, 1)), lags=0, level=0.05) == 1).all()


def test_too_few_or_equal_losses_on_val_are_no_reference() -> None:
    assert reference_of(np.zeros(60), lags=0, stride=1, horizon=1) is None
    assert reference_of(overlapping(0, 1)[:19, 0], lags=0, stride=1, horizon=1) is None
    gaps = overlapping(0, 1)[:, 0]
    gaps[::2] = np.nan
    found = reference_of(gaps, lags=0, stride=5, horizon=5)
    assert found is not None
    assert found.variance == pytest.approx(5.0, rel=0.4)


def test_origins_far_apart_do_not_count_for_the_bars_between() -> None:
    """A sweep with a wide stride knows the variance of single bars, not of ten together."""
    d = overlapping(0, 1, seed=11, years=2)[:, 0]
    found = reference_of(d[::10], lags=0, stride=10, horizon=1)
    assert found is not None
    assert found.variance == pytest.approx(1.0, rel=0.5)
