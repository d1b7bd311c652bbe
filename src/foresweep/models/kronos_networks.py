"""Kronos' two nets, from the authors' code: built at random, or loaded with published weights.

Pretrained weights come as the authors publish them: a tokenizer and a predictor, each with
config.json and model.safetensors, as two Hugging Face ids or in one folder with the subfolders
`tokenizer` and `model`; or as a checkpoint of ours. No pickle is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foresweep.errors import CheckpointError, WeightsNotFound
from foresweep.models.adapters import Layers, halves
from foresweep.models.base import Checkpoint
from foresweep.models.checkpoint import (
    CARD,
    find_weights,
    read_checkpoint,
    read_weights,
    sha256_of,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Architecture = Mapping[str, Mapping[str, Any]]
"""The authors' constructor arguments, of "tokenizer" and "predictor"."""

PUBLISHED = "NeoQuasar/Kronos-small"
TOKENIZERS = {
    "NeoQuasar/Kronos-mini": "NeoQuasar/Kronos-Tokenizer-2k",
    "NeoQuasar/Kronos-small": "NeoQuasar/Kronos-Tokenizer-base",
    "NeoQuasar/Kronos-base": "NeoQuasar/Kronos-Tokenizer-base",
}
FOLDERS = {"tokenizer": "tokenizer", "predictor": "model"}
FILES = ("config.json", "model.safetensors")


@dataclass(frozen=True, slots=True, eq=False)
class Nets:
    """Both nets of one Kronos."""

    tokenizer: Any
    predictor: Any

    def to(self, device: str | torch.device) -> Nets:
        """Both moved, in place."""
        self.tokenizer.to(device)
        self.predictor.to(device)
        return self

    def eval(self) -> Nets:
        """Both in eval mode, in place."""
        self.tokenizer.eval()
        self.predictor.eval()
        return self

    def parts(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer, "predictor": self.predictor}

    def state(self) -> dict[str, Tensor]:
        """Every tensor of both, on the CPU, as tokenizer.* and predictor.*"""
        return {
            f"{part}.{name}": tensor.detach().cpu()
            for part, net in self.parts().items()
            for name, tensor in net.state_dict().items()
        }


def build(architecture: Architecture) -> Nets:
    """Both nets at random, drawn from torch's generator."""
    from kronos_finance._vendor.kronos_model.kronos import Kronos, KronosTokenizer

    return Nets(
        KronosTokenizer(**architecture["tokenizer"]), Kronos(**architecture["predictor"])
    ).eval()


def layers_of(predictor: Any) -> Layers:
    """What of a predictor carries LoRA adapters, and what can be frozen. Adapters hang on every
    linear layer of the blocks and of the fine token's attention (as in Dettmers et al. 2023, arXiv
    2305.14314); the authors of Kronos publish no recipe."""
    lower, upper = halves("transformer", len(predictor.transformer))
    return Layers(
        adapted=("q_proj", "k_proj", "v_proj", "out_proj", "w1", "w2", "w3"),
        groups={
            "embedding": ("embedding", "time_emb"),
            "lower_half": lower,
            "upper_half": upper,
            "head": ("norm", "dep_layer", "head"),
        },
    )


def set_dropout(predictor: Any, rate: float) -> None:
    """Dropout of the feed-forward and residual paths of every block."""
    for block in predictor.transformer:
        block.ffn.ffn_dropout.p = rate
        block.self_attn.resid_dropout.p = rate


@dataclass(frozen=True, slots=True)
class Pretrained:
    """Where published weights lie on this machine, and what they are."""

    folders: Mapping[str, Path]  # of "tokenizer" and "predictor"; one and the same for our own
    architecture: Architecture

    @property
    def hash(self) -> str:
        """sha256 of the files of both nets."""
        digest = hashlib.sha256()
        for part in sorted(self.folders):
            for name in FILES:
                digest.update(sha256_of(self.folders[part] / name).encode())
        return digest.hexdigest()

    def load(self) -> Nets:
        """Both nets with these weights. Raises CheckpointError where they do not fit."""
        nets = build(self.architecture)
        if self.folders["tokenizer"] == self.folders["predictor"]:
            return load_state(nets, read_checkpoint(self.folders["tokenizer"]))
        for part, net in nets.parts().items():
            _load_file(net, self.folders[part] / "model.safetensors")
        return nets


def find_pretrained(name: str) -> Pretrained:
    """Weights named `published`, by a Hugging Face id, `ID+TOKENIZER_ID`, or by a folder.

    Raises WeightsNotFound, naming both ways out, and CheckpointError for a file that is broken.
    """
    folder = Path(name).expanduser()
    if (folder / CARD).is_file():
        checkpoint = read_checkpoint(folder)
        folders = dict.fromkeys(FOLDERS, folder)
        return Pretrained(folders, card_architecture(checkpoint))
    if folder.is_dir():
        folders = {part: _local(folder, sub) for part, sub in FOLDERS.items()}
    else:
        predictor, tokenizer = _ids(name)
        folders = {
            "tokenizer": find_weights(tokenizer, published=tokenizer, files=FILES),
            "predictor": find_weights(predictor, published=PUBLISHED, files=FILES),
        }
    return Pretrained(folders, {part: _settings(at) for part, at in folders.items()})


def card_architecture(checkpoint: Checkpoint) -> Architecture:
    """The architecture in a checkpoint's card. Raises CheckpointError."""
    found = checkpoint.card.get("architecture")
    if checkpoint.model != "kronos" or not isinstance(found, dict):
        raise CheckpointError(
            f"{checkpoint.path} is a checkpoint of {checkpoint.model!r}, not of kronos"
        )
    return found


def load_state(nets: Nets, checkpoint: Checkpoint) -> Nets:
    """Put a checkpoint's weights into both nets. Raises CheckpointError where they do not fit."""
    import torch

    weights = {k: torch.from_numpy(v) for k, v in read_weights(checkpoint).items()}
    for part, net in nets.parts().items():
        own = {k.removeprefix(f"{part}."): v for k, v in weights.items() if k.startswith(part)}
        _fill(net, own, checkpoint.path)
    return nets


def _ids(name: str) -> tuple[str, str]:
    """(predictor, tokenizer) Hugging Face ids."""
    predictor, _, tokenizer = name.partition("+")
    tokenizer = tokenizer or TOKENIZERS.get(PUBLISHED if name == "published" else predictor, "")
    if not tokenizer:
        raise WeightsNotFound(
            f"{name!r} is neither a folder here nor a Kronos whose tokenizer is known "
            f"({', '.join(TOKENIZERS)}); either name both as MODEL_ID+TOKENIZER_ID, or give "
            f"--pretrained a folder with the subfolders tokenizer and model"
        )
    return predictor, tokenizer


def _local(folder: Path, sub: str) -> Path:
    at = folder / sub
    absent = [f"{sub}/{f}" for f in FILES if not (at / f).is_file()]
    if absent:
        raise WeightsNotFound(
            f"{folder} has no {' and no '.join(absent)}; Kronos needs a folder with the "
            f"subfolders tokenizer and model, each with {' and '.join(FILES)}, or a Hugging Face id"
        )
    return at


def _settings(folder: Path) -> dict[str, Any]:
    """Constructor arguments in an authors' config.json, less what is not theirs."""
    file = folder / "config.json"
    try:
        found = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    if not isinstance(found, dict) or "s1_bits" not in found:
        raise CheckpointError(f"{file} is not the config.json of a Kronos net: it has no s1_bits")
    return found


def _load_file(net: Any, file: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    _fill(net, weights, file)


def _fill(net: Any, weights: Mapping[str, Tensor], where: Path) -> None:
    try:
        net.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{where} does not fit the architecture it names: {error}") from error
