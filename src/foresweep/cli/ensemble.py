"""`ensemble` and `reproduce`: runs that are made of runs on record."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foresweep.cli.options import Db, Json, RunId, Runs, SweepId, open_existing, settings

if TYPE_CHECKING:
    from rich.progress import TaskID

    from foresweep.search.events import Event
    from foresweep.search.running.reproduce import Reproduction
    from foresweep.selection.ensembling import Made


class EnsembleMethod(StrEnum):
    """How forecasts are mixed."""

    greedy = "greedy"
    median = "median"
    mean = "mean"


def ensemble(
    top_k: Annotated[
        int, typer.Option(help="Trained runs that may take part: the best on tune.", min=1)
    ] = 5,
    method: Annotated[
        EnsembleMethod,
        typer.Option(
            help="greedy: weights by selection with replacement on tune; mean and median: all "
            "alike, with the best baseline."
        ),
    ] = EnsembleMethod.greedy,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Only runs of this model; repeatable."),
    ] = None,
    include_baselines: Annotated[
        bool,
        typer.Option(
            "--include-baselines/--no-baselines", help="May baselines be members? Default: yes."
        ),
    ] = True,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Loss that weights are to lower: pinball or pct_mae. Default: the sweep's "
            "objective, pct_mae where that has no losses per window."
        ),
    ] = None,
    sweep: SweepId = None,
    as_json: Json = False,
    db: Db = None,
    runs: Runs = None,
) -> None:
    """Mix the stored forecasts of the best runs and baselines; saved, scored and judged as a run.

    Members and weights are chosen on tune alone, and its own tune score is of two halves, each
    mixed by what was fitted on the other. Its checkpoint goes wherever a run's goes: predict, best,
    verdict.
    """
    from foresweep.selection.ensembling import Recipe, make_ensemble

    recipe = Recipe(
        top_k=top_k,
        method=method.value,
        metric=metric,
        models=_known(model or []),
        baselines=include_baselines,
    )
    runs_dir = settings(db, runs).runs_dir
    with open_existing(db) as tracker:
        made = make_ensemble(tracker, recipe, runs_dir=runs_dir, sweep_id=sweep)
    if as_json:
        typer.echo(json.dumps(_plain(made), indent=2))
    else:
        _draw(made)


def _known(models: list[str]) -> tuple[str, ...]:
    """Names in full. Raises UnknownName for one that nobody has installed."""
    from foresweep.search.propose.modes import expand_models

    return expand_models(models)


def _plain(made: Made) -> dict[str, Any]:
    return {
        "run_id": made.run.run_id,
        "is_new": made.is_new,
        "checkpoint_path": made.run.checkpoint_path,
        "metric": made.metric,
        "tune": made.tune,
        "val": made.val,
        "members": [
            {
                "run_id": p.run.run_id,
                "model": p.run.model_name,
                "weight": p.weight,
                "tune": p.tune,
                "val": p.val,
                "pvalue_val": p.pvalue,
            }
            for p in made.parts
        ],
        "left_out": list(made.left_out),
        "metrics": made.run.json_metrics,
    }


def _draw(made: Made) -> None:
    from foresweep.cli.tables import config_name, console, number, plain_table

    out = console()
    for line in made.left_out:
        out.print(f"{line}: not asked.", soft_wrap=True)
    name = made.metric
    table = plain_table("member", "config", ">weight", f">tune_{name}", f">val_{name}", ">p", "run")
    for p in made.parts:
        table.add_row(
            p.run.model_name,
            config_name(p.run) or "baseline",
            f"{p.weight:.2f}",
            number(p.tune, 4),
            number(p.val, 4),
            number(p.pvalue, 3),
            p.run.run_id,
        )
    table.add_row("ensemble", "", "1.00", number(made.tune, 4), number(made.val, 4), "", "")
    out.print(table)
    out.print(
        "p: one-sided Diebold-Mariano on val, that the ensemble beats this member alone; trials "
        "tried before are not counted. Its tune score is cross-fitted.",
        soft_wrap=True,
    )
    if made.is_new:
        out.print(f"Saved as run {made.run.run_id}.", soft_wrap=True)
    else:
        out.print(f"The same members and weights are on record: {made.run.run_id}.", soft_wrap=True)
    out.print(f"checkpoint {made.run.checkpoint_path}", soft_wrap=True)
    out.print(f"Judge it with: foresweep verdict {made.run.run_id}", soft_wrap=True)


# `reproduce`: train a run once more from its record and show what is different.


def reproduce(run: RunId, as_json: Json = False, db: Db = None, runs: Runs = None) -> None:
    """Train a run again from its record and show the difference of every score.

    The same bars, config, seed and resources; versions that differ are named. On a CPU the same
    versions give the same scores bit for bit. Exit 0 whenever it could be trained: --json has the
    numbers. The second training is a further run of the same trial: the original stays in every
    ranking, and no count of trials grows.
    """
    from foresweep.search.running.reproduce import reproduce as train_again

    with open_existing(db) as tracker, Bar(quiet=as_json) as bar:
        try:
            found = train_again(
                tracker.get_run(run),
                tracker=tracker,
                runs_dir=settings(db, runs).runs_dir,
                listen=bar.on_event,
            )
        except KeyboardInterrupt:
            typer.echo("Stopped; the second training is on record as cancelled.", err=True)
            raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(_plain_reproduction(found), indent=2))
    else:
        _draw_reproduction(found)


class Bar:
    """Listens to one training: a bar in a terminal, one line elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.progress import Progress

        from foresweep.cli.tables import console

        self.console, self.quiet = console(), quiet
        self.bars = Progress(
            console=self.console, disable=quiet or not self.console.is_terminal, transient=True
        )
        self.running: TaskID | None = None

    def __enter__(self) -> Bar:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def on_event(self, event: Event) -> None:
        """What the training tells."""
        from foresweep.search.events import TrialProgressed, TrialStarted

        if isinstance(event, TrialStarted):
            run, steps = event.run, event.run.hyperparams.get("max_steps")
            if not self.quiet:
                self.console.print(
                    f"Training {run.reproduces} again: trial {run.trial_number} of sweep "
                    f"{run.sweep_id}, seed {run.seed}{f', {steps} steps' if steps else ''}.",
                    soft_wrap=True,
                )
            self.running = self.bars.add_task(run.model_name, total=steps or 1)
        elif isinstance(event, TrialProgressed) and self.running is not None:
            self.bars.update(self.running, completed=event.step)


def _plain_reproduction(found: Reproduction) -> dict[str, Any]:
    return {
        "run_id": found.original.run_id,
        "again": found.again.run_id,
        "bit_for_bit": found.is_bit_for_bit,
        "test_is_equal": found.is_test_equal,
        "versions": [asdict(v) for v in found.versions],
        "scores": [asdict(s) | {"difference": s.difference} for s in found.scores],
    }


def _draw_reproduction(found: Reproduction) -> None:
    from foresweep.cli.tables import console, plain_table

    out = console()
    table = plain_table("score", ">then", ">now", ">difference")
    for score in found.scores:
        changed = "0" if score.share == 0 else _number(score.difference)
        style = "" if score.share == 0 else "yellow"
        table.add_row(score.name, _number(score.then), _number(score.now), changed, style=style)
    out.print(table)
    for version in found.versions:
        said = f"{version.name}: {version.then} then, {version.now} now"
        out.print(said, style="yellow", soft_wrap=True)
    if not found.versions:
        out.print("Code, Python, packages and machine are those on record.")
    style = "green" if found.is_bit_for_bit else "yellow"
    words = found.in_words()
    out.print(f"{words[0].upper()}{words[1:]}.", style=style, soft_wrap=True)
    out.print(_about_test(found.is_test_equal), soft_wrap=True)
    out.print(f"The second training is run {found.again.run_id}.", soft_wrap=True)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.7g}"


def _about_test(is_equal: bool | None) -> str:
    if is_equal is None:
        return "There are no test scores on record to compare."
    word = "are the same to the last bit" if is_equal else "differ"
    return f"The test scores {word}; they stay sealed, and this was no look."
