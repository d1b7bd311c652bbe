"""What stands beside the gates: coverage by regime, and the trading rule after its costs."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from foresweep.cli.tables import cones_in_words, economy_in_words
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import Windows
from foresweep.evaluation.backtest import naive_part
from foresweep.evaluation.breakdown import regimes
from foresweep.evaluation.trading import trade
from foresweep.metrics import Outcome
from foresweep.records import Economy
from foresweep.selection.verdict.beside import NEVER, cones_of, economy_of
from panels import make_panel

LEVELS = tuple(k / 10 for k in range(1, 10))


@pytest.fixture(scope="module")
def windows() -> Windows:
    panel = make_panel(6, 700, seed=2)
    split = make_split(panel, Cut(2, stride=1, max_context=64))
    return Windows(panel, split, split.part("val"))


def forecast(windows: Windows, width: float, drift: float = 0.0) -> Outcome:
    """Cones `width` times as wide as moves are here, around the last close and a drift."""
    moves = np.log(windows.labels / windows.last_close[:, None])
    z = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
    spread = np.exp(drift + width * moves.std() * z) * np.ones((*windows.labels.shape, 1))
    quantiles = windows.last_close[:, None, None] * spread
    setting = naive_part(windows).setting
    return Outcome(windows.labels, quantiles, LEVELS, windows.last_close, setting)


def test_shares_are_counted_in_all_and_by_regime(windows: Windows) -> None:
    outcome = forecast(windows, 1.0)
    found = cones_of(windows, outcome)
    inside = (outcome.labels >= outcome.quantiles[..., 0]) & (
        outcome.labels <= outcome.quantiles[..., 8]
    )
    names = regimes(windows.as_panel(outcome.known.scale))[windows.origin]
    assert [g.name for g in found.groups] == ["all", "calm", "usual", "wild"]
    for group in found.groups:
        rows = slice(None) if group.name == "all" else names == group.name
        assert group.share == pytest.approx(inside[rows].mean())
        assert group.lower is not None
        assert group.upper is not None
        assert group.lower <= group.share <= group.upper


def test_only_cones_that_are_surely_narrow_are_called_so(windows: Windows) -> None:
    narrow, wide = (cones_of(windows, forecast(windows, w)) for w in (0.5, 2.0))
    assert narrow.too_narrow == ("all", "calm", "usual", "wild")
    assert cones_in_words(narrow).startswith("TOO NARROW: its 80 % band holds ")
    assert wide.too_narrow == ()
    assert cones_in_words(wide).startswith("Its 80 % band holds ")
    in_storms = replace(narrow, too_narrow=("wild",))
    assert cones_in_words(in_storms).startswith("TOO NARROW in wild days: ")


def test_at_the_break_even_cost_the_mean_excess_is_nothing(windows: Windows) -> None:
    knows = forecast(windows, 1.0)
    rng = np.random.default_rng(0)
    hint = 0.2 * np.log(windows.labels[:, -1:] / windows.last_close[:, None])
    hint = hint + 0.01 * rng.standard_normal(hint.shape)
    better = replace(knows, quantiles=knows.quantiles * np.exp(hint)[..., None])
    found = economy_of(windows, better)
    assert found.break_even_bps is not None
    assert found.break_even_bps > 0
    market = naive_part(windows).market
    at_even = trade(better, market, cost_bps=found.break_even_bps)
    assert at_even.excess.mean() == pytest.approx(0.0, abs=1e-12)
    assert found.sharpe is not None
    assert found.sharpe_lower is not None
    assert found.sharpe_lower < found.sharpe
    assert found.sharpe_twice == pytest.approx(
        trade(better, market, cost_bps=10.0).scores["sharpe"]
    )
    assert f"breaks even with always-long at {found.break_even_bps:.1f} bp" in economy_in_words(
        found
    )


def test_a_rule_that_never_trades_says_so(windows: Windows) -> None:
    found = economy_of(windows, forecast(windows, 1.0))
    assert found.why_not == NEVER
    assert found.sharpe is None
    assert "never trades" in economy_in_words(found)
    assert "not known" in economy_in_words(Economy(why_not="gone"))
