"""Toto 1.0's network: built, loaded, asked. The architecture and its weights are the authors'.

Cohen et al. 2025, "This Time is Different: An Observability Perspective on Time Series Foundation
Models" (arXiv 2505.14766); code from the package timecopilot-toto (import name `toto`).
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from foresweep.errors import ModelError
from foresweep.models.checkpoint import find_weights

PUBLISHED = "Datadog/Toto-Open-Base-1.0"
FILES = ("config.json", "model.safetensors")
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


def read_options(pretrained: str) -> tuple[Path, dict[str, Any]]:
    """Folder of pretrained weights and the constructor's arguments in its config.json.

    Raises WeightsNotFound, and ModelError for a folder that holds another model.
    """
    folder = find_weights(pretrained, published=PUBLISHED, files=FILES)
    try:
        options = json.loads((folder / "config.json").read_text("utf-8"))
    except ValueError as error:
        raise ModelError(f"{folder / 'config.json'} is not JSON: {error}") from error
    wanted = {"patch_size", "stride", "embed_dim", "output_distribution_kwargs"}
    if not isinstance(options, dict) or not wanted <= set(options):
        raise ModelError(
            f"{folder / 'config.json'} is not a config of Toto 1.0 (it lacks patch_size and others)"
        )
    if options["stride"] != options["patch_size"] or options.get("output_distribution_classes") != [
        MIXTURE
    ]:
        raise ModelError(
            f"{folder}: only Toto 1.0 with a Student-t mixture and stride = patch_size"
        )
    return folder, {**options, "use_memory_efficient_attention": False}


def architecture_of(options: Mapping[str, Any]) -> dict[str, int]:
    """Our architecture fields of the constructor's arguments."""
    flat = {**options, **options["output_distribution_kwargs"]}
    return {ours: flat[theirs] for ours, theirs in ARCHITECTURE.items()}


def build(options: Mapping[str, Any], *, checkpointing: bool = False) -> Any:
    """The network, randomly initialised: the authors' TotoBackbone."""
    network = package().Toto(**options).model
    return _with_checkpointing(network) if checkpointing else network


def load_pretrained(folder: Path, dropout: float, *, checkpointing: bool = False) -> Any:
    """The network with the weights of a folder in the authors' format. Raises ModelError.

    `Toto.from_pretrained` does not work with huggingface_hub >= 1, and leaves a parameter that
    the file lacks at its random start; here that is refused.
    """
    from safetensors import safe_open

    toto = package().Toto
    with safe_open(folder / "model.safetensors", framework="pt") as stored:
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
    return _with_checkpointing(model.model) if checkpointing else model.model


def _with_checkpointing(network: Any) -> Any:
    """Recompute each layer in the backward pass: less memory, the same numbers."""
    from torch.utils.checkpoint import checkpoint

    for layer in network.transformer.layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    return network


def masks(x: Tensor) -> tuple[Tensor, Tensor]:
    """Padding mask (all real) and id mask (all of one group) of a series [N, V, T]."""
    return torch.ones_like(x, dtype=torch.bool), torch.zeros_like(x, dtype=torch.int)


def sample_paths(network: Any, x: Tensor, real: Tensor, draws: Tensor) -> Tensor:
    """Sampled futures [N, S, V, T] of contexts [N, V, C].

    C and T are multiples of the patch size; `real` [N, V, C] is False where x is padding; `draws`
    [N, S, V, T, 3] are uniforms. Each context is encoded once and its keys and values are copied
    to the samples; the authors' forecaster encodes it once a sample. Patch by patch, the mixture
    of the newest patch is put back into the series' own units by its causal loc and scale.
    """
    patch = network.patch_embed.stride
    size, samples, _, total, _ = draws.shape
    cache = _cache(network, x, size, total)
    flat, loc, scale = network.backbone(x, real, masks(x)[1], cache, x.shape[-1])
    first = _sample(network, flat, loc, scale, draws[..., :patch, :])
    if total == patch:
        return first
    # samples vary slowest, as `Tensor.repeat` lays them out
    chains = torch.cat([x.repeat(samples, 1, 1), _stack(first)], dim=-1)
    known = real.repeat(samples, 1, 1)
    wide = _cache(network, x, size * samples, total)
    for name in ("_keys", "_values"):
        setattr(wide, name, getattr(cache, name).repeat(1, samples, 1, 1, 1))
    wide._current_idx = cache._current_idx.clone()
    for start in range(patch, total, patch):
        full, ids = masks(chains)
        full[..., : x.shape[-1]] = known
        flat, loc, scale = network.backbone(chains, full, ids, wide, x.shape[-1])
        own = _stack(draws[..., start : start + patch, :]).unsqueeze(1)
        following = _sample(network, flat, loc, scale, own).squeeze(1)
        chains = torch.cat([chains, following], dim=-1)
    future: Tensor = chains[..., x.shape[-1] :]
    return future.reshape(samples, size, *future.shape[1:]).transpose(0, 1)


def _stack(values: Tensor) -> Tensor:
    """[N, S, ...] -> [S * N, ...]"""
    return values.transpose(0, 1).flatten(0, 1)


def _cache(network: Any, x: Tensor, size: int, total: int) -> Any:
    return network.allocate_kv_cache(
        batch_size=size,
        num_variates=x.shape[1],
        max_time_steps=x.shape[-1] + total,
        device=x.device,
        dtype=x.dtype,
    )


def sample_points(
    network: Any, x: Tensor, real: Tensor, draws: Tensor, channels: Tensor, steps: Tensor
) -> Tensor:
    """[N, S, L] draws of chosen bars of the patch after the contexts alone: channel `channels` [L],
    bar `steps` [L] of the patch; `draws` [N, S, L, 3]. What `sample_paths` would give there."""
    at = steps - network.patch_embed.stride
    flat, loc, scale = network.backbone(x, real, masks(x)[1], None, x.shape[-1])
    mixture = network.output_distribution(flat[:, channels, at].float())
    drawn = _draw(mixture, draws)
    return _without_extremes(drawn * scale[:, None, channels, at] + loc[:, None, channels, at])


def _sample(network: Any, flat: Tensor, loc: Tensor, scale: Tensor, draws: Tensor) -> Tensor:
    """[N, S, V, P] draws of the newest patch's mixture, in the series' own units."""
    newest = slice(-network.patch_embed.stride, None)
    drawn = _draw(network.output_distribution(flat[:, :, newest].float()), draws)
    return _without_extremes(drawn * scale[:, None, :, newest] + loc[:, None, :, newest])


def _draw(mixture: Any, draws: Tensor) -> Tensor:
    """[N, S, ...] draws of mixtures [N, ...], in normalised units, of uniforms [N, S, ..., 3]: the
    component by its inverse distribution function, then a Student-t of it."""
    parts = mixture.component_distribution
    shares = mixture.mixture_distribution.probs.cumsum(-1).unsqueeze(1)
    chosen = (draws[..., 0, None] >= shares).sum(-1).clamp(max=shares.shape[-1] - 1)

    def of_chosen(values: Tensor) -> Tensor:
        every = values.unsqueeze(1).expand(*chosen.shape, values.shape[-1])
        return every.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)

    standard = student_t(of_chosen(parts.df), draws[..., 1], draws[..., 2])
    return of_chosen(parts.loc) + of_chosen(parts.scale) * standard


def student_t(df: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Student-t draws with `df` degrees of freedom of two uniforms in [0, 1).

    Bailey 1994, "Polar generation of random variates with the t-distribution", Mathematics of
    Computation 62, in its trigonometric form: sqrt(df (U^(-2/df) - 1)) cos(2 pi V).
    """
    radius = df * torch.expm1(-2.0 / df * torch.log1p(-first))
    return radius.clamp_min(0).sqrt() * torch.cos(2 * math.pi * second)


def _without_extremes(values: Tensor) -> Tensor:
    """Draws that are no numbers, or beyond what float16 holds, become 0: early in training
    the tails are wild (the authors' forecaster does so at the bounds of the dtype)."""
    wild = ~torch.isfinite(values) | (values.abs() > torch.finfo(torch.float16).max)
    return torch.where(wild, torch.zeros_like(values), values)
