"""The pages of one run and of several beside each other."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from foresweep.data.panel import CLOSE
from foresweep.data.windows import Windows
from foresweep.errors import ForesweepError, NotFound
from foresweep.evaluation.breakdown import Group
from foresweep.evaluation.yardstick import alarm, own_skill
from foresweep.metrics import METRICS, PANEL_LOSSES, Outcome
from foresweep.models.base import TrainingStage, hyperparameters, make_config
from foresweep.models.registry import answering, get_model
from foresweep.records import Run
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
from foresweep.reporting.figures import Bar, Fan
from foresweep.reporting.report import cause
from foresweep.reporting.views import (
    Asked,
    Site,
    SweepView,
    curve,
    day,
    run_link,
    state_cell,
    varied,
)
from foresweep.selection.groups import run_groups
from foresweep.selection.sealed import has_losses, open_losses
from foresweep.stats.significance import (
    diebold_mariano,
    mean_errors,
    origin_means,
    overlap_lags,
)

CANDLES = 40
LOG_TAIL = 80
MOST_COMPARED = 6
BREAKDOWNS = ("lead", "item", "month", "regime", "year")


def run_page(site: Site, run: Run, asked: Asked) -> Page:
    """All that is on record of one run but its test scores."""
    view = None if run.sweep_id is None else site.sweep(run.sweep_id)
    crumbs = [("Overview", site.links.to("") or "#overview")]
    if run.sweep_id:
        crumbs.append((f"Sweep {run.sweep_id}", site.links.to("sweep", run.sweep_id) or "#sweep"))
    trial = f"trial {run.trial_number}, " if run.trial_number else ""
    return Page(
        id=f"run-{run.run_id}",
        title=f"Run {run.run_id}",
        lead=f"{run.model_name} · {trial}{run.source or 'by hand'} · {run.state.value}",
        sections=tuple(_sections(site, view, run, asked)),
        crumbs=tuple(crumbs),
    )


def _sections(site: Site, view: SweepView | None, run: Run, asked: Asked) -> Iterator[Section]:
    yield Section("summary", "In short", tuple(summary(run, view)), is_live=True)
    yield Section("curves", "Curves", tuple(_curves(site, run)))
    yield Section("forecasts", "Forecasts", tuple(forecast_blocks(site, view, run, asked)))
    if view is not None and run.state == "complete":
        yield Section("errors", "Where it wins and loses", tuple(_errors(site, view, run)))
    yield Section("config", "Config", tuple(_config(site, view, run)))
    yield Section("scores", "Scores", (scores_table(run),))
    yield Section("notes", "Notes and tags", tuple(_notes(site, run)))
    yield Section("lineage", "Its relations", tuple(_lineage(site, view, run)))
    yield Section("provenance", "Where it comes from", tuple(_provenance(site, run)))
    if site.links.is_live:
        yield Section("log", "The log's end", tuple(_log(site, run)))


def summary(run: Run, view: SweepView | None = None) -> Iterator[Block]:
    """State, the score of its sweep's objective on val with the skill in it, what is wrong."""
    metric = view.metric if view is not None else "val_pct_mae"
    bare = metric.removeprefix("val_")
    skill = own_skill(run, "val", bare, view.last_value if view is not None else None)
    yield Facts(
        (
            ("state", state_cell(run.state.value)),
            (f"skill in {bare}", share(skill, is_marked=not run.is_baseline)),
            (metric.replace("_", " ", 1), number(run.score(metric), 4)),
            ("80 % band holds", number(run.score("val_coverage_80"), 2)),
            ("training", took(run.training_time_seconds)),
            ("peak memory", number(run.peak_memory_mb, 0)),
        ),
        kind="tiles",
    )
    if warning := alarm(run.run_id, run.score("val_skill")):
        yield Words(warning, kind="bad")
    if run.error:
        yield Words(f"It is {run.state.value}: {cause(run)}", kind="bad")


# Curves over steps.


def _curves(site: Site, run: Run) -> Iterator[Block]:
    curves = site.tracker.get_curves(run.run_id)
    names = [c.name for c in curves]
    training = [n for n in ("train_loss", "val_loss") if n in names]
    wanted = [n for n in names if n in ("tune_pct_mae", "tune_pinball", "tune_skill")]
    others = [n for n in names if n not in training and "/" not in n and n.startswith("tune_")]
    tuned = wanted or others[:3]
    if not names:
        yield Words("It logged no curve: baselines and zero-shot runs train nothing.", "empty")
        return
    if training and (stages := _stages(run)):
        yield Words(_losses_of(stages))
    for chosen, title in ((training, "Loss on train"), (tuned[:1], "On tune")):
        if chosen:
            yield Figure(
                name=f"curve-{chosen[0]}",
                title=f"{title}: {', '.join(chosen)}",
                alt=f"{', '.join(chosen)} over the steps of training.",
                build=partial(_curve_spec, site, run, tuple(chosen)),
                is_live=run.state == "running",
                height=280,
            )
    yield Table(
        name="curves",
        columns=(
            Column("curve"),
            Column("points", is_number=True),
            Column("last", is_number=True),
            Column("lowest", is_number=True),
            Column("at step", is_number=True),
            Column("highest", is_number=True),
        ),
        rows=tuple(
            (
                Cell(c.name, mark="code"),
                shown(c.num_points),
                number(c.last),
                number(c.lowest),
                shown(c.lowest_step),
                number(c.highest),
            )
            for c in curves
        ),
    )


def _curve_spec(site: Site, run: Run, names: Sequence[str]) -> Spec:
    stages = _stages(run) if "train_loss" in names else ()
    ends = accumulate(stage.steps for stage in stages[:-1])
    begins = zip(ends, stages[1:], strict=True)
    return figures.lines(
        [curve(site, run.run_id, n, 1000) for n in names],
        "step",
        "",
        marks=[(step, f"the {stage.of}'s from here") for step, stage in begins],
    )


def _stages(run: Run) -> tuple[TrainingStage, ...]:
    """The stages of a run's training, by its family, where they are several."""
    try:
        model = get_model(run.model_name)
        if (asked := getattr(model, "stages", None)) is None:
            return ()
        config = make_config(model.Config, run.hyperparams, model=run.model_name)
        with answering(model):
            stages = tuple(asked(config))
    except ForesweepError:  # logged by hand, or of a family that is not installed here
        return ()
    return stages if len(stages) > 1 else ()


def _losses_of(stages: Sequence[TrainingStage]) -> str:
    ends = accumulate(stage.steps for stage in stages[:-1])
    until = [*(f"to step {end}" for end in ends), "from there on"]
    parts = [f"{u} the {s.of}'s ({s.loss})" for u, s in zip(until, stages, strict=True)]
    return f"The loss is {', '.join(parts)}: a loss each, no jump of one."


# Forecasts over the real candles, and whether the quantiles are honest.


def forecast_blocks(
    site: Site, view: SweepView | None, run: Run, asked: Asked, *, others: Sequence[Run] = ()
) -> Iterator[Block]:
    """The fan of an item and an origin of val, reliability and PIT; what is missing is said."""
    if view is None or run.state != "complete":
        yield Words("Forecasts are kept of runs of a sweep that ended complete.", "empty")
        return
    try:
        windows, outcome = site.outcome(run)
    except ForesweepError as error:
        yield Words(f"No forecast to draw: {error}", "empty")
        return
    items = tuple(windows.panel.items[i] for i in windows.split.items)
    days = [day(t) for t in windows.panel.timeline[windows.part.origins]]
    item = asked.item if asked.item in items else items[0]
    origin = asked.origin if asked.origin in days else days[len(days) // 2]
    if site.links.is_live:
        yield Form(
            "window",
            "",
            "Show",
            (
                Field("item", "item", item, tuple((i, i) for i in items)),
                Field("origin", "origin", origin, tuple((d, d) for d in days)),
            ),
        )
    shown_items = (item,) if site.links.is_live else items[:3]
    for k, name in enumerate(shown_items):
        yield Figure(
            name="fan" if not k else f"fan-{k + 1}",
            title=f"{name}: the forecast made on {origin}, over what came",
            alt=f"Candles of {name} around {origin} with the median forecast and its bands.",
            build=partial(_fan, site, windows, outcome, name, origin, others),
            height=380,
        )
    if others:
        return
    yield Figure(
        name="reliability",
        title="Reliability of the quantiles on val",
        alt="Share of closes at or below each quantile against the quantile's level.",
        build=lambda: figures.reliability(outcome.levels, outcome.shares_below.tolist()),
        height=320,
    )
    yield Figure(
        name="pit",
        title="PIT: where the closes fell between the quantiles",
        alt="Share of closes between neighbouring quantiles over what was promised.",
        build=lambda: figures.pit(outcome.levels, outcome.shares_below.tolist()),
        height=320,
    )


def _fan(
    site: Site, windows: Windows, outcome: Outcome, item: str, origin: str, others: Sequence[Run]
) -> Spec:
    days = [day(t) for t in windows.panel.timeline[windows.part.origins]]
    index = windows.panel.index(item)
    mine = np.flatnonzero(windows.item == index)
    at = mine[np.abs(windows.origin[mine] - days.index(origin)).argmin()]
    row, ahead = int(windows.row[at]), windows.horizon
    start = max(0, row + 1 - CANDLES)
    times = [day(t) for t in windows.panel.timestamps_of(index)[start : row + 1 + ahead]]
    bars = windows.panel.bars[index].values[start : row + 1 + ahead, : CLOSE + 1]
    close = float(outcome.last_close[at])
    paths = np.vstack([np.full(len(outcome.levels), close), outcome.quantiles[at]])
    more = []
    for other in others:
        _, theirs = site.outcome(other)
        median = theirs.quantiles[at][:, theirs.levels.index(0.5)]
        more.append((other.run_id, np.concatenate([[close], median])))
    fan = Fan(item, times, bars, times[row - start :], paths, outcome.levels)
    return figures.fan(fan, more)


# Errors by lead, item, regime, year and over time.


def _errors(site: Site, view: SweepView, run: Run) -> Iterator[Block]:
    metric = view.metric if view.bare in PANEL_LOSSES else "val_pct_mae"
    if not has_losses(run, "val"):
        yield Words("Its losses are not on this disk; give the folder with --runs FOLDER.", "empty")
        return
    for by in BREAKDOWNS:
        yield Figure(
            name=f"by-{by}",
            title=f"{metric} by {by}",
            alt=f"{metric} of this run and of last-value by {by}, with 95 % bounds.",
            build=partial(_by, site, run, metric, by),
            height=300,
        )
    yield Figure(
        name="over-time",
        title=f"{metric} by origin",
        alt=f"{metric} at each origin of val.",
        build=lambda: _over_time(site, view, run, metric),
        height=300,
    )


def _by(site: Site, run: Run, metric: str, by: str) -> Spec:
    groups = run_groups(site.tracker, run, metric, by, runs_dir=site.runs_dir)
    if by == "item":
        groups = tuple(sorted(groups, key=lambda g: -g.score))
    naive = [b for g in groups if (b := _beside(g)) is not None]
    bars = [Bar(g.key, g.score, g.lower, g.upper) for g in groups]
    unit = METRICS[metric.partition("_")[2]].unit
    return figures.grouped(bars, by, f"{metric} ({unit})", naive=naive)


def _beside(group: Group) -> Bar | None:
    """Last-value's loss on the group's windows, from the skill against it."""
    if group.skill is None or group.skill >= 1:
        return None
    return Bar(group.key, group.score / (1 - group.skill))


def _over_time(site: Site, view: SweepView, run: Run, metric: str) -> Spec:
    bare = metric.partition("_")[2]
    named = [("this run", run), ("last-value", view.last_value)]
    series, times = [], []
    for name, one in named:
        if one is not None and has_losses(one, "val"):
            panel = open_losses(one, "val")
            times = [day(t) for t in panel.origins]
            series.append((name, origin_means(panel.losses[bare])))
    return figures.over_time(times, series, metric)


# Config, scores, notes, provenance, log.


def _config(site: Site, view: SweepView | None, run: Run) -> Iterator[Block]:
    beside = [] if view is None else [r for r in view.runs if r.model_name == run.model_name]
    differ = varied(beside)
    known = site.once(("defaults", run.model_name), lambda: _defaults(run.model_name))
    rows, changed = [], []
    for name, value in run.hyperparams.items():
        values = sorted({str(v) for v in differ.get(name, [])})
        others = ", ".join(values[:6]) + (" …" if len(values) > 6 else "")
        default, unit, doc = known.get(name, (None, "", ""))
        is_changed = default is not None and default != value
        changed += [name] if is_changed else []
        rows.append(
            (
                Cell(name, mark="code", title=doc),
                Cell(shown(value).text, shown(value).value, mark="strong" if is_changed else ""),
                shown(default),
                Cell("changed" if is_changed else "", mark="warn"),
                Cell(unit, mark="faint"),
                Cell(others, mark="faint"),
            )
        )
    if known:
        told = f"{', '.join(changed[:12])}{' …' if len(changed) > 12 else ''}"
        yield Words(f"Changed from the model's defaults: {told or 'nothing'}.")
    yield Table(
        name="config",
        columns=(
            Column("hyperparameter"),
            Column("value"),
            Column("default", title="–: worked out from the size, the weights or the data"),
            Column("changed"),
            Column("unit"),
            Column("tried beside it"),
        ),
        rows=tuple(rows),
    )
    near = sorted(
        ((_distance(run, r), r) for r in beside if r.run_id != run.run_id),
        key=lambda pair: (pair[0], pair[1].run_id),
    )[:5]
    if near:
        yield Table(
            name="similar",
            columns=(
                Column("similar run"),
                Column("differs in"),
                Column("val_skill", is_number=True),
            ),
            rows=tuple(
                (
                    run_link(site.sweep(r.sweep_id), r) if r.sweep_id else Cell(r.run_id),
                    Cell(", ".join(_differing(run, r)[:6]) or "nothing but the seed"),
                    number(r.score("val_skill")),
                )
                for _, r in near
            ),
            caption="Runs of this model on the same windows, the most similar first.",
        )


def _defaults(model: str) -> Mapping[str, tuple[Any, str, str]]:
    """(default, unit, what it is) of each hyperparameter; {} of what has no class here."""
    try:
        config = get_model(model).Config
    except ForesweepError:  # logged by hand, or a plug-in that is not installed here
        return {}
    return {h.name: (h.default, h.unit, h.doc) for h in hyperparameters(config)}


def _differing(one: Run, other: Run) -> list[str]:
    names = dict.fromkeys([*one.hyperparams, *other.hyperparams])
    return [n for n in names if one.hyperparams.get(n) != other.hyperparams.get(n)]


def _distance(one: Run, other: Run) -> int:
    return len(_differing(one, other))


def scores_table(run: Run) -> Table:
    """Every score of tune and val, with its unit and formula."""
    parts = ("tune", "val")
    names = dict.fromkeys(n.partition("_")[2] for n in run.metrics if n.partition("_")[0] in parts)
    return Table(
        name="scores",
        columns=(
            Column("metric"),
            *(Column(p, is_number=True) for p in parts),
            Column("unit"),
            Column("what it is"),
        ),
        rows=tuple(
            (
                Cell(n, mark="code"),
                *(number(run.score(f"{p}_{n}")) for p in parts),
                Cell(METRICS[n].unit if n in METRICS else ""),
                Cell(METRICS[n].formula if n in METRICS else ""),
            )
            for n in names
        ),
        caption="Test is sealed: it is opened by a verdict alone.",
    )


def _notes(site: Site, run: Run) -> Iterator[Block]:
    notes = site.tracker.get_notes(run.run_id)
    if run.tags and not site.can_write:
        yield Facts((("tags", Cell(", ".join(run.tags))),))
    if run.notes:
        yield Words(run.notes)
    for at, who, text in notes:
        yield Words(f"{at:%Y-%m-%d %H:%M} UTC, {who or 'somebody'}: {text}")
    if not notes and not run.notes:
        yield Words("No note yet.", "empty")
    if site.can_write:
        base = f"{site.links.to('run', run.run_id)}"
        note = Field("text", "A note", is_long=True)
        yield Form("note", f"{base}/note", "Add the note", (note,), is_post=True)
        yield Form("tag", f"{base}/tag", "Add the tag", (Field("tag", "A tag"),), is_post=True)
        for tag in run.tags:
            mine = (Field("tag", "", tag, is_hidden=True),)
            yield Form("untag", f"{base}/untag", f"Remove the tag {tag}", mine, is_post=True)


def _lineage(site: Site, view: SweepView | None, run: Run) -> Iterator[Block]:
    """The runs that it comes from and those that come from it."""
    found = list(_relations(site, view, run))
    if not found:
        yield Words(
            "It stands alone: taken from no other run, trained under one seed, a member of no "
            "ensemble, and gone on with by none.",
            "empty",
        )
        return
    rows = []
    for word, run_id, note in found[:MOST_RELATIONS]:
        try:
            other = site.tracker.get_run(run_id)
        except NotFound:  # of another database
            rows.append((Cell(word), Cell(run_id, mark="code"), *[Cell("–")] * 4, Cell(note)))
            continue
        rows.append(
            (
                Cell(word),
                Cell(run_id, href=site.links.to("run", run_id), mark="code"),
                Cell(other.model_name),
                state_cell(other.state.value),
                shown(other.seed),
                share(other.score("val_skill"), is_marked=True),
                Cell(note),
            )
        )
    yield Table(
        name="relations",
        columns=(
            Column("this run"),
            Column("run"),
            Column("model"),
            Column("state"),
            Column("seed", is_number=True),
            Column("val skill", is_number=True),
            Column("how"),
        ),
        rows=tuple(rows),
        num_all=len(found),
    )


MOST_RELATIONS = 50


def _relations(site: Site, view: SweepView | None, run: Run) -> Iterator[tuple[str, str, str]]:
    """(how this run stands to it, its id, more of it)."""
    word, _, rest = run.source.partition(": ")
    if word == "transfer":
        yield "was mapped from", rest.removeprefix("from "), run.notes or ""
    if run.reproduces:
        yield "reproduces", run.reproduces, "the same config trained once more"
    if run.continues:
        steps = run.hyperparams.get("max_steps")
        yield "goes on from", run.continues, f"to step {steps}" if steps else ""
    members = run.hyperparams.get("members")
    if isinstance(members, dict):
        for name, weight in sorted(members.items(), key=lambda m: -m[1]):
            yield "mixes", name, f"weight {weight:.2f}"
    if run.config_hash:
        for other in site.tracker.get_seeds(run.run_id):
            if other.run_id != run.run_id:
                yield "has as another seed", other.run_id, ""
    for other in view.runs if view is not None else ():
        theirs = other.hyperparams.get("members")
        if run.run_id in (other.reproduces, other.continues):
            yield "was trained again as", other.run_id, other.source.partition(": ")[0]
        elif other.source == f"transfer: from {run.run_id}":
            yield "was mapped to", other.run_id, ""
        elif isinstance(theirs, dict) and run.run_id in theirs:
            yield "is a member of", other.run_id, f"weight {theirs[run.run_id]:.2f}"
        elif (
            run.trial_number is not None
            and other.run_id != run.run_id
            and (
                (other.sweep_id, other.trial_number) == (run.sweep_id, run.trial_number)
                and other.seed == run.seed
            )
        ):
            yield "was tried before or after as", other.run_id, f"attempt {other.attempt}"


def _provenance(site: Site, run: Run) -> Iterator[Block]:
    facts = dict(site.tracker.get_environment(run.run_id))
    diff = facts.pop("git_diff", None)
    pairs = [("seed", shown(run.seed)), ("attempt", shown(run.attempt))]
    pairs += [("started", when(run.started_at)), ("ended", when(run.finished_at))]
    pairs += [("source", Cell(run.source)), ("train hash", Cell(run.train_hash[:16], mark="code"))]
    pairs += [("config hash", Cell(run.config_hash[:16], mark="code"))]
    for name, value in facts.items():
        if isinstance(value, str | int | float) and value != "":
            pairs.append((name.replace("_", " "), Cell(str(value))))
        elif isinstance(value, dict) and value:
            pairs.append((name, Cell(", ".join(f"{k} {v}" for k, v in value.items()))))
    pairs.append(("resources", Cell(json.dumps(dict(run.resources)))))
    yield Facts(tuple(pairs))
    if diff and site.links.is_live:
        yield Words(str(diff)[:20_000], kind="log")


def _log(site: Site, run: Run) -> Iterator[Block]:
    """The end of training.log, where it lies in the folder of runs and nowhere else."""
    base = site.runs_dir.resolve()
    folders = [base / run.run_id]
    if run.forecasts_path is not None:
        folders.append(Path(run.forecasts_path).resolve())
    for folder in folders:
        file = (folder / "training.log").resolve()
        if file.is_relative_to(base) and file.is_file():
            with file.open("rb") as opened:
                opened.seek(max(0, file.stat().st_size - 40_000))
                text = opened.read().decode("utf-8", errors="replace")
            yield Words("\n".join(text.splitlines()[-LOG_TAIL:]) or "(empty)", kind="log")
            return
    if run.error:
        yield Words(run.error[-8000:], kind="log")
        return
    yield Words(f"It left no training.log in {site.runs_dir}.", "empty")


# Several runs beside each other.


def compare_page(site: Site, runs: Sequence[Run], asked: Asked) -> Page:
    """2 to 6 runs: what differs, the paired losses over time, forecasts over one another."""
    first = runs[0]
    view = None if first.sweep_id is None else site.sweep(first.sweep_id)
    return Page(
        id="compare",
        title=f"Compare {len(runs)} runs",
        lead=", ".join(r.run_id for r in runs),
        sections=tuple(_compared(site, view, runs, asked)),
        crumbs=(("Overview", site.links.to("") or "#overview"),),
    )


def _compared(
    site: Site, view: SweepView | None, runs: Sequence[Run], asked: Asked
) -> Iterator[Section]:
    same = len({r.fingerprint for r in runs}) == 1 and bool(runs[0].fingerprint)
    blocks: list[Block] = []
    if not same:
        blocks.append(
            Words("Their windows are not known to be the same: scores cannot be compared.", "warn")
        )
    heads = tuple(Column(r.run_id) for r in runs)
    differ = varied(runs)
    fields = ("model_name", "state", "source", "seed")
    every = [(name, [getattr(r, name) for r in runs]) for name in fields]
    facts = [(name, values) for name, values in every if len(set(values)) > 1]
    if not (facts or differ):
        blocks.append(Words("Nothing differs: model, config and seed are the same.", "empty"))
    blocks.append(
        Table(
            name="differences",
            columns=(Column("hyperparameter"), *heads),
            rows=tuple(
                (Cell(name, mark="code"), *(shown(v) for v in values))
                for name, values in (*facts, *differ.items())
            ),
            caption="Only what differs.",
        )
    )
    yield Section("config", "What differs", tuple(blocks))
    names = [n for n in dict.fromkeys(m for r in runs for m in r.metrics) if n.startswith("val_")]
    scores = Table(
        name="scores",
        columns=(Column("score"), *(Column(r.run_id, is_number=True) for r in runs)),
        rows=tuple((Cell(n, mark="code"), *(number(r.score(n)) for r in runs)) for n in names),
    )
    if view is not None and same:
        yield Section("paired", "Paired losses", tuple(_paired(view, runs)))
        others = [r for r in runs[1:] if r.state == "complete"]
        fans = tuple(forecast_blocks(site, view, runs[0], asked, others=others))
        yield Section("forecasts", "Forecasts over one another", fans)
    yield Section("scores", "Scores", (scores,))


def _paired(view: SweepView, runs: Sequence[Run]) -> Iterator[Block]:
    metric = view.bare if view.bare in PANEL_LOSSES else "pct_mae"
    known = [r for r in runs if has_losses(r, "val")]
    if len(known) < 2:
        yield Words("Losses of fewer than two of these runs are on this disk.", "empty")
        return
    first, *others = known
    rows = []
    for other in others:
        mine, theirs = (open_losses(r, "val") for r in (first, other))
        lags = overlap_lags(mine.horizon, mine.stride)
        ours, beside = (origin_means(p.scaled(metric)) for p in (mine, theirs))
        found = diebold_mariano(ours, beside, lags=lags)
        rows.append(
            (
                Cell(other.run_id, mark="code"),
                number(found.mean_difference),
                number(found.standard_error),
                number(found.pvalue, 3),
            )
        )
    yield Table(
        name="paired",
        columns=(
            Column(f"{first.run_id} against"),
            Column("mean difference", is_number=True),
            Column("standard error", is_number=True),
            Column("p (DM)", is_number=True),
        ),
        rows=tuple(rows),
        caption=f"{metric} in units of volatility; positive: {first.run_id} is better. One-sided "
        f"Diebold-Mariano on val, as if this were the only pair.",
    )
    for k, other in enumerate(others):
        yield Figure(
            name=f"paired-{k + 1}",
            title=f"{first.run_id} against {other.run_id} over time",
            alt="Mean loss difference up to each origin with its 90 % interval.",
            build=partial(_paired_spec, first, other, metric),
            note=f"Above 0: {first.run_id} is better so far.",
            height=300,
        )


def _paired_spec(first: Run, other: Run, metric: str) -> Spec:
    mine, theirs = (open_losses(r, "val") for r in (first, other))
    gap = origin_means(theirs.scaled(metric)) - origin_means(mine.scaled(metric))
    lags = overlap_lags(mine.horizon, mine.stride)
    means, errors, times = [], [], []
    for k in range(max(10, lags + 3), len(gap) + 1):
        some = gap[:k][~np.isnan(gap[:k])]
        error = float(mean_errors(some[:, None], lags=lags).error[0])
        if len(some) and math.isfinite(error):
            means.append(float(some.mean()))
            errors.append(error)
            times.append(day(mine.origins[k - 1]))
    return figures.paired(times, np.array(means), np.array(errors), "loss difference")
