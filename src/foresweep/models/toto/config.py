"""Toto's hyperparameters, and how they are settled before they are hashed."""

from __future__ import annotations

import dataclasses
from typing import Any

from foresweep.errors import ConfigError
from foresweep.models.base import Facts
from foresweep.models.config import config_class, hyper
from foresweep.models.representation import Covariates, Representation, Scaling, Target
from foresweep.models.toto import network as nets
from foresweep.models.toto.network import LossType, read_options, weights_folder
from foresweep.models.training.config import TrainingConfig, check_mode, resolve_training

AUTHORS_NLL_WEIGHT = 0.575
DEFAULT_HUBER_DELTA = 0.1


@config_class
class TotoConfig(TrainingConfig):
    """Hyperparameters of Toto. Architecture fields left empty are filled from the size, or from the
    pretrained weights, which fix them."""

    target: Target = hyper(
        "overlapping",
        "what the close is seen as",
        stage="view",
        probe=("overlapping", "return"),
    )
    covariates: Covariates = hyper(
        "ohlcv",
        "range, opening gap and volume beside the close",
        stage="view",
        probe=("none", "ohlcv"),
    )
    scaling: Scaling = hyper(
        "none",
        "what returns, range and gap are divided by: nothing, or the volatility known before",
        stage="view",
        probe=("none", "volatility"),
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


def resolve(config: TotoConfig, facts: Facts) -> TotoConfig:
    """Every None settled: what `Toto.resolve` promises."""
    shape = _architecture(config)
    check_mode(config, blocks=shape["num_layers"])
    _check_shape(shape)
    config = dataclasses.replace(  # type: ignore[type-var]
        config, **shape, huber_delta=_huber_delta(config)
    )
    config = resolve_training(config, facts, width=config.embed_dim)
    lag = view_of(config, facts.horizon).lag
    shortest = lag + shape["patch_size"]
    if config.context_length < shortest:
        raise ConfigError(
            f"context_length={config.context_length} leaves no whole patch of "
            f"patch_size={config.patch_size} after the {lag} bars that target={config.target!r} "
            f"with scaling={config.scaling!r} needs; use at least {shortest}"
        )
    return config


def view_of(config: TotoConfig, horizon: int) -> Representation:
    """How a config sees prices."""
    return Representation(config.target, config.covariates, horizon, config.scaling)


def _architecture(config: TotoConfig) -> dict[str, int]:
    """Every architecture field, from the config, its size or its weights. Raises ConfigError."""
    given: dict[str, Any] = {k: v for k, v in config.architecture.items() if v is not None}
    if config.pretrained is not None:
        fixed = nets.architecture_of(read_options(weights_folder(config.pretrained)))
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


def _check_shape(shape: dict[str, int]) -> None:
    width, heads = shape["embed_dim"], shape["num_heads"]
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
