"""The local engine: real processes, killed for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from foresweep.errors import DataError, WorkerDied
from foresweep.models.base import TrialPruned
from foresweep.search.channel import Progress
from foresweep.search.engine import TaskFailed, run_task
from foresweep.search.local import LocalEngine
from planted_model import plugin
from trial_tasks import KillItself, Raise, Report, SayPid

ENGINE = LocalEngine()


def run(task: object, tmp_path: Path) -> object:
    return run_task(ENGINE, task, log=tmp_path / "training.log")  # type: ignore[arg-type]


def test_the_result_and_every_scored_step_come_back(tmp_path: Path) -> None:
    heard: list[Progress] = []
    result = run_task(ENGINE, Report(), log=tmp_path / "training.log", on_progress=heard.append)
    assert result == 42
    assert [(p.step, p.scores["tune_pct_mae"]) for p in heard] == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_what_a_trial_prints_is_in_its_log(tmp_path: Path) -> None:
    run(Report(), tmp_path)
    assert "printed by the trial" in (tmp_path / "training.log").read_text()


def test_an_error_keeps_its_words_and_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(TaskFailed, match="the price is text") as caught:
        run(Raise(DataError("the price is text")), tmp_path)
    assert caught.value.failed.kind == "DataError"
    assert "in __call__" in caught.value.failed.traceback
    assert "the price is text" in (tmp_path / "training.log").read_text()


def test_any_exception_of_a_package_fails_the_task_only(tmp_path: Path) -> None:
    with pytest.raises(TaskFailed, match="ZeroDivisionError"):
        run(Raise(ZeroDivisionError("by zero")), tmp_path)


def test_a_pruned_trial_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrialPruned):
        run(Raise(TrialPruned()), tmp_path)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_worker_fails_its_task_and_names_the_signal(how: int, tmp_path: Path) -> None:
    with pytest.raises(WorkerDied, match=signal.Signals(how).name):
        run(KillItself(how), tmp_path)
    assert run(Report(), tmp_path) == 42


def test_no_worker_is_left_behind(tmp_path: Path) -> None:
    assert not psutil.pid_exists(int(str(run(SayPid(), tmp_path))))


def test_a_worker_whose_head_is_killed_leaves(tmp_path: Path) -> None:
    """The head dies with -9 while a worker trains; the worker sees its pipe close and goes."""
    script = tmp_path / "head.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path.insert(0, {str(Path(__file__).parents[1])!r})
            from pathlib import Path
            from trial_tasks import Endless
            from foresweep.search.engine import run_task
            from foresweep.search.local import LocalEngine

            def show(progress):
                print(int(progress.scores["pid"]), flush=True)

            run_task(
                LocalEngine(), Endless(), log=Path({str(tmp_path)!r}) / "log", on_progress=show
            )
            """
        )
    )
    head = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert head.stdout is not None
    worker = psutil.Process(int(head.stdout.readline()))
    head.kill()
    head.wait(timeout=30)
    head.stdout.close()
    _, alive = psutil.wait_procs([worker], timeout=30)
    assert not alive


def test_a_script_without_a_main_guard_can_run_tasks(tmp_path: Path) -> None:
    """It must run once, not once more in every worker."""
    script = tmp_path / "plain.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path.insert(0, {str(Path(__file__).parents[1])!r})
            from pathlib import Path
            from trial_tasks import Twice
            from foresweep.search.engine import run_task
            from foresweep.search.local import LocalEngine
            print("script", flush=True)
            print(run_task(LocalEngine(), Twice(21), log=Path({str(tmp_path)!r}) / "log"))
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["script", "42"], done.stderr


def loaded_in_worker(tmp_path: Path, models: tuple[str, ...], names: tuple[str, ...]) -> list[str]:
    """Which of these modules a fresh worker finds imported; its server is one of its own."""
    script = f"""
        import sys
        sys.path[:0] = [{str(Path(__file__).parents[1])!r}, {str(tmp_path)!r}]
        from pathlib import Path
        from trial_tasks import Loaded
        from foresweep.search.engine import run_task
        from foresweep.search.local import LocalEngine
        print(*run_task(LocalEngine({models!r}), Loaded({names!r}),
                        log=Path({str(tmp_path)!r}) / "log"))
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == "", "the server speaks into the terminal"
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "package"),
    [
        ("toto", "toto.model.toto"),
        ("kronos", "kronos_finance._vendor.kronos_model.kronos"),
        ("chronos2", "chronos.chronos2"),
    ],
)
def test_a_fresh_worker_has_the_imports_of_the_first_step_behind_it(
    model: str, package: str, tmp_path: Path
) -> None:
    wanted = ("torch", "torch._dynamo", "safetensors.torch", "scipy.special", package)
    assert loaded_in_worker(tmp_path, (model,), wanted) == list(wanted)


def test_a_plugin_s_module_is_imported_beforehand_too(tmp_path: Path) -> None:
    with plugin(tmp_path):
        found = loaded_in_worker(tmp_path, ("guest",), ("guest_package.model", "torch"))
    assert found == ["guest_package.model", "torch"]  # torch: to settle any trained config


def test_a_plugin_that_breaks_on_import_does_not_take_the_workers_down(tmp_path: Path) -> None:
    with plugin(tmp_path, module="raise RuntimeError('no licence')\n"):
        found = loaded_in_worker(tmp_path, ("guest",), ("guest_package.model", "numpy"))
    assert found == ["numpy"]
