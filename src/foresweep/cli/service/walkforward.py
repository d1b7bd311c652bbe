"""`walkforward`: what sweeping, judging and promoting would have earned, fold by fold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from foresweep.cli.options import (
    Actions,
    Data,
    Db,
    Horizon,
    HowRead,
    Json,
    Runs,
    Size,
    open_tracker,
    settings,
    sharing,
)
from foresweep.errors import UsageError

if TYPE_CHECKING:
    from foresweep.lifecycle.walkforward import Fold, ToCome, Walk


@sharing(HowRead)
def walkforward(
    how: HowRead,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="One, several (toto,kronos) or all.")
    ] = None,
    folds: Annotated[int, typer.Option(help="Live periods, one after the other.", min=1)] = 3,
    live_bars: Annotated[int, typer.Option(help="Bars of a live period.", min=2)] = 60,
    mode: Annotated[str, typer.Option(help="How each sweep proposes, as in sweep.")] = "random",
    max_runs: Annotated[int, typer.Option(help="Trials of each sweep.", min=1)] = 6,
    data: Data = None,
    actions: Actions = None,
    horizon: Horizon = 5,
    objective: Annotated[str, typer.Option(help="What the sweeps are about.")] = "pct_mae",
    stride: Annotated[
        int | None, typer.Option(help="Bars between origins in the sweeps.", min=1)
    ] = None,
    max_context: Annotated[int | None, typer.Option(help="Longest context.", min=1)] = None,
    size: Annotated[Size | None, typer.Option(help="From scratch. Default: tiny.")] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="published, a Hugging Face id or a folder.")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(help="Optimiser steps of a trial, at most.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything drawn.")] = 0,
    workers: Annotated[int, typer.Option(help="Trials at once.", min=1)] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it would cost.")
    ] = False,
    as_json: Json = False,
    db: Db = None,
    runs: Runs = None,
) -> None:
    """Sweep, verdict, promotion and a live period, fold after fold: what the procedure would earn.

    Beside it stand last-value and "never promote", the benchmark of each fold. It says what it will
    cost before it begins; broken off, the same call goes on where it stood.
    """
    from foresweep.cli.tables import read_prices
    from foresweep.data.splits import Cut
    from foresweep.lifecycle import walkforward as walks
    from foresweep.search.plan import SweepPlan
    from foresweep.search.sweep import Workers

    if pretrained and size:
        raise UsageError(f"--size {size.value} and --pretrained {pretrained}: give one of the two")
    panel = read_prices(data, actions, how)[1].panel
    plan = SweepPlan(
        models=tuple(model or ["all"]),
        mode=mode,
        cut=Cut(horizon=horizon, stride=stride, max_context=max_context, seed=seed),
        objective=objective,
        max_runs=max_runs,
        size=None if pretrained else (size.value if size else "tiny"),
        pretrained=pretrained,
        max_steps=max_steps,
        actions=actions,
    ).checked()
    hands = Workers(count=workers)
    runs_dir = settings(db, runs).runs_dir
    with open_tracker(db) as tracker:
        ahead = walks.cost_of(
            plan,
            panel,
            folds,
            live_bars,
            tracker=tracker,
            runs_dir=runs_dir,
            listen=lambda event: None,
            workers=hands,
        )
        typer.echo(_cost_in_words(ahead), err=as_json)
        if dry_run:
            return
        done = walks.walkforward(
            plan,
            panel,
            folds=folds,
            live_bars=live_bars,
            tracker=tracker,
            runs_dir=runs_dir,
            listen=lambda event: None,
            workers=hands,
            told=lambda fold: _tell(fold, err=as_json),
        )
    if as_json:
        typer.echo(json.dumps(done.as_json(), indent=2))
    else:
        _draw(done)


def _cost_in_words(ahead: ToCome) -> str:
    from foresweep.cli.tables import seconds

    if not ahead.left:
        return f"All {ahead.done} folds are done already."
    before = f"{ahead.done} done before; " if ahead.done else ""
    return (
        f"{before}{ahead.left} {'fold' if ahead.left == 1 else 'folds'} of {ahead.trials} "
        f"{'trial' if ahead.trials == 1 else 'trials'} to train, and baselines: about "
        f"{seconds(ahead.seconds)} in all, reckoned from a few real steps."
    )


def _tell(fold: Fold, *, err: bool) -> None:
    typer.echo(
        f"fold {fold.number}: known until {fold.known_until[:10]}, verdict {fold.outcome} on "
        f"{fold.candidate}; in service {fold.in_service}",
        err=err,
    )


def _draw(done: Walk) -> None:
    from foresweep.cli.tables import console, number, plain_table

    out, metric = console(), done.folds[0].metric
    table = plain_table(
        "fold", "live until", "verdict", "in service", ">origins", f">{metric}", ">never promote",
        ">last-value", ">sharpe", ">never", 
    )  # fmt: skip
    for f in done.folds:
        ours, never, plain = (f.losses[k] for k in ("procedure", "never promote", "last-value"))
        table.add_row(
            str(f.number), f.live_until[:10], f.outcome, f.in_service, str(f.num_origins),
            number(ours, 4), number(never, 4), number(plain, 4),
            number(f.sharpe["procedure"], 2), number(f.sharpe["never promote"], 2),
        )  # fmt: skip
    out.print(table)
    for who, skill, p in (
        ("last-value", done.skill_last_value, done.pvalue_last_value),
        ("never promoting", done.skill_never, done.pvalue_never),
    ):
        out.print(
            f"Against {who}: {100 * skill:+.2f} % over all live periods (p = {p:.2g}, one-sided).",
            soft_wrap=True,
        )
