"""Toto 1.0's network: its weights, its mixture, its losses.

Cohen et al. 2025, "This Time is Different: An Observability Perspective on Time Series Foundation
Models" (arXiv 2505.14766); code from the package timecopilot-toto (import name `toto`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from foresweep.errors import ModelError
from foresweep.models.base import DEFAULT_LEVELS, Checkpoint
from foresweep.models.checkpoint import (
    CARD,
    CONFIG,
    WEIGHTS,
    read_checkpoint,
    read_weights,
)
from foresweep.models.hub import PUBLISHED, find_weights
from foresweep.models.training.optimisation import Layers, halves

if TYPE_CHECKING:
    from torch import Tensor

MIXTURE = "<class 'model.distribution.MixtureOfStudentTsOutput'>"
ARCHITECTURE = {
    "patch_size": "patch_size",
    "embed_dim": "embed_dim",
    "num_layers": "num_layers",
    "num_heads": "num_heads",
    "mlp_hidden_dim": "mlp_hidden_dim",
    "num_components": "k_components",
}
"""Our name of an architecture field -> its name in the authors' config.json."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One size of the network."""

    patch_size: int
    embed_dim: int
    num_layers: int
    num_heads: int
    mlp_hidden_dim: int
    num_components: int


SIZES: Mapping[str, Shape] = {
    "tiny": Shape(8, 64, 3, 4, 128, 4),  # 0.16 M parameters
    "small": Shape(16, 256, 6, 8, 1024, 8),  # 7 M
    "base": Shape(64, 768, 12, 12, 3072, 24),  # 151 M: the published one
}


def package() -> ModuleType:
    """The `toto` package's model module."""
    from foresweep.models.toto.authors import network

    loaded: ModuleType = network
    return loaded


def network_options(architecture: Mapping[str, int], dropout: float) -> dict[str, Any]:
    """Keyword arguments of the authors' constructor, JSON-able, for a network from scratch: one
    space-wise layer, the last, as in the published one."""
    plain = {k: v for k, v in architecture.items() if k != "num_components"}
    return {
        **plain,
        "stride": architecture["patch_size"],
        "dropout": dropout,
        "spacewise_every_n_layers": architecture["num_layers"],
        "spacewise_first": False,
        "scaler_cls": "<class 'model.scaler.CausalPatchStdMeanScaler'>",
        "output_distribution_classes": [MIXTURE],
        "output_distribution_kwargs": {"k_components": architecture["num_components"]},
        "use_memory_efficient_attention": False,
        "stabilize_with_global": True,
        "scale_factor_exponent": 10.0,
    }


def architecture_of(options: Mapping[str, Any]) -> dict[str, int]:
    """Our architecture fields of the constructor's arguments."""
    flat = {**options, **options["output_distribution_kwargs"]}
    return {ours: flat[theirs] for ours, theirs in ARCHITECTURE.items()}


def build(options: Mapping[str, Any]) -> Any:
    """The network, randomly initialised: the authors' TotoBackbone."""
    return package().Toto(**options).model


def layers_of(network: Any) -> Layers:
    """How the network is made up: adapters hang in attention and feed-forward layers."""
    lower, upper = halves("transformer.layers", len(network.transformer.layers))
    return Layers(
        adapted=("attention.wQKV", "attention.wO", "mlp.0", "mlp.2"),
        groups={
            "embedding": ("patch_embed",),
            "lower_half": lower,
            "upper_half": upper,
            "head": ("unembed", "output_distribution"),
        },
    )


def masks(x: Tensor) -> tuple[Tensor, Tensor]:
    """Padding mask (all real) and id mask (all of one group) of a series [N, V, T]."""
    import torch

    return torch.ones_like(x, dtype=torch.bool), torch.zeros_like(x, dtype=torch.int)


def hidden_states(
    network: Any, x: Tensor, real: Tensor, cache: Any = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden vectors [N, V, T / P, D] of series [N, V, T], and their causal loc and scale [N, V,
    T]: the authors' `TotoBackbone.backbone` without its last step, which `toto_mixture` folds.

    T is a multiple of the patch size P; `real` is False where x is padding. Keys and values go
    into `cache`, where one is given.
    """
    import torch

    scaled, loc, scale = network.scaler(x, weights=torch.ones_like(x), padding_mask=real)
    embedded, ids = network.patch_embed(scaled, masks(x)[1])
    return network.transformer(embedded, ids, cache), loc, scale


# Where Toto's pretrained weights are, what network they belong to, and that network.


def weights_folder(pretrained: str) -> Path:
    """The folder of pretrained weights: `published`, a Hugging Face id, a folder in the authors'
    format (config.json and model.safetensors), or a checkpoint of Toto. Raises WeightsNotFound."""
    return find_weights(pretrained, published=PUBLISHED["toto"], files=(CONFIG, WEIGHTS))


def read_options(folder: Path) -> dict[str, Any]:
    """The arguments of the authors' constructor for the weights in a folder.

    Raises ModelError for a folder that holds another model, CheckpointError for a damaged
    checkpoint.
    """
    file = folder / CONFIG
    if (folder / CARD).is_file():
        options = options_of(read_checkpoint(folder))
    else:
        try:
            options = json.loads(file.read_text("utf-8"))
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{file} is not JSON: {error}") from error
    wanted = {"patch_size", "stride", "embed_dim", "output_distribution_kwargs"}
    if not isinstance(options, dict) or not wanted <= set(options):
        raise ModelError(f"{file} is not a config of Toto 1.0 (it lacks patch_size and others)")
    if options["stride"] != options["patch_size"] or options.get("output_distribution_classes") != [
        MIXTURE
    ]:
        raise ModelError(
            f"{folder}: only Toto 1.0 with a Student-t mixture and stride = patch_size"
        )
    return {**options, "use_memory_efficient_attention": False}


def options_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """The same of one of our checkpoints. Raises ModelError for another model's."""
    options = checkpoint.card.get("network")
    if checkpoint.model != "toto" or not isinstance(options, dict):
        raise ModelError(
            f"{checkpoint.path} is a checkpoint of {checkpoint.model}, whose weights fit no Toto "
            f"network; give one of toto"
        )
    return options


def load_pretrained(folder: Path, dropout: float) -> Any:
    """The network with the weights of a folder, in the authors' format or ours. Raises ModelError.

    `Toto.from_pretrained` does not work with huggingface_hub >= 1, and leaves a parameter that
    the file lacks at its random start; here that is refused.
    """
    if (folder / CARD).is_file():
        checkpoint = read_checkpoint(folder)
        network = build({**options_of(checkpoint), "dropout": dropout})
        fill(network, checkpoint)
        return network
    from safetensors import safe_open

    toto = package().Toto
    with safe_open(folder / WEIGHTS, framework="pt") as stored:
        names = set(toto._map_state_dict_keys(dict.fromkeys(stored.keys(), 0), False))
    try:
        model = toto.load_from_checkpoint(
            str(folder), strict=False, dropout=dropout, use_memory_efficient_attention=False
        )
    except RuntimeError as error:
        raise ModelError(f"{folder}: weights and config.json do not fit: {error}") from error
    lacking = sorted(set(dict(model.named_parameters())) - names)
    if lacking:
        raise ModelError(
            f"{folder}: model.safetensors lacks {len(lacking)} parameters: {lacking[0]}"
        )
    return model.model


def fill(network: Any, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's weights into a network. Raises ModelError where they do not fit."""
    import torch

    weights = {k: torch.from_numpy(v) for k, v in read_weights(checkpoint).items()}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(f"{checkpoint.path}: weights do not fit: {error}") from error


# What Toto says of each bar: a mixture of Student-t distributions, in normalised units.
#
# Toto's last two steps are linear: `unembed` makes a vector for each bar of a patch, four heads
# turn each vector into the parameters of the mixture. Both are taken here as one product with
# their folded weights: the same numbers but for rounding, without the vectors, which would be the
# largest things in memory (bars x width), and with a fraction of the multiplications.


HEADS = ("df", "loc_proj", "scale_proj", "mixture_weights")


@dataclass(frozen=True, slots=True)
class Mixture:
    """Mixtures of K Student-t distributions, one a cell."""

    df: Tensor  # [..., K]
    loc: Tensor  # [..., K]
    scale: Tensor  # [..., K]
    logits: Tensor  # [..., K] of the shares

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """In the order of the fields."""
        return self.df, self.loc, self.scale, self.logits

    @property
    def shares(self) -> Tensor:
        """[..., K] adding up to one."""
        return self.logits.softmax(-1)

    @property
    def mean(self) -> Tensor:
        """[...]"""
        return (self.shares * self.loc).sum(-1)

    def at(self, channels: Tensor, bars: Tensor) -> Mixture:
        """[N, L, K] of mixtures [N, V, T, K]: channel `channels` [L], bar `bars` [L]."""
        return Mixture(*(p[:, channels, bars] for p in self.parts))

    def unsqueeze(self, dim: int) -> Mixture:
        """With an axis of length one more, counted from the front."""
        return Mixture(*(p.unsqueeze(dim) for p in self.parts))

    def log_prob(self, values: Tensor) -> Tensor:
        """[...] log density at values [...]."""
        import torch

        half = 0.5 * (self.df + 1)
        away = (values[..., None] - self.loc) / self.scale
        own = torch.lgamma(half) - torch.lgamma(0.5 * self.df)
        own = own - 0.5 * torch.log(math.pi * self.df) - torch.log(self.scale)
        own = own - half * torch.log1p(away * away / self.df)
        return torch.logsumexp(own + self.logits.log_softmax(-1), -1)


@dataclass(frozen=True, slots=True)
class Folded:
    """`unembed` and the heads in one."""

    weight: Tensor  # [P * 4 K, D]
    bias: Tensor  # [P * 4 K]
    patch: int

    def mixture(self, hidden: Tensor) -> Mixture:
        """Mixtures [..., T * P] of patches' hidden vectors [..., T, D]."""
        import torch
        from torch.nn import functional

        raw = functional.linear(hidden, self.weight, self.bias)
        num_bars = hidden.shape[-2] * self.patch
        raw = raw.reshape(*hidden.shape[:-2], num_bars, -1)
        df, loc, scale, logits = raw.chunk(4, dim=-1)
        least = torch.finfo(raw.dtype).eps
        df = 2.0 + functional.softplus(df).clamp_min(least)
        return Mixture(df, loc, functional.softplus(scale).clamp_min(least), logits)


def fold(network: Any) -> Folded:
    """The folded last steps of a network, gradients flowing to what they are folded of."""
    import torch

    heads = [getattr(network.output_distribution, name) for name in HEADS]
    weight, bias = (torch.cat([getattr(h, part) for h in heads]) for part in ("weight", "bias"))
    width = network.embed_dim
    unembed = network.unembed
    folded = weight @ unembed.weight.view(-1, width, width)
    constant = torch.addmm(bias, unembed.bias.view(-1, width), weight.t())
    return Folded(folded.flatten(0, 1), constant.flatten(), network.patch_embed.stride)


# Losses of Toto: the authors' own, and the two that sweeps of it ask for.
#
# All take the predicted mixture and the labels in the model's normalised units and give one
# number a label. Each keeps a share of the negative log likelihood, without which the mixture's
# spread, and so every quantile, would not be learnt.


LossType: TypeAlias = Literal["combined", "huber", "quantile"]
Loss: TypeAlias = "Callable[[Mixture, Tensor], Tensor]"

ROBUST_SCALE = 0.1


def make_loss(loss_type: LossType, nll_weight: float, huber_delta: float | None) -> Loss:
    """The loss of (mixture, labels): nll_weight * NLL + (1 - nll_weight) * a second part.

    combined   robust loss of the mean: the authors' `CombinedLoss` (Cohen et al. 2025; Barron 2019
               with alpha 0, scale .1)
    huber      Huber's loss of the mean, divided by its delta so that its slope far out is 1
               whatever the delta
    quantile   twice the mean pinball loss of nine quantiles of a normal distribution with the
               mixture's mean and the variance of its locations and scales (a mixture's own
               quantiles have no closed form; the t components' tails are left out, since their
               variance is unbounded as df nears 2)
    """
    if loss_type == "combined":
        second: Loss = _robust
    else:
        second = _pinball if loss_type == "quantile" else _huber(huber_delta or 1.0)

    def loss(mixture: Mixture, labels: Tensor) -> Tensor:
        return (1 - nll_weight) * second(mixture, labels) - nll_weight * mixture.log_prob(labels)

    return loss


def _robust(mixture: Mixture, labels: Tensor) -> Tensor:
    import torch

    return torch.log1p(0.5 * ((mixture.mean - labels) / ROBUST_SCALE) ** 2)


def _huber(delta: float) -> Loss:
    def huber(mixture: Mixture, labels: Tensor) -> Tensor:
        import torch

        error: Tensor = torch.nn.functional.huber_loss(
            mixture.mean, labels, reduction="none", delta=delta
        )
        return error / delta

    return huber


def _pinball(mixture: Mixture, labels: Tensor) -> Tensor:
    import torch

    levels = torch.tensor(DEFAULT_LEVELS, device=labels.device, dtype=labels.dtype)
    shares, mean = mixture.shares, mixture.mean
    variance = (shares * (mixture.scale**2 + (mixture.loc - mean[..., None]) ** 2)).sum(-1)
    away = torch.special.ndtri(levels) * variance.sqrt()[..., None]
    error = labels[..., None] - (mean[..., None] + away)
    loss: Tensor = torch.maximum(levels * error, (levels - 1) * error).mean(-1)
    return 2 * loss
