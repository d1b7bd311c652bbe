"""Which configs a mode tries, in what order: the part of the search that needs no results."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from foresweep.errors import SpaceError, UnknownName
from foresweep.evaluation.yardstick import BASELINE_SOURCE
from foresweep.metrics import QUANTILE_METRICS, objectives_of
from foresweep.models import registry
from foresweep.models.base import hyperparameters
from foresweep.models.registry import BASELINES, FAMILIES, model_names
from foresweep.space import Entry, Int, SearchSpace, SpaceFile, Spaces, Start, parse_space_file

MODES = ("priority", "quick", "full", "random", "smart", "focused", "demo", "zero-shot")
SMART, FOCUSED = "smart", "focused"
ADAPTIVE = (SMART, FOCUSED)
"""Modes that propose from results, once what they begin with has been tried."""
ZERO_SHOT = "zero-shot"
COMPANION = "beside"
WIDER = (("random-walk", {"volatility": "garman-klass"}, "garman-klass"),)
"""Baselines that enter a second time: model, config, what is different."""
DRAWS = ("full", "random", *ADAPTIVE)
"""Modes that draw from a space: in the others there is nothing to choose."""
BUILT_IN = Spaces()
DEFAULT_MAX_RUNS = 5
"""Trials of a sweep per model unless `max_runs` says otherwise; the seed's own default."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A config to try, before it is resolved, and where it comes from."""

    model: str
    config: Mapping[str, Any]
    source: str
    note: str = ""  # what is to be said with its run

    @property
    def is_free(self) -> bool:
        """Does it stand beside the configs asked for, at no cost to the budget of trials?"""
        return self.source.partition(": ")[0] == BASELINE_SOURCE or self.is_companion

    @property
    def is_companion(self) -> bool:
        """Is it the untrained weights that a sweep fine-tunes, shown beside what came of them?"""
        return self.source.startswith(f"{COMPANION}: ")


def expand_models(names: Sequence[str]) -> tuple[str, ...]:
    """Model names with `all` and `toto,kronos` spelt out. Raises UnknownName with the nearest."""
    found: list[str] = []
    for name in (one for some in names for one in some.split(",")):
        known = [*model_names(), "all"]
        key = name.strip().lower()
        if key not in known:
            raise UnknownName("model", name, known)
        found += FAMILIES if key == "all" else (key,)
    return tuple(dict.fromkeys(found))


def space_text(model: str) -> str:
    """The space file of a family, built in or not, as written. Raises SpaceError without one."""
    found = registry.space_text(model)
    if found is None:
        raise SpaceError(
            f"{model} has no search space; give a sweep file, put spaces/{model}.toml into its "
            f"package (docs/adding-a-model.md), or train it with: foresweep train --model {model}"
        )
    return found


def load_space(model: str, start: Start, spaces: Spaces = BUILT_IN) -> SpaceFile:
    """What a family's space file, or the one given in its place, offers for one start.

    Raises SpaceError; UnknownName for what is no hyperparameter of the family.
    """
    if model not in spaces.texts and not spaces.changes:
        return parse_space_file(space_text(model), start, where=f"spaces/{model}.toml")
    where = spaces.places.get(model, f"spaces/{model}.toml")
    text = spaces.texts.get(model) or space_text(model)
    file = spaces.changed(parse_space_file(text, start, where=where))
    _check_names(model, file, where)
    return file


def _check_names(model: str, file: SpaceFile, where: str) -> None:
    """Every name is a hyperparameter of the family, and every condition one of the space."""
    known = {h.name for h in hyperparameters(registry.get_model(model).Config)}
    for space in (file.full, file.space):
        for name in space.dimensions:
            if name not in known:
                raise UnknownName("hyperparameter", name, known, where=f"of {model} in {where}")
        for name, condition in space.when.items():
            for parent in condition:
                if parent not in known:
                    at = f"in the condition of {name} in {where}"
                    raise UnknownName("hyperparameter", parent, known, where=at)
    for entries in file.entries.values():
        for entry in entries:
            for name in entry.config:
                if name not in known:
                    at = f"of {model} in {entry.name!r} of {where}"
                    raise UnknownName("hyperparameter", name, known, where=at)


def load_spaces(
    models: Sequence[str], start: Start, mode: str, spaces: Spaces = BUILT_IN
) -> dict[str, SpaceFile]:
    """The space file of each model, for a mode that draws. Raises SpaceError, UnknownName."""
    found = {model: load_space(model, start, spaces) for model in models}
    for model, file in found.items():
        _filled(file.space, model, mode)
    return found


def propose(
    models: Sequence[str],
    mode: str,
    *,
    base: Mapping[str, Any],
    seed: int,
    count: int,
    step_cap: int | None = None,
    spaces: Spaces = BUILT_IN,
    max_context: int | None = None,
) -> tuple[Proposal, ...]:
    """Candidates of a sweep in the order they are to be tried, handed round the models.

    `base` (size or pretrained) is laid under every config and decides which start the space files
    are read for. Modes that draw give `count` candidates a model, with steps up to `step_cap` and
    contexts up to `max_context`; smart gives what it begins with, the priority configs, and focused
    nothing; the others give all they have. Where pretrained weights are fine-tuned, the same
    weights as they are come last, as companions: of each model the first that can be tried is, at
    no cost to the budget.

    Raises UnknownName for a mode, SpaceError for a model without a space or without configs for it.
    """
    if mode not in MODES:
        raise UnknownName("mode", mode, MODES)
    start: Start = "pretrained" if base.get("pretrained") else "scratch"
    limits = (step_cap, max_context)
    lists = [list(_of_model(m, mode, start, base, seed, count, limits, spaces)) for m in models]
    rounds = itertools.zip_longest(*lists)
    found = [p for one_round in rounds for p in one_round if p is not None]
    if start == "pretrained" and mode != ZERO_SHOT:
        found += [p for m in models for p in _untrained(m, base, COMPANION)]
    return tuple(found)


def _of_model(
    model: str,
    mode: str,
    start: Start,
    base: Mapping[str, Any],
    seed: int,
    count: int,
    limits: tuple[int | None, int | None],
    spaces: Spaces,
) -> Iterator[Proposal]:
    if model in BASELINES:
        yield Proposal(model, {}, BASELINE_SOURCE)
        return
    if mode == ZERO_SHOT:
        yield from _untrained(model, base, ZERO_SHOT)
        return
    space = load_space(model, start, spaces)
    rng = np.random.default_rng([seed, *model.encode()])
    if mode == "random":
        drawn_from = within(_filled(space.space, model, mode), *limits)
        for _ in range(count):
            yield Proposal(model, {**base, **drawn_from.sample(rng)}, "random")
    elif mode == "full":
        grid = list(_filled(space.full, model, mode).grid())
        for k in rng.permutation(len(grid))[:count]:
            yield Proposal(model, {**base, **grid[k]}, f"full grid {k + 1} of {len(grid)}")
    elif mode in ADAPTIVE:
        _filled(space.space, model, mode)
        for entry in space.entries.get("priority", ()) if mode == SMART else ():
            yield Proposal(model, {**base, **entry.config}, f"priority: {entry.name}")
    else:
        for entry in _entries(model, mode, space, start, spaces):
            yield Proposal(model, {**base, **entry.config}, f"{mode}: {entry.name}")


def _untrained(model: str, base: Mapping[str, Any], source: str) -> Iterator[Proposal]:
    """A family's weights as they are: what its file lists, else its defaults."""
    if model in BASELINES:
        return
    listed: tuple[Entry, ...] = ()
    if registry.space_text(model) is not None:
        listed = load_space(model, "pretrained").entries.get(ZERO_SHOT, ())
    for entry in listed or (Entry(ZERO_SHOT, "the family's defaults", {}),):
        config = {**base, **entry.config, "finetune": "none"}
        yield Proposal(model, config, f"{source}: {entry.name}")


def _entries(
    model: str, mode: str, space: SpaceFile, start: Start, spaces: Spaces
) -> tuple[Entry, ...]:
    """A mode's named configs; those of the demo stand in a file for all built-in families."""
    found = space.entries.get(mode, ())
    if mode == "demo" and model in FAMILIES:
        text = registry.demo_space_text()
        demo = spaces.changed(parse_space_file(text, start, where="spaces/demo.toml"))
        found = demo.entries.get(model, ())
    if not found:
        there = ", ".join(k for k, v in space.entries.items() if v) or "none"
        raise SpaceError(f"{model} has no configs for --mode {mode}; its space file has: {there}")
    return found


def _filled(space: SearchSpace, model: str, mode: str) -> SearchSpace:
    if not space.dimensions:
        raise SpaceError(f"{model} has nothing to draw from for --mode {mode}; use --mode priority")
    return space


def within(space: SearchSpace, step_cap: int | None, max_context: int | None) -> SearchSpace:
    """The space with steps and contexts drawn below the sweep's own limits: most draws would be cut
    to the same number of steps, or refused for their context."""
    dimensions = dict(space.dimensions)
    for name, cap in (("max_steps", step_cap), ("context_length", max_context)):
        dimension = dimensions.get(name)
        if cap is not None and isinstance(dimension, Int) and dimension.high > cap:
            dimensions[name] = replace(dimension, low=min(dimension.low, cap), high=cap)
    return replace(space, dimensions=dimensions)


def baseline_proposals(objective: str) -> tuple[Proposal, ...]:
    """Every sweep runs the baselines first, on the same windows: the plain ones, and of
    random-walk a second whose volatility comes from the range.

    Where an objective looks at quantiles, the three with a spread worth it enter calibrated, too,
    so that no model wins by calibration alone.
    """
    found = [Proposal(name, {}, BASELINE_SOURCE) for name in BASELINES]
    found += [
        Proposal(model, {**values}, f"{BASELINE_SOURCE}: {of}") for model, values, of in WIDER
    ]
    if set(objectives_of(objective)) & set(QUANTILE_METRICS):
        for model, values, of in (("random-walk", {}, "ewma"), *WIDER, ("har", {}, "har")):
            config = {**values, "fit_scale": True}
            found.append(Proposal(model, config, f"{BASELINE_SOURCE}: {of}, scaled"))
    return tuple(found)
