"""Fracast-0 behind the door of all models: configured, trained, asked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from foresweep.data.windows import Context
from foresweep.models.base import (
    Array,
    Checkpoint,
    Facts,
    Forecast,
    Levels,
    Resources,
    TrainingJob,
    make_config,
)
from foresweep.models.calibration import at_levels
from foresweep.models.checkpoint import WEIGHTS, Cutoff, read_weights, sha256_of
from foresweep.models.representation import Representation, by_length
from foresweep.models.training.loop import finish, fit, inference, seeded
from foresweep.models.training.optimisation import Adapted, WindowSampler, prepare
from foresweep_fracast.config import FracastConfig, options_of, settle, weights_folder
from foresweep_fracast.network import LAYERS, Network, fill, normalise, pinball


class Fracast:
    """Fracast-0 (github.com/ztxtech/fracast-0): as it is, fine-tuned or from scratch."""

    name: ClassVar[str] = "fracast"
    Config: ClassVar[type[FracastConfig]] = FracastConfig

    def resolve(self, config: FracastConfig, facts: Facts) -> FracastConfig:
        """Raises ConfigError for contradictions, WeightsNotFound."""
        return settle(config, facts)

    def weights_hash(self, config: FracastConfig) -> str:
        """sha256 of the weights file, "" from scratch. Raises WeightsNotFound."""
        if config.pretrained is None:
            return ""
        folder = weights_folder(config.pretrained)
        return hashlib.sha256(sha256_of(folder / WEIGHTS).encode()).hexdigest()

    def pretrain_cutoff(self, config: FracastConfig) -> Cutoff | None:
        """Of the published weights; their makers name their data sets and no dates."""
        if config.pretrained in ("published", "ztxtech/fracast-0"):
            return Cutoff("2026-09-26", "date of the files in fracast 0.1.0; its data end unstated")
        return None

    def train(self, job: TrainingJob) -> Checkpoint:
        """Fit a resolved config and write its checkpoint. See `ForecastModel.train`."""
        options = options_of(job.config, job.horizon)
        with seeded(job.seed, job.resources):
            adapted = _start(job, options)
        fitted = fit(FracastLearner(adapted, job), job)
        weights = adapted.merged().state_dict()
        return finish(job, self.name, fitted, weights=weights, network=options)

    def load(self, checkpoint: Checkpoint, resources: Resources) -> FracastPredictor:
        """The predictor of a checkpoint. Raises CheckpointError, ModelError."""
        config = make_config(FracastConfig, checkpoint.config, model=self.name)
        network = Network(checkpoint.card["network"])
        weights = {k: torch.from_numpy(v) for k, v in read_weights(checkpoint).items()}
        fill(network, weights, where=checkpoint.path)
        network.to(resources.device).eval()
        view = config.view(int(checkpoint.card["horizon"]))
        return FracastPredictor(network, config, view, resources)


class FracastLearner:
    """Draws training windows and computes their loss."""

    def __init__(self, adapted: Adapted, job: TrainingJob) -> None:
        config = job.config
        self.module = adapted.network
        self._config, self._horizon, self._resources = config, job.horizon, job.resources
        self._view = config.view(job.horizon)
        self._sampler = None
        if config.finetune != "none":
            self._sampler = WindowSampler(job.windows, config.context_length, job.horizon, config)

    def draw(self, rng: np.random.Generator, size: int) -> tuple[Tensor]:
        """`size` windows of channels [B, V, R + H]: context and what came."""
        assert self._sampler is not None, "nothing is drawn where nothing is trained"
        bars = self._sampler.draw(rng, size).bars
        channels = self._view.encode(bars, self._config.context_length).channels
        return (torch.from_numpy(channels[..., self._view.lag :]).float(),)

    def loss(self, batch: tuple[Tensor]) -> Tensor:
        """Mean pinball, each channel a series of its own, in units of its context's span."""
        series = batch[0].flatten(0, 1)
        context, truth = series[:, : -self._horizon], series[:, -self._horizon :]
        seen, low, span = normalise(context)
        quantiles = self.module(seen).float()[:, : self._horizon]
        return pinball(quantiles, (truth - low) / span, self.module.levels)

    def predictor(self) -> FracastPredictor:
        """A predictor over the live network."""
        return FracastPredictor(self.module, self._config, self._view, self._resources)


@dataclass(frozen=True, slots=True, eq=False)
class FracastPredictor:
    """A network, and what leads from prices to prices around it."""

    network: Network
    config: FracastConfig  # resolved
    view: Representation
    resources: Resources

    @property
    def context_length(self) -> int:
        return self.config.context_length

    def predict(self, context: Context, *, horizon: int, levels: Levels, seed: int) -> Forecast:
        """Price quantiles [N, H, Q]. Nothing is drawn: `seed` changes nothing.

        Raises ForecastError for a horizon beyond the trained one and windows of fewer than two
        bars.
        """
        moves = np.empty((len(context), len(self.view.leads), len(levels)))
        seen = context.last(self.context_length)
        with seeded(seed, self.resources), inference(self.network, self.resources):
            for index, bars in by_length(seen, lambda n: n, batch=self.resources.inference_batch):
                moves[index] = self._moves(bars, levels)
        return self.view.forecast(moves, context.last_close, horizon, levels)

    def _moves(self, bars: Array, levels: Levels) -> Array:
        """[n, L, Q] quantiles of the moves that follow bars [n, R, F]."""
        encoded = self.view.encode(bars, bars.shape[1])
        lag = min(self.view.lag, bars.shape[1] - 1)
        channels = torch.from_numpy(encoded.channels[..., lag:]).float().to(self.resources.device)
        series, low, span = normalise(channels.flatten(0, 1))
        found = self.network(series) * span[..., None] + low[..., None]
        quantiles = found.unflatten(0, channels.shape[:2]).double().cpu().numpy()
        known = self.network.levels
        moves = self.view.moves_of_quantiles(np.sort(quantiles, axis=-1), encoded.scale, known)
        return at_levels(moves, known, levels)


def _start(job: TrainingJob, options: Mapping[str, Any]) -> Adapted:
    """The network before its first step. What is random is drawn from torch's random state."""
    network = Network(options)
    if job.config.pretrained is not None:
        folder = weights_folder(job.config.pretrained)
        fill(network, load_file(folder / WEIGHTS), where=folder)
    return prepare(network, job, LAYERS, [network.core.block])
