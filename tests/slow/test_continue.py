"""A training that ended too early says so, and goes on from where it ended when it is told to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from foresweep.data.windows import TrainWindows
from foresweep.evaluation.backtest import make_scorer
from foresweep.models.base import Resources, TrainingJob, make_config
from foresweep.models.registry import get_model
from foresweep.models.training.loop import adopt_states
from foresweep.records import Run
from foresweep.search.stage import reopen
from foresweep.tracker.tracker import Tracker
from panels import sine_panel
from shells import Shell

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("continue")]

CONFIG = (
    *("context_length=64", "batch_size=16", "lr=2e-3", "schedule=constant", "d_model=32"),
    *("ff_dim=64", "token_bits=5", "tokenizer_d_model=32", "num_samples=16"),
    "tokenizer_fraction=0.25",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("continue")
    panel = sine_panel(700)
    panel.select(panel.items[:2]).to_frame().write_csv(folder / "sines.csv")
    return folder


@pytest.fixture
def shell(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """All in one folder: what the baselines forecast there, one test leaves to the next."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")
    return Shell(capsys)


def runs_of(model: str) -> list[Run]:
    """Oldest first."""
    with Tracker(Path("hyperparams/sweeps.db")) as tracker:
        return sorted(tracker.get_runs(model), key=lambda run: run.trial_number or 0)


def test_a_run_that_is_still_learning_is_marked_and_goes_on(shell: Shell) -> None:
    """Of Kronos: its training has two stages, and the first must stay as it was."""
    model, sets = "kronos", [word for value in CONFIG for word in ("--set", value)]
    asked = ["--data", "sines.csv", "--horizon", "8", "--stride", "8", "--max-steps", "32"]
    said = shell("train", "--model", model, *asked, *sets)
    (first,) = runs_of(model)
    command = f"foresweep train --continue {first.run_id} --max-steps 64"
    assert "still learning" in first.tags
    for text in (said, shell("best"), shell("report")):
        assert command in text
    assert json.loads(shell("best", "--json", "--top-k", "1"))[0]["still_learning"]

    said = shell("train", "--continue", first.run_id, "--max-steps", "64")
    _, second = runs_of(model)
    assert f"Went on: run {second.run_id}" in said
    assert (second.source, second.hyperparams["max_steps"]) == (f"continues: {first.run_id}", 64)
    assert second.sweep_id == first.sweep_id
    assert second.trial_number > first.trial_number  # a trial of its own: it counts
    assert second.config_hash != first.config_hash
    with Tracker(Path("hyperparams/sweeps.db")) as tracker:
        steps = [step for step, _ in tracker.get_curve(second.run_id, "tune_pinball")]
    assert min(steps) > 32
    assert max(steps) == 64
    assert_same(weights_of(second), gone_on_by_hand(model, first, second))

    again = shell("train", "--continue", first.run_id, "--max-steps", "64")
    assert f"It went on before: run {second.run_id}" in again
    assert len(runs_of(model)) == 2
    error = shell.error("reproduce", second.run_id, code=2)
    assert f"reproduce {first.run_id}" in error


def gone_on_by_hand(model: str, first: Run, second: Run) -> dict[str, Any]:
    """The weights that the family's own training makes of the state that the first run kept."""
    with Tracker(Path("hyperparams/sweeps.db")) as tracker:
        panel, split = reopen(tracker.get_sweep("latest"), Path("hyperparams/runs"))
    family, out = get_model(model), Path("by hand") / "checkpoint"
    assert adopt_states([Path(str(first.checkpoint_path))], out) is not None
    made = family.train(TrainingJob(
        TrainWindows(panel, split, split.part("train")),
        make_config(family.Config, second.hyperparams, model=model),
        Resources(threads=1),
        horizon=split.horizon,
        score=make_scorer(panel, split),
        out=out,
        resume=out,
    ))  # fmt: skip
    return weights_in(made.path)


def weights_of(run: Run) -> dict[str, Any]:
    return weights_in(Path(str(run.checkpoint_path)))


def weights_in(folder: Path) -> dict[str, Any]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])


def test_what_cannot_go_on_is_refused_with_what_can_be_done(shell: Shell) -> None:
    asked = ["--data", "sines.csv", "--horizon", "8", "--stride", "8"]
    shell("train", "--model", "drift", *asked)
    (run,) = (r.run_id for r in runs_of("drift"))
    for words, said in (
        (("--continue", run, "--max-steps", "64"), "keeps no training state"),
        (("--continue", run), "--max-steps N"),
        (("--continue", run, "--max-steps", "64", "--set", "lr=1"), "--set beside --continue"),
        (("--continue", run, "--max-steps", "64", "--model", "toto"), "--model beside --continue"),
        ((), "say what to train"),
    ):
        assert said in shell.error("train", *words, code=2)
