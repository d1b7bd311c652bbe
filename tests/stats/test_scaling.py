"""What dividing losses by a scale known at the origin buys, and what a scale that peeks costs.

Panels as on markets: items of unlike volatility, calm and wild months, fat tails, a common part.
"""

from __future__ import annotations

import numpy as np

from foresweep.stats.significance import mean_errors, origin_means

ORIGINS, ITEMS = 60, 31
WAYS = ("raw", "scaled", "item mean", "origin mean")


def panel(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Moves y [O, I] and their volatility, known at the origin."""
    wild = np.zeros(ORIGINS)
    for t in range(1, ORIGINS):
        wild[t] = 0.85 * wild[t - 1] + 0.3 * rng.standard_normal()
    own = 0.3 * rng.standard_normal((ORIGINS, ITEMS))
    sigma = np.exp(0.5 * rng.standard_normal(ITEMS) + wild[:, None] + own)
    shocks = 0.5 * rng.standard_t(5, (ORIGINS, 1)) + 0.75 * rng.standard_t(5, (ORIGINS, ITEMS))
    return sigma * shocks, sigma


def statistics(benchmark: np.ndarray, trial: np.ndarray, sigma: np.ndarray) -> dict[str, float]:
    scales = {
        "raw": 1.0,
        "scaled": sigma,
        "item mean": benchmark.mean(axis=0),
        "origin mean": benchmark.mean(axis=1, keepdims=True),
    }
    d = np.column_stack([origin_means((benchmark - trial) / scales[way]) for way in WAYS])
    return dict(zip(WAYS, d.mean(axis=0) / mean_errors(d, lags=0).error, strict=True))


def campaign(rho: float, repetitions: int) -> dict[str, np.ndarray]:
    found = []
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        y, sigma = panel(rng)
        ours, theirs = (sigma * rng.standard_normal(y.shape) for _ in range(2))
        if rho:
            signal, naive = rho**2 * y + rho * np.sqrt(1 - rho**2) * ours, 0.0
        else:
            signal, naive = 0.2 * ours, 0.2 * theirs
        found.append(statistics(np.abs(y - naive), np.abs(y - signal), sigma))
    return {way: np.array([f[way] for f in found]) for way in WAYS}


def test_a_scale_known_at_the_origin_keeps_the_size():
    found = campaign(0.0, 1000)
    for way in ("raw", "scaled"):
        assert 0.03 <= (found[way] > 1.671).mean() <= 0.07  # t(59) at 5 %
        assert abs(found[way].mean()) < 0.1


def test_a_scale_known_at_the_origin_finds_far_more_of_the_skilful():
    found = campaign(0.32, 200)  # skill of about 5 %
    assert found["scaled"].mean() > found["raw"].mean() + 0.7
    assert (found["scaled"] > 4).mean() > (found["raw"] > 4).mean() + 0.2


def test_a_scale_that_holds_the_cells_own_loss_hides_the_skilful():
    found = campaign(0.32, 200)
    assert found["origin mean"].mean() < found["scaled"].mean() - 0.5
    assert found["item mean"].mean() < found["scaled"].mean() - 0.5
