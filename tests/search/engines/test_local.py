"""The local engine: real processes, killed for real."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_suite import EngineSuite
from foresweep.search.engines.base import Done, Engine, Job, Message, run_task
from foresweep.search.engines.local import VISIBLE, LocalEngine
from planted_model import plugin
from trial_tasks import CudaIsUntouched, Environment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = LocalEngine(workers=2)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def making() -> str:
    return """
        from foresweep.search.engines.local import LocalEngine
        engine = LocalEngine(workers=2)
        """


class TestLocalEngine(EngineSuite):
    """What every engine does."""


def loaded_in_worker(tmp_path: Path, models: tuple[str, ...], names: tuple[str, ...]) -> list[str]:
    """Which of these modules a fresh worker finds imported; its server is one of its own."""
    script = f"""
        import sys
        sys.path[:0] = [{str(Path(__file__).parents[2])!r}, {str(tmp_path)!r}]
        from pathlib import Path
        from trial_tasks import Loaded
        from foresweep.search.engines.base import run_task
        from foresweep.search.engines.local import LocalEngine
        print(*run_task(LocalEngine({models!r}), Loaded({names!r}),
                        log=Path({str(tmp_path)!r}) / "log"))
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stderr == "", "the server speaks into the terminal"
    return done.stdout.split()


def test_a_fresh_worker_has_the_imports_of_the_first_step_behind_it(tmp_path: Path) -> None:
    every = ("torch", "torch._dynamo", "safetensors.torch", "scipy.special")
    of_each = {
        "toto": "toto.model.toto",
        "kronos": "kronos_finance._vendor.kronos_model.kronos",
        "chronos2": "chronos.chronos2",
    }
    wanted = (*every, *of_each.values())
    unwanted = ("lightning", "torchmetrics")  # gluonts' trainer, which Toto does without
    assert loaded_in_worker(tmp_path, tuple(of_each), (*wanted, *unwanted)) == list(wanted)


def test_a_plugin_s_module_is_imported_beforehand_too(tmp_path: Path) -> None:
    with plugin(tmp_path):
        asked = ("guest_package.model", "torch", "torch._dynamo")
        found = loaded_in_worker(tmp_path, ("guest",), asked)
    # torch to settle any trained config; what optimisers load is for whoever imports torch itself
    assert found == ["guest_package.model", "torch"]


def test_a_plugin_that_breaks_on_import_does_not_take_the_workers_down(tmp_path: Path) -> None:
    with plugin(tmp_path, module="raise RuntimeError('no licence')\n"):
        found = loaded_in_worker(tmp_path, ("guest",), ("guest_package.model", "numpy"))
    assert found == ["numpy"]


def test_each_gpu_has_one_worker_which_sees_no_other(tmp_path: Path) -> None:
    engine = LocalEngine(gpus=("3", "7"))
    jobs = [engine.start(Environment((VISIBLE,)), log=tmp_path / f"log-{k}") for k in (1, 2)]
    assert (engine.slots, engine.free) == (2, 0)
    seen = {job.number: message for job, message in heard_from(engine, len(jobs))}
    assert {m.result for m in seen.values() if isinstance(m, Done)} == {("3",), ("7",)}
    again = engine.start(Environment((VISIBLE,)), log=tmp_path / "log-3")
    ((_, message),) = heard_from(engine, 1)
    assert isinstance(message, Done)
    assert message.result == ("3",)
    assert again.number not in seen


def heard_from(engine: LocalEngine, count: int) -> list[tuple[Job, Message]]:
    found: list[tuple[Job, Message]] = []
    while len(found) < count:
        found += engine.poll(10.0)
    return found


def test_the_server_that_workers_are_forked_from_has_not_touched_cuda(tmp_path: Path) -> None:
    """A process that was forked from one that has cannot use a GPU."""
    engine = LocalEngine(("chronos2",))
    assert run_task(engine, CudaIsUntouched(), log=tmp_path / "log") is True


def test_no_more_tasks_run_than_free_memory_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foresweep.search.engines.local.free_memory_mb", lambda: 1000.0)
    bounded, asked = LocalEngine(workers=8, is_bounded=True), LocalEngine(workers=8)
    seen = []
    for need in (0.0, 100.0, 300.0, 200.0, 4000.0):  # the largest counts
        bounded.needs(need)
        asked.needs(need)
        seen.append(bounded.slots)
    assert seen == [8, 8, 3, 3, 1]
    assert asked.slots == 8
