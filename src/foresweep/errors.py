"""Every error foresweep raises on purpose.

ForesweepError                   exit 1: base of all; the command line prints these in one line
├── UsageError                   exit 2: the words of the call are wrong; nothing has run
│   ├── UnknownName              no such model, metric, mode, key ... (with the nearest)
│   ├── ConfigError              a hyperparameter is out of bounds, contradictory or without effect
│   └── SpaceError               a search space or a sweep file cannot be read
├── MissingExtra                 an optional package is not installed (names the extra)
├── DataError                    a file or a panel breaks a promise
│   ├── NotEnoughData            the panel is too short or too small for what was asked
│   └── PanelChanged             old bars are not what they were when the sweep began
├── ModelError                   a model could not be trained, loaded or asked
│   ├── WeightsNotFound          pretrained weights are neither cached nor reachable
│   ├── CheckpointError          a checkpoint is missing, incomplete or altered
│   ├── TrainingDiverged         the loss is no longer a number
│   └── ForecastError            a forecast has the wrong shape or is not finite
├── LeakFound                    a forecast moved when only the future was changed
├── TrackerError                 the database refused
│   ├── NotFound                 no such run, trial or sweep
│   └── DatabaseUnusable         corrupt, read-only, from a newer foresweep, or not a database
└── SearchError                  a sweep cannot go on
    └── WorkerDied               the process of a trial ended without a word
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class ForesweepError(Exception):
    """Base of all errors here: says what, where and what to do, in one line."""

    exit_code: ClassVar[int] = 1


class UsageError(ForesweepError):
    """The words of the call are wrong; nothing has run."""

    exit_code = 2


OTHER_WORDS = {
    "learning_rate": "lr",
    "learning-rate": "lr",
    "epochs": "max_epochs",
    "steps": "max_steps",
    "batch": "batch_size",
    "context": "context_length",
    "warmup": "warmup_fraction",
    "mae": "pct_mae",
    "mape": "pct_mae",
    "val_mae": "val_pct_mae",
    "val_mape": "val_pct_mae",
    "val_loss": "val_pct_mae",
}
"""Words of other programs for names of ours, which no likeness of letters finds."""
MOST_NAMES = 40
"""Known names that an error lists."""


class UnknownName(UsageError):
    """No such model, metric, mode, hyperparameter or item."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str = "") -> None:
        names = sorted(known)
        small = {n.lower(): n for n in names}
        asked = OTHER_WORDS.get(name.lower(), name.lower())
        near = get_close_matches(asked, small, n=1)
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        listed = ", ".join(names[:MOST_NAMES]) or "none"
        hint = f"did you mean {small[near[0]]!r}?" if near else f"known: {listed}{more}"
        place = f" {where}" if where else ""
        super().__init__(f"unknown {kind} {name!r}{place}; {hint}")
        self.kind, self.name = kind, name


class ConfigError(UsageError):
    """A hyperparameter is out of bounds, contradictory or without effect."""


class SpaceError(UsageError):
    """A search space or a sweep file cannot be read."""


class MissingExtra(ForesweepError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'foresweep[{extra}]'")
        self.package, self.extra = package, extra


class DataError(ForesweepError):
    """A file or a panel breaks a promise."""


class NotEnoughData(DataError):
    """The panel is too short or too small for what was asked."""


class PanelChanged(DataError):
    """Old bars are not what they were when the sweep began."""


class ModelError(ForesweepError):
    """A model could not be trained, loaded or asked."""


class WeightsNotFound(ModelError):
    """Pretrained weights are neither cached nor reachable."""


class CheckpointError(ModelError):
    """A checkpoint is missing, incomplete or altered."""


class TrainingDiverged(ModelError):
    """The loss is no longer a number."""


class ForecastError(ModelError):
    """A forecast has the wrong shape or is not finite."""


class LeakFound(ForesweepError):
    """A forecast moved when only the future was changed."""


class TrackerError(ForesweepError):
    """The database refused."""


class NotFound(TrackerError):
    """No such run, trial or sweep."""


class DatabaseUnusable(TrackerError):
    """Corrupt, read-only, from a newer foresweep, or not a database."""


class SearchError(ForesweepError):
    """A sweep cannot go on."""


class WorkerDied(SearchError):
    """The process of a trial ended without a word."""


def without_prefix(message: str) -> str:
    """What pydantic says of a value (Typer hands it on), without the "Value error, " before it."""
    return message.removeprefix("Value error, ")
