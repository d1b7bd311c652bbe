"""Sweep files: a user's spaces, in TOML as `foresweep spaces copy` prints them, or in Python.

A Python file of dicts (`sweep_configs.py`) is read and never executed: its top-level assignments of
plain values are taken, everything else is refused by line.
"""

from __future__ import annotations

import ast
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from foresweep.errors import SpaceError, UnknownName
from foresweep.models.registry import FAMILIES, model_names
from foresweep.space import MODES, Spaces

SAID_BY = ("full", "priority", "quick")
"""What an assignment's name says it is for; without a word, a dict is a grid, a list priority."""


def read_sweep_files(files: Iterable[Path]) -> Spaces:
    """The spaces of these files, by model. Raises SpaceError naming the place, UnknownName for a
    model that is not installed."""
    texts: dict[str, str] = {}
    places: dict[str, str] = {}
    for file in files:
        for model, text in _read(file).items():
            if model in texts:
                raise SpaceError(f"{file}: {model} has a space in {places[model]} already")
            texts[model], places[model] = text, str(file)
    return Spaces(texts, places)


def _read(file: Path) -> dict[str, str]:
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"sweep file {file} cannot be read: {error}") from error
    if file.suffix == ".py":
        return {m: _as_toml(m, s, file.name) for m, s in _sections(text, str(file)).items()}
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpaceError(f"{file}: not valid TOML: {error}") from error
    model = raw.get("model")
    if not isinstance(model, str):
        raise SpaceError(f'{file}: needs model = "NAME"')
    if model not in model_names():
        raise UnknownName("model", model, model_names(), where=f"in {file}")
    for mode, found in raw.items():
        if isinstance(found, list) and mode not in MODES:
            raise UnknownName("mode", mode, MODES, where=f"in {file}")
    return {model: text}


def _sections(text: str, where: str) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """What a Python file assigns: by model and mode, a grid (one dict of lists) or configs."""
    try:
        lines = ast.parse(text).body
    except SyntaxError as error:
        raise SpaceError(f"{where}: not valid Python: {error}") from error
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for node in lines:
        if _is_idle(node):
            continue
        at = f"{where}, line {node.lineno}"
        name, value = _assignment(node, at)
        model, mode = _meant(name, value, at)
        if mode in found.setdefault(model, {}):
            raise SpaceError(f"{at}: {name} says {mode} of {model} a second time")
        found[model][mode] = value if isinstance(value, list) else [value]
    if not found:
        raise SpaceError(f"{where}: assigns nothing; write e.g. TOTO_FULL = {{'lr': [1e-4, 3e-4]}}")
    return found


def _is_idle(node: ast.stmt) -> bool:
    """Docstrings and imports: the values must stand without them."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _assignment(node: ast.stmt, at: str) -> tuple[str, Any]:
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        targets = [node.target]
    if len(targets) != 1 or not isinstance(targets[0], ast.Name):
        raise SpaceError(f"{at}: only NAME = values is read, and nothing is executed")
    assert isinstance(node, ast.Assign | ast.AnnAssign)
    assert node.value is not None
    try:
        value = ast.literal_eval(node.value)
    except ValueError:
        raise SpaceError(
            f"{at}: {targets[0].id} is not made of plain values (numbers, text, lists, dicts); "
            f"nothing is executed, so write them out"
        ) from None
    return targets[0].id, value


def _meant(name: str, value: Any, at: str) -> tuple[str, str]:
    """(model, mode) of an assignment, from its name. Raises SpaceError."""
    words = name.lower().split("_")
    model = next((m for m in FAMILIES if m in words), None)
    if model is None:
        raise SpaceError(f"{at}: {name} names none of {', '.join(FAMILIES)}, as TOTO_FULL does")
    dicts = value if isinstance(value, list) else [value]
    if not dicts or not all(isinstance(d, dict) for d in dicts):
        raise SpaceError(f"{at}: {name} must be a dict of lists, or a list of dicts")
    is_list = isinstance(value, list)
    mode = next((m for m in SAID_BY if m in words), "priority" if is_list else "full")
    if is_list == (mode == "full"):
        wanted = "one dict of lists" if mode == "full" else "a list of dicts"
        raise SpaceError(f"{at}: {name} must be {wanted}")
    return model, mode


def _as_toml(model: str, modes: Mapping[str, list[dict[str, Any]]], where: str) -> str:
    """A space file that says the same."""
    lines = [f"model = {json.dumps(model)}"]
    for mode, configs in modes.items():
        if mode == "full":
            for name, values in configs[0].items():
                several = values if isinstance(values, list | tuple) else [values]
                lines += [f"[full.{name}]", f"choices = {_value([*several])}"]
            continue
        for k, config in enumerate(configs, 1):
            inside = ", ".join(f"{n} = {_value(v)}" for n, v in config.items() if v is not None)
            lines += [f"[[{mode}]]", f'name = "{where} {k}"', f'source = "{where}"']
            lines += [f"config = {{ {inside} }}"]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """A value in TOML. Raises SpaceError for one that TOML has no word for."""
    if isinstance(value, bool | int | str):
        return json.dumps(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(v) for v in value)}]"
    raise SpaceError(f"{value!r} is no value of a hyperparameter here; leave it out")
