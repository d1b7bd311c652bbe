"""Does anything see the future? Change it, and look whether anything moves.

No reading of code can show that a forecast knows only its context; replacing every later bar can.
A scaler fitted on the whole series, a context one bar too long, windows of a batch that attend to
each other, a kept step chosen on val: each moves something here that must stand still.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import VOLUME, Bars, IntArray, Panel
from foresweep.data.splits import PartName, Split
from foresweep.data.windows import Context, Windows
from foresweep.errors import LeakFound
from foresweep.evaluation.backtest import SCORED_PARTS, make_scorer
from foresweep.models.base import DEFAULT_LEVELS, Array, Predictor, Scored, Scorer

ITEMS, ORIGINS = 8, 3
"""Items and origins of each part that `check_no_leak` looks at."""
TUNED_ORIGINS = 12
"""Origins of tune that a calibration is fitted on before a leak test: enough for two halves."""

Fitted: TypeAlias = Mapping[str, NDArray[Any]]
Train: TypeAlias = Callable[[Panel, Scorer], Fitted]
"""A short training on a panel with a given scorer -> everything it fitted, by name: weights and
whatever else is kept. Called several times; must be seeded."""


@dataclass(frozen=True, slots=True)
class LeakCheck:
    """What was looked at, none of which moved."""

    num_forecasts: int  # forecasts compared with the future changed
    moved_by_last_bar: float  # share that moved when the last context bar did: 0 looks blind


def replace_after(panel: Panel, position: int, *, seed: int = 0) -> Panel:
    """The panel with every bar after a timeline position replaced; calendars and masks stay.

    Each bar gets its own factor between 1.1 and 2 or its inverse, volume another, so no bar and no
    move keeps its size.
    """
    rng = np.random.default_rng(seed)
    bars = [
        _replaced(b, np.flatnonzero(panel.timeline_of(i) > position), rng)
        for i, b in enumerate(panel.bars)
    ]
    return dataclasses.replace(panel, bars=tuple(bars), source=f"{panel.source} (changed)")


def _replaced(bars: Bars, rows: IntArray, rng: np.random.Generator) -> Bars:
    values = bars.values.copy()
    factor = rng.uniform(1.1, 2.0, (2, len(rows))) ** rng.choice([-1, 1], (2, len(rows)))
    values[rows, :VOLUME] *= factor[0][:, None]
    values[rows, VOLUME] = (values[rows, VOLUME] + 1.0) * factor[1]
    values.setflags(write=False)
    return dataclasses.replace(bars, values=values)


def check_no_leak(
    predictor: Predictor,
    panel: Panel,
    split: Split,
    *,
    parts: Iterable[PartName] = SCORED_PARTS,
    seed: int = 0,
) -> LeakCheck:
    """Forecast a few windows of each part, again with all later bars replaced, and compare bits.

    Windows of several origins go through one call, and those up to an origin must not move when
    the bars after it do, though later windows of the same call then see other contexts.
    Raises LeakFound naming the item, the origin and the lead that moved.
    """
    count, moved = 0, []
    for part in parts:
        windows = Windows(panel, split, split.part(part))
        chosen = chosen_windows(windows)
        if not len(chosen):
            continue
        length = min(predictor.context_length, split.max_context)
        context = windows.context(length, chosen)
        before = _predict(predictor, context, split.horizon, seed)
        for k in np.unique(windows.origin[chosen]):
            changed = Windows(
                replace_after(panel, int(windows.part.origins[k])), split, windows.part
            )
            after = _predict(predictor, changed.context(length, chosen), split.horizon, seed)
            early = windows.origin[chosen] <= k
            _compare(context, before, after, early, part)
            count += int(early.sum())
        nudged = _predict(predictor, _nudge_last_bar(context), split.horizon, seed)
        moved.append((nudged != before).any(axis=(1, 2)))
    share = float(np.concatenate(moved).mean()) if moved else 0.0
    return LeakCheck(count, share)


def thinned(panel: Panel, split: Split) -> Split:
    """The split with few of tune's windows left: up to ITEMS items at up to TUNED_ORIGINS origins,
    spread over both. For what has to be fitted on tune only to be looked at."""
    tune = split.part("tune")
    windows = Windows(panel, split, tune)
    origins = tune.origins[_spread_over(np.unique(windows.origin), TUNED_ORIGINS)]
    items = tuple(int(i) for i in _spread_over(np.unique(windows.item), ITEMS))
    fewer = dataclasses.replace(tune, origins=origins)
    parts = tuple(fewer if part.name == "tune" else part for part in split.parts)
    return dataclasses.replace(split, parts=parts, items=items)  # type: ignore[arg-type]


def chosen_windows(windows: Windows) -> IntArray:
    """Indices of the windows of up to ITEMS items at up to ORIGINS origins, spread over both."""
    origins = _spread_over(np.unique(windows.origin), ORIGINS)
    columns = _spread_over(np.unique(windows.column), ITEMS)
    keep = np.isin(windows.origin, origins) & np.isin(windows.column, columns)
    return np.flatnonzero(keep)


def _spread_over(values: IntArray, count: int) -> IntArray:
    if not len(values):
        return values
    at = np.unique(np.linspace(0, len(values) - 1, count).round().astype(np.int64))
    return values[at]


def _predict(predictor: Predictor, context: Context, horizon: int, seed: int) -> Array:
    forecast = predictor.predict(context, horizon=horizon, levels=DEFAULT_LEVELS, seed=seed)
    return forecast.checked(len(context), horizon).values


def _compare(
    context: Context, before: Array, after: Array, early: NDArray[np.bool_], part: str
) -> None:
    """Raises LeakFound where an `early` window's forecast moved."""
    moved = (before != after).any(axis=2) & early[:, None]
    if not moved.any():
        return
    n, h = (int(x) for x in np.argwhere(moved)[0])
    size = float(np.abs(after[n, h] / before[n, h] - 1).max())
    raise LeakFound(
        f"the forecast of {context.item_ids[n]} at {context.timestamps[n, -1]} ({part}) for lead "
        f"{h + 1} moved by {100 * size:.2g} % when only bars after its origin were changed; "
        f"{int(moved.any(axis=1).sum())} of {int(early.sum())} forecasts moved"
    )


def _nudge_last_bar(context: Context) -> Context:
    values = context.values.copy()
    values[:, -1] *= 1.03
    return dataclasses.replace(context, values=values)


def check_training_is_blind(train: Train, panel: Panel, split: Split, *, seed: int = 0) -> None:
    """Repeat a short training with bars replaced that it must not know, and compare bits.

    With every bar of val and test replaced (and those purged before them), neither what was fitted
    nor a tune score may move. With tune replaced too, and a scorer that always says the same, what
    was fitted may not move either: tune may steer, never teach. Raises LeakFound.
    """
    later = replace_after(panel, split.part("tune").stop - 1)
    fitted, scores = _record(train, panel, make_scorer(panel, split, seed=seed))
    again, rescored = _record(train, later, make_scorer(later, split, seed=seed))
    _same_scores(scores, rescored)
    _same_fitted(fitted, again, "val and test")
    blank = replace_after(panel, split.part("train").stop - 1)
    fixed = train(panel, falling_scorer())
    _same_fitted(fixed, train(blank, falling_scorer()), "tune, val and test")


def falling_scorer() -> Scorer:
    """A scorer that looks at nothing and always finds the latest step the best: with it the kept
    step is the last, whatever is in tune."""
    calls = iter(range(1, 1_000_000))

    def score(predictor: Predictor) -> Scored:
        value = 1.0 / next(calls)
        return Scored({"tune_pct_mae": value, "tune_pinball": value}, {})

    return score


def _record(train: Train, panel: Panel, scorer: Scorer) -> tuple[Fitted, list[Mapping[str, float]]]:
    """What a training fitted, and every score it was told."""
    told: list[Mapping[str, float]] = []

    def score(predictor: Predictor) -> Scored:
        scored = scorer(predictor)
        told.append(scored.scores)
        return scored

    return train(panel, score), told


def _same_scores(first: list[Mapping[str, float]], second: list[Mapping[str, float]]) -> None:
    if len(first) != len(second):
        raise LeakFound(
            f"training scored itself {len(first)} times, and {len(second)} times when only the "
            f"bars of val and test were replaced"
        )
    for call, (one, two) in enumerate(zip(first, second, strict=True), start=1):
        for name in one:
            if not np.array_equal(one[name], two[name], equal_nan=True):
                raise LeakFound(
                    f"{name} moved from {one[name]:.6g} to {two[name]:.6g} at scoring {call} when "
                    f"only the bars of val and test were replaced"
                )


def _same_fitted(first: Fitted, second: Fitted, replaced: str) -> None:
    if set(first) != set(second):
        raise LeakFound(f"training fitted other things when only {replaced} were replaced")
    for name in first:
        one, two = np.asarray(first[name]), np.asarray(second[name])
        if not np.array_equal(one, two):
            raise LeakFound(
                f"{name!r} was fitted differently when only the bars of {replaced} were replaced: "
                f"training saw bars after train, or was not repeatable"
            )
