"""The best runs: by which score, which way, among which."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from itertools import product
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select, union_all

from foresweep.errors import UsageError
from foresweep.records import Run, RunState, split_name
from foresweep.tracker.queries.runs import fingerprint_in_use, refuse_test, standing
from foresweep.tracker.storage.schema import run_of, runs, scores


@dataclass(frozen=True, slots=True)
class Ranking:
    """What is best, and among which complete runs: all that `Tracker.get_best_model` can be asked.

    It stays within one fingerprint: `fingerprint`, else that of `sweep_id`, else that of the latest
    sweep (in which `model_name` ran), else that of the runs of no sweep. A failed score never
    ranks; a model that is named may be a baseline; a baseline needs no checkpoint.
    """

    metric: str = "val_pct_mae"
    model_name: str | None = None
    minimize: bool | None = None  # None: the metric's own way, towards its target if it has one
    require_checkpoint: bool = True
    _: KW_ONLY
    sweep_id: str | None = None
    fingerprint: str | None = None
    include_baselines: bool = False
    allow_test: bool = False

    def order(self, value: ColumnElement[float]) -> ColumnElement[float]:
        """ORDER BY that puts the best first. Raises UsageError where nobody has said which way the
        metric is better."""
        from foresweep.metrics import METRICS

        if self.minimize is not None:
            return value.asc() if self.minimize else value.desc()
        metric = METRICS.get(split_name(self.metric)[1])
        if metric is None:
            raise UsageError(
                f"whether more {self.metric!r} is better is not known; say minimize=True or "
                f"minimize=False"
            )
        if metric.target is not None:
            return func.abs(value - metric.target)
        return value.desc() if metric.higher_is_better else value.asc()


def best_runs(connection: Connection, asked: Ranking, k: int) -> list[Run]:
    """The k best, best first; ties go to the smaller run id. Of a config that was trained with
    several seeds only the one that stands for it ranks. Raises UsageError, NotFound."""
    if k < 1:
        raise UsageError(f"k is {k}; it must be at least 1")
    if not asked.allow_test:
        refuse_test(asked.metric)
    fingerprint = asked.fingerprint
    if fingerprint is None:
        fingerprint = fingerprint_in_use(
            connection,
            part=split_name(asked.metric)[0],
            model_name=asked.model_name,
            sweep_id=asked.sweep_id,
        )
    wanted = k
    while True:
        best = best_query(asked, fingerprint, wanted).subquery()
        query = select(runs).join(best, runs.c.run_id == best.c.run_id)
        rows = connection.execute(_first(query, best.c, asked, wanted)).mappings().all()
        ranked = standing(connection, [run_of(row) for row in rows], asked.metric)
        if len(ranked) >= k or len(rows) < wanted:
            return ranked[:k]
        wanted *= 2  # other seeds took their places


def best_query(asked: Ranking, fingerprint: str, k: int) -> Select[Any]:
    """(run_id, value) of the best: k index entries of each kind of run, then the best of those."""
    part, name = split_name(asked.metric)
    wanted = [
        scores.c.metric == name,
        scores.c.part == part,
        scores.c.fingerprint == fingerprint,
        scores.c.state == RunState.COMPLETE.value,
        scores.c.value.is_not(None),
    ]
    named = asked.model_name is not None
    if named:
        wanted.append(scores.c.model_name == asked.model_name)
    kinds = product((False,), (True,) if asked.require_checkpoint else (True, False))
    kinds_of_baseline = product((True,), (True, False)) if asked.include_baselines or named else ()
    arms = [
        _first(
            select(scores.c.run_id, scores.c.value)
            .where(*wanted, scores.c.is_baseline.is_(baseline))
            .where(scores.c.has_checkpoint.is_(checkpoint)),
            scores.c,
            asked,
            k,
        )
        for baseline, checkpoint in (*kinds, *kinds_of_baseline)
    ]
    together = union_all(*(select(arm.subquery()) for arm in arms)).subquery()
    return _first(select(together.c.run_id, together.c.value), together.c, asked, k)


def _first(query: Select[Any], columns: Any, asked: Ranking, k: int) -> Select[Any]:
    return query.order_by(asked.order(columns.value), columns.run_id).limit(k)
