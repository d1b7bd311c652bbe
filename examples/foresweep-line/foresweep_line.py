"""A plug-in: the moves of the next bars as straight lines of the last ones, by least squares."""

from dataclasses import dataclass

import numpy as np

from foresweep.data.panel import CLOSE
from foresweep.models.base import DEFAULT_LEVELS, Forecast, config_class, hyper
from foresweep.models.baselines.naive import Baseline, BaselineConfig
from foresweep.models.calibration import at_levels
from foresweep.models.checkpoint import read_weights


@config_class
class LineConfig(BaselineConfig):
    context_length: int = hyper(6, "bars looked at", unit="bars", probe=(4, 6), ge=3)


class Line(Baseline):  # which brings `resolve`, `weights_hash` and `scored`
    name, Config = "line", LineConfig

    def train(self, job):
        length = job.config.context_length
        item, row = job.windows.starts(length, job.horizon)
        bars, _ = job.windows.cut(item, row, length + job.horizon)
        logs = np.log(bars[..., CLOSE])
        seen, ahead = np.diff(logs[:, :length]), logs[:, length:] - logs[:, length - 1, None]
        slopes = np.linalg.lstsq(seen, ahead, rcond=None)[0]
        spread = np.quantile(ahead - seen @ slopes, DEFAULT_LEVELS, axis=0).T
        spread -= spread[:, DEFAULT_LEVELS.index(0.5), None]
        fitted = {"slopes": slopes, "spread": spread}
        return self.scored(job, LinePredictor(length, **fitted), weights=fitted)

    def load(self, checkpoint, resources):
        return LinePredictor(checkpoint.config["context_length"], **read_weights(checkpoint))


@dataclass(frozen=True)
class LinePredictor:
    context_length: int
    slopes: np.ndarray  # [moves, H]
    spread: np.ndarray  # [H, Q] at DEFAULT_LEVELS

    def predict(self, context, *, horizon, levels, seed):
        close = context.last(self.context_length).values[..., CLOSE]
        seen = np.nan_to_num(np.diff(np.log(close)))  # a young item has not moved before it began
        median = (seen[:, :, None] * self.slopes[-seen.shape[1] :]).sum(axis=1)
        moves = median[:, :, None] + at_levels(self.spread[None], DEFAULT_LEVELS, levels)
        prices = context.last_close[:, None, None] * np.exp(moves[:, :horizon])
        return Forecast(prices, levels).checked(len(context), horizon)
