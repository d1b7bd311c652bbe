"""Runs of one config that differ in seed: which one stands for it, and how far they lie apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from foresweep.metrics import METRICS
from foresweep.records import Run


@dataclass(frozen=True, slots=True)
class Spread:
    """A config's scores over its seeds."""

    num_seeds: int
    lowest: float
    highest: float

    @property
    def width(self) -> float:
        """Highest less lowest: a lead smaller than this is no lead."""
        return self.highest - self.lowest


def by_config(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs grouped by config, in the order met; a run without a config hash stands alone."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.config_hash or run.run_id, []).append(run)
    return list(found.values())


def median_seed(runs: Sequence[Run], metric: str) -> Run:
    """The run with the (lower) median loss on tune: the one that would be deployed. A run without
    that score counts as the worst."""

    def badness(run: Run) -> float:
        score = run.score(f"tune_{metric}")
        return np.inf if score is None else METRICS[metric].badness(score)

    ranked = sorted(runs, key=badness)
    return ranked[(len(ranked) - 1) // 2]


def spread(scores: Sequence[float]) -> Spread | None:
    """None for fewer than two."""
    if len(scores) < 2:
        return None
    return Spread(len(scores), min(scores), max(scores))
