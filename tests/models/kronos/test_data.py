"""What Kronos sees: causal normalisation, the authors' features and time stamps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kronos_finance._vendor.kronos_model.kronos import calc_time_stamps

from foresweep.data.panel import CLOSE, Panel
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import TrainWindows
from foresweep.errors import NotEnoughData
from foresweep.models.kronos.config import KronosConfig
from foresweep.models.kronos.model import (
    CLIP,
    Target,
    TrainingBars,
    normalise,
    stamps_ahead,
    time_stamps,
)
from panels import make_panel

TARGETS: tuple[Target, ...] = ("return", "price")
CONTEXT, LABELS = 40, 6


def bars(seed: int = 0, num: int = 3) -> np.ndarray:
    """[num, CONTEXT + LABELS, 5] of a random walk."""
    panel = make_panel(num, CONTEXT + LABELS, seed)
    return np.stack([b.values for b in panel.bars])


@given(st.lists(st.datetimes(pd.Timestamp("1960-01-01"), pd.Timestamp("2100-01-01")), min_size=1))
def test_time_stamps_are_the_authors_for_any_time(times: list[pd.Timestamp]) -> None:
    values = np.array(times, dtype="datetime64[ns]")
    theirs = calc_time_stamps(pd.Series(values)).to_numpy()
    np.testing.assert_array_equal(time_stamps(values), theirs)


def ahead_of(times: object, known: int, horizon: int) -> np.ndarray:
    values = np.array(times, dtype="datetime64[ns]")[None]
    past, future = values[:, : -known or None], values[:, len(values[0]) - known :]
    return stamps_ahead(past, future, horizon)[0]


def test_stamps_ahead_are_the_calendars_and_go_on_at_its_rhythm() -> None:
    days = pd.bdate_range("2024-01-01", periods=40).to_numpy()
    for known in (0, 2, 10):
        found = ahead_of(days[:20], known, 20 + known)
        np.testing.assert_array_equal(found[:20], time_stamps(days[20 - known : 40 - known]))
    hours = pd.date_range("2024-01-01", periods=200, freq="h").to_numpy()
    np.testing.assert_array_equal(ahead_of(hours[:190], 0, 10), time_stamps(hours[190:]))
    np.testing.assert_array_equal(ahead_of(hours[:30], 1, 11), time_stamps(hours[29:40]))
    weeks = pd.date_range("2024-01-01", periods=40, freq="W").to_numpy()
    np.testing.assert_array_equal(ahead_of(weeks[:30], 0, 10), time_stamps(weeks[30:]))
    slow = pd.date_range("2024-01-01", periods=40, freq="28D").to_numpy()
    np.testing.assert_array_equal(ahead_of(slow[:30], 0, 10), time_stamps(slow[30:]))


def test_price_features_are_the_authors_z_scores_of_the_context() -> None:
    window = bars()
    frame = pd.DataFrame(window[1, :CONTEXT], columns=["open", "high", "low", "close", "volume"])
    frame["amount"] = frame["volume"] * frame[["open", "high", "low", "close"]].mean(axis=1)
    x = frame.to_numpy()
    wanted = np.clip((x - x.mean(axis=0)) / (x.std(axis=0) + 1e-5), -CLIP, CLIP)
    found = normalise(window, CONTEXT, "price").x[1, :CONTEXT]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_return_features_are_log_ratios_to_the_previous_close() -> None:
    window = bars()
    normal = normalise(window, CONTEXT, "return")
    raw = normal.x * normal.scale[:, None] + normal.mean[:, None]
    high = 100 * np.log(window[0, 1:, 1] / window[0, :-1, CLOSE])
    inside = np.abs(normal.x[0, 1:, 1]) < CLIP
    np.testing.assert_allclose(raw[0, 1:, 1][inside], high[inside], atol=1e-9)


def test_the_first_bar_whose_previous_close_is_unseen_is_measured_from_its_own_open() -> None:
    window = bars()
    normal = normalise(window, CONTEXT, "return")
    raw = normal.x * normal.scale[:, None] + normal.mean[:, None]
    np.testing.assert_allclose(raw[:, 0, 0], 0, atol=1e-9)
    wanted = 100 * np.log(window[:, 0, CLOSE] / window[:, 0, 0])
    inside = np.abs(normal.x[:, 0, CLOSE]) < CLIP
    np.testing.assert_allclose(raw[inside, 0, CLOSE], wanted[inside], atol=1e-9)


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_after_the_origin_enters_the_context(target: Target) -> None:
    window = bars()
    other = window.copy()
    other[:, CONTEXT:] *= 3
    one, two = normalise(window, CONTEXT, target), normalise(other, CONTEXT, target)
    np.testing.assert_array_equal(one.x[:, :CONTEXT], two.x[:, :CONTEXT])
    np.testing.assert_array_equal(one.mean, two.mean)
    np.testing.assert_array_equal(one.scale, two.scale)
    assert not np.array_equal(one.x[:, CONTEXT:], two.x[:, CONTEXT:])


@pytest.mark.parametrize("target", TARGETS)
def test_true_closes_come_back_as_the_true_prices(target: Target) -> None:
    window = bars()
    normal = normalise(window, CONTEXT, target)
    paths = normal.x[:, None, CONTEXT:, CLOSE]
    inside = (np.abs(paths) < CLIP).all(axis=(1, 2))
    assert inside.any()
    found = normal.closes(paths)[inside, 0]
    np.testing.assert_allclose(found, window[inside, CONTEXT:, CLOSE], rtol=1e-9)


@given(scale=st.floats(1e-3, 1e3), shares=st.floats(0.1, 10), seed=st.integers(0, 20))
@pytest.mark.parametrize("target", TARGETS)
def test_rescaling_prices_and_volume_changes_nothing_seen(
    target: Target, scale: float, shares: float, seed: int
) -> None:
    window = bars(seed, 1)
    other = window * np.array([scale] * 4 + [shares])
    one, two = normalise(window, CONTEXT, target), normalise(other, CONTEXT, target)
    np.testing.assert_allclose(one.x, two.x, atol=1e-6)
    path = np.zeros((1, 2, LABELS))
    np.testing.assert_allclose(two.closes(path), scale * one.closes(path), rtol=1e-9)


@pytest.mark.parametrize("target", TARGETS)
def test_a_price_that_never_moves_stays_finite(target: Target) -> None:
    window = np.tile([7.0, 7.0, 7.0, 7.0, 0.0], (1, CONTEXT, 1))
    normal = normalise(window, CONTEXT, target)
    np.testing.assert_allclose(normal.x, 0, atol=1e-6)
    np.testing.assert_allclose(normal.closes(np.full((1, 2, 3), 4.0)), 7, rtol=1e-3)


def training_bars(panel: Panel, context: int) -> TrainingBars:
    split = make_split(panel, Cut(LABELS))
    train = TrainWindows(panel, split, split.part("train"))
    return TrainingBars(train, KronosConfig(context_length=context, target="return"), LABELS)


def test_a_training_window_is_normalised_by_its_context_alone() -> None:
    bars = training_bars(make_panel(3, 400), CONTEXT)
    drawn = bars.draw(np.random.default_rng(0), 7)
    found = bars.seen(drawn.bars)
    assert found.shape == (7, CONTEXT + LABELS, 6)
    changed = drawn.bars.copy()
    changed[:, CONTEXT:] *= 1.5
    np.testing.assert_array_equal(bars.seen(changed)[:, :CONTEXT], found[:, :CONTEXT])
    assert not np.array_equal(bars.seen(changed), found)


def test_windows_longer_than_the_data_are_refused() -> None:
    with pytest.raises(NotEnoughData, match="consecutive bars"):
        training_bars(make_panel(2, 200), 180).draw(np.random.default_rng(0), 1)
