"""Where Toto's pretrained weights are, what network they belong to, and that network."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from foresweep.errors import ModelError
from foresweep.models.base import Checkpoint
from foresweep.models.checkpoint import (
    CARD,
    CONFIG,
    WEIGHTS,
    find_weights,
    read_checkpoint,
    read_weights,
    sha256_of,
)
from foresweep.models.toto_network import MIXTURE, build, package

PUBLISHED = "Datadog/Toto-Open-Base-1.0"


def weights_folder(pretrained: str) -> Path:
    """The folder of pretrained weights: `published`, a Hugging Face id, a folder in the authors'
    format (config.json and model.safetensors), or a checkpoint of Toto. Raises WeightsNotFound."""
    return find_weights(pretrained, published=PUBLISHED, files=(CONFIG, WEIGHTS))


def read_options(folder: Path) -> dict[str, Any]:
    """The arguments of the authors' constructor for the weights in a folder.

    Raises ModelError for a folder that holds another model, CheckpointError for a damaged
    checkpoint.
    """
    file = folder / CONFIG
    if (folder / CARD).is_file():
        options = options_of(read_checkpoint(folder))
    else:
        try:
            options = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise ModelError(f"{file} is not JSON: {error}") from error
    wanted = {"patch_size", "stride", "embed_dim", "output_distribution_kwargs"}
    if not isinstance(options, dict) or not wanted <= set(options):
        raise ModelError(f"{file} is not a config of Toto 1.0 (it lacks patch_size and others)")
    if options["stride"] != options["patch_size"] or options.get("output_distribution_classes") != [
        MIXTURE
    ]:
        raise ModelError(
            f"{folder}: only Toto 1.0 with a Student-t mixture and stride = patch_size"
        )
    return {**options, "use_memory_efficient_attention": False}


def options_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """The same of one of our checkpoints. Raises ModelError for another model's."""
    options = checkpoint.card.get("network")
    if checkpoint.model != "toto" or not isinstance(options, dict):
        raise ModelError(
            f"{checkpoint.path} is a checkpoint of {checkpoint.model}, whose weights fit no Toto "
            f"network; give one of toto"
        )
    return options


def hash_of_weights(folder: Path) -> str:
    """sha256 over the network's description and its weights. Raises what `read_options` raises."""
    options = json.dumps(read_options(folder), sort_keys=True)
    return hashlib.sha256((options + sha256_of(folder / WEIGHTS)).encode()).hexdigest()


def load_pretrained(folder: Path, dropout: float) -> Any:
    """The network with the weights of a folder, in the authors' format or ours. Raises ModelError.

    `Toto.from_pretrained` does not work with huggingface_hub >= 1, and leaves a parameter that
    the file lacks at its random start; here that is refused.
    """
    if (folder / CARD).is_file():
        checkpoint = read_checkpoint(folder)
        network = build({**options_of(checkpoint), "dropout": dropout})
        fill(network, checkpoint)
        return network
    from safetensors import safe_open

    toto = package().Toto
    with safe_open(folder / WEIGHTS, framework="pt") as stored:
        names = set(toto._map_state_dict_keys(dict.fromkeys(stored.keys(), 0), False))
    try:
        model = toto.load_from_checkpoint(
            str(folder), strict=False, dropout=dropout, use_memory_efficient_attention=False
        )
    except RuntimeError as error:
        raise ModelError(f"{folder}: weights and config.json do not fit: {error}") from error
    lacking = sorted(set(dict(model.named_parameters())) - names)
    if lacking:
        raise ModelError(
            f"{folder}: model.safetensors lacks {len(lacking)} parameters: {lacking[0]}"
        )
    return model.model


def fill(network: Any, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's weights into a network. Raises ModelError where they do not fit."""
    import torch

    weights = {k: torch.from_numpy(v) for k, v in read_weights(checkpoint).items()}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(f"{checkpoint.path}: weights do not fit: {error}") from error
