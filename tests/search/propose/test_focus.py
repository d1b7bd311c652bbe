"""Focusing: the range of the best where it matters, the best run's value where it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from foresweep.errors import UsageError
from foresweep.records import RunState
from foresweep.search.propose.focus import Focus, focus
from foresweep.search.propose.tpe import Told
from foresweep.space import Choice, Dimension, Float, Int, SearchSpace, parse_space_file

SPACE = SearchSpace(
    {
        "lr": Float(1e-5, 1e-1, log=True),
        "loss": Choice(("huber", "mse", "tilted")),
        "delta": Float(0.01, 1.0),
        "context_length": Int(64, 500, 32),
        "dropout": Float(0.0, 0.3),
    },
    {"delta": {"loss": ["huber", "tilted"]}},
)


def told(count: int, *, metric: str = "pinball", sign: int = 1) -> list[Told]:
    """Runs of which the rate alone decides, and best is 1e-3."""
    rng = np.random.default_rng(5)
    found = []
    for number in range(count):
        config = SPACE.sample(rng)
        score = sign * abs(float(np.log10(config["lr"])) + 3)
        found.append(Told("toto", config, RunState.COMPLETE, {metric: score}, {}, number))
    return found


@pytest.fixture(scope="module")
def focused() -> Focus:
    return focus("toto", SPACE, told(60), "pinball")


def bounds(dimension: Dimension) -> tuple[float, float]:
    assert isinstance(dimension, Float | Int)
    return dimension.low, dimension.high


def test_what_matters_keeps_the_range_of_the_best(focused: Focus) -> None:
    low, high = bounds(focused.space.dimensions["lr"])
    assert 1e-4 < low < 1e-3 < high < 1e-2
    assert max(focused.importance, key=lambda n: focused.importance[n]) == "lr"
    assert sum(focused.importance.values()) == pytest.approx(1.0)


def test_what_does_not_matter_is_fixed_at_the_best_run(focused: Focus) -> None:
    best: Any = focused.best.config
    assert focused.space.dimensions["dropout"] == Choice((best["dropout"],))
    assert abs(np.log10(best["lr"]) + 3) < 0.1


def test_where_high_is_good_the_best_are_the_highest() -> None:
    runs = told(60, metric="directional_accuracy", sign=-1)
    found = focus("toto", SPACE, runs, "directional_accuracy")
    low, high = bounds(found.space.dimensions["lr"])
    assert low < 1e-3 < high < 1e-2


def test_the_narrowed_space_is_a_sweep_file_that_says_the_same(focused: Focus) -> None:
    text = focused.as_toml("pinball")
    read = parse_space_file(text, "scratch").space
    assert read.dimensions == focused.space.dimensions
    assert read.when == focused.space.when
    assert "best of 60 runs by tune_pinball" in text


def test_runs_that_did_not_end_well_decide_nothing() -> None:
    few = told(9)
    broken = [Told("toto", few[0].config, RunState.PRUNED, {}, {1: {"pinball": 0.0}})] * 30
    undefined = [Told("toto", few[0].config, RunState.COMPLETE, {"pinball": float("nan")})] * 30
    with pytest.raises(UsageError, match="toto has 9 complete runs"):
        focus("toto", SPACE, [*few, *broken, *undefined], "pinball")
