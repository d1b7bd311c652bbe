"""What stands beside the gates: are cones as wide as they say, does trading pay its costs.

No gate asks it. Read off the candidate's stored forecasts of val, on the sweep's own panel.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foresweep.data.windows import Windows
from foresweep.errors import ForesweepError
from foresweep.evaluation.backtest import naive_part
from foresweep.evaluation.breakdown import coverage_groups
from foresweep.evaluation.trading import COST_BPS, trade
from foresweep.metrics import Outcome
from foresweep.records import Cones, Coverage, DeflatedSharpe, Economy, Run
from foresweep.selection.groups import reopened
from foresweep.stats.overfitting import deflated_sharpe, probabilistic_sharpe
from foresweep.stats.significance import Array
from foresweep.tracker.tracker import Tracker

BAND = (0.1, 0.9)
NOMINAL = 0.8
ONE_SIDED = 1.6448536269514722
"""Of a normal, 95 %."""
NEVER = "undefined: the rule never trades on its forecasts"
CONSTANT = "undefined: its trading returns are too few or never vary"
SPREAD = "of too few trials a Sharpe ratio is known to say what luck would show"


def beside_gates(tracker: Tracker, run: Run) -> tuple[Cones, Economy]:
    """Coverage and economics of a run on val; where its forecasts or the panel are not there any
    more, the reason in their place."""
    try:
        windows, outcome = reopened(tracker, run, "val", Path(str(run.forecasts_path)).parent)
    except ForesweepError as error:
        return Cones(why_not=str(error)), Economy(why_not=str(error))
    return cones_of(windows, outcome), economy_of(windows, outcome)


def cones_of(windows: Windows, outcome: Outcome) -> Cones:
    """The share of closes in the 80 % band, in all and by volatility regime, with 95 % intervals
    from a block bootstrap of origins (`evaluation.breakdown`).

    Too narrow is what an interval that ends below 80 % shows, of all closes or of a regime's.
    """
    if not all(level in outcome.levels for level in BAND):
        return Cones(why_not="its levels do not hold 0.1 and 0.9")
    low, high = (outcome.quantiles[:, :, outcome.levels.index(level)] for level in BAND)
    inside = ((outcome.labels >= low) & (outcome.labels <= high)).astype(np.float64)
    found = coverage_groups(
        windows.as_panel(inside),
        windows.as_panel(outcome.known.scale),
        horizon=windows.horizon,
        stride=windows.part.stride,
    )
    groups = tuple(
        Coverage(name=g.key, share=g.score, lower=g.lower, upper=g.upper, num_origins=g.num_origins)
        for g in found
    )
    narrow = tuple(g.name for g in groups if g.upper is not None and g.upper < NOMINAL)
    return Cones(groups=groups, too_narrow=narrow)


def economy_of(windows: Windows, outcome: Outcome, *, cost_bps: float = COST_BPS) -> Economy:
    """The stated trading rule after costs: its Sharpe ratio a year in excess of always-long, a
    one-sided 95 % bound from its HAC error, the same at twice the costs, and the cost at which its
    mean excess would be 0. Capacity is not claimed: prices do not move for it."""
    market = naive_part(windows).market
    free, stated, twice = (
        trade(outcome, market, cost_bps=c) for c in (0.0, cost_bps, 2 * cost_bps)
    )
    if not stated.traded.any():
        return Economy(cost_bps=cost_bps, why_not=NEVER)
    # the mean excess falls in a straight line as costs rise
    at_none, at_stated = float(free.excess.mean()), float(stated.excess.mean())
    slope = (at_none - at_stated) / cost_bps
    even = None if slope <= 0 else max(at_none / slope, 0.0)

    def bound(scores: dict[str, float]) -> float | None:
        value = scores["sharpe"] - ONE_SIDED * scores["sharpe_se"]
        return float(value) if np.isfinite(value) else None

    def known(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return Economy(
        cost_bps=cost_bps,
        sharpe=known(stated.scores["sharpe"]),
        sharpe_lower=bound(stated.scores),
        sharpe_twice=known(twice.scores["sharpe"]),
        sharpe_twice_lower=bound(twice.scores),
        break_even_bps=even,
        turnover=known(stated.scores["turnover"]),
    )


def deflated(
    returns: Array, ratios: Array, *, num_trials: int, bars_per_year: float
) -> DeflatedSharpe:
    """The Sharpe ratio of returns [T] a year, and how much of it the luck of `num_trials` may be:
    how far ratios without skill spread is read off those known [K], per bar."""
    plain = probabilistic_sharpe(returns)
    if plain is None:
        return DeflatedSharpe(num_trials=num_trials, why_not=CONSTANT)
    year = float(np.sqrt(bars_per_year))
    enough = num_trials == 1 or len(ratios) > 1
    above = deflated_sharpe(returns, ratios, num_effective=float(num_trials))
    assert above is not None
    return DeflatedSharpe(
        num_trials=num_trials,
        num_bars=plain.num,
        annual=plain.ratio * year,
        probabilistic=plain.probability,
        luck=above.threshold * year if enough else None,
        deflated=above.probability if enough else None,
        why_not=None if enough else SPREAD,
    )
