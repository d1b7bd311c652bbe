"""`ensemble`: a run that is made of runs on record."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foresweep.cli.options import Db, Json, Runs, SweepId, open_existing, settings

if TYPE_CHECKING:
    from foresweep.selection.ensembling import Made


class EnsembleMethod(StrEnum):
    """How forecasts are mixed."""

    greedy = "greedy"
    median = "median"
    mean = "mean"


def ensemble(
    top_k: Annotated[
        int, typer.Option(help="Trained runs that may take part: the best on tune.", min=1)
    ] = 5,
    method: Annotated[
        EnsembleMethod,
        typer.Option(
            help="greedy: weights by selection with replacement on tune; mean and median: all "
            "alike, with the best baseline."
        ),
    ] = EnsembleMethod.greedy,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Only runs of this model; repeatable."),
    ] = None,
    include_baselines: Annotated[
        bool,
        typer.Option(
            "--include-baselines/--no-baselines", help="May baselines be members? Default: yes."
        ),
    ] = True,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Loss that weights are to lower: pinball or pct_mae. Default: the sweep's "
            "objective, pct_mae where that has no losses per window."
        ),
    ] = None,
    sweep: SweepId = None,
    as_json: Json = False,
    db: Db = None,
    runs: Runs = None,
) -> None:
    """Mix the stored forecasts of the best runs and baselines; saved, scored and judged as a run.

    Members and weights are chosen on tune alone, and its own tune score is of two halves, each
    mixed by what was fitted on the other. Its checkpoint goes wherever a run's goes: predict, best,
    verdict.
    """
    from foresweep.selection.ensembling import Recipe, make_ensemble

    recipe = Recipe(
        top_k=top_k,
        method=method.value,
        metric=metric,
        models=_known(model or []),
        baselines=include_baselines,
    )
    runs_dir = settings(db, runs).runs_dir
    with open_existing(db) as tracker:
        made = make_ensemble(tracker, recipe, runs_dir=runs_dir, sweep_id=sweep)
    if as_json:
        typer.echo(json.dumps(_plain(made), indent=2))
    else:
        _draw(made)


def _known(models: list[str]) -> tuple[str, ...]:
    """Names in full. Raises UnknownName for one that nobody has installed."""
    from foresweep.search.propose.modes import expand_models

    return expand_models(models)


def _plain(made: Made) -> dict[str, Any]:
    return {
        "run_id": made.run.run_id,
        "is_new": made.is_new,
        "checkpoint_path": made.run.checkpoint_path,
        "metric": made.metric,
        "tune": made.tune,
        "val": made.val,
        "members": [
            {
                "run_id": p.run.run_id,
                "model": p.run.model_name,
                "weight": p.weight,
                "tune": p.tune,
                "val": p.val,
                "pvalue_val": p.pvalue,
            }
            for p in made.parts
        ],
        "left_out": list(made.left_out),
        "metrics": made.run.json_metrics,
    }


def _draw(made: Made) -> None:
    from foresweep.cli.tables import config_name, console, number, plain_table

    out = console()
    for line in made.left_out:
        out.print(f"{line}: not asked.", soft_wrap=True)
    name = made.metric
    table = plain_table("member", "config", ">weight", f">tune_{name}", f">val_{name}", ">p", "run")
    for p in made.parts:
        table.add_row(
            p.run.model_name,
            config_name(p.run) or "baseline",
            f"{p.weight:.2f}",
            number(p.tune, 4),
            number(p.val, 4),
            number(p.pvalue, 3),
            p.run.run_id,
        )
    table.add_row("ensemble", "", "1.00", number(made.tune, 4), number(made.val, 4), "", "")
    out.print(table)
    out.print(
        "p: one-sided Diebold-Mariano on val, that the ensemble beats this member alone; trials "
        "tried before are not counted. Its tune score is cross-fitted.",
        soft_wrap=True,
    )
    if made.is_new:
        out.print(f"Saved as run {made.run.run_id}.", soft_wrap=True)
    else:
        out.print(f"The same members and weights are on record: {made.run.run_id}.", soft_wrap=True)
    out.print(f"checkpoint {made.run.checkpoint_path}", soft_wrap=True)
    out.print(f"Judge it with: foresweep verdict {made.run.run_id}", soft_wrap=True)


# `reproduce`: train a run once more from its record and show what is different.
