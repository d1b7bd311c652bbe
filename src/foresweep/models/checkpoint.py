"""Checkpoints: a folder of safetensors, config and card, and what its weights may have seen.

    model.safetensors   weights (absent for models that have none)
    config.json         {"model": name, "config": resolved config}
    card.json           what is told about it, versions, the sha256 of the other files and of itself

It is written whole or not at all. No pickle is ever written or loaded. Needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from foresweep.data.files import sync_folder, write_bytes_atomic, write_synced
from foresweep.errors import CheckpointError, ConfigError, UsageError
from foresweep.models.base import OURS, Checkpoint, ForecastModel, brought_by, installed
from foresweep.models.hub import is_published

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "card.json"
MOST_AHEAD = 100_000
"""Bars: no horizon of a checkpoint is longer."""
SUM = "sha256"
"""In a card: of all else that it says. Older cards have none."""
PACKAGES = (
    "foresweep",
    "numpy",
    "torch",
    "transformers",
    "timecopilot-toto",
    "kronos-finance",
    "chronos-forecasting",
)

Weights = Mapping[str, NDArray[Any]]


def write_checkpoint(
    path: Path,
    *,
    model: str,
    config: Mapping[str, Any],
    weights: Weights | None = None,
    card: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Write a new checkpoint folder and return it.

    It is built under a temporary name, fsynced and renamed: a reader sees all of it or nothing.
    Raises CheckpointError where `path` is taken or cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        files = _fill(temporary, model, config, weights)
        full = {
            **(card or {}),
            "versions": versions(model),
            "files": files,
        }
        content = _card(full)
        write_synced(temporary / CARD, content)
        os.rename(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"cannot write checkpoint {path}: {error.strerror or error}; "
            f"choose a folder that is writable and new"
        ) from error
    return Checkpoint(path, model, dict(config), json.loads(content))


def derive_checkpoint(
    source: Path, path: Path, *, config: Mapping[str, Any], leave: tuple[str, ...] = ()
) -> Checkpoint:
    """A new checkpoint folder with the weights of another, verified, and a config of its own.

    For configs that differ in nothing that was trained. Files named in `leave` stay behind, and
    the new card begins as the old one did when training wrote it. Raises CheckpointError.
    """
    earlier = read_checkpoint(source)
    kept = [name for name in earlier.card["files"] if name not in (CONFIG, *leave)]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.derived")
    shutil.rmtree(temporary, ignore_errors=True)
    written = write_checkpoint(temporary, model=earlier.model, config=config, card=earlier.card)
    files = dict(written.card["files"])
    try:
        for name in kept:
            shutil.copyfile(source / name, temporary / name)
            files[name] = earlier.card["files"][name]
        write_bytes_atomic(temporary / CARD, _card({**written.card, "files": files}))
        os.rename(temporary, path)  # as with all checkpoints: a reader sees all of it or nothing
        sync_folder(path.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
    return read_checkpoint(path)


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a folder, every file checked against its hash.

    Raises CheckpointError naming the file that is missing, unreadable or altered.
    """
    card = _read_json(path / CARD)
    files = card.get("files")
    if not isinstance(files, dict) or CONFIG not in files:
        raise CheckpointError(f"{path / CARD} lists no files; it is not a checkpoint of foresweep")
    if SUM in card and card[SUM] != json_hash({k: v for k, v in card.items() if k != SUM}):
        raise CheckpointError(
            f"{path / CARD} was altered after it was written (its sha256 differs)"
        )
    for name, wanted in files.items():
        file = path / Path(name).name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing; the checkpoint is incomplete")
        if sha256_of(file) != wanted:
            raise CheckpointError(f"{file} was altered after it was written (its sha256 differs)")
    horizon = card.get("horizon", 1)
    if not isinstance(horizon, int) or isinstance(horizon, bool) or not 1 <= horizon <= MOST_AHEAD:
        raise CheckpointError(f"{path / CARD} tells a horizon of {horizon!r:.40} bars")
    config = _read_json(path / CONFIG)
    if not isinstance(config.get("model"), str) or not isinstance(config.get("config"), dict):
        raise CheckpointError(f"{path / CONFIG} names no model and config")
    return Checkpoint(path, config["model"], config["config"], card)


def read_weights(checkpoint: Checkpoint) -> dict[str, NDArray[Any]]:
    """Weights by name, {} for models that have none. Raises CheckpointError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = checkpoint.path / WEIGHTS
    if WEIGHTS not in checkpoint.card.get("files", {}):
        return {}
    try:
        loaded: dict[str, NDArray[Any]] = load_file(file)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:  # of its dtypes
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    return loaded


def update_card(checkpoint: Checkpoint, extra: Mapping[str, Any]) -> Checkpoint:
    """The same checkpoint with `extra` in its card; files and versions stay. Atomic."""
    kept = {k: checkpoint.card[k] for k in ("versions", "files") if k in checkpoint.card}
    text = _card({**checkpoint.card, **extra, **kept})
    try:
        write_bytes_atomic(checkpoint.path / CARD, text)
    except OSError as error:
        raise CheckpointError(f"cannot write {checkpoint.path / CARD}: {error.strerror}") from error
    return Checkpoint(checkpoint.path, checkpoint.model, checkpoint.config, json.loads(text))


def add_json(checkpoint: Checkpoint, name: str, value: Mapping[str, Any]) -> Checkpoint:
    """The same checkpoint with one more file, hashed like the others. Raises CheckpointError.

    The card that lists it is written last: until then the file counts for nothing.
    """
    text = _json(value)
    files = {**checkpoint.card["files"], name: hashlib.sha256(text).hexdigest()}
    card = _card({**checkpoint.card, "files": files})
    try:
        write_bytes_atomic(checkpoint.path / name, text)
        write_bytes_atomic(checkpoint.path / CARD, card)
    except OSError as error:
        raise CheckpointError(f"cannot write {checkpoint.path / name}: {error.strerror}") from error
    return Checkpoint(checkpoint.path, checkpoint.model, checkpoint.config, json.loads(card))


def json_hash(value: Mapping[str, Any]) -> str:
    """sha256 of the file that `add_json` would write."""
    return hashlib.sha256(_json(value)).hexdigest()


def read_json(checkpoint: Checkpoint, name: str) -> dict[str, Any] | None:
    """A file that `add_json` wrote, None where there is none. Raises CheckpointError.

    The checkpoint is one that `read_checkpoint` has verified."""
    if name not in checkpoint.card.get("files", {}):
        return None
    return _read_json(checkpoint.path / name)


def versions(model: str) -> dict[str, str]:
    """Versions of Python and of the packages that a model's forecasts depend on: for a plug-in,
    those of the package that brings it and of what that names as its own needs, too."""
    packages = [*PACKAGES]
    point = installed().get(model.strip().lower(), (None,))[0]
    if point is not None and point.dist is not None and brought_by(point) != OURS:
        needs = [re.split(r"[^\w.-]", need, maxsplit=1)[0] for need in point.dist.requires or ()]
        packages += [point.dist.name, *needs]
    found = {package: _version_of(package) for package in packages}
    return {"python": platform.python_version()} | {p: v for p, v in found.items() if v}


@cache
def _version_of(package: str) -> str | None:
    """None where it is not installed: an extra that nobody asked for. Kept, as a process imports a
    package once: looking it up takes longer than writing a small checkpoint."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def sha256_of(file: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_of_weights(network: Mapping[str, Any], file: Path) -> str:
    """sha256 over a network's description and its weights: what training starts from."""
    described = json.dumps(network, sort_keys=True)
    return hashlib.sha256((described + sha256_of(file)).encode()).hexdigest()


def read_network(folder: Path, model: str) -> dict[str, Any]:
    """What describes the network in a folder of weights: config.json in its authors' format, or
    what the card of one of our checkpoints says.

    Raises ConfigError where it is no JSON object or a checkpoint of another model, CheckpointError
    for a damaged one.
    """
    if (folder / CARD).is_file():
        checkpoint = read_checkpoint(folder)
        if checkpoint.model != model:
            raise ConfigError(
                f"{folder} is a checkpoint of {checkpoint.model}, whose weights fit no {model} "
                f"network; give one of {model}"
            )
        network: dict[str, Any] = checkpoint.card.get("network", {})
        return network
    file = folder / CONFIG
    try:
        described = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not JSON: {error}") from error
    if not isinstance(described, dict):
        raise ConfigError(f"{file} is not a JSON object")
    return described


def _fill(
    folder: Path, model: str, config: Mapping[str, Any], weights: Weights | None
) -> dict[str, str]:
    """Write weights and config; their hashes by name."""
    write_synced(folder / CONFIG, _json({"model": model, "config": dict(config)}))
    names = [CONFIG]
    if weights is not None:
        from safetensors.numpy import save

        plain = {k: np.ascontiguousarray(v) for k, v in weights.items()}
        write_synced(folder / WEIGHTS, save(plain))
        names.append(WEIGHTS)
    return {name: sha256_of(folder / name) for name in names}


def _card(told: Mapping[str, Any]) -> bytes:
    """A card as its file holds it."""
    said = {k: v for k, v in told.items() if k != SUM}
    return _json({**said, SUM: json_hash(said)})


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(_plain(value), indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    """JSON's own types; numbers that JSON has no word for become null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} is not a JSON object")
    return value


# Up to when pretrained weights may have seen the world, and who says so.
#
# A test period that begins before that day proves nothing about them: whoever judges a run compares
# the two. From scratch there is nothing to know.


@dataclass(frozen=True, slots=True)
class Cutoff:
    """The last day that may be in weights."""

    date: str  # ISO: 2024-05-31
    source: str


@runtime_checkable
class KnowsCutoff(Protocol):
    """A family that knows its own published weights; a plug-in adds this one method."""

    def pretrain_cutoff(self, config: Any) -> Cutoff | None:
        """Of the weights that a resolved config starts from; None where it does not know them."""
        ...


TOTO = Cutoff(
    "2025-05-20",
    "publication of the weights (arXiv 2505.14766); the end of their data is not stated",
)
KRONOS = Cutoff(
    "2024-05-31",
    "the authors: trained to February 2024, validated on March to May 2024 "
    "(github.com/shiyu-coder/Kronos/issues/204)",
)
CHRONOS2 = Cutoff(
    "2025-10-20",
    "publication of the weights (arXiv 2510.15821); their data sets are listed, not dated",
)
PUBLISHED: Mapping[str, Cutoff] = {"toto": TOTO, "kronos": KRONOS, "chronos2": CHRONOS2}
"""Of the published weights of a family. Where the authors state no end of their data, the day of
publication stands for it."""


def weights_cutoff(model: ForecastModel, config: Any, said: str | None = None) -> Cutoff | None:
    """Up to when the weights of a resolved config may have seen the world: the latest of what is
    known of them, what their card says and what was `said` (an ISO date).

    None from scratch, and where nobody knows: what starts from such weights is contaminated as far
    as anybody can tell. Raises UsageError for a date that is none.
    """
    pretrained = getattr(config, "pretrained", None)
    if pretrained is None:
        return None
    cutoffs = [_of_checkpoint(pretrained), _of_published(model.name, pretrained)]
    if isinstance(model, KnowsCutoff):
        cutoffs.append(model.pretrain_cutoff(config))
    if said is not None:
        cutoffs.append(Cutoff(parse_date(said), "said with --pretrain-cutoff"))
    return max((c for c in cutoffs if c), key=lambda c: c.date, default=None)


def parse_date(text: str) -> str:
    """An ISO date, as said. Raises UsageError."""
    try:
        return date.fromisoformat(text.strip()).isoformat()
    except ValueError as error:
        raise UsageError(
            f"--pretrain-cutoff {text!r} is no date; write it as 2024-05-31"
        ) from error


def _of_published(model: str, pretrained: str) -> Cutoff | None:
    return PUBLISHED[model] if is_published(model, pretrained) else None


def _of_checkpoint(pretrained: str) -> Cutoff | None:
    """Of a checkpoint of ours: the last bar that it, or what it was made from, was trained, tuned
    or selected on."""
    folder = Path(pretrained).expanduser()
    try:
        card = json.loads((folder / CARD).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):  # the authors' own format, or no folder at all
        return None
    if not isinstance(card, dict):
        return None
    told = card.get("pretrain_cutoff")
    parent = told if isinstance(told, dict) else {}
    seen = [card.get("tuned_until"), card.get("selected_until"), parent.get("date")]
    days = [str(day)[:10] for day in seen if day]
    who = card.get("run_id", folder.name)
    return Cutoff(max(days), f"the card of {who}: trained, tuned or selected on") if days else None
