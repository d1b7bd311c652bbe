"""Loss panels: NaN where the panel is masked and nowhere else, scales known at the origin."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from foresweep.data.panel import panel_from_frame
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import Windows
from foresweep.errors import DataError, UnknownName
from foresweep.evaluation.backtest import forecast_part, last_value, naive_part
from foresweep.evaluation.leaks import replace_after
from foresweep.evaluation.losses import (
    load_forecast,
    load_losses,
    save_forecast,
    train_move,
    usual_move,
    volatility_scale,
    write_npz,
)
from panels import close_panel, make_frame, make_panel


def holed_windows(part: str = "tune") -> Windows:
    """Three items; A1 misses bars in tune, A2 begins in the middle of tune."""
    frame = make_frame(3, 500).with_columns(row=pl.int_range(pl.len()).over("item_id"))
    hole = (pl.col("item_id") == "A1") & pl.col("row").is_in([340, 341, 355])
    young = (pl.col("item_id") == "A2") & (pl.col("row") < 310)
    frame = frame.filter(~young).with_columns(
        close=pl.when(hole).then(None).otherwise(pl.col("close"))
    )
    panel = panel_from_frame(frame.drop("row"))
    split = make_split(panel, Cut(3))
    return Windows(panel, split, split.part(part))


def test_a_cell_is_nan_exactly_where_the_windows_have_none():
    windows = holed_windows()
    panel = naive_part(windows).losses
    valid = np.zeros(windows.shape, dtype=bool)
    valid[windows.origin, windows.column] = True
    assert 0 < valid.sum() < valid.size
    for values in (*panel.losses.values(), panel.scale, panel.scaled("pct_mae")):
        np.testing.assert_array_equal(~np.isnan(values), valid)
    for values in panel.by_lead.values():
        np.testing.assert_array_equal(~np.isnan(values), valid[..., None].repeat(3, axis=2))


def test_losses_by_lead_average_to_the_losses_and_those_to_the_score():
    windows = holed_windows()
    naive = naive_part(windows)
    for name, values in naive.losses.losses.items():
        np.testing.assert_allclose(naive.losses.by_lead[name].mean(axis=2), values)
    by_hand = np.abs(windows.labels - windows.last_close[:, None]) / windows.last_close[:, None]
    assert np.nanmean(naive.losses.losses["pct_mae"]) == pytest.approx(100 * by_hand.mean())


def test_the_scale_is_the_weighted_volatility_up_to_the_origin_over_the_horizon():
    panel = make_panel(2, 400, seed=3)
    split = make_split(panel, Cut(4))
    windows = Windows(panel, split, split.part("val"))
    scale = volatility_scale(windows)
    for n in (0, 7, len(windows) - 1):
        close = panel.bars[windows.item[n]].values[: windows.row[n] + 1, 3]
        moves = np.diff(np.log(close))
        weights = 0.94 ** np.arange(len(moves))[::-1]
        sigma = np.sqrt((weights * moves**2).sum() / weights.sum())
        assert scale[n] == pytest.approx(100 * np.sqrt(4) * sigma, rel=1e-9)


def test_the_scale_knows_nothing_after_the_origin():
    panel = make_panel(2, 400, seed=4)
    split = make_split(panel, Cut(4))
    windows = Windows(panel, split, split.part("tune"))
    for k in (0, 5, len(windows.part.origins) - 1):
        changed = Windows(replace_after(panel, int(windows.part.origins[k])), split, windows.part)
        known = windows.origin <= k
        np.testing.assert_array_equal(
            volatility_scale(changed)[known], volatility_scale(windows)[known]
        )


def test_the_usual_move_is_that_of_the_last_year_up_to_the_origin():
    panel = make_panel(2, 500, seed=5)
    split = make_split(panel, Cut(4))
    windows = Windows(panel, split, split.part("val"))
    found = usual_move(windows)
    for n in (0, 7, len(windows) - 1):
        close = panel.bars[windows.item[n]].values[: windows.row[n] + 1, 3]
        assert found[n] == pytest.approx(np.abs(np.diff(close[-253:])).mean(), rel=1e-9)
    assert (windows.row > 252).all()
    k = len(windows.part.origins) // 2
    changed = Windows(replace_after(panel, int(windows.part.origins[k])), split, windows.part)
    known = windows.origin <= k
    np.testing.assert_array_equal(usual_move(changed)[known], found[known])


def test_the_published_mase_divides_by_the_moves_of_all_of_train():
    panel = make_panel(2, 500, seed=5)
    split = make_split(panel, Cut(4))
    windows = Windows(panel, split, split.part("val"))
    stop = split.part("train").stop
    for n in (0, 7, len(windows) - 1):
        item = windows.item[n]
        close = panel.bars[item].values[panel.timeline_of(item) < stop, 3]
        assert train_move(windows)[n] == pytest.approx(np.abs(np.diff(close)).mean(), rel=1e-12)
    # nothing from the end of train on moves it
    changed = Windows(replace_after(panel, stop), split, windows.part)
    np.testing.assert_array_equal(train_move(changed), train_move(windows))


def test_a_young_or_still_item_has_a_usual_move_too():
    panel = close_panel({"A": [9.0] * 100 + [9.0, 10.0] * 50})
    split = make_split(panel, Cut(1, shares=(0.4, 0.2, 0.2, 0.2)))
    windows = Windows(panel, split, split.part("tune"))
    moves = np.abs(np.diff(panel.bars[0].values[:, 3]))
    expected = [moves[:r].mean() or 9e-6 for r in windows.row]
    np.testing.assert_allclose(usual_move(windows), expected)
    assert usual_move(windows)[0] == pytest.approx(9e-6)


def test_a_sleepy_item_is_scaled_by_a_quarter_of_its_median_over_train():
    rng = np.random.default_rng(0)
    moves = 0.02 * rng.standard_normal(400)
    moves[240:] *= 1e-3
    panel = close_panel({"A": 50 * np.exp(np.cumsum(moves))})
    split = make_split(panel, Cut(1))
    windows = Windows(panel, split, split.part("test"))
    scale = volatility_scale(windows)
    assert np.ptp(scale) == 0
    assert scale[0] == pytest.approx(100 * 0.02 / 4, rel=0.15)


def test_a_price_that_never_moves_has_a_scale_above_zero():
    panel = close_panel({"A": np.full(300, 9.0)})
    split = make_split(panel, Cut(2))
    assert (volatility_scale(Windows(panel, split, split.part("tune"))) > 0).all()


def test_an_item_younger_than_train_is_floored_by_the_others():
    rng = np.random.default_rng(1)
    frame = make_frame(2, 600, seed=1).with_columns(
        row=pl.int_range(pl.len()).over("item_id"), noise=pl.lit(rng.standard_normal(1200))
    )
    frame = frame.filter((pl.col("item_id") != "A1") | (pl.col("row") >= 400)).with_columns(
        close=pl.when(pl.col("item_id") == "A1").then(pl.lit(7.0)).otherwise(pl.col("close"))
    )
    panel = panel_from_frame(frame.drop("row", "noise"))
    split = make_split(panel, Cut(2))
    windows = Windows(panel, split, split.part("test"))
    scale = volatility_scale(windows)
    assert (windows.column == 1).any()
    assert scale[windows.column == 1].min() > 0.1  # percent: not the 0 its own moves would give


def test_a_stored_loss_panel_comes_back_the_same(tmp_path):
    panel = naive_part(holed_windows()).losses
    panel.save(tmp_path / "deep" / "losses.npz")
    again = load_losses(tmp_path / "deep" / "losses.npz")
    np.testing.assert_equal(dict(again.losses), dict(panel.losses))
    np.testing.assert_array_equal(again.scale, panel.scale)
    np.testing.assert_array_equal(again.origins, panel.origins)
    np.testing.assert_allclose(again.by_lead["pinball"], panel.by_lead["pinball"], rtol=1e-6)
    same = ("items", "stride", "fingerprint", "horizon")
    assert [getattr(again, k) for k in same] == [getattr(panel, k) for k in same]
    assert not list((tmp_path / "deep").glob(".*")), "a temporary file was left"


def test_stored_forecasts_come_back_to_single_precision(tmp_path):
    windows = holed_windows()
    forecast = forecast_part(last_value(windows.split), windows)
    save_forecast(tmp_path / "f.npz", forecast, windows)
    again = load_forecast(tmp_path / "f.npz", windows)
    assert again.levels == forecast.levels
    np.testing.assert_allclose(again.values, forecast.values, rtol=1e-7)


def test_forecasts_of_other_windows_are_refused(tmp_path):
    windows = holed_windows("tune")
    save_forecast(tmp_path / "f.npz", forecast_part(last_value(windows.split), windows), windows)
    with pytest.raises(DataError, match="other windows than 'val'"):
        load_forecast(tmp_path / "f.npz", holed_windows("val"))


def test_a_file_that_is_missing_broken_or_something_else_is_named(tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not a zip")
    write_npz(tmp_path / "else.npz", {"a": np.zeros(2)})
    for name in ("missing", "broken", "else"):
        with pytest.raises(DataError, match=f"{name}.npz"):
            load_losses(tmp_path / f"{name}.npz")


def test_a_pickle_is_never_loaded(tmp_path):
    np.savez(tmp_path / "evil.npz", scale=np.array([{}], dtype=object))
    with pytest.raises(DataError):
        load_losses(tmp_path / "evil.npz")


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_npz(tmp_path / "file" / "x.npz", {"a": np.zeros(1)})


def test_an_unknown_loss_is_refused_with_the_nearest():
    panel = naive_part(holed_windows()).losses
    with pytest.raises(UnknownName, match="did you mean 'pinball'"):
        panel.scaled("pinbal")
