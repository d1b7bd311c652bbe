"""`data check|show`: the gate, and what a panel would be cut into."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foresweep.cli.options import Actions, Horizon, HowRead, Json, sharing

if TYPE_CHECKING:
    from foresweep.data.gate.report import QualityReport
    from foresweep.data.reading.sources import Loaded
    from foresweep.data.summary import PanelSummary, PartSummary

BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "_.-=+*#@"
"""Levels of a picture, low to high, where a terminal can write them and where not."""
MOST_FINDINGS, EXAMPLES = 40, 2
"""Findings up to which all are shown; beyond, how many of a rule that drops nothing."""
NARROW = 120
"""Columns of a terminal below which the pictures have a table of their own."""

app = typer.Typer(help="Check and describe market data.", no_args_is_help=True)
Source = Annotated[
    str | None,
    typer.Argument(
        help="A folder, a file or 'demo'. Default: what the settings name, else "
        "trainingdata/train, else the demo."
    ),
]

Draft = Annotated[
    str | None,
    typer.Option(
        "--write-actions",
        help="Write a draft of the actions file there: a line for each jump that is found.",
    ),
]


@app.command()
@sharing(HowRead)
def check(
    how: HowRead,
    source: Source = None,
    actions: Actions = None,
    write_actions: Draft = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every finding, however many there are.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the data gate: findings name file, row and rule; exit 1 if an item was dropped."""
    from foresweep.data.gate.report import NothingLeft
    from foresweep.data.reading.sources import default_source, load_panel
    from foresweep.settings import load_settings

    place = source or default_source(load_settings().data)
    try:
        loaded = load_panel(place, actions=actions, progress=_reading(), **how.said)
    except NothingLeft as nothing:
        if write_actions is not None:
            _write_draft(write_actions, nothing.report, actions)
        raise
    report = loaded.report
    if write_actions is not None:
        _write_draft(write_actions, report, actions)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        _draw_findings(loaded, every)
    if report.errors:
        raise typer.Exit(1)


def _write_draft(path: str, report: QualityReport, listed: str | None) -> None:
    from foresweep.data.gate import actions

    known = actions.read_actions(listed) if listed is not None else None
    actions.write_actions(path, report.drafts, known)
    num = len(report.drafts)
    lines = f"{num} line{'' if num == 1 else 's'}"
    typer.echo(
        f"{lines} for an actions file in {path}: check them, then --actions {path}", err=True
    )


def _reading() -> Callable[[int, int], None] | None:
    """Says on a terminal how many files are read, where there are many."""
    if not sys.stderr.isatty():
        return None

    def say(done: int, total: int) -> None:
        if total >= 20 and (done % 10 == 0 or done == total - 1):
            end = "\r" if done < total - 1 else "\r\033[K"
            print(f"reading {done + 1:,} of {total:,} files", end=end, file=sys.stderr, flush=True)

    return say


def _draw_findings(loaded: Loaded, every: bool) -> None:
    """All errors, and of each other rule a few where there are many; `every`: all of all."""
    from foresweep.cli.tables import console, report_lines

    out, report, num = console(), loaded.report, loaded.panel.num_items
    few = not every and len(report.findings) > MOST_FINDINGS
    shown: Counter[str] = Counter()
    if report.findings:
        for f in report.findings:
            shown[f.rule] += 1
            if few and f.severity != "error" and shown[f.rule] > EXAMPLES:
                continue
            named = "" if not f.item or f.item in Path(f.file).name else f" ({f.item})"
            out.print(f"{f.severity:<8} {f}{named}", soft_wrap=True)
        out.print()
    if few:
        out.print(
            f"Shown are all errors and the first {EXAMPLES} findings of each other rule, of "
            f"{len(report.findings):,} in all: --all shows every one.",
            soft_wrap=True,
        )
    for line in report_lines(report, all_by="--all" if few else ""):
        out.print(line, soft_wrap=True)
    out.print(f"{num:,} item{'' if num == 1 else 's'} can be used.")
    if loaded.kept_at is not None:
        out.print(f"As read before and kept in {loaded.kept_at} (FORESWEEP_CACHE=off reads anew).")


@app.command()
@sharing(HowRead)
def show(
    how: HowRead,
    source: Source = None,
    horizon: Horizon = 5,
    actions: Actions = None,
    as_json: Json = False,
) -> None:
    """What a sweep would use: items with a picture of their closes, dates, masked rows, and the
    four parts for a horizon."""
    import dataclasses

    from foresweep.data.reading.sources import default_source, load_panel
    from foresweep.data.summary import summarise
    from foresweep.settings import load_settings

    place = source or default_source(load_settings().data)
    panel = load_panel(place, actions=actions, progress=_reading(), **how.said).panel
    found = summarise(panel, horizon=horizon)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        _draw_summary(found)


def sparkline(closes: Sequence[float | None], aside: Sequence[int], levels: str) -> str:
    """Closes as levels on a logarithmic scale, blank where there are none; under them a line that
    marks stretches with bars that are set aside, where there are any."""
    known = [math.log(c) for c in closes if c is not None]
    low, span = min(known), max(max(known) - min(known), 1e-12)
    top = len(levels) - 1
    drawn = "".join(
        " " if c is None else levels[round((math.log(c) - low) / span * top)] for c in closes
    )
    marks = "".join("^" if n else " " for n in aside)
    return f"{drawn}\n{marks}" if marks.strip() else drawn


def parts_line(parts: Sequence[PartSummary]) -> str:
    """The parts' names above the pictures, each from where it begins, as far as it has room."""
    from foresweep.data.summary import WIDTH

    edges = [*(p.first for p in parts), WIDTH]
    cells = [
        f"|{p.name}"[: b - a].ljust(b - a) for p, a, b in zip(parts, edges, edges[1:], strict=False)
    ]
    return "".join(cells)


def _can_write(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _draw_summary(found: PanelSummary) -> None:
    from foresweep.cli.tables import console, plain_table

    out = console()
    out.print(
        f"{found.source}: {found.num_items} items, {found.num_bars:,} bars of {found.step}, "
        f"{found.start} to {found.end}, {found.num_masked} rows masked"
    )
    levels = BLOCKS if _can_write(out.encoding, BLOCKS) else PLAIN
    pictures, facts = ["item", "closes"], ["from", "to", ">bars", ">masked", ">missing", "calendar"]
    beside = out.width >= NARROW  # else a folded picture would be none
    drawn = plain_table(*pictures, *(facts if beside else []))
    told = drawn if beside else plain_table("item", *facts)
    if found.parts:
        drawn.add_row("", parts_line(found.parts))
    for i in found.items:
        picture = (i.item_id, sparkline(i.closes, i.aside, levels))
        row = (
            i.start, i.end, f"{i.num_bars:,}", str(i.num_masked), str(i.num_missing),
            i.calendar or "its own days",
        )  # fmt: skip
        drawn.add_row(*picture, *(row if beside else ()))
        if not beside:
            told.add_row(i.item_id, *row)
    out.print(drawn)
    if not beside:
        out.print(told)
    if any(any(i.aside) for i in found.items):
        out.print("^ marks bars that are masked or missing.")
    if found.problem:
        out.print(f"Horizon {found.horizon}: {found.problem}", style="red")
        return
    parts = plain_table(
        "part", "from", "to", ">bars", ">stride", ">origins", ">effective", ">windows"
    )
    for p in found.parts:
        parts.add_row(
            p.name, p.start, p.end, str(p.num_bars), str(p.stride), str(p.num_origins or "-"),
            f"{p.effective_origins:.0f}" if p.num_origins else "-", f"{p.num_windows:,}",
        )  # fmt: skip
    out.print(
        f"Horizon {found.horizon}, contexts of at most {found.max_context} bars "
        f"(train: windows with a context of {found.train_context}):"
    )
    out.print(parts)
