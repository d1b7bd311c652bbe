"""What Toto says of each bar: a mixture of Student-t distributions, in normalised units.

Toto's last two steps are linear: `unembed` makes a vector for each bar of a patch, four heads turn
each vector into the parameters of the mixture. Both are taken here as one product with their folded
weights: the same numbers but for rounding, without the vectors, which would be the largest things
in memory (bars x width), and with a fraction of the multiplications.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

HEADS = ("df", "loc_proj", "scale_proj", "mixture_weights")


@dataclass(frozen=True, slots=True)
class Mixture:
    """Mixtures of K Student-t distributions, one a cell."""

    df: Tensor  # [..., K]
    loc: Tensor  # [..., K]
    scale: Tensor  # [..., K]
    logits: Tensor  # [..., K] of the shares

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
        parts = (self.df, self.loc, self.scale, self.logits)
        return Mixture(*(p[:, channels, bars] for p in parts))

    def unsqueeze(self, dim: int) -> Mixture:
        """With an axis of length one more, counted from the front."""
        parts = (self.df, self.loc, self.scale, self.logits)
        return Mixture(*(p.unsqueeze(dim) for p in parts))

    def log_prob(self, values: Tensor) -> Tensor:
        """[...] log density at values [...]."""
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
        raw = functional.linear(hidden, self.weight, self.bias)
        num_bars = hidden.shape[-2] * self.patch
        raw = raw.reshape(*hidden.shape[:-2], num_bars, -1)
        df, loc, scale, logits = raw.chunk(4, dim=-1)
        least = torch.finfo(raw.dtype).eps
        df = 2.0 + functional.softplus(df).clamp_min(least)
        return Mixture(df, loc, functional.softplus(scale).clamp_min(least), logits)


def fold(network: Any) -> Folded:
    """The folded last steps of a network, gradients flowing to what they are folded of."""
    heads = [getattr(network.output_distribution, name) for name in HEADS]
    weight, bias = (torch.cat([getattr(h, part) for h in heads]) for part in ("weight", "bias"))
    width = network.embed_dim
    unembed = network.unembed
    folded = weight @ unembed.weight.view(-1, width, width)
    constant = torch.addmm(bias, unembed.bias.view(-1, width), weight.t())
    return Folded(folded.flatten(0, 1), constant.flatten(), network.patch_embed.stride)
