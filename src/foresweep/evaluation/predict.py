"""Forecast the next bars of a panel with a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import Panel
from foresweep.data.windows import make_context
from foresweep.models.base import DEFAULT_LEVELS, Forecast, Levels, Resources
from foresweep.models.calibration import load_predictor
from foresweep.models.checkpoint import read_checkpoint
from foresweep.models.registry import get_model


@dataclass(frozen=True, slots=True)
class PanelForecast:
    """Forecasts from the last whole bar of each item. N items, H bars ahead, Q levels."""

    items: tuple[str, ...]  # [N]
    origins: NDArray[np.datetime64]  # [N] the last bar each forecast has seen
    last_close: NDArray[np.float64]  # [N]
    times: NDArray[np.datetime64]  # [N, H]
    forecast: Forecast  # [N, H, Q] prices
    model: str
    card: dict[str, Any]

    def records(self) -> list[dict[str, Any]]:
        """One flat record per item and lead, for JSON and CSV."""
        rows = []
        for n, item in enumerate(self.items):
            for h, time in enumerate(self.times[n]):
                quantiles = {
                    f"q{100 * level:g}": float(self.forecast.values[n, h, q])
                    for q, level in enumerate(self.forecast.levels)
                }
                rows.append(
                    {
                        "item_id": item,
                        "origin": str(self.origins[n].astype("datetime64[s]")),
                        "timestamp": str(time.astype("datetime64[s]")),
                        "lead": h + 1,
                        "last_close": float(self.last_close[n]),
                        **quantiles,
                    }
                )
        return rows


def predict_panel(
    checkpoint: Path,
    panel: Panel,
    *,
    horizon: int | None = None,
    levels: Levels = DEFAULT_LEVELS,
    seed: int = 0,
    resources: Resources | None = None,
) -> PanelForecast:
    """Forecast `horizon` bars (default: the checkpoint's own) after each item's last whole bar.

    Raises CheckpointError for a missing or altered checkpoint, ForecastError for a broken forecast.
    """
    read = read_checkpoint(checkpoint)
    predictor = load_predictor(get_model(read.model), read, resources or Resources())
    ahead = horizon or int(read.card.get("horizon", 5))
    item = np.arange(panel.num_items)
    row = np.array([len(bars.values) - 1 for bars in panel.bars])
    context = make_context(panel, item, row, predictor.context_length, ahead)
    forecast = predictor.predict(context, horizon=ahead, levels=levels, seed=seed)
    return PanelForecast(
        items=panel.items,
        origins=context.timestamps[:, -1],
        last_close=context.last_close,
        times=context.future_timestamps,
        forecast=forecast.checked(panel.num_items, ahead),
        model=read.model,
        card=dict(read.card),
    )
