"""The gate tells splits from crashes and spin-offs, and finds what else is planted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import gate_precision as bench

PRECISION = Path(__file__).parents[3] / "docs" / "data-gate.md"
MASKED = ("flip of a close", "high and low exchanged", "sign of a price lost")


def test_a_small_made_panel_is_called_what_it_is() -> None:
    found = bench.judge(60, 1)
    assert found.splits_found > 0.8  # of 19: 3-for-2 after a stormy night is an event
    assert found.moves_called_splits == 0
    assert found.elsewhere == 0
    assert found.share(MASKED, "bad bars") == 1
    assert found.share(("suspension",), "suspended") == 1
    assert found.share(("adjusted close, bad",), "adjusted closes not used") == 1
    assert found.share(("adjusted close, good", "none"), bench.NOTHING) == 1


def test_made_returns_are_like_a_markets() -> None:
    """Fat tails, sizes that follow each other, signs that do not."""
    for seed in range(3):
        made = bench.ordinary(np.random.default_rng(seed))
        returns = np.diff(np.log(made.close))
        sizes = np.abs(returns)
        assert ((returns - returns.mean()) ** 4).mean() > 4 * returns.var() ** 2
        assert np.corrcoef(sizes[1:], sizes[:-1])[0, 1] > 0.05
        assert abs(np.corrcoef(returns[1:], returns[:-1])[0, 1]) < 0.15
        assert np.corrcoef(sizes, made.volume[1:])[0, 1] > 0.1


@pytest.mark.soak
def test_of_five_panels_98_percent_of_splits_are_found_and_1_percent_of_moves_mistaken() -> None:
    found = bench.judge(1000, 5)
    assert found.splits_found >= 0.98
    assert found.moves_called_splits <= 0.01
    assert bench.text(found, 1000, 5) in PRECISION.read_text()
