"""`sweep` and `train`: ask for runs and watch them come."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foresweep.cli.options import Data, Db, Horizon, Runs, parse_values, settings

if TYPE_CHECKING:
    from foresweep.search.plan import SweepPlan


class Mode(StrEnum):
    """How configs are proposed."""

    priority = "priority"
    quick = "quick"
    full = "full"
    random = "random"
    demo = "demo"


class Size(StrEnum):
    """Architecture when training from scratch."""

    tiny = "tiny"
    small = "small"
    base = "base"


Pretrained = Annotated[
    str | None,
    typer.Option(
        help="Fine-tune weights: 'published' (the authors'), a Hugging Face id or a folder. "
        "Default: from scratch.",
    ),
]
SizeOption = Annotated[
    Size | None, typer.Option(help="Architecture from scratch: tiny, small or base. Default: tiny.")
]
Objective = Annotated[
    str, typer.Option(help="Metric the sweep is about: its leaderboard ranks by val_METRIC.")
]
MaxSteps = Annotated[
    int | None,
    typer.Option(help="Optimiser steps at most. Tiny from scratch: 300 unless said.", min=1),
]
Seed = Annotated[int, typer.Option(help="Names all randomness of the runs.")]
Stride = Annotated[
    int | None, typer.Option(help="Bars between origins. Default: about 40 origins a part.", min=1)
]
MaxContext = Annotated[
    int | None, typer.Option(help="Longest context a config may ask for, in bars.", min=16)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Threads = Annotated[int, typer.Option(help="Torch threads of a trial.", min=1)]
MicroBatch = Annotated[
    int | None,
    typer.Option(help="Windows per backward pass; less memory, same batch size.", min=1),
]
MirrorOption = Annotated[
    list[str] | None,
    typer.Option(
        "--mirror",
        help="Repeat runs to mlflow[:URI] or wandb[:offline]; repeatable.",
        metavar="NAME",
    ),
]
Actions = Annotated[
    str | None, typer.Option(help="Splits file: item, date, ratio (ratio 1: a real move).")
]
Again = Annotated[bool, typer.Option("--again", help="Train equal configs once more.")]


def sweep(
    model: Annotated[
        list[str], typer.Option("--model", "-m", help="toto, kronos, chronos2 or all; repeatable.")
    ],
    mode: Annotated[Mode, typer.Option(help="How configs are proposed.")] = Mode.priority,
    max_runs: Annotated[
        int | None, typer.Option(help="Trials at most. Default: 5 per model.", min=1)
    ] = None,
    data: Data = None,
    horizon: Horizon = 5,
    objective: Objective = "pct_mae",
    size: SizeOption = None,
    pretrained: Pretrained = None,
    max_steps: MaxSteps = None,
    seed: Seed = 0,
    stride: Stride = None,
    max_context: MaxContext = None,
    device: Device = "auto",
    threads: Threads = 1,
    micro_batch: MicroBatch = None,
    again: Again = False,
    actions: Actions = None,
    mirror: MirrorOption = None,
    db: Db = None,
    runs: Runs = None,
) -> None:
    """Train research-backed configs beside the baselines and rank them on the same windows."""
    plan = _plan(
        models=tuple(model),
        mode=mode.value,
        max_runs=max_runs,
        data=data,
        horizon=horizon,
        objective=objective,
        size=size,
        pretrained=pretrained,
        max_steps=max_steps,
        seed=seed,
        stride=stride,
        max_context=max_context,
        again=again,
        actions=actions,
        resources=(device, threads, micro_batch),
    )
    _run(plan, db, runs, mirror or [])


def train(
    model: Annotated[str, typer.Option("--model", "-m", help="One model, by name.")],
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="A hyperparameter: key=value; repeatable.", metavar="KEY=VALUE"),
    ] = None,
    data: Data = None,
    horizon: Horizon = 5,
    objective: Objective = "pct_mae",
    size: SizeOption = None,
    pretrained: Pretrained = None,
    max_steps: MaxSteps = None,
    seed: Seed = 0,
    stride: Stride = None,
    max_context: MaxContext = None,
    device: Device = "auto",
    threads: Threads = 1,
    micro_batch: MicroBatch = None,
    again: Again = False,
    actions: Actions = None,
    mirror: MirrorOption = None,
    db: Db = None,
    runs: Runs = None,
) -> None:
    """Train one config by hand; tracked, scored and ranked like any other."""
    plan = _plan(
        models=(model,),
        mode="by hand",
        max_runs=1,
        data=data,
        horizon=horizon,
        objective=objective,
        size=size,
        pretrained=pretrained,
        max_steps=max_steps,
        seed=seed,
        stride=stride,
        max_context=max_context,
        again=again,
        actions=actions,
        resources=(device, threads, micro_batch),
        values=parse_values(values or []),
    )
    _run(plan, db, runs, mirror or [])


def _plan(
    *,
    data: str | None,
    size: Size | None,
    pretrained: str | None,
    resources: tuple[str, int, int | None],
    values: dict[str, Any] | None = None,
    **rest: Any,
) -> SweepPlan:
    from foresweep.data.sources import default_source
    from foresweep.errors import UsageError
    from foresweep.models.base import Resources
    from foresweep.search.plan import SweepPlan, by_hand
    from foresweep.settings import load_settings

    if pretrained and size:
        raise UsageError(
            f"--size {size.value} and --pretrained {pretrained}: the weights fix the size; "
            f"give one of the two"
        )
    device, threads, micro_batch = resources
    plan = SweepPlan(
        data=data or default_source(load_settings().data),
        pretrained=pretrained,
        size=None if pretrained else (size or Size.tiny).value,
        resources=Resources(device=device, threads=threads, micro_batch=micro_batch),
        **rest,
    )
    return plan if values is None else by_hand(plan, values)


def _run(plan: SweepPlan, db: str | None, runs: Any, mirrors: list[str]) -> None:
    from foresweep.cli.live import LiveView
    from foresweep.cli.mirrors import Mirrors
    from foresweep.cli.options import open_tracker
    from foresweep.search.sweep import run_sweep

    places = settings(db, runs)
    with open_tracker(db) as tracker, LiveView(tracker, plan) as view:
        with Mirrors(mirrors, view.say_warning) as mirrored:
            listen = mirrored.beside(view.on_event)
            try:
                done = run_sweep(plan, tracker=tracker, runs_dir=places.runs_dir, listen=listen)
            except KeyboardInterrupt:
                view.say_stopped()
                raise typer.Exit(130) from None
        view.conclude(done)
        if not view.some_complete:
            raise typer.Exit(1)
