"""The loss table: all that a verdict reads, and which of equal trials to take.

K trials, O origins, I items. Val and test are handed over as calls, so that what is fixed before
val is read and what keeps test sealed is a matter of order, not of trust.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foresweep.errors import DataError, UnknownName
from foresweep.evaluation import yardstick
from foresweep.stats.overfitting import overtuning
from foresweep.stats.significance import origin_means, overlap_lags, standard_errors

if TYPE_CHECKING:
    from foresweep.evaluation.losses import LossPanel

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PartLosses:
    """Losses of some trials on the same cells of one part."""

    names: tuple[str, ...]  # [K]
    raw: Array  # [K, O, I] in the metric's unit; NaN where there is no cell, for all the same
    scale: Array  # [O, I] known at the origin; a predictable weight, never from the cell's own loss
    stride: int | None = None  # bars between origins, where it is not the table's

    def __post_init__(self) -> None:
        if self.raw.shape != (len(self.names), *self.scale.shape):
            raise DataError(
                f"losses of shape {self.raw.shape} do not fit {len(self.names)} trials and a "
                f"scale of shape {self.scale.shape}"
            )

    @property
    def num_origins(self) -> int:
        return int(self.raw.shape[1])

    @property
    def num_items(self) -> int:
        return int(self.raw.shape[2])

    def row(self, name: str) -> int:
        """Index of a trial. Raises UnknownName."""
        if name not in self.names:
            raise UnknownName("trial", name, self.names)
        return self.names.index(name)

    def raw_mean(self, name: str) -> float:
        """Mean loss over all cells: the score that ranks."""
        return float(np.nanmean(self.raw[self.row(name)]))

    def raw_skill(self, name: str, opponent: str) -> float:
        """1 - loss / the opponent's; 0 where both are nothing."""
        return _skill(self.raw_mean(name), self.raw_mean(opponent))

    def raw_by_origin(self, name: str) -> Array:
        """[O] raw losses, mean over items."""
        return origin_means(self.raw[self.row(name)])

    def scaled(self, name: str) -> Array:
        """[O] losses in units of the scale, mean over items: what is tested."""
        return origin_means(self.raw[self.row(name)] / self.scale)

    def differences(self, opponent: str, names: Sequence[str]) -> Array:
        """[O, K] scaled losses of the opponent less those of `names`: positive is better."""
        theirs = self.scaled(opponent)
        return np.column_stack([theirs - self.scaled(name) for name in names])


@dataclass(frozen=True, slots=True, eq=False)
class LossTable:
    """One question: trials and baselines that forecast the same cells, H bars ahead."""

    metric: str
    unit: str
    horizon: int  # bars
    stride: int  # bars between origins
    trials: tuple[str, ...]  # judged together: one column of StepM each, in the order tried
    baselines: tuple[str, ...]  # the benchmark is one of them
    val: Callable[[], PartLosses]  # trials and baselines
    tune: Mapping[str, float] = field(default_factory=dict)  # name -> raw mean loss on tune
    last_value: str | None = None  # which baseline that is
    num_origins: Mapping[str, int] = field(default_factory=dict)  # val and test, before reading
    effective_origins: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float | None] = field(default_factory=dict)  # name -> seconds of training
    labels: Mapping[str, str] = field(default_factory=dict)  # name -> what people call it
    zero_shot: str | None = None  # the trial that is the candidate's weights, not fine-tuned

    def label(self, name: str) -> str:
        return self.labels.get(name, name)


def choose_benchmark(table: LossTable) -> tuple[str, str]:
    """(benchmark, why): the baseline with the lowest loss on tune; ties go to last-value, then to
    the first. Reads nothing but tune. Raises DataError where there is none to choose."""
    if not table.baselines:
        raise DataError("there is no baseline to judge against; run one or name it")
    if len(table.baselines) == 1:
        return table.baselines[0], "the only baseline"
    known = {n: table.tune[n] for n in table.baselines if np.isfinite(table.tune.get(n, np.nan))}
    if not known:
        raise DataError(
            f"none of the baselines {', '.join(table.baselines)} has losses on tune: which of them "
            f"is the benchmark must not be chosen by looking at val; name one"
        )
    best = yardstick.choose_benchmark(known)
    assert best is not None
    return best, f"the best of {len(known)} baselines on tune"


def part_losses(panels: Mapping[str, LossPanel], metric: str) -> PartLosses:
    """Loss panels of one part by name, side by side. Raises DataError where shapes differ."""
    first = next(iter(panels.values()))
    raw = np.stack([panel.losses[metric] for panel in panels.values()])
    return PartLosses(tuple(panels), raw, first.scale, stride=first.stride)


def _skill(loss: float, opponent: float) -> float:
    if opponent == 0:
        return 0.0 if loss == 0 else -np.inf
    return 1.0 - loss / opponent


# Which of the trials to take when several are as good, and what tuning itself has cost.


def one_se_choice(
    val: PartLosses,
    trials: Sequence[str],
    cost: Mapping[str, float | None],
    *,
    horizon: int,
    stride: int,
) -> str:
    """The cheapest trial whose raw loss on val is within one standard error of the best's.

    The error is that of the difference of the two, origin by origin (with the horizon's overlap):
    what both suffer alike does not count. Trials of unknown cost are passed over; ties and no
    known cost: the best.
    """
    best = min(trials, key=val.raw_mean)
    ours = val.raw_by_origin(best)
    lags = overlap_lags(horizon, stride)
    near = {best}
    for name in trials:
        gap = val.raw_by_origin(name) - ours
        gap = gap[~np.isnan(gap)]
        error = standard_errors(gap[:, None], lags=lags)[0]
        if np.isfinite(error) and gap.mean() <= error:
            near.add(name)
    priced = {n: price for n in near if (price := cost.get(n)) is not None}
    return min(priced, key=lambda n: (priced[n], n != best)) if best in priced else best


def overtuned(table: LossTable, val: PartLosses) -> float | None:
    """Loss on val of the trial that tune would pick, over that of the best pick on the way there;
    0: tuning lost nothing. None without losses on tune."""
    known = [name for name in table.trials if np.isfinite(table.tune.get(name, np.nan))]
    found = overtuning([table.tune[n] for n in known], [val.raw_mean(n) for n in known])
    return None if found is None else found.absolute
