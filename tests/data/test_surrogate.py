"""Surrogate prices keep the volatility and lose what could be foretold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foresweep.data.panel import CLOSE, HIGH, LOW, OPEN, VOLUME, Panel
from foresweep.data.surrogate import KINDS, log_moves, surrogate_panel
from foresweep.errors import UnknownName
from panels import make_panel, sine_panel


def returns(panel: Panel, item: int = 0) -> np.ndarray:
    return np.diff(np.log(panel.bars[item].values[:, CLOSE]))


def lag_one(x: np.ndarray) -> float:
    return float(np.corrcoef(x[:-1], x[1:])[0, 1])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(KINDS))
def test_every_bar_stays_a_bar(seed: int, kind: str) -> None:
    panel = make_panel()
    made = surrogate_panel(panel, kind, seed=seed)
    assert made.items == panel.items
    for item, (new, old) in enumerate(zip(made.bars, panel.bars, strict=True)):
        v = new.values
        assert (v > 0)[:, : CLOSE + 1].all()
        assert (v[:, HIGH] >= v[:, [OPEN, CLOSE]].max(axis=1)).all()
        assert (v[:, LOW] <= v[:, [OPEN, CLOSE]].min(axis=1)).all()
        assert (made.timestamps_of(item) == panel.timestamps_of(item)).all()
        assert np.sort(v[:, VOLUME]) == pytest.approx(np.sort(old.values[:, VOLUME]))
        assert v[0, CLOSE] == old.values[0, CLOSE]


@pytest.mark.parametrize("seed", range(3))
def test_flipped_signs_keep_the_size_of_every_move_and_its_day(seed: int) -> None:
    panel = make_panel()
    made = surrogate_panel(panel, "signs", seed=seed)
    flipped = []
    for item in range(panel.num_items):
        old, new = returns(panel, item), returns(made, item)
        centred = old - old.mean()
        assert np.abs(new) == pytest.approx(np.abs(centred), abs=1e-12)
        rows = panel.timeline_of(item)[1:]
        flipped.append(dict(zip(rows.tolist(), np.sign(new * centred).tolist(), strict=True)))
    for day in flipped[0].keys() & flipped[1].keys():
        assert flipped[0][day] == flipped[1][day]  # one sign a day, for all items
    assert {-1.0, 1.0} <= set(flipped[0].values())


def test_a_wave_that_anybody_could_foretell_is_gone() -> None:
    panel = sine_panel()
    assert lag_one(np.sign(returns(panel))) > 0.8
    made = [surrogate_panel(panel, "signs", seed=seed) for seed in range(20)]
    signs = [lag_one(np.sign(returns(one))) for one in made]
    assert abs(np.mean(signs)) < 0.02
    assert np.std(returns(made[0])) == pytest.approx(np.std(returns(panel)), rel=1e-2)


def test_blocks_hold_the_same_moves_in_another_order() -> None:
    panel = make_panel()
    made = surrogate_panel(panel, "blocks", seed=1)
    old, new = log_moves(panel.bars[0].values)[1:], log_moves(made.bars[0].values)[1:]
    assert np.sort(new[:, CLOSE]) == pytest.approx(np.sort(old[:, CLOSE]), abs=1e-12)
    assert not np.allclose(new, old)


def test_equal_seeds_give_equal_prices_and_others_do_not() -> None:
    panel = make_panel()
    for kind in KINDS:
        one, same, other = (surrogate_panel(panel, kind, seed=s).hash for s in (1, 1, 2))
        assert one == same != other
        assert one != panel.hash
    with pytest.raises(UnknownName, match="kind of surrogate"):
        surrogate_panel(panel, "sign", seed=1)
