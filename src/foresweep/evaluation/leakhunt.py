"""The leak hunt: change one thing at a time, and say which of them a forecast depends on.

    target        each of the H bars after the origin alone: a forecast of a bar that moves with it
    return base   a forecast that stands on a close that is not the last one: of a later bar, of an
                  earlier one, or on the open
    scaler        bars after the origin that move a forecast a little: a mean or a spread that was
                  taken over a centred window, or over the whole series
    item order    items turned round, each asked alone, and the others' bars changed
    window order  origins turned round, each asked alone, and the others' bars changed
    training      bars of test, of val and of tune, before a short training: what is fitted must
                  not move

`leaks.check_no_leak` stops a sweep at the first sign; this looks on, and names what it found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import CLOSE, OPEN, VOLUME, IntArray, Panel
from foresweep.data.splits import PartName, Split
from foresweep.data.windows import TrainWindows, Windows
from foresweep.evaluation.leaks import Fitted, chosen_windows, falling_scorer, replace_after
from foresweep.models.base import DEFAULT_LEVELS, Array, ForecastModel, Predictor, Resources
from foresweep.models.checkpoint import CARD, CONFIG, WEIGHTS, read_checkpoint, read_weights

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
                values[row, VOLUME] = (values[row, VOLUME] + 1.0) * NUDGE
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
    """Repeat a short training of a resolved config with later bars replaced: those of test, then of
    val and test, then of tune too. What is fitted must not move; on CPU, bit for bit.

    Raises what the training raises.
    """

    def fitted(of: Panel, name: str) -> Fitted:
        made = model.train(
            TrainWindows(of, split, split.part("train")),
            config,
            resources or Resources(),
            seed=seed,
            horizon=split.horizon,
            score=falling_scorer(),
            report=lambda *_: None,
            out=out / name,
        )
        return everything_in(made.path)

    first = fitted(panel, "first")
    if moved := _moved_name(first, fitted(panel, "again")):
        says = f"{moved} comes out differently when nothing is changed: it cannot be hunted"
        return Hunt(("training",), (Finding("training", says),))
    borders: tuple[tuple[PartName, str], ...] = (
        ("val", "the test period"), ("tune", "the val period"), ("train", "the tune period")
    )  # fmt: skip
    for part, name in borders:
        changed = replace_after(panel, split.part(part).stop - 1)
        if moved := _moved_name(first, fitted(changed, f"without-{name.split()[1]}")):
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
