"""Small made-up panels for tests: seeded, offline, cheap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from foresweep.data.panel import Panel, panel_from_frame

START = "2015-01-05"  # a Monday


def weekdays(num_bars: int, start: str = START) -> np.ndarray:
    """[num_bars] consecutive weekdays as datetime64[ns]."""
    first = np.datetime64(start, "D")
    return np.busday_offset(first, np.arange(num_bars), roll="forward").astype("datetime64[ns]")


def every_day(num_bars: int, start: str = START) -> np.ndarray:
    """[num_bars] consecutive days, weekends too, as datetime64[ns]."""
    return (np.datetime64(start, "D") + np.arange(num_bars)).astype("datetime64[ns]")


def walk_frame(
    item_id: str,
    times: np.ndarray,
    seed: int = 0,
    *,
    level: float = 100.0,
    volatility: float = 0.015,
) -> pl.DataFrame:
    """One item's long frame: a fat-tailed, clustered random walk with lawful OHLC and volume."""
    rng = np.random.default_rng([seed, *item_id.encode()])
    n = len(times)
    calm = np.exp(0.4 * np.sin(np.arange(n) / 15 + seed)) * volatility
    close = level * np.exp(np.cumsum(calm * rng.standard_t(4, n) / np.sqrt(2)))
    before = np.concatenate([[level], close[:-1]])
    opened = before * np.exp(0.2 * calm * rng.standard_normal(n))
    high = np.maximum(opened, close) * np.exp(0.3 * calm * np.abs(rng.standard_normal(n)))
    low = np.minimum(opened, close) * np.exp(-0.3 * calm * np.abs(rng.standard_normal(n)))
    volume = np.round(1e6 * np.exp(0.3 * rng.standard_normal(n)))
    columns = {"open": opened, "high": high, "low": low, "close": close, "volume": volume}
    return pl.DataFrame({"item_id": [item_id] * n, "timestamp": times} | columns)


def make_frame(
    num_items: int = 3, num_bars: int = 400, seed: int = 0, *, start: str = START
) -> pl.DataFrame:
    """Long frame of `num_items` random walks on the same weekdays, items A0, A1, ..."""
    times = weekdays(num_bars, start)
    walks = [walk_frame(f"A{k}", times, seed, level=20.0 * 3**k) for k in range(num_items)]
    return pl.concat(walks)


def make_panel(
    num_items: int = 3, num_bars: int = 400, seed: int = 0, *, start: str = START
) -> Panel:
    """Panel of `make_frame`: the same (num_items, num_bars, seed) gives the same panel."""
    return panel_from_frame(make_frame(num_items, num_bars, seed, start=start), source="made up")


def close_panel(closes: dict[str, Sequence[float]], *, start: str = START) -> Panel:
    """Panel with these closes on consecutive weekdays (open = high = low = close, volume 1)."""
    parts = []
    for name, prices in closes.items():
        price = np.asarray(prices, dtype=float)
        columns = dict.fromkeys(("open", "high", "low", "close"), price)
        times = weekdays(len(price), start)
        stem = {"item_id": [name] * len(price), "timestamp": times}
        parts.append(pl.DataFrame(stem | columns | {"volume": np.ones(len(price))}))
    return panel_from_frame(pl.concat(parts), source="made up")


SINE_PERIOD = 32


def sine_panel(num_bars: int = 2000, seed: int = 0, *, noise: float = 0.001) -> Panel:
    """Four sines of period 32 with their own phase, level and amplitude; open is the previous
    close, volume is constant. What every model must be able to learn."""
    rng = np.random.default_rng(seed)
    parts = []
    levels, amplitudes = (20.0, 100.0, 400.0, 3000.0), (0.08, 0.10, 0.12, 0.10)
    for k, (level, amplitude) in enumerate(zip(levels, amplitudes, strict=True)):
        phase = rng.uniform(0, 2 * np.pi)
        wave = np.sin(2 * np.pi * np.arange(num_bars + 1) / SINE_PERIOD + phase)
        price = level * (1 + amplitude * wave) * np.exp(noise * rng.standard_normal(num_bars + 1))
        opened, close = price[:-1], price[1:]
        columns = {
            "open": opened,
            "high": np.maximum(opened, close),
            "low": np.minimum(opened, close),
            "close": close,
            "volume": np.full(num_bars, 1e6),
        }
        stem = {"item_id": [f"SINE{k}"] * num_bars, "timestamp": weekdays(num_bars)}
        parts.append(pl.DataFrame(stem | columns))
    return panel_from_frame(pl.concat(parts), source="sines")
