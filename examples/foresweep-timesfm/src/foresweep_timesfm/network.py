"""TimesFM's network: built, filled, asked. The one place that knows `transformers`' TimesFM 2.5.

The network normalises by itself: whatever series is scaled and shifted, its forecast is scaled and
shifted with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import TimesFm2_5Config, TimesFm2_5ModelForPrediction
from transformers.utils.logging import disable_progress_bar

from foresweep.errors import ModelError
from foresweep.models.base import Levels
from foresweep.models.channels import pinball
from foresweep.models.training.optimisation import Group, Layers, halves

ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2")
SMALLEST_SCALE = 1e-5
"""Floor of a context's standard deviation: a price that never moves has none."""


def layers(num_blocks: int) -> Layers:
    """How the network is made up: with `freeze="backbone"` the patch embedding and the two heads
    are trained."""
    lower, upper = halves("model.layers", num_blocks)
    groups: dict[Group, tuple[str, ...]] = {
        "embedding": ("model.input_ff_layer",),
        "lower_half": lower,
        "upper_half": upper,
        "head": ("output_projection_point", "output_projection_quantiles"),
    }
    return Layers(ADAPTED, groups)


def core_of(
    *, patch_size: int, d_model: int, num_layers: int, num_heads: int, horizon: int
) -> dict[str, Any]:
    """config.json of a network from scratch that speaks of `horizon` bars; what is not named is as
    in google/timesfm-2.5-200m-transformers."""
    config = TimesFm2_5Config(
        patch_length=patch_size,
        hidden_size=d_model,
        intermediate_size=d_model,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        head_dim=d_model // num_heads,
        horizon_length=horizon,
        output_quantile_len=horizon,
    )
    core: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return core


def build(core: Mapping[str, Any]) -> Any:
    """A network in float32 with weights drawn from torch's random state (`training.seeded`)."""
    return TimesFm2_5ModelForPrediction(TimesFm2_5Config.from_dict({**core, "dtype": "float32"}))


def read(folder: Path) -> Any:
    """The network in a folder of the authors' format. Two layers of each block have other names
    there than in the module, which transformers translates. Raises ModelError."""
    disable_progress_bar()
    try:
        network, told = TimesFm2_5ModelForPrediction.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        what = " ".join(str(error).split())
        raise ModelError(f"the weights in {folder} cannot be read: {what}") from error
    wrong = sorted(f"{name} is {kind.partition('_')[0]}" for kind in told for name in told[kind])
    if wrong:
        raise ModelError(f"the weights in {folder} do not fit the network: {', '.join(wrong)}")
    return network


@dataclass(frozen=True, slots=True, eq=False)
class Deciles:
    """The network as training and forecasts ask it: each channel is a series of its own."""

    module: Any
    flip: bool  # ask about the mirrored series, too

    @property
    def levels(self) -> Levels:
        """As published, the nine deciles."""
        return tuple(float(q) for q in self.module.config.quantiles)

    def quantiles(self, channels: Tensor) -> Tensor:
        """[B, V, T, Q] after channels [B, V, R]."""
        found = deciles(self.module, channels.flatten(0, 1), flip=self.flip)
        return found.reshape(*channels.shape[:2], *found.shape[1:])

    def loss(self, channels: Tensor, truth: Tensor) -> Tensor:
        """Mean pinball, in units of each context's spread.

        transformers computes a loss, too. It takes the mean, first of its columns, for the quantile
        at 0.1, so that each of the lower four deciles is taught the level above its own.
        """
        context, came = channels.flatten(0, 1), truth.flatten(0, 1)
        found = deciles(self.module, context, flip=self.flip)
        scale = context.std(dim=1, keepdim=True).clamp(min=SMALLEST_SCALE)
        quantiles = found[:, : came.shape[1]].float() / scale[..., None]
        return pinball(quantiles, came / scale, self.levels)


def deciles(network: Any, series: Tensor, *, flip: bool) -> Tensor:
    """[B, T, Q] quantiles at the network's levels after series [B, R], in the series' units.

    A series that is no whole number of patches is filled up with zeros on the left, which the
    network masks. The authors cut forecasts off at zero where no value of a series is negative:
    right for prices, wrong for moves, so that is never asked for.
    """
    patch = network.config.patch_length
    whole = -(-series.shape[1] // patch) * patch
    found: Tensor = network(
        past_values=series.unbind(0),
        forecast_context_len=whole,
        truncate_negative=False,
        force_flip_invariance=flip,
    ).full_predictions
    return found[..., 1:]  # the first is the mean
