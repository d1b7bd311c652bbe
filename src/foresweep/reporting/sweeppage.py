"""The page of a sweep: leaderboard, search, space, and what did not complete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from foresweep.metrics import METRICS
from foresweep.records import Run, Sweep, steering_words
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
    interval,
    number,
    share,
    shown,
    took,
    when,
)
from foresweep.reporting.figures import Bar
from foresweep.reporting.report import USED_TO, cause
from foresweep.reporting.searchpage import search_blocks, space_table
from foresweep.reporting.views import (
    MARKED,
    Asked,
    SweepView,
    config_cell,
    run_link,
    short_name,
    state_cell,
)
from foresweep.selection.leaderboard import Leaderboard, Row, leaderboard

SHOWN_BADLY = 50


def sweep_page(view: SweepView, asked: Asked) -> Page:
    """All of a sweep. Raises UsageError and UnknownName for a filter or order that cannot be
    read."""
    sweep = view.sweep
    objective = f"objective {sweep.objective} on tune, ranked by {view.metric}"
    return Page(
        id="sweep",
        title=f"Sweep {sweep.name or sweep.sweep_id}",
        lead=f"{', '.join(sweep.models)} · {sweep.mode} · {sweep.horizon} bars ahead · {objective}",
        sections=tuple(_sections(view, asked)),
        crumbs=(("Overview", view.site.links.to("") or "#overview"),),
    )


def _sections(view: SweepView, asked: Asked) -> Iterator[Section]:
    yield Section("summary", "In short", tuple(summary(view)), is_live=True)
    yield Section("leaderboard", "Leaderboard", tuple(_ranking(view, asked)), is_live=True)
    yield Section("search", "The search", tuple(search_blocks(view)))
    yield Section("bad", "What did not complete", tuple(_bad(view)), is_live=True)
    yield Section("data", "What the gate found in the data", tuple(gate_blocks(view)))
    yield Section("question", "The question and its space", tuple(_question(view)))


def summary(view: SweepView) -> Iterator[Block]:
    """State, counts, best and verdict as tiles, and what follows from them in words."""
    sweep, best = view.sweep, view.best
    states = view.states
    total = sum(states.values())
    done = total - states.get("running", 0) - states.get("waiting", 0)
    verdict = view.verdict
    skipped = sweep.plan.get("skipped", ())
    tiles = [
        ("state", state_cell(sweep.state.value)),
        ("trials", _of(_num_trained(view), sweep.plan.get("planned"))),
        ("runs ended", Cell(f"{done:,} of {total:,}")),
        *_under_way(view, states.get("running", 0)),
        ("best skill on these windows", share(best.skill if best else None, is_marked=True)),
        ("benchmark", Cell(view.benchmark[0] if view.benchmark else "–")),
        ("verdict", _outcome(view, verdict)),
    ]
    yield Facts(tuple(tiles), kind="tiles")
    yield from _counted(view, len(skipped))
    others = ", ".join(f"{n} {s}" for s, n in states.items() if n and s != "complete")
    if others:
        yield Words(f"Beside {states.get('complete', 0)} complete runs: {others}.")
    if best is not None and best.skill is not None and best.skill <= 0:
        yield Words(
            f"Nothing beats naive on val so far: the best trained run, {best.run.model_name}, has "
            f"{100 * best.skill:+.2f} % against last-value (tomorrow is today).",
            kind="warn",
        )


def _num_trained(view: SweepView) -> int:
    """Trials of the sweep less its baselines, which have numbers, too."""
    own = sum(b.sweep_id == view.sweep.sweep_id for b in view.baselines)
    return max(0, view.sweep.num_trials - own)


def _of(count: int, planned: Any) -> Cell:
    more = isinstance(planned, int) and planned > count
    return Cell(f"{count:,} of {planned:,}" if more else f"{count:,}", count)


def _under_way(view: SweepView, running: int) -> Iterator[tuple[str, Cell]]:
    if view.sweep.state == "running":
        yield "at work", at_work(view, running)
        yield "time left", took(seconds_left(view))


def at_work(view: SweepView, running: int) -> Cell:
    """How many work on it; nothing of a sweep that has ended."""
    if view.sweep.state != "running":
        return Cell("")
    workers = view.sweep.plan.get("workers")
    known = isinstance(workers, int) and workers >= running
    return Cell(f"{running} of {workers} workers" if known else f"{running} runs", running)


def seconds_left(view: SweepView) -> float | None:
    """As fast as trials ended so far; None where none has, or nobody said how many are meant."""
    sweep, planned = view.sweep, view.sweep.plan.get("planned")
    if sweep.state != "running" or not isinstance(planned, int):
        return None
    trained = [p for p in view.progress if not p.is_baseline]
    done = sum(p.state not in ("running", "waiting") for p in trained)
    begun = [p.started_at for p in trained if p.started_at is not None]
    if not done or not begun:
        return None
    since = (datetime.now(UTC) - min(begun)).total_seconds()
    return since / done * max(0, planned - done)


def _counted(view: SweepView, num_skipped: int) -> Iterator[Block]:
    """How many trials a verdict would count, and how many were not trained again."""
    if view.cells and view.sweep.plan.get("parts"):
        counted, sweeps = view.lineage.num_trials, len(view.lineage.sweep_ids)
        where = "this sweep" if sweeps == 1 else f"{sweeps} sweeps on cells of these items and days"
        yield Words(
            f"A verdict counts {counted:,} trials, of {where}: failed and pruned ones too, for "
            f"each was a chance to look good by luck."
        )
    if num_skipped:
        yield Words(
            f"{num_skipped} configs were trained before on these windows and not again: their runs "
            f"stand in the leaderboard. --again trains them once more."
        )


def _outcome(view: SweepView, verdict: Mapping[str, Any] | None) -> Cell:
    href = view.site.links.to("verdict", view.sweep.sweep_id)
    if verdict is None:
        return Cell("not asked", href=href, mark="faint")
    word = str(verdict["outcome"])
    marks = {"promote": "good", "naive wins": "bad"}
    return Cell(word, href=href, mark=marks.get(word, "warn"))


# The leaderboard: baselines and the benchmark on top, then the trained runs, a page at a time.


def _ranking(view: SweepView, asked: Asked) -> Iterator[Block]:
    if view.site.links.is_live:
        hint = 'as in `foresweep runs --where`: lr < 1e-3 and model = "toto"'
        yield Form(
            "filter", "", "Filter", (Field("where", "Only runs with", asked.where, hint=hint),)
        )
    table = leaderboard_table(view, asked)
    if not table.rows:
        yield Words(
            "No run has a score yet. Rows appear here as runs end; start one with: foresweep sweep "
            "--model all --mode demo",
            kind="empty",
        )
        return
    yield table
    if view.num_ranked > MARKED:
        yield Words(
            f"{view.num_ranked:,} runs are ranked: which of them cannot be told apart is reckoned "
            f"for up to {MARKED}, or by: foresweep best --top-k K."
        )
    else:
        yield Words(
            "★: better than the benchmark by StepM, all of these counted; ≈: cannot be told from "
            "the best at 90 % (model confidence set). A reading of val, no verdict."
        )
    yield Figure(
        name="skills",
        title="Skill with its 90 % interval",
        alt="Skill against last-value of the best runs and the baselines, with intervals.",
        build=lambda: _skills(view),
        note="Block bootstrap of origins, each run alone; the luck of picking is not in it.",
        height=460,
    )


def leaderboard_table(view: SweepView, asked: Asked) -> Table:
    """The baselines, the benchmark first, then trained runs in the order asked for."""
    board, rows, total = _rows(view, asked)
    pinned = [r for r in board.rows if r.run.is_baseline]
    pinned.sort(key=lambda r: (not _is_benchmark(view, r), r.place is None, r.place or 0))
    trained = list(enumerate(rows, start=asked.offset + 1))
    is_ranking = not asked.sort and not asked.where
    cells = [_line(view, r, "") for r in pinned]
    cells += [_line(view, r, str(n) if is_ranking else "") for n, r in trained]
    unit = METRICS[view.bare].unit
    versus = board.benchmark or "the benchmark"
    return Table(
        name="leaderboard",
        columns=(
            Column("#", is_number=True),
            Column("model", sort="model_name"),
            Column("config", sort="source"),
            Column(view.metric, is_number=True, sort=view.metric, title=unit),
            Column("skill", is_number=True, title="1 - score / last-value's, on the same windows"),
            Column("90 % interval", is_number=True),
            Column(f"against {versus}", is_number=True),
            Column("", title="★ better than the benchmark (StepM); ≈ not told from the best"),
            Column("band 80 holds", is_number=True, sort=f"{view.part}_coverage_80"),
            Column("training", is_number=True, sort="training_time_seconds"),
            Column("MiB", is_number=True, sort="peak_memory_mb", title="peak memory"),
            Column("run", sort="run_id"),
        ),
        rows=tuple(cells),
        num_pinned=len(pinned),
        is_paged=True,
        num_all=total,
        caption=f"Baselines on top; equal windows only ({view.cells[:12]}); never test.",
        picks=tuple(r.run.run_id for r in (*pinned, *rows)),
    )


def _rows(view: SweepView, asked: Asked) -> tuple[Leaderboard, list[Row], int]:
    """The board with the baselines, the trained rows of one page, and how many there are."""
    if asked.where or asked.sort:
        found = view.tracker.get_runs(
            fingerprint=view.cells,
            where=asked.where or None,
            sort=asked.sort or None,
            include_baselines=False,
            limit=asked.offset + asked.size + 1,
        )
        found = found if asked.sort else found[::-1]
        some = found[asked.offset : asked.offset + asked.size]
        board = view.board if view.is_small else _part_board(view, some)
        known = {r.run.run_id: r for r in board.rows}
        return board, [known[r.run_id] for r in some if r.run_id in known], len(found)
    if not view.is_small:
        board = _part_board(view, view.ranked_page(asked.offset, asked.size))
        return board, [r for r in board.rows if r.place and not r.run.is_baseline], view.num_ranked
    board = view.board
    trained = [r for r in board.rows if not r.run.is_baseline and r.run.state == "complete"]
    return board, trained[asked.offset : asked.offset + asked.size], len(trained)


def _part_board(view: SweepView, some: Sequence[Run]) -> Leaderboard:
    return leaderboard([*view.baselines, *some], metric=view.metric)


def _is_benchmark(view: SweepView, row: Row) -> bool:
    return view.benchmark is not None and row.run.run_id == view.benchmark[1].run_id


def _line(view: SweepView, row: Row, place: str) -> tuple[Cell, ...]:
    run = row.run
    bounds = view.skill_bounds(run)
    is_benchmark = _is_benchmark(view, row)
    name = f"{run.model_name} (the benchmark)" if is_benchmark else run.model_name
    marks = "★" * (row.superior is True) + "≈" * (row.in_mcs is True)
    return (
        Cell(place, int(place) if place else ""),
        Cell(name, run.model_name, mark="strong" if is_benchmark else ""),
        config_cell(row, view.site.links.to("run", run.run_id)),
        number(row.score),
        share(row.skill, is_marked=not run.is_baseline),
        interval(bounds.skill_lower, bounds.skill_upper) if bounds else interval(None, None),
        share(row.benchmark_skill),
        Cell(marks, mark="good" if row.superior else ""),
        number(run.score(f"{view.part}_coverage_80"), 2),
        took(run.training_time_seconds),
        number(run.peak_memory_mb, 0),
        run_link(view, run),
    )


def _skills(view: SweepView) -> Spec:
    rows = [r for r in view.plain_board.rows if r.place and r.skill is not None]
    trained = [r for r in rows if not r.run.is_baseline][:20]
    pinned = [r for r in rows if r.run.is_baseline]
    bars = []
    for row in sorted((*trained, *pinned), key=lambda r: r.place or 0):
        bounds = view.skill_bounds(row.run)
        low, high = (bounds.skill_lower, bounds.skill_upper) if bounds else (None, None)
        bars.append(Bar(short_name(row.run), row.skill, low, high, row.run.is_baseline))
    return figures.skills(bars, "skill against last-value on val, %")


# What did not complete, and what was asked.


def _bad(view: SweepView) -> Iterator[Block]:
    from foresweep.tracker.queries.pages import ended_badly

    with view.tracker.store.read() as connection:
        found = ended_badly(connection, view.sweep.sweep_id, limit=SHOWN_BADLY)
    if not found:
        yield Words("Every run that ended is complete: none failed, was lost or pruned.", "good")
        return
    total = sum(n for s, n in view.states.items() if s in ("failed", "lost", "pruned", "cancelled"))
    yield Table(
        name="not-complete",
        columns=(
            Column("run"),
            Column("model"),
            Column("config"),
            Column("state"),
            Column("cause"),
        ),
        rows=tuple(
            (
                run_link(view, r),
                Cell(r.model_name),
                Cell(r.source),
                state_cell(r.state.value),
                Cell(cause(r), title=(r.error or "")[-500:]),
            )
            for r in found
        ),
        num_all=total,
        caption="Newest first. They have no val score, rank nowhere and count as trials.",
    )


def gate_blocks(view: SweepView) -> Iterator[Block]:
    """What the data gate said, by rule."""
    if view.sweep.dataset_id is None:
        yield Words("No data set is on record for this sweep.", "empty")
        return
    found = view.findings
    if not found:
        yield Words("The gate found nothing to say: no row masked, no item dropped.", "good")
        return
    counts = Counter((str(f["rule"]), str(f.get("severity", ""))) for f in found)
    first = {str(f["rule"]): str(f["message"]) for f in reversed(found)}
    yield Table(
        name="rules",
        columns=(
            Column("rule"),
            Column("severity"),
            Column("findings", is_number=True),
            Column("the first"),
        ),
        rows=tuple(
            (
                Cell(rule, href=view.site.links.to("data", view.sweep.sweep_id)),
                Cell(severity, mark="bad" if severity == "error" else ""),
                shown(count),
                Cell(first[rule]),
            )
            for (rule, severity), count in counts.most_common()
        ),
        caption="By rule.",
    )


def _question(view: SweepView) -> Iterator[Block]:
    sweep, plan = view.sweep, view.sweep.plan
    data = Cell(str(plan.get("data", "–")), href=view.site.links.to("data", sweep.sweep_id))
    weights = str(plan.get("pretrained") or f"scratch, {plan.get('size', '–')}")
    yield Facts(
        (
            ("sweep", Cell(sweep.sweep_id, mark="code")),
            ("started", when(sweep.started_at)),
            ("ended", when(sweep.finished_at)),
            ("data", data),
            ("starts from", Cell(weights)),
            ("seed", shown(sweep.seed)),
            ("pruning", Cell(", ".join(plan.get("pruning") or ()) or "none")),
            ("at most", shown(plan.get("max_runs"))),
            ("steered by", Cell(steering_words(sweep.fingerprints) or "all windows of tune")),
        )
    )  # fmt: skip
    if plan.get("parts"):
        yield parts_table(sweep)
    for model in sweep.models:
        yield from space_table(view, model)


def parts_table(sweep: Sweep) -> Table:
    """How time was cut."""
    return Table(
        name="parts",
        columns=(
            Column("part"),
            Column("from"),
            Column("to"),
            Column("bars", is_number=True),
            Column("origins", is_number=True),
            Column("effective origins", is_number=True),
            Column("used to"),
        ),
        rows=tuple(
            (
                Cell(name),
                Cell(part["from"][:10], mark="still"),
                Cell(part["to"][:10], mark="still"),
                shown(part["bars"]),
                shown(part["origins"] or None),
                number(part["effective_origins"] if part["origins"] else None, 0),
                Cell(USED_TO.get(name, "")),
            )
            for name, part in sweep.plan["parts"].items()
        ),
        caption="One cut by time, the same for all items.",
    )
