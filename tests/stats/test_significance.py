"""Diebold-Mariano against statsmodels, by hand, and its size under true nulls."""

from __future__ import annotations

import numpy as np
import pytest

from foresweep.stats.significance import (
    diebold_mariano,
    holm,
    inflation,
    origin_means,
    overlap_lags,
    unrelated,
)


def losses(num: int, seed: int = 0, lead: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal(num)
    ours, theirs = (np.abs(shared + 0.6 * rng.standard_normal(num)) for _ in range(2))
    return ours - lead, theirs


def test_without_overlap_it_is_statsmodels_with_the_harvey_correction():
    tools = pytest.importorskip("statsmodels.tsa.stattools")
    ours, theirs = losses(60, seed=2)
    zeros = np.zeros(60)
    oracle = tools.diebold_mariano_test(
        zeros, theirs, ours, lags=0, criterion="mae", harvey_adj=True, horizon=1
    )
    found = diebold_mariano(ours, theirs, lags=0)
    assert found.statistic == pytest.approx(oracle.statistic, rel=1e-10)
    two_sided = 2 * min(found.pvalue, 1 - found.pvalue)
    assert two_sided == pytest.approx(oracle.pvalue, rel=1e-10)


@pytest.mark.parametrize("lags", [1, 4, 9])
def test_with_bartlett_weights_the_statistic_is_that_of_statsmodels(lags):
    tools = pytest.importorskip("statsmodels.tsa.stattools")
    ours, theirs = losses(120, seed=lags)
    oracle = tools.diebold_mariano_test(
        np.zeros(120),
        theirs,
        ours,
        lags=lags,
        criterion="mae",
        harvey_adj=True,
        horizon=lags + 1,
    )
    found = diebold_mariano(ours, theirs, lags=lags, kernel="bartlett")
    assert found.statistic == pytest.approx(oracle.statistic, rel=1e-10)


def test_the_rectangular_variance_is_the_formula_of_the_paper():
    ours, theirs = losses(50, seed=4)
    d, lags = theirs - ours, 3
    gamma = [
        ((d[k:] - d.mean()) * (d[: 50 - k] - d.mean())).mean() * (50 - k) / 50 for k in range(4)
    ]
    variance = (gamma[0] + 2 * sum(gamma[1:])) / 50
    steps = lags + 1
    factor = (50 + 1 - 2 * steps + steps * (steps - 1) / 50) / 50
    found = diebold_mariano(ours, theirs, lags=lags)
    more = inflation(d[:, None], lags=lags)[0]
    assert found.kernel == "rectangular"
    expected = d.mean() / np.sqrt(variance * more) * np.sqrt(factor)
    assert found.statistic == pytest.approx(expected)
    assert found.mean_difference / found.standard_error == pytest.approx(found.statistic)
    assert found.df == pytest.approx((50 / 7 - 1) / more)


def test_a_negative_rectangular_variance_falls_back_to_bartlett():
    d = np.tile([1.0, -1.0], 20) + 0.01
    found = diebold_mariano(-d, np.zeros(40), lags=1)
    assert found.kernel == "bartlett"
    assert 0 < found.pvalue < 0.5


def test_it_is_one_sided():
    ours, theirs = losses(80, seed=1, lead=0.5)
    assert diebold_mariano(ours, theirs, lags=0).pvalue < 0.001
    assert diebold_mariano(theirs, ours, lags=0).pvalue > 0.999


@pytest.mark.parametrize("num", [0, 1, 2, 3])
def test_too_few_origins_show_nothing(num):
    found = diebold_mariano(np.zeros(num), np.arange(num, dtype=float), lags=2)
    assert found.pvalue == 1.0
    assert found.kernel is None


def test_equal_losses_show_nothing():
    ours = losses(30)[0]
    assert diebold_mariano(ours, ours, lags=0).pvalue == 1.0
    assert diebold_mariano(ours, ours + 0.1, lags=0).pvalue == 1.0  # no variance, no test


def test_origins_without_a_loss_are_left_out():
    ours, theirs = losses(40, seed=3)
    with_gap = diebold_mariano(np.insert(ours, 7, np.nan), np.insert(theirs, 7, 1.0), lags=0)
    assert with_gap == diebold_mariano(ours, theirs, lags=0)


@pytest.mark.parametrize(
    ("horizon", "stride", "lags"),
    [(5, 5, 0), (5, 6, 0), (5, 4, 1), (5, 1, 4), (10, 3, 3), (1, 1, 0)],
)
def test_lags_are_the_origins_whose_labels_overlap(horizon, stride, lags):
    overlapping = sum(k * stride < horizon for k in range(1, 100))
    assert overlap_lags(horizon, stride) == overlapping == lags


def test_origin_means_weigh_items_and_skip_missing_cells():
    panel = np.array([[1.0, 3.0], [np.nan, 5.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(origin_means(panel), [2.0, 5.0, np.nan])


def rejections(num: int, ratio: int, repetitions: int, kind: str) -> float:
    """Share of true nulls rejected at 5 %: two forecasts with equal noise, overlapping labels."""
    rng = np.random.default_rng([num, ratio])
    count = 0
    for _ in range(repetitions):
        truth, *noises = (overlapping(rng, num, ratio, kind if k else "walk") for k in range(3))
        ours, theirs = (np.abs(truth - 0.5 * noise) for noise in noises)
        count += diebold_mariano(ours, theirs, lags=ratio - 1).pvalue < 0.05
    return count / repetitions


def overlapping(rng: np.random.Generator, num: int, ratio: int, kind: str) -> np.ndarray:
    if kind == "noise":
        return np.sqrt(ratio) * rng.standard_normal(num)
    path = np.concatenate([[0.0], np.cumsum(rng.standard_normal(num + ratio - 1))])
    return path[ratio:] - path[:-ratio]


@pytest.mark.parametrize("kind", ["noise", "walk"])
@pytest.mark.parametrize("ratio", [1, 5, 10])
def test_a_true_null_is_rejected_at_5_percent_in_at_most_8(ratio, kind):
    assert rejections(250, ratio, 600, kind) <= 0.08


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["noise", "walk"])
@pytest.mark.parametrize("num", [250, 1000])
@pytest.mark.parametrize("ratio", [1, 2, 5, 10])
def test_a_true_null_is_rejected_at_5_percent_in_at_most_8_at_length(ratio, num, kind):
    assert rejections(num, ratio, 10_000, kind) <= 0.08


@pytest.mark.parametrize(("num", "ratio"), [(40, 1), (40, 5), (51, 10)])
def test_small_samples_do_not_reject_much_more(num, ratio):
    assert rejections(num, ratio, 600, "walk") <= 0.10


def test_a_real_lead_is_found():
    found = [diebold_mariano(*losses(60, seed=s, lead=0.15), lags=0).pvalue for s in range(200)]
    assert np.mean(np.array(found) < 0.05) > 0.45


def autoregressive(rng: np.random.Generator, num: int, width: int, phi: float) -> np.ndarray:
    """[num, width] of variance 1."""
    shocks = rng.standard_normal((num + 100, width))
    out = np.zeros_like(shocks)
    for t in range(1, len(out)):
        out[t] = phi * out[t - 1] + shocks[t]
    return out[100:] * np.sqrt(1 - phi**2)


@pytest.mark.parametrize("phi", [0.3, 0.6, 0.8])
def test_the_variance_of_a_mean_grows_as_autocorrelation_makes_it(phi):
    d = autoregressive(np.random.default_rng(3), 2000, 9, phi)
    assert inflation(d, lags=0) == pytest.approx((1 + phi) / (1 - phi), rel=0.35)


def test_without_autocorrelation_hardly_anything_is_added_and_labels_that_are_shared_add_none():
    rng = np.random.default_rng(4)
    assert np.median(inflation(rng.standard_normal((60, 40)), lags=0)) < 1.1
    bars = rng.standard_normal((604, 40))
    shared = np.array([bars[t : t + 5].sum(axis=0) for t in range(600)])
    assert np.median(inflation(shared, lags=4)) < 1.1
    assert np.median(inflation(shared, lags=0)) > 4  # read as daily forecasts of one bar


def test_noise_over_what_goes_on_for_long_does_not_hide_it():
    rng = np.random.default_rng(5)
    d = autoregressive(rng, 400, 9, 0.9) + rng.standard_normal((400, 9))
    as_if_short = 1 + 2 * 0.45 / (1 - 0.45)
    assert np.median(inflation(d, lags=0)) > 2 * as_if_short  # true: 1 + 0.5 * 18 = 10


def test_one_column_that_goes_on_among_many_that_do_not_is_seen():
    rng = np.random.default_rng(6)
    d = np.column_stack([autoregressive(rng, 60, 1, 0.9), rng.standard_normal((60, 59))])
    found = inflation(d, lags=0)
    assert found[0] > 5
    assert np.median(found[1:]) < 1.2


@pytest.mark.parametrize("phi", [0.3, 0.6])
def test_a_true_null_that_goes_on_is_rejected_in_at_most_8_percent(phi):
    rng = np.random.default_rng(7)
    d = autoregressive(rng, 60, 400, phi)
    zero = np.zeros(60)
    assert np.mean([diebold_mariano(-c, zero, lags=0).pvalue < 0.05 for c in d.T]) <= 0.08


def test_holes_where_losses_are_large_are_seen_and_holes_at_random_are_not():
    rng = np.random.default_rng(8)
    sizes = np.abs(rng.standard_normal((60, 12))) * np.exp(0.5 * rng.standard_normal((60, 1)))
    sizes[3, 4] = np.nan
    at_random = [unrelated(rng.random((60, 12)) < 0.05, sizes, seed=s) for s in range(40)]
    assert np.mean(np.array(at_random) < 0.05) <= 0.15
    worst = sizes > np.nanquantile(sizes, 0.95)
    storms = np.zeros((60, 12), dtype=bool)
    storms[np.nanmean(sizes, axis=1).argsort()[-4:]] = True
    assert unrelated(worst, sizes) < 0.001
    assert unrelated(storms, sizes) < 0.001


def test_holm_is_what_a_hand_reckons():
    p = np.array([0.01, 0.04, 0.03, np.nan])
    np.testing.assert_allclose(holm(p), [0.04, 0.09, 0.09, 1.0])
    np.testing.assert_array_equal(holm(np.array([0.03])), [0.03])
    np.testing.assert_array_equal(holm(np.array([np.nan])), [1.0])
    assert len(holm(np.array([]))) == 0


@pytest.mark.parametrize("num", [1, 2, 7, 30])
def test_holm_is_what_statsmodels_finds(num):
    tools = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(num).random(num) ** 3
    p[num // 2 :] = p[0]  # ties
    np.testing.assert_array_equal(holm(p), tools.multipletests(p, method="holm")[1])
