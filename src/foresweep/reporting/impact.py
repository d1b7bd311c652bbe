"""What each hyperparameter did to the score: counts, means and a rank correlation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foresweep.selection.leaderboard import Row


@dataclass(frozen=True, slots=True)
class ValueImpact:
    """The runs that had one value of a hyperparameter."""

    value: Any
    count: int
    mean: float
    best: float  # of the ranking metric, by the order of the leaderboard


@dataclass(frozen=True, slots=True)
class Impact:
    """One hyperparameter that varied between runs of a model."""

    name: str
    values: tuple[ValueImpact, ...]  # numbers rising, others in order of appearance
    rank_correlation: float | None  # Spearman's, between number and score; None for words


def impacts(rows: Sequence[Row]) -> list[Impact]:
    """Every hyperparameter that has two or more values among the scored runs of one model.

    `rows` in the order of the leaderboard: the first with a value is its best.
    """
    scored = [r for r in rows if r.score is not None]
    names = dict.fromkeys(name for r in scored for name in r.run.hyperparams)
    found = (_impact(name, scored) for name in names)
    return [i for i in found if len(i.values) > 1]


def _impact(name: str, rows: Sequence[Row]) -> Impact:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(json.dumps(row.run.hyperparams.get(name), default=str), []).append(row)
    values = [_value(name, group) for group in groups.values()]
    numeric = all(isinstance(v.value, int | float) for v in values)
    if numeric:
        values.sort(key=lambda v: float(v.value))
    return Impact(name, tuple(values), _spearman(name, rows) if numeric else None)


def _value(name: str, group: Sequence[Row]) -> ValueImpact:
    scores = [row.score for row in group if row.score is not None]
    return ValueImpact(
        value=group[0].run.hyperparams.get(name),
        count=len(scores),
        mean=float(np.mean(scores)),
        best=scores[0],
    )


def _spearman(name: str, rows: Sequence[Row]) -> float | None:
    """Spearman's rank correlation of value and score; None below three runs or without spread."""
    x = _ranks([float(r.run.hyperparams[name]) for r in rows])
    y = _ranks([float(r.score) for r in rows if r.score is not None])
    if len(x) < 3 or not x.std() or not y.std():
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Ranks, ties sharing their mean."""
    array = np.asarray(values, dtype=float)
    less = (array[:, None] > array).sum(axis=1)
    equal = (array[:, None] == array).sum(axis=1)
    return np.asarray(less + (equal + 1) / 2, dtype=np.float64)
