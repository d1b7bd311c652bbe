"""What a search tells its sampler, whoever ends first."""

from __future__ import annotations

from foresweep.records import RunState
from foresweep.search.adaptive import Search
from foresweep.search.sampler import Told


class Recorder:
    """A sampler that only remembers what it was told."""

    def __init__(self) -> None:
        self.heard: list[int | None] = []

    def ask(self, *_: object, **__: object) -> None:
        return None

    def tell(self, told: Told) -> None:
        self.heard.append(told.number)


def told(number: int | None) -> Told:
    return Told("toto", {}, RunState.COMPLETE, {"pct_mae": 1.0}, number=number)


def test_a_sampler_hears_of_trials_by_number_whoever_ends_first() -> None:
    search = Search(stage=None, sweep_id="s", fresh=Recorder, budget=9)  # type: ignore[arg-type]
    search.learn([told(None), told(None)])
    for number in (1, 3, 2, 5, 4):
        search.learn([told(number)])
    assert search.sampler.heard == [None, None, 1, 2, 3, 4, 5]  # type: ignore[attr-defined]
