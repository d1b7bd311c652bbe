"""The Chronos-2 network: built, read, adapted, asked.

With `chronos2_encoder` the one place that touches `chronos`.

Rows: group attention mixes the rows of one group along the batch axis, so the V channels of a
window become V rows with one group id, and windows never see each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from chronos.chronos2 import Chronos2CoreConfig
from torch import Tensor, nn

from foresweep.errors import ModelError
from foresweep.models.adapters import Group, Layers, halves
from foresweep.models.chronos2_encoder import Chronos2Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVELS = (0.01, *(k / 100 for k in range(5, 100, 5)), 0.99)
"""The 21 levels of amazon/chronos-2, kept from scratch."""
ADAPTED = (
    *(f"self_attention.{p}" for p in ("q", "v", "k", "o")),
    "output_patch_embedding.output_layer",
)
"""Layers that carry LoRA adapters: the choice of `Chronos2Pipeline.fit`."""


def layers(num_blocks: int) -> Layers:
    """How the network is made up: with `freeze="backbone"` the token, input and output embeddings
    are trained."""
    lower, upper = halves("encoder.block", num_blocks)
    groups: dict[Group, tuple[str, ...]] = {
        "embedding": ("shared", "input_patch_embedding"),
        "lower_half": lower,
        "upper_half": (*upper, "encoder.final_layer_norm"),
        "head": ("output_patch_embedding",),
    }
    return Layers(ADAPTED, groups)


def core_config(
    *,
    patch_size: int,
    d_model: int,
    d_ff: int,
    num_layers: int,
    num_heads: int,
    dropout: float,
    context_length: int,
    label_length: int,
) -> dict[str, Any]:
    """config.json of a network from scratch; what is not named is as in amazon/chronos-2."""
    config = Chronos2CoreConfig(
        d_model=d_model,
        d_kv=d_model // num_heads,
        d_ff=d_ff,
        num_layers=num_layers,
        num_heads=num_heads,
        dropout_rate=dropout,
        chronos_pipeline_class="Chronos2Pipeline",
        architectures=["Chronos2Model"],
        reg_token_id=1,
        chronos_config={
            "context_length": context_length,
            "input_patch_size": patch_size,
            "input_patch_stride": patch_size,
            "output_patch_size": patch_size,
            "max_output_patches": -(-label_length // patch_size),
            "quantiles": list(LEVELS),
            "time_encoding_scale": context_length,
            "use_arcsinh": True,
            "use_reg_token": True,
        },
    )
    core: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return core


def widened(
    core: Mapping[str, Any], *, dropout: float, context_length: int, label_length: int
) -> dict[str, Any]:
    """config.json of pretrained weights, made ready for longer contexts and labels: the two
    things that `Chronos2Pipeline.fit` widens, too; and the dropout of this training."""
    inner = dict(core["chronos_config"])
    inner.setdefault("time_encoding_scale", inner["context_length"])
    patches = -(-label_length // inner["output_patch_size"])
    inner["max_output_patches"] = max(inner.get("max_output_patches", 1), patches)
    inner["context_length"] = max(inner["context_length"], context_length)
    return {**core, "dropout_rate": dropout, "chronos_config": inner}


def build(core: Mapping[str, Any]) -> Chronos2Model:
    """A network in float32 with weights drawn from torch's random state (`training.seeded`)."""
    return Chronos2Model(Chronos2CoreConfig.from_dict({**core, "dtype": "float32"}))


def read_weights(file: Path) -> dict[str, NDArray[Any]]:
    """Weights of a safetensors file, bfloat16 too, as float32. Raises ModelError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {k: v.float().numpy() for k, v in load_file(file).items()}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be read as safetensors: {error}") from error


def fill(network: Chronos2Model, weights: Mapping[str, NDArray[Any]], *, where: str) -> None:
    """Put weights in, every one and no other. Raises ModelError naming what does not fit.

    RoPE frequencies and quantile levels follow from the config; where a file holds them, too,
    they are left out.
    """
    follow = {name for name, _ in network.named_buffers()}
    state = {k: torch.from_numpy(v) for k, v in weights.items() if k not in follow}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        what = " ".join(str(error).split())
        raise ModelError(f"{where}: weights do not fit the network: {what}") from error


def weights_of(network: Chronos2Model) -> dict[str, NDArray[Any]]:
    """Every weight, as plain float32 arrays."""
    return {k: v.detach().float().cpu().numpy() for k, v in network.state_dict().items()}


def loss(network: nn.Module, context: Tensor, labels: Tensor) -> Tensor:
    """The authors' loss: pinball over the network's levels in each row's arcsinh-normalised
    space; twice the mean over the emitted bars, summed over levels, averaged over rows.

    context [B, V, C], labels [B, V, L], NaN where a bar is missing or a row is a covariate.
    """
    rows, group = _rows(context)
    found: Tensor = network(
        context=rows,
        group_ids=group,
        future_target=labels.flatten(0, 1),
        num_output_patches=_num_patches(network, labels.shape[-1]),
    ).loss
    return found


def quantiles(network: nn.Module, context: Tensor, length: int) -> Tensor:
    """[N, V, length, 21] quantiles of the bars after context [N, V, C], NaN where it has none.
    Rising: where the network lets them cross they are sorted."""
    size = max(1, _rows_at_once(context) // context.shape[1])
    return torch.cat([_ask(network, part, length) for part in torch.split(context, size)])


def _ask(network: nn.Module, context: Tensor, length: int) -> Tensor:
    rows, group = _rows(context)
    asked = network(context=rows, group_ids=group, num_output_patches=_num_patches(network, length))
    kept: Tensor = asked.quantile_preds[..., :length].mT  # [B * V, H, 21]
    return kept.sort(dim=-1).values.reshape(*context.shape[:2], *kept.shape[1:])


def _rows(context: Tensor) -> tuple[Tensor, Tensor]:
    """[B, V, C] as rows [B * V, C], and the window of each row."""
    group = torch.arange(len(context), device=context.device)
    return context.flatten(0, 1), group.repeat_interleave(context.shape[1])


def _rows_at_once(context: Tensor) -> int:
    """Short calls stay in the caches of a CPU, and a GPU wants longer ones."""
    return 64 if context.device.type == "cpu" else 1024


def _num_patches(network: nn.Module, length: int) -> int:
    size: int = network.chronos_config.output_patch_size  # type: ignore[union-attr,assignment]
    return -(-length // size)
