"""The live view of a sweep, how far it is, what its data can prove, and its mirrors."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from foresweep.cli.tables import (
    config_name,
    console,
    judge_the_cones,
    leaderboard_table,
    number,
    percent,
    plain_table,
    report_lines,
    seconds,
    show_pareto,
    verdict_line,
)
from foresweep.data.splits import PartName
from foresweep.evaluation.yardstick import ENOUGH_ORIGINS, is_last_value, own_skill
from foresweep.integrations.mirror import Mirrored, open_mirror
from foresweep.metrics import METRICS, ranked_by
from foresweep.models.registry import BASELINES
from foresweep.search import events
from foresweep.search.propose.modes import ADAPTIVE, expand_models
from foresweep.search.running.trials import ends_within, planned_steps

if TYPE_CHECKING:
    from foresweep.data.gate.report import QualityReport
    from foresweep.data.splits import Split
    from foresweep.records import Run, Sweep
    from foresweep.search.plan import SweepPlan
    from foresweep.search.running.costs import Cost
    from foresweep.search.trial import Prepared
    from foresweep.tracker.tracker import Tracker

# How far a sweep is: trials and steps done, the best so far, the time left.


def steps_of(config: Mapping[str, Any]) -> int:
    """Optimiser steps of a trial; a baseline counts as one."""
    return planned_steps(config) or 1


@dataclass(slots=True)
class Tally:
    """Not frozen: it counts. Baselines count as steps, not as trials."""

    plan: SweepPlan
    trials_planned: int = 0
    trials_done: int = 0
    steps_planned: int = 0
    steps_done: int = 0  # of trials that have ended
    running: dict[str, int] = field(default_factory=dict)  # steps by run
    waiting: set[str] = field(default_factory=set)  # runs that were let wait
    best: Run | None = None  # by the objective on tune
    naive: Run | None = None  # last-value on these windows: skill is against it
    steps_taken: int = 0  # here, by trials that have ended: what the time left is reckoned from
    began: float | None = None

    @property
    def steps(self) -> int:
        return self.steps_done + sum(self.running.values())

    def planned(self, trials: Iterable[Prepared]) -> None:
        """The sweep's list; what a search will propose beyond it is taken to be like it."""
        found = list(trials)
        trained = [p for p in found if p.proposal.model not in BASELINES]
        self.trials_planned = len(trained)
        self.steps_planned = sum(steps_of(p.config) for p in found)
        more = self.plan.budget - sum(not p.proposal.is_free for p in trained)
        if self.plan.mode in ADAPTIVE and not self.plan.proposals and more > 0:
            each = [steps_of(p.config) for p in trained] or [self.plan.step_cap or 1]
            self.trials_planned += more
            self.steps_planned += round(more * sum(each) / len(each))

    def further(self, runs: Iterable[Run], times: int) -> None:
        """Each of these will be trained so many times more."""
        for run in runs:
            self.trials_planned += times
            self.steps_planned += times * steps_of(run.hyperparams)

    def start(self, run: Run) -> None:
        if run.run_id in self.waiting:  # it counted as done
            self.waiting.discard(run.run_id)
            self.retry(run)
        self.running[run.run_id] = 0
        if self.began is None and run.model_name not in BASELINES:
            self.began = time.monotonic()

    def skip(self, config: Mapping[str, Any], earlier: Run) -> None:
        """It was done before."""
        self.steps_done += steps_of(config)
        self.trials_done += earlier.model_name not in BASELINES
        self._meet(earlier)

    def _meet(self, run: Run) -> None:
        self.naive = self.naive or (run if is_last_value(run) else None)

    def scored(self, run: Run, name: str = "") -> str:
        """A run by the objective on tune, with its name and with its skill in that objective where
        there is such a thing."""
        metric = ranked_by(self.plan.objective)
        skill = own_skill(run, "tune", metric, self.naive)
        beside = [name] if name else []
        beside += [] if skill is None else [f"skill {percent(skill)}"]
        said = f"tune {metric} {number(run.score(f'tune_{metric}'))}"
        return f"{said} ({', '.join(beside)})" if beside else said

    def end(self, run: Run) -> None:
        steps = steps_of(run.hyperparams)
        self.running.pop(run.run_id, None)
        self.steps_done += steps
        self._meet(run)
        if run.model_name in BASELINES:
            return
        self.steps_taken += steps
        self.trials_done += 1
        if run.state == "waiting":
            self.waiting.add(run.run_id)
        if run.state == "complete" and self._cost(run) < self._cost(self.best):
            self.best = run

    def retry(self, run: Run) -> None:
        """It has ended, and is not done."""
        self.steps_done -= steps_of(run.hyperparams)
        self.steps_taken -= steps_of(run.hyperparams)
        self.trials_done -= 1

    def _cost(self, run: Run | None) -> float:
        metric = ranked_by(self.plan.objective)
        score = None if run is None else run.score(f"tune_{metric}")
        return float("inf") if score is None else METRICS[metric].badness(score)

    @property
    def seconds_left(self) -> float | None:
        """As fast as it went so far; None before a trial has ended."""
        if self.began is None or not self.steps_taken:
            return None
        rate = (time.monotonic() - self.began) / (self.steps_taken + sum(self.running.values()))
        return rate * max(0, self.steps_planned - self.steps)

    def place(self) -> str:
        """How many trials are done, and of how many."""
        return f"[{self.trials_done}/{max(self.trials_planned, self.trials_done)}]"

    def line(self) -> str:
        """All of it in a line."""
        said = [f"{self.place()} trials"]
        if self.best is not None:
            name = f"{self.best.model_name} {config_name(self.best)}".strip()
            said.append(f"best {self.scored(self.best, name)}")
        left = self.seconds_left
        if left and self.trials_done < self.trials_planned:
            said.append(f"about {seconds(left)} left")
        return ", ".join(said)


# What a sweep's data can prove, said before anything is trained.


VERDICT_PARTS: tuple[PartName, ...] = ("val", "test")


def origins_line(split: Split) -> str:
    """Origins of the scored parts, and how many of them share no labels."""
    scored = ", ".join(
        f"{p.name} {len(p.origins)} origins ({p.effective_origins(split.horizon):.0f} effective)"
        for p in split.parts
        if p.name != "train"
    )
    return f"{scored}; test is sealed"


def evidence_lines(split: Split) -> list[str]:
    """A warning where val or test cannot carry a verdict; nothing where both can."""
    effective = {name: split.part(name).effective_origins(split.horizon) for name in VERDICT_PARTS}
    short = {name: n for name, n in effective.items() if n < ENOUGH_ORIGINS}
    if not short:
        return []
    counted = " and ".join(f"{name} {n:.1f}" for name, n in short.items())
    return [
        f"Too little evidence: {counted} effective origins of at least {ENOUGH_ORIGINS}. "
        f"A verdict on this sweep is at most `hold`; more history or a shorter horizon gives more."
    ]


def survivorship_lines(report: QualityReport) -> list[str]:
    """What the gate says of a panel that holds only survivors; nothing of another."""
    told = (f.message for f in report.findings if f.rule == "survivorship")
    return [f"Survivorship: {message}, so results are too good." for message in told]


# The live view of a sweep: progress bars in a terminal, plain lines elsewhere.


class _Field(ProgressColumn):
    """One reported number of the running trial."""

    def __init__(self, label: str, key: str) -> None:
        super().__init__()
        self.label, self.key = label, key

    def render(self, task: Task) -> Text:
        value = task.fields.get(self.key)
        return Text(f"{self.label} {value}" if value else "", style="cyan")


class Bars(Progress):
    """A bar a running trial and one of the sweep, and under them a line: in the bars' own columns
    it would crush them."""

    below = ""

    def __init__(self, console: Console, metric: str = "pct_mae") -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=18),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            _Field("loss", "loss"),
            _Field(f"tune {metric}", "score"),
            _Field("skill", "skill"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        if self.below:
            yield Text(self.below, style="dim")


def _steps(trials: Iterable[Prepared]) -> list[int]:
    return [steps_of(p.config) for p in trials]


class LiveView:
    """Listens to a sweep and draws it."""

    def __init__(self, tracker: Tracker, plan: SweepPlan) -> None:
        self.tracker, self.plan = tracker, plan
        self.console: Console = console()
        self.bars = Bars(self.console, ranked_by(plan.objective))
        self.whole: TaskID | None = None
        self.running: dict[str, TaskID] = {}  # by run
        self.some_complete = False  # of what was asked for, baselines beside it aside
        self.tally = Tally(plan)
        self.sweep_id = ""
        self.test_from = ""  # first day of test

    def __enter__(self) -> LiveView:
        self._say_start()
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def say(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style, soft_wrap=True)

    def say_warning(self, text: str) -> None:
        self.say(text, "yellow")

    def _say_start(self) -> None:
        if set(self.plan.models) <= set(BASELINES):
            return
        if self.plan.pretrained:
            self.say(f"Fine-tuning weights: {self.plan.pretrained}.")
        elif self.plan.size:
            self.say(
                f"Training {self.plan.size} models from scratch; nothing is downloaded "
                f"(--pretrained published fine-tunes the authors' weights instead)."
            )

    def on_event(self, event: events.Event) -> None:
        """What `run_sweep` calls."""
        match event:
            case events.FetchingWeights():
                self._fetching(event)
            case events.DataReady():
                self._data_ready(event)
            case events.Planned():
                self._planned(event)
            case events.Estimated():
                self._estimated(event)
            case events.LeakTested():
                self.say(f"leak test: {event.model} passed ({event.seconds:.1f} s)", "dim")
            case events.SpaceNarrowed():
                self.say(
                    f"{event.model}: its space is narrowed around the best of {event.num_runs} "
                    f"runs, see {event.file}"
                )
            case events.TrialStarted():
                self._started(event)
            case events.TrialProgressed():
                self._progressed(event)
            case events.TrialFinished() | events.TrialWaits():
                self._finished(event.run)
            case events.TrialSkipped():
                self._skipped(event)
            case events.TrialRetried():
                self.tally.retry(event.run)
                self.say(f"{self._name_of_run(event.run)}: {event.how}", "yellow")
            case events.Waiting():
                self.say(f"Waiting: {event.why}.", "dim")
            case events.BudgetSpent():
                self.say(f"Budget: {event.why}; no further trial is begun.", "yellow")
            case events.Resumed():
                self._resumed(event)
            case events.FinalistsChosen():
                self._finalists(event)
            case events.SeedsCompared():
                self._seeds(event)
            case events.SeveralWorkers():
                self._several(event)
            case events.SweepFinished():
                pass

    def _fetching(self, event: events.FetchingWeights) -> None:
        if not event.done:
            self.say(f"Fetching the weights {event.weights}, once; then they are in the cache.")
        of_all = f" of {event.total / 1e6:,.0f}" if event.total else ""
        self.bars.below = f"{event.weights}: {event.done / 1e6:,.0f}{of_all} MB"

    def _data_ready(self, event: events.DataReady) -> None:
        self.bars.below = ""
        panel, split = event.panel, event.split
        first, last = (str(t.astype("datetime64[D]")) for t in panel.timeline[[0, -1]])
        self.say(
            f"Data: {panel.source}: {panel.num_items} items, {len(panel.timeline):,} bars, "
            f"{first} to {last}."
        )
        for line in report_lines(event.report):
            self.say(line, "yellow")
        for line in survivorship_lines(event.report):
            self.say(line, "yellow")
        self.say(
            f"Horizon {split.horizon} bars; {origins_line(split)}; contexts of at most "
            f"{split.max_context} bars."
        )
        if event.steering is not None:
            self.say(
                f"On the way trainings are steered by {event.steering}; what is recorded is of all "
                f"(--steer-windows all steers by all)."
            )
        for line in evidence_lines(split):
            self.say(line, "yellow")
        self.test_from = str(panel.timeline[split.part("test").start].astype("datetime64[D]"))

    def _skipped(self, event: events.TrialSkipped) -> None:
        if event.earlier.sweep_id != self.sweep_id:  # of the sweep's own it was said how many
            self.say(
                f"{self._name_of_run(event.earlier)}: trained before as "
                f"{event.earlier.run_id}; --again trains it once more",
                "dim",
            )
        self.tally.skip(event.prepared.config, event.earlier)
        self._move_whole()
        self.some_complete |= self._asked_for(event.earlier)

    def _estimated(self, event: events.Estimated) -> None:
        grids = ", ".join(f"{model} {size:,}" for model, size in event.grids.items())
        at_once = f" on {event.workers} workers" if event.workers > 1 else ""
        self.say(
            f"Configs of the whole grid: {grids}. Those of this sweep ({event.num_trials}, "
            f"--max-runs N for more) take about {seconds(event.seconds)}{at_once}, reckoned from a "
            f"few real steps."
        )

    def _several(self, event: events.SeveralWorkers) -> None:
        text = f"{event.count} trials at once (--workers N)."
        if event.learns:
            text += (
                " What is proposed or cut short depends on what has ended by then: --workers 1 "
                "gives the same sweep again."
            )
        self.say(text, "dim")

    def _resumed(self, event: events.Resumed) -> None:
        self.say(
            f"Sweep {event.sweep.sweep_id} goes on. Trials done: {event.num_done}; broken off, to "
            f"go on from their last training state: {event.num_open}."
        )
        if event.source_note:
            self.say(f"Data: {event.source_note}.", "yellow")

    def _planned(self, event: events.Planned) -> None:
        self.sweep_id = event.sweep.sweep_id
        for refused in event.refused:
            self.say(f"left out: {refused.proposal.source}: {refused.refused}", "yellow")
        self.say(f"Sweep {event.sweep.sweep_id}: {len(event.trials)} configs, baselines included.")
        trained = [p for p in event.trials if p.proposal.model not in BASELINES]
        if trained and not self.plan.proposals:
            draw_plan(self.console, trained, SHOWN_AT_START)
        self._say_cutoffs(event.trials)
        cut = [p for p in event.trials if p.steps_asked]
        if cut:
            asked, most = (max(n) for n in ([p.steps_asked or 0 for p in cut], _steps(cut)))
            self.say(
                f"Configs that ask for up to {asked:,} steps and stop at {most:,}: {len(cut)} "
                f"(--max-steps N allows more).",
                "yellow",
            )
        self.tally.planned(event.trials)
        self.whole = self.bars.add_task("sweep (steps)", total=self.tally.steps_planned)

    def _say_cutoffs(self, trials: tuple[Prepared, ...]) -> None:
        """Up to when the weights know the world: a test period before that proves nothing."""
        tuned = {p.proposal.model: p.cutoff for p in trials if p.config.get("pretrained")}
        for model, cutoff in tuned.items():
            if cutoff:
                self.say(f"{model}: its weights know the world to {cutoff.date} ({cutoff.source}).")
                if cutoff.date >= self.test_from:
                    self.say_warning(
                        f"{model}: test begins on {self.test_from}, which its weights may have "
                        f"seen: a verdict on it is at most `hold: contaminated`."
                    )
            else:
                self.say_warning(
                    f"{model}: nobody says up to when its weights know the world, so no test "
                    f"period is clean; --pretrain-cutoff DATE says it."
                )

    def _finalists(self, event: events.FinalistsChosen) -> None:
        if not event.runs:
            self.say_warning("No trial came to its end, so there is none to train with more seeds.")
            return
        names = ", ".join(self._name(run) for run in event.runs)
        self.say(f"Finalists by tune: {names}. Each is trained with {event.num_seeds} seeds.")
        self.tally.further(event.runs, event.num_seeds - 1)
        self._move_whole()

    def _seeds(self, event: events.SeedsCompared) -> None:
        """How far the seeds of a finalist lie apart on tune, and which of them stands for it."""
        name = f"tune_{ranked_by(self.plan.objective)}"
        scores = [s for run in event.runs if (s := run.score(name)) is not None]
        if len(scores) < 2:
            self.say_warning(f"{self._name(event.chosen)}: no other seed came to its end.")
            return
        self.say(
            f"{self._name(event.chosen)}: {name} {number(min(scores))} to {number(max(scores))} "
            f"over {len(scores)} seeds; the median one stands for it: {event.chosen.run_id}"
        )

    def _name(self, run: Run) -> str:
        """What people call a run's config."""
        return f"{run.model_name} {config_name(run)}".strip()

    def _name_of_run(self, run: Run) -> str:
        """With its seed, where the sweep has several."""
        several = self.plan.seeds > 1 and not run.is_baseline
        return self._name(run) + (f", seed {run.seed}" if several else "")

    def _started(self, event: events.TrialStarted) -> None:
        run = event.run
        name = self._name_of_run(run) + (f", attempt {run.attempt}" if run.attempt > 1 else "")
        self.running[run.run_id] = self.bars.add_task(name, total=steps_of(run.hyperparams))
        self.tally.start(run)

    def _progressed(self, event: events.TrialProgressed) -> None:
        task = self.running.get(event.run.run_id)
        if task is None:
            return
        scores, metric = event.scores, ranked_by(self.plan.objective)
        # on the way some windows may steer, so that last-value's score of all is none to hold it to
        skill = "tune_skill" if metric == "pct_mae" else f"tune_{metric}_skill"
        shown: dict[str, Any] = {
            "loss": number(scores["train_loss"]) if "train_loss" in scores else None,
            "score": number(scores[f"tune_{metric}"]) if f"tune_{metric}" in scores else None,
            "skill": percent(scores[skill]) if skill in scores else None,
        }
        self.bars.update(task, completed=event.step, **{k: v for k, v in shown.items() if v})
        self.tally.running[event.run.run_id] = event.step
        self._move_whole()

    def _finished(self, run: Run) -> None:
        task = self.running.pop(run.run_id, None)
        if task is not None:
            self.bars.remove_task(task)
        self.tally.end(run)
        self._move_whole()
        self.some_complete |= run.state == "complete" and self._asked_for(run)
        name = self._name_of_run(run)
        if not run.is_baseline:
            name = f"{self.tally.place()} {name}"
        if run.state == "complete":
            self.say(
                f"{name}: {self.tally.scored(run)}, "
                f"trained in {seconds(run.training_time_seconds)}{self._how_far(run)}"
            )
        elif run.state == "waiting":
            self.say(f"{name}: {run.notes}", "dim")
        elif run.state == "pruned":
            self.say(f"{name}: pruned - {run.notes or 'no reason on record'}", "dim")
        else:
            cause = (run.error or "").strip().splitlines()
            self.say(f"{name}: {run.state} - {cause[-1] if cause else 'no cause on record'}", "red")

    def _how_far(self, run: Run) -> str:
        """Is it the best so far, and how long will the rest take?"""
        if run.is_baseline:
            return ""
        best = "; best so far" if run is self.tally.best else ""
        left = self.tally.seconds_left
        return best + (f"; about {seconds(left)} left" if left else "")

    def _asked_for(self, run: Run) -> bool:
        return run.model_name in expand_models(self.plan.models)

    def _move_whole(self) -> None:
        if self.whole is not None:
            tally = self.tally
            self.bars.update(
                self.whole,
                completed=tally.steps,
                total=max(tally.steps_planned, tally.steps),
            )
            self.bars.below = tally.line()

    def say_stopped(self) -> None:
        self.bars.stop()
        if not self.sweep_id:
            self.say("Stopped before anything was begun.", "yellow")
            return
        self.say(
            "Stopped. What ran is on record as cancelled; finished trials are kept. Go on from the "
            f"last training states by: foresweep sweep --resume {self.sweep_id}",
            "yellow",
        )

    def conclude(self, sweep: Sweep) -> None:
        """The leaderboard, the best, and what to do next."""
        from foresweep.selection.leaderboard import leaderboard, still_learning

        self.bars.stop()
        if not self.some_complete:
            self.say("Nothing that was asked for came to its end; the causes stand above.", "red")
        runs = self.tracker.get_runs(fingerprint=sweep.fingerprints["val"])
        board = leaderboard(runs, metric=f"val_{ranked_by(sweep.objective)}")
        self.console.print(leaderboard_table(board, width=self.console.width))
        self.say(verdict_line(board), "bold")
        if told := still_learning(board):
            self.say(told, "yellow")
        show_pareto(runs, sweep.objective, self.console)
        if cones := judge_the_cones(sweep, runs):
            self.say(cones)
        if board.best is not None:  # else nothing is there to judge or to hand over
            self.say(
                "Next: `foresweep verdict` says whether that is more than luck, `foresweep report "
                "-o report.html` shows it all, `foresweep best --export-path` hands over the best "
                "checkpoint and `foresweep predict` forecasts with it."
            )


# What a dry run found.


MOST_ROWS, SHOWN_AT_START = 60, 20
LONG = 1800  # seconds of a sweep from which a dry run says how to spend less


def draw_dry_run(
    console: Console,
    plan: SweepPlan,
    prepared: Sequence[Prepared],
    known: Collection[str],
    costs: Mapping[str, Cost],
    workers: int,
) -> None:
    """Baselines are left out of the table: they cost nothing to speak of."""
    for p in prepared:
        if p.refused:
            console.print(f"left out: {p.proposal.source}: {p.refused}", style="yellow")
    trained = [p for p in prepared if not p.refused and p.proposal.model not in BASELINES]

    def measured(p: Prepared) -> tuple[str, str]:
        cost = costs.get(p.config_hash)
        size = "-" if cost is None or cost.parameters is None else f"{cost.parameters:,}"
        if p.config_hash in known:
            return size, "trained before"
        return size, seconds(cost.seconds if cost else None)

    draw_plan(console, trained, MOST_ROWS, (">parameters", ">time"), measured)
    _say_sum(console, plan, trained, costs, workers)


def draw_plan(
    console: Console,
    trained: Sequence[Prepared],
    most: int,
    headings: tuple[str, ...] = (),
    beside: Callable[[Prepared], tuple[str, ...]] = lambda _: (),
) -> None:
    """What is going to be trained, with the steps that are really taken: of epochs what they come
    to, cut by the sweep's most."""
    table = plain_table(">#", "model", "config", ">steps", ">batch", ">context", *headings)
    for place, p in enumerate(trained[:most], 1):
        table.add_row(
            str(place),
            p.proposal.model,
            p.proposal.source.partition(": ")[2] or p.proposal.source,
            f"{planned_steps(p.config):,}",
            str(p.config.get("batch_size") or "-"),
            str(p.config.get("context_length") or "-"),
            *beside(p),
        )
    console.print(table)
    if len(trained) > most:
        console.print(f"... and {len(trained) - most} more.")


def _say_sum(
    console: Console,
    plan: SweepPlan,
    trained: Sequence[Prepared],
    costs: Mapping[str, Cost],
    workers: int,
) -> None:
    mine = [costs[p.config_hash].seconds for p in trained if p.config_hash in costs]
    whole = sum(mine)
    times, at_once = plan.cut.refits, f" on {workers} workers" if workers > 1 else ""
    steps = times * sum(planned_steps(p.config) for p in trained if p.config_hash in costs)
    each = f" {times} times each (as often again whose test is opened)" if times > 1 else ""
    console.print(
        f"{len(costs)} trial{'s' * (len(costs) != 1)} to train{each}, {steps:,} steps: about "
        f"{seconds(whole / workers)}{at_once}, reckoned from a few real steps on this machine, as "
        "busy as it is now. Nothing was put on record."
    )
    if (limit := plan.time_budget_s) is not None and costs:
        ends = ends_within(mine, workers, limit)
        console.print(
            f"Within --time-budget ({seconds(limit)}) the first {len(ends)} of them begin; the "
            f"last ends about {seconds(max(ends))} after the start."
        )
    elif whole / workers > LONG:
        console.print(
            "To spend less: --max-steps N cuts each trial, --max-runs N takes the first ones, "
            "--time-budget 30m begins none later, --pruning racing ends hopeless ones."
        )
    more = plan.budget - sum(not p.proposal.is_free for p in trained)
    if plan.mode in ADAPTIVE and not plan.proposals and more > 0:
        console.print(f"Then up to {more} trials that are proposed from what these show.")
    if plan.seeds > 1:
        console.print(
            f"Then {plan.num_finalists} finalists with {plan.seeds - 1} further seeds each."
        )


class Mirrors:
    """Between a sweep's events and the mirrors that repeat its runs; the block's end waits."""

    def __init__(self, wanted: Sequence[str], warn: Callable[[str], None]) -> None:
        """Raises UnknownName, MissingExtra, UsageError before anything runs."""
        self._mirrors = [
            Mirrored(name.partition(":")[0], open_mirror(name), warn) for name in wanted
        ]

    def __enter__(self) -> Mirrors:
        return self

    def __exit__(self, *_: object) -> None:
        for mirror in self._mirrors:
            mirror.close()

    def beside(self, listen: events.Listener) -> events.Listener:
        """A listener that tells `listen` and then every mirror."""

        def both(event: events.Event) -> None:
            listen(event)
            self._on_event(event)

        return both

    def _on_event(self, event: events.Event) -> None:
        for mirror in self._mirrors:
            match event:
                case events.TrialStarted():
                    mirror.start(event.run)
                case events.TrialProgressed():
                    mirror.log(event.run, event.step, event.scores)
                case events.TrialFinished():
                    mirror.finish(event.run)
