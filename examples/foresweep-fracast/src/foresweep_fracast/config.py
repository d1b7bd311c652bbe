"""Fracast's hyperparameters, and how a config is settled before it is hashed and trained."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from foresweep.errors import ConfigError, MissingExtra
from foresweep.models.base import Facts, config_class, hyper
from foresweep.models.checkpoint import CARD, CONFIG, WEIGHTS
from foresweep.models.hub import find_weights
from foresweep.models.training.config import (
    SeriesConfig,
    changed,
    check_fixed,
    check_lag,
    check_mode,
    resolve_training,
)

HUB_ID = "ztxtech/fracast-0"
WIDTHS = {"tiny": 16, "small": 64, "base": 128}  # small: as published
FEWEST_STAGES = 3


@config_class
class FracastConfig(SeriesConfig):
    """The shared hyperparameters, and Fracast's own."""

    window: int | None = hyper(
        None,
        "positions the network is laid over, the context at their end; none: 2048 over weights, "
        "as they were trained, and the context from scratch",
        unit="positions",
        stage="view",
        probe=(64, 128),
        ge=16,
    )
    d_model: int | None = hyper(None, "width", stage="architecture", probe=(16, 32), ge=8)
    num_stages: int | None = hyper(
        None,
        "passes of the one block, each twice as far apart; none: enough to see the whole window",
        unit="passes",
        stage="architecture",
        probe=(3, 4),
        ge=1,
    )


def settle(config: FracastConfig, facts: Facts) -> FracastConfig:
    """The config with every None filled in. Raises ConfigError, WeightsNotFound."""
    check_mode(config, blocks=1)
    options = None if config.pretrained is None else read_options(weights_folder(config.pretrained))
    window = config.window or (options["W"] if options else config.context_length)
    if window < config.context_length:
        raise ConfigError(
            f"window={window} holds no context_length={config.context_length}; make it longer"
        )
    shape = _architecture(config, window, options)
    config = changed(config, window=window, **shape)
    check_lag(config, facts.horizon)
    if options and facts.horizon > options["horizon"]:
        raise ConfigError(
            f"a horizon of {facts.horizon} bars is beyond the {options['horizon']} that the "
            f"weights {config.pretrained!r} speak of; train from scratch or shorten it"
        )
    return resolve_training(config, facts, width=config.d_model)


def _architecture(
    config: FracastConfig, window: int, options: dict[str, Any] | None
) -> dict[str, int]:
    """Width and passes, from the weights, the config or its size. Raises ConfigError."""
    if options is None:
        if config.d_model is None and config.size is None:
            raise ConfigError("without pretrained and size, d_model must be given")
        width = config.d_model or WIDTHS[config.size or "tiny"]
        stages = config.num_stages or max(FEWEST_STAGES, math.ceil(math.log2(window)) - 1)
        return {"d_model": width, "num_stages": stages}
    fixed = {"d_model": options["d_model"], "num_stages": options["n_stages"]}
    check_fixed(config, fixed)
    return fixed


def weights_folder(pretrained: str) -> Path:
    """The folder of the weights in the package, of a Hugging Face id, or a folder as it is: in the
    authors' format or one of our checkpoints. Raises WeightsNotFound, MissingExtra."""
    if pretrained == "published":
        return package_folder() / "weights"
    return find_weights(pretrained, published=HUB_ID, files=(CONFIG, WEIGHTS))


def package_folder() -> Path:
    """Where fracast is installed; it is not imported. Raises MissingExtra."""
    found = find_spec("fracast")
    if found is None or found.origin is None:
        raise MissingExtra("fracast", "models")
    return Path(found.origin).parent


def read_options(folder: Path) -> dict[str, Any]:
    """The network's options that stand beside its weights: in the authors' config, or in the card
    of one of our checkpoints."""
    card = folder / CARD
    raw = json.loads((card if card.is_file() else folder / CONFIG).read_text("utf-8"))
    options: dict[str, Any] = raw["network"] if card.is_file() else raw["model"]
    return options


def options_of(config: FracastConfig, horizon: int) -> dict[str, Any]:
    """The options of the network that a resolved config asks for.

    Every parameter is free of the window's length, so weights take any. From scratch the network
    speaks of `horizon` bars, over weights of as many as those do.
    """
    source = weights_folder(config.pretrained or "published")
    options = read_options(source) | {"W": config.window, "level_widths": [config.window]}
    if config.pretrained is not None:
        return options
    shape = {"d_model": config.d_model, "n_stages": config.num_stages}
    return options | shape | {"horizon": horizon, "future_queries": 1, "future_patch": horizon}
