"""Every model is tested for leaks before it is trained; and the hunt on a run on record."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from foresweep.data.panel import Panel
from foresweep.data.reading.sources import load_panel
from foresweep.data.splits import Cut, Split, make_split
from foresweep.data.windows import TrainWindows
from foresweep.errors import LeakFound, NotFound, UsageError, WorkerDied
from foresweep.evaluation.backtest import make_scorer
from foresweep.evaluation.leaks import Hunt, hunt, hunt_training
from foresweep.models.base import (
    Checkpoint,
    Facts,
    ForecastModel,
    Resources,
    TrainingJob,
    make_config,
)
from foresweep.models.calibration import load_predictor
from foresweep.models.checkpoint import read_checkpoint
from foresweep.models.registry import ENSEMBLE, get_model
from foresweep.records import Run, Sweep
from foresweep.search.engines.base import (
    FOREVER,
    GO,
    Died,
    Done,
    Failed,
    Job,
    Progress,
    TaskFailed,
    answer,
    outcome,
)
from foresweep.search.events import LeakTested
from foresweep.search.plan import SweepPlan, by_hand
from foresweep.search.stage import Stage, reopen
from foresweep.search.trial import LEAK_STEPS, LeakTest, Prepared, RunSpec, prepare


@dataclass(frozen=True, slots=True)
class Testing:
    """A test that runs."""

    model: str
    out: Path
    started: float  # on the clock of time.perf_counter


@dataclass(slots=True)
class LeakTests:
    """What became of the test of each model. Not frozen: a model is tested when first met."""

    stage: Stage
    sweep_id: str
    causes: dict[str, str] = field(default_factory=dict)

    def test_all(self, configs: Sequence[Prepared]) -> None:
        """Test every model of these, as many at once as the engine has slots. Raises LeakFound.

        What could not be tested is not trained: its trials go on record as failed with the cause. A
        config that trains goes first: it says more than weights as they are.
        """
        left: dict[str, list[Prepared]] = {}
        for config in sorted(configs, key=lambda p: p.config.get("finetune") == "none"):
            left.setdefault(config.proposal.model, []).append(config)
        waiting = list(dict.fromkeys(p.proposal.model for p in configs))
        engine, running = self.stage.engine, dict[Job, Testing]()
        try:
            while waiting or running:
                while waiting and len(running) < max(engine.slots, 1):
                    job, testing = self._start(left[waiting.pop(0)].pop(0))
                    running[job] = testing
                for job, message in engine.poll(FOREVER, tuple(running)):
                    if isinstance(message, Progress):
                        answer(engine, job, message, GO)
                        continue
                    testing = running.pop(job)
                    self.causes[testing.model] = self._heard(testing, message)
                    if self.causes[testing.model] and left[testing.model]:
                        waiting.append(testing.model)
        finally:
            for job, testing in running.items():
                engine.end(job)
                shutil.rmtree(testing.out, ignore_errors=True)

    def cause(self, config: Prepared) -> str:
        """Why a config must not be trained; "" where its model has passed. Raises LeakFound."""
        model = config.proposal.model
        if model not in self.causes:  # all of its first configs had been trained before
            self.test_all([config])
        return self.causes[model]

    def _start(self, config: Prepared) -> tuple[Job, Testing]:
        """Begin one short training."""
        stage, model = self.stage, config.proposal.model
        testing = Testing(
            model,
            stage.runs_dir / f".leaktest-{self.sweep_id}-{model}",
            time.perf_counter(),
        )
        spec = RunSpec(stage.ground, config, stage.plan.cut.seed, stage.plan.resources)
        log = testing.out / "training.log"
        return stage.engine.start(LeakTest(spec, testing.out), log=log, beside=True), testing

    def _heard(self, testing: Testing, message: Done | Failed | Died) -> str:
        """ "" where it passed, else why it could not be done.

        Raises LeakFound: no score of such a model means anything.
        """
        stage, model = self.stage, testing.model
        try:
            need = outcome(message)
        except TaskFailed as error:
            if error.failed.kind == LeakFound.__name__:
                raise LeakFound(f"{model}: {error}; its scores would mean nothing") from error
            return f"the leak test could not be done: {error.failed.traceback}"
        except WorkerDied as error:
            return f"the leak test could not be done: {error}"
        finally:
            shutil.rmtree(testing.out, ignore_errors=True)
        stage.engine.needs(need)
        stage.listen(LeakTested(model, time.perf_counter() - testing.started))
        return ""


# The leak hunt on a run on record, or on a model that is trained for a moment.


def hunt_run(run: Run, sweep: Sweep, runs_dir: Path) -> Hunt:
    """Hunt in the forecasts of a run's checkpoint, and in a short training of its config; an
    ensemble trains nothing, so that only its forecasts are looked at.

    Raises NotFound without a checkpoint, CheckpointError, PanelChanged, UsageError.
    """
    if not run.has_checkpoint_files:
        raise NotFound(
            f"run {run.run_id} has no checkpoint on this disk to ask; name its model instead: "
            f"foresweep doctor --leaks {run.model_name}"
        )
    panel, split = reopen(sweep, runs_dir)
    checkpoint = read_checkpoint(Path(str(run.checkpoint_path)))
    model = get_model(checkpoint.model)
    predictor = load_predictor(model, checkpoint, Resources())
    found = hunt(predictor, panel, split, seed=run.seed or 0)
    if checkpoint.model == ENSEMBLE:
        return found
    config = make_config(model.Config, checkpoint.config, model=checkpoint.model)
    return _joined(found, _training(model, config, panel, split, run.seed or 0))


def hunt_fits(run: Run, sweep: Sweep, runs_dir: Path) -> Hunt:
    """Hunt in a short training and calibration of a run's config alone: does anything fitted move
    with bars that it must not know? Raises as `hunt_run`, UsageError for an ensemble."""
    if run.model_name == ENSEMBLE:
        raise UsageError(f"run {run.run_id} is an ensemble, which trains nothing: hunt its members")
    panel, split = reopen(sweep, runs_dir)
    model = get_model(run.model_name)
    config = make_config(model.Config, run.hyperparams, model=run.model_name)
    return _training(model, config, panel, split, run.seed or 0)


def hunt_model(name: str, *, data: str, horizon: int = 5, size: str = "tiny") -> Hunt:
    """Train the default config of a model for a moment and hunt in it.

    Raises UnknownName, UsageError where the config cannot be tried, DataError.
    """
    plan = by_hand(SweepPlan(models=(name,), data=data, cut=Cut(horizon), size=size).checked(), {})
    panel = load_panel(data).panel
    split = make_split(panel, plan.cut)
    train = TrainWindows(panel, split, split.part("train"))
    bars = sum(len(train.values(i)) for i in range(panel.num_items))
    ready = prepare(plan.proposals[0], Facts(horizon, split.max_context, bars, LEAK_STEPS), plan)
    if ready.refused:
        raise UsageError(f"{name} cannot be tried as it comes: {ready.refused}")
    model = get_model(ready.proposal.model)
    config = make_config(model.Config, ready.config, model=ready.proposal.model)
    with TemporaryDirectory() as folder:
        checkpoint = _trained(model, config, panel, split, Path(folder))
        found = hunt(load_predictor(model, checkpoint, Resources()), panel, split)
    return _joined(found, _training(model, config, panel, split, 0))


def _trained(
    model: ForecastModel, config: Any, panel: Panel, split: Split, folder: Path
) -> Checkpoint:
    job = TrainingJob(
        TrainWindows(panel, split, split.part("train")),
        config,
        horizon=split.horizon,
        score=make_scorer(panel, split),
        out=folder / "checkpoint",
    )
    made = model.train(job)
    return read_checkpoint(made.path)


def _training(model: ForecastModel, config: Any, panel: Panel, split: Split, seed: int) -> Hunt:
    """The hunt in a training of two steps, which is as leaky as a long one."""
    if getattr(config, "max_steps", None):
        config = dataclasses.replace(config, max_steps=min(config.max_steps, LEAK_STEPS))
    with TemporaryDirectory() as folder:
        return hunt_training(model, config, panel, split, out=Path(folder), seed=seed)


def _joined(one: Hunt, two: Hunt) -> Hunt:
    return Hunt((*one.looked, *two.looked), (*one.findings, *two.findings))
