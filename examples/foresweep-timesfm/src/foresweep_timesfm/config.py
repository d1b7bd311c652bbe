"""TimesFM's hyperparameters, and how a config is settled before it is hashed and trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foresweep.errors import ConfigError
from foresweep.models.base import Facts, config_class, hyper
from foresweep.models.checkpoint import CONFIG, WEIGHTS, read_network
from foresweep.models.hub import find_weights
from foresweep.models.training.config import (
    SeriesConfig,
    changed,
    check_fixed,
    check_lag,
    check_mode,
    chosen_shape,
    resolve_training,
)

NAME = "timesfm"
HUB_ID = "google/timesfm-2.5-200m-transformers"


@dataclass(frozen=True, slots=True)
class Shape:
    """What pretrained weights fix, and a size or the config chooses from scratch."""

    patch_size: int
    d_model: int
    num_layers: int
    num_heads: int


SIZES = {
    "tiny": Shape(patch_size=8, d_model=64, num_layers=2, num_heads=4),
    "small": Shape(patch_size=16, d_model=256, num_layers=6, num_heads=8),
    "base": Shape(patch_size=32, d_model=1280, num_layers=20, num_heads=16),  # as published
}
THEIRS = {
    "patch_size": "patch_length",
    "d_model": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
}
"""What the authors' config.json calls the fields of a shape."""


@config_class
class TimesFMConfig(SeriesConfig):
    """The shared hyperparameters, and TimesFM's own."""

    flip_invariance: bool = hyper(
        True,
        "forecast the mirrored series, too, and take the mean, so that what rises is forecast as "
        "what falls is; twice the work",
        stage="view",
        probe=(True, False),
    )
    patch_size: int | None = hyper(
        None,
        "bars that a token stands for",
        unit="bars",
        stage="architecture",
        probe=(8, 16),
        ge=1,
    )
    d_model: int | None = hyper(
        None, "width of the network", stage="architecture", probe=(16, 32), ge=2
    )
    num_layers: int | None = hyper(None, "blocks", stage="architecture", probe=(1, 2), ge=1)
    num_heads: int | None = hyper(None, "attention heads", stage="architecture", probe=(1, 2), ge=1)


def settle(config: TimesFMConfig, facts: Facts) -> TimesFMConfig:
    """The config with every None filled in. Raises ConfigError, WeightsNotFound."""
    if config.pretrained is None:
        check_mode(config)
        config = changed(config, **chosen_shape(config, asdict(SIZES[config.size or "tiny"])))
    else:
        core = read_core(weights_folder(config.pretrained))
        check_mode(config, blocks=core["num_hidden_layers"])
        fixed = {ours: int(core[theirs]) for ours, theirs in THEIRS.items()}
        check_fixed(config, fixed)
        config = changed(config, **fixed)
        if facts.horizon > core["horizon_length"]:
            raise ConfigError(
                f"a horizon of {facts.horizon} bars is beyond the {core['horizon_length']} that "
                f"the weights {config.pretrained!r} speak of; train from scratch or shorten it"
            )
    check_lag(config, facts.horizon)
    if config.sign_flip and config.flip_invariance:
        raise ConfigError(
            "sign_flip=True has no effect with flip_invariance=True, which learns of a mirrored "
            "window what it learns of the window; leave one of them out"
        )
    return resolve_training(config, facts, width=config.d_model)


def weights_folder(pretrained: str) -> Path:
    """The folder of pretrained weights: `published`, a Hugging Face id, a folder that
    `save_pretrained` of transformers wrote, or one of our checkpoints. Raises WeightsNotFound."""
    return find_weights(pretrained, published=HUB_ID, files=(CONFIG, WEIGHTS))


def read_core(folder: Path) -> dict[str, Any]:
    """config.json of the network in a folder of weights, or what the card of one of our checkpoints
    says. Raises ConfigError where it is another model's, CheckpointError for a damaged one."""
    core = read_network(folder, NAME)
    kind = core.get("model_type")
    if kind != "timesfm2_5":
        raise ConfigError(
            f"{folder} holds no TimesFM 2.5 of transformers (model_type: {kind}); give "
            f"{HUB_ID} or a folder that TimesFm2_5ModelForPrediction.save_pretrained wrote"
        )
    return core
