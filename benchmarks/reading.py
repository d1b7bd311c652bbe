"""How fast and in how much memory prices are read: many files, one large file, and the second time.

    python benchmarks/reading.py                 # 100 files of 5,000 rows, one of 60 MB
    python benchmarks/reading.py --full          # 2,000 files, one of 500 MB: 2 GB of disk

Data are made, seeded, in a folder that is deleted. Each figure is of a process of its own: memory
is the peak of its resident set, and polars reads the same files with the same types.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

ROWS = 5000
BYTES_A_ROW = 60

MEASURE = """
import json, resource, sys, time
from pathlib import Path
import polars as pl
from foresweep.data.reading.overrules import Overrules
from foresweep.data.reading.sources import _files, _read_all, load_panel
what, place = sys.argv[1], Path(sys.argv[2])
files = sorted(place.iterdir()) if place.is_dir() else [place]
kinds = {"date": pl.Date if place.is_dir() else pl.Datetime, "open": pl.Float64, "high": pl.Float64,
         "low": pl.Float64, "close": pl.Float64, "volume": pl.Float64}
start = time.perf_counter()
said = {}
if what == "polars":
    kept = [pl.read_csv(f, schema=kinds) for f in files]
elif what == "reading":
    kept = _read_all(place, _files(place), Overrules())
else:
    loaded = load_panel(place)
    panel = loaded.panel
    arrays = (panel.stacked, panel.stacked_sessions, panel.timeline, *panel.calendars)
    said = {"panel_mb": sum(a.nbytes for a in arrays) / 1e6, "again": loaded.kept_at is not None}
said["seconds"] = time.perf_counter() - start
said["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
if what == "panel":
    said["hash"] = panel.hash
print(json.dumps(said))
"""


def walk(rng: np.random.Generator, times: np.ndarray) -> pl.DataFrame:
    """A walk of whole bars at these times."""
    n = len(times)
    close = 100 * np.exp(np.cumsum(rng.standard_t(4, n) * 0.3 / np.sqrt(n)))
    opened = np.r_[100.0, close[:-1]]
    high, low = np.maximum(opened, close) * 1.001, np.minimum(opened, close) * 0.999
    volume = rng.integers(1_000, 1_000_000, n)
    columns = {"open": opened, "high": high, "low": low, "close": close}
    return pl.DataFrame(
        {"date": times, **{k: v.round(4) for k, v in columns.items()}, "volume": volume}
    )


def measured(what: str, place: Path, cache: str) -> dict[str, float]:
    """Figures of one reading in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, what, str(place)],
        env=os.environ | {"FORESWEEP_CACHE": cache},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="2,000 files and one of 500 MB")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    num_files, large_mb = (2000, 500) if asked.full else (100, 60)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        many, large, cache = (Path(folder) / n for n in ("many", "large.csv", "cache"))
        many.mkdir()
        days = np.busday_offset(np.datetime64("2004-01-01"), np.arange(ROWS), roll="forward")
        for k in range(num_files):
            walk(rng, days).write_csv(many / f"I{k:04}.csv")
        minutes = np.arange(large_mb * 10**6 // BYTES_A_ROW) * np.timedelta64(60_000_000, "us")
        start = np.datetime64("2005-01-01T00:00:00", "us")
        walk(rng, start + minutes).write_csv(large, datetime_format="%Y-%m-%d %H:%M:%S")
        pairs = [
            [measured(what, many, "off")["seconds"] for what in ("polars", "reading", "panel")]
            for _ in range(asked.rounds)
        ]
        polars, reading, panel = np.median(pairs, axis=0)
        print(f"{num_files:,} files of {ROWS:,} rows: polars {polars:.2f} s, read {reading:.2f} s "
              f"({reading / polars:.2f} x), with gate and panel {panel:.2f} s")  # fmt: skip
        for place in (many, large):
            once = measured("panel", place, str(cache))
            again = measured("panel", place, str(cache))
            allowed = 3 * once["panel_mb"] + 500
            same = again["again"] and once["hash"] == again["hash"]
            print(
                f"{place.name}: panel {once['panel_mb']:.0f} MB in {once['seconds']:.1f} s, peak "
                f"{once['peak_mb']:.0f} MB (at most {allowed:.0f}); "
                f"again {again['seconds']:.2f} s, "
                f"kept, same hash: {same}"
            )


if __name__ == "__main__":
    main()
