"""The leak test finds what looks ahead, names it, and lets honest forecasts pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from foresweep.data.panel import CLOSE, Panel
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import Context, TrainWindows, Windows
from foresweep.errors import LeakFound
from foresweep.evaluation.backtest import last_value
from foresweep.evaluation.leaks import (
    check_no_leak,
    check_training_is_blind,
    falling_scorer,
    replace_after,
    thinned,
)
from foresweep.models.base import Forecast
from panels import make_panel

PANEL = make_panel(3, 500, seed=1)
SPLIT = make_split(PANEL, Cut(3))


@dataclass
class Wrapped:
    """Last-value, moved by something."""

    shift: object  # context -> [N] factor
    context_length: int = 40

    def predict(self, context: Context, *, horizon, levels, seed) -> Forecast:
        made = last_value(SPLIT).predict(context, horizon=horizon, levels=levels, seed=seed)
        return Forecast(made.values * self.shift(context)[:, None, None], levels)


def test_an_honest_forecast_passes_and_is_seen_to_use_its_last_bar():
    found = check_no_leak(last_value(SPLIT), PANEL, SPLIT)
    assert found.num_forecasts == 3 * 3 * (1 + 2 + 3)  # parts, items, origins up to each change
    assert found.moved_by_last_bar == 1.0


def test_windows_of_one_call_that_see_each_other_are_found():
    peeking = Wrapped(lambda c: np.full(len(c), 1 + 1e-9 * c.last_close.mean()))
    says = r"A0 at 20\d\d.* \(tune\) for lead 1 moved by .* 3 of 3 forecasts moved"
    with pytest.raises(LeakFound, match=says):
        check_no_leak(peeking, PANEL, SPLIT)


def test_a_context_that_holds_the_next_bar_is_found(monkeypatch):
    def context(self, length, select=slice(None)):
        from foresweep.data.windows import make_context

        return make_context(
            self.panel, self.item[select], self.row[select] + 1, length, self.horizon
        )

    monkeypatch.setattr(Windows, "context", context)
    with pytest.raises(LeakFound, match="lead 1 moved"):
        check_no_leak(last_value(SPLIT), PANEL, SPLIT)


def test_a_forecast_that_ignores_its_last_bar_is_reported():
    class Late:
        context_length = 40

        def predict(self, context, *, horizon, levels, seed):
            before = context.take(slice(None))
            values = before.values.copy()
            values[:, -1] = values[:, -2]
            late = Context(
                values,
                before.columns,
                before.item_ids,
                before.timestamps,
                before.future_timestamps,
                before.mask,
            )
            return last_value(SPLIT).predict(late, horizon=horizon, levels=levels, seed=seed)

    assert check_no_leak(Late(), PANEL, SPLIT).moved_by_last_bar == 0.0


@pytest.mark.parametrize("position", [0, 250, 498, 499])
def test_replacing_changes_every_later_bar_and_no_earlier_one(position):
    changed = replace_after(PANEL, position)
    for old, new in zip(PANEL.bars, changed.bars, strict=True):
        np.testing.assert_array_equal(new.values[: position + 1], old.values[: position + 1])
        assert (new.values[position + 1 :] != old.values[position + 1 :]).all()
        moves = [np.diff(np.log(b.values[position:, CLOSE])) for b in (old, new)]
        assert (moves[0] != moves[1]).all()
        assert not new.values.flags.writeable
    assert changed.items == PANEL.items


def rows_of_train(panel: Panel) -> np.ndarray:
    train = TrainWindows(panel, SPLIT, SPLIT.part("train"))
    return np.concatenate([train.values(i)[:, CLOSE] for i in range(panel.num_items)])


def honest(panel, scorer):
    """Fits a mean on train, scores itself once, keeps the score's rank as its step."""
    scorer(last_value(SPLIT))
    return {"mean": rows_of_train(panel).mean()}


def test_an_honest_training_passes():
    check_training_is_blind(honest, PANEL, SPLIT)


def test_a_scaler_fitted_on_the_whole_series_is_found():
    def leaky(panel, scorer):
        return {"scale": np.std([b.values[:, CLOSE].mean() for b in panel.bars])}

    with pytest.raises(LeakFound, match=r"'scale' was fitted differently .* val and test"):
        check_training_is_blind(leaky, PANEL, SPLIT)


def test_a_scaler_fitted_on_tune_is_found_when_tune_is_replaced():
    def leaky(panel, scorer):
        return {"scale": panel.bars[0].values[: SPLIT.part("tune").stop, CLOSE].std()}

    with pytest.raises(LeakFound, match=r"'scale' .* tune, val and test were replaced"):
        check_training_is_blind(leaky, PANEL, SPLIT)


def test_a_step_kept_by_tune_may_depend_on_tune():
    def steered(panel, scorer):
        score = scorer(last_value(SPLIT)).scores["tune_pinball"]
        return {"step": np.array(score > 0.01), "mean": rows_of_train(panel).mean()}

    check_training_is_blind(steered, PANEL, SPLIT)


def test_a_step_kept_by_val_is_found():
    def steered(panel, scorer):
        windows = Windows(panel, SPLIT, SPLIT.part("val"))
        return {"kept": windows.labels.mean()}

    with pytest.raises(LeakFound, match=r"'kept' .* the bars of val and test were replaced"):
        check_training_is_blind(steered, PANEL, SPLIT)


def test_a_tune_score_that_moves_with_val_is_found():
    class Knowing(Wrapped):
        pass

    def train(panel, scorer):
        later = panel.bars[0].values[-1, CLOSE]
        scorer(Knowing(lambda c: np.full(len(c), 1 + later * 1e-6)))
        return {"mean": np.zeros(1)}

    with pytest.raises(LeakFound, match=r"tune_\w+ moved from .* at scoring 1"):
        check_training_is_blind(train, PANEL, SPLIT)


def test_training_that_scores_itself_more_often_by_val_is_found():
    def train(panel, scorer):
        for _ in range(2 if panel is PANEL else 3):
            scorer(last_value(SPLIT))
        return {}

    with pytest.raises(LeakFound, match="scored itself 2 times, and 3 times"):
        check_training_is_blind(train, PANEL, SPLIT)


def test_training_that_fits_other_things_is_found():
    def train(panel, scorer):
        return {"a" if panel is PANEL else "b": np.zeros(1)}

    with pytest.raises(LeakFound, match="fitted other things"):
        check_training_is_blind(train, PANEL, SPLIT)


def test_the_falling_scorer_always_finds_the_last_step_best():
    score = falling_scorer()
    found = [score(last_value(SPLIT)).scores["tune_pinball"] for _ in range(5)]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 5


def test_a_thinned_split_keeps_a_few_of_tunes_windows_and_everything_else():
    panel = make_panel(12, 600, seed=2)
    split = make_split(panel, Cut(2, stride=1))
    few = thinned(panel, split)
    windows = Windows(panel, few, few.part("tune"))
    assert len(windows) == 8 * 12  # items, origins
    assert set(few.part("tune").origins) <= set(split.part("tune").origins)
    assert (
        few.part("tune").origins[[0, -1]].tolist() == split.part("tune").origins[[0, -1]].tolist()
    )
    assert few.parts[2:] == split.parts[2:]
    assert (few.horizon, few.max_context) == (split.horizon, split.max_context)
