"""The money that changed hands: kept where a file tells it, given to models, else derived."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from foresweep.data.panel import AMOUNT, COLUMNS, panel_from_frame
from foresweep.data.reading.sources import load_panel
from foresweep.data.splits import Cut, make_split
from foresweep.data.tables import read_panel, write_panel
from foresweep.data.windows import Windows
from foresweep.evaluation.leaks import replace_after
from foresweep.models.kronos.model import normalise
from foresweep.models.training.optimisation import merge
from panels import walk_frame, weekdays

BARS = 300


def walk(item: str = "X", factor: float = 1.0) -> pl.DataFrame:
    """A walk whose amounts are another multiple of volume times close each day."""
    frame = walk_frame(item, weekdays(BARS))
    wobble = pl.Series(np.linspace(0.5, 1.5, BARS) * factor)
    return frame.with_columns(amount=frame["volume"] * frame["close"] * wobble)


def derived(frame: pl.DataFrame) -> np.ndarray:
    prices = frame.select(COLUMNS[:4]).to_numpy()
    return np.asarray(frame["volume"].to_numpy() * prices.mean(axis=1))


def test_a_told_amount_reaches_windows_and_kronos() -> None:
    frame = walk()
    panel = load_panel(frame).panel
    np.testing.assert_array_equal(panel.bars[0].values[:, AMOUNT], frame["amount"].to_numpy())
    split = make_split(panel, Cut(5))
    context = Windows(panel, split, split.part("val")).context(64, np.array([3]))
    seen = context.column("amount")[0]
    x = normalise(context.values, 64, "return").x[0, :, AMOUNT]
    np.testing.assert_allclose(x, (seen - seen.mean()) / (seen.std() + 1e-5), atol=1e-9)
    without = normalise(context.values[..., :AMOUNT], 64, "return").x[0, :, AMOUNT]
    assert np.abs(x - without).max() > 0.1


def test_an_item_without_amounts_beside_one_with_has_them_derived() -> None:
    other = walk_frame("Y", weekdays(BARS))
    panel = load_panel(pl.concat([walk(), other], how="diagonal")).panel
    np.testing.assert_array_equal(panel.bars[1].values[:, AMOUNT], derived(other))


def test_patchy_amounts_are_not_used_and_no_row_is_lost(tmp_path: Path) -> None:
    for bad in (None, -1.0):
        frame = walk().with_row_index("k")
        frame = frame.with_columns(
            amount=pl.when(pl.col("k") == 7).then(bad).otherwise(pl.col("amount"))
        )
        loaded = load_panel(frame.drop("k"))
        assert loaded.panel.columns == COLUMNS
        assert loaded.panel.num_rows == BARS
        assert [f.message for f in loaded.report.findings if f.rule == "patchy_amount"] == [
            "1 of 300 amounts are missing"
        ]


def test_a_turnover_in_percent_is_no_amount_and_one_in_money_is() -> None:
    rate = walk_frame("X", weekdays(BARS)).with_columns(turnover=pl.lit(1.7))
    loaded = load_panel(rate)
    assert loaded.panel.columns == COLUMNS
    assert "'turnover' is a rate" in str(loaded.report.findings)
    money = load_panel(walk().rename({"amount": "turnover"})).panel
    assert money.hash == load_panel(walk()).panel.hash


def test_units_of_amounts_are_read_and_other_columns_named() -> None:
    frame = walk().with_columns(pl.col("amount") / 1e4, trades=pl.lit(3))
    loaded = load_panel(frame.rename({"amount": "成交额(万)"}))
    np.testing.assert_allclose(loaded.panel.bars[0].values[:, AMOUNT], walk()["amount"])
    (unused,) = (f.message for f in loaded.report.findings if f.rule == "unused_column")
    assert unused == "trades"


def test_a_panel_with_amounts_survives_its_file_and_its_frame(tmp_path: Path) -> None:
    panel = load_panel(walk()).panel
    write_panel(tmp_path / "p.npz", panel)
    assert read_panel(tmp_path / "p.npz").hash == panel.hash
    assert panel_from_frame(panel.to_frame()).hash == panel.hash
    assert panel.hash != load_panel(walk(factor=2.0)).panel.hash


def test_the_hash_of_data_without_amounts_is_what_it_was() -> None:
    price = 100.0 + np.arange(80) % 7
    columns = dict.fromkeys(COLUMNS[:4], price) | {"volume": 10 * price}
    frame = pl.DataFrame({"item_id": ["X"] * 80, "timestamp": weekdays(80)} | columns)
    assert panel_from_frame(frame).hash[:16] == "b69cfeb19d9c17ba"


def test_bars_after_an_origin_are_replaced_with_their_amounts() -> None:
    panel = load_panel(walk()).panel
    changed = replace_after(panel, 100).bars[0].values[:, AMOUNT] / panel.bars[0].values[:, AMOUNT]
    assert (changed[:101] == 1).all()
    assert (np.abs(np.log(changed[101:])) > 0.05).all()


def test_merged_bars_have_the_amount_of_all() -> None:
    bars = load_panel(walk()).panel.bars[0].values[None, :12]
    np.testing.assert_allclose(merge(bars, 3)[0, 0, AMOUNT], bars[0, :3, AMOUNT].sum())
