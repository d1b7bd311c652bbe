"""Beside a leaderboard: marks from the losses, breakdowns, and runs of other windows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from foresweep.records import Sweep
    from foresweep.selection.leaderboard import Leaderboard, Row
    from foresweep.tracker.tracker import Tracker


def with_marks(
    tracker: Tracker, board: Leaderboard, rows: Sequence[Row], sweep: Sweep | None
) -> tuple[Leaderboard, list[Row], tuple[str, ...]]:
    """The board and those rows with StepM and MCS members marked, and what is not in it and why."""
    from foresweep.selection.standing import elsewhere, with_standing

    marked = with_standing(board)
    row_of = {row.run.run_id: row for row in marked.rows}
    by_hand = len(tracker.get_runs(fingerprint=""))
    apart = elsewhere(tracker.list_sweeps(), sweep, by_hand)
    return marked, [row_of[row.run.run_id] for row in rows], apart


def say_apart(apart: Sequence[str]) -> None:
    """Runs of other windows, and why they have no place in the table."""
    from foresweep.cli.tables import console

    if apart:
        out = console()
        out.print("Not in this table, since scores of other windows cannot be compared:")
        for line in apart:
            out.print(f"- {line}", soft_wrap=True)


def show_breakdown(board: Leaderboard, row: Row, by: str, *, as_json: bool) -> None:
    """Print a run's losses by item, origin, lead, year or regime."""
    from foresweep.cli.tables import console, number, percent, plain_table
    from foresweep.selection.leaderboard import LAST_VALUE
    from foresweep.selection.standing import breakdown

    found = breakdown(board, row.run, by)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    other = board.benchmark not in (None, LAST_VALUE)
    headings = [by, f">{board.metric}", ">skill vs naive"]
    headings += [f">vs {board.benchmark}"] if other else []
    table = plain_table(*headings, ">windows")
    for one in found:
        cells = [one.key, number(one.loss), percent(one.skill, 2)]
        cells += [percent(one.benchmark_skill, 2)] if other else []
        table.add_row(*cells, str(one.num_windows))
    out = console()
    out.print(f"{row.run.model_name}  run {row.run.run_id}  ({row.run.source})")
    out.print(table)
    won = sum((one.skill or 0.0) > 0 for one in found)
    out.print(f"Better than last-value on {won} of {len(found)} {by}s; one line alone is luck.")
