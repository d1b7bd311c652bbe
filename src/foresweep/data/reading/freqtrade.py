"""What freqtrade exports of a backtest (.json, .zip) or a hyperopt (.fthypt): profits by day.

The layout is that of freqtrade's `optimize_reports`: `strategy` -> name -> `trades` with
`close_date` and `profit_abs` after fees, `starting_balance`, `backtest_start`,
`backtest_end`; a zip also holds `..._market_change.feather`, whose `rel_mean` is the running sum of
the mean move of all pairs. A hyperopt is one JSON a line, an epoch, whose `results_metrics` is the
same as a strategy's.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from foresweep.data.files import UNPACKING, first_line, require_room
from foresweep.errors import DataError

ENDINGS = (".json", ".zip", ".fthypt")
WHAT = "freqtrade's export of a backtest (backtest-result-....json or .zip) or hyperopt (.fthypt)"


@dataclass(frozen=True, slots=True, eq=False)
class Journal:
    """One backtest of one strategy, or one epoch of a hyperopt."""

    name: str
    wallet: float  # at the beginning, in the stake currency
    first: np.datetime64  # day
    last: np.datetime64
    profits: Mapping[str, float]  # ISO day -> realised by trades closed on it, fees within
    market: Mapping[str, float] | None = None  # ISO day -> mean return of all pairs; not in every


def read_journals(path: Path) -> tuple[Journal, ...]:
    """Every strategy, or epoch, of a file. Raises DataError where it is no such export."""
    try:
        content = path.read_bytes()
        market = None
        if path.name.lower().endswith(".zip"):
            content, market = _unzipped(content, path)
        if path.name.lower().endswith(".fthypt"):
            epochs = [json.loads(line) for line in content.splitlines() if line.strip()]
            named = {f"epoch {e['current_epoch']}": e["results_metrics"] for e in epochs}
        else:
            named = json.loads(content)["strategy"]
        found = tuple(_journal(name, said, market) for name, said in named.items())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {first_line(error)}") from error
    except (*UNPACKING, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not {WHAT}: {type(error).__name__} {first_line(error)}"
        ) from error
    if not found:
        raise DataError(f"{path} holds no strategy; it should be {WHAT}")
    return found


def _unzipped(content: bytes, path: Path) -> tuple[bytes, Mapping[str, float] | None]:
    """The JSON of the backtest in a zip, and the moves of its market where they are there."""
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        require_room(packed)
        names = packed.namelist()
        mine = [n for n in names if n.endswith(".json") and n.removesuffix(".json") in path.name]
        if not mine:  # renamed: the one that is neither config nor parameters
            mine = [n for n in names if n.endswith(".json") and _is_result(packed.read(n))]
        if len(mine) != 1:
            raise DataError(f"{path} holds {len(mine)} results of a backtest; it should be {WHAT}")
        moves = [n for n in names if n.endswith("_market_change.feather")]
        market = _market(packed.read(moves[0])) if moves else None
        return packed.read(mine[0]), market


def _is_result(content: bytes) -> bool:
    try:
        found = json.loads(content)
    except ValueError:
        return False
    return isinstance(found, dict) and "strategy" in found and "strategy_comparison" in found


def _market(content: bytes) -> Mapping[str, float]:
    """Return by day from the running sum of mean moves."""
    frame = pl.read_ipc(io.BytesIO(content)).sort("date")
    by_day = frame.group_by(pl.col("date").dt.date().cast(pl.String).alias("day")).agg(
        pl.col("rel_mean").last()
    )
    ordered = by_day.sort("day")
    moves = np.diff(ordered["rel_mean"].to_numpy(), prepend=0.0)
    return dict(zip(ordered["day"].to_list(), moves.tolist(), strict=True))


def _journal(name: str, said: Mapping[str, Any], market: Mapping[str, float] | None) -> Journal:
    profits: dict[str, float] = {}
    for trade in said["trades"]:
        day = str(trade["close_date"])[:10]
        profits[day] = profits.get(day, 0.0) + float(trade["profit_abs"])
    first, last = (
        np.datetime64(str(said[key])[:10], "D") for key in ("backtest_start", "backtest_end")
    )
    return Journal(
        name=name,
        wallet=float(said["starting_balance"]),
        first=first,
        last=max(last, *(np.datetime64(day, "D") for day in profits), last),
        profits=profits,
        market=market,
    )
