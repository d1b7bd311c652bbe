"""What `sweep` and `train` are told arrives in the plan."""

from __future__ import annotations

from foresweep.cli.sweep import Asked, _plan
from foresweep.models.base import Resources


def test_resources_and_seeds_reach_the_plan() -> None:
    asked = Asked(
        device="cpu", threads=2, micro_batch=3, inference_batch=7, gradient_checkpointing=True,
        seed=4, seeds=3,
    )  # fmt: skip
    plan = _plan(asked, 1, 5, models=("toto",), finalists=2).checked()
    assert plan.resources == Resources("cpu", 2, 3, 7, gradient_checkpointing=True)
    assert (plan.cut.seed, list(plan.other_seeds), plan.num_finalists) == (4, [5, 6], 2)
