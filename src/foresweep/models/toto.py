"""Toto 1.0 on prices: configured, trained, asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from foresweep.data.panel import IntArray
from foresweep.data.windows import Context, TrainWindows
from foresweep.errors import CheckpointError, ConfigError
from foresweep.models import toto_network as nets
from foresweep.models.base import (
    Array,
    Checkpoint,
    Facts,
    Forecast,
    Levels,
    Reporter,
    Resources,
    Scorer,
)
from foresweep.models.checkpoint import read_weights, sha256_of, write_checkpoint
from foresweep.models.config import as_dict, config_class, hyper
from foresweep.models.draws import uniforms
from foresweep.models.representation import (
    Covariates,
    Representation,
    Target,
    by_length,
    cut_bars,
    sample_quantiles,
)
from foresweep.models.toto_losses import LossType, make_loss
from foresweep.models.training import TrainingConfig, fit, inference, resolve_training, seeded
from foresweep.models.training_state import clear_states

AUTHORS_NLL_WEIGHT = 0.575
DEFAULT_HUBER_DELTA = 0.1


@config_class
class TotoConfig(TrainingConfig):
    """Hyperparameters of Toto. Architecture fields left empty are filled from the size, or from the
    pretrained weights, which fix them."""

    target: Target = hyper(
        "overlapping", "what the close is seen as", probe=("overlapping", "return")
    )
    covariates: Covariates = hyper(
        "ohlcv", "range, opening gap and volume beside the close", probe=("none", "ohlcv")
    )
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
    num_samples: int = hyper(
        256, "sampled futures a forecast", stage="inference", probe=(16, 64), ge=8
    )

    @property
    def architecture(self) -> dict[str, int]:
        """The architecture fields of a resolved config."""
        return {k: getattr(self, k) for k in nets.ARCHITECTURE}


class Toto:
    """Toto 1.0 (Datadog), from scratch or from its published weights."""

    name: ClassVar[str] = "toto"
    Config: ClassVar[type[TotoConfig]] = TotoConfig

    def resolve(self, config: TotoConfig, facts: Facts) -> TotoConfig:
        """Steps settled, architecture filled in. Raises ConfigError, WeightsNotFound, ModelError.

        `prediction_length` and `stride` are no hyperparameters of Toto: every position learns its
        next patch, and both published and trained networks have stride = patch_size.
        """
        config = resolve_training(config, facts)
        config = dataclasses.replace(  # type: ignore[type-var]
            config, **_architecture(config), huber_delta=_huber_delta(config)
        )
        _check_shape(config)
        lag = _representation(config, facts.horizon).lag
        shortest = lag + config.architecture["patch_size"]
        if config.context_length < shortest:
            raise ConfigError(
                f"context_length={config.context_length} leaves no whole patch of "
                f"patch_size={config.patch_size} after the {lag} bars that target="
                f"{config.target!r} needs; use at least {shortest}"
            )
        return config

    def weights_hash(self, config: TotoConfig) -> str:
        """sha256 of the pretrained weights file, "" from scratch. Raises WeightsNotFound."""
        if config.pretrained is None:
            return ""
        return sha256_of(nets.read_options(config.pretrained)[0] / "model.safetensors")

    def train(
        self,
        train: TrainWindows,
        config: TotoConfig,
        resources: Resources,
        *,
        seed: int,
        horizon: int,
        score: Scorer,
        report: Reporter,
        out: Path,
        resume: Path | None = None,
    ) -> Checkpoint:
        """Fit a resolved config and write its checkpoint. See `ForecastModel.train`."""
        with seeded(seed, resources):
            network, options = _start(config, resources)
        learner = TotoLearner(network, train, config, horizon, resources)
        fitted = fit(
            learner,
            config,
            resources,
            seed=seed,
            report=report,
            score=score,
            out=out,
            resume=resume,
        )
        checkpoint = write_checkpoint(
            out,
            model=self.name,
            config=as_dict(config),
            weights={k: v.cpu().numpy() for k, v in network.state_dict().items()},
            card={
                "horizon": horizon,
                "seed": seed,
                "network": options,
                "fitted": dataclasses.asdict(fitted),
            },
        )
        clear_states(out)
        return checkpoint

    def load(self, checkpoint: Checkpoint, resources: Resources) -> TotoPredictor:
        """The predictor of a checkpoint. Raises CheckpointError."""
        config = TotoConfig(**checkpoint.config)
        network = nets.build(checkpoint.card["network"])
        weights = {k: torch.from_numpy(v) for k, v in read_weights(checkpoint).items()}
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(f"{checkpoint.path}: weights do not fit: {error}") from error
        network.to(resources.device).eval()
        horizon = int(checkpoint.card["horizon"])
        return TotoPredictor(network, config, _representation(config, horizon), resources)


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
        self.module = network
        self._train, self._config, self._resources = train, config, resources
        self._representation = _representation(config, horizon)
        self._patch = config.architecture["patch_size"]
        self._loss = make_loss(config.loss_type, config.nll_weight, config.huber_delta)
        self._rows = usable_rows(config.context_length, self._representation.lag, self._patch)
        self._item, self._row = train.starts(self._rows, self._patch)

    def draw(self, rng: np.random.Generator, size: int) -> tuple[Tensor]:
        """`size` series [B, V, C + P]: context and the patch after it."""
        chosen = rng.integers(len(self._item), size=size)
        return (self.series(self._item[chosen], self._row[chosen]),)

    def series(self, item: IntArray, row: IntArray) -> Tensor:
        """[B, V, C + P] of the windows that begin at `row` of `item`."""
        bars = cut_bars(self._train, item, row, self._rows + self._patch)
        encoded = self._representation.encode(bars, self._rows)
        return torch.from_numpy(encoded.channels[:, :, self._representation.lag :]).float()

    def loss(self, batch: tuple[Tensor]) -> Tensor:
        """Mean loss of every patch given those before it."""
        return self.losses(batch).mean()

    def losses(self, batch: tuple[Tensor]) -> Tensor:
        """[B, V, C] loss of each bar from the second patch on, given the patches before its own."""
        (series,) = batch
        context, labels = series[..., : -self._patch], series[..., self._patch :]
        found = self.module(context, *nets.masks(context))
        normal = (labels - found.loc) / (found.scale + torch.finfo(labels.dtype).eps)
        return self._loss(found.distribution, normal)

    def predictor(self) -> TotoPredictor:
        """A predictor over the live network."""
        return TotoPredictor(self.module, self._config, self._representation, self._resources)


@dataclass(frozen=True, slots=True)
class TotoPredictor:
    """Forecasts by sampled futures."""

    network: Any
    config: TotoConfig
    representation: Representation
    resources: Resources

    @property
    def context_length(self) -> int:
        return self.config.context_length

    def predict(self, context: Context, *, horizon: int, levels: Levels, seed: int) -> Forecast:
        """Price quantiles [N, H, Q] of `num_samples` sampled futures, each window's draws its own.

        Raises ForecastError for a horizon longer than the trained one or a window without bars.
        """
        context = context.last(self.config.context_length)
        patch = self.config.architecture["patch_size"]
        lag = self.representation.lag
        moves = np.empty((len(context), len(self.representation.leads), len(levels)))
        groups = by_length(
            context, lambda n: usable_rows(n, lag, patch), batch=self.resources.inference_batch
        )
        with inference(self.network, self.resources):
            for index, bars in groups:
                samples = self._samples(context.take(index), bars, seed)
                moves[index] = sample_quantiles(samples, levels)
        return self.representation.forecast(moves, context.last_close, horizon, levels)

    def _samples(self, context: Context, bars: Array, seed: int) -> Array:
        """[N, S, L] sampled moves."""
        form, patch = self.representation, self.config.architecture["patch_size"]
        encoded = form.encode(bars, bars.shape[1])
        series, real = whole_patches(encoded.channels, form.lag, patch)
        seen = self._tensor(series), torch.from_numpy(real).to(self.resources.device)

        def draws(*shape: int) -> Tensor:
            wanted = (self.config.num_samples, *shape, 3)
            return self._tensor(uniforms(context, seed=seed, shape=wanted))

        if form.target == "overlapping" and form.horizon <= patch:  # one bar a channel is enough
            leads = torch.tensor(form.leads)
            points = nets.sample_points(
                self.network, *seen, draws(len(leads)), torch.arange(len(leads)), leads - 1
            )
            return points.cpu().numpy().astype(float)
        total = -(-form.horizon // patch) * patch
        paths = nets.sample_paths(self.network, *seen, draws(series.shape[1], total))
        return form.moves_of_paths(paths.cpu().numpy().astype(float), encoded.scale)

    def _tensor(self, values: Array) -> Tensor:
        return torch.from_numpy(values).float().to(self.resources.device)


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


def _representation(config: TotoConfig, horizon: int) -> Representation:
    return Representation(config.target, config.covariates, horizon)


def _start(config: TotoConfig, resources: Resources) -> tuple[Any, Mapping[str, Any]]:
    """The network to train and its constructor's arguments."""
    checkpointing = resources.gradient_checkpointing
    if config.pretrained is None:
        options = nets.network_options(config.architecture, config.dropout)
        return nets.build(options, checkpointing=checkpointing), options
    folder, options = nets.read_options(config.pretrained)
    network = nets.load_pretrained(folder, config.dropout, checkpointing=checkpointing)
    return network, {**options, "dropout": config.dropout}


def _architecture(config: TotoConfig) -> dict[str, int]:
    """Every architecture field, from the config, its size or its weights. Raises ConfigError."""
    given = {k: v for k, v in config.architecture.items() if v is not None}
    if config.pretrained is not None:
        fixed = nets.architecture_of(nets.read_options(config.pretrained)[1])
        for name, value in given.items():
            if value != fixed[name]:
                raise ConfigError(
                    f"{name}={value} contradicts pretrained={config.pretrained!r}, whose weights "
                    f"have {name}={fixed[name]}; leave it out, or train from scratch"
                )
        return fixed
    shape = dataclasses.asdict(nets.SIZES[config.size]) if config.size else {}
    missing = set(nets.ARCHITECTURE) - set(given) - set(shape)
    if missing:
        raise ConfigError(
            f"without pretrained and size, {', '.join(sorted(missing))} must be given"
        )
    return {**shape, **given}


def _check_shape(config: TotoConfig) -> None:
    width, heads = config.architecture["embed_dim"], config.architecture["num_heads"]
    if width % heads or width // heads % 2:
        raise ConfigError(
            f"embed_dim={width} must be an even multiple of num_heads={heads} (rotary positions "
            f"pair up the dimensions of a head)"
        )


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
