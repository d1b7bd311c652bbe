"""What is made of finished runs: `predict` and `ensemble`; and where the files of a run stand."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foresweep.cli.options import (
    Actions,
    Data,
    Db,
    HowRead,
    Json,
    Runs,
    SweepId,
    open_existing,
    settings,
    sharing,
)
from foresweep.errors import UsageError

if TYPE_CHECKING:
    from foresweep.data.panel import Panel
    from foresweep.evaluation.predict import PanelForecast
    from foresweep.records import Run
    from foresweep.selection.ensembling import Made
    from foresweep.tracker.service import Slot
    from foresweep.tracker.tracker import Tracker


@sharing(HowRead)
def predict(
    how: HowRead,
    run: Annotated[
        str | None,
        typer.Argument(
            help="A run or an ensemble, by its id. Default: the champion; where nothing is in "
            "service the checkpoint named in .best_model_path."
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint folder instead of a run.")
    ] = None,
    slot: Annotated[
        str | None, typer.Option(help="The champion of this slot. Default: the only one.")
    ] = None,
    data: Data = None,
    horizon: Annotated[
        int | None, typer.Option(help="Bars ahead. Default: the checkpoint's own.", min=1)
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option(
            help="Quantiles to forecast, between 0 and 1; 0.5 is always among them. "
            "Default: 0.1 to 0.9.",
            metavar="L,L,...",
        ),
    ] = None,
    actions: Actions = None,
    item: Annotated[list[str] | None, typer.Option(help="Only this item; repeatable.")] = None,
    items: Annotated[str | None, typer.Option(help="Only these items.", metavar="A,B,...")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .parquet, .csv or .json file, prices in full."),
    ] = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record/--no-record", help="Put the champion's forecasts on record, for monitoring."
        ),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    db: Db = None,
) -> None:
    """Forecast the next bars of every item: by the champion, a run, an ensemble or a checkpoint.

    The data gate runs first; items with too few bars are named and the others forecast. Shadows of
    the champion forecast beside it, on record alone.
    """
    from foresweep.data.tables import write_records

    asked = {"levels": _levels(levels), "horizon": horizon}
    if output is not None and output.suffix.lower() not in OUTPUTS:
        raise UsageError(f"--output {output}: give a name that ends in {', '.join(OUTPUTS)}")
    if len([one for one in (run, checkpoint, slot) if one is not None]) > 1:
        raise UsageError("give one of RUN, --checkpoint and --slot")
    wanted = [*(item or []), *(i.strip() for i in (items or "").split(",") if i.strip())]
    panel, left_out = read_items(data, actions, how, wanted)
    found = _forecast(run, checkpoint, slot, panel, asked, record=record, db=db)
    for name, why in {**left_out, **found.refused}.items():
        typer.echo(f"{name} is not forecast: {why}", err=True)
    is_on_screen = output is None and not as_json
    if output is not None:
        write_records(output, found.records(), times=("origin", "timestamp"))
        typer.echo(f"Wrote {output}: {len(found.items)} items, {found.times.shape[1]} bars ahead.")
    elif as_json:
        typer.echo(json.dumps(found.records(), indent=2))
    else:
        _draw(found, panel)
    if not found.card.get("beats_naive", False):
        typer.echo(NOT_BETTER, err=not is_on_screen)


def read_items(
    data: str | None, actions: str | None, how: HowRead, wanted: Sequence[str]
) -> tuple[Panel, dict[str, str]]:
    """(the panel of the `wanted` items, or of all where none is named; why those of them are not in
    it that the gate left out). Raises DataError, UsageError where that is all of them,
    UnknownName."""
    from foresweep.cli.tables import read_prices

    _, loaded = read_prices(data, actions, how)
    why = {str(f.item): str(f) for f in reversed(loaded.report.errors)}
    left_out = {
        name: why.get(name, "the data gate left it out")
        for name in dict.fromkeys(wanted)
        if name in loaded.report.dropped and name not in loaded.panel.items
    }
    there = [name for name in wanted if name not in left_out]
    if left_out and not there:
        raise UsageError("; ".join(f"{n} is not forecast: {w}" for n, w in left_out.items()))
    return loaded.panel.select(there) if there else loaded.panel, left_out


OUTPUTS = (".parquet", ".csv", ".json")
NOT_BETTER = (
    "This checkpoint does not beat the last close on val: read the medians as no better than "
    "today's price."
)


def _levels(text: str | None) -> tuple[float, ...]:
    """Raises UsageError for what is no level."""
    from foresweep.models.base import DEFAULT_LEVELS

    if text is None:
        return DEFAULT_LEVELS
    try:
        given = {float(part) for part in text.split(",")}
    except ValueError:
        given = {math.nan}
    if not all(0 < level < 1 for level in given):
        raise UsageError(f"--levels {text!r}: write numbers between 0 and 1, like 0.1,0.5,0.9")
    return tuple(sorted({*given, 0.5}))


def _forecast(
    run: str | None,
    checkpoint: Path | None,
    slot: str | None,
    panel: Panel,
    asked: dict[str, Any],
    *,
    record: bool,
    db: str | None,
) -> PanelForecast:
    """By what was named; else by the champion, else by the checkpoint of .best_model_path."""
    from foresweep.errors import NotFound
    from foresweep.evaluation.predict import predict_panel
    from foresweep.lifecycle.champion import checkpoint_of, find_slot
    from foresweep.selection.export import read_exported_path
    from foresweep.tracker.service import Service

    if checkpoint is not None:
        return predict_panel(checkpoint, panel, **asked)
    try:
        tracker = open_existing(db)
    except NotFound:
        if run is not None or slot is not None or db is not None:
            raise
        return predict_panel(read_exported_path(Path.cwd()), panel, **asked)
    with tracker:
        if run is not None:
            return predict_panel(checkpoint_of(tracker.get_run(run)).path, panel, **asked)
        service = Service(tracker.store)
        if slot is None and not any(s.champion for s in service.slots()):
            return predict_panel(read_exported_path(Path.cwd()), panel, **asked)
        return _by_champion(tracker, find_slot(service, slot), panel, asked, record=record)


def _by_champion(
    tracker: Tracker, slot: Slot, panel: Panel, asked: dict[str, Any], *, record: bool
) -> PanelForecast:
    """The champion's forecast; it and those of the shadows are on record when this returns."""
    from foresweep.errors import ForesweepError
    from foresweep.lifecycle.inference import load_slot, record_forecasts

    loaded = load_slot(slot)
    found = loaded.champion.forecast(panel, **asked)
    if record and not tracker.store.is_read_only:
        made = [(loaded.champion, found)]
        for shadow in loaded.shadows:
            try:
                made.append((shadow, shadow.forecast(panel, **asked)))
            except ForesweepError as error:  # a shadow never takes the champion's answer away
                typer.echo(f"shadow {shadow.run_id} made no forecast: {error}", err=True)
        new = record_forecasts(tracker, made, source="predict")
        s = "" if new == 1 else "s"
        typer.echo(f"{new} new forecast{s} on record in slot {slot.name}.", err=True)
    for run_id, why in (loaded.left_out or {}).items():
        typer.echo(f"shadow {run_id} is left out: {why}", err=True)
    return found


def _draw(found: PanelForecast, panel: Panel) -> None:
    from foresweep.cli.tables import console, plain_table

    out = console()
    levels = found.forecast.levels
    low, high = levels[0], levels[-1]
    table = plain_table(
        "item", "origin", ">last close", "forecast for", ">median", ">move",
        f">{100 * low:g} %", f">{100 * high:g} %",
    )  # fmt: skip
    for n, name in enumerate(found.items):
        values, close = found.forecast.values[n, -1], found.last_close[n]
        median = found.forecast.median[n, -1]
        digits = panel.decimals(panel.index(name))
        table.add_row(
            name,
            str(found.origins[n].astype("datetime64[m]")).replace("T00:00", ""),
            f"{close:,.{digits}f}",
            str(found.times[n, -1].astype("datetime64[m]")).replace("T00:00", ""),
            f"{median:,.{digits}f}",
            f"{100 * (median / close - 1):+.2f} %",
            f"{values[0]:,.{digits}f}",
            f"{values[-1]:,.{digits}f}",
        )
    ahead = found.forecast.values.shape[1]
    out.print(
        f"Forecast {ahead} bars ahead by {found.model} (run {found.card.get('run_id', '?')}):"
    )
    out.print(table)


# Where a run's files stand, whatever folder the command is called in.


LEVELS = 3
"""Folders above the database in which a relative path of an older record is looked for."""


def with_checkpoint(tracker: Tracker, run: Run) -> Run:
    """The run with the path of its checkpoint as it is found from here."""
    if run.checkpoint_path is None:
        return run
    found = standing(tracker, run, Path(run.checkpoint_path))
    return run if found is None else dataclasses.replace(run, checkpoint_path=str(found))


def find_log(tracker: Tracker, run: Run, runs_dir: Path) -> Path | None:
    """The run's training.log: in its own folder, else in that of its name in `runs_dir`."""
    folders = [runs_dir / run.run_id]
    if run.forecasts_path is not None:
        own = standing(tracker, run, Path(run.forecasts_path))
        folders = [*([own, own.parent] if own else []), *folders]
    logs = (folder / "training.log" for folder in folders)
    return next((log for log in logs if log.is_file()), None)


def standing(tracker: Tracker, run: Run, path: Path) -> Path | None:
    """A path of the record where it exists; a relative one starts where the run was started,
    in a folder above the database, or here."""
    if path.is_absolute():
        return path if path.exists() else None
    return next((p for f in _starts(tracker, run) if (p := f / path).exists()), None)


def _starts(tracker: Tracker, run: Run) -> Iterator[Path]:
    folder = tracker.get_environment(run.run_id).get("folder")
    if isinstance(folder, str):
        yield Path(folder)
    if tracker.store.path is not None:
        yield from list(tracker.store.path.resolve().parents)[:LEVELS]
    yield Path.cwd()


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
        typer.Option("--model", "-m", help="Only runs of this model, or of several (toto,kronos)."),
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
        _draw_members(made)


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


def _draw_members(made: Made) -> None:
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
