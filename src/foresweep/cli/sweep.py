"""`sweep`, `train`: ask for sweeps and watch them."""

from __future__ import annotations

import re
import signal
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foresweep.cli.options import (
    Actions,
    Data,
    Db,
    Device,
    GradientCheckpointing,
    Horizon,
    HowRead,
    MicroBatch,
    Refits,
    Runs,
    Size,
    open_existing,
    open_tracker,
    parse_values,
    settings,
    sharing,
)
from foresweep.errors import NotFound, UsageError

if TYPE_CHECKING:
    from foresweep.search.plan import SweepPlan
    from foresweep.search.sweep import Workers

STOPPED = 130
RESOURCES = ("device", "threads", "micro_batch", "inference_batch", "gradient_checkpointing")
BESIDE_RESUME = (
    *("resume", "dry_run", "db", "runs", "mirror", "workers", "gpus", "engine", "address"),
    *("storage", "cpus_per_trial", "gpus_per_trial", "trial_timeout"),
    *("max_runs", "time_budget", "step_budget", *RESOURCES),
)
"""What may be said anew of a sweep that goes on: who works, how much more, where."""

# Options of `sweep` about who does the work, for how long, and from where on.


class EngineName(StrEnum):
    """Where trials run."""

    local = "local"
    ray = "ray"


WorkerCount = Annotated[
    str | None,
    typer.Option(
        help="Trials at once, each in its own process: a number, or auto (the default): one for "
        "each GPU, else each core, fewer where free memory has no room for what a trial was "
        "measured to take; what a Ray cluster has room for.",
        metavar="N|auto",
    ),
]
Gpus = Annotated[
    str | None,
    typer.Option(
        help="CUDA device numbers, e.g. 0,1: one worker each, which sees no other.", metavar="LIST"
    ),
]
EngineOption = Annotated[
    EngineName,
    typer.Option("--engine", help="local: processes of this machine; ray: a Ray cluster."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="With --engine ray: host:port of the cluster, or auto. Default: one on this machine.",
        metavar="HOST:PORT",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        help="With --engine ray: fsspec URL by which files travel. Default: all nodes see the runs "
        "folder under the same path.",
        metavar="URL",
    ),
]
CpusPerTrial = Annotated[
    float | None, typer.Option(help="With --engine ray: CPUs of a trial. Default: 1.", min=0)
]
GpusPerTrial = Annotated[
    float | None,
    typer.Option(help="With --engine ray: GPUs of a trial; 0.5 shares one. Default: 0.", min=0),
]
TrialTimeout = Annotated[
    str | None,
    typer.Option(help="End a trial that takes longer (90s, 30m, 2h); it fails.", metavar="TIME"),
]
TimeBudget = Annotated[
    str | None,
    typer.Option(
        help="Begin no trial later than this after the start: 90s, 30m, 2h or 1h30m; running ones "
        "are finished.",
        metavar="TIME",
    ),
]
StepBudget = Annotated[
    int | None, typer.Option(help="Optimiser steps of all trials together, at most.", min=1)
]
Resume = Annotated[
    str | None,
    typer.Option(
        "--resume",
        help="Go on with this sweep (or latest): broken-off trials go on from their last training "
        "state. A sweep that is running gets this process as a further head.",
        metavar="SWEEP",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Only list what would be trained, and what it would cost."),
]
UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
AUTO = "auto"


def as_seconds(option: str, text: str | None) -> float | None:
    """Seconds of `90s`, `30m`, `2h`, `1h30min`, `1d`. Raises UsageError, for a bare number too:
    10 would be ten seconds to one reader and ten minutes to the next.

    >>> as_seconds("--time-budget", "1h30min")
    5400.0
    """
    if text is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    whole = "".join(f"{number}{unit}" for number, unit in parts)
    units = [unit for _, unit in parts]
    if units == [""]:
        raise UsageError(f"{option} {text!r}: of what? Write {text}s, {text}m or {text}h")
    if not parts or not UNITS.keys() >= {*units} or whole != re.sub(r"\s", "", text.lower()):
        raise UsageError(f"{option} {text!r}: write it as 90s, 30min, 2h or 1h30min")
    found = float(sum(float(number) * UNITS[unit] for number, unit in parts))
    if found <= 0:
        raise UsageError(f"{option} {text!r}: it must be longer than nothing")
    return found


@dataclass(frozen=True, slots=True)
class Workforce:
    """The options about who does the work."""

    workers: WorkerCount = None
    gpus: Gpus = None
    engine: EngineOption = EngineName.local
    address: Address = None
    storage: Storage = None
    cpus_per_trial: CpusPerTrial = None
    gpus_per_trial: GpusPerTrial = None
    trial_timeout: TrialTimeout = None

    def workers_meant(self, device: str = "auto", trials: int = 1) -> Workers:
        """Who works on so many trials. Raises UsageError, UnknownName."""
        from foresweep.search.sweep import Workers, workers_here

        numbers = tuple(n.strip() for n in (self.gpus or "").split(",") if n.strip())
        if self.gpus is not None and (not numbers or not all(n.isdigit() for n in numbers)):
            raise UsageError(f"--gpus {self.gpus!r}: write device numbers, e.g. --gpus 0,1")
        if len(set(numbers)) < len(numbers):
            raise UsageError(f"--gpus {self.gpus}: each GPU has one worker; name each once")
        if self.workers not in (None, AUTO) and not str(self.workers).isdigit():
            raise UsageError(f"--workers {self.workers!r}: give a number, or {AUTO}")
        if self.workers == AUTO and numbers:
            raise UsageError(
                f"--workers {AUTO} beside --gpus {','.join(numbers)}: each GPU has one worker; "
                f"leave --workers out"
            )
        meant = Workers(count=None if self.workers in (None, AUTO) else int(str(self.workers)))
        if self.workers in (None, AUTO) and not numbers and self.engine is EngineName.local:
            meant = workers_here(device, trials)
        return replace(
            meant,
            engine=self.engine.value,
            gpus=numbers or meant.gpus,
            trial_timeout_s=as_seconds("--trial-timeout", self.trial_timeout),
            address=self.address,
            storage=self.storage,
            trial_cpus=self.cpus_per_trial,
            trial_gpus=self.gpus_per_trial,
        ).checked()


# `sweep` and `train`: ask for runs and watch them come.


class Pruning(StrEnum):
    """What ends trials early."""

    none = "none"
    hyperband = "hyperband"
    racing = "racing"
    both = "both"
    promotion = "promotion"


class Mode(StrEnum):
    """How configs are proposed."""

    priority = "priority"
    quick = "quick"
    full = "full"
    random = "random"
    smart = "smart"
    focused = "focused"
    demo = "demo"
    zero_shot = "zero-shot"


Pretrained = Annotated[
    str | None,
    typer.Option(
        help="Start from weights: 'published' (the authors'), a Hugging Face id or a folder. "
        "Default: from scratch.",
    ),
]
PretrainCutoff = Annotated[
    str | None,
    typer.Option(
        help="Last day that the weights may have seen, where nobody states it, as for a folder. "
        "Recorded: a test period that begins before it proves nothing about them.",
        metavar="DATE",
    ),
]
SizeOption = Annotated[
    Size | None, typer.Option(help="Architecture from scratch: tiny, small or base. Default: tiny.")
]
Objective = Annotated[
    str,
    typer.Option(
        help="Metric the sweep is about: its leaderboard ranks by val_METRIC. Several, separated "
        "by commas: their front is shown, too.",
        metavar="METRIC[,METRIC]",
    ),
]
MaxSteps = Annotated[
    int | None,
    typer.Option(help="Optimiser steps at most. Tiny from scratch: 300 unless said.", min=1),
]
Seed = Annotated[int, typer.Option(help="Names all randomness of the runs.")]
Seeds = Annotated[
    int,
    typer.Option(
        help="Train the finalists with this many seeds: the median one by tune is ranked and "
        "deployed, the others say how much of a lead is chance.",
        min=1,
    ),
]
Stride = Annotated[
    int | None, typer.Option(help="Bars between origins. Default: about 40 origins a part.", min=1)
]
MaxContext = Annotated[
    int | None, typer.Option(help="Longest context a config may ask for, in bars.", min=16)
]
InferenceBatch = Annotated[
    int, typer.Option(help="Windows per forecast call; less memory, same forecasts.", min=1)
]
MirrorOption = Annotated[
    list[str] | None,
    typer.Option(
        "--mirror",
        help="Repeat runs to mlflow[:URI] or wandb[:offline]; repeatable.",
        metavar="NAME",
    ),
]
ThreadsOrAuto = Annotated[
    int | None,
    typer.Option(
        help="Torch threads of a trial. Default: 1 on up to 4 cores, else the cores shared among "
        "the workers.",
        min=1,
    ),
]
Horizons = Annotated[
    str,
    typer.Option(
        "--horizon",
        help="Bars forecast and scored. Several, as 1,5,20, make a family of sweeps that are "
        "judged together.",
        metavar="H[,H]",
    ),
]
SteerWindows = Annotated[
    str | None,
    typer.Option(
        help="Windows of tune that steer trainings on their way, or all; the recorded scores are "
        "always of all. Default: as many as keep scoring below a third of the steps' time, 1,024 "
        "at least.",
        metavar="N|all",
    ),
]
Again = Annotated[bool, typer.Option("--again", help="Train equal configs once more.")]


@dataclass(frozen=True, slots=True)
class Asked:
    """The options that both commands take."""

    data: Data = None
    objective: Objective = "pct_mae"
    size: SizeOption = None
    pretrained: Pretrained = None
    pretrain_cutoff: PretrainCutoff = None
    max_steps: MaxSteps = None
    seed: Seed = 0
    seeds: Seeds = 1
    stride: Stride = None
    max_context: MaxContext = None
    refits: Refits = 1
    steer_windows: SteerWindows = None
    device: Device = "auto"
    threads: ThreadsOrAuto = None
    micro_batch: MicroBatch = None
    inference_batch: InferenceBatch = 64
    gradient_checkpointing: GradientCheckpointing = False
    again: Again = False
    actions: Actions = None
    mirror: MirrorOption = None
    db: Db = None
    runs: Runs = None


@sharing(Asked, Workforce, HowRead)
def sweep(
    asked: Asked,
    workforce: Workforce,
    how: HowRead,
    context: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Sweep files: what `spaces copy` prints, edited; or a .py of dicts.",
            metavar="[FILE]...",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="toto, kronos, chronos2, a plug-in's name, several (toto,kronos) or all.",
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Of every space: key=value is fixed, key=1e-5..1e-3:log and key=64..512:32 are "
            "ranges, key=[8,16] is a choice; repeatable.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    configs: Annotated[
        Path | None,
        typer.Option(
            help="A sweep file for the models that --model names: what it says of a mode stands in "
            "place of what is built in, and other models in it are passed over.",
            metavar="FILE",
        ),
    ] = None,
    mode: Annotated[Mode, typer.Option(help="How configs are proposed.")] = Mode.priority,
    max_runs: Annotated[
        int | None, typer.Option(help="Trials at most. Default: 5 per model.", min=1)
    ] = None,
    pruning: Annotated[
        Pruning,
        typer.Option(
            help="What spares steps, on tune: hyperband ends trials at rungs of steps, racing "
            "those that lose to the best run origin by origin, or both; promotion lets all but "
            "the better half wait after an eighth, a quarter and half of their steps."
        ),
    ] = Pruning.none,
    finalists: Annotated[
        int | None,
        typer.Option(help="With --seeds: how many trials, the best by tune. Default: 3.", min=1),
    ] = None,
    transfer_from: Annotated[
        str | None,
        typer.Option(
            help="Try first what the best runs of this other model on the same windows say of the "
            "hyperparameters that both have, at most 3 configs a model.",
            metavar="MODEL",
        ),
    ] = None,
    horizon: Horizons = "5",
    time_budget: TimeBudget = None,
    step_budget: StepBudget = None,
    resume: Resume = None,
    dry_run: DryRun = False,
    declare: Annotated[
        str | None,
        typer.Option(
            help="Put this question on record with what is asked here, before anything is trained; "
            "the verdict says what was declared and what was done.",
            metavar="QUESTION",
        ),
    ] = None,
    declared: Annotated[
        str | None,
        typer.Option(
            help="Sweep for a declaration on record (foresweep declare); latest, too.",
            metavar="ID",
        ),
    ] = None,
) -> None:
    """Train research-backed configs beside the baselines and rank them on the same windows."""
    from foresweep.search.plan import at_horizons
    from foresweep.search.propose.modes import expand_models
    from foresweep.search.propose.spacefiles import read_sweep_files, with_configs
    from foresweep.search.sweep import threads_each
    from foresweep.space import as_dimension

    workforce.workers_meant()  # refused before anything is read
    budget = {
        "max_runs": max_runs,
        "time_budget_s": as_seconds("--time-budget", time_budget),
        "step_budget": step_budget,
    }
    if resume is not None:
        sources = {name: context.get_parameter_source(name) for name in context.params}
        said = {n for n, source in sources.items() if source and source.name == "COMMANDLINE"}
        plan = _going_on(resume, asked, budget, said)
        workers = workforce.workers_meant(plan.resources.device, plan.budget)
        plans: tuple[SweepPlan, ...] = (plan,)
    else:
        spaces = read_sweep_files(files or [])
        if not (named := (*spaces.texts, *(model or []))):
            raise UsageError("say what to sweep: --model toto, or a sweep file")
        if configs is not None:
            spaces = with_configs(spaces, configs, expand_models(named))
        changes = {k: as_dimension(k, v) for k, v in parse_values(values or []).items()}
        horizons = as_horizons(horizon)
        plan = _plan(
            asked, 1, horizons[0], how, models=named, mode=mode.value,
            spaces=replace(spaces, changes=changes), finalists=finalists, pruning=pruning.value,
            transfer_from=transfer_from, declared=declared, **budget,
        )  # fmt: skip
        plan = plan.checked()
        workers = workforce.workers_meant(asked.device, plan.budget)
        threads = threads_each(asked.threads, workers.slots)
        plan = replace(plan, resources=replace(plan.resources, threads=threads))
        plans = at_horizons(plan, horizons)
    if declare is not None and declared is not None:
        raise UsageError(f"--declare beside --declared {declared}: one question at a time")
    if dry_run:
        for one in plans:
            _list_only(one, asked, workers)
        return
    if declare is not None:
        with open_tracker(asked.db) as tracker:
            made_for = tracker.declarations.add(
                declare,
                models=plan.trained,
                objective=plan.objective,
                horizons=[one.cut.horizon for one in plans],
                max_trials=plan.budget * len(plans),
            ).declaration_id
        plans = tuple(replace(one, declared=made_for) for one in plans)
    raise typer.Exit(run_all(plans, asked, workers, going_on=resume))


@sharing(Asked, HowRead)
def train(
    asked: Asked,
    how: HowRead,
    context: typer.Context,
    model: Annotated[str | None, typer.Option("--model", "-m", help="One model, by name.")] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="A hyperparameter: key=value; repeatable.", metavar="KEY=VALUE"),
    ] = None,
    horizon: Horizon = 5,
    going_on: Annotated[
        str | None,
        typer.Option(
            "--continue",
            help="Go on with the training of a run that is still learning, from its last state to "
            "--max-steps in all; a trial of its own beside it.",
            metavar="RUN",
        ),
    ] = None,
) -> None:
    """Train one config by hand; tracked, scored and ranked like any other."""
    from foresweep.search.plan import by_hand
    from foresweep.search.sweep import ALONE

    if going_on is not None:
        _train_on(going_on, asked, context)
        return
    if model is None:
        raise UsageError("say what to train: --model toto, or --continue RUN --max-steps N")
    plan = _plan(asked, 1, horizon, how, models=(model,), mode="by hand", max_runs=1)
    plan = by_hand(plan, parse_values(values or [])).checked()
    raise typer.Exit(run_all((plan,), asked, ALONE))


BESIDE_CONTINUE = ("going_on", "max_steps", "db", "runs")


def _train_on(run: str, asked: Asked, context: typer.Context) -> None:
    """`train --continue`: everything but its steps is the run's own."""
    from foresweep.cli.runs import Bar
    from foresweep.cli.tables import console, number, percent
    from foresweep.evaluation.yardstick import LAST_VALUE, last_value, own_skill
    from foresweep.metrics import ranked_by
    from foresweep.search.running.continuing import continue_run

    sources = {name: context.get_parameter_source(name) for name in context.params}
    said = {n for n, source in sources.items() if source and source.name == "COMMANDLINE"}
    if other := sorted(said - set(BESIDE_CONTINUE)):
        names = ", ".join("--set" if n == "values" else f"--{n.replace('_', '-')}" for n in other)
        raise UsageError(
            f"{names} beside --continue {run}: a training goes on as it began; only --max-steps "
            f"is said anew"
        )
    if asked.max_steps is None:
        raise UsageError(f"--continue {run}: say to how many steps in all, with --max-steps N")
    with open_existing(asked.db) as tracker, Bar(quiet=False) as bar:
        known = tracker.get_run(run)
        try:
            made, is_new = continue_run(
                known,
                asked.max_steps,
                tracker=tracker,
                runs_dir=settings(asked.db, asked.runs).runs_dir,
                listen=bar.on_event,
            )
        except KeyboardInterrupt:
            typer.echo("Stopped; the same command goes on from its last state.", err=True)
            raise typer.Exit(STOPPED) from None
        metric = ranked_by(tracker.get_sweep(str(made.sweep_id)).objective)
        naive = last_value(tracker.get_runs(LAST_VALUE, fingerprint=made.fingerprint))
    then, now = (number(r.score(f"tune_{metric}")) for r in (known, made))
    skills = [percent(own_skill(r, "val", metric, naive)) for r in (known, made)]
    console().print(
        f"{'Went on' if is_new else 'It went on before'}: run {made.run_id}; tune {metric} {then} "
        f"then, {now} now; skill on val {skills[0]} then, {skills[1]} now.",
        soft_wrap=True,
    )


def _plan(
    asked: Asked, workers: int, horizon: int, how: HowRead = HowRead(), **rest: Any
) -> SweepPlan:
    from foresweep.data.reading.sources import default_source
    from foresweep.data.splits import Cut
    from foresweep.models.base import Resources
    from foresweep.search.plan import SweepPlan, size_meant
    from foresweep.search.sweep import threads_each
    from foresweep.settings import load_settings

    return SweepPlan(
        data=asked.data or default_source(load_settings().data),
        objective=asked.objective,
        size=size_meant(asked.size and asked.size.value, asked.pretrained),
        pretrained=asked.pretrained,
        pretrain_cutoff=asked.pretrain_cutoff,
        max_steps=asked.max_steps,
        seeds=asked.seeds,
        cut=Cut(horizon, asked.stride, asked.max_context, seed=asked.seed, refits=asked.refits),
        again=asked.again,
        steer_windows=as_windows(asked.steer_windows),
        actions=asked.actions,
        reading=how.said,
        resources=Resources(
            device=asked.device,
            threads=threads_each(asked.threads, workers),
            micro_batch=asked.micro_batch,
            inference_batch=asked.inference_batch,
            gradient_checkpointing=asked.gradient_checkpointing,
        ),
        **rest,
    )


def as_windows(text: str | None) -> int | str | None:
    """`1024` or `all`. Raises UsageError."""
    if text is None or text == "all":
        return text
    if not text.replace(",", "").isdigit():
        raise UsageError(f"--steer-windows {text!r}: write a number of windows, or all")
    return int(text.replace(",", ""))


def as_horizons(text: str) -> tuple[int, ...]:
    """`5` or `1,5,20`. Raises UsageError."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise UsageError(f"--horizon {text!r}: write bars ahead as 5, or several as 1,5,20")
    return found


def run_all(
    plans: Iterable[SweepPlan], asked: Asked, workers: Workers, *, going_on: str | None = None
) -> int:
    """Run checked plans one after the other (or go on with the sweep of one) under the live view,
    repeated to mirrors; the worst exit code. One that is stopped stops them all."""
    from foresweep.cli.live import LiveView, Mirrors
    from foresweep.search.sweep import run_sweep

    code, runs_dir = 0, settings(asked.db, asked.runs).runs_dir
    opened = open_tracker if going_on is None else open_existing
    for plan in plans:
        with opened(asked.db) as tracker, LiveView(tracker, plan) as view:
            mirrors: Mirrors
            with Mirrors(asked.mirror or [], view.say_warning) as mirrors, _terminated_as_ctrl_c():
                try:
                    done = run_sweep(
                        plan,
                        tracker=tracker,
                        runs_dir=runs_dir,
                        listen=mirrors.beside(view.on_event),
                        workers=workers,
                        going_on=going_on,
                    )
                except KeyboardInterrupt:
                    view.say_stopped()
                    return STOPPED
            if done.state != "complete":
                view.say_stopped()
                return STOPPED
            view.conclude(done)
            code = max(code, 0 if view.some_complete else 1)
    return code


def _going_on(
    sweep_id: str, asked: Asked, budget: Mapping[str, Any], said: Collection[str]
) -> SweepPlan:
    """The plan of a sweep on record with what is said anew; `said` are the options that were given.
    Raises UsageError for those that would make it another."""
    from foresweep.search.plan import plan_of

    other = sorted(set(said) - set(BESIDE_RESUME))
    if other:
        spelt = {"values": "--set", "files": "sweep files"}
        names = ", ".join(spelt.get(name, f"--{name.replace('_', '-')}") for name in other)
        raise UsageError(
            f"{names} beside --resume {sweep_id}: a sweep goes on as it was asked; begin a new one "
            f"for another question"
        )
    with open_existing(asked.db) as tracker:
        plan = plan_of(tracker.get_sweep(sweep_id))
    changed = {name: getattr(asked, name) for name in said if name in RESOURCES}
    return replace(
        plan,
        resources=replace(plan.resources, **changed),
        **{k: v for k, v in budget.items() if v is not None},
    )


def _list_only(plan: SweepPlan, asked: Asked, workers: Workers) -> None:
    """Print what would be trained and what it would cost."""
    from foresweep.cli.live import LiveView, draw_dry_run
    from foresweep.search.sweep import dry_run
    from foresweep.tracker.tracker import Tracker

    try:
        known = open_existing(asked.db)
    except NotFound:
        known = Tracker("sqlite://")  # in memory: nothing is left behind
    with known as tracker, LiveView(tracker, plan) as view:
        found = dry_run(plan, tracker=tracker, listen=view.on_event, workers=workers)
        view.bars.stop()
        draw_dry_run(view.console, plan, *found, workers.slots)


@contextmanager
def _terminated_as_ctrl_c() -> Iterator[None]:
    """A scheduler's SIGTERM stops a sweep as Ctrl-C does: what runs is on record as cancelled."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
