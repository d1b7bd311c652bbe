"""Sweep files: a user's spaces, in TOML as `foresweep spaces copy` prints them, or in Python.

A Python file of dicts (`sweep_configs.py`) is read and never executed: its top-level assignments of
plain values are taken, everything else is refused by line. A name says model and mode: TOTO_FULL is
a grid (a dict of lists), TOTO_PRIORITY and TOTO_QUICK are lists of configs, TOTO_FULL_SCRATCH and
TOTO_FULL_PRETRAINED what of the grid holds for one start alone, TOTO_FULL_WHEN under which values
of others a hyperparameter is there at all.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from foresweep.errors import SpaceError, UnknownName
from foresweep.models.registry import FAMILIES, model_names
from foresweep.search.propose.modes import space_text
from foresweep.space import MODES, STARTS, Spaces, read_toml

FULL, PRIORITY, QUICK = "full", "priority", "quick"
SAID_BY = (FULL, PRIORITY, QUICK)
"""What an assignment's name says it is for; without a word, a dict is a grid, a list priority."""
WHEN = "when"
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What Python says of a text that it cannot take apart."""
_NAME = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
_HEADER = re.compile(r"^\[+\s*([\w-]+)", re.MULTILINE)

Sections: TypeAlias = dict[str, Any]  # of a model: by mode its configs, its grid, the grid's WHEN


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


def with_configs(spaces: Spaces, file: Path, models: Iterable[str]) -> Spaces:
    """These spaces, and for those of the models that have none of their own what a sweep file says
    of them in place of what is built in, mode by mode: what it does not say stays, and other models
    in it are passed over. Raises as `read_sweep_files`."""
    said = _read(file)
    texts = {m: _laid_over(said[m], space_text(m)) for m in models if m in said}
    return replace(
        spaces,
        texts={**texts, **spaces.texts},
        places={**dict.fromkeys(texts, str(file)), **spaces.places},
    )


def _laid_over(text: str, built_in: str) -> str:
    modes = {_mode(name) for name in tomllib.loads(text)}
    heads = [*_HEADER.finditer(built_in)]
    ends = [*(h.start() for h in heads[1:]), len(built_in)]
    kept = [built_in[: heads[0].start()]] if heads else [built_in]
    for head, end in zip(heads, ends, strict=True):
        if _mode(head[1]) not in modes:
            kept.append(built_in[head.start() : end])
    return "".join(kept) + "\n" + text.partition("\n")[2]  # the model's name stands there already


def _mode(section: str) -> str:
    """`full` of full_scratch."""
    return section.partition("_")[0]


PREAMBLE = (
    '"""What `python run_sweep.py` tries: edit it, and the next sweep tries that.',
    "",
    "It is read, never executed. Written by: foresweep spaces copy all --python",
    "PRIORITY and QUICK are configs, each with its source; what stands under scratch or pretrained",
    "is laid over config for that start. FULL is the grid of --mode full, WHEN says under which",
    "values of others a hyperparameter is in it. Ranges, for --mode smart, random and focused, are",
    "in what `foresweep spaces copy MODEL` prints.",
    '"""',
)


def as_python(models: Iterable[str]) -> str:
    """The built-in spaces of models as a Python file of dicts, to be edited: `with_configs` of
    it gives the same spaces."""
    lines = [*PREAMBLE]
    for model in models:
        raw, upper = tomllib.loads(space_text(model)), model.upper()
        for mode in (PRIORITY, QUICK):
            lines += ["", f"{upper}_{mode.upper()} = ["] if mode in raw else []
            for entry in raw.get(mode, ()):
                lines += [
                    "    {",
                    *(f"        {_py(n)}: {_py(v)}," for n, v in entry.items()),
                    "    },",
                ]
            lines += ["]"] if mode in raw else []
        when: dict[str, Any] = {}
        for section in (FULL, *(f"{FULL}_{start}" for start in STARTS)):
            specs = raw.get(section, {})
            when |= {n: spec[WHEN] for n, spec in specs.items() if WHEN in spec}
            grid = {n: spec["choices"] for n, spec in specs.items()}
            lines += _assigned(f"{upper}_{section.upper()}", grid)
        lines += _assigned(f"{upper}_{FULL.upper()}_{WHEN.upper()}", when)
    return "\n".join(lines) + "\n"


def _assigned(name: str, values: Mapping[str, Any]) -> list[str]:
    inside = [f"    {_py(n)}: {_py(v)}," for n, v in values.items()]
    return ["", f"{name} = {{", *inside, "}"] if inside else []


def _py(value: Any) -> str:
    """A value in Python, text in double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_py, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_py(n)}: {_py(v)}' for n, v in value.items())}}}"
    return repr(value)


def _read(file: Path) -> dict[str, str]:
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"sweep file {file} cannot be read: {error}") from error
    if file.suffix == ".py":
        texts = {m: _as_toml(m, s, file) for m, s in _sections(text, str(file)).items()}
        for found in texts.values():  # a text may hold what TOML has no word for
            read_toml(found, str(file))
        return texts
    raw = read_toml(text, str(file))
    model = raw.get("model")
    if not isinstance(model, str):
        raise SpaceError(f'{file}: needs model = "NAME"')
    if model not in model_names():
        raise UnknownName("model", model, model_names(), where=f"in {file}")
    for mode, found in raw.items():
        if isinstance(found, list) and mode not in MODES:
            raise UnknownName("mode", mode, MODES, where=f"in {file}")
    return {model: text}


def _sections(text: str, where: str) -> dict[str, Sections]:
    """What a Python file assigns, by model and section: configs, or one dict of a grid."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of what is never run
            lines = ast.parse(text).body
    except UNREADABLE as error:
        raise SpaceError(f"{where}: not valid Python: {error}") from error
    found: dict[str, Sections] = {}
    for node in lines:
        if _is_idle(node):
            continue
        at = f"{where}, line {node.lineno}"
        name, value = _assignment(node, at)
        model, section = _meant(name, value, at)
        if section in found.setdefault(model, {}):
            raise SpaceError(f"{at}: {name} says {section} of {model} a second time")
        found[model][section] = value
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
    except (*UNREADABLE, TypeError):
        raise SpaceError(
            f"{at}: {targets[0].id} is not made of plain values (numbers, text, lists, dicts); "
            f"nothing is executed, so write them out"
        ) from None
    return targets[0].id, value


def _meant(name: str, value: Any, at: str) -> tuple[str, str]:
    """(model, section) of an assignment, from its name. Raises SpaceError."""
    words = name.lower().split("_")
    model = next((m for m in FAMILIES if m in words), None)
    if model is None:
        raise SpaceError(f"{at}: {name} names none of {', '.join(FAMILIES)}, as TOTO_FULL does")
    dicts = value if isinstance(value, list) else [value]
    if not dicts or not all(isinstance(d, dict) for d in dicts):
        raise SpaceError(f"{at}: {name} must be a dict of lists, or a list of dicts")
    is_list = isinstance(value, list)
    mode = next((m for m in SAID_BY if m in words), PRIORITY if is_list else FULL)
    if is_list == (mode == FULL):
        wanted = "one dict of lists" if mode == FULL else "a list of dicts"
        raise SpaceError(f"{at}: {name} must be {wanted}")
    part = next((w for w in (*STARTS, WHEN) if w in words), None)
    if part and mode != FULL:
        raise SpaceError(
            f"{at}: {name}: write what holds for one start alone into a config, as "
            f"{{'name': ..., 'source': ..., 'config': {{...}}, 'scratch': {{...}}}}"
        )
    return model, f"{mode}_{part}" if part else mode


def _as_toml(model: str, sections: Sections, file: Path) -> str:
    """A space file that says the same. Raises SpaceError."""
    lines = [f"model = {json.dumps(model)}"]
    when = _conditions(sections, f"{file}: {model.upper()}_FULL_WHEN")
    for section, value in sections.items():
        if section == f"{FULL}_{WHEN}":
            continue
        where = f"{file}: {model.upper()}_{section.upper()}"
        if _mode(section) == FULL:
            for name, values in value.items():
                several = values if isinstance(values, list | tuple) else [values]
                lines += [f"[{section}.{_name(name, where)}]"]
                lines += [f"choices = {_value([*several], where)}"]
                lines += [f"when = {_table(when[name], where)}"] if name in when else []
            continue
        for k, config in enumerate(value, 1):
            entry = config
            if not {"name", "source"} <= set(config):
                entry = {"name": f"{file.name} {k}", "source": file.name, "config": config}
            lines += [f"[[{section}]]"]
            lines += [f"{_name(n, where)} = {_value(v, where)}" for n, v in entry.items()]
    return "\n".join(lines) + "\n"


def _conditions(sections: Sections, where: str) -> dict[str, Mapping[str, Any]]:
    """The WHEN of a grid. Raises SpaceError where it would have no effect or is no condition."""
    when: dict[str, Mapping[str, Any]] = sections.get(f"{FULL}_{WHEN}", {})
    in_grid = {
        n for s, v in sections.items() if _mode(s) == FULL and s != f"{FULL}_{WHEN}" for n in v
    }
    for name, condition in when.items():
        if name not in in_grid:
            raise SpaceError(f"{where}: {name!r} is in no grid of this file; take it out")
        if not isinstance(condition, dict):
            raise SpaceError(f"{where}: {name}: write {{'other': value}}, not {condition!r:.40}")
    return when


def _name(name: Any, where: str) -> str:
    """The name of a hyperparameter. Raises SpaceError for what cannot be one."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SpaceError(f"{where}: {name!r:.40} is no name of a hyperparameter")
    return name


def _value(value: Any, where: str) -> str:
    """A value in TOML. Raises SpaceError for one that TOML has no word for."""
    if isinstance(value, bool | int | str):
        return json.dumps(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(v, where) for v in value)}]"
    if isinstance(value, dict):
        return _table(value, where)
    raise SpaceError(f"{where}: {value!r:.40} is no value of a hyperparameter; leave it out")


def _table(values: Mapping[str, Any], where: str) -> str:
    said = [f"{_name(n, where)} = {_value(v, where)}" for n, v in values.items() if v is not None]
    return f"{{ {', '.join(said)} }}"
