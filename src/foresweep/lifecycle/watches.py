"""What a monitor looks at beside losses: is the feed alive, are the inputs what they were.

Only a dead feed is an ALARM. Inputs that look otherwise than in training are a WATCH: prices change
their ways every year without a forecast being the worse for it, and a test of levels finds
something in every second honest year.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from foresweep.data.panel import CLOSE, Array, Panel

RECENT = 60
"""Bars that are held against the history before."""
USUAL = (0.01, 0.99)
"""Quantiles of the history's own stretches of RECENT bars that are nothing unusual."""
LATE_BARS = 2
"""Bars that are due and not there, from which on a feed counts as dead."""
STRIKING = 3.0
"""Standard errors from which on a share or a mean is worth a look."""
FEWEST_MISSING = 0.01
"""A smaller share of missing bars is not worth a word."""
AHEAD = 64
"""Bars to come that are looked at: a feed is dead long before."""


class State(StrEnum):
    """How a champion does, from calm to not."""

    OK = "OK"
    WATCH = "WATCH"
    ALARM = "ALARM"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a state is what it is, in words that carry the numbers."""

    state: State
    kind: str  # no-truth, no-forecast, benchmark, last-value, level, coverage, volatility ...
    text: str


def worst(reasons: Collection[Reason]) -> State:
    """The state that these reasons make together."""
    order = list(State)
    return max((r.state for r in reasons), key=order.index, default=State.OK)


# Is the feed alive?


def bars_due(panel: Panel, now: np.datetime64) -> tuple[int, np.datetime64]:
    """Bars that are due at `now` (UTC) and not in the panel, of the calendar that lacks most, and
    that calendar's last bar.

    A bar is due when the one after it begins, on the sessions of the exchange or at the bars' own
    spacing: a weekend or a holiday is no silence.
    """
    found = [(0, panel.timeline[-1])]
    for kind, calendar in enumerate(panel.calendars):
        item = panel.calendar_of.index(kind)
        last = np.array([len(calendar) - 1])
        ahead = panel.sessions_ahead(np.array([item]), last, AHEAD)[0]
        begun = int((ahead <= now).sum())
        found.append((max(0, begun - 1), panel.timeline[calendar[-1]]))
    return max(found, key=lambda f: f[0])


def feed_reasons(panel: Panel, now: np.datetime64) -> list[Reason]:
    """An ALARM where LATE_BARS bars or more are due and not there."""
    late, last = bars_due(panel, now)
    if late < LATE_BARS:
        return []
    count = f"{late} bars are" if late < AHEAD - 1 else f"{late} bars or more are"
    return [
        Reason(State.ALARM, "no-truth", f"no truth since {day(last)}: {count} due and not there")
    ]


def forecast_reasons(
    panel: Panel, last_origin: np.datetime64 | None, since: np.datetime64, every: int
) -> list[Reason]:
    """An ALARM where the last forecast's origin (None: there is none `since` the champion went into
    service) is more than `every` bars, and one for the time it takes, behind the newest bar."""
    behind = since if last_origin is None else last_origin
    bars = int((panel.timeline[panel.eligible] > behind).sum())
    if bars <= every + (last_origin is None):
        return []
    who = "the champion went into service on " if last_origin is None else ""
    every_bar = "every bar" if every == 1 else f"every {every} bars"
    return [
        Reason(
            State.ALARM,
            "no-forecast",
            f"no forecast since {who}{day(behind)}: {bars} bars have come since, and one is to be "
            f"made {every_bar}",
        )
    ]


# Are the inputs what they were?


def input_reasons(panel: Panel, until: np.datetime64, known: Collection[str]) -> list[Reason]:
    """WATCHes: bars of the panel held against those up to `until`, the last that the champion was
    trained, tuned or selected on, and its items against the `known` ones."""
    return [
        *_volatility(panel, until),
        *_missing(panel, until),
        *_items(panel, until, known),
    ]


def _volatility(panel: Panel, until: np.datetime64) -> list[Reason]:
    """Where most items' last RECENT bars moved more, or less, than nearly all stretches as long."""
    ranks, factors = [], []
    for i in range(panel.num_items):
        closes, times = panel.bars[i].values[:, CLOSE], panel.timestamps_of(i)
        size = _rolling(closes)
        before = size[times[RECENT:] <= until]
        if len(before) < RECENT or times[-1] <= until:
            continue
        ranks.append(float((before < size[-1]).mean()))
        factors.append(float(size[-1] / np.median(before)) if np.median(before) > 0 else np.inf)
    if not ranks:
        return []
    low, high = (np.mean(x) for x in (np.array(ranks) < USUAL[0], np.array(ranks) > USUAL[1]))
    if max(low, high) <= 0.5:
        return []
    word = "less than 99 %" if low > high else "more than 99 %"
    return [
        Reason(
            State.WATCH,
            "volatility",
            f"volatility of the last {RECENT} bars is {np.median(factors):.2g} times its usual, "
            f"{word} of the history for {round(100 * max(low, high))} % of the items",
        )
    ]


def _rolling(closes: Array) -> Array:
    """[n - RECENT] root mean square of the log returns over RECENT bars up to each row."""
    if len(closes) <= RECENT:
        return np.empty(0)
    total = np.concatenate([[0.0], np.cumsum(np.diff(np.log(closes)) ** 2)])
    found: Array = np.sqrt(np.maximum(total[RECENT:] - total[:-RECENT], 0.0) / RECENT)
    return found


def _missing(panel: Panel, until: np.datetime64) -> list[Reason]:
    """Where more of the last RECENT sessions have no whole bar than chance makes of the history."""
    there, due, before, before_due = 0, 0, 0, 0
    for i in range(panel.num_items):
        times = panel.timeline[panel.calendars[panel.calendar_of[i]]]
        own, sessions = panel.timestamps_of(i), panel.bars[i].sessions
        last = len(times)
        if own[-1] <= until:  # ended before: not missed
            continue
        recent = np.arange(max(int(sessions[0]), last - RECENT), last)
        due += len(recent)
        there += int(np.isin(recent, sessions).sum())
        old = sessions[own <= until]
        if len(old):
            before_due += int(np.searchsorted(times, until, side="right")) - int(old[0])
            before += len(old)
    if not due or not before_due:
        return []
    share, usual = 1 - there / due, 1 - before / before_due
    error = np.sqrt(max(usual * (1 - usual), 1 / before_due) / due)
    if share < FEWEST_MISSING or share <= usual + STRIKING * error:
        return []
    return [
        Reason(
            State.WATCH,
            "missing",
            f"{100 * share:.1f} % of the last {RECENT} sessions have no whole bar, "
            f"{100 * usual:.1f} % before",
        )
    ]


def _items(panel: Panel, until: np.datetime64, known: Collection[str]) -> list[Reason]:
    """Items that the champion never saw, and those that have ended since."""
    if not known:
        return []
    new = [i for i in panel.items if i not in known]
    calendars = [panel.timeline[c] for c in panel.calendars]
    ended = [i for i in known if i not in panel.items]
    for n, item in enumerate(panel.items):
        times, own = calendars[panel.calendar_of[n]], panel.timestamps_of(n)[-1]
        if item in known and own > until and int((times > own).sum()) > RECENT // 3:
            ended.append(item)
    found = []
    if new:
        found.append(Reason(State.WATCH, "new-items", f"never seen in training: {_some(new)}"))
    if ended:
        found.append(Reason(State.WATCH, "ended-items", f"no bars any more: {_some(ended)}"))
    return found


def day(time: np.datetime64) -> str:
    """A bar's time as people write it: the day, and the clock where it has one."""
    return str(time.astype("datetime64[m]")).replace("T00:00", "").replace("T", " ")


def _some(names: Collection[str]) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return ", ".join(shown[:8]) + more


# Are the losses and the coverage what they were on val? A look, never a proof.


def level_reasons(
    live: Array, before: float, before_error: float, what: str, *, kind: str, lags: int
) -> list[Reason]:
    """A WATCH where the mean of `live` [T], one number an origin, lies STRIKING standard errors
    from what it was on val: raw levels, which move with the market and prove nothing."""
    if len(live) < RECENT // 3 or not np.isfinite(before):
        return []
    gap = float(live.mean()) - before
    error = float(np.hypot(mean_error(live, lags), before_error))
    if not error > 0 or abs(gap) <= STRIKING * error:
        return []
    return [
        Reason(
            State.WATCH,
            kind,
            f"{what} is {live.mean():.3g} live, {before:.3g} on val ({gap / error:+.1f} standard "
            f"errors)",
        )
    ]


def mean_error(values: Array, lags: int) -> float:
    """Standard error of a mean of [T] values in time order, by the mean of non-overlapping blocks
    of two horizons or ten values."""
    block = max(2 * (lags + 1), min(10, len(values) // 5))
    num = len(values) // block
    if num < 2:
        return np.inf
    means = values[: num * block].reshape(num, block).mean(axis=1)
    return float(means.std(ddof=1) / np.sqrt(num))
