"""What the search of a sweep came to: how it went, what mattered, and what it drew from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from foresweep.errors import ForesweepError, NotEnoughData
from foresweep.evaluation.yardstick import LAST_VALUE
from foresweep.metrics import METRICS, objectives_of
from foresweep.reporting import figures, studies
from foresweep.reporting.blocks import (
    Block,
    Cell,
    Column,
    Figure,
    Spec,
    Table,
    Words,
    interval,
    number,
    share,
    shown,
)
from foresweep.reporting.figures import Bar, TrialPoint
from foresweep.reporting.views import (
    FEW,
    SweepView,
    run_link,
    short_name,
    state_cell,
    varied,
)
from foresweep.search.propose.focus import importance
from foresweep.search.propose.modes import load_space
from foresweep.selection.leaderboard import Row
from foresweep.selection.pareto import pareto
from foresweep.space import Choice, Dimension, Start

MOST_SLICES, SLICES_A_ROW = 9, 3


# The search: how it went, and what mattered.


def search_blocks(view: SweepView) -> Iterator[Block]:
    """Best so far, trade-offs, what each hyperparameter did, the question at other horizons."""
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
        yield _side_by_side(view)
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
    names = list(top)
    for k in range(0, len(names), SLICES_A_ROW):
        some = names[k : k + SLICES_A_ROW]
        yield Figure(
            name=f"slices-{model}" if not k else f"slices-{model}-{k // SLICES_A_ROW + 1}",
            title=f"{model}: the score over {', '.join(some)} alone",
            alt=f"{view.metric} of the runs of {model} over each hyperparameter.",
            build=partial(_slices, view, rows, {n: axes[n] for n in some}),
            note=f"Others vary along{left_out}.",
            height=300,
        )
    yield from _importance(view, model, axes, scores)


def _slices(view: SweepView, rows: Sequence[Row], axes: Mapping[str, Sequence[Any]]) -> Spec:
    """In the order in which the trials were begun."""
    order = sorted(range(len(rows)), key=lambda n: rows[n].run.run_id)
    scores = [float(rows[n].score or 0.0) for n in order]
    return studies.slice_plot(
        {name: [values[n] for n in order] for name, values in axes.items()}, scores, view.metric
    )


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
            build=lambda: studies.contour_plot(
                {n: axes[n] for n in (first, others[0])}, scores, view.metric
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
                short_name(p.run),
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


def _side_by_side(view: SweepView) -> Table:
    """The sweeps of one question, a line for each horizon."""
    rows = []
    for sweep in view.family:
        other = SweepView(view.site, sweep)
        best, verdict = other.best, other.verdict
        bounds = None if best is None else other.skill_bounds(best.run)
        is_here = sweep.sweep_id == view.sweep.sweep_id
        href = view.site.links.to("verdict", sweep.sweep_id)
        word = str(verdict["outcome"]) if verdict else "not asked"
        rows.append(
            (
                Cell(f"{sweep.horizon} bars", sweep.horizon, mark="strong" if is_here else ""),
                Cell(sweep.sweep_id, href=view.site.links.to("sweep", sweep.sweep_id), mark="code"),
                state_cell(sweep.state.value),
                shown(sweep.num_trials),
                Cell(other.metric),
                number(best.score if best else None),
                share(best.skill if best else None, is_marked=True),
                interval(bounds.skill_lower, bounds.skill_upper)
                if bounds
                else interval(None, None),
                Cell(best.run.model_name if best else "–"),
                Cell(word, href=href),
            )
        )
    return Table(
        name="family",
        columns=(
            Column("horizon", is_number=True),
            Column("sweep"),
            Column("state"),
            Column("trials", is_number=True),
            Column("score"),
            Column("best", is_number=True),
            Column("skill", is_number=True),
            Column("90 % interval", is_number=True),
            Column("model"),
            Column("verdict"),
        ),
        rows=tuple(rows),
        caption="The same question at each horizon; a verdict judges them together.",
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


# What configs are drawn from.


def space_table(view: SweepView, model: str) -> Iterator[Block]:
    """The ranges a model's configs are drawn from, and who said each."""
    start: Start = "pretrained" if view.sweep.plan.get("pretrained") else "scratch"
    spaces = view.spaces
    try:
        key = ("space", view.sweep.sweep_id, model)
        file = view.site.once(key, lambda: load_space(model, start, spaces))
    except ForesweepError:  # a baseline draws nothing; a plug-in may not be installed here
        return
    place = spaces.places.get(model)
    rows = []
    for name, dimension in file.space.dimensions.items():
        condition = file.space.when.get(name, {})
        only = ", ".join(f"{k} = {v}" for k, v in condition.items())
        said = "--set" if name in spaces.changes else place or f"built in, {start}"
        rows.append(
            (
                Cell(name, mark="code"),
                Cell(_range(dimension)),
                Cell(f"where {only}" if only else "always", mark="faint"),
                Cell(said),
            )
        )
    yield Table(
        name=f"space-{model}",
        columns=(
            Column("hyperparameter"),
            Column("range"),
            Column("drawn"),
            Column("from"),
        ),
        rows=tuple(rows),
        caption=f"{model}: what its configs are drawn from in the modes that draw.",
    )
    entries = file.entries.get(view.sweep.mode, ())
    if entries:
        yield Table(
            name=f"entries-{model}",
            columns=(Column("config"), Column("values"), Column("where it comes from")),
            rows=tuple(
                (
                    Cell(e.name),
                    Cell(", ".join(f"{k} = {v}" for k, v in e.config.items())),
                    Cell(" ".join(e.source.split())),
                )
                for e in entries
            ),
            caption=f"{model}: the configs of mode {view.sweep.mode}, by name.",
        )


def _range(dimension: Dimension) -> str:
    if isinstance(dimension, Choice):
        return " | ".join(str(v) for v in dimension.values)
    by = ", by logs" if dimension.log else ""
    return f"{dimension.low:g} … {dimension.high:g}{by}"
