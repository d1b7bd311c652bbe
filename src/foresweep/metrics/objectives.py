"""What a sweep is about: one metric or several, which of them ranks, and which is judged."""

from __future__ import annotations

from foresweep.metrics.table import PANEL_LOSSES

UNLESS_SAID = "pct_mae"


def objectives_of(objective: str) -> tuple[str, ...]:
    """The bare names in `pct_mae,sharpe`, in order."""
    return tuple(name.strip() for name in objective.split(","))


def ranked_by(objective: str) -> str:
    """The metric that orders a leaderboard, picks finalists and their median seed: the objective;
    of several the first with losses per window on record, so that a lead can be tested, else the
    first."""
    asked = objectives_of(objective)
    return next((name for name in asked if name in PANEL_LOSSES), asked[0])


def judged_by(objective: str) -> str:
    """The metric whose losses per window every test runs on: the one that ranks where it has such
    losses, else pct_mae."""
    ranked = ranked_by(objective)
    return ranked if ranked in PANEL_LOSSES else UNLESS_SAID
