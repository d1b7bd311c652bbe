"""The Chronos-2 network: built, read, adapted, asked; its encoder with less to compute.

With `chronos2_encoder` the one place that touches `chronos`.

Rows: group attention mixes the rows of one group along the batch axis, so the V channels of a
window become V rows with one group id, and windows never see each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from chronos.chronos2 import Chronos2CoreConfig
from chronos.chronos2 import Chronos2Model as TheirModel
from chronos.chronos2.layers import MHA
from chronos.chronos2.layers import Chronos2RotaryEmbedding as Rope
from chronos.chronos2.model import (
    Chronos2Encoder,
    Chronos2EncoderBlock,
    Chronos2EncoderOutput,
    Chronos2Output,
)
from torch import Tensor, nn
from torch.nn import functional as F

from foresweep.errors import ModelError
from foresweep.models.training.optimisation import Group, Layers, halves

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The authors' Chronos-2 network with their weights and their results, and less to compute.
#
# Three things are left out, none of which can change a forecast:
#
# - Group attention scores every row of a batch against every other and masks all but its own
#   group. Where groups are of equal size and contiguous, as ours are, rows attend inside their
#   group; a row that is alone attends to itself, which is its value.
# - Of the last block only the patches that are forecast are read, so only those are computed.
# - Masks are left out where no patch is missing.
#
# Anything else (other groups, attention weights asked for) takes the authors' own way. Dropout in
# training is drawn in another order than theirs, from the same law.


MASKED = torch.finfo(torch.bfloat16).min
"""Added to the scores of what is missing: finite in every precision, so that a patch that all rows
miss has even shares, which nobody reads, and no NaN."""


class Chronos2Model(TheirModel):  # type: ignore[misc]
    """The authors' network, by the same name, so that it is saved as theirs."""

    def __init__(self, config: Chronos2CoreConfig) -> None:
        super().__init__(config)
        self.encoder: Encoder = Encoder(self.encoder)

    def forward(self, *args: Any, num_output_patches: int = 1, **kwargs: Any) -> Chronos2Output:
        """As theirs. Its output reads the last `num_output_patches` patches of the encoder."""
        with self.encoder.reading(num_output_patches):
            return super().forward(*args, num_output_patches=num_output_patches, **kwargs)


@dataclass(frozen=True, slots=True)
class Plan:
    """What all blocks of one pass share. R rows, T patches, a head of width w."""

    size: int  # rows of a group
    time_mask: Tensor | None  # [R, 1, 1, T], added to scores
    group_mask: Tensor | None  # [R / size, T, 1, 1, size], added to scores
    cos: Tensor  # [1, T, w]
    sin: Tensor


class Encoder(Chronos2Encoder):  # type: ignore[misc]
    """The authors' encoder, made of the same layers."""

    def __init__(self, theirs: Chronos2Encoder) -> None:
        nn.Module.__init__(self)
        self.block = nn.ModuleList(Block(block) for block in theirs.block)
        self.final_layer_norm, self.dropout = theirs.final_layer_norm, theirs.dropout
        self._read: int | None = None

    @contextmanager
    def reading(self, patches: int) -> Iterator[None]:
        """Inside, only the last `patches` patches of the output are promised; others are zero."""
        before, self._read = self._read, patches
        try:
            yield
        finally:
            self._read = before

    def forward(
        self,
        inputs_embeds: Tensor,
        *,
        group_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        output_attentions: bool = False,
    ) -> Chronos2EncoderOutput:
        """[R, T, d] of [R, T, d]; `attention_mask` [R, T] is 0 where a patch is missing."""
        size = group_size(group_ids)
        if size is None or output_attentions or position_ids is not None:
            return super().forward(
                inputs_embeds,
                group_ids=group_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                output_attentions=output_attentions,
            )
        plan = self._plan(inputs_embeds, attention_mask, size)
        total = inputs_embeds.shape[1]
        read = min(self._read or total, total)
        hidden = self.dropout(inputs_embeds)
        for index, block in enumerate(self.block, start=1):
            hidden = block(hidden, plan=plan, read=read if index == len(self.block) else total)
        hidden = self.dropout(self.final_layer_norm(hidden))
        return Chronos2EncoderOutput(
            last_hidden_state=F.pad(hidden, (0, 0, total - hidden.shape[1], 0)),
            all_time_self_attn_weights=(),
            all_group_self_attn_weights=(),
        )

    def _plan(self, embeds: Tensor, present: Tensor | None, size: int) -> Plan:
        position = torch.arange(embeds.shape[1], device=embeds.device)[None]
        first: Any = self.block[0]
        cos, sin = first.layer[0].self_attention.rope_embed(embeds, position)
        if present is None or bool(present.all()):
            return Plan(size, None, None, cos, sin)
        missing = (1.0 - present.to(embeds.dtype)) * MASKED
        of_group = missing.view(-1, size, missing.shape[1]).mT[:, :, None, None]
        return Plan(size, missing[:, None, None], of_group, cos, sin)


class Block(Chronos2EncoderBlock):  # type: ignore[misc]
    """One block of the authors' encoder, made of the same layers."""

    def __init__(self, theirs: Chronos2EncoderBlock) -> None:
        nn.Module.__init__(self)
        self.layer = theirs.layer

    def forward(self, hidden_states: Tensor, **given: Any) -> Any:
        """With a plan, the last `read` patches [R, read, d]; else as the authors do."""
        if "plan" not in given:
            return super().forward(hidden_states, **given)
        plan, read = given["plan"], given["read"]
        hidden = self._over_time(hidden_states, plan, read)
        return self.layer[2](self._over_group(hidden, plan))

    def _over_time(self, hidden: Tensor, plan: Plan, read: int) -> Tensor:
        layer = self.layer[0]
        inner: MHA = layer.self_attention
        seen = layer.layer_norm(hidden)
        asked, hidden = seen[:, -read:], hidden[:, -read:]
        q, k, v = (
            project(x).unflatten(-1, (inner.n_heads, -1)).transpose(1, 2)
            for project, x in ((inner.q, asked), (inner.k, seen), (inner.v, seen))
        )
        q = _turned(q, plan.cos[:, -read:], plan.sin[:, -read:])
        k = _turned(k, plan.cos, plan.sin)
        attended = _attend(inner, q, k, v, plan.time_mask)
        mixed: Tensor = hidden + layer.dropout(inner.o(attended.transpose(1, 2).flatten(2)))
        return mixed

    def _over_group(self, hidden: Tensor, plan: Plan) -> Tensor:
        layer = self.layer[1]
        inner: MHA = layer.self_attention
        seen = layer.layer_norm(hidden)
        if plan.size == 1:
            attended = _alone(inner, inner.v(seen))
        else:
            patches = hidden.shape[1]
            q, k, v = (
                project(seen)
                .unflatten(0, (-1, plan.size))
                .unflatten(-1, (inner.n_heads, -1))
                .permute(0, 2, 3, 1, 4)
                for project in (inner.q, inner.k, inner.v)
            )  # [groups, read, heads, size, w]
            mask = None if plan.group_mask is None else plan.group_mask[:, -patches:]
            attended = _attend(inner, q, k, v, mask).permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(2)
        mixed: Tensor = hidden + layer.dropout(inner.o(attended))
        return mixed


def group_size(group_ids: Tensor) -> int | None:
    """Rows of each group where all groups are equally large and contiguous, else None."""
    size = int((group_ids == group_ids[0]).sum())
    if len(group_ids) % size:
        return None
    groups = group_ids.view(-1, size)
    first = groups[:, 0]
    together = bool((groups == first[:, None]).all())
    return size if together and len(set(first.tolist())) == len(first) else None


def _turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions of states [R, heads, T, w]."""
    cos, sin = (x[:, None].to(states.dtype) for x in (cos, sin))
    turned: Tensor = states * cos + Rope.rotate_half(states) * sin
    return turned


def _attend(inner: MHA, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention over the next to last axis. Its scores are not scaled: the authors' are not."""
    dropout = inner.dropout if inner.training else 0.0
    flat = [x.flatten(0, -4) for x in (q, k, v)]  # fast kernels want four axes
    over = None if mask is None else mask.flatten(0, -4)
    attended = F.scaled_dot_product_attention(
        flat[0], flat[1], flat[2], attn_mask=over, dropout_p=dropout, scale=1.0
    )
    return attended.view(*q.shape[:-1], attended.shape[-1])


def _alone(inner: MHA, value: Tensor) -> Tensor:
    """Attention of a row to itself alone: its value; in training each head may be dropped."""
    if not inner.training or not inner.dropout:
        return value
    heads = (*value.shape[:2], inner.n_heads)
    share = F.dropout(value.new_ones(*heads, 1), inner.dropout, training=True)
    return (value.view(*heads, -1) * share).flatten(2)


# The Chronos-2 network: built, read, adapted, asked.


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


def loss(network: nn.Module, context: Tensor, labels: Tensor) -> Tensor:
    """The authors' loss: pinball over the network's levels in each row's arcsinh-normalised
    space; twice the mean over the emitted bars, summed over levels, averaged over rows.

    context [B, V, C], labels [B, V, L], NaN where a bar is missing or a row is a covariate.
    """
    rows, group = _rows(context)
    value: Tensor = network(
        context=rows,
        group_ids=group,
        future_target=labels.flatten(0, 1),
        num_output_patches=_num_patches(network, labels.shape[-1]),
    ).loss
    return value


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
    """As many as a CPU's caches hold and more than torch's own time counts for: of 128 bars at size
    tiny 256 rows are 1.3 times as fast as 64, of 512 bars at size small 64 are fastest. A GPU wants
    longer calls."""
    if context.device.type != "cpu":
        return 1024
    return max(64, min(256, 2**15 // context.shape[-1]))


def _num_patches(network: nn.Module, length: int) -> int:
    size: int = network.chronos_config.output_patch_size  # type: ignore[union-attr,assignment]
    return -(-length // size)
