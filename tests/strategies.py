"""Hypothesis strategies shared by the tests."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import strategies as st

from foresweep.data.panel import Panel, panel_from_frame
from panels import every_day, walk_frame, weekdays


@st.composite
def ragged_panels(draw: st.DrawFn, *, min_bars: int = 140, max_bars: int = 400) -> Panel:
    """Panels of 1-4 items that start and end at their own times, with masked rows, missing rows
    and, sometimes, an item that trades on weekends."""
    num_bars = draw(st.integers(min_bars, max_bars))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    parts = []
    for k in range(draw(st.integers(1, 4))):
        always_open = k > 0 and draw(st.booleans())
        times = every_day(num_bars * 7 // 5) if always_open else weekdays(num_bars)
        frame = walk_frame(f"{'C' if always_open else 'S'}{k}", times, seed=k)
        if k:  # the first item spans the whole timeline
            first = int(rng.integers(0, len(times) // 4))
            frame = frame.slice(first, len(times) - first - int(rng.integers(0, len(times) // 4)))
        parts.append(_with_holes(frame, rng))
    return panel_from_frame(pl.concat(parts))


def _with_holes(frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Two rows left out and two masked, never the first or the last."""
    gone = rng.choice(np.arange(1, len(frame) - 1), 4, replace=False)
    close = frame["close"].to_numpy().copy()
    close[gone[:2]] = np.nan
    kept = np.setdiff1d(np.arange(len(frame)), gone[2:])
    return frame.with_columns(close=close)[kept]
