"""`spaces show|copy`: what a model's modes would try."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from foresweep.cli.options import Json

app = typer.Typer(help="The search spaces of the built-in models.", no_args_is_help=True)
Model = Annotated[str, typer.Argument(help="toto, kronos, chronos2 or all.")]


@app.command()
def copy(model: Model) -> None:
    """Print a model's space file as written, to edit."""
    from foresweep.search.proposals import expand_models, space_text

    for name in expand_models([model]):
        typer.echo(space_text(name), nl=False)


@app.command()
def show(
    model: Model,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="As it is for pretrained weights.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the configs of each mode, with their sources, and the hyperparameters.

    As JSON, `all` gives an object by model.
    """
    import dataclasses

    from foresweep.search.proposals import expand_models, load_space

    names = expand_models([model])
    found = {name: load_space(name, "pretrained" if pretrained else "scratch") for name in names}
    if as_json:
        plain = {name: dataclasses.asdict(space) for name, space in found.items()}
        several = model.strip().lower() == "all"
        typer.echo(json.dumps(plain if several else plain[names[0]], indent=2, default=dict))
        return
    for name, space in found.items():
        _draw(name, space)


def _draw(name: str, space: object) -> None:
    from foresweep.cli.tables import console, plain_table
    from foresweep.models.config import hyperparameters
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
