"""A bundle forecasts and judges again without its database, and tells when it was touched."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from foresweep.errors import CheckpointError, DataError, UsageError
from foresweep.evaluation.predict import predict_panel
from foresweep.lifecycle.bundle import EXAMPLE_TEXT, open_bundle, write_bundle
from foresweep.models.checkpoint import read_checkpoint, write_checkpoint
from foresweep.selection.sealed import reopen_test
from foresweep.selection.verdict.runs import verdict_on_runs
from foresweep.tracker.tracker import Tracker
from judged_sweep import Planted, plant
from panels import make_panel
from shells import Shell

SKILLS = {"good": 0.1, **{f"t{k}": -0.01 * (k + 1) for k in range(4)}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    """A sweep with a promoted run and one on hold, whose checkpoints are a baseline's."""
    folder = tmp_path_factory.mktemp("bundle")
    with Tracker(folder / "sweeps.db") as tracker:
        planted = plant(tracker, folder / "runs", SKILLS, items=8, origins=50)
        for name in ("good", "t0"):
            place = Path(str(planted.runs[name].checkpoint_path))
            shutil.rmtree(place)
            card = {"run_id": planted.id(name), "horizon": 5}
            write_checkpoint(place, model="drift", config={"context_length": 64}, card=card)
        told = verdict_on_runs(tracker, [planted.id("good")])
        assert told[0].outcome == "promote"
        verdict_on_runs(tracker, [planted.id("t0")])
        yield planted


@pytest.fixture(scope="module")
def zipped(made: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zip") / "model.zip"
    write_bundle(made.tracker, made.id("good"), path)
    return path


def test_the_verdict_comes_out_again_without_the_database(made: Planted, zipped: Path) -> None:
    with open_bundle(zipped) as bundle:
        again = bundle.verdict()
    stored = made.tracker.judgings.verdicts(made.id("good"))[-1]["content"]
    assert again.outcome == "promote"
    assert again.looked
    ours = json.loads(json.dumps(again.without_test()))
    assert ours["checks"] == stored["checks"]
    assert ours["against"] == stored["against"]
    assert ours["num_trials"] == stored["num_trials"] == 5


def test_a_run_on_hold_is_bundled_without_a_byte_of_test(made: Planted, tmp_path: Path) -> None:
    write_bundle(made.tracker, made.id("t0"), tmp_path / "hold.zip")
    with zipfile.ZipFile(tmp_path / "hold.zip") as packed:
        assert not [n for n in packed.namelist() if "test" in n]
    with open_bundle(tmp_path / "hold.zip") as bundle:
        assert bundle.verdict().outcome == "hold"
    with pytest.raises(UsageError, match="no verdict has opened the test"):
        reopen_test(made.tracker, made.runs["t0"], [])


def test_bundling_is_no_look_at_test(made: Planted, tmp_path: Path) -> None:
    before = len(made.tracker.judgings.test_looks())
    write_bundle(made.tracker, made.id("good"), tmp_path / "again.zip")
    assert len(made.tracker.judgings.test_looks()) == before


def test_it_forecasts_as_its_run_does(made: Planted, zipped: Path) -> None:
    panel = make_panel(2, 100)
    with open_bundle(zipped) as bundle:
        found = bundle.predict(panel)
        folder = bundle.folder
    wanted = predict_panel(Path(str(made.runs["good"].checkpoint_path)), panel)
    assert np.array_equal(found["0.5"].to_numpy(), wanted.forecast.median.ravel())
    assert not folder.exists()


@pytest.mark.parametrize("name", ["losses/0.val.npz", "cases.json", "config.json"])
def test_a_file_that_was_touched_is_named(zipped: Path, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(zipped) as packed:
        packed.extractall(tmp_path)
    file = next(p for p in tmp_path.rglob("*") if str(p).endswith(name))
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match=f"{name} was altered"):
        open_bundle(tmp_path)
    file.unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        open_bundle(tmp_path)


def test_a_verdict_that_its_losses_do_not_give_is_refused(zipped: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(zipped) as packed:
        packed.extractall(tmp_path)
    file = tmp_path / "bundle.json"
    said = json.loads(file.read_text())
    said["verdict"]["num_trials"] += 1
    file.write_text(json.dumps(said))
    with open_bundle(tmp_path) as bundle, pytest.raises(DataError, match=r"tells: .*num_trials"):
        bundle.verdict()


def test_a_verdict_that_trials_have_overtaken_is_not_bundled(tmp_path: Path) -> None:
    with Tracker(tmp_path / "sweeps.db") as tracker:
        planted = plant(tracker, tmp_path / "runs", SKILLS, items=8, origins=50)
        verdict_on_runs(tracker, [planted.id("good")])
        rival = planted.runs["t0"]
        more = tracker.start_run(
            model="toto", hyperparams={}, sweep_id=planted.sweep.sweep_id, trial_number=99,
            fingerprints=planted.sweep.fingerprints, config_hash="new",
        )  # fmt: skip
        shutil.copytree(str(rival.forecasts_path), tmp_path / "runs" / more.run_id)
        tracker.finish_run(
            more.run_id, "complete", scores=dict(rival.metrics),
            forecasts_path=tmp_path / "runs" / more.run_id,
        )  # fmt: skip
        with pytest.raises(UsageError, match="trials were added or removed since"):
            write_bundle(tracker, planted.id("good"), tmp_path / "model.zip")
    assert not (tmp_path / "model.zip").exists()


def test_the_command_line_writes_and_judges_it(
    made: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    shell = Shell(capsys)
    db = str(made.tracker.store.path)
    out = shell("export", "bundle", made.id("good"), "-o", "m.zip", "--db", db)
    assert "promote" in out
    assert shell("verdict", "--bundle", "m.zip").startswith("PROMOTE")  # no database here
    assert not list(tmp_path.glob("hyperparams/*"))
    assert "two questions" in shell.error("verdict", made.id("good"), "--bundle", "m.zip", code=2)
    line = shell.error("export", "hf", made.id("good"), "out", "--bare", "--db", db, code=2)
    assert "drift has no files of its authors" in line
    assert "no bundle" in shell.error("verdict", "--bundle", "nothing.zip", code=2)


@pytest.mark.slow
def test_its_example_runs_as_it_stands(zipped: Path, tmp_path: Path) -> None:
    assert EXAMPLE_TEXT.count("\n") <= 20
    with zipfile.ZipFile(zipped) as packed:
        packed.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "promote" in done.stdout
    assert "AAPL" in done.stdout


def test_its_example_names_the_package_of_a_plug_in(
    made: Planted, zipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(path: Path) -> str:
        with zipfile.ZipFile(path) as packed:
            return packed.read("example.py").decode().splitlines()[0]

    assert told(zipped).endswith('pip install "foresweep[models]"')
    monkeypatch.setattr("foresweep.lifecycle.bundle.brought_by", lambda point: "foresweep-mine")
    write_bundle(made.tracker, made.id("good"), tmp_path / "mine.zip")
    assert told(tmp_path / "mine.zip").endswith('pip install "foresweep[models]" foresweep-mine')


def test_a_bundled_checkpoint_is_sound(zipped: Path) -> None:
    with open_bundle(zipped) as bundle:
        assert read_checkpoint(bundle.folder / bundle.said["checkpoint"]).model == "drift"
