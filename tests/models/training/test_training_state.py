"""Training states handed from one attempt to the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from foresweep.errors import CheckpointError
from foresweep.models.training.loop import adopt_states, clear_states, state_file


def left(folder: Path, **stages: str) -> Path:
    """An attempt's `out`, with what it left to go on from."""
    out = folder / "checkpoint"
    for step, content in stages.items():
        file = state_file(out, int(step.removeprefix("at")))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return out


def test_the_newest_attempt_that_left_something_is_gone_on_from(tmp_path: Path) -> None:
    old = left(tmp_path / "1", at0="old")
    newer = left(tmp_path / "2", at0="whole", at50="half")
    nothing = left(tmp_path / "3")
    out = tmp_path / "4" / "checkpoint"
    assert adopt_states([nothing, newer, old], out) == newer
    assert state_file(out, 0).read_text() == "whole"
    assert state_file(out, 50).read_text() == "half"
    assert state_file(newer, 0).read_text() == "whole"  # it is copied, not moved


def test_where_nothing_was_left_training_starts_anew(tmp_path: Path) -> None:
    out = tmp_path / "2" / "checkpoint"
    assert adopt_states([left(tmp_path / "1")], out) is None
    assert adopt_states([], out) is None
    assert not state_file(out, 0).parent.exists()


def test_a_later_attempt_needs_no_earlier_one(tmp_path: Path) -> None:
    first, second = left(tmp_path / "1", at0="state"), tmp_path / "2" / "checkpoint"
    adopt_states([first], second)
    clear_states(first)
    third = tmp_path / "3" / "checkpoint"
    assert adopt_states([second, first], third) == second
    assert state_file(third, 0).read_text() == "state"


def test_states_that_cannot_be_copied_are_an_error_by_name(tmp_path: Path) -> None:
    first = left(tmp_path / "1", at0="state")
    (tmp_path / "2").write_text("a file where a folder should be")
    with pytest.raises(CheckpointError, match="cannot copy training state"):
        adopt_states([first], tmp_path / "2" / "checkpoint")
