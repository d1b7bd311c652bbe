"""Where a forecast wins and loses: by item, origin, lead, calendar year and volatility regime.

Reads stored loss panels, so no question needs new training. Every mean stands with an interval by
block bootstrap: origins are drawn in blocks, with all their items, so that labels that overlap and
days that are bad for all are not counted as so many independent observations. Blocks are as short
as the overlap, so intervals are somewhat narrow: of 120 origins whose labels overlap threefold,
those of 95 % held the truth in 87 %. Each is of one group alone: of twenty, one misses by luck.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foresweep.errors import DataError, UnknownName, UsageError
from foresweep.evaluation.losses import LossPanel
from foresweep.metrics import Outcome, score
from foresweep.models.base import Array
from foresweep.stats.significance import block_counts, block_length

By: TypeAlias = Literal["item", "origin", "lead", "month", "year", "regime"]
BREAKDOWNS: tuple[By, ...] = ("item", "origin", "lead", "month", "year", "regime")
REGIMES = ("calm", "usual", "wild")
FEWEST_ORIGINS = 10
"""Origins below which a group has no interval: it would be far too narrow."""
Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Group:
    """A run's score on some windows. Bounds: 95 % unless asked otherwise; None: too few origins, or
    a metric that is no mean of losses."""

    key: str
    num_windows: int
    num_origins: int
    score: float  # in the metric's unit; NaN: undefined
    lower: float | None = None
    upper: float | None = None
    skill: float | None = None  # 1 - loss / benchmark's loss on the same windows
    skill_lower: float | None = None
    skill_upper: float | None = None


def breakdown(
    panel: LossPanel,
    metric: str,
    by: str,
    *,
    benchmark: LossPanel | None = None,
    level: float = 0.95,
    reps: int = 2000,
    seed: int = 0,
) -> tuple[Group, ...]:
    """The losses of a panel in groups, in natural order; groups without a window are left out.

    Raises UnknownName for another breakdown or a loss that is not in the panel, UsageError for a
    level that is none, DataError where the benchmark's losses are of other windows.
    """
    if not 0 < level < 1:
        raise UsageError(f"level {level} of an interval must lie between 0 and 1")
    if metric not in (known := panel.by_lead if by == "lead" else panel.losses):
        raise UnknownName("loss", metric, known, where="with losses on record")
    if benchmark is not None and benchmark.fingerprint != panel.fingerprint:
        raise DataError(
            "the benchmark's losses are of other windows than the run's; compare runs of one sweep"
        )
    ours = _cells(panel, metric, by)
    theirs = None if benchmark is None else _cells(benchmark, metric, by)
    block = block_length(panel.horizon, panel.stride)
    found = []
    for key, cells in groups(panel, by).items():
        group = _group(key, np.where(cells, ours, np.nan), theirs, block, level, reps, seed)
        found += [group] if group else []
    return tuple(found)


def overall(
    panel: LossPanel, metric: str, *, benchmark: LossPanel | None = None, level: float = 0.9
) -> Group | None:
    """All windows as one group, with bounds at `level`; None where no window has a loss. Raises as
    `breakdown`."""
    if metric not in panel.losses:
        raise UnknownName("loss", metric, panel.losses, where="with losses on record")
    if benchmark is not None and benchmark.fingerprint != panel.fingerprint:
        raise DataError("the benchmark's losses are of other windows than the run's")
    theirs = None if benchmark is None else benchmark.losses[metric][..., None]
    block = block_length(panel.horizon, panel.stride)
    return _group("all", panel.losses[metric][..., None], theirs, block, level, 2000, 0)


def coverage_groups(
    inside: Array, scale: Array, *, horizon: int, stride: int, level: float = 0.95
) -> tuple[Group, ...]:
    """The share of closes in a band, of all windows ("all") and by regime, with bounds: `inside`
    [O, I, H] is 1 in the band, 0 outside, NaN where there is no window; `scale` [O, I]."""
    block, names = block_length(horizon, stride), regimes(scale)
    masks = {"all": np.ones(len(names), dtype=bool)} | {name: names == name for name in REGIMES}
    found = []
    for key, rows in masks.items():
        cells = np.where(rows[:, None, None], inside, np.nan)
        group = _group(key, cells, None, block, level, 2000, 0)
        found += [group] if group else []
    return tuple(found)


def _cells(panel: LossPanel, metric: str, by: str) -> Array:
    """[O, I, H] losses by lead, else [O, I, 1]."""
    return panel.by_lead[metric] if by == "lead" else panel.losses[metric][..., None]


def groups(panel: LossPanel, by: str) -> dict[str, Mask]:
    """Name -> cells of a breakdown, each broadcast to [O, I, H] (leads) or [O, I, 1]. Raises
    UnknownName."""
    num_items = panel.scale.shape[1]
    if by == "item":
        every = np.arange(num_items)[None, :, None]
        return {name: every == k for k, name in enumerate(panel.items)}
    if by == "lead":
        leads = np.arange(panel.horizon)[None, None, :]
        return {str(k + 1): leads == k for k in range(panel.horizon)}
    if by not in BREAKDOWNS:
        raise UnknownName("breakdown", by, BREAKDOWNS)
    names = origin_names(panel.origins, panel.scale, by)
    return {
        str(name): (names == name)[:, None, None]
        for name in (REGIMES if by == "regime" else dict.fromkeys(names.tolist()))
    }


def regimes(scale: Array) -> NDArray[np.str_]:
    """[O] calm, usual or wild: the third of the origins in which volatility stands, from [O, I].

    Volatility of an origin is the mean over its items of their own, known at the origin, each over
    its median of all origins: so a wild item makes no wild day. Thirds are of this part's origins:
    a reading afterwards, no signal to trade.
    """
    valid = np.isfinite(scale)
    medians = np.array(
        [np.median(c[np.isfinite(c)]) if np.isfinite(c).any() else 1.0 for c in scale.T]
    )
    count = valid.sum(axis=1)
    total = np.where(valid, scale / medians, 0.0).sum(axis=1)
    relative = np.divide(total, count, out=np.full(len(scale), np.nan), where=count > 0)
    known = np.isfinite(relative)
    edges = np.quantile(relative[known], [1 / 3, 2 / 3]) if known.any() else np.zeros(2)
    third = np.searchsorted(edges, np.where(known, relative, edges[0]))
    found: NDArray[np.str_] = np.asarray(REGIMES)[third]
    return found


def origin_names(origins: NDArray[np.datetime64], scale: Array, by: str) -> NDArray[np.str_]:
    """[O] the group of each origin: its own name, its month, its year or its regime; `scale` is
    [O, I]."""
    if by == "regime":
        return regimes(scale)
    if by in ("month", "year"):
        times: NDArray[np.str_] = origins.astype(f"datetime64[{by[0].upper()}]").astype(str)
        return times
    days = [str(t.astype("datetime64[m]")).removesuffix("T00:00") for t in origins]
    return np.array(days)


def _group(
    key: str, ours: Array, theirs: Array | None, block: int, level: float, reps: int, seed: int
) -> Group | None:
    """One group, from losses [O, I, L] that are NaN outside it; None where it has no window. Every
    item weighs the same, however many windows it has, as in the score itself."""
    valid = np.isfinite(ours) if theirs is None else np.isfinite(ours) & np.isfinite(theirs)
    kept = valid.any(axis=(1, 2))
    if not kept.any():
        return None
    each = valid.sum(axis=(0, 2))
    fair = each.max() / np.maximum(each, 1)[:, None]  # [I, 1]; 1 where all have as many windows
    total = np.where(valid, fair * ours, 0.0).sum(axis=(1, 2))[kept]
    count = np.where(valid, fair, 0.0).sum(axis=(1, 2))[kept]
    num, num_windows = int(kept.sum()), int(valid.sum())
    loss = float(total.sum() / count.sum())
    enough = num >= max(FEWEST_ORIGINS, 2 * block)
    drawn = block_counts(num, block=block, reps=reps, seed=seed) if enough else None
    tails = [(1 - level) / 2, (1 + level) / 2]
    lower, upper = _bounds(drawn, total, count, tails)
    if theirs is None:
        return Group(key, num_windows, num, loss, lower, upper)
    beside = np.where(valid, fair * theirs, 0.0).sum(axis=(1, 2))[kept]
    skill = 1.0 - float(total.sum() / beside.sum()) if beside.sum() > 0 else None
    ratio = _bounds(drawn, total, beside, tails[::-1]) if skill is not None else (None, None)
    low, high = (None if r is None else 1.0 - r for r in ratio)
    return Group(key, num_windows, num, loss, lower, upper, skill, low, high)


def _bounds(
    drawn: Array | None, top: Array, bottom: Array, tails: list[float]
) -> tuple[float | None, float | None]:
    """Quantiles, over draws [reps, O], of the ratio of two sums over origins [O]."""
    if drawn is None:
        return None, None
    below = drawn @ bottom
    ratios = (drawn @ top)[below > 0] / below[below > 0]
    first, second = (float(x) for x in np.quantile(ratios, tails))
    return first, second


def score_groups(
    outcome: Outcome, naive: Outcome, names: NDArray[np.str_]
) -> Mapping[str, dict[str, float]]:
    """Group -> every metric that two outcomes decide, on the windows of that name [N], in order of
    first appearance: for metrics that have no loss per window, as coverage_80.

    `names` are, for instance, the item of each window, or `regimes(scale)[windows.origin]`.
    """
    if len(names) != len(outcome.labels):
        raise UsageError(f"{len(names)} group names for {len(outcome.labels)} windows")
    found = {}
    for name in dict.fromkeys(names.tolist()):
        index = np.flatnonzero(names == name)
        found[str(name)] = score(outcome.take(index), naive.take(index))
    return found


def score_leads(outcome: Outcome, naive: Outcome) -> Mapping[str, dict[str, float]]:
    """Lead -> every metric that two outcomes decide, on that lead alone."""
    num_leads = outcome.labels.shape[1]
    return {str(h + 1): score(_at_lead(outcome, h), _at_lead(naive, h)) for h in range(num_leads)}


def _at_lead(outcome: Outcome, lead: int) -> Outcome:
    at = slice(lead, lead + 1)
    return Outcome(
        outcome.labels[:, at],
        outcome.quantiles[:, at],
        outcome.levels,
        outcome.last_close,
        outcome.setting,
    )
