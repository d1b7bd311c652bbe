"""Exports of freqtrade as its own code lays them out (`optimize_reports`, `bt_storage`)."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl


def strategy(trades: Mapping[str, float], **said: Any) -> dict[str, Any]:
    """One strategy's record: a trade closed on each day (ISO) with this profit."""
    listed = [
        {"pair": "BTC/USDT", "close_date": f"{day} 07:15:00+00:00", "profit_abs": profit}
        for day, profit in trades.items()
    ]
    return {
        "trades": listed,
        "starting_balance": 1000,
        "backtest_start": "2024-01-01 00:00:00",
        "backtest_end": "2024-01-08 00:00:00",
    } | said


def backtest(**strategies: dict[str, Any]) -> str:
    """The JSON of a backtest."""
    return json.dumps({"strategy": strategies, "strategy_comparison": []})


def zipped(path: Path, content: str, days: Sequence[str], market: Sequence[float]) -> Path:
    """A zip as a backtest leaves it; `market` is the running sum of the pairs' mean moves."""
    name = path.stem
    frame = pl.DataFrame({"date": list(days), "rel_mean": list(market)}).with_columns(
        pl.col("date").str.to_datetime(time_zone="UTC")
    )
    feather = io.BytesIO()
    frame.write_ipc(feather, compression="lz4")
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(f"{name}_config.json", json.dumps({"strategy": "A"}))
        packed.writestr(f"{name}.json", content)
        packed.writestr(f"{name}_A.json", json.dumps({"strategy_name": "A", "params": {}}))
        packed.writestr(f"{name}_market_change.feather", feather.getvalue())
    return path
