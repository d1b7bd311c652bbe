"""What could be proved: the smallest skill that a panel's windows and a number of trials allow.

A trial of a given skill is made out of the panel's own history. r are the benchmark's errors there
(in percent of the last close), sigma the volatility known at the origin; the trial moves the
benchmark's forecast by

    s = rho^2 r + rho sqrt(1 - rho^2) sigma e        e: errors of other origins over their sigma

so it knows a part of what came and is wrong by what markets really do, fat tails and wild months; e
is one number for all leads, since forecasts are smooth paths. rho sets its skill. The loss
differences, divided by sigma, have a mean and a variance over origins of common + own / items; with
those, more items or more years are a matter of arithmetic. Losses go on from one origin to the
next, and a verdict pays for it: the variance is inflated as the gates inflate it on stretches of
the same history as long as the part that is judged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from foresweep.stats.significance import Array, inflation, origin_means

POWER = 0.8
"""Chance at which a skill counts as provable."""
RHOS = np.concatenate([[0.0], np.geomspace(0.02, 0.85, 18)])
TYPICAL_RHO = 0.2
"""Of the signals whose autocorrelation is looked at: it hardly depends on how skilful they are."""
PATHS, STRETCHES = 30, 12
MOST_CELLS = 300_000
"""Windows times leads drawn per signal: what items share is small, and needs many to be seen."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Loss differences of trials of rising skill on one panel. R signals."""

    skill: Array  # [R] raw: 1 - loss / benchmark's loss
    mean: Array  # [R] mean scaled loss difference
    common: Array  # [R] covariance of two items at one origin
    own: Array  # [R] variance of a single cell less `common`
    num_items: float  # items at a usual origin
    num_origins: int  # of the history
    paths: Array  # [O, PATHS] scaled loss differences of typical signals, origins in time order


@dataclass(frozen=True, slots=True)
class Design:
    """What is to be judged: windows, and how many trials compete."""

    items: float
    val_origins: float  # effective
    test_origins: float  # effective
    trials: int
    level: float = 0.05


def critical_t(trials: int, level: float, effective_origins: float) -> float:
    """t that the best of `trials` independent trials passes by luck with chance `level` (Sidak).

    Trials that resemble each other ask for a little less, which only StepM on their losses knows.
    """
    from scipy.special import stdtrit

    each = -np.expm1(np.log1p(-level) / max(trials, 1))
    return float(-stdtrit(max(effective_origins - 1.0, 1.0), each))


def needed_mean(critical: float, effective_origins: float, power: float = POWER) -> float:
    """True mean, in standard errors, that passes `critical` with chance `power` (noncentral t)."""
    from scipy.special import nctdtrinc

    return float(nctdtrinc(max(effective_origins - 1.0, 1.0), 1.0 - power, critical))


def detectable_skill(
    standard_error: float,
    benchmark_mean: float,
    *,
    critical: float,
    effective_origins: float,
    power: float = POWER,
) -> float:
    """Smallest scaled skill that a trial with this standard error proves with chance `power`.

    `standard_error` of its mean scaled loss difference and the benchmark's mean scaled loss come
    from the losses at hand, `critical` from `stepm`: the minimum detectable skill of a verdict.
    Infinite where nothing can be tested.
    """
    if not np.isfinite(critical) or not np.isfinite(standard_error):
        return float("inf")
    return needed_mean(critical, effective_origins, power) * standard_error / benchmark_mean


def passes(mean: float, error: float, *, critical: float, effective_origins: float) -> float:
    """Chance that a trial of this true mean and standard error has t above `critical`."""
    from scipy.special import nctdtr, stdtr

    df = max(effective_origins - 1.0, 1.0)
    if mean == 0.0:
        return float(stdtr(df, -critical))
    return float(1.0 - nctdtr(df, mean / error, critical))


def chance(curve: Curve, skill: float, design: Design) -> float:
    """Chance that a trial of this raw skill is promoted: found by StepM on val, then confirmed on
    the sealed test at 5 %."""
    mean, spread = _at(curve, skill, design.items)
    sides = (
        (design.val_origins, design.trials, design.level),
        (design.test_origins, 1, 0.05),
    )
    found = 1.0
    for origins, trials, level in sides:
        more = usual_inflation(curve, origins)
        worth = 1 + (origins - 1) / more  # whose Student's t has the degrees of freedom of a gate
        critical = critical_t(trials, level, worth)
        error = spread * np.sqrt(more / origins)
        found *= passes(mean, error, critical=critical, effective_origins=worth)
    return found


def usual_inflation(curve: Curve, origins: float) -> float:
    """Times the variance of a mean over so many origins that the gates make it, for losses that go
    on: the mean of `significance.inflation` over stretches of the history of that length."""
    length = min(round(origins), len(curve.paths))
    starts = np.linspace(0, len(curve.paths) - length, STRETCHES).astype(int)
    stretches = [curve.paths[s : s + length] for s in sorted(set(starts.tolist()))]
    return float(np.mean([inflation(d, lags=0) for d in stretches]))


def smallest_skill(curve: Curve, design: Design, power: float = POWER) -> float:
    """Smallest raw skill promoted with chance `power`; infinite where none of the curve is."""
    low, high = 0.0, float(curve.skill.max())
    if chance(curve, high, design) < power:
        return float("inf")
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if chance(curve, middle, design) >= power else (middle, high)
    return high


def scaled_design(design: Design, *, items: float = 1.0, years: float = 1.0) -> Design:
    """The same with that many times the items and years."""
    return replace(
        design,
        items=items * design.items,
        val_origins=years * design.val_origins,
        test_origins=years * design.test_origins,
    )


def signal_curve(
    errors: Array, scale: Array, *, shared: bool, seed: int = 0, rhos: Array = RHOS
) -> Curve:
    """The curve of signals on a history of benchmark errors [O, I, H] and scales [O, I], both in
    percent, NaN where a window is not whole; origins should not share labels.

    `shared`: a signal's noise comes from one other origin for all items, so it is as common to
    them as market moves are (the hard case); else from one of its own for each item.
    """
    rng = np.random.default_rng(seed)
    per_lead = scale[:, :, None] * np.sqrt(np.arange(1, errors.shape[2] + 1) / errors.shape[2])
    shocks = _standard(errors / per_lead)
    chosen = _chosen(errors, rng)
    noise = per_lead[chosen] * _elsewhere(shocks[:, :, -1:], chosen, shared, rng)
    truth, weights = errors[chosen], scale[chosen]
    rows = [_signal(truth, weights, noise, float(rho)) for rho in rhos]
    skill, mean, common, own = (np.array(column) for column in zip(*rows, strict=True))
    usual = float(_count(errors[..., 0]).mean())
    paths = _paths(errors, per_lead, scale, shocks, shared, rng)
    return Curve(np.maximum.accumulate(skill), mean, common, own, usual, len(errors), paths)


def _paths(
    errors: Array,
    per_lead: Array,
    scale: Array,
    shocks: Array,
    shared: bool,
    rng: np.random.Generator,
) -> Array:
    """[O, PATHS] scaled loss differences of signals over the history, its origins in order."""
    rho, every = TYPICAL_RHO, np.arange(len(errors))
    before, found = np.abs(errors).mean(axis=2), []
    for _ in range(PATHS):
        noise = per_lead * _elsewhere(shocks[:, :, -1:], every, shared, rng)
        moved = rho**2 * errors + rho * np.sqrt(1 - rho**2) * noise
        found.append(origin_means((before - np.abs(errors - moved).mean(axis=2)) / scale))
    paths = np.column_stack(found)
    known: Array = paths[~np.isnan(paths).any(axis=1)]
    return known


def _signal(truth: Array, scale: Array, noise: Array, rho: float) -> tuple[float, ...]:
    """Raw skill, mean, common and own variance of one signal."""
    moved = rho**2 * truth + rho * np.sqrt(1 - rho**2) * noise
    before, after = (np.abs(x).mean(axis=2) for x in (truth, truth - moved))
    valid = ~np.isnan(after)
    skill = 1 - after[valid].sum() / before[valid].sum()
    d = (before - after) / scale
    mean = float(d[valid].mean())
    centred = np.where(valid, d - mean, 0.0)
    count = valid.sum(axis=1)
    cell = float((centred**2).sum() / count.sum())
    pairs = centred.sum(axis=1) ** 2 - (centred**2).sum(axis=1)
    common = max(0.0, float(pairs.sum() / max((count * (count - 1)).sum(), 1)))
    return float(skill), mean, common, max(cell - common, 0.0)


def _standard(shocks: Array) -> Array:
    """Errors over volatility, with a root mean square of 1 at each lead."""
    known = shocks.reshape(-1, shocks.shape[2])
    known = known[~np.isnan(known).any(axis=1)]
    found: Array = shocks / np.sqrt((known**2).mean(axis=0))
    return found


def _chosen(errors: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    """Origins used, in order: each several times or a part of them, so that work has a bound."""
    size = int(np.prod(errors.shape[1:]))
    wanted = max(50, MOST_CELLS // size)
    whole, rest = divmod(wanted, len(errors))
    drawn = [np.tile(np.arange(len(errors)), whole), rng.permutation(len(errors))[:rest]]
    return np.sort(np.concatenate(drawn))


def _elsewhere(
    shocks: Array, chosen: NDArray[np.int64], shared: bool, rng: np.random.Generator
) -> Array:
    """Shocks of other origins with a random sign, [len(chosen), I, H]."""
    num, items = len(shocks), shocks.shape[1]
    shape = (len(chosen), 1) if shared else (len(chosen), items)
    other = (chosen[:, None] + rng.integers(1, max(num, 2), size=shape)) % num
    sign = rng.choice([-1.0, 1.0], size=shape)
    found: Array = shocks[other, np.arange(items)] * sign[..., None]
    # where the other origin has no window, another one of the same item does
    hole = np.asarray(np.isnan(found).any(axis=2))
    for item in np.flatnonzero(hole.any(axis=0)):
        known = np.flatnonzero(~np.isnan(shocks[:, item]).any(axis=1))
        if len(known):
            rows = np.flatnonzero(hole[:, item])
            found[rows, item] = shocks[rng.choice(known, len(rows)), item]
    return found


def _at(curve: Curve, skill: float, items: float) -> tuple[float, float]:
    """Mean and standard deviation per origin of a trial of this skill."""
    mean, common, own = (
        float(np.interp(skill, curve.skill, values))
        for values in (curve.mean, curve.common, curve.own)
    )
    return mean, float(np.sqrt(max(common + own / items, 1e-300)))


def _count(cells: Array) -> Array:
    found: Array = (~np.isnan(cells)).sum(axis=1).astype(np.float64)
    return found[found > 0]
