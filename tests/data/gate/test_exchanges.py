"""Which exchange's calendar items keep, and the dates to come on it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import polars as pl
import pytest

from foresweep.data.ahead import times_ahead
from foresweep.data.gate import exchanges
from foresweep.data.gate.exchanges import EXCHANGES, calendar_kept
from foresweep.data.panel import panel_from_frame
from foresweep.data.reading.sources import load_panel
from foresweep.data.summary import summarise
from panels import every_day, walk_frame, weekdays

PLACES = {e.code: e for e in EXCHANGES}
USED = ("XNYS", "XLON", "XETR", "XTKS", "XSHG", "XHKG", "XBOM")
"""By the tests here; Seoul's calendar takes seconds to make."""


@cache
def schedule(code: str) -> pd.DataFrame:
    import exchange_calendars

    return exchange_calendars.get_calendar(code, start="2023-01-01", end="2025-12-31").schedule


def days_of(code: str) -> np.ndarray:
    return np.asarray(schedule(code).index.to_numpy().astype("datetime64[ns]"))


def bars_of(code: str, step: str, *, at_end: bool = False, zone: str = "UTC") -> np.ndarray:
    """Times of intraday bars of every session, lunch breaks and half days kept."""
    out = []
    for opens, breaks, goes_on, closes in schedule(code).itertuples(index=False):
        lunch = not pd.isna(breaks) and breaks < closes
        for a, b in [(opens, breaks), (goes_on, closes)] if lunch else [(opens, closes)]:
            out.append(pd.date_range(a, b, freq=step, inclusive="right" if at_end else "left"))
    times = out[0].append(out[1:]).tz_convert(zone).tz_localize(None)
    return np.asarray(times.to_numpy().astype("datetime64[ns]"))


def ahead(times: np.ndarray, until: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(times to come after `until`, what came)."""
    n = int(np.searchsorted(times, np.datetime64(until)))
    return times_ahead(times[:n], count, calendar_kept(times[:n])), times[n : n + count]


@pytest.mark.parametrize("code", ["XETR", "XTKS", "XBOM"])
def test_days_to_come_leave_the_exchanges_own_holidays_out(code: str) -> None:
    got, wanted = ahead(days_of(code), "2024-06-20", 300)
    assert np.array_equal(got, wanted)


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize(
    ("code", "until"),
    [
        ("XNYS", "2024-03-08"),  # clocks go forward
        ("XNYS", "2024-07-02"),  # a half day and a holiday
        ("XLON", "2024-10-25"),  # clocks go back
        ("XHKG", "2024-02-08"),  # a half day that ends with lunch
        ("XSHG", "2024-04-30"),
    ],
)
def test_bars_to_come_keep_the_exchanges_clock_lunch_and_half_days(
    code: str, until: str, local: bool, at_end: bool
) -> None:
    zone = PLACES[code].zone if local else "UTC"
    times = bars_of(code, "30min", at_end=at_end, zone=zone)
    got, wanted = ahead(times[np.searchsorted(times, np.datetime64("2023-11-01")) :], until, 80)
    assert np.array_equal(got, wanted)


def test_beyond_the_years_whose_holidays_are_known_weekdays_are_taken_and_that_is_said() -> None:
    import exchange_calendars

    with pytest.raises(ValueError, match="only recorded"):
        exchange_calendars.get_calendar("XSHG", end="2035-12-31")
    days = days_of("XSHG")
    got, _ = ahead(days, "2025-12-20", 40)
    assert len(got) == 40
    assert np.is_busday(got.astype("datetime64[D]")).all()
    (note,) = [f.message for f in _report(days).findings if f.rule == "calendar"]
    assert "known to 2025-12-31" in note


def _report(days: np.ndarray, item: str = "X"):  # type: ignore[no-untyped-def]
    return load_panel(walk_frame(item, days)).report


def test_each_groups_exchange_and_its_missing_sessions_are_told() -> None:
    tokyo, york = days_of("XTKS"), days_of("XNYS")
    frames = [walk_frame(f"T{k}", np.delete(tokyo, [70 + k, 90])) for k in range(3)]
    frames += [walk_frame(f"N{k}", york) for k in range(3)]
    loaded = load_panel(pl.concat(frames))
    notes = [f.message for f in loaded.report.findings if f.rule == "calendar"]
    assert sorted(notes) == [
        "3 items: sessions of XNYS (New York)",
        "3 items: sessions of XTKS (Tokyo)",
    ]
    gone = [(f.item, str(tokyo[70 + k])[:10] in f.message) for k, f in enumerate(
        f for f in loaded.report.findings if f.rule == "missing_session" and f.item)]  # fmt: skip
    assert gone == [("T0", True), ("T1", True), ("T2", True)]
    shown = {i.item_id: i.calendar for i in summarise(loaded.panel).items}
    assert (shown["T0"], shown["N0"]) == ("XTKS", "XNYS")


def test_what_keeps_no_exchanges_days_keeps_its_own() -> None:
    cases = {
        "24/7": every_day(400),
        "24/5": weekdays(400),
        "": np.delete(weekdays(800), np.arange(5, 800, 20)),
    }
    for name, times in cases.items():
        (item,) = summarise(panel_from_frame(walk_frame("X", times))).items
        assert item.calendar == name
    sundays = every_day(600)
    sundays = sundays[(sundays.astype("datetime64[D]").astype(int) + 3) % 7 < 4]
    assert calendar_kept(sundays) is None


def test_an_exchange_is_not_named_without_evidence() -> None:
    spring = days_of("XNYS")
    spring = spring[
        (spring >= np.datetime64("2024-02-20")) & (spring < np.datetime64("2024-05-25"))
    ]
    assert not getattr(calendar_kept(spring), "is_exchange", False)  # one holiday: Good Friday
    few = days_of("XETR")
    few = few[(few >= np.datetime64("2024-01-02")) & (few < np.datetime64("2024-07-20"))]
    kept = calendar_kept(few)
    assert kept is not None
    assert (kept.name, kept.also) == ("XETR", ("XPAR",))


def test_hours_of_no_exchange_stay_on_the_clock_on_which_they_stand_still() -> None:
    hours = pd.date_range("2023-01-01", "2024-12-31", freq="h", tz="America/New_York")
    early = hours[(hours.dayofweek < 5) & (hours.hour >= 4) & (hours.hour < 20)]
    times = early.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[ns]")
    got, wanted = ahead(times, "2024-03-08", 60)
    assert np.array_equal(got, wanted)


def test_minutes_round_the_clock_go_on_at_once() -> None:
    times = np.datetime64("2024-01-01T00:00", "ns") + np.arange(30_000) * np.timedelta64(1, "m")
    got, wanted = ahead(times, "2024-01-20", 50)
    assert np.array_equal(got, wanted)


def test_the_dated_holidays_and_hours_are_the_calendars_own() -> None:
    for code in USED:
        rows, known = schedule(code), PLACES[code]
        dated = {f"{day:%m-%d}" for day in rows.index}
        assert not dated & set(known.holidays)
        local = rows["open"].dt.tz_convert(known.zone)
        assert local.dt.strftime("%-H:%M").mode()[0] == "{}:{:02}".format(
            *divmod(known.hours[0][0], 60)
        )


@pytest.mark.parametrize(("first", "last"), [(2014, 2016), (2025, 2027), (1988, 1992)])
def test_some_years_of_a_calendar_are_what_they_would_be_made_alone(first: int, last: int) -> None:
    """Shanghai's, whose holidays are known to some year, and which began within a decade."""
    found, alone = exchanges._within("XSHG", first, last), exchanges._made("XSHG", first, last)
    assert found.days.tolist() == alone.days.tolist()
    assert (found.opens.tolist(), found.closes.tolist()) == (
        alone.opens.tolist(),
        alone.closes.tolist(),
    )
    assert found.last_known == alone.last_known
