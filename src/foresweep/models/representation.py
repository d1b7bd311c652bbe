"""What models see and how their output becomes prices: one place for training and forecasting.

    bars [N, R, F]  ->  encode  ->  channels [N, V, R]  ->  model  ->  moves  ->  prices [N, H, Q]

A *move* is a log return in percent since the origin, so that rescaling all prices of a window
changes nothing that a model sees. Channels hold the targets first, then the covariates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import CLOSE, HIGH, LOW, OPEN, VOLUME, IntArray
from foresweep.data.windows import Context
from foresweep.errors import ConfigError, ForecastError
from foresweep.models.base import Forecast, Levels

Array: TypeAlias = NDArray[np.float64]
Target: TypeAlias = Literal["overlapping", "return", "price"]
Covariates: TypeAlias = Literal["none", "ohlcv"]
Scaling: TypeAlias = Literal["none", "volatility"]

PERCENT = 100.0
MAX_LEADS = 8
"""Most channels of overlapping returns; more leads than that are interpolated."""
FEWEST_BARS = 2
"""A return needs two closes."""
SMALLEST_SCALE = 1e-3
"""Floor, in percent, of a context's volatility: a price that never moves has none."""
LARGEST_MOVE = 1000.0
"""Moves are cut here, in percent of log return, lest a wild draw overflow a price."""
NUM_COVARIATES = 3
DECAY = 0.94
"""Weight of yesterday's variance in today's (RiskMetrics 1996, for daily bars)."""
BURN_IN = 16
"""Bars whose mean squared move is the first variance of a window."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Windows as models see them."""

    channels: Array  # [N, V, R] targets first
    scale: Array  # [N] percent of log return per unit of a target channel


@dataclass(frozen=True, slots=True)
class Representation:
    """How closes become target channels, and which covariates stand beside them.

    overlapping   one channel a lead h: the log return over the last h bars, in percent; step h of
                  that channel is the move to lead h
    return        one channel: the log return over one bar, in percent; moves are its sums
    price         one channel: log price relative to the origin's, in units of the context's
                  one-bar volatility

    With `scaling="volatility"` returns, range and gap are divided by the volatility known where
    they begin (exponentially weighted, decay 0.94, of the context alone); after the origin it
    stays what it was there. Models then see moves of about equal size through calm and storm, and
    what they say is multiplied by the volatility at the origin.

    Raises ConfigError for `price` with scaling, which would change nothing.
    """

    target: Target
    covariates: Covariates
    horizon: int  # the leads it must speak about
    scaling: Scaling = "none"

    def __post_init__(self) -> None:
        if self.target == "price" and self.scaling != "none":
            raise ConfigError(
                f"scaling={self.scaling!r} has no effect with target='price', which is in units "
                f"of the context's volatility already; leave it out"
            )

    @property
    def leads(self) -> tuple[int, ...]:
        """Leads that a model speaks of itself: all of them up to MAX_LEADS; beyond, for overlapping
        returns, MAX_LEADS of them spaced geometrically from 1 to the horizon."""
        if self.target != "overlapping" or self.horizon <= MAX_LEADS:
            return tuple(range(1, self.horizon + 1))
        spaced = np.geomspace(1, self.horizon, MAX_LEADS)
        return tuple(sorted({round(float(x)) for x in spaced}))

    @property
    def num_targets(self) -> int:
        return len(self.leads) if self.target == "overlapping" else 1

    @property
    def num_channels(self) -> int:
        return self.num_targets + (NUM_COVARIATES if self.covariates == "ohlcv" else 0)

    @property
    def direct(self) -> bool:
        """Is the move to a lead one bar of a target channel, times the window's scale? Then its
        quantiles are that bar's own. One-bar returns are summed, which takes paths."""
        return self.target != "return" or self.horizon == 1

    @property
    def places(self) -> tuple[IntArray, IntArray]:
        """[L], [L] channel and bar after the origin where each of the `leads` is, if `direct`."""
        leads = np.array(self.leads)
        channels = np.arange(len(leads)) if self.target == "overlapping" else 0 * leads
        return channels, leads - 1

    @property
    def lag(self) -> int:
        """Bars at the start of a window that only serve to form the channels of later ones."""
        if self.target == "overlapping":
            own = self.horizon
        else:
            own = 1 if self.target == "return" or self.covariates == "ohlcv" else 0
        return max(own, BURN_IN) if self.scaling == "volatility" else own

    def encode(self, values: Array, num_context: int) -> Encoded:
        """Channels of bars [N, R, F], of which the first `num_context` are context.

        The scale is taken from the context alone. Among the first `lag` bars a return reaches back
        to the first bar at most.
        """
        close = PERCENT * np.log(values[:, :, CLOSE])
        volatility = self._volatility(close, num_context)
        scale: Array = volatility[:, num_context - 1].copy()
        if self.target == "price":
            moves = np.diff(close[:, :num_context], axis=1)
            scale = np.maximum(moves.std(axis=1), SMALLEST_SCALE)
            targets = [(close - close[:, num_context - 1, None]) / scale[:, None]]
        elif self.target == "return":
            targets = [_over(close, 1) / _before(volatility, 1)]
        else:
            targets = [_over(close, lead) / _before(volatility, lead) for lead in self.leads]
        if self.covariates == "ohlcv":
            span, gap, volume = _covariates(values, close)
            targets += [span / _before(volatility, 1), gap / _before(volatility, 1), volume]
        return Encoded(np.stack(targets, axis=1), scale)

    def _volatility(self, close: Array, num_context: int) -> Array:
        """[N, R] percent: what returns that begin at each bar are divided by; ones for none.

        The first BURN_IN bars share the root mean square of their moves: no bar from `lag` on
        knows more than what came before it.
        """
        if self.scaling == "none":
            return np.ones(close.shape)
        from scipy.signal import lfilter

        squares = np.diff(close[:, :num_context], axis=1) ** 2
        begin = squares[:, :BURN_IN].mean(axis=1, keepdims=True)
        later, _ = lfilter([1 - DECAY], [1, -DECAY], squares[:, BURN_IN:], zi=DECAY * begin)
        early = np.repeat(begin, min(BURN_IN + 1, num_context), axis=1)
        after = close.shape[1] - num_context
        path = np.concatenate([early, later], axis=1)
        full = np.pad(path, ((0, 0), (0, after)), mode="edge")
        volatility: Array = np.maximum(np.sqrt(full), SMALLEST_SCALE)
        return volatility

    def moves_of_paths(self, paths: Array, scale: Array) -> Array:
        """[N, S, L] moves at `leads` of sampled target channels [N, S, V, T >= horizon]."""
        if self.target == "overlapping":
            channels, steps = self.places
            return self.moves_of_points(paths[:, :, channels, steps], scale)
        one = paths[:, :, 0, : self.horizon] * scale[:, None, None]
        if self.target == "return":
            return np.cumsum(one, axis=-1, dtype=np.float64)
        return one

    def moves_of_points(self, points: Array, scale: Array) -> Array:
        """[N, ...] moves of what target channels [N, ...] hold at the leads' `places`."""
        moves: Array = points * scale.reshape(-1, *[1] * (points.ndim - 1))
        return moves

    def moves_of_quantiles(self, quantiles: Array, scale: Array, levels: Levels) -> Array:
        """[N, L, Q] quantiles of the moves at `leads`, of target channels' [N, V, T, Q].

        For one-bar returns the medians add up, and the distances from the median add as the
        spreads of independent normal variables do: root of the sum of squares.
        """
        leads = np.array(self.leads)
        if self.target == "overlapping":
            own: Array = quantiles[:, np.arange(len(leads)), leads - 1] * scale[:, None, None]
            return own
        one: Array = quantiles[:, 0, : self.horizon] * scale[:, None, None]
        if self.target == "price":
            return one
        middle = one[..., levels.index(0.5), None]
        away = one - middle
        spread = np.sqrt(np.cumsum(away**2, axis=1))
        summed: Array = np.cumsum(middle, axis=1) + np.sign(np.array(levels) - 0.5) * spread
        return summed

    def forecast(self, moves: Array, last_close: Array, horizon: int, levels: Levels) -> Forecast:
        """Price quantiles [N, H, Q] of move quantiles [N, L, Q] at `leads`.

        Raises ForecastError when `horizon` is longer than the one this was made for.
        """
        if horizon > self.horizon:
            raise ForecastError(
                f"this model speaks of {self.horizon} bars ahead, asked for {horizon}; "
                f"train one with horizon {horizon}"
            )
        full = _between_leads(moves, self.leads, self.horizon, levels)[:, :horizon]
        full = np.sort(np.clip(full, -LARGEST_MOVE, LARGEST_MOVE), axis=-1)
        prices = last_close[:, None, None] * np.exp(full / PERCENT)
        return Forecast(prices, levels).checked(len(last_close), horizon)


def sample_quantiles(samples: Array, levels: Levels) -> Array:
    """[N, L, Q] quantiles of [N, S, L] samples, by linear interpolation of order statistics."""
    return np.moveaxis(np.quantile(samples, levels, axis=1), 0, -1)


def by_length(
    context: Context, usable: Callable[[int], int], *, batch: int
) -> Iterator[tuple[IntArray, Array]]:
    """Windows of equal usable length, at most `batch` at a time: (index [n], bars [n, rows, F]).

    `usable` turns the number of whole rows of a window into the number of rows a model takes.
    Raises ForecastError for a window with fewer than FEWEST_BARS rows.
    """
    lengths = context.lengths
    if len(lengths) and lengths.min() < FEWEST_BARS:
        item = context.item_ids[int(lengths.argmin())]
        raise ForecastError(
            f"{item}: a window has {lengths.min()} bars before its origin, a forecast needs at "
            f"least {FEWEST_BARS}"
        )
    rows = np.array([usable(int(n)) for n in lengths], dtype=np.int64)
    for length in np.unique(rows):
        same = np.flatnonzero(rows == length)
        for start in range(0, len(same), batch):
            index = same[start : start + batch]
            yield index, context.values[index, -length:]


def _over(close: Array, lead: int) -> Array:
    """[N, R] change over the last `lead` bars, reaching back to the first bar at most."""
    before = np.maximum(np.arange(close.shape[1]) - lead, 0)
    return close - close[:, before]


def _before(volatility: Array, lead: int) -> Array:
    """[N, R] the volatility known `lead` bars before each bar, the first bar's at the start."""
    return volatility[:, np.maximum(np.arange(volatility.shape[1]) - lead, 0)]


def _covariates(values: Array, close: Array) -> list[Array]:
    """Log range, opening gap and log change of volume, [N, R] each, in percent."""
    day_before = np.maximum(np.arange(close.shape[1]) - 1, 0)
    span = PERCENT * np.log(values[:, :, HIGH] / values[:, :, LOW])
    gap = PERCENT * np.log(values[:, :, OPEN]) - close[:, day_before]
    gap[:, 0] = 0.0
    volume = PERCENT * np.log1p(np.maximum(values[:, :, VOLUME], 0.0))
    return [span, gap, volume - volume[:, day_before]]


def _between_leads(moves: Array, leads: tuple[int, ...], horizon: int, levels: Levels) -> Array:
    """[N, H, Q] from [N, L, Q]: between two leads the median is linear in time, and the distance
    from it linear in the square root of time, as for a random walk with drift."""
    if len(leads) == horizon:
        return moves
    time = np.arange(1, horizon + 1, dtype=np.float64)
    spoken = np.array(leads, dtype=np.float64)
    right = np.clip(np.searchsorted(spoken, time), 1, len(spoken) - 1)
    middle = moves[..., levels.index(0.5), None]

    def mix(values: Array, clock: Callable[[Array], Array]) -> Array:
        low, high = clock(spoken[right - 1]), clock(spoken[right])
        share = ((clock(time) - low) / (high - low))[:, None]
        return (1 - share) * values[:, right - 1] + share * values[:, right]

    return mix(middle, lambda t: t) + mix(moves - middle, np.sqrt)
