"""Baselines: the forecasts that every model has to beat must themselves be right."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import Context, Windows, make_context
from foresweep.errors import ConfigError
from foresweep.evaluation.contract import ModelContract
from foresweep.models.base import DEFAULT_LEVELS, Facts
from foresweep.models.baselines.naive import (
    Drift,
    LastValue,
    RandomWalk,
    SeasonalNaive,
    bar_variances,
)
from foresweep.models.registry import BASELINES, get_model
from panels import close_panel, make_panel

FACTS = Facts(horizon=5, max_context=200, train_bars=1000)
UNFITTED = tuple(name for name in BASELINES if name != "har")  # har: test_har.py


class TestLastValue(ModelContract):
    random = False

    def make(self):
        return LastValue()

    def config(self):
        return {"context_length": 64}


class TestDrift(TestLastValue):
    def make(self):
        return Drift()


class TestSeasonalNaive(TestLastValue):
    def make(self):
        return SeasonalNaive()


class TestCalibratedDrift(TestLastValue):
    def make(self):
        return Drift()

    def config(self):
        return {"context_length": 64, "centre": True, "fit_scale": True, "isotonic": True}


class TestRandomWalk(TestLastValue):
    def make(self):
        return RandomWalk()


class TestRangeWalk(TestRandomWalk):
    def config(self):
        return {"context_length": 64, "volatility": "garman-klass"}

    def settings(self):
        return {"window": {"volatility": "rolling"}}


def context_of(closes, horizon: int = 5) -> Context:
    panel = close_panel({"A": closes})
    last = np.array([len(closes) - 1])
    return make_context(panel, np.array([0]), last, len(closes), horizon)


def forecast(family, context, horizon=5, **values):
    config = family.resolve(family.Config(**values), FACTS)
    return family.predictor(config).predict(context, horizon=horizon, levels=DEFAULT_LEVELS, seed=0)


def walk(n: int, seed: int = 0, sigma: float = 0.02, drift: float = 0.0) -> np.ndarray:
    moves = sigma * np.random.default_rng(seed).standard_normal(n) + drift
    return 50 * np.exp(np.cumsum(moves))


def test_last_value_and_random_walk_have_the_last_close_as_median_to_the_last_bit():
    closes = walk(120)
    for family in (LastValue(), RandomWalk()):
        assert (forecast(family, context_of(closes)).median == closes[-1]).all()


def test_drift_goes_on_at_the_mean_log_move():
    closes = 50 * 1.01 ** np.arange(60)
    expected = closes[-1] * 1.01 ** np.arange(1, 6)
    np.testing.assert_allclose(forecast(Drift(), context_of(closes)).median[0], expected)


def test_drift_looks_no_further_back_than_its_context():
    closes = np.concatenate([np.full(50, 30.0), 30 * 1.01 ** np.arange(1, 41)])
    found = forecast(Drift(), context_of(closes), context_length=40)
    np.testing.assert_allclose(found.median[0, 0], closes[-1] * 1.01)


def test_seasonal_naive_repeats_the_last_season_over_and_over():
    closes = 100 + np.tile([0.0, 3.0, 1.0, 7.0], 10)
    found = forecast(SeasonalNaive(), context_of(closes, 6), 6, season_length=4)
    np.testing.assert_allclose(found.median[0], [100, 103, 101, 107, 100, 103])
    np.testing.assert_allclose(found.values[..., 0], found.values[..., -1])  # nothing is uncertain


@pytest.mark.parametrize("num_bars", [10, 20])
def test_seasonal_naive_is_last_value_where_no_move_over_a_season_was_seen(num_bars):
    context = context_of(walk(num_bars))
    found = forecast(SeasonalNaive(), context, season_length=20)
    np.testing.assert_array_equal(found.values, forecast(LastValue(), context).values)


def test_a_season_needs_two_in_the_context():
    with pytest.raises(ConfigError, match="season_length 20 needs a context_length of 40"):
        forecast(SeasonalNaive(), context_of(walk(99)), context_length=32, season_length=20)


def test_spreads_are_those_of_the_moves_and_grow_with_the_root_of_the_lead():
    closes = walk(200, seed=3)
    moves = np.diff(np.log(closes))
    for family in (LastValue(), Drift()):
        logs = np.log(forecast(family, context_of(closes)).values[0])
        one = np.quantile(moves, 0.9) - np.median(moves)
        np.testing.assert_allclose(logs[:, 8] - logs[:, 4], one * np.sqrt(np.arange(1, 6)))


def test_random_walk_s_volatility_is_the_weighted_mean_of_squared_moves():
    closes = walk(80, seed=5)
    moves = np.diff(np.log(closes))
    weights = 0.9 ** np.arange(len(moves))[::-1]
    sigma = np.sqrt(weights @ moves**2 / weights.sum())
    found = forecast(RandomWalk(), context_of(closes), decay=0.9, quantiles="normal")
    expected = closes[-1] * np.exp(1.2815515655446004 * sigma * np.sqrt(3))
    np.testing.assert_allclose(found.values[0, 2, 8], expected)


def test_random_walk_s_empirical_moves_are_over_the_volatility_known_before_each():
    closes = walk(60, seed=6)
    moves = np.diff(np.log(closes))

    def sigma(seen):
        weights = 0.9 ** np.arange(len(seen))[::-1]
        return np.sqrt(weights @ seen**2 / weights.sum())

    scaled = np.array([moves[k] / sigma(moves[:k]) for k in range(1, len(moves))])
    spread = np.quantile(scaled, 0.2) - np.median(scaled)
    found = forecast(RandomWalk(), context_of(closes), decay=0.9)
    expected = closes[-1] * np.exp(spread * sigma(moves) * np.sqrt(5))
    np.testing.assert_allclose(found.values[0, 4, 1], expected)


def bars_of(closes: np.ndarray, seed: int = 0) -> np.ndarray:
    """[n, 5] lawful bars around closes, with opening gaps."""
    rng = np.random.default_rng(seed)
    before = np.concatenate([closes[:1], closes[:-1]])
    opened = before * np.exp(0.005 * rng.standard_normal(len(closes)))
    high = np.maximum(opened, closes) * np.exp(0.004 * np.abs(rng.standard_normal(len(closes))))
    low = np.minimum(opened, closes) * np.exp(-0.004 * np.abs(rng.standard_normal(len(closes))))
    return np.stack([opened, high, low, closes, np.ones(len(closes))], axis=1)


def context_with_bars(bars: np.ndarray) -> Context:
    context = context_of(bars[:, 3])
    return dataclasses.replace(context, values=bars[None])


@pytest.mark.parametrize("volatility", ["parkinson", "garman-klass"])
def test_volatility_from_the_range_is_the_published_formula_with_the_gap_beside_it(volatility):
    bars = bars_of(walk(80, seed=5))
    opened, high, low, closes = bars[:, :4].T
    gap = np.log(opened[1:] / closes[:-1])
    span, body = np.log(high / low)[1:], np.log(closes / opened)[1:]
    variance = {
        "parkinson": gap**2 + span**2 / (4 * np.log(2)),
        "garman-klass": gap**2 + 0.5 * span**2 - (2 * np.log(2) - 1) * body**2,
    }[volatility]
    weights = 0.9 ** np.arange(79)[::-1]
    sigma = np.sqrt(weights @ variance / weights.sum())
    context = context_with_bars(bars)
    found = forecast(
        RandomWalk(), context, volatility=volatility, decay=0.9, quantiles="normal"
    ).values
    np.testing.assert_allclose(found[0, 2, 8], closes[-1] * np.exp(1.2815515655 * sigma * 3**0.5))
    before = np.sqrt([np.average(variance[:k], weights=weights[79 - k :]) for k in range(1, 79)])
    scaled = np.diff(np.log(closes))[1:] / before
    spread = np.quantile(scaled, 0.2) - np.median(scaled)
    found = forecast(RandomWalk(), context, volatility=volatility, decay=0.9).values
    np.testing.assert_allclose(found[0, 0, 1], closes[-1] * np.exp(spread * sigma))


def test_rolling_volatility_is_the_mean_square_of_the_last_bars_of_the_window():
    closes = walk(80, seed=5)
    moves = np.diff(np.log(closes))
    found = forecast(
        RandomWalk(), context_of(closes), volatility="rolling", window=10, quantiles="normal"
    )
    sigma = np.sqrt((moves[-10:] ** 2).mean())
    np.testing.assert_allclose(found.values[0, 0, 8], closes[-1] * np.exp(1.2815515655 * sigma))


def test_the_range_tells_the_volatility_of_a_walk_better_than_its_closes_do():
    rng = np.random.default_rng(1)
    found = {"close": [], "garman-klass": [], "parkinson": []}
    for _ in range(200):  # one bar a sigma of 1, of 500 ticks
        path = np.cumsum(rng.standard_normal((2, 500)) / np.sqrt(500), axis=1)
        path[1] += path[0, -1]
        first = [path[0, 0], path[0].max(), path[0].min(), path[0, -1]]
        second = [path[0, -1], max(path[1].max(), path[0, -1]), min(path[1].min(), path[0, -1])]
        logs = np.array([[first, [*second, path[1, -1]]]])
        for estimator, values in found.items():
            values.append(bar_variances(logs, estimator)[0, 0])
    assert all(0.8 < np.mean(v) < 1.2 for v in found.values())
    assert np.var(found["garman-klass"]) < np.var(found["parkinson"]) < np.var(found["close"]) / 3


def test_decay_and_window_are_refused_where_they_have_no_effect():
    with pytest.raises(ConfigError, match=r"decay=0\.9 has no effect with volatility='rolling'"):
        forecast(RandomWalk(), context_of(walk(9)), volatility="rolling", decay=0.9)
    with pytest.raises(ConfigError, match="window=9 has no effect with volatility='ewma'"):
        forecast(RandomWalk(), context_of(walk(9)), window=9)


@pytest.mark.parametrize("name", ["last-value", "random-walk", "har"])
def test_centring_is_refused_where_medians_are_the_last_close_anyway(name):
    family = get_model(name)
    with pytest.raises(ConfigError, match="centre=true has no effect"):
        family.resolve(family.Config(centre=True), FACTS)


def test_random_walk_widens_after_a_storm_and_last_value_hardly_does():
    calm, storm = walk(150, sigma=0.005), walk(150, sigma=0.005)
    storm[-20:] *= np.exp(np.cumsum(np.tile([0.05, -0.05], 10)))
    width = {}
    for family in (LastValue(), RandomWalk()):
        for name, closes in (("calm", calm), ("storm", storm)):
            values = forecast(family, context_of(closes)).values[0, 0]
            width[family.name, name] = (values[8] - values[0]) / closes[-1]
    assert width["random-walk", "storm"] > 3 * width["random-walk", "calm"]
    assert width["last-value", "storm"] < 2 * width["last-value", "calm"]


@pytest.mark.parametrize("name", ["last-value", "random-walk"])
def test_the_80_percent_band_of_a_true_walk_covers_about_80_percent(name):
    panel = close_panel({f"W{k}": walk(900, seed=k) for k in range(12)})
    split = make_split(panel, Cut(3))
    windows = Windows(panel, split, split.part("tune"))
    family = get_model(name)
    predictor = family.predictor(family.resolve(family.Config(), FACTS))
    values = predictor.predict(
        windows.context(200), horizon=3, levels=DEFAULT_LEVELS, seed=0
    ).values
    inside = (windows.labels >= values[..., 0]) & (windows.labels <= values[..., 8])
    assert 0.75 < inside.mean() < 0.85


@pytest.mark.parametrize("name", UNFITTED)
@pytest.mark.parametrize("num_bars", [1, 2, 3])
def test_a_context_of_hardly_any_bar_still_gets_a_forecast(name, num_bars):
    found = forecast(get_model(name), context_of(walk(9)).last(num_bars))
    found.checked(1, 5)


@pytest.mark.parametrize("name", UNFITTED)
def test_a_price_that_never_moves_is_forecast_to_stay(name):
    found = forecast(get_model(name), context_of(np.full(60, 7.0)))
    np.testing.assert_allclose(found.values, 7.0)


@pytest.mark.parametrize("name", UNFITTED)
def test_the_default_context_is_what_the_sweep_allows(name):
    family = get_model(name)
    assert family.resolve(family.Config(), FACTS).context_length == 200
    assert family.weights_hash(family.Config()) == ""


def test_windows_of_items_of_different_age_are_each_forecast_as_if_alone():
    panel = make_panel(3, 120)
    rows = np.array([20, 60, 119, 20])
    items = np.array([0, 1, 2, 1])
    context = make_context(panel, items, rows, 80, 5)
    for name in UNFITTED:
        together = forecast(get_model(name), context).values
        alone = [forecast(get_model(name), context.take(np.array([n]))).values for n in range(4)]
        np.testing.assert_array_equal(together, np.concatenate(alone))


def test_baselines_load_no_torch():
    code = (
        "from foresweep.models.registry import get_model, BASELINES\n"
        "import foresweep.evaluation.backtest, foresweep.evaluation.leaks\n"
        "[get_model(n) for n in BASELINES]\n"
        "import sys; assert 'torch' not in sys.modules and 'statsmodels' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
