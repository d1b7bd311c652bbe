"""What a step is made of: windows, rate, optimiser, averages, precision, weights it trains."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import AMOUNT, CLOSE, HIGH, LOW, OPEN, VOLUME, Array, IntArray
from foresweep.data.windows import TrainWindows
from foresweep.errors import ModelError, NotEnoughData
from foresweep.models.base import Resources, TrainingJob
from foresweep.models.training.config import LORA_R, Freeze, TrainingConfig

if TYPE_CHECKING:
    import torch
    from peft.tuners.lora import LoraModel
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


# What of pretrained weights is trained: LoRA adapters, layer groups, and blocks recomputed.
#
# A family says once how its network is made up (`Layers`) and hands it to `prepare` with the job:
#
#     adapted = prepare(network, job, LAYERS, blocks)     # before the learner is made
#     ...                                                 # fit
#     network = adapted.merged()                          # before its weights are written


Group = Literal["embedding", "lower_half", "upper_half", "head"]
"""Parts of a network, from its input to its output."""

FROZEN: Mapping[Freeze, tuple[Group, ...]] = {
    "none": (),
    "embedding": ("embedding",),
    "lower_half": ("embedding", "lower_half"),
    "backbone": ("lower_half", "upper_half"),
}
"""What each value of `freeze` keeps as it is."""


@dataclass(frozen=True, slots=True)
class Layers:
    """How a network is made up."""

    adapted: tuple[str, ...]  # ends of the names of the linear layers that carry LoRA adapters
    groups: Mapping[Group, tuple[str, ...]]  # prefixes of parameter names; every one is in a group


@dataclass(slots=True, eq=False)
class Adapted:
    """A network made ready for training, and the adapters that hang in it."""

    network: Any
    lora: LoraModel | None = None

    def merged(self) -> Any:
        """The plain network, adapters added into its weights. Ends the training."""
        if self.lora is not None:
            self.lora.merge_and_unload()
            self.lora = None
        return self.network


def tune(network: nn.Module, config: TrainingConfig, layers: Layers) -> Adapted:
    """Set in place which parameters are trained, as `finetune` and `freeze` of a resolved config
    say. Adapters are drawn from torch's random state: call it inside `training.seeded`.

    Raises ModelError where `layers` does not describe the network.
    """
    if config.finetune == "lora":
        return Adapted(network, adapt(network, config, layers.adapted))
    freeze(network, layers, config.freeze)
    return Adapted(network)


def prepare(
    network: nn.Module, job: TrainingJob, layers: Layers, blocks: Iterable[nn.Module]
) -> Adapted:
    """`tune` for a job, and `recompute` of the network's blocks where its resources ask for it."""
    adapted = tune(network, job.config, layers)
    if job.resources.gradient_checkpointing:
        recompute(blocks)
    return adapted


def adapt(network: nn.Module, config: TrainingConfig, targets: Iterable[str]) -> LoraModel:
    """Hang LoRA adapters (Hu et al. 2021, arXiv 2106.09685) on the layers whose names end in one of
    `targets`, in place; all else is frozen. Raises ModelError for a target that is not there."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    targets = list(targets)
    names = [n for n, _ in network.named_modules()]
    absent = [t for t in targets if not any(n == t or n.endswith(f".{t}") for n in names)]
    if absent:
        raise ModelError(f"no layer of {type(network).__name__} is called {' or '.join(absent)}")
    wanted = LoraConfig(
        r=config.lora_r or LORA_R,
        lora_alpha=config.lora_alpha or 2 * LORA_R,
        lora_dropout=config.lora_dropout or 0.0,
        target_modules=targets,
    )
    return LoraModel(network, wanted, "default")


def freeze(network: nn.Module, layers: Layers, value: Freeze) -> None:
    """Keep the parameters of the groups that `value` stands for; train all others.

    Raises ModelError for a parameter that is in no group, and where nothing would be frozen.
    """
    frozen = 0
    for name, parameter in network.named_parameters():
        kept = _group_of(name, layers) in FROZEN[value]
        parameter.requires_grad_(not kept)
        frozen += kept
    if value != "none" and not frozen:
        raise ModelError(f"freeze={value!r} finds nothing to freeze in {type(network).__name__}")


def _group_of(name: str, layers: Layers) -> Group:
    for group, prefixes in layers.groups.items():
        if any(name == p or name.startswith(f"{p}.") for p in prefixes):
            return group
    raise ModelError(f"the parameter {name} is in none of the groups {', '.join(layers.groups)}")


def halves(prefix: str, num_blocks: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the lower and of the upper half of a list of blocks; of an odd number of them the
    upper half has one more."""
    names = tuple(f"{prefix}.{k}" for k in range(num_blocks))
    return names[: num_blocks // 2], names[num_blocks // 2 :]


def recompute(blocks: Iterable[nn.Module]) -> None:
    """Keep no activations inside these blocks, in place: less memory, one more forward pass, the
    same numbers (dropout included: its random state is kept)."""
    from torch.utils.checkpoint import checkpoint

    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


# Training windows, drawn and altered: mirrored price paths, merged bars.
#
# Both are applied to whole bars, before any representation, and to training windows alone. Every
# bar that a window is made of lies in train, its labels included, however many are merged.


Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Drawn:
    """B training windows of L bars, context first."""

    bars: Array  # [B, L, F]
    timestamps: NDArray[np.datetime64]  # [B, L]; of merged bars that of the last
    item: IntArray  # [B]
    row: IntArray  # [B] first row of the window among its item's
    merged: IntArray  # [B] rows that make a bar, 1: as they are
    flipped: Flags  # [B]


class WindowSampler:
    """Draws windows evenly from all of train, with the augmentations of a config.

    A learner makes one with the lengths of its window and calls `draw` with the loop's generator.
    Without augmentation it draws one number a window and gives the bars as they are.
    """

    def __init__(
        self, train: TrainWindows, context: int, labels: int, config: TrainingConfig
    ) -> None:
        """Raises NotEnoughData when no item has a window, `config.time_scale` times as long."""
        self._train, self._length = train, context + labels
        self._scale, self._flips = config.time_scale, config.sign_flip
        try:
            longest = train.starts(self._scale * context, self._scale * labels)
        except NotEnoughData as error:
            if self._scale == 1:
                raise
            raise NotEnoughData(f"time_scale={self._scale}: {error}") from error
        shorter = (train.starts(k * context, k * labels) for k in range(1, self._scale))
        self._starts = [*shorter, longest]

    def draw(self, rng: np.random.Generator, size: int) -> Drawn:
        """`size` windows."""
        if self._scale == 1:
            merged = np.ones(size, dtype=np.int64)
            chosen = rng.integers(len(self._starts[0][0]), size=size)
        else:
            merged = rng.integers(1, self._scale + 1, size=size)
            chosen = rng.integers(np.array([len(item) for item, _ in self._starts])[merged - 1])
        flipped = rng.random(size) < 0.5 if self._flips else np.zeros(size, dtype=bool)
        item, row = (self._pick(part, merged, chosen) for part in (0, 1))
        bars, times = self._cut(item, row, merged)
        if self._flips:
            bars[flipped] = mirror(bars[flipped])
        return Drawn(bars, times, item, row, merged, flipped)

    def _pick(self, part: int, merged: IntArray, chosen: IntArray) -> IntArray:
        out = np.empty_like(chosen)
        for k in np.unique(merged):
            out[merged == k] = self._starts[k - 1][part][chosen[merged == k]]
        return out

    def _cut(
        self, item: IntArray, row: IntArray, merged: IntArray
    ) -> tuple[Array, NDArray[np.datetime64]]:
        if self._scale == 1:
            return self._train.cut(item, row, self._length)
        bars = np.empty((len(item), self._length, len(self._train.panel.columns)))
        times = np.empty((len(item), self._length), dtype="datetime64[ns]")
        for k in np.unique(merged):
            same = merged == k
            rows, at = self._train.cut(item[same], row[same], int(k) * self._length)
            bars[same], times[same] = merge(rows, int(k)), at[:, k - 1 :: k]
        return bars, times


def mirror(bars: Array) -> Array:
    """Bars [B, L, F] whose log prices are mirrored about the window's first close: what rose by a
    factor falls by it, the high becomes the low. Volume stays."""
    out = bars.copy()
    about = bars[:, :1, CLOSE] ** 2
    for column, source in ((OPEN, OPEN), (HIGH, LOW), (LOW, HIGH), (CLOSE, CLOSE)):
        out[:, :, column] = about / bars[:, :, source]
    return out


def merge(bars: Array, k: int) -> Array:
    """Bars [B, k L, F] as [B, L, F], each of k that follow one another: the first open, the
    highest high, the lowest low, the last close, the volumes' (and amounts') sum."""
    parts = bars.reshape(len(bars), -1, k, bars.shape[-1])
    out = np.empty((*parts.shape[:2], bars.shape[-1]))
    out[..., OPEN] = parts[:, :, 0, OPEN]
    out[..., HIGH] = parts[..., HIGH].max(axis=2)
    out[..., LOW] = parts[..., LOW].min(axis=2)
    out[..., CLOSE] = parts[:, :, -1, CLOSE]
    out[..., VOLUME] = parts[..., VOLUME].sum(axis=2)
    out[..., AMOUNT:] = parts[..., AMOUNT:].sum(axis=2)
    return out
