"""The authors' Chronos-2 network with their weights and their results, and less to compute.

Three things are left out, none of which can change a forecast:

- Group attention scores every row of a batch against every other and masks all but its own group.
  Where groups are of equal size and contiguous, as ours are, rows attend inside their group; a row
  that is alone attends to itself, which is its value.
- Of the last block only the patches that are forecast are read, so only those are computed.
- Masks are left out where no patch is missing.

Anything else (other groups, attention weights asked for) takes the authors' own way. Dropout in
training is drawn in another order than theirs, from the same law.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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
        found = _attend(inner, q, k, v, plan.time_mask)
        mixed: Tensor = hidden + layer.dropout(inner.o(found.transpose(1, 2).flatten(2)))
        return mixed

    def _over_group(self, hidden: Tensor, plan: Plan) -> Tensor:
        layer = self.layer[1]
        inner: MHA = layer.self_attention
        seen = layer.layer_norm(hidden)
        if plan.size == 1:
            found = _alone(inner, inner.v(seen))
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
            found = _attend(inner, q, k, v, mask).permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(2)
        mixed: Tensor = hidden + layer.dropout(inner.o(found))
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
    found = F.scaled_dot_product_attention(
        flat[0], flat[1], flat[2], attn_mask=over, dropout_p=dropout, scale=1.0
    )
    return found.view(*q.shape[:-1], found.shape[-1])


def _alone(inner: MHA, value: Tensor) -> Tensor:
    """Attention of a row to itself alone: its value; in training each head may be dropped."""
    if not inner.training or not inner.dropout:
        return value
    heads = (*value.shape[:2], inner.n_heads)
    share = F.dropout(value.new_ones(*heads, 1), inner.dropout, training=True)
    return (value.view(*heads, -1) * share).flatten(2)
