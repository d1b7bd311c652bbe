"""What was forecast and what came: the arrays that every metric is a function of.

Shape letters: N windows, H leads, Q quantile levels. All errors are relative to the close at the
origin, so no item weighs by its nominal price; every window weighs the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from foresweep.errors import UsageError

Array: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

CELLS = 4096
"""Cells (windows times leads) handled at a time: what is worked on stays in the cache."""

SAME = 1e-6
"""A median this near to the last close, as a share of it, is the last close: forecasts are kept
in single precision, and a move of 0.0001 percent is no signal."""


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What is known of each window beside its close: the same for every forecast of it."""

    scale: Array  # [N] percent: the item's volatility over the horizon, known at the origin
    usual_move: Array  # [N] price: mean absolute move from bar to bar, known at the origin
    origin: IntArray  # [N] windows with the same number share their origin

    def take(self, index: IntArray) -> Setting:
        return Setting(self.scale[index], self.usual_move[index], self.origin[index])


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """What one pass over all quantiles finds."""

    median: Array  # [N, H] price
    pinballs: Array  # [N, H] percent of the last close, mean of levels
    below: Array  # [Q] share of closes at or below each quantile
    inside_80: float  # share of closes in [q0.1, q0.9]; NaN without these levels


@dataclass(frozen=True, eq=False)
class Outcome:
    """What was forecast and what came. The passes over all quantiles are made once and kept."""

    labels: Array  # [N, H] closes after each origin
    quantiles: Array  # [N, H, Q] forecast prices, rising in Q
    levels: tuple[float, ...]  # [Q] rising, holds 0.5
    last_close: Array  # [N] close at each origin
    setting: Setting | None = None

    @property
    def median(self) -> Array:
        """[N, H]"""
        return self._found.median

    @cached_property
    def errors(self) -> Array:
        """[N, H] absolute error of the median, price."""
        error = self.median - self.labels
        return np.abs(error, out=error)

    @cached_property
    def pct_errors(self) -> Array:
        """[N, H] absolute error of the median, percent of the last close."""
        return self.errors * (100.0 / self.last_close)[:, None]

    @property
    def pinballs(self) -> Array:
        """[N, H] pinball loss of the return to each lead in percent of the last close, mean of
        levels.

        Per level: max(level * (y - q), (level - 1) * (y - q)), without the factor 2 of some texts.
        """
        return self._found.pinballs

    @property
    def shares_below(self) -> Array:
        """[Q] share of closes at or below each quantile."""
        return self._found.below

    @property
    def share_inside_80(self) -> float:
        """Share of closes inside [q0.1, q0.9], borders included."""
        return self._found.inside_80

    @property
    def known(self) -> Setting:
        """The setting. Raises UsageError where it was not given."""
        if self.setting is None:
            raise UsageError(
                "this metric needs the volatility, the usual move and the origin of each window; "
                "give them as Outcome(..., setting=Setting(...))"
            )
        return self.setting

    @property
    def named_direction(self) -> NDArray[np.int8]:
        """[N, H] 1 where the median is above the last close, -1 below, 0 where it is the same."""
        base = self.last_close[:, None]
        up, down = self.median > base * (1.0 + SAME), self.median < base * (1.0 - SAME)
        return up.astype(np.int8) - down.astype(np.int8)

    def take(self, index: IntArray) -> Outcome:
        """The windows at `index`, in that order."""
        setting = None if self.setting is None else self.setting.take(index)
        labels, quantiles = self.labels[index], self.quantiles[index]
        return Outcome(labels, quantiles, self.levels, self.last_close[index], setting)

    @cached_property
    def _found(self) -> Pass:
        """Since pinball is (|y - q| + (2 level - 1) (y - q)) / 2, errors are needed once, and a
        mean over levels is a product with a vector. Levels are laid out first, each in one piece:
        about twice as fast as windows first, as forecasts come."""
        num, horizon, width = self.quantiles.shape
        tilt, ones = 2.0 * np.asarray(self.levels) - 1.0, np.ones(width)
        half = self.levels.index(0.5)
        band = [self.levels.index(x) for x in (0.1, 0.9) if x in self.levels]
        median, pinballs = np.empty((num, horizon)), np.empty((num, horizon))
        below, inside = np.zeros(width, dtype=np.int64), 0
        step = max(1, CELLS // horizon)
        for start in range(0, num, step):
            at = slice(start, start + step)
            error = np.array(self.quantiles[at].reshape(-1, width).T, order="C")
            median[at] = error[half].reshape(-1, horizon)
            np.subtract(self.labels[at].reshape(-1), error, out=error)
            under = error <= 0.0
            below += np.count_nonzero(under, axis=1)
            if len(band) == 2:
                inside += int(np.count_nonzero((error[band[0]] >= 0.0) & under[band[1]]))
            tilted = tilt @ error
            tilted += ones @ np.abs(error, out=error)
            pinballs[at] = tilted.reshape(-1, horizon)
        pinballs *= (50.0 / width) / self.last_close[:, None]
        cells = max(num * horizon, 1)
        share = inside / cells if len(band) == 2 else float("nan")
        return Pass(median, pinballs, below / cells, share)
