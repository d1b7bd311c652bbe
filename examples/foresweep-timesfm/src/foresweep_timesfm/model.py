"""TimesFM 2.5 behind the door of all models: configured, trained, asked."""

from __future__ import annotations

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
from foresweep.models.checkpoint import CARD, WEIGHTS, Cutoff, hash_of_weights, read_weights
from foresweep.models.hub import weights_id
from foresweep.models.licence import Licence
from foresweep.models.representation import Representation, by_length
from foresweep.models.training.loop import finish, fit, inference, seeded
from foresweep.models.training.optimisation import (
    Adapted,
    WindowSampler,
    no_norm_or_bias,
    prepare,
)
from foresweep_timesfm import network as net
from foresweep_timesfm.config import HUB_ID, NAME, TimesFMConfig, read_core, settle, weights_folder

LICENCE = Licence("Apache-2.0", "google-research/timesfm, of its TimesFM 2.5", True)
CUTOFF = Cutoff(
    "2025-09-15",
    "publication of TimesFM 2.5 (github.com/google-research/timesfm); the end of its data is not "
    "stated there",
)


class TimesFM:
    """TimesFM 2.5 (arXiv 2310.10688): as it is, fine-tuned or from scratch."""

    name: ClassVar[str] = NAME
    Config: ClassVar[type[TimesFMConfig]] = TimesFMConfig
    published: ClassVar[str] = HUB_ID

    def resolve(self, config: TimesFMConfig, facts: Facts) -> TimesFMConfig:
        """Raises ConfigError for contradictions, WeightsNotFound."""
        return settle(config, facts)

    def weights_hash(self, config: TimesFMConfig) -> str:
        """sha256 over the network's config and its weights, "" from scratch. Raises
        WeightsNotFound."""
        if config.pretrained is None:
            return ""
        folder = weights_folder(config.pretrained)
        return hash_of_weights(read_core(folder), folder / WEIGHTS)

    def pretrain_cutoff(self, config: TimesFMConfig) -> Cutoff | None:
        """Of the published weights."""
        return CUTOFF if _is_published(config) else None

    def weights_licence(self, config: TimesFMConfig) -> Licence | None:
        """Of the published weights. Those of TimesFM 3 stand under another one and do not fit."""
        return LICENCE if _is_published(config) else None

    def train(self, job: TrainingJob) -> Checkpoint:
        """Fit a resolved config and write its checkpoint. See `ForecastModel.train`."""
        core = _core(job)
        with seeded(job.seed, job.resources):
            adapted = _start(job, core)
        fitted = fit(TimesFMLearner(adapted, job), job, decays=no_norm_or_bias)
        weights = adapted.merged().state_dict()
        return finish(job, self.name, fitted, weights=weights, network=core)

    def load(self, checkpoint: Checkpoint, resources: Resources) -> TimesFMPredictor:
        """The predictor of a checkpoint. Raises CheckpointError, ModelError."""
        config = make_config(TimesFMConfig, checkpoint.config, model=self.name)
        with seeded(0, resources):
            network = net.build(checkpoint.card["network"])
        weights = {k: torch.from_numpy(v) for k, v in read_weights(checkpoint).items()}
        net.fill(network, weights, where=checkpoint.path)
        network.to(resources.device).eval()
        view = config.view(int(checkpoint.card["horizon"]))
        return TimesFMPredictor(network, config, view, resources)


class TimesFMLearner:
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
        """Mean pinball, each channel a series of its own, in units of its context's spread."""
        series = batch[0].flatten(0, 1)
        context, truth = series[:, : -self._horizon], series[:, -self._horizon :]
        found = net.deciles(self.module, context, flip=self._config.flip_invariance)
        scale = context.std(dim=1, keepdim=True).clamp(min=net.SMALLEST_SCALE)
        quantiles = found[:, : self._horizon].float() / scale[..., None]
        return net.pinball(quantiles, truth / scale, net.levels_of(self.module))

    def predictor(self) -> TimesFMPredictor:
        """A predictor over the live network."""
        return TimesFMPredictor(self.module, self._config, self._view, self._resources)


@dataclass(frozen=True, slots=True, eq=False)
class TimesFMPredictor:
    """A network, and what leads from prices to prices around it."""

    network: Any
    config: TimesFMConfig  # resolved
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
        found = net.deciles(self.network, channels.flatten(0, 1), flip=self.config.flip_invariance)
        quantiles = found.reshape(*channels.shape[:2], *found.shape[1:]).double().cpu().numpy()
        known = net.levels_of(self.network)
        moves = self.view.moves_of_quantiles(np.sort(quantiles, axis=-1), encoded.scale, known)
        return at_levels(moves, known, levels)


def _is_published(config: TimesFMConfig) -> bool:
    return weights_id(config.pretrained or "") in ("published", HUB_ID)


def _core(job: TrainingJob) -> Mapping[str, Any]:
    """config.json of the network that a job's resolved config asks for."""
    config: TimesFMConfig = job.config
    if config.pretrained is not None:
        return read_core(weights_folder(config.pretrained))
    return net.core_of(
        patch_size=config.patch_size or 0,
        d_model=config.d_model or 0,
        num_layers=config.num_layers or 0,
        num_heads=config.num_heads or 0,
        horizon=job.horizon,
    )


def _start(job: TrainingJob, core: Mapping[str, Any]) -> Adapted:
    """The network before its first step. What is random is drawn from torch's random state."""
    pretrained = job.config.pretrained
    folder = None if pretrained is None else weights_folder(pretrained)
    if folder is not None and not (folder / CARD).is_file():
        network = net.read(folder)
    else:
        network = net.build(core)
        if folder is not None:
            net.fill(network, load_file(folder / WEIGHTS), where=folder)
    return prepare(network, job, net.layers(core["num_hidden_layers"]), network.model.layers)
