"""The pages above the sweeps: what there is and what runs now, and runs of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from foresweep.records import Run, Sweep
from foresweep.reporting import figures
from foresweep.reporting.blocks import (
    Block,
    Cell,
    Column,
    Field,
    Figure,
    Form,
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
from foresweep.reporting.report import latest_verdict
from foresweep.reporting.sweeppage import at_work, seconds_left
from foresweep.reporting.views import Asked, Site, SweepView, curve, state_cell
from foresweep.tracker.queries import pages as queries

QUIET_MINUTES = 3
"""Of a running run: its head beats far more often."""
SHOWN_CURVES = 8


# Overview: what sweeps there are, and what runs now.


def overview(site: Site, asked: Asked) -> Page:
    sweeps = site.tracker.list_sweeps()
    if asked.where:
        word = asked.where.lower()
        sweeps = [s for s in sweeps if word in " ".join((s.sweep_id, *s.models, s.mode)).lower()]
    now = _now_blocks(site)
    running = sum(s.state == "running" for s in sweeps)
    return Page(
        id="overview",
        title="Overview",
        lead=f"{len(sweeps)} sweep{'' if len(sweeps) == 1 else 's'}, {running} of them running",
        sections=(
            Section("now", "Now", tuple(now), is_live=True),
            Section("sweeps", "Sweeps", tuple(_sweeps(site, sweeps, asked)), is_live=True),
        ),
    )


def _now_blocks(site: Site) -> Iterator[Block]:
    with site.tracker.store.read() as connection:
        beats = queries.beats(connection)
    if not beats:
        yield Words(
            "Nothing runs. Start a sweep and it appears here: foresweep sweep --model all --data "
            "FOLDER",
            kind="empty",
        )
        return
    now = datetime.now(UTC)
    rows = []
    for beat in beats[:50]:
        run = site.tracker.get_run(beat.run_id)
        quiet = None if beat.heartbeat_at is None else (now - beat.heartbeat_at).total_seconds()
        is_late = quiet is None or quiet > 60 * QUIET_MINUTES
        steps = run.hyperparams.get("max_steps")
        heard = "never" if quiet is None else f"{quiet:.0f} s ago" if quiet < 120 else (
            f"{quiet / 60:.0f} min ago"
        )  # fmt: skip
        elapsed = (now - run.started_at).total_seconds() if run.started_at else None
        rows.append(
            (
                Cell(run.run_id, href=site.links.to("run", run.run_id), mark="code"),
                Cell(run.model_name),
                Cell(run.source),
                Cell(f"{beat.last_step} of {steps}" if steps else str(beat.last_step)),
                took(elapsed),
                took(_left(elapsed, beat.last_step, steps)),
                Cell(heard, mark="bad" if is_late else ""),
            )
        )
        if is_late:
            said = "at all" if quiet is None else f"for {quiet / 60:.0f} minutes"
            yield Words(f"Nothing has been heard of {run.run_id} {said}.", "bad")
    yield Table(
        name="running",
        columns=(
            Column("run"),
            Column("model"),
            Column("config"),
            Column("step"),
            Column("for", is_number=True),
            Column("left", is_number=True),
            Column("heard of"),
        ),
        rows=tuple(rows),
        num_all=len(beats),
        caption="What runs now.",
    )
    yield Figure(
        name="now-curves",
        title="Loss of what runs now",
        alt="Loss on train of the running runs over their steps.",
        build=partial(_now_curves, site, [b.run_id for b in beats[:SHOWN_CURVES]]),
        note=f"{min(len(beats), SHOWN_CURVES)} of {len(beats)} shown",
        is_live=True,
        height=280,
    )


def _left(elapsed: float | None, step: int, steps: Any) -> float | None:
    if not elapsed or not step or not isinstance(steps, int):
        return None
    return elapsed * max(0, steps - step) / step


def _now_curves(site: Site, run_ids: Sequence[str]) -> Spec:
    found = [(run_id, *curve(site, run_id, "train_loss", 500)[1:]) for run_id in run_ids]
    return figures.lines(found, "step", "train_loss")


def _sweeps(site: Site, sweeps: Sequence[Sweep], asked: Asked) -> Iterator[Block]:
    if not sweeps:
        yield Words("No sweep yet. The first: foresweep sweep --model all --mode demo", "empty")
        return
    some = sweeps[asked.offset : asked.offset + asked.size]
    verdicts = site.tracker.judgings.verdicts()
    rows = []
    for sweep in some:
        view = SweepView(site, sweep)
        states = view.states
        ended = sum(n for s, n in states.items() if s not in ("running", "waiting"))
        bad = [f"{states[s]} {s}" for s in ("failed", "lost", "pruned") if states.get(s)]
        best = view.own_best
        said = latest_verdict(verdicts, view.cells)
        word = str(said["outcome"]) if said else "–"
        rows.append(
            (
                Cell(sweep.sweep_id, href=site.links.to("sweep", sweep.sweep_id), mark="code"),
                state_cell(sweep.state.value),
                Cell(", ".join(sweep.models)),
                Cell(sweep.mode),
                shown(sweep.horizon),
                Cell(sweep.objective),
                Cell(f"{ended} of {sum(states.values())}", ended),
                at_work(view, states.get("running", 0)),
                took(seconds_left(view)),
                Cell(", ".join(bad), mark="warn" if bad else ""),
                share(best.skill if best else None, is_marked=True),
                Cell(word, href=site.links.to("verdict", sweep.sweep_id) if said else None),
                when(sweep.started_at),
                took(_elapsed(sweep)),
            )
        )
    yield Table(
        name="sweeps",
        columns=(
            Column("sweep"),
            Column("state"),
            Column("models"),
            Column("mode"),
            Column("horizon", is_number=True),
            Column("objective"),
            Column("runs ended", is_number=True),
            Column("at work"),
            Column("left", is_number=True, title="as fast as its trials ended so far"),
            Column("not complete"),
            Column("best skill", is_number=True, title="best trained run, on val, last-value = 0"),
            Column("verdict"),
            Column("started"),
            Column("took", is_number=True),
        ),
        rows=tuple(rows),
        num_all=len(sweeps),
        caption="Newest first; the skill is of the sweep's own objective.",
    )


def _elapsed(sweep: Sweep) -> float:
    return ((sweep.finished_at or datetime.now(UTC)) - sweep.started_at).total_seconds()


# Runs of every sweep and of none.


def runs_page(site: Site, asked: Asked) -> Page:
    """Every run, also those logged by hand, newest first or as asked. Raises UsageError and
    UnknownName for a filter or order that cannot be read."""
    found = site.tracker.get_runs(
        where=asked.where or None,
        sort=asked.sort or None,
        limit=asked.offset + asked.size + 1,
    )
    found = found if asked.sort else found[::-1]
    rows = tuple(_run_row(site, r) for r in found[asked.offset : asked.offset + asked.size])
    hint = 'as in `foresweep runs --where`: lr < 1e-3 and model = "toto"'
    form = Form("filter", "", "Filter", (Field("where", "Only runs with", asked.where, hint=hint),))
    table = Table(
        name="runs",
        columns=(
            Column("run", sort="run_id"),
            Column("model", sort="model_name"),
            Column("state", sort="state"),
            Column("config", sort="source"),
            Column("val_pct_mae", is_number=True, sort="val_pct_mae"),
            Column("val_skill", is_number=True, sort="val_skill"),
            Column("training", is_number=True, sort="training_time_seconds"),
            Column("started", sort="created_at"),
            Column("tags"),
            Column("sweep", sort="sweep_id"),
        ),
        rows=rows,
        num_all=len(found) if len(found) > len(rows) or asked.page > 1 else None,
        is_paged=True,
        picks=tuple(str(row[0].text) for row in rows),
        caption="Of every sweep and of none: scores compare only where the windows are the same.",
    )
    nothing = Words("No run is like that.", "empty")
    return Page(
        id="runs",
        title="Runs",
        lead="newest first" if not asked.sort else f"by {asked.sort}",
        sections=(Section("runs", "Runs", (form, table if rows else nothing), is_live=True),),
        crumbs=(("Overview", site.links.to("") or "#overview"),),
    )


def _run_row(site: Site, run: Run) -> tuple[Cell, ...]:
    sweep = None if run.sweep_id is None else site.links.to("sweep", run.sweep_id)
    return (
        Cell(run.run_id, href=site.links.to("run", run.run_id), mark="code"),
        Cell(run.model_name),
        state_cell(run.state.value),
        Cell(run.source),
        number(run.score("val_pct_mae")),
        share(run.score("val_skill"), is_marked=not run.is_baseline),
        took(run.training_time_seconds),
        when(run.created_at),
        Cell(", ".join(run.tags)),
        Cell(run.sweep_id or "by hand", href=sweep, mark="code" if sweep else "faint"),
    )
