"""Up to when a sweep's weights know the world, on record beside its runs.

A checkpoint's card says it, too; a checkpoint may be removed, and then its run must not look clean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from foresweep.search.stage import Stage
from foresweep.search.trial import Prepared

CONTAMINATED = "contaminated"
"""Tag of a run whose weights may have seen its test period: no verdict on it can promote."""


def cutoffs(prepared: Iterable[Prepared]) -> dict[str, Mapping[str, str] | None]:
    """{train hash: {date, source}} of the configs that start from weights; None: nobody knows."""
    return {
        p.train_hash: asdict(p.cutoff) if p.cutoff else None
        for p in prepared
        if not p.refused and p.config.get("pretrained")
    }


def is_contaminated(stage: Stage, prepared: Prepared) -> bool:
    """Does test begin before the weights' cutoff, or does nobody know it? From scratch: no."""
    if not prepared.config.get("pretrained"):
        return False
    return prepared.cutoff is None or prepared.cutoff.date >= test_begins(stage)


def test_begins(stage: Stage) -> str:
    """The first day of test, in ISO form."""
    first = stage.panel.timeline[stage.split.part("test").start]
    return str(first.astype("datetime64[D]"))
