"""Toto 1.0's network: built, described, asked. The architecture and its weights are the authors'.

Cohen et al. 2025, "This Time is Different: An Observability Perspective on Time Series Foundation
Models" (arXiv 2505.14766); code from the package timecopilot-toto (import name `toto`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from foresweep.models.adapters import Layers, halves

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
    """The `toto` package's model module; what it and gluonts say about optional packages (xFormers,
    orjson) is kept quiet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)
        warnings.filterwarnings("ignore", message="Using `json`-module", category=UserWarning)
        import toto.model.toto as module
    found: ModuleType = module
    return found


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
    return torch.ones_like(x, dtype=torch.bool), torch.zeros_like(x, dtype=torch.int)


def hidden_states(
    network: Any, x: Tensor, real: Tensor, cache: Any = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden vectors [N, V, T / P, D] of series [N, V, T], and their causal loc and scale [N, V,
    T]: the authors' `TotoBackbone.backbone` without its last step, which `toto_mixture` folds.

    T is a multiple of the patch size P; `real` is False where x is padding. Keys and values go
    into `cache`, where one is given.
    """
    scaled, loc, scale = network.scaler(x, weights=torch.ones_like(x), padding_mask=real)
    embedded, ids = network.patch_embed(scaled, masks(x)[1])
    return network.transformer(embedded, ids, cache), loc, scale
