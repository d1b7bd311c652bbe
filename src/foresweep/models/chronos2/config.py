"""What can be chosen about Chronos-2, and where its pretrained weights are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from foresweep.errors import ConfigError
from foresweep.models.base import Facts
from foresweep.models.checkpoint import (
    CARD,
    CONFIG,
    WEIGHTS,
    find_weights,
    read_checkpoint,
    sha256_of,
)
from foresweep.models.config import config_class, hyper
from foresweep.models.representation import Covariates, Representation, Scaling, Target
from foresweep.models.training.config import TrainingConfig, check_mode, resolve_training

# Where Chronos-2's pretrained weights are, and what network they belong to.


PUBLISHED = "amazon/chronos-2"
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
    return find_weights(pretrained, published=PUBLISHED, files=(CONFIG, WEIGHTS))


def read_core(folder: Path) -> dict[str, Any]:
    """config.json of the network in a folder of weights.

    Raises ConfigError where it is another model's, CheckpointError for a damaged checkpoint.
    """
    file = folder / CONFIG
    if (folder / CARD).is_file():
        checkpoint = read_checkpoint(folder)
        core: dict[str, Any] = checkpoint.card.get("network", {})
        if checkpoint.model != "chronos2":
            raise ConfigError(
                f"{folder} is a checkpoint of {checkpoint.model}, whose weights fit no Chronos-2 "
                f"network; give one of chronos2"
            )
    else:
        try:
            core = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{file} is not JSON: {error}") from error
    kind = core.get("chronos_pipeline_class")
    if kind != "Chronos2Pipeline" or "chronos_config" not in core:
        raise ConfigError(
            f"{file} describes no Chronos-2 network (chronos_pipeline_class: {kind}); "
            f"give a folder that Chronos2Pipeline.save_pretrained wrote"
        )
    return core


def hash_of_weights(folder: Path) -> str:
    """sha256 over the network's config and its weights. Raises what `read_core` raises."""
    core = json.dumps(read_core(folder), sort_keys=True)
    return hashlib.sha256((core + sha256_of(folder / WEIGHTS)).encode()).hexdigest()


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
class Chronos2Config(TrainingConfig):
    """Hyperparameters of Chronos-2."""

    size: Literal["tiny", "small", "base"] | None = hyper(
        None,
        "architecture from scratch; none: tiny (with pretrained weights it must stay none)",
        stage="architecture",
        probe=("tiny", "small"),
    )
    target: Target = hyper(
        "overlapping",
        "what is forecast: the returns of every lead, one-bar returns, or the log price",
        stage="view",
        probe=("overlapping", "return"),
    )
    covariates: Covariates = hyper(
        "ohlcv",
        "past-only channels beside the target: range, gap and volume",
        stage="view",
        probe=("none", "ohlcv"),
    )
    scaling: Scaling = hyper(
        "none",
        "what returns, range and gap are divided by: nothing, or the volatility known before",
        stage="view",
        probe=("none", "volatility"),
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


def resolve(config: Chronos2Config, facts: Facts) -> Chronos2Config:
    """Every None settled: what `Chronos2.resolve` promises."""
    if config.pretrained is None:
        check_mode(config)
        config = _from_scratch(config)
    else:
        core = read_core(weights_folder(config.pretrained))
        check_mode(config, blocks=core["num_layers"])
        config = _from_weights(config, core)
    _check_context(config, facts.horizon)
    return resolve_training(_with_labels(config, facts.horizon), facts, width=config.d_model)


def _from_scratch(config: Chronos2Config) -> Chronos2Config:
    """Architecture from the size where the config leaves it open. Raises ConfigError."""
    size = config.size or "tiny"
    shape = {
        name: value if getattr(config, name) is None else getattr(config, name)
        for name, value in asdict(SIZES[size]).items()
    }
    d_model, heads = shape["d_model"], shape["num_heads"]
    if d_model % (2 * heads):
        raise ConfigError(
            f"d_model={d_model} does not give {heads} heads an even width each; "
            f"use a multiple of {2 * heads}"
        )
    dropout = DROPOUT if config.dropout is None else config.dropout
    return _with(config, size=size, dropout=dropout, **shape)


def _from_weights(config: Chronos2Config, core: Mapping[str, Any]) -> Chronos2Config:
    """Architecture as the weights have it. Raises ConfigError where the config wants another."""
    shape = {
        "patch_size": core["chronos_config"]["input_patch_size"],
        **{name: core[name] for name in ("d_model", "d_ff", "num_layers", "num_heads")},
    }
    for name, fixed in shape.items():
        wanted = getattr(config, name)
        if wanted not in (None, fixed):
            raise ConfigError(
                f"{name}={wanted} contradicts pretrained={config.pretrained!r}, whose weights have "
                f"{name}={fixed}; leave it out"
            )
    dropout = core["dropout_rate"] if config.dropout is None else config.dropout
    return _with(config, dropout=dropout, **shape)


def _with_labels(config: Chronos2Config, horizon: int) -> Chronos2Config:
    """prediction_length settled. Raises ConfigError where it is shorter than the horizon."""
    length = config.prediction_length or horizon
    if length < horizon:
        raise ConfigError(
            f"prediction_length={length} is shorter than the horizon {horizon}: the network would "
            f"be asked for bars it never learnt; use at least {horizon} or leave it out"
        )
    return _with(config, prediction_length=length)


def _check_context(config: Chronos2Config, horizon: int) -> None:
    """Raises ConfigError where the longest return does not fit into the context twice."""
    lag = Representation(config.target, config.covariates, horizon, config.scaling).lag
    if config.context_length < 2 * lag:
        raise ConfigError(
            f"context_length={config.context_length} is too short for target={config.target!r} at "
            f"horizon {horizon}; use at least {2 * lag}"
        )


def _with(config: Chronos2Config, **values: Any) -> Chronos2Config:
    settled: Chronos2Config = replace(config, **values)  # type: ignore[type-var]
    return settled
