"""Ensembles: several forecasts made one, level by level; a checkpoint without weights of its own.

    members.json    {"method", "members": [{"manifest" or "baseline" and "config", "weight"}, ...]}

A member is a checkpoint, named by the hash of its manifest (the sha256 of each of its files), or a
baseline that is nothing but its config. Each quantile of the ensemble is the weighted mean of the
members' quantiles of that level, or their median (Vincent 1912; Lichtendahl, Grushka-Cockayne and
Winkler 2013): both rise in the level where the members' do, and the pinball loss of a mean is never
above the weighted mean of the members' losses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np

from foresweep.data.windows import Context
from foresweep.errors import CheckpointError, ConfigError
from foresweep.models.base import (
    Array,
    Checkpoint,
    Facts,
    Forecast,
    ForecastModel,
    Levels,
    Predictor,
    Resources,
    TrainingJob,
    config_class,
)
from foresweep.models.calibration import load_predictor
from foresweep.models.checkpoint import (
    CONFIG,
    add_json,
    read_checkpoint,
    read_json,
    write_checkpoint,
)

MEMBERS = "members.json"
WHERE = "members"
"""Key of the card under which it says where each member's checkpoint lies."""

Method = Literal["greedy", "median", "mean"]


@dataclass(frozen=True, slots=True)
class Member:
    """A checkpoint that takes part, and how much it counts."""

    checkpoint: Checkpoint
    weight: float
    run_id: str

    @property
    def identity(self) -> dict[str, Any]:
        """What it is, wherever it lies: a baseline's name and config where that is all there is of
        it, else the hash of its manifest."""
        if set(self.checkpoint.card["files"]) == {CONFIG}:
            return {"baseline": self.checkpoint.model, "config": dict(self.checkpoint.config)}
        return {"manifest": manifest_hash(self.checkpoint)}


@dataclass(frozen=True, slots=True)
class Combined:
    """The predictor of an ensemble."""

    predictors: tuple[Predictor, ...]
    weights: tuple[float, ...]
    method: Method

    @property
    def context_length(self) -> int:
        return max(p.context_length for p in self.predictors)

    def predict(self, context: Context, *, horizon: int, levels: Levels, seed: int) -> Forecast:
        """Price quantiles of the close, [N, H, Q], each member seeing as much as it wants."""
        made = [
            p.predict(context.last(p.context_length), horizon=horizon, levels=levels, seed=seed)
            for p in self.predictors
        ]
        values = [f.checked(len(context), horizon).values for f in made]
        return Forecast(combine(values, self.weights, self.method), levels)


@config_class
class EnsembleConfig:
    """Nothing to set: an ensemble is made of runs."""


@dataclass(frozen=True, slots=True)
class Ensemble:
    """The family of ensembles: loaded like any other, trained by no sweep."""

    family: Callable[[str], ForecastModel]  # of a member, by its name
    name: ClassVar[str] = "ensemble"
    Config: ClassVar[type[Any]] = EnsembleConfig

    def resolve(self, config: Any, facts: Facts) -> Any:
        """Raises ConfigError: there is nothing to train."""
        _refuse()

    def weights_hash(self, config: Any) -> str:
        """ "": it has no weights of its own."""
        return ""

    def train(self, job: TrainingJob) -> Checkpoint:
        """Raises ConfigError: there is nothing to train."""
        _refuse()

    def load(self, checkpoint: Checkpoint, resources: Resources) -> Combined:
        """The predictor, every member loaded and verified.

        Raises CheckpointError naming the member that is missing, altered or not the one meant.
        """
        stored, checkpoints = _stored(checkpoint), member_checkpoints(checkpoint)
        return Combined(
            tuple(load_predictor(self.family(c.model), c, resources) for c in checkpoints),
            tuple(float(member["weight"]) for member in stored["members"]),
            stored["method"],
        )


def member_checkpoints(ensemble: Checkpoint) -> list[Checkpoint]:
    """The members' checkpoints, verified, in the order of `members.json`. Raises CheckpointError
    naming the member that is missing, altered or not the one meant."""
    return [_find(ensemble, member) for member in _stored(ensemble)["members"]]


def _stored(ensemble: Checkpoint) -> dict[str, Any]:
    """What `members.json` says. Raises CheckpointError."""
    stored = read_json(ensemble, MEMBERS)
    if stored is None:
        raise CheckpointError(
            f"{ensemble.path} holds no {MEMBERS}: make the ensemble again with: foresweep ensemble"
        )
    return stored


def _refuse() -> NoReturn:
    raise ConfigError(
        "an ensemble is not trained, it is made of runs on record; use: foresweep ensemble"
    )


def combine(values: Sequence[Array], weights: Sequence[float], method: Method) -> Array:
    """Quantiles [N, H, Q] of several forecasts made one; `median` counts every member once."""
    if method == "median":
        middle: Array = np.median(np.stack(values), axis=0)
        return middle
    total: Array = np.zeros_like(values[0])
    for value, weight in zip(values, weights, strict=True):  # in one order for every level: rising
        total = total + weight * value
    return total


def write_ensemble(
    path: Path, members: Sequence[Member], method: Method, card: Mapping[str, Any]
) -> Checkpoint:
    """A new checkpoint folder that names its members and where they lie. Raises CheckpointError."""
    where = [
        {"run_id": m.run_id, "model": m.checkpoint.model, "weight": m.weight,
         "path": str(m.checkpoint.path.resolve()), **_by_hash(m)}
        for m in _in_order(members)
    ]  # fmt: skip
    written = write_checkpoint(path, model=Ensemble.name, config={}, card={**card, WHERE: where})
    return add_json(written, MEMBERS, members_of(members, method))


def members_of(members: Sequence[Member], method: Method) -> dict[str, Any]:
    """What `members.json` says: members in the order of their identity, weights, method. Its
    sha256 (`checkpoint.json_hash`) is the hash of the ensemble."""
    said = [{**m.identity, "weight": m.weight} for m in _in_order(members)]
    return {"method": method, "members": said}


def manifest_hash(checkpoint: Checkpoint) -> str:
    """sha256 of a checkpoint's list of files and their hashes; its card, which may grow, apart."""
    text = json.dumps(sorted(checkpoint.card["files"].items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _in_order(members: Sequence[Member]) -> list[Member]:
    return sorted(members, key=lambda m: json.dumps(m.identity, sort_keys=True))


def _by_hash(member: Member) -> dict[str, str]:
    return {k: v for k, v in member.identity.items() if k == "manifest"}


def _find(ensemble: Checkpoint, said: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint of a member. Raises CheckpointError."""
    if "baseline" in said:
        return Checkpoint(ensemble.path, said["baseline"], said["config"])
    entries = [w for w in ensemble.card.get(WHERE, ()) if w.get("manifest") == said["manifest"]]
    short = str(said["manifest"])[:12]
    if not entries:
        raise CheckpointError(
            f"{ensemble.path}: its card does not say where member {short} lies; make the ensemble "
            f"again with: foresweep ensemble"
        )
    where = entries[0]
    # as recorded, else beside the ensemble: the folder of all runs may have been moved
    beside = ensemble.path.resolve().parent.parent / where["run_id"] / Path(where["path"]).name
    places = [Path(where["path"]), beside]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise CheckpointError(
            f"the ensemble {ensemble.path} needs the checkpoint of run {where['run_id']} "
            f"({where['model']}, weight {where['weight']:.3g}), which is not at {places[0]}; bring "
            f"that folder back, or make an ensemble without it"
        )
    checkpoint = read_checkpoint(folder)
    if manifest_hash(checkpoint) != said["manifest"]:
        raise CheckpointError(
            f"{folder} is not the member that the ensemble {ensemble.path} was made of (its "
            f"manifest differs from {short}): the run was trained again; make the ensemble again"
        )
    return checkpoint
