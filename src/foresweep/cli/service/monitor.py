"""`monitor`: is what is in service still worth it? For people, and for cron."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from foresweep.cli.options import Actions, Data, Db, HowRead, Json, Runs, settings, sharing
from foresweep.cli.service.champion import SlotName, in_service, swap_line
from foresweep.errors import ForesweepError

if TYPE_CHECKING:
    from foresweep.lifecycle.monitor import Check

WATCH, ALARM = 5, 6
"""Exit codes, beside 0 for OK, 1 for an error and 2 for bad usage."""


@sharing(HowRead)
def monitor(
    how: HowRead,
    slot: SlotName = None,
    data: Data = None,
    actions: Actions = None,
    every: Annotated[
        int, typer.Option(help="Bars between two forecasts, where not every bar has one.", min=1)
    ] = 1,
    notify: Annotated[
        str | None,
        typer.Option(
            help="Whom to tell at every ALARM and whenever the state changes: a command (JSON on "
            "its standard input) or an http(s) URL (POST).",
            metavar="COMMAND|URL",
        ),
    ] = None,
    as_json: Json = False,
    db: Db = None,
    runs: Runs = None,
) -> None:
    """Score the forecasts whose truth has come, and say how the champion does.

    OK ends with exit code 0, WATCH with 5, ALARM with 6. An ALARM is a feed without bars, a
    champion without forecasts, or losses worse than the benchmark's or last-value's by a paired
    test that may be read every day; level, coverage and inputs are watched only. It prints the
    sweep to run next and never starts it.
    """
    from foresweep.lifecycle.monitor import last_check
    from foresweep.lifecycle.monitor import monitor as look
    from foresweep.lifecycle.notify import notify as tell

    with in_service(db, slot, data, actions, how) as (tracker, found, place, panel):
        before = last_check(tracker, found.name)
        check = look(
            tracker,
            found,
            panel,
            data=place,
            every=every,
            runs_dir=settings(db, runs).runs_dir,
            places=[*(["--db", db] if db else []), *(["--runs", str(runs)] if runs else [])],
        )
    if as_json:
        typer.echo(json.dumps(check.as_json(), indent=2))
    else:
        _draw(check)
    code = {"WATCH": WATCH, "ALARM": ALARM}.get(check.state.value, 0)
    changed = before is not None and before["state"] != check.state.value
    if notify is not None and (code == ALARM or changed or (before is None and code)):
        try:
            tell(notify, check.as_json())
        except ForesweepError as error:
            if not code:
                raise
            typer.echo(f"error: {error}", err=True)  # what is the matter outranks it
    if code:
        raise typer.Exit(code)


def _draw(check: Check) -> None:
    from foresweep.cli.tables import console, number, plain_table

    out = console()
    out.print(f"{check.state.value}: slot {check.slot}, run {check.run_id}", soft_wrap=True)
    for reason in check.reasons:
        out.print(f"  {reason.state.value}: {reason.text}", soft_wrap=True)
    if check.num_origins:
        table = plain_table(
            "live", "against", ">origins", ">forecasts", ">skill", ">scaled difference", ">p", ""
        )
        for name, pairs, found in (
            ("champion", check.against, "worse"),
            ("shadow", check.shadows, "better: swap"),
        ):
            for p in pairs:
                who = name if name == "champion" else f"shadow {p.first}"
                other = "champion" if name == "shadow" else p.second
                table.add_row(
                    who, other, str(p.num_origins), str(p.num_forecasts), _percent(p.skill),
                    number(p.difference, 4), number(p.pvalue, 3), found if p.is_found else "",
                )  # fmt: skip
        out.print(table)
    else:
        out.print("No forecast of the champion has come true yet.")
    for why, num in check.left_out.items():
        out.print(f"{num} forecasts are no evidence: {why}.", soft_wrap=True)
    if check.scored.waiting:
        out.print(f"{check.scored.waiting} forecasts wait for their truth.")
    for p in check.shadows:
        if line := swap_line(p.first, p.pvalue, p.num_origins, found=p.is_found):
            out.print(line, soft_wrap=True)
    if check.next_sweep is not None:
        out.print("The next sweep, on today's bars (its trials will be counted):", soft_wrap=True)
        out.print(f"  {check.next_sweep}", soft_wrap=True)


def _percent(skill: float | None) -> str:
    return "" if skill is None else f"{100 * skill:+.2f} %"
