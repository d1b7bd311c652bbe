"""The pages beside a sweep: its models, its data, and what is in service."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from foresweep.data.gate.rules import show_time
from foresweep.errors import NotEnoughData, UsageError
from foresweep.lifecycle.monitor import last_check, live_series
from foresweep.metrics import METRICS
from foresweep.records import RunState
from foresweep.reporting import figures
from foresweep.reporting.blocks import (
    Block,
    Cell,
    Column,
    Facts,
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
from foresweep.reporting.figures import Bar
from foresweep.reporting.sweeppage import gate_blocks, parts_table
from foresweep.reporting.verdictpage import share_held
from foresweep.reporting.views import Asked, Site, SweepView, above, run_link
from foresweep.selection.leaderboard import Row
from foresweep.stats.sequential import SequentialTest
from foresweep.tracker.service import EVIDENCE, Entry, Service, Slot

# Models side by side.


def models_page(view: SweepView, asked: Asked) -> Page:
    """Every family, plug-in, ensemble and baseline in one table and one figure, for each horizon of
    the question, by the sweep's own score or another. Raises UsageError for a score that is none of
    losses on val."""
    wanted = asked.metric or view.metric
    if wanted not in _choices(view):
        raise UsageError(
            f"models are compared by a loss on val, not by {wanted!r}; one of "
            f"{', '.join(_choices(view))}"
        )
    sections = tuple(
        Section(
            "models" if one.sweep_id == view.sweep.sweep_id else f"models-{one.horizon}",
            f"{one.horizon} bars ahead",
            tuple(_models(SweepView(view.site, one, wanted), view.sweep.sweep_id)),
        )
        for one in sorted(view.family, key=lambda s: (s.sweep_id != view.sweep.sweep_id, s.horizon))
    )
    if view.site.links.is_live:
        options = tuple((m, f"{m} ({METRICS[m[4:]].unit})") for m in _choices(view))
        form = Form("by", "", "Compare", (Field("metric", "By the score", wanted, options),))
        first = replace(sections[0], blocks=(form, *sections[0].blocks))
        sections = (first, *sections[1:])
    return Page(
        id="models",
        title="Models side by side",
        lead=f"sweep {view.sweep.sweep_id}, by {wanted}",
        sections=sections,
        crumbs=above(view),
    )


def _choices(view: SweepView) -> list[str]:
    """The scores that models may be compared by: the sweep's own, then the losses."""
    losses = [f"val_{n}" for n, m in METRICS.items() if m.loss is not None and n != "skill"]
    return list(dict.fromkeys([view.metric, *losses]))


def _models(view: SweepView, main: str) -> Iterator[Block]:
    board = view.plain_board
    names = list(dict.fromkeys(r.run.model_name for r in board.rows))
    tail = "" if view.sweep.sweep_id == main else f"-{view.sweep.horizon}"
    if not names:
        yield Words("No run has a score yet. Rows appear here as runs end.", "empty")
        return
    versus = board.benchmark or "the benchmark"
    yield Table(
        name=f"models{tail}",
        columns=(
            Column("model"),
            Column("runs", is_number=True),
            Column("failed", is_number=True),
            Column(f"best {view.metric}", is_number=True),
            Column("median", is_number=True),
            Column("skill", is_number=True),
            Column(f"against {versus}", is_number=True),
            Column("pinball", is_number=True),
            Column("80 % band holds", is_number=True),
            Column("direction", is_number=True),
            Column("Sharpe", is_number=True),
            Column("training", is_number=True),
            Column("best run"),
        ),
        rows=tuple(
            _model_row(view, [r for r in board.rows if r.run.model_name == n]) for n in names
        ),
        caption=f"Best and median run of each, on the same windows, {view.sweep.horizon} bars "
        f"ahead, ranked by {view.metric}.",
    )
    yield Figure(
        name=f"models-skill{tail}",
        title=f"Each model's best by {view.metric}",
        alt="Skill against last-value of each model's best run with its 90 % interval.",
        build=partial(_models_spec, view, names),
        height=120 + 34 * len(names),
    )


def _model_row(view: SweepView, mine: Sequence[Row]) -> tuple[Cell, ...]:
    scored = [r for r in mine if r.place and r.score is not None]
    scores = [r.score for r in scored if r.score is not None]
    best = scored[0] if scored else None
    run = best.run if best else None
    name = mine[0].run.model_name + (" (baseline)" if mine[0].run.is_baseline else "")
    return (
        Cell(name, mine[0].run.model_name),
        shown(len(mine)),
        shown(sum(r.run.state == RunState.FAILED for r in mine)),
        number(best.score if best else None),
        number(statistics.median(scores) if scores else None),
        share(best.skill if best else None, is_marked=not mine[0].run.is_baseline),
        share(best.benchmark_skill if best else None),
        number(run.score(f"{view.part}_pinball") if run else None),
        number(run.score(f"{view.part}_coverage_80") if run else None, 2),
        number(run.score(f"{view.part}_directional_accuracy") if run else None, 3),
        number(run.score(f"{view.part}_sharpe") if run else None, 2),
        took(run.training_time_seconds if run else None),
        run_link(view, run) if run else Cell("–", mark="faint"),
    )  # fmt: skip


def _models_spec(view: SweepView, names: Sequence[str]) -> Spec:
    bars = []
    for name in names:
        rows = [r for r in view.plain_board.rows if r.place and r.run.model_name == name]
        if rows:
            bounds = view.skill_bounds(rows[0].run)
            low, high = (bounds.skill_lower, bounds.skill_upper) if bounds else (None, None)
            bars.append(Bar(name, rows[0].skill, low, high, rows[0].run.is_baseline))
    bars.sort(key=lambda b: -(b.value if b.value is not None else -np.inf))
    return figures.skills(bars, "skill of the best against last-value on val, %")


# Data: the panel as the gate left it.


def data_page(view: SweepView) -> Page:
    sweep = view.sweep
    return Page(
        id="data",
        title="Data",
        lead=f"{sweep.plan.get('data', 'by hand')} as the gate left it, for sweep {sweep.sweep_id}",
        sections=tuple(_data(view)),
        crumbs=above(view),
    )


def _data(view: SweepView) -> Iterator[Section]:
    sweep = view.sweep
    if isinstance(view.stage, str):
        yield Section("panel", "The panel", (Words(f"Not at hand: {view.stage}", "empty"),))
    else:
        yield Section("panel", "The panel", tuple(_panel_blocks(view)))
    if sweep.plan.get("parts"):
        yield Section("parts", "How time was cut", (parts_table(sweep),))
    yield Section("findings", "What the gate found", tuple(_findings(view)))


def _panel_blocks(view: SweepView) -> Iterator[Block]:
    assert not isinstance(view.stage, str)
    panel, split = view.stage
    yield Facts(
        (
            ("items", shown(panel.num_items)),
            ("bars", Cell(f"{panel.num_rows:,}", panel.num_rows)),
            ("first", Cell(str(panel.timeline[0].astype("datetime64[D]")))),
            ("last", Cell(str(panel.timeline[-1].astype("datetime64[D]")))),
            ("scored items", shown(len(split.items))),
        ),
        kind="tiles",
    )
    yield Figure(
        name="strip",
        title="Sessions without a sound bar",
        alt="Share of each item's sessions of each month that are missing or masked.",
        build=partial(_strip, view),
        height=120 + min(600, 22 * panel.num_items),
        note="Green: whole. The parts begin at the dashed lines."
        + (f" {MOST_ITEMS} of {panel.num_items} shown." if panel.num_items > MOST_ITEMS else ""),
    )
    rows = []
    for i, name in enumerate(panel.items[:MOST_ITEMS]):
        times, missing = panel.timestamps_of(i), _missing(view, i)
        ends = [str(t.astype("datetime64[D]")) for t in (times[0], times[-1])]
        rows.append((Cell(name), shown(len(times)), Cell(ends[0]), Cell(ends[1]), shown(missing)))
    yield Table(
        name="items",
        columns=(
            Column("item"),
            Column("bars", is_number=True),
            Column("from"),
            Column("to"),
            Column("sessions missing", is_number=True),
        ),
        rows=tuple(rows),
        num_all=panel.num_items,
    )


MOST_ITEMS = 200


def _missing(view: SweepView, item: int) -> int:
    """Sessions of its calendar, between its first and last bar, at which an item has none."""
    assert not isinstance(view.stage, str)
    sessions = view.stage[0].bars[item].sessions
    return int(sessions[-1] - sessions[0] + 1 - len(sessions))


def _strip(view: SweepView) -> Spec:
    assert not isinstance(view.stage, str)
    panel, split = view.stage
    months = panel.timeline.astype("datetime64[M]")
    every = np.unique(months)
    rows = []
    for i in range(min(panel.num_items, MOST_ITEMS)):
        own = panel.timeline[panel.calendars[panel.calendar_of[i]]]
        times = panel.timestamps_of(i)
        inside = own[(own >= times[0]) & (own <= times[-1])].astype("datetime64[M]")
        here = times.astype("datetime64[M]")
        due = np.searchsorted(inside, every, "right") - np.searchsorted(inside, every, "left")
        came = np.searchsorted(here, every, "right") - np.searchsorted(here, every, "left")
        rows.append(np.where(due > 0, 1 - came / np.maximum(due, 1), np.nan))
    parts = [(p.name, str(panel.timeline[p.start].astype("datetime64[D]"))) for p in split.parts]
    names = [f"{m}-01" for m in every.astype(str)]
    return figures.heat_strip(panel.items[:MOST_ITEMS], names, np.array(rows), parts)


def _findings(view: SweepView) -> Iterator[Block]:
    found = view.findings
    yield from gate_blocks(view)
    if not found:
        return
    yield Table(
        name="findings",
        columns=(
            Column("item"),
            Column("row", is_number=True),
            Column("rule"),
            Column("severity"),
            Column("what"),
            Column("file"),
        ),
        rows=tuple(
            (
                Cell(str(f.get("item") or "")),
                shown(f.get("row")),
                Cell(str(f["rule"])),
                Cell(str(f.get("severity", ""))),
                Cell(str(f["message"])),
                Cell(str(f.get("file") or "")),
            )
            for f in found[:200]
        ),
        num_all=len(found),
    )


# In service.


def service_page(site: Site) -> Page:
    """What serves in each slot, how it does live, and what was there before."""
    slots = Service(site.tracker.store).slots()
    crumbs = (("Overview", site.links.to("") or "#overview"),)
    if not slots:
        words = (
            "No champion is in service. A verdict that says promote allows one: foresweep verdict, "
            "then foresweep promote RUN. From then on foresweep predict forecasts with it and "
            "foresweep monitor --data FOLDER holds its forecasts against what came."
        )
        nothing = Section("service", "No champion yet", (Words(words, "empty"),))
        return Page("service", "In service", "the champion, live skill, alarms", (nothing,), crumbs)
    sections = tuple(
        Section(f"slot-{k}", slot.name, tuple(_slot(site, slot, k)), is_live=True)
        for k, slot in enumerate(slots, start=1)
    )
    lead = f"{len(slots)} slot{'' if len(slots) == 1 else 's'}"
    return Page("service", "In service", lead, sections, crumbs)


def _slot(site: Site, slot: Slot, k: int) -> Iterator[Block]:
    champion = slot.champion
    if champion is None:
        yield Words("Shadows alone: no champion was promoted here yet.", "empty")
    else:
        yield from _champion(site, slot, champion, k)
    yield _history(site, slot, k)


def _champion(site: Site, slot: Slot, champion: Entry, k: int) -> Iterator[Block]:
    found = last_check(site.tracker, slot.name)
    live = found if found is not None and found["run_id"] == champion.run_id else None
    state = str(live["state"]) if live else "not looked at"
    run = Cell(champion.run_id, href=site.links.to("run", champion.run_id), mark="code")
    before = slot.before[0].run_id if slot.before else "none"
    yield Facts(
        (
            ("champion", run),
            ("since", when(slot.since or champion.made_at)),
            ("state", Cell(state, mark=LIVE_MARKS.get(state.lower(), "warn"))),
            ("scored origins", shown(live["num_origins"] if live else None)),
            ("80 % band holds, live", share_held(live["coverage"] if live else None)),
            ("rollback returns to", Cell(before)),
        ),
        kind="tiles",
    )
    if champion.reason:
        yield Words(f"It was put in service without a verdict that allows it: {champion.reason}")
    elif evidence := champion.content.get(EVIDENCE):
        how = "an update" if evidence["kind"] == "update" else "its live forecasts"
        yield Words(f"It came by {how}: {evidence['words']}")
    if live is None:
        yield Words(
            "No monitor has looked at this champion yet: foresweep monitor --data FOLDER", "empty"
        )
        return
    last_bar = show_time(np.datetime64(live["last_bar"]))
    yield Words(f"Looked at {live['checked_at']:%Y-%m-%d %H:%M} UTC; bars to {last_bar}.")
    for reason in live["reasons"]:
        kind = "bad" if str(reason["state"]).lower() == "alarm" else "warn"
        yield Words(f"{str(reason['state']).upper()}: {reason['text']}", kind)
    if live["next_sweep"]:
        yield Words(f"What may be done: {live['next_sweep']}")
    yield Table(
        name=f"live-{k}",
        columns=(
            Column("forecasts of"),
            Column("against"),
            Column("origins", is_number=True),
            Column("skill, live", is_number=True),
            Column("p, valid at any time", is_number=True),
            Column("counts at", is_number=True),
            Column("enough"),
        ),
        rows=tuple(
            (
                Cell(str(p["first"])),
                Cell(str(p["second"])),
                shown(p["num_origins"]),
                share(p["skill"], is_marked=True),
                number(p["pvalue"], 3),
                number(p["level"], 3),
                Cell("yes" if p["is_found"] else "no", mark=mark if p["is_found"] else ""),
            )
            for mark, rows in (("bad", live["against"]), ("good", live["shadows"]))
            for p in rows
        ),
        caption="The champion: enough evidence is an alarm that it is worse. A shadow: that it is "
        "better. Looked at as often as one likes.",
    )
    if not live["num_origins"]:
        yield Words("No live forecast has been scored yet: its truth is still to come.", "empty")
        return
    for name, word in (("benchmark", "its benchmark"), ("last_value", "last-value")):
        yield Figure(
            name=f"live-{name.replace('_', '-')}-{k}",
            title=f"{slot.name} against {word}, live",
            alt=f"Mean difference of scaled losses between {word} and the champion, with bounds.",
            build=partial(_live_spec, site, slot, name, int(live["horizon"])),
            note="Above 0: the champion is better so far. The bounds hold at all origins at once "
            "(confidence sequence): looking often widens nothing.",
            is_live=True,
            height=300,
        )


LIVE_MARKS = {"ok": "good", "alarm": "bad"}


def _live_spec(site: Site, slot: Slot, other: str, horizon: int) -> Spec:
    """Mean difference up to each origin with its confidence sequence, 90 % of both sides together
    (`stats.sequential`)."""
    said = live_series(site.tracker, slot)
    if len(said["origins"]) != len(said[other]) or not said["origins"]:
        raise NotEnoughData("no live forecast has been scored yet")
    gaps = np.array(said[other], dtype=float) - np.array(said["champion"], dtype=float)
    test = SequentialTest(lags=horizon - 1)
    read = [test.update(float(gap)) for gap in gaps]
    some = [(t, r) for t, r in zip(said["origins"], read, strict=True) if np.isfinite(r.lower)]
    if not some:
        raise NotEnoughData(
            f"{len(read)} live origins are too few for bounds that hold at any time"
        )
    times = [t for t, _ in some]
    mean, low, high = (
        np.array([getattr(r, name) for _, r in some]) for name in ("mean", "lower", "upper")
    )
    return figures.bounded(times, mean, (low, high), "scaled loss difference")


def _history(site: Site, slot: Slot, k: int) -> Table:
    return Table(
        name=f"history-{k}",
        columns=(Column("what"), Column("run"), Column("when"), Column("who"), Column("why")),
        rows=tuple(
            (
                Cell(entry.action),
                Cell(
                    entry.run_id,
                    href=site.links.to("run", entry.run_id) if entry.run_id else None,
                    mark="code",
                ),
                when(entry.made_at),
                Cell(entry.who),
                Cell(entry.why),
            )
            for entry in reversed(slot.history)
        ),
        caption=f"{slot.name}: its history, newest first. Back to the champion before: foresweep "
        f"rollback",
    )
