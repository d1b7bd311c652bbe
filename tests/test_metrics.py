"""Metrics against definitions written out again, other packages, and what must always hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foresweep.errors import UnknownName, UsageError
from foresweep.metrics import (
    METRICS,
    PANEL_LOSSES,
    QUANTILE_METRICS,
    TRADING_METRICS,
    Outcome,
    Setting,
    get_metric,
    panel_mean,
    pinball_loss,
    score,
    split_score,
)

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def outcome_of(seed: int = 0, num: int = 150, horizon: int = 4, items: int = 5) -> Outcome:
    """Windows of `items` items at each origin."""
    rng = np.random.default_rng(seed)
    last = rng.uniform(5, 500, num)
    labels = last[:, None] * np.exp(0.03 * rng.standard_normal((num, horizon)))
    moves = np.sort(0.03 * rng.standard_normal((num, horizon, len(LEVELS))), axis=2)
    setting = Setting(
        rng.uniform(1, 9, num),
        last * rng.uniform(0.01, 0.05, num),
        last * 0.02,
        np.arange(num) // items,
        np.arange(num) % items,
    )
    return Outcome(labels, last[:, None, None] * np.exp(moves), LEVELS, last, setting)


def last_value_of(outcome: Outcome) -> Outcome:
    flat = np.broadcast_to(outcome.last_close[:, None, None], outcome.quantiles.shape)
    return replace(outcome, quantiles=flat)


def exactly(outcome: Outcome) -> Outcome:
    """A forecaster that knew: every quantile is what came."""
    return replace(outcome, quantiles=np.repeat(outcome.labels[..., None], len(LEVELS), axis=2))


def point(labels, median, last) -> Outcome:
    """One window whose quantiles are all its median."""
    median = np.asarray(median, dtype=float)
    spread = np.repeat(median[None, :, None], len(LEVELS), axis=2)
    return Outcome(np.asarray([labels], dtype=float), spread, LEVELS, np.array([float(last)]))


def value(name: str, outcome: Outcome, naive: Outcome | None = None) -> float:
    return METRICS[name].compute(outcome, naive or last_value_of(outcome))


def test_pct_mae_is_in_percent_of_the_last_close():
    found = point(labels=[110, 90], median=[105, 100], last=100)
    assert value("pct_mae", found) == pytest.approx((5 + 10) / 2)
    assert value("naive_pct_mae", found) == pytest.approx(10)
    assert value("skill", found) == pytest.approx(0.25)
    assert value("price_mae", found) == pytest.approx(7.5)


def test_r2_is_that_of_scikit_style_r2_on_percentage_moves():
    o = outcome_of()
    true, made = (x / o.last_close[:, None] - 1 for x in (o.labels, o.median))
    expected = 1 - ((true - made) ** 2).sum() / ((true - true.mean()) ** 2).sum()
    assert value("r2", o) == pytest.approx(expected)
    against_naive = 1 - ((true - made) ** 2).sum() / (true**2).sum()
    assert value("r2_vs_naive", o) == pytest.approx(against_naive)
    assert value("rmse_pct", o) == pytest.approx(100 * np.sqrt(((true - made) ** 2).mean()))


def test_pinball_is_the_textbook_loss_of_returns():
    o = outcome_of(1)
    true = o.labels / o.last_close[:, None] - 1
    made = o.quantiles / o.last_close[:, None, None] - 1
    losses = [
        np.maximum(tau * (true - made[..., k]), (tau - 1) * (true - made[..., k]))
        for k, tau in enumerate(LEVELS)
    ]
    np.testing.assert_allclose(pinball_loss(o), 100 * np.mean(losses, axis=0))


def test_pinball_equals_scoringrules():
    scoringrules = pytest.importorskip("scoringrules")
    o = outcome_of(2)
    expected = [
        scoringrules.quantile_score(o.labels, o.quantiles[..., k], tau)
        for k, tau in enumerate(LEVELS)
    ]
    np.testing.assert_allclose(
        pinball_loss(o), 100 * np.mean(expected, axis=0) / o.last_close[:, None]
    )


def test_pinball_of_a_point_forecast_is_half_its_pct_mae():
    o = last_value_of(outcome_of(3))
    assert value("pinball", o) == pytest.approx(value("pct_mae", o) / 2)


def test_smape_equals_utilsforecast():
    pd = pytest.importorskip("pandas")
    losses = pytest.importorskip("utilsforecast.losses")
    o = outcome_of(4, num=1, horizon=30)
    frame = pd.DataFrame({"unique_id": "A", "y": o.labels[0], "m": o.median[0]})
    expected = losses.smape(frame, models=["m"])["m"][0]  # utilsforecast has it in 0..1
    assert value("smape", o) == pytest.approx(200 * expected)


def test_coverage_counts_the_borders_and_is_best_near_its_target():
    o = outcome_of(5)
    labels = o.labels.copy()
    labels[:, 0] = o.quantiles[:, 0, 8]
    labels[:, 1] = o.quantiles[:, 1, 0]
    labels[:, 2] = 1.001 * o.quantiles[:, 2, 8]
    labels[:, 3] = o.median[:, 3]
    assert value("coverage_80", Outcome(labels, o.quantiles, LEVELS, o.last_close)) == 0.75
    badness = METRICS["coverage_80"].badness
    assert badness(0.8) == 0
    assert badness(0.7) == pytest.approx(badness(0.9))
    assert badness(0.7) > badness(0.85)


def test_direction_leaves_out_closes_that_came_back_and_gives_half_for_naming_none():
    found = point(labels=[101, 99, 100, 102], median=[103, 104, 99, 100], last=100)
    assert value("directional_accuracy", found) == pytest.approx((1 + 0 + 0.5) / 3)
    assert value("directional_accuracy", point([100, 100], [90, 110], 100)) == 0.5


def test_a_forecast_kept_in_single_precision_is_scored_like_the_one_that_was_made():
    o = last_value_of(outcome_of(18))
    kept = replace(o, quantiles=o.quantiles.astype(np.float32).astype(np.float64))
    assert (kept.quantiles != o.quantiles).any()
    before, after = score(o, o), score(kept, o)
    assert after["directional_accuracy"] == before["directional_accuracy"] == 0.5
    assert np.isnan(after["rank_ic"])


def test_last_value_against_itself_is_worth_exactly_nothing():
    naive = last_value_of(outcome_of(6))
    found = score(naive, naive)
    zero = [found[k] for k in ("skill", "pinball_skill", "r2_vs_naive")]
    assert zero == [0.0, 0.0, 0.0]
    assert found["directional_accuracy"] == 0.5
    assert np.isnan(found["rank_ic"]), "it orders no items: undefined, not 0"
    assert found["pct_mae"] == found["naive_pct_mae"]


def test_skill_where_the_price_did_not_move():
    still = point([100, 100], [100, 100], 100)
    assert value("skill", still) == 0.0
    assert value("skill", point([100, 100], [101, 101], 100)) == -np.inf


@given(st.integers(0, 10_000), st.sampled_from([1e-3, 0.5, 7.0, 1e4]))
def test_no_metric_but_price_mae_knows_the_price_level(seed, factor):
    o = outcome_of(seed, num=20)
    scale = np.random.default_rng(seed).uniform(0.5, 2, len(o.last_close)) * factor
    scaled = Outcome(
        o.labels * scale[:, None],
        o.quantiles * scale[:, None, None],
        LEVELS,
        o.last_close * scale,
        replace(
            o.known,
            usual_move=o.known.usual_move * scale,
            train_move=o.known.train_move * scale,
        ),
    )
    before, after = score(o, last_value_of(o)), score(scaled, last_value_of(scaled))
    for name in before:
        if name != "price_mae":
            assert after[name] == pytest.approx(before[name], rel=1e-9, abs=1e-12), name


@given(st.integers(0, 10_000))
def test_a_perfect_forecast_is_best_by_every_metric_of_accuracy(seed):
    o = outcome_of(seed, num=20)
    exact, naive = exactly(o), last_value_of(o)
    for name, metric in METRICS.items():
        if metric.compute and name not in ("coverage_80", "calibration_error"):
            best, ours = metric.compute(exact, naive), metric.compute(o, naive)
            assert metric.badness(best) <= metric.badness(ours), name
    assert METRICS["rank_ic"].compute(exact, naive) == pytest.approx(1.0)


@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_a_forecast_nearer_to_what_came_is_better_by_every_loss(seed, share):
    o = outcome_of(seed, num=20)
    toward = o.quantiles + share * (o.labels[..., None] - o.quantiles)
    nearer, naive = replace(o, quantiles=toward), last_value_of(o)
    for name, metric in METRICS.items():
        if metric.loss and name != "smape":  # its denominator moves with the forecast
            assert metric.compute(nearer, naive) < metric.compute(o, naive), name


@given(st.integers(0, 10_000))
def test_every_metric_stays_within_its_bounds(seed):
    o = outcome_of(seed, num=23)
    found = score(o, last_value_of(o))
    for name in ("coverage_80", "calibration_error", "directional_accuracy"):
        assert 0 <= found[name] <= 1, name
    assert -1 <= found["rank_ic"] <= 1
    assert 0 <= found["smape"] <= 200
    for name in ("skill", "pinball_skill", "r2", "r2_vs_naive"):
        assert found[name] <= 1, name
    for name, metric in METRICS.items():
        assert not metric.loss or found[name] >= 0, name


@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_the_order_of_windows_changes_nothing(seed, random):
    o = outcome_of(seed, num=20)
    order = list(range(20))
    random.shuffle(order)
    mixed = o.take(np.array(order))
    before, after = (score(x, last_value_of(x)) for x in (o, mixed))
    for name in before:
        assert after[name] == pytest.approx(before[name], rel=1e-9, abs=1e-12), name


@given(st.integers(0, 10_000), st.integers(0, 19))
def test_a_forecast_that_is_no_number_has_no_score_rather_than_a_good_one(seed, at):
    o = outcome_of(seed, num=20)
    broken = o.quantiles.copy()
    broken[at] = np.nan
    found = score(replace(o, quantiles=broken), last_value_of(o))
    for name, metric in METRICS.items():
        if metric.loss or name in ("skill", "pinball_skill", "r2", "r2_vs_naive", "rmse_pct"):
            assert np.isnan(found[name]), name


@pytest.mark.parametrize("name", [m.name for m in METRICS.values() if m.loss])
def test_a_score_is_the_mean_of_its_loss(name):
    o = outcome_of(8)
    loss = METRICS[name].loss(o)
    assert loss.shape == o.labels.shape
    assert value(name, o) == pytest.approx(loss.mean())


def test_chunks_change_nothing():
    o = outcome_of(9, num=200)
    one = o.take(np.array([77]))
    np.testing.assert_allclose(pinball_loss(o)[77:78], pinball_loss(one), rtol=1e-13)
    np.testing.assert_array_equal(o.median, o.quantiles[..., 4])
    inside = (o.labels >= o.quantiles[..., 0]) & (o.labels <= o.quantiles[..., 8])
    assert value("coverage_80", o) == inside.mean()


def test_crps_equals_scoringrules_and_says_that_it_is_twice_the_pinball_loss():
    scoringrules = pytest.importorskip("scoringrules")
    o = outcome_of(10)
    own = scoringrules.crps_quantile(o.labels, o.quantiles, np.array(LEVELS), backend="numpy")
    assert value("crps", o) == pytest.approx(100 * np.mean(own / o.last_close[:, None]), rel=1e-12)
    assert value("crps", o) == pytest.approx(2 * value("pinball", o), rel=1e-12)
    scaled = 100 * np.mean(own / o.last_close[:, None] / o.known.scale[:, None])
    assert value("scaled_crps", o) == pytest.approx(scaled, rel=1e-12)


def test_scaled_losses_are_over_the_volatility_known_at_the_origin():
    o = outcome_of(11)
    errors = 100 * np.abs(o.median - o.labels) / o.last_close[:, None]
    expected = (errors / o.known.scale[:, None]).mean()
    assert value("scaled_pct_mae", o) == pytest.approx(expected)
    doubled = replace(o, setting=replace(o.known, scale=2 * o.known.scale))
    for name in ("scaled_pct_mae", "scaled_pinball", "scaled_crps"):
        assert value(name, doubled) == pytest.approx(value(name, o) / 2), name


def test_mase_equals_utilsforecast():
    pd = pytest.importorskip("pandas")
    losses = pytest.importorskip("utilsforecast.losses")
    o = outcome_of(12, num=1, horizon=30)
    rng = np.random.default_rng(0)
    past = 50 * np.exp(0.02 * np.cumsum(rng.standard_normal(253)))
    usual = np.array([np.abs(np.diff(past)).mean()])
    frame = pd.DataFrame({"unique_id": "A", "ds": range(30), "y": o.labels[0], "m": o.median[0]})
    before = pd.DataFrame({"unique_id": "A", "ds": range(-253, 0), "y": past})
    expected = losses.mase(frame, models=["m"], seasonality=1, train_df=before)["m"][0]
    for name, move in (("mase", "usual_move"), ("mase_train", "train_move")):
        ours = replace(o, setting=replace(o.known, **{move: usual}))
        assert value(name, ours) == pytest.approx(expected)


def test_calibration_equals_utilsforecast_level_by_level():
    pd = pytest.importorskip("pandas")
    losses = pytest.importorskip("utilsforecast.losses")
    o = outcome_of(13, num=1, horizon=60)
    names = [f"q{level}" for level in LEVELS]
    frame = pd.DataFrame(o.quantiles[0], columns=names).assign(unique_id="A", y=o.labels[0])
    shares = [losses.calibration(frame, models={n: n})[n][0] for n in names]
    np.testing.assert_allclose(o.shares_below, shares)
    assert value("calibration_error", o) == pytest.approx(np.abs(np.array(shares) - LEVELS).mean())
    hits = losses.coverage(
        frame.rename(columns={"q0.1": "m-lo-80", "q0.9": "m-hi-80"}), models=["m"], level=80
    )
    assert value("coverage_80", o) == pytest.approx(hits["m"][0])


def test_quantiles_that_hold_what_they_say_have_no_calibration_error():
    y = np.arange(1.0, 101.0)[:, None]
    q = np.broadcast_to(100.0 * np.asarray(LEVELS) + 0.5, (100, 1, len(LEVELS)))
    assert value("calibration_error", Outcome(y, q, LEVELS, np.full(100, 50.0))) == pytest.approx(0)
    high = Outcome(y, q + 1000, LEVELS, np.full(100, 50.0))
    assert value("calibration_error", high) == pytest.approx(0.5)


def test_rank_ic_is_the_mean_of_scipys_spearman_over_origins():
    stats = pytest.importorskip("scipy.stats")
    o = outcome_of(14, num=60, items=6)
    rounded = np.round(o.quantiles / o.last_close[:, None, None], 2) * o.last_close[:, None, None]
    o = replace(o, quantiles=rounded)  # with ties
    found = []
    for k in range(10):
        own = o.known.origin == k
        moves = [np.round(x[own, -1] / o.last_close[own], 6) for x in (o.median, o.labels)]
        found.append(stats.spearmanr(*moves).statistic)
    assert value("rank_ic", o) == pytest.approx(np.mean(found), abs=1e-12)


def test_an_origin_whose_items_are_forecast_alike_counts_nothing_but_counts():
    o = outcome_of(15, num=12, items=6)
    half = exactly(o).quantiles.copy()
    half[6:] = o.last_close[6:, None, None]
    assert value("rank_ic", replace(o, quantiles=half)) == pytest.approx(0.5)


def test_origins_of_two_items_order_nothing():
    assert np.isnan(value("rank_ic", exactly(outcome_of(16, num=12, items=2))))


def test_a_metric_that_needs_a_setting_asks_for_it_and_score_leaves_it_out():
    bare = replace(outcome_of(17), setting=None)
    for name, metric in METRICS.items():
        if metric.needs_setting:
            with pytest.raises(UsageError, match="setting=Setting"):
                value(name, bare)
            assert name not in score(bare, bare)


def test_every_metric_says_what_it_is():
    for name, metric in METRICS.items():
        assert name == metric.name
        assert metric.unit
        assert metric.formula
        assert metric.source
        assert "_" not in metric.name or metric.name.split("_")[0] not in ("tune", "val", "test")
    assert set(PANEL_LOSSES) <= {m.name for m in METRICS.values() if m.loss}
    assert {*QUANTILE_METRICS, *TRADING_METRICS} <= set(METRICS)


@pytest.mark.parametrize("part", ["train", "tune", "val", "test"])
@pytest.mark.parametrize("metric", METRICS)
def test_a_full_name_is_part_and_metric(part, metric):
    assert split_score(f"{part}_{metric}") == (part, metric)


@pytest.mark.parametrize(
    ("name", "near"), [("val_pct_mea", "val_pct_mae"), ("vla_pinball", "val_pinball")]
)
def test_an_unknown_score_is_refused_with_the_nearest(name, near):
    with pytest.raises(UnknownName, match=f"did you mean '{near}'"):
        split_score(name)


@pytest.mark.parametrize("name", ["pct_mae", "naive_pct_mae", "val_", "", "train_loss"])
def test_a_name_without_part_or_metric_is_no_score(name):
    with pytest.raises(UnknownName):
        split_score(name)


def test_an_unknown_metric_is_refused_with_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'pinball'"):
        get_metric("pinbal")
    assert get_metric("pinball").unit == "percent"


def test_an_item_that_ends_early_weighs_as_much_as_any_other():
    outcome = outcome_of(num=150, items=5)
    kept = np.flatnonzero((outcome.known.item != 2) | (outcome.known.origin < 7))
    some = outcome.take(kept)
    losses, item = some.pct_errors.mean(axis=1), some.known.item
    each = [losses[item == k].mean() for k in range(5)]
    assert value("pct_mae", some) == pytest.approx(np.mean(each), rel=1e-12)
    assert value("pct_mae", some) != pytest.approx(losses.mean(), rel=1e-3)
    panel = np.full((30, 5), np.nan)
    panel[some.known.origin, item] = losses
    assert panel_mean(panel) == value("pct_mae", some)
    assert value("pct_mae", outcome) == outcome.pct_errors.mean()  # to the last bit
