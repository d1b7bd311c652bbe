"""The table of a dry run: what would be trained, and what it would cost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from foresweep.cli.tables import plain_table, seconds
from foresweep.models.registry import BASELINES
from foresweep.search.propose.modes import ADAPTIVE
from foresweep.search.running.trials import planned_steps

if TYPE_CHECKING:
    from rich.console import Console

    from foresweep.search.plan import SweepPlan
    from foresweep.search.running.costs import Cost
    from foresweep.search.trial import Prepared


MOST_ROWS = 60


def draw(
    console: Console,
    plan: SweepPlan,
    prepared: Sequence[Prepared],
    known: Collection[str],
    costs: Mapping[str, Cost],
    workers: int,
) -> None:
    """Baselines are left out of the table: they cost nothing to speak of."""
    for p in prepared:
        if p.refused:
            console.print(f"left out: {p.proposal.source}: {p.refused}", style="yellow")
    trained = [p for p in prepared if not p.refused and p.proposal.model not in BASELINES]
    table = plain_table(
        *(">#", "model", "config", ">steps", ">batch", ">context", ">parameters", ">time")
    )
    for number, p in enumerate(trained[:MOST_ROWS], 1):
        cost = costs.get(p.config_hash)
        table.add_row(
            str(number),
            p.proposal.model,
            p.proposal.source.partition(": ")[2] or p.proposal.source,
            f"{planned_steps(p.config):,}",
            str(p.config.get("batch_size") or "-"),
            str(p.config.get("context_length") or "-"),
            "-" if cost is None or cost.parameters is None else f"{cost.parameters:,}",
            "trained before" if p.config_hash in known else seconds(cost.seconds if cost else None),
        )
    console.print(table)
    if len(trained) > MOST_ROWS:
        console.print(f"... and {len(trained) - MOST_ROWS} more.")
    _say_sum(console, plan, trained, costs, workers)


def _say_sum(
    console: Console,
    plan: SweepPlan,
    trained: Sequence[Prepared],
    costs: Mapping[str, Cost],
    workers: int,
) -> None:
    whole = sum(c.seconds for c in costs.values())
    steps = sum(planned_steps(p.config) for p in trained if p.config_hash in costs)
    at_once = f" on {workers} workers" if workers > 1 else ""
    console.print(
        f"{len(costs)} trials to train, {steps:,} steps: about {seconds(whole / workers)}"
        f"{at_once}, reckoned from a few real steps. Nothing was put on record."
    )
    more = plan.budget - sum(not p.proposal.is_free for p in trained)
    if plan.mode in ADAPTIVE and not plan.proposals and more > 0:
        console.print(f"Then up to {more} trials that are proposed from what these show.")
    if plan.seeds > 1:
        console.print(
            f"Then {plan.num_finalists} finalists with {plan.seeds - 1} further seeds each."
        )
