"""Tables and sentences that people read in the terminal: a leaderboard, a front, a verdict."""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from foresweep.cli.options import harmless
from foresweep.evaluation.yardstick import LAST_VALUE
from foresweep.metrics import judged_by, split_score
from foresweep.records import Outcome, RunState
from foresweep.selection.leaderboard import SIGNIFICANT, TOO_GOOD
from foresweep.selection.verdict.case import EXCESS, RETURNS, SKILLS

if TYPE_CHECKING:
    from foresweep.cli.options import HowRead
    from foresweep.data.gate.report import QualityReport
    from foresweep.data.reading.sources import Loaded
    from foresweep.records import (
        Check,
        Cones,
        DeflatedSharpe,
        Economy,
        Run,
        Sweep,
        Verdict,
    )
    from foresweep.selection.leaderboard import Leaderboard, Row
    from foresweep.selection.pareto import Pareto


WIDE = 172
"""Columns at which a table shows everything."""


LONGEST_WORD = 44
"""Characters up to which a word of a table stays in one piece: a run's id does, a path may not."""


A_LITTLE = 6
"""Characters that a column gets before others to stay on one line."""


class FittedTable(Table):
    """A table that breaks no word where the terminal is narrow: it wraps the wordy columns first,
    and where even single words have no room side by side, each row becomes a paragraph."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        sizes = [self._sizes(console, options, column) for column in self.columns]
        needed = sum(least for least, _ in sizes)
        room = options.max_width - 3 * len(sizes) + 1  # what stands between and beside columns
        if needed > room:
            self.collapse_padding, self.show_edge = True, False
            room = options.max_width - 2 * len(sizes) + 1
        if sum(most for _, most in sizes) <= room:
            yield from super().__rich_console__(console, options)
        elif needed <= room:
            spare = room - needed
            shared = sorted(range(len(sizes)), key=lambda k: sizes[k][1] - sizes[k][0])
            for done, k in enumerate(shared):
                least, most = sizes[k]
                fair = spare // (len(sizes) - done)
                more = min(most - least, fair if most - least > A_LITTLE else spare)
                self.columns[k].width, spare = least + more, spare - more
            yield from super().__rich_console__(console, options)
        else:
            yield from self._paragraphs()

    def _sizes(self, console: Console, options: ConsoleOptions, column: Column) -> tuple[int, int]:
        """(longest word, longest line) of a column, in characters."""
        measured = [
            Measurement.get(console, options.update(max_width=10_000), cell)
            for cell in (column.header, *column.cells)
        ]
        most = max(m.maximum for m in measured)
        least = min(max(m.minimum for m in measured), LONGEST_WORD)
        if column.justify == "right":  # a number and its unit
            least = max(least, *(m.maximum for m in measured[1:]), 0)
        least = most if column.no_wrap else least
        return max(least, column.min_width or 0), max(most, column.min_width or 0)

    def _paragraphs(self) -> RenderResult:
        """The first cell of each row, below it the others with their headings; "-" is left out."""
        if self.title:
            yield Text(str(self.title))
        headings = [str(column.header) for column in self.columns]
        for cells in zip(*(column.cells for column in self.columns), strict=True):
            told = [
                f"{heading} {cell}".strip()
                for heading, cell in zip(headings[1:], map(str, cells[1:]), strict=True)
                if cell not in ("", "-")
            ]
            yield Text(f"{headings[0]} {cells[0]}".strip())
            yield Padding(Text(" | ".join(told)), (0, 0, 0, 2))


def plain_table(*headings: str, title: str | None = None) -> Table:
    """A table without heavy frames: reads well in a log file too."""
    table = FittedTable(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
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


def report_lines(report: QualityReport, *, all_by: str = "foresweep data check") -> list[str]:
    """What the data gate did, in a few lines; nothing when it had nothing to say. `all_by`: the
    command that shows every finding; "" where they have been shown."""
    lines = []
    if report.dropped:
        lines.append(
            f"Gate: {len(report.dropped)} left out ({', '.join(report.dropped[:5])}"
            f"{', ...' if len(report.dropped) > 5 else ''}): "
            + "; ".join(str(f) for f in report.errors[:3])
        )
    if report.num_masked:
        lines.append(f"Gate: {report.num_masked:,} of {report.num_rows:,} rows masked.")
    if report.counts:
        counted = ", ".join(f"{rule} {count:,}" for rule, count in report.counts.items())
        lines.append(f"Gate findings: {counted}{f' (all of them: {all_by})' if all_by else ''}.")
    return lines


def read_prices(data: str | None, actions: str | None, how: HowRead) -> tuple[str, Loaded]:
    """(where they are, what was loaded) of what --data names, else the settings, else the default;
    what the gate did is said on standard error. Raises DataError."""
    from foresweep.data.reading.sources import default_source, load_panel
    from foresweep.settings import load_settings

    place = data or default_source(load_settings().data)
    loaded = load_panel(place, actions=actions, **how.said)
    for line in report_lines(loaded.report):
        typer.echo(line, err=True)
    return place, loaded


class Terminal(Console):
    """A console that no text can steer, and that goes silent where nobody reads on: a sweep whose
    pipe was closed is swept to its end."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            steers = not segment.control and not segment.text.isprintable()
            yield Segment(harmless(segment.text), segment.style) if steers else segment


def console() -> Console:
    """Where people read: a terminal (or COLUMNS) at its own width, a file or pipe at a wide one."""
    width = None if "COLUMNS" in os.environ or sys.stdout.isatty() else WIDE
    return Terminal(highlight=False, markup=False, width=width)  # a name may hold brackets


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


def judge_the_cones(sweep: Sweep, runs: Sequence[Run]) -> str:
    """The command that judges a sweep about points by its cones, where no trained run is better
    than last-value in points and one is in cones; "" elsewhere."""
    trained = [r for r in runs if r.state == RunState.COMPLETE and not r.is_baseline]
    points = [s for r in trained if (s := r.score("val_skill")) is not None]
    cones = [(s, r) for r in trained if (s := r.score("val_pinball_skill")) is not None]
    if judged_by(sweep.objective) == "pinball" or not points or not cones:
        return ""
    best, run = max(cones, key=lambda pair: (pair[0], pair[1].run_id))
    if max(points) > 0 or not best > 0:
        return ""
    said = (
        f"No points beat last-value, but cones do: {run.model_name} by {100 * best:.2f} % of "
        f"pinball on val."
    )
    if sweep.mode == "by hand":
        return f"{said} Judge them: train it with --objective pinball, then `foresweep verdict`."
    models = " ".join(f"--model {name}" for name in sweep.models)
    data = shlex.quote(str(sweep.plan.get("data", "")))
    return (
        f"{said} Judge them, nothing equal is trained again: `foresweep sweep {models} "
        f"--mode {sweep.mode} --horizon {sweep.horizon} --data {data} --objective pinball`, then "
        f"`foresweep verdict`."
    )


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


# A verdict: the answer first, then why, then what to know.

GATES = {
    0: "enough evidence",
    1: "skill on val",
    2: "probability of loss",
    3: "clean evidence",
    4: "sealed test",
}
SMALLEST_P = 1e-4
COLOURS = {Outcome.PROMOTE: "bold green", Outcome.HOLD: "bold yellow", Outcome.NAIVE_WINS: "bold"}
PARTS = ("val", "test")
SHARES = ("val_skill", "test_gap")
"""Targets that are shares, shown in percent."""


def show_verdict(v: Verdict) -> None:
    """Print one verdict: the answer, who is judged by what on how much, the gates, the skills, what
    the numbers mean and do not mean, and what else to know."""
    out = console()
    out.print(f"{v.answer}: {v.reason}.", style=COLOURS[v.outcome], soft_wrap=True)
    if said := cones_in_words(v.cones):
        narrow = v.cones is not None and bool(v.cones.too_narrow)
        out.print(said, style="yellow" if narrow else "", soft_wrap=True)
    out.print()
    earned = v.metric == RETURNS
    counts = ", ".join(
        f"{p} {v.num_origins[p]} bars"
        if earned
        else f"{p} {v.num_origins[p]} origins ({v.effective_origins[p]:.0f} that share no label)"
        for p in PARTS
        if p in v.num_origins
    )
    name = v.label if v.label == v.candidate else f"{v.label}, {v.candidate}"
    bars = "bar" if v.horizon == 1 else "bars"
    beside = "".join(f"; and {a.opponent}" for a in v.against[1:])
    for line in (
        f"Candidate  {name}",
        f"Judged by  {v.metric} ({v.unit}), {f'{v.horizon} {bars} ahead, ' * (not earned)}"
        f"{v.num_items} {'item' if v.num_items == 1 and earned else 'items'}",
        f"To beat    {v.benchmark}, {v.benchmark_why}{beside}",
        f"Evidence   {counts}",
        f"Trials     {v.num_trials} tried, {v.num_tested} of them tested together on val",
    ):
        out.print(line, soft_wrap=True)
    for told in v.surrogates:
        from foresweep.selection.verdict import surrogates

        style = "bold red" if told["alarm"] else ""
        out.print(surrogates.in_words(told), style=style, soft_wrap=True)
    if v.declared is not None:
        from foresweep.selection.verdict.declared import in_words

        style = "yellow" if v.declared["departures"] else ""
        out.print(in_words(v.declared), style=style, soft_wrap=True)
    out.print(_gates(v))
    out.print(_skills(v))
    for line in context(v):
        out.print(f"- {line}", soft_wrap=True)
    if v.targets:
        out.print(_targets(v))
    for note in v.notes:
        out.print(f"- {note}", soft_wrap=True)
    out.print()


def cones_in_words(cones: Cones | None) -> str:
    """How much the 80 % band holds, and whether that is too little; "" where it is not known."""
    if cones is None or not cones.groups:
        return ""
    shares = []
    for g in cones.groups:
        low, high = ("?" if b is None else f"{100 * b:.0f}" for b in (g.lower, g.upper))
        name = "" if g.name == "all" else f"{g.name} "
        shares.append(f"{name}{100 * g.share:.0f} % ({low} to {high})")
    said = f"Its 80 % band holds {shares[0]} of the closes of val; {', '.join(shares[1:])}"
    if not cones.too_narrow:
        return f"{said}."
    where = "" if "all" in cones.too_narrow else f" in {' and '.join(cones.too_narrow)} days"
    return f"TOO NARROW{where}: {said[0].lower()}{said[1:]}."


def economy_in_words(economy: Economy) -> str:
    """What the trading rule would have kept."""
    e = economy
    if e.cost_bps is None:
        return f"What the trading rule would keep after costs is not known: {e.why_not}."
    if e.sharpe is None:
        return f"Trading rule at {e.cost_bps:g} bp: {e.why_not or 'undefined'}."

    def ratio(value: float | None, lower: float | None) -> str:
        return f"{value:+.2f}" + ("" if lower is None else f" (above {lower:+.2f}, 95 %)")

    if e.break_even_bps is None:
        even = "costs no more than always-long, so no cost is its break-even"
    elif e.break_even_bps == 0:
        even = "would lose to always-long even free of costs"
    else:
        even = f"breaks even with always-long at {e.break_even_bps:.1f} bp"
    return (
        f"Trading rule after {e.cost_bps:g} bp: Sharpe over always-long "
        f"{ratio(e.sharpe, e.sharpe_lower)} a year, at twice the costs "
        f"{ratio(e.sharpe_twice, e.sharpe_twice_lower)}; it {even}. Nothing is claimed of capacity."
    )


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
    if "skill" in c.name or c.name.startswith(EXCESS.raw):
        return "0 %" if value == 0 else percent(value, 2)
    if " p " in f" {c.name} ":
        return f"< {smallest:.1g}" if value < smallest else f"{value:.2g}"
    if "probability" in c.name:
        return f"{value:.2f}"
    return f"{math.floor(10 * value) / 10:g}"  # never up: 19.96 is not 20


def _skills(v: Verdict) -> Table:
    """Against each opponent, with bounds, and on test where it was opened."""
    earned = v.metric == RETURNS
    title = "return less the opponent's" if earned else "1 - loss / opponent's loss"
    raw = "return a year over it" if earned else "raw skill"
    scaled = "its Sharpe ratio a year" if earned else "scaled skill"
    told = "" if earned else " (each cell by its volatility)"
    size = _ratio if earned else percent
    table = plain_table(title, *(f">against {a.opponent}" for a in v.against))
    rows: dict[str, list[str]] = {}
    for a in v.against:
        bounds = "not known"
        if a.lower_skill is not None and a.upper_skill is not None:
            bounds = f"{size(a.lower_skill, 1)} to {size(a.upper_skill, 1)}"
        cells = {
            f"{raw} on val": percent(a.raw_skill, 2),
            f"{scaled} on val{told}": size(a.scaled_skill, 2),
            "  its bounds, every trial counted (95 % each)": bounds,
            "  t": "-" if a.t is None else f"{a.t:.2f}",
            f"{raw} on test": percent(a.test_raw_skill, 2) if v.looked else "not looked",
            f"{scaled} on test": size(a.test_scaled_skill, 2) if v.looked else "not looked",
        }
        if v.growing:
            bounds = "not yet"
            if a.test_lower_skill is not None and a.test_upper_skill is not None:
                low, high = size(a.test_lower_skill, 1), size(a.test_upper_skill, 1)
                bounds = f"{low} to {high}"
            cells["  its bounds, right at any time"] = bounds
        for name, cell in cells.items():
            rows.setdefault(name, []).append(cell)
    for name, row in rows.items():
        table.add_row(name, *row)
    return table


def context(v: Verdict) -> list[str]:
    """What the numbers mean and do not mean."""
    lines = []
    terms = EXCESS if v.metric == RETURNS else SKILLS
    size = percent if terms is SKILLS else _ratio
    scaled = terms.scaled.replace("over it", f"over {v.benchmark}")
    if v.detectable_skill is not None:
        lines.append(
            f"A true {scaled} of {terms.said(v.detectable_skill, 1)} would be found here in 4 of "
            f"5 cases; smaller ones mostly not."
        )
    if v.expected_best_skill is not None:
        lines.append(
            f"The best of {v.num_trials} trials without any skill (worth "
            f"{v.num_effective_trials:.0f} independent ones) is expected to show "
            f"{'' if terms is SKILLS else f'a {scaled} of '}{size(v.expected_best_skill, 1)}."
        )
    if v.debiased_skill is not None:
        lines.append(
            f"The best on val, less the luck of having been picked: {size(v.debiased_skill, 2)} "
            f"{terms.scaled.removesuffix(' over it')} against {v.benchmark}."
        )
    if v.economy is not None:
        lines.append(economy_in_words(v.economy))
    if v.pbo is not None:
        lines.append(
            f"Probability of backtest overfitting {v.pbo:.2f} ({v.num_blocks} blocks): shown, not "
            f"asked; among equals it is a coin flip."
        )
    if v.overtuning is not None:
        lost = f"{v.overtuning:.3g} {v.unit}" if v.overtuning else "nothing"
        lines.append(f"Overtuning: the pick by tune lost {lost} on val to an earlier pick.")
    if v.best != v.candidate and terms is EXCESS:
        lines.append(
            f"{v.best} earned the most on val; tested is what is earned over {v.benchmark} for how "
            f"much it varies."
        )
    elif v.best != v.candidate:
        lines.append(
            f"By raw losses on val {v.best} is the best; tested are losses over the volatility "
            f"known at the origin."
        )
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
        lines.append(_sharpe(v.sharpe) if terms is SKILLS else _strategy_sharpe(v))
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


def _strategy_sharpe(v: Verdict) -> str:
    """The Sharpe ratio of a strategy's own returns, and what the luck of many trials would show."""
    s = v.sharpe
    assert s is not None
    head = f"Sharpe ratio of {v.candidate} itself on val (not asked: the gates count every trial)"
    if s.annual is None or s.probabilistic is None:
        return f"{head}: {s.why_not}."
    low, high = getattr(s, "lower", None), getattr(s, "upper", None)
    bounds = "" if low is None or high is None else f" ({low:.2f} to {high:.2f}, 95 %)"
    said = f"{head}: {s.annual:.2f} a year{bounds}, above 0 with probability {s.probabilistic:.2f}"
    if s.deflated is None:
        return f"{said}; {s.why_not}."
    return (
        f"{said}. The best of {s.num_trials} trials without any skill is expected to show "
        f"{s.luck:.2f}; above that with probability {s.deflated:.2f} (the deflated Sharpe ratio)."
    )


def _ratio(value: float | None, digits: int) -> str:
    """A Sharpe ratio a year with its sign."""
    return "-" if value is None else f"{value:+.{max(digits, 2)}f}"


def _targets(v: Verdict) -> Table:
    table = plain_table("wish", ">is", ">wished", "", "how plausible")
    for t in v.targets:
        met = "not known" if t.met is None else "met" if t.met else "not met"
        value = "-" if t.value is None or math.isnan(t.value) else f"{t.value:.4g}"
        if value != "-" and t.name in SHARES:
            value = percent(t.value, 2)
        table.add_row(t.name, value, t.target, met, t.comment)
    return table
