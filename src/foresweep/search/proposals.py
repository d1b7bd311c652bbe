"""Which configs a mode tries, in what order: the part of the search that needs no results."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import numpy as np

from foresweep.errors import SpaceError, UnknownName
from foresweep.models.registry import BASELINES, FAMILIES, model_names
from foresweep.space import Int, SearchSpace, SpaceFile, Start, parse_space_file

MODES = ("priority", "quick", "full", "random", "demo")
BASELINE_SOURCE = "baseline"
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
    count: int,
    step_cap: int | None = None,
) -> tuple[Proposal, ...]:
    """Candidates of a sweep in the order they are to be tried, handed round the models.

    `base` (size or pretrained) is laid under every config and decides which start the space files
    are read for. Modes that draw give `count` candidates a model, with steps up to `step_cap`;
    the others give all they have. Raises UnknownName for a mode, SpaceError for a model without a
    space.
    """
    if mode not in MODES:
        raise UnknownName("mode", mode, MODES)
    start: Start = "pretrained" if base.get("pretrained") else "scratch"
    lists = [list(_of_model(m, mode, start, base, seed, count, step_cap)) for m in models]
    rounds = itertools.zip_longest(*lists)
    return tuple(p for one_round in rounds for p in one_round if p is not None)


def _of_model(
    model: str,
    mode: str,
    start: Start,
    base: Mapping[str, Any],
    seed: int,
    count: int,
    step_cap: int | None,
) -> Iterator[Proposal]:
    if model in BASELINES:
        yield Proposal(model, {}, BASELINE_SOURCE)
        return
    space = load_space(model, start)
    rng = np.random.default_rng([seed, *model.encode()])
    if mode == "random":
        drawn_from = _within(space.space, step_cap)
        for _ in range(count):
            yield Proposal(model, {**base, **drawn_from.sample(rng)}, "random")
    elif mode == "full":
        grid = list(space.full.grid())
        for k in rng.permutation(len(grid))[:count]:
            yield Proposal(model, {**base, **grid[k]}, f"full grid {k + 1} of {len(grid)}")
    else:
        listed = load_space("demo", start) if mode == "demo" else space
        for entry in listed.entries.get(model if mode == "demo" else mode, ()):
            yield Proposal(model, {**base, **entry.config}, f"{mode}: {entry.name}")


def _within(space: SearchSpace, step_cap: int | None) -> SearchSpace:
    """The space with its steps drawn below the cap, lest most draws be cut to the same number."""
    steps = space.dimensions.get("max_steps")
    if step_cap is None or not isinstance(steps, Int) or steps.high <= step_cap:
        return space
    capped = replace(steps, low=min(steps.low, step_cap), high=step_cap)
    return replace(space, dimensions={**space.dimensions, "max_steps": capped})


def baseline_proposals() -> tuple[Proposal, ...]:
    """Every sweep runs the baselines first, on the same windows."""
    return tuple(Proposal(name, {}, BASELINE_SOURCE) for name in BASELINES)
