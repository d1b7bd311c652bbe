"""The one engine: right numbers, the same windows for all, nothing missing, nothing disturbed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from foresweep.data.panel import CLOSE
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import Context, Windows
from foresweep.errors import ForecastError, NotEnoughData
from foresweep.evaluation.backtest import (
    compare,
    evaluate,
    forecast_part,
    last_value,
    make_scorer,
    naive_part,
    score_part,
)
from foresweep.evaluation.losses import load_forecast, load_losses
from foresweep.evaluation.trading import load_returns, sharpe
from foresweep.metrics import METRICS, TRADING_METRICS, split_score
from foresweep.models.base import Forecast
from foresweep.models.baselines.naive import Drift
from foresweep.stats.significance import diebold_mariano
from panels import close_panel, make_panel

PANEL = make_panel(4, 600, seed=2)
SPLIT = make_split(PANEL, Cut(5))


def tune() -> Windows:
    return Windows(PANEL, SPLIT, SPLIT.part("tune"))


@dataclass
class Spoilt:
    """Last-value with a defect in the forecasts of its second call."""

    spoil: object
    calls: list[int] = field(default_factory=list)
    context_length: int = 64

    def predict(self, context: Context, *, horizon, levels, seed) -> Forecast:
        made = last_value(SPLIT).predict(context, horizon=horizon, levels=levels, seed=seed)
        self.calls.append(len(context))
        return self.spoil(made) if len(self.calls) == 2 else made


def with_value(made: Forecast, value: float) -> Forecast:
    values = made.values.copy()
    values[3, 1, 0] = value
    return Forecast(values, made.levels)


@dataclass
class Foresight:
    """A forecaster that has the closes (the test gave them to it), off by a share of the move."""

    panel: object
    miss: float = 0.0
    context_length: int = 8

    def predict(self, context: Context, *, horizon, levels, seed) -> Forecast:
        rows = []
        for name, at in zip(context.item_ids, context.timestamps[:, -1], strict=True):
            i = self.panel.index(name)
            row = np.searchsorted(self.panel.timestamps_of(i), at)
            closes = self.panel.bars[i].values[row : row + horizon + 1, CLOSE]
            rows.append(closes[1:] + self.miss * (closes[0] - closes[1:]))
        median = np.array(rows)
        return Forecast(np.repeat(median[..., None], len(levels), axis=2), levels)


def test_last_value_s_pct_mae_is_that_of_five_lines_of_numpy():
    frame = PANEL.to_frame()
    errors = []
    for name in PANEL.items:
        close = frame.filter(frame["item_id"] == name)["close"].to_numpy()
        for o in SPLIT.part("tune").origins:
            errors += [abs(close[o + h] - close[o]) / close[o] * 100 for h in range(1, 6)]
    scores = evaluate(last_value(SPLIT), PANEL, SPLIT, parts=("tune",))
    assert scores["tune_pct_mae"] == pytest.approx(np.mean(errors), rel=1e-12)
    assert scores["tune_naive_pct_mae"] == scores["tune_pct_mae"]


def test_last_value_s_pct_mae_on_the_demo_panel_is_that_of_five_lines_of_numpy():
    demo = pytest.importorskip("foresweep.data.demo").demo_panel()
    split = make_split(demo, Cut(5))
    for part in ("tune", "val", "test"):
        wide = demo.to_frame().pivot("item_id", index="timestamp", values="close")
        close = wide.sort("timestamp").drop("timestamp").to_numpy()  # [T, items]
        o = split.part(part).origins
        moves = np.stack([np.abs(close[o + h] / close[o] - 1) for h in range(1, 6)])
        found = evaluate(last_value(split), demo, split, parts=(part,))
        assert found[f"{part}_pct_mae"] == pytest.approx(100 * np.nanmean(moves), rel=1e-10)


def test_every_metric_of_the_table_is_scored_under_its_full_name():
    scores = evaluate(Foresight(PANEL, miss=0.5), PANEL, SPLIT, parts=("tune", "val"))
    assert {split_score(k) for k in scores} == {(p, m) for p in ("tune", "val") for m in METRICS}
    assert all(np.isfinite(v) for v in scores.values())


def test_last_value_orders_no_items_and_takes_no_position_so_these_scores_are_undefined():
    scores = evaluate(last_value(SPLIT), PANEL, SPLIT, parts=("val",))
    undefined = {split_score(k)[1] for k, v in scores.items() if np.isnan(v)}
    assert undefined == {"rank_ic", *TRADING_METRICS}


def test_half_the_move_known_is_half_the_error():
    scores = evaluate(Foresight(PANEL, miss=0.5), PANEL, SPLIT, parts=("val",))
    assert scores["val_skill"] == pytest.approx(0.5)
    assert scores["val_rank_ic"] == pytest.approx(1.0)
    assert scores["val_r2_vs_naive"] == pytest.approx(0.75)
    assert scores["val_directional_accuracy"] == 1.0
    assert scores["val_dm_pvalue_vs_naive"] < 0.01


def test_a_forecaster_worse_than_naive_has_negative_skill_and_a_p_value_near_one():
    scores = evaluate(Foresight(PANEL, miss=2.5), PANEL, SPLIT, parts=("val",))
    assert scores["val_skill"] == pytest.approx(-1.5)
    assert scores["val_dm_pvalue_vs_naive"] > 0.99


def test_the_p_value_is_that_of_scaled_losses_per_origin_with_the_lags_of_overlapping_labels():
    windows = Windows(PANEL, SPLIT, SPLIT.part("val"))
    assert windows.part.stride == 1  # of labels five bars long: four lags
    drift = Drift().predictor(Drift.Config(context_length=100))
    ours = score_part(forecast_part(drift, windows), windows).losses
    theirs = naive_part(windows).losses
    means = [np.mean(p.losses["pct_mae"] / p.scale, axis=1) for p in (ours, theirs)]
    expected = diebold_mariano(*means, lags=4).pvalue
    assert compare(ours, theirs) == pytest.approx(expected, rel=1e-12)
    assert 0.001 < expected < 0.999


@pytest.mark.parametrize("batch", [1, 7, 64, 10_000])
def test_no_batch_size_changes_a_baseline_s_forecast(batch):
    whole = forecast_part(last_value(SPLIT), tune())
    np.testing.assert_array_equal(
        forecast_part(last_value(SPLIT), tune(), batch=batch).values, whole.values
    )


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: with_value(f, np.nan), "1 of 32 forecasts are not finite"),
        (lambda f: with_value(f, -np.inf), "1 of 32 forecasts are not finite"),
        (lambda f: with_value(f, 1e9), "1 of 32 forecasts have quantiles that cross"),
        (lambda f: Forecast(f.values[:-1], f.levels), r"has shape \(31, 5, 9\)"),
        (lambda f: Forecast(f.values[:, :4], f.levels), r"has shape \(32, 4, 9\)"),
        (lambda f: Forecast(f.values[..., :3], (0.1, 0.5, 0.9)), "asked for"),
    ],
)
def test_a_missing_or_broken_forecast_makes_the_run_fail_to_score(spoil, says):
    with pytest.raises(ForecastError, match=says):
        forecast_part(Spoilt(spoil), tune(), batch=32)


def test_a_forecast_of_too_few_windows_cannot_be_scored():
    forecast = forecast_part(last_value(SPLIT), tune())
    with pytest.raises(ForecastError, match="has shape"):
        score_part(Forecast(forecast.values[1:], forecast.levels), tune())


def test_models_are_asked_for_no_more_than_the_sweep_s_context():
    seen = []

    @dataclass
    class Greedy(Foresight):
        context_length: int = 10_000

        def predict(self, context, *, horizon, levels, seed):
            seen.append(context.values.shape[1])
            return super().predict(context, horizon=horizon, levels=levels, seed=seed)

    evaluate(Greedy(PANEL), PANEL, SPLIT, parts=("tune",))
    assert set(seen) == {SPLIT.max_context}


def test_the_scorer_gives_what_evaluate_gives_and_sees_tune_alone():
    scored = make_scorer(PANEL, SPLIT)(Foresight(PANEL, miss=0.3))
    assert scored.scores == evaluate(Foresight(PANEL, miss=0.3), PANEL, SPLIT, parts=("tune",))
    assert all(name.startswith("tune_") for name in scored.scores)
    assert scored.losses["pct_mae"].shape == tune().shape


def test_scoring_leaves_every_global_random_state_alone():
    before = np.random.get_state()[1].copy()
    make_scorer(PANEL, SPLIT)(last_value(SPLIT))
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_a_part_without_a_window_is_refused_in_words():
    panel = close_panel({"A": np.linspace(10, 20, 200)})
    split = make_split(panel, Cut(2, min_context=100, max_context=100))
    windows = Windows(panel, split, split.part("tune"))
    empty = Windows(
        panel, make_split(panel, Cut(2, min_context=120, max_context=126)), windows.part
    )
    assert len(empty)
    none = Windows(panel, split, type(windows.part)("tune", 3, 60, 57, 2, np.arange(3, 50, 2)))
    with pytest.raises(NotEnoughData, match="'tune' has no window with 100 bars"):
        forecast_part(last_value(split), none)


def test_evaluate_stores_forecasts_and_losses_of_each_part(tmp_path):
    predictor = Foresight(PANEL, miss=0.4)
    scores = evaluate(predictor, PANEL, SPLIT, out=tmp_path)
    for part in ("tune", "val", "test"):
        windows = Windows(PANEL, SPLIT, SPLIT.part(part))
        losses = load_losses(tmp_path / part / "losses.npz")
        assert losses.fingerprint == windows.fingerprint
        assert np.nanmean(losses.losses["pct_mae"]) == pytest.approx(scores[f"{part}_pct_mae"])
        assert np.nanmean(losses.losses["pinball"]) == pytest.approx(scores[f"{part}_pinball"])
        naive = naive_part(windows).losses
        assert compare(losses, naive) == scores[f"{part}_dm_pvalue_vs_naive"]
        stored = load_forecast(tmp_path / part / "forecasts.npz", windows)
        again = score_part(stored, windows).scores
        assert again[f"{part}_pct_mae"] == pytest.approx(scores[f"{part}_pct_mae"], rel=1e-5)
        returns = load_returns(tmp_path / part / "returns.npz")
        assert returns.fingerprint == windows.fingerprint
        assert sharpe(returns.excess, returns.bars_per_year)[0] == scores[f"{part}_sharpe"]
        assert returns.trades


def test_returns_of_a_rule_that_never_trades_say_so(tmp_path):
    evaluate(last_value(SPLIT), PANEL, SPLIT, parts=("val",), out=tmp_path)
    returns = load_returns(tmp_path / "val" / "returns.npz")
    assert not returns.trades
    assert returns.excess.any()  # the cost of always-long is no merit of the rule
