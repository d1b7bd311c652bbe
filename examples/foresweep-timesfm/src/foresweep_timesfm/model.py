"""TimesFM 2.5 behind the door of all models: configured, trained, asked."""

from __future__ import annotations

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
from foresweep.models.checkpoint import CARD, WEIGHTS, Cutoff, hash_of_weights, read_weights
from foresweep.models.hub import weights_id
from foresweep.models.licence import Licence
from foresweep.models.training.loop import finish, fit, seeded
from foresweep.models.training.optimisation import (
    Adapted,
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
        network = net.Deciles(adapted.network, job.config.flip_invariance)
        learner = ChannelLearner(network, job.config.view(job.horizon), job)
        fitted = fit(learner, job, decays=no_norm_or_bias)
        weights = adapted.merged().state_dict()
        return finish(job, self.name, fitted, weights=weights, network=core)

    def load(self, checkpoint: Checkpoint, resources: Resources) -> ChannelPredictor:
        """The predictor of a checkpoint. Raises CheckpointError, ModelError."""
        config = make_config(TimesFMConfig, checkpoint.config, model=self.name)
        with seeded(0, resources):
            network = net.build(checkpoint.card["network"])
        fill(network, read_weights(checkpoint), where=checkpoint.path)
        network.to(resources.device).eval()
        view = config.view(int(checkpoint.card["horizon"]))
        asked = net.Deciles(network, config.flip_invariance)
        return ChannelPredictor(asked, view, config.context_length, resources)


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
            fill(network, load_file(folder / WEIGHTS), where=folder)
    return prepare(network, job, net.layers(core["num_hidden_layers"]), network.model.layers)
