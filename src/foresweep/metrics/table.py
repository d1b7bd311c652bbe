"""Every metric in one table: direction, unit, formula, source; and what an objective names.

A metric with a loss per window is the mean of that loss, and tests can run on it; the others say
something of all windows together. Those without `compute` need more than the two outcomes: the
evaluation has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from foresweep.errors import UnknownName
from foresweep.metrics.scores import (
    Array,
    Outcome,
    calibration_error,
    coverage_80,
    crps_loss,
    directional_accuracy,
    mase_loss,
    mase_train_loss,
    pct_mae_loss,
    pinball_loss,
    price_mae_loss,
    r2,
    r2_vs_naive,
    rank_ic,
    rmse_pct,
    scaled_crps_loss,
    scaled_pct_mae_loss,
    scaled_pinball_loss,
    skill,
    smape_loss,
)

PARTS = ("train", "tune", "val", "test")


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table of metrics."""

    name: str
    unit: str
    higher_is_better: bool
    formula: str  # for people; y close, m median, q quantile, b last close
    source: str
    compute: Callable[[Outcome, Outcome], float] | None
    """(outcome, outcome of last-value) -> score; None: evaluation computes it from loss panels."""
    loss: Callable[[Outcome], Array] | None = None
    """[N, H] whose mean is the score, where there is one: what tests can run on."""
    needs_setting: bool = False
    """Does it ask for the outcome's setting (volatility, usual move, origin)?"""
    target: float | None = None
    """The value to be near, where neither high nor low is good."""

    def badness(self, value: float) -> float:
        """Lower is better, whatever the metric's direction; NaN stays NaN."""
        if self.target is not None:
            return abs(value - self.target)
        return -value if self.higher_is_better else value


def _mean_of(
    name: str,
    unit: str,
    formula: str,
    source: str,
    loss: Callable[[Outcome], Array],
    *,
    needs_setting: bool = False,
) -> Metric:
    """A metric that is the mean of a loss: lower is better."""
    return Metric(
        name,
        unit,
        False,
        formula,
        source,
        lambda o, _: o.mean(loss(o)),
        loss,
        needs_setting=needs_setting,
    )


def _skill_of(name: str, formula: str, source: str, loss: Callable[[Outcome], Array]) -> Metric:
    """A skill against last-value on the same windows."""

    def compute(outcome: Outcome, naive: Outcome) -> float:
        return skill(outcome.mean(loss(outcome)), naive.mean(loss(naive)))

    return Metric(name, "fraction", True, formula, source, compute)


_HYNDMAN = "Hyndman and Koehler 2006, Another look at measures of forecast accuracy"
_MURPHY = "Murphy 1988, Skill scores based on the mean square error"
_GNEITING = "Gneiting and Raftery 2007, Strictly proper scoring rules"
_GIACOMINI = "Giacomini and White 2006, Tests of conditional predictive ability"
_BERRISCH = "Berrisch and Ziel 2023, CRPS learning"
_RULE = "the trading rule below"
_ROWS = (
    _mean_of("pct_mae", "percent", "100 * mean |m - y| / b", _HYNDMAN, pct_mae_loss),
    Metric(
        "naive_pct_mae",
        "percent",
        False,
        "pct_mae of last-value: 100 * mean |b - y| / b",
        _HYNDMAN,
        lambda _, naive: naive.mean(pct_mae_loss(naive)),
    ),
    _skill_of("skill", "1 - pct_mae / naive_pct_mae", _MURPHY, pct_mae_loss),
    _mean_of("price_mae", "price", "mean |m - y|", _HYNDMAN, price_mae_loss),
    Metric(
        "rmse_pct",
        "percent",
        False,
        "100 * sqrt(mean ((m - y) / b)^2)",
        _HYNDMAN,
        lambda o, _: rmse_pct(o),
    ),
    _mean_of("smape", "percent", "200 * mean |m - y| / (|m| + |y|)", _HYNDMAN, smape_loss),
    _mean_of(
        "mase",
        "usual moves",
        "mean |m - y| / u; u: mean absolute move from close to close over the 252 bars (or fewer) "
        "up to the origin (ours: the published u is of train, see mase_train)",
        "after " + _HYNDMAN,
        mase_loss,
        needs_setting=True,
    ),
    _mean_of(
        "mase_train",
        "usual moves",
        "mean |m - y| / u; u: mean absolute move from close to close over all bars of train",
        _HYNDMAN,
        mase_train_loss,
        needs_setting=True,
    ),
    _mean_of(
        "scaled_pct_mae",
        "volatilities",
        "mean of pct_mae losses over s",
        _GIACOMINI,
        scaled_pct_mae_loss,
        needs_setting=True,
    ),
    Metric(
        "r2",
        "fraction",
        True,
        "1 - sum (m - y)^2 / b^2 over sum (y / b - mean(y / b))^2, pooled over windows and leads",
        "coefficient of determination of percentage moves",
        lambda o, _: r2(o),
    ),
    Metric(
        "r2_vs_naive",
        "fraction",
        True,
        "1 - sum ((m - y) / b)^2 / sum ((b - y) / b)^2",
        "Campbell and Thompson 2008, out-of-sample R2 with last-value as the benchmark",
        r2_vs_naive,
    ),
    _mean_of(
        "pinball",
        "percent",
        "100 * mean over leads 1..H and levels of max(level * (y - q), (level - 1) * (y - q)) / b",
        "Koenker and Bassett 1978, Regression quantiles; " + _GNEITING,
        pinball_loss,
    ),
    _skill_of(
        "pinball_skill",
        "1 - pinball / pinball of last-value with quantiles from recent moves",
        _GNEITING,
        pinball_loss,
    ),
    _mean_of(
        "crps",
        "percent",
        "2 * pinball: the continuous ranked probability score approximated by the levels that are "
        "forecast, nine by default",
        _BERRISCH + "; " + _GNEITING,
        crps_loss,
    ),
    _mean_of(
        "scaled_pinball",
        "volatilities",
        "mean of pinball losses over s",
        _GIACOMINI,
        scaled_pinball_loss,
        needs_setting=True,
    ),
    _mean_of(
        "scaled_crps",
        "volatilities",
        "2 * scaled_pinball, as crps",
        _GIACOMINI + "; " + _BERRISCH,
        scaled_crps_loss,
        needs_setting=True,
    ),
    Metric(
        "coverage_80",
        "fraction",
        True,
        "mean of q0.1 <= y <= q0.9; best is nearest to 0.8",
        "Christoffersen 1998, Evaluating interval forecasts",
        lambda o, _: coverage_80(o),
        target=0.8,
    ),
    Metric(
        "calibration_error",
        "fraction",
        False,
        "mean over levels of |share of y <= q - level|",
        "Dawid 1984, Statistical theory: the prequential approach; Kuleshov, Fenner and Ermon 2018",
        lambda o, _: calibration_error(o),
    ),
    Metric(
        "directional_accuracy",
        "fraction",
        True,
        "mean of sign(m - b) = sign(y - b) where y != b; m = b, to a millionth, counts 1/2",
        "Pesaran and Timmermann 1992, A simple test of predictive performance",
        lambda o, _: directional_accuracy(o),
    ),
    Metric(
        "rank_ic",
        "correlation",
        True,
        "mean over origins of Spearman's correlation across items of m / b and y / b at lead H; an "
        "origin whose items are all forecast alike counts 0, a forecast that never orders items is "
        "undefined",
        "Spearman 1904; Grinold and Kahn 2000, Active portfolio management",
        lambda o, _: rank_ic(o),
        needs_setting=True,
    ),
    Metric(
        "dm_pvalue_vs_naive",
        "probability",
        False,
        "one-sided Diebold-Mariano with the Harvey correction, on per-origin means of pct_mae "
        "losses over the volatility known at the origin",
        "Diebold and Mariano 1995; Harvey, Leybourne and Newbold 1997",
        None,
    ),
    Metric(
        "sharpe",
        "per year",
        True,
        "sqrt(A) * mean(x) / sd(x) of " + _RULE,
        "Sharpe 1994, The Sharpe ratio",
        None,
    ),
    Metric(
        "sharpe_se",
        "per year",
        False,
        "standard error of sharpe, robust to heteroskedasticity and autocorrelation (Bartlett)",
        "Lo 2002, The statistics of Sharpe ratios; Newey and West 1987",
        None,
    ),
    Metric(
        "max_drawdown",
        "percent",
        False,
        "100 * largest fall of the compounded net value of " + _RULE + " from its highest before",
        "Magdon-Ismail and Atiya 2004, Maximum drawdown",
        None,
    ),
    Metric(
        "turnover",
        "capital per year",
        False,
        "A * mean over bars of the sum over items of |change of position| in " + _RULE,
        "Grinold and Kahn 2000, Active portfolio management",
        None,
    ),
)

METRICS: Mapping[str, Metric] = MappingProxyType({m.name: m for m in _ROWS})
"""Every metric by its bare name."""

QUANTILE_METRICS = (
    "pinball",
    "pinball_skill",
    "crps",
    "scaled_pinball",
    "scaled_crps",
    "coverage_80",
    "calibration_error",
)
"""Metrics that look at more than the median."""

TRADING_METRICS = ("sharpe", "sharpe_se", "max_drawdown", "turnover")
"""Metrics of the trading rule: undefined for a forecast that never takes a position."""

PANEL_LOSSES = ("pct_mae", "pinball")
"""Metrics whose losses are kept for every run, per window and per lead."""


def get_metric(name: str) -> Metric:
    """The metric of this bare name. Raises UnknownName with the nearest."""
    if name not in METRICS:
        raise UnknownName("metric", name, METRICS)
    return METRICS[name]


def split_score(name: str) -> tuple[str, str]:
    """`val_pct_mae` -> (`val`, `pct_mae`). Raises UnknownName with the nearest full name."""
    part, _, metric = name.partition("_")
    if part not in PARTS or metric not in METRICS:
        raise UnknownName("score", name, [f"{p}_{m}" for p in PARTS for m in METRICS])
    return part, metric


def score(outcome: Outcome, naive: Outcome) -> dict[str, float]:
    """Every metric of the table that the two outcomes alone decide, by bare name; those that need
    a setting only where the outcome has one."""
    known = outcome.setting is not None
    return {
        name: m.compute(outcome, naive)
        for name, m in METRICS.items()
        if m.compute and (known or not m.needs_setting)
    }


# What a sweep is about: one metric or several, which of them ranks, and which is judged.


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


def ranking_score(objective: str | None) -> str:
    """The full name of the score that a sweep about this is ranked by; of no sweep (None), and of
    an objective that is no metric of ours, pct_mae on val."""
    ranked = UNLESS_SAID if objective is None else ranked_by(objective)
    return f"val_{ranked if ranked in METRICS else UNLESS_SAID}"


def judged_by(objective: str) -> str:
    """The metric whose losses per window every test runs on: the one that ranks where it has such
    losses, else pct_mae."""
    ranked = ranked_by(objective)
    return ranked if ranked in PANEL_LOSSES else UNLESS_SAID
