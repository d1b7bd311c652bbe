"""The champion as a forecaster of the sktime kind: fit, predict, predict_quantiles, update.

    python examples/serving/forecaster.py prices/      # without a folder: the demo's prices

`fit` trains nothing: it remembers the bars to forecast from. The weights are the champion's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd

from foresweep import load_champion


class ChampionForecaster:
    """`y`: a DataFrame (item_id, timestamp, open, high, low, close[, volume]) or a folder."""

    def __init__(self, slot: str | None = None, db: str | None = None) -> None:
        self.slot, self.db = slot, db

    def fit(self, y: Any, X: None = None, fh: Sequence[int] | None = None) -> ChampionForecaster:
        self._champion = load_champion(self.slot, db=self.db)
        self._y, self._fh = y, fh
        return self

    def update(self, y: Any) -> ChampionForecaster:
        """Forecast from these bars from now on: the old and the new ones together."""
        self._y = y
        return self

    def predict(self, fh: Sequence[int] | None = None) -> pd.Series:
        """Medians by (item_id, timestamp), at the bars ahead of `fh` (1, 2, ...)."""
        return self.predict_quantiles(fh, alpha=[0.5])[0.5].rename("close")

    def predict_quantiles(
        self, fh: Sequence[int] | None = None, alpha: Sequence[float] = (0.1, 0.5, 0.9)
    ) -> pd.DataFrame:
        """A column a level, by (item_id, timestamp)."""
        wanted = fh or self._fh
        levels = tuple(sorted({*alpha, 0.5}))
        found = self._champion.predict(self._y, horizon=max(wanted or (5,)), levels=levels)
        chosen = found[found["lead"].isin(wanted)] if wanted else found
        columns = {f"{level:g}": level for level in alpha}
        return chosen.set_index(["item_id", "timestamp"])[[*columns]].rename(columns=columns)


if __name__ == "__main__":
    print(ChampionForecaster().fit(*(sys.argv[1:] or ["demo"])).predict_quantiles(fh=[1, 5]))
