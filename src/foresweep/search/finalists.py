"""The finalists of a sweep, trained once more with other seeds: how much of a lead is chance.

Finalists are the best trials by tune. A finalist's checkpoint and losses are those of the (lower)
median seed by tune, the one that would be deployed; the others say how far chance alone carries.
They are further runs of the same trial, so that no count of trials grows by them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from foresweep.metrics import METRICS, QUANTILE_METRICS, ranked_by
from foresweep.records import Run, RunState
from foresweep.search.events import FinalistsChosen, SeedsCompared, TrialSkipped
from foresweep.search.stage import Stage
from foresweep.search.trial import Prepared
from foresweep.tracker.seeds import median_seed

logger = logging.getLogger(__name__)

EQUALS_LAST_VALUE = "equals last-value"
"""Tag of a trained run whose medians are all the last close: point metrics do not rank it."""


class Attempt(Protocol):
    """Makes one run of a trial (sweep id, number) whose lease is held."""

    def __call__(self, prepared: Prepared, trial: tuple[str, int], seed: int) -> Run: ...


Earlier: TypeAlias = Callable[[Stage, Prepared, int], Run | None]
"""The run on record that makes another of this seed needless."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A config and its run under the sweep's own seed, made by it or known from an earlier one."""

    prepared: Prepared
    run: Run


def choose_finalists(
    contenders: Iterable[Contender], objective: str, count: int
) -> tuple[Contender, ...]:
    """The `count` best complete trials by the objective on tune, best first; ties go to the smaller
    run id.

    What was not asked for (baselines, untrained companions) is none, and where points are ranked
    neither is a forecast that equals the last close.
    """
    name, metric = f"tune_{objective}", METRICS[objective]
    able = [
        (metric.badness(score), c.run.run_id, c)
        for c in contenders
        if c.run.state is RunState.COMPLETE
        and not (c.run.is_baseline or c.prepared.proposal.is_free)
        and (objective in QUANTILE_METRICS or EQUALS_LAST_VALUE not in c.run.tags)
        and (score := c.run.score(name)) is not None
    ]
    return tuple(c for _, _, c in sorted(able, key=lambda found: found[:2])[:count])


def train_finalists(
    stage: Stage, contenders: Iterable[Contender], *, attempt: Attempt, earlier: Earlier
) -> None:
    """Train the finalists with the plan's other seeds, and say of each which run stands for it.

    A seed that fails is on record with its cause, and the rest decide.
    """
    plan = stage.plan
    metric = ranked_by(plan.objective)
    chosen = choose_finalists(contenders, metric, plan.num_finalists)
    stage.listen(FinalistsChosen(tuple(c.run for c in chosen), plan.seeds))
    for finalist in chosen:
        for seed in plan.other_seeds:
            known = earlier(stage, finalist.prepared, seed)
            if known is not None:
                stage.listen(TrialSkipped(finalist.prepared, known))
            elif trial := _lease(stage, finalist.run):
                attempt(finalist.prepared, trial, seed)
        runs = stage.tracker.get_seeds(finalist.run.run_id)
        stage.listen(SeedsCompared(tuple(runs), median_seed(runs, metric)))


def _lease(stage: Stage, run: Run) -> tuple[str, int] | None:
    """The trial of a run, held by this process; None where another trains it now."""
    trial = (str(run.sweep_id), int(run.trial_number or 0))
    if stage.tracker.take_lease(*trial):
        return trial
    logger.warning("%s: another process trains its trial; a seed is left out", run.run_id)
    return None
