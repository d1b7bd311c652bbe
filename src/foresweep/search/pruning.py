"""Who ends a trial early, on tune alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Pruner(Protocol):
    """Looks at a running trial after each of its scorings on tune."""

    def should_prune(
        self,
        trial: int,
        step: int,
        scores: Mapping[str, float],
        losses: Mapping[str, Sequence[float]],
    ) -> str | None:
        """Why trial number `trial` is not worth going on after `step`; None: it is. `scores` by
        full name; `losses` [origins] by metric, each origin's mean over items."""
        ...
