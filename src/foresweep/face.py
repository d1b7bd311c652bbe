"""The calls of a notebook: plain keywords and DataFrames in, DataFrames out.

    import foresweep as fs

    sweep = fs.sweep("chronos2", data=frame, horizon=5, max_runs=6, objective="pinball")
    sweep.leaderboard()
    sweep.verdict()

The same as `foresweep sweep` on a command line: the same database, the same plan, the same answers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foresweep.data.demo import demo_panel
from foresweep.data.files import name_as_text, write_bytes_atomic
from foresweep.data.reading.frames import Source, keep_frame
from foresweep.data.reading.sources import default_source, load_panel
from foresweep.data.splits import Cut
from foresweep.errors import NotFound, UsageError
from foresweep.evaluation.predict import Forecaster
from foresweep.lifecycle.champion import checkpoint_of
from foresweep.lifecycle.inference import LoadedModel, load_champion
from foresweep.metrics import ranked_by
from foresweep.models.base import Resources
from foresweep.records import Run, Sweep, Verdict
from foresweep.search.events import Event, Listener
from foresweep.search.plan import SweepPlan, plan_of, size_meant
from foresweep.search.sweep import Workers, run_sweep, threads_each, workers_here
from foresweep.search.sweep import train as train_plan
from foresweep.selection.leaderboard import Leaderboard, leaderboard
from foresweep.selection.standing import with_standing
from foresweep.selection.verdict.runs import verdict
from foresweep.settings import Settings, load_settings
from foresweep.space import Spaces, as_dimension
from foresweep.tracker.service import Service
from foresweep.tracker.tracker import Tracker

if TYPE_CHECKING:
    import pandas as pd

HTML, MARKDOWN = (".html", ".htm"), (".md", ".markdown")
FRAMES = "frames"
"""Where in the runs folder DataFrames are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult(Sweep):
    """The record of a sweep, and what may be asked of it."""

    places: Settings  # where its database and its runs are

    def __str__(self) -> str:
        """A sentence, for `print`: what it was about, and the best trained run of its windows."""
        about = f"Sweep {self.sweep_id} of {', '.join(self.models)}, {self.state}"
        board = self._board(None)
        if (best := board.best) is None:
            return f"{about}: no trained run has a score."
        skill = "" if best.skill is None else f", {100 * best.skill:+.2f} % against last-value"
        return f"{about}: best is {best.run.run_id}, {board.metric} {best.score:.3f}{skill}."

    def leaderboard(self, metric: str | None = None) -> pd.DataFrame:
        """Every run on the sweep's windows, the best on val first, baselines among them.

        Columns: place (missing: not ranked), run_id, model, source, state, the metric (default:
        the objective on val), skill_vs_last_value and skill_vs_benchmark (1 - score / theirs,
        missing for metrics that are no mean of losses), superior (StepM: better than the benchmark,
        all trials counted), in_mcs (cannot be told from the best at 90 %), seconds (of training),
        checkpoint_path, note. Raises UnknownName for the metric, UsageError for one of test.
        """
        import pandas as pd

        board = with_standing(self._board(metric))
        rows = [
            {
                "place": row.place,
                "run_id": row.run.run_id,
                "model": row.run.model_name,
                "source": row.run.source,
                "state": row.run.state.value,
                board.metric: row.score,
                "skill_vs_last_value": row.skill,
                "skill_vs_benchmark": row.benchmark_skill,
                "superior": row.superior,
                "in_mcs": row.in_mcs,
                "seconds": row.run.training_time_seconds,
                "checkpoint_path": row.run.checkpoint_path,
                "note": row.note,
            }
            for row in board.rows
        ]
        return pd.DataFrame(rows).astype({"place": "Int64"})

    def best(self, metric: str | None = None) -> Run:
        """The trained run that is best on val. Raises NotFound where none came to its end."""
        row = self._board(metric).best
        if row is None:
            raise NotFound(f"no trained run of sweep {self.sweep_id} came to its end with a score")
        return row.run

    def verdict(self) -> Verdict:
        """Whether the best on val is proved to be better than the benchmark and last-value. Where
        every other gate is passed the sealed test is opened, and the look is on record."""
        return verdict(sweep_id=self.sweep_id, db=self.places.database, who="notebook")

    def report(self, path: str | Path) -> Path:
        """Write the report, as one HTML page that opens offline (.html) or as Markdown (.md); its
        path. Raises UsageError for another ending."""
        from foresweep.reporting.render import report_html
        from foresweep.reporting.report import sweep_report
        from foresweep.reporting.views import Links, Site, SweepView

        path = Path(path)
        if path.suffix not in (*HTML, *MARKDOWN):
            raise UsageError(f"report({str(path)!r}): give a name that ends in .html or .md")
        with self._tracker() as tracker:
            if path.suffix in HTML:
                site = Site(tracker, self.places.runs_dir, Links(is_live=False))
                text = report_html(site, SweepView(site, self, None))
            else:
                text = sweep_report(tracker, self, f"val_{ranked_by(self.objective)}")
        write_bytes_atomic(path, name_as_text(text).encode())
        return path

    def runs(self) -> list[Run]:
        """Every run of this sweep: complete, pruned, failed and lost ones, baselines among them."""
        with self._tracker() as tracker:
            return tracker.get_runs(sweep_id=self.sweep_id)

    def _board(self, metric: str | None) -> Leaderboard:
        metric = metric or f"val_{ranked_by(self.objective)}"
        with self._tracker() as tracker:
            runs = tracker.get_runs(fingerprint=self.fingerprints["val"])
        return leaderboard(runs, metric=metric)

    def _tracker(self) -> Tracker:
        return Tracker(self.places.database, create=False)


def sweep(
    model: str | Sequence[str] | SweepPlan,
    data: Source | None = None,
    *,
    horizon: int = 5,
    mode: str = "priority",
    objective: str = "pct_mae",
    max_runs: int | None = None,
    hyperparams: Mapping[str, Any] | None = None,
    size: str | None = None,
    pretrained: str | None = None,
    max_steps: int | None = None,
    seed: int = 0,
    seeds: int = 1,
    pruning: str = "none",
    stride: int | None = None,
    max_context: int | None = None,
    refits: int = 1,
    device: str = "auto",
    again: bool = False,
    workers: Workers | int | None = None,
    db: str | Path | None = None,
    runs: str | Path | None = None,
    listen: Listener | None = None,
    progress: bool | None = None,
) -> SweepResult:
    """Train research-backed configs of one model, several, or "all", beside the baselines.

    `data`: a DataFrame (pandas or polars: one item's, or a long one with an item column), a dict
    of DataFrames by item, a folder or file of prices, or "demo" (default: as on the command line);
    a frame is kept as a Parquet file in the runs folder. `horizon` and `stride` are in bars.
    `hyperparams` holds for every config: a value fixes it, a list is a choice, "1e-5..1e-3:log" a
    range. `refits`: val and test are forecast in so many stretches, each by weights trained on all
    bars before it. A `SweepPlan` in place of the model says all of this itself. `workers`: trials
    at once (default: one a GPU, else one a core). `listen` is called with every event
    (search/events.py); `progress` draws them (default: where somebody looks, in a terminal or
    notebook, and nobody listens). Ctrl-C leaves what is finished on record: `foresweep.resume()`
    goes on.

    Raises UsageError, UnknownName, ConfigError for what cannot be asked, DataError for data that
    cannot be used; KeyboardInterrupt passes through.
    """
    if not isinstance(objective, str):
        raise UsageError(
            f"objective {objective!r}: give the name of a metric, e.g. 'pct_mae'; losses of your "
            "own are judged by `foresweep verdict --losses` (docs/verdict-elsewhere.md)"
        )
    places = load_settings(database=db, runs_dir=runs)
    if isinstance(model, SweepPlan):
        plan = model if data is None else replace(model, data=_as_place(data, places))
        team = _team(workers, plan)
    else:
        plan = SweepPlan(
            models=(model,) if isinstance(model, str) else tuple(model),
            data=_as_place(data, places),
            mode=mode,
            objective=objective,
            max_runs=max_runs,
            size=size_meant(size, pretrained),
            pretrained=pretrained,
            max_steps=max_steps,
            seeds=seeds,
            pruning=pruning,
            again=again,
            cut=Cut(horizon, stride, max_context, seed=seed, refits=refits),
            resources=Resources(device=device),
            spaces=Spaces(changes={k: as_dimension(k, v) for k, v in (hyperparams or {}).items()}),
        )
        team = _team(workers, plan)
        shared = threads_each(None, team.slots)
        plan = replace(plan, resources=replace(plan.resources, threads=shared))
    return _run(plan.checked(), places, team, listen, progress)


def _team(workers: Workers | int | None, plan: SweepPlan) -> Workers:
    """Who works: what is said, else as many as this machine has use for."""
    if isinstance(workers, Workers):
        return workers.checked()
    if workers is not None:
        return Workers(count=workers).checked()
    return workers_here(plan.resources.device, plan.budget)


def train(
    model: str | SweepPlan,
    hyperparams: Mapping[str, Any],
    data: Source | None = None,
    *,
    horizon: int = 5,
    objective: str = "pct_mae",
    size: str | None = None,
    pretrained: str | None = None,
    max_steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    db: str | Path | None = None,
    runs: str | Path | None = None,
) -> Run:
    """Train one config by hand, tracked, scored and ranked like any other; the run it came to.

    The keywords are those of `sweep`. Where an equal config was trained before, that run; of
    several seeds the median one. Raises as `sweep`.
    """
    places = load_settings(database=db, runs_dir=runs)
    if isinstance(model, SweepPlan):
        plan = model if data is None else replace(model, data=_as_place(data, places))
    else:
        plan = SweepPlan(
            models=(model,),
            mode="by hand",
            data=_as_place(data, places),
            objective=objective,
            max_runs=1,
            size=size_meant(size, pretrained),
            pretrained=pretrained,
            max_steps=max_steps,
            cut=Cut(horizon, seed=seed),
            resources=Resources(device=device, threads=threads_each(None, 1)),
        )
    return train_plan(plan, hyperparams, db=db, runs=runs)


def resume(
    sweep_id: str = "latest",
    *,
    workers: Workers | int | None = None,
    db: str | Path | None = None,
    runs: str | Path | None = None,
    listen: Listener | None = None,
    progress: bool | None = None,
) -> SweepResult:
    """Go on with a sweep on record, or join its other heads. Raises as `sweep`, and NotFound."""
    places = load_settings(database=db, runs_dir=runs)
    with Tracker(places.database, create=False) as tracker:
        known = tracker.get_sweep(sweep_id)
    plan = plan_of(known)
    return _run(plan, places, _team(workers, plan), listen, progress, going_on=known.sweep_id)


def load(
    what: Run | str | Path | None = None,
    *,
    db: str | Path | None = None,
    resources: Resources | None = None,
) -> LoadedModel:
    """The model of a run (a `Run` or its id), of a checkpoint folder, or of the champion in service
    (a slot's name; None: the only one). Raises NotFound, CheckpointError, UsageError."""
    if isinstance(what, Path) or (isinstance(what, str) and Path(what).is_dir()):
        return LoadedModel(Forecaster.load(Path(what), resources))
    with Tracker(load_settings(database=db).database, create=False) as tracker:
        slots = {slot.name for slot in Service(tracker.store).slots()}
        if what is None or (isinstance(what, str) and what in slots):
            return load_champion(what, db=db, resources=resources)
        run = tracker.get_run(what.run_id if isinstance(what, Run) else what)
        return LoadedModel(Forecaster.load(checkpoint_of(run).path, resources))


def demo() -> pd.DataFrame:
    """The demo's prices, real and daily: a long frame with item_id, timestamp, open, high, low,
    close, volume. Raises MissingExtra where the extra `demo` is not installed."""
    return demo_panel().to_frame().to_pandas()


def _as_place(data: Source | None, places: Settings) -> str:
    """Where the prices are, from now on: what is said, or the file that a frame is kept in."""
    if data is None:
        return default_source(load_settings().data)
    if isinstance(data, str | Path):
        return str(data)
    load_panel(data)  # refused before it is kept
    return str(keep_frame(data, places.runs_dir / FRAMES))


def _run(
    plan: SweepPlan,
    places: Settings,
    workers: Workers,
    listen: Listener | None,
    progress: bool | None,
    going_on: str | None = None,
) -> SweepResult:
    if progress is None:
        progress = listen is None and (sys.stdout.isatty() or "ipykernel" in sys.modules)

    def run(tracker: Tracker, listener: Listener) -> SweepResult:
        done = run_sweep(
            plan,
            tracker=tracker,
            runs_dir=places.runs_dir,
            listen=listener,
            workers=workers,
            going_on=going_on,
        )
        said = {f.name: getattr(done, f.name) for f in fields(Sweep)}
        return SweepResult(**said, places=places)

    def both(event: Event) -> None:
        for hear in hearers:
            hear(event)

    hearers = [] if listen is None else [listen]
    with Tracker(places.database, create=going_on is None) as tracker:
        if not progress:
            return run(tracker, both)
        from foresweep.cli.live import LiveView

        with LiveView(tracker, plan) as view:
            hearers.append(view.on_event)
            try:
                result = run(tracker, both)
            except KeyboardInterrupt:
                view.say_stopped()
                raise
            view.conclude(result)
        return result
