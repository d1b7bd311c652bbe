"""The verdict as a note that people read: the answer first, then why, then what to know."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from foresweep.cli.tables import console, percent, plain_table
from foresweep.records import Outcome

if TYPE_CHECKING:
    from rich.table import Table

    from foresweep.records import Check, DeflatedSharpe, Verdict

GATES = {
    0: "enough evidence",
    1: "skill on val",
    2: "probability of loss",
    3: "weights before test",
    4: "sealed test",
}
SMALLEST_P = 1e-4
COLOURS = {Outcome.PROMOTE: "bold green", Outcome.HOLD: "bold yellow", Outcome.NAIVE_WINS: "bold"}
PARTS = ("val", "test")
SHARES = ("val_skill", "test_gap")
"""Targets that are shares, shown in percent."""


def draw(v: Verdict) -> None:
    """Print one verdict: the answer, who is judged by what on how much, the gates, the skills, what
    the numbers mean and do not mean, and what else to know."""
    out = console()
    out.print(f"{v.outcome.value.upper()}: {v.reason}.", style=COLOURS[v.outcome], soft_wrap=True)
    out.print()
    counts = ", ".join(
        f"{p} {v.num_origins[p]} origins ({v.effective_origins[p]:.0f} that share no label)"
        for p in PARTS
        if p in v.num_origins
    )
    name = v.label if v.label == v.candidate else f"{v.label}, {v.candidate}"
    bars = "bar" if v.horizon == 1 else "bars"
    beside = "".join(f"; and {a.opponent}" for a in v.against[1:])
    for line in (
        f"Candidate  {name}",
        f"Judged by  {v.metric} ({v.unit}), {v.horizon} {bars} ahead, {v.num_items} items",
        f"To beat    {v.benchmark}, {v.benchmark_why}{beside}",
        f"Evidence   {counts}",
        f"Trials     {v.num_trials} tried, {v.num_tested} of them tested together on val",
    ):
        out.print(line, soft_wrap=True)
    out.print(_gates(v))
    out.print(_skills(v))
    for line in context(v):
        out.print(f"- {line}", soft_wrap=True)
    if v.targets:
        out.print(_targets(v))
    for note in v.notes:
        out.print(f"- {note}", soft_wrap=True)
    out.print()


def _gates(v: Verdict) -> Table:
    table = plain_table("gate", "", ">value", ">needed", "")
    last = None
    for c in v.checks:
        title = "" if c.gate == last else f"{c.gate} {GATES[c.gate]}"
        last = c.gate
        state = "not looked" if c.passed is None else "passed" if c.passed else "NOT PASSED"
        style = "dim" if c.passed is None else "" if c.passed else "yellow"
        smallest = 1 / v.num_draws if "StepM" in c.name else SMALLEST_P
        value = "-" if c.passed is None else _said(c, c.value, smallest)
        needed = "-" if c.threshold is None else f"{c.relation} {_said(c, c.threshold)}"
        table.add_row(title, c.name, value, needed, state, style=style)
    return table


def _said(c: Check, value: float | str | None, smallest: float = 0.0) -> str:
    if value is None:
        return "not known"
    if isinstance(value, str):
        return value
    if "skill" in c.name:
        return "0 %" if value == 0 else percent(value, 2)
    if " p " in f" {c.name} ":
        return f"< {smallest:.1g}" if value < smallest else f"{value:.2g}"
    if "probability" in c.name:
        return f"{value:.2f}"
    return f"{math.floor(10 * value) / 10:g}"  # never up: 19.96 is not 20


def _skills(v: Verdict) -> Table:
    """Against each opponent, with bounds, and on test where it was opened."""
    table = plain_table(
        "1 - loss / opponent's loss", *(f">against {a.opponent}" for a in v.against)
    )
    rows: dict[str, list[str]] = {}
    for a in v.against:
        bounds = "not known"
        if a.lower_skill is not None and a.upper_skill is not None:
            bounds = f"{percent(a.lower_skill, 1)} to {percent(a.upper_skill, 1)}"
        cells = {
            "raw skill on val": percent(a.raw_skill, 2),
            "scaled skill on val (each cell by its volatility)": percent(a.scaled_skill, 2),
            "  its bounds, every trial counted (95 % each)": bounds,
            "  t": "-" if a.t is None else f"{a.t:.2f}",
            "raw skill on test": percent(a.test_raw_skill, 2) if v.looked else "not looked",
            "scaled skill on test": percent(a.test_scaled_skill, 2) if v.looked else "not looked",
        }
        for name, cell in cells.items():
            rows.setdefault(name, []).append(cell)
    for name, row in rows.items():
        table.add_row(name, *row)
    return table


def context(v: Verdict) -> list[str]:
    """What the numbers mean and do not mean."""
    lines = []
    if v.detectable_skill is not None:
        lines.append(
            f"A true scaled skill of {100 * v.detectable_skill:.1f} % would be found here in 4 of "
            f"5 cases; smaller ones mostly not."
        )
    if v.expected_best_skill is not None:
        lines.append(
            f"The best of {v.num_trials} trials without any skill (worth "
            f"{v.num_effective_trials:.0f} independent ones) is expected to show "
            f"{percent(v.expected_best_skill, 1)}."
        )
    if v.debiased_skill is not None:
        lines.append(
            f"The best on val, less the luck of having been picked: {percent(v.debiased_skill, 2)} "
            f"scaled skill against {v.benchmark}."
        )
    if v.pbo is not None:
        lines.append(
            f"Probability of backtest overfitting {v.pbo:.2f} ({v.num_blocks} blocks): shown, not "
            f"asked; among equals it is a coin flip."
        )
    if v.overtuning is not None:
        lost = f"{v.overtuning:.3g} {v.unit}" if v.overtuning else "nothing"
        lines.append(f"Overtuning: the pick by tune lost {lost} on val to an earlier pick.")
    if v.one_se_choice != v.best:
        lines.append(
            f"Within one standard error of the best, the cheapest to train is {v.one_se_choice}."
        )
    if v.zero_shot is not None:
        base, over = (
            float(v.zero_shot[k]) for k in ("raw_skill_vs_benchmark", "candidate_skill_over_it")
        )
        lines.append(
            f"The same weights without fine-tuning: {percent(base, 2)} against {v.benchmark}; "
            f"fine-tuning changed that by {percent(over, 2)}."
        )
    if v.sharpe is not None:
        lines.append(_sharpe(v.sharpe))
    if v.judged_number > 1:
        lines.append(
            f"This is judging {v.judged_number} on these cells: p has to be below {v.level:.2g}."
        )
    return lines


def _sharpe(s: DeflatedSharpe) -> str:
    """What the trading rule would have earned, and how much of it is the luck of many trials."""
    head = "Sharpe ratio of the trading rule on val (after cost, over always-long; not asked)"
    if s.annual is None or s.probabilistic is None:
        return f"{head}: {s.why_not}."
    said = f"{head}: {s.annual:.2f} a year, above 0 with probability {s.probabilistic:.2f}"
    if s.deflated is None:
        return f"{said}; {s.why_not}."
    return (
        f"{said}. The best of {s.num_trials} trials by luck alone shows {s.luck:.2f}; above that "
        f"with probability {s.deflated:.2f}."
    )


def _targets(v: Verdict) -> Table:
    table = plain_table("wish", ">is", ">wished", "", "how plausible")
    for t in v.targets:
        met = "not known" if t.met is None else "met" if t.met else "not met"
        value = "-" if t.value is None or math.isnan(t.value) else f"{t.value:.4g}"
        if value != "-" and t.name in SHARES:
            value = percent(t.value, 2)
        table.add_row(t.name, value, t.target, met, t.comment)
    return table
