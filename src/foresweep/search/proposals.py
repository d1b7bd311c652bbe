"""Which configs a mode tries, in what order: the part of the search that needs no results."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from foresweep.errors import SpaceError, UnknownName
from foresweep.models.registry import BASELINES, FAMILIES, model_names
from foresweep.space import SpaceFile, Start, parse_space_file

MODES = ("priority", "quick", "full", "random", "demo")
DEFAULT_MAX_RUNS = 5
"""Trials of a sweep per model unless `max_runs` says otherwise; the seed's own default."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A config to try, before it is resolved, and where it comes from."""

    model: str
    config: Mapping[str, Any]
    source: str


def expand_models(names: Sequence[str]) -> tuple[str, ...]:
    """Model names with `all` spelt out. Raises UnknownName with the nearest."""
    found: list[str] = []
    for name in names:
        known = [*model_names(), "all"]
        key = name.strip().lower()
        if key not in known:
            raise UnknownName("model", name, known)
        found += FAMILIES if key == "all" else (key,)
    return tuple(dict.fromkeys(found))


def space_text(model: str) -> str:
    """The space file of a built-in family, as written. Raises SpaceError where there is none."""
    file = resources.files("foresweep.models") / "spaces" / f"{model}.toml"
    if not file.is_file():
        raise SpaceError(
            f"{model} has no search space; train it with: foresweep train --model {model}"
        )
    return file.read_text()


def load_space(model: str, start: Start) -> SpaceFile:
    return parse_space_file(space_text(model), start, where=f"spaces/{model}.toml")


def propose(
    models: Sequence[str],
    mode: str,
    *,
    base: Mapping[str, Any],
    seed: int,
    max_runs: int | None = None,
) -> tuple[Proposal, ...]:
    """The trials of a sweep, the budget handed round the models.

    `base` (size or pretrained) is laid under every config and decides which start the space files
    are read for. Raises UnknownName for a mode, SpaceError for a model without a space.
    """
    if mode not in MODES:
        raise UnknownName("mode", mode, MODES)
    start: Start = "pretrained" if base.get("pretrained") else "scratch"
    lists = [list(_of_model(m, mode, start, base, seed, max_runs)) for m in models]
    rounds = itertools.zip_longest(*lists)
    found = [p for one_round in rounds for p in one_round if p is not None]
    return tuple(found[: max_runs or DEFAULT_MAX_RUNS * len(models)])


def _of_model(
    model: str,
    mode: str,
    start: Start,
    base: Mapping[str, Any],
    seed: int,
    max_runs: int | None,
) -> Iterator[Proposal]:
    if model in BASELINES:
        yield Proposal(model, {}, "baseline")
        return
    space = load_space(model, start)
    count = max_runs or DEFAULT_MAX_RUNS
    rng = np.random.default_rng([seed, *model.encode()])
    if mode == "random":
        for _ in range(count):
            yield Proposal(model, {**base, **space.space.sample(rng)}, "random")
    elif mode == "full":
        grid = list(space.full.grid())
        for k in rng.permutation(len(grid))[:count]:
            yield Proposal(model, {**base, **grid[k]}, f"full grid {k + 1} of {len(grid)}")
    else:
        entries = (
            load_space("demo", start).entries.get(model, ())
            if mode == "demo"
            else (space.entries.get(mode, ()))
        )
        for entry in entries:
            yield Proposal(model, {**base, **entry.config}, f"{mode}: {entry.name}")


def baseline_proposals() -> tuple[Proposal, ...]:
    """Every sweep runs the baselines first, on the same windows."""
    return tuple(Proposal(name, {}, "baseline") for name in BASELINES)
