"""`power`: what a panel could prove, before any training is paid for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from foresweep.cli.options import Data, Horizon, Json

if TYPE_CHECKING:
    from foresweep.evaluation.planning import Outlook, PowerPlan


def power(
    data: Data = None,
    horizon: Horizon = 5,
    trials: Annotated[
        int, typer.Option("--trials", help="Trials that will compete for the verdict.", min=1)
    ] = 60,
    skill: Annotated[
        float | None,
        typer.Option(
            help="A skill to ask about, as a share: 0.02 is 2 % better than the benchmark."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Smallest skill in pct_mae that this panel can prove with N trials, and what more would buy.

    From the benchmark's own errors before test: no training, and no look at test's prices.
    """
    import dataclasses

    from foresweep.data.sources import default_source, load_panel
    from foresweep.data.splits import make_split
    from foresweep.errors import UsageError
    from foresweep.evaluation.planning import plan_power
    from foresweep.settings import load_settings

    if skill is not None and not 0 < skill < 1:
        raise UsageError(f"--skill {skill:g} must be a share between 0 and 1, e.g. 0.02 for 2 %")
    panel = load_panel(data or default_source(load_settings().data)).panel
    plan = plan_power(panel, make_split(panel, horizon), trials=trials, skill=skill)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(plan), indent=2))
    else:
        _draw(plan)


def _draw(plan: PowerPlan) -> None:
    from foresweep.cli.tables import console, plain_table

    out = console()
    now = plan.outlooks[0]
    scores = ", ".join(f"{name} {score:.4g} %" for name, score in plan.benchmark_scores.items())
    out.print(
        f"Horizon {plan.horizon}, benchmark {plan.benchmark} (tune pct_mae: {scores}); "
        f"{plan.trials} trials, {now.items} items, {now.val_origins:.0f} effective origins in val, "
        f"{now.test_origins:.0f} in test."
    )
    out.print(_answer(plan, now), style="bold")
    head = ["items", "years", ">origins val / test", ">own errors", ">errors shared"]
    if plan.skill is not None:
        head += [f">chance of {100 * plan.skill:.3g} %", ">shared"]
    table = plain_table(*head)
    for o in plan.outlooks:
        row = [str(o.items), f"{o.years:.1f}", f"{o.val_origins:.0f} / {o.test_origins:.0f}"]
        row += [_skill(o, o.smallest_skill), _skill(o, o.smallest_skill_shared)]
        if plan.skill is not None:
            row += [_share(o.chance), _share(o.chance_shared)]
        table.add_row(*row)
    out.print(table)
    out.print(
        f"Smallest skill (1 - pct_mae / benchmark's) that is promoted with {plan.power:.0%} "
        f"chance: found among {plan.trials} trials on val at {plan.level:.0%}, then confirmed on "
        f"test. 'own errors': a model errs on each item by itself; 'errors shared': it errs on all "
        f"items together, as markets move. Real models lie between. From {plan.history_origins} "
        f"origins before test."
    )


def _answer(plan: PowerPlan, now: Outlook) -> str:
    if not now.enough:
        return (
            f"Nothing can be proved here: a verdict needs 20 effective origins in val and in test, "
            f"these are {now.val_origins:.0f} and {now.test_origins:.0f}. Use more years or a "
            f"shorter horizon."
        )
    low, high = (_skill(now, s) for s in (now.smallest_skill, now.smallest_skill_shared))
    said = f"This panel can prove a skill of {low} (errors shared by all items: {high})."
    if plan.skill is not None and now.chance is not None and now.chance_shared is not None:
        said += (
            f" A skill of {100 * plan.skill:.3g} % would be promoted with a chance of "
            f"{_share(now.chance)} ({_share(now.chance_shared)})."
        )
    return said


def _skill(outlook: Outlook, skill: float | None) -> str:
    if not outlook.enough:
        return "none"
    return "none" if skill is None else f"{100 * skill:.2g} %"


def _share(chance: float | None) -> str:
    return "-" if chance is None else f"{chance:.0%}"
