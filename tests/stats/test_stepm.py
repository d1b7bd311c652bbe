"""StepM, bounds and MCS: beside arch, by hand, on degenerate columns, and their size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from foresweep.stats.significance import block_length, diebold_mariano, mean_errors
from foresweep.stats.stepm import mcs, reps_for, simultaneous_bounds, stepm


def noise(num: int, trials: int, seed: int, *, ratio: int = 1, spread: float = 20.0) -> np.ndarray:
    """[T, K] differences without skill: a benchmark's noise in every column, fat tails, standard
    deviations from 1 to `spread`, labels that overlap over `ratio` origins."""
    rng = np.random.default_rng([seed, num, ratio])
    shocks = rng.standard_t(5, (num + ratio - 1, trials + 1))
    path = np.cumsum(np.concatenate([np.zeros((1, trials + 1)), shocks]), axis=0)
    moved = (path[ratio:] - path[:-ratio]) / np.sqrt(ratio)
    mixed = 0.7 * moved[:, :1] + 0.7 * moved[:, 1:]
    return mixed * np.geomspace(1.0, spread, trials)


def lifted(d: np.ndarray, column: int, t: float) -> np.ndarray:
    """The same with one column whose t statistic is about `t`."""
    out = d.copy()
    out[:, column] += t * d[:, column].std() / np.sqrt(len(d)) - d[:, column].mean()
    return out


def arch_losses(d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(len(d)), -d


def test_studentising_finds_what_varies_less_than_the_others():
    tools = pytest.importorskip("arch.bootstrap")
    ours = theirs = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        d = rng.standard_normal((60, 60)) * np.r_[1.0, np.full(59, 20.0)]
        d[:, 0] += 4.5 / np.sqrt(60)
        ours += stepm(d, block=1, reps=500).superior[0]
        arch = tools.StepM(*arch_losses(d), reps=100, block_size=1, bootstrap="cbb", seed=seed)
        arch.compute()
        theirs += 0 in arch.superior_models
    assert ours >= 0.7 * 40
    assert theirs <= 0.05 * 40


def test_each_column_has_the_statistic_of_diebold_mariano():
    d = noise(60, 5, seed=1, ratio=3)
    found, errors = stepm(d, block=3), mean_errors(d, lags=2)
    np.testing.assert_allclose(found.standard_error, errors.error)
    np.testing.assert_allclose(found.statistic, d.mean(axis=0) / errors.error)
    for k in range(5):
        alone = diebold_mariano(-d[:, k], np.zeros(60), lags=2)
        own = mean_errors(d[:, [k]], lags=2).error[0]
        assert alone.statistic == pytest.approx(d[:, k].mean() / own)


def test_one_trial_alone_is_a_diebold_mariano_test():
    for seed in range(5):
        d = lifted(noise(40, 1, seed=seed), 0, 1.0 + 0.4 * seed)
        found = stepm(d, block=1, reps=20_000)
        alone = diebold_mariano(-d[:, 0], np.zeros(40), lags=0)
        assert found.pvalue[0] == pytest.approx(alone.pvalue, abs=0.015)


def test_superior_trials_are_those_whose_adjusted_p_is_below_the_level():
    d = noise(60, 20, seed=5)
    for column, t in ((0, 6.0), (4, 4.2), (7, 3.4), (9, 3.0), (11, 2.5)):
        d = lifted(d, column, t)
    found = stepm(d, block=1, reps=4000)
    assert 1 < found.superior.sum() < 5
    np.testing.assert_array_equal(found.superior, found.pvalue < 0.05)
    order = np.argsort(-found.statistic)
    assert (np.diff(found.pvalue[order]) >= 0).all()
    rest = stepm(d[:, ~found.superior], block=1, reps=4000)
    # found ones step out, but for what they say of autocorrelation
    np.testing.assert_allclose(rest.pvalue, found.pvalue[~found.superior], atol=0.03)


def test_more_trials_ask_for_more():
    d = noise(60, 60, seed=2)
    criticals = [stepm(d[:, :k], block=1, seed=1).critical for k in (1, 5, 60)]
    assert 1.5 < criticals[0] < criticals[1] < criticals[2] < 4


def test_hopeless_trials_do_not_raise_the_bar():
    d = noise(60, 40, seed=2)
    hopeless = d.copy()
    hopeless[:, 20:] -= 2 * d[:, 20:].std(axis=0)  # t of some -15
    few, same = (stepm(x, block=1) for x in (d[:, :20], hopeless))
    assert same.critical == few.critical < stepm(d, block=1).critical
    bounds = simultaneous_bounds(hopeless, block=1)
    width = (bounds.upper - hopeless.mean(axis=0)) / same.standard_error
    assert width.min() > few.critical  # bounds are still right for every one of them


def test_labels_that_are_shared_ask_for_more():
    d = noise(60, 10, seed=2)
    few, many = (stepm(d, block=n) for n in (5, 1))
    assert (few.df < many.df / 5).all()
    assert (few.critical_t > many.critical_t).all()


def test_a_p_value_is_never_0_and_says_how_many_draws_there_were():
    d = lifted(noise(60, 10, seed=2), 3, 40.0)
    assert stepm(d, block=1).pvalue[3] == 1 / 2001


def test_a_trial_that_crosses_a_threshold_by_the_third_digit_does_not_move_the_answer():
    d = noise(60, 6, seed=11, spread=2.0)
    d = lifted(lifted(d, 0, 1.9), 1, -1.68)
    answers = []
    for seed in range(200):
        jitter = 1 + 0.003 * np.random.default_rng(seed).standard_normal(6)
        moved = d + (jitter - 1) * np.abs(d.mean(axis=0))
        answers.append(stepm(moved, block=1).pvalue[0])
    assert np.ptp(answers) < 0.05


def test_a_stricter_level_asks_for_more_and_draws_more():
    d = noise(60, 10, seed=2)
    loose, strict = (stepm(d, block=1, level=p) for p in (0.05, 0.05 / 9))
    assert strict.critical > loose.critical
    assert (loose.reps, strict.reps) == (2000, 7200)
    assert reps_for(1e-9) == 40_000


def test_the_same_seed_gives_the_same_answer():
    d = noise(40, 8, seed=1)
    first, again, other = (stepm(d, block=2, seed=s) for s in (1, 1, 2))
    assert first.critical == again.critical != other.critical


def test_columns_that_show_nothing_change_nothing_for_the_others():
    d = lifted(noise(60, 6, seed=4), 1, 5.0)
    alone = stepm(d, block=1)
    equal, constant = np.zeros(60), np.full(60, 0.3)
    hole, endless = d[:, 1].copy(), d[:, 1].copy()
    hole[7], endless[3] = np.nan, np.inf
    found = stepm(np.column_stack([d, equal, constant, hole, endless]), block=1)
    assert found.critical == alone.critical
    np.testing.assert_array_equal(found.superior, [*alone.superior, *([False] * 4)])
    np.testing.assert_array_equal(found.pvalue[6:], 1.0)
    assert np.isnan(found.statistic[6:]).all()
    assert found.num_tested == 6


def test_rows_without_any_loss_are_left_out():
    d = noise(40, 3, seed=4)
    gap = np.insert(d, 11, np.nan, axis=0)
    found, wanted = (stepm(x, block=1) for x in (gap, d))
    np.testing.assert_array_equal(found.statistic, wanted.statistic)
    assert found.num_origins == 40


@pytest.mark.parametrize("d", [np.zeros((30, 3)), np.full((30, 3), np.nan), np.ones((3, 2))])
def test_nothing_to_test_finds_nothing(d):
    found = stepm(d, block=4)
    assert not found.superior.any()
    assert found.critical == np.inf
    assert found.num_tested == 0


def test_bounds_hold_together_and_enclose_the_mean():
    d = noise(60, 10, seed=6)
    found = simultaneous_bounds(d, block=1)
    wide = simultaneous_bounds(d, block=1, level=0.01)
    mean = d.mean(axis=0)
    assert (found.lower < mean).all()
    assert (mean < found.upper).all()
    assert (wide.upper > found.upper).all()
    known = mean_errors(d, lags=0)
    width = (found.upper - mean) / known.error
    rarity = stats.norm.isf(stats.t.sf(width, known.df))  # one critical value for all
    np.testing.assert_allclose(rarity, rarity[0])


def test_bounds_of_a_trial_equal_to_the_benchmark_are_zero_and_of_an_unknown_one_not_known():
    d = np.column_stack([noise(40, 2, seed=1), np.zeros(40), np.full(40, 0.1)])
    found = simultaneous_bounds(d, block=1)
    assert found.upper[2] == found.lower[2] == 0.0
    assert np.isnan([found.lower[3], found.upper[3]]).all()


def test_upper_bounds_miss_a_true_mean_in_about_one_sweep_of_twenty():
    missed = 0
    for seed in range(200):
        found = simultaneous_bounds(noise(40, 20, seed), block=1, reps=400)
        missed += bool((found.upper < 0).any())
    assert missed / 200 <= 0.08


def test_mcs_keeps_the_best_and_drops_the_worst():
    pytest.importorskip("arch")
    rng = np.random.default_rng(0)
    losses = rng.standard_normal((60, 5)) ** 2 + np.array([0.0, 0.0, 0.1, 3.0, 3.0])
    members, pvalues = mcs(losses, block=1)
    np.testing.assert_array_equal(members, [True, True, True, False, False])
    assert pvalues.max() == 1.0


def test_mcs_takes_equal_columns_for_one_model_and_leaves_holes_out():
    pytest.importorskip("arch")
    rng = np.random.default_rng(0)
    losses = rng.standard_normal((60, 3)) ** 2 + np.array([0.0, 0.1, 3.0])
    hole = losses[:, 0].copy()
    hole[4] = np.nan
    more = np.column_stack([losses, losses[:, 0], hole])
    members, pvalues = mcs(np.insert(more, 9, np.nan, axis=0), block=1)
    alone, alone_p = mcs(losses, block=1)
    np.testing.assert_array_equal(members, [*alone, alone[0], False])
    assert pvalues[3] == pvalues[0] == alone_p[0]
    assert mcs(losses[:, :1], block=1)[0].all()
    assert not mcs(np.full((5, 2), np.nan), block=1)[0].any()


CASES = [(20, 1), (40, 1), (60, 1), (200, 5)]


def share_with_a_false_find(num: int, ratio: int, repetitions: int, reps: int) -> float:
    block = block_length(ratio, 1)
    found = sum(
        stepm(noise(num, 60, seed, ratio=ratio), block=block, reps=reps).superior.any()
        for seed in range(repetitions)
    )
    return found / repetitions


@pytest.mark.parametrize(("num", "ratio"), CASES)
def test_60_trials_without_skill_are_found_superior_in_at_most_8_percent(num, ratio):
    assert share_with_a_false_find(num, ratio, 600, 1000) <= 0.08


@pytest.mark.soak
@pytest.mark.parametrize(("num", "ratio"), CASES)
def test_60_trials_without_skill_are_found_superior_in_at_most_8_percent_at_length(num, ratio):
    assert share_with_a_false_find(num, ratio, 5000, 2000) <= 0.08


def test_where_all_lag_far_behind_the_bar_is_the_benchmark_itself():
    d = np.random.default_rng(0).standard_normal((200, 3)) - 5.0
    found = stepm(d, block=1)
    assert found.critical == 0.0
    assert not found.superior.any()


def test_what_hopeless_trials_lose_still_says_how_long_losses_go_on() -> None:
    """So they are scored on all of val: without them another trial's p lies, in this sweep, on the
    other side of the level."""
    d = np.random.default_rng(71).standard_normal((160, 12))
    for t in range(1, 160):
        d[t] += 0.4 * d[t - 1]
    d = d[100:]
    d[:, 0] += 0.45
    d[:, 1:4] -= 6.0  # far behind: never the largest statistic
    left_out = stepm(np.delete(d, [1, 2, 3], axis=1), block=1).pvalue[0]
    assert left_out < 0.05 < stepm(d, block=1).pvalue[0] - 0.03
