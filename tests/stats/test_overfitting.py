"""Measures of overfitting: against purgedcv's numbers, published examples, and by hand.

Numbers of purgedcv 0.1.11 (not installed here) come from

    x = default_rng(7).standard_normal((240, 12)); x[:, 3] += 0.1
    probability_of_backtest_overfitting(x.T, 8, metric=np.mean)          0.4, loss 31/70
    y = default_rng(7).standard_normal((97, 7))
    probability_of_backtest_overfitting(y.T, 10, metric=np.mean)         0.5555..., loss 0.98015...
    r = 0.05 + default_rng(8).standard_t(4, 250)
    probabilistic_sharpe_ratio(r, 0.02)                                  0.66108115788700
    deflated_sharpe_ratio(r, 30, 0.004)                                  0.09206393654065

where loss is the share of `is_oos_performance[:, 1] < 0`. Its moments are corrected for bias and
its ratio is not, so they are handed over.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from foresweep.stats import overfitting as room
from foresweep.stats.overfitting import (
    cscv,
    cscv_blocks,
    debiased_best,
    deflated_sharpe,
    effective_trials,
    expected_best,
    expected_maximum,
    overtuning,
    probabilistic_sharpe,
    sharpe_from_moments,
)
from foresweep.stats.stepm import simultaneous_bounds


def rng(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_cscv_gives_the_numbers_of_purgedcv():
    x = rng().standard_normal((240, 12))
    x[:, 3] += 0.1
    found = cscv(x, num_blocks=8)
    assert found.pbo == pytest.approx(0.4)
    assert found.probability_of_loss == pytest.approx(31 / 70)
    uneven = cscv(rng().standard_normal((97, 7)), num_blocks=10)
    # purgedcv counts ranks strictly below the median (0.5555...), the paper logits <= 0: of an odd
    # number of trials a pick may be the median itself
    assert uneven.pbo == pytest.approx(218 / 252)
    assert uneven.probability_of_loss == pytest.approx(0.9801587301587301)


def test_cscv_is_what_a_plain_loop_finds():
    d = rng(1).standard_normal((31, 5)) + 0.1
    blocks = np.array_split(np.arange(31), 6)
    lost = low = 0
    for half in combinations(range(6), 3):
        inside = np.concatenate([blocks[k] for k in half])
        outside = np.setdiff1d(np.arange(31), inside)
        pick = d[inside].mean(axis=0).argmax()
        means = d[outside].mean(axis=0)
        lost += means[pick] < 0
        low += stats.rankdata(means)[pick] / 6 <= 0.5
    found = cscv(d, num_blocks=6)
    assert (found.probability_of_loss, found.pbo) == (lost / 20, low / 20)


def test_of_one_trial_there_is_no_median_to_be_below():
    assert cscv(rng(4).standard_normal((40, 1)), num_blocks=8).pbo is None


def test_a_trial_that_is_always_better_never_loses_and_one_that_never_is_always_does():
    d = rng(2).standard_normal((48, 6)) * 0.1
    d[:, 2] += 1.0
    assert cscv(d, num_blocks=8).probability_of_loss == 0.0
    assert cscv(d, num_blocks=8).pbo == 0.0
    assert cscv(d - 3.0, num_blocks=8).probability_of_loss == 1.0


def test_cscv_leaves_out_what_has_holes_and_knows_when_nothing_is_left():
    d = rng(3).standard_normal((40, 4))
    hole = d[:, :1].copy()
    hole[3] = np.nan
    assert cscv(np.hstack([d, hole]), num_blocks=8) == cscv(d, num_blocks=8)
    assert cscv(np.insert(d, 5, np.nan, axis=0), num_blocks=8) == cscv(d, num_blocks=8)
    assert cscv(d[:6], num_blocks=8) is None
    assert cscv(np.full((9, 2), np.nan), num_blocks=4) is None
    with pytest.raises(ValueError, match="num_blocks 5 must be even"):
        cscv(d, num_blocks=5)


@pytest.mark.parametrize(
    ("origins", "horizon", "stride", "blocks"),
    [(60, 5, 5, 16), (40, 5, 5, 16), (31, 5, 5, 14), (20, 5, 5, 10), (11, 1, 1, 4), (200, 5, 1, 16),
     (60, 20, 2, 6), (59, 20, 2, 4), (3, 1, 1, 0)],
)  # fmt: skip
def test_blocks_hold_two_origins_or_the_whole_overlap(origins, horizon, stride, blocks):
    least = max(2, -(-horizon // stride))
    by_hand = max((s for s in range(0, 17, 2) if s == 0 or origins // s >= least), default=0)
    assert cscv_blocks(origins, horizon, stride) == by_hand == blocks


def test_sharpes_are_those_of_purgedcv():
    r = 0.05 + rng(8).standard_t(4, 250)
    ratio, skew = r.mean() / r.std(), stats.skew(r, bias=False)
    kurtosis = stats.kurtosis(r, fisher=False, bias=False)
    found = sharpe_from_moments(ratio, 250, skew, kurtosis, threshold=0.02)
    assert found.probability == pytest.approx(0.6610811578870057, rel=1e-12)
    threshold = np.sqrt(0.004) * expected_maximum(30)
    found = sharpe_from_moments(ratio, 250, skew, kurtosis, threshold=threshold)
    assert found.probability == pytest.approx(0.09206393654065059, rel=1e-9)


@pytest.mark.parametrize(
    ("trials", "skew", "kurtosis", "probability"),
    [(100, -3, 10, 0.9004), (46, -3, 10, 0.9505), (88, 0, 3, 0.9505)],
)
def test_the_deflated_sharpe_is_that_of_the_paper(trials, skew, kurtosis, probability):
    """Bailey and Lopez de Prado (2014): a ratio of 2.5 a year over 1250 days, variance 1/2."""
    threshold = np.sqrt(0.5 / 250) * expected_maximum(trials)
    found = sharpe_from_moments(2.5 / np.sqrt(250), 1250, skew, kurtosis, threshold=threshold)
    assert found.probability == pytest.approx(probability, abs=5e-5)
    if trials == 100:
        assert threshold == pytest.approx(0.1132, abs=5e-5)


def test_the_moments_of_a_sharpe_are_scipys():
    r = 0.05 + rng(8).standard_t(4, 250)
    found = probabilistic_sharpe(np.append(r, np.nan))
    assert found.ratio == pytest.approx(r.mean() / r.std(ddof=1))
    moments = stats.skew(r), stats.kurtosis(r, fisher=False)
    assert found.probability == pytest.approx(
        sharpe_from_moments(found.ratio, 250, *moments).probability
    )
    assert found.num == 250


def test_a_deflated_sharpe_counts_the_trials():
    r = 0.2 + rng(8).standard_normal(250)
    ratios = 0.06 * rng(1).standard_normal(40)
    plain = probabilistic_sharpe(r)
    deflated = deflated_sharpe(r, ratios)
    fewer = deflated_sharpe(r, ratios, num_effective=4)
    assert deflated.threshold == pytest.approx(ratios.std(ddof=1) * expected_maximum(40))
    assert deflated.probability < fewer.probability < plain.probability
    assert deflated_sharpe(r, ratios[:1]).threshold == 0.0


@pytest.mark.parametrize("returns", [[], [0.1, 0.2], [0.1] * 30, [np.nan] * 9])
def test_returns_that_show_nothing_have_no_sharpe(returns):
    assert probabilistic_sharpe(np.array(returns, dtype=float)) is None


@pytest.mark.parametrize(("num", "within"), [(5, 0.03), (60, 0.03), (1000, 0.03)])
def test_the_expected_maximum_is_near_the_true_one(num, within):
    drawn = rng(0).standard_normal((200_000 // num + 3000, num))
    assert expected_maximum(num) == pytest.approx(drawn.max(axis=1).mean(), rel=within)


def test_one_trial_is_expected_to_show_nothing():
    assert expected_maximum(1) == 0.0
    assert 0 <= expected_maximum(1.2) < expected_maximum(2) < expected_maximum(3)


def test_correlated_trials_are_fewer():
    own = rng(0).standard_normal((400, 20))
    shared = rng(1).standard_normal((400, 1))
    assert effective_trials(own) == pytest.approx(20, abs=0.5)
    assert effective_trials(own + 100 * shared) == pytest.approx(1, abs=0.01)
    half = effective_trials(own + shared)
    assert half == pytest.approx(0.5 + 0.5 * 20, abs=1.0)
    assert effective_trials(own + shared, num_trials=60) > 2.5 * half  # failed and earlier ones too
    assert effective_trials(own[:, :1]) == 1.0


def test_the_best_of_trials_without_skill_shows_what_is_expected():
    best = [rng(s).standard_normal((40, 60)).mean(axis=0).max() for s in range(300)]
    expected = expected_best(np.full(60, 1 / np.sqrt(40)), 60)
    assert expected == pytest.approx(np.mean(best), rel=0.05)
    assert np.isnan(expected_best(np.array([np.nan]), 5))


def test_a_wild_trial_does_not_move_what_luck_can_do_for_the_others():
    calm = np.full(12, 0.01)
    assert expected_best(np.append(calm, 1.0), 13) == pytest.approx(expected_best(calm, 13))


def test_the_bound_of_a_winner_is_right_and_most_of_its_bias_taken_off():
    above = 0
    seen, debiased = [], []
    for seed in range(200):
        d = rng(seed).standard_normal((40, 20)) * np.linspace(0.5, 2, 20)
        best = d.mean(axis=0).argmax()
        bounds = simultaneous_bounds(d, block=1, reps=400, seed=seed)
        above += bounds.lower[best] > 0
        seen.append(d[:, best].mean())
        debiased.append(debiased_best(d, block=1, seed=seed))
        assert max(bounds.lower[best], debiased[-1]) < seen[-1]
    assert above / 200 <= 0.08
    assert abs(np.mean(debiased)) < 0.4 * np.mean(seen)  # all are 0 in truth


def test_a_winner_is_sought_among_whole_columns():
    d = rng(0).standard_normal((40, 3))
    d[:, 2] += 2
    holed = np.column_stack([np.full(40, np.nan), d])
    assert debiased_best(holed, block=1) == debiased_best(d, block=1) > 1.5
    assert debiased_best(np.full((4, 2), np.nan), block=1) is None


def test_overtuning_is_what_the_incumbents_lost():
    inner = [1.0, 0.9, 0.95, 0.8, 0.7]
    outer = [2.0, 1.5, 0.1, 1.2, 1.6]  # the third never was the incumbent
    assert overtuning(inner, outer) == pytest.approx(0.4)


def test_overtuning_skips_failures_and_is_nothing_where_the_last_was_best():
    assert overtuning([1.0, np.nan, 0.5], [1.0, 0.0, 1.3]) == pytest.approx(0.3)
    assert overtuning([np.inf], [1.0]) is None
    assert overtuning([1.0, 0.5], [1.0, 0.5]) == 0.0


def test_the_fewest_blocks_are_those_of_the_verdict():
    assert (room.MOST_BLOCKS, room.FEWEST_BLOCKS) == (16, 6)
