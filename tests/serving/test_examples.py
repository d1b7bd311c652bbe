"""What stands in examples/serving says commands that exist, and does what it says."""

from __future__ import annotations

import configparser
import importlib.util
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from foresweep.cli.main import app
from foresweep.lifecycle.champion import promote
from foresweep.tracker.tracker import Tracker
from panels import make_frame
from served_runs import a_run

FOLDER = Path(__file__).parents[2] / "examples" / "serving"
UNIT = FOLDER / "foresweep.service"


def unit() -> configparser.ConfigParser:
    found = configparser.ConfigParser(strict=False, interpolation=None)
    found.optionxform = str  # type: ignore[assignment, method-assign]
    found.read(UNIT)
    return found


def container() -> list[str]:
    line = next(x for x in (FOLDER / "Dockerfile").read_text().splitlines() if x[:4] == "CMD ")
    words: list[str] = json.loads(line[4:])
    return words


@pytest.mark.parametrize(
    "words", [shlex.split(unit()["Service"]["ExecStart"]), container()], ids=["unit", "container"]
)
def test_the_command_is_one_that_parses(words: list[str]) -> None:
    assert Path(words[0]).name == "foresweep"
    command = get_command(app).commands[words[1]]  # type: ignore[attr-defined]
    context = command.make_context("foresweep serve", words[2:])
    assert (context.params["host"], context.params["port"]) == ("0.0.0.0", 8766)


def test_the_service_gives_its_requests_time_to_end() -> None:
    assert int(unit()["Service"]["TimeoutStopSec"]) > 30  # the default of --max-time


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    here = tmp_path / "foresweep.service"
    here.write_text(UNIT.read_text().replace("/opt/foresweep/bin/foresweep", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(here)], capture_output=True, text=True, check=False
    )
    about = [line for line in done.stderr.splitlines() if "foresweep" in line]
    assert about == []


def test_the_image_copies_what_is_there() -> None:
    root = FOLDER.parents[1]
    for line in (FOLDER / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            for name in line.split()[1:-1]:
                assert (root / name).exists(), name


def test_the_adapter_is_short_and_forecasts_as_the_champion_does(tmp_path: Path) -> None:
    file = FOLDER / "forecaster.py"
    assert len(file.read_text().splitlines()) < 60
    spec = importlib.util.spec_from_file_location("forecaster", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with Tracker(tmp_path / "sweeps.db") as tracker:
        promote(tracker, a_run(tracker, tmp_path).run_id)
    frame = make_frame(2, 100).to_pandas()
    fitted = module.ChampionForecaster(db=str(tmp_path / "sweeps.db")).fit(frame, fh=[1, 3])
    found = fitted.predict_quantiles(alpha=[0.1, 0.9])
    assert list(found.columns) == [0.1, 0.9]
    assert len(found) == 4
    medians = fitted.predict()
    assert np.isfinite(medians).all()
    assert (found[0.1] < medians).all()
