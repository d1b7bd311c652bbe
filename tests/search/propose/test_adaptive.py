"""What a search tells its sampler, whoever ends first."""

from __future__ import annotations

from pathlib import Path

import pytest

from foresweep.records import RunState
from foresweep.search.propose.adaptive import Search
from foresweep.search.propose.modes import Proposal
from foresweep.search.propose.tpe import Told
from foresweep.search.trial import Ground, Prepared, RunSpec


class Recorder:
    """A sampler that only remembers what it was told."""

    def __init__(self) -> None:
        self.heard: list[int | None] = []

    def ask(self, *_: object, **__: object) -> None:
        return None

    def tell(self, told: Told) -> None:
        self.heard.append(told.number)


class Counter(Recorder):
    """Counts how often it was asked, too."""

    asked = 0

    def ask(self, *_: object, **__: object) -> None:
        self.asked += 1


def told(number: int | None) -> Told:
    return Told("toto", {}, RunState.COMPLETE, {"pct_mae": 1.0}, number=number)


def test_a_sampler_hears_of_trials_by_number_whoever_ends_first() -> None:
    search = Search(stage=None, sweep_id="s", fresh=Recorder, budget=9)  # type: ignore[arg-type]
    search.learn([told(None), told(None)])
    for number in (1, 3, 2, 5, 4):
        search.learn([told(number)])
    assert search.sampler.heard == [None, None, 1, 2, 3, 4, 5]  # type: ignore[attr-defined]


def test_a_trial_that_was_taken_over_is_not_proposed_again() -> None:
    """A config that is in the sweep cannot be claimed: proposed again, it was for ever."""
    search = Search(stage=None, sweep_id="s", fresh=Recorder, budget=9)  # type: ignore[arg-type]
    prepared = Prepared(Proposal("toto", {}, "smart"), {"lr": 1e-3}, "its hash", "")
    search.began(RunSpec(Ground(Path(), 5), prepared, trial=("s", 4), attempt=2))
    assert "its hash" in search.known


def test_a_space_that_is_used_up_is_not_asked_again_before_more_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search = Search(stage=None, sweep_id="s", fresh=Counter, budget=9)  # type: ignore[arg-type]
    monkeypatch.setattr(Search, "_look_around", lambda _: 5)
    assert search.next() is None
    assert search.next() is None
    assert search.sampler.asked == 1  # type: ignore[attr-defined]
    search.learn([told(5)])
    assert search.next() is None
    assert search.sampler.asked == 2  # type: ignore[attr-defined]
