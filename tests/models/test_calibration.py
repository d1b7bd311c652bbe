"""Calibration: fitted exactly, applied evenly, and each half of tune judged by the other."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pytest

from foresweep.data.windows import make_context
from foresweep.errors import CheckpointError, ConfigError, ForecastError, NotEnoughData
from foresweep.metrics import METRICS, QUANTILE_METRICS
from foresweep.models.base import DEFAULT_LEVELS, Forecast, Resources, config_hash
from foresweep.models.baselines.naive import Drift, LastValue
from foresweep.models.calibration import (
    FILE,
    LARGEST_SCALE,
    OUTERMOST,
    Calibrated,
    Calibration,
    CalibrationConfig,
    cross_fitted,
    fit_calibration,
    load_predictor,
    refuse_centre_under,
    store_calibration,
)
from foresweep.models.checkpoint import read_checkpoint, write_checkpoint
from panels import make_panel

NORMAL = np.array([NormalDist().inv_cdf(level) for level in DEFAULT_LEVELS])
CENTRE = CalibrationConfig(centre=True)
SCALE = CalibrationConfig(fit_scale=True)
ISOTONIC = CalibrationConfig(isotonic=True)


@dataclass(frozen=True)
class Case:
    """Forecasts with a known fault, and what came. N windows, H leads."""

    forecast: Forecast
    labels: np.ndarray
    last_close: np.ndarray


def case(
    num: int = 400, *, width: float = 1.0, shift: float = 0.0, seed: int = 0, leads: int = 2
) -> Case:
    """Normal moves of 2 % per root bar, each window with a volatility of its own; the forecast is
    `width` times as wide and lies `shift` too high."""
    rng = np.random.default_rng(seed)
    close = np.exp(rng.uniform(1, 6, num))
    sigma = 0.02 * np.exp(0.4 * rng.standard_normal((num, 1))) * np.sqrt(np.arange(1, leads + 1))
    labels = close[:, None] * np.exp(sigma * rng.standard_normal((num, leads)))
    moves = shift + width * sigma[..., None] * NORMAL
    return Case(Forecast(close[:, None, None] * np.exp(moves), DEFAULT_LEVELS), labels, close)


def fitted(config: CalibrationConfig, c: Case) -> Calibration:
    return fit_calibration(config, c.forecast, c.labels, c.last_close)


def applied(calibration: Calibration, c: Case) -> np.ndarray:
    return calibration.apply(c.forecast, c.last_close, DEFAULT_LEVELS).values


def log_moves(values: np.ndarray, c: Case) -> np.ndarray:
    return np.log(values / c.last_close[:, None, None])


def pinball(scale: float, c: Case, lead: int) -> float:
    """Mean pinball of log moves with the spread times `scale`."""
    moves = log_moves(c.forecast.values, c)[:, lead]
    truth = np.log(c.labels[:, lead] / c.last_close)
    middle = moves[:, 4:5]
    error = truth[:, None] - (middle + scale * (moves - middle))
    levels = np.array(DEFAULT_LEVELS)
    return float(np.maximum(levels * error, (levels - 1) * error).mean())


@pytest.mark.parametrize(("width", "shift"), [(1.0, 0.0), (0.5, 0.01), (2.0, -0.03)])
def test_the_fitted_scale_is_the_best_of_a_fine_grid(width: float, shift: float) -> None:
    c = case(60, width=width, shift=shift)
    found = fitted(SCALE, c).scale
    assert found is not None
    for lead, scale in enumerate(found):
        grid = np.linspace(0.2, 5, 4001)
        losses = [pinball(s, c, lead) for s in grid]
        assert pinball(scale, c, lead) <= min(losses) + 1e-12
        assert scale == pytest.approx(grid[int(np.argmin(losses))], abs=0.003)


def test_a_spread_that_is_half_as_wide_as_it_should_be_is_doubled() -> None:
    scale = fitted(SCALE, case(4000, width=0.5)).scale
    np.testing.assert_allclose(scale, [2.0, 2.0], rtol=0.08)


def test_the_scale_stays_within_reason_and_where_nothing_spreads_is_one() -> None:
    narrow = case(50, width=1e-3)
    assert fitted(SCALE, narrow).scale == (LARGEST_SCALE, LARGEST_SCALE)
    point = case(50, width=0.0)
    assert fitted(SCALE, point).scale == (1.0, 1.0)


def test_scaling_leaves_every_median_where_it_is() -> None:
    c = case(width=0.5, shift=0.01)
    np.testing.assert_allclose(applied(fitted(SCALE, c), c)[..., 4], c.forecast.median, rtol=1e-12)


def test_centring_puts_the_median_on_the_last_close_to_the_last_bit_and_keeps_the_distances() -> (
    None
):
    c = case(shift=0.02)
    found = applied(fitted(CENTRE, c), c)
    assert (found[..., 4] == c.last_close[:, None]).all()
    before, after = log_moves(c.forecast.values, c), log_moves(found, c)
    np.testing.assert_allclose(np.diff(after), np.diff(before), atol=1e-12)


@pytest.mark.parametrize(
    ("width", "shift", "near"), [(0.4, 0.0, 0.03), (2.5, 0.0, 0.03), (1.0, 0.015, 0.06)]
)
def test_isotonic_levels_come_true_on_new_windows(width: float, shift: float, near: float) -> None:
    learnt, new = case(4000, width=width, shift=shift), case(4000, width=width, shift=shift, seed=1)

    def share(values: np.ndarray) -> np.ndarray:
        return (new.labels[..., None] <= values).mean(axis=(0, 1))

    off = np.abs(share(new.forecast.values) - DEFAULT_LEVELS).max()
    left = np.abs(share(applied(fitted(ISOTONIC, learnt), new)) - DEFAULT_LEVELS).max()
    assert off > 0.1
    assert left < near


def test_isotonic_coverage_rises_whatever_came() -> None:
    c = case(12, seed=5)
    found = np.array(fitted(ISOTONIC, c).coverage)
    assert (np.diff(found) >= 0).all()
    assert (found >= 0).all()
    assert (found <= 1).all()
    values = applied(fitted(ISOTONIC, c), c)
    assert np.isfinite(values).all()
    assert (np.diff(values, axis=2) >= 0).all()


def test_isotonic_levels_are_read_between_pooled_shares_and_straight_on_beyond() -> None:
    """A hand-made table: shares .2 and .2 stand for levels .1 and .2, so .2 is read between."""
    z = NormalDist().inv_cdf
    calibration = Calibration(levels=(0.1, 0.2, 0.5, 0.9), coverage=(0.2, 0.2, 0.6, 0.8))
    low = (z(0.1) + z(0.2)) / 2
    part = (z(0.4) - z(0.2)) / (z(0.6) - z(0.2))
    above = z(0.9) + z(0.9) / (z(0.8) - z(0.6)) * (z(0.9) - z(0.8))
    found = calibration._sources((0.2, 0.4, 0.6, 0.9))
    np.testing.assert_allclose(found, [low, (1 - part) * low, 0.0, min(above, z(1 - OUTERMOST))])


def test_centred_and_isotonic_keeps_the_median_on_the_last_close() -> None:
    c = case(shift=0.02, width=0.5)
    both = CalibrationConfig(centre=True, isotonic=True, fit_scale=True)
    found = applied(fitted(both, c), c)
    assert (found[..., 4] == c.last_close[:, None]).all()


def test_where_a_neighbour_came_true_as_often_the_centred_median_stays_all_the_same() -> None:
    calibration = Calibration(
        centre=True, levels=(0.1, 0.4, 0.5, 0.9), coverage=(0.2, 0.5, 0.5, 0.8)
    )
    assert calibration._sources((0.5,)) == [0.0]


def test_each_does_something_of_its_own_and_none_does_nothing() -> None:
    c = case(width=0.5, shift=0.01)
    outcomes = [applied(fitted(config, c), c) for config in (CENTRE, SCALE, ISOTONIC)]
    for k, one in enumerate(outcomes):
        assert np.abs(one / c.forecast.values - 1).max() > 1e-3
        assert all(np.abs(one / other - 1).max() > 1e-3 for other in outcomes[:k])
    nothing = applied(fitted(CalibrationConfig(), c), c)
    np.testing.assert_allclose(nothing, c.forecast.values, rtol=1e-12)


@pytest.mark.parametrize("config", [CENTRE, SCALE, ISOTONIC])
def test_rescaled_prices_give_rescaled_forecasts(config: CalibrationConfig) -> None:
    c = case(100, width=0.5, shift=0.01)
    grown = Case(Forecast(8 * c.forecast.values, DEFAULT_LEVELS), 8 * c.labels, 8 * c.last_close)
    one, other = fitted(config, c), fitted(config, grown)
    assert one == other
    np.testing.assert_array_equal(applied(other, grown), 8 * applied(one, c))


def test_better_pinball_on_new_windows_is_what_it_is_for() -> None:
    learnt, new = case(2000, width=0.4, shift=0.02), case(2000, width=0.4, shift=0.02, seed=1)

    def loss(values: np.ndarray) -> float:
        error = np.log(new.labels / new.last_close[:, None])[..., None] - log_moves(values, new)
        levels = np.array(DEFAULT_LEVELS)
        return float(np.maximum(levels * error, (levels - 1) * error).mean())

    raw = loss(new.forecast.values)
    for config in (CENTRE, SCALE, ISOTONIC):
        assert loss(applied(fitted(config, learnt), new)) < 0.97 * raw


def halves(c: Case, config: CalibrationConfig, *, horizon: int = 2) -> np.ndarray:
    """Cross-fitted values of windows one bar apart."""
    num = len(c.labels)
    start = np.arange(num)
    spans = (start + 1, start + horizon)
    late = start >= num // 2
    return cross_fitted(config, c.forecast, c.labels, c.last_close, late, spans).values


def changed(c: Case, at: slice) -> Case:
    labels = c.labels.copy()
    labels[at] *= 3
    return Case(c.forecast, labels, c.last_close)


@pytest.mark.parametrize("config", [SCALE, ISOTONIC])
def test_no_half_of_tune_is_calibrated_by_its_own_labels(config: CalibrationConfig) -> None:
    c = case(100, width=0.5)
    before = halves(c, config)
    early = halves(changed(c, slice(0, 50)), config)
    np.testing.assert_array_equal(early[:50], before[:50])
    assert (early[50:] != before[50:]).any()
    late = halves(changed(c, slice(50, 100)), config)
    np.testing.assert_array_equal(late[50:], before[50:])
    assert (late[:50] != before[:50]).any()


def test_labels_that_reach_into_the_other_half_are_not_fitted_on() -> None:
    """Of windows one bar apart with three leads, two on either side of the border overlap."""
    c = case(100, width=0.5, leads=3)
    before = halves(c, SCALE, horizon=3)
    early, late = changed(c, slice(48, 50)), changed(c, slice(50, 52))
    np.testing.assert_array_equal(halves(early, SCALE, horizon=3), before)
    np.testing.assert_array_equal(halves(late, SCALE, horizon=3), before)
    assert (halves(changed(c, slice(46, 48)), SCALE, horizon=3) != before).any()


def test_a_half_without_clear_labels_is_refused() -> None:
    with pytest.raises(NotEnoughData, match="nothing to fit a calibration on"):
        halves(case(4, leads=9), SCALE, horizon=9)


def test_a_calibrated_predictor_gives_any_levels() -> None:
    panel = make_panel(2, 200)
    context = make_context(panel, np.array([0, 1]), np.array([150, 199]), 64, 2)
    calibration = fitted(CalibrationConfig(fit_scale=True, isotonic=True), case(width=0.5))
    predictor = Calibrated(Drift().predictor(Drift.Config(context_length=64)), calibration)
    assert predictor.context_length == 64
    for levels in (DEFAULT_LEVELS, (0.05, 0.5, 0.95), (0.5,)):
        found = predictor.predict(context, horizon=2, levels=levels, seed=0)
        assert found.levels == levels
        assert (np.diff(found.checked(2, 2).values, axis=2) >= 0).all()
    one = predictor.predict(context, horizon=1, levels=DEFAULT_LEVELS, seed=0).values
    two = predictor.predict(context, horizon=2, levels=DEFAULT_LEVELS, seed=0).values
    np.testing.assert_array_equal(one, two[:, :1])


def test_more_leads_than_were_fitted_are_refused() -> None:
    c = case(leads=3)
    with pytest.raises(ForecastError, match="calibrated for 2 bars ahead, asked for 3"):
        applied(fitted(SCALE, case(leads=2)), c)


def test_calibration_is_part_of_the_config_and_not_of_the_training() -> None:
    plain, other = LastValue.Config(), LastValue.Config(fit_scale=True)
    whole, trained = (
        [config_hash(c, model="last-value", inference=inference) for c in (plain, other)]
        for inference in (True, False)
    )
    assert whole[0] != whole[1]
    assert trained[0] == trained[1]


def test_centring_is_for_objectives_that_look_at_quantiles() -> None:
    centred = CalibrationConfig(centre=True)
    for objective in QUANTILE_METRICS:
        refuse_centre_under(["pct_mae", objective], centred, quantile_metrics=QUANTILE_METRICS)
    with pytest.raises(ConfigError, match="under objective 'pct_mae' that is last-value in disg"):
        refuse_centre_under(["pct_mae"], centred, quantile_metrics=QUANTILE_METRICS)
    refuse_centre_under(["pct_mae"], SCALE, quantile_metrics=QUANTILE_METRICS)
    assert set(QUANTILE_METRICS) <= set(METRICS)


def test_a_stored_calibration_is_applied_by_whoever_loads_the_checkpoint(tmp_path) -> None:
    config = {"context_length": 64, "fit_scale": True, "isotonic": True}
    written = write_checkpoint(tmp_path / "c", model="drift", config=config)
    with pytest.raises(CheckpointError, match=r"holds no calibration\.json"):
        load_predictor(Drift(), read_checkpoint(written.path), Resources())
    calibration = fitted(Drift.Config(**config), case(width=0.5))
    store_calibration(written, calibration)
    read = read_checkpoint(written.path)
    predictor = load_predictor(Drift(), read, Resources())
    assert isinstance(predictor, Calibrated)
    assert predictor.calibration == calibration
    (written.path / FILE).write_text((written.path / FILE).read_text().replace("0", "1", 1))
    with pytest.raises(CheckpointError, match=r"calibration\.json was altered"):
        read_checkpoint(written.path)
