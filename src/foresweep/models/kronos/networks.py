"""Kronos' two nets, from the authors' code: built at random, or loaded with published weights.

Pretrained weights come as the authors publish them, a tokenizer and a predictor, each with
config.json and model.safetensors; they are named by one of

    published, mini, small, base     the authors' (published is small), each with its tokenizer
    NeoQuasar/Kronos-mini            a Hugging Face id of theirs, likewise
    PREDICTOR+TOKENIZER              two ids or folders, as the authors' scripts write them
    FOLDER                           with the subfolders `model` and `tokenizer`
    FOLDER                           a checkpoint of ours

No pickle is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foresweep.errors import CheckpointError, WeightsNotFound
from foresweep.models.base import Checkpoint
from foresweep.models.checkpoint import CARD, find_weights, read_checkpoint, read_weights, sha256_of
from foresweep.models.training.optimisation import Layers, halves

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Architecture = Mapping[str, Mapping[str, Any]]
"""The authors' constructor arguments, of "tokenizer" and "predictor"."""

PUBLISHED = {
    "published": "NeoQuasar/Kronos-small",
    "mini": "NeoQuasar/Kronos-mini",
    "small": "NeoQuasar/Kronos-small",
    "base": "NeoQuasar/Kronos-base",
}
TOKENIZERS = {
    "NeoQuasar/Kronos-mini": "NeoQuasar/Kronos-Tokenizer-2k",
    "NeoQuasar/Kronos-small": "NeoQuasar/Kronos-Tokenizer-base",
    "NeoQuasar/Kronos-base": "NeoQuasar/Kronos-Tokenizer-base",
}
FOLDERS = {"tokenizer": "tokenizer", "predictor": "model"}
FILES = ("config.json", "model.safetensors")
BITS = ("s1_bits", "s2_bits")
SHARED = ("d_model", "n_heads", "ff_dim", "ffn_dropout_p", "attn_dropout_p", "resid_dropout_p")
ARGUMENTS = {
    "tokenizer": (
        *BITS,
        *SHARED,
        *("d_in", "n_enc_layers", "n_dec_layers"),
        *("beta", "gamma0", "gamma", "zeta", "group_size"),
    ),
    "predictor": (*BITS, *SHARED, "n_layers", "token_dropout_p", "learn_te"),
}
"""What the authors' constructors want, and their config.json holds."""


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

    def blocks(self) -> list[Any]:
        """What is repeated in both, and can be recomputed to save memory."""
        tokenizer = self.tokenizer
        return [*self.predictor.transformer, *tokenizer.encoder, *tokenizer.decoder]

    def state(self) -> dict[str, Tensor]:
        """Every tensor of both, as tokenizer.* and predictor.*"""
        return {
            f"{part}.{name}": tensor
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
    """The weights of this name: see the module's docstring.

    Raises WeightsNotFound, naming both ways out, and CheckpointError for a file that is broken or
    is no such net.
    """
    folder = Path(name).expanduser()
    if (folder / CARD).is_file():
        checkpoint = read_checkpoint(folder)
        folders = dict.fromkeys(FOLDERS, folder)
        return Pretrained(folders, card_architecture(checkpoint))
    if folder.is_dir() and not (folder / "config.json").is_file():
        folders = {part: _local(folder, sub) for part, sub in FOLDERS.items()}
    else:
        folders = {p: find_weights(x, published=x, files=FILES) for p, x in _pair(name).items()}
    return Pretrained(folders, {part: _settings(part, at) for part, at in folders.items()})


def card_architecture(checkpoint: Checkpoint) -> Architecture:
    """The architecture in a checkpoint's card. Raises CheckpointError."""
    card = checkpoint.card
    found = card.get(
        "network", card.get("architecture")
    )  # the latter in checkpoints of 0.1.0's first months
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


def _pair(name: str) -> dict[str, str]:
    """Hugging Face id or folder of each net."""
    predictor, _, tokenizer = name.partition("+")
    predictor = predictor if Path(predictor).is_dir() else PUBLISHED.get(predictor, predictor)
    tokenizer = tokenizer or TOKENIZERS.get(predictor, "")
    if not tokenizer:
        what = "one net" if Path(name).expanduser().is_dir() else "no folder here"
        raise WeightsNotFound(
            f"{name!r} is {what} and no Kronos whose tokenizer is known ({', '.join(TOKENIZERS)}); "
            f"either name both as PREDICTOR+TOKENIZER (Hugging Face ids or folders), or give "
            f"--pretrained a folder with the subfolders tokenizer and model"
        )
    return {"tokenizer": tokenizer, "predictor": predictor}


def _local(folder: Path, sub: str) -> Path:
    at = folder / sub
    absent = [f"{sub}/{f}" for f in FILES if not (at / f).is_file()]
    if absent:
        raise WeightsNotFound(
            f"{folder} has no {' and no '.join(absent)}; Kronos needs a folder with the "
            f"subfolders tokenizer and model, each with {' and '.join(FILES)}, or a Hugging Face id"
        )
    return at


def _settings(part: str, folder: Path) -> dict[str, Any]:
    """Constructor arguments in an authors' config.json; whatever else it holds is not theirs."""
    file = folder / "config.json"
    try:
        found = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    wanted = ARGUMENTS[part]
    absent = [k for k in wanted if not isinstance(found, dict) or k not in found]
    if absent:
        raise CheckpointError(
            f"{file} is not the config.json of a Kronos {part}: it has no {', '.join(absent)}"
        )
    return {k: found[k] for k in wanted}


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
