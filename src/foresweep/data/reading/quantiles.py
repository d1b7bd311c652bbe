"""Forecasts with their truth, from AutoGluon or anybody, as losses: one row a trial, origin, item.

A row is one bar ahead: `item_id` and `timestamp` as AutoGluon writes them, `mean` and a column a
quantile (`0.1` ... `0.9`), and beside them `trial` (or `model`), `origin` (or `cutoff`: when the
forecast was made), `target` (what came), `part` and, if known, `last` (the last value at the
origin). The loss is the mean over quantiles and bars of

    max(q (target - forecast), (q - 1) (target - forecast)),

the pinball loss without the factor 2 of some texts, in percent of `last` where that is there; of a
table without quantiles the absolute error of `mean`.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from foresweep.errors import DataError

OTHER_NAMES = {"model": "trial", "cutoff": "origin", "item_id": "item"}
"""AutoGluon's words -> ours."""


def is_forecasts(frame: pl.DataFrame) -> bool:
    """Does the table hold forecasts and what came, and no losses?"""
    small = {name.strip().lower() for name in frame.columns}
    return "loss" not in small and "target" in small and bool(_levels(frame) or "mean" in small)


def as_losses(frame: pl.DataFrame, path: Path, left_out: dict[str, int]) -> pl.DataFrame:
    """The losses of a table of forecasts, with columns trial, origin, item, part and loss.

    Left out and counted: rows without a number, and windows that are shorter than others of their
    origin: the last bars are the hardest. Raises DataError where columns are missing.
    """
    names = {name: name.strip().lower() for name in frame.columns}
    taken = set(names.values())
    names = {
        given: other if (other := OTHER_NAMES.get(small)) and other not in taken else small
        for given, small in names.items()
    }
    frame = frame.rename(names)
    if missing := [n for n in ("trial", "origin", "target") if n not in frame.columns]:
        raise DataError(
            f"{path} holds forecasts without a column {', '.join(missing)}: add the model as "
            f"trial, the last known time as origin and what came as target; see "
            f"docs/verdict-elsewhere.md"
        )
    levels = _levels(frame)
    used = [*levels, *(n for n in ("target", "mean", "last") if n in frame.columns)]
    frame = frame.with_columns(pl.col(used).cast(pl.Float64, strict=False))
    if "item" not in frame.columns:
        frame = frame.with_columns(pl.lit("all").alias("item"))
    target = pl.col("target")
    loss = (target - pl.col("mean")).abs() if not levels else None
    if loss is None:
        each = [
            pl.max_horizontal(q * (target - pl.col(n)), (q - 1) * (target - pl.col(n)))
            for n, q in levels.items()
        ]
        loss = pl.mean_horizontal(each)
    asked = [*(levels or ["mean"]), "target"]
    if "last" in frame.columns:
        loss, asked = 100.0 * loss / pl.col("last").abs(), [*asked, "last"]
    whole = frame.select(pl.all_horizontal(pl.col(asked).is_finite().fill_null(False))).to_series()
    if count := len(frame) - int(whole.sum()):
        left_out["with no number for a forecast or what came"] = count
    cell = ["trial", "origin", "item", *(["part"] if "part" in frame.columns else [])]
    windows = (
        frame.filter(whole)
        .with_columns(loss.alias("loss"))
        .group_by(cell, maintain_order=True)
        .agg(pl.col("loss").mean(), pl.len().alias("bars"))
        .with_columns(pl.col("bars").max().over("origin", "item").alias("most"))
    )
    if short := int((windows["bars"] < windows["most"]).sum()):
        left_out["(windows) of fewer bars than others forecast there"] = short
    return windows.filter(pl.col("bars") == pl.col("most")).select(*cell, "loss")


def _levels(frame: pl.DataFrame) -> dict[str, float]:
    """Columns named as a level between 0 and 1 -> the level."""
    found = {}
    for name in frame.columns:
        try:
            level = float(name)
        except ValueError:
            continue
        if 0 < level < 1:
            found[name] = level
    return found
