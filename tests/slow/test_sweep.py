"""Sweeps over real models, through the command line, with workers killed for real."""

from __future__ import annotations

import json
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from foresweep.cli.main import main
from foresweep.data.splits import Cut
from foresweep.search.plan import SweepPlan
from foresweep.tracker.tracker import Tracker
from known_baselines import know_baselines
from shells import Shell

pytestmark = pytest.mark.slow
PLACES = ("--data", "demo", "--stride", "20", "--max-context", "256")
SWEEP = ("sweep", *PLACES)
ALL = (*SWEEP, "--model", "all", "--mode", "demo", "--max-runs", "3", "--max-steps", "6")
ALONE = (*SWEEP, "--model", "chronos2", "--workers", "1")  # however many cores there are


def start(folder: Path, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "foresweep", *args],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(folder: Path, *args: str, code: int = 0) -> str:
    process = start(folder, *args)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    assert "Traceback" not in err
    return out


def runs_of(folder: Path, model: str) -> list[dict[str, Any]]:
    """Runs of a model, newest first."""
    found: list[dict[str, Any]] = json.loads(run(folder, "runs", "--model", model, "--json"))
    return found


def busy_worker(head: subprocess.Popen[str]) -> Iterator[psutil.Process]:
    """The grandchild that trains: head -> forkserver -> worker."""
    for server in psutil.Process(head.pid).children():
        yield from server.children()


GROUP = pytest.mark.xdist_group("swept")


@GROUP
@pytest.mark.usefixtures("swept")
def test_one_command_sweeps_all_three_models_beside_the_baselines(shell: Shell) -> None:
    found = json.loads(shell("runs", "--json"))
    assert {r["model_name"] for r in found if r["state"] == "complete"} == {
        "toto", "kronos", "chronos2", "last-value", "drift", "seasonal-naive", "random-walk", "har",
    }  # fmt: skip
    assert len({r["fingerprints"]["val"] for r in found}) == 1


@GROUP
def test_the_sweep_ends_in_an_honest_sentence(swept: Path, shell: Shell) -> None:
    out = (swept / "out.txt").read_text()
    assert "nothing is downloaded" in out
    assert "test is sealed" in out
    best = json.loads(shell("best", "--json"))[0]
    said = "Nothing beats naive" if best["skill_vs_last_value"] <= 0 else "better than last-value"
    assert said in out


@GROUP
def test_a_chosen_checkpoint_forecasts_in_a_new_process(swept: Path, shell: Shell) -> None:
    shell("best", "--export-path")
    asked = ("predict", "--data", "demo", "--json")
    first, second = json.loads(run(swept, *asked)), json.loads(shell(*asked))
    assert len(first) == 6 * 5
    assert first == second


@GROUP
@pytest.mark.usefixtures("swept")
def test_the_same_command_again_trains_nothing(shell: Shell) -> None:
    out = shell(*ALL)
    assert out.count("trained before as") == 6 + 3  # baselines, and a config a model


def wait_for_worker(head: subprocess.Popen[str]) -> list[psutil.Process]:
    """Poll until the trial's process is there."""
    while head.poll() is None:
        workers = [w for w in busy_worker(head) if w.is_running()]
        if workers:
            return workers
    raise AssertionError("the sweep ended before a worker was seen")


def test_ctrl_c_leaves_no_run_running(tmp_path: Path) -> None:
    db = tmp_path / "hyperparams" / "sweeps.db"
    know_baselines(db, SweepPlan((), cut=Cut(stride=20, max_context=256)))
    head = start(tmp_path, *ALONE, "--mode", "demo", "--max-steps", "300")
    with Tracker(db) as tracker:
        while not tracker.get_runs("chronos2"):  # it begins when its run does
            assert head.poll() is None
            time.sleep(0.05)
    workers = wait_for_worker(head)
    head.send_signal(signal.SIGINT)
    out = head.communicate(timeout=60)[0]
    assert head.returncode == 130, out
    assert "Stopped." in out
    assert [r["state"] for r in runs_of(tmp_path, "chronos2")] == ["cancelled"]
    assert not psutil.wait_procs(workers, timeout=20)[1]


def test_a_trial_that_raises_is_on_record_with_its_traceback(shell: Shell) -> None:
    know_baselines(
        Path("hyperparams/sweeps.db"), SweepPlan((), cut=Cut(stride=40, max_context=128))
    )
    out = shell("train", "--data", "demo", "--stride", "40", "--max-context", "128",
                "--model", "chronos2",
                "--set", "lr=0.01", "--set", "gradient_clip=1e9", "--set", "max_steps=40",
                "--set", "warmup_fraction=0.0", "--set", "weight_decay=500",
                "--set", "schedule=constant", code=1)  # fmt: skip
    (failed,) = json.loads(shell("runs", "--model", "chronos2", "--json"))
    assert failed["state"] == "failed"
    assert "not finite" in failed["error"]
    assert "Traceback" in failed["error"]
    assert "Traceback" not in out
    assert "Nothing that was asked for came to its end" in out
    assert "leak test" not in failed["error"]
    with pytest.raises(SystemExit):
        main(["logs", failed["run_id"]])
    assert "Traceback" in shell.capsys.readouterr().out


@GROUP
def test_the_seeds_scripts_take_the_seeds_words(
    swept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(name: str, *words: str) -> str:
        """What it says, run as a script in this process, whose imports are done."""
        monkeypatch.setattr(sys, "argv", [name, *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(Path(__file__).parents[2] / name), run_name="__main__")
        out, err = capsys.readouterr()
        assert not ended.value.code, out + err
        return out

    said = script("select_best_model.py", "--top-k", "10", "--export-path",
                  "--tracker-db", "hyperparams/sweeps.db")  # fmt: skip
    assert "toto" in said
    assert (swept / ".best_model_path").exists()
    know_baselines(swept / "scripts.db", SweepPlan((), cut=Cut(stride=40)))
    said = script("run_sweep.py", "--model", "toto", "--mode", "priority", "--max-runs", "1",
                  "--max-steps", "2", "--data", "demo", "--stride", "40",
                  "--db", "scripts.db")  # fmt: skip
    assert "quantile loss, context 512" in said
    script("tototraining/run_improved_training.py", "--set", "context_length=64", "--max-steps",
           "1", "--data", "demo", "--stride", "40", "--db", "scripts.db")  # fmt: skip
    with Tracker(swept / "scripts.db") as tracker:
        newest = max(tracker.get_runs(model_name="toto"), key=lambda run: run.created_at)
    wanted = {"context_length": 64, "patch_size": 32, "gradient_clip": 1.0, "loss_type": "quantile"}
    assert newest.hyperparams.items() >= wanted.items()
