"""Where Chronos-2's pretrained weights are, and what network they belong to."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from foresweep.errors import ConfigError
from foresweep.models.checkpoint import (
    CARD,
    CONFIG,
    WEIGHTS,
    find_weights,
    read_checkpoint,
    sha256_of,
)

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
