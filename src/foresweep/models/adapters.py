"""What of pretrained weights is trained: LoRA adapters, layer groups, and blocks recomputed.

A family says once how its network is made up (`Layers`) and hands it to `tune` with the config:

    adapted = tune(network, config, LAYERS)     # before the learner is made
    ...                                         # fit
    network = adapted.merged()                  # before its weights are written
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from foresweep.errors import ModelError
from foresweep.models.training_config import LORA_R, Freeze, TrainingConfig

if TYPE_CHECKING:
    from peft.tuners.lora import LoraModel
    from torch import nn

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
