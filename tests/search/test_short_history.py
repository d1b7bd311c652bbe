"""A short history: what is drawn fits it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from foresweep.data.splits import Cut
from foresweep.search.plan import SweepPlan
from foresweep.search.stage import fitting
from foresweep.search.sweep import proposals_of


@pytest.mark.parametrize("seed", range(3))
def test_random_contexts_are_drawn_within_what_the_panel_allows(seed: int) -> None:
    plan = SweepPlan(
        models=("chronos2", "toto", "kronos"), mode="random", max_runs=5, cut=Cut(seed=seed)
    )
    stage: Any = SimpleNamespace(plan=plan, split=SimpleNamespace(max_context=221))
    contexts = [p.config.get("context_length") for p in proposals_of(fitting(stage))]
    assert contexts
    assert all(c is None or c <= 221 for c in contexts)
    assert fitting(stage).mode == "random"
    assert plan.cut.max_context is None  # what was asked stays on record
