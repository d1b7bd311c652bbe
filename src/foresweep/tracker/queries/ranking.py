"""Which way a ranking goes: down, up, or towards a target."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, or_, select

from foresweep.errors import UsageError
from foresweep.records import Run, RunState, split_name
from foresweep.tracker.queries import runs as queries
from foresweep.tracker.queries.runs import standing
from foresweep.tracker.storage.schema import run_of, runs, scores


@dataclass(frozen=True, slots=True)
class Aim:
    """What is best: the lowest, the highest, or, where there is a target, the nearest to it."""

    minimize: bool
    target: float | None = None


def aim_of(metric: str) -> Aim:
    """The metric's own way, by full name. Raises UsageError where nobody has said."""
    from foresweep.metrics import METRICS

    name = split_name(metric)[1]
    if name not in METRICS:
        raise UsageError(
            f"whether more {metric!r} is better is not known; say minimize=True or minimize=False"
        )
    return Aim(not METRICS[name].higher_is_better, METRICS[name].target)


def best_runs(
    connection: Connection,
    *,
    metric: str,
    fingerprint: str,
    aim: Aim,
    k: int,
    model_name: str | None,
    require_checkpoint: bool,
    include_baselines: bool,
) -> list[Run]:
    """The k best complete runs, as `queries.best_runs` has them, in the order of `aim`. Of a config
    that was trained with several seeds only the one that stands for it ranks."""
    wanted = k
    while True:
        found = _nearest(
            connection,
            metric=metric,
            fingerprint=fingerprint,
            aim=aim,
            k=wanted,
            model_name=model_name,
            require_checkpoint=require_checkpoint,
            include_baselines=include_baselines,
        )
        ranked = standing(connection, found, metric)
        if len(ranked) >= k or len(found) < wanted:
            return ranked[:k]
        wanted *= 2  # other seeds took their places


def _nearest(
    connection: Connection,
    *,
    metric: str,
    fingerprint: str,
    aim: Aim,
    k: int,
    model_name: str | None,
    require_checkpoint: bool,
    include_baselines: bool,
) -> list[Run]:
    """The k first runs in the order of `aim`, whatever their seeds."""
    if aim.target is None:
        return queries.best_runs(
            connection,
            metric=metric,
            fingerprint=fingerprint,
            minimize=aim.minimize,
            k=k,
            model_name=model_name,
            require_checkpoint=require_checkpoint,
            include_baselines=include_baselines,
        )
    part, name = split_name(metric)
    query = (
        select(runs)
        .join(scores, scores.c.run_id == runs.c.run_id)
        .where(
            scores.c.metric == name,
            scores.c.part == part,
            scores.c.fingerprint == fingerprint,
            scores.c.state == RunState.COMPLETE.value,
            scores.c.value.is_not(None),
        )
    )
    if model_name is not None:
        query = query.where(scores.c.model_name == model_name)
    elif not include_baselines:
        query = query.where(scores.c.is_baseline.is_(False))
    if require_checkpoint:
        query = query.where(or_(scores.c.is_baseline.is_(True), scores.c.has_checkpoint.is_(True)))
    nearest = query.order_by(func.abs(scores.c.value - aim.target), runs.c.run_id).limit(k)
    return [run_of(row) for row in connection.execute(nearest).mappings()]
