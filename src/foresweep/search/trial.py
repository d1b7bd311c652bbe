"""One trial, the same for every engine: train, keep the best step, score once on tune and val.

The one room that joins data, models and evaluation; it knows no database. Everything here runs in
a worker process and comes back as plain values.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from foresweep.data.panel import Panel
from foresweep.data.splits import Cut, PartName, Split, make_split
from foresweep.data.tables import read_panel
from foresweep.data.windows import Fresh, TrainWindows
from foresweep.errors import CheckpointError, ForesweepError
from foresweep.evaluation.backtest import OPEN_PARTS, calibrate, evaluate, make_scorer
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
from foresweep.models.hub import weights_from
from foresweep.models.licence import Licence, weights_licence
from foresweep.models.registry import BASELINES, answering, get_model, resolved
from foresweep.models.training.loop import adopt_states, has_states
from foresweep.records import CONTINUES, STILL_LEARNING
from foresweep.search.engines.base import Channel
from foresweep.search.plan import SweepPlan
from foresweep.search.propose.modes import Proposal
from foresweep.search.refitting import Refits, is_whole
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
    """What all runs of a sweep stand on: the panel's file, how it is cut, and what names both."""

    panel_path: Path
    cut: Cut
    panel_hash: str = ""
    task_hash: str = ""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    steer: int | None = None  # windows of tune that steer, as wanted; None: all
    fresh: Fresh | None = None  # newer bars that are drawn more often

    def load(self) -> tuple[Panel, Split]:
        panel = read_panel(self.panel_path)
        return panel, make_split(panel, self.cut)


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

    def columns(self) -> dict[str, Any]:
        """What a trial's record says of it."""
        return {
            "model": self.proposal.model,
            "config": self.config,
            "config_hash": self.config_hash,
            "train_hash": self.train_hash,
            "source": self.proposal.source,
        }


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a run is: which config, on which windows, as which attempt at which trial. Everything
    that puts a run on record or trains it starts from here."""

    ground: Ground
    prepared: Prepared
    seed: int = 0
    resources: Resources = field(default_factory=Resources)
    trial: tuple[str, int] = ("", 0)  # sweep id, number; the lease is held by who runs it
    attempt: int = 1
    earlier: tuple[str, ...] = ()  # run ids of attempts that were broken off, newest first
    deaths: int = 0  # of its process, in this head
    note: str = ""  # why it is tried once more
    cause: str = ""  # why it cannot be run at all
    wakes: str = ""  # the run that waits and is to go on, under its own id
    tags: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        return self.prepared.proposal.model

    @property
    def continues(self) -> str | None:
        """The run whose training it goes on with."""
        word, _, run_id = self.prepared.proposal.source.partition(": ")
        return run_id if word == CONTINUES else None

    def load(self) -> tuple[ForecastModel, Any, Panel, Split]:
        """The family, its config and the windows, in a worker."""
        model = get_model(self.model)
        config = make_config(model.Config, self.prepared.config, model=self.model)
        return model, config, *self.ground.load()


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
        facts = Facts(
            split.horizon,
            split.max_context,
            bars,
            self.plan.step_cap,
            fast_bf16,
            self.plan.step_floor,
        )
        return tuple(prepare(p, facts, self.plan) for p in self.proposals)


@dataclass(frozen=True, slots=True)
class Settle:
    """Task: configs that are on record, made ready once more; nothing is resolved anew, so that a
    trial goes on with the config it began with. `anew`: hashed as they come out today."""

    settled: tuple[Prepared, ...]
    pretrain_cutoff: str | None
    anew: bool = False

    def __call__(self, channel: Channel) -> tuple[Prepared, ...]:
        return tuple(map(self._settled, self.settled))

    def _settled(self, p: Prepared) -> Prepared:
        name = p.proposal.model
        model = get_model(name)
        config = make_config(model.Config, p.config, model=name)
        p = replace(p, cutoff=weights_cutoff(model, config, self.pretrain_cutoff))
        if not self.anew:
            return p
        weights = model.weights_hash(config)
        return replace(p, config_hash=config_hash(config, model=name, weights_hash=weights))


def prepare(proposal: Proposal, facts: Facts, plan: SweepPlan) -> Prepared:
    """Resolve one proposal. A refusal is an answer, not an error: the sweep goes on without it."""
    try:
        model = get_model(proposal.model)
        with answering(model):
            values = fitting(model.Config, proposal.config)
            config = make_config(model.Config, values, model=proposal.model)
            whole = resolved(model, config, replace(facts, step_cap=None))
            config = resolved(model, config, facts)
            refuse_centre_under(plan.objectives, config, quantile_metrics=QUANTILE_METRICS)
            weights = model.weights_hash(config)
            cutoff = weights_cutoff(model, config, plan.pretrain_cutoff)
            whole_hash, train_hash = (
                config_hash(config, model=proposal.model, weights_hash=weights, inference=inference)
                for inference in (True, False)
            )
    except ForesweepError as error:
        return Prepared(proposal, {}, "", "", refused=str(error))
    asked = getattr(whole, "max_steps", None)
    cut = asked if asked != getattr(config, "max_steps", None) else None
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

    spec: RunSpec
    out: Path

    def __call__(self, channel: Channel) -> float:
        """MiB that its process took at most."""
        model, config, panel, split = self.spec.load()
        if getattr(config, "max_steps", None):
            config = replace(config, max_steps=LEAK_STEPS)
        job = TrainingJob(
            TrainWindows(panel, split, split.part("train")),
            config,
            on_device(self.spec.resources),
            seed=self.spec.seed,
            horizon=split.horizon,
            score=falling_scorer(),
            report=channel,
            out=self.out / CHECKPOINT,
        )
        checkpoint = read_checkpoint(model.train(job).path)
        few = thinned(panel, split) if wants_calibration(config) else split
        _, predictor, _ = _calibrated(model, config, checkpoint, panel, few, self)
        check_no_leak(predictor, panel, split, seed=self.spec.seed)
        return peak_memory_mb()


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What a finished trial hands to the head."""

    scores: Mapping[str, float]  # tune_*, val_*
    checkpoint_path: Path
    training_time_s: float
    peak_memory_mb: float | None
    still_learning: bool = False  # its last step is its best, after steps that still taught it

    @property
    def equals_last_value(self) -> bool:
        """Is every point forecast the last close, as if nothing had been learnt?"""
        return all(no_skill(self.scores[name]) for name in ("tune_skill", "val_skill"))


@dataclass(frozen=True, slots=True)
class RunTask:
    """Task: a run, trained, scored, written to `out`."""

    spec: RunSpec
    run_id: str
    out: Path
    trained: Path | None = None  # a checkpoint of the same training, to be asked differently
    earlier: tuple[Path, ...] = ()  # `out` of attempts that were broken off, newest first
    continues: Path | None = None  # `out` of the run whose training goes on

    def __call__(self, channel: Channel) -> TrialResult:
        model, config, panel, split = self.spec.load()
        seed, cutoff = self.spec.seed, self.spec.prepared.cutoff
        started = time.perf_counter()
        # what is scored is what can be loaded again: of a training from its start; or the rest of
        # one that was broken off; or, where one like it has ended, its weights, to be asked anew
        out, before = self.out / CHECKPOINT, [e / CHECKPOINT for e in self.earlier]
        if trained := self.trained or next(filter(is_whole, before), None):
            checkpoint = derive_checkpoint(
                trained, out, config=as_dict(config), leave=(CALIBRATION,)
            )
        else:
            job = TrainingJob(
                TrainWindows(panel, split, split.part("train"), self.spec.ground.fresh),
                config,
                on_device(self.spec.resources),
                seed=seed,
                horizon=split.horizon,
                score=make_scorer(
                    panel,
                    split,
                    seed=seed,
                    steer=self.spec.ground.steer,
                    steer_seed=self.spec.ground.cut.seed,
                ),
                report=channel,
                out=out,
                resume=self._state(before, out),
            )
            checkpoint = read_checkpoint(model.train(job).path)
        training_time_s = time.perf_counter() - started
        checkpoint, predictor, made = _calibrated(model, config, checkpoint, panel, split, self)
        if split.refits > 1:
            started = time.perf_counter()
            folders = self.earlier if self.trained is None else (self.trained.parent, *self.earlier)
            resources = on_device(self.spec.resources)
            refits = Refits(model, checkpoint, resources, seed, self.out, folders)
            made["val"] = refits.forecast(panel, split, "val")
            training_time_s += time.perf_counter() - started
        scores = evaluate(
            predictor, panel, split, parts=OPEN_PARTS, seed=seed, out=self.out, made=made
        )
        card = card_of(
            panel,
            split,
            scores,
            run_id=self.run_id,
            seed=seed,
            fingerprints=self.spec.ground.fingerprints,
            cutoff=asdict(cutoff) if cutoff else None,
            started_from=weights_from(
                model.name, getattr(config, "pretrained", None), getattr(model, "published", "")
            ),
            licences=weights_licence(checkpoint, get_model),
        )
        update_card(checkpoint, card)
        return TrialResult(
            scores=scores,
            checkpoint_path=checkpoint.path,
            training_time_s=training_time_s,
            peak_memory_mb=peak_memory_mb(),
            still_learning=bool(checkpoint.card.get("fitted", {}).get("still_learning")),
        )

    def _state(self, before: Sequence[Path], out: Path) -> Path | None:
        """Where the state stands that training goes on from; None: it begins. Raises
        CheckpointError where it was to go on with another run's, and that is gone."""
        ended = () if self.continues is None else (self.continues / CHECKPOINT,)
        if self.spec.wakes and has_states(out):
            return out
        if adopt_states((*before, *ended), out) is not None:
            return out
        if self.continues is None:
            return None
        raise CheckpointError(
            f"{self.continues} holds no training state to go on from; only a run that is "
            f"marked {STILL_LEARNING!r} keeps one"
        )


def card_of(
    panel: Panel,
    split: Split,
    scores: Mapping[str, float],
    *,
    run_id: str,
    seed: int,
    fingerprints: Mapping[str, str],
    cutoff: Mapping[str, Any] | None,
    started_from: Sequence[str] = (),
    licences: Sequence[Licence] = (),
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
        "weights_from": list(started_from),
        "weights_licence": [asdict(licence) for licence in licences],
    }


def _calibrated(
    model: ForecastModel,
    config: Any,
    checkpoint: Checkpoint,
    panel: Panel,
    split: Split,
    task: RunTask | LeakTest,
) -> tuple[Checkpoint, Predictor, dict[PartName, Forecast]]:
    """The predictor to score, calibrated and stored where its config asks for it, with tune's own
    cross-fitted forecasts; then no part is forecast twice."""
    resources = on_device(task.spec.resources)
    made: dict[PartName, Forecast] = {}
    if wants_calibration(config):
        raw = model.load(checkpoint, resources)
        tuned = calibrate(raw, config, panel, split, seed=task.spec.seed)
        checkpoint = store_calibration(checkpoint, tuned.calibration)
        made["tune"] = tuned.forecast
    return checkpoint, load_predictor(model, checkpoint, resources), made
