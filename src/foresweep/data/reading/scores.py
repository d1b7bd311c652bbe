"""Leaderboards, known by their columns and refused: one score a trial tells nothing of luck."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from foresweep.errors import DataError

LEADERBOARDS: tuple[tuple[str, frozenset[str], str], ...] = (
    (
        "AutoGluon's leaderboard", frozenset({"model", "score_val"}),
        "export every window's forecasts and truth from predictor.backtest_predictions() and "
        "predictor.backtest_targets()",
    ),
    (
        "a list of trades of backtesting.py", frozenset({"entrybar", "exitbar", "pnl"}),
        "give the account's value bar by bar, stats['_equity_curve']['Equity'].pct_change(), of "
        "every parameter set that was tried",
    ),
    (
        "the statistics of backtesting.py", frozenset({"equity final [$]", "sharpe ratio"}),
        "give stats['_equity_curve']['Equity'].pct_change() of every parameter set that was tried",
    ),
    (
        "the statistics of vectorbt", frozenset({"total return [%]", "sharpe ratio"}),
        "give pf.returns(), a column for every parameter set that was tried",
    ),
    (
        "freqtrade's comparison of strategies", frozenset({"key", "profit_total_pct", "trades"}),
        "give the export of the backtest itself (backtest-result-....zip) or the .fthypt of the "
        "hyperopt",
    ),
    (
        "Optuna's table of trials", frozenset({"number", "value", "state"}),
        "keep each trial's losses, or returns, with it",
    ),
    (
        "MLflow's table of runs", frozenset({"run_id", "experiment_id", "status"}),
        "log each run's losses, or returns, as a table",
    ),
)  # fmt: skip
"""What it is, small names that give it away (headings, or the first cells of its rows), and what
to do."""


def refuse_scores(path: Path, headings: Sequence[str], labels: Sequence[str]) -> None:
    """Raises DataError where this is a leaderboard or a summary that a known package writes, by
    its headings or, of a summary that lies on its side, by the first cells of its rows."""
    for names in (headings, labels):
        small = {str(name).strip().lower() for name in names}
        for what, telling, do in LEADERBOARDS:
            if telling <= small:
                raise DataError(
                    f"{path} is {what}: one score a trial does not tell skill from the luck of "
                    f"having tried many; {do}: see docs/verdict-elsewhere.md"
                )
