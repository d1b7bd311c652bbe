"""Records as a notebook shows them: the pages' own blocks, with still pictures and no script.

`records.Shown._repr_html_` asks for this by name, so that records know no page.
"""

from __future__ import annotations

from functools import partial, singledispatch

import numpy as np

from foresweep.errors import MissingExtra
from foresweep.evaluation.predict import PanelForecast
from foresweep.records import Run, Sweep, Verdict, steering_words
from foresweep.reporting import runpage, verdictpage
from foresweep.reporting.blocks import (
    Block,
    Cell,
    Column,
    Facts,
    Figure,
    Page,
    Section,
    Spec,
    Table,
    Words,
    number,
    share,
    shown,
    took,
    when,
)
from foresweep.reporting.figures import Fan, fan
from foresweep.reporting.render import Context, templates
from foresweep.reporting.still import svg_of
from foresweep.reporting.sweeppage import parts_table
from foresweep.reporting.views import config_cell, day, state_cell
from foresweep.selection.leaderboard import Leaderboard

MOST_ROWS = 50
MOST_FANS = 4


def html_of(value: object) -> str | None:
    """A record as HTML; None where the libraries of the pages are not installed, so that a
    notebook shows its plain `repr`."""
    try:
        template = templates().get_template("notebook.html")
    except MissingExtra:
        return None
    page = page_of(value)
    stills = {n: svg_of(f.build(), f.alt, height=f.height) for n, f in page.figures().items()}
    return template.render(page=page, ctx=Context(is_live=False), stills=stills)


@singledispatch
def page_of(value: object) -> Page:
    """The page of one value. Raises TypeError for what has none."""
    raise TypeError(f"{type(value).__name__} has no page")


def _page(title: str, lead: str, *sections: tuple[str, tuple[Block, ...]]) -> Page:
    named = (Section(f"s{k}", t, blocks) for k, (t, blocks) in enumerate(sections))
    return Page("value", title, lead, tuple(named))


@page_of.register
def _(sweep: Sweep) -> Page:
    facts = Facts(
        (
            ("state", state_cell(sweep.state.value)),
            ("models", Cell(", ".join(sweep.models))),
            ("mode", Cell(sweep.mode)),
            ("objective", Cell(sweep.objective)),
            ("horizon", Cell(f"{sweep.horizon} bars", sweep.horizon)),
            ("trials", shown(sweep.num_trials)),
            ("data", Cell(str(sweep.plan.get("data", "–")))),
            ("steered by", Cell(steering_words(sweep.fingerprints) or "all windows of tune")),
            ("started", when(sweep.started_at)),
            ("ended", when(sweep.finished_at)),
        )
    )
    parts = (parts_table(sweep),) if sweep.plan.get("parts") else ()
    return _page(f"Sweep {sweep.name or sweep.sweep_id}", "", ("", (facts, *parts)))


@page_of.register
def _(run: Run) -> Page:
    config = Table(
        name="config",
        columns=(Column("hyperparameter"), Column("value")),
        rows=tuple((Cell(n, mark="code"), shown(v)) for n, v in run.hyperparams.items()),
    )
    lead = f"{run.model_name}, {run.source or 'by hand'}"
    return _page(
        f"Run {run.run_id}", lead,
        ("", tuple(runpage.summary(run))), ("Scores", (runpage.scores_table(run),)),
        ("Config", (config,)),
    )  # fmt: skip


@page_of.register
def _(verdict: Verdict) -> Page:
    said = verdict.without_test()  # a notebook is kept and sent; a look at test is on record
    return _page(
        f"Verdict on {verdict.label}",
        f"run {verdict.candidate} against {verdict.benchmark}, {verdict.horizon} bars ahead",
        ("", tuple(verdictpage.answer(said))),
        ("Gate by gate", (verdictpage.gates_table(said), verdictpage.against_table(said))),
        ("Luck and power", tuple(verdictpage.luck_blocks(said))),
        ("Notes", tuple(Words(n) for n in verdict.notes)),
    )


@page_of.register
def _(board: Leaderboard) -> Page:
    ranked = sorted(board.rows, key=lambda r: not r.run.is_baseline)[:MOST_ROWS]
    rows = tuple(
        (
            Cell(str(row.place or "")),
            Cell(row.run.model_name),
            config_cell(row),
            number(row.score),
            share(row.skill, is_marked=not row.run.is_baseline),
            share(row.benchmark_skill),
            Cell("★" * (row.superior is True) + "≈" * (row.in_mcs is True)),
            took(row.run.training_time_seconds),
            Cell(row.run.run_id, mark="code"),
        )
        for row in ranked
    )
    table = Table(
        name="leaderboard",
        columns=(
            Column("#"),
            Column("model"),
            Column("config"),
            Column(board.metric, is_number=True),
            Column("skill", is_number=True),
            Column(f"against {board.benchmark or 'the benchmark'}", is_number=True),
            Column("marks"),
            Column("training", is_number=True),
            Column("run"),
        ),
        rows=rows,
        num_pinned=sum(r.run.is_baseline for r in ranked),
        num_all=len(board.rows) - sum(r.run.is_baseline for r in ranked),
        caption=f"Baselines on top; equal windows only ({board.fingerprint[:12] or 'by hand'}).",
    )
    return _page("Leaderboard", f"ranked by {board.metric}", ("", (table,)))


@page_of.register
def _(said: PanelForecast) -> Page:
    figures = tuple(
        Figure(
            name=f"fan-{n}",
            title=f"{item}, from {day(said.origins[n])}",
            alt=f"Median forecast of {item} with its bands over the candles before.",
            build=partial(_drawn, said, n),
        )
        for n, item in enumerate(said.items[:MOST_FANS])
    )
    levels, values = said.forecast.levels, said.forecast.values
    rows = tuple(
        (
            Cell(item),
            Cell(day(said.times[n, h])),
            number(float(said.last_close[n])),
            *(number(float(values[n, h, q])) for q in range(len(levels))),
        )
        for n, item in enumerate(said.items)
        for h in range(values.shape[1])
    )
    table = Table(
        name="forecast",
        columns=(
            Column("item"),
            Column("for"),
            Column("last close", is_number=True),
            *(Column(f"q{100 * level:g}", is_number=True) for level in levels),
        ),
        rows=rows[:MOST_ROWS],
        num_all=len(rows),
    )
    of = f"{min(MOST_FANS, len(said.items))} of {len(said.items)} items drawn"
    return _page(f"Forecast by {said.model}", of, ("", figures), ("Quantiles", (table,)))


def _drawn(said: PanelForecast, n: int) -> Spec:
    return fan(_fan(said, n))


def _fan(said: PanelForecast, n: int) -> Fan:
    """Item n: its last bars, then the forecast; where no bars are kept, the last close alone."""
    times, bars = said.recent[n] if said.recent else (said.origins[n : n + 1], None)
    ahead = [day(t) for t in (said.origins[n], *said.times[n])]
    close = float(said.last_close[n])
    known = np.full((1, 4), close) if bars is None else bars
    missing = np.full((len(ahead) - 1, 4), np.nan)
    values = said.forecast.values[n]
    quantiles = np.vstack([np.full(values.shape[1], close), values])
    return Fan(
        item=said.items[n],
        times=[*(day(t) for t in times), *ahead[1:]],
        bars=np.vstack([known, missing]),
        ahead=ahead,
        quantiles=quantiles,
        levels=said.forecast.levels,
    )
