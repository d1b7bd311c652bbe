"""The trading rule, bar by bar as it is stated, and the Sharpe ratio's error against others'."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given

from foresweep.data.panel import CLOSE, OPEN, panel_from_frame
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import Windows
from foresweep.errors import ConfigError, ForecastError
from foresweep.evaluation.leaks import replace_after
from foresweep.evaluation.losses import volatility_scale
from foresweep.evaluation.trading import (
    bars_per_year,
    bartlett_variance,
    make_market,
    max_drawdown,
    sharpe,
    trade,
)
from foresweep.metrics import Outcome
from panels import close_panel, every_day, make_frame, make_panel, walk_frame, weekdays
from strategies import ragged_panels


def windows_of(panel, horizon=5, stride=None, part="val") -> Windows:
    split = make_split(panel, Cut(horizon, stride=stride))
    return Windows(panel, split, split.part(part))


def market_of(windows):
    return windows, make_market(windows, volatility_scale(windows))


def run(median, market, **cost):
    """The rule on medians [N, H] of the windows that `market_of` was made of."""
    windows, market = market
    quantiles = np.repeat(median[..., None], 9, axis=2)
    levels = tuple(k / 10 for k in range(1, 10))
    labels, last = windows.labels[: len(median)], windows.last_close[: len(median)]
    return trade(Outcome(labels, quantiles, levels, last), market, **cost)


def guesses(windows, seed=0):
    """[N, H] medians up or down by chance, some of them flat."""
    rng = np.random.default_rng(seed)
    moves = rng.choice([-0.01, 0.0, 0.01], len(windows), p=[0.4, 0.2, 0.4])
    return np.repeat((windows.last_close * (1 + moves))[:, None], windows.horizon, axis=1)


def by_hand(windows, median, cost_bps):
    """The rule once more, by loops over bars and dictionaries: (net, always-long, traded)."""
    panel, part, horizon = windows.panel, windows.part, windows.horizon
    sleeves = int(np.ceil(horizon / part.stride))
    scale = volatility_scale(windows)
    held, plain = {}, {}  # (item, row) -> position during that bar
    for n in range(len(windows)):
        peers = windows.origin == windows.origin[n]
        floored = np.maximum(scale[peers], 0.25 * np.median(scale[peers]))
        own = max(scale[n], 0.25 * np.median(scale[peers]))
        size = (1 / own) / (1 / floored).sum()
        sign = np.sign(median[n, -1] - windows.last_close[n])
        for h in range(1, horizon + 1):
            key = (int(windows.item[n]), int(windows.row[n]) + h)
            held[key] = held.get(key, 0.0) + sign * size / sleeves
            plain[key] = plain.get(key, 0.0) + 1 / peers.sum() / sleeves
    found = []
    for positions in (held, plain):
        earned, traded = {}, {}
        for (item, row), position in positions.items():
            values, at = panel.bars[item].values, panel.timeline_of(item)
            has_next = row + 1 < len(values) and at[row + 1] < part.stop
            left = values[row + 1, OPEN] if has_next else values[row, CLOSE]
            bar = at[row]
            earned[bar] = earned.get(bar, 0.0) + position * (left / values[row, OPEN] - 1)
            change = abs(position - positions.get((item, row - 1), 0.0))
            if (item, row + 1) not in positions:
                change += abs(position)
            traded[bar] = traded.get(bar, 0.0) + change
        bars = range(min(earned), max(earned) + 1)
        gross = np.array([earned.get(b, 0.0) for b in bars])
        found.append((gross, np.array([traded.get(b, 0.0) for b in bars])))
    (gross, traded), (beside, also) = found
    return gross - cost_bps / 1e4 * traded, beside - cost_bps / 1e4 * also, traded


@pytest.mark.parametrize(("horizon", "stride"), [(1, 1), (5, 1), (5, 2), (5, 5), (3, 7)])
def test_the_rule_is_the_one_stated_bar_by_bar(horizon, stride):
    windows = windows_of(make_panel(3, 500, seed=1), horizon, stride)
    median = guesses(windows)
    found = run(median, market_of(windows), cost_bps=7.0)
    net, beside, traded = by_hand(windows, median, 7.0)
    np.testing.assert_allclose(found.net, net, atol=1e-14)
    np.testing.assert_allclose(found.always_long, beside, atol=1e-14)
    np.testing.assert_allclose(found.traded, traded, atol=1e-14)
    excess = net - beside
    year = found.bars_per_year
    assert found.scores["sharpe"] == pytest.approx(
        np.sqrt(year) * excess.mean() / excess.std(ddof=1)
    )
    assert found.scores["turnover"] == pytest.approx(traded.mean() * year)
    value = np.concatenate([[1], np.cumprod(1 + net)])
    falls = [1 - value[k] / value[: k + 1].max() for k in range(len(value))]
    assert found.scores["max_drawdown"] == pytest.approx(100 * max(falls))


@given(ragged_panels())
def test_items_that_come_late_lack_bars_or_trade_on_weekends_are_traded_as_stated(panel):
    windows = windows_of(panel, 3, 2)
    if not len(windows):
        return
    median = guesses(windows, seed=1)
    found = run(median, market_of(windows))
    net, beside, traded = by_hand(windows, median, 5.0)
    np.testing.assert_allclose(found.net, net, atol=1e-13)
    np.testing.assert_allclose(found.always_long, beside, atol=1e-13)
    np.testing.assert_allclose(found.traded, traded, atol=1e-13)


def test_an_order_is_filled_at_the_open_after_the_origin_not_at_its_close():
    """Prices jump between every close and the next open: who fills at the close gets the jump."""
    opens = 100.0 * np.where(np.arange(400) % 2, 1.0, 1.1)
    frame = make_frame(1, 400).with_columns(
        open=pl.lit(opens), close=pl.lit(opens), high=pl.lit(opens), low=pl.lit(opens)
    )
    frame = frame.with_columns(close=pl.lit(np.roll(opens, -1)), low=100.0, high=110.0)
    windows = windows_of(panel_from_frame(frame), 1, 1)
    up = np.sign(windows.label_bars[:, 0, CLOSE] - windows.label_bars[:, 0, OPEN])
    median = (windows.last_close * (1 + 0.01 * up))[:, None]
    found = run(median, market_of(windows), cost_bps=0.0)
    moves = windows.label_bars[:, 0, CLOSE] / windows.label_bars[:, 0, OPEN] - 1
    np.testing.assert_allclose(found.gross, np.abs(moves), rtol=1e-12)


def test_a_rule_that_never_trades_is_undefined_not_zero():
    windows = windows_of(make_panel(2, 400))
    still = np.repeat(windows.last_close[:, None], windows.horizon, axis=1)
    found = run(still, market_of(windows))
    assert all(np.isnan(v) for v in found.scores.values())
    kept = still.astype(np.float32).astype(np.float64)  # as forecasts are stored
    assert (kept != still).any()
    assert np.isnan(run(kept, market_of(windows)).scores["sharpe"])
    one = still.copy()
    one[3, -1] *= 1.001
    assert all(np.isfinite(v) for v in run(one, market_of(windows)).scores.values())


def test_only_the_last_lead_gives_the_sign():
    windows = windows_of(make_panel(2, 400))
    median = np.repeat(windows.last_close[:, None], windows.horizon, axis=1)
    median[:, :-1] *= 1.05
    assert np.isnan(run(median, market_of(windows)).scores["sharpe"])


def test_positions_never_borrow_and_calm_items_get_more():
    panel = panel_from_frame(
        pl.concat(
            [
                walk_frame("CALM", weekdays(500), volatility=0.005),
                walk_frame("WILD", weekdays(500), volatility=0.02),
            ]
        )
    )
    windows = windows_of(panel)
    market = market_of(windows)[1]
    np.testing.assert_allclose(np.bincount(windows.origin, market.size), 1.0)
    calm = windows.column == 0
    assert market.size[calm].mean() > 2 * market.size[~calm].mean()


def test_an_item_that_never_moves_does_not_take_all_the_capital():
    rng = np.random.default_rng(0)
    walks = {f"A{k}": 50 * np.exp(0.01 * np.cumsum(rng.standard_normal(400))) for k in range(5)}
    windows = windows_of(close_panel(walks | {"FLAT": np.full(400, 9.0)}))
    share = market_of(windows)[1].size[windows.column == 5]
    assert share.max() < 0.55


def test_always_long_bought_once_and_sold_once_turns_over_twice():
    windows = windows_of(make_panel(1, 500), 1, 1)
    up = 1.01 * windows.last_close[:, None]
    found = run(up, market_of(windows))
    assert found.traded.sum() == pytest.approx(2.0)
    assert np.isnan(found.scores["sharpe"]), "always long of one item is its own yardstick"


def test_cost_is_paid_on_what_is_traded_and_lowers_what_is_earned():
    windows = windows_of(make_panel(3, 500, seed=3), 5, 1)
    median, market = guesses(windows), market_of(windows)
    free, dear = (run(median, market, cost_bps=c) for c in (0.0, 20.0))
    np.testing.assert_allclose(free.net - dear.net, 0.002 * free.traded, atol=1e-15)
    np.testing.assert_array_equal(free.net, free.gross)
    assert dear.scores["turnover"] == free.scores["turnover"]
    assert dear.scores["sharpe"] < free.scores["sharpe"]


@pytest.mark.parametrize("cost", [-1.0, np.nan, np.inf])
def test_a_cost_that_is_none_is_refused(cost):
    windows = windows_of(make_panel(1, 400))
    with pytest.raises(ConfigError, match="cost_bps"):
        run(guesses(windows), market_of(windows), cost_bps=cost)


def test_forecasts_of_other_windows_are_refused():
    windows = windows_of(make_panel(1, 400))
    with pytest.raises(ForecastError, match="to trade"):
        run(guesses(windows)[1:], market_of(windows))


def test_no_bar_after_the_part_is_looked_at():
    panel = make_panel(3, 500, seed=6)
    windows = windows_of(panel, part="tune")
    changed = Windows(replace_after(panel, windows.part.stop - 1), windows.split, windows.part)
    median = guesses(windows)
    before, after = (run(median, market_of(w)) for w in (windows, changed))
    np.testing.assert_array_equal(before.net, after.net)
    assert before.scores == after.scores


def test_who_knows_the_moves_earns_and_who_names_the_opposite_loses():
    windows = windows_of(make_panel(4, 600, seed=7))
    ahead = windows.label_bars[:, -1, CLOSE] / windows.label_bars[:, 0, OPEN] - 1
    median = np.repeat((windows.last_close * (1 + ahead))[:, None], windows.horizon, axis=1)
    against = np.repeat((windows.last_close * (1 - ahead))[:, None], windows.horizon, axis=1)
    market = market_of(windows)
    assert run(median, market).scores["sharpe"] > 4
    assert run(against, market).scores["sharpe"] < -4


def test_the_year_has_as_many_bars_as_the_calendar():
    assert bars_per_year(weekdays(2610)) == pytest.approx(261, abs=0.5)
    assert bars_per_year(every_day(1000)) == pytest.approx(365.25, abs=1e-6)
    hours = np.datetime64("2020-01-01") + np.arange(9000) * np.timedelta64(1, "h")
    assert bars_per_year(hours.astype("datetime64[ns]")) == pytest.approx(24 * 365.25, rel=1e-6)
    assert np.isnan(bars_per_year(weekdays(1)))


def test_the_long_run_variance_is_statsmodels():
    linear = pytest.importorskip("statsmodels.regression.linear_model")
    x = np.convolve(np.random.default_rng(0).standard_normal(300), [1, 0.5, 0.2], mode="valid")
    fit = linear.OLS(x, np.ones((len(x), 1))).fit(
        cov_type="HAC", cov_kwds={"maxlags": 4, "use_correction": False}
    )
    assert np.sqrt(bartlett_variance(x, 4) / len(x)) == pytest.approx(fit.bse[0], rel=1e-10)


def test_the_error_of_a_sharpe_ratio_is_the_spread_of_sharpe_ratios():
    rng = np.random.default_rng(1)
    draws = [sharpe(1.5 + rng.standard_normal(400), 1.0, lags=0) for _ in range(600)]
    ratios, errors = np.array(draws).T
    assert np.mean(errors) == pytest.approx(ratios.std(), rel=0.1)
    assert np.mean(errors) == pytest.approx(np.sqrt((1 + 1.5**2 / 2) / 400), rel=0.02)


def test_momentum_in_returns_widens_the_error():
    rng = np.random.default_rng(2)
    noise = rng.standard_normal(2000)
    smooth = np.convolve(noise, np.ones(5) / 5, mode="valid")
    assert sharpe(smooth, 1.0)[1] > 1.5 * sharpe(smooth, 1.0, lags=0)[1]


@pytest.mark.parametrize("returns", [[], [0.1], [0.01] * 30])
def test_returns_that_do_not_differ_have_no_sharpe_ratio(returns):
    assert np.isnan(sharpe(np.array(returns), 252.0)).all()


def test_a_drawdown_counts_from_the_first_bar_and_ends_at_everything():
    assert max_drawdown(np.array([-0.1, 0.05])) == pytest.approx(10.0)
    assert max_drawdown(np.array([0.1, 0.1])) == 0.0
    assert max_drawdown(np.array([0.5, -1.2, 3.0])) == pytest.approx(100.0)
    assert max_drawdown(np.array([])) == 0.0
