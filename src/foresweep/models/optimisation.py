"""What a step of the training loop is made of: rate, optimiser, averaged weights, precision."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from foresweep.models.base import Resources
from foresweep.models.training_config import TrainingConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

BETA1 = 0.9
WSD_DECAY = 0.2
NORM_OR_BIAS = re.compile(r"(^|[._])(bias|layernorm|rmsnorm|norm)\d*(\.|$)")

Decays = Callable[[str], bool]
"""Is the parameter of this name subject to weight decay?"""


def every_parameter(name: str) -> bool:
    """Weight decay on all: what the training scripts of Toto and Kronos do."""
    return True


def no_norm_or_bias(name: str) -> bool:
    """Weight decay on neither biases nor normalisation layers: what transformers' Trainer does,
    and with it `Chronos2Pipeline.fit`."""
    return NORM_OR_BIAS.search(name.lower()) is None


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Learning rate of the optimiser step after `step` finished ones.

    The factors are those of transformers' `get_scheduler` (linear warm-up; wsd with a linear decay
    over the last fifth), written out: a pure function of the step needs no state to resume.
    """
    total = config.max_steps or 1
    warmup = int(config.warmup_fraction * total)
    if step < warmup:
        return config.lr * step / warmup
    done = (step - warmup) / max(1, total - warmup)
    if config.schedule == "linear":
        return config.lr * (1 - done)
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * done))
    if config.schedule == "wsd":
        decay = min(max(1, int(WSD_DECAY * total)), total - warmup)
        return config.lr * min(1.0, (total - step) / decay)
    return config.lr


def adamw(
    module: nn.Module, config: TrainingConfig, resources: Resources, decays: Decays
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) over the parameters that are trained, fused where torch
    has such a kernel."""
    import torch

    named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for n, p in named if decays(n)], "weight_decay": config.weight_decay},
        {"params": [p for n, p in named if not decays(n)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]],
        lr=config.lr,
        betas=(BETA1, config.beta2),
        fused=resources.device.split(":")[0] in ("cpu", "cuda"),
    )


class Average:
    """An exponential moving average of a module's trained parameters (Polyak and Juditsky 1992).

    Its decay after n steps is min(decay, (1 + n) / (10 + n)), as in TensorFlow's, so that a short
    training is not held back by its random start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._live = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.values = {n: p.detach().clone() for n, p in self._live.items()}

    def update(self, step: int) -> None:
        """Take in the weights after `step` optimiser steps."""
        import torch

        decay = min(self._decay, (1 + step) / (10 + step))
        live = [p.detach() for p in self._live.values()]
        torch._foreach_lerp_(list(self.values.values()), live, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the module holds the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Go on from stored averages."""
        for name, own in self.values.items():
            own.copy_(values[name])

    def _swap(self) -> None:
        for name, parameter in self._live.items():
            self.values[name], parameter.data = parameter.data, self.values[name]


def half_precision(config: TrainingConfig, device: str) -> AbstractContextManager[Any]:
    """Around the forward pass of training: matrix products in bfloat16 where the config says so.

    A learner keeps what needs float32, such as a distribution's log likelihood, inside
    `float32(device)`, and casts what goes into it.
    """
    if config.precision != "bf16":
        return nullcontext()
    import torch

    return torch.autocast(device.partition(":")[0], dtype=torch.bfloat16)


def float32(device: str | torch.device) -> AbstractContextManager[Any]:
    """Inside, no product is taken in bfloat16: for the parts of a loss that would lose by it. Cast
    the tensors that come from outside with `.float()`."""
    import torch

    return torch.autocast(torch.device(device).type, enabled=False)
