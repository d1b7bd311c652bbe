from __future__ import annotations

from pathlib import Path

import pytest

from foresweep.errors import UnknownName, UsageError
from foresweep.settings import Settings, is_url, load_settings


def pyproject(folder: Path, text: str) -> Path:
    file = folder / "pyproject.toml"
    file.write_text(text)
    return file


def test_the_defaults_are_those_of_the_seed(tmp_path: Path) -> None:
    assert load_settings(environ={}, folder=tmp_path) == Settings(
        database="hyperparams/sweeps.db",
        runs_dir=Path("hyperparams/runs"),
        data=None,
        synchronous="NORMAL",
    )


def test_what_is_said_beats_the_environment_beats_the_file(tmp_path: Path) -> None:
    pyproject(tmp_path, '[tool.foresweep]\ndb = "f.db"\nruns = "f"\ndata = "f"\n')
    environ = {"FORESWEEP_DB": "e.db", "FORESWEEP_RUNS": "e"}
    found = load_settings(database="said.db", environ=environ, folder=tmp_path)
    assert found.database == "said.db"
    assert found.runs_dir == Path("e")
    assert found.data == str(tmp_path / "f")


def test_a_path_in_the_file_starts_at_the_files_folder(tmp_path: Path) -> None:
    pyproject(tmp_path, '[tool.foresweep]\ndb = "here.db"\n')
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert load_settings(environ={}, folder=inner).database == str(tmp_path / "here.db")


def test_the_data_may_be_the_demo_whose_name_is_no_path(tmp_path: Path) -> None:
    pyproject(tmp_path, '[tool.foresweep]\ndata = "demo"\n')
    assert load_settings(environ={}, folder=tmp_path).data == "demo"
    assert load_settings(environ={"FORESWEEP_DATA": "x"}, folder=tmp_path).data == "x"
    assert load_settings(data=Path("y"), environ={}, folder=tmp_path).data == "y"


def test_a_url_in_the_file_stays_as_it_is(tmp_path: Path) -> None:
    pyproject(tmp_path, '[tool.foresweep]\ndb = "sqlite:////x/y.db"\n')
    assert load_settings(environ={}, folder=tmp_path).database == "sqlite:////x/y.db"


def test_a_project_without_the_table_keeps_the_defaults(tmp_path: Path) -> None:
    pyproject(tmp_path, '[project]\nname = "x"\n')
    assert load_settings(environ={}, folder=tmp_path) == Settings()


def test_an_empty_variable_says_nothing(tmp_path: Path) -> None:
    assert load_settings(environ={"FORESWEEP_DB": " "}, folder=tmp_path) == Settings()


def test_an_unknown_key_names_the_nearest_and_the_file(tmp_path: Path) -> None:
    file = pyproject(tmp_path, '[tool.foresweep]\nruns_ = "x"\n')
    with pytest.raises(UnknownName, match=r"runs_.*pyproject\.toml; did you mean 'runs'"):
        load_settings(environ={}, folder=tmp_path)
    assert file.exists()


@pytest.mark.parametrize(
    "text",
    [
        "[tool.foresweep",
        "[tool.foresweep]\ndb = 3\n",
        '[tool.foresweep]\ndb = ""\n',
        "tool = 3\n",
        "[tool]\nforesweep = 3\n",
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    pyproject(tmp_path, text)
    with pytest.raises(UsageError, match=r"pyproject\.toml"):
        load_settings(environ={}, folder=tmp_path)


def test_synchronous_is_normal_or_full(tmp_path: Path) -> None:
    environ = {"FORESWEEP_SYNCHRONOUS": "full"}
    assert load_settings(environ=environ, folder=tmp_path).synchronous == "FULL"
    with pytest.raises(UsageError, match="'off'; it must be NORMAL or FULL"):
        load_settings(synchronous="off", environ={}, folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "url"), [("sqlite:///a.db", True), ("a.db", False), ("C:\\x\\a.db", False)]
)
def test_a_url_is_told_from_a_path(text: str, url: bool) -> None:
    assert is_url(text) is url
