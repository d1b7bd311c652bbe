"""DataFrames as a source of prices: pandas or polars, one item's, a long one, or a dict by item."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl

from foresweep.data.files import write_bytes_atomic
from foresweep.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Frame: TypeAlias = "pl.DataFrame | pd.DataFrame"
Source: TypeAlias = "str | Path | Frame | Mapping[str, Frame]"
ONE_ITEM = "item"
"""What the only item of a frame is called that names none."""


def keep_frame(source: Frame | Mapping[str, Frame], folder: Path) -> Path:
    """Write a frame (or a dict of them, by item) as one Parquet file in `folder` and give its path:
    a sweep on it can then be resumed and its runs reproduced, by another process, too.

    The name is the hash of what is in it: the same frame is kept once. What the file says is what
    `load_panel` reads of the frame itself. Raises DataError for what is no DataFrame.
    """
    if isinstance(source, Mapping):
        if not source:
            raise DataError("the dict of DataFrames is empty; give one frame an item")
        named = [as_polars(f).with_columns(item_id=pl.lit(str(n))) for n, f in source.items()]
        whole = pl.concat(named, how="diagonal_relaxed")
    else:
        whole = as_polars(source)
    written = BytesIO()
    whole.write_parquet(written)
    content = written.getvalue()
    path = folder / hashlib.sha256(content).hexdigest()[:16] / f"{ONE_ITEM}.parquet"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(path, content)
    return path


def as_polars(frame: Any) -> pl.DataFrame:
    """A frame as polars; an index with a name (a time, an item) becomes a column."""
    if isinstance(frame, pl.DataFrame):
        return frame
    if not hasattr(frame, "columns") or not hasattr(frame, "reset_index"):
        raise DataError(f"cannot load a panel from a {type(frame).__name__}; see load_panel")
    named = frame.reset_index() if any(n is not None for n in frame.index.names) else frame
    if str(frame.index.dtype).startswith("datetime64") and frame.index.name is None:
        named = frame.rename_axis("timestamp").reset_index()
    names = ["_".join(map(str, n)).strip("_") if isinstance(n, tuple) else str(n) for n in named]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(f"two columns of the frame are {twice[0]!r}")
    return pl.DataFrame([_column(n, named.iloc[:, k]) for k, n in enumerate(names)])


def _column(name: str, column: Any) -> pl.Series:
    zone = getattr(column.dt, "tz", None) if hasattr(column, "dt") else None
    if zone is not None:
        utc = column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
        return pl.Series(name, utc).dt.replace_time_zone("UTC").dt.convert_time_zone(str(zone))
    if column.dtype.kind in "fiubM":
        return pl.Series(name, column.to_numpy())
    return pl.Series(name, [None if v is None or v != v else str(v) for v in column])
