"""The windows that steer: few, the same for all, from every origin, calm and wild ones alike."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import Windows
from foresweep.evaluation.backtest import forecast_part, last_value, make_scorer, score_part
from foresweep.evaluation.losses import volatility_scale
from foresweep.evaluation.steering import LEAST, steering_print, steering_windows, windows_wanted
from foresweep.metrics import panel_mean
from foresweep.records import STEERING, steering_words
from panels import make_panel

PANEL = make_panel(12, 700, seed=3)
SPLIT = make_split(PANEL, Cut(5))
TUNE = Windows(PANEL, SPLIT, SPLIT.part("tune"))


@pytest.mark.parametrize("wanted", [1, 100, 171])
def test_every_origin_steers_with_equally_many_windows(wanted: int) -> None:
    chosen = steering_windows(TUNE, wanted, seed=0)
    origins, counts = np.unique(chosen.origin, return_counts=True)
    assert list(origins) == list(np.unique(TUNE.origin))
    assert set(counts) == {-(-wanted // len(origins))}
    pairs = list(zip(chosen.origin, chosen.column, strict=True))
    assert len(set(pairs)) == len(pairs) >= wanted
    assert pairs == sorted(pairs)


def test_calm_and_wild_items_have_their_share() -> None:
    chosen, scale = steering_windows(TUNE, 4 * len(TUNE.part.origins), seed=0), TUNE.as_panel
    every = scale(volatility_scale(TUNE))
    for origin in np.unique(chosen.origin):
        ranks = np.argsort(np.argsort(every[origin]))
        drawn = sorted(ranks[chosen.column[chosen.origin == origin]])
        assert all(3 * k <= rank < 3 * (k + 1) for k, rank in enumerate(drawn))


def test_the_seed_names_the_windows_and_another_names_others() -> None:
    one, same, other = (steering_windows(TUNE, 100, seed) for seed in (0, 0, 1))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    said = steering_words({STEERING: steering_print(other, TUNE, 1)})
    assert said == f"{len(other):,} of {len(TUNE):,} windows of tune, seed 1"


@pytest.mark.parametrize("wanted", [None, len(TUNE), 10 * len(TUNE)])
def test_where_all_are_wanted_all_steer(wanted: int | None) -> None:
    assert steering_windows(TUNE, wanted, seed=0) is TUNE


def test_the_scorer_scores_these_windows_and_no_other() -> None:
    chosen, asked = steering_windows(TUNE, 100, seed=4), []

    class Counting:
        context_length = 64

        def predict(self, context, **rest):
            asked.append(len(context))
            return last_value(SPLIT).predict(context, **rest)

    found = make_scorer(PANEL, SPLIT, steer=100, steer_seed=4)(Counting())
    assert sum(asked) == len(chosen) < len(TUNE)
    whole = score_part(forecast_part(last_value(SPLIT), TUNE), TUNE).losses.losses["pct_mae"]
    few = found.losses["pct_mae"]
    there = np.isfinite(few)
    assert there.sum() == len(chosen)
    np.testing.assert_array_equal(few[there], whole[there])  # the same losses, fewer of them
    assert found.scores["tune_pct_mae"] == pytest.approx(panel_mean(few))


def test_how_many_steer_follows_from_the_steps_and_from_what_is_asked() -> None:
    """Eight scorings of so many windows are a third of the windows that are trained on."""
    assert windows_wanted(None, 300) == LEAST
    assert windows_wanted(None, 6000) == 4000
    grown = [windows_wanted(None, steps) for steps in range(100, 9000, 100)]
    assert all(a is not None and b is not None and a <= b for a, b in pairwise(grown))
    assert windows_wanted("all", 300) is None
    assert windows_wanted(77, 300) == 77
