"""The example of the whole circle runs, from the first sweep to the one after the alarm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "workflow" / "workflow.py"


@pytest.mark.slow
def test_the_circle_closes_on_the_demo(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    commands = [x.split()[2] for x in done.stdout.splitlines() if x.startswith("$ foresweep")]
    assert commands == [
        "sweep", "best", "impact", "sweep", "verdict", "best", "promote", "predict", "predict",
        "monitor", "sweep", "champion",
    ]  # fmt: skip
    assert "ALARM: the champion does worse than" in done.stdout
    assert "Live: ALARM at" in done.stdout
