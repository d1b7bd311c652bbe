"""A long table of losses from anybody's tool: read, counted, and nothing in it guessed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foresweep.data.reading.quantiles import as_losses, is_forecasts
from foresweep.data.reading.scores import refuse_scores
from foresweep.data.tables import is_table, read_table
from foresweep.errors import DataError

REQUIRED = ("trial", "origin", "loss")
OPTIONAL = {"item": "all", "part": "val"}
"""Columns that may be missing, and what every row is then taken to say."""
PARTS = {
    "tune": "tune",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "holdout": "test",
}
"""Words for a part -> ours."""
DAY = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True, slots=True, eq=False)
class LongTable:
    """Rows with a usable loss, one a (trial, part, origin, item). R rows."""

    trial: NDArray[np.str_]  # [R]
    part: NDArray[np.str_]  # [R] tune, val or test
    origin: NDArray[np.int64]  # [R] index in `origins`
    item: NDArray[np.int64]  # [R] index in `items`
    loss: NDArray[np.float64]  # [R]
    scale: NDArray[np.float64] | None  # [R] NaN where missing; None: no such column
    origins: tuple[str, ...]  # in time order
    items: tuple[str, ...]
    dated: bool  # origins are ISO dates, not numbers
    left_out: Mapping[str, int]  # why -> rows

    @property
    def trials(self) -> tuple[str, ...]:
        """In the order of the file."""
        return tuple(dict.fromkeys(self.trial.tolist()))


def read_long_table(path: Path) -> LongTable:
    """Losses in a CSV or Parquet file with columns trial, origin, item, part, loss and, if there
    is one, scale; others are ignored. A table of forecasts with their truth is scored first
    (`reading.quantiles`).

    Left out and counted: rows whose loss is no finite number, of another part than tune, val or
    test, that repeat another, and every row of a cell that two rows contradict each other about.
    Raises DataError where columns are missing, origins are neither ISO dates nor numbers, or no
    row is left.
    """
    if not is_table(path):
        raise DataError(f"{path}: losses are read from .csv, .csv.gz and .parquet files")
    left_out: dict[str, int] = {}
    frame = read_table(path)
    if is_forecasts(frame):
        frame = as_losses(frame, path, left_out)
    frame = _named(frame, path)
    frame = _keep(frame, frame["loss"].is_finite().fill_null(False), "no number for a loss",
                  left_out)  # fmt: skip
    known = frame["part"].is_in(list(PARTS))
    for word, count in frame.filter(~known)["part"].value_counts().iter_rows():
        left_out[f"of part {word!r}"] = int(count)
    frame = frame.filter(known).with_columns(pl.col("part").replace_strict(PARTS))
    frame = _without_repeats(frame, left_out)
    if not len(frame):
        raise DataError(f"{path}: no row with a loss is left ({_said(left_out)})")
    order, dated = _time_order(frame["origin"].unique().to_list(), path)
    items = sorted(frame["item"].unique().to_list())
    at, column = ({name: n for n, name in enumerate(names)} for names in (order, items))
    return LongTable(
        trial=np.array(frame["trial"].to_list(), dtype=np.str_),
        part=np.array(frame["part"].to_list(), dtype=np.str_),
        origin=np.array([at[o] for o in frame["origin"]], dtype=np.int64),
        item=np.array([column[i] for i in frame["item"]], dtype=np.int64),
        loss=frame["loss"].to_numpy(),
        scale=frame["scale"].to_numpy() if "scale" in frame.columns else None,
        origins=tuple(order),
        items=tuple(items),
        dated=dated,
        left_out=left_out,
    )


def _named(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The columns that count, by our names and types. Raises DataError."""
    found = {name.strip().lower(): name for name in frame.columns}
    for name in (*REQUIRED, *OPTIONAL, "scale"):
        several = [c for c in frame.columns if c.strip().lower() == name]
        if len(several) > 1:
            raise DataError(f"{path} has the columns {' and '.join(several)}: keep one of them")
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        refuse_scores(path, frame.columns, [])
        raise DataError(
            f"{path} has no column {', '.join(missing)}; a table of losses has trial, origin, "
            f"item, part, loss and, if known, scale (this one has {', '.join(frame.columns)}); of "
            f"one score a trial nobody can tell skill from luck: see docs/verdict-elsewhere.md"
        )
    texts = [
        (pl.col(found[n]).cast(pl.String) if n in found else pl.lit(OPTIONAL[n])).alias(n)
        for n in ("trial", "origin", "item", "part")
    ]
    numbers = [
        pl.col(found[n]).cast(pl.Float64, strict=False).alias(n)
        for n in ("loss", "scale")
        if n in found
    ]
    chosen = frame.select(*texts, *numbers).with_columns(
        pl.col("trial", "origin", "item").str.strip_chars(),
        pl.col("part").str.strip_chars().str.to_lowercase(),
    )
    if empty := chosen.select(pl.col("trial", "origin", "item", "part").null_count()).row(0):
        for name, count in zip(("trial", "origin", "item", "part"), empty, strict=True):
            if count:
                raise DataError(f"{path}: {count} rows have no {name}")
    return chosen


def _keep(frame: pl.DataFrame, good: pl.Series, why: str, left_out: dict[str, int]) -> pl.DataFrame:
    if count := len(frame) - int(good.sum()):
        left_out[why] = count
    return frame.filter(good)


def _without_repeats(frame: pl.DataFrame, left_out: dict[str, int]) -> pl.DataFrame:
    """One row a cell: repeats once, contradictions not at all."""
    cell = ["trial", "part", "origin", "item"]
    distinct = frame.unique(maintain_order=True)
    if repeats := len(frame) - len(distinct):
        left_out["that repeat another"] = repeats
    clear = ~distinct.select(pl.struct(cell).is_duplicated()).to_series()
    return _keep(distinct, clear, "that contradict another about the same cell", left_out)


def _time_order(origins: list[str], path: Path) -> tuple[list[str], bool]:
    """Origins in time order, and whether they are dates. Raises DataError."""
    if all(DAY.match(origin) for origin in origins):
        return sorted(origins), True
    try:
        if not all(math.isfinite(float(origin)) for origin in origins):
            raise ValueError("one is not finite")
        return sorted(origins, key=float), False
    except ValueError as error:
        raise DataError(
            f"{path}: origins must all be ISO dates (2024-05-31) or all numbers that rise with "
            f"time: {error}"
        ) from error


def _said(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count} rows {why}" for why, count in left_out.items()) or "it is empty"
