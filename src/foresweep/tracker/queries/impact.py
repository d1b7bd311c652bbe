"""What a hyperparameter did to a score, counted by the database: per value, and as one rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import CTE, Connection, func, select

from foresweep.errors import UnknownName
from foresweep.records import RunState, split_name
from foresweep.tracker.queries import runs as queries
from foresweep.tracker.queries.filters import Name, Terms, hyperparams_in_use
from foresweep.tracker.storage import schema

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


def hyperparam_impact(
    connection: Connection, *, model_name: str, hyperparam: str, metric: str, fingerprint: str
) -> HyperparamImpact:
    """Count it over the complete, shown runs. Raises UnknownName for a hyperparameter that no
    run of the model has; the caller has refused test scores."""
    cases = _cases(connection, model_name, hyperparam, metric, fingerprint)
    total, distinct = connection.execute(
        select(func.count(), func.count(sa.distinct(cases.c.x))).select_from(cases)
    ).one()
    if not total:
        _require_known(connection, model_name, hyperparam)
    rows = connection.execute(_groups(_keyed(cases, binned=distinct > MOST_VALUES))).mappings()
    return HyperparamImpact(
        model_name,
        hyperparam,
        metric,
        total,
        tuple(_value(row) for row in rows),
        _spearman(connection, cases),
    )


def _cases(
    connection: Connection, model_name: str, hyperparam: str, metric: str, fingerprint: str
) -> CTE:
    """x (number), word, flag, y (score) of every run that has both."""
    runs, scores = schema.runs, schema.scores
    given = Terms(connection, hyperparam).meaning(Name(hyperparam, 0, call="hp"))
    part, name = split_name(metric)
    assert given.number is not None
    assert given.text is not None
    assert given.flag is not None
    assert given.given is not None
    columns = (given.number.label("x"), given.text.label("word"), given.flag.label("flag"))
    return (
        select(*columns, scores.c.value.label("y"))
        .select_from(runs.join(scores, scores.c.run_id == runs.c.run_id))
        .where(
            scores.c.part == part,
            scores.c.metric == name,
            scores.c.value.is_not(None),
            runs.c.model_name == model_name,
            runs.c.fingerprint == fingerprint,
            runs.c.state == RunState.COMPLETE.value,
            runs.c.hidden_at.is_(None),
            queries.is_original(),
            given.given,
        )
        .cte("cases")
    )


def _keyed(cases: CTE, *, binned: bool) -> CTE:
    """The cases with the group each belongs to, and the mean of that group."""
    number = func.ntile(NUM_BINS).over(order_by=cases.c.x) if binned else cases.c.x
    key = sa.case((cases.c.x.is_not(None), number))
    inner = select(*cases.c, key.label("key")).where(cases.c.x.is_not(None))
    words = select(*cases.c, sa.cast(sa.null(), sa.Double())).where(cases.c.x.is_(None))
    both = sa.union_all(inner, words).cte("both")
    group = (both.c.key, both.c.word, both.c.flag)
    mean = func.avg(both.c.y).over(partition_by=group)
    return select(*both.c, mean.label("mean")).cte("keyed")


def _groups(keyed: CTE) -> sa.Select[Any]:
    """One row a group; the spread is taken about the mean, so that nothing cancels."""
    away = keyed.c.y - keyed.c.mean
    group = (keyed.c.key, keyed.c.word, keyed.c.flag)
    return (
        select(
            *group,
            func.min(keyed.c.x).label("least"),
            func.max(keyed.c.x).label("most"),
            func.count().label("count"),
            func.min(keyed.c.mean).label("mean"),
            func.sum(away * away).label("squares"),
            func.min(keyed.c.y).label("lowest"),
            func.max(keyed.c.y).label("highest"),
        )
        .group_by(*group)
        .order_by(keyed.c.key.is_(None), keyed.c.key, keyed.c.word, keyed.c.flag)
    )


def _value(row: Mapping[Any, Any]) -> ValueImpact:
    count = int(row["count"])
    return ValueImpact(
        least=row["least"],
        most=row["most"],
        word=row["word"] if row["flag"] is None else row["flag"],
        count=count,
        mean=row["mean"],
        spread=math.sqrt(row["squares"] / (count - 1)) if count > 1 else None,
        lowest=row["lowest"],
        highest=row["highest"],
    )


def _spearman(connection: Connection, cases: CTE) -> float | None:
    """Spearman's rank correlation, ties sharing their mean rank."""

    def rank(column: Any) -> Any:
        ties = func.count().over(partition_by=column)
        return func.rank().over(order_by=column) + (ties - 1) / 2.0

    numbers = cases.c.x.is_not(None)
    ranks = select(rank(cases.c.x).label("a"), rank(cases.c.y).label("b")).where(numbers)
    r = ranks.cte("ranks")
    middle = select(func.avg(r.c.a).label("a"), func.avg(r.c.b).label("b")).cte("middle")
    a, b = r.c.a - middle.c.a, r.c.b - middle.c.b
    sums = select(func.count(), func.sum(a * b), func.sum(a * a), func.sum(b * b))
    count, ab, aa, bb = connection.execute(sums.select_from(r.join(middle, sa.true()))).one()
    if count < 3 or not aa or not bb:
        return None
    return max(-1.0, min(1.0, float(ab) / math.sqrt(float(aa) * float(bb))))


def _require_known(connection: Connection, model_name: str, hyperparam: str) -> None:
    known: Sequence[str] = hyperparams_in_use(connection, model_name)
    if known and hyperparam not in known:
        raise UnknownName("hyperparameter", hyperparam, known, where=f"of {model_name}'s runs")
