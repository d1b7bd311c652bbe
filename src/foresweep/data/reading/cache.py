"""A panel that was read once is kept: the second time nothing is parsed.

Kept where the settings say (`cache`, FORESWEEP_CACHE; "off" keeps none), by path, size and time of
change of every file, what was said about reading them, and the reader's version. What is not whole
is passed over and written anew.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foresweep import __version__
from foresweep.data.files import name_as_text, read_json, write_json_atomic
from foresweep.data.gate.actions import Draft
from foresweep.data.gate.report import Finding, QualityReport
from foresweep.data.panel import Panel
from foresweep.data.reading.overrules import Overrules
from foresweep.data.tables import read_panel, write_panel
from foresweep.errors import DataError
from foresweep.settings import cache_dir

READER = 2
"""Raise it when the same files come to be read otherwise."""
SMALLEST = 20_000_000
"""Bytes of all files below which nothing is kept: they are read in a second or two."""
MOST_KEPT = 8
"""Panels kept; the one that was written first leaves."""


def place_for(
    source: str, files: Sequence[Path], actions: Path | str | None, overrules: Overrules
) -> Path | None:
    """Where the panel of these files is, or would be, kept; None where it is not worth it or not
    wanted."""
    folder = cache_dir()
    if folder is None:
        return None
    listed = [*files, *([Path(actions)] if actions is not None else [])]
    try:
        found = [(p, p.stat()) for p in listed]
    except OSError:  # what is not there is said by the reader
        return None
    if sum(s.st_size for _, s in found) < SMALLEST:
        return None
    what: dict[str, Any] = {
        "reader": [READER, __version__, dt.date.today().year],  # years to come are refused
        "source": source,
        "files": [[name_as_text(p.absolute()), s.st_size, s.st_mtime_ns] for p, s in found],
        "overrules": asdict(overrules),
    }
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    return folder / f"{key[:32]}.npz"


def kept_panel(place: Path) -> tuple[Panel, QualityReport] | None:
    """What was kept at a place; None where nothing was, or not all of it."""
    try:
        stored = read_json(place.with_suffix(".json"))
        report = stored["report"]
        if stored["sha256"] != _digest(report):
            return None
        panel = read_panel(place)
        return panel, _report_of(report)
    except (DataError, KeyError, TypeError):
        return None


def keep_panel(place: Path, panel: Panel, report: QualityReport) -> None:
    """Keep a panel and what the gate saw. Where that cannot be written nothing is kept."""
    told = json.loads(json.dumps(asdict(report)))
    try:
        write_panel(place, panel)
        write_json_atomic(place.with_suffix(".json"), {"sha256": _digest(told), "report": told})
        old = sorted(place.parent.glob("*.npz"), key=lambda p: p.stat().st_mtime_ns)[:-MOST_KEPT]
        for path in old:
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)
    except OSError:  # a full or read-only disk: the next reading takes as long as this one
        return


def _digest(report: Any) -> str:
    return hashlib.sha256(json.dumps(report, sort_keys=True).encode()).hexdigest()


def _report_of(told: dict[str, Any]) -> QualityReport:
    return QualityReport(
        source=told["source"],
        findings=tuple(Finding(**f) for f in told["findings"]),
        items=tuple(told["items"]),
        dropped=tuple(told["dropped"]),
        num_rows=told["num_rows"],
        num_masked=told["num_masked"],
        drafts=tuple(Draft(**d) for d in told["drafts"]),
    )
