"""The pages above one sweep and beside it: overview, models, data, verdict, service."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np

from foresweep.records import TEST_GATE, RunState, Sweep, is_sealed
from foresweep.reporting import figures
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
from foresweep.reporting.figures import Bar
from foresweep.reporting.report import latest_verdict
from foresweep.reporting.sweeppage import parts_table, run_link, state_cell
from foresweep.reporting.views import Asked, Site, SweepView
from foresweep.selection.leaderboard import Row
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
        lead=f"{len(sweeps)} sweeps, {running} of them running",
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
    found = []
    for run_id in run_ids:
        points = site.tracker.get_curve(run_id, "train_loss")
        step = -(-len(points) // 500) or 1
        found.append((run_id, [p[0] for p in points[::step]], [p[1] for p in points[::step]]))
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
        word = str(said["content"]["outcome"]) if said else "–"
        rows.append(
            (
                Cell(sweep.sweep_id, href=site.links.to("sweep", sweep.sweep_id), mark="code"),
                state_cell(sweep.state.value),
                Cell(", ".join(sweep.models)),
                Cell(sweep.mode),
                shown(sweep.horizon),
                Cell(sweep.objective),
                Cell(f"{ended} of {sum(states.values())}", ended),
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


# Models side by side.


def models_page(view: SweepView) -> Page:
    """Every family, plug-in, ensemble and baseline in one table and one figure."""
    board = view.plain_board
    names = list(dict.fromkeys(r.run.model_name for r in board.rows))
    rows = [_model_row(view, [r for r in board.rows if r.run.model_name == n]) for n in names]
    versus = board.benchmark or "the benchmark"
    table = Table(
        name="models",
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
        rows=tuple(rows),
        caption=f"Best and median run of each, on the same windows, {view.sweep.horizon} bars "
        f"ahead, ranked by {view.metric}.",
    )
    figure = Figure(
        name="models-skill",
        title="Each model's best",
        alt="Skill against last-value of each model's best run with its 90 % interval.",
        build=partial(_models_spec, view, names),
        height=120 + 34 * len(names),
    )
    return Page(
        id="models",
        title="Models side by side",
        lead=f"sweep {view.sweep.sweep_id}",
        sections=(Section("models", "All models compared", (table, figure)),),
        crumbs=_above(view),
    )


def _above(view: SweepView) -> tuple[tuple[str, str], ...]:
    links, sweep_id = view.site.links, view.sweep.sweep_id
    return (
        ("Overview", links.to("") or "#overview"),
        (f"Sweep {sweep_id}", links.to("sweep", sweep_id) or "#sweep"),
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
        crumbs=_above(view),
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
    if view.sweep.dataset_id is None:
        yield Words("No data set is on record for this sweep.", "empty")
        return
    found: Any = view.tracker.get_dataset(view.sweep.dataset_id).get("findings") or []
    if not found:
        yield Words("The gate found nothing to say: no row masked, no item dropped.", "good")
        return
    counts = Counter((str(f["rule"]), str(f.get("severity", ""))) for f in found)
    yield Table(
        name="rules",
        columns=(Column("rule"), Column("severity"), Column("findings", is_number=True)),
        rows=tuple(
            (Cell(rule), Cell(severity, mark="bad" if severity == "error" else ""), shown(count))
            for (rule, severity), count in counts.most_common()
        ),
        caption="By rule.",
    )
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


# The verdict, as far as it may be told: what it saw of test is not on record.


def verdict_page(view: SweepView) -> Page:
    row = view.verdict
    return Page(
        id="verdict",
        title="Verdict",
        lead=f"sweep {view.sweep.sweep_id}, {view.sweep.horizon} bars ahead",
        sections=tuple(_verdict(view, row)),
        crumbs=_above(view),
    )


def _verdict(view: SweepView, row: Mapping[str, Any] | None) -> Iterator[Section]:
    if row is None:
        ask = f"foresweep verdict --sweep {view.sweep.sweep_id}"
        words = "No verdict is on record: nobody has asked yet whether the best is luck. Ask with: "
        yield Section("verdict", "Not asked yet", (Words(words + ask, "empty"),))
        return
    said: Mapping[str, Any] = row["content"]
    outcome = str(said["outcome"])
    kind = {"promote": "good", "naive wins": "bad"}.get(outcome, "warn")
    opening: list[Block] = [
        Words(f"{outcome.upper()}: {said['reason']}.", kind),
        Words(MEANING.get(outcome, "")),
        Facts(
            (
                ("candidate", run_link_of(view, str(said["candidate"]), str(said["label"]))),
                ("judged", when(row["judged_at"])),
                ("against", Cell(f"{said['benchmark']}, {said['benchmark_why']}")),
                ("trials counted", shown(said["num_trials"])),
                ("judging number", shown(said["judged_number"])),
                ("look at the test", shown(said["look_number"] or "not looked")),
            )
        ),
    ]
    yield Section("verdict", "What it says", tuple(opening))
    yield Section("gates", "Gate by gate", (_gates(said), _against(said)))
    yield Section("luck", "Luck and power", tuple(_luck(said)))
    yield Section("targets", "Targets and notes", tuple(_targets(view, said)))
    yield Section("looks", "Every look at the test", (_looks(view),))


MEANING = {
    "promote": "The candidate is better than the naive forecasts by more than the luck of picking "
    "explains, on data that ranked it and on data that nobody had seen.",
    "naive wins": "No trial is better than the naive forecast, and there were data enough to see "
    "it if one were by a useful amount. Use the naive forecast.",
    "hold": "What is there does not suffice to use the candidate. The first gate that is not "
    "passed says what is missing.",
}


def run_link_of(view: SweepView, run_id: str, label: str) -> Cell:
    return Cell(f"{label} ({run_id})", href=view.site.links.to("run", run_id))


GATES = {
    0: "Is there evidence enough to say anything?",
    1: "Is it better on val, all trials counted?",
    2: "Would the way it was picked lose out of sample?",
    3: "Have the weights seen the test period?",
    4: "Does the sealed test agree?",
}


def _gates(said: Mapping[str, Any]) -> Table:
    rows = []
    for check in said["checks"]:
        passed = {None: "not looked", True: "passed", False: "not passed"}[check["passed"]]
        mark = {None: "faint", True: "good", False: "bad"}[check["passed"]]
        is_hidden = check["gate"] == TEST_GATE
        value = "sealed" if is_hidden and check["passed"] is not None else _value(check["value"])
        needed = "–" if check["threshold"] is None else (
            f"{check['relation']} {_value(check['threshold'])}"
        )  # fmt: skip
        rows.append(
            (
                Cell(str(check["gate"])),
                Cell(GATES.get(check["gate"], "")),
                Cell(str(check["name"])),
                Cell(value),
                Cell(needed),
                Cell(passed, mark=mark),
            )
        )
    return Table(
        name="gates",
        columns=(
            Column("gate"),
            Column("question"),
            Column("asks"),
            Column("is", is_number=True),
            Column("needed", is_number=True),
            Column("passed"),
        ),
        rows=tuple(rows),
    )


def _value(value: float | str | None) -> str:
    return "–" if value is None else value if isinstance(value, str) else f"{value:.4g}"


def _against(said: Mapping[str, Any]) -> Table:
    return Table(
        name="against",
        columns=(
            Column("against"),
            Column("raw skill on val", is_number=True),
            Column("scaled skill", is_number=True),
            Column("at least", is_number=True),
            Column("at most", is_number=True),
            Column("p (StepM)", is_number=True),
        ),
        rows=tuple(
            (
                Cell(str(a["opponent"])),
                share(a["raw_skill"], is_marked=True),
                share(a["scaled_skill"], is_marked=True),
                share(a["lower_skill"]),
                share(a["upper_skill"]),
                number(a["pvalue"]),
            )
            for a in said["against"]
        ),
        caption="Bounds hold for all trials at once, 95 % on each side; scaled: in units of "
        "volatility.",
    )


def _luck(said: Mapping[str, Any]) -> Iterator[Block]:
    ours = said["against"][0]
    low, high = ours["lower_skill"], ours["upper_skill"]
    bars = [
        Bar(f"ours: {said['label']}", ours["scaled_skill"], low, high),
        Bar(f"best of {said['num_trials']} without skill", said["expected_best_skill"]),
        Bar("the best, less the luck of picking", said["debiased_skill"]),
        Bar("smallest that could be proved", said["detectable_skill"]),
    ]  # fmt: skip
    yield Figure(
        name="luck",
        title="Ours beside luck",
        alt="Scaled skill of the candidate beside the best of as many skill-free trials.",
        build=partial(figures.luck, bars),
        height=240,
        note=f"{said['num_trials']} trials, as many as {said['num_effective_trials']:.1f} "
        f"independent ones.",
    )
    yield Facts(
        (
            ("best of as many without skill", share(said["expected_best_skill"])),
            ("smallest skill that could be proved", share(said["detectable_skill"])),
            ("less the luck of picking", share(said["debiased_skill"])),
            ("probability of loss (CSCV)", number(said["probability_of_loss"], 2)),
            ("probability of overfitting", number(said["pbo"], 2)),
            ("overtuning", number(said["overtuning"])),
        ),
        kind="tiles",
    )


def _targets(view: SweepView, said: Mapping[str, Any]) -> Iterator[Block]:
    yield Table(
        name="targets",
        columns=(
            Column("target"),
            Column("is", is_number=True),
            Column("wished"),
            Column("met"),
            Column("how much that means"),
        ),
        rows=tuple(
            (
                Cell(str(t["name"])),
                Cell("sealed") if is_sealed(str(t["name"])) else number(t["value"]),
                Cell(str(t["target"])),
                Cell({None: "–", True: "yes", False: "no"}[t["met"]]),
                Cell(str(t["comment"])),
            )
            for t in said["targets"]
            if not is_sealed(str(t["name"]))
        ),
    )
    best = view.best
    if best is not None:
        held = best.run.score(f"{view.part}_coverage_80")
        yield Words(
            f"Coverage: the 80 % band of the best trained run holds "
            f"{'–' if held is None else f'{100 * held:.0f} %'} of the closes on val."
        )
    for note in said["notes"]:
        yield Words(str(note))


def _looks(view: SweepView) -> Block:
    looks = [
        look
        for look in view.tracker.judgings.test_looks()
        if look.get("panel_hash") == view.sweep.panel_hash
    ]
    if not looks:
        return Words("Nobody has looked at the test part of these data.", "good")
    return Table(
        name="looks",
        columns=(Column("run"), Column("when"), Column("who"), Column("why"), Column("number")),
        rows=tuple(
            (
                Cell(str(look["run_id"]), mark="code"),
                when(look["looked_at"]),
                Cell(str(look["who"])),
                Cell(str(look["why"])),
                shown(look.get("number")),
            )
            for look in looks
        ),
        caption="No page shows what was seen.",
    )


# In service.


def service_page(site: Site) -> Page:
    """Nothing serves yet: what to do to get there."""
    words = (
        "No champion is in service. One is chosen from a verdict that says promote: foresweep "
        "verdict, then foresweep best --export-path writes its folder and card, and foresweep "
        "predict forecasts with it."
    )
    return Page(
        id="service",
        title="In service",
        lead="the champion, live skill, alarms",
        sections=(Section("service", "No champion yet", (Words(words, "empty"),)),),
        crumbs=(("Overview", site.links.to("") or "#overview"),),
    )
