"""Real models trained once more from their records, through the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shells import Shell

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("swept")]


@pytest.mark.usefixtures("swept")
@pytest.mark.parametrize("model", ["toto", "kronos", "chronos2"])
def test_a_real_model_is_reproduced_bit_for_bit_on_a_cpu(shell: Shell, model: str) -> None:
    """Trained by another head, and so by workers of another server."""
    (known,) = json.loads(shell("runs", "--model", model, "--json"))
    found: dict[str, Any] = json.loads(shell("reproduce", known["run_id"], "--json"))
    assert found["bit_for_bit"], [s for s in found["scores"] if s["difference"] != 0]
    assert found["test_is_equal"] is None  # nobody has opened it
    assert len(found["scores"]) == 50
    best = json.loads(shell("best", "--model", model, "--top-k", "9", "--json"))
    assert [r["run_id"] for r in best] == [known["run_id"]]
