"""Tests that may be read for ever: beside ville, by hand, restarted, and how often they err."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from foresweep.errors import DataError
from foresweep.stats import sequential
from foresweep.stats.sequential import SequentialTest
from foresweep.stats.significance import diebold_mariano


def differences(num: int, seed: int, *, lags: int = 0, t_at_60: float = 0.0) -> np.ndarray:
    """[num] fat-tailed differences of forecasts `lags` + 1 ahead: volatility comes in spells, signs
    are independent. Without lags their mean has a t of `t_at_60` after 60."""
    rng = np.random.default_rng([seed, lags])
    long = num + lags
    log_volatility = np.zeros(long)
    for n in range(1, long):
        log_volatility[n] = 0.95 * log_volatility[n - 1] + 0.1 * rng.standard_normal()
    shocks = rng.standard_t(6, long) / math.sqrt(1.5) * np.exp(log_volatility - 0.05)
    path = np.cumsum(np.concatenate([[0.0], shocks]))
    moved = (path[lags + 1 :] - path[: -lags - 1]) / math.sqrt(lags + 1)
    return moved + t_at_60 / math.sqrt(60)


def ever(seeds: range, *, lags: int = 0, t_at_60: float = 0.0) -> tuple[float, float]:
    """Shares of years in which the asymptotic and the betting form ever find something."""
    read = []
    for seed in seeds:
        test = SequentialTest(lags=lags)
        x = differences(250, seed, lags=lags, t_at_60=t_at_60)
        for bar in x:
            test.update(bar)
        read.append((test.reading.found, test.reading.betting_pvalue < 0.05))
    found, bet = np.mean(read, axis=0)
    return float(found), float(bet)


def test_wealth_of_bets_is_that_of_ville_on_the_differences_as_cut():
    peer = pytest.importorskip("ville.sequential")
    x = differences(200, 3, t_at_60=2.0)
    ours = SequentialTest(level=0.05)
    ours.update(x)
    cut = [
        np.clip(x[n] / (sequential.CUT * np.abs(x[:n]).mean()), -1.0, 1.0)
        for n in range(sequential.FEWEST_SIZES, len(x))
    ]
    theirs = peer.BettingTest(0.0, bounds=(-1.0, 1.0), alternative="greater", alpha=0.05)
    theirs.update(cut)
    assert ours.reading.wealth == pytest.approx(math.exp(theirs.log_e_values_[-1]), rel=1e-12)


def test_bound_is_that_of_villes_one_sided_mixture_moved_to_student_t():
    peer = pytest.importorskip("ville._boundaries")
    from scipy import stats

    x = differences(150, 4, lags=4, t_at_60=1.0)
    test = SequentialTest(lags=4)
    found = test.update(x)
    dm = diebold_mariano(-x, np.zeros_like(x), lags=4)
    normal = float(peer.normal_mixture(150, 0.05, test.rho, one_sided=True)) / math.sqrt(150)
    reach = stats.t.isf(stats.norm.sf(normal), dm.df) * dm.standard_error
    assert found.mean == pytest.approx(dm.mean_difference)
    assert found.upper - found.mean == pytest.approx(reach, rel=1e-9)
    assert found.mean - found.lower == pytest.approx(reach, rel=1e-9)


def test_evidence_is_found_exactly_when_the_lower_bound_passes_0():
    test, crossed = SequentialTest(), False
    for x in differences(250, 8, t_at_60=2.0):
        reading = test.update(x)
        crossed = crossed or reading.lower > 0
        assert reading.found == crossed
    assert crossed


def test_of_five_sub_streams_the_wealth_is_the_mean_and_p_pays_for_peeking():
    x = differences(120, 5, lags=4, t_at_60=4.0)
    test = SequentialTest(lags=4)
    wealths, most = np.ones(5), np.ones(5)
    alone = [SequentialTest() for _ in range(5)]
    for n, bar in enumerate(x):
        test.update(bar)
        known = x[: max(n - 4, 0)]
        if len(known) < sequential.FEWEST_SIZES:
            continue
        y = float(np.clip(bar / (sequential.CUT * np.abs(known).mean()), -1.0, 1.0))
        bet = alone[n % 5]._bets[0]
        bet.place(y, 0.05)
        wealths[n % 5], most[n % 5] = bet.wealth, max(most[n % 5], bet.wealth)
    assert test.reading.wealth == pytest.approx(wealths.mean())
    expected = min(1.0, math.e * math.log(5) / most.mean())
    assert test.reading.betting_pvalue == pytest.approx(expected)


@pytest.mark.parametrize("lags", [0, 4])
def test_a_restart_after_any_bar_changes_no_bit(lags):
    x = differences(130, 6, lags=lags, t_at_60=2.0)
    whole = SequentialTest(lags=lags)
    whole.update(x)
    cut = SequentialTest(lags=lags)
    for start, end in ((0, 7), (7, 60), (60, 130)):
        cut = SequentialTest.from_state(json.loads(json.dumps(cut.state())))
        cut.update(x[start:end])
    assert cut.reading == whole.reading
    assert cut.state() == whole.state()


def test_order_matters_and_missing_origins_do_not():
    x = differences(60, 7, t_at_60=3.0)
    forth, back, holes = SequentialTest(), SequentialTest(), SequentialTest()
    forth.update(x)
    back.update(x[::-1])
    holes.update(np.insert(x, [5, 30], np.nan))
    assert holes.reading == forth.reading
    assert back.reading.wealth != forth.reading.wealth


def test_too_few_origins_say_nothing():
    reading = SequentialTest(lags=4).update(np.full(99, 1.0) + differences(99, 1, lags=4))
    assert (reading.lower, reading.upper, reading.pvalue) == (-math.inf, math.inf, 1.0)
    assert not reading.found


def test_what_cannot_be_is_refused_and_nothing_of_it_taken():
    test = SequentialTest()
    test.update([0.1, 0.2])
    with pytest.raises(DataError, match="infinite loss difference"):
        test.update([0.3, math.inf])
    assert test.reading.num == 2
    with pytest.raises(DataError, match=r"not -1, 0\.05 and 120"):
        SequentialTest(lags=-1)
    with pytest.raises(DataError, match="form 9"):
        SequentialTest.from_state(test.state() | {"form": 9})


def test_one_wild_day_carries_neither_form():
    x = np.concatenate([differences(100, 2), [500.0], differences(100, 9)])
    reading = SequentialTest().update(x)
    assert not reading.found
    assert reading.betting_pvalue > 0.05


def test_equal_forecasts_are_rarely_ever_told_apart_and_better_ones_mostly():
    false, false_bets = ever(range(12))
    true, true_bets = ever(range(6), t_at_60=2.0)
    assert max(false, false_bets) <= 0.05
    assert min(true, true_bets) >= 0.8


@pytest.mark.soak
@pytest.mark.parametrize("lags", [0, 4])
def test_over_many_years_of_daily_looks_the_level_holds(lags):
    found, bets = ever(range(1000, 1600), lags=lags)
    assert found <= 0.05
    assert bets <= 0.05


@pytest.mark.soak
def test_a_true_t_of_two_at_sixty_is_found_within_a_year():
    found, _ = ever(range(1000, 1400), t_at_60=2.0)
    assert found >= 0.9
