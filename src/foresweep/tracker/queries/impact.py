"""What a hyperparameter did to a score, per value and as one rank: for tracker, command, report."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from sqlalchemy import Connection, select

from foresweep.errors import UnknownName
from foresweep.records import RunState, split_name
from foresweep.tracker.queries.names import hyperparams_in_use
from foresweep.tracker.queries.runs import is_original, refuse_test
from foresweep.tracker.storage.schema import runs, scores

MOST_VALUES = 8
NUM_BINS = 4
"""More distinct numbers than MOST_VALUES are shown as this many bins of equal count."""


@dataclass(frozen=True, slots=True)
class ValueImpact:
    """The complete runs that had one value of a hyperparameter, or one in a range."""

    least: float | None  # of the numbers; None where the value is none
    most: float | None
    word: str | bool | None  # the value where it is no number; None: neither, e.g. a list
    count: int
    mean: float
    spread: float | None  # standard deviation (n - 1); None for one run
    lowest: float
    highest: float

    @property
    def label(self) -> str:
        if self.least is None or self.most is None:
            return "(other)" if self.word is None else str(self.word)
        return f"{self.least:g}" if self.least == self.most else f"{self.least:g} .. {self.most:g}"


@dataclass(frozen=True, slots=True)
class HyperparamImpact:
    """One hyperparameter of one model and one metric, over runs of one fingerprint."""

    model_name: str
    hyperparam: str
    metric: str
    count: int
    values: tuple[ValueImpact, ...]  # numbers rising, then words
    rank_correlation: float | None
    """Spearman's, between number and score over the runs whose value is a number; None below
    three such runs or without spread."""


def impact_of(
    model_name: str, hyperparam: str, metric: str, pairs: Iterable[tuple[Any, float]]
) -> HyperparamImpact:
    """Count (value, score) of the runs of one model on the same windows; a value None is none."""
    given = [pair for pair in pairs if pair[0] is not None]
    numbers = sorted(((v, y) for v, y in given if _is_number(v)), key=_value)
    others = sorted(((_word(v), y) for v, y in given if not _is_number(v)), key=_order)
    return HyperparamImpact(
        model_name,
        hyperparam,
        metric,
        len(given),
        (
            *(_summary(group, least=group[0][0], most=group[-1][0]) for group in _bins(numbers)),
            *(_summary(group, word=group[0][0]) for group in _groups(others, _order)),
        ),
        _spearman(numbers),
    )


def impacts(
    model_name: str, metric: str, scored: Sequence[tuple[Mapping[str, Any], float]]
) -> list[HyperparamImpact]:
    """Of every hyperparameter that has two or more values among (hyperparams, score) of runs."""
    names = dict.fromkeys(name for hyperparams, _ in scored for name in hyperparams)
    counted = (
        impact_of(model_name, name, metric, ((held.get(name), y) for held, y in scored))
        for name in names
    )
    return [impact for impact in counted if len(impact.values) > 1]


def values_and_scores(
    connection: Connection, model_name: str, hyperparam: str, metric: str, fingerprint: str
) -> list[tuple[str, Any, float]]:
    """(run_id, value, score) of every complete run of a model that has both, by value: numbers,
    then the rest. Raises UsageError for `test_*`, UnknownName for a hyperparameter that no run of
    the model has."""
    refuse_test(metric)
    part, name = split_name(metric)
    query = (
        select(runs.c.run_id, runs.c.hyperparams, scores.c.value)
        .join(scores, scores.c.run_id == runs.c.run_id)
        .where(
            scores.c.part == part,
            scores.c.metric == name,
            scores.c.value.is_not(None),
            runs.c.model_name == model_name,
            runs.c.fingerprint == fingerprint,
            runs.c.state == RunState.COMPLETE.value,
            runs.c.hidden_at.is_(None),
            is_original(),
        )
        .order_by(runs.c.created_at, runs.c.run_id)
    )
    rows = [
        (run_id, held[hyperparam], score)
        for run_id, held, score in connection.execute(query)
        if held.get(hyperparam) is not None
    ]
    if not rows:
        known = hyperparams_in_use(connection, model_name)
        if known and hyperparam not in known:
            raise UnknownName("hyperparameter", hyperparam, known, where=f"of {model_name}'s runs")
    return sorted(rows, key=lambda row: _order((row[1], row[2])))


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


def _word(value: Any) -> str | bool | None:
    return value if isinstance(value, str | bool) else None


def _value(pair: tuple[float, float]) -> float:
    return pair[0]


def _order(pair: tuple[Any, float]) -> tuple[int, float, str]:
    """Numbers by size, then what is no word, then words."""
    value = pair[0]
    if _is_number(value):
        return 0, value, ""
    return (2, 0.0, value) if isinstance(value, str) else (1, 0.0, str(value))


def _bins(numbers: list[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """One group a number, or where they are many NUM_BINS of equal count, the first ones larger."""
    by_number = _groups(numbers, _value)
    if len(by_number) <= MOST_VALUES:
        return by_number
    size, larger = divmod(len(numbers), NUM_BINS)
    starts = [k * size + min(k, larger) for k in range(NUM_BINS + 1)]
    return [numbers[start:end] for start, end in pairwise(starts)]


def _groups(pairs: list[tuple[Any, float]], key: Callable[..., Any]) -> list[list[Any]]:
    return [list(group) for _, group in groupby(pairs, key)]


def _summary(
    group: Sequence[tuple[Any, float]],
    *,
    least: float | None = None,
    most: float | None = None,
    word: str | bool | None = None,
) -> ValueImpact:
    scored = [y for _, y in group]
    mean, more = math.fsum(scored) / len(scored), len(scored) - 1
    squares = math.fsum((y - mean) ** 2 for y in scored)
    spread = math.sqrt(squares / more) if more else None
    return ValueImpact(least, most, word, len(scored), mean, spread, min(scored), max(scored))


def _spearman(numbers: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation, ties sharing their mean rank."""
    if len(numbers) < 3:
        return None
    a, b = (_ranks([pair[side] for pair in numbers]) for side in (0, 1))
    spreads = float(a @ a) * float(b @ b)
    return max(-1.0, min(1.0, float(a @ b) / math.sqrt(spreads))) if spreads else None


def _ranks(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Ranks about their mean."""
    _, place, count = np.unique(np.array(values, float), return_inverse=True, return_counts=True)
    ranks: np.ndarray[Any, np.dtype[np.float64]] = (np.cumsum(count) - (count - 1) / 2)[place]
    return ranks - (len(values) + 1) / 2
