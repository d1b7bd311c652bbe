"""The leaderboard: ranks, ties, and last-value in disguise."""

from __future__ import annotations

import math

import pytest

from foresweep.errors import UnknownName
from foresweep.records import Run, RunState
from foresweep.selection.leaderboard import leaderboard
from runs import make_run

NAIVE = make_run("last-value", 0, 2.0, skill=0.0)


def order(*runs: Run, maximize: bool | None = None) -> list[str]:
    board = leaderboard(runs, metric="val_pct_mae", maximize=maximize)
    return [r.run.run_id for r in board.rows if r.place]


def test_lower_errors_come_first() -> None:
    assert order(make_run("toto", 1, 2.5), NAIVE, make_run("kronos", 2, 1.5)) == [
        "kronos_002",
        "last-value_000",
        "toto_001",
    ]


def test_maximize_turns_the_order_round() -> None:
    assert order(make_run("toto", 1, 2.5), NAIVE, maximize=True) == ["toto_001", "last-value_000"]


def test_a_tie_goes_to_last_value() -> None:
    assert order(make_run("toto", 1, 2.0, skill=0.001), NAIVE)[0] == "last-value_000"


def test_a_tie_of_trained_runs_goes_to_the_older() -> None:
    assert order(make_run("toto", 2, 1.0), make_run("toto", 1, 1.0)) == ["toto_001", "toto_002"]


def test_skill_is_measured_against_last_value_on_the_same_windows() -> None:
    board = leaderboard([NAIVE, make_run("toto", 1, 1.5)], metric="val_pct_mae")
    assert board.best is not None
    assert board.best.skill == pytest.approx(0.25)


def test_a_run_that_equals_last_value_everywhere_is_shown_and_not_ranked() -> None:
    board = leaderboard([NAIVE, make_run("toto", 1, 2.0, skill=0.0)], metric="val_pct_mae")
    row = board.rows[-1]
    assert (row.run.run_id, row.place, row.note) == ("toto_001", None, "equals last-value")
    assert board.best is None


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.PRUNED, RunState.LOST])
def test_runs_that_did_not_complete_are_shown_and_not_ranked(state: RunState) -> None:
    board = leaderboard([NAIVE, make_run("toto", 1, 0.1, state=state)], metric="val_pct_mae")
    assert board.best is None
    assert len(board.rows) == 2


def test_a_score_that_is_no_number_never_wins() -> None:
    assert order(make_run("toto", 1, math.nan), NAIVE) == ["last-value_000"]


def test_scores_of_different_windows_never_share_a_table() -> None:
    with pytest.raises(AssertionError):
        leaderboard([NAIVE, make_run("toto", 1, 1.0, fingerprint="other")], metric="val_pct_mae")


def test_an_unknown_metric_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="val_pct_mae"):
        leaderboard([NAIVE], metric="val_pct_ma")


def test_a_skill_too_good_for_prices_is_flagged_not_celebrated() -> None:
    board = leaderboard([NAIVE, make_run("toto", 1, 1.6, skill=0.2)], metric="val_pct_mae")
    assert board.best is not None
    assert board.best.note == "too good: look for a leak"
