"""Which windows of tune steer a training on its way: the same few for every trial of a sweep.

Pruners, early stopping and the choice of the kept step look at them; the score of tune that ranks
and is recorded is made of all windows, once, when a training has ended.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from foresweep.data.windows import Windows
from foresweep.evaluation.losses import volatility_scale
from foresweep.models.training.loop import EVALUATIONS

ALL = "all"
LEAST = 1024
"""Windows that steer at least, where tune has as many."""
NOMINAL_BATCH = 16
"""Windows of a training step that the steps' time is reckoned with: the families' own default."""
SHARE = 1 / 3
"""Of the steps' time that all scorings of a training may take, where to forecast a window costs no
more than to train on one: for Toto 0.27 of it (benchmarks/trial_cost.py), more for Kronos, whose
bars are drawn one after the other. `LEAST` goes before it."""


def windows_wanted(asked: int | str | None, steps: int) -> int | None:
    """How many windows are to steer trainings of `steps` steps; None: all of them.

    `asked` is `--steer-windows`: a number, "all", or None for as many as keep the scorings below
    their share of the steps' time. Of the sweep's own facts alone, so that equal sweeps, and a
    config trained by hand, are steered by the same windows on every machine.
    """
    if asked == ALL:
        return None
    if asked is not None:
        return int(asked)
    return max(LEAST, int(SHARE * steps * NOMINAL_BATCH / EVALUATIONS))


def steering_windows(tune: Windows, wanted: int | None, seed: int) -> Windows:
    """The windows [N] of tune that steer: of every origin equally many, so that there are `wanted`
    or a few more; all of them where that is what it comes to.

    An origin's windows are ordered by the volatility known there and cut into groups of equal size,
    and one is drawn of each (stratified sampling), so that calm and wild items have their share.
    """
    origins, counts = np.unique(tune.origin, return_counts=True)
    if wanted is None or not len(origins):
        return tune
    each = -(-wanted // len(origins))
    if counts.max() <= each:
        return tune
    order = np.lexsort((volatility_scale(tune), tune.origin))
    rng = np.random.default_rng([seed, 2])
    chosen = []
    for first, count in zip(np.cumsum(counts) - counts, counts, strict=True):
        edges = np.arange(each + 1) * count // each if count > each else np.arange(count + 1)
        chosen.append(order[first + rng.integers(edges[:-1], edges[1:])])
    return replace(tune, only=np.sort(np.concatenate(chosen)))


def steering_print(chosen: Windows, tune: Windows, seed: int) -> str:
    """What a run says of the windows that steered it: how many of how many, the seed that drew
    them, and their hash."""
    return f"{len(chosen)}/{len(tune)} seed {seed} {chosen.fingerprint}"
