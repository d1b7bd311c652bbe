"""`promote`, `rollback`, `champion`: which run is in service, and how it came there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foresweep.cli.options import (
    Db,
    Device,
    HowRead,
    Json,
    RunId,
    Runs,
    Threads,
    open_existing,
    settings,
)
from foresweep.errors import UsageError

if TYPE_CHECKING:
    from foresweep.data.panel import Panel
    from foresweep.records import Run
    from foresweep.tracker.service import Entry, Slot
    from foresweep.tracker.tracker import Tracker

SlotName = Annotated[
    str | None,
    typer.Option(
        "--slot", help="Place of service. Default: the only one, else of the run's panel."
    ),
]
ExportPath = Annotated[
    bool,
    typer.Option("--export-path", help="Keep .best_model_path and .best_model.json in step."),
]


@contextmanager
def in_service(
    db: str | None, slot: str | None, data: str | None, actions: str | None, how: HowRead
) -> Iterator[tuple[Tracker, Slot, str, Panel]]:
    """(database, slot, where its prices are, the prices) of a command on what is in service.

    Raises NotFound, UsageError (several slots), DataError.
    """
    from foresweep.cli.tables import read_prices
    from foresweep.lifecycle.champion import find_slot
    from foresweep.tracker.service import Service

    with open_existing(db) as tracker:
        found = find_slot(Service(tracker.store), slot)
        place, loaded = read_prices(data, actions, how)
        yield tracker, found, place, loaded.panel


def promote(
    run: RunId,
    slot: Annotated[
        str | None,
        typer.Option(help="Place of service. Default: panel and horizon of the run: prices-h5."),
    ] = None,
    shadow: Annotated[
        bool,
        typer.Option("--shadow", help="Beside the champion: it forecasts, and answers nobody."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Without a `promote` verdict; needs --reason.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option(help="With --force: why. It is recorded.", metavar="TEXT")
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="A shadow, by its live forecasts: where they are proved better than the "
            "champion's; the comparison is recorded.",
        ),
    ] = False,
    accept_licence: Annotated[
        bool,
        typer.Option(
            "--accept-licence",
            help="Although the licence of its weights forbids production; recorded in its card.",
        ),
    ] = False,
    refit: Annotated[
        bool,
        typer.Option(
            "--refit",
            help="First train its config on all bars, for as many steps; unjudged weights.",
        ),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option("--data", help="With --refit: newer bars. Default: those of its sweep."),
    ] = None,
    device: Device = "cpu",
    threads: Threads = 1,
    export_path: ExportPath = False,
    as_json: Json = False,
    db: Db = None,
    runs: Runs = None,
) -> None:
    """Put a run in service as champion of its slot; it needs a `promote` verdict on record, or
    --live evidence of a shadow."""
    from foresweep.lifecycle import champion as service
    from foresweep.lifecycle.evidence import promote_by_live

    if force and reason is None:
        raise UsageError("--force: say why with --reason TEXT; it is recorded")
    if reason is not None and not force:
        raise UsageError("--reason goes with --force; a verdict needs no other reason")
    if data is not None and not refit:
        raise UsageError("--data goes with --refit: a promotion reads no bars")
    if live and (shadow or force or refit):
        raise UsageError(
            "--live promotes a shadow as it is, by its own forecasts: leave out --shadow, --force "
            "and --refit"
        )
    with open_existing(db) as tracker:
        chosen, judged = tracker.get_run(run), None
        if refit:
            service.require_allowed(tracker, chosen, shadow=shadow, force_reason=reason)
            judged, chosen = (
                chosen,
                _refitted(tracker, chosen, settings(db, runs).runs_dir, data, device, threads),
            )
        if live:
            done = promote_by_live(tracker, chosen.run_id, slot, accept_licence=accept_licence)
        else:
            done = service.promote(
                tracker,
                chosen.run_id,
                judged=judged,
                slot=slot,
                shadow=shadow,
                force_reason=reason,
                accept_licence=accept_licence,
            )
        _keep_in_step(tracker, done.slot, asked=export_path)
    if as_json:
        typer.echo(json.dumps(slot_json(done.slot) | {"notes": list(done.notes)}, indent=2))
        return
    place = "a shadow" if shadow else "the champion"
    typer.echo(f"Run {done.entry.run_id} is {place} of slot {done.slot.name}.")
    if live:
        typer.echo(f"By its forecasts {done.entry.why}.")
    for note in done.notes:
        typer.echo(f"Note: {note}.")
    if not shadow and done.slot.before:
        typer.echo(f"Before it: {done.slot.before[0].run_id}; return with: foresweep rollback")


def _refitted(
    tracker: Tracker, run: Run, runs_dir: Path, data: str | None, device: str, threads: int
) -> Run:
    from foresweep.data.reading.sources import load_panel
    from foresweep.lifecycle.refit import refit
    from foresweep.models.base import Resources

    panel = None if data is None else load_panel(data).panel
    resources = Resources(device=device, threads=threads)
    done = refit(tracker, run, runs_dir, panel=panel, resources=resources)
    steps = "" if done.steps is None else f", {done.steps} steps as before"
    typer.echo(
        f"Refitted as {done.run.run_id} on {done.num_bars:,} bars until {done.until[:10]}{steps}.",
        err=True,
    )
    return done.run


def rollback(
    slot: SlotName = None,
    reason: Annotated[str, typer.Option(help="Why; it is recorded.", metavar="TEXT")] = "",
    export_path: ExportPath = False,
    as_json: Json = False,
    db: Db = None,
) -> None:
    """Put the champion before back in service, in one step."""
    from foresweep.lifecycle.champion import rollback as back

    with open_existing(db) as tracker:
        after = back(tracker, slot, reason=reason)
        _keep_in_step(tracker, after, asked=export_path)
    if as_json:
        typer.echo(json.dumps(slot_json(after), indent=2))
        return
    assert after.champion is not None
    left = after.history[-1].content["replaces"]
    typer.echo(f"Run {after.champion.run_id} is the champion of slot {after.name} again.")
    typer.echo(f"Out of service: {left}.")


def champion(
    slot: SlotName = None,
    history: Annotated[
        bool, typer.Option("--history", help="Every change of the slot, oldest first.")
    ] = False,
    retire: Annotated[
        str | None, typer.Option(help="Take this shadow out of service.", metavar="RUN")
    ] = None,
    as_json: Json = False,
    db: Db = None,
) -> None:
    """Show what is in service: champion, shadows, since when and by which verdict."""
    from foresweep.errors import NotFound
    from foresweep.lifecycle.champion import find_slot
    from foresweep.lifecycle.champion import retire as take_out
    from foresweep.lifecycle.monitor import last_check
    from foresweep.tracker.service import Service

    with open_existing(db) as tracker:
        service = Service(tracker.store)
        slots: tuple[Slot, ...]
        if retire is not None:
            slots = (take_out(tracker, retire, slot),)
        else:
            slots = (find_slot(service, slot),) if slot else service.slots()
        live = [last_check(tracker, s.name) for s in slots]
    if as_json:
        told = [
            slot_json(s, history=history) | {"live": found}
            for s, found in zip(slots, live, strict=True)
        ]
        typer.echo(json.dumps(told, indent=2, default=str))
        return
    if not slots:
        raise NotFound("nothing is in service yet; promote a run with: foresweep promote RUN")
    for one, found in zip(slots, live, strict=True):
        _draw(one, history=history)
        _draw_live(one, found)


def _draw_live(slot: Slot, found: Mapping[str, Any] | None) -> None:
    """What the monitor said last, and whether a shadow has shown enough to swap."""
    held = slot.champion
    if found is None or held is None or found["run_id"] != held.run_id:
        if held is not None:
            typer.echo("No monitor has looked at it yet: foresweep monitor --data FOLDER")
        return
    typer.echo(
        f"Live: {found['state']} at {found['checked_at']:%Y-%m-%d %H:%M} UTC, "
        f"{found['num_origins']} origins"
    )
    beside = {e.run_id for e in slot.shadows}
    for p in found["shadows"]:
        if p["first"] not in beside:
            continue
        line = swap_line(p["first"], p["pvalue"], p["num_origins"], found=p["is_found"])
        typer.echo(
            line
            or f"Shadow {p['first']}: not enough to swap, p = {p['pvalue']:.2g} over "
            f"{p['num_origins']} origins"
        )


def swap_line(run_id: str, pvalue: float, num_origins: int, *, found: bool) -> str | None:
    """What to do where a shadow has shown enough; None where it has not."""
    if not found:
        return None
    return (
        f"Shadow {run_id} does better than the champion, p = {pvalue:.2g} over {num_origins} "
        f"origins: enough to swap: foresweep promote {run_id} --live"
    )


def _keep_in_step(tracker: Tracker, slot: Slot, *, asked: bool) -> None:
    from foresweep.selection.export import export_run

    if asked and slot.champion is not None:
        run = tracker.get_run(slot.champion.run_id)
        export_run(run, Path(slot.champion.checkpoint_path), folder=Path.cwd())


def slot_json(slot: Slot, *, history: bool = False) -> dict[str, Any]:
    """A slot as plain JSON."""
    found: dict[str, Any] = {
        "slot": slot.name,
        "champion": None if slot.champion is None else _entry_json(slot.champion),
        "since": None if slot.since is None else slot.since.isoformat(),
        "before": [_entry_json(e) for e in slot.before],
        "shadows": [_entry_json(e) for e in slot.shadows],
    }
    if history:
        found["history"] = [_entry_json(e) for e in slot.history]
    return found


def _entry_json(entry: Entry) -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(entry) | {"made_at": entry.made_at.isoformat()}


def _draw(slot: Slot, *, history: bool) -> None:
    from foresweep.cli.tables import console, plain_table

    out = console()
    rows = [("champion", slot.champion)] if slot.champion else []
    rows += [("shadow", e) for e in slot.shadows] + [("before", e) for e in slot.before[:1]]
    if history:
        rows = [(e.action, e) for e in slot.history]
    table = plain_table("", "run", "since" if not history else "at", "by", "why")
    for role, e in rows:
        at = slot.since if e is slot.champion and not history and slot.since else e.made_at
        table.add_row(role, e.run_id, f"{at:%Y-%m-%d %H:%M} UTC", e.who, e.why)
    out.print(f"slot {slot.name}")
    out.print(table)
    if slot.champion is None:
        out.print("No champion: its shadows forecast for nobody. foresweep promote RUN")
