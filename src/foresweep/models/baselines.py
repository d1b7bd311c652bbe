"""Naive forecasts through the same door as every model: no weights, no torch, no chance.

    model            median of the close h bars ahead         quantiles around it
    last-value       last close                               one-bar moves of the context
    drift            last close moved on at the mean move     one-bar moves of the context
    seasonal-naive   the close one season before              moves over whole seasons
    random-walk      last close                               one-bar moves over their volatility

All spreads are quantiles of log moves in the context, less their own median, times sqrt(h) (for
seasonal-naive, of the number of seasons ahead): what a walk of independent moves would show. So a
median is exactly the point forecast, and every forecast is rescaled when prices are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foresweep.data.windows import Context, TrainWindows
from foresweep.errors import ConfigError
from foresweep.models.base import (
    Checkpoint,
    Facts,
    Forecast,
    Levels,
    Reporter,
    Resources,
    Scorer,
)
from foresweep.models.config import as_dict, config_class, hyper

Array: TypeAlias = NDArray[np.float64]

DEFAULT_CONTEXT = 256
"""About a year of daily bars: the spread of moves is known to about 5 %, and is still recent."""
FEWEST_BARS = 16


@config_class
class BaselineConfig:
    """What all baselines share."""

    context_length: int | None = hyper(
        None,
        f"bars whose moves are looked at; none: {DEFAULT_CONTEXT}, or what the sweep allows",
        unit="bars",
        probe=(32, 128),
        ge=FEWEST_BARS,
    )


@config_class
class SeasonalConfig(BaselineConfig):
    """Of seasonal-naive."""

    season_length: int = hyper(
        5, "bars in a season (5: a trading week)", unit="bars", probe=(3, 5), ge=1
    )


@config_class
class RandomWalkConfig(BaselineConfig):
    """Of random-walk."""

    decay: float = hyper(
        0.94,
        "weight of yesterday's variance in today's (RiskMetrics 1996 has 0.94 for daily bars)",
        probe=(0.8, 0.97),
        gt=0,
        lt=1,
    )
    quantiles: Literal["empirical", "normal"] = hyper(
        "empirical",
        "moves over their volatility: as seen in the context, or normal",
        probe=("empirical", "normal"),
    )


class Baseline:
    """A family without weights: training writes the config down and scores it once."""

    name: ClassVar[str]
    Config: ClassVar[type[Any]] = BaselineConfig

    def resolve(self, config: Any, facts: Facts) -> Any:
        """Fill in the context. Raises ConfigError where it is more than the sweep's."""
        length = config.context_length
        if length is None:
            return replace(config, context_length=min(DEFAULT_CONTEXT, facts.max_context))
        if length > facts.max_context:
            raise ConfigError(
                f"{self.name}: context_length {length} is more than the sweep's max_context "
                f"{facts.max_context}"
            )
        return config

    def weights_hash(self, config: Any) -> str:
        """ "": there are no weights."""
        return ""

    def train(
        self,
        train: TrainWindows,
        config: Any,
        resources: Resources,
        *,
        seed: int,
        horizon: int,
        score: Scorer,
        report: Reporter,
        out: Path,
        resume: Path | None = None,
    ) -> Checkpoint:
        """Score once, report it as step 0, write the checkpoint. Raises CheckpointError."""
        from foresweep.models.checkpoint import write_checkpoint

        scored = score(self.predictor(config))
        report(0, scored.scores, scored.losses)
        card = {"step": 0, "scores": dict(scored.scores)}
        return write_checkpoint(out, model=self.name, config=as_dict(config), card=card)

    def load(self, checkpoint: Checkpoint, resources: Resources) -> Walk:
        """The predictor of a checkpoint."""
        return self.predictor(self.Config(**checkpoint.config))

    def predictor(self, config: Any) -> Walk:
        """The predictor of a resolved config."""
        raise NotImplementedError


class LastValue(Baseline):
    """The close stays where it is: what every forecast has to beat."""

    name = "last-value"

    def predictor(self, config: Any) -> Walk:
        return Walk(config.context_length)


class Drift(Baseline):
    """The close moves on at the mean log move of the context."""

    name = "drift"

    def predictor(self, config: Any) -> Walk:
        return DriftWalk(config.context_length)


class SeasonalNaive(Baseline):
    """The close is what it was one season before."""

    name = "seasonal-naive"
    Config = SeasonalConfig

    def resolve(self, config: Any, facts: Facts) -> Any:
        """Fill in the context. Raises ConfigError where it holds less than two seasons."""
        resolved = super().resolve(config, facts)
        if resolved.context_length < 2 * resolved.season_length:
            raise ConfigError(
                f"{self.name}: season_length {resolved.season_length} needs a context_length of "
                f"{2 * resolved.season_length} or more, not {resolved.context_length}"
            )
        return resolved

    def predictor(self, config: Any) -> Walk:
        return SeasonalWalk(config.context_length, config.season_length)


class RandomWalk(Baseline):
    """The close stays where it is, with the spread of its recent volatility."""

    name = "random-walk"
    Config = RandomWalkConfig

    def predictor(self, config: Any) -> Walk:
        return VolatilityWalk(config.context_length, config.decay, config.quantiles)


@dataclass(frozen=True, slots=True)
class Walk:
    """Predictor of last-value, and what the others share: grouping by rows seen, and exp."""

    context_length: int

    def predict(self, context: Context, *, horizon: int, levels: Levels, seed: int) -> Forecast:
        """Price quantiles of the close, [N, H, Q]. `seed` is not used: nothing is drawn."""
        lengths = context.lengths
        out = np.empty((len(context), horizon, len(levels)))
        for length in np.unique(lengths):
            at = np.flatnonzero(lengths == length)
            seen = min(int(length), self.context_length)
            closes = context.column("close")[at, -seen:]
            moves = self.moves(np.log(closes), horizon, levels)
            out[at] = closes[:, -1, None, None] * np.exp(moves)
        return Forecast(out, levels)

    def moves(self, logs: Array, horizon: int, levels: Levels) -> Array:
        """[n, H, Q] quantiles of the log move from the last of `logs` [n, rows] to each lead."""
        return _spread(np.diff(logs), levels)[:, None] * _root(np.arange(1, horizon + 1))


@dataclass(frozen=True, slots=True)
class DriftWalk(Walk):
    """Predictor of drift."""

    def moves(self, logs: Array, horizon: int, levels: Levels) -> Array:
        steps = np.diff(logs)
        lead = np.arange(1, horizon + 1)
        drift = steps.mean(axis=1) if steps.size else np.zeros(len(logs))
        return _spread(steps, levels)[:, None] * _root(lead) + drift[:, None, None] * _column(lead)


@dataclass(frozen=True, slots=True)
class SeasonalWalk(Walk):
    """Predictor of seasonal-naive; where no move over a season was seen, of last-value."""

    season_length: int

    def moves(self, logs: Array, horizon: int, levels: Levels) -> Array:
        rows = logs.shape[1]
        season = self.season_length if rows > self.season_length else 1
        lead = np.arange(1, horizon + 1)
        ahead = -(-lead // season)  # seasons
        before = logs[:, rows - 1 + lead - season * ahead] - logs[:, -1:]
        steps = logs[:, season:] - logs[:, :-season]
        return before[:, :, None] + _spread(steps, levels)[:, None] * _root(ahead)


@dataclass(frozen=True, slots=True)
class VolatilityWalk(Walk):
    """Predictor of random-walk."""

    decay: float
    quantiles: str

    def moves(self, logs: Array, horizon: int, levels: Levels) -> Array:
        steps = np.diff(logs)
        before, now = _volatility(steps, self.decay)
        if self.quantiles == "normal":
            spread = np.array([[NormalDist().inv_cdf(level) for level in levels]])
        else:
            spread = _spread(steps[:, 1:] / np.maximum(before, 1e-12), levels)
        today: Array = now[:, None, None] * spread[:, None]
        return today * _root(np.arange(1, horizon + 1))


def _spread(steps: Array, levels: Levels) -> Array:
    """[n, Q] quantiles of each row of `steps`, less its median; 0 where there is none."""
    if not steps.shape[1]:
        return np.zeros((len(steps), len(levels)))
    found: Array = np.quantile(steps, [*levels, 0.5], axis=1).T
    return found[:, :-1] - found[:, -1:]


def _volatility(steps: Array, decay: float) -> tuple[Array, Array]:
    """Exponentially weighted volatility of one-bar log moves [n, M]: of the moves before each of
    the second to the last [n, M - 1], and of all of them [n].

    The weights of the moves seen so far add to 1, so the first move needs no made-up past.
    """
    squares: Array = np.zeros(len(steps))
    path: Array = np.zeros(steps.shape)
    weight = 0.0
    for k in range(steps.shape[1]):
        squares = decay * squares + steps[:, k] ** 2
        weight = decay * weight + 1.0
        path[:, k] = np.sqrt(squares / weight)
    if not steps.shape[1]:
        return path, squares
    now: Array = path[:, -1].copy()
    return path[:, :-1], now


def _column(lead: NDArray[np.int64]) -> Array:
    """[H, 1]"""
    return lead[:, None].astype(np.float64)


def _root(lead: NDArray[np.int64]) -> Array:
    """[H, 1] square roots."""
    root: Array = np.sqrt(_column(lead))
    return root
