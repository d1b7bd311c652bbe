"""The one training loop of all three families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from foresweep.models.base import Predictor, Reporter, Resources, Scorer
from foresweep.models.config import config_class, hyper

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@config_class
class TrainingConfig:
    """Hyperparameters that every trained family shares; families inherit and add their own."""

    pretrained: str | None = hyper(
        None,
        "weights to start from: published, a Hugging Face id or a folder; none: from scratch",
        probe=(None, None),
    )
    size: Literal["tiny", "small", "base"] | None = hyper(
        "tiny", "architecture when training from scratch", probe=("tiny", "small")
    )
    context_length: int = hyper(
        128, "bars seen up to the origin", unit="bars", probe=(64, 128), ge=16
    )
    lr: float = hyper(1e-3, "peak learning rate of AdamW", probe=(1e-3, 3e-3), gt=0, le=1)
    batch_size: int = hyper(16, "windows per optimiser step", unit="windows", probe=(8, 16), ge=1)
    max_steps: int | None = hyper(None, "optimiser steps", unit="steps", probe=(4, 8), ge=1)
    max_epochs: int | None = hyper(
        None,
        "passes over the training bars, in place of max_steps",
        unit="epochs",
        probe=(1, 2),
        ge=1,
    )
    warmup_fraction: float = hyper(
        0.1, "share of the steps spent warming up", probe=(0.0, 0.5), ge=0, lt=1
    )
    schedule: Literal["cosine", "linear", "constant", "wsd"] = hyper(
        "cosine",
        "learning rate after warm-up (wsd: stable, then decay over the last fifth)",
        probe=("cosine", "constant"),
    )
    weight_decay: float = hyper(0.01, "AdamW weight decay", probe=(0.0, 10.0), ge=0)
    gradient_clip: float = hyper(1.0, "largest gradient norm", probe=(0.01, 100.0), gt=0)


class Learner(Protocol):
    """What the loop needs from a family."""

    module: nn.Module
    """Parameters with requires_grad are trained; the whole state dict is kept."""

    def draw(self, rng: np.random.Generator, size: int) -> Any:
        """`size` training windows, as a tuple of tensors with the window axis first."""
        ...

    def loss(self, batch: Any) -> Tensor:
        """Scalar: mean loss over the windows of the batch."""
        ...

    def predictor(self) -> Predictor:
        """A predictor over the live module (the loop sees to eval mode and random state)."""
        ...


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of a training."""

    step: int  # the kept step
    best: float  # its tune pinball (nan when trained without a scorer)
    final_loss: float  # training loss, mean of the last tenth


def fit(
    learner: Learner,
    config: TrainingConfig,
    resources: Resources,
    *,
    seed: int,
    report: Reporter,
    score: Scorer | None = None,
    out: Path,
    resume: Path | None = None,
    first_step: int = 0,
) -> Fitted:
    """Train `learner.module` in place for `config.max_steps` and leave the kept step in it.

    The kept step is the best by tune pinball over `evaluations` rolling-origin scorings, never
    step 0; without `score`, the last. `first_step` shifts reported steps (a second stage).
    Raises TrainingDiverged with step and learning rate; lets TrialPruned pass.
    """
    raise NotImplementedError
