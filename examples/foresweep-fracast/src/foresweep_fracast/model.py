"""Fracast-0 behind the door of all models: configured, trained, asked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

from safetensors.torch import load_file

from foresweep.models.base import (
    Checkpoint,
    Facts,
    Resources,
    TrainingJob,
    make_config,
)
from foresweep.models.channels import ChannelLearner, ChannelPredictor, fill
from foresweep.models.checkpoint import WEIGHTS, Cutoff, read_weights, sha256_of
from foresweep.models.licence import Licence
from foresweep.models.training.loop import finish, fit, seeded
from foresweep.models.training.optimisation import Adapted, prepare
from foresweep_fracast.config import HUB_ID, FracastConfig, options_of, settle, weights_folder
from foresweep_fracast.network import LAYERS, Asked, Network

LICENCE = Licence("Apache-2.0", "metadata of fracast 0.1.0, whose wheel holds the weights", True)


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
        if _is_published(config):
            return Cutoff("2026-09-26", "date of the files in fracast 0.1.0; its data end unstated")
        return None

    def weights_licence(self, config: FracastConfig) -> Licence | None:
        """Of the published weights."""
        return LICENCE if _is_published(config) else None

    def train(self, job: TrainingJob) -> Checkpoint:
        """Fit a resolved config and write its checkpoint. See `ForecastModel.train`."""
        options = options_of(job.config, job.horizon)
        with seeded(job.seed, job.resources):
            adapted = _start(job, options)
        learner = ChannelLearner(Asked(adapted.network), job.config.view(job.horizon), job)
        fitted = fit(learner, job)
        weights = adapted.merged().state_dict()
        return finish(job, self.name, fitted, weights=weights, network=options)

    def load(self, checkpoint: Checkpoint, resources: Resources) -> ChannelPredictor:
        """The predictor of a checkpoint. Raises CheckpointError, ModelError."""
        config = make_config(FracastConfig, checkpoint.config, model=self.name)
        network = Network(checkpoint.card["network"])
        fill(network, read_weights(checkpoint), where=checkpoint.path)
        network.to(resources.device).eval()
        view = config.view(int(checkpoint.card["horizon"]))
        return ChannelPredictor(Asked(network), view, config.context_length, resources)


def _is_published(config: FracastConfig) -> bool:
    return config.pretrained in ("published", HUB_ID)


def _start(job: TrainingJob, options: Mapping[str, Any]) -> Adapted:
    """The network before its first step. What is random is drawn from torch's random state."""
    network = Network(options)
    if job.config.pretrained is not None:
        folder = weights_folder(job.config.pretrained)
        fill(network, load_file(folder / WEIGHTS), where=folder)
    return prepare(network, job, LAYERS, [network.core.block])
