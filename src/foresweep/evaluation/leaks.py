"""Does anything see the future? Change it, look what moves, and hunt for what it depends on.

No reading of code can show that a forecast knows only its context; replacing every later bar can.
A scaler fitted on the whole series, a context one bar too long, windows of a batch that attend to
each other, a kept step chosen on val: each moves something here that must stand still.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import CLOSE, OPEN, VOLUME, Bars, IntArray, Panel
from foresweep.data.splits import PartName, Split
from foresweep.data.windows import Context, TrainWindows, Windows
from foresweep.errors import LeakFound
from foresweep.evaluation.backtest import SCORED_PARTS, calibrate, make_scorer
from foresweep.models.base import (
    DEFAULT_LEVELS,
    Array,
    ForecastModel,
    Predictor,
    Resources,
    Scored,
    Scorer,
    TrainingJob,
)
from foresweep.models.calibration import FILE as CALIBRATION
from foresweep.models.calibration import store_calibration, wants_calibration
from foresweep.models.checkpoint import CARD, CONFIG, WEIGHTS, read_checkpoint, read_weights

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
    values[rows, VOLUME:] = (values[rows, VOLUME:] + 1.0) * factor[1][:, None]
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


# The leak hunt: change one thing at a time, and say which of them a forecast depends on.
#
#     target        each of the H bars after the origin alone: a forecast of a bar that moves with
#                   it
#     return base   a forecast that stands on a close that is not the last one: of a later bar, of
#                   an earlier one, or on the open
#     scaler        bars after the origin that move a forecast a little: a mean or a spread that was
#                   taken over a centred window, or over the whole series
#     item order    items turned round, each asked alone, and the others' bars changed
#     window order  origins turned round, each asked alone, and the others' bars changed
#     training      bars of test, of val and of tune, before a short training and a calibration:
#                   what is fitted must not move
#
# `check_no_leak` stops a sweep at the first sign; this looks on, and names what it found.


Probe: TypeAlias = Literal[
    "target", "return base", "scaler", "item order", "window order", "training"
]
PROBES: tuple[Probe, ...] = (
    "target", "return base", "scaler", "item order", "window order", "training"
)  # fmt: skip
Mask: TypeAlias = NDArray[np.bool_]
NUDGE = 1.1
"""Factor of a changed bar: large enough to be seen through single precision and draws."""
FOLLOWS = 0.5
"""From this share of the nudge on, a forecast stands on a bar; below, it only takes note of it."""
MOST_LEADS = 8
"""Leads looked at one by one, spread over the horizon."""
BARS_BACK = 5
ROUNDING = 1e-5
"""Relative difference allowed between batches."""
PART: PartName = "val"


@dataclass(frozen=True, slots=True)
class Finding:
    """A dependence that should not be there."""

    probe: Probe
    says: str


@dataclass(frozen=True, slots=True)
class Hunt:
    """What was looked for and found."""

    looked: tuple[Probe, ...]
    findings: tuple[Finding, ...]

    def of(self, probe: Probe) -> tuple[str, ...]:
        return tuple(f.says for f in self.findings if f.probe == probe)


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """The whole way from a panel's bars to the forecasts of some windows of val."""

    predictor: Predictor
    panel: Panel
    split: Split
    seed: int

    @property
    def windows(self) -> Windows:
        return Windows(self.panel, self.split, self.split.part(PART))

    def ask(self, panel: Panel, select: IntArray, spoilt: Mask | None = None) -> Array:
        """[n, H, Q] of the windows at `select`, all in one call, in that order; those `spoilt` [n]
        are shown another last bar."""
        windows = Windows(panel, self.split, self.split.part(PART))
        length = min(self.predictor.context_length, self.split.max_context)
        context = windows.context(length, select)
        if spoilt is not None:
            values = context.values.copy()
            values[spoilt, -1] *= NUDGE
            context = dataclasses.replace(context, values=values)
        made = self.predictor.predict(
            context,
            horizon=self.split.horizon,
            levels=DEFAULT_LEVELS,
            seed=self.seed,
        )
        return made.checked(len(select), self.split.horizon).values

    def nudged(self, select: IntArray, ahead: int, column: int | None = None) -> Panel:
        """The panel with the bar `ahead` bars after each window's origin times NUDGE, or one
        column of it."""
        windows = self.windows
        bars = list(self.panel.bars)
        for item, row in zip(windows.item[select], windows.row[select] + ahead, strict=True):
            values = bars[item].values.copy()
            values[row, slice(0, VOLUME) if column is None else column] *= NUDGE
            if column is None:
                values[row, VOLUME:] = (values[row, VOLUME:] + 1.0) * NUDGE
            values.setflags(write=False)
            bars[item] = dataclasses.replace(bars[item], values=values)
        return dataclasses.replace(self.panel, bars=tuple(bars))


def hunt(predictor: Predictor, panel: Panel, split: Split, *, seed: int = 0) -> Hunt:
    """Look for every dependence of a predictor's forecasts on what it must not know.

    Nothing is scored: only forecasts of a few windows of val are compared with each other, each
    origin asked by itself unless their order is the question. Raises ForecastError.
    """
    way = Way(predictor, panel, split, seed)
    select = chosen_windows(way.windows)
    groups = [
        select[way.windows.origin[select] == k] for k in np.unique(way.windows.origin[select])
    ]
    found = _ahead(way, groups)
    if not {"target", "return base"} & {f.probe for f in found}:  # it stands on a later bar
        found += _behind(way, groups)
    found += _orders(way, select, groups)
    return Hunt(PROBES[:-1], tuple(found))


def _ahead(way: Way, groups: Sequence[IntArray]) -> list[Finding]:
    """What the bars after the origin do, one by one, and all that come after the labels."""
    horizon = way.split.horizon
    leads = np.unique(np.linspace(1, horizon, min(horizon, MOST_LEADS)).round().astype(int))
    before = [way.ask(way.panel, g) for g in groups]
    moved = np.stack(
        [_moved(before, [way.ask(way.nudged(g, int(k)), g) for g in groups]) for k in leads]
    )  # [K, H] share of the nudge, of the forecast to lead h when bar k is changed
    stops = [int(way.windows.label_span[1][g].max()) for g in groups]
    later = [replace_after(way.panel, stop) for stop in stops]
    beyond = _moved(before, [way.ask(p, g) for p, g in zip(later, groups, strict=True)])
    return _named(leads, moved, beyond)


def _moved(before: Sequence[Array], after: Sequence[Array]) -> Array:
    """[H] largest move of a quantile, in nudges."""
    pairs = zip(before, after, strict=True)
    moves = np.concatenate([np.abs(np.log(b / a)) for a, b in pairs])
    largest: Array = moves.max(axis=(0, 2)) / np.log(NUDGE)
    return largest


def _named(leads: IntArray, moved: Array, beyond: Array) -> list[Finding]:
    """The findings that the moves speak of."""
    strong = moved >= FOLLOWS
    found = [
        Finding(
            "target",
            f"the forecast of lead {k} moves with its own target, bar {k} after the origin "
            f"({_share(moved[n, k - 1])} of the change)",
        )
        for n, k in enumerate(leads)
        if strong[n, k - 1]
    ][:1]
    faint = [n for n in range(len(leads)) if moved[n].any() and not strong[n].any()]
    where = [
        f"bar {leads[n]} after the origin ({_share(moved[n].max())} of its change)"
        for n in faint[:1]
    ]
    where += ["bars after the labels"] if beyond.any() else []
    if where:
        says = (
            f"forecasts take note of {' and of '.join(where)} without following: a mean or a "
            f"spread was taken over bars on both sides of the origin"
        )
        found.append(Finding("scaler", says))
    return found if "target" in [f.probe for f in found] else [*_later_base(leads, strong), *found]


def _later_base(leads: IntArray, strong: Mask) -> list[Finding]:
    for n, k in enumerate(leads):
        followed = np.flatnonzero(strong[n]) + 1
        if len(followed):
            return [
                Finding(
                    "return base",
                    f"the forecast of lead {followed[0]} stands on bar {k} after the origin, not "
                    f"on the last close: its return is added to a price that is not known yet",
                )
            ]
    return []


def _behind(way: Way, groups: Sequence[IntArray]) -> list[Finding]:
    """Which known price the median of lead 1 stands on."""
    at = DEFAULT_LEVELS.index(0.5)
    before = [way.ask(way.panel, g)[:, 0, at] for g in groups]

    def share(ahead: int, column: int) -> float:
        after = [way.ask(way.nudged(g, ahead, column), g)[:, 0, at] for g in groups]
        moves = np.concatenate([np.log(b / a) for a, b in zip(before, after, strict=True)])
        return float(np.median(moves) / np.log(NUDGE))

    last = share(0, CLOSE)
    if last >= FOLLOWS:
        return []
    others = {f"the close {k} bars before": share(-k, CLOSE) for k in range(1, BARS_BACK + 1)}
    others["the open of the last bar"] = share(0, OPEN)
    name = max(others, key=lambda k: others[k])
    instead = f"; they stand on {name} ({_share(others[name])})" if others[name] >= FOLLOWS else ""
    return [
        Finding("return base", f"medians follow the last close by only {_share(last)} of its "
                f"change{instead}")
    ]  # fmt: skip


def _orders(way: Way, select: IntArray, groups: Sequence[IntArray]) -> list[Finding]:
    """Do the windows of one call see each other, or their own place?

    Order is compared up to rounding; what others hold, in calls of one shape, bit for bit."""
    found: list[Finding] = []
    first = groups[0]
    together = way.ask(way.panel, first)
    alone = np.concatenate([way.ask(way.panel, first[n : n + 1]) for n in range(len(first))])
    others = np.arange(len(first)) >= len(first) // 2
    beside = way.ask(way.panel, first, others)
    if _differ(together, way.ask(way.panel, first[::-1])[::-1]):
        found.append(Finding("item order", "forecasts change when items are turned round"))
    elif _differ(together, alone) or not np.array_equal(together[~others], beside[~others]):
        says = "forecasts change when the other items are left out or changed"
        found.append(Finding("item order", says))
    whole = way.ask(way.panel, select)
    others = ~np.isin(select, first)
    beside = way.ask(way.panel, select, others)
    by_origin = np.empty_like(whole)
    for group in groups:
        by_origin[np.isin(select, group)] = way.ask(way.panel, group)
    if _differ(whole, way.ask(way.panel, select[::-1])[::-1]):
        found.append(Finding("window order", "forecasts change when origins are turned round"))
    elif _differ(whole, by_origin) or not np.array_equal(whole[~others], beside[~others]):
        says = "forecasts change when other origins in the same call are left out or changed"
        found.append(Finding("window order", says))
    return found


def _differ(one: Array, two: Array) -> bool:
    return not np.allclose(one, two, rtol=ROUNDING, atol=0)


def _share(value: float) -> str:
    return f"{100 * value:.2g} %"


def hunt_training(
    model: ForecastModel,
    config: Any,
    panel: Panel,
    split: Split,
    *,
    out: Path,
    seed: int = 0,
    resources: Resources | None = None,
) -> Hunt:
    """Repeat a short training of a resolved config, and its calibration on a few windows of tune,
    with later bars replaced: those of test, then of val and test, then of tune too. What is fitted
    must not move (but for the calibration, with tune); on CPU, bit for bit.

    Raises what the training raises.
    """
    used = resources or Resources()

    def fitted(of: Panel, name: str) -> Fitted:
        job = TrainingJob(
            TrainWindows(of, split, split.part("train")),
            config,
            used,
            seed=seed,
            horizon=split.horizon,
            score=falling_scorer(),
            out=out / name,
        )
        checkpoint = read_checkpoint(model.train(job).path)
        if wants_calibration(config):
            raw = model.load(checkpoint, used)
            tuned = calibrate(raw, config, of, thinned(of, split), seed=seed)
            checkpoint = store_calibration(checkpoint, tuned.calibration)
        return everything_in(checkpoint.path)

    first = fitted(panel, "first")
    if moved := _moved_name(first, fitted(panel, "again")):
        says = f"{moved} comes out differently when nothing is changed: it cannot be hunted"
        return Hunt(("training",), (Finding("training", says),))
    borders: tuple[tuple[PartName, str], ...] = (
        ("val", "the test period"), ("tune", "the val period"), ("train", "the tune period")
    )  # fmt: skip
    for part, name in borders:
        changed = replace_after(panel, split.part(part).stop - 1)
        again = dict(fitted(changed, f"without-{name.split()[1]}"))
        if part == "train" and CALIBRATION in again:
            again[CALIBRATION] = first[CALIBRATION]  # tune is what it is to be fitted on
        if moved := _moved_name(first, again):
            says = f"{moved} moves when the bars of {name} are replaced: it was trained on them"
            return Hunt(("training",), (Finding("training", says),))
    return Hunt(("training",), ())


def everything_in(folder: Path) -> Fitted:
    """Every number that a training left in a checkpoint: weights by name, other files as bytes."""
    checkpoint = read_checkpoint(folder)
    found: dict[str, Any] = dict(read_weights(checkpoint))
    for name in set(checkpoint.card["files"]) - {WEIGHTS, CONFIG, CARD}:
        found[name] = np.frombuffer((folder / name).read_bytes(), dtype=np.uint8)
    return found


def _moved_name(one: Mapping[str, Any], two: Mapping[str, Any]) -> str | None:
    """The first fitted thing that is not the same in both."""
    for name in sorted(set(one) | set(two)):
        if name not in one or name not in two or not np.array_equal(one[name], two[name]):
            return repr(name)
    return None
