"""Models that know too much, each in its own way: the hunt calls each by its name."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from foresweep.data.panel import CLOSE, OPEN
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import Windows, make_context
from foresweep.evaluation.leaks import PROBES, hunt, hunt_training
from foresweep.models.base import Facts, Forecast
from foresweep.models.baselines.naive import Drift, LastValue, RandomWalk, SeasonalNaive
from foresweep.models.checkpoint import add_json
from panels import make_panel

PANEL = make_panel(4, 500, seed=1)
HORIZON = 4
SPLIT = make_split(PANEL, Cut(HORIZON))
FACTS = Facts(HORIZON, SPLIT.max_context, 0)
SPREAD = 0.02 * (np.arange(1, 10) / 10 - 0.5)


def naive(family):
    return family.predictor(family.resolve(family.Config(), FACTS))


def found(predictor) -> dict[str, str]:
    return {f.probe: f.says for f in hunt(predictor, PANEL, SPLIT).findings}


@pytest.fixture
def asked(monkeypatch):
    """What a model that reads the data by itself would find: panel, item and row of each window of
    the call."""

    class Asked:
        def bars(self, ahead: int) -> np.ndarray:
            """[N, 5] bars that far from the origins; the last one where there is none."""
            rows = np.minimum(self.row + ahead, len(self.panel.bars[0].values) - 1)
            return np.stack(
                [self.panel.bars[i].values[r] for i, r in zip(self.item, rows, strict=True)]
            )

        def closes(self, start: int, stop: int) -> np.ndarray:
            """[N, stop - start] closes from `start` bars after the origin on."""
            return np.stack([self.bars(k)[:, CLOSE] for k in range(start, stop)], axis=1)

    seen = Asked()
    plain = Windows.context

    def context(self, length, select=slice(None)):
        seen.panel, seen.item, seen.row = self.panel, self.item[select], self.row[select]
        return plain(self, length, select)

    monkeypatch.setattr(Windows, "context", context)
    return seen


@dataclass
class Made:
    """Medians [N, H] and the spread of quantiles [N] by functions of the context."""

    median: object = lambda c: np.tile(c.last_close[:, None], (1, HORIZON))
    spread: object = lambda c: np.ones(len(c))
    context_length: int = 32

    def predict(self, context, *, horizon, levels, seed):
        middle, spread = self.median(context), self.spread(context)
        return Forecast(middle[:, :, None] * np.exp(spread[:, None, None] * SPREAD), levels)


@pytest.mark.parametrize("family", [LastValue(), Drift(), RandomWalk()], ids=lambda f: f.name)
def test_honest_forecasts_leave_no_trace(family):
    looked = hunt(naive(family), PANEL, SPLIT)
    assert looked.findings == ()
    assert looked.looked == PROBES[:-1]


def test_the_target_row_in_the_context_is_called_target(monkeypatch):
    def late(self, length, select=slice(None)):
        return make_context(
            self.panel, self.item[select], self.row[select] + 1, length, self.horizon
        )

    monkeypatch.setattr(Windows, "context", late)
    said = found(naive(LastValue()))
    assert list(said) == ["target"]
    assert "lead 1 moves with its own target" in said["target"]


def test_a_glimpse_of_one_late_target_is_called_target(asked):
    def median(context):
        middle = np.tile(context.last_close[:, None], (1, HORIZON))
        middle[:, 2] = asked.bars(3)[:, CLOSE]
        return middle

    said = found(Made(median))
    assert list(said) == ["target"]
    assert "lead 3" in said["target"]


def test_returns_added_to_the_true_close_of_the_bar_before_are_called_a_wrong_base(asked):
    said = found(Made(lambda c: asked.closes(0, HORIZON)))
    assert list(said) == ["return base"]
    assert "lead 2 stands on bar 1 after the origin" in said["return base"]


@pytest.mark.parametrize(
    ("median", "says"),
    [
        (lambda c: c.values[:, -2:-1, CLOSE], r"stand on the close 1 bars before \(1e\+02 %\)"),
        (lambda c: c.values[:, -1:, OPEN], "stand on the open of the last bar"),
        (lambda c: c.values[:, -20:, CLOSE].mean(axis=1)[:, None], "by only 5"),
    ],
    ids=["close before", "open", "mean"],
)
def test_returns_added_to_another_known_price_are_called_a_wrong_base(median, says):
    said = found(Made(lambda c: np.tile(median(c), (1, HORIZON))))
    assert list(said) == ["return base"]
    assert re.search(says, said["return base"]), said


def test_seasonal_naive_stands_on_another_bar_and_is_said_to():
    assert list(found(naive(SeasonalNaive()))) == ["return base"]


@pytest.mark.parametrize("reach", [2, 8], ids=["inside the labels", "beyond them"])
def test_a_centred_scaler_is_called_a_scaler(asked, reach):
    def spread(context):
        return 50 * np.diff(np.log(asked.closes(-10, reach + 1)), axis=1).std(axis=1)

    said = found(Made(spread=spread))
    assert list(said) == ["scaler"]
    assert "bar 1 after the origin" in said["scaler"]
    assert ("after the labels" in said["scaler"]) == (reach > HORIZON)


def test_a_scaler_fitted_on_the_whole_series_is_called_a_scaler(asked):
    def spread(context):
        return np.array([np.log(b.values[:, CLOSE]).std() for b in asked.panel.bars])[asked.item]

    assert list(found(Made(spread=spread))) == ["scaler"]


def test_forecasts_by_place_among_the_items_are_called_item_order():
    def spread(context):
        return np.arange(1.0, len(context) + 1)

    assert next(iter(found(Made(spread=spread)))) == "item order"


def test_windows_of_one_call_that_see_each_other_are_found_in_both_orders():
    said = found(Made(spread=lambda c: np.full(len(c), c.last_close.mean() / 50)))
    assert set(said) == {"item order", "window order"}
    assert "other items are left out" in said["item order"]
    assert "other origins in the same call" in said["window order"]


def test_a_whisper_below_rounding_is_heard_too():
    said = found(
        Made(lambda c: np.tile(c.last_close[:, None] * (1 + 1e-9 * c.last_close.mean()), 4))
    )
    assert set(said) == {"item order", "window order"}


def test_forecasts_that_see_only_the_other_origins_are_called_window_order():
    def spread(context):
        days = context.timestamps[:, -1]
        return np.full(len(context), float(len(np.unique(days))))

    assert list(found(Made(spread=spread))) == ["window order"]


class Fitting(Drift):
    """Keeps the mean close up to the end of a part it was not given."""

    upto: ClassVar[str] = "train"

    def train(self, job):
        made = super().train(job)
        stop = job.windows.split.part(self.upto).stop
        means = [float(b.values[:stop, CLOSE].mean()) for b in job.windows.panel.bars]
        return add_json(made, "fit.json", {"means": means})


def trained(model, folder: Path) -> tuple[str, ...]:
    config = replace(model.resolve(model.Config(), FACTS), context_length=32)
    return hunt_training(model, config, PANEL, SPLIT, out=folder).of("training")


@pytest.mark.parametrize(
    ("upto", "says"),
    [("test", "the test period"), ("val", "the val period"), ("tune", "the tune period")],
)
def test_a_period_that_was_trained_on_is_named_by_its_part(upto, says, tmp_path):
    model = type("Of", (Fitting,), {"upto": upto})()
    (said,) = trained(model, tmp_path)
    assert said == f"'fit.json' moves when the bars of {says} are replaced: it was trained on them"


def test_a_training_on_train_alone_passes(tmp_path):
    assert trained(Fitting(), tmp_path) == ()


def test_a_training_that_is_not_repeatable_is_not_taken_for_a_leak(tmp_path):
    class Restless(Fitting):
        count = 0

        def train(self, job):
            Restless.count += 1
            made = Drift.train(self, job)
            return add_json(made, "fit.json", {"call": Restless.count})

    (said,) = trained(Restless(), tmp_path)
    assert "when nothing is changed" in said
