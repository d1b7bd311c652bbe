"""Several objectives at once: which runs give up nothing, and where the trade-off bends.

On val a run is dominated where another is no worse in any objective and better in one; those that
are not make the front. The knee is the run of the front that lies furthest below the line between
its ends (the plane, with more than two objectives): to be better in one objective costs most in the
others from there on (Das 1999, On characterizing the "knee" of the Pareto curve; Branke, Deb,
Dierolf and Osswald 2004, Finding knees in multi-objective optimization).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foresweep.evaluation.yardstick import EQUALS_LAST_VALUE, equals_last_value, last_value
from foresweep.metrics import METRICS, objectives_of, ranked_by
from foresweep.records import Run, RunState
from foresweep.tracker.queries.runs import by_config, median_seed

Array = NDArray[np.float64]
EXACT = 1e-9
"""Distances from the line below this are rounding."""
SEVERAL = 2


@dataclass(frozen=True, slots=True)
class Point:
    """One config, by its median seed."""

    run: Run
    scores: tuple[float | None, ...]  # on val, in the order of the objectives; None: undefined
    dominated_by: int | None  # runs that dominate it; None: it has no place (see `note`)
    is_knee: bool = False
    note: str = ""

    @property
    def is_front(self) -> bool:
        """Does no other run dominate it?"""
        return self.dominated_by == 0

    @property
    def word(self) -> str:
        """Where it stands."""
        if self.dominated_by is None:
            return self.note
        if self.is_knee:
            return "knee"
        return "front" if self.is_front else f"dominated by {self.dominated_by}"


@dataclass(frozen=True, slots=True)
class Pareto:
    """The trained configs of one fingerprint under several objectives: the front first, in the
    order of the first objective, then the dominated ones, then those without a place."""

    metrics: tuple[str, ...]  # full names
    points: tuple[Point, ...]
    naive: tuple[float | None, ...]  # last-value's scores on the same windows

    @property
    def front(self) -> tuple[Point, ...]:
        return tuple(p for p in self.points if p.is_front)

    @property
    def knee(self) -> Point | None:
        """None where no run lies below the line between the ends of the front."""
        return next((p for p in self.points if p.is_knee), None)


def pareto(runs: Iterable[Run], objective: str) -> Pareto | None:
    """The trained, complete runs of one fingerprint on val, by the objectives of a sweep; None
    where it has only one.

    A run with an undefined score has no place, nor one whose medians all equal the last close
    where an objective looks at nothing else: it is last-value. Of several seeds the median one by
    the metric that ranks stands for its config.
    """
    names = objectives_of(objective)
    if len(names) < SEVERAL or any(n not in METRICS for n in names):
        return None
    found = [r for r in runs if r.state == RunState.COMPLETE]
    naive = last_value(found)
    groups = by_config(r for r in found if not r.is_baseline)
    points = [_point(median_seed(group, ranked_by(objective)), names) for group in groups]
    placed = [p for p in points if p.dominated_by is not None]
    costs = np.array([[_badness(n, s) for n, s in zip(names, p.scores, strict=True)]
                      for p in placed]).reshape(len(placed), len(names))  # fmt: skip
    counts = dominating(costs)
    bend = knee(costs)
    ranked = [
        Point(p.run, p.scores, int(counts[k]), is_knee=k == bend) for k, p in enumerate(placed)
    ]
    order = sorted(range(len(placed)), key=lambda k: (counts[k], *costs[k], placed[k].run.run_id))
    return Pareto(
        metrics=tuple(f"val_{n}" for n in names),
        points=(*(ranked[k] for k in order), *(p for p in points if p.dominated_by is None)),
        naive=tuple(None if naive is None else naive.score(f"val_{n}") for n in names),
    )


def dominating(costs: Array) -> NDArray[np.int64]:
    """[N] how many rows dominate each: no worse in any column and better in one.
    costs [N, M], lower is better."""
    return np.array(
        [((costs <= row).all(axis=1) & (costs < row).any(axis=1)).sum() for row in costs],
        dtype=np.int64,
    )


def knee(costs: Array) -> int | None:
    """The row at the knee of the front, the first of equals. costs [N, M], lower is better.

    Each column is scaled to its range over the front: z = (cost - lowest) / (highest - lowest), so
    that units do not matter. The distance of a row is (c - sum z) / sqrt(M), where c is the mean of
    sum z over the ends of the front, each the best in one column (of equals the one with the lowest
    sum). With two columns the ends are (0, 1) and (1, 0), c is 1, and this is the distance below
    the line between them. None where no row lies below.
    """
    rows = np.flatnonzero(dominating(costs) == 0)
    if not len(rows):
        return None
    front = costs[rows]
    low, high = front.min(axis=0), front.max(axis=0)
    varied = high > low
    z = (front[:, varied] - low[varied]) / (high[varied] - low[varied])
    sums = z.sum(axis=1)
    ends = [sums[z[:, m] == 0].min() for m in range(z.shape[1])]
    if not ends:
        return None
    distance = (np.mean(ends) - sums) / math.sqrt(z.shape[1])
    best = int(distance.argmax())
    return int(rows[best]) if distance[best] > EXACT else None


def _point(run: Run, names: Sequence[str]) -> Point:
    """A run before it is compared: with a note where it has no place."""
    scores = tuple(run.score(f"val_{n}") for n in names)
    note = ""
    if missing := [n for n, s in zip(names, scores, strict=True) if s is None]:
        note = f"{', '.join(missing)} undefined"
    elif any(equals_last_value(run, "val", n) for n in names):
        note = EQUALS_LAST_VALUE
    return Point(run, scores, None if note else 0, note=note)


def _badness(name: str, score: float | None) -> float:
    assert score is not None
    return METRICS[name].badness(score)
