"""The record of forecasts as a file that anybody can verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from foresweep.data.files import write_bytes_atomic
from foresweep.errors import DataError
from foresweep.tracker.service import Service
from foresweep.tracker.storage import chain
from foresweep.tracker.tracker import Tracker


def export_ledger(tracker: Tracker, path: Path) -> int:
    """Write every forecast on record as a line of JSON, in order; how many."""
    rows = Service(tracker.store).forecasts()
    text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    write_bytes_atomic(path, text.encode())
    return len(rows)


def verify_file(
    path: Path, noted: tuple[int, str] | None = None
) -> tuple[list[str], tuple[int, str]]:
    """(faults in words, (number, hash) of the last) of a file that `export_ledger` wrote. That the
    end is missing shows only against a `noted` mark. Raises DataError for what is no such file."""
    rows: list[dict[str, Any]] = []
    try:
        for line in path.read_text("utf-8").splitlines():
            rows.append(json.loads(line))
        end = (int(rows[-1]["number"]), str(rows[-1]["hash"])) if rows else (0, chain.GENESIS)
        return chain.faults(rows, end, noted, noun="forecast"), end
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is no export of the record of forecasts: {error}") from error
