"""Which of a sweep's proposals can be tried, and which of them its budget pays for."""

from __future__ import annotations

from collections.abc import Sequence

from foresweep.errors import ConfigError
from foresweep.records import Trial
from foresweep.search.engine import run_task
from foresweep.search.proposals import ADAPTIVE, Proposal, baseline_proposals
from foresweep.search.stage import Stage
from foresweep.search.trial import Prepare, Prepared, Settle

SPARE = 4
"""Proposals drawn for each trial wanted: those that cannot be tried must not eat the budget."""


def prepare_all(stage: Stage, proposals: tuple[Proposal, ...]) -> tuple[Prepared, ...]:
    """The baselines and the first distinct configs that can be tried, up to the budget, with
    whatever was refused on the way. Raises ConfigError where nothing can be tried: a mode that goes
    on to propose from the space needs nothing to begin with."""
    every = (*baseline_proposals(stage.plan.objective), *proposals)
    chosen = choose(prepare_some(stage, every), stage.plan.budget)
    asked = [p for p in chosen if not p.proposal.is_free]
    proposes = stage.plan.mode in ADAPTIVE and not stage.plan.proposals
    if asked and all(p.refused for p in asked) and not proposes:
        reasons = dict.fromkeys(str(p.refused) for p in asked)
        raise ConfigError(f"no config of this sweep can be tried: {'; '.join(reasons)}")
    return tuple(sorted(chosen, key=lambda p: not p.proposal.is_free))


def prepare_some(stage: Stage, proposals: tuple[Proposal, ...]) -> tuple[Prepared, ...]:
    """Proposals made ready, in a worker: the head imports no torch."""
    found: tuple[Prepared, ...] = run_task(
        stage.engine,
        Prepare(stage.ground, proposals, stage.plan),
        log=stage.runs_dir / "prepare.log",
    )
    return found


def settle(stage: Stage, trials: Sequence[Trial]) -> tuple[Prepared, ...]:
    """Trials on record made ready once more, with the configs they have."""
    known = tuple(
        Prepared(Proposal(t.model_name, t.config, t.source), t.config, t.config_hash, t.train_hash)
        for t in trials
    )
    if not known:
        return ()
    task = Settle(known, stage.plan.pretrain_cutoff)
    settled: tuple[Prepared, ...] = run_task(stage.engine, task, log=stage.runs_dir / "prepare.log")
    return settled


def choose(found: Sequence[Prepared], budget: int) -> list[Prepared]:
    """The distinct ones in order, the budget spent on those that cost; one companion a model."""
    seen: set[str] = set()
    accompanied: set[str] = set()
    chosen: list[Prepared] = []
    for p in found:
        proposal = p.proposal
        spare = proposal.is_companion and proposal.model in accompanied
        if p.config_hash in seen or spare or (budget == 0 and not proposal.is_free):
            continue
        chosen.append(p)
        if p.refused:
            continue
        seen.add(p.config_hash)
        budget -= not proposal.is_free
        if proposal.is_companion:
            accompanied.add(proposal.model)
    return [
        p
        for p in chosen
        if not (p.refused and p.proposal.is_companion and p.proposal.model in accompanied)
    ]
