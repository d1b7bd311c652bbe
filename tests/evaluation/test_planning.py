"""What a panel could prove: which prices are read, which benchmark is taken, what is said."""

from __future__ import annotations

import numpy as np
import pytest

from foresweep.data.panel import panel_from_frame
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import Windows
from foresweep.errors import NotEnoughData
from foresweep.evaluation.backtest import forecast_part, last_value
from foresweep.evaluation.planning import history, plan_power
from panels import make_frame, make_panel


@pytest.fixture(scope="module")
def panel():
    return make_panel(num_items=4, num_bars=1400)


def test_it_says_what_the_panel_has(panel):
    split = make_split(panel, Cut(5))
    plan = plan_power(panel, split, trials=20, skill=0.05)
    now = plan.outlooks[0]
    assert (now.items, now.enough) == (4, True)
    assert now.val_origins == split.part("val").effective_origins(5)
    assert now.test_origins == split.part("test").effective_origins(5)
    assert now.years == pytest.approx(1400 / 261, rel=0.01)
    assert 0 < now.smallest_skill < now.smallest_skill_shared < 0.5
    assert 0 < now.chance < 1
    years = plan.outlooks[3]
    assert years.years == pytest.approx(2 * now.years)
    assert years.smallest_skill < now.smallest_skill
    assert years.chance > now.chance


def test_no_price_of_test_is_read():
    frame = make_frame(3, 1400)
    panel = panel_from_frame(frame, source="made up")
    split = make_split(panel, Cut(5))
    start = panel.timeline[split.part("test").start]
    later = np.where(frame["timestamp"].to_numpy() >= start, 3.0, 1.0)
    columns = ("open", "high", "low", "close")
    changed = panel_from_frame(
        frame.with_columns([(frame[c] * later).alias(c) for c in columns]), source="made up"
    )
    before, after = (plan_power(p, make_split(p, Cut(5)), trials=9) for p in (panel, changed))
    assert before == after


def test_the_history_shares_no_label_and_ends_before_test(panel):
    split = make_split(panel, Cut(5))
    windows = history(panel, split)
    assert np.diff(windows.part.origins).min() >= 5
    assert windows.part.origins[-1] + 5 < split.part("val").stop
    assert len(windows) > 4 * 150


def test_the_benchmark_is_the_best_baseline_on_tune(panel):
    split = make_split(panel, Cut(5))
    plan = plan_power(panel, split, trials=5)
    assert plan.benchmark == min(plan.benchmark_scores, key=plan.benchmark_scores.get)
    tune = Windows(panel, split, split.part("tune"))
    errors = np.abs(forecast_part(last_value(split), tune).median - tune.labels)
    by_hand = 100 * (errors / tune.last_close[:, None]).mean()
    assert plan.benchmark_scores["last-value"] == pytest.approx(by_hand)


def test_more_trials_ask_for_more_skill(panel):
    split = make_split(panel, Cut(5))
    few, many = (plan_power(panel, split, trials=n).outlooks[0] for n in (1, 500))
    assert few.smallest_skill < many.smallest_skill
    assert few.chance is None


def test_too_few_origins_for_a_verdict_prove_nothing(panel):
    plan = plan_power(panel, make_split(panel, Cut(20)), trials=5, skill=0.1)
    now = plan.outlooks[0]
    assert not now.enough
    assert now.smallest_skill is None
    assert now.chance == 0.0


def test_too_short_a_history_is_refused():
    panel = make_panel(num_items=2, num_bars=420)
    with pytest.raises(NotEnoughData, match="origins before test that do not share labels"):
        plan_power(panel, make_split(panel, Cut(20)), trials=5)
