"""Kronos' hyperparameters, their defaults by size, and what is refused.

Sizes mini, small and base are the authors' (arXiv 2508.02739 and the published weights'
config.json); tiny is for laptops and tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from foresweep.errors import ConfigError
from foresweep.models.base import Facts
from foresweep.models.config import as_dict, config_class, hyper, make_config
from foresweep.models.training.loop import TrainingConfig, check_mode, resolve_training

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


def changed(config: KronosConfig, **values: Any) -> KronosConfig:
    """The config with these values instead, checked again."""
    return make_config(KronosConfig, {**as_dict(config), **values}, model="kronos")


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
    for name, value in fixed.items():
        wanted = getattr(config, name)
        if wanted is not None and wanted != value:
            raise ConfigError(
                f"kronos: {name}={wanted} contradicts the weights {config.pretrained!r}, which fix "
                f"it at {value}; leave it out, or train from scratch"
            )
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
    steps = config.max_steps or 1
    return min(round((config.tokenizer_fraction or 0) * steps), steps - 1)
