"""`runs`, `impact`, `compare`: ask the database about runs."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from foresweep.cli.options import Db, Json, Model, RunId, Runs, SweepId, open_existing, settings
from foresweep.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from foresweep.records import Run
    from foresweep.search.events import Event
    from foresweep.search.running.reproduce import Reproduction
    from foresweep.tracker.queries.impact import HyperparamImpact
    from foresweep.tracker.tracker import Tracker

WIDE, ROOMY = 130, 100
"""Columns of a terminal from which `runs` shows config and sweep; model and training time."""
Where = Annotated[
    str | None,
    typer.Option(
        help='An expression: "lr < 1e-4 and val_skill > 0"; see docs/tracker.md.',
        metavar="EXPRESSION",
    ),
]


def runs(
    model: Model = None,
    state: Annotated[
        str | None,
        typer.Option(help="complete, failed, pruned, waiting, running, lost or cancelled."),
    ] = None,
    sweep: Annotated[str | None, typer.Option(help="Only this sweep; 'latest' too.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only with this tag; repeatable.")] = None,
    where: Where = None,
    sort: Annotated[
        str | None,
        typer.Option(
            help="A score, hyperparameter or field; KEY:desc turns it round.", metavar="KEY"
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="How many; newest first unless --sort.", min=1)] = 50,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, every value.")] = False,
    db: Db = None,
) -> None:
    """List runs: newest first, or sorted and filtered by anything on record."""
    if as_json and as_csv:
        raise UsageError("--json and --csv are two forms of one answer; give one")
    _check_state(state)
    with open_existing(db) as tracker:
        sweep_id = tracker.get_sweep(sweep).sweep_id if sweep else None
        listed = tracker.get_runs(
            model_name=model,
            state=state,
            sweep_id=sweep_id,
            tags=tag or (),
            where=where,
            sort=sort,
            limit=limit,
        )
        told = {} if as_json or as_csv else _in_own_objective(tracker, listed)
    listed = listed if sort else listed[::-1]
    if as_json:
        typer.echo(json.dumps([run_json(r) for r in listed], indent=2))
    elif as_csv:
        _write_csv(listed)
    elif listed:
        _draw_runs(listed, sort, told)
    else:
        typer.echo("No run on record is as asked.")


def _check_state(state: str | None) -> None:
    """Raises UnknownName with the nearest."""
    from foresweep.records import RunState

    known = [s.value for s in RunState]
    if state is not None and state not in known:
        raise UnknownName("state", state, known)


Told: TypeAlias = "dict[str, tuple[str, float | None, float | None]]"
"""By run: the score of its sweep's objective on val, its value, and the skill in it."""


def _in_own_objective(tracker: Tracker, runs: Sequence[Run]) -> Told:
    from foresweep.cli.options import metric_of
    from foresweep.evaluation.yardstick import LAST_VALUE, last_value, own_skill

    metrics: dict[str | None, str] = {None: "val_pct_mae"}
    metrics |= {
        i: metric_of(tracker.get_sweep(i)) for i in {r.sweep_id for r in runs if r.sweep_id}
    }
    naive = {
        cells: last_value(tracker.get_runs(LAST_VALUE, fingerprint=cells))
        for cells in {r.fingerprint for r in runs if metrics[r.sweep_id] != "val_pct_mae"}
    }
    found: Told = {}
    for run in runs:
        metric = metrics[run.sweep_id]
        skill = own_skill(run, "val", metric.removeprefix("val_"), naive.get(run.fingerprint))
        found[run.run_id] = metric, run.score(metric), skill
    return found


def _draw_runs(runs: Sequence[Run], sort: str | None, told: Told) -> None:
    from foresweep.cli.tables import console, number, percent, plain_table, seconds

    key = (sort or "").partition(":")[0].strip()
    extra = [key] if any(key in r.hyperparams or key in r.metrics for r in runs) else []
    metrics = list(dict.fromkeys(metric for metric, _, _ in told.values())) or ["val_pct_mae"]
    mixed = len(metrics) > 1  # sweeps of several objectives: each run by its own
    extra = [] if extra and not mixed and key in (metrics[0], "val_skill") else extra
    out = console()
    wide, roomy = out.width >= WIDE, out.width >= ROOMY
    named = not roomy and all(r.run_id.startswith(r.model_name) for r in runs)
    headings = ["run", *([] if named else ["model"]), "state", *(["config"] if wide else [])]
    headings += [
        *(f">{k}" for k in extra),
        *(["objective", ">score"] if mixed else [f">{metrics[0]}"]),
        ">skill",
        *([">training"] if roomy else []),
    ]
    table = plain_table(*headings, *(["sweep"] if wide else []))
    for run in runs:
        cells = [run.run_id, *([] if named else [run.model_name]), run.state.value]
        cells += [run.source] if wide else []
        cells += [_shown(run.hyperparams.get(k, run.metrics.get(k))) for k in extra]
        metric, score, skill = told[run.run_id]
        cells += [metric] if mixed else []
        cells += [number(score), percent(skill, 2)]
        cells += [seconds(run.training_time_seconds)] if roomy else []
        table.add_row(*cells, *([run.sweep_id or "by hand"] if wide else []))
    ids = table.columns[0]  # is copied into the next command, so it stays in one piece
    ids.no_wrap, ids.min_width = True, max((len(r.run_id) for r in runs), default=0)
    out.print(table)


def _shown(value: Any) -> str:
    """A value in a cell: numbers short, nothing as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def run_json(run: Run) -> dict[str, Any]:
    """A run as plain JSON; no test score, a failed score null."""
    plain = dataclasses.asdict(run)
    plain["metrics"] = run.json_metrics
    return json.loads(json.dumps(plain, default=str))  # type: ignore[no-any-return]


def _write_csv(runs: Sequence[Run]) -> None:
    """One line a run: its own fields, then every hyperparameter and score that one of them has."""
    fixed = (
        *("run_id", "model_name", "state", "sweep_id", "trial_number", "seed", "created_at"),
        *("training_time_seconds", "source", "checkpoint_path", "git_commit", "notes"),
    )
    hyperparams = list(dict.fromkeys(n for r in runs for n in r.hyperparams))
    metrics = list(dict.fromkeys(n for r in runs for n in r.metrics))
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow([*fixed, "tags", *(f"hp.{n}" for n in hyperparams), *metrics])
    for run in runs:
        plain = run_json(run)
        values = [plain[n] for n in fixed] + [" ".join(run.tags)]
        values += [_cell(plain["hyperparams"].get(n)) for n in hyperparams]
        out.writerow(values + [plain["metrics"].get(n) for n in metrics])


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict | bool) else value


def impact(
    model: Annotated[str, typer.Option("--model", "-m", help="Whose: one model, by name.")],
    hyperparam: Annotated[
        str | None,
        typer.Argument(help="A hyperparameter, by name. Default: how much each mattered."),
    ] = None,
    metric: Annotated[str, typer.Option(help="Which score; never test_....")] = "val_pct_mae",
    sweep: SweepId = None,
    as_json: Json = False,
    db: Db = None,
) -> None:
    """What a hyperparameter did to a score: runs, mean and spread by value, and a rank.

    Without a name: the importance of every one that varied (PED-ANOVA), each held against the
    largest that comes by chance, with a warning where runs are too few to say.
    """
    if hyperparam is None:
        _importance(model, metric, sweep, as_json, db)
        return
    with open_existing(db) as tracker:
        counted = tracker.summarise_hyperparam(model, hyperparam, metric, sweep_id=sweep)
    if as_json:
        plain = dataclasses.asdict(counted)
        for line, value in zip(plain["values"], counted.values, strict=True):
            line["label"] = value.label
        typer.echo(json.dumps(plain, indent=2))
    else:
        _draw_impact(counted)


def _importance(model: str, metric: str, sweep: str | None, as_json: bool, db: str | None) -> None:
    from foresweep.cli.tables import console, number, plain_table
    from foresweep.records import is_sealed
    from foresweep.search.propose.focus import importance

    if is_sealed(metric):
        raise UsageError(f"--metric {metric}: nothing is learnt from test; use val_... or tune_...")
    with open_existing(db) as tracker:
        cells = tracker.fingerprint_in_use(model, sweep)
        weighed = importance(tracker.get_runs(model, state="complete", fingerprint=cells), metric)
    if as_json:
        typer.echo(
            json.dumps({**dataclasses.asdict(weighed), "warning": weighed.warning}, indent=2)
        )
        return
    table = plain_table("hyperparameter", ">values", ">share", ">p")
    for w in weighed.weights:
        table.add_row(w.hyperparam, str(w.num_values), number(w.share, 2), number(w.pvalue, 2))
    out = console()
    out.print(table)
    out.print(
        f"Shares of importance for {weighed.metric} over {weighed.num_runs} runs of "
        f"{weighed.model_name} on the same windows. p: how often some hyperparameter looks as "
        f"important by chance.",
        soft_wrap=True,
    )
    if weighed.warning:
        out.print(weighed.warning, style="yellow", soft_wrap=True)


def _draw_impact(counted: HyperparamImpact) -> None:
    from foresweep.cli.tables import console, number, plain_table

    table = plain_table(
        counted.hyperparam, ">runs", f">mean {counted.metric}", ">sd", ">min", ">max"
    )
    for v in counted.values:
        numbers = (number(x, 4) for x in (v.mean, v.spread, v.lowest, v.highest))
        table.add_row(v.label, str(v.count), *numbers)
    out = console()
    out.print(table)
    if counted.count < 2:
        out.print(
            f"{counted.count} complete runs of {counted.model_name} have it and {counted.metric}."
        )
    elif counted.rank_correlation is not None:
        out.print(
            f"Rank correlation with {counted.metric} (Spearman): {counted.rank_correlation:+.2f} "
            f"over {counted.count} runs; other hyperparameters vary along."
        )


def compare(
    run: Annotated[list[str], typer.Argument(help="Two or more runs, by id or its beginning.")],
    as_json: Json = False,
    db: Db = None,
) -> None:
    """Runs side by side: the hyperparameters that differ, and every score."""
    if len(run) < 2:
        raise UsageError("compare needs two runs or more: foresweep compare RUN RUN")
    with open_existing(db) as tracker:
        runs = [tracker.get_run(one) for one in run]
    if as_json:
        typer.echo(json.dumps(_comparison(runs), indent=2))
    else:
        _draw_comparison(runs)


def _comparison(runs: Sequence[Run]) -> dict[str, Any]:
    plain = [run_json(r) for r in runs]
    return {
        "runs": [r.run_id for r in runs],
        "same_windows": same_windows(runs),
        "hyperparams": {n: [p["hyperparams"].get(n) for p in plain] for n in differing(runs)},
        "metrics": {n: [p["metrics"].get(n) for p in plain] for n in scored(runs)},
    }


def differing(runs: Sequence[Run]) -> list[str]:
    """Hyperparameters that are not the same in all runs."""
    names = dict.fromkeys(n for r in runs for n in r.hyperparams)
    return [n for n in names if len({json.dumps(r.hyperparams.get(n)) for r in runs}) > 1]


def scored(runs: Sequence[Run]) -> list[str]:
    """Every score that one of the runs has, by name."""
    return sorted({n for r in runs for n in r.metrics})


def same_windows(runs: Sequence[Run]) -> bool:
    """Were their val scores computed on the same windows by the same rules?"""
    return len({r.fingerprint for r in runs}) == 1 and bool(runs[0].fingerprint)


def _draw_comparison(runs: Sequence[Run]) -> None:
    from foresweep.cli.tables import console, plain_table

    out = console()
    table = plain_table("", *(r.run_id for r in runs))
    for name in ("model_name", "state", "source", "seed", "training_time_seconds"):
        table.add_row(name, *(_shown(getattr(r, name)) for r in runs))
    for name in differing(runs):
        table.add_row(name, *(_shown(r.hyperparams.get(name)) for r in runs), style="cyan")
    for name in scored(runs):
        table.add_row(name, *(_shown(r.metrics.get(name)) for r in runs))
    out.print(table)
    if not same_windows(runs):
        known = all(r.fingerprint for r in runs)
        doubt = "are not the same" if known else "are not known to be the same"
        out.print(f"Their windows {doubt}: the scores cannot be compared.", style="yellow")


# `reproduce`: a run trained once more, and how far its scores come out the same.


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
                before = f"{run.reproduces} again" if run.reproduces else f"on from {run.continues}"
                self.console.print(
                    f"Training {before}: trial {run.trial_number} of sweep "
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
        "versions": [dataclasses.asdict(v) for v in found.versions],
        "scores": [dataclasses.asdict(s) | {"difference": s.difference} for s in found.scores],
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
