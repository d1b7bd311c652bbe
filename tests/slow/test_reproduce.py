"""Real models trained once more from their records, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
SWEEP = ("sweep", "--data", "demo", "--stride", "20", "--max-context", "256")


def run(folder: Path, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "foresweep", *args],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    run(folder, *SWEEP, "--model", "all", "--mode", "demo", "--max-runs", "3", "--max-steps", "6")
    return folder


@pytest.mark.parametrize("model", ["toto", "kronos", "chronos2"])
def test_a_real_model_is_reproduced_bit_for_bit_on_a_cpu(swept: Path, model: str) -> None:
    (known,) = json.loads(run(swept, "runs", "--model", model, "--json"))
    found: dict[str, Any] = json.loads(run(swept, "reproduce", known["run_id"], "--json"))
    assert found["bit_for_bit"], [s for s in found["scores"] if s["difference"] != 0]
    assert found["test_is_equal"]
    assert len(found["scores"]) == 48
    best = json.loads(run(swept, "best", "--model", model, "--top-k", "9", "--json"))
    assert [r["run_id"] for r in best] == [known["run_id"]]
