"""The page of a sweep: leaderboard, search, space, and what did not complete."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from foresweep.errors import ForesweepError, NotEnoughData
from foresweep.evaluation.yardstick import LAST_VALUE, baseline_name
from foresweep.metrics import METRICS, objectives_of
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
from foresweep.reporting.figures import Bar, TrialPoint
from foresweep.reporting.views import FEW, MARKED, Asked, SweepView, varied
from foresweep.search.plan import ASKED
from foresweep.search.propose.focus import importance
from foresweep.search.propose.modes import load_space
from foresweep.selection.leaderboard import Leaderboard, Row, leaderboard
from foresweep.selection.pareto import pareto
from foresweep.space import Choice, Dimension, Start

SHOWN_BADLY = 50
MOST_SLICES = 9
STATE_MARKS = {"complete": "good", "failed": "bad", "lost": "bad", "pruned": "warn",
               "cancelled": "warn", "running": "live"}  # fmt: skip


def above(view: SweepView) -> tuple[tuple[str, str], ...]:
    """The pages above those beside a sweep."""
    links, sweep_id = view.site.links, view.sweep.sweep_id
    return (
        ("Overview", links.to("") or "#overview"),
        (f"Sweep {sweep_id}", links.to("sweep", sweep_id) or "#sweep"),
    )


def state_cell(state: str) -> Cell:
    return Cell(state, mark=f"state {STATE_MARKS.get(state, '')}".strip())


def run_link(view: SweepView, run: Run, text: str = "") -> Cell:
    return Cell(text or run.run_id, href=view.site.links.to("run", run.run_id), mark="code")


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
    yield Section("search", "The search", tuple(_search(view)))
    yield Section("bad", "What did not complete", tuple(_bad(view)), is_live=True)
    yield Section("question", "The question and its space", tuple(_question(view)))


def summary(view: SweepView) -> Iterator[Block]:
    """State, counts, best and verdict as tiles, and what follows from them in words."""
    sweep, best = view.sweep, view.best
    states = view.states
    total = sum(states.values())
    done = total - states.get("running", 0) - states.get("waiting", 0)
    verdict = view.verdict
    tiles = [
        ("state", state_cell(sweep.state.value)),
        ("trials", Cell(f"{sweep.num_trials}")),
        ("runs ended", Cell(f"{done} of {total}")),
        ("best skill on these windows", share(best.skill if best else None, is_marked=True)),
        ("benchmark", Cell(view.benchmark[0] if view.benchmark else "–")),
        ("verdict", _outcome(view, verdict)),
    ]
    yield Facts(tuple(tiles), kind="tiles")
    others = ", ".join(f"{n} {s}" for s, n in states.items() if n and s != "complete")
    if others:
        yield Words(f"Beside {states.get('complete', 0)} complete runs: {others}.")
    if best is not None and best.skill is not None and best.skill <= 0:
        yield Words(
            f"Nothing beats naive on val so far: the best trained run, {best.run.model_name}, has "
            f"{100 * best.skill:+.2f} % against last-value (tomorrow is today).",
            kind="warn",
        )


def _outcome(view: SweepView, verdict: Mapping[str, Any] | None) -> Cell:
    href = view.site.links.to("verdict", view.sweep.sweep_id)
    if verdict is None:
        return Cell("not asked", href=href, mark="faint")
    word = str(verdict["content"]["outcome"])
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
    note = row.note or run.source
    marks = "★" * (row.superior is True) + "≈" * (row.in_mcs is True)
    is_odd = bool(row.note)
    return (
        Cell(place, int(place) if place else ""),
        Cell(name, run.model_name, mark="strong" if is_benchmark else ""),
        Cell(note, run.source, mark="warn" if is_odd else "", title=run.source),
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
        bars.append(Bar(_short(row.run), row.skill, low, high, row.run.is_baseline))
    return figures.skills(bars, "skill against last-value on val, %")


def _short(run: Run) -> str:
    """A name that is short and still its own: model, then trial or the end of the id."""
    if run.is_baseline:
        return baseline_name(run)
    return f"{run.model_name} #{run.trial_number}" if run.trial_number else run.run_id[-20:]


# The search: how it went, and what mattered.


def _search(view: SweepView) -> Iterator[Block]:
    yield Figure(
        name="best-so-far",
        title="Best so far",
        alt="The objective on tune of every trial in order, and the best so far.",
        build=lambda: _best_so_far(view),
        is_live=True,
    )
    if len(objectives_of(view.sweep.objective)) > 1:
        yield from _trade_offs(view)
    for model in view.sweep.models:
        yield from _of_model(view, model) if view.is_small else _of_many(view, model)
    if len(view.family) > 1:
        yield Figure(
            name="horizons",
            title="The same question at several horizons",
            alt="Each model's best skill at each horizon of the family.",
            build=lambda: _horizons(view),
        )


def _best_so_far(view: SweepView) -> Spec:
    metric = METRICS.get(view.bare)
    points = [
        TrialPoint(p.number, p.model_name, p.state, p.score, p.is_baseline) for p in view.progress
    ]
    naive = next((p.score for p in view.progress if p.model_name == LAST_VALUE), None)
    minimize = metric is None or not metric.higher_is_better
    return figures.best_so_far(
        _thinned(points, 1 if minimize else -1), view.bare, minimize=minimize, naive=naive
    )


def _thinned(points: list[TrialPoint], sign: int) -> list[TrialPoint]:
    """At most some two thousand, the bests of the way among them."""
    step = -(-len(points) // 2000)
    if step == 1:
        return points
    kept, best = [], math.inf
    for k, point in enumerate(points):
        score = math.inf if point.score is None else sign * point.score
        is_best = score < best and point.state == "complete"
        best = score if is_best else best
        if is_best or k % step == 0:
            kept.append(point)
    return kept


def _of_many(view: SweepView, model: str) -> Iterator[Block]:
    """The same of very many runs, of which nothing is read before a figure is asked for."""
    for kind, title in (("parallel", "all hyperparameters that varied"), ("slices", "each alone")):
        yield Figure(
            name=f"{kind}-{model}",
            title=f"{model}: {title}, of the best {FEW} runs of {view.num_ranked:,}",
            alt=f"{view.metric} of the best runs of {model} over its hyperparameters.",
            build=partial(_many_spec, view, model, kind),
            height=340 if kind == "parallel" else 660,
        )


def _many_spec(view: SweepView, model: str, kind: str) -> Spec:
    blocks = (b for b in _of_model(view, model) if isinstance(b, Figure))
    found = next((b for b in blocks if b.name == f"{kind}-{model}"), None)
    if found is None:
        raise NotEnoughData(f"fewer than three of the best {FEW} runs are of {model}")
    return found.build()


def _of_model(view: SweepView, model: str) -> Iterator[Block]:
    """What its hyperparameters did: parallel coordinates, slices, two at once, importance."""
    ranked = [r for r in view.plain_board.rows if r.place and r.run.model_name == model]
    if len(ranked) < 3:
        yield Words(f"{model}: hyperparameters are compared from three ranked runs on.", "empty")
        return
    rows = ranked[: figures.MOST_LINES]
    axes = varied([r.run for r in rows])
    if not axes:
        return
    scores = [r.score for r in rows if r.score is not None]
    bad = [METRICS[view.bare].badness(s) for s in scores]
    many = len(ranked) if view.is_small else view.num_ranked
    count = f"{len(rows)} of {many:,} shown" if len(rows) < many else f"{len(rows)} runs"
    top = dict(list(axes.items())[:MOST_SLICES])
    yield Figure(
        name=f"parallel-{model}",
        title=f"{model}: all hyperparameters that varied ({count})",
        alt=f"One line a run of {model} through its hyperparameters; the best are strongest.",
        build=lambda: figures.parallel(axes, bad, view.metric),
    )
    left_out = f"; {len(axes) - len(top)} more varied" if len(top) < len(axes) else ""
    yield Figure(
        name=f"slices-{model}",
        title=f"{model}: the score over each of them alone",
        alt=f"{view.metric} of the runs of {model} over each hyperparameter.",
        build=lambda: figures.slices(top, scores, view.metric),
        height=200 * -(-len(top) // 3) + 60,
        note=f"Others vary along{left_out}.",
    )
    yield from _importance(view, model, axes, scores)


def _importance(
    view: SweepView, model: str, axes: Mapping[str, Sequence[Any]], scores: Sequence[float]
) -> Iterator[Block]:
    runs = [r for r in view.runs if r.model_name == model and r.state == "complete"]
    key = ("importance", view.metric, tuple(r.run_id for r in runs))
    try:
        found = view.site.once(key, lambda: importance(runs, view.metric))
    except ForesweepError as error:
        yield Words(f"Importance for {model}: {error}.", kind="empty")
        return
    bars = [(w.hyperparam, w.share, w.pvalue) for w in found.weights[:15]]
    yield Figure(
        name=f"importance-{model}",
        title=f"{model}: what mattered",
        alt=f"Share of importance of each hyperparameter of {model}, with its p-value.",
        build=lambda: figures.importances(bars),
        note=found.warning or "PED-ANOVA; p: how often chance alone makes some look as important.",
        height=80 + 26 * len(bars),
    )
    first, *others = [w.hyperparam for w in found.weights if w.hyperparam in axes]
    if others:
        yield Figure(
            name=f"two-{model}",
            title=f"{model}: {first} and {others[0]} together",
            alt=f"{view.metric} over {first} and {others[0]}.",
            build=lambda: figures.two_at_once(
                (first, axes[first]), (others[0], axes[others[0]]), scores, view.metric
            ),
        )


def _trade_offs(view: SweepView) -> Iterator[Block]:
    found = pareto(view.runs, view.sweep.objective)
    if found is None:
        return
    yield Table(
        name="trade-offs",
        columns=(
            Column("model"),
            Column("config"),
            *(Column(m, is_number=True) for m in found.metrics),
            Column("stands"),
            Column("run"),
        ),
        rows=tuple(
            (
                Cell(p.run.model_name),
                Cell(p.run.source),
                *(number(s) for s in p.scores),
                Cell(p.word, mark="good" if p.is_front else ""),
                run_link(view, p.run),
            )
            for p in found.points
        ),
        caption="On the front no other config is as good in every objective and better in one.",
    )
    if len(found.metrics) == 2:
        points = [
            (
                _short(p.run),
                float(p.scores[0]),
                float(p.scores[1]),
                "knee" if p.is_knee else "front" if p.is_front else "dominated",
            )
            for p in found.points
            if p.scores[0] is not None and p.scores[1] is not None
        ]
        names, naive = (found.metrics[0], found.metrics[1]), (found.naive[0], found.naive[1])
        yield Figure(
            name="pareto",
            title="The front",
            alt="Runs by both objectives; the front is joined, its knee starred.",
            build=lambda: figures.front(names, points, naive),
        )


def _horizons(view: SweepView) -> Spec:
    rows = []
    for sweep in view.family:
        other = SweepView(view.site, sweep)
        board = other.plain_board
        for model in dict.fromkeys(r.run.model_name for r in board.rows if r.place):
            row = next(r for r in board.rows if r.place and r.run.model_name == model)
            bounds = other.skill_bounds(row.run)
            low, high = (bounds.skill_lower, bounds.skill_upper) if bounds else (None, None)
            rows.append((model, sweep.horizon, Bar(model, row.skill, low, high)))
    return figures.horizons(rows)


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


def cause(run: Run) -> str:
    """The last line of what is known of it."""
    lines = (run.error or "no cause on record").strip().splitlines()
    return lines[-1][:300]


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
        yield from _space(view, model)


def parts_table(sweep: Sweep) -> Table:
    """How time was cut."""
    uses = {"train": "learn", "tune": "steer", "val": "rank", "test": "confirm (sealed)"}
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
                Cell(uses.get(name, "")),
            )
            for name, part in sweep.plan["parts"].items()
        ),
        caption="One cut by time, the same for all items.",
    )


def _space(view: SweepView, model: str) -> Iterator[Block]:
    """The ranges a model's configs are drawn from, and where each comes from."""
    asked = view.sweep.plan.get(ASKED, {}).get("spaces", {})
    start: Start = "pretrained" if view.sweep.plan.get("pretrained") else "scratch"
    changed = view.sweep.plan.get("set") or {}
    try:
        space = view.site.once(("space", model, start), lambda: load_space(model, start)).space
    except ForesweepError:
        return
    own = str(asked.get("places", {}).get(model, ""))
    rows = [
        (
            Cell(name, mark="code"),
            Cell(str(changed.get(name)) if name in changed else _range(dimension)),
            Cell("--set" if name in changed else own or "built in"),
        )
        for name, dimension in space.dimensions.items()
    ]
    rows += [
        (Cell(name, mark="code"), Cell(str(value)), Cell("--set"))
        for name, value in changed.items()
        if name not in space.dimensions
    ]
    yield Table(
        name=f"space-{model}",
        columns=(Column("hyperparameter"), Column("range"), Column("from")),
        rows=tuple(rows),
        caption=f"{model}: what its configs are drawn from in the modes that draw.",
    )


def _range(dimension: Dimension) -> str:
    if isinstance(dimension, Choice):
        return " | ".join(str(v) for v in dimension.values)
    by = ", by logs" if dimension.log else ""
    return f"{dimension.low:g} … {dimension.high:g}{by}"
