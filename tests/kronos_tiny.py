"""The smallest Kronos worth testing, and how tests train it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foresweep.data.panel import Panel
from foresweep.data.splits import Cut, PartName, make_split
from foresweep.data.windows import TrainWindows, Windows
from foresweep.models.base import (
    DEFAULT_LEVELS,
    Array,
    Checkpoint,
    Facts,
    Predictor,
    Resources,
    Scored,
    TrainingJob,
    make_config,
)
from foresweep.models.checkpoint import read_checkpoint
from foresweep.models.kronos.config import KronosConfig, Nets
from foresweep.models.kronos.model import Kronos, KronosPredictor, encode

HORIZON = 4
FACTS = Facts(horizon=HORIZON, max_context=256, train_bars=5000)
SHAPE: Mapping[str, int] = {
    "d_model": 32, "num_layers": 1, "ff_dim": 32, "token_bits": 4,
    "tokenizer_d_model": 32, "tokenizer_layers": 2,
}  # fmt: skip
SMALLEST: Mapping[str, Any] = {
    "context_length": 32, "batch_size": 4, "lr": 3e-3, "max_steps": 4, "num_samples": 5, **SHAPE,
}  # fmt: skip
TRAINED = ("batch_size", "lr", "max_steps")
"""What of them has no effect where nothing is trained."""


def config(facts: Facts = FACTS, **values: Any) -> KronosConfig:
    """The smallest config with these values, resolved; with weights, theirs is the shape, and
    zero-shot takes no steps."""
    given = dict(SMALLEST)
    if values.get("pretrained"):
        given |= dict.fromkeys(SHAPE) | {"size": None}
    if values.get("finetune") == "none":
        given = {k: v for k, v in given.items() if k not in TRAINED}
    made = make_config(KronosConfig, {**given, **values}, model="kronos")
    return Kronos().resolve(made, facts)


@dataclass
class Notes:
    """A scorer that likes every step better than the last, and a reporter that remembers."""

    scored: int = 0
    steps: list[int] = field(default_factory=list)
    predictors: list[Predictor] = field(default_factory=list)

    def score(self, predictor: Predictor) -> Scored:
        self.scored += 1
        self.predictors.append(predictor)
        return Scored({"tune_pinball": 1 / self.scored}, {})

    def report(self, step: int, scores: Mapping[str, float], losses: Any = None) -> None:
        self.steps.append(step)


def train(
    panel: Panel, made: KronosConfig, out: Path, *, seed: int = 0, horizon: int = HORIZON
) -> Checkpoint:
    """Train on the panel's train part; the checkpoint, read back."""
    split = make_split(panel, Cut(horizon, max_context=None))
    windows, notes = TrainWindows(panel, split, split.part("train")), Notes()
    done = Kronos().train(TrainingJob(
        windows, made, Resources(), seed=seed, horizon=horizon,
        score=notes.score, report=notes.report, out=out,
    ))  # fmt: skip
    return read_checkpoint(done.path)


def load(checkpoint: Checkpoint) -> KronosPredictor:
    return Kronos().load(checkpoint, Resources())


def windows_of(panel: Panel, part: PartName = "tune", horizon: int = HORIZON) -> Windows:
    split = make_split(panel, Cut(horizon))
    return Windows(panel, split, split.part(part))


def forecast(
    predictor: Predictor, windows: Windows, *, seed: int = 0, batch: int = 64, first: int = 10_000
) -> Array:
    """[N, H, Q] prices of the first windows."""
    found = []
    for chosen, context in windows.batches(predictor.context_length, batch):
        if chosen.start >= first:
            break
        found.append(
            predictor.predict(
                context, horizon=windows.horizon, levels=DEFAULT_LEVELS, seed=seed
            ).values
        )
    return np.concatenate(found)[:first]


def token_loss(nets: Nets, x: Tensor, stamps: Tensor) -> float:
    """The predictor's own loss on fixed windows `x` [B, T, 6], `stamps` [B, T, 5].

    Deterministic and blind to the future, which the package's validation loss is not: see
    `token_logits`.
    """
    with torch.inference_mode(False), torch.no_grad():
        coarse, fine = encode(nets.tokenizer, x)
        logits = token_logits(nets.predictor, coarse, fine, stamps)
        return float(nets.predictor.head.compute_loss(*logits, coarse[:, 1:], fine[:, 1:])[0])


def token_logits(
    predictor: Any, coarse: Tensor, fine: Tensor, stamps: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits [B, T - 1, V] of every next coarse and fine token, each bar seeing the past alone.

    In eval mode the cross attention of the package's `dep_layer` is not causal, so that a bar's
    fine token would see the bars after it, and the coarse token it is conditioned on is sampled.
    Here that attention alone is in train mode (it has no dropout), where it is causal, and the
    coarse token is the true one. No inference mode: rotary tables are kept for training.
    """
    was_training = predictor.training
    predictor.eval()
    predictor.dep_layer.cross_attn.train()
    try:
        with torch.inference_mode(False), torch.no_grad():
            seen = coarse[:, :-1], fine[:, :-1], stamps[:, :-1]
            logits: tuple[Tensor, Tensor] = predictor(
                *seen, use_teacher_forcing=True, s1_targets=coarse[:, 1:]
            )
        return logits
    finally:
        predictor.train(was_training)
