"""What the benchmarks' figures stand on: paired timing and its table. No wall time is asserted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import pairs
import scoring


def test_both_sides_run_in_turns_and_alternate_who_begins() -> None:
    seen: list[str] = []
    found = pairs.paired(
        lambda: seen.append("o"), lambda: seen.append("t"), rounds=4, warm_up=1, repeats=2
    )
    assert "".join(seen) == "ot" + "oott" + "ttoo" + "oott" + "ttoo"
    assert found.rounds == 4


def test_ratios_are_theirs_over_ours_pair_by_pair() -> None:
    ours, theirs = [1.0, 2.0, 4.0], [3.0, 4.0, 4.0]
    found = pairs.summary(ours, theirs)
    assert (found.median, found.ours_ms, found.theirs_ms) == (2.0, 2000.0, 4000.0)
    assert found.low95 == 1.0  # of three pairs, the least cannot be left out


def test_the_lower_bound_covers_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    ratios = np.exp(rng.normal(0.0, 0.2, size=(300, 31)))
    below = [pairs.lower_bound(row) <= 1.0 for row in ratios]
    assert 0.91 <= np.mean(below) <= 0.99
    assert pairs.lower_bound(ratios[0]) == pairs.lower_bound(ratios[0])


def test_the_table_says_what_was_asked_and_whether_it_was_reached() -> None:
    found = pairs.Ratios(median=2.5, low95=1.9, ours_ms=4.0, theirs_ms=10.0, rounds=9)
    rows = [
        pairs.Row("forecast", found, target=2.0),
        pairs.Row("training", found, target=2.0, bound="low95", note="tiny"),
        pairs.Row("fresh worker", found, target=300, bound="ours_ms"),
        pairs.Row("told only", found),
    ]
    assert [row.reached for row in rows] == [True, False, True, None]
    lines = pairs.table(rows).splitlines()
    assert lines[2] == "| forecast | 10 | 4 | 2.5 | 1.9 | >= 2x | yes | 9 |"
    assert lines[3] == "| training (tiny) | 10 | 4 | 2.5 | 1.9 | bound >= 2x | no | 9 |"
    assert lines[4].split(" | ")[5:7] == ["<= 300 ms", "yes"]
    assert lines[5] == "| told only | 10 | 4 | 2.5 | 1.9 |  |  | 9 |"


def test_both_sides_of_the_scoring_benchmark_give_the_same_numbers() -> None:
    pytest.importorskip("utilsforecast")
    outcome, naive = scoring.make_outcomes(3, origins=4, leads=6)
    frame = scoring.frame_of(outcome)
    assert len(frame) == 3 * 4 * 6
    assert len(frame.groupby(["unique_id", "cutoff"])) == 3 * 4
    ours, theirs = scoring.ours_shared(outcome, naive), scoring.theirs_shared(frame)
    assert scoring.largest_gap(ours, theirs) < 1e-12
    assert scoring.largest_gap(ours | {"pinball": 2 * ours["pinball"]}, theirs) > 0.1
    fields = {"labels", "quantiles", "levels", "last_close", "setting"}
    assert set(vars(scoring.fresh(outcome))) == fields, "a second round would time nothing"
