"""Search spaces: the set of configs a sweep may draw from, and the files they are written in.

A space file (TOML) holds named entries (`priority`, `quick`, `demo`), a grid (`full`) and ranges
(`space`). Each entry says where it comes from. What holds only from scratch (architecture,
learning rates of untrained networks) or only with pretrained weights stands apart, so that one
file serves both starts.
"""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from foresweep.errors import SpaceError, UnknownName

Start = Literal["scratch", "pretrained"]


@dataclass(frozen=True, slots=True)
class Float:
    """A real number in [low, high], drawn evenly, or evenly in its logarithm."""

    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{' (log)' if self.log else ''}"

    def sample(self, rng: np.random.Generator) -> float:
        if self.log:
            return float(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        return float(rng.uniform(self.low, self.high))


@dataclass(frozen=True, slots=True)
class Int:
    """A whole number low, low + step, ... up to high."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def __str__(self) -> str:
        step = f" in steps of {self.step}" if self.step > 1 else ""
        return f"{self.low} to {self.high}{step}{' (log)' if self.log else ''}"

    def sample(self, rng: np.random.Generator) -> int:
        if self.log:
            drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
            return self.low + self.step * round((drawn - self.low) / self.step)
        return int(self.low + self.step * rng.integers((self.high - self.low) // self.step + 1))


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these values."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return ", ".join(str(v) for v in self.values)

    def sample(self, rng: np.random.Generator) -> Any:
        return self.values[int(rng.integers(len(self.values)))]


Dimension: TypeAlias = Float | Int | Choice


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """Named dimensions; `when` says under which values of others a dimension is there at all.

    >>> space = SearchSpace({"loss": Choice(("huber", "mse")), "delta": Choice((0.1, 0.5))},
    ...                     {"delta": {"loss": "huber"}})
    >>> space.size, [c.get("delta") for c in space.grid()]
    (3, [0.1, 0.5, None])
    """

    dimensions: Mapping[str, Dimension]
    when: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """One config. Every dimension is drawn, so that a condition moves no other draw."""
        drawn = {name: d.sample(rng) for name, d in self.dimensions.items()}
        return self._present(drawn)

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every distinct config, in the order of the file. Raises SpaceError for ranges, and where
        there are more than LARGEST_GRID."""
        values = []
        for name, dimension in self.dimensions.items():
            if not isinstance(dimension, Choice):
                raise SpaceError(f"{name!r} is a range; a grid needs choices")
            values.append(dimension.values)
        num_points = math.prod(len(v) for v in values)
        if num_points > LARGEST_GRID:
            raise SpaceError(
                f"a grid of {num_points:,} points is too large to be laid out (at most "
                f"{LARGEST_GRID:,}); leave choices out, or draw from them with --mode random"
            )
        seen = set()
        for point in itertools.product(*values):
            config = self._present(dict(zip(self.dimensions, point, strict=True)))
            key = repr(sorted(config.items()))
            if key not in seen:
                seen.add(key)
                yield config

    @property
    def size(self) -> int:
        """Number of distinct configs of the grid."""
        return sum(1 for _ in self.grid())

    def is_present(self, name: str, config: Mapping[str, Any]) -> bool:
        """Does the condition of a dimension, if it has one, hold in this config?"""
        return all(
            config.get(k) in (v if isinstance(v, list | tuple) else (v,))
            for k, v in self.when.get(name, {}).items()
        )

    def _present(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {n: value for n, value in config.items() if self.is_present(n, config)}


@dataclass(frozen=True, slots=True)
class Entry:
    """One research-backed config: its name, why it is there, its values."""

    name: str
    source: str
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SpaceFile:
    """What one model's file offers, for one start."""

    model: str
    entries: Mapping[str, tuple[Entry, ...]]  # by mode: priority, quick, demo
    full: SearchSpace
    space: SearchSpace


@dataclass(frozen=True, slots=True)
class Spaces:
    """What a sweep draws from: files in place of the built-in ones, and changes to all of them."""

    texts: Mapping[str, str] = field(default_factory=dict)  # by model, as written
    places: Mapping[str, str] = field(default_factory=dict)  # by model: where a text comes from
    changes: Mapping[str, Dimension] = field(default_factory=dict)  # by hyperparameter

    @property
    def fixed(self) -> dict[str, Any]:
        """Changes that leave no choice: they hold in every config, whatever proposes it."""
        return {
            name: d.values[0]
            for name, d in self.changes.items()
            if isinstance(d, Choice) and len(d.values) == 1
        }

    def changed(self, file: SpaceFile) -> SpaceFile:
        """A file with the changes made. Those that leave no choice go into its entries, too."""
        entries = {
            mode: tuple(replace(e, config={**e.config, **self.fixed}) for e in entries)
            for mode, entries in file.entries.items()
        }
        return replace(
            file,
            entries=entries,
            full=replace(file.full, dimensions={**file.full.dimensions, **self.changes}),
            space=replace(file.space, dimensions={**file.space.dimensions, **self.changes}),
        )


SECTIONS = {"full", "space"}
MODES = ("priority", "quick", "demo", "zero-shot")
RANGE_KEYS = {"low", "high", "log", "step"}
STARTS: tuple[Start, ...] = ("scratch", "pretrained")
LARGEST = 2**53
"""End of a range at most: beyond it a float skips whole numbers."""
LARGEST_GRID = 1_000_000
"""Points of a grid at most: it is laid out whole before its configs are drawn."""


def parse_space_file(text: str, start: Start, *, where: str = "space file") -> SpaceFile:
    """Read a space file for training from scratch or from pretrained weights.

    Raises SpaceError naming the place.
    """
    raw = read_toml(text, where)
    if not isinstance(raw.get("model"), str):
        raise SpaceError(f'{where}: needs model = "NAME"')
    tables = {f"{s}{tail}" for s in SECTIONS for tail in ("", "_scratch", "_pretrained")}
    for section, value in raw.items():
        if section in tables and not isinstance(value, dict):
            raise SpaceError(
                f"{where}: {section} must be a table of hyperparameters, as [{section}]"
            )
        if section != "model" and section not in tables and not isinstance(value, list):
            raise UnknownName("section", section, {*tables, "model", *MODES}, where=f"of {where}")
    entries = {
        mode: tuple(_entry(e, start, f"{where}: {mode}") for e in value)
        for mode, value in raw.items()
        if mode != "model" and mode not in tables
    }
    return SpaceFile(
        model=raw["model"],
        entries=entries,
        full=_space(raw, "full", start, where),
        space=_space(raw, "space", start, where),
    )


def read_toml(text: str, where: str) -> dict[str, Any]:
    """What a text in TOML says. Raises SpaceError naming the place."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpaceError(f"{where}: not valid TOML: {error}") from error
    except RecursionError as error:
        raise SpaceError(f"{where}: brackets in brackets too deep to be a space") from error


def _entry(raw: Any, start: Start, where: str) -> Entry:
    allowed = {"name", "source", "config", *STARTS}
    if not isinstance(raw, dict) or not {"name", "source"} <= set(raw) or set(raw) - allowed:
        raise SpaceError(f"{where}: an entry needs name and source, and may have config, {STARTS}")
    for name, value in raw.items():
        wanted = str if name in ("name", "source") else dict
        if not isinstance(value, wanted):
            kind = "a text" if wanted is str else "a table { name = value }"
            raise SpaceError(f"{where}: {name} of an entry must be {kind}, not {value!r:.40}")
    return Entry(raw["name"], raw["source"], {**raw.get("config", {}), **raw.get(start, {})})


def _space(raw: Mapping[str, Any], section: str, start: Start, where: str) -> SearchSpace:
    specs = {**raw.get(section, {}), **raw.get(f"{section}_{start}", {})}
    dimensions: dict[str, Dimension] = {}
    when: dict[str, Mapping[str, Any]] = {}
    for name, spec in specs.items():
        rest = dict(spec) if isinstance(spec, dict) else {"choices": _several(spec)}
        if "when" in rest:
            condition: Any = rest.pop("when")
            if not isinstance(condition, dict):
                raise SpaceError(f"{where}: {section}.{name}: write when = {{ other = value }}")
            when[name] = condition
        dimensions[name] = _dimension(rest, f"{where}: {section}.{name}")
    return SearchSpace(dimensions, when)


def _several(spec: Any) -> list[Any]:
    """What to choose from: a list as it is, a lone value is fixed."""
    return spec if isinstance(spec, list) else [spec]


def _dimension(spec: Mapping[str, Any], where: str) -> Dimension:
    for key in spec:
        if key not in RANGE_KEYS | {"choices"}:
            raise UnknownName("key", key, {*RANGE_KEYS, "choices", "when"}, where=f"of {where}")
    if set(spec) == {"choices"}:
        if not isinstance(spec["choices"], list) or not spec["choices"]:
            raise SpaceError(f"{where}: choices must be a list: there is nothing to choose from")
        return Choice(tuple(spec["choices"]))
    if not {"low", "high"} <= set(spec) or "choices" in spec:
        raise SpaceError(f"{where}: needs choices, or low and high (and log, step)")
    log = spec.get("log", False)
    if not isinstance(log, bool):
        raise SpaceError(f"{where}: log is true or false, not {log!r:.40}")
    return make_range(spec["low"], spec["high"], log, spec.get("step"), where)


def as_spec(dimension: Dimension) -> dict[str, Any]:
    """A dimension in the words of a space file; `from_spec` reads it back."""
    if isinstance(dimension, Choice):
        return {"choices": list(dimension.values)}
    spec: dict[str, Any] = {"low": dimension.low, "high": dimension.high, "log": dimension.log}
    return spec | ({"step": dimension.step} if isinstance(dimension, Int) else {})


def from_spec(name: str, spec: Mapping[str, Any]) -> Dimension:
    """The dimension that a table of a space file says. Raises SpaceError, UnknownName."""
    return _dimension(spec, name)


def make_range(low: Any, high: Any, log: bool, step: Any, where: str) -> Float | Int:
    """A range of whole numbers where both ends are. Raises SpaceError."""
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in (low, high)):
        raise SpaceError(f"{where}: {low!r} to {high!r} is no range of numbers")
    if not low < high or (log and low <= 0):
        raise SpaceError(f"{where}: {low} to {high} is no range{' in logs' if log else ''}")
    if not max(abs(low), abs(high)) <= LARGEST:
        raise SpaceError(f"{where}: {low:g} to {high:g} reaches beyond {LARGEST:g}: narrow it")
    if isinstance(low, int) and isinstance(high, int):
        if step is not None and (not isinstance(step, int) or step < 1):
            raise SpaceError(f"{where}: a step of {step!r}; give a whole number of 1 or more")
        return Int(low, high, step or 1, log)
    if step is not None:
        raise SpaceError(f"{where}: step is for whole numbers")
    return Float(float(low), float(high), log)


_RANGE = re.compile(r"(?P<low>[^.:]+(?:\.[^.:]+)?)\.\.(?P<high>[^:]+?)(?::(?P<tail>.+))?")


def as_dimension(name: str, value: Any) -> Dimension:
    """What `--set name=value` means for a space: `1e-5..1e-3:log` and `64..512:32` are ranges, a
    list is a choice, anything else is fixed. Raises SpaceError.

    >>> as_dimension("lr", "1e-5..1e-3:log"), as_dimension("context_length", "64..512:32")
    (Float(low=1e-05, high=0.001, log=True), Int(low=64, high=512, step=32, log=False))
    """
    match = _RANGE.fullmatch(value.strip()) if isinstance(value, str) else None
    if not (value is None or isinstance(value, str | int | float | list)):  # from Python only
        raise SpaceError(
            f"hyperparameter {name} = {value!r}: write a range as '1e-5..1e-3:log' or "
            "'64..512:32', a choice as a list, or one value"
        )
    if match is None:
        return Choice(tuple(value) if isinstance(value, list) and value else (value,))
    where, tail = f"--set {name}={value}", match["tail"]
    low, high = (_number(text, where) for text in (match["low"], match["high"]))
    if tail is None or tail == "log":
        return make_range(low, high, tail == "log", None, where)
    return make_range(low, high, False, _number(tail, where), where)


def _number(text: str, where: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise SpaceError(
            f"{where}: {text!r} is no number; write a range as low..high, low..high:log or "
            f"low..high:step"
        ) from None
