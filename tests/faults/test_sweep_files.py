"""Malformed sweep files: refused in one line, or each config that they give is the model's."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import broken
from foresweep.errors import ConfigError, UsageError
from foresweep.models.base import make_config
from foresweep.models.registry import get_model
from foresweep.search.propose.modes import load_space, propose, space_text
from foresweep.search.propose.spacefiles import as_python, read_sweep_files, with_configs
from foresweep.space import Spaces

MODELS = ("toto", "kronos", "chronos2")
BASES = ({"pretrained": None, "size": "tiny"}, {"pretrained": "published", "size": None})
MODES = ("priority", "quick", "full", "random")
DRAWN = 6


def use(file: Path, model: str) -> str:
    """`read: ...` with the number of configs that a file gives in all modes and starts, else
    `refused: ...` or `wrong: ...`."""
    try:
        if file.suffix == ".py":
            spaces = with_configs(Spaces(), file, [model])
        else:
            spaces = read_sweep_files([file])
    except BaseException as error:
        return usage(error)
    given = 0
    for base in BASES:
        for mode in MODES:
            try:
                if spaces.texts:
                    load_space(model, "pretrained" if base["pretrained"] else "scratch", spaces)
                found = propose(
                    (model,), mode, base=base, seed=0, count=DRAWN, spaces=spaces, step_cap=50
                )
            except BaseException as error:
                return usage(error)
            for one in found:
                try:
                    make_config(get_model(model).Config, one.config, model=model)
                    given += 1
                except ConfigError as error:  # a sweep says so of this config, and goes on
                    if "\n" in str(error):
                        return f"wrong: more than a line: {error}"
    return f"read: {given} configs"


def usage(error: BaseException) -> str:
    """Of a file that cannot be read: the words of the call are wrong."""
    said = broken.refusal(error)
    if said.startswith("refused") and not isinstance(error, UsageError):
        return f"wrong: {type(error).__name__}: {error}"
    return said


def case(folder: Path, number: int, chance: random.Random) -> tuple[str, str]:
    model = chance.choice(MODELS)
    python = number % 2 == 1
    text = as_python([model]) if python else space_text(model)
    file = folder / ("configs.py" if python else f"{model}.toml")
    told = []
    for _ in range(chance.choice([1, 1, 2, 5])):
        what, text = broken.retyped(text, chance)
        told.append(what)
    content = text.encode("utf-8", "surrogatepass")
    if chance.random() < 0.2:
        what, content = broken.damaged(content, chance)
        told.append(what)
    file.write_bytes(content)
    before = broken.contents(folder)
    outcome = use(file, model)
    if broken.contents(folder) != before:
        outcome = "wrong: reading has changed a file"
    return outcome, f"{file.name} of {model}: {told}"


def campaign(folder: Path, num: int, seed: int) -> broken.Seen:
    seen = broken.Seen()
    for number, chance in broken.chances(num, seed):
        outcome, what = case(folder, number, chance)
        seen.add(outcome, f"case {number}: {what}")
        for path in folder.iterdir():
            path.unlink()
    return seen


def test_a_malformed_sweep_file_is_refused_in_a_line_or_gives_configs(tmp_path: Path) -> None:
    seen = campaign(tmp_path, 16, seed=0)
    seen.require_none_wrong()
    assert min(seen.outcomes["refused"], seen.outcomes["read"]) >= 3, seen.outcomes


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_five_hundred_malformed_sweep_files(tmp_path: Path) -> None:
    campaign(tmp_path, 500, seed=1).require_none_wrong()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("full = 3", "full must be a table"),
        ("x = " + "[" * 5000, "brackets in brackets"),
        ("[full]\nlr = { choices = 3 }", "choices must be a list"),
        ('[full]\nlr = { choices = "abc" }', "choices must be a list"),
        ('[space]\nlr = { low = 0.1, high = 0.2, log = "no" }', "log is true or false"),
        ("[space]\nlr = { low = 0.1, high = inf }", "reaches beyond"),
        ("[space]\nbatch_size = { low = 1, high = 9223372036854775807 }", "reaches beyond"),
        ('[[quick]]\nname = 1\nsource = "s"', "name of an entry must be a text"),
        ('[[quick]]\nname = "n"\nsource = "s"\nconfig = 3', "config of an entry must be a table"),
    ],
)
def test_what_is_no_space_is_refused_by_place(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "toto.toml"
    file.write_text(f'model = "toto"\n{text}')
    with pytest.raises(UsageError, match=rf"toto\.toml: .*{says}"):
        load_space("toto", "scratch", read_sweep_files([file]))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("TOTO_FULL = {[]: 1}", "plain values"),
        ("TOTO_FULL = {3: [1]}", "no name of a hyperparameter"),
        ("TOTO_FULL = {'lr]\\nmodel': [1]}", "no name of a hyperparameter"),
        ("TOTO_FULL = {'a.b': [1]}", "no name of a hyperparameter"),
        ("TOTO_FULL = {'lr': ['\\ud800']}", "not valid TOML"),
        ("TOTO_FULL = {'lr': [1]}\nTOTO_FULL_WHEN = {'lr': 5}", "write {'other': value}"),
        ("TOTO_FULL = {'lr': [1]}\nTOTO_FULL_WHEN = {'lrr': {}}", "in no grid"),
        ("TOTO_FULL = " + "(" * 400 + ")" * 400, "not valid Python|plain values"),
        ("TOTO_FULL = " + "-" * 100_000 + "1", "not valid Python|plain values"),
        ("TOTO_FULL = {'lr': [1]}\0", "not valid Python"),
    ],
)
def test_python_that_is_no_space_is_refused_by_place(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "configs.py"
    file.write_text(text)
    with pytest.raises(UsageError, match=rf"configs\.py.*({says})"):
        with_configs(Spaces(), file, ["toto"])


def test_a_grid_that_cannot_be_laid_out_is_refused(tmp_path: Path) -> None:
    grid = "\n".join(f"{name} = {[n / 1000 for n in range(1, 200)]}" for name in ("lr", "dropout"))
    file = tmp_path / "toto.toml"
    file.write_text(f'model = "toto"\n[full]\n{grid}\nweight_decay = {list(range(1, 200))}')
    with pytest.raises(UsageError, match=r"a grid of 7,880,599 points is too large"):
        propose(("toto",), "full", base=BASES[0], seed=0, count=3, spaces=read_sweep_files([file]))
