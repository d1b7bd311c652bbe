"""t0's network: built and asked. The one place that knows the package `t0` (tfc-t0 on PyPI).

The channels of a window are variates of one series: its layers look back in time within a channel
and across from one to the others. It normalises by itself, each bar by the mean and the spread of
the bars up to it, and speaks of the whole horizon in one pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import torch
from t0 import T0Config as Core
from t0.torch import T0Forecaster, TimeSeries
from torch import Tensor

from foresweep.errors import ConfigError
from foresweep.models.base import Levels
from foresweep.models.channels import pinball
from foresweep.models.training.optimisation import Group, Layers, halves

ADAPTED = ("wQKV", "wO", "mlp.0", "mlp.2")
"""Layers that carry LoRA adapters: the choice of the authors' example of fine-tuning."""
FARTHEST_OUT = 20.0
"""Quantiles are cut here before the authors' arcsinh is undone: 2e8 spreads from the mean."""
ROWS = 64
"""Channels at a time: each looks at all the others, if only to find that they are not its own."""


def layers(num_blocks: int) -> Layers:
    """How the network is made up: with `freeze="backbone"` the patch encoder, the last norm and
    the decoder are trained."""
    lower, upper = halves("transformer.layers", num_blocks)
    groups: dict[Group, tuple[str, ...]] = {
        "embedding": ("patch_encoder",),
        "lower_half": lower,
        "upper_half": upper,
        "head": ("transformer.out_norm", "decoder"),
    }
    return Layers(ADAPTED, groups)


def core_of(
    *, patch_size: int, d_model: int, d_ff: int, num_layers: int, num_heads: int, dropout: float
) -> dict[str, Any]:
    """config.json of a network from scratch; what is not named is as in t0-beta. t0 has a layer
    across channels after every second one in time; where that does not come out even after every
    first, or once."""
    every = next(n for n in (3, 2, num_layers) if num_layers % n == 0)
    core = replace(
        Core.large(),
        embed_dim=d_model,
        num_layers=num_layers,
        num_heads=num_heads,
        mlp_hidden_dim=d_ff,
        patch_size=patch_size,
        group_every_n=every,
        dropout=dropout,
    )
    return dict(core.to_dict())


def build(core: Mapping[str, Any]) -> T0Forecaster:
    """A network in float32 with weights drawn from torch's random state (`training.seeded`), whose
    first forecasts are about a normal's quantiles: the authors' own first ones lie up to
    sinh(14) spreads away. Raises ConfigError for a config that is none."""
    try:
        network = T0Forecaster.from_config(Core.from_dict(dict(core)))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"no t0 can be built: {error}") from error
    scores = [NormalDist().inv_cdf(q) for q in network.config.quantile_levels]
    normal = torch.tensor(scores).asinh()
    steps = torch.cat([normal[:1], normal.diff().expm1().log()])  # softplus undone
    with torch.no_grad():
        network.decoder.residual_layer.bias.zero_()
        network.decoder.mlp.output_layer.bias.copy_(steps.repeat(network.patch_size))
    return network


@dataclass(frozen=True, slots=True, eq=False)
class Variates:
    """The network as training and forecasts ask it: the channels of a window are one series."""

    module: Any
    num_targets: int
    horizon: int
    symmetric: bool = False  # the mean with what the negated channels give, negated

    @property
    def levels(self) -> Levels:
        """Of t0-alpha five from 0.1 to 0.9, of the others 21 from 0.01 to 0.99."""
        return tuple(float(q) for q in self.module.config.quantile_levels)

    def quantiles(self, channels: Tensor) -> Tensor:
        """[B, V, T, Q] after channels [B, V, R]."""
        size = max(1, ROWS // channels.shape[1])
        return torch.cat([self._quantiles(part) for part in torch.split(channels, size)])

    def loss(self, channels: Tensor, truth: Tensor) -> Tensor:
        """Mean pinball of the targets, in the space in which the network speaks: arcsinh of
        deviations from the context's mean in units of its spread."""
        found, mean, spread = _ask(self.module, channels, truth.shape[-1])
        came = torch.asinh((truth - mean) / spread)[:, : self.num_targets]
        return pinball(found[:, : self.num_targets, : truth.shape[-1]].float(), came, self.levels)

    def _quantiles(self, channels: Tensor) -> Tensor:
        found = self._in_units(channels)
        if self.symmetric:
            mirrored = self._in_units(-channels)
            found = (found - mirrored.flip(-1)) / 2
        return found

    def _in_units(self, channels: Tensor) -> Tensor:
        found, mean, spread = _ask(self.module, channels, self.horizon)
        far = found.float().clamp(-FARTHEST_OUT, FARTHEST_OUT).sinh()
        return far * spread[..., None] + mean[..., None]


def _ask(network: Any, channels: Tensor, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
    """The network's quantiles [B, V, T, Q] after channels [B, V, R], in its own space, and the
    mean and the spread [B, V, 1] that lead back from there.

    `T0Forecaster.predict` does as much without gradients: bars are filled up to whole patches on
    the left, masked; those to come are withheld, and each patch speaks of the next one.
    """
    windows, variates, bars = channels.shape
    series = network.patcher.pad(TimeSeries.from_array(channels, horizon=horizon), bars)
    scaled, stats = network.scaler.scale_input(series)
    found = network(scaled)  # [rows, patches, bars of a patch, Q]
    ahead = -(-horizon // network.patch_size)
    found = found[:, -ahead - 1 : -1].reshape(windows, variates, -1, found.shape[-1])
    mean, spread = (x[:, -1].reshape(windows, variates, 1) for x in (stats.loc, stats.scale))
    return found, mean, spread
