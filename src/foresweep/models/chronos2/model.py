"""Chronos-2 (Ansari et al. 2025, arXiv 2510.15821) behind the door of all models.

Trained by our one loop with the authors' network and loss, from scratch or from their weights. The
channels of a window (the returns of every lead, and bars as past-only covariates) are mixed by
group attention; windows never see each other. `chronos` and torch are loaded when first needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from foresweep.data.windows import Context
from foresweep.errors import CheckpointError, ConfigError, ForecastError
from foresweep.models.base import (
    Array,
    Checkpoint,
    Facts,
    Forecast,
    Levels,
    Predictor,
    Resources,
    TrainingJob,
    config_class,
    hyper,
    make_config,
)
from foresweep.models.checkpoint import (
    CONFIG,
    WEIGHTS,
    hash_of_weights,
    read_network,
    read_weights,
)
from foresweep.models.hub import PUBLISHED, find_weights
from foresweep.models.representation import Representation, by_length
from foresweep.models.training.config import (
    ViewConfig,
    changed,
    check_fixed,
    check_lag,
    check_mode,
    chosen_shape,
    resolve_training,
)
from foresweep.models.training.loop import finish, fit, inference, seeded
from foresweep.models.training.optimisation import Adapted, WindowSampler, no_norm_or_bias, prepare

if TYPE_CHECKING:
    from torch import Tensor, nn

    from foresweep.models.chronos2.network import Chronos2Model


# Where Chronos-2's pretrained weights are, and what network they belong to.


ADAPTERS = "adapter_config.json"


def weights_folder(pretrained: str) -> Path:
    """The folder of pretrained weights: `published`, a Hugging Face id, a folder that
    `Chronos2Pipeline.save_pretrained` wrote, or a checkpoint of Chronos-2.

    Raises WeightsNotFound, and ConfigError for a folder of adapters without their network.
    """
    if (Path(pretrained).expanduser() / ADAPTERS).is_file():
        raise ConfigError(
            f"{pretrained} holds LoRA adapters without the network they belong to; merge them "
            f"first: Chronos2Pipeline.from_pretrained({pretrained!r}).save_pretrained(FOLDER)"
        )
    return find_weights(pretrained, published=PUBLISHED["chronos2"], files=(CONFIG, WEIGHTS))


def read_core(folder: Path) -> dict[str, Any]:
    """config.json of the network in a folder of weights.

    Raises ConfigError where it is another model's, CheckpointError for a damaged checkpoint.
    """
    core = read_network(folder, "chronos2")
    kind = core.get("chronos_pipeline_class")
    if kind != "Chronos2Pipeline" or "chronos_config" not in core:
        raise ConfigError(
            f"{folder / CONFIG} describes no Chronos-2 network (chronos_pipeline_class: {kind}); "
            f"give a folder that Chronos2Pipeline.save_pretrained wrote"
        )
    return core


# What can be chosen about Chronos-2, and how a choice is settled before it is hashed.


DROPOUT = 0.1
"""Dropout from scratch: that of the authors' config."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What pretrained weights fix, and a size or the config chooses from scratch."""

    patch_size: int
    d_model: int
    d_ff: int
    num_layers: int
    num_heads: int


SIZES: Mapping[str, Shape] = {
    "tiny": Shape(patch_size=8, d_model=64, d_ff=128, num_layers=2, num_heads=4),
    # the shapes of amazon/chronos-2-small (28M) and amazon/chronos-2 (120M)
    "small": Shape(patch_size=16, d_model=512, d_ff=2048, num_layers=6, num_heads=8),
    "base": Shape(patch_size=16, d_model=768, d_ff=3072, num_layers=12, num_heads=12),
}


@config_class
class Chronos2Config(ViewConfig):
    """Hyperparameters of Chronos-2."""

    size: Literal["tiny", "small", "base"] | None = hyper(
        None,
        "architecture from scratch; none: tiny (with pretrained weights it must stay none)",
        stage="architecture",
        probe=("tiny", "small"),
    )
    prediction_length: int | None = hyper(
        None,
        "bars the network is trained on and asked for, at least the horizon; none: the horizon",
        unit="bars",
        stage="view",
        probe=(16, 32),
        ge=1,
    )
    dropout: float | None = hyper(
        None,
        "dropout in training; none: .1 from scratch, the weights' own when pretrained",
        probe=(0.0, 0.5),
        ge=0,
        lt=1,
    )
    patch_size: int | None = hyper(
        None,
        "bars an input and an output token stand for",
        unit="bars",
        stage="architecture",
        probe=(8, 16),
        ge=1,
    )
    d_model: int | None = hyper(
        None, "width of the network", stage="architecture", probe=(32, 64), ge=2
    )
    d_ff: int | None = hyper(
        None, "width of its feed-forward layers", stage="architecture", probe=(64, 128), ge=1
    )
    num_layers: int | None = hyper(None, "encoder blocks", stage="architecture", probe=(1, 2), ge=1)
    num_heads: int | None = hyper(None, "attention heads", stage="architecture", probe=(2, 4), ge=1)


def _from_scratch(config: Chronos2Config) -> Chronos2Config:
    """Architecture from the size where the config leaves it open. Raises ConfigError."""
    size = config.size or "tiny"
    shape = chosen_shape(config, asdict(SIZES[size]))
    dropout = DROPOUT if config.dropout is None else config.dropout
    return changed(config, size=size, dropout=dropout, **shape)


# The family, and how it forecasts.


class Chronos2:
    """The family."""

    name: ClassVar[str] = "chronos2"
    Config: ClassVar[type[Any]] = Chronos2Config

    def resolve(self, config: Chronos2Config, facts: Facts) -> Chronos2Config:
        """Every None settled. Raises ConfigError for contradictions, WeightsNotFound."""
        if config.pretrained is None:
            check_mode(config)
            config = _from_scratch(config)
        else:
            core = read_core(weights_folder(config.pretrained))
            check_mode(config, blocks=core["num_layers"])
            shape = {name: core[name] for name in ("d_model", "d_ff", "num_layers", "num_heads")}
            shape["patch_size"] = core["chronos_config"]["input_patch_size"]
            check_fixed(config, shape)
            dropout = core["dropout_rate"] if config.dropout is None else config.dropout
            config = changed(config, dropout=dropout, **shape)
        check_lag(config, facts.horizon)
        length = config.prediction_length or facts.horizon
        if length < facts.horizon:
            raise ConfigError(
                f"prediction_length={length} is shorter than the horizon {facts.horizon}: the "
                f"network would be asked for bars it never learnt; use at least {facts.horizon} "
                f"or leave it out"
            )
        config = changed(config, prediction_length=length)
        return resolve_training(config, facts, width=config.d_model)

    def weights_hash(self, config: Chronos2Config) -> str:
        """sha256 over the network's config and its weights. Raises WeightsNotFound."""
        if config.pretrained is None:
            return ""
        folder = weights_folder(config.pretrained)
        return hash_of_weights(read_core(folder), folder / WEIGHTS)

    def train(self, job: TrainingJob) -> Checkpoint:
        """Raises TrainingDiverged, NotEnoughData, WeightsNotFound; lets TrialPruned pass."""
        with seeded(job.seed, job.resources):
            learner = start(job)
        fitted = fit(learner, job, decays=no_norm_or_bias)
        weights = learner.adapted.merged().state_dict()
        return finish(job, self.name, fitted, weights=weights, network=learner.core)

    def load(self, checkpoint: Checkpoint, resources: Resources) -> Predictor:
        """Raises CheckpointError where the card does not describe the network, ModelError where
        the weights do not fit it."""
        from foresweep.models.chronos2 import network as net

        if not {"network", "horizon"} <= set(checkpoint.card):
            raise CheckpointError(f"{checkpoint.path}: the card describes no Chronos-2 network")
        config = make_config(Chronos2Config, checkpoint.config, model=self.name)
        with seeded(0, resources):
            network = net.build(checkpoint.card["network"])
        net.fill(network, read_weights(checkpoint), where=str(checkpoint.path))
        network.to(resources.device).eval()
        view = config.view(checkpoint.card["horizon"])
        return Chronos2Predictor(network, config, view, resources)


@dataclass(frozen=True, slots=True, eq=False)
class Chronos2Predictor:
    """A network, and what leads from prices to prices around it."""

    network: Chronos2Model
    config: Chronos2Config  # resolved
    view: Representation
    resources: Resources

    @property
    def context_length(self) -> int:
        return self.config.context_length

    def predict(self, context: Context, *, horizon: int, levels: Levels, seed: int) -> Forecast:
        """Price quantiles from the network's own levels, linear between them.

        Nothing is drawn: `seed` changes nothing. Raises ForecastError for a horizon beyond the
        trained one, levels beyond the network's, and windows of fewer than two bars.
        """
        moves = np.empty((len(context), len(self.view.leads), len(levels)))
        seen = context.last(self.context_length)
        with seeded(seed, self.resources), inference(self.network, self.resources):
            for index, bars in by_length(seen, lambda n: n, batch=self.resources.inference_batch):
                moves[index] = self._moves(bars, levels)
        return self.view.forecast(moves, context.last_close, horizon, levels)

    def _moves(self, bars: Array, levels: Levels) -> Array:
        """[n, L, Q] quantiles of the moves that follow bars [n, R, F]."""
        import torch

        from foresweep.models.chronos2 import network as net

        channels, scale = encode(self.view, bars, bars.shape[1])
        asked = torch.from_numpy(channels).float().to(self.resources.device)
        length = self.config.prediction_length or self.view.horizon
        quantiles = net.quantiles(self.network, asked, length).double().cpu().numpy()
        own = tuple(self.network.chronos_config.quantiles)
        moves = self.view.moves_of_quantiles(quantiles, scale, own)
        return between_levels(moves, own, levels)


@dataclass(slots=True, eq=False)
class Chronos2Learner:
    """What the training loop asks of Chronos-2."""

    module: nn.Module
    adapted: Adapted  # the same network, and the adapters that hang in it
    core: Mapping[str, Any]  # config.json of the network
    sampler: WindowSampler | None  # None where nothing is trained
    config: Chronos2Config
    view: Representation
    resources: Resources

    def draw(self, rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
        """`size` windows, evenly from all: context [size, V, C] and labels [size, V, L]."""
        assert self.sampler is not None, "nothing is drawn where nothing is trained"
        return self.windows(self.sampler.draw(rng, size).bars)

    def windows(self, bars: Array) -> tuple[Tensor, Tensor]:
        """Context and labels of bars [B, C + L, F]; covariates have no labels."""
        import torch

        seen = self.config.context_length
        channels, _ = encode(self.view, bars, seen)
        both = torch.from_numpy(channels).float()
        labels = both[..., seen:].clone()
        labels[:, self.view.num_targets :] = torch.nan
        return both[..., :seen], labels

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The authors' loss: `chronos2_network.loss`."""
        from foresweep.models.chronos2 import network as net

        return net.loss(self.module, *batch)

    def predictor(self) -> Chronos2Predictor:
        return Chronos2Predictor(self.adapted.network, self.config, self.view, self.resources)


def start(job: TrainingJob) -> Chronos2Learner:
    """A learner before its first step; weights from scratch are drawn from torch's random state.
    Raises NotEnoughData, WeightsNotFound."""
    from foresweep.models.chronos2 import network as net

    config: Chronos2Config = job.config
    length = config.prediction_length or job.horizon
    core = _core(config, length)
    network = net.build(core)
    if config.pretrained is not None:
        file = weights_folder(config.pretrained) / WEIGHTS
        net.fill(network, net.read_weights(file), where=str(file))
    sampler = None
    if config.finetune != "none":
        sampler = WindowSampler(job.windows, config.context_length, length, config)
    adapted = prepare(network, job, net.layers(core["num_layers"]), network.encoder.block)
    view = config.view(job.horizon)
    return Chronos2Learner(network, adapted, core, sampler, config, view, job.resources)


def _core(config: Chronos2Config, length: int) -> dict[str, Any]:
    """config.json of the network that a resolved config asks for."""
    from foresweep.models.chronos2 import network as net

    lengths = {"context_length": config.context_length, "label_length": length}
    if config.pretrained is not None:
        core = read_core(weights_folder(config.pretrained))
        dropout = core["dropout_rate"] if config.dropout is None else config.dropout
        return net.widened(core, dropout=dropout, **lengths)
    return net.core_config(
        patch_size=config.patch_size or 0,
        d_model=config.d_model or 0,
        d_ff=config.d_ff or 0,
        num_layers=config.num_layers or 0,
        num_heads=config.num_heads or 0,
        dropout=config.dropout or 0.0,
        **lengths,
    )


def encode(view: Representation, bars: Array, num_context: int) -> tuple[Array, Array]:
    """Channels [N, V, R] of bars [N, R, F] and their scale [N].

    A return that would reach back before the first bar is NaN, which the network knows as missing,
    unless that would leave less than it takes: then it reaches back to the first bar.
    """
    encoded = view.encode(bars, num_context)
    channels = encoded.channels
    for channel, lag in enumerate(_lags(view)):
        if num_context >= 2 * lag:
            channels[:, channel, :lag] = np.nan
    return channels, encoded.scale


def _lags(view: Representation) -> tuple[int, ...]:
    """Bars that each channel reaches back."""
    targets = {"overlapping": view.leads, "return": (1,), "price": (0,)}[view.target]
    return (*targets, *[1] * (view.num_channels - view.num_targets))


def between_levels(values: Array, own: Levels, levels: Levels) -> Array:
    """[..., Q] from values [..., K] at the rising levels `own`, linear between two of them.

    Raises ForecastError for a level that lies outside.
    """
    outside = [q for q in levels if not own[0] <= q <= own[-1]]
    if outside:
        raise ForecastError(
            f"quantile levels {outside} lie outside the network's own, {own[0]} to {own[-1]}"
        )
    grid, asked = np.array(own), np.array(levels)
    right = np.clip(np.searchsorted(grid, asked), 1, len(grid) - 1)
    share = (asked - grid[right - 1]) / (grid[right] - grid[right - 1])
    below, above = values[..., right - 1], values[..., right]
    mixed: Array = below + share * (above - below)
    return mixed
