"""`--pretrained published` from an empty cache to a card, over a hub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from foresweep.data.splits import Cut
from foresweep.search.plan import SweepPlan
from hub_server import COMMIT, Hub, files_in, serving
from known_baselines import know_baselines
from tiny_weights import write_weights

pytestmark = pytest.mark.slow


def test_published_weights_are_fetched_said_used_and_named_in_the_card(tmp_path: Path) -> None:
    cut = Cut(horizon=2, stride=40, max_context=64)
    know_baselines(tmp_path / "hyperparams" / "sweeps.db", SweepPlan((), cut=cut))
    weights = files_in(write_weights("chronos2", tmp_path / "authors"))
    with serving(Hub({"amazon/chronos-2": weights})) as hub:
        places = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-m", "foresweep", "train", "--model", "chronos2"]
        command += ["--data", "demo", "--pretrained", "published", "--max-steps", "3"]
        command += ["--set", "context_length=32", "--horizon", "2"]
        command += ["--stride", "40", "--max-context", "64"]
        done = subprocess.run(
            command, env=os.environ | places, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Fetching the weights amazon/chronos-2, once" in done.stdout
        assert len(hub.downloads) == 2
    cards = (tmp_path / "hyperparams" / "runs").glob("chronos2_*/checkpoint/card.json")
    (card,) = (json.loads(c.read_text()) for c in cards)
    assert card["weights_from"] == [f"amazon/chronos-2@{COMMIT}"]
