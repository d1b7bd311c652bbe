"""Losses [N, H], one a cell, whose mean over windows and leads is the metric of the same name.

Only these can be tested: a test compares the losses of two forecasts window by window.
"""

from __future__ import annotations

import numpy as np

from foresweep.metrics.outcome import Array, Outcome


def pct_mae_loss(outcome: Outcome) -> Array:
    """[N, H] absolute error of the median, percent of the last close."""
    return outcome.pct_errors


def price_mae_loss(outcome: Outcome) -> Array:
    """[N, H] absolute error of the median, in price units (adjusted where prices are)."""
    return outcome.errors


def smape_loss(outcome: Outcome) -> Array:
    """[N, H] absolute error of the median, percent of the mean of forecast and actual size."""
    size = np.abs(outcome.median)
    size += np.abs(outcome.labels)
    return 200.0 * np.divide(outcome.errors, size, out=size)


def mase_loss(outcome: Outcome) -> Array:
    """[N, H] absolute error of the median over the usual move from bar to bar. Raises UsageError
    without a setting."""
    return price_mae_loss(outcome) / outcome.known.usual_move[:, None]


def pinball_loss(outcome: Outcome) -> Array:
    """[N, H] pinball loss of the return to each lead, percent of the last close, mean of levels."""
    return outcome.pinballs


def crps_loss(outcome: Outcome) -> Array:
    """[N, H] continuous ranked probability score of the return to each lead, percent of the last
    close, approximated by twice the mean pinball loss of the forecast's levels.

    The integral over all levels is taken as the mean over the few that are forecast: with 0.1 to
    0.9 the tails beyond count for nothing.
    """
    return 2.0 * outcome.pinballs


def scaled_pct_mae_loss(outcome: Outcome) -> Array:
    """[N, H] `pct_mae_loss` over the volatility known at the origin. Raises UsageError without a
    setting."""
    return pct_mae_loss(outcome) / outcome.known.scale[:, None]


def scaled_pinball_loss(outcome: Outcome) -> Array:
    """[N, H] `pinball_loss` over the volatility known at the origin. Raises UsageError without a
    setting."""
    return pinball_loss(outcome) / outcome.known.scale[:, None]


def scaled_crps_loss(outcome: Outcome) -> Array:
    """[N, H] `crps_loss` over the volatility known at the origin. Raises UsageError without a
    setting."""
    return crps_loss(outcome) / outcome.known.scale[:, None]
