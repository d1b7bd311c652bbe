"""Tables and sentences that people read in the terminal, several objectives included."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from foresweep.evaluation.yardstick import LAST_VALUE
from foresweep.metrics import split_score
from foresweep.selection.leaderboard import SIGNIFICANT, TOO_GOOD

if TYPE_CHECKING:
    from foresweep.data.gate.report import QualityReport
    from foresweep.records import Run
    from foresweep.selection.leaderboard import Leaderboard, Row
    from foresweep.selection.pareto import Pareto


WIDE = 172
"""Columns at which a table shows everything."""


def plain_table(*headings: str, title: str | None = None) -> Table:
    """A table without heavy frames: reads well in a log file too."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for heading in headings:
        right = heading.startswith(">")
        table.add_column(
            heading.removeprefix(">"), justify="right" if right else "left", overflow="fold"
        )
    return table


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share with its sign: skill reads as +1.2 %."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:+.{digits}f} %"


def seconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value < 100:
        return f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 6000 else f"{value / 3600:.1f} h"


def config_name(run: Run) -> str:
    """What the config was called where it was proposed: `demo: short` -> `short`."""
    where, _, name = run.source.partition(": ")
    if run.is_baseline:
        return name if where == "baseline" else ""
    return name or run.source


def leaderboard_table(board: Leaderboard, *, width: int, limit: int | None = None) -> Table:
    """Rank, score, skill against last-value and against the benchmark, spread over seeds, time and
    state; quantile scores and the run's id where `width` has room for them. `set`: S is better than
    the benchmark with every trial counted (StepM), M cannot be told from the best (MCS)."""
    part, _ = split_score(board.metric)
    wide = width >= WIDE
    other = board.benchmark is not None and board.benchmark != LAST_VALUE
    seeded = any(row.seeds for row in board.rows)
    marked = any(row.in_mcs is not None for row in board.rows)
    headings = [">#", "model", "config", f">{board.metric}", ">skill vs naive"]
    headings += [f">vs {board.benchmark}"] if other else []
    headings += [">over seeds"] if seeded else []
    headings += ["set"] if marked else []
    headings += [">pinball", ">80 % band"] if wide else []
    headings += [">training", "state"] + (["run"] if wide else [])
    table = plain_table(*headings)
    for row in board.rows[:limit]:
        run = row.run
        beaten = row.skill is not None and row.skill > 0
        cells = [str(row.place or ""), run.model_name, config_name(run) or "baseline"]
        cells += [number(row.score), percent(row.skill, 2)]
        cells += [percent(row.benchmark_skill, 2)] if other else []
        cells += [_over_seeds(row)] if seeded else []
        cells += [("S" if row.superior else "") + ("M" if row.in_mcs else "")] if marked else []
        quantiles = [
            number(run.score(f"{part}_pinball")),
            number(run.score(f"{part}_coverage_80"), 2),
        ]
        cells += quantiles if wide else []
        cells += [seconds(run.training_time_seconds), row.note or run.state.value]
        cells += [run.run_id] if wide else []
        table.add_row(*cells, style="dim" if run.is_baseline else ("green" if beaten else ""))
    return table


def _over_seeds(row: Row) -> str:
    spread = row.seeds
    return "-" if spread is None else f"{spread.lowest:.3f} to {spread.highest:.3f}"


def standing_lines(board: Leaderboard) -> list[str]:
    """What the marks of a table say, in words; nothing where there are none."""
    marked = [r for r in board.rows if r.in_mcs is not None and not r.run.is_baseline]
    lines = []
    if marked:
        superior = sum(bool(r.superior) for r in marked)
        lines.append(
            f"Better than {board.benchmark} with all {len(marked)} configs counted (StepM, 5 %): "
            f"{superior or 'none'}. Not to be told from the best (MCS, 90 %): "
            f"{sum(bool(r.in_mcs) for r in marked)}."
        )
    best = board.best
    if best and board.one_se_choice not in (None, best.run.run_id):
        chosen = next(r for r in board.rows if r.run.run_id == board.one_se_choice)
        lines.append(
            f"Within one standard error of the best, the cheapest is {chosen.run.model_name} "
            f"({config_name(chosen.run)}), trained in {seconds(chosen.run.training_time_seconds)}: "
            f"{chosen.run.run_id}."
        )
    if best and (tied := board.tied) is not None and best.seeds is not None:
        lines.append(
            f"A tie: the lead over {tied.run.model_name} ({config_name(tied.run)}) is smaller than "
            f"the spread over {best.seeds.num_seeds} seeds of the best."
        )
    return lines


def verdict_line(board: Leaderboard, row: Row | None = None) -> str:
    """One honest sentence about a run (default: the best trained) against the naive forecast."""
    best = row or board.best
    if best is None and all(r.run.is_baseline for r in board.rows):
        return "Only baselines were run; train a model to compare with them."
    if best is None:
        return "No trained run has a score: see the causes with `foresweep runs --state failed`."
    named = f"{best.run.model_name} ({config_name(best.run) or 'baseline'})"
    leads = best == board.best
    who = f"The best trained run, {named}," if leads else f"{named[0].upper()}{named[1:]}"
    scored = f"{board.metric} {number(best.score)}"
    if best.skill is None:
        return f"{who} has {scored}."
    if best.skill <= 0:
        who = (
            f"Nothing beats naive: the best trained run, {named},"
            if leads
            else f"{named} does not beat naive: it"
        )
        return f"{who} has {scored}, {_worse(best)} than last-value on the same windows."
    if best.note == TOO_GOOD:
        return (
            f"{who} has {scored}, {100 * best.skill:.0f} % better than last-value: too good to be "
            f"true on daily prices. Look for a leak in the data before anything else."
        )
    return (
        f"{who} has {scored}, {100 * best.skill:.2f} % better than last-value on the same "
        f"windows{_doubt(best, board)}"
    )


def _worse(row: Row) -> str:
    assert row.skill is not None
    return f"{-100 * row.skill:.2f} % worse" if row.skill < 0 else "no better"


def _doubt(row: Row, board: Leaderboard) -> str:
    """How much of a lead could be luck, said beside it."""
    p, trials = board.p_value(row), board.num_trials
    if p is None:
        return f". No test of {board.metric} says whether that is more than luck."
    among = f"the best of {trials}" if row == board.best else f"one of {trials} trained runs"
    luck = "it may well be luck" if p * max(trials, 1) > SIGNIFICANT else "hardly luck alone"
    return (
        f". One-sided Diebold-Mariano p = {p:.3f} for this run alone; it is {among}, so {luck} "
        f"(a lead counts below p = {SIGNIFICANT / max(trials, 1):.4f})."
    )


def report_lines(report: QualityReport) -> list[str]:
    """What the data gate did, in a few lines; nothing when it had nothing to say."""
    lines = []
    if report.dropped:
        lines.append(
            f"Gate: {len(report.dropped)} left out ({', '.join(report.dropped[:5])}"
            f"{', ...' if len(report.dropped) > 5 else ''}): "
            + "; ".join(str(f) for f in report.errors[:3])
        )
    if report.num_masked:
        lines.append(f"Gate: {report.num_masked} of {report.num_rows:,} rows masked.")
    if report.counts:
        counted = ", ".join(f"{rule} {count}" for rule, count in report.counts.items())
        lines.append(f"Gate findings: {counted} (all of them: foresweep data check).")
    return lines


def console() -> Console:
    """Where people read: a terminal (or COLUMNS) at its own width, a file or pipe at a wide one."""
    width = None if "COLUMNS" in os.environ or sys.stdout.isatty() else WIDE
    return Console(highlight=False, markup=False, width=width)  # a name may hold brackets


# The table of a sweep with several objectives: its front, its knee, what is dominated.


MOST_OTHERS = 10
"""Rows shown below the front."""


def show_pareto(runs: Iterable[Run], objective: str, out: Console | None = None) -> None:
    """Print the front on val where the objective is of several metrics; nothing elsewhere."""
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
