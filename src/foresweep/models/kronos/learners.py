"""Kronos' two trainings, with the authors' losses: first the tokenizer, then the predictor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foresweep.models.base import Predictor
from foresweep.models.kronos.data import TrainingBars, time_stamps
from foresweep.models.kronos.networks import Nets
from foresweep.models.training.augmentation import Drawn
from foresweep.models.training.optimisation import float32

if TYPE_CHECKING:
    from torch import Tensor

MEMORY_BYTES = 2**28
"""Tokens of one training kept in memory: 256 MiB are 130,000 windows of 512 bars."""


class TokenizerLearner:
    """Stage one: reconstruct the bars through the quantizer, from coarse tokens and from both."""

    def __init__(self, nets: Nets, bars: TrainingBars, live: Predictor) -> None:
        self.module = nets.tokenizer
        self._bars, self._live = bars, live

    def draw(self, rng: np.random.Generator, size: int) -> tuple[Tensor]:
        """x [B, T, 6] float32"""
        import torch

        return (torch.from_numpy(self._bars.seen(self._bars.draw(rng, size).bars)),)

    def loss(self, batch: tuple[Tensor]) -> Tensor:
        """(MSE(coarse, x) + MSE(both, x) + quantizer loss) / 2: the authors' finetune scripts."""
        from torch.nn.functional import mse_loss

        (coarse, both), quantizer_loss, _, _ = self.module(batch[0])
        error = mse_loss(coarse, batch[0]) + mse_loss(both, batch[0])
        loss: Tensor = (error + quantizer_loss) / 2
        return loss

    def predictor(self) -> Predictor:
        return self._live


class PredictorLearner:
    """Stage two: the next bar's tokens, by cross-entropy, the tokenizer standing still."""

    def __init__(self, nets: Nets, bars: TrainingBars, live: Predictor) -> None:
        self.module = nets.predictor
        self._tokens = Tokens(nets.tokenizer.requires_grad_(False).eval(), bars)
        self._bars, self._live = bars, live

    def draw(self, rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
        """Tokens [B, T, 2] int64, coarse and fine, and time stamps [B, T, 5] int64."""
        import torch

        drawn = self._bars.draw(rng, size)
        stamps = torch.from_numpy(time_stamps(drawn.timestamps))
        return self._tokens.of(drawn), stamps

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean of the coarse and the fine token's cross-entropy (`head.compute_loss`).

        As in the authors' training the fine token is conditioned on a *sampled* coarse one. The
        cross-entropy is taken in float32 whatever the precision of the nets.
        """
        (coarse, fine), stamps = batch[0].unbind(-1), batch[1]
        logits = self.module(coarse[:, :-1], fine[:, :-1], stamps[:, :-1])
        with float32(stamps.device):
            pair = (found.float() for found in logits)
            loss: Tensor = self.module.head.compute_loss(*pair, coarse[:, 1:], fine[:, 1:])[0]
        return loss

    def predictor(self) -> Predictor:
        return self._live


class Tokens:
    """Tokens of training windows, each encoded when it is first drawn and then remembered.

    A window is what was drawn: item, first row, bars merged, mirrored or not; its length and how it
    is normalised are the training's. The memory lives and ends with one training of the predictor,
    during which the tokenizer stands still: no token outlives the tokenizer that made it.
    """

    def __init__(self, tokenizer: Any, bars: TrainingBars, limit: int = MEMORY_BYTES) -> None:
        self._tokenizer, self._bars, self._left = tokenizer, bars, limit
        self._known: dict[tuple[int, int, int, bool], NDArray[np.int16]] = {}

    def of(self, drawn: Drawn) -> Tensor:
        """[B, T, 2] int64, coarse and fine, of the windows drawn."""
        import torch

        keys = list(zip(*(a.tolist() for a in _identity(drawn)), strict=True))
        new = [n for n, key in enumerate(keys) if key not in self._known]
        fresh = dict(zip(new, self._encoded(drawn, new), strict=True))
        for n, tokens in fresh.items():
            if self._left >= tokens.nbytes:
                self._left -= tokens.nbytes
                self._known[keys[n]] = tokens
        found = [fresh[n] if n in fresh else self._known[key] for n, key in enumerate(keys)]
        return torch.from_numpy(np.stack(found)).long()

    def _encoded(self, drawn: Drawn, index: list[int]) -> NDArray[np.int16]:
        """[B, T, 2] of the windows at `index`. Ids have 12 bits at most."""
        import torch

        if not index:
            return np.empty((0, 0, 2), np.int16)
        x = torch.from_numpy(self._bars.seen(drawn.bars[index]))
        pair = encode(self._tokenizer, x.to(next(self._tokenizer.parameters()).device))
        tokens: NDArray[np.int16] = torch.stack(pair, dim=-1).to(torch.int16).cpu().numpy()
        return tokens


def _identity(drawn: Drawn) -> tuple[NDArray[Any], ...]:
    """What tells one drawn window from another, [B] each."""
    return drawn.item, drawn.row, drawn.merged, drawn.flipped


def encode(tokenizer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Coarse and fine tokens [B, T] of normalised bars [B, T, 6]."""
    import torch

    with torch.no_grad():
        coarse, fine = tokenizer.encode(x, half=True)
    return coarse, fine


def token_loss(nets: Nets, x: Tensor, stamps: Tensor) -> float:
    """The predictor's own loss on fixed windows `x` [B, T, 6], `stamps` [B, T, 5].

    Deterministic and blind to the future, which the package's validation loss is not: see
    `token_logits`.
    """
    import torch

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
    import torch

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
