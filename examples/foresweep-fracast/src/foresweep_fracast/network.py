"""Fracast's network: built, filled, asked. The one place that knows the package `fracast`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from fracast._core.model import build_from_cfg
from torch import Tensor, nn

from foresweep.models.base import Levels
from foresweep.models.channels import pinball
from foresweep.models.training.optimisation import Layers

SMALLEST_SPAN = 1e-5  # the authors': a context that never moves has none
ONE_LEVEL = {"ratios": [], "mode": "none", "time_rope": False, "level_embed": False}

LAYERS = Layers(
    adapted=("pw", "up", "down"),
    groups={
        "embedding": ("core.in_proj", "core.periodic"),
        "upper_half": ("core.block", "core.scale", "core.norm"),
        "head": ("head",),
    },
)
"""One block, passed through many times: it has no lower half."""


class Network(nn.Module):
    """Context in, quantiles out, in the context's own units of least to largest value."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.core, self.head = build_from_cfg({"model": dict(options), "pyramid": ONE_LEVEL})
        self.core.norm.register_forward_pre_hook(_in_float32)
        self.window = int(options["W"])
        self.levels = tuple(float(q) for q in options["quantiles"])

    def forward(self, series: Tensor) -> Tensor:
        """[B, T, Q] quantiles after normalised series [B, R], R at most the window."""
        values = nn.functional.pad(series, (self.window - series.shape[1], 0))
        real = torch.zeros_like(values, dtype=torch.bool)
        real[:, -series.shape[1] :] = True
        hidden = self.core(values[:, None], real[:, None], real[:, None].to(values.dtype))
        quantiles: Tensor = self.head.forward_horizon(
            hidden, last_obs=values[:, -1:], ctx=values, ctx_mask=real
        )
        return quantiles


def _in_float32(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The last normalisation keeps float32 weights: in bfloat16 it would be slow, and say so."""
    return tuple(x.float() for x in inputs)


def normalise(series: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Series [B, R] from 0, the least value, to 1, the largest; that least value and the span, both
    [B, 1]."""
    low = series.amin(dim=1, keepdim=True)
    span = (series.amax(dim=1, keepdim=True) - low).clamp(min=SMALLEST_SPAN)
    return (series - low) / span, low, span


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """The network as training and forecasts ask it: each channel is a series of its own."""

    module: Network

    @property
    def levels(self) -> Levels:
        """As published, the nine deciles."""
        return self.module.levels

    def quantiles(self, channels: Tensor) -> Tensor:
        """[B, V, T, Q] after channels [B, V, R]."""
        series, low, span = normalise(channels.flatten(0, 1))
        found: Tensor = self.module(series) * span[..., None] + low[..., None]
        return found.reshape(*channels.shape[:2], *found.shape[1:])

    def loss(self, channels: Tensor, truth: Tensor) -> Tensor:
        """Mean pinball, in units of each context's span."""
        came = truth.flatten(0, 1)
        series, low, span = normalise(channels.flatten(0, 1))
        quantiles = self.module(series).float()[:, : came.shape[1]]
        return pinball(quantiles, (came - low) / span, self.levels)
