"""Real models: what one has learnt is tried by the other, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
PLACES = ("--data", "demo", "--stride", "20", "--max-context", "256", "--max-steps", "6")


def run(folder: Path, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "foresweep", *args],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_chronos2_begins_with_what_toto_has_learnt(tmp_path: Path) -> None:
    run(tmp_path, "sweep", "-m", "toto", "--mode", "demo", "--max-runs", "1", *PLACES)
    asked = ("-m", "chronos2", "--mode", "demo", "--max-runs", "2", "--transfer-from", "toto")
    run(tmp_path, "sweep", *asked, "--objective", "pct_mae,sharpe", *PLACES)
    (toto,) = json.loads(run(tmp_path, "runs", "--model", "toto", "--json"))
    second, first = json.loads(run(tmp_path, "runs", "--model", "chronos2", "--json"))
    assert first["source"] == f"transfer: from {toto['run_id']}"
    assert second["source"].startswith("demo: ")
    assert {first["state"], second["state"]} == {"complete"}
    ours, theirs = first["hyperparams"], toto["hyperparams"]
    assert ours["batch_size"] == theirs["batch_size"]
    assert ours["lr"] == pytest.approx(theirs["lr"] * theirs["embed_dim"] / ours["d_model"])
    (note,) = json.loads(run(tmp_path, "show", first["run_id"], "--json"))["notes_added"]
    assert note["text"].startswith("transfer from toto: number 1 of its 1 configs")
