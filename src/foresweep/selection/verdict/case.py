"""What is judged: a candidate, the losses it is judged by, and where its weights come from.

K trials and baselines, O origins, I items. Val and test are handed over as calls, so that what is
fixed before val is read and what keeps test sealed is a matter of order, not of trust.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from foresweep.errors import DataError, UnknownName
from foresweep.evaluation import yardstick
from foresweep.metrics import panel_mean, skill
from foresweep.stats.significance import Array, mean_errors, origin_means

if TYPE_CHECKING:
    from foresweep.evaluation.losses import LossPanel
    from foresweep.records import Check

LEVEL = 0.05
UNSAID = "not said"
"""Source of weights of which a file of losses tells nothing."""
RETURNS = "returns"
"""Metric where what is judged was earned, not lost."""
NO_WEIGHTS = "no weights"
"""Source where rules trade: nothing was trained on a world that could hold the test."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the numbers of a verdict are called: skills of losses, or excess returns."""

    raw: str  # before an opponent's name
    scaled: str  # what is tested
    short: str  # the same, in a word
    points: str  # what evidence is counted in
    useful: float  # of it, below which a trial is not worth a search: naive wins when all are
    percent: bool = True

    def said(self, value: float, digits: int = 0) -> str:
        """A size of what is tested."""
        if self.percent:
            return f"{100 * value:.{digits}f} %"
        return f"{value:.{digits + 1}f} a year"


SKILLS = Terms("raw skill against", "scaled skill", "skill", "effective origins", 0.05)
EXCESS = Terms(
    "return a year over", "Sharpe ratio over it", "Sharpe ratio", "bars", 0.5, percent=False
)


@dataclass(frozen=True, slots=True, eq=False)
class PartLosses:
    """Losses of some trials on the same cells of one part."""

    names: tuple[str, ...]  # [K]
    raw: Array  # [K, O, I] in the metric's unit; NaN where there is no cell, for all the same
    scale: Array  # [O, I] known at the origin; a predictable weight, never from the cell's own loss
    stride: int | None = None  # bars between origins, where it is not the case's
    items: tuple[str, ...] = ()  # [I] their names, where they are known
    own_scale: Array | None = None  # [O, I] made by us, where `scale` is somebody's word

    @property
    def terms(self) -> Terms:
        """What its numbers are called."""
        return SKILLS

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

    def of(self, name: str) -> Array:
        """[O, I] raw losses of a trial. Raises UnknownName."""
        if name not in self.names:
            raise UnknownName("trial", name, self.names)
        losses: Array = self.raw[self.names.index(name)]
        return losses

    def raw_mean(self, name: str) -> float:
        """Mean loss, every item alike: the score that ranks."""
        return panel_mean(self.of(name))

    def raw_skill(self, name: str, opponent: str) -> float:
        """1 - loss / the opponent's; 0 where both are nothing."""
        return skill(self.raw_mean(name), self.raw_mean(opponent))

    def scaled(self, name: str) -> Array:
        """[O] losses in units of the scale, mean over items: what is tested."""
        return origin_means(self.of(name) / self.scale)

    def differences(self, opponent: str, names: Sequence[str]) -> Array:
        """[O, K] scaled losses of the opponent less those of `names`: positive is better."""
        theirs = self.scaled(opponent)
        return np.column_stack([theirs - self.scaled(name) for name in names])

    def unit(self, opponent: str) -> float:
        """What a mean of `differences` is divided by to be a scaled skill. The opponent's own mean
        is taken as known: it moves a bound by a few percent of itself."""
        return float(np.nanmean(self.scaled(opponent)))

    def best_scaled(self, names: Sequence[str]) -> str:
        """Of `names` the one with the lowest scaled loss: the loss that is tested."""
        return min(names, key=lambda name: float(np.nanmean(self.scaled(name))))

    def best_item(self, name: str, opponent: str) -> int:
        """The item on which `name` gains most over the opponent, in scaled losses of all origins
        together. An item without a loss gains nothing, and is not the one that gains 0."""
        gain = (self.of(opponent) - self.of(name)) / self.scale
        there = ~np.isnan(gain)
        cells = np.maximum(there.sum(axis=1, keepdims=True), 1)
        total = np.where(there, gain / cells, 0.0).sum(axis=0)
        return int(np.where(there.any(axis=0), total, -np.inf).argmax())

    def without(self, item: int) -> PartLosses:
        """The same less one item."""
        raw, scale = np.delete(self.raw, item, axis=2), np.delete(self.scale, item, axis=1)
        names = tuple(n for k, n in enumerate(self.items) if k != item)
        return replace(self, raw=raw, scale=scale, items=names, own_scale=None)

    def rescaled(self) -> PartLosses | None:
        """The same by our own scale, on the origins that have one (on none of them nothing is
        shown, and p is 1); None where `scale` needs no second opinion."""
        if self.own_scale is None:
            return None
        rows = ~np.isnan(self.own_scale).all(axis=1)
        return replace(self, raw=self.raw[:, rows], scale=self.own_scale[rows], own_scale=None)


def part_losses(panels: Mapping[str, LossPanel], metric: str) -> PartLosses:
    """Loss panels of one part by name, side by side. Raises DataError where shapes differ."""
    first = next(iter(panels.values()))
    raw = np.stack([panel.losses[metric] for panel in panels.values()])
    return PartLosses(tuple(panels), raw, first.scale, stride=first.stride, items=first.items)


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
        if self.source in (UNSAID, NO_WEIGHTS) and not self.pretrained:
            return self.source
        return "unknown" if self.pretrained else "from scratch"

    @property
    def is_clean(self) -> bool:
        if self.cutoff is None or self.test_from is None:
            return not self.pretrained and self.source != UNSAID
        return self.cutoff[:10] < self.test_from[:10]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One candidate among trials and baselines that forecast the same cells, H bars ahead."""

    metric: str
    unit: str
    horizon: int  # bars
    stride: int  # bars between origins
    trials: tuple[str, ...]  # judged together: one column of StepM each, in the order tried
    baselines: tuple[str, ...]  # the benchmark is one of them
    val: Callable[[], PartLosses]  # trials and baselines
    tune: Mapping[str, float] = field(default_factory=dict)  # name -> raw mean loss on tune
    last_value: str | None = None  # the name of last-value, where val has its losses
    num_origins: Mapping[str, int] = field(default_factory=dict)  # val and test, before reading
    effective_origins: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float | None] = field(default_factory=dict)  # name -> seconds of training
    labels: Mapping[str, str] = field(default_factory=dict)  # name -> what people call it
    zero_shot: str | None = None  # the trial that is the candidate's weights, not fine-tuned
    candidate: str | None = None  # None: the one with the lowest scaled loss on val
    weights: Weights = Weights()
    judged_number: int = 1  # j: which judging on these cells
    num_trials: int | None = None  # tried on them in all; None: those here
    num_hidden: int = 0  # of these, trials whose losses on val are kept from us: they enter gate 1
    suspicions: tuple[tuple[Check, str], ...] = ()  # of gate 3, with what to say where it fails

    @property
    def level(self) -> float:
        """Of gate 1: 0.05 / j^2."""
        return LEVEL / self.judged_number**2


def choose_benchmark(case: Case) -> tuple[str, str]:
    """(benchmark, why): the baseline with the lowest loss on tune. Reads nothing but tune. Raises
    DataError where there is none to choose."""
    if not case.baselines:
        raise DataError("there is no baseline to judge against; run one or name it")
    if len(case.baselines) == 1:
        return case.baselines[0], "the only baseline"
    tune = {n: case.tune[n] for n in case.baselines if np.isfinite(case.tune.get(n, np.nan))}
    best = yardstick.choose_benchmark(tune)
    if best is None:
        raise DataError(
            f"none of the baselines {', '.join(case.baselines)} has losses on tune: which of them "
            f"is the benchmark must not be chosen by looking at val; name one"
        )
    return best, f"the best of {len(tune)} baselines on tune"


def one_se_choice(
    val: PartLosses, trials: Sequence[str], cost: Mapping[str, float | None], *, block: int
) -> str:
    """The cheapest trial whose raw loss on val is within one standard error of the best's.

    The error is that of the difference of the two, origin by origin (`block` of them share labels):
    what both suffer alike does not count. Trials of unknown cost are passed over; ties and no
    known cost: the best.
    """
    best = min(trials, key=val.raw_mean)
    ours = origin_means(val.of(best))
    near = {best}
    for name in trials:
        gap = origin_means(val.of(name)) - ours
        gap = gap[~np.isnan(gap)]
        error = mean_errors(gap[:, None], lags=block - 1).error[0]
        if np.isfinite(error) and gap.mean() <= error:
            near.add(name)
    priced = {n: price for n in near if (price := cost.get(n)) is not None}
    return min(priced, key=lambda n: (priced[n], n != best)) if best in priced else best
