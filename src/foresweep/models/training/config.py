"""The hyperparameters that every trained family shares, and how they are settled before hashing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from foresweep.errors import ConfigError
from foresweep.models.base import Facts, config_class, hyper, hyperparameters
from foresweep.models.calibration import CalibrationConfig
from foresweep.models.representation import Covariates, Representation, Scaling, Target

TINY_STEPS, DEFAULT_STEPS = 300, 1000
"""Optimiser steps when neither max_steps nor max_epochs is given: tiny from scratch, and others."""
BF16_WIDTH = 256
"""Width from which bfloat16 pays in all three models where the device has units for it: 1.4 to 1.6
times faster over a whole short training on a CPU with AVX512_BF16; at 128 0.96 to 1.3 times, at 64
0.7 to 1.0 times (benchmarks/precision.py)."""
LORA_R = 8
"""Rank of `Chronos2Pipeline.fit`; its alpha is twice the rank."""

Finetune = Literal["full", "lora", "none"]
Freeze = Literal["none", "embedding", "lower_half", "backbone"]
Precision = Literal["fp32", "bf16"]

_WEIGHTS = {"pretrained": "FOLDER"}
"""Setting of a probe that only bites with pretrained weights, whichever folder holds them."""
_LORA = {**_WEIGHTS, "finetune": "lora"}


@config_class
class TrainingConfig(CalibrationConfig):
    """Hyperparameters that every trained family shares; families inherit and add their own."""

    pretrained: str | None = hyper(
        None,
        "weights to start from: published, a Hugging Face id or a folder; none: from scratch",
        stage="view",
        probe=(None, None),
    )
    size: Literal["tiny", "small", "base"] | None = hyper(
        "tiny",
        "architecture when training from scratch",
        stage="architecture",
        probe=("tiny", "small"),
    )
    context_length: int = hyper(
        128, "bars seen up to the origin", unit="bars", stage="view", probe=(64, 128), ge=16
    )
    lr: float = hyper(1e-3, "peak learning rate of AdamW", probe=(1e-3, 3e-3), gt=0, le=1)
    batch_size: int = hyper(16, "windows per optimiser step", unit="windows", probe=(8, 16), ge=1)
    max_steps: int | None = hyper(None, "optimiser steps", unit="steps", probe=(4, 8), ge=1)
    max_epochs: int | None = hyper(
        None,
        "passes over the training bars, in place of max_steps",
        unit="epochs",
        probe=(1, 2, {"max_steps": None}),
        ge=1,
    )
    warmup_fraction: float = hyper(
        0.1, "share of the steps spent warming up", probe=(0.0, 0.5), ge=0, lt=1
    )
    schedule: Literal["cosine", "linear", "constant", "wsd"] = hyper(
        "cosine",
        "learning rate after warm-up (wsd: stable, then decay over the last fifth)",
        probe=("cosine", "constant"),
    )
    weight_decay: float = hyper(0.01, "AdamW weight decay", probe=(0.0, 10.0), ge=0)
    beta2: float = hyper(
        0.999,
        "AdamW's decay of the mean squared gradient",
        probe=(0.95, 0.999),
        gt=0,
        lt=1,
    )
    gradient_clip: float = hyper(1.0, "largest gradient norm", probe=(0.01, 100.0), gt=0)
    ema_decay: float | None = hyper(
        None,
        "forecast with an exponential moving average of the weights, at most this slow (it starts "
        "faster: min(ema_decay, (1 + step) / (10 + step))); none: the weights themselves",
        probe=(None, 0.9),
        gt=0,
        lt=1,
    )
    patience: int | None = hyper(
        None,
        "scorings on tune in a row without a better pinball after which training ends; none: never",
        unit="scorings",
        probe=(None, 1),
        ge=1,
    )
    precision: Precision | None = hyper(
        None,
        "of the matrix products in training (forecasts are float32); none: bf16 from width 256 "
        "where the device has units for it, else fp32",
        probe=("fp32", "bf16"),
    )
    sign_flip: bool = hyper(
        False,
        "mirror half of the training windows: log prices about the first close, high and low "
        "swapped",
        probe=(False, True),
    )
    time_scale: int = hyper(
        1,
        "largest number of bars merged into one in training windows, drawn evenly from 1",
        unit="bars",
        probe=(1, 2),
        ge=1,
        le=16,
    )
    finetune: Finetune = hyper(
        "full",
        "what of pretrained weights is trained: all of them, LoRA adapters, merged afterwards, or "
        "none (zero-shot)",
        stage="view",
        probe=("full", "lora", _WEIGHTS),
    )
    freeze: Freeze = hyper(
        "none",
        "layers of pretrained weights that stay as they are: the input embedding; it and the lower "
        "half of the blocks; or all blocks, so that embeddings and head are trained",
        probe=("none", "backbone", _WEIGHTS),
    )
    lora_r: int | None = hyper(
        None, "rank of the adapters; none: 8", probe=(2, 8, {**_LORA, "lora_alpha": 8}), ge=1
    )
    lora_alpha: int | None = hyper(
        None, "their scale is lora_alpha / lora_r; none: 2 lora_r", probe=(4, 64, _LORA), ge=1
    )
    lora_dropout: float | None = hyper(
        None, "dropout before the adapters; none: 0", probe=(0.0, 0.5, _LORA), ge=0, lt=1
    )


@config_class
class ViewConfig(TrainingConfig):
    """Hyperparameters of families that see prices through a `Representation`."""

    target: Target = hyper(
        "overlapping",
        "what the close is seen as: the returns of every lead, one-bar returns, or the log price",
        stage="view",
        probe=("overlapping", "return"),
    )
    covariates: Covariates = hyper(
        "ohlcv",
        "past-only channels beside the close: range, opening gap and volume",
        stage="view",
        probe=("none", "ohlcv"),
    )
    scaling: Scaling = hyper(
        "none",
        "what returns, range and gap are divided by: nothing, or the volatility known before",
        stage="view",
        probe=("none", "volatility"),
    )

    def view(self, horizon: int) -> Representation:
        """How a network of this config sees prices."""
        return Representation(self.target, self.covariates, horizon, self.scaling)


@config_class
class SeriesConfig(TrainingConfig):
    """Hyperparameters of families that see closes alone, each channel a series for itself."""

    target: Target = hyper(
        "price", "what the close is seen as", stage="view", probe=("price", "return")
    )

    def view(self, horizon: int) -> Representation:
        """How a network of this config sees prices."""
        return Representation(self.target, "none", horizon)


C = TypeVar("C", bound=TrainingConfig)


def check_lag(config: ViewConfig | SeriesConfig, horizon: int) -> None:
    """Raises ConfigError for a context of which the first bars, which only serve to form returns,
    leave less than half."""
    lag = config.view(horizon).lag
    if config.context_length < 2 * lag:
        raise ConfigError(
            f"context_length={config.context_length} is too short for target={config.target!r} at "
            f"horizon {horizon}; use at least {2 * lag}"
        )


def check_mode(config: TrainingConfig, *, blocks: int | None = None) -> None:
    """Refuse what `finetune` and `freeze` leave without effect, before a family fills in anything.

    A family calls it first in `resolve`, on the config as it was given (`resolve_training` calls it
    too, for families that call that first). `blocks` is the network's number of layers, if known.

    Raises ConfigError, by name: LoRA, freezing or zero-shot from scratch, LoRA's fields without
    LoRA, freezing beside LoRA, the lower half of a single block, and every field of stage training
    that is not at its default where nothing is trained.
    """
    if config.pretrained is None:
        _check_scratch(config)
    if config.finetune == "none":
        _refuse(config, _given(config), "which takes no step")
    if config.finetune != "lora":
        _refuse(config, [n for n in _given(config) if n.startswith("lora_")], "")
    elif config.freeze != "none":
        _refuse(config, ["freeze"], "which keeps all weights but its adapters")
    if config.freeze == "lower_half" and blocks is not None and blocks < 2:
        raise ConfigError(
            f"freeze='lower_half' of {blocks} block freezes none; use 'embedding' or 'backbone'"
        )


def _check_scratch(config: TrainingConfig) -> None:
    """Raises ConfigError for modes that need weights."""
    if config.finetune == "none":
        raise ConfigError(
            "finetune='none' would forecast with random weights; give pretrained weights "
            "(published, a Hugging Face id or a folder), or train with finetune='full'"
        )
    for name, usual in (("finetune", "full"), ("freeze", "none")):
        value = getattr(config, name)
        if value != usual:
            raise ConfigError(
                f"{name}={value!r} would keep a backbone of random weights; give pretrained "
                f"weights or train in full"
            )


def _refuse(config: TrainingConfig, names: list[str], why: str) -> None:
    if names:
        listed = ", ".join(f"{n}={getattr(config, n)!r}" for n in names)
        raise ConfigError(
            f"{listed} {'has' if len(names) == 1 else 'have'} no effect with "
            f"finetune={config.finetune!r}{', ' if why else ''}{why}; leave "
            f"{'it' if len(names) == 1 else 'them'} out"
        )


def _given(config: TrainingConfig) -> list[str]:
    """Fields of stage training that are not at their default."""
    every = hyperparameters(type(config))
    return [h.name for h in every if h.stage == "training" and getattr(config, h.name) != h.default]


def resolve_training(
    config: C,
    facts: Facts,
    *,
    window_bars: int | None = None,
    default_steps: int | None = None,
    width: int | None = None,
) -> C:
    """The config with its training settled: `max_steps` set, `max_epochs` turned into it, LoRA's
    defaults filled in, `precision` chosen by `width` (the network's; not given: fp32) and device.
    Where nothing is trained (finetune none) every training field is at its default, so that there
    is one such config and one hash of it: a family that fills in fields of its own calls this last.

    One epoch is as many steps as it takes for the drawn windows to hold the bars of train once:
    ceil(train_bars / (batch_size * window_bars)), where `window_bars` is what one window teaches
    (default: context_length). From scratch epochs are `facts.step_floor` steps at least: those of a
    small panel are so short that "20 epochs" would leave a network untrained. `facts.step_cap` caps
    either.

    Raises ConfigError when both max_steps and max_epochs are given, when the context is longer
    than the sweep allows, when `size` stands beside pretrained weights, and for what `check_mode`
    refuses.
    """
    _check_start(config, facts)
    if config.finetune == "none":
        return changed(config, **_defaults(config))
    check_mode(config)
    if config.max_steps is not None and config.max_epochs is not None:
        raise ConfigError(
            f"max_steps={config.max_steps} and max_epochs={config.max_epochs} exclude each other; "
            f"give one"
        )
    steps = config.max_steps or default_steps
    if steps is None:
        steps = TINY_STEPS if config.size == "tiny" else DEFAULT_STEPS
    if config.max_epochs is not None:
        bars = config.batch_size * (window_bars or config.context_length)
        steps = config.max_epochs * math.ceil(facts.train_bars / bars)
        if config.pretrained is None:
            steps = max(steps, facts.step_floor)
    capped = min(steps, facts.step_cap or steps)
    bf16 = facts.fast_bf16 and width is not None and width >= BF16_WIDTH
    precision = config.precision or ("bf16" if bf16 else "fp32")
    settled = {"max_steps": capped, "max_epochs": None, "precision": precision}
    return changed(config, **settled, **_adapters(config))


def chosen_shape(config: TrainingConfig, usual: Mapping[str, int]) -> dict[str, int]:
    """A network's shape from scratch: the config's own fields where it has them, else those of its
    size. Raises ConfigError for a `d_model` that gives `num_heads` heads no even width each."""
    own = {name: getattr(config, name) for name in usual}
    shape = {name: usual[name] if value is None else value for name, value in own.items()}
    if shape["d_model"] % (2 * shape["num_heads"]):
        raise ConfigError(
            f"d_model={shape['d_model']} does not give {shape['num_heads']} heads an even width "
            f"each; use a multiple of {2 * shape['num_heads']}"
        )
    return shape


def check_fixed(config: TrainingConfig, fixed: Mapping[str, int]) -> None:
    """Raises ConfigError for an architecture field that contradicts what the weights have fixed."""
    for name, value in fixed.items():
        wanted = getattr(config, name)
        if wanted not in (None, value):
            raise ConfigError(
                f"{name}={wanted} contradicts pretrained={config.pretrained!r}, whose weights have "
                f"{name}={value}; leave it out, or train from scratch"
            )


def _check_start(config: TrainingConfig, facts: Facts) -> None:
    """Raises ConfigError for a context too long, a size beside weights, zero-shot from scratch."""
    if config.context_length > facts.max_context:
        raise ConfigError(
            f"context_length={config.context_length} is more than this sweep's max_context "
            f"{facts.max_context}; use at most {facts.max_context} (--max-context allows more only "
            f"where train is long enough)"
        )
    if config.pretrained is not None and config.size is not None:
        raise ConfigError(
            f"size={config.size!r} has no effect with pretrained={config.pretrained!r}, whose "
            f"weights fix the architecture; leave size out (null)"
        )
    if config.pretrained is None:
        _check_scratch(config)


def _adapters(config: TrainingConfig) -> dict[str, Any]:
    """LoRA's fields, filled in where it is used."""
    if config.finetune != "lora":
        return {}
    r = config.lora_r or LORA_R
    return {
        "lora_r": r,
        "lora_alpha": config.lora_alpha or 2 * r,
        "lora_dropout": config.lora_dropout or 0.0,
    }


def _defaults(config: TrainingConfig) -> dict[str, Any]:
    every = hyperparameters(type(config))
    return {h.name: h.default for h in every if h.stage == "training"}


def changed(config: C, **values: Any) -> C:
    """The config with these values instead, checked again."""
    settled: C = dataclasses.replace(config, **values)  # type: ignore[type-var]
    return settled
