"""One more run by itself, in the sweep of an earlier one: what reproducing and going on share."""

from __future__ import annotations

from dataclasses import dataclass

from foresweep.errors import SearchError
from foresweep.evaluation.steering import ALL
from foresweep.models.base import Resources
from foresweep.records import Run, RunState, Sweep
from foresweep.search.plan import STEERED, SweepPlan
from foresweep.search.running.head import Head
from foresweep.search.stage import Stage, cut_of
from foresweep.search.trial import RunSpec


@dataclass(slots=True)
class Once:
    """A source (head.py) of one run. Not frozen: it is told what came of it."""

    spec: RunSpec | None
    run: Run | None = None

    def next(self) -> RunSpec | None:
        spec, self.spec = self.spec, None
        return spec

    def ended(self, spec: RunSpec, run: Run) -> None:
        self.run = run

    def others_work(self) -> bool:
        return False


def plan_of(run: Run, sweep: Sweep, *, again: bool = False) -> SweepPlan:
    """The plan of a sweep for one more run like this one; `again`: weights at hand are not used."""
    return SweepPlan(
        models=(run.model_name,),
        cut=cut_of(sweep),
        resources=Resources(**run.resources),
        pretrain_cutoff=sweep.plan.get("pretrain_cutoff"),
        again=again,
        steer_windows=sweep.plan.get(STEERED, ALL),
    )


def drive_once(stage: Stage, spec: RunSpec) -> Run:
    """The run that came of it, complete or not."""
    once, head = Once(spec), Head(stage)
    with head.at_work():
        head.drive(once)
    assert once.run is not None
    return once.run


def require_complete(run: Run, what: str) -> None:
    """Raises SearchError with the last line of its error, where the run did not come to its end."""
    if run.state is not RunState.COMPLETE:
        raise SearchError(
            f"{what} failed: {str(run.error).strip().splitlines()[-1]}; it is on record: "
            f"foresweep show {run.run_id}"
        )
