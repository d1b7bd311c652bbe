"""Test is forecast when it is opened: no trial forecasts it, so that nothing is there to be seen.

The forecasts come from the run's checkpoint on the sweep's own panel, in a worker as the trial's
other forecasts did, and are those that it would have made when it was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from foresweep.data.panel import Panel
from foresweep.data.splits import PartName, Split
from foresweep.data.windows import Windows
from foresweep.errors import CheckpointError, ForesweepError, PanelChanged, UsageError
from foresweep.evaluation.backtest import evaluate, forecast_part, last_value
from foresweep.evaluation.losses import as_stored
from foresweep.models.base import Array, Forecast, Resources, on_device
from foresweep.models.calibration import load_predictor
from foresweep.models.checkpoint import read_checkpoint
from foresweep.models.ensemble import combine
from foresweep.models.registry import BASELINES, ENSEMBLE, get_model
from foresweep.records import Run
from foresweep.search.engines.base import Channel, run_task
from foresweep.search.engines.local import LocalEngine
from foresweep.search.refitting import Refits
from foresweep.search.stage import cut_of, keep_panel, reopen
from foresweep.search.trial import CHECKPOINT, Ground
from foresweep.tracker.tracker import Tracker

SEALED: PartName = "test"


@dataclass(frozen=True, slots=True)
class Source:
    """Weights that forecast, as they did in their own trial; refitted where they were there."""

    checkpoint: Path
    model: str
    seed: int
    resources: Resources
    weight: float = 1.0  # in an ensemble

    def forecast(self, panel: Panel, split: Split) -> Forecast:
        """Of all windows of test."""
        windows = Windows(panel, split, split.part(SEALED))
        checkpoint = read_checkpoint(self.checkpoint)
        model, resources = get_model(checkpoint.model), _there(self.resources)
        if split.refits > 1:
            refits = Refits(model, checkpoint, resources, self.seed, self.checkpoint.parent)
            return refits.forecast(panel, split, SEALED)
        predictor = load_predictor(model, checkpoint, resources)
        return forecast_part(predictor, windows, seed=self.seed)


@dataclass(frozen=True, slots=True)
class Unopened:
    """A run whose test nobody has forecast yet, and all that it takes."""

    run_id: str
    ground: Ground
    sources: tuple[Source, ...]  # several: the members of an ensemble
    method: str | None  # of an ensemble
    out: Path

    def scores(self) -> dict[str, float]:
        """Forecast and score test; its files stand under `out` afterwards.

        Raises CheckpointError where the windows are not those on record.
        """
        panel, split = self.ground.load()
        windows = Windows(panel, split, split.part(SEALED))
        if windows.fingerprint != self.ground.fingerprints.get(SEALED):
            raise CheckpointError(
                f"the test of run {self.run_id} has other windows than its record says; the "
                f"package that cuts them is another: install the version that made the run"
            )
        given = {windows.part.name: mixed(self.sources, self.method, panel, split)}
        return evaluate(last_value(split), panel, split, parts=(SEALED,), out=self.out, made=given)


def mixed(sources: Sequence[Source], method: str | None, panel: Panel, split: Split) -> Forecast:
    """The forecast of test by one source; of several (`method`) their forecasts as an ensemble
    reads them from their files, made one."""
    made = [source.forecast(panel, split) for source in sources]
    if method is None:
        return made[0]
    windows = Windows(panel, split, split.part(SEALED))
    values: list[Array] = []
    for forecast in made:
        single = forecast.values.astype(np.float32).astype(np.float64)
        values.append(as_stored(single, windows))
    weights = tuple(source.weight for source in sources)
    return Forecast(combine(values, weights, method), made[0].levels)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Open:
    """Task: the test scores of some runs, by run."""

    runs: tuple[Unopened, ...]

    def __call__(self, channel: Channel) -> dict[str, dict[str, float]]:
        return {one.run_id: one.scores() for one in self.runs}


def unopened(tracker: Tracker, runs: Sequence[Run]) -> tuple[Unopened, ...]:
    """What it takes to forecast the test of some runs. Nothing of test is read.

    Raises CheckpointError, by run, where weights or panel are not there any more.
    """
    return tuple(_unopened(tracker, run) for run in runs)


def forecast_tests(tracker: Tracker, runs: Sequence[Unopened]) -> dict[str, dict[str, float]]:
    """Forecast and score the test of these runs: files beside those of val, scores into sealed rows
    where there were none. The caller has put the look on record.

    Raises what forecasting raises.
    """
    if not runs:
        return {}
    models = {s.model for one in runs for s in one.sources} - set(BASELINES)
    engine = LocalEngine(tuple(sorted(models)))
    engine.warm_up()
    try:
        with TemporaryDirectory() as folder:
            found: dict[str, dict[str, float]] = run_task(
                engine, Open(tuple(runs)), log=Path(folder) / "log"
            )
    finally:
        engine.close()
    for run_id, scores in found.items():
        if not tracker.judgings.has_test(run_id):
            tracker.add_scores(run_id, scores)
    return found


def _unopened(tracker: Tracker, run: Run) -> Unopened:
    try:
        if run.sweep_id is None or run.forecasts_path is None:
            raise UsageError("it was logged by hand")
        out = Path(run.forecasts_path)
        sweep = tracker.get_sweep(run.sweep_id)
        panel, _ = reopen(sweep, out.parent)
        sources, method = sources_of(tracker, run)
    except (CheckpointError, PanelChanged, UsageError) as error:
        raise CheckpointError(
            f"the test of run {run.run_id} has not been forecast yet, and what it takes is gone: "
            f"{error}"
        ) from error
    cells = (run.panel_hash, run.task_hash, run.fingerprints)
    ground = Ground(keep_panel(out.parent, panel), cut_of(sweep), *cells)
    return Unopened(run.run_id, ground, sources, method, out)


def sources_of(tracker: Tracker, run: Run) -> tuple[tuple[Source, ...], str | None]:
    """The weights that a run forecasts with, and how they are mixed where it is an ensemble. Raises
    CheckpointError where weights are gone or altered."""
    if run.model_name != ENSEMBLE:
        return (_source(run),), None
    members: Mapping[str, float] = run.hyperparams["members"]
    found = tuple(_source(tracker.get_run(name), weight) for name, weight in members.items())
    return found, str(run.hyperparams["method"])


def _source(run: Run, weight: float = 1.0) -> Source:
    """Raises CheckpointError where its weights are gone or altered."""
    recorded = Path(str(run.checkpoint_path))
    beside = Path(str(run.forecasts_path)) / CHECKPOINT  # the folder of all runs may have moved
    place = recorded if recorded.is_dir() else beside
    read_checkpoint(place)
    known = Resources(**run.resources) if run.resources else Resources()
    return Source(place, run.model_name, run.seed or 0, known, weight)


def _there(resources: Resources) -> Resources:
    """The resources of the trial, on another device where this machine lacks its own."""
    try:
        return on_device(resources)
    except ForesweepError:
        return on_device(Resources(threads=resources.threads, device="auto"))
