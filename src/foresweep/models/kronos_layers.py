"""The predictor's and the tokenizer's blocks as plain tensors, for sampling.

Sampling takes many small steps, and most of their time would go into calling modules. Here a
block is a handful of matrices: queries, keys and values in one, both halves of the feed-forward
gate in one, the attention's scale folded into the queries, dropout left out (eval mode). The
results are the modules' own to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """x @ weight.T + bias"""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """Root mean square norm over the last axis."""

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A transformer block. Queries come scaled: attend with scale 1."""

    heads: int
    norm1: Norm
    qkv: Linear
    out: Linear
    norm2: Norm
    gate: Linear  # w1 above w3
    down: Linear

    def feed_forward(self, x: Tensor) -> Tensor:
        """`x` plus its feed-forward update."""
        left, right = self.gate(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(left) * right)


def block_of(block: Any) -> Block:
    """A `TransformerBlock` of the package."""
    a, ffn = block.self_attn, block.ffn
    query, key, value = (linear_of(p) for p in (a.q_proj, a.k_proj, a.v_proj))
    w1, w3 = linear_of(ffn.w1), linear_of(ffn.w3)
    return Block(
        heads=a.n_heads,
        norm1=norm_of(block.norm1),
        qkv=_stacked(scaled(query, a.head_dim**-0.5), key, value),
        out=linear_of(a.out_proj),
        norm2=norm_of(block.norm2),
        gate=_stacked(w1, w3),
        down=linear_of(ffn.w2),
    )


def linear_of(module: Any) -> Linear:
    """The layer's weights, with those of its LoRA adapters added where it has some."""
    base = getattr(module, "base_layer", module)
    weight = base.weight
    for adapter in getattr(module, "active_adapters", ()):
        weight = weight + module.get_delta_weight(adapter)
    return Linear(weight, base.bias)


def norm_of(module: Any) -> Norm:
    return Norm(module.weight, module.eps)


def scaled(linear: Linear, factor: float) -> Linear:
    """The layer whose output is `factor` times this one's."""
    bias = None if linear.bias is None else linear.bias * factor
    return Linear(linear.weight * factor, bias)


def _stacked(*parts: Linear) -> Linear:
    """One layer whose output is those of the parts side by side."""
    biases = [p.bias for p in parts if p.bias is not None]
    weight = torch.cat([p.weight for p in parts])
    return Linear(weight, torch.cat(biases) if biases else None)


def rotations(attention: Any, start: int, stop: int) -> Tensor:
    """[stop - start, d, d] matrices: x @ R turns a head's x [..., d] to its position, as the
    package's rotary embedding does."""
    frequency = attention.rotary.inv_freq
    at = torch.arange(start, stop, device=frequency.device).to(frequency)
    angles = torch.outer(at, frequency)
    cos, sin = torch.diag_embed(angles.cos()), torch.diag_embed(angles.sin())
    return torch.cat([torch.cat([cos, sin], -1), torch.cat([-sin, cos], -1)], -2)
