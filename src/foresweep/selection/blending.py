"""Which forecasts to mix, and how much of each: fitted on tune alone.

greedy   selection with replacement: at each of ROUNDS rounds the candidate is added whose
         addition lowers the loss of the mean most; the round with the lowest loss counts
         (Caruana, Niculescu-Mizil, Crew and Ksikes 2004, Ensemble selection from libraries)
mean     equal weights
median   the median of every quantile
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foresweep.data.windows import Windows
from foresweep.errors import NotEnoughData
from foresweep.metrics import METRICS, Outcome
from foresweep.models.base import Array, Forecast, Levels
from foresweep.models.ensemble import Method, combine

Mask = NDArray[np.bool_]
ROUNDS = 50
PATIENCE = 15
"""Rounds without a lower loss after which no further one is waited for."""
LEAST_GAIN = 1e-9
"""Share of the loss by which a round must be better: less is rounding."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run that may become a member."""

    name: str
    is_baseline: bool
    losses: Array  # [N] on tune, mean over leads; of the metric that is minimised


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """The windows of tune and every candidate's forecasts of them, which are read when wanted."""

    windows: Windows
    candidates: tuple[Candidate, ...]
    forecasts: Callable[[str], Array]  # name -> [N, H, Q] prices
    levels: Levels
    metric: str
    method: Method
    top_k: int

    def pool(self, rows: Mask) -> list[str]:
        """Who may take part, best on these windows first: the `top_k` trained ones, and the
        baselines; for mean and median, which weigh all alike, only the best baseline."""
        ranked = sorted(self.candidates, key=lambda c: float(c.losses[rows].mean()))
        trained = [c for c in ranked if not c.is_baseline][: self.top_k]
        naive = [c for c in ranked if c.is_baseline]
        beside = naive if self.method == "greedy" else naive[:1]
        return [c.name for c in ranked if c in trained or c in beside]

    def fit(self, rows: Mask) -> dict[str, float]:
        """Weights by name, adding to 1, fitted on these windows.

        Raises NotEnoughData without a window."""
        if not rows.any():
            raise NotEnoughData(
                "nothing to fit weights on: tune has no window whose labels are clear of the other "
                "half's; use more history, or --method median or mean"
            )
        names = self.pool(rows)
        if self.method != "greedy":
            return {name: 1.0 / len(names) for name in names}
        counts = self._greedy(names, rows)
        return {n: int(c) / int(counts.sum()) for n, c in zip(names, counts, strict=True) if c}

    def mixed(self, weights: Mapping[str, float], rows: Mask) -> Array:
        """[n, H, Q] of these windows."""
        return self.combined([self.forecasts(name)[rows] for name in weights], weights)

    def combined(self, values: Sequence[Array], weights: Mapping[str, float]) -> Array:
        """[n, H, Q] of the members' forecasts, in the order of the weights."""
        return combine(values, tuple(weights.values()), self.method)

    def cross_fitted(self) -> Forecast:
        """The forecast of tune, each half mixed with what was chosen and fitted on the other.

        A window is not fitted on when its labels reach into those of the half that is scored.
        Raises NotEnoughData.
        """
        windows = self.windows
        late = windows.origin >= (len(windows.part.origins) + 1) // 2
        first, last = windows.label_span
        values = np.empty((len(windows), windows.horizon, len(self.levels)))
        for scored in (~late, late):
            if not scored.any():
                continue
            clear = (last < first[scored].min()) | (first > last[scored].max())
            values[scored] = self.mixed(self.fit(clear), scored)
        return Forecast(values, self.levels)

    def loss(self, values: Array, rows: Mask) -> float:
        """Mean loss of forecasts [n, H, Q] of these windows."""
        loss = METRICS[self.metric].loss
        assert loss is not None
        windows = self.windows
        outcome = Outcome(windows.labels[rows], values, self.levels, windows.last_close[rows])
        return float(loss(outcome).mean())

    def _greedy(self, names: Sequence[str], rows: Mask) -> NDArray[np.int64]:
        """[K] how often each was taken."""
        values = [self.forecasts(name)[rows] for name in names]
        counts = np.zeros(len(names), dtype=np.int64)
        total = np.zeros_like(values[0])
        best, lowest, waited = counts.copy(), np.inf, 0
        for k in range(1, ROUNDS + 1):
            losses = [self.loss((total + value) / k, rows) for value in values]
            pick = int(np.argmin(losses))
            counts[pick] += 1
            total = total + values[pick]
            waited += 1
            if losses[pick] < lowest - LEAST_GAIN * abs(losses[pick]):
                best, lowest, waited = counts.copy(), losses[pick], 0
            if waited == PATIENCE:
                break
        return best
