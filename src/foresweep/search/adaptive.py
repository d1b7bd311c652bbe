"""The part of a sweep that learns: configs are proposed one by one from what has come so far."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from foresweep.records import Run, Sweep
from foresweep.search.engine import run_task
from foresweep.search.events import SpaceNarrowed
from foresweep.search.focus import Focus, focus
from foresweep.search.history import earlier_runs, told_of
from foresweep.search.plan import SweepPlan
from foresweep.search.proposals import ADAPTIVE, FOCUSED, load_spaces, within
from foresweep.search.sampler import MOST_ATTEMPTS, Rounds, Sampler, tell_all
from foresweep.search.stage import Stage
from foresweep.search.tpe import TpeSampler
from foresweep.search.trial import Prepare, Prepared
from foresweep.space import SearchSpace
from foresweep.tracker.tracker import Tracker

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Search:
    """One head's side of the search. Not frozen: it knows what was tried."""

    stage: Stage
    sweep: Sweep
    sampler: Sampler
    left: int
    """Trials that the budget still allows."""
    known: set[str] = field(default_factory=set)
    """Configs, by hash, that were tried or are on record."""

    def next(self, number: int) -> Prepared | None:
        """The config of trial `number`, ready to be tried; None: the budget or the space is used
        up."""
        if self.left <= 0:
            return None
        for attempt in range(MOST_ATTEMPTS):
            proposal = self.sampler.ask(number, attempt=attempt)
            if proposal is None:
                return None
            (found,) = run_task(
                self.stage.engine,
                Prepare(self.stage.ground, (proposal,), self.stage.plan),
                log=self.stage.runs_dir / "prepare.log",
            )
            if found.refused:
                logger.info("%s %s: %s", proposal.model, dict(proposal.config), found.refused)
            elif found.config_hash not in self.known:
                self.left -= 1
                self.known.add(found.config_hash)
                return found  # type: ignore[no-any-return]
        return None

    def tell(self, run: Run) -> None:
        """Take note of a trial that ended."""
        plan, tracker = self.stage.plan, self.stage.tracker
        self.sampler.tell(told_of(run, tracker, plan.objectives, sweep_id=self.sweep.sweep_id))


def begin(stage: Stage, sweep: Sweep, prepared: Iterable[Prepared]) -> Search:
    """The search of a sweep whose first configs have been tried: earlier runs on the same windows
    are told first. Raises SpaceError for a model with nothing to draw from."""
    plan, tracker = stage.plan, stage.tracker
    spent = [p for p in prepared if not p.refused and not p.proposal.is_free]
    search = Search(stage, sweep, _samplers(stage, sweep), plan.budget - len(spent))
    for model in plan.trained:
        runs = earlier_runs(tracker, model=model, fingerprints=stage.fingerprints, base=plan.base)
        told = [told_of(r, tracker, plan.objectives, sweep_id=sweep.sweep_id) for r in runs]
        tell_all(search.sampler, told)
        if plan.again:  # what another sweep trained may be trained once more, not what this one did
            runs = [r for r in runs if r.sweep_id == sweep.sweep_id]
        search.known |= {r.config_hash for r in runs}
    search.known |= {p.config_hash for p in spent}
    return search


def search_spaces(
    plan: SweepPlan, tracker: Tracker, fingerprints: Mapping[str, str]
) -> dict[str, SearchSpace | Focus]:
    """What each model of an adaptive sweep is searched in; {} in other modes.

    Raises SpaceError for a model with nothing to draw from, UsageError where a space is to be
    narrowed and too few runs are known.
    """
    if plan.mode not in ADAPTIVE or plan.proposals:
        return {}
    found: dict[str, SearchSpace | Focus] = {}
    files = load_spaces(plan.trained, plan.start, plan.mode, plan.spaces)
    for model, file in files.items():
        space = within(file.space, plan.step_cap, plan.max_context)
        if plan.mode == FOCUSED:
            runs = earlier_runs(tracker, model=model, fingerprints=fingerprints, base=plan.base)
            told = [told_of(r, tracker, plan.objectives, sweep_id="") for r in runs]
            found[model] = focus(model, space, told, plan.objective)
        else:
            found[model] = space
    return found


def _samplers(stage: Stage, sweep: Sweep) -> Rounds:
    plan = stage.plan
    spaces = search_spaces(plan, stage.tracker, stage.fingerprints)
    for model, narrowed in spaces.items():
        if isinstance(narrowed, Focus):
            file = stage.runs_dir / "spaces" / f"{sweep.sweep_id}-{model}.toml"
            file.parent.mkdir(exist_ok=True)
            file.write_text(narrowed.as_toml(plan.objective), "utf-8")
            stage.listen(SpaceNarrowed(model, narrowed.num_runs, file))
    return Rounds(
        {
            model: TpeSampler(
                model,
                found.space if isinstance(found, Focus) else found,
                objectives=plan.objectives,
                base=plan.base,
                seed=plan.seed,
                source=plan.mode,
                at_edge=plan.mode != FOCUSED,
            )
            for model, found in spaces.items()
        }
    )
