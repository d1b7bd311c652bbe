"""How a network that answers channels with quantiles is trained on prices and forecasts them.

A family brings the network as a `QuantileNetwork` and a `Representation`; draws, lags, devices,
batches and the way back to prices are the same for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from foresweep.data.windows import Context
from foresweep.errors import ModelError
from foresweep.models.base import Array, Forecast, Levels, Resources, TrainingJob
from foresweep.models.calibration import at_levels
from foresweep.models.representation import Representation, by_length
from foresweep.models.training.loop import inference, seeded
from foresweep.models.training.optimisation import WindowSampler

if TYPE_CHECKING:
    from torch import Tensor, nn


class QuantileNetwork(Protocol):
    """What a family says of its network. B windows, V channels (targets first), R bars of context,
    T bars after it, K levels."""

    @property
    def module(self) -> nn.Module:
        """What is trained."""
        ...

    @property
    def levels(self) -> Levels:
        """[K] rising, holds 0.5."""
        ...

    def quantiles(self, channels: Tensor) -> Tensor:
        """[B, V, T, K] after channels [B, V, R], in their units; of the targets at least. T is the
        horizon or more."""
        ...

    def loss(self, channels: Tensor, truth: Tensor) -> Tensor:
        """Mean loss after channels [B, V, R] of which truth [B, V, H] came."""
        ...


class ChannelLearner:
    """Draws training windows and computes their loss: a `Learner` of the training loop."""

    def __init__(self, network: QuantileNetwork, view: Representation, job: TrainingJob) -> None:
        """Raises NotEnoughData where no window fits into train."""
        self.module = network.module
        self._network, self._view, self._job = network, view, job
        self._sampler = None
        if job.config.finetune != "none":
            context = job.config.context_length
            self._sampler = WindowSampler(job.windows, context, job.horizon, job.config)

    def draw(self, rng: np.random.Generator, size: int) -> tuple[Tensor]:
        """`size` windows of channels [B, V, R + H]: context and what came."""
        import torch

        assert self._sampler is not None, "nothing is drawn where nothing is trained"
        bars = self._sampler.draw(rng, size).bars
        channels = self._view.encode(bars, self._job.config.context_length).channels
        return (torch.from_numpy(channels[..., self._view.lag :]).float(),)

    def loss(self, batch: tuple[Tensor]) -> Tensor:
        """The network's own, of a batch that `draw` gave."""
        horizon = self._job.horizon
        return self._network.loss(batch[0][..., :-horizon], batch[0][..., -horizon:])

    def predictor(self) -> ChannelPredictor:
        """A predictor over the live network."""
        config, resources = self._job.config, self._job.resources
        return ChannelPredictor(self._network, self._view, config.context_length, resources)


@dataclass(frozen=True, slots=True, eq=False)
class ChannelPredictor:
    """A network, and what leads from prices to prices around it."""

    network: QuantileNetwork
    view: Representation
    context_length: int  # bars
    resources: Resources

    def predict(self, context: Context, *, horizon: int, levels: Levels, seed: int) -> Forecast:
        """Price quantiles [N, H, Q]. Nothing is drawn: `seed` changes nothing.

        Raises ForecastError for a horizon beyond the trained one and windows of fewer than two
        bars.
        """
        moves = np.empty((len(context), len(self.view.leads), len(levels)))
        seen = context.last(self.context_length)
        with seeded(seed, self.resources), inference(self.network.module, self.resources):
            for index, bars in by_length(seen, lambda n: n, batch=self.resources.inference_batch):
                moves[index] = self._moves(bars, levels)
        return self.view.forecast(moves, context.last_close, horizon, levels)

    def _moves(self, bars: Array, levels: Levels) -> Array:
        """[n, L, Q] quantiles of the moves that follow bars [n, R, F]."""
        import torch

        encoded = self.view.encode(bars, bars.shape[1])
        lag = min(self.view.lag, bars.shape[1] - 1)
        channels = torch.from_numpy(encoded.channels[..., lag:]).float().to(self.resources.device)
        quantiles = self.network.quantiles(channels).double().cpu().numpy()
        known = self.network.levels
        moves = self.view.moves_of_quantiles(np.sort(quantiles, axis=-1), encoded.scale, known)
        return at_levels(moves, known, levels)


def pinball(quantiles: Tensor, truth: Tensor, levels: Levels) -> Tensor:
    """Mean pinball loss (Koenker and Bassett 1978) of quantiles [..., K] for what came [...]."""
    import torch

    error = truth[..., None] - quantiles
    level = torch.tensor(levels, device=error.device, dtype=error.dtype)
    return torch.maximum(level * error, (level - 1) * error).mean()


def fill(network: nn.Module, weights: Mapping[str, Any], *, where: Path) -> None:
    """Put weights, tensors or arrays, into a network as float32, every one and no other. Raises
    ModelError where they are not this network's."""
    import torch

    state = {name: torch.as_tensor(value).float() for name, value in weights.items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        what = " ".join(str(error).split())
        raise ModelError(f"the weights in {where} do not fit the network: {what}") from error
