"""What a forecast is worth: pure functions of [N, H] and [N, H, Q], and one table of them."""

from foresweep.metrics.scores import (
    Outcome,
    Setting,
    item_mean,
    panel_mean,
    pinball_loss,
    skill,
)
from foresweep.metrics.table import (
    METRICS,
    PANEL_LOSSES,
    PARTS,
    QUANTILE_METRICS,
    TRADING_METRICS,
    Metric,
    get_metric,
    judged_by,
    objectives_of,
    ranked_by,
    ranking_score,
    score,
    split_score,
)

__all__ = [
    "METRICS",
    "PANEL_LOSSES",
    "PARTS",
    "QUANTILE_METRICS",
    "TRADING_METRICS",
    "Metric",
    "Outcome",
    "Setting",
    "get_metric",
    "item_mean",
    "judged_by",
    "objectives_of",
    "panel_mean",
    "pinball_loss",
    "ranked_by",
    "ranking_score",
    "score",
    "skill",
    "split_score",
]
