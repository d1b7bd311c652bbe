"""Real models: what one has learnt is tried by the other, through the command line."""

from __future__ import annotations

import json

import pytest

from shells import Shell

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("swept")]
PLACES = ("--data", "demo", "--stride", "20", "--max-context", "256", "--max-steps", "6")


@pytest.mark.usefixtures("swept")
def test_chronos2_begins_with_what_toto_has_learnt(shell: Shell) -> None:
    (toto,) = json.loads(shell("runs", "--model", "toto", "--json"))
    (known,) = json.loads(shell("runs", "--model", "chronos2", "--json"))
    asked = ("-m", "chronos2", "--mode", "demo", "--max-runs", "2", "--transfer-from", "toto")
    shell("sweep", *asked, "--objective", "pct_mae,sharpe", "--again", *PLACES)
    second, first, before = json.loads(shell("runs", "--model", "chronos2", "--json"))
    assert before["run_id"] == known["run_id"]
    assert first["source"] == f"transfer: from {toto['run_id']}"
    assert second["source"].startswith("demo: ")
    assert {first["state"], second["state"]} == {"complete"}
    ours, theirs = first["hyperparams"], toto["hyperparams"]
    assert ours["batch_size"] == theirs["batch_size"]
    assert ours["lr"] == pytest.approx(theirs["lr"] * theirs["embed_dim"] / ours["d_model"])
    (note,) = json.loads(shell("show", first["run_id"], "--json"))["notes_added"]
    assert note["text"].startswith("transfer from toto: number 1 of its 1 configs")
