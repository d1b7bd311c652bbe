"""Loss panels: a run's losses by origin and item, and the volatility they are tested against.

A cell is NaN exactly where the windows have no valid cell: only the panel's mask makes one, never
a forecast. Raw losses rank; losses divided by the volatility known at the origin are tested, so
that a few wild months do not drown the rest (a predictable weight, Giacomini and White 2006).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foresweep.data.files import read_npz, write_npz
from foresweep.data.panel import CLOSE
from foresweep.data.windows import Windows
from foresweep.errors import DataError, UnknownName
from foresweep.metrics import METRICS, PANEL_LOSSES, Outcome, Setting
from foresweep.models.base import Array, Forecast

DECAY = 0.94
FLOOR_SHARE = 0.25
"""The scale is at least this share of its median over train: a sleepy item cannot rule a test."""
SMALLEST_SCALE = 1e-4
"""Percent: under prices that never moved in train."""
USUAL_BARS = 252
"""Moves, up to the origin, whose mean size is an item's usual move: a year of days."""
MEMORY = 512
"""Moves that count: the weight of older ones, 0.94^512, is below 1e-13."""


@dataclass(frozen=True, slots=True, eq=False)
class LossPanel:
    """Losses of one run on one part. O origins, I items, H leads."""

    losses: Mapping[str, Array]  # metric -> [O, I] mean over leads, in the metric's unit
    by_lead: Mapping[str, Array]  # metric -> [O, I, H] the same before the mean
    scale: Array  # [O, I] percent: volatility over the horizon, known at the origin
    origins: NDArray[np.datetime64]  # [O]
    items: tuple[str, ...]  # [I]
    stride: int  # bars between origins
    fingerprint: str  # of the windows

    @property
    def horizon(self) -> int:
        return int(next(iter(self.by_lead.values())).shape[2])

    def scaled(self, metric: str) -> Array:
        """[O, I] losses in units of volatility. Raises UnknownName."""
        if metric not in self.losses:
            raise UnknownName("loss", metric, self.losses)
        return self.losses[metric] / self.scale

    def save(self, path: Path) -> None:
        """Write an `.npz` without pickle, whole or not at all. Raises DataError.

        Losses and scale keep float64, so that a test on them gives the same p-value again; losses
        by lead are float32.
        """
        arrays: dict[str, Any] = {f"loss/{k}": v for k, v in self.losses.items()}
        arrays |= {f"lead/{k}": v.astype(np.float32) for k, v in self.by_lead.items()}
        arrays |= {"scale": self.scale, "origins": self.origins.astype("datetime64[ns]")}
        arrays |= {"items": np.array(self.items), "stride": np.array(self.stride)}
        write_npz(path, arrays | {"fingerprint": np.array(self.fingerprint)})


def load_losses(path: Path) -> LossPanel:
    """The loss panel in a file. Raises DataError."""
    arrays = read_npz(path)
    try:
        return LossPanel(
            losses=_named(arrays, "loss/"),
            by_lead={k: v.astype(np.float64) for k, v in _named(arrays, "lead/").items()},
            scale=arrays["scale"],
            origins=arrays["origins"],
            items=tuple(str(i) for i in arrays["items"]),
            stride=int(arrays["stride"]),
            fingerprint=str(arrays["fingerprint"]),
        )
    except KeyError as error:
        raise DataError(f"{path} holds no loss panel: {error} is missing") from error


def loss_panel(outcome: Outcome, windows: Windows, scale: Array) -> LossPanel:
    """The loss panel of an outcome [N windows]; `scale` [N] is `volatility_scale(windows)`."""
    by_lead = {name: windows.as_panel(_losses(name, outcome)) for name in PANEL_LOSSES}
    return LossPanel(
        losses={name: values.mean(axis=2) for name, values in by_lead.items()},
        by_lead=by_lead,
        scale=windows.as_panel(scale),
        origins=windows.panel.timeline[windows.part.origins],
        items=tuple(windows.panel.items[i] for i in windows.split.items),
        stride=windows.part.stride,
        fingerprint=windows.fingerprint,
    )


def _losses(name: str, outcome: Outcome) -> Array:
    loss = METRICS[name].loss
    if loss is None:
        raise UnknownName("loss", name, [m.name for m in METRICS.values() if m.loss])
    return loss(outcome)


def volatility_scale(windows: Windows) -> Array:
    """[N] percent: 100 sqrt(H v) with v the EWMA (0.94) of the item's squared one-bar log returns
    up to the origin, at least a quarter of its median over train.

    An item without a bar in train takes the median of the other items' medians.
    """
    split, panel = windows.split, windows.panel
    paths = [_volatility(panel.bars[i].values[:, CLOSE]) for i in split.items]
    stop = split.part("train").stop
    rows = [int(np.searchsorted(panel.timeline_of(i), stop)) for i in split.items]
    medians = np.array(
        [np.median(p[1:n]) if n > 1 else np.nan for p, n in zip(paths, rows, strict=True)]
    )
    known = medians[~np.isnan(medians)]
    medians[np.isnan(medians)] = np.median(known) if len(known) else 0.0
    now = np.array([paths[c][r] for c, r in zip(windows.column, windows.row, strict=True)])
    floored = np.maximum(now, FLOOR_SHARE * medians[windows.column])
    scale: Array = np.maximum(100.0 * np.sqrt(windows.horizon) * floored, SMALLEST_SCALE)
    return scale


def setting_of(windows: Windows) -> Setting:
    """What is known of each window at its origin: volatility, usual move, which origin it is."""
    return Setting(
        volatility_scale(windows),
        usual_move(windows),
        train_move(windows),
        windows.origin,
        windows.column,
    )


def train_move(windows: Windows) -> Array:
    """[N] price: mean absolute move from close to close of the item over all bars of train, at
    least a millionth of the last close: what MASE divides by where it is published.

    An item with fewer than two bars in train has its `usual_move`.
    """
    panel, stop = windows.panel, windows.split.part("train").stop
    means = []
    for i in windows.split.items:
        rows = int(np.searchsorted(panel.timeline_of(i), stop))
        moves = np.abs(np.diff(panel.bars[i].values[:rows, CLOSE]))
        means.append(moves.mean() if len(moves) else np.nan)
    found = np.array(means)[windows.column]
    found = np.where(np.isnan(found), usual_move(windows), found)
    least: Array = np.maximum(found, SMALLEST_SCALE / 100.0 * windows.last_close)
    return least


def usual_move(windows: Windows) -> Array:
    """[N] price: mean absolute move from close to close over the 252 bars, or fewer, up to the
    origin; at least a millionth of the last close.

    The in-sample error of last-value that MASE divides by, of the bars just before each origin:
    over a whole history an item that has grown tenfold would be measured by what it was.
    """
    panel = windows.panel
    sizes = [np.abs(np.diff(panel.bars[i].values[:, CLOSE])) for i in windows.split.items]
    total = [np.concatenate([[0.0], np.cumsum(s)]) for s in sizes]
    pairs = list(zip(windows.column, windows.row, strict=True))
    counts = np.minimum(windows.row, USUAL_BARS)
    summed = [total[c][r] - total[c][max(0, r - USUAL_BARS)] for c, r in pairs]
    mean = np.array(summed) / np.maximum(counts, 1)
    moves: Array = np.maximum(mean, SMALLEST_SCALE / 100.0 * windows.last_close)
    return moves


def _volatility(closes: Array) -> Array:
    """[n] square root of the EWMA of squared log returns up to each row; 0 at the first.

    The weights of the returns seen so far add to 1, so the first needs no made-up past.
    """
    squares = np.diff(np.log(closes)) ** 2
    if not len(squares):
        return np.zeros(len(closes))
    weights = DECAY ** np.arange(min(MEMORY, len(squares)))
    seen = np.minimum(np.arange(len(squares)), len(weights) - 1)
    mean = np.convolve(squares, weights)[: len(squares)] / np.cumsum(weights)[seen]
    return np.concatenate([[0.0], np.sqrt(mean)])


def save_forecast(path: Path, forecast: Forecast, windows: Windows) -> None:
    """Write a part's forecasts as float32 with the fingerprint of its windows. Raises DataError."""
    write_npz(
        path,
        {
            "values": forecast.values.astype(np.float32),
            "levels": np.array(forecast.levels),
            "origins": windows.panel.timeline[windows.part.origins],
            "items": np.array([windows.panel.items[i] for i in windows.split.items]),
            "origin": windows.origin,
            "column": windows.column,
            "fingerprint": np.array(windows.fingerprint),
        },
    )


def load_forecast(path: Path, windows: Windows) -> Forecast:
    """The stored forecasts of these windows. Raises DataError where they are of other windows."""
    arrays = read_npz(path)
    if str(arrays.get("fingerprint")) != windows.fingerprint:
        raise DataError(
            f"{path} holds forecasts of other windows than {windows.part.name!r} of this panel; "
            f"forecast again"
        )
    levels = tuple(float(x) for x in arrays["levels"])
    forecast = Forecast(arrays["values"].astype(np.float64), levels)
    return forecast.checked(len(windows), windows.horizon)


def as_stored(values: Array, windows: Windows) -> Array:
    """Forecasts [N, H, Q] as they are read from single precision: a price stored as the last close
    is the close."""
    close = windows.last_close[:, None, None]
    found: Array = np.where(values == close.astype(np.float32), close, values)
    return found


def _named(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
