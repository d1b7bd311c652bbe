"""Typed configs: what a hyperparameter is, how it is checked, hashed and probed.

A config is a frozen pydantic dataclass whose fields are all made by `hyper`. Unknown keys and
values out of bounds become ConfigError or UnknownName with the nearest name. Every field declares
a probe, two values and the setting in which they must lead to different forecasts; the contract
suite runs it, so a field without effect fails a test.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import pydantic
from pydantic import Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from foresweep.errors import ConfigError, UnknownName

SCHEMA_VERSION = 2
"""Part of every config hash: raise it when a field changes its meaning."""

Stage = Literal["training", "view", "architecture", "inference", "calibration"]
"""training: matters to the training alone; view: matters to what a model sees, trained or not, and
needs a new training; architecture: fixed by pretrained weights; inference: swept on one checkpoint
without training again; calibration: what is done to its forecasts, fitted on tune."""
WITHOUT_TRAINING: frozenset[Stage] = frozenset({"inference", "calibration"})
"""Stages that need no new training: no part of the train_hash."""

FREEZE_BACKBONE = "freeze_backbone"
"""Former name of `freeze`: still taken, true for backbone and false for none."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Probe:
    """Two values of a field that must change the outcome, and the other fields that let it bite."""

    first: Any
    second: Any
    setting: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def hyper(
    default: Any,
    doc: str,
    *,
    probe: tuple[Any, Any] | tuple[Any, Any, Mapping[str, Any]],
    unit: str = "",
    stage: Stage = "training",
    **bounds: Any,
) -> Any:
    """A hyperparameter: default, one-line doc, unit, stage, probe, pydantic bounds (ge, le)."""
    extra: Any = {"unit": unit, "stage": stage, "probe": Probe(*probe)}
    return Field(default=default, description=doc, json_schema_extra=extra, **bounds)


config_class = pydantic_dataclass(
    frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid", strict=False)
)
"""Decorator of every Config class."""


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """What the docs, the CLI and the contract suite know of one field."""

    name: str
    default: Any
    doc: str
    unit: str
    stage: Stage
    probe: Probe


def hyperparameters(config_type: type[Any]) -> tuple[Hyperparameter, ...]:
    """Every field of a Config class, in order; what comes after training last."""
    found = []
    for f in dataclasses.fields(config_type):
        info: Any = f.default
        extra = info.json_schema_extra
        found.append(
            Hyperparameter(
                f.name,
                info.default,
                info.description,
                extra["unit"],
                extra["stage"],
                extra["probe"],
            )
        )
    return tuple(sorted(found, key=lambda h: h.stage == "calibration"))


def make_config(config_type: type[T], values: Mapping[str, Any], *, model: str) -> T:
    """The checked config. Raises UnknownName for a key, ConfigError for a value."""
    known = [f.name for f in dataclasses.fields(config_type)]  # type: ignore[arg-type]
    values = _renamed(values, known, model)
    for key in values:
        if key not in known:
            raise UnknownName("hyperparameter", key, known, where=f"of {model}")
    try:
        return config_type(**values)
    except pydantic.ValidationError as error:
        raise ConfigError(f"{model}: {_first_line(error)}") from error


def _renamed(values: Mapping[str, Any], known: list[str], model: str) -> Mapping[str, Any]:
    """The values under today's names. Raises ConfigError where both names are given."""
    if FREEZE_BACKBONE not in values or FREEZE_BACKBONE in known or "freeze" not in known:
        return values
    if "freeze" in values:
        raise ConfigError(
            f"{model}: {FREEZE_BACKBONE}={values[FREEZE_BACKBONE]} is the former name of "
            f"freeze={values['freeze']!r}; give freeze alone"
        )
    rest = {k: v for k, v in values.items() if k != FREEZE_BACKBONE}
    return {**rest, "freeze": "backbone" if values[FREEZE_BACKBONE] else "none"}


def _first_line(error: pydantic.ValidationError) -> str:
    """`lr=-1: input should be greater than 0` for each problem."""
    lines = []
    for e in error.errors():
        what = str(e["msg"]).removeprefix("Value error, ")
        name = ".".join(str(x) for x in e["loc"])
        lines.append(f"{name}={e['input']!r}: {what}" if name else what)
    return "; ".join(lines)


def as_dict(config: Any) -> dict[str, Any]:
    """Flat, JSON-able: what is stored and hashed."""
    return dataclasses.asdict(config)


def config_hash(config: Any, *, model: str, weights_hash: str = "", inference: bool = True) -> str:
    """sha256 of model, schema version, every resolved field and the pretrained weights' hash.

    With `inference=False` the fields of stages WITHOUT_TRAINING are left out: the train_hash.
    """
    fields = {h.name: h for h in hyperparameters(type(config))}
    chosen = {
        k: v
        for k, v in as_dict(config).items()
        if inference or fields[k].stage not in WITHOUT_TRAINING
    }
    text = json.dumps([model, SCHEMA_VERSION, weights_hash, chosen], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
