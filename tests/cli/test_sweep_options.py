"""What `sweep` and `train` are told arrives in the plan."""

from __future__ import annotations

import pytest

from foresweep.cli.sweep import Asked, _plan
from foresweep.models.base import Resources
from shells import Shell


def test_resources_and_seeds_reach_the_plan() -> None:
    asked = Asked(
        device="cpu", threads=2, micro_batch=3, inference_batch=7, gradient_checkpointing=True,
        seed=4, seeds=3,
    )  # fmt: skip
    plan = _plan(asked, 1, 5, models=("toto",), finalists=2).checked()
    assert plan.resources == Resources("cpu", 2, 3, 7, gradient_checkpointing=True)
    assert (plan.cut.seed, list(plan.other_seeds), plan.num_finalists) == (4, [5, 6], 2)


def test_a_wrong_choice_is_answered_without_the_words_of_a_library(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shell = Shell(capsys)
    for words in (("sweep", "--mode", "fast"), ("ensemble", "--method", "x")):
        shell(*words, code=2)
        assert "Value error" not in shell.err
    shell("sweep", "--mode", "fast", code=2)
    assert "Invalid value for '--mode': 'fast' is not one of 'priority'" in shell.err
