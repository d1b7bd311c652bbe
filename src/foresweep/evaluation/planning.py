"""Before any training: which skill a panel could prove, from its own history before test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foresweep.data.panel import Panel
from foresweep.data.splits import Part, PartName, Split
from foresweep.data.windows import Windows
from foresweep.errors import NotEnoughData
from foresweep.evaluation.backtest import forecast_part
from foresweep.evaluation.losses import volatility_scale
from foresweep.evaluation.yardstick import ENOUGH_ORIGINS, choose_benchmark
from foresweep.models.base import Array, Facts
from foresweep.models.registry import get_model
from foresweep.stats.power import Curve, Design, chance, scaled_design, signal_curve, smallest_skill

POINT_BASELINES = ("last-value", "drift", "seasonal-naive")
"""Baselines with medians of their own; random-walk has that of last-value."""
MORE = ((1, 1), (2, 1), (4, 1), (1, 2), (1, 4), (2, 2))
"""(times the items, times the years) that the table tells of."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What one design could prove. Skills are of pct_mae, as shares (0.02 = 2 %)."""

    items: int
    years: float  # of the whole panel
    val_origins: float  # effective
    test_origins: float  # effective
    enough: bool  # 20 effective origins or more in val and test
    smallest_skill: float | None  # if the signal's noise is each item's own; None: none can be
    smallest_skill_shared: float | None  # if it is as common to all items as market moves are
    chance: float | None  # of proving the skill asked about
    chance_shared: float | None


@dataclass(frozen=True, slots=True)
class PowerPlan:
    """What this panel could prove, and what more items or years would buy."""

    benchmark: str
    benchmark_scores: dict[str, float]  # tune pct_mae of each baseline
    horizon: int
    trials: int
    level: float
    power: float  # chance at which a skill counts as provable
    skill: float | None  # asked about
    history_origins: int  # without shared labels, before test
    outlooks: tuple[Outlook, ...]  # the panel as it is first


def plan_power(
    panel: Panel,
    split: Split,
    *,
    trials: int,
    skill: float | None = None,
    level: float = 0.05,
    power: float = 0.8,
    seed: int = 0,
) -> PowerPlan:
    """Smallest skill in pct_mae that a verdict over `trials` trials would promote with chance
    `power`. The benchmark is the best baseline on tune; test's prices are not read.

    Raises NotEnoughData where the history before test holds fewer than 20 origins.
    """
    scores = {name: _tune_score(panel, split, name) for name in POINT_BASELINES}
    benchmark = choose_benchmark(scores)
    assert benchmark is not None
    curves = plan_curves(panel, split, benchmark, seed=seed)
    parts = (split.part("val"), split.part("test"))
    val, test = (part.effective_origins(split.horizon) for part in parts)
    here = Design(len(split.items), val, test, trials, level)
    years = _years(panel)
    outlooks = tuple(
        _outlook(curves, scaled_design(here, items=i, years=y), y * years, skill, power)
        for i, y in MORE
    )
    return PowerPlan(
        benchmark,
        scores,
        split.horizon,
        trials,
        level,
        power,
        skill,
        curves[0].num_origins,
        outlooks,
    )


def plan_curves(
    panel: Panel, split: Split, benchmark: str, *, seed: int = 0
) -> tuple[Curve, Curve]:
    """Trials of rising skill on this history: errors of their own for each item, and errors shared
    by all items. Raises NotEnoughData."""
    errors, scale = _errors(history(panel, split), benchmark)
    own, shared = (signal_curve(errors, scale, shared=s, seed=seed) for s in (False, True))
    return own, shared


def history(panel: Panel, split: Split) -> Windows:
    """Every H-th origin before test, with all labels before it. Raises NotEnoughData."""
    bars, horizon = panel.eligible, split.horizon
    stop = split.part("val").stop
    origins = bars[bars < stop][split.min_context - 1 : -horizon : horizon]
    name: PartName = "train"
    part = Part(name, int(bars[0]), stop, len(origins) * horizon, horizon, origins)
    windows = Windows(panel, split, part)
    if len(np.unique(windows.origin)) < ENOUGH_ORIGINS:
        raise NotEnoughData(
            f"horizon {horizon} leaves {len(np.unique(windows.origin))} origins before test that "
            f"do not share labels; power needs {ENOUGH_ORIGINS}: use a shorter horizon or more "
            f"history"
        )
    return windows


def _errors(windows: Windows, benchmark: str) -> tuple[Array, Array]:
    """Errors [O, I, H] of a baseline and the scale [O, I], percent."""
    medians = _medians(windows, benchmark)
    errors = 100.0 * (windows.labels - medians) / windows.last_close[:, None]
    return windows.as_panel(errors), windows.as_panel(volatility_scale(windows))


def _tune_score(panel: Panel, split: Split, name: str) -> float:
    windows = Windows(panel, split, split.part("tune"))
    errors = np.abs(windows.labels - _medians(windows, name)) / windows.last_close[:, None]
    return float(100.0 * errors.mean())


def _medians(windows: Windows, name: str) -> Array:
    """[N, H] median forecasts of a baseline, as a sweep resolves it."""
    family = get_model(name)
    facts = Facts(windows.horizon, windows.split.max_context, train_bars=0)
    predictor = family.predictor(family.resolve(family.Config(), facts))  # type: ignore[attr-defined]
    medians: Array = forecast_part(predictor, windows, levels=(0.5,)).values[:, :, 0]
    return medians


def _outlook(
    curves: tuple[Curve, ...], design: Design, years: float, skill: float | None, power: float
) -> Outlook:
    enough = min(design.val_origins, design.test_origins) >= ENOUGH_ORIGINS
    smallest: list[float | None] = [None, None]
    chances = [None if skill is None else 0.0 for _ in curves]
    if enough:
        smallest = [_finite(smallest_skill(curve, design, power)) for curve in curves]
        chances = [None if skill is None else chance(curve, skill, design) for curve in curves]
    return Outlook(
        items=round(design.items),
        years=years,
        val_origins=design.val_origins,
        test_origins=design.test_origins,
        enough=enough,
        smallest_skill=smallest[0],
        smallest_skill_shared=smallest[1],
        chance=chances[0],
        chance_shared=chances[1],
    )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _years(panel: Panel) -> float:
    span = panel.timeline[-1] - panel.timeline[0]
    return float(span / np.timedelta64(1, "D")) / 365.25
