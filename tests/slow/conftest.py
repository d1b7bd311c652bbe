"""One short sweep of real models, for all tests that read it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shells import Shell

PLACES = ("--data", "demo", "--stride", "20", "--max-context", "256", "--max-steps", "6")
ALL = ("sweep", *PLACES, "--model", "all", "--mode", "demo", "--max-runs", "3")


@pytest.fixture(scope="session")
def sweep_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one short sweep over all three models; out.txt is what it said. Only tests of
    the xdist group `swept` ask for it, so that it is made once."""
    folder = tmp_path_factory.mktemp("swept")
    done = subprocess.run(
        [sys.executable, "-m", "foresweep", *ALL],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "out.txt").write_text(done.stdout)
    return folder


@pytest.fixture
def swept(sweep_of_all: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working folder. Its runs' files are those of the original."""
    shutil.copytree(sweep_of_all, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """The command line in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return Shell(capsys)
