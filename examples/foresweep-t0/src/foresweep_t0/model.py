"""t0 behind the door of all models: configured, trained, asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from safetensors.torch import load_file

from foresweep.models.base import Checkpoint, Facts, Resources, TrainingJob, make_config
from foresweep.models.channels import ChannelLearner, ChannelPredictor, fill
from foresweep.models.checkpoint import WEIGHTS, Cutoff, hash_of_weights, read_weights
from foresweep.models.hub import weights_id
from foresweep.models.licence import Licence
from foresweep.models.training.loop import finish, fit, seeded
from foresweep.models.training.optimisation import Adapted, no_norm_or_bias, prepare
from foresweep_t0 import network as net
from foresweep_t0.config import HUB_ID, NAME, T0Config, read_core, settle, weights_folder

LICENCE = Licence("Apache-2.0", f"model card of {HUB_ID}", True)
CUTOFF = Cutoff(
    "2026-06-09",
    "publication of t0-alpha (changelog of tfc-t0); the end of its data is not stated there",
)


class T0:
    """t0 (arXiv 2609.24559): as it is, fine-tuned or from scratch."""

    name: ClassVar[str] = NAME
    Config: ClassVar[type[T0Config]] = T0Config
    published: ClassVar[str] = HUB_ID

    def resolve(self, config: T0Config, facts: Facts) -> T0Config:
        """Raises ConfigError for contradictions, WeightsNotFound."""
        return settle(config, facts)

    def weights_hash(self, config: T0Config) -> str:
        """sha256 over the network's config and its weights, "" from scratch. Raises
        WeightsNotFound."""
        if config.pretrained is None:
            return ""
        folder = weights_folder(config.pretrained)
        return hash_of_weights(read_core(folder), folder / WEIGHTS)

    def pretrain_cutoff(self, config: T0Config) -> Cutoff | None:
        """Of t0-alpha."""
        return CUTOFF if _is_published(config) else None

    def weights_licence(self, config: T0Config) -> Licence | None:
        """Of t0-alpha; the cards of its successors were not seen, so nothing is said of them."""
        return LICENCE if _is_published(config) else None

    def train(self, job: TrainingJob) -> Checkpoint:
        """Fit a resolved config and write its checkpoint. See `ForecastModel.train`."""
        core = _core(job)
        with seeded(job.seed, job.resources):
            adapted = _start(job, core)
        view = job.config.view(job.horizon)
        learner = ChannelLearner(_asked(adapted.network, job.config, job.horizon), view, job)
        fitted = fit(learner, job, decays=no_norm_or_bias)
        weights = adapted.merged().state_dict()
        return finish(job, self.name, fitted, weights=weights, network=core)

    def load(self, checkpoint: Checkpoint, resources: Resources) -> ChannelPredictor:
        """The predictor of a checkpoint. Raises CheckpointError, ModelError."""
        config = make_config(T0Config, checkpoint.config, model=self.name)
        with seeded(0, resources):
            network = net.build(checkpoint.card["network"])
        fill(network, read_weights(checkpoint), where=checkpoint.path)
        network.to(resources.device).eval()
        horizon = int(checkpoint.card["horizon"])
        asked = _asked(network, config, horizon)
        return ChannelPredictor(asked, config.view(horizon), config.context_length, resources)


def _is_published(config: T0Config) -> bool:
    return weights_id(config.pretrained or "") in ("published", HUB_ID)


def _asked(network: Any, config: T0Config, horizon: int) -> net.Variates:
    targets = config.view(horizon).num_targets
    return net.Variates(network, targets, horizon, config.symmetric_averaging)


def _core(job: TrainingJob) -> Mapping[str, Any]:
    """config.json of the network that a job's resolved config asks for."""
    config: T0Config = job.config
    if config.pretrained is not None:
        core = read_core(weights_folder(config.pretrained))
        return core | {"dropout": core["dropout"] if config.dropout is None else config.dropout}
    return net.core_of(
        patch_size=config.patch_size or 0,
        d_model=config.d_model or 0,
        d_ff=config.d_ff or 0,
        num_layers=config.num_layers or 0,
        num_heads=config.num_heads or 0,
        dropout=config.dropout or 0.0,
    )


def _start(job: TrainingJob, core: Mapping[str, Any]) -> Adapted:
    """The network before its first step. What is random is drawn from torch's random state."""
    network = net.build(core)
    if job.config.pretrained is not None:
        folder = weights_folder(job.config.pretrained)
        fill(network, load_file(folder / WEIGHTS), where=folder)
    return prepare(network, job, net.layers(core["num_layers"]), network.transformer.layers)
