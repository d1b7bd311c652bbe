"""What is judged: a candidate in its table, what was tried before, where its weights come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from foresweep.records import Check
from foresweep.selection.verdict.losses import Array, LossTable, PartLosses

LEVEL = 0.05
UNSAID = "not said"
"""Source of weights of which a file of losses tells nothing."""


@dataclass(frozen=True, slots=True)
class Record:
    """What was tried and looked at before on the same cells."""

    judged_number: int = 1  # j
    num_trials: int | None = None  # of the whole lineage; None: those of the table


@dataclass(frozen=True, slots=True)
class Weights:
    """Could the candidate's weights have seen the test? Dates as ISO text."""

    cutoff: str | None = None  # last day of the data that its weights were trained on
    source: str = ""  # who says so
    pretrained: bool = False
    test_from: str | None = None  # first bar of test

    @property
    def words(self) -> str:
        """The end of their data, in a word where there is no date."""
        if self.cutoff is not None:
            return self.cutoff[:10]
        return "unknown" if self.pretrained else UNSAID if self.source == UNSAID else "from scratch"

    @property
    def is_clean(self) -> bool:
        if self.cutoff is None or self.test_from is None:
            return not self.pretrained
        return self.cutoff[:10] < self.test_from[:10]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One candidate in its table; None: the one with the lowest raw loss on val."""

    table: LossTable
    candidate: str | None = None
    record: Record = Record()
    weights: Weights = Weights()

    @property
    def level(self) -> float:
        """Of gate 1: 0.05 / j^2."""
        return LEVEL / self.record.judged_number**2


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """Test, opened for some cases: which look it was, and the losses of each."""

    number: int  # k
    parts: tuple[PartLosses, ...]


Open = Callable[[Sequence[int]], Opened]
"""Opens the test for the cases at these places, records the look first, and gives their losses."""


def check(
    gate: int,
    name: str,
    value: float | None,
    relation: str,
    threshold: float | None,
    *,
    looked: object = True,
) -> Check:
    """A check of numbers; what could not be had does not pass."""
    passed: bool | None = None
    if looked:
        passed = value is not None and threshold is not None and _holds(value, relation, threshold)
    return Check(
        gate=gate, name=name, value=value, relation=relation, threshold=threshold, passed=passed
    )


def _holds(value: float, relation: str, threshold: float) -> bool:
    return bool(
        {"<": value < threshold, ">": value > threshold, ">=": value >= threshold}[relation]
    )


def scaled_skill(d: Array, opponent: Array) -> float:
    """Mean difference over the opponent's mean, both of scaled losses."""
    return float(np.nanmean(d) / np.nanmean(opponent))


def known(value: float) -> float | None:
    """The value, None where it is no finite number."""
    return float(value) if np.isfinite(value) else None
