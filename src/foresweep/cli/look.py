"""`best`, `show`, `logs`, `report`: read what is on record."""

from __future__ import annotations

import json
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
    open_tracker,
    settings,
)
from foresweep.cli.query import run_json
from foresweep.errors import NotFound, UsageError

if TYPE_CHECKING:
    from foresweep.records import Run
    from foresweep.selection.leaderboard import Leaderboard, Row
    from foresweep.tracker.tracker import Tracker


def best(
    model: Model = None,
    metric: Metric = "val_pct_mae",
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
    sweep: SweepId = None,
    as_json: Json = False,
    db: Db = None,
) -> None:
    """Choose the best trained run by a validation metric, and hand it over."""
    if maximize and minimize:
        raise UsageError("--maximize and --minimize contradict each other; give one")
    if interactive and as_json:
        raise UsageError("--interactive asks questions and --json answers none; give one")
    direction = True if maximize else (False if minimize else None)
    with open_tracker(db) as tracker:
        board = _board(tracker, metric, sweep, direction)
        chosen = _choose_model(board) if interactive and model is None else model
        rows = _candidates(board, chosen, include_baselines)
        if not rows:
            raise NotFound(
                f"no run{f' of {chosen}' if chosen else ''} with a {metric} and a checkpoint; "
                f"see `foresweep runs`, or start with: foresweep sweep --model all --mode quick"
            )
        row = _choose_row(rows, metric) if interactive else rows[0]
    if as_json:
        typer.echo(json.dumps([_row_json(r) for r in rows[:top_k]], indent=2))
    elif not interactive:
        _show_best(board, rows[:top_k], listed=top_k > 1)
    if row is not None and export_path:
        _export(row, board)
    if row is None:
        raise typer.Exit(1)


def _board(
    tracker: Tracker, metric: str, sweep_id: str | None, maximize: bool | None
) -> Leaderboard:
    from foresweep.metrics import split_name
    from foresweep.selection.leaderboard import leaderboard

    if split_name(metric)[0] not in ("val", "tune"):
        raise UsageError(f"--metric {metric}: models are chosen on val or tune, never on the rest")
    return leaderboard(_comparable(tracker, sweep_id), metric=metric, maximize=maximize)


def _comparable(tracker: Tracker, sweep_id: str | None) -> list[Run]:
    """The runs of one fingerprint: the latest sweep's, unless told which; else those by hand."""
    if sweep_id is None and not tracker.list_sweeps():
        return tracker.get_runs(fingerprint="")
    return tracker.get_runs(fingerprint=tracker.get_sweep(sweep_id or "latest").fingerprints["val"])


def _candidates(board: Leaderboard, model: str | None, baselines: bool) -> list[Row]:
    """Ranked rows with a checkpoint on disk. Raises UnknownName for a model nobody knows."""
    if model is not None:
        from foresweep.search.proposals import expand_models

        wanted = expand_models([model])
    return [
        row
        for row in board.rows
        if row.place
        and row.run.has_checkpoint_files
        and (baselines or not row.run.is_baseline)
        and (model is None or row.run.model_name in wanted)
    ]


def _choose_model(board: Leaderboard) -> str | None:
    """Ask for a model type; None stands for all."""
    names = ["toto", "kronos", "chronos2"]
    typer.echo("Which model?")
    for k, name in enumerate([*names, "all"], start=1):
        count = sum(r.run.model_name == name or name == "all" for r in board.rows if r.place)
        typer.echo(f"  {k}  {name} ({count} ranked)")
    answer = typer.prompt("Number", default="4")
    return names[int(answer) - 1] if answer in ("1", "2", "3") else None


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
    run = row.run
    return {
        "place": row.place,
        "run_id": run.run_id,
        "model": run.model_name,
        "score": row.score,
        "skill_vs_last_value": row.skill,
        "state": run.state.value,
        "checkpoint_path": run.checkpoint_path,
        "metrics": dict(run.metrics),
        "hyperparams": dict(run.hyperparams),
        "source": run.source,
    }


def _show_best(board: Leaderboard, rows: list[Row], *, listed: bool) -> None:
    from dataclasses import replace

    from foresweep.cli.tables import console, leaderboard_table, verdict_line

    out = console()
    if listed:
        out.print(leaderboard_table(replace(board, rows=tuple(rows)), width=out.width))
    else:
        row = rows[0]
        out.print(f"{row.run.model_name}  run {row.run.run_id}  ({row.run.source})")
        out.print(f"{board.metric} {row.score:.4f}", soft_wrap=True)
        out.print(f"checkpoint {row.run.checkpoint_path}", soft_wrap=True)
    out.print(verdict_line(board, rows[0]), soft_wrap=True)


def _export(row: Row, board: Leaderboard) -> None:
    from foresweep.selection.export import export_best

    path, card = export_best(row, metric=board.metric, folder=Path.cwd())
    typer.echo(f"Wrote {path.name} (the checkpoint's folder) and {card.name} (its card).", err=True)


def show(run: RunId, as_json: Json = False, db: Db = None) -> None:
    """One run in full: config, scores, curve, provenance, and the error if it failed."""
    with open_tracker(db) as tracker:
        found = tracker.get_run(run)
        provenance = tracker.get_environment(found.run_id)
        curves = tracker.get_curves(found.run_id)
        notes = tracker.get_notes(found.run_id)
    if as_json:
        extra = {
            "provenance": dict(provenance),
            "curves": [_curve_json(c) for c in curves],
            "notes_added": [{"at": at, "who": who, "text": text} for at, who, text in notes],
        }
        typer.echo(json.dumps(run_json(found) | extra, indent=2, default=str))
        return
    _draw_run(found, curves, provenance)
    for at, who, text in notes:
        typer.echo(f"note by {who}, {at:%Y-%m-%d %H:%M} UTC: {text}")


def _curve_json(curve: Any) -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(curve)


def _draw_run(run: Run, curves: Any, provenance: Any) -> None:
    from foresweep.cli.tables import console, number, plain_table

    out = console()
    out.print(f"{run.model_name}  {run.run_id}  {run.state.value}  {run.source}")
    facts = {
        "sweep": run.sweep_id, "trial": run.trial_number, "seed": run.seed,
        "started": run.started_at, "finished": run.finished_at,
        "training": run.training_time_seconds, "peak memory (MiB)": run.peak_memory_mb,
        "checkpoint": run.checkpoint_path, "notes": run.notes,
        "tags": ", ".join(run.tags) or None,
        **{k: v for k, v in provenance.items() if isinstance(v, str | int | float)},
    }  # fmt: skip
    _pairs(out, "run", {k: v for k, v in facts.items() if v is not None})
    _pairs(out, "hyperparameter", dict(run.hyperparams))
    scores = plain_table("score", ">value")
    for name, value in sorted(run.metrics.items()):
        scores.add_row(name, number(value, 4))
    out.print(scores)
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


def _pairs(out: Any, heading: str, values: dict[str, Any]) -> None:
    from foresweep.cli.tables import plain_table

    table = plain_table(heading, "value")
    for key, value in values.items():
        table.add_row(key, str(value))
    out.print(table)


def logs(run: RunId, db: Db = None, runs: Runs = None) -> None:
    """What a run's process printed: its training.log."""
    with open_tracker(db) as tracker:
        found = tracker.get_run(run)
    file = settings(db, runs).runs_dir / found.run_id / "training.log"
    if not file.is_file():
        raise NotFound(f"run {found.run_id} left no log at {file}; is --runs the right folder?")
    typer.echo(file.read_text(encoding="utf-8", errors="replace"), nl=False)
    if found.error:
        typer.echo(found.error)


def report(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .md file. Default: the screen.")
    ] = None,
    metric: Metric = "val_pct_mae",
    sweep: SweepId = None,
    db: Db = None,
) -> None:
    """Write the report: models side by side, best runs, hyperparameters, failures."""
    from foresweep.data.tables import write_bytes_atomic
    from foresweep.reporting.report import markdown_report

    if output is not None and output.suffix not in (".md", ".markdown"):
        raise UsageError(f"--output {output}: the report is Markdown; give a name ending in .md")
    with open_tracker(db) as tracker:
        asked = tracker.get_sweep(sweep or "latest") if sweep or tracker.list_sweeps() else None
        text = markdown_report(_comparable(tracker, sweep), metric=metric, sweep=asked)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_bytes_atomic(output, text.encode())
        typer.echo(f"Wrote {output}.")
