"""Databases in which the baselines are on record: a sweep on the same windows trains and tests for
leaks only what a test is about."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from foresweep.search.plan import SweepPlan
from foresweep.search.sweep import sweep

ASKED = ("data", "objective", "cut")


def know_baselines(db: Path, plan: SweepPlan) -> None:
    """Put a database at `db` whose one sweep is that of the baselines on a plan's windows. Their
    files stay where they were made, until this process ends."""
    db.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(_trained(*(getattr(plan, name) for name in ASKED)) / "sweeps.db", db)


@cache
def _trained(*asked: Any) -> Path:
    """Once a process and question."""
    folder = Path(tempfile.mkdtemp(prefix="baselines"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    plan = replace(SweepPlan(("drift",)), **dict(zip(ASKED, asked, strict=True)))
    sweep(plan, db=folder / "sweeps.db", runs=folder / "runs")
    return folder
