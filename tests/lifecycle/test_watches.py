"""What a monitor watches beside losses: the feed, and whether the inputs are what they were."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from foresweep.data.panel import Panel, panel_from_frame
from foresweep.lifecycle.watches import (
    LATE_BARS,
    RECENT,
    Reason,
    State,
    bars_due,
    feed_reasons,
    forecast_reasons,
    input_reasons,
    level_reasons,
    worst,
)
from panels import every_day, make_panel, walk_frame, weekdays

BARS = 600
TIMES = weekdays(BARS, "2018-01-08")
UNTIL = TIMES[450]


def at(text: str) -> np.datetime64:
    return np.datetime64(text, "ns")


def nyse(num_bars: int = 700, end: str = "2021-06-30") -> Panel:
    """Three items on the sessions of New York, to a day before a weekend and a holiday."""
    import exchange_calendars

    sessions = exchange_calendars.get_calendar("XNYS", start="2018-01-02").sessions
    times = sessions[sessions <= end].to_numpy().astype("datetime64[ns]")[-num_bars:]
    return panel_from_frame(pl.concat([walk_frame(f"A{k}", times, k) for k in range(3)]))


def kinds(reasons: list[Reason]) -> set[str]:
    return {r.kind for r in reasons}


def test_a_bar_is_due_when_the_next_one_begins() -> None:
    panel = nyse(end="2021-06-30")  # a Wednesday; Monday the 5th of July is a holiday
    assert str(panel.timeline[-1])[:10] == "2021-06-30"
    expected = {
        "2021-06-30T22:00": 0,
        "2021-07-01T22:00": 0,  # Thursday's bar is due on Friday
        "2021-07-02T01:00": 1,
        "2021-07-05T23:00": 1,  # Friday's on Tuesday: Monday is a holiday
        "2021-07-06T01:00": 2,
        "2021-07-07T01:00": 3,
    }
    assert {t: bars_due(panel, at(t))[0] for t in expected} == expected


def test_a_feed_is_dead_when_two_bars_are_due_and_not_there() -> None:
    panel = nyse()
    assert feed_reasons(panel, at("2021-07-05T23:00")) == []
    (reason,) = feed_reasons(panel, at("2021-07-06T12:00"))
    assert (reason.state, reason.kind) == (State.ALARM, "no-truth")
    assert "no truth since 2021-06-30: 2 bars are due" in reason.text


def test_of_several_calendars_the_one_that_lacks_most_counts() -> None:
    stocks = walk_frame("STOCK", weekdays(400, "2019-01-07"))
    last = stocks["timestamp"].to_numpy()[-1]
    coins = walk_frame("COIN", every_day(560, "2019-01-07"))
    coins = coins.filter(pl.col("timestamp") <= last - np.timedelta64(3, "D"))
    panel = panel_from_frame(pl.concat([stocks, coins]))
    late, since = bars_due(panel, last + np.timedelta64(12, "h"))
    assert (late, since) == (2, last - np.timedelta64(3, "D"))


def test_a_calm_feed_far_in_the_future_is_a_dead_one() -> None:
    (reason,) = feed_reasons(make_panel(), at("2040-01-01"))
    assert "or more are due" in reason.text


@pytest.mark.parametrize(("behind", "every", "alarms"), [(1, 1, False), (2, 1, True),
                                                         (5, 5, False), (6, 5, True)])  # fmt: skip
def test_forecasts_that_stay_away_are_an_alarm(behind: int, every: int, alarms: bool) -> None:
    panel = make_panel()
    origin = panel.timeline[-1 - behind]
    found = forecast_reasons(panel, origin, panel.timeline[0], every)
    assert kinds(found) == ({"no-forecast"} if alarms else set())


def test_a_champion_that_never_forecast_is_an_alarm_from_its_second_bar_on() -> None:
    panel = make_panel()
    assert not forecast_reasons(panel, None, panel.timeline[-3], 1)
    (reason,) = forecast_reasons(panel, None, panel.timeline[-4], 1)
    assert "since the champion went into service on" in reason.text


def wilder(factor: float, last: int = RECENT) -> Panel:
    """Three items whose last bars move so many times as much."""
    frames = []
    for k in range(3):
        frame = walk_frame(f"A{k}", TIMES, k)
        returns = np.diff(np.log(frame["close"].to_numpy()), prepend=np.log(100.0))
        returns[-last:] *= factor
        close = 100 * np.exp(np.cumsum(returns))
        prices = dict.fromkeys(("open", "high", "low", "close"), close)
        frames.append(frame.with_columns(**{c: pl.Series(v) for c, v in prices.items()}))
    return panel_from_frame(pl.concat(frames))


def test_inputs_like_those_of_training_are_nothing_to_watch() -> None:
    assert input_reasons(wilder(1.0), UNTIL, ("A0", "A1", "A2")) == []


@pytest.mark.parametrize(("factor", "word"), [(4.0, "more than 99 %"), (0.2, "less than 99 %")])
def test_another_volatility_is_watched(factor: float, word: str) -> None:
    (reason,) = input_reasons(wilder(factor), UNTIL, ("A0", "A1", "A2"))
    assert (reason.state, reason.kind) == (State.WATCH, "volatility")
    assert word in reason.text


def test_one_wild_item_of_three_is_not() -> None:
    calm, wild = wilder(1.0).to_frame(), wilder(4.0).to_frame()
    one = pl.col("item_id") == "A0"
    panel = panel_from_frame(pl.concat([wild.filter(one), calm.filter(~one)]))
    assert input_reasons(panel, UNTIL, ("A0", "A1", "A2")) == []


def test_bars_that_stay_away_are_watched() -> None:
    frame = wilder(1.0).to_frame()
    gone = np.isin(frame["timestamp"].to_numpy(), TIMES[-40:-1:4])
    panel = panel_from_frame(frame.filter(~(pl.Series(gone) & (frame["item_id"] == "A1"))))
    (reason,) = input_reasons(panel, UNTIL, ("A0", "A1", "A2"))
    assert reason.kind == "missing"
    assert "5.6 % of the last 60 sessions have no whole bar, 0.0 % before" in reason.text


def test_items_that_come_and_go_are_watched() -> None:
    panel = wilder(1.0)
    found = input_reasons(panel, UNTIL, ("A0", "A1", "GONE"))
    assert {r.kind: r.text for r in found} == {
        "new-items": "never seen in training: A2",
        "ended-items": "no bars any more: GONE",
    }
    frame = panel.to_frame()
    ended = frame.filter((pl.col("item_id") != "A0") | (pl.col("timestamp") <= TIMES[-25]))
    found = input_reasons(panel_from_frame(ended), UNTIL, ("A0", "A1", "A2"))
    assert "no bars any more: A0" in {r.text for r in found}


def test_a_level_is_watched_when_it_left_that_of_val() -> None:
    live = 1 + 0.3 * np.random.default_rng(0).standard_normal(100)
    assert level_reasons(live, 1.0, 0.03, "pct_mae", kind="level", lags=0) == []
    for moved, sign in ((live + 0.5, "(+"), (live - 0.5, "(-")):
        (reason,) = level_reasons(moved, 1.0, 0.03, "pct_mae", kind="level", lags=0)
        assert (reason.state, reason.kind) == (State.WATCH, "level")
        assert sign in reason.text


def test_few_losses_say_nothing_of_a_level() -> None:
    few = np.full(RECENT // 3 - 1, 9.0)
    assert level_reasons(few, 1.0, 0.01, "pct_mae", kind="level", lags=0) == []


def test_the_worst_reason_makes_the_state() -> None:
    watch, alarm = Reason(State.WATCH, "level", ""), Reason(State.ALARM, "no-truth", "")
    assert [worst(x) for x in ([], [watch], [watch, alarm])] == ["OK", "WATCH", "ALARM"]
    assert LATE_BARS > 1  # a bar that comes a little late wakes nobody
