"""The table of a sweep with several objectives: its front, its knee, what is dominated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from foresweep.records import Run
    from foresweep.selection.pareto import Pareto

MOST_OTHERS = 10
"""Rows shown below the front."""


def show_pareto(runs: Iterable[Run], objective: str, out: Console | None = None) -> None:
    """Print the front on val where the objective is of several metrics; nothing elsewhere."""
    from foresweep.cli.tables import config_name, console, number, plain_table
    from foresweep.selection.pareto import pareto

    out = out or console()
    found = pareto(runs, objective)
    if found is None or not found.points:
        return
    table = plain_table("model", "config", *(f">{m}" for m in found.metrics), "stands", "run")
    shown = found.points[: len(found.front) + MOST_OTHERS]
    for point in shown:
        cells = [number(s, 4) if s is not None else "undefined" for s in point.scores]
        style = "green" if point.is_knee else "" if point.is_front else "dim"
        run = point.run
        table.add_row(run.model_name, config_name(run), *cells, point.word, run.run_id, style=style)
    ids = table.columns[-1]  # is copied into the next command, so it stays in one piece
    ids.no_wrap, ids.min_width = True, max(len(p.run.run_id) for p in shown)
    out.print(table)
    if more := len(found.points) - len(shown):
        out.print(f"... and {more} more that are dominated or undefined.")
    for line in pareto_lines(found):
        out.print(line, soft_wrap=True)


def pareto_lines(found: Pareto) -> list[str]:
    """What the table says, in words."""
    from foresweep.cli.tables import config_name, number

    front, among = found.front, [p for p in found.points if p.dominated_by is not None]
    names = ", ".join(found.metrics)
    lines = [f"Front of {names}: {len(front)} of {len(among)} configs."]
    if len(front) == 1:
        lines = [f"One of {len(among)} configs is the best in each of {names}: nothing to trade."]
    elif found.knee is not None:
        run = found.knee.run
        lines.append(
            f"Knee: {run.model_name} ({config_name(run)}), run {run.run_id}: from there on more of "
            f"one objective costs most of the others."
        )
    elif front:
        lines.append("No knee: no run lies below the line between the ends of the front.")
    naive = [
        f"{m} {number(s, 4) if s is not None else 'undefined'}"
        for m, s in zip(found.metrics, found.naive, strict=True)
    ]
    return [*lines, f"last-value on the same windows: {', '.join(naive)}."]


def pareto_places(runs: Iterable[Run], objective: str) -> dict[str, dict[str, Any]]:
    """Where each config stands, as plain JSON, by the id of the run that stands for it; {} where
    the objective is of one metric."""
    from foresweep.selection.pareto import pareto

    found = pareto(runs, objective)
    if found is None:
        return {}
    return {
        point.run.run_id: {
            "pareto": {
                "scores": dict(zip(found.metrics, point.scores, strict=True)),
                "dominated_by": point.dominated_by,
                "is_front": point.is_front,
                "is_knee": point.is_knee,
                "note": point.note,
            }
        }
        for point in found.points
    }
