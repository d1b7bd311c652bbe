"""The suite catches what people really get wrong: each fault is planted in a copy of the sources,
and the tests of its room must fail there, and pass on the copy without it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(900), pytest.mark.xdist_group("faults"),
]  # fmt: skip
PASSED, FAILED = 0, 1
"""Exit codes of pytest; a fault that keeps tests from being collected would be 2."""


@dataclass(frozen=True)
class Fault:
    """`line` stands once in all of `src`; with `planted` in its place, `tests` must fail."""

    name: str
    line: str
    planted: str
    tests: str


FAULTS = (
    Fault(
        "training sees the bar after its part",
        'self.part.stop, side="left")',
        'self.part.stop, side="right")',
        "tests/data/test_splits.py",
    ),
    Fault(
        "no bars are purged between parts",
        "first = edges[k] + (horizon if k else 0)",
        "first = edges[k]",
        "tests/data/test_splits.py",
    ),
    Fault(
        "a context ends a bar late",
        "back = np.arange(1 - length, 1)",
        "back = np.arange(2 - length, 2)",
        "tests/data/test_windows.py",
    ),
    Fault(
        "what stands before a short history is not masked",
        'values[~mask], past[~mask] = np.nan, np.datetime64("NaT")',
        'past[~mask] = np.datetime64("NaT")',
        "tests/data/test_windows.py",
    ),
    Fault(
        "missing cells are zero",
        "out = np.full((*self.shape, *values.shape[1:]), np.nan)",
        "out = np.zeros((*self.shape, *values.shape[1:]))",
        "tests/data/test_windows.py",
    ),
    Fault(
        "the fingerprint forgets the items",
        'digest.update("\\n".join(self.panel.items[i] for i in self.split.items).encode())',
        "pass",
        "tests/data/test_windows.py",
    ),
    Fault(
        "splits are read and not applied",
        "before = times < action.date",
        "before = times < times[0]",
        "tests/data/gate/test_actions.py",
    ),
    Fault(
        "skill has the wrong sign",
        "return 1.0 - value / baseline",
        "return value / baseline - 1.0",
        "tests/test_metrics.py",
    ),
    Fault(
        "an origin's mean counts windows that are not there",
        "count = valid.sum(axis=1)\n    total = np.where(valid, panel, 0.0).sum(axis=1)\n    means",
        "count = np.full(len(panel), panel.shape[1])\n"
        "    total = np.where(valid, panel, 0.0).sum(axis=1)\n    means",
        "tests/stats/test_significance.py",
    ),
    Fault(
        "Diebold-Mariano looks at the wrong side",
        "return float(stdtr(df, -statistic))",
        "return float(stdtr(df, statistic))",
        "tests/stats/test_significance.py",
    ),
    Fault(
        "calibration is fitted on val",
        'windows = Windows(panel, split, split.part("tune"))\n    forecast = forecast_part(',
        'windows = Windows(panel, split, split.part("val"))\n    forecast = forecast_part(',
        "tests/evaluation/test_calibrate.py",
    ),
    Fault(
        "trials that failed are not counted",
        "num_trials = max(case.num_trials or 0, len(case.trials))",
        "num_trials = len(case.trials)",
        "tests/selection/verdict/test_verdict.py",
    ),
    Fault(
        "StepM is not told of the last trial",
        "step = stepm(d, block=block",
        "step = stepm(d[:, : max(d.shape[1] - 1, k + 1)], block=block",
        "tests/selection/verdict/test_verdict.py",
    ),
    Fault(
        "a run that was pruned is ranked",
        "return run.score(metric) if run.state == RunState.COMPLETE else None",
        "return run.score(metric)",
        "tests/selection/test_leaderboard.py",
    ),
    Fault(
        "runs are shown with their test scores",
        "return {name: value for name, value in scores.items() if not is_sealed(name)}",
        "return dict(scores)",
        "tests/tracker/test_sealed.py",
    ),
    Fault(
        "another head's lease is not looked at",
        "if not owner.holds(row) and not self._is_gone(row, now, owner):\n"
        "                    return False",
        "if not owner:\n                    return False",
        "tests/tracker/test_liveness.py",
    ),
    Fault(
        "a config that is in the sweep is a trial once more",
        "if once and _is_in_sweep(",
        "if not once and _is_in_sweep(",
        "tests/tracker/writing/test_heads.py",
    ),
    Fault(
        "words after `password` are stored",
        r'text = _NAMED.sub(rf"\g<keep>{HIDDEN}", text)',
        "text = str(text)",
        "tests/tracker/test_secrets.py",
    ),
    Fault(
        "a resumed training counts its steps from 0",
        'self.step, self.losses = numbers["step"], numbers["losses"]',
        'self.losses = numbers["losses"]',
        "tests/models/training/test_training.py",
    ),
    Fault(
        "gradients are not clipped",
        "torch.nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip)",
        "pass",
        "tests/models/training/test_training.py",
    ),
    Fault(
        "the last scored step is kept, not the best",
        "if math.isfinite(pinball) and not pinball >= self.best:",
        "if math.isfinite(pinball):",
        "tests/models/training/test_training.py",
    ),
)


Tried = Callable[[str, "Fault | None"], "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    """Runs tests on a copy of the sources, with a fault or, once for all its faults, without."""
    known: dict[str, subprocess.CompletedProcess[str]] = {}

    def run(tests: str, fault: Fault | None) -> subprocess.CompletedProcess[str]:
        if fault is None and tests in known:
            return known[tests]
        src = tmp_path_factory.mktemp("copy") / "src"
        shutil.copytree(ROOT / "src", src, ignore=shutil.ignore_patterns("__pycache__"))
        if fault is not None:
            plant(fault, src)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-n", "0", tests],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(src), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        shutil.rmtree(src)
        if fault is None:
            known[tests] = done
        return done

    return run


def plant(fault: Fault, src: Path) -> None:
    """Exactly one place is changed; where there is none or several, the line has moved on."""
    places = {f: f.read_text("utf-8").count(fault.line) for f in src.rglob("*.py")}
    assert sum(places.values()) == 1, f"not one place to plant '{fault.name}': {fault.line!r}"
    (file,) = (f for f, count in places.items() if count)
    file.write_text(file.read_text("utf-8").replace(fault.line, fault.planted), "utf-8")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_caught(fault: Fault, tried: Tried) -> None:
    sound = tried(fault.tests, None)
    assert sound.returncode == PASSED, sound.stdout
    broken = tried(fault.tests, fault)
    assert broken.returncode == FAILED, f"{fault.name} passed\n{broken.stdout}{broken.stderr}"
