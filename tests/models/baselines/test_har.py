"""HAR: the fit must be the regression it says it is, and its forecasts must follow from it."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import Context, TrainWindows, Windows, make_context
from foresweep.errors import CheckpointError, ConfigError, ForecastError, NotEnoughData
from foresweep.evaluation.backtest import evaluate, make_scorer
from foresweep.evaluation.contract import ModelContract
from foresweep.models.base import DEFAULT_LEVELS, Facts, Resources, TrainingJob
from foresweep.models.baselines.har import FILE, MOST_BARS, Har, HarConfig, HarPredictor, fit_har
from foresweep.models.baselines.naive import RandomWalk
from foresweep.models.checkpoint import read_checkpoint
from panels import close_panel, make_panel

FACTS = Facts(horizon=5, max_context=200, train_bars=1000)


class TestHar(ModelContract):
    random = False

    def make(self):
        return Har()

    def config(self):
        return {}

    def test_a_context_beyond_the_sweep_s_is_refused(self, bench) -> None:
        with pytest.raises(ConfigError, match="context_length=62: Input should be less than"):
            bench.resolve({"context_length": MOST_BARS + 1})


def train_of(panel, horizon: int = 3) -> TrainWindows:
    split = make_split(panel, Cut(horizon))
    return TrainWindows(panel, split, split.part("train"))


def predictor_of(panel, horizon: int = 3, context_length: int = MOST_BARS) -> HarPredictor:
    fit = fit_har(train_of(panel, horizon), context_length=context_length, horizon=horizon)
    return HarPredictor(context_length, fit)


def test_the_fit_is_the_regression_done_bar_by_bar() -> None:
    panel = make_panel(2, 200)
    train, horizon = train_of(panel), 3
    design, ahead, moves = [], [], []
    for item in range(2):
        opened, high, low, close = np.log(train.values(item)[:, :4]).T
        gap = opened[1:] - close[:-1]
        inside = (high - low) ** 2 / 2 - (2 * np.log(2) - 1) * (close - opened) ** 2
        v = np.concatenate([[np.nan], gap**2 + inside[1:]])
        for t in range(1, len(close) - horizon):
            means = [v[max(1, t - w + 1) : t + 1].mean() for w in (1, 5, 20, 60)]
            design.append([1.0, *np.log(means)])
            ahead.append([np.log(v[t + 1 : t + h + 1].mean()) for h in (1, 2, 3)])
            moves.append(close[t + 1 : t + 4] - close[t])
    expected = np.linalg.lstsq(np.array(design), np.array(ahead), rcond=None)[0]
    fit = fit_har(train, context_length=MOST_BARS, horizon=horizon)
    assert fit.num_windows == len(design)
    np.testing.assert_allclose(fit.coefficients, expected.T, rtol=1e-6)
    sigma = np.sqrt([1, 2, 3]) * np.exp(np.array(design) @ expected / 2)
    standard = np.array(moves) / sigma
    spread = np.quantile(standard, 0.9, axis=0) - np.median(standard, axis=0)
    np.testing.assert_allclose(fit.spread[:, 179], spread, rtol=1e-6)


def test_a_forecast_is_the_volatility_of_its_own_context_times_the_spread_of_train() -> None:
    panel = make_panel(2, 400)
    predictor = predictor_of(panel)
    context = make_context(panel, np.array([1]), np.array([350]), 100, 3)
    opened, high, low, close = np.log(context.values[0, :, :4]).T
    inside = (high - low) ** 2 / 2 - (2 * np.log(2) - 1) * (close - opened) ** 2
    v = (opened[1:] - close[:-1]) ** 2 + inside[1:]
    features = [1.0, *(np.log(v[-w:].mean()) for w in (1, 5, 20, 60))]
    sigma = np.sqrt(2) * np.exp(predictor.fit.coefficients[1] @ features / 2)
    found = predictor.predict(context, horizon=3, levels=DEFAULT_LEVELS, seed=0)
    expected = np.exp(close[-1] + sigma * predictor.fit.spread[1, 59])
    assert found.values[0, 1, 2] == pytest.approx(expected, rel=1e-9)
    assert (found.median == context.last_close[:, None]).all()


def clustered_panel(seed: int = 0):
    """Walks whose volatility is itself a slow walk in logs: what HAR is made for."""
    rng = np.random.default_rng(seed)
    closes = {}
    for k in range(6):
        log_sigma = np.zeros(1500)
        for t in range(1, 1500):
            log_sigma[t] = 0.97 * log_sigma[t - 1] + 0.15 * rng.standard_normal()
        closes[f"V{k}"] = 50 * np.exp(
            np.cumsum(0.01 * np.exp(log_sigma) * rng.standard_normal(1500))
        )
    return close_panel(closes)


def test_where_volatility_reverts_har_beats_last_value_and_is_not_behind_ewma() -> None:
    panel = clustered_panel()
    split = make_split(panel, Cut(5))
    har = evaluate(predictor_of(panel, 5), panel, split, parts=("val", "test"))
    family = RandomWalk()
    walk = family.predictor(family.resolve(family.Config(), FACTS))
    ewma = evaluate(walk, panel, split, parts=("val", "test"))
    for part in ("val", "test"):
        assert har[f"{part}_pinball_skill"] > 0.01
        assert har[f"{part}_pinball"] < 1.005 * ewma[f"{part}_pinball"]
        assert 0.74 < har[f"{part}_coverage_80"] < 0.86


def test_one_item_is_enough_and_a_quiet_market_is_not_needed() -> None:
    panel = make_panel(1, 300)
    found = predictor_of(panel).predict(
        make_context(panel, np.array([0]), np.array([299]), 61, 3),
        horizon=3,
        levels=DEFAULT_LEVELS,
        seed=0,
    )
    width = found.values[0, :, 8] - found.values[0, :, 0]
    assert (np.diff(width) > 0).all()


@pytest.mark.parametrize("num_bars", [1, 2, 3, 30])
def test_a_context_of_few_bars_still_gets_a_forecast(num_bars: int) -> None:
    panel = make_panel(2, 300)
    context = make_context(panel, np.array([0]), np.array([200]), num_bars, 3)
    found = predictor_of(panel).predict(context, horizon=3, levels=DEFAULT_LEVELS, seed=0)
    values = found.checked(1, 3).values
    assert (np.diff(values, axis=2) >= 0).all()


def test_a_price_that_never_moves_is_forecast_to_stay() -> None:
    predictor = predictor_of(make_panel(2, 300))
    still = close_panel({"S": np.full(80, 7.0)})
    context = make_context(still, np.array([0]), np.array([79]), 61, 3)
    found = predictor.predict(context, horizon=3, levels=DEFAULT_LEVELS, seed=0)
    np.testing.assert_array_equal(found.values, 7.0)


def test_bars_without_range_nor_gap_now_and_then_are_no_harm() -> None:
    closes = make_panel(1, 400).bars[0].values[:, 3].copy()
    closes[50:55] = closes[49]
    closes[395:] = closes[394]
    panel = close_panel({"A": closes})
    context = make_context(panel, np.array([0]), np.array([399]), 61, 3)
    found = predictor_of(panel).predict(context, horizon=3, levels=DEFAULT_LEVELS, seed=0)
    width = np.log(found.values[0, 0, 8] / found.values[0, 0, 0])
    assert 1e-4 < width < 1


def test_windows_of_different_age_are_each_forecast_as_if_alone_to_the_last_bit() -> None:
    panel = make_panel(3, 300)
    predictor = predictor_of(panel)
    rows, items = np.array([0, 20, 60, 299, 20, 299]), np.array([0, 0, 1, 2, 1, 0])
    context = make_context(panel, items, rows, 80, 3)

    def ask(asked: Context):
        return predictor.predict(asked, horizon=3, levels=DEFAULT_LEVELS, seed=0).values

    alone = [ask(context.take(np.array([n]))) for n in range(6)]
    np.testing.assert_array_equal(ask(context), np.concatenate(alone))


def test_nothing_after_train_is_read_by_the_fit() -> None:
    panel = make_panel(2, 400)
    train = train_of(panel)
    stop = train.part.stop
    bars = []
    for b in panel.bars:
        values = b.values.copy()
        values[stop:, :4] *= np.linspace(2, 5, len(values) - stop)[:, None]
        values.setflags(write=False)
        bars.append(dataclasses.replace(b, values=values))
    later = dataclasses.replace(panel, bars=tuple(bars))
    first = fit_har(train, context_length=61, horizon=3)
    second = fit_har(TrainWindows(later, train.split, train.part), context_length=61, horizon=3)
    np.testing.assert_array_equal(first.coefficients, second.coefficients)
    np.testing.assert_array_equal(first.spread, second.spread)


def test_levels_between_and_beyond_those_kept_are_read_off_the_same_curve() -> None:
    panel = make_panel(2, 400)
    context = make_context(panel, np.array([0]), np.array([399]), 61, 3)
    levels = (0.001, 0.1, 0.1234, 0.5, 0.999)
    found = predictor_of(panel).predict(context, horizon=3, levels=levels, seed=0).values
    assert (np.diff(found, axis=2) > 0).all()


def test_what_it_cannot_do_is_said() -> None:
    family, panel = Har(), make_panel(2, 300)
    assert family.resolve(HarConfig(), FACTS).context_length == MOST_BARS
    assert (
        family.resolve(HarConfig(), dataclasses.replace(FACTS, max_context=40)).context_length == 40
    )
    context = make_context(panel, np.array([0]), np.array([99]), 61, 4)
    with pytest.raises(ForecastError, match="speaks of 3 bars ahead, asked for 4"):
        predictor_of(panel).predict(context, horizon=4, levels=DEFAULT_LEVELS, seed=0)
    with pytest.raises(NotEnoughData, match="har needs 60 windows"):
        predictor_of(close_panel({"S": np.full(300, 7.0)}))


def test_a_checkpoint_without_its_fit_is_refused(tmp_path) -> None:
    panel = make_panel(2, 300)
    split = make_split(panel, Cut(3))
    family = Har()
    checkpoint = family.train(
        TrainingJob(
            TrainWindows(panel, split, split.part("train")),
            family.resolve(HarConfig(), FACTS),
            horizon=3,
            score=make_scorer(panel, split),
            out=tmp_path / "har",
        )
    )
    read = read_checkpoint(checkpoint.path)
    windows = Windows(panel, split, split.part("val"))
    found = family.load(read, Resources()).predict(
        windows.context(61), horizon=3, levels=DEFAULT_LEVELS, seed=0
    )
    fit = fit_har(TrainWindows(panel, split, split.part("train")), context_length=61, horizon=3)
    again = HarPredictor(61, fit).predict(
        windows.context(61), horizon=3, levels=DEFAULT_LEVELS, seed=0
    )
    np.testing.assert_array_equal(found.values, again.values)
    (checkpoint.path / FILE).write_text("{}")
    with pytest.raises(CheckpointError, match=r"har.json was altered"):
        read_checkpoint(checkpoint.path)
    files = {k: v for k, v in read.card["files"].items() if k != FILE}
    bare = dataclasses.replace(read, card={**read.card, "files": files})
    with pytest.raises(CheckpointError, match="holds no har"):
        family.load(bare, Resources())


def test_thirty_items_are_fitted_in_moderate_time() -> None:
    """CPU time, generously: the fit is one least squares over all windows."""
    train = train_of(make_panel(30, 1500), 5)
    started = time.process_time()
    fit_har(train, context_length=61, horizon=5)
    assert time.process_time() - started < 10
