"""One trial, the same for every engine: train, keep the best step, score once on every part.

The one room that joins data, models and evaluation; it knows no database. Everything here runs in
a worker process and comes back as plain values.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from foresweep.data.panel import Panel
from foresweep.data.splits import SHARES, PartName, Split, make_split
from foresweep.data.tables import read_panel
from foresweep.data.windows import TrainWindows
from foresweep.errors import CheckpointError, ForesweepError
from foresweep.evaluation.backtest import calibrate, evaluate, make_scorer
from foresweep.evaluation.leaks import check_no_leak, falling_scorer, thinned
from foresweep.evaluation.yardstick import no_skill
from foresweep.metrics import QUANTILE_METRICS
from foresweep.models.base import (
    Checkpoint,
    Facts,
    Forecast,
    ForecastModel,
    Predictor,
    Resources,
    Scorer,
    TrainingJob,
    as_dict,
    bf16_is_fast,
    config_hash,
    hyperparameters,
    make_config,
    on_device,
)
from foresweep.models.calibration import FILE as CALIBRATION
from foresweep.models.calibration import (
    load_predictor,
    refuse_centre_under,
    store_calibration,
    wants_calibration,
)
from foresweep.models.checkpoint import (
    Cutoff,
    derive_checkpoint,
    read_checkpoint,
    update_card,
    weights_cutoff,
)
from foresweep.models.registry import BASELINES, get_model
from foresweep.models.training.loop import adopt_states
from foresweep.search.engines.base import Channel
from foresweep.search.plan import SweepPlan
from foresweep.search.propose.modes import Proposal
from foresweep.tracker.session import peak_memory_mb

IMPLIED = (("pretrained", None), ("size", None), ("size", "tiny"))
"""Laid under every config without being asked for."""
CHECKPOINT = "checkpoint"
"""The folder of a run's checkpoint in its own; its training states stand beside it."""
LEAK_STEPS = 2
"""A model that looks ahead does so from its first step: the leak test trains no longer, and scores
nothing on the way."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What all trials of a sweep stand on: the panel's file and how it is cut."""

    panel_path: Path
    horizon: int
    stride: int | None = None
    max_context: int | None = None
    max_windows: int = 100_000
    shares: tuple[float, float, float, float] = SHARES
    seed: int = 0

    def cut(self, panel: Panel) -> Split:
        return make_split(
            panel,
            self.horizon,
            shares=self.shares,
            stride=self.stride,
            max_context=self.max_context,
            max_windows=self.max_windows,
            seed=self.seed,
        )

    def load(self) -> tuple[Panel, Split]:
        panel = read_panel(self.panel_path)
        return panel, self.cut(panel)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A proposal made ready, or the reason why it cannot be tried."""

    proposal: Proposal
    config: Mapping[str, Any]  # resolved; empty when refused
    config_hash: str
    train_hash: str
    refused: str | None = None
    steps_asked: int | None = None  # where the sweep's cap cut them
    cutoff: Cutoff | None = None  # of its pretrained weights, where somebody knows


@dataclass(frozen=True, slots=True)
class Prepare:
    """Task: resolve and hash proposals. Done in a worker, so that the head imports no torch."""

    ground: Ground
    proposals: tuple[Proposal, ...]
    plan: SweepPlan

    def __call__(self, channel: Channel) -> tuple[Prepared, ...]:
        fast_bf16 = False
        if any(p.model not in BASELINES for p in self.proposals):
            used = on_device(self.plan.resources)  # a device that is not there stops the sweep here
            fast_bf16 = bf16_is_fast(used.device)
        panel, split = self.ground.load()
        train = TrainWindows(panel, split, split.part("train"))
        bars = sum(len(train.values(i)) for i in range(panel.num_items))
        facts = Facts(split.horizon, split.max_context, bars, self.plan.step_cap, fast_bf16)
        return tuple(prepare(p, facts, self.plan) for p in self.proposals)


@dataclass(frozen=True, slots=True)
class Settle:
    """Task: configs that are on record as trials, made ready once more; nothing is resolved anew,
    so that a trial goes on with the config it began with."""

    settled: tuple[Prepared, ...]
    pretrain_cutoff: str | None

    def __call__(self, channel: Channel) -> tuple[Prepared, ...]:
        return tuple(self._with_cutoff(p) for p in self.settled)

    def _with_cutoff(self, p: Prepared) -> Prepared:
        model = get_model(p.proposal.model)
        config = make_config(model.Config, p.config, model=p.proposal.model)
        return replace(p, cutoff=weights_cutoff(model, config, self.pretrain_cutoff))


def prepare(proposal: Proposal, facts: Facts, plan: SweepPlan) -> Prepared:
    """Resolve one proposal. A refusal is an answer, not an error: the sweep goes on without it."""
    try:
        model = get_model(proposal.model)
        values = fitting(model.Config, proposal.config)
        config = make_config(model.Config, values, model=proposal.model)
        whole = model.resolve(config, replace(facts, step_cap=None))
        config = model.resolve(config, facts)
        refuse_centre_under(plan.objectives, config, quantile_metrics=QUANTILE_METRICS)
        weights = model.weights_hash(config)
        cutoff = weights_cutoff(model, config, plan.pretrain_cutoff)
    except ForesweepError as error:
        return Prepared(proposal, {}, "", "", refused=str(error))
    asked = getattr(whole, "max_steps", None)
    cut = asked if asked != getattr(config, "max_steps", None) else None
    whole_hash, train_hash = (
        config_hash(config, model=proposal.model, weights_hash=weights, inference=inference)
        for inference in (True, False)
    )
    return Prepared(
        proposal, as_dict(config), whole_hash, train_hash, steps_asked=cut, cutoff=cutoff
    )


def fitting(config_type: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without what a sweep lays under every config and a family has no field for: a
    start from scratch, in the size that was not asked for."""
    known = {h.name for h in hyperparameters(config_type)}
    return {k: v for k, v in values.items() if k in known or (k, v) not in IMPLIED}


@dataclass(frozen=True, slots=True)
class LeakTest:
    """Task: train one config for a moment and see whether its forecasts move with the future."""

    ground: Ground
    model: str
    config: Mapping[str, Any]
    resources: Resources
    seed: int
    out: Path

    def __call__(self, channel: Channel) -> None:
        panel, split = self.ground.load()
        model = get_model(self.model)
        config = make_config(model.Config, self.config, model=self.model)
        if getattr(config, "max_steps", None):
            config = replace(config, max_steps=LEAK_STEPS)
        checkpoint = _train(model, config, panel, split, self, channel, falling_scorer())
        few = thinned(panel, split) if wants_calibration(config) else split
        _, predictor, _ = _calibrated(model, config, checkpoint, panel, few, self)
        check_no_leak(predictor, panel, split, seed=self.seed)


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What a finished trial hands to the head."""

    scores: Mapping[str, float]  # tune_*, val_* and, to be sealed, test_*
    checkpoint_path: Path
    training_time_s: float
    scoring_time_s: float
    peak_memory_mb: float

    @property
    def equals_last_value(self) -> bool:
        """Is every point forecast the last close, as if nothing had been learnt?"""
        return all(no_skill(self.scores[name]) for name in ("tune_skill", "val_skill"))


@dataclass(frozen=True, slots=True)
class Trial:
    """Task: one config, trained, scored, written to `out`."""

    ground: Ground
    model: str
    config: Mapping[str, Any]  # resolved
    resources: Resources
    seed: int
    out: Path
    run_id: str
    fingerprints: Mapping[str, str]
    cutoff: Cutoff | None = None
    trained: Path | None = None  # a checkpoint of the same training, to be asked differently
    earlier: tuple[Path, ...] = ()  # `out` of attempts that were broken off, newest first

    def __call__(self, channel: Channel) -> TrialResult:
        panel, split = self.ground.load()
        model = get_model(self.model)
        config = make_config(model.Config, self.config, model=self.model)
        started = time.perf_counter()
        checkpoint = self._checkpoint(model, config, panel, split, channel)
        trained = time.perf_counter()
        checkpoint, predictor, made = _calibrated(model, config, checkpoint, panel, split, self)
        scores = evaluate(predictor, panel, split, seed=self.seed, out=self.out, made=made)
        card = card_of(
            panel,
            split,
            scores,
            run_id=self.run_id,
            seed=self.seed,
            fingerprints=self.fingerprints,
            cutoff=asdict(self.cutoff) if self.cutoff else None,
        )
        update_card(checkpoint, card)
        return TrialResult(
            scores=scores,
            checkpoint_path=checkpoint.path,
            training_time_s=trained - started,
            scoring_time_s=time.perf_counter() - trained,
            peak_memory_mb=peak_memory_mb(),
        )

    def _checkpoint(
        self, model: ForecastModel, config: Any, panel: Panel, split: Split, channel: Channel
    ) -> Checkpoint:
        """Of a training from its start; or the rest of one that was broken off; or, where one like
        it has ended, its weights, to be asked anew."""
        out = self.out / CHECKPOINT
        ended = [e / CHECKPOINT for e in self.earlier if is_whole(e / CHECKPOINT)]
        trained = self.trained or next(iter(ended), None)
        if trained is not None:
            return derive_checkpoint(trained, out, config=as_dict(config), leave=(CALIBRATION,))
        going_on = adopt_states([e / CHECKPOINT for e in self.earlier], out)
        scorer = make_scorer(panel, split, seed=self.seed)
        return _train(
            model, config, panel, split, self, channel, scorer, resume=going_on is not None
        )


def is_whole(checkpoint: Path) -> bool:
    """Was a training written to its end?"""
    try:
        read_checkpoint(checkpoint)
    except CheckpointError:
        return False
    return True


def card_of(
    panel: Panel,
    split: Split,
    scores: Mapping[str, float],
    *,
    run_id: str,
    seed: int,
    fingerprints: Mapping[str, str],
    cutoff: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What a checkpoint's card says of the run that made it; no test score."""
    tuned, selected = (panel.timeline[split.part(p).stop - 1] for p in ("tune", "val"))
    return {
        "run_id": run_id,
        "seed": seed,
        "horizon": split.horizon,
        "panel_hash": split.cut_hash(panel),
        "fingerprints": dict(fingerprints),
        "items": list(panel.items),
        "scores": {k: v for k, v in scores.items() if not k.startswith("test_")},
        "beats_naive": bool(scores["val_skill"] > 0),
        "tuned_until": str(tuned.astype("datetime64[s]")),
        "selected_until": str(selected.astype("datetime64[s]")),
        "pretrain_cutoff": cutoff,
    }


def _train(
    model: ForecastModel,
    config: Any,
    panel: Panel,
    split: Split,
    task: Trial | LeakTest,
    channel: Channel,
    score: Scorer,
    *,
    resume: bool = False,
) -> Checkpoint:
    """Train, or go on from the states beside the checkpoint to be, and read back what was written:
    what is scored is what can be loaded again."""
    out = task.out / CHECKPOINT
    checkpoint = model.train(
        TrainingJob(
            TrainWindows(panel, split, split.part("train")),
            config,
            on_device(task.resources),
            seed=task.seed,
            horizon=split.horizon,
            score=score,
            report=channel,
            out=out,
            resume=out if resume else None,
        )
    )
    return read_checkpoint(checkpoint.path)


def _calibrated(
    model: ForecastModel,
    config: Any,
    checkpoint: Checkpoint,
    panel: Panel,
    split: Split,
    task: Trial | LeakTest,
) -> tuple[Checkpoint, Predictor, dict[PartName, Forecast]]:
    """The predictor to score, calibrated and stored where its config asks for it, with tune's own
    cross-fitted forecasts; then no part is forecast twice."""
    resources = on_device(task.resources)
    made: dict[PartName, Forecast] = {}
    if wants_calibration(config):
        raw = model.load(checkpoint, resources)
        tuned = calibrate(raw, config, panel, split, seed=task.seed)
        checkpoint, made = (
            store_calibration(checkpoint, tuned.calibration),
            {"tune": tuned.forecast},
        )
    return checkpoint, load_predictor(model, checkpoint, resources), made
