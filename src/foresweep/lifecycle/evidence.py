"""Live losses as evidence: the champion against benchmark and last-value, shadows against it.

What is tested are paired differences of scaled losses, mean over items of an origin, by tests that
may be looked at every day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from foresweep.errors import CheckpointError, UsageError
from foresweep.evaluation.yardstick import LAST_VALUE
from foresweep.lifecycle.champion import (
    LiveComparison,
    Promoted,
    find_slot,
    promote,
    require_champion,
)
from foresweep.lifecycle.scoring import Measure, measure_of
from foresweep.models.base import Array
from foresweep.records import Run
from foresweep.selection.sealed import open_losses
from foresweep.stats.significance import origin_means, overlap_lags
from foresweep.stats.watching import Reference, ever_above, reference_of
from foresweep.tracker.monitoring import Monitoring
from foresweep.tracker.service import CHAMPION, PROMOTE, ROLLBACK, SHADOW, Entry, Service, Slot
from foresweep.tracker.tracker import Tracker

LEVEL = 0.05
"""Chance that an honest champion ever sets off an alarm, all its opponents together."""


@dataclass(frozen=True, slots=True)
class Paired:
    """One set of forecasts held against another, live. Differences are of scaled losses, positive
    where the first is worse."""

    first: str
    second: str
    num_origins: int
    num_forecasts: int
    difference: float | None  # mean
    skill: float | None  # 1 - loss of the first / of the second, raw losses
    pvalue: float  # anytime-valid: that the first is no worse (an alarm) or no better (a swap)
    level: float  # at which it counts

    @property
    def is_found(self) -> bool:
        """Is the evidence enough?"""
        return self.pvalue <= self.level

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"is_found": self.is_found}


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Losses of some forecasts, mean over items, by origin in the order they were scored."""

    origins: tuple[str, ...]  # [T]
    first: Array  # [T] scaled
    second: Array  # [T] scaled
    num_forecasts: int
    raw: tuple[float, float]  # mean raw losses

    @property
    def differences(self) -> Array:
        """[T] positive where the first is worse."""
        found: Array = self.first - self.second
        return found


def against(rows: Sequence[Mapping[str, Any]], opponent: str) -> Series:
    """Live scores held against `benchmark` or last-value."""
    column = "last_value_loss" if opponent == LAST_VALUE else "benchmark_loss"
    counted = [r for r in rows if r["loss"] is not None and r[column] is not None]
    return _series([(r["origin"], r["loss"], r[column], r["scale"]) for r in counted])


def between(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> Series:
    """Live scores of two checkpoints on the items and origins that both have forecast."""
    theirs = {(r["item_id"], r["origin"]): r for r in second if r["loss"] is not None}
    pairs = [
        (max(r["score_id"], other["score_id"]), r, other)
        for r in first
        if r["loss"] is not None and (other := theirs.get((r["item_id"], r["origin"]))) is not None
    ]
    pairs.sort(key=lambda p: p[0])
    return _series([(r["origin"], r["loss"], o["loss"], r["scale"]) for _, r, o in pairs])


def _series(cells: Sequence[tuple[str, float, float, float]]) -> Series:
    by_origin: dict[str, list[tuple[float, float]]] = {}
    for origin, ours, theirs, scale in cells:
        by_origin.setdefault(origin, []).append((ours / scale, theirs / scale))
    means = np.array([np.mean(v, axis=0) for v in by_origin.values()]).reshape(-1, 2)
    raw = np.mean([c[1:3] for c in cells], axis=0) if cells else np.full(2, np.nan)
    return Series(
        tuple(by_origin), means[:, 0], means[:, 1], len(cells), (float(raw[0]), float(raw[1]))
    )


def champion_against(tracker: Tracker, slot: Slot, measure: Measure) -> tuple[Paired, ...]:
    """The champion against the benchmark and last-value: is it worse? One opponent, where both are
    the same. Raises DataError where losses on val cannot be read."""
    champion = require_champion(slot)
    rows = Monitoring(tracker.store).scores(slot.name, role=CHAMPION, manifest=champion.manifest)
    opponents = dict.fromkeys((measure.benchmark, LAST_VALUE))
    level = LEVEL / len(opponents)
    return tuple(
        _tested(
            against(rows, name),
            (champion.run_id, name),
            measure.horizon,
            level,
            _val_reference(measure.run, measure.opponents.get(name), measure),
        )
        for name in opponents
    )


def shadows_against(tracker: Tracker, slot: Slot, measure: Measure) -> tuple[Paired, ...]:
    """The shadows against the champion: is one better, by enough to swap? Differences are of the
    shadow, as in all of these: negative where it is better."""
    return tuple(_shadow_against(tracker, slot, s, measure)[0] for s in slot.shadows)


def promote_by_live(
    tracker: Tracker,
    run_id: str,
    slot: str | None = None,
    *,
    accept_licence: bool = False,
    who: str = "",
) -> Promoted:
    """Put a shadow in the champion's place by its own evidence: that it does better on what both
    have forecast, live. The comparison is made anew, from the scores on record.

    `slot`: default: the one that it is a shadow of. Raises NotFound, UsageError where the run is no
    shadow or is not proved to be better, and what `promote` raises.
    """
    service, run = Service(tracker.store), tracker.get_run(run_id)
    beside = [s for s in service.slots() if run.run_id in {e.run_id for e in s.shadows}]
    found = beside[0] if slot is None and len(beside) == 1 else find_slot(service, slot)
    champion = require_champion(found)
    shadow = next((e for e in found.shadows if e.run_id == run.run_id), None)
    if shadow is None:
        raise UsageError(
            f"run {run.run_id} is no shadow of slot {found.name}, so it has no live forecasts to "
            f"go by; begin with: foresweep promote {run.run_id} --shadow --slot {found.name}"
        )
    paired, series = _shadow_against(tracker, found, shadow, measure_of(tracker, champion))
    if paired.difference is None:
        raise UsageError(
            f"shadow {run.run_id}: no bar that both it and the champion {champion.run_id} forecast "
            f"has been scored yet; forecast (foresweep predict --record), wait for the bars, then: "
            f"foresweep monitor --data FOLDER --slot {found.name}"
        )
    comparison = LiveComparison(
        champion=champion.run_id,
        manifest=shadow.manifest,
        num_origins=paired.num_origins,
        num_forecasts=paired.num_forecasts,
        since=min(series.origins),
        until=max(series.origins),
        difference=paired.difference,
        pvalue=paired.pvalue,
        level=paired.level,
    )
    return promote(
        tracker, run.run_id, slot=found.name, comparison=comparison,
        accept_licence=accept_licence, who=who,
    )  # fmt: skip


def _shadow_against(
    tracker: Tracker, slot: Slot, shadow: Entry, measure: Measure
) -> tuple[Paired, Series]:
    champion, live = require_champion(slot), Monitoring(tracker.store)
    ours = live.scores(slot.name, role=CHAMPION, manifest=champion.manifest)
    rows = live.scores(slot.name, role=SHADOW, manifest=shadow.manifest)
    reference = _val_reference(tracker.get_run(shadow.run_id), measure.run, measure)
    series, level = between(rows, ours), LEVEL / _num_challengers(slot)
    names = (shadow.run_id, champion.run_id)
    return _tested(series, names, measure.horizon, level, reference, better=True), series


def _num_challengers(slot: Slot) -> int:
    """Shadows that stood beside this champion, those that were taken out among them: who tries one
    after the other shares the 5 % among all of them."""
    since = max((e.entry_id for e in slot.history if e.action in (PROMOTE, ROLLBACK)), default=0)
    tried = {e.manifest for e in slot.history if e.action == SHADOW and e.entry_id > since}
    return max(1, len(tried | {e.manifest for e in slot.shadows}))


def _tested(
    series: Series,
    names: tuple[str, str],
    horizon: int,
    level: float,
    reference: Reference | None,
    *,
    better: bool = False,
) -> Paired:
    num, (ours, theirs) = len(series.origins), series.raw
    asked = -series.differences if better else series.differences
    pvalue = 1.0
    if num:
        path = ever_above(asked[:, None], lags=horizon - 1, level=level, reference=reference)
        pvalue = float(path[-1, 0])
    return Paired(
        *names,
        num_origins=num,
        num_forecasts=series.num_forecasts,
        difference=float(series.differences.mean()) if num else None,
        skill=1 - ours / theirs if num and theirs > 0 else None,
        pvalue=pvalue,
        level=level,
    )


def _val_reference(first: Run, second: Run | None, measure: Measure) -> Reference | None:
    """How much the scaled losses of two runs differed on val; None where they were not scored on
    the same windows, or their losses are gone."""
    if second is None or first.fingerprint != second.fingerprint:
        return None
    try:
        panels = [open_losses(run, "val") for run in (first, second)]
    except CheckpointError:
        return None
    ours, theirs = (origin_means(p.scaled(measure.metric)) for p in panels)
    stride = panels[0].stride
    lags = overlap_lags(measure.horizon, stride)
    return reference_of(ours - theirs, lags=lags, stride=stride, horizon=measure.horizon)
