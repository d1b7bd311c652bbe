"""What a sweep says while it runs. The search emits these; whoever listens draws them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from foresweep.data.gate.report import QualityReport
from foresweep.data.panel import Panel
from foresweep.data.splits import Split
from foresweep.records import Run, Sweep
from foresweep.search.trial import Prepared


@dataclass(frozen=True, slots=True)
class DataReady:
    """The gate has let the panel pass and the parts are cut."""

    panel: Panel
    split: Split
    report: QualityReport
    steering: str | None = None  # which windows of tune steer, in words; None: all


@dataclass(frozen=True, slots=True)
class FetchingWeights:
    """Pretrained weights come from the hub, once; told again as they grow."""

    weights: str  # a Hugging Face id
    done: int  # bytes that are here
    total: int  # bytes; 0: not known yet


@dataclass(frozen=True, slots=True)
class Planned:
    """The sweep is open: what will be tried, and what was refused and why."""

    sweep: Sweep
    trials: tuple[Prepared, ...]
    refused: tuple[Prepared, ...]


@dataclass(frozen=True, slots=True)
class Estimated:
    """What the trials will take, reckoned from a few real steps of some of them."""

    num_trials: int
    seconds: float  # of them all, on the workers there are
    workers: int
    grids: Mapping[str, int]  # configs of each model's whole grid


@dataclass(frozen=True, slots=True)
class SpaceNarrowed:
    """A model's space was narrowed around its best runs, and written as a sweep file."""

    model: str
    num_runs: int  # that it was narrowed by
    file: Path


@dataclass(frozen=True, slots=True)
class SeveralWorkers:
    """So many trials run at once."""

    count: int
    learns: bool  # what the sweep does next depends on what has ended by then


@dataclass(frozen=True, slots=True)
class LeakTested:
    """A model's forecasts did not move when only the future was changed."""

    model: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TrialStarted:
    run: Run


@dataclass(frozen=True, slots=True)
class TrialProgressed:
    run: Run
    step: int
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TrialFinished:
    """Complete, pruned or failed: the run says which."""

    run: Run


@dataclass(frozen=True, slots=True)
class TrialWaits:
    """Others come first: it may go on later, from where it is, under its own id."""

    run: Run


@dataclass(frozen=True, slots=True)
class TrialRetried:
    """Its process was killed or had too little memory: another attempt follows."""

    run: Run  # the one that failed
    how: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """No trial runs here now, and the sweep is not at its end."""

    why: str


@dataclass(frozen=True, slots=True)
class BudgetSpent:
    """No further trial is begun; those that run go on to their end."""

    why: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """A sweep goes on where it stood."""

    sweep: Sweep
    num_done: int  # trials that have come to their end
    num_open: int  # begun, and broken off
    source_note: str  # "" where the data are what they were and could be looked at


@dataclass(frozen=True, slots=True)
class TrialSkipped:
    """An equal config was trained before, on the same panel, task and seed."""

    prepared: Prepared
    earlier: Run


@dataclass(frozen=True, slots=True)
class FinalistsChosen:
    """Every config was tried once; these, best on tune first, are trained with the other seeds."""

    runs: tuple[Run, ...]
    num_seeds: int  # of each, the one it has included


@dataclass(frozen=True, slots=True)
class SeedsCompared:
    """A finalist has all its seeds; the median one on tune stands for its config."""

    runs: tuple[Run, ...]  # complete ones
    chosen: Run


@dataclass(frozen=True, slots=True)
class SweepFinished:
    sweep: Sweep


Event: TypeAlias = (
    FetchingWeights
    | DataReady
    | Planned
    | Estimated
    | LeakTested
    | SeveralWorkers
    | SpaceNarrowed
    | TrialStarted
    | TrialProgressed
    | TrialFinished
    | TrialWaits
    | TrialRetried
    | TrialSkipped
    | Waiting
    | BudgetSpent
    | Resumed
    | FinalistsChosen
    | SeedsCompared
    | SweepFinished
)
Listener: TypeAlias = Callable[[Event], None]
