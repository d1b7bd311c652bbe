"""What models see, and the way back to prices."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from foresweep.data.panel import CLOSE, Panel
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import TrainWindows, make_context
from foresweep.errors import ConfigError, ForecastError
from foresweep.models.base import DEFAULT_LEVELS
from foresweep.models.representation import (
    BURN_IN,
    Representation,
    by_length,
    sample_quantiles,
)
from panels import make_panel

LEVELS = (0.1, 0.5, 0.9)
EVERY = [
    Representation(t, c, 5)
    for t, c in product(("overlapping", "return", "price"), ("none", "ohlcv"))
]
EVERY += [
    Representation(t, c, 5, "volatility")
    for t, c in product(("overlapping", "return"), ("none", "ohlcv"))
]


@pytest.fixture(scope="module")
def panel() -> Panel:
    return make_panel(2, 120)


def bars_of(panel: Panel, rows: int = 40) -> np.ndarray:
    return np.stack([panel.bars[i].values[10 : 10 + rows] for i in (0, 1)])


@pytest.mark.parametrize("form", EVERY, ids=str)
def test_rescaled_prices_look_the_same(panel: Panel, form: Representation) -> None:
    bars = bars_of(panel)
    factor = np.array([7.3, 7.3, 7.3, 7.3, 1.0])
    seen, scaled = form.encode(bars, 30), form.encode(bars * factor, 30)
    np.testing.assert_allclose(scaled.channels, seen.channels, atol=1e-9)
    np.testing.assert_allclose(scaled.scale, seen.scale, rtol=1e-9)


@pytest.mark.parametrize("form", EVERY, ids=str)
def test_shifted_prices_are_seen(panel: Panel, form: Representation) -> None:
    bars = bars_of(panel)
    shifted = bars + np.array([50.0, 50.0, 50.0, 50.0, 0.0])
    seen, other = form.encode(bars, 30), form.encode(shifted, 30)
    moved = np.abs(seen.channels[:, 0] - other.channels[:, 0]).max()
    assert moved > 0.01 or np.abs(seen.scale - other.scale).max() > 0.01


@pytest.mark.parametrize("form", EVERY, ids=str)
def test_labels_change_nothing_that_the_context_shows(panel: Panel, form: Representation) -> None:
    bars = bars_of(panel)
    wild = bars.copy()
    wild[:, 30:] *= np.linspace(2, 9, 10)[None, :, None]
    seen, other = form.encode(bars, 30), form.encode(wild, 30)
    np.testing.assert_array_equal(seen.channels[..., :30], other.channels[..., :30])
    np.testing.assert_array_equal(seen.scale, other.scale)


@pytest.mark.parametrize("form", EVERY, ids=str)
def test_training_and_forecasting_see_the_same_bars(panel: Panel, form: Representation) -> None:
    train = TrainWindows(panel, split := make_split(panel, Cut(5)), split.part("train"))
    item, row = np.array([0, 1]), np.array([3, 12])
    learnt = form.encode(train.cut(item, row, 48)[0], 40)
    context = make_context(panel, item, row + 39, 40, 5)
    ((index, bars),) = by_length(context, lambda n: n, batch=9)
    asked = form.encode(bars, 40)
    np.testing.assert_array_equal(index, [0, 1])
    np.testing.assert_array_equal(learnt.channels[..., :40], asked.channels)
    np.testing.assert_array_equal(learnt.scale, asked.scale)


@pytest.mark.parametrize("form", EVERY, ids=str)
def test_the_true_future_of_the_channels_gives_the_true_prices(
    panel: Panel, form: Representation
) -> None:
    bars = bars_of(panel)
    seen = form.encode(bars, 30)
    future = seen.channels[:, : form.num_targets, 30:]
    base, truth = bars[:, 29, CLOSE], bars[:, 30:35, CLOSE]
    paths = np.repeat(future[:, None], 3, axis=1)
    moves = sample_quantiles(form.moves_of_paths(paths, seen.scale), LEVELS)
    np.testing.assert_allclose(form.forecast(moves, base, 5, LEVELS).median, truth, rtol=1e-9)
    quantiles = np.repeat(future[..., None], 3, axis=-1)
    moves = form.moves_of_quantiles(quantiles, seen.scale, LEVELS)
    np.testing.assert_allclose(form.forecast(moves, base, 5, LEVELS).median, truth, rtol=1e-9)


def test_covariates_stand_after_the_targets(panel: Panel) -> None:
    bars = bars_of(panel)
    for target in ("overlapping", "return", "price"):
        plain, full = (Representation(target, c, 5) for c in ("none", "ohlcv"))
        few, many = plain.encode(bars, 30), full.encode(bars, 30)
        assert many.channels.shape[1] == full.num_channels == plain.num_channels + 3
        np.testing.assert_array_equal(many.channels[:, : plain.num_channels], few.channels)
    opened, high, low, _, volume = bars[0, 20]
    before = bars[0, 19]
    expected = [np.log(high / low), np.log(opened / before[3])]
    expected.append(np.log((1 + volume) / (1 + before[4])))
    np.testing.assert_allclose(many.channels[0, 1:, 20], 100 * np.array(expected), rtol=1e-9)


def test_an_item_without_volume_or_movement_is_still_a_number() -> None:
    bars = np.full((1, 20, 5), 50.0)
    bars[..., 4] = 0.0
    for form in EVERY:
        assert np.isfinite(form.encode(bars, 15).channels).all()


def test_returns_reach_back_to_the_first_bar_at_most(panel: Panel) -> None:
    form = Representation("overlapping", "none", 3)
    bars = bars_of(panel, 6)
    close = 100 * np.log(bars[0, :, CLOSE])
    third = form.encode(bars, 6).channels[0, 2]
    np.testing.assert_allclose(third[:3], close[:3] - close[0])
    np.testing.assert_allclose(third[3:], close[3:] - close[:3])


@pytest.mark.parametrize(("horizon", "num"), [(1, 1), (8, 8), (9, 8), (20, 8), (64, 8)])
def test_long_horizons_keep_few_leads_and_both_ends(horizon: int, num: int) -> None:
    leads = Representation("overlapping", "none", horizon).leads
    assert len(leads) <= num
    assert (leads[0], leads[-1]) == (1, horizon)
    assert list(leads) == sorted(set(leads))


def test_between_leads_a_random_walk_with_drift_is_met_exactly() -> None:
    form = Representation("overlapping", "none", 64)
    away = stats.norm.ppf(LEVELS)

    def walk(time: np.ndarray) -> np.ndarray:
        return (0.1 * time[:, None] + away * np.sqrt(time[:, None]))[None]

    moves = walk(np.array(form.leads, dtype=float))
    found = form.forecast(moves, np.ones(1), 64, LEVELS).values
    np.testing.assert_allclose(100 * np.log(found), walk(np.arange(1.0, 65)), rtol=1e-9)


def test_spreads_of_one_bar_returns_add_as_those_of_independent_normals() -> None:
    form = Representation("return", "none", 4)
    scales = np.array([1.0, 2.0, 0.5, 1.5])
    quantiles = 0.3 + stats.norm.ppf(DEFAULT_LEVELS) * scales[:, None]
    found = form.moves_of_quantiles(quantiles[None, None], np.ones(1), DEFAULT_LEVELS)[0]
    total = np.sqrt(np.cumsum(scales**2))
    expected = 0.3 * np.arange(1, 5)[:, None] + stats.norm.ppf(DEFAULT_LEVELS) * total[:, None]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_horizon_beyond_the_trained_one_is_refused() -> None:
    form = Representation("return", "none", 4)
    with pytest.raises(ForecastError, match="speaks of 4 bars ahead, asked for 5"):
        form.forecast(np.zeros((1, 4, 3)), np.ones(1), 5, LEVELS)
    assert form.forecast(np.zeros((1, 4, 3)), np.ones(1), 2, LEVELS).values.shape == (1, 2, 3)


@given(st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=3))
def test_whatever_a_model_says_prices_are_finite_and_quantiles_rise(moves: list[float]) -> None:
    form = Representation("return", "none", 1)
    found = form.forecast(np.array(moves)[None, None], np.array([100.0]), 1, LEVELS).values
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all()


def test_windows_are_grouped_by_the_bars_they_can_use(panel: Panel) -> None:
    item, row = np.zeros(6, dtype=int), np.array([60, 5, 70, 17, 6, 80])
    context = make_context(panel, item, row, 24, 5)
    seen = {}
    for index, bars in by_length(context, lambda n: n // 8 * 8 or n, batch=2):
        assert len(index) <= 2
        for n, window in zip(index, bars, strict=True):
            seen[int(n)] = len(window)
            last = panel.bars[0].values[row[n] + 1 - len(window) : row[n] + 1]
            np.testing.assert_array_equal(window, last)
    assert seen == {0: 24, 1: 6, 2: 24, 3: 16, 4: 7, 5: 24}


def test_a_window_of_one_bar_is_refused_by_its_item(panel: Panel) -> None:
    context = make_context(panel, np.array([0, 1]), np.array([9, 0]), 8, 5)
    with pytest.raises(ForecastError, match="A1: a window has 1 bars"):
        list(by_length(context, lambda n: n, batch=9))


def volatility_by_hand(moves: np.ndarray) -> np.ndarray:
    """[n] the root of the mean square of the first BURN_IN moves, then 0.94 old + 0.06 new."""
    known = [float((moves[:BURN_IN] ** 2).mean())]
    for k, move in enumerate(moves):
        known.append(known[-1] if k < BURN_IN else 0.94 * known[-1] + 0.06 * move**2)
    return np.sqrt(known)


def test_scaled_returns_are_over_the_volatility_known_where_they_begin(panel: Panel) -> None:
    form = Representation("overlapping", "ohlcv", 3, "volatility")
    bars = bars_of(panel, 60)
    seen = form.encode(bars, 50)
    close = 100 * np.log(bars[0, :, CLOSE])
    known = volatility_by_hand(np.diff(close[:50]))
    at, lead = 40, 3
    assert seen.channels[0, 2, at] == pytest.approx(
        (close[at] - close[at - lead]) / known[at - lead]
    )
    plain = Representation("overlapping", "ohlcv", 3).encode(bars, 50)
    for gap_or_span in (3, 4):
        expected = plain.channels[0, gap_or_span, at] / known[at - 1]
        assert seen.channels[0, gap_or_span, at] == pytest.approx(expected)
    np.testing.assert_array_equal(seen.channels[:, 5], plain.channels[:, 5])  # volume as it was
    assert seen.scale[0] == pytest.approx(known[49])
    after = (close[52] - close[51 - 2]) / known[49]  # labels: the origin's volatility, no later one
    assert seen.channels[0, 2, 52] == pytest.approx(after)


@pytest.mark.parametrize("target", ["overlapping", "return"])
def test_no_scaled_channel_knows_of_later_bars_of_its_own_context(
    panel: Panel, target: str
) -> None:
    form = Representation(target, "ohlcv", 5, "volatility")  # type: ignore[arg-type]
    bars = bars_of(panel, 60)
    wild = bars.copy()
    wild[:, 33:] *= np.linspace(2, 9, 27)[None, :, None]
    seen, other = form.encode(bars, 60), form.encode(wild, 60)
    kept = slice(form.lag, 33)
    assert form.lag < 33
    np.testing.assert_array_equal(seen.channels[..., kept], other.channels[..., kept])


def test_scaling_evens_out_calm_and_storm() -> None:
    rng = np.random.default_rng(0)
    sigma = np.repeat([0.002, 0.03, 0.002, 0.03], 100)
    close = 50 * np.exp(np.cumsum(sigma * rng.standard_normal(400)))
    bars = np.repeat(close[None, :, None], 5, axis=2)

    def storm_over_calm(form: Representation) -> float:
        channel = form.encode(bars, 400).channels[0, 0]
        return float(channel[340:].std() / channel[240:300].std())

    assert storm_over_calm(Representation("return", "none", 1)) > 10
    assert storm_over_calm(Representation("return", "none", 1, "volatility")) < 2


@pytest.mark.parametrize("rows", [2, 3, BURN_IN, BURN_IN + 1, BURN_IN + 2])
def test_scaled_channels_of_few_bars_are_numbers(panel: Panel, rows: int) -> None:
    form = Representation("overlapping", "ohlcv", 5, "volatility")
    seen = form.encode(bars_of(panel, rows), rows)
    assert np.isfinite(seen.channels).all()
    assert (seen.scale > 0).all()


def test_scaling_is_refused_for_prices_which_are_scaled_already() -> None:
    with pytest.raises(ConfigError, match="scaling='volatility' has no effect with target='price'"):
        Representation("price", "none", 5, "volatility")
