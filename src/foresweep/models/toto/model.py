"""Toto 1.0 on prices: its hyperparameters, its training, its forecasts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from foresweep.data.windows import Context, TrainWindows
from foresweep.errors import CheckpointError, ConfigError
from foresweep.models.base import (
    Array,
    Checkpoint,
    Facts,
    Forecast,
    Levels,
    Resources,
    TrainingJob,
    config_class,
    hyper,
    make_config,
    uniforms,
)
from foresweep.models.checkpoint import WEIGHTS, hash_of_weights
from foresweep.models.representation import (
    Representation,
    by_length,
    sample_quantiles,
)
from foresweep.models.toto import network as nets
from foresweep.models.toto.network import (
    LossType,
    fill,
    fold,
    load_pretrained,
    make_loss,
    options_of,
    read_options,
    weights_folder,
)
from foresweep.models.training.config import (
    ViewConfig,
    changed,
    check_fixed,
    check_mode,
    resolve_training,
)
from foresweep.models.training.loop import finish, fit, inference, seeded
from foresweep.models.training.optimisation import WindowSampler, float32, prepare

if TYPE_CHECKING:
    from torch import Tensor

# Toto's hyperparameters, and how they are settled before they are hashed.


AUTHORS_NLL_WEIGHT = 0.575
DEFAULT_HUBER_DELTA = 0.1
DEFAULT_SAMPLES = 256


@config_class
class TotoConfig(ViewConfig):
    """Hyperparameters of Toto. Architecture fields left empty are filled from the size, or from the
    pretrained weights, which fix them."""

    patch_size: int | None = hyper(
        None,
        "bars a token holds, and bars drawn at a time",
        unit="bars",
        stage="architecture",
        probe=(8, 16),
        ge=1,
    )
    embed_dim: int | None = hyper(None, "width", stage="architecture", probe=(32, 64), ge=8)
    num_layers: int | None = hyper(
        None, "layers, the last across channels", stage="architecture", probe=(2, 3), ge=2
    )
    num_heads: int | None = hyper(None, "attention heads", stage="architecture", probe=(2, 4), ge=1)
    mlp_hidden_dim: int | None = hyper(
        None, "width of the feed-forward layers", stage="architecture", probe=(64, 128), ge=8
    )
    num_components: int | None = hyper(
        None, "Student-t components of the mixture", stage="architecture", probe=(2, 4), ge=1
    )
    dropout: float = hyper(0.0, "dropout in training", probe=(0.0, 0.5), ge=0, lt=1)
    loss_type: LossType = hyper(
        "combined",
        "what stands beside the likelihood: robust (the authors'), huber or quantile",
        probe=("combined", "quantile"),
    )
    nll_weight: float = hyper(
        AUTHORS_NLL_WEIGHT,
        "share of the likelihood in the loss",
        probe=(0.3, 0.9),
        ge=0.1,
        le=1,
    )
    huber_delta: float | None = hyper(
        None,
        "error, in normalised units, where Huber's loss turns linear (loss_type huber)",
        probe=(0.01, 1.0, {"loss_type": "huber"}),
        gt=0,
    )
    num_samples: int | None = hyper(
        None,
        "sampled futures a forecast; none: the mixture's exact quantiles, nothing drawn, where "
        "every lead is one bar of the patch after the context, else 256",
        stage="inference",
        probe=(16, None),
        ge=8,
    )

    @property
    def architecture(self) -> dict[str, int]:
        """The architecture fields of a resolved config."""
        return {k: getattr(self, k) for k in nets.ARCHITECTURE}


def _architecture(config: TotoConfig) -> dict[str, int]:
    """Every architecture field, from the config, its size or its weights. Raises ConfigError."""
    given: dict[str, Any] = {k: v for k, v in config.architecture.items() if v is not None}
    if config.pretrained is not None:
        fixed = nets.architecture_of(read_options(weights_folder(config.pretrained)))
        check_fixed(config, fixed)
        return fixed
    shape = dataclasses.asdict(nets.SIZES[config.size]) if config.size else {}
    missing = set(nets.ARCHITECTURE) - set(given) - set(shape)
    if missing:
        raise ConfigError(
            f"without pretrained and size, {', '.join(sorted(missing))} must be given"
        )
    return {**shape, **given}


def _huber_delta(config: TotoConfig) -> float | None:
    """Huber's delta where it is used. Raises ConfigError for loss fields without effect."""
    if config.loss_type != "huber" and config.huber_delta is not None:
        raise ConfigError(
            f"huber_delta={config.huber_delta} has no effect with loss_type={config.loss_type!r}; "
            f"leave it out, or use loss_type='huber'"
        )
    if config.loss_type != "combined" and config.nll_weight == 1:
        raise ConfigError(
            f"loss_type={config.loss_type!r} has no effect with nll_weight=1; use a smaller weight"
        )
    if config.loss_type == "huber":
        return config.huber_delta or DEFAULT_HUBER_DELTA
    return None


def _samples(config: TotoConfig, horizon: int, patch: int) -> int | None:
    """Futures drawn where none are asked for: none where the mixture states every lead itself."""
    return None if config.view(horizon).direct and horizon <= patch else DEFAULT_SAMPLES


# The family, and how it forecasts.


CHAINS = 4096
"""Sampled channels grown at a time: more do not fit a processor's cache."""


class Toto:
    """Toto 1.0 (Datadog), from scratch or from its published weights."""

    name: ClassVar[str] = "toto"
    Config: ClassVar[type[TotoConfig]] = TotoConfig

    def resolve(self, config: TotoConfig, facts: Facts) -> TotoConfig:
        """Steps settled, architecture filled in. Raises ConfigError, WeightsNotFound, ModelError.

        `prediction_length` and `stride` are no hyperparameters of Toto: every position learns its
        next patch, and both published and trained networks have stride = patch_size.
        """
        shape = _architecture(config)
        check_mode(config, blocks=shape["num_layers"])
        width, heads = shape["embed_dim"], shape["num_heads"]
        if width % heads or width // heads % 2:
            raise ConfigError(
                f"embed_dim={width} must be an even multiple of num_heads={heads} (rotary "
                f"positions pair up the dimensions of a head)"
            )
        config = changed(
            config,
            **shape,
            huber_delta=_huber_delta(config),
            num_samples=config.num_samples or _samples(config, facts.horizon, shape["patch_size"]),
        )
        config = resolve_training(config, facts, width=width)
        lag = config.view(facts.horizon).lag
        shortest = lag + shape["patch_size"]
        if config.context_length < shortest:
            raise ConfigError(
                f"context_length={config.context_length} leaves no whole patch of "
                f"patch_size={config.patch_size} after the {lag} bars that "
                f"target={config.target!r} with scaling={config.scaling!r} needs; use at least "
                f"{shortest}"
            )
        return config

    def weights_hash(self, config: TotoConfig) -> str:
        """sha256 of the pretrained weights and their network's description, "" from scratch.
        Raises WeightsNotFound."""
        if config.pretrained is None:
            return ""
        folder = weights_folder(config.pretrained)
        return hash_of_weights(read_options(folder), folder / WEIGHTS)

    def train(self, job: TrainingJob) -> Checkpoint:
        """Fit a resolved config and write its checkpoint. See `ForecastModel.train`."""
        with seeded(job.seed, job.resources):
            network, options = start(job.config)
            blocks = network.transformer.layers
            adapted = prepare(network, job, nets.layers_of(network), blocks)
        learner = TotoLearner(network, job.windows, job.config, job.horizon, job.resources)
        fitted = fit(learner, job)
        weights = adapted.merged().state_dict()
        return finish(job, self.name, fitted, weights=weights, network=options)

    def load(self, checkpoint: Checkpoint, resources: Resources) -> TotoPredictor:
        """The predictor of a checkpoint. Raises CheckpointError, and ModelError where the weights
        do not fit."""
        if not {"network", "horizon"} <= set(checkpoint.card):
            raise CheckpointError(f"{checkpoint.path}: the card describes no Toto network")
        config = make_config(TotoConfig, checkpoint.config, model=self.name)
        with seeded(0, resources):
            network = nets.build(options_of(checkpoint))
        fill(network, checkpoint)
        network.to(resources.device).eval()
        view = config.view(int(checkpoint.card["horizon"]))
        return TotoPredictor(network, config, view, resources)


class TotoLearner:
    """Draws training windows and computes the loss of every patch in them."""

    def __init__(
        self,
        network: Any,
        train: TrainWindows,
        config: TotoConfig,
        horizon: int,
        resources: Resources,
    ) -> None:
        """Raises NotEnoughData where something is trained and train has no window for it."""
        self.module = network
        self._config, self._resources = config, resources
        self._view = config.view(horizon)
        self._patch = config.architecture["patch_size"]
        self._loss = make_loss(config.loss_type, config.nll_weight, config.huber_delta)
        self._rows = usable_rows(config.context_length, self._view.lag, self._patch)
        trained = config.finetune != "none"
        self._sampler = WindowSampler(train, self._rows, self._patch, config) if trained else None

    def draw(self, rng: np.random.Generator, size: int) -> tuple[Tensor]:
        """`size` series [B, V, C + P]: context and the patch after it."""
        assert self._sampler is not None, "nothing is drawn where nothing is trained"
        return (self.series(self._sampler.draw(rng, size).bars),)

    def series(self, bars: Array) -> Tensor:
        """[B, V, C + P] channels of bars [B, R, F], covariates last."""
        import torch

        encoded = self._view.encode(bars, self._rows)
        return torch.from_numpy(encoded.channels[:, :, self._view.lag :]).float()

    def loss(self, batch: tuple[Tensor]) -> Tensor:
        """Mean loss of every patch given those before it."""
        return self.losses(batch).mean()

    def losses(self, batch: tuple[Tensor]) -> Tensor:
        """[B, V, C] loss of each bar from the second patch on, given the patches before its own.

        The mixture and its likelihood are float32 whatever the precision: shares in bfloat16 do
        not add up to one.
        """
        import torch

        (series,) = batch
        context, labels = series[..., : -self._patch], series[..., self._patch :]
        hidden, loc, scale = nets.hidden_states(self.module, context, nets.masks(context)[0])
        with float32(series.device):
            mixture = fold(self.module).mixture(hidden.float())
            return self._loss(mixture, (labels - loc) / (scale + torch.finfo(scale.dtype).eps))

    def predictor(self) -> TotoPredictor:
        """A predictor over the live network."""
        return TotoPredictor(self.module, self._config, self._view, self._resources)


@dataclass(frozen=True, slots=True)
class TotoPredictor:
    """Forecasts by the mixture's own quantiles, or, with `num_samples`, by sampled futures."""

    network: Any
    config: TotoConfig
    representation: Representation
    resources: Resources

    @property
    def context_length(self) -> int:
        return self.config.context_length

    def predict(self, context: Context, *, horizon: int, levels: Levels, seed: int) -> Forecast:
        """Price quantiles [N, H, Q]; where futures are drawn, each window's draws are its own.

        Raises ForecastError for a horizon longer than the trained one or a window without bars.
        """
        import torch

        from foresweep.models.toto.decoding import point_quantiles

        context = context.last(self.config.context_length)
        form, patch = self.representation, self.config.architecture["patch_size"]
        moves = np.empty((len(context), len(form.leads), len(levels)))
        groups = by_length(context, lambda n: usable_rows(n, form.lag, patch), batch=self._batch)
        with inference(self.network, self.resources):
            for index, bars in groups:
                encoded = form.encode(bars, bars.shape[1])
                series, real = whole_patches(encoded.channels, form.lag, patch)
                seen = self._tensor(series), torch.from_numpy(real).to(self.resources.device)
                if self.config.num_samples is None:
                    places = self._places
                    points = point_quantiles(self.network, *seen, *places, levels).numpy()
                    moves[index] = form.moves_of_points(points, encoded.scale)
                else:
                    samples = self._samples(context.take(index), seen, encoded.scale, seed)
                    moves[index] = sample_quantiles(samples, levels)
        return form.forecast(moves, context.last_close, horizon, levels)

    @property
    def _places(self) -> tuple[Tensor, Tensor]:
        """[L], [L] channel and bar of the patch after the context where each lead is."""
        import torch

        channels, steps = (torch.from_numpy(p) for p in self.representation.places)
        return channels, steps

    @property
    def _one_patch(self) -> bool:
        """Does each channel speak of its own lead, within the patch after the context?"""
        form = self.representation
        return (
            form.target == "overlapping" and form.horizon <= self.config.architecture["patch_size"]
        )

    @property
    def _batch(self) -> int:
        """Windows at a time."""
        if self.config.num_samples is None or self._one_patch:
            return self.resources.inference_batch
        chains = self.config.num_samples * self.representation.num_channels
        return max(1, min(self.resources.inference_batch, CHAINS // chains))

    def _samples(
        self, context: Context, seen: tuple[Tensor, Tensor], scale: Array, seed: int
    ) -> Array:
        """[N, S, L] sampled moves."""
        from foresweep.models.toto.decoding import sample_paths, sample_points

        form, patch = self.representation, self.config.architecture["patch_size"]

        def draws(*shape: int) -> Tensor:
            wanted = (self.config.num_samples or DEFAULT_SAMPLES, *shape, 3)
            return self._tensor(uniforms(context, seed=seed, shape=wanted))

        if self._one_patch:
            points = sample_points(self.network, *seen, draws(len(form.leads)), *self._places)
            return form.moves_of_points(points.cpu().numpy().astype(float), scale)
        total = -(-form.horizon // patch) * patch
        paths = sample_paths(self.network, *seen, draws(seen[0].shape[1], total))
        return form.moves_of_paths(paths.cpu().numpy().astype(float), scale)

    def _tensor(self, values: Array) -> Tensor:
        import torch

        return torch.from_numpy(values).float().to(self.resources.device)


def start(config: TotoConfig) -> tuple[Any, Mapping[str, Any]]:
    """The network to train and its constructor's arguments. From scratch it is drawn from torch's
    random state: call it inside `training.seeded`."""
    if config.pretrained is None:
        options = nets.network_options(config.architecture, config.dropout)
        return nets.build(options), options
    folder = weights_folder(config.pretrained)
    options = {**read_options(folder), "dropout": config.dropout}
    return load_pretrained(folder, config.dropout), options


def usable_rows(num_rows: int, lag: int, patch: int) -> int:
    """Bars of a window that make whole patches after its first `lag`, all where there is none."""
    whole = (num_rows - lag) // patch * patch
    return whole + lag if whole > 0 else num_rows


def whole_patches(channels: Array, lag: int, patch: int) -> tuple[Array, np.ndarray]:
    """Channels [N, V, C] without the first `lag` bars, C a multiple of `patch`, and what is real.

    A window too short for one patch keeps its first bars and is filled up on the left with each
    channel's own mean, which the network's scaler, blind to padding, turns into zeros: the value
    of a padding is seen by Toto, so it must say nothing.
    """
    rows = channels.shape[-1]
    kept = channels[..., -max(patch, rows - lag) :]
    missing = patch - kept.shape[-1]
    real = np.ones(kept.shape, dtype=bool)
    if missing > 0:
        wide = [(0, 0), (0, 0), (missing, 0)]
        mean = kept.mean(axis=-1, keepdims=True)
        kept = np.pad(kept - mean, wide) + mean
        real = np.pad(real, wide)
    return kept, real
