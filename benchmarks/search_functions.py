"""Made-up learning curves, so that a search is not fitted to one recording alone.

Three functions of six hyperparameters with the noise of real trainings: losses that rise and fall
together at an origin, a little of each config's own, and a val that is not tune.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from search_curves import EVALUATIONS, STEPS, Array, Curves

from foresweep.space import Float, SearchSpace

CONFIGS, ORIGINS, AXES = 600, 43, 6
START = 0.85
"""Loss before training; ends lie between .70 and it."""
OWN_NOISE, VAL_NOISE = 0.02, 0.004


def bowl(x: Array) -> tuple[Array, Array]:
    """One optimum, axes of unequal weight, all learn equally fast."""
    weight = np.array([1.0, 0.6, 0.3, 0.1, 0.02, 0.0])
    away = ((x - np.array([0.3, 0.7, 0.5, 0.2, 0.8, 0.5])) ** 2 * weight).sum(axis=1)
    return 0.70 + 0.15 * np.minimum(1, 2 * away), np.full(len(x), 4.0)


def slow(x: Array) -> tuple[Array, Array]:
    """The lower the first axis, the slower, and the better the end: early ranks mislead."""
    away = ((x[:, 1:3] - 0.4) ** 2).sum(axis=1)
    return 0.70 + 0.04 * x[:, 0] + 0.12 * np.minimum(1, 2 * away), 2.0 + 8.0 * x[:, 0]


def valley(x: Array) -> tuple[Array, Array]:
    """A bent valley in two axes, many small hollows, three axes without effect."""
    u, v = 4 * x[:, 0] - 2, 4 * x[:, 1] - 1
    bent = np.log1p((1 - u) ** 2 + 20 * (v - u**2) ** 2) / np.log(500)
    hollows = 0.1 * np.sin(9 * np.pi * x[:, 2]) ** 2
    return 0.70 + 0.15 * np.minimum(1, bent + hollows), 3.0 + 3.0 * x[:, 3]


Function = Callable[[Array], tuple[Array, Array]]
FUNCTIONS: Mapping[str, Function] = {"bowl": bowl, "slow": slow, "valley": valley}


def made_up(name: str, *, seed: int = 0) -> Curves:
    """A recording of one of the functions: 600 configs, evenly drawn."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(CONFIGS, AXES))
    end, rate = FUNCTIONS[name](x)
    share = np.arange(1, EVALUATIONS + 1) / EVALUATIONS
    mean = end[:, None] + (START - end)[:, None] * np.exp(-rate[:, None] * share)  # [N, S]
    level = rng.lognormal(0, 0.5, size=ORIGINS)
    own = rng.normal(0, OWN_NOISE, size=(CONFIGS, 1, ORIGINS))
    own = own + rng.normal(0, OWN_NOISE / 2, size=(CONFIGS, EVALUATIONS, ORIGINS))
    origins = mean[..., None] * (level / level.mean()) * (1 + own)
    tune = origins.mean(axis=2)
    kept = np.array([[np.argmin(row[: k + 1]) for k in range(EVALUATIONS)] for row in tune])
    val = np.take_along_axis(mean, kept, axis=1) + rng.normal(0, VAL_NOISE, size=(CONFIGS, 1))
    names = [f"x{k}" for k in range(AXES)]
    return Curves(
        about={"made_up": name},
        configs=tuple(dict(zip(names, row, strict=True)) for row in x.tolist()),
        steps=tuple(STEPS * k // EVALUATIONS for k in range(1, EVALUATIONS + 1)),
        tune=tune,
        val=val,
        origins=origins,
        seconds=np.ones(CONFIGS),
        space=SearchSpace({n: Float(0.0, 1.0) for n in names}),
    )
