"""The footprint of moves: the same under other names and days, another for other prices."""

from __future__ import annotations

import numpy as np
import polars as pl

from foresweep.data import footprint
from foresweep.data.footprint import footprint_of, written
from foresweep.data.panel import COLUMNS, Panel, panel_from_frame
from foresweep.data.splits import Cut, make_split
from foresweep.records import MOVES
from foresweep.tracker.sealed import footprint as recorded
from panels import make_panel, weekdays


def again(
    panel: Panel, *, names: str = "", start: str = "2015-06-01", times: float = 1.0, skip: int = 0
) -> Panel:
    """The same bars under other names, on other days, re-based, without the first ones."""
    parts = []
    for k, bars in enumerate(panel.bars):
        values = bars.values[skip:]
        columns = dict(zip(COLUMNS, values.T, strict=True))
        for name in COLUMNS[:4]:
            columns[name] = columns[name] * times
        stem = {
            "item_id": [f"{names}{k}" if names else panel.items[k]] * len(values),
            "timestamp": weekdays(len(values), start),
        }
        parts.append(pl.DataFrame(stem | columns))
    return panel_from_frame(pl.concat(parts), source="again")


def hashes(panel: Panel) -> set[int]:
    return set(footprint_of(panel, make_split(panel, Cut(5))).tolist())


def test_other_names_days_and_a_new_base_leave_the_footprint() -> None:
    panel = make_panel(3, 500, seed=1)
    assert hashes(again(panel, names="s", times=0.37)) == hashes(panel)


def test_another_cut_of_the_same_moves_shares_most_of_it() -> None:
    panel = make_panel(3, 500, seed=1)
    mine, theirs = hashes(panel), hashes(again(panel, names="s", skip=90))
    assert len(mine & theirs) > 0.5 * min(len(mine), len(theirs))


def test_other_prices_share_nothing() -> None:
    assert not hashes(make_panel(3, 500, seed=1)) & hashes(make_panel(3, 500, seed=2))


def test_moves_of_train_are_not_part_of_it() -> None:
    panel = make_panel(2, 500, seed=3)
    stop = make_split(panel, Cut(5)).part("train").stop
    values = [b.values.copy() for b in panel.bars]
    parts = []
    for k, old in enumerate(values):
        old[: stop - 1, :4] *= np.linspace(1, 2, stop - 1)[:, None]
        stem = {"item_id": [panel.items[k]] * len(old), "timestamp": panel.timestamps_of(k)}
        parts.append(pl.DataFrame(stem | dict(zip(COLUMNS, old.T, strict=True))))
    assert hashes(panel_from_frame(pl.concat(parts), source="x")) == hashes(panel)


def test_still_items_have_none() -> None:
    assert list(footprint._stretches(np.full(300, 9.0))) == []
    steps = 9.0 * np.cumprod(np.tile([1.01, 1 / 1.01], 100))
    assert list(footprint._stretches(steps)) == []


def test_a_coarse_footprint_holds_a_part_of_the_fine_one(monkeypatch) -> None:
    panel = make_panel(3, 500, seed=1)
    fine = hashes(panel)
    monkeypatch.setattr(footprint, "MOST", 64)
    coarse = hashes(panel)
    assert coarse < fine
    assert 16 < len(coarse) <= 64


def test_the_record_gives_back_the_same_hashes() -> None:
    panel = make_panel(2, 400, seed=4)
    plan = {
        "parts": {"val": {"from": "2012-01-03", "to": "2012-08-01"}},
        MOVES: written(footprint_of(panel, make_split(panel, Cut(5)))),
    }
    found = recorded(plan)
    assert found is not None
    assert found.moves == hashes(panel)
