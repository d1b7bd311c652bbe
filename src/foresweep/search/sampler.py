"""The door of the search: who says which config is next, and what such a one is told.

A sampler is asked for a config and told what became of it; it sees scores on tune alone. The
database gives out the trial numbers and holds the results: a sampler keeps nothing that cannot be
rebuilt from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from foresweep.records import RunState
from foresweep.search.proposals import Proposal

MOST_ATTEMPTS = 100
"""Proposals for one trial number that were refused or known: then the space is taken as used up."""


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a config, or that it is running."""

    model: str
    config: Mapping[str, Any]  # with every hyperparameter, as it was trained
    state: RunState
    scores: Mapping[str, float] = field(default_factory=dict)  # on tune, by the metric's bare name
    series: Mapping[int, Mapping[str, float]] = field(default_factory=dict)  # step -> the same
    number: int | None = None  # in this sweep; None: it is of an earlier one


class Sampler(Protocol):
    """Says which config is next. The same tellings and the same number give the same proposal."""

    def ask(
        self, number: int, running: Sequence[Told] = (), *, attempt: int = 0
    ) -> Proposal | None:
        """The config of trial `number`; None: nothing is left. `running` are the trials of this
        and of other heads that have not ended; `attempt` counts the proposals for this number
        that could not be tried."""
        ...

    def tell(self, told: Told) -> None:
        """Take note of a trial that ended, or of an earlier run."""
        ...


def seed_of(sweep_seed: int, number: int, attempt: int, model: str) -> int:
    """The seed of one proposal, in 32 bits: a function of the sweep's seed and the trial number,
    so that a sweep that was resumed or is shared goes on as one that was not."""
    text = f"{sweep_seed}/{number}/{attempt}/{model}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@dataclass(slots=True)
class Listed:
    """Deals out proposals in order; results change nothing. Not frozen: it knows where it is."""

    waiting: list[Proposal]

    def ask(
        self, number: int, running: Sequence[Told] = (), *, attempt: int = 0
    ) -> Proposal | None:
        return self.waiting.pop(0) if self.waiting else None

    def tell(self, told: Told) -> None:
        """Nothing to learn."""


@dataclass(slots=True)
class Rounds:
    """One sampler a model; the trials are handed round, fewest first. Not frozen: it counts."""

    samplers: Mapping[str, Sampler]
    tried: dict[str, int] = field(default_factory=dict)

    def ask(
        self, number: int, running: Sequence[Told] = (), *, attempt: int = 0
    ) -> Proposal | None:
        busy = {m: sum(t.model == m for t in running) for m in self.samplers}
        load = {m: self.tried.get(m, 0) + busy[m] for m in self.samplers}
        for model in sorted(self.samplers, key=lambda m: load[m]):
            mine = [t for t in running if t.model == model]
            found = self.samplers[model].ask(number, mine, attempt=attempt)
            if found is not None:
                return found
        return None

    def tell(self, told: Told) -> None:
        if told.model in self.samplers:
            self.samplers[told.model].tell(told)
            if told.number is not None:
                self.tried[told.model] = self.tried.get(told.model, 0) + 1


def tell_all(sampler: Sampler, told: Iterable[Told]) -> None:
    """Rebuild a sampler: earlier runs first, then this sweep's by number, whatever the order in
    which they ended."""
    for one in sorted(told, key=lambda t: -1 if t.number is None else t.number):
        sampler.tell(one)
