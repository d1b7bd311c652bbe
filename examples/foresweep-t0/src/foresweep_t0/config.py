"""t0's hyperparameters, and how a config is settled before it is hashed and trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foresweep.errors import ConfigError
from foresweep.models.base import Facts, config_class, hyper
from foresweep.models.checkpoint import CONFIG, WEIGHTS, read_network
from foresweep.models.hub import find_weights
from foresweep.models.training.config import (
    ViewConfig,
    changed,
    check_fixed,
    check_lag,
    check_mode,
    chosen_shape,
    resolve_training,
)

NAME = "t0"
HUB_ID = "theforecastingcompany/t0-alpha"
DROPOUT = 0.1
"""The authors', from scratch."""
FARTHEST = 1024
"""Bars that the network is asked for in one pass, as published; beyond, the authors' code feeds
its own forecasts back, which this package does not."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What pretrained weights fix, and a size or the config chooses from scratch."""

    patch_size: int
    d_model: int
    d_ff: int
    num_layers: int
    num_heads: int


SIZES = {
    "tiny": Shape(patch_size=8, d_model=64, d_ff=128, num_layers=2, num_heads=4),
    "small": Shape(patch_size=16, d_model=256, d_ff=512, num_layers=6, num_heads=8),
    "base": Shape(patch_size=32, d_model=512, d_ff=2048, num_layers=24, num_heads=8),  # t0-alpha
}
THEIRS = {
    "patch_size": "patch_size",
    "d_model": "embed_dim",
    "d_ff": "mlp_hidden_dim",
    "num_layers": "num_layers",
    "num_heads": "num_heads",
}
"""What the authors' config.json calls the fields of a shape."""


@config_class
class T0Config(ViewConfig):
    """The shared hyperparameters, and t0's own."""

    symmetric_averaging: bool = hyper(
        True,
        "forecast the negated channels, too, and take the mean with what they give, negated, as "
        "the authors do for their published scores; twice the work",
        stage="inference",
        probe=(True, False),
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
        "bars that a token stands for",
        unit="bars",
        stage="architecture",
        probe=(4, 8),
        ge=1,
    )
    d_model: int | None = hyper(
        None, "width of the network", stage="architecture", probe=(16, 32), ge=2
    )
    d_ff: int | None = hyper(
        None, "width of its feed-forward layers", stage="architecture", probe=(16, 32), ge=1
    )
    num_layers: int | None = hyper(
        None,
        "layers: those that look back in time, and after every third (or second) of them one that "
        "looks from channel to channel",
        unit="layers",
        stage="architecture",
        probe=(2, 3),
        ge=2,
    )
    num_heads: int | None = hyper(None, "attention heads", stage="architecture", probe=(1, 2), ge=1)


def settle(config: T0Config, facts: Facts) -> T0Config:
    """The config with every None filled in. Raises ConfigError, WeightsNotFound."""
    if config.pretrained is None:
        check_mode(config)
        config = _from_scratch(config)
    else:
        core = read_core(weights_folder(config.pretrained))
        check_mode(config, blocks=core["num_layers"])
        fixed = {ours: int(core[theirs]) for ours, theirs in THEIRS.items()}
        check_fixed(config, fixed)
        dropout = core["dropout"] if config.dropout is None else config.dropout
        config = changed(config, dropout=dropout, **fixed)
    if facts.horizon > FARTHEST:
        raise ConfigError(
            f"a horizon of {facts.horizon} bars is beyond the {FARTHEST} that t0 gives in one "
            f"pass; shorten it"
        )
    check_lag(config, facts.horizon)
    return resolve_training(config, facts, width=config.d_model)


def _from_scratch(config: T0Config) -> T0Config:
    """Architecture from the size where the config leaves it open. Raises ConfigError."""
    shape = chosen_shape(config, asdict(SIZES[config.size or "tiny"]))
    dropout = DROPOUT if config.dropout is None else config.dropout
    return changed(config, dropout=dropout, **shape)


def weights_folder(pretrained: str) -> Path:
    """The folder of pretrained weights: `published`, a Hugging Face id, a folder that
    `T0Forecaster.save_pretrained` wrote, or one of our checkpoints. Raises WeightsNotFound."""
    return find_weights(pretrained, published=HUB_ID, files=(CONFIG, WEIGHTS))


def read_core(folder: Path) -> dict[str, Any]:
    """config.json of the network in a folder of weights, or what the card of one of our checkpoints
    says. Raises ConfigError where it is another model's, CheckpointError for a damaged one."""
    core = read_network(folder, NAME)
    absent = [n for n in (*THEIRS.values(), "group_every_n", "quantile_levels") if n not in core]
    if absent:
        raise ConfigError(
            f"{folder} holds no t0 (its {CONFIG} has no {', '.join(absent)}); give {HUB_ID} or a "
            f"folder that T0Forecaster.save_pretrained wrote"
        )
    return core
