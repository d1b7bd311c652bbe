"""`spaces show|copy`: what a model's modes would try, and what a config costs here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foresweep.cli.options import (
    Device,
    GradientCheckpointing,
    Horizon,
    Json,
    MicroBatch,
    Size,
    Threads,
    parse_values,
)
from foresweep.errors import UsageError

if TYPE_CHECKING:
    from foresweep.models.base import Resources
    from foresweep.search.running.costs import Estimate

app = typer.Typer(help="The search spaces of the models.", no_args_is_help=True)
Model = Annotated[str, typer.Argument(help="toto, kronos, chronos2, a plug-in's name or all.")]


@app.command()
def copy(
    model: Model,
    python: Annotated[
        bool,
        typer.Option("--python", help="As dicts of Python: configs and grid, without the ranges."),
    ] = False,
) -> None:
    """Print a model's space file as written, to edit."""
    from foresweep.search.propose.modes import expand_models, space_text
    from foresweep.search.propose.spacefiles import as_python

    if python:
        typer.echo(as_python(expand_models([model])), nl=False)
        return
    for name in expand_models([model]):
        typer.echo(space_text(name), nl=False)


@app.command()
def show(
    model: Model,
    pretrained: Annotated[
        str | None,
        typer.Option(help="As it is for these weights: 'published', a Hugging Face id, a folder."),
    ] = None,
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Take a few real steps and say what a config costs here."),
    ] = False,
    size: Annotated[
        Size | None, typer.Option(help="With --estimate: tiny, small or base. Default: tiny.")
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="With --estimate: a hyperparameter, key=value; repeatable.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    horizon: Horizon = 5,
    device: Device = "auto",
    threads: Threads = 1,
    micro_batch: MicroBatch = None,
    gradient_checkpointing: GradientCheckpointing = False,
    as_json: Json = False,
) -> None:
    """List the configs of each mode, with their sources, and the hyperparameters; or estimate one.

    An estimate trains for a moment on the demo panel, in a process of its own: parameters, seconds
    a step and a forecast, memory. As JSON, `all` gives an object by model.
    """
    from foresweep.models.base import Resources
    from foresweep.search.propose.modes import expand_models

    names = expand_models([model])
    if estimate:
        used = Resources(
            device, threads, micro_batch, gradient_checkpointing=gradient_checkpointing
        )
        _estimate(names, used, horizon, pretrained, size, parse_values(values or []), as_json)
    elif size or values:
        raise UsageError("--size and --set say what to estimate; add --estimate")
    else:
        _show(names, pretrained, as_json)


def _show(names: tuple[str, ...], pretrained: str | None, as_json: bool) -> None:
    import dataclasses

    from foresweep.search.propose.modes import load_space

    found = {name: load_space(name, "pretrained" if pretrained else "scratch") for name in names}
    if as_json:
        _print_json({name: dataclasses.asdict(space) for name, space in found.items()})
        return
    for name, space in found.items():
        _draw(name, space)


def _print_json(by_model: dict[str, Any]) -> None:
    """One model's value, or an object by model where there are several."""
    (first, *others) = by_model.values()
    typer.echo(json.dumps(by_model if others else first, indent=2, default=dict))


def _estimate(
    names: tuple[str, ...],
    used: Resources,
    horizon: int,
    pretrained: str | None,
    size: Size | None,
    values: dict[str, Any],
    as_json: bool,
) -> None:
    from foresweep.data.splits import Cut
    from foresweep.search.plan import SweepPlan, size_meant
    from foresweep.search.running.costs import estimate

    size_meant(size, pretrained)
    chosen = None if pretrained else (size or Size.tiny).value
    found = {}
    for name in names:
        plan = SweepPlan(
            (name,), size=chosen, pretrained=pretrained, cut=Cut(horizon), resources=used
        )
        found[name] = estimate(plan, values)
    if as_json:
        _print_json({name: e.as_dict() for name, e in found.items()})
        return
    for one in found.values():
        _say(one)


def _say(one: Estimate) -> None:
    """An estimate in a few lines."""
    from foresweep.models.training.loop import EVALUATIONS

    steps, batch = one.config.get("max_steps"), one.config.get("batch_size")
    typer.echo(f"{one.model}: {one.parameters:,} parameters, on {one.device}")
    for stage in one.stages:
        took = "-" if stage.seconds_per_step is None else f"{stage.seconds_per_step:.3g} s"
        typer.echo(
            f"  a step of {batch} windows: {took}, {stage.trained_parameters:,} parameters trained"
        )
    if one.stages:
        typer.echo(f"  its config takes {steps:,} steps and {EVALUATIONS} scorings on tune")
    typer.echo(f"  a forecast: {one.seconds_per_forecast:.3g} s a window")
    typer.echo(
        f"  memory of the process: {one.peak_memory_mb:,.0f} MiB at most, "
        f"{one.memory_before_mb:,.0f} of them before the network was built"
    )
    if one.device_memory_mb is not None:
        typer.echo(f"  memory of the device: {one.device_memory_mb:,.0f} MiB at most")


def _draw(name: str, space: object) -> None:
    from foresweep.cli.tables import console, plain_table
    from foresweep.models.base import hyperparameters
    from foresweep.models.registry import get_model
    from foresweep.space import SpaceFile

    assert isinstance(space, SpaceFile)
    out = console()
    for mode, entries in space.entries.items():
        table = plain_table("config", "values", "source", title=f"{name}: {mode}")
        for entry in entries:
            values = ", ".join(f"{k}={v}" for k, v in entry.config.items())
            table.add_row(entry.name, values, " ".join(entry.source.split()))
        out.print(table)
    out.print(
        f"{name}: full grid of {space.full.size} configs over {', '.join(space.full.dimensions)}"
    )
    ranges = plain_table("hyperparameter", "range", title=f"{name}: random draws from")
    for key, dimension in space.space.dimensions.items():
        when = space.space.when.get(key)
        only = ", ".join(f"{k} = {v}" for k, v in (when or {}).items())
        ranges.add_row(key, f"{dimension}" + (f" (when {only})" if only else ""))
    out.print(ranges)
    table = plain_table(
        "hyperparameter", "default", "unit", "stage", "meaning", title=f"{name}: all"
    )
    for h in hyperparameters(get_model(name).Config):
        table.add_row(h.name, str(h.default), h.unit, h.stage, h.doc)
    out.print(table)
