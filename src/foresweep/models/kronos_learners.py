"""Kronos' two trainings, with the authors' losses: first the tokenizer, then the predictor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from foresweep.models.base import Predictor
from foresweep.models.kronos_data import TrainingBars
from foresweep.models.kronos_networks import Nets

if TYPE_CHECKING:
    from torch import Tensor

Batch = tuple["Tensor", "Tensor"]
"""x [B, T, 6] float32 and time stamps [B, T, 5] int64."""


class TokenizerLearner:
    """Stage one: reconstruct the bars through the quantizer, from coarse tokens and from both."""

    def __init__(self, nets: Nets, bars: TrainingBars, live: Predictor) -> None:
        self.module = nets.tokenizer
        self._bars, self._live = bars, live

    def draw(self, rng: np.random.Generator, size: int) -> Batch:
        return _draw(self._bars, rng, size)

    def loss(self, batch: Batch) -> Tensor:
        """(MSE(coarse, x) + MSE(both, x) + quantizer loss) / 2: the authors' finetune scripts."""
        (coarse, both), quantizer_loss, _, _ = self.module(batch[0])
        error = F.mse_loss(coarse, batch[0]) + F.mse_loss(both, batch[0])
        loss: Tensor = (error + quantizer_loss) / 2
        return loss

    def predictor(self) -> Predictor:
        return self._live


class PredictorLearner:
    """Stage two: the next bar's tokens, by cross-entropy, the tokenizer standing still."""

    def __init__(self, nets: Nets, bars: TrainingBars, live: Predictor) -> None:
        self.module = nets.predictor
        self._tokenizer = nets.tokenizer.requires_grad_(False).eval()
        self._bars, self._live = bars, live

    def draw(self, rng: np.random.Generator, size: int) -> Batch:
        return _draw(self._bars, rng, size)

    def loss(self, batch: Batch) -> Tensor:
        """Mean of the coarse and the fine token's cross-entropy (`head.compute_loss`).

        As in the authors' training the fine token is conditioned on a *sampled* coarse one.
        """
        coarse, fine = encode(self._tokenizer, batch[0])
        logits = self.module(coarse[:, :-1], fine[:, :-1], batch[1][:, :-1])
        loss: Tensor = self.module.head.compute_loss(*logits, coarse[:, 1:], fine[:, 1:])[0]
        return loss

    def predictor(self) -> Predictor:
        return self._live


def _draw(bars: TrainingBars, rng: np.random.Generator, size: int) -> Batch:
    x, stamps = bars.draw(rng, size)
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(stamps)


def encode(tokenizer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Coarse and fine tokens [B, T] of normalised bars [B, T, 6]."""
    with torch.no_grad():
        coarse, fine = tokenizer.encode(x, half=True)
    return coarse, fine


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
