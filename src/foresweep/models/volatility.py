"""What one bar says of the volatility of its item, and what several say together.

    close          squared log move from close to close
    parkinson      squared opening gap + (log high/low)^2 / (4 log 2)
    garman-klass   squared opening gap + (log high/low)^2 / 2 - (2 log 2 - 1) (log close/open)^2

The range of a bar says five to eight times as much of its variance as its ends do (Parkinson 1980;
Garman and Klass 1980, who leave the night out: the squared gap from the last close to the open puts
it in). Bars are logs of open, high, low, close, [N, R, 4]; estimates stand beside the R - 1 moves.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import CLOSE, HIGH, LOW, OPEN

Array: TypeAlias = NDArray[np.float64]
Estimator: TypeAlias = Literal["close", "parkinson", "garman-klass"]

LOG_2 = float(np.log(2.0))


def bar_variances(bars: Array, estimator: Estimator) -> Array:
    """[N, R - 1] variance of each log move, from log bars [N, R, 4]."""
    if estimator == "close":
        closes: Array = np.diff(bars[..., CLOSE], axis=-1) ** 2
        return closes
    today = bars[:, 1:]
    gap = today[..., OPEN] - bars[:, :-1, CLOSE]
    span = today[..., HIGH] - today[..., LOW]
    if estimator == "parkinson":
        parkinson: Array = gap**2 + span**2 / (4 * LOG_2)
        return parkinson
    body = today[..., CLOSE] - today[..., OPEN]
    inside = span**2 / 2 - (2 * LOG_2 - 1) * body**2
    found: Array = gap**2 + np.maximum(inside, 0.0)  # negative only where a bar breaks its own law
    return found


def decayed(variances: Array, decay: float) -> Array:
    """[N, M] weighted means of the variances up to each move, weights falling by `decay` a bar.

    The weights of the moves seen so far add to 1, so the first move needs no made-up past.
    """
    total: Array = np.zeros(len(variances))
    path = np.zeros(variances.shape)
    weight = 0.0
    for k in range(variances.shape[1]):
        total = decay * total + variances[:, k]
        weight = decay * weight + 1.0
        path[:, k] = total / weight
    return path


def rolled(variances: Array, window: int) -> Array:
    """[N, M] plain means of the last `window` variances up to each move, of all where fewer."""
    num = variances.shape[1]
    path = np.zeros(variances.shape)
    for k in range(num):  # not by differences of sums, which lose what is small after a storm
        path[:, k] = variances[:, max(0, k + 1 - window) : k + 1].mean(axis=1)
    return path
