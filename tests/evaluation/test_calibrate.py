"""What is fitted on tune has seen tune alone, and tune's own forecasts are cross-fitted."""

from __future__ import annotations

import numpy as np
import pytest

from foresweep.data.splits import Cut, Split, make_split
from foresweep.data.windows import Windows
from foresweep.errors import NotEnoughData
from foresweep.evaluation.backtest import calibrate, evaluate, forecast_part, make_scorer
from foresweep.evaluation.leaks import replace_after
from foresweep.models.base import DEFAULT_LEVELS, Facts, Forecast
from foresweep.models.baselines.naive import Drift
from foresweep.models.calibration import Calibrated, CalibrationConfig, fit_calibration
from panels import make_panel

ALL = CalibrationConfig(centre=True, fit_scale=True, isotonic=True)
PANEL = make_panel(3, 500)


def split_of(stride: int = 2, horizon: int = 3) -> Split:
    return make_split(PANEL, Cut(horizon, stride=stride, max_context=64))


def drift(split: Split):
    family = Drift()
    return family.predictor(family.resolve(family.Config(), Facts(3, split.max_context, 0)))


def test_nothing_but_tune_is_read() -> None:
    split = split_of()
    last = split.part("tune").stop - 1
    here = calibrate(drift(split), ALL, PANEL, split)
    later = calibrate(drift(split), ALL, replace_after(PANEL, last), split)
    assert later.calibration == here.calibration
    np.testing.assert_array_equal(later.forecast.values, here.forecast.values)
    other = calibrate(drift(split), ALL, replace_after(PANEL, last - 20), split)
    assert other.calibration != here.calibration


def test_it_is_fitted_on_every_window_of_tune_and_scored_on_halves_fitted_apart() -> None:
    split = split_of(stride=3)
    windows = Windows(PANEL, split, split.part("tune"))
    raw = forecast_part(drift(split), windows)
    found = calibrate(drift(split), ALL, PANEL, split)
    assert found.calibration == fit_calibration(ALL, raw, windows.labels, windows.last_close)
    assert found.calibration.num_windows == len(windows)
    late = windows.origin >= (len(windows.part.origins) + 1) // 2
    apart = fit_calibration(
        ALL,
        Forecast(raw.values[~late], raw.levels),
        windows.labels[~late],
        windows.last_close[~late],
    )
    expected = apart.apply(
        Forecast(raw.values[late], raw.levels), windows.last_close[late], DEFAULT_LEVELS
    )
    np.testing.assert_array_equal(found.forecast.values[late], expected.values)


def test_windows_closer_than_the_horizon_lose_those_whose_labels_overlap() -> None:
    split = split_of(stride=1)
    windows = Windows(PANEL, split, split.part("tune"))
    first, last = windows.label_span
    np.testing.assert_array_equal(last - first, split.horizon - 1)
    origins = windows.part.origins[windows.origin]
    np.testing.assert_array_equal(first, origins + 1)
    late = windows.origin >= (len(windows.part.origins) + 1) // 2
    raw = forecast_part(drift(split), windows)
    clear = ~late & (last < first[late].min())
    assert 0 < clear.sum() < (~late).sum()
    apart = fit_calibration(
        ALL,
        Forecast(raw.values[clear], raw.levels),
        windows.labels[clear],
        windows.last_close[clear],
    )
    expected = apart.apply(
        Forecast(raw.values[late], raw.levels), windows.last_close[late], DEFAULT_LEVELS
    )
    found = calibrate(drift(split), ALL, PANEL, split).forecast.values[late]
    np.testing.assert_array_equal(found, expected.values)


def test_given_forecasts_are_scored_as_they_are_and_the_others_are_asked_for() -> None:
    split = split_of()
    tuned = calibrate(drift(split), ALL, PANEL, split)
    predictor = Calibrated(drift(split), tuned.calibration)
    scores = evaluate(predictor, PANEL, split, made={"tune": tuned.forecast})
    plain = evaluate(predictor, PANEL, split)
    assert scores["tune_pinball"] != plain["tune_pinball"]
    others, as_asked = (
        {k: v for k, v in found.items() if not k.startswith("tune_")} for found in (scores, plain)
    )
    np.testing.assert_equal(others, as_asked)  # NaN equals NaN: scores that are undefined
    assert make_scorer(PANEL, split)(predictor).scores["tune_pinball"] == plain["tune_pinball"]


def test_a_tune_of_one_origin_cannot_be_cut_in_two() -> None:
    split = split_of(stride=60)
    assert len(split.part("tune").origins) == 1
    with pytest.raises(NotEnoughData, match="use more history"):
        calibrate(drift(split), ALL, PANEL, split)
