"""What Kronos sees of a window: six features, normalised by the context alone, and time stamps.

Features in the authors' order: open, high, low, close, volume, amount (volume times the mean of
the four prices). Prices enter as z-scored levels, as the authors' weights were trained
(`price`), or as log ratios to the previous close in percent (`return`); the first bar of a window,
whose previous close is not seen, is measured from its own open.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import CLOSE, OPEN, VOLUME, Array, IntArray
from foresweep.data.windows import TrainWindows
from foresweep.models.kronos.config import KronosConfig
from foresweep.models.representation import LARGEST_MOVE
from foresweep.models.training.augmentation import Drawn, Sampler

Target = Literal["return", "price"]
CLIP = 5.0
"""Normalised inputs are cut here, as the authors do."""
EPSILON = 1e-5
"""Added to every standard deviation, as the authors do."""
NUM_FEATURES = 6
DAY_NS = 86_400_000_000_000
MINUTE_NS = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Normal:
    """Normalised windows and the way back."""

    x: Array  # [N, T, 6] clipped at +-CLIP
    mean: Array  # [N, 6] of the context
    scale: Array  # [N, 6] standard deviation of the context, plus EPSILON
    base: Array  # [N] close of the origin
    target: Target

    def closes(self, close: Array) -> Array:
        """Prices [N, S, H] of normalised closes [N, S, H] that follow the origin."""
        value = close * self.scale[:, CLOSE, None, None] + self.mean[:, CLOSE, None, None]
        base = self.base[:, None, None]
        if self.target == "price":
            return base * value / 100
        moves = np.clip(np.cumsum(value, axis=-1), -LARGEST_MOVE, LARGEST_MOVE)
        return base * np.exp(moves / 100)


def normalise(bars: Array, num_context: int, target: Target) -> Normal:
    """Windows `bars` [N, T, 5] of open, high, low, close, volume, whose first `num_context` bars
    are the context: mean and standard deviation are theirs, bars after the origin add nothing."""
    base = bars[:, num_context - 1, CLOSE]
    features = _features(bars, base, target)
    context = features[:, :num_context]
    mean, scale = context.mean(axis=1), context.std(axis=1) + EPSILON
    x = (features - mean[:, None]) / scale[:, None]
    return Normal(np.clip(x, -CLIP, CLIP), mean, scale, base, target)


def _features(bars: Array, base: Array, target: Target) -> Array:
    """[N, T, 6], prices in percent: of the previous close (log) or of the origin's close."""
    prices, volume = bars[..., :VOLUME], bars[..., VOLUME]
    out = np.empty((*bars.shape[:2], NUM_FEATURES))
    if target == "return":
        before = np.concatenate([bars[:, :1, OPEN], bars[:, :-1, CLOSE]], axis=1)
        out[..., :VOLUME] = 100 * np.log(prices / before[..., None])
    else:
        out[..., :VOLUME] = 100 * prices / base[:, None, None]
    out[..., VOLUME] = volume
    out[..., VOLUME + 1] = volume * prices.mean(axis=-1)
    return out


def time_stamps(times: NDArray[np.datetime64]) -> IntArray:
    """[..., 5] minute, hour, weekday (Monday is 0), day of month, month of each time."""
    ns = times.astype("datetime64[ns]").astype(np.int64)
    day = ns // DAY_NS
    minute = ns % DAY_NS // MINUTE_NS
    dates = day.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    return np.stack(
        [
            minute % 60,
            minute // 60,
            (day + 3) % 7,
            (dates - months.astype("datetime64[D]")).astype(np.int64) + 1,
            months.astype(np.int64) % 12 + 1,
        ],
        axis=-1,
    )


def stamps_ahead(
    past: NDArray[np.datetime64], known: NDArray[np.datetime64], horizon: int
) -> IntArray:
    """[N, horizon, 5] time stamps after the contexts' times `past` [N, T].

    The calendar's times `known` [N, K] come first; beyond them the week before is repeated, or,
    for bars slower than a week and contexts shorter than one, the usual step.
    """
    pairs = zip(past, known[:, :horizon], strict=True)
    total = past.shape[1] + horizon
    times = np.stack([_continued(np.concatenate(pair), total) for pair in pairs])
    return time_stamps(times[:, -horizon:])


def _continued(times: NDArray[np.datetime64], total: int) -> NDArray[np.datetime64]:
    """Rising `times`, gone on with until there are `total`."""
    week = np.timedelta64(7, "D")
    step = np.median(np.diff(times).astype("timedelta64[ns]").astype(np.int64))
    weekly = times[-1] - times[0] >= week and step <= week.astype("timedelta64[ns]").astype(int)
    while len(times) < total:
        same = times[times + week > times[-1]] + week
        more = same if weekly else times[-1:] + np.timedelta64(int(step), "ns")
        times = np.concatenate([times, more])
    return times[:total]


class TrainingBars:
    """Draws training windows of context and labels, and shows them as the nets see them."""

    def __init__(self, train: TrainWindows, config: KronosConfig, num_labels: int) -> None:
        self._train, self._config = train, config
        self.num_context, self.num_labels = config.context_length, num_labels
        self.target: Target = config.target or "return"

    @cached_property
    def _sampler(self) -> Sampler:
        return Sampler(self._train, self.num_context, self.num_labels, self._config)

    def draw(self, rng: np.random.Generator, size: int) -> Drawn:
        """`size` windows. Raises NotEnoughData when no item has one."""
        return self._sampler.draw(rng, size)

    def seen(self, bars: Array) -> NDArray[np.float32]:
        """[B, T, 6] of drawn bars."""
        return normalise(bars, self.num_context, self.target).x.astype(np.float32)
