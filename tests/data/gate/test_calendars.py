"""Calendars: one for each exchange; a missing bar is a gap, a foreign holiday is none."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foresweep.data.gate.calendars import group_by_calendar
from foresweep.data.panel import panel_from_frame
from foresweep.data.reading.sources import load_panel
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import Windows
from panels import every_day, walk_frame, weekdays

DAYS = 1001
HERE = np.setdiff1d(np.arange(DAYS), np.arange(7, DAYS, 29))
THERE = np.setdiff1d(np.arange(DAYS), np.arange(11, DAYS, 26))


def _frame(sessions: dict[str, np.ndarray]) -> pl.DataFrame:
    days = weekdays(DAYS)
    return pl.concat([walk_frame(name, days[own]) for name, own in sessions.items()])


def _two_exchanges(each: int = 3) -> dict[str, np.ndarray]:
    own = {f"H{k}": HERE for k in range(each)} | {f"T{k}": THERE for k in range(each)}
    return dict(sorted(own.items(), key=lambda pair: pair[0][1:]))


def _without(sessions: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The sessions less a random share of them, the ends kept."""
    rng = np.random.default_rng(seed)
    gone = 1 + rng.choice(len(sessions) - 2, round(share * len(sessions)), replace=False)
    return np.delete(sessions, gone)


@pytest.mark.parametrize("horizon", [5, 20])
def test_every_cell_of_two_exchanges_is_scored(horizon: int) -> None:
    panel = load_panel(_frame(_two_exchanges())).panel
    assert [panel.calendar_of[panel.index(i)] for i in ("H0", "H2", "T0", "T2")] == [0, 0, 1, 1]
    split = make_split(panel, Cut(horizon))
    for part in split.parts[1:]:
        windows = Windows(panel, split, part)
        assert len(windows) == windows.shape[0] * windows.shape[1] > 0
    for i in range(panel.num_items):
        assert np.array_equal(panel.bars[i].sessions, np.arange(len(panel.bars[i].values)))


def test_the_only_item_of_an_exchange_keeps_its_bars_on_the_holidays_of_the_many() -> None:
    loaded = load_panel(_frame({f"H{k:02}": HERE for k in range(12)} | {"T": THERE}))
    assert not [f for f in loaded.report.findings if f.rule == "lonely_bar"]
    assert len(loaded.panel.bars[12].values) == len(THERE)
    assert loaded.panel.calendar_of == (*[0] * 12, 1)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.2])
@pytest.mark.parametrize("others", [1, 3])
def test_what_one_item_alone_lacks_is_a_gap(share: float, others: int) -> None:
    sparse = _without(HERE, share, seed=others)
    panel = panel_from_frame(_frame({f"H{k}": HERE for k in range(others)} | {"SPARSE": sparse}))
    assert set(panel.calendar_of) == {0}
    assert panel.bars[-1].sessions.tolist() == np.searchsorted(HERE, sparse).tolist()


def test_a_long_item_with_holes_does_not_hide_them_behind_a_calendar_of_its_own() -> None:
    holed = _without(np.arange(DAYS), 0.05, seed=1)
    panel = panel_from_frame(_frame({"OLD": holed, "YOUNG": np.arange(300, DAYS)}))
    assert panel.calendar_of == (0, 0)
    assert (np.diff(panel.bars[0].sessions[-600:]) > 1).any()


def test_items_that_all_lack_one_percent_keep_one_calendar() -> None:
    own = {f"H{k}": _without(HERE, 0.01, seed=k) for k in range(8)} | {"WHOLE": HERE}
    panel = panel_from_frame(_frame(own))
    assert set(panel.calendar_of) == {0}
    assert np.array_equal(panel.timeline[panel.calendars[0]], weekdays(DAYS)[HERE])


def test_items_that_never_meet_keep_one_calendar() -> None:
    panel = panel_from_frame(_frame({"OLD": np.arange(500), "NEW": np.arange(600, DAYS)}))
    assert panel.calendar_of == (0, 0)


def test_exchanges_and_round_the_clock_items_stand_side_by_side() -> None:
    coins = [walk_frame(f"C{k}", every_day(DAYS)) for k in range(2)]
    panel = panel_from_frame(pl.concat([_frame(_two_exchanges(2)), *coins]))
    assert panel.items == ("C0", "C1", "H0", "H1", "T0", "T1")
    assert panel.calendar_of == (2, 2, 0, 0, 1, 1)


def test_names_and_order_do_not_matter() -> None:
    own = _two_exchanges()
    before = panel_from_frame(_frame(own))
    swapped = str.maketrans("HT", "TH")
    after = panel_from_frame(_frame({k.translate(swapped): v for k, v in own.items()}))
    for item in before.items:
        other = after.items.index(item.translate(swapped))
        assert before.calendar_of[before.index(item)] == after.calendar_of[other]


@st.composite
def exchanges(draw: st.DrawFn) -> tuple[list[int], list[np.ndarray]]:
    """([I] exchange, [I] sessions): one to three exchanges, the first item of each whole, the
    others with up to 1 % of their bars missing and spans of their own."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    kinds, sessions = [], []
    for kind in range(draw(st.integers(1, 3))):
        open_days = np.setdiff1d(np.arange(DAYS), np.arange(3 + kind, DAYS, 23 + 4 * kind))
        for k in range(draw(st.integers(1, 4))):
            first, last = (0, 0) if k == 0 else rng.integers(1, 300, 2)
            lived = open_days[first : len(open_days) - last]
            share = 0.0 if k == 0 else float(rng.uniform(0, 0.01))
            sessions.append(_without(lived, share, int(rng.integers(2**16))))
            kinds.append(kind)
    return kinds, sessions


@given(exchanges(), st.randoms(use_true_random=False))
def test_items_are_grouped_by_exchange_whatever_their_order(
    made: tuple[list[int], list[np.ndarray]], shuffled: object
) -> None:
    kinds, sessions = made
    found = group_by_calendar(sessions, DAYS)
    pairs = set(zip(kinds, found, strict=True))
    assert len(pairs) == len(set(kinds)) == len(set(found))
    assert set(found) == set(range(len(set(found))))
    order = list(range(len(sessions)))
    shuffled.shuffle(order)  # type: ignore[attr-defined]
    assert group_by_calendar([sessions[i] for i in order], DAYS) == [found[i] for i in order]
