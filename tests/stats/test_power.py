"""What could be proved: against the tests themselves on simulated sweeps, and arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from foresweep.stats.power import (
    Curve,
    Design,
    chance,
    critical_t,
    detectable_skill,
    needed_mean,
    passes,
    scaled_design,
    signal_curve,
    smallest_skill,
    usual_inflation,
)
from foresweep.stats.significance import diebold_mariano, inflation
from foresweep.stats.stepm import stepm

DESIGN = Design(items=12, val_origins=60, test_origins=60, trials=30)


def market(rng: np.random.Generator, origins: int, items: int = 12) -> tuple[np.ndarray, ...]:
    """Errors [O, I, 2] and scale [O, I]: unlike items, fat tails, a common part."""
    sigma = np.exp(0.5 * rng.standard_normal((1, items)) + 0.3 * rng.standard_normal((origins, 1)))
    steps = 0.5 * rng.standard_t(6, (origins, 1, 2)) + 0.75 * rng.standard_t(6, (origins, items, 2))
    path = np.cumsum(steps, axis=2) / np.sqrt(2)
    return sigma[:, :, None] * path, np.broadcast_to(sigma, (origins, items)).copy()


@pytest.fixture(scope="module")
def curves() -> tuple[Curve, Curve]:
    errors, scale = market(np.random.default_rng(0), 1200)
    return tuple(signal_curve(errors, scale, shared=shared) for shared in (False, True))


def test_a_critical_t_is_that_of_sidak():
    assert critical_t(1, 0.05, 60) == pytest.approx(stats.t.isf(0.05, 59))
    each = 1 - 0.95 ** (1 / 60)
    assert critical_t(60, 0.05, 60) == pytest.approx(stats.t.isf(each, 59))


def test_it_is_near_what_stepm_asks_of_independent_trials():
    d = np.random.default_rng(0).standard_normal((60, 60))
    found = stepm(d, block=1, reps=20_000)
    alone = found.inflation == 1  # columns without any autocorrelation in sight
    assert critical_t(60, 0.05, 60) == pytest.approx(found.critical_t[alone], rel=0.03)


def test_the_needed_mean_passes_with_the_asked_chance():
    for critical, origins in ((1.67, 60), (3.3, 60), (3.9, 20)):
        mean = needed_mean(critical, origins)
        assert passes(mean, 1.0, critical=critical, effective_origins=origins) == pytest.approx(0.8)
        drawn = np.random.default_rng(0).standard_normal((20_000, origins)) + mean / np.sqrt(
            origins
        )
        t = drawn.mean(axis=1) / drawn.std(axis=1, ddof=1) * np.sqrt(origins)
        assert (t > critical).mean() == pytest.approx(0.8, abs=0.012)


def test_a_detectable_skill_is_in_units_of_the_benchmark():
    found = detectable_skill(0.02, 0.8, critical=3.3, effective_origins=60)
    assert found == pytest.approx(needed_mean(3.3, 60) * 0.02 / 0.8)
    assert detectable_skill(0.02, 0.8, critical=np.inf, effective_origins=60) == np.inf
    assert detectable_skill(np.nan, 0.8, critical=3.3, effective_origins=60) == np.inf


def promoted(skill: float, *, shared: bool, repetitions: int) -> float:
    """Share of simulated sweeps in which a trial of this skill passes both tests, made from
    scratch: new histories, new noise, StepM among trials without skill, then a test period."""
    rho = rho_of(skill, shared)
    passed = 0
    for seed in range(repetitions):
        rng = np.random.default_rng([5, seed])
        errors, scale = market(rng, 120)
        d = scaled_difference(errors, scale, rho, shared, rng)
        others = rng.standard_normal((60, 29)) * d.std()
        val = stepm(np.column_stack([d[:60], others]), block=1, reps=400)
        test = diebold_mariano(-d[60:], np.zeros(60), lags=0)
        passed += bool(val.superior[0]) and test.pvalue < 0.05
    return passed / repetitions


def scaled_difference(errors, scale, rho, shared, rng) -> np.ndarray:
    other, other_scale = market(rng, len(errors))
    noise = other / other_scale[:, :, None]
    noise /= np.sqrt((noise**2).mean(axis=(0, 1)))
    if not shared:
        noise = np.stack([noise[rng.permutation(len(noise)), i] for i in range(12)], axis=1)
    signal = rho**2 * errors + rho * np.sqrt(1 - rho**2) * noise[:, :, -1:] * (
        scale[:, :, None] * np.sqrt([0.5, 1.0])
    )
    before, after = (np.abs(x).mean(axis=2) for x in (errors, errors - signal))
    return ((before - after) / scale).mean(axis=1)


def rho_of(skill: float, shared: bool) -> float:
    """rho of a raw skill, from a long history of its own."""
    rng = np.random.default_rng(99)
    errors, scale = market(rng, 6000)
    found = []
    for rho in (rhos := np.linspace(0.1, 0.7, 9)):
        other, other_scale = market(rng, 6000)
        noise = other / other_scale[:, :, None]
        noise /= np.sqrt((noise**2).mean(axis=(0, 1)))
        signal = rho**2 * errors + rho * np.sqrt(1 - rho**2) * noise[:, :, -1:] * (
            scale[:, :, None] * np.sqrt([0.5, 1.0])
        )
        found.append(1 - np.abs(errors - signal).sum() / np.abs(errors).sum())
    return float(np.interp(skill, found, rhos))


@pytest.mark.parametrize("shared", [False, True])
def test_the_smallest_skill_is_promoted_in_about_80_percent(curves, shared):
    skill = smallest_skill(curves[shared], DESIGN)
    assert chance(curves[shared], skill, DESIGN) == pytest.approx(0.8, abs=0.01)
    assert promoted(skill, shared=shared, repetitions=250) == pytest.approx(0.8, abs=0.09)


def test_more_of_anything_but_trials_proves_smaller_skills(curves):
    for curve in curves:
        now = smallest_skill(curve, DESIGN)
        assert smallest_skill(curve, scaled_design(DESIGN, years=2)) < 0.7 * now
        assert smallest_skill(curve, replace(DESIGN, trials=1)) < now
        assert smallest_skill(curve, replace(DESIGN, trials=1000)) > now
        assert smallest_skill(curve, replace(DESIGN, level=0.01)) > now


def test_more_items_help_where_errors_are_their_own_and_hardly_where_they_are_shared(curves):
    own, shared = (
        smallest_skill(c, scaled_design(DESIGN, items=4)) / smallest_skill(c, DESIGN)
        for c in curves
    )
    assert own < 0.5
    assert shared > 0.6
    assert smallest_skill(curves[0], DESIGN) < smallest_skill(curves[1], DESIGN)


def test_the_test_has_to_confirm(curves):
    design = Design(items=12, val_origins=10_000, test_origins=20, trials=1)
    skill = smallest_skill(curves[0], DESIGN) / 2
    mean = np.interp(skill, curves[0].skill, curves[0].mean)
    common, own = (np.interp(skill, curves[0].skill, v) for v in (curves[0].common, curves[0].own))
    more = usual_inflation(curves[0], 20)
    error, df = np.sqrt((common + own / 12) / 20 * more), 19 / more
    alone = stats.nct.sf(stats.t.isf(0.05, df), df, mean / error)
    assert chance(curves[0], skill, design) == pytest.approx(alone, rel=1e-3)
    assert 0.1 < alone < 0.9


def test_losses_that_go_on_prove_less_as_they_do_at_the_gates(curves):
    rng = np.random.default_rng(3)
    shocks = rng.standard_normal((400, 30))
    going_on = shocks.copy()
    for n in range(1, len(going_on)):
        going_on[n] += 0.5 * going_on[n - 1]
    plain, persistent = (replace(curves[0], paths=p) for p in (shocks, going_on))
    assert usual_inflation(plain, 60) < 1.2
    assert 2.2 < usual_inflation(persistent, 60) < 3.5  # (1 + 0.5) / (1 - 0.5), shrunk
    # differences per stretch are those that a verdict would inflate
    one = inflation(persistent.paths, lags=0).mean()
    assert usual_inflation(persistent, 400) == pytest.approx(one)
    assert smallest_skill(persistent, DESIGN) > 1.2 * smallest_skill(plain, DESIGN)


def test_a_skill_beyond_the_curve_cannot_be_proved(curves):
    assert (
        smallest_skill(curves[0], replace(DESIGN, items=1, trials=10**9, val_origins=20)) == np.inf
    )


def test_skill_rises_with_the_signal_and_holes_do_not_matter(curves):
    assert curves[0].skill[0] == 0.0
    assert (np.diff(curves[0].skill) >= 0).all()
    errors, scale = market(np.random.default_rng(0), 1200)
    errors[::7, 3] = np.nan
    scale[::7, 3] = np.nan
    errors[40] = scale[40] = np.nan
    holed = signal_curve(errors, scale, shared=False)
    assert smallest_skill(holed, DESIGN) == pytest.approx(
        smallest_skill(curves[0], DESIGN), rel=0.1
    )
    assert holed.num_items == pytest.approx(12 - 1 / 7, abs=0.01)
