"""Kronos' hyperparameters, their defaults by size, what is refused; and its two nets.

Sizes mini, small and base are the authors' (arXiv 2508.02739 and the published weights'
config.json); tiny is for laptops and tests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from foresweep.errors import CheckpointError, ConfigError, WeightsNotFound
from foresweep.models.base import Checkpoint, Facts, config_class, hyper
from foresweep.models.checkpoint import CARD, read_checkpoint, read_weights, sha256_of
from foresweep.models.hub import find_weights, kronos_pair
from foresweep.models.training.config import (
    TrainingConfig,
    changed,
    check_fixed,
    check_mode,
    resolve_training,
)
from foresweep.models.training.optimisation import Layers, halves

if TYPE_CHECKING:
    import torch
    from torch import Tensor


POSITIONS = 512
"""Bars of context and horizon together that the published small and base hold."""
MINI_POSITIONS = 2048
MINI_SHAPE = (4, 256)
"""Layers and width by which the published mini is known."""
TOKENIZER_HEADS = 4
CROSS_HEADS = 4
"""Heads of the layer that lets the fine token see the coarse one: fixed by the package."""


@config_class
class KronosConfig(TrainingConfig):
    """Hyperparameters of Kronos. None: by size, by the weights or by the sweep."""

    size: Literal["tiny", "mini", "small", "base"] | None = hyper(  # type: ignore[assignment]
        "tiny",
        "architecture when training from scratch",
        stage="architecture",
        probe=("tiny", "mini"),
    )
    target: Literal["return", "price"] | None = hyper(
        None,
        "prices as log ratios to the previous close in percent, or as z-scored levels; "
        "none: return from scratch, price with weights, which were trained on levels",
        stage="view",
        probe=("return", "price"),
    )
    prediction_length: int | None = hyper(
        None,
        "bars after the context in a training window; none: the horizon",
        unit="bars",
        probe=(1, 16),
        ge=1,
    )
    freeze_tokenizer: bool | None = hyper(
        None,
        "keep the tokenizer of the pretrained weights; none: yes with them, no from scratch",
        probe=(False, True, {"pretrained": "published"}),
    )
    tokenizer_fraction: float | None = hyper(
        None,
        "share of max_steps spent on the tokenizer, before the predictor; none: half",
        probe=(0.25, 0.75),
        gt=0,
        lt=1,
    )
    tokenizer_lr: float | None = hyper(
        None,
        "peak learning rate of the tokenizer; none: lr from scratch, 2e-4 with weights",
        probe=(1e-4, 1e-2),
        gt=0,
        le=1,
    )
    dropout: float | None = hyper(
        None,
        "of feed-forward and residual paths of the predictor; none: by size or by the weights",
        probe=(0.0, 0.5, {"lr": 1e-2}),
        ge=0,
        lt=1,
    )
    d_model: int | None = hyper(
        None, "width of the predictor", stage="architecture", probe=(32, 64), ge=8
    )
    num_layers: int | None = hyper(
        None, "blocks of the predictor", stage="architecture", probe=(1, 2), ge=1
    )
    num_heads: int | None = hyper(
        None, "attention heads of the predictor", stage="architecture", probe=(2, 4), ge=1
    )
    ff_dim: int | None = hyper(
        None, "width of the feed-forward layers", stage="architecture", probe=(32, 64), ge=4
    )
    token_bits: int | None = hyper(
        None,
        "bits of each of a bar's two tokens, coarse and fine",
        unit="bits",
        stage="architecture",
        probe=(4, 5),
        ge=2,
        le=12,
    )
    tokenizer_d_model: int | None = hyper(
        None, "width of the tokenizer", stage="architecture", probe=(32, 64), ge=8
    )
    tokenizer_layers: int | None = hyper(
        None,
        "layers of the tokenizer's encoder and of its decoder (blocks plus one)",
        stage="architecture",
        probe=(2, 3),
        ge=2,
    )
    num_samples: int = hyper(
        64, "paths drawn per forecast", unit="paths", stage="inference", probe=(10, 20), ge=1
    )
    temperature: float = hyper(
        1.0, "of the token draws", stage="inference", probe=(0.5, 1.0), gt=0, le=5
    )
    top_p: float = hyper(
        1.0,
        "share of the tokens' probability drawn from, likeliest first",
        stage="inference",
        probe=(0.3, 1.0),
        gt=0,
        le=1,
    )
    top_k: int | None = hyper(
        None,
        "number of tokens drawn from, likeliest first, in place of top_p; none: all",
        unit="tokens",
        stage="inference",
        probe=(2, None),
        ge=1,
    )


@dataclass(frozen=True, slots=True)
class Size:
    """Architecture fields of a size, and its dropout."""

    fields: Mapping[str, int]
    dropout: float


def size_of(name: str) -> Size:
    """The architecture of tiny, mini, small or base."""
    if name == "tiny":
        return Size(_fields(64, 2, 4, 128, 6, 64, 2), 0.0)
    if name == "mini":
        return Size(_fields(256, 4, 4, 512, 10, 256, 4), 0.2)
    if name == "small":
        return Size(_fields(512, 8, 8, 1024, 10, 256, 4), 0.25)
    return Size(_fields(832, 12, 16, 2048, 10, 256, 4), 0.2)


def _fields(*values: int) -> dict[str, int]:
    return dict(zip(ARCHITECTURE, values, strict=True))


ARCHITECTURE = (
    "d_model",
    "num_layers",
    "num_heads",
    "ff_dim",
    "token_bits",
    "tokenizer_d_model",
    "tokenizer_layers",
)


def architecture_of(config: KronosConfig) -> dict[str, dict[str, Any]]:
    """The authors' constructor arguments of both nets, for a resolved config from scratch.

    Everything that is no field is as the authors published it, but for the quantizer's
    group_size: with its (analytical) entropy it changes no loss, and 2 divides every codebook.
    """
    c = config
    bits = {"s1_bits": c.token_bits, "s2_bits": c.token_bits}
    quiet = {"ffn_dropout_p": 0.0, "attn_dropout_p": 0.0, "resid_dropout_p": 0.0}
    tokenizer = {
        "d_in": 6,
        "d_model": c.tokenizer_d_model,
        "n_heads": TOKENIZER_HEADS,
        "ff_dim": 2 * (c.tokenizer_d_model or 0),
        "n_enc_layers": c.tokenizer_layers,
        "n_dec_layers": c.tokenizer_layers,
        **quiet,
        **bits,
        "beta": 0.05,
        "gamma0": 1.0,
        "gamma": 1.1,
        "zeta": 0.05,
        "group_size": 2,
    }
    predictor = {
        "d_model": c.d_model,
        "n_layers": c.num_layers,
        "n_heads": c.num_heads,
        "ff_dim": c.ff_dim,
        **bits,
        "ffn_dropout_p": c.dropout,
        "resid_dropout_p": c.dropout,
        "attn_dropout_p": 0.0,
        "token_dropout_p": 0.0,
        "learn_te": True,
    }
    return {"tokenizer": tokenizer, "predictor": predictor}


def fields_of(architecture: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """The architecture fields that pretrained weights fix."""
    tokenizer, predictor = architecture["tokenizer"], architecture["predictor"]
    return _fields(
        *(int(predictor[k]) for k in ("d_model", "n_layers", "n_heads", "ff_dim", "s1_bits")),
        *(int(tokenizer[k]) for k in ("d_model", "n_enc_layers")),
    )


def positions_of(config: KronosConfig) -> int:
    """Bars of context and own ones that the nets of a resolved config see at once."""
    mini = (config.num_layers, config.d_model) == MINI_SHAPE
    return MINI_POSITIONS if mini else POSITIONS


def resolve_scratch(config: KronosConfig, facts: Facts) -> KronosConfig:
    """Every field filled in for random weights. Raises ConfigError."""
    check_mode(config)
    if config.freeze_tokenizer:
        raise ConfigError(
            "kronos: freeze_tokenizer=True from scratch would keep a random tokenizer; "
            "leave it out, or start from --pretrained weights"
        )
    if config.size is None:
        raise ConfigError("kronos: size is needed from scratch: tiny, mini, small or base")
    size = size_of(config.size)
    filled = {
        k: v if (v := getattr(config, k)) is not None else size.fields[k] for k in ARCHITECTURE
    }
    config = changed(
        config,
        **filled,
        target=config.target or "return",
        freeze_tokenizer=False,
        tokenizer_lr=config.tokenizer_lr or config.lr,
        dropout=size.dropout if config.dropout is None else config.dropout,
    )
    _check_widths(config)
    return _settle(config, facts)


def resolve_pretrained(
    config: KronosConfig, facts: Facts, architecture: Mapping[str, Mapping[str, Any]]
) -> KronosConfig:
    """Every field filled in for weights of this architecture. Raises ConfigError."""
    fixed = fields_of(architecture)
    check_mode(config, blocks=fixed["num_layers"])
    check_fixed(config, fixed)
    frozen = config.freeze_tokenizer is not False
    for name in ("tokenizer_lr", "tokenizer_fraction"):
        if frozen and getattr(config, name) is not None:
            raise ConfigError(
                f"kronos: {name}={getattr(config, name)} has no effect on a frozen tokenizer; "
                f"leave it out, or set freeze_tokenizer=False"
            )
    drop = float(architecture["predictor"]["resid_dropout_p"])
    config = changed(
        config,
        **fixed,
        target=config.target or "price",
        freeze_tokenizer=frozen,
        tokenizer_lr=None if frozen else config.tokenizer_lr or 2e-4,
        dropout=drop if config.dropout is None else config.dropout,
    )
    return _settle(config, facts)


def _check_widths(config: KronosConfig) -> None:
    """Rotary embeddings turn pairs: every head needs an even width."""
    for name, heads in (
        ("d_model", config.num_heads or 1),
        ("d_model", CROSS_HEADS),
        ("tokenizer_d_model", TOKENIZER_HEADS),
    ):
        width = getattr(config, name)
        if width % (2 * heads):
            raise ConfigError(
                f"kronos: {name}={width} cannot be split into {heads} heads of even width; "
                f"use a multiple of {2 * heads}"
            )


def _settle(config: KronosConfig, facts: Facts) -> KronosConfig:
    """Lengths, draws and training settled, once the architecture is."""
    _check_draws(config)
    length = config.prediction_length or facts.horizon
    fraction = None if config.freeze_tokenizer else config.tokenizer_fraction or 0.5
    trained = config.finetune != "none"
    _check_positions(config, length if trained else 0)
    config = changed(config, prediction_length=length, tokenizer_fraction=fraction)
    window = config.context_length + length
    return resolve_training(config, facts, window_bars=window, width=config.d_model)


def _check_positions(config: KronosConfig, ahead: int) -> None:
    """A training window must fit the positions; a forecast that reaches further slides, as the
    package's does."""
    positions = positions_of(config)
    if config.context_length + ahead <= positions:
        return
    labels = f" and prediction_length={ahead} bars ahead" if ahead else ""
    raise ConfigError(
        f"kronos: context_length={config.context_length}{labels} are more than the {positions} "
        f"bars that Kronos holds; use a context of at most {positions - ahead}"
        + (" or a shorter prediction_length" if ahead > 1 else "")
    )


def _check_draws(config: KronosConfig) -> None:
    """Raises ConfigError where top_k leaves top_p or itself without effect."""
    if config.top_k is None:
        return
    if config.top_p < 1:
        raise ConfigError(
            f"kronos: top_p={config.top_p:g} has no effect beside top_k={config.top_k}, which the "
            f"authors' sampler looks at first; give one"
        )
    vocabulary = 2 ** (config.token_bits or 0)
    if config.top_k >= vocabulary:
        raise ConfigError(
            f"kronos: top_k={config.top_k} has no effect on {vocabulary} tokens "
            f"(token_bits={config.token_bits}); use at most {vocabulary - 1}, or leave it out"
        )


def tokenizer_steps(config: KronosConfig) -> int:
    """How many of a resolved config's `max_steps` the tokenizer gets; one is left at least."""
    if config.finetune == "none":
        return 0
    steps = config.max_steps or 1
    return min(round((config.tokenizer_fraction or 0) * steps), steps - 1)


def longer(config: KronosConfig, steps: int) -> KronosConfig:
    """A resolved config whose training goes on to `steps`: the predictor's, beside the tokenizer
    that it has learnt on. Raises ConfigError where no step would be left for the predictor."""
    taken = tokenizer_steps(config) if config.tokenizer_fraction else 0
    if steps <= taken:
        raise ConfigError(
            f"kronos: max_steps={steps} leaves the predictor no step: its tokenizer has had "
            f"{taken} of {config.max_steps}; go on to {taken + 1} steps at least"
        )
    # of a tokenizer that had no step a quarter of one, which rounds to none: a share is above 0
    share = max(taken, 0.25) / steps if config.tokenizer_fraction else None
    return changed(config, max_steps=steps, tokenizer_fraction=share)


# Kronos' two nets, from the authors' code: built at random, or loaded with published weights.
#
# Pretrained weights come as the authors publish them, a tokenizer and a predictor, each with
# config.json and model.safetensors; they are named by one of
#
#     published, mini, small, base     the authors' (published is small), each with its tokenizer
#     NeoQuasar/Kronos-mini            a Hugging Face id of theirs, likewise
#     PREDICTOR+TOKENIZER              two ids or folders, as the authors' scripts write them
#     FOLDER                           with the subfolders `model` and `tokenizer`
#     FOLDER                           a checkpoint of ours
#
# No pickle is loaded.


Architecture = Mapping[str, Mapping[str, Any]]
"""The authors' constructor arguments, of "tokenizer" and "predictor"."""

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
        folders = {
            p: find_weights(x, published=x, files=FILES) for p, x in kronos_pair(name).items()
        }
    return Pretrained(folders, {part: _settings(part, at) for part, at in folders.items()})


def card_architecture(checkpoint: Checkpoint) -> Architecture:
    """The architecture in a checkpoint's card. Raises CheckpointError."""
    card = checkpoint.card
    architecture = card.get(
        "network", card.get("architecture")
    )  # the latter in checkpoints of 0.1.0's first months
    if checkpoint.model != "kronos" or not isinstance(architecture, dict):
        raise CheckpointError(
            f"{checkpoint.path} is a checkpoint of {checkpoint.model!r}, not of kronos"
        )
    return architecture


def load_state(nets: Nets, checkpoint: Checkpoint) -> Nets:
    """Put a checkpoint's weights into both nets. Raises CheckpointError where they do not fit."""
    import torch

    weights = {k: torch.from_numpy(v) for k, v in read_weights(checkpoint).items()}
    for part, net in nets.parts().items():
        own = {k.removeprefix(f"{part}."): v for k, v in weights.items() if k.startswith(part)}
        _fill(net, own, checkpoint.path)
    return nets


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
        stored = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    wanted = ARGUMENTS[part]
    absent = [k for k in wanted if not isinstance(stored, dict) or k not in stored]
    if absent:
        raise CheckpointError(
            f"{file} is not the config.json of a Kronos {part}: it has no {', '.join(absent)}"
        )
    return {k: stored[k] for k in wanted}


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
