"""`update`: train the champion on with the newest bars; it stays unless that is better."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from foresweep.cli.options import Actions, Data, Db, HowRead, Json, Runs, settings, sharing
from foresweep.cli.service.champion import SlotName, in_service


class Finetune(StrEnum):
    """What of the weights is trained."""

    lora = "lora"
    full = "full"


@sharing(HowRead)
def update(
    how: HowRead,
    slot: SlotName = None,
    data: Data = None,
    actions: Actions = None,
    max_steps: Annotated[int, typer.Option(help="Optimiser steps.", min=1)] = 60,
    rate: Annotated[
        float, typer.Option(help="Learning rate, as a share of the champion's.", min=0.0)
    ] = 0.3,
    fresh: Annotated[
        float,
        typer.Option(
            help="Share of the training windows with a bar that the champion was not trained on; "
            "the others are a replay of old ones.",
            min=0.0,
            max=0.99,
        ),
    ] = 0.5,
    compare_bars: Annotated[
        int | None,
        typer.Option(
            help="Newest bars that neither is trained on, for the comparison. Default: 20 "
            "horizons, at least 60.",
            min=1,
        ),
    ] = None,
    finetune: Annotated[
        Finetune | None,
        typer.Option(help="lora: adapters, merged afterwards; full: all weights. Default: lora."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the training.")] = 0,
    as_json: Json = False,
    db: Db = None,
    runs: Runs = None,
) -> None:
    """Train the champion on with the newest bars, and promote what came of it only if better.

    Both forecast the newest bars, which neither was trained on; where a paired test does not find
    the new one better, nothing changes but the record. It counts as a trial.
    """
    from foresweep.lifecycle.update import update as train_on

    with in_service(db, slot, data, actions, how) as (tracker, found, place, panel):
        done = train_on(
            tracker,
            found,
            panel,
            runs_dir=settings(db, runs).runs_dir,
            listen=lambda event: None,
            data=place,
            steps=max_steps,
            rate=rate,
            fresh_share=fresh,
            compare_bars=compare_bars,
            finetune=None if finetune is None else finetune.value,
            seed=seed,
        )
    if as_json:
        typer.echo(json.dumps(done.as_json(), indent=2))
        return
    typer.echo(f"Run {done.run.run_id}: {done.found.in_words()}.")
    if done.promoted:
        typer.echo(f"It is the champion of slot {found.name} now; return with: foresweep rollback")
    else:
        typer.echo(f"Nothing changes: {done.found.parent} stays the champion of slot {found.name}.")
