"""Naive forecasts through the door of all models, and the volatility that bars tell.

    model            median of the close h bars ahead         quantiles around it
    last-value       last close                               one-bar moves of the context
    drift            last close moved on at the mean move     one-bar moves of the context
    seasonal-naive   the close one season before              moves over whole seasons
    random-walk      last close                               one-bar moves over their volatility
    har              last close                               moves of train over their volatility
                                                              (models/har.py)

But for har, all spreads are quantiles of log moves in the context, less their own median, times
sqrt(h) (for seasonal-naive, of the number of seasons ahead): what a walk of independent moves would
show. So a median is exactly the point forecast, and every forecast is rescaled when prices are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import CLOSE, HIGH, LOW, OPEN, VOLUME
from foresweep.data.windows import Context
from foresweep.errors import ConfigError
from foresweep.models.base import (
    Checkpoint,
    Facts,
    Forecast,
    Levels,
    Predictor,
    Resources,
    TrainingJob,
    as_dict,
    config_class,
    hyper,
)
from foresweep.models.calibration import CalibrationConfig
from foresweep.models.checkpoint import Weights, write_checkpoint

# What one bar says of the volatility of its item, and what several say together.
#
#     close          squared log move from close to close
#     parkinson      squared opening gap + (log high/low)^2 / (4 log 2)
#     garman-klass   squared opening gap + (log high/low)^2 / 2 - (2 log 2 - 1) (log close/open)^2
#
# The range of a bar says five to eight times as much of its variance as its ends do (Parkinson
# 1980; Garman and Klass 1980, who leave the night out: the squared gap from the last close to the
# open puts it in). Bars are logs of open, high, low, close, [N, R, 4]; estimates stand beside the
# R - 1 moves.


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
    # `inside` is negative only where a bar breaks its own law
    garman_klass: Array = gap**2 + np.maximum(inside, 0.0)
    return garman_klass


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


# Naive forecasts through the same door as every model: no weights, no torch, no chance.


DEFAULT_CONTEXT = 256
"""About a year of daily bars: the spread of moves is known to about 5 %, and is still recent."""
FEWEST_BARS = 16
DEFAULT_DECAY, DEFAULT_WINDOW = 0.94, 20


@config_class
class BaselineConfig(CalibrationConfig):
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

    volatility: Literal["rolling", "ewma", "parkinson", "garman-klass"] = hyper(
        "ewma",
        "how large a move is to be expected: rolling or decaying mean of squared moves, or decaying"
        " mean of what the range and the opening gap of each bar say",
        probe=("ewma", "garman-klass"),
    )
    decay: float | None = hyper(
        None,
        "weight of yesterday's variance in today's (none: 0.94, RiskMetrics 1996, for daily bars)",
        probe=(0.8, 0.97),
        gt=0,
        lt=1,
    )
    window: int | None = hyper(
        None,
        "bars of the rolling mean (none: 20, a month of daily bars)",
        unit="bars",
        probe=(10, 40, {"volatility": "rolling"}),
        ge=2,
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
    centred: ClassVar[bool] = False
    """Is every median the last close as it is?"""
    default_context: ClassVar[int] = DEFAULT_CONTEXT

    def resolve(self, config: Any, facts: Facts) -> Any:
        """Fill in the context. Raises ConfigError where it is more than the sweep's, and for
        `centre` where medians are the last close anyway."""
        if self.centred and config.centre:
            raise ConfigError(
                f"{self.name}: centre=true has no effect, its medians are the last close; "
                f"leave it out"
            )
        length = config.context_length
        if length is None:
            return replace(config, context_length=min(self.default_context, facts.max_context))
        if length > facts.max_context:
            raise ConfigError(
                f"{self.name}: context_length {length} is more than the sweep's max_context "
                f"{facts.max_context}"
            )
        return config

    def weights_hash(self, config: Any) -> str:
        """ "": there are no weights."""
        return ""

    def train(self, job: TrainingJob) -> Checkpoint:
        """Score once, report it as step 0, write the checkpoint. Raises CheckpointError."""
        return self.scored(job, self.predictor(job.config))

    def scored(
        self, job: TrainingJob, predictor: Predictor, *, weights: Weights | None = None, **more: Any
    ) -> Checkpoint:
        """The checkpoint of a config and of what was fitted, if anything; scored once. `more` goes
        into its card."""
        scored = job.score(predictor)
        job.report(0, scored.scores, scored.losses)
        card = {"step": 0, "scores": dict(scored.scores), **more}
        config = as_dict(job.config)
        return write_checkpoint(job.out, model=self.name, config=config, weights=weights, card=card)

    def load(self, checkpoint: Checkpoint, resources: Resources) -> Predictor:
        """The predictor of a checkpoint."""
        return self.predictor(self.Config(**checkpoint.config))

    def predictor(self, config: Any) -> Predictor:
        """The predictor of a resolved config."""
        raise NotImplementedError


class LastValue(Baseline):
    """The close stays where it is: what every forecast has to beat."""

    name = "last-value"
    centred = True

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
    centred = True

    def resolve(self, config: Any, facts: Facts) -> Any:
        """Fill in context, decay and window. Raises ConfigError for one without effect."""
        config = super().resolve(config, facts)
        rolling = config.volatility == "rolling"
        name, value = ("decay", config.decay) if rolling else ("window", config.window)
        if value is not None:
            raise ConfigError(
                f"{self.name}: {name}={value} has no effect with volatility={config.volatility!r}; "
                f"leave it out"
            )
        if rolling:
            return replace(config, window=config.window or DEFAULT_WINDOW)
        return replace(config, decay=config.decay or DEFAULT_DECAY)

    def predictor(self, config: Any) -> Walk:
        kind: Estimator = "close"
        if config.volatility in ("parkinson", "garman-klass"):
            kind = config.volatility
        return VolatilityWalk(
            config.context_length, kind, config.decay, config.window, config.quantiles
        )


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
            bars = context.values[at, -seen:, :VOLUME]
            moves = self.moves(np.log(bars), horizon, levels)
            out[at] = bars[:, -1, CLOSE, None, None] * np.exp(moves)
        return Forecast(out, levels)

    def moves(self, bars: Array, horizon: int, levels: Levels) -> Array:
        """[n, H, Q] quantiles of the log move from the last close to each lead, of the logs of
        open, high, low and close, `bars` [n, rows, 4]."""
        return _spread(np.diff(bars[..., CLOSE]), levels)[:, None] * _root(
            np.arange(1, horizon + 1)
        )


@dataclass(frozen=True, slots=True)
class DriftWalk(Walk):
    """Predictor of drift."""

    def moves(self, bars: Array, horizon: int, levels: Levels) -> Array:
        steps = np.diff(bars[..., CLOSE])
        lead = np.arange(1, horizon + 1)
        drift = steps.mean(axis=1) if steps.size else np.zeros(len(bars))
        return _spread(steps, levels)[:, None] * _root(lead) + drift[:, None, None] * _column(lead)


@dataclass(frozen=True, slots=True)
class SeasonalWalk(Walk):
    """Predictor of seasonal-naive; where no move over a season was seen, of last-value."""

    season_length: int

    def moves(self, bars: Array, horizon: int, levels: Levels) -> Array:
        logs = bars[..., CLOSE]
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

    estimator: Estimator
    decay: float | None
    window: int | None  # in place of decay
    quantiles: str

    def moves(self, bars: Array, horizon: int, levels: Levels) -> Array:
        steps = np.diff(bars[..., CLOSE])
        before, now = self._volatility(bars)
        if self.quantiles == "normal":
            spread = np.array([[NormalDist().inv_cdf(level) for level in levels]])
        else:
            spread = _spread(steps[:, 1:] / np.maximum(before, 1e-12), levels)
        today: Array = now[:, None, None] * spread[:, None]
        return today * _root(np.arange(1, horizon + 1))

    def _volatility(self, bars: Array) -> tuple[Array, Array]:
        """Volatility known before each of the second to the last move [n, M - 1], and now [n]."""
        variances = bar_variances(bars, self.estimator)
        if not variances.shape[1]:
            return variances, np.zeros(len(bars))
        seen = decayed(variances, self.decay) if self.decay else rolled(variances, self.window or 1)
        path = np.sqrt(seen)
        now: Array = path[:, -1].copy()
        return path[:, :-1], now


def _spread(steps: Array, levels: Levels) -> Array:
    """[n, Q] quantiles of each row of `steps`, less its median; 0 where there is none."""
    if not steps.shape[1]:
        return np.zeros((len(steps), len(levels)))
    quantiles: Array = np.quantile(steps, [*levels, 0.5], axis=1).T
    return quantiles[:, :-1] - quantiles[:, -1:]


def _column(lead: NDArray[np.int64]) -> Array:
    """[H, 1]"""
    return lead[:, None].astype(np.float64)


def _root(lead: NDArray[np.int64]) -> Array:
    """[H, 1] square roots."""
    root: Array = np.sqrt(_column(lead))
    return root
