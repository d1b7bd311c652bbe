"""Forecast the next bars of a panel with a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import Panel
from foresweep.data.splits import MIN_CONTEXT
from foresweep.data.windows import Context, make_context
from foresweep.errors import NotEnoughData
from foresweep.models.base import DEFAULT_LEVELS, Forecast, Levels, Predictor, Resources, on_device
from foresweep.models.calibration import load_predictor
from foresweep.models.checkpoint import read_checkpoint
from foresweep.models.ensemble import manifest_hash
from foresweep.models.registry import get_model
from foresweep.records import Shown

if TYPE_CHECKING:
    import pandas as pd


Recent: TypeAlias = tuple[tuple[NDArray[np.datetime64], NDArray[np.float64]], ...]
"""[N] of (times [C], open, high, low and close [C, 4]): each item's last bars, to be drawn."""
DRAWN = 40


@dataclass(frozen=True, slots=True)
class PanelForecast(Shown):
    """Forecasts from the last whole bar of each item. N items, H bars ahead, Q levels."""

    items: tuple[str, ...]  # [N]
    origins: NDArray[np.datetime64]  # [N] the last bar each forecast has seen
    last_close: NDArray[np.float64]  # [N]
    times: NDArray[np.datetime64]  # [N, H]
    forecast: Forecast  # [N, H, Q] prices
    model: str
    card: dict[str, Any]
    refused: Mapping[str, str] = field(default_factory=dict)  # item -> why it has no forecast
    input_hashes: tuple[str, ...] = ()  # [N] sha256 of the bars that each forecast has seen
    recent: Recent = field(default=(), repr=False)

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
                        "origin": iso(self.origins[n]),
                        "timestamp": iso(time),
                        "lead": h + 1,
                        "last_close": float(self.last_close[n]),
                        **quantiles,
                    }
                )
        return rows

    def to_frame(self) -> pd.DataFrame:
        """One line per item and lead, with the names that Chronos' `predict_df` and others give:
        item_id, timestamp, predictions (the median), a column for each level ("0.1" ...), then
        origin (the last bar seen), lead and last_close. What was refused is in
        `.attrs["refused"]`, item by item."""
        import pandas as pd

        num_items, ahead = self.times.shape
        quantiles = {
            f"{level:g}": self.forecast.values[:, :, q].ravel()
            for q, level in enumerate(self.forecast.levels)
        }
        frame = pd.DataFrame(
            {
                "item_id": np.repeat(np.array(self.items, dtype=object), ahead),
                "timestamp": self.times.ravel(),
                "predictions": self.forecast.median.ravel(),
                **quantiles,
                "origin": np.repeat(self.origins, ahead),
                "lead": np.tile(np.arange(1, ahead + 1), num_items),
                "last_close": np.repeat(self.last_close, ahead),
            }
        )
        frame.attrs["refused"] = dict(self.refused)
        return frame


def iso(time: np.datetime64) -> str:
    """A time as it is printed and stored: to the second, and further where it has more."""
    seconds = time.astype("datetime64[s]")
    return str(seconds if seconds == time else time.astype("datetime64[ns]"))


@dataclass(frozen=True, slots=True, eq=False)
class Forecaster:
    """A checkpoint, loaded once, that forecasts any number of panels."""

    path: Path
    model: str
    config: Mapping[str, Any] = field(repr=False)  # long ones: a notebook shows the rest
    card: Mapping[str, Any] = field(repr=False)
    manifest: str  # hash of the checkpoint's list of files: which weights these are
    predictor: Predictor = field(repr=False)
    min_context: int = MIN_CONTEXT

    @classmethod
    def load(cls, checkpoint: Path, resources: Resources | None = None) -> Self:
        """Raises CheckpointError for a missing or altered checkpoint, MissingExtra."""
        read = read_checkpoint(checkpoint)
        there = on_device(resources or Resources())
        predictor = load_predictor(get_model(read.model), read, there)
        return cls(checkpoint, read.model, read.config, read.card, manifest_hash(read), predictor)

    @property
    def horizon(self) -> int:
        """Bars ahead it was trained and judged for."""
        return int(self.card.get("horizon", 5))

    def contexts(self, panel: Panel, horizon: int) -> tuple[Context | None, dict[str, str]]:
        """(contexts that end at each item's last whole bar, item -> why it has too few bars)."""
        rows = np.array([len(bars.values) - 1 for bars in panel.bars])
        refused = {
            panel.items[i]: f"{row + 1} whole bars: at least {self.min_context} are needed"
            for i, row in enumerate(rows)
            if row + 1 < self.min_context
        }
        kept = np.flatnonzero(rows + 1 >= self.min_context)
        if not len(kept):
            return None, refused
        length = self.predictor.context_length
        return make_context(panel, kept, rows[kept], length, horizon), refused

    def predict(
        self,
        panel: Panel,
        *,
        horizon: int | None = None,
        levels: Levels = DEFAULT_LEVELS,
        seed: int = 0,
    ) -> PanelForecast:
        """Forecast `horizon` bars (default: its own) after each item's last whole bar; items with
        fewer than `min_context` bars are refused by name, the others forecast.

        Raises NotEnoughData where none is left, ForecastError for a broken forecast.
        """
        ahead = horizon or self.horizon
        context, refused = self.contexts(panel, ahead)
        if context is None:
            first, why = next(iter(refused.items()))
            raise NotEnoughData(f"no item has enough bars to forecast from: {first} has {why}")
        forecast = self.predictor.predict(context, horizon=ahead, levels=levels, seed=seed)
        return self.told(context, forecast.checked(len(context), ahead), refused)

    def told(
        self, context: Context, forecast: Forecast, refused: Mapping[str, str]
    ) -> PanelForecast:
        """A forecast with all that is to be known of where it came from."""
        return PanelForecast(
            items=context.item_ids,
            origins=context.timestamps[:, -1],
            last_close=context.last_close,
            times=context.future_timestamps,
            forecast=forecast,
            model=self.model,
            card=dict(self.card),
            refused=refused,
            input_hashes=tuple(_hash_of(context, n) for n in range(len(context))),
            recent=_recent(context),
        )


def _recent(context: Context) -> Recent:
    prices = [context.columns.index(c) for c in ("open", "high", "low", "close")]
    first = np.maximum(context.mask.shape[1] - np.minimum(context.lengths, DRAWN), 0)
    return tuple(
        (context.timestamps[n, k:].copy(), context.values[n, k:, prices].T.copy())
        for n, k in enumerate(first)
    )


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

    Raises CheckpointError for a missing or altered checkpoint, NotEnoughData where no item has
    enough bars, ForecastError for a broken forecast.
    """
    forecaster = Forecaster.load(checkpoint, resources)
    return forecaster.predict(panel, horizon=horizon, levels=levels, seed=seed)


def _hash_of(context: Context, n: int) -> str:
    """sha256 of the times and values of the bars in window n."""
    seen = context.mask[n]
    times = context.timestamps[n, seen].astype("datetime64[ns]").astype("<i8")
    digest = hashlib.sha256(times.tobytes())
    digest.update(np.ascontiguousarray(context.values[n, seen], dtype="<f8").tobytes())
    return digest.hexdigest()
