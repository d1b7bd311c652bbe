"""Sweep files: what a user writes is what is drawn from, or is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from foresweep.errors import UsageError
from foresweep.models.registry import FAMILIES
from foresweep.search.plan import SweepPlan
from foresweep.search.propose.modes import load_space, propose, space_text
from foresweep.search.propose.spacefiles import as_python, read_sweep_files, with_configs
from foresweep.space import Choice, Float, Spaces, as_dimension

SCRATCH = {"pretrained": None, "size": "tiny"}


def written(folder: Path, text: str, name: str = "toto.toml") -> Spaces:
    file = folder / name
    file.write_text(text)
    return read_sweep_files([file])


def test_a_copied_file_is_the_built_in_space(tmp_path: Path) -> None:
    spaces = written(tmp_path, space_text("toto"))
    assert load_space("toto", "scratch", spaces) == load_space("toto", "scratch")


def test_an_edited_file_is_drawn_from_in_place_of_the_built_in(tmp_path: Path) -> None:
    spaces = written(tmp_path, 'model = "toto"\n[space]\nlr = 0.002\nbatch_size = [4, 8]\n')
    found = propose(("toto",), "random", base=SCRATCH, seed=0, count=9, spaces=spaces)
    assert {p.config["lr"] for p in found} == {0.002}
    assert {p.config["batch_size"] for p in found} == {4, 8}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[space.leraning_rate]\nlow = 1.0\nhigh = 2.0", "'leraning_rate' of toto in .*toto.toml"),
        ("[space.lrr]\nlow = 1.0\nhigh = 2.0", "did you mean 'lr'"),
        ("[full.lr]\nchoices = [1.0]\nwhen = { lss = 1 }", "condition of lr in .*toto.toml"),
        ('[[priority]]\nname = "mine"\nsource = "me"\nconfig = { lrr = 1 }', "'mine' of .*'lr'"),
        ('[[priorty]]\nname = "mine"\nsource = "me"', "did you mean 'priority'"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(
    text: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=says):
        load_space("toto", "scratch", written(tmp_path, f'model = "toto"\n{text}'))


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'toto'"):
        written(tmp_path, 'model = "totoo"')


def test_two_files_for_one_model_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.toml").write_text('model = "toto"')
    with pytest.raises(UsageError, match=r"b.toml: toto has a space in .*a.toml already"):
        read_sweep_files([tmp_path / "a.toml", tmp_path / "b.toml"])


PYTHON = '''"""Grids of mine."""
from typing import Any
TOTO_FULL: dict[str, Any] = {"lr": [1e-4, 3e-4], "batch_size": [4, 8], "schedule": "cosine"}
TOTO_PRIORITY = [{"lr": 3e-4, "batch_size": 8}, {"lr": 1e-4, "sign_flip": True}]
'''


def test_a_python_file_of_dicts_is_read(tmp_path: Path) -> None:
    spaces = written(tmp_path, PYTHON, "sweep_configs.py")
    file = load_space("toto", "scratch", spaces)
    assert file.full.size == 4
    assert file.full.dimensions["schedule"] == Choice(("cosine",))
    assert [dict(e.config) for e in file.entries["priority"]] == [
        {"lr": 3e-4, "batch_size": 8},
        {"lr": 1e-4, "sign_flip": True},
    ]
    assert file.entries["priority"][1].name == "sweep_configs.py 2"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("TOTO_FULL = make()", "line 2: TOTO_FULL is not made of plain values"),
        ("open('/tmp/x', 'w')", "line 2: only NAME = values is read"),
        ("for x in y: pass", "line 2: only NAME = values"),
        ("GRID = {'lr': [1e-4]}", "line 2: GRID names none of toto, kronos, chronos2"),
        ("TOTO_FULL = [{'lr': 1e-4}]", "must be one dict of lists"),
        ("TOTO_FULL = {'stride': [None, 8]}", "None is no value"),
        ("TOTO_FULL = {", "not valid Python"),
    ],
)
def test_what_a_python_file_may_not_say_is_refused_by_line(
    line: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=says):
        written(tmp_path, f"import os\n{line}\n", "sweep_configs.py")


def test_what_is_set_changes_the_space_and_what_is_fixed_every_config() -> None:
    changes = {"lr": as_dimension("lr", "1e-5..2e-5:log"), "batch_size": Choice((4,))}
    spaces = Spaces(changes=changes)
    assert load_space("toto", "scratch", spaces).space.dimensions["lr"] == Float(1e-5, 2e-5, True)
    found = propose(("toto",), "priority", base=SCRATCH, seed=0, count=9, spaces=spaces)
    assert {p.config["batch_size"] for p in found} == {4}


def test_a_range_where_nothing_is_drawn_is_refused() -> None:
    changes = {"lr": Float(1e-5, 1e-3)}
    with pytest.raises(UsageError, match="--mode priority draws nothing"):
        SweepPlan(models=("toto",), spaces=Spaces(changes=changes)).checked()
    SweepPlan(models=("toto",), mode="smart", spaces=Spaces(changes=changes)).checked()
    with pytest.raises(UsageError, match="nothing is trained"):
        SweepPlan(models=("drift",), spaces=Spaces(changes={"lr": Choice((1,))})).checked()


def test_a_range_is_no_grid() -> None:
    spaces = Spaces(changes={"lr": Float(1e-5, 1e-3)})
    with pytest.raises(UsageError, match="a grid needs choices"):
        propose(("toto",), "full", base=SCRATCH, seed=0, count=9, spaces=spaces)


CONFIGS = Path(__file__).parents[3] / "hyperparams" / "sweep_configs.py"


def test_the_file_of_configs_beside_the_database_says_what_is_built_in() -> None:
    assert CONFIGS.read_text() == as_python(FAMILIES), (
        "write it anew: foresweep spaces copy all --python > hyperparams/sweep_configs.py"
    )


@pytest.mark.parametrize("start", ["scratch", "pretrained"])
@pytest.mark.parametrize("model", FAMILIES)
def test_the_file_of_configs_gives_the_built_in_space_of_both_starts(
    model: str, start: Literal["scratch", "pretrained"]
) -> None:
    spaces = with_configs(Spaces(), CONFIGS, [model])
    assert set(spaces.texts) == {model}
    assert load_space(model, start, spaces) == load_space(model, start)


def test_a_grid_that_is_edited_there_is_swept_and_the_rest_stays(tmp_path: Path) -> None:
    file = tmp_path / "sweep_configs.py"
    file.write_text(
        'TOTO_FULL = {"max_epochs": [30], "loss_type": ["quantile"]}\nKRONOS_FULL = {"lr": [1e-4]}'
    )
    spaces = with_configs(Spaces(), file, ["toto"])
    edited, built_in = load_space("toto", "scratch", spaces), load_space("toto", "scratch")
    assert list(edited.full.grid()) == [{"max_epochs": 30, "loss_type": "quantile"}]
    assert (edited.entries, edited.space) == (built_in.entries, built_in.space)
    assert "kronos" not in spaces.texts


def test_a_sweep_file_of_ones_own_goes_before_the_file_of_configs(tmp_path: Path) -> None:
    own = written(tmp_path, 'model = "toto"\n[full]\nlr = [0.5]\n')
    assert with_configs(own, CONFIGS, ["toto", "kronos"]).texts["toto"] == own.texts["toto"]


def test_what_holds_for_one_start_is_written_into_a_config(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="TOTO_PRIORITY_SCRATCH: write what holds for one start"):
        written(tmp_path, "TOTO_PRIORITY_SCRATCH = [{'lr': 0.1}]", "c.py")
