"""The campaign behind docs/verdict.md: its made-up trials have the skill they are said to have."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "docs")]

import verdict_picture  # noqa: E402
import verdict_power as campaign  # noqa: E402

from panels import make_panel  # noqa: E402


@pytest.fixture(scope="module")
def market() -> campaign.Market:
    return campaign.read_market(make_panel(num_items=6, num_bars=1500))


def test_a_cell_is_the_move_over_the_horizon_in_percent(market):
    closes = make_panel(num_items=6, num_bars=1500).bars[2].values[:, 3]
    row = 400
    origin = row - 31  # a window needs 32 bars
    assert market.moves[origin, 2] == pytest.approx(100 * (closes[row + 5] / closes[row] - 1))
    assert len(market.moves) == 1500 - 5 - 31


def test_skill_over_the_history_is_what_was_asked(market):
    rho = campaign.rho_of(market, 0.05)
    rng = np.random.default_rng(5)
    y, sigma = market.moves, market.sigma
    e = rng.standard_normal((20, *y.shape))
    signal = rho**2 * y + rho * np.sqrt(1 - rho**2) * sigma * e
    assert 1 - np.abs(y - signal).mean() / np.abs(y).mean() == pytest.approx(0.05, abs=0.003)


def test_val_and_test_share_no_label_and_more_items_are_other_days(market):
    cut = campaign.stretch(market, 20, 14, np.random.default_rng(0))
    assert cut.moves.shape == (40, 14)
    first = np.flatnonzero(market.moves[:, 0] == cut.moves[0, 0])[0]
    np.testing.assert_array_equal(cut.moves[:, 0], market.moves[first : first + 200 : 5, 0])
    np.testing.assert_array_equal(cut.sigma[:, 0], market.sigma[first : first + 200 : 5, 0])
    assert not np.isin(cut.moves[:, 6], cut.moves[:, :6]).all()


def test_a_sweep_has_the_trials_it_says(market):
    one = campaign.Scenario("one", "", skilful=1, skill=0.3, items=6, origins=25)
    rho = campaign.rho_of(market, 0.3)
    table, test = campaign.sweep(one, market, rho, seed=1)
    skills = np.array([table.val().raw_skill(name, campaign.BENCHMARK) for name in table.trials])
    assert skills.argmax() == 0
    assert skills[0] > 0.2
    assert abs(skills[1:]).max() < 0.2
    assert test.raw_skill("trial 0", campaign.BENCHMARK) > 0.2
    found = campaign.judged(one, market, rho, seed=1)
    assert (found.outcome, found.skilful, found.gate1) == ("promote", True, True)


def test_the_page_holds_the_stored_campaign():
    found = json.loads(campaign.STORED.read_text(encoding="utf-8"))
    assert campaign.table(found) in campaign.PAGE.read_text(encoding="utf-8")


def test_the_picture_is_that_of_the_stored_campaign(tmp_path):
    verdict_picture.draw(verdict_picture.STORED, tmp_path / "drawn.svg")
    drawn = (tmp_path / "drawn.svg").read_text(encoding="utf-8")
    assert drawn == verdict_picture.PICTURE.read_text(encoding="utf-8")
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert "share of sweeps that promote it" in drawn
