"""How far the seeds of one config lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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


def spread(scores: Sequence[float]) -> Spread | None:
    """None for fewer than two."""
    if len(scores) < 2:
        return None
    return Spread(len(scores), min(scores), max(scores))
