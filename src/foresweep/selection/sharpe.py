"""The trading rule's Sharpe ratio of a candidate, on val, after the luck of many trials.

Shown and never asked: it says what a stated rule would have earned, not how well prices are
forecast. Of val alone: the sealed test tells of losses only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foresweep.records import DeflatedSharpe, Run
from foresweep.selection.sealed import open_returns
from foresweep.stats.overfitting import deflated_sharpe, probabilistic_sharpe

PART = "val"
SHARPE = f"{PART}_sharpe"
NEVER, GONE, CONSTANT, SPREAD = (
    "undefined: the rule never trades on its forecasts",
    "not known: its trading returns are not on this disk",
    "undefined: its trading returns are too few or never vary",
    "of too few trials a Sharpe ratio is known to say what luck would show",
)


def sharpe_of(candidate: Run, trials: Sequence[Run], num_trials: int) -> DeflatedSharpe:
    """Of `candidate`, deflated by all `num_trials` of its lineage; how far Sharpe ratios spread is
    read off the `trials` beside it. Raises CheckpointError for returns of other windows, DataError.
    """
    returns = open_returns(candidate, PART)
    if returns is None:
        return DeflatedSharpe(num_trials=num_trials, why_not=GONE)
    if not returns.trades:
        return DeflatedSharpe(num_trials=num_trials, why_not=NEVER)
    plain = probabilistic_sharpe(returns.excess)
    if plain is None:
        return DeflatedSharpe(num_trials=num_trials, why_not=CONSTANT)
    year = float(np.sqrt(returns.bars_per_year))
    ratios = _per_bar(trials, year)
    enough = num_trials == 1 or len(ratios) > 1
    found = deflated_sharpe(returns.excess, ratios, num_effective=float(num_trials))
    assert found is not None
    return DeflatedSharpe(
        num_trials=num_trials,
        num_bars=plain.num,
        annual=plain.ratio * year,
        probabilistic=plain.probability,
        luck=found.threshold * year if enough else None,
        deflated=found.probability if enough else None,
        why_not=None if enough else SPREAD,
    )


def _per_bar(trials: Sequence[Run], year: float) -> np.ndarray:
    """Sharpe ratios per bar of the trials whose rule trades."""
    known = (run.score(SHARPE) for run in trials)
    return np.array([ratio for ratio in known if ratio is not None]) / year
