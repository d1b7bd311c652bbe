"""`best`, `show`, `logs`: read what is on record, sealed scores by the one door included."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foresweep.cli.options import (
    Db,
    Json,
    Metric,
    Model,
    RunId,
    Runs,
    SweepId,
    asked_sweep,
    metric_of,
    open_existing,
    settings,
)
from foresweep.cli.predict import find_log, standing, with_checkpoint
from foresweep.cli.runs import run_json
from foresweep.errors import NotFound, UsageError

if TYPE_CHECKING:
    from foresweep.evaluation.breakdown import Group
    from foresweep.records import Run, Sweep
    from foresweep.selection.leaderboard import Leaderboard, Row
    from foresweep.tracker.tracker import Tracker

# `show RUN --reveal-test`: the sealed scores of a run, by the one door that records the look.


WHY = "show --reveal-test"


def show_test(tracker: Tracker, run: Run, *, as_json: bool) -> None:
    """Record the look, then print a run's test scores and what the look costs."""
    from foresweep.cli.tables import console, number, plain_table
    from foresweep.selection.sealed import reveal

    scores = reveal(tracker, run, why=WHY)
    looks = tracker.judgings.test_looks(run.run_id)
    if as_json:
        plain = {k: v if math.isfinite(v) else None for k, v in sorted(scores.items())}
        said = {"run_id": run.run_id, "test_scores": plain, "looks": looks}
        typer.echo(json.dumps(said, indent=2, default=str, allow_nan=False))
        return
    out = console()
    out.print(f"{run.model_name}  run {run.run_id}  ({run.source})")
    if not scores:
        out.print("This run has no test scores on record.")
    else:
        table = plain_table("sealed score", ">value")
        for name, value in sorted(scores.items()):
            table.add_row(name, number(value, 4))
        out.print(table)
    out.print(
        f"This is look {len(looks)} at this run's test, and on record. Any other run of these "
        f"items and days that is judged from now on has to pass a stricter test.",
        soft_wrap=True,
    )


# `best`, `show`, `logs`: read what is on record.


def best(
    model: Model = None,
    metric: Metric = None,
    maximize: Annotated[bool, typer.Option("--maximize", help="Higher is better.")] = False,
    minimize: Annotated[bool, typer.Option("--minimize", help="Lower is better.")] = False,
    top_k: Annotated[int, typer.Option(help="How many to list.", min=1)] = 1,
    interactive: Annotated[bool, typer.Option("--interactive", help="Choose from a list.")] = False,
    export_path: Annotated[
        bool,
        typer.Option("--export-path", help="Write .best_model_path and .best_model.json."),
    ] = False,
    include_baselines: Annotated[
        bool, typer.Option("--include-baselines", help="Rank the baselines, too.")
    ] = False,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", help="Where it wins and loses: item, origin, lead, month, year or regime."
        ),
    ] = None,
    sweep: SweepId = None,
    as_json: Json = False,
    db: Db = None,
) -> None:
    """Choose the best trained run by a validation metric, and hand it over.

    A baseline that is named by --model ranks, too. With --top-k 2 or more the table marks what
    is better than the benchmark (S) and what cannot be told from the best (M). After a sweep with
    several objectives the configs that give up nothing, and the knee among them, are shown, too.
    """
    from foresweep.cli.tables import console, pareto_places, show_pareto

    if maximize and minimize:
        raise UsageError("--maximize and --minimize contradict each other; give one")
    if interactive and as_json:
        raise UsageError("--interactive asks questions and --json answers none; give one")
    if by is not None and (export_path or top_k > 1):
        raise UsageError("--by looks into one run; leave --export-path and --top-k out")
    direction = True if maximize else (False if minimize else None)
    with open_existing(db) as tracker:
        asked = asked_sweep(tracker, sweep)
        objective = "" if metric or asked is None else asked.objective
        metric = metric or metric_of(asked)
        board = _board(tracker, metric, asked, direction)
        rows = _candidates(board, model, include_baselines)
        if not rows:
            raise NotFound(
                f"no run{f' of {model}' if model else ''} with a {metric} and a checkpoint; "
                f"see `foresweep runs`, or start with: foresweep sweep --model all --mode quick"
            )
        if interactive and model is None:
            rows = _choose_model(rows)
        row = _choose_row(rows, metric) if interactive else rows[0]
        if by is not None and row is not None:
            runs_dir = settings(db, None).runs_dir
            show_groups(tracker, row.run, by, metric, runs_dir=runs_dir, as_json=as_json)
            return
        every = [r.run for r in board.rows]
        apart: tuple[str, ...] = ()
        if top_k > 1 and not interactive:
            from foresweep.selection.standing import elsewhere, with_standing

            board = with_standing(board)
            marked = {row.run.run_id: row for row in board.rows}
            rows = [marked[r.run.run_id] for r in rows]
            by_hand = len(tracker.get_runs(fingerprint=""))
            apart = elsewhere(tracker.list_sweeps(), asked, by_hand)
    if as_json:
        where = pareto_places(every, objective)
        found = [_row_json(r) | where.get(r.run.run_id, {}) for r in rows[:top_k]]
        typer.echo(json.dumps(found, indent=2))
    elif not interactive:
        _show_best(board, rows[:top_k], listed=top_k > 1)
        show_pareto(every, objective)
        if apart:
            out = console()
            out.print("Not in this table, since scores of other windows cannot be compared:")
            for line in apart:
                out.print(f"- {line}", soft_wrap=True)
    if row is not None and export_path:
        from foresweep.selection.export import export_best

        path, card = export_best(row, metric=board.metric, folder=Path.cwd())
        typer.echo(
            f"Wrote {path.name} (the checkpoint's folder) and {card.name} (its card).", err=True
        )
    if row is None:
        raise typer.Exit(1)


def _board(
    tracker: Tracker, metric: str, sweep: Sweep | None, maximize: bool | None
) -> Leaderboard:
    from foresweep.selection.leaderboard import leaderboard

    by_hand_or_of = "" if sweep is None else sweep.fingerprints["val"]
    runs = [with_checkpoint(tracker, r) for r in tracker.get_runs(fingerprint=by_hand_or_of)]
    return leaderboard(runs, metric=metric, maximize=maximize)


def _candidates(board: Leaderboard, model: str | None, baselines: bool) -> list[Row]:
    """Ranked rows with a checkpoint on disk; baselines if asked for, by flag or by name.

    Raises UnknownName for a model nobody knows.
    """
    wanted: tuple[str, ...] = ()
    if model is not None:
        from foresweep.models.registry import ENSEMBLE
        from foresweep.search.propose.modes import expand_models

        wanted = (ENSEMBLE,) if model == ENSEMBLE else expand_models([model])
    return [
        row
        for row in board.rows
        if row.place
        and row.run.has_checkpoint_files
        and (row.run.model_name in wanted if wanted else baselines or not row.run.is_baseline)
    ]


def _choose_model(rows: list[Row]) -> list[Row]:
    """Ask for a model among those that have ranked runs, or all; its rows."""
    names = sorted({r.run.model_name for r in rows})
    choices = [*names, "all"]
    typer.echo("Which model?")
    for k, name in enumerate(choices, start=1):
        count = sum(name in ("all", r.run.model_name) for r in rows)
        typer.echo(f"  {k}  {name} ({count} ranked)")
    while True:
        answer = typer.prompt("Number", default=str(len(choices))).strip()
        if answer.isdecimal() and 1 <= int(answer) <= len(choices):
            chosen = choices[int(answer) - 1]
            return [r for r in rows if chosen in ("all", r.run.model_name)]
        typer.echo(f"Give a number from 1 to {len(choices)}.")


def _choose_row(rows: list[Row], metric: str) -> Row | None:
    """Show at most ten (never a test score) and ask for one; None for q."""
    from foresweep.cli.tables import console, number, percent, plain_table

    table = plain_table(">#", "model", "config", f">{metric}", ">skill vs naive", "run")
    for k, row in enumerate(rows[:10], start=1):
        table.add_row(
            str(k), row.run.model_name, row.run.source, number(row.score, 4),
            percent(row.skill, 2), row.run.run_id,
        )  # fmt: skip
    console().print(table)
    while True:
        answer = typer.prompt("Number, or q to leave", default="1").strip().lower()
        if answer == "q":
            return None
        if answer.isdigit() and 1 <= int(answer) <= min(10, len(rows)):
            row = rows[int(answer) - 1]
            typer.echo(json.dumps(_row_json(row), indent=2))
            return row
        typer.echo(f"Give a number from 1 to {min(10, len(rows))}, or q.")


def _row_json(row: Row) -> dict[str, Any]:
    from foresweep.records import STILL_LEARNING

    run = row.run
    return {
        "place": row.place,
        "run_id": run.run_id,
        "model": run.model_name,
        "score": row.score,
        "skill_vs_last_value": row.skill,
        "skill_vs_benchmark": row.benchmark_skill,
        "superior": row.superior,
        "in_mcs": row.in_mcs,
        "seeds": None if row.seeds is None else asdict(row.seeds),
        "state": run.state.value,
        "still_learning": STILL_LEARNING in run.tags,
        "checkpoint_path": run.checkpoint_path,
        "metrics": run.json_metrics,
        "hyperparams": dict(run.hyperparams),
        "source": run.source,
    }


def _show_best(board: Leaderboard, rows: list[Row], *, listed: bool) -> None:
    from foresweep.cli.tables import (
        console,
        leaderboard_table,
        standing_lines,
        verdict_line,
    )
    from foresweep.selection.leaderboard import still_learning

    out = console()
    if listed:
        out.print(leaderboard_table(replace(board, rows=tuple(rows)), width=out.width))
    else:
        row = rows[0]
        out.print(f"{row.run.model_name}  run {row.run.run_id}  ({row.run.source})")
        out.print(f"{board.metric} {row.score:.4f}", soft_wrap=True)
        out.print(f"checkpoint {row.run.checkpoint_path}", soft_wrap=True)
    out.print(verdict_line(board, rows[0]), soft_wrap=True)
    for line in standing_lines(board):
        out.print(line, soft_wrap=True)
    if told := still_learning(replace(board, rows=tuple(rows))):
        out.print(told, soft_wrap=True)


def show(
    run: RunId,
    by: Annotated[
        str | None,
        typer.Option("--by", help="A score of it by item, origin, lead, month, year or regime."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="Score for --by: val_... or tune_.... Default: val_ and the objective."),
    ] = None,
    cost_bps: Annotated[
        float | None,
        typer.Option("--cost-bps", help="The trading rule on val at this cost, in basis points."),
    ] = None,
    reveal_test: Annotated[
        bool,
        typer.Option("--reveal-test", help="Its sealed test scores: the look goes on record."),
    ] = False,
    as_json: Json = False,
    db: Db = None,
    runs: Runs = None,
) -> None:
    """One run in full: config, scores, curve, provenance, and the error if it failed.

    --by shows where it wins and loses, beside last-value and with 95 % bounds by block bootstrap;
    --cost-bps what its forecasts would have earned at another cost than the stored 5.
    """
    if by is None and metric is not None:
        raise UsageError(
            "--metric says what --by shows; give --by item, origin, lead, month, year, regime"
        )
    if by is not None and cost_bps is not None:
        raise UsageError("--by and --cost-bps are two questions; give one")
    if reveal_test and (by is not None or cost_bps is not None):
        raise UsageError(
            "--reveal-test shows scores of test, --by and --cost-bps never do; give one"
        )
    with open_existing(db) as tracker:
        found = tracker.get_run(run)
        if reveal_test:
            show_test(tracker, found, as_json=as_json)
            return
        runs_dir = settings(db, runs).runs_dir
        if by is not None:
            show_groups(tracker, found, by, metric, runs_dir=runs_dir, as_json=as_json)
            return
        if cost_bps is not None:
            show_trading(tracker, found, "val", cost_bps, runs_dir=runs_dir, as_json=as_json)
            return
        provenance = tracker.get_environment(found.run_id)
        curves = tracker.get_curves(found.run_id)
        notes = tracker.get_notes(found.run_id)
    if as_json:
        extra = {
            "provenance": dict(provenance),
            "curves": [_plain(asdict(c)) for c in curves],
            "notes_added": [{"at": at, "who": who, "text": text} for at, who, text in notes],
        }
        typer.echo(json.dumps(run_json(found) | extra, indent=2, default=str))
        return
    out = _draw_run(found, curves, provenance)
    for at, who, text in notes:
        out.print(f"note by {who}, {at:%Y-%m-%d %H:%M} UTC: {text}", soft_wrap=True)


def _in_a_line(provenance: Any) -> dict[str, Any]:
    """What of a run's origin fits on a line each; a diff is counted, and whole in --json."""
    facts = {k: v for k, v in provenance.items() if isinstance(v, str | int | float)}
    diff = facts.pop("git_diff", None)
    return (
        facts if not diff else facts | {"git_diff": f"{len(str(diff).splitlines())} lines (--json)"}
    )


def _draw_run(run: Run, curves: Any, provenance: Any) -> Any:
    """The console it is drawn on."""
    from foresweep.cli.tables import console, number, plain_table
    from foresweep.evaluation.yardstick import alarm

    out = console()
    out.print(f"{run.model_name}  {run.run_id}  {run.state.value}  {run.source}")
    facts = {
        "sweep": run.sweep_id, "trial": run.trial_number, "seed": run.seed,
        "started": run.started_at, "finished": run.finished_at,
        "training": run.training_time_seconds, "peak memory (MiB)": run.peak_memory_mb,
        "checkpoint": run.checkpoint_path, "notes": run.notes,
        "tags": ", ".join(run.tags) or None,
        "steered by": run.steered_by,
        **_in_a_line(provenance),
    }  # fmt: skip
    _pairs(out, "run", {k: v for k, v in facts.items() if v is not None})
    _pairs(out, "hyperparameter", dict(run.hyperparams))
    scores = plain_table("score", ">value")
    for name, value in sorted(run.metrics.items()):
        scores.add_row(name, number(value, 4))
    out.print(scores)
    if warning := alarm(run.run_id, run.score("val_skill")):
        out.print(warning, style="red", soft_wrap=True)
    if curves:
        table = plain_table("curve", ">points", ">last", ">lowest", ">at step", ">highest")
        for c in curves:
            table.add_row(
                c.name, str(c.num_points), number(c.last, 4), number(c.lowest, 4),
                str(c.lowest_step), number(c.highest, 4),
            )  # fmt: skip
        out.print(table)
    if run.error:
        out.print(run.error, style="red", markup=False)
    return out


def _pairs(out: Any, heading: str, values: dict[str, Any]) -> None:
    from foresweep.cli.tables import plain_table

    table = plain_table(heading, "value")
    for key, value in values.items():
        table.add_row(key, str(value))
    out.print(table)


# `show RUN --by` and `show RUN --cost-bps`: a run of record, asked again.


def show_groups(
    tracker: Tracker, run: Run, by: str, metric: str | None, *, runs_dir: Path, as_json: bool
) -> None:
    """Print a run's score by item, origin, lead, month, year or regime."""
    from foresweep.selection.groups import run_groups

    sweep = None if run.sweep_id is None else tracker.get_sweep(run.sweep_id)
    name = metric or metric_of(sweep)
    found = run_groups(tracker, _here(tracker, run), name, by, runs_dir=runs_dir)
    if as_json:
        typer.echo(json.dumps([_plain(asdict(group)) for group in found], indent=2))
        return
    _draw(run, name, by, found)


def _draw(run: Run, name: str, by: str, found: tuple[Group, ...]) -> None:
    from foresweep.cli.tables import console, number, percent, plain_table

    bounded = any(g.lower is not None for g in found)
    against = any(g.skill is not None for g in found)
    headings = [by, f">{name}", *([">95 %"] if bounded else [])]
    headings += [">skill vs naive"] if against else []
    headings += [">95 %"] if against and bounded else []
    table = plain_table(*headings, ">windows", ">origins")
    for g in found:
        cells = [g.key, number(g.score)]
        cells += [_span(g.lower, g.upper, number)] if bounded else []
        cells += [percent(g.skill, 2)] if against else []
        cells += [_span(g.skill_lower, g.skill_upper, percent)] if against and bounded else []
        table.add_row(*cells, str(g.num_windows), str(g.num_origins))
    out = console()
    out.print(f"{run.model_name}  run {run.run_id}  ({run.source})")
    out.print(table)
    if against:
        won = sum((g.skill or 0.0) > 0 for g in found)
        out.print(f"Better than last-value on {won} of {len(found)}; one line alone is luck.")


def _span(low: float | None, high: float | None, form: Any) -> str:
    return "-" if low is None or high is None else f"{form(low)} to {form(high)}"


def show_trading(
    tracker: Tracker, run: Run, part: str, cost_bps: float, *, runs_dir: Path, as_json: bool
) -> None:
    """Print what the trading rule would have earned on a run's forecasts at another cost."""
    from foresweep.cli.tables import console, number, plain_table
    from foresweep.metrics import METRICS
    from foresweep.selection.groups import run_trading

    found = run_trading(
        tracker, _here(tracker, run), part, runs_dir=runs_dir, cost_bps=cost_bps
    ).scores
    if as_json:
        scores = {f"{part}_{name}": value for name, value in found.items()}
        typer.echo(json.dumps(_plain({"cost_bps": cost_bps} | scores), indent=2))
        return
    table = plain_table("score", ">value", "unit")
    for name, value in found.items():
        table.add_row(f"{part}_{name}", number(value, 4), METRICS[name].unit)
    out = console()
    out.print(f"{run.model_name}  run {run.run_id}  at {cost_bps:g} basis points")
    out.print(table)
    if math.isnan(found["sharpe"]):
        out.print("The forecast never takes a position of its own: undefined.")


def _here(tracker: Tracker, run: Run) -> Run:
    """The run with the path of its forecasts as it is found from here."""
    if run.forecasts_path is None:
        return run
    found = standing(tracker, run, Path(run.forecasts_path))
    return run if found is None else replace(run, forecasts_path=str(found))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """What is undefined as null."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def logs(run: RunId, db: Db = None, runs: Runs = None) -> None:
    """What a run's process printed: its training.log."""
    runs_dir = settings(db, runs).runs_dir
    with open_existing(db) as tracker:
        found = tracker.get_run(run)
        file = find_log(tracker, found, runs_dir)
    if file is None and found.error:  # it ended before it had a log
        typer.echo(found.error)
        return
    if file is None:
        place = runs_dir / found.run_id
        raise NotFound(
            f"run {found.run_id} left no training.log in {place}; is --runs the right folder?"
        )
    text = file.read_text(encoding="utf-8", errors="replace")
    typer.echo(text, nl=False)
    if not text and not found.error:
        typer.echo(f"Run {found.run_id} printed nothing: {file} is empty.", err=True)
    if found.error and not _holds(text, found.error):
        typer.echo(found.error)


def _holds(log: str, error: str) -> bool:
    """Is the error's last line, which names it, in the log already?"""
    lines = error.strip().splitlines()
    return bool(lines) and lines[-1].strip() in log
