"""The gate: bad rows are masked, bad items dropped, real moves kept, nothing repaired."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from foresweep.data.gate.report import RULES, Finding, severity_of
from foresweep.data.reading.sources import Loaded, load_panel
from foresweep.errors import DataError
from panels import every_day, make_frame, sine_panel, walk_frame, weekdays

BARS = 300


def one(frame: pl.DataFrame) -> Loaded:
    """The frame's items beside two good ones."""
    return load_panel(pl.concat([frame, _good()], how="diagonal"))


def _good() -> pl.DataFrame:
    return pl.concat([walk_frame("G1", weekdays(BARS)), walk_frame("G2", weekdays(BARS))])


def item(num_bars: int = BARS, **columns: object) -> pl.DataFrame:
    """A walk named X whose columns are changed: name -> {row: value}."""
    frame = walk_frame("X", weekdays(num_bars))
    for name, changes in columns.items():
        values = frame[name].to_numpy().copy()
        for row, value in changes.items():  # type: ignore[attr-defined]
            values[row] = value
        frame = frame.with_columns(pl.Series(name, values))
    return frame


def rules_of(loaded: Loaded) -> list[tuple[str, int | None]]:
    """(rule, row) of the findings about X."""
    return [(f.rule, f.row) for f in loaded.report.findings if f.item == "X"]


def scaled(frame: pl.DataFrame, factor: np.ndarray) -> pl.DataFrame:
    """OHLC times a factor a row."""
    return frame.with_columns(
        pl.Series(c, frame[c].to_numpy() * factor) for c in ("open", "high", "low", "close")
    )


def quiet_open(frame: pl.DataFrame) -> pl.DataFrame:
    """Opens at the last close: no overnight gaps but those planted later."""
    close = frame["close"].to_numpy()
    opened = np.concatenate([frame["open"].to_numpy()[:1], close[:-1]])
    return frame.with_columns(
        open=opened,
        high=np.maximum(frame["high"].to_numpy(), np.maximum(opened, close)),
        low=np.minimum(frame["low"].to_numpy(), np.minimum(opened, close)),
    )


def from_row(row: int, factor: float, num_bars: int = BARS) -> np.ndarray:
    """1 before `row`, `factor` from it on."""
    return np.where(np.arange(num_bars) < row, 1.0, factor)


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("missing_price", {"open": {50: np.nan}}),
        ("missing_price", {"high": {50: np.inf}}),
        ("non_positive_price", {"low": {50: 0.0}}),
        ("non_positive_price", {"close": {50: -3.0}}),
        ("high_below_low", {"high": {50: 1.0}}),
        ("open_close_outside", {"open": {50: 1000.0}}),
        ("missing_volume", {"volume": {50: np.nan}}),
        ("missing_volume", {"volume": {50: -1.0}}),
    ],
)
def test_a_bad_row_is_masked_and_named(rule: str, changes: dict[str, dict[int, float]]) -> None:
    loaded = one(item(**changes))
    assert rules_of(loaded) == [(rule, 51)]
    x = loaded.panel.index("X")
    assert loaded.panel.bars[x].num_masked == loaded.report.num_masked == 1
    assert loaded.panel.bars[x].sessions.tolist() == [*range(50), *range(51, BARS)]


def test_a_close_outside_by_rounding_is_let_through() -> None:
    plain = item()
    top = plain["high"][50]
    assert rules_of(one(item(close={50: top * 1.0009}))) == []
    assert rules_of(one(item(close={50: top * 1.002}))) == [("open_close_outside", 51)]


def test_a_row_is_counted_under_one_rule_only() -> None:
    loaded = one(item(open={50: np.nan}, high={50: 1.0}, volume={50: np.nan}))
    assert rules_of(loaded) == [("missing_price", 51)]


def test_more_than_one_percent_bad_rows_drop_the_item() -> None:
    three = dict.fromkeys((50, 90, 130), np.nan)
    loaded = one(item(close=three))
    assert "X" in loaded.panel.items
    loaded = one(item(close=three | {170: np.nan}))
    assert ("too_many_bad_rows", None) in rules_of(loaded)
    assert loaded.panel.items == ("G1", "G2")
    assert loaded.report.dropped == ("X",)


def test_one_bad_row_of_few_is_forgiven_and_two_are_not() -> None:
    for bad, kept in (((50,), True), ((50, 60), False)):
        loaded = one(item(80, close=dict.fromkeys(bad, np.nan)))
        assert ("X" in loaded.panel.items) == kept


def test_long_lists_of_bad_rows_are_shortened_but_all_masked() -> None:
    loaded = one(item(close=dict.fromkeys(range(160, 185), np.nan)))
    told = [f for f in loaded.report.findings if f.rule == "missing_price"]
    assert len(told) == 11
    assert told[-1].message == "and 15 more rows"
    assert "25 of 300" in next(f.message for f in loaded.report.errors)


def test_patchy_volume_is_set_aside_and_the_prices_kept() -> None:
    loaded = one(item(volume=dict.fromkeys(range(0, BARS, 10), np.nan)))
    assert rules_of(loaded) == [("patchy_volume", None)]
    x = loaded.panel.index("X")
    assert loaded.panel.bars[x].num_masked == 0
    assert (loaded.panel.bars[x].values[:, 4] == 0).all()


def test_a_price_flip_that_comes_back_is_masked() -> None:
    for width in (1, 2, 3):
        factor = np.ones(BARS)
        factor[100 : 100 + width] = 10.0
        loaded = one(scaled(item(), factor))
        assert rules_of(loaded) == [("price_flip", 101 + k) for k in range(width)]
        assert loaded.panel.bars[loaded.panel.index("X")].num_masked == width


def test_the_good_row_between_two_flips_is_kept() -> None:
    factor = np.ones(BARS)
    factor[[100, 102]] = 10.0
    assert rules_of(one(scaled(item(), factor))) == [("price_flip", 101), ("price_flip", 103)]


def test_a_low_far_below_its_bar_is_masked() -> None:
    loaded = one(item(low={50: 0.01}))
    assert rules_of(loaded) == [("price_flip", 51)]


def test_a_real_crash_is_kept_as_it_is() -> None:
    crash = scaled(item(), from_row(150, 0.42))
    loaded = one(crash)
    assert rules_of(loaded) == [("event_jump", 151)]
    x = loaded.panel.bars[loaded.panel.index("X")]
    assert np.array_equal(x.values[:, 3], crash["close"])


@pytest.mark.parametrize(
    ("factor", "like"), [(1 / 2, "2-for-1"), (2 / 3, "1.5-for-1"), (10.0, "1-for-10")]
)
def test_a_split_without_explanation_drops_the_item_and_names_the_day(
    factor: float, like: str
) -> None:
    loaded = one(scaled(quiet_open(item()), from_row(150, factor)))
    (finding,) = [f for f in loaded.report.findings if f.item == "X"]
    assert (finding.rule, finding.severity, finding.row) == ("split_jump", "error", 151)
    assert str(weekdays(BARS)[150])[:10] in finding.message
    assert like in finding.message
    assert loaded.panel.items == ("G1", "G2")


def _half_on_day_150() -> pl.DataFrame:
    frame = quiet_open(item())
    close = frame["close"].to_numpy()
    frame = scaled(frame, from_row(150, 0.5))
    opened = frame["open"].to_numpy().copy()
    opened[150] = close[149] * 0.5
    return frame.with_columns(open=opened)


def test_an_action_of_ratio_one_says_that_the_fall_was_real(tmp_path) -> None:  # type: ignore[no-untyped-def]
    day = str(weekdays(BARS)[150])[:10]
    actions = tmp_path / "actions.csv"
    actions.write_text(f"item,date,ratio\nX,{day},1\n")
    frame = pl.concat([_half_on_day_150(), _good()])
    assert load_panel(frame).panel.items == ("G1", "G2")
    loaded = load_panel(frame, actions=actions)
    assert loaded.report.errors == ()
    x = loaded.panel.bars[loaded.panel.index("X")]
    assert np.array_equal(x.values[:, 3], _half_on_day_150()["close"])
    actions.write_text("item,date,ratio\nX,2015-02-02,1\n")
    assert load_panel(frame, actions=actions).panel.items == ("G1", "G2")


def test_an_action_of_ratio_two_brings_older_bars_to_new_terms(tmp_path) -> None:  # type: ignore[no-untyped-def]
    day = str(weekdays(BARS)[150])[:10]
    actions = tmp_path / "actions.csv"
    actions.write_text(f"Symbol,Date,Ratio,Kind\nX,{day},2,split\nG1,{day},1.01,dividend\n")
    frame = pl.concat([_half_on_day_150(), _good()])
    loaded = load_panel(frame, actions=actions)
    assert loaded.report.findings == ()
    x = loaded.panel.bars[loaded.panel.index("X")].values
    plain = item()
    assert x[:, 3] == pytest.approx(plain["close"].to_numpy() * 0.5)
    assert x[:, 4] == pytest.approx(plain["volume"].to_numpy() * from_row(150, 0.5) * 2)
    g1 = loaded.panel.bars[loaded.panel.index("G1")].values
    assert g1[:150, 3] == pytest.approx(_good()["close"].to_numpy()[:150] / 1.01)
    assert g1[:150, 4] == pytest.approx(_good()["volume"].to_numpy()[:150])


def test_an_action_on_prices_that_are_adjusted_already_drops_the_item(tmp_path) -> None:  # type: ignore[no-untyped-def]
    actions = tmp_path / "actions.csv"
    actions.write_text("item,date,ratio\nX,2015-08-03,2\nNOBODY,2015-08-03,2\nG1,1999-01-04,2\n")
    loaded = load_panel(pl.concat([item(), _good()]), actions=actions)
    assert ("action_contradicted", None) in rules_of(loaded)
    assert loaded.panel.items == ("G1", "G2")
    unused = [f.item for f in loaded.report.findings if f.rule == "unused_action"]
    assert unused == ["NOBODY", "G1"]


def test_an_adjusted_close_scales_all_four_prices_and_explains_the_split() -> None:
    plain = item()
    factor = from_row(150, 0.5)
    unadjusted = scaled(plain, factor).with_columns(adj_close=plain["close"] * 0.5)
    loaded = load_panel(unadjusted)
    assert loaded.report.findings == ()
    values = loaded.panel.bars[0].values
    wanted = scaled(plain, np.full(BARS, 0.5))
    for k, column in enumerate(("open", "high", "low", "close")):
        assert values[:, k] == pytest.approx(wanted[column].to_numpy(), rel=1e-12)
    assert np.array_equal(values[:, 4], plain["volume"])


def test_an_adjusted_close_that_never_differs_explains_nothing() -> None:
    halved = _half_on_day_150()
    with pytest.raises(DataError, match="split_jump"):
        load_panel(halved.with_columns(adj_close=pl.col("close")))


def test_a_fall_by_half_beside_a_living_adjusted_close_is_kept_with_a_warning() -> None:
    halved = _half_on_day_150()
    dividends = np.where(np.arange(BARS) < 50, 0.98, 1.0)
    loaded = load_panel(halved.with_columns(adj_close=halved["close"] * dividends))
    assert rules_of(loaded) == [("large_jump", 151)]
    ratio = loaded.panel.bars[0].values[:, 3] / halved["close"].to_numpy()
    assert ratio == pytest.approx(dividends)


def test_a_missing_adjusted_close_masks_its_row() -> None:
    frame = item()
    adjusted = (frame["close"] * 0.5).to_numpy().copy()
    adjusted[[20, 40]] = np.nan, 0.0
    loaded = load_panel(frame.with_columns(adj_close=adjusted))
    assert rules_of(loaded) == [("missing_adjusted", 21), ("missing_adjusted", 41)]
    assert loaded.panel.bars[0].num_masked == 2


def test_a_round_the_clock_item_that_halves_only_warns() -> None:
    frame = scaled(quiet_open(walk_frame("X", every_day(BARS))), from_row(150, 0.5))
    loaded = load_panel(frame)
    assert rules_of(loaded) == [("large_jump", 151)]


def test_rows_out_of_order_drop_the_item() -> None:
    order = [*range(100), *range(150, 200), *range(100, 150), *range(200, BARS)]
    loaded = one(item()[order])
    assert rules_of(loaded) == [("unsorted", 151)]
    assert loaded.panel.items == ("G1", "G2")


def test_a_file_newest_first_is_read_backwards() -> None:
    loaded = one(item().reverse())
    assert rules_of(loaded) == [("newest_first", 1)]
    x = loaded.panel.bars[loaded.panel.index("X")]
    assert np.array_equal(x.values[:, 3], item()["close"])


def test_a_row_said_twice_is_used_once() -> None:
    loaded = one(item()[[*range(50), 49, *range(50, BARS)]])
    assert rules_of(loaded) == [("duplicate_row", 51)]
    assert len(loaded.panel.bars[loaded.panel.index("X")].values) == BARS


def test_two_different_rows_at_one_time_drop_the_item() -> None:
    twice = pl.concat([item()[:50], item(close={49: 20.5})[49:]])
    assert rules_of(one(twice)) == [("contradictory_timestamps", 51)]


def test_a_short_item_is_dropped_with_its_length() -> None:
    loaded = one(item(63))
    assert rules_of(loaded) == [("too_short", None)]
    assert "63 whole rows" in loaded.report.errors[0].message
    assert "X" in one(item(64)).panel.items


def _stuck(length: int, start: int = 100) -> pl.DataFrame:
    frame = item()
    stuck = np.arange(BARS)
    stuck[start : start + length] = start
    return frame[stuck.tolist()].with_columns(timestamp=frame["timestamp"])


def test_a_stale_stretch_is_set_aside_and_a_dead_feed_is_dropped() -> None:
    assert rules_of(one(_stuck(20))) == []
    loaded = one(_stuck(41))
    assert rules_of(loaded) == [("stale_stretch", 102)]
    assert loaded.panel.bars[loaded.panel.index("X")].num_masked == 40
    dead = one(_stuck(BARS - 80, start=80))
    assert rules_of(dead) == [("stale", 81)]
    assert "X" not in dead.panel.items


def test_suspended_days_are_set_aside_and_no_more() -> None:
    frame = item()
    close = frame["close"][99]
    days = pl.int_range(pl.len()).is_between(100, 107)
    still = [pl.when(days).then(close).otherwise(pl.col(c)).alias(c)
             for c in ("open", "high", "low", "close")]  # fmt: skip
    volume = pl.when(days).then(0.0).otherwise(pl.col("volume")).alias("volume")
    loaded = one(frame.with_columns(*still, volume))
    assert rules_of(loaded) == [("suspended", 101)]
    bars = loaded.panel.bars[loaded.panel.index("X")]
    assert bars.num_masked == 8
    assert len(bars.values) == BARS - 8


def test_the_hour_that_comes_twice_is_set_aside_and_other_repeats_drop_the_item() -> None:
    times = np.datetime64("2023-10-20", "ns") + np.arange(800) * np.timedelta64(30, "m")
    frame = walk_frame("X", times)
    at = int(np.flatnonzero(times == np.datetime64("2023-10-29T02:00"))[0])
    again = frame[at : at + 2].with_columns(pl.col("open", "high", "low", "close") * 1.001)
    twice = pl.concat([frame[: at + 2], again, frame[at + 2 :]])
    loaded = load_panel(twice)
    assert {r for r, _ in rules_of(loaded)} == {"repeated_hour"}
    assert loaded.panel.num_rows == 798
    with pytest.raises(DataError, match="contradictory_timestamps"):
        load_panel(
            pl.concat(
                [
                    frame[:20],
                    frame[18:20].with_columns(again[["open", "high", "low", "close"]]),
                    frame[20:],
                ]
            )
        )


def test_disorder_in_a_file_newest_first_is_named_where_it_is() -> None:
    order = [*range(BARS - 1, 150, -1), *range(100, 151), *range(99, -1, -1)]
    assert rules_of(one(item()[order]))[0] == ("unsorted", BARS - 150 + 1)


def test_a_change_of_rhythm_drops_the_item() -> None:
    weekly = weekdays(1000, "2001-01-01")[::5][:200]
    frame = walk_frame("X", np.concatenate([weekly, weekdays(200)]))
    with pytest.raises(DataError, match=r"mixed_frequency.*7 days apart, then 1"):
        load_panel(frame)


def test_an_item_of_another_rhythm_than_the_rest_is_dropped() -> None:
    hourly = (weekdays(60)[:, None] + (14 + np.arange(7)) * np.timedelta64(1, "h")).ravel()
    loaded = one(walk_frame("X", hourly))
    assert rules_of(loaded) == [("mixed_frequency", None)]
    assert loaded.panel.items == ("G1", "G2")


@pytest.mark.parametrize("hours", [(14, 18), (14, 15, 16, 17, 18, 19, 20)])
def test_nights_and_weekends_are_no_change_of_rhythm(hours: tuple[int, ...]) -> None:
    offsets = np.array(hours) * np.timedelta64(1, "h")
    times = (weekdays(100)[:, None] + offsets).ravel()
    assert load_panel(walk_frame("X", times)).report.findings == ()


def test_stocks_and_coins_stand_in_one_panel() -> None:
    loaded = one(walk_frame("X", every_day(400)))
    assert loaded.report.findings == ()
    assert loaded.panel.calendar_of == (0, 0, 1)


@pytest.mark.parametrize("kind", ["smooth", "fixed", "gauss"])
def test_made_up_prices_raise_a_warning(kind: str) -> None:
    if kind == "smooth":
        loaded = load_panel(sine_panel(600).select(["SINE1"]).to_frame())
    else:
        rng = np.random.default_rng(5)
        close = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal(600)))
        opened = np.concatenate([[100.0], close[:-1]])
        up = 1.01 if kind == "fixed" else np.exp(0.005 * np.abs(rng.standard_normal(600)))
        high, low = np.maximum(opened, close) * up, np.minimum(opened, close) / up
        columns = {"open": opened, "high": high, "low": low, "close": close}
        stem = {"item_id": ["X"] * 600, "timestamp": weekdays(600)}
        loaded = load_panel(pl.DataFrame(stem | columns))
    assert {f.rule for f in loaded.report.findings} == {"synthetic"}
    assert loaded.report.errors == ()


def test_market_like_walks_raise_no_warning() -> None:
    assert load_panel(make_frame(4, 1000)).report.warnings == ()


def test_a_bar_on_a_day_when_nobody_trades_is_left_out_of_the_calendar() -> None:
    frame = pl.concat([walk_frame(f"S{k:02}", weekdays(BARS)) for k in range(12)])
    saturday = np.datetime64("2015-03-07T00:00", "ns")
    stray = frame[:1].with_columns(timestamp=pl.lit(saturday))
    mixed = pl.concat([frame, stray.with_columns(item_id=pl.lit("S03"))])
    loaded = load_panel(mixed.sort("item_id", "timestamp"))
    (finding,) = [f for f in loaded.report.findings if f.rule == "lonely_bar"]
    assert (finding.item, "2015-03-07" in finding.message) == ("S03", True)
    assert saturday not in loaded.panel.timeline
    assert len(loaded.panel.timeline) == BARS


def _sessions(start: str, end: str) -> np.ndarray:
    import exchange_calendars

    calendar = exchange_calendars.get_calendar("XNYS", start=start, end=end)
    return calendar.sessions.to_numpy().astype("datetime64[ns]")


def test_missing_sessions_of_the_exchange_are_told() -> None:
    days = _sessions("2001-01-02", "2002-12-31")  # before the calendar's default start
    frame = pl.concat([walk_frame(f"S{k}", np.delete(days, 77)) for k in range(3)])
    gone = pl.lit(days[200])
    frame = frame.filter((pl.col("item_id") != "S1") | (pl.col("timestamp") != gone))
    told = [f for f in load_panel(frame).report.findings if f.rule == "missing_session"]
    assert [f.item for f in told] == [None, "S1"]
    assert str(days[77])[:10] in told[0].message
    assert str(days[200])[:10] in told[1].message


def test_a_panel_of_another_exchange_is_not_held_to_new_yorks_days() -> None:
    days = np.delete(weekdays(800), np.arange(5, 800, 20))
    frame = pl.concat([walk_frame(f"S{k}", days) for k in range(2)])
    assert load_panel(frame).report.findings == ()


def test_a_panel_without_endings_is_called_a_panel_of_survivors() -> None:
    frame = pl.concat([walk_frame(f"S{k}", weekdays(BARS)) for k in range(6)])
    assert [f.rule for f in load_panel(frame).report.findings] == ["survivorship"]
    ended = frame.filter((pl.col("item_id") != "S2") | (pl.col("timestamp") < weekdays(BARS)[200]))
    assert load_panel(ended).report.findings == ()


def test_every_rule_has_one_sentence_and_a_severity() -> None:
    for rule, sentence in RULES.items():
        assert rule.islower()
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert severity_of(rule) in ("error", "warning", "note")


def test_a_report_is_json_with_its_counts() -> None:
    report = one(item(open={50: np.nan}, low={80: 0.0})).report
    stored = json.loads(json.dumps(report.as_dict()))
    assert stored["counts"] == report.counts == {"missing_price": 1, "non_positive_price": 1}
    assert [f["row"] for f in stored["findings"]] == [f.row for f in report.findings]


def test_a_finding_reads_as_one_line() -> None:
    finding = Finding("a.csv", "A", 7, "missing_price", "warning", "open nan")
    assert str(finding) == "a.csv:7: missing_price: open nan"
    assert str(Finding("a.csv", "A", None, "stale", "error", "x")) == "a.csv: stale: x"
