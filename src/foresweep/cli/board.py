"""Beside a leaderboard: marks from the losses, breakdowns, trading, runs of other windows."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from foresweep.cli.options import metric_of
from foresweep.cli.predict import standing

if TYPE_CHECKING:
    from foresweep.evaluation.breakdown import Group
    from foresweep.records import Run, Sweep
    from foresweep.selection.leaderboard import Leaderboard, Row
    from foresweep.tracker.tracker import Tracker


def with_marks(
    tracker: Tracker, board: Leaderboard, rows: Sequence[Row], sweep: Sweep | None
) -> tuple[Leaderboard, list[Row], tuple[str, ...]]:
    """The board and those rows with StepM and MCS members marked, and what is not in it and why."""
    from foresweep.selection.standing import elsewhere, with_standing

    marked = with_standing(board, sweep)
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


# `show RUN --by` and `show RUN --cost-bps`: a run of record, asked again.


def show_groups(
    tracker: Tracker, run: Run, by: str, metric: str | None, *, runs_dir: Path, as_json: bool
) -> None:
    """Print a run's score by item, origin, lead, year or regime."""
    from foresweep.selection.groups import run_groups

    sweep = None if run.sweep_id is None else tracker.get_sweep(run.sweep_id)
    name = metric or metric_of(sweep)
    found = run_groups(tracker, _here(tracker, run), name, by, runs_dir=runs_dir)
    if as_json:
        typer.echo(json.dumps([_plain(asdict(group)) for group in found], indent=2))
        return
    _draw(run, name, by, found)


def _draw(run: Run, name: str, by: str, found: tuple[Group, ...]) -> None:
    from foresweep.cli.tables import console, number, percent, plain_table

    bounded = any(g.lower is not None for g in found)
    against = any(g.skill is not None for g in found)
    headings = [by, f">{name}", *([">95 %"] if bounded else [])]
    headings += [">skill vs naive"] if against else []
    headings += [">95 %"] if against and bounded else []
    table = plain_table(*headings, ">windows", ">origins")
    for g in found:
        cells = [g.key, number(g.score)]
        cells += [_span(g.lower, g.upper, number)] if bounded else []
        cells += [percent(g.skill, 2)] if against else []
        cells += [_span(g.skill_lower, g.skill_upper, percent)] if against and bounded else []
        table.add_row(*cells, str(g.num_windows), str(g.num_origins))
    out = console()
    out.print(f"{run.model_name}  run {run.run_id}  ({run.source})")
    out.print(table)
    if against:
        won = sum((g.skill or 0.0) > 0 for g in found)
        out.print(f"Better than last-value on {won} of {len(found)}; one line alone is luck.")


def _span(low: float | None, high: float | None, form: Any) -> str:
    return "-" if low is None or high is None else f"{form(low)} to {form(high)}"


def show_trading(
    tracker: Tracker, run: Run, part: str, cost_bps: float, *, runs_dir: Path, as_json: bool
) -> None:
    """Print what the trading rule would have earned on a run's forecasts at another cost."""
    from foresweep.cli.tables import console, number, plain_table
    from foresweep.metrics import METRICS
    from foresweep.selection.groups import run_trading

    found = run_trading(
        tracker, _here(tracker, run), part, runs_dir=runs_dir, cost_bps=cost_bps
    ).scores
    if as_json:
        scores = {f"{part}_{name}": value for name, value in found.items()}
        typer.echo(json.dumps(_plain({"cost_bps": cost_bps} | scores), indent=2))
        return
    table = plain_table("score", ">value", "unit")
    for name, value in found.items():
        table.add_row(f"{part}_{name}", number(value, 4), METRICS[name].unit)
    out = console()
    out.print(f"{run.model_name}  run {run.run_id}  at {cost_bps:g} basis points")
    out.print(table)
    if math.isnan(found["sharpe"]):
        out.print("The forecast never takes a position of its own: undefined.")


def _here(tracker: Tracker, run: Run) -> Run:
    """The run with the path of its forecasts as it is found from here."""
    if run.forecasts_path is None:
        return run
    found = standing(tracker, run, Path(run.forecasts_path))
    return run if found is None else replace(run, forecasts_path=str(found))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """What is undefined as null."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}
