"""Baselines: the forecasts that every model has to beat must themselves be right."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from foresweep.data.splits import make_split
from foresweep.data.windows import Context, Windows, make_context
from foresweep.errors import ConfigError
from foresweep.evaluation.contract import ModelContract
from foresweep.models.base import DEFAULT_LEVELS, Facts
from foresweep.models.baselines import Drift, LastValue, RandomWalk, SeasonalNaive
from foresweep.models.registry import BASELINES, get_model
from panels import close_panel, make_panel

FACTS = Facts(horizon=5, max_context=200, train_bars=1000)


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


class TestRandomWalk(TestLastValue):
    def make(self):
        return RandomWalk()


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
    split = make_split(panel, 3)
    windows = Windows(panel, split, split.part("tune"))
    family = get_model(name)
    predictor = family.predictor(family.resolve(family.Config(), FACTS))
    values = predictor.predict(
        windows.context(200), horizon=3, levels=DEFAULT_LEVELS, seed=0
    ).values
    inside = (windows.labels >= values[..., 0]) & (windows.labels <= values[..., 8])
    assert 0.75 < inside.mean() < 0.85


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("num_bars", [1, 2, 3])
def test_a_context_of_hardly_any_bar_still_gets_a_forecast(name, num_bars):
    found = forecast(get_model(name), context_of(walk(9)).last(num_bars))
    found.checked(1, 5)


@pytest.mark.parametrize("name", BASELINES)
def test_a_price_that_never_moves_is_forecast_to_stay(name):
    found = forecast(get_model(name), context_of(np.full(60, 7.0)))
    np.testing.assert_allclose(found.values, 7.0)


@pytest.mark.parametrize("name", BASELINES)
def test_the_default_context_is_what_the_sweep_allows(name):
    family = get_model(name)
    assert family.resolve(family.Config(), FACTS).context_length == 200
    assert family.weights_hash(family.Config()) == ""


def test_windows_of_items_of_different_age_are_each_forecast_as_if_alone():
    panel = make_panel(3, 120)
    rows = np.array([20, 60, 119, 20])
    items = np.array([0, 1, 2, 1])
    context = make_context(panel, items, rows, 80, 5)
    for name in BASELINES:
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
