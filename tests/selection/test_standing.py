"""What losses say of a leaderboard: marks, and which runs stand elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from foresweep.records import Sweep
from foresweep.selection.leaderboard import Leaderboard, leaderboard
from foresweep.selection.standing import elsewhere, with_standing
from foresweep.tracker.tracker import Tracker
from judged_sweep import Planted, plant, spoil_test

SKILLS = {"poor": -0.2, "free": -0.01, "good": 0.10, "near": 0.0995}


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Tracker]:
    with Tracker(tmp_path / "sweeps.db") as opened:
        yield opened


@pytest.fixture
def made(tracker: Tracker, tmp_path: Path) -> Planted:
    planted = plant(tracker, tmp_path / "runs", SKILLS)
    spoil_test(planted)  # nothing here may open it
    return planted


def board_of(made: Planted) -> Leaderboard:
    return leaderboard(made.tracker.get_runs(), metric="val_pct_mae")


def test_members_of_stepm_and_mcs_are_marked(made: Planted) -> None:
    rows = {r.run.run_id: r for r in with_standing(board_of(made)).rows}
    name = {made.id(n): n for n in SKILLS}
    assert {name[i] for i, r in rows.items() if r.superior} == {"good", "near"}
    assert {name[i] for i, r in rows.items() if r.in_mcs} == {"good", "near"}
    assert rows[made.id("poor")].superior is False
    assert rows[made.id("last-value")].superior is None  # a baseline is no trial


def test_the_cheapest_within_one_standard_error_is_named(made: Planted) -> None:
    board = with_standing(board_of(made))
    assert board.one_se_choice == made.id("good")  # planted to train faster than `near`


def test_a_board_whose_losses_are_gone_is_left_as_it_is(made: Planted) -> None:
    shutil.rmtree(made.folder)
    assert with_standing(board_of(made)) == board_of(made)


def test_a_metric_without_losses_per_window_has_no_marks(made: Planted) -> None:
    board = leaderboard(made.tracker.get_runs(), metric="val_skill")
    assert with_standing(board) is board


def test_runs_of_other_windows_stand_apart_with_the_reason(
    tracker: Tracker, tmp_path: Path
) -> None:
    shown: Sweep = plant(tracker, tmp_path / "a", {"t": 0.0}).sweep
    plant(tracker, tmp_path / "b", {"t": 0.0}, tag="b", horizon=1)
    plant(tracker, tmp_path / "c", {"t": 0.0}, tag="c")
    lines = elsewhere(tracker.list_sweeps(), shown, 2)
    assert [line.split(": ", 1)[1] for line in lines] == [
        "other data, or cut on other dates",
        "horizon 1, not 5",
        "on which windows is not known",
    ] or lines[-1] == "2 run(s) logged by hand: on which windows is not known"
    assert "horizon 1, not 5" in lines[1]
    assert elsewhere([shown], shown, 0) == ()
