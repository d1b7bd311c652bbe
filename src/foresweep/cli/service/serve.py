"""`serve`: forecasts by the champion over HTTP."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from foresweep.cli.options import Db, Device, Threads, open_existing


def serve(
    slot: Annotated[
        str | None, typer.Option(help="Place of service. Default: the only one.")
    ] = None,
    port: Annotated[int, typer.Option(help="0: any free one.", min=0, max=65535)] = 8766,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine a token is asked for.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(
            help="What callers must give, 16 characters or more. Default: one is made.",
            envvar="FORESWEEP_TOKEN",
        ),
    ] = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record/--no-record", help="Put every forecast on record before it is answered."
        ),
    ] = True,
    max_body: Annotated[float, typer.Option(help="Largest body, in MiB.", min=0.001)] = 8.0,
    max_items: Annotated[int, typer.Option(help="Most items a request.", min=1)] = 512,
    max_horizon: Annotated[int, typer.Option(help="Most bars ahead.", min=1)] = 64,
    max_time: Annotated[float, typer.Option(help="Seconds until a request ends.", min=0.1)] = 30.0,
    max_waiting: Annotated[
        int,
        typer.Option(help="Items that may wait; beyond it callers are told to come back.", min=1),
    ] = 2048,
    device: Device = "cpu",
    threads: Threads = 1,
    db: Db = None,
) -> None:
    """Answer POST /forecast by the champion; a promotion takes over without a request dropped.

    Shadows forecast beside it, on record alone. GET / shows the addresses with an example that
    runs. A caller beyond this machine sends the header `Authorization: Bearer TOKEN`.
    """
    from foresweep.errors import MissingExtra

    try:
        from foresweep.serving.app import Limits, serving_app
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "fastapi", "web") from error
    from foresweep.models.base import Resources, on_device
    from foresweep.serving.batching import Batcher
    from foresweep.serving.live import Live
    from foresweep.web import guard_for, listen, place_of
    from foresweep.web import serve as run

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    guard = guard_for(host, token, is_read_only=False, is_api=True)
    limits = Limits(max_body, max_items, max_horizon, max_time, max_waiting)
    resources = on_device(Resources(device=device, threads=threads))
    with open_existing(db) as tracker:
        live = Live.open(tracker, slot, resources)
        app = serving_app(live, guard, limits=limits, batcher=Batcher(live, record=record))
        with listen(host, port) as listening:
            place = place_of(host, listening)
            current = live.current.champion
            typer.echo(f"Slot {live.name}: run {current.run_id} ({current.forecaster.model})")
            asked = "" if guard.token is None else f"  token {guard.token}"
            typer.echo(f"Forecasts at {place}{asked}  (Ctrl-C stops)")
            run(app, listening, grace_s=int(max_time))
