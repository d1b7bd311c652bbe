"""Breakdowns: every window in one group, means that add up, bounds that hold what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import Windows
from foresweep.errors import DataError, UnknownName, UsageError
from foresweep.evaluation.backtest import forecast_part, last_value, naive_part, score_part
from foresweep.evaluation.breakdown import (
    BREAKDOWNS,
    breakdown,
    groups,
    regimes,
    score_groups,
    score_leads,
)
from foresweep.evaluation.losses import LossPanel
from foresweep.metrics import METRICS, Outcome, panel_mean
from foresweep.models.base import Forecast
from foresweep.models.baselines.naive import Drift
from foresweep.stats.significance import block_counts
from panels import make_panel
from strategies import ragged_panels

PANEL = make_panel(4, 900, seed=5)
SPLIT = make_split(PANEL, Cut(3, stride=2))
WINDOWS = Windows(PANEL, SPLIT, SPLIT.part("val"))
NAIVE = naive_part(WINDOWS)
FORECAST = forecast_part(Drift().predictor(Drift.Config(context_length=100)), WINDOWS)
OURS = score_part(FORECAST, WINDOWS, naive=NAIVE)


def made_up(origins=60, items=8, horizon=2, seed=0, **changes) -> LossPanel:
    rng = np.random.default_rng(seed)
    lead = rng.gamma(2.0, 1.0, (origins, items, horizon))
    days = np.busday_offset("2015-06-01", 10 * np.arange(origins)).astype("datetime64[ns]")
    scale = rng.uniform(1, 2, (origins, items))
    names = tuple(f"I{k}" for k in range(items))
    made = LossPanel({"pct_mae": lead.mean(axis=2)}, {"pct_mae": lead}, scale, days, names, 1, "f")
    return replace(made, **changes)


@pytest.mark.parametrize("by", BREAKDOWNS)
@given(panel=ragged_panels())
def test_every_valid_cell_is_in_exactly_one_group_and_groups_add_up_to_the_score(by, panel):
    split = make_split(panel, Cut(3))
    windows = Windows(panel, split, split.part("val"))
    if not len(windows):
        return
    losses = naive_part(windows).losses
    seen = sum(
        np.broadcast_to(m, losses.by_lead["pct_mae"].shape) for m in groups(losses, by).values()
    )
    np.testing.assert_array_equal(seen, 1)
    found = breakdown(losses, "pct_mae", by, reps=50)
    cells = sum(g.num_windows for g in found)
    assert cells == len(windows) * (3 if by == "lead" else 1)
    values = losses.by_lead["pct_mae"] if by == "lead" else losses.losses["pct_mae"][..., None]
    for group in found:  # every item of it weighs the same
        own = np.where(groups(losses, by)[group.key], values, np.nan)
        items = [np.nanmean(one) for one in np.moveaxis(own, 1, 0) if not np.isnan(one).all()]
        assert group.score == pytest.approx(np.mean(items))
    if by in ("item", "lead"):
        whole = panel_mean(losses.losses["pct_mae"])
        assert np.mean([g.score for g in found]) == pytest.approx(whole)


def test_groups_stand_in_natural_order_under_names_people_know():
    panel = made_up()
    assert [g.key for g in breakdown(panel, "pct_mae", "item")] == list(panel.items)
    assert [g.key for g in breakdown(panel, "pct_mae", "lead")] == ["1", "2"]
    assert [g.key for g in breakdown(panel, "pct_mae", "year")] == ["2015", "2016", "2017"]
    months = breakdown(panel, "pct_mae", "month")
    days = panel.origins.astype("datetime64[M]").astype(str)
    assert [g.key for g in months] == list(dict.fromkeys(days.tolist()))
    assert sum(g.num_windows for g in months) == np.isfinite(panel.losses["pct_mae"]).sum()
    assert [g.key for g in breakdown(panel, "pct_mae", "regime")] == ["calm", "usual", "wild"]
    assert breakdown(panel, "pct_mae", "origin")[0].key == "2015-06-01"


def test_a_group_is_the_mean_of_its_own_cells():
    panel = made_up()
    loss, lead = panel.losses["pct_mae"], panel.by_lead["pct_mae"]
    by_item = breakdown(panel, "pct_mae", "item")
    assert [g.score for g in by_item] == pytest.approx(loss.mean(axis=0))
    by_lead = breakdown(panel, "pct_mae", "lead")
    assert [g.score for g in by_lead] == pytest.approx(lead.mean(axis=(0, 1)))
    by_origin = breakdown(panel, "pct_mae", "origin")
    assert [g.score for g in by_origin] == pytest.approx(loss.mean(axis=1))
    own = panel.origins.astype("datetime64[Y]") == np.datetime64("2016")
    assert breakdown(panel, "pct_mae", "year")[1].score == pytest.approx(loss[own].mean())


def test_skill_is_against_the_benchmark_on_the_same_cells():
    panel = made_up()
    double = replace(panel, losses={"pct_mae": 2 * panel.losses["pct_mae"]})
    for group in breakdown(panel, "pct_mae", "item", benchmark=double):
        assert group.skill == pytest.approx(0.5)
        assert group.skill_lower == pytest.approx(0.5)
        assert group.skill_upper == pytest.approx(0.5)


def test_bounds_of_a_mean_are_those_of_the_block_bootstrap():
    panel = made_up(horizon=3, seed=4)
    found = breakdown(panel, "pct_mae", "lead", reps=300, seed=7)
    for k, group in enumerate(found):
        means = panel.by_lead["pct_mae"][:, :, k].mean(axis=1)
        drawn = block_counts(len(means), block=3, reps=300, seed=7) @ means / len(means)
        assert (group.lower, group.upper) == pytest.approx(np.quantile(drawn, [0.025, 0.975]))


def test_bounds_hold_the_truth_about_as_often_as_they_say():
    held = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        day = np.convolve(rng.standard_normal(122), np.ones(3) / 3, mode="valid")  # overlapping
        lead = np.repeat((10 + day[:, None, None]), 4, axis=1) + rng.standard_normal((120, 4, 1))
        both = {"pct_mae": lead[..., 0]}, {"pct_mae": np.repeat(lead, 3, axis=2)}
        panel = made_up(120, 4, 3, losses=both[0], by_lead=both[1], scale=np.ones((120, 4)))
        group = breakdown(panel, "pct_mae", "lead", reps=200, seed=seed)[0]
        held.append(group.lower <= 10 <= group.upper)
    # blocks 0.87, single origins 0.77, cells as if independent 0.71: narrow, but least so
    # blocks 0.87, single origins 0.77, cells as if independent 0.71: narrow, but least so
    assert 0.82 <= np.mean(held) <= 0.99


def test_skill_bounds_are_narrow_where_both_suffer_on_the_same_days():
    panel = made_up(seed=3)
    noise = np.random.default_rng(0).normal(1.0, 0.02, panel.losses["pct_mae"].shape)
    near = replace(panel, losses={"pct_mae": panel.losses["pct_mae"] * noise})
    group = breakdown(near, "pct_mae", "regime", benchmark=panel)[0]
    assert group.skill_lower < group.skill < group.skill_upper < group.skill_lower + 0.02
    assert (group.upper - group.lower) / group.score > 0.05


def test_few_origins_have_a_mean_and_no_bounds():
    panel = made_up()
    assert all(g.lower is None for g in breakdown(panel, "pct_mae", "origin", benchmark=panel))
    assert all(g.skill == 0 for g in breakdown(panel, "pct_mae", "origin", benchmark=panel))
    assert all(g.lower is not None for g in breakdown(panel, "pct_mae", "item"))


def test_the_same_seed_gives_the_same_bounds_and_a_wider_level_wider_ones():
    panel = made_up()
    one, same = (breakdown(panel, "pct_mae", "item", seed=3) for _ in range(2))
    assert one == same
    wide = breakdown(panel, "pct_mae", "item", seed=3, level=0.99)
    assert all(w.lower < o.lower and w.upper > o.upper for w, o in zip(wide, one, strict=True))


def test_a_regime_is_a_third_of_the_days_and_no_wild_item():
    rng = np.random.default_rng(0)
    market = np.repeat([1.0, 3.0, 2.0], 20)
    own = np.stack([market, 50 / market, 0.1 * market, 2 * market], axis=1)  # one swims against it
    scale = own * rng.uniform(0.95, 1.05, (60, 4))
    scale[5, 1] = np.nan
    found = regimes(scale)
    assert (found[:20] == "calm").all()
    assert (found[20:40] == "wild").all()
    assert (found[40:] == "usual").all()


def test_an_origin_without_an_item_has_no_volatility_and_no_window():
    panel = made_up()
    empty = {k: v.copy() for k, v in panel.losses.items()}
    empty["pct_mae"][4] = np.nan
    scale = panel.scale.copy()
    scale[4] = np.nan
    found = breakdown(replace(panel, losses=empty, scale=scale), "pct_mae", "origin")
    assert len(found) == 59


def test_metrics_without_losses_per_window_are_computed_on_the_windows_of_a_group():
    def outcome(f: Forecast) -> Outcome:
        return Outcome(WINDOWS.labels, f.values, f.levels, WINDOWS.last_close, NAIVE.setting)

    ours, naive = outcome(FORECAST), outcome(forecast_part(last_value(SPLIT), WINDOWS))
    names = np.array([PANEL.items[i] for i in WINDOWS.item])
    by_item = score_groups(ours, naive, names)
    stored = breakdown(OURS.losses, "pct_mae", "item", benchmark=NAIVE.losses)
    for group in stored:
        assert by_item[group.key]["pct_mae"] == pytest.approx(group.score)
        assert by_item[group.key]["skill"] == pytest.approx(group.skill)
    by_lead = score_leads(ours, naive)
    for group in breakdown(OURS.losses, "pinball", "lead"):
        assert by_lead[group.key]["pinball"] == pytest.approx(group.score)
    whole = np.mean([by_item[k]["coverage_80"] for k in by_item])  # equally many windows each
    assert whole == pytest.approx(OURS.scores["val_coverage_80"])
    assert set(by_item["A0"]) == {m for m, row in METRICS.items() if row.compute}


def test_what_cannot_be_broken_down_is_refused_in_words():
    panel = made_up()
    with pytest.raises(UnknownName, match="did you mean 'item'"):
        breakdown(panel, "pct_mae", "itme")
    with pytest.raises(UnknownName, match="loss 'skill'"):
        breakdown(panel, "skill", "item")
    with pytest.raises(UsageError, match="between 0 and 1"):
        breakdown(panel, "pct_mae", "item", level=95)
    with pytest.raises(DataError, match="other windows"):
        breakdown(panel, "pct_mae", "item", benchmark=replace(panel, fingerprint="g"))
    with pytest.raises(UsageError, match="group names"):
        score_groups(NAIVE.outcome, NAIVE.outcome, np.array(["A"]))
