"""What a forecast is asked with: bars as JSON, checked bar by bar, and as the arrays models see."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from threading import Lock
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from foresweep.data.ahead import times_ahead
from foresweep.data.gate.exchanges import calendar_kept
from foresweep.data.gate.rules import TOLERANCE
from foresweep.data.panel import CLOSE, COLUMNS, HIGH, LOW, OPEN, VOLUME
from foresweep.data.windows import Context
from foresweep.errors import DataError, UsageError
from foresweep.models.base import DEFAULT_LEVELS, Array, Levels

Times = NDArray[np.datetime64]
FIRST_YEAR, LAST_YEAR = 1900, 2200
MOST_LEVELS = 99
LONGEST_NAME = 200
REMEMBERED = 4096
"""Calendars continued that are kept: a client asks again of the same bars."""
EXAMPLE_CLOSES = [round(100 * float(np.exp(0.01 * np.sin(k))), 2) for k in range(40)]
CLOSED = ["2024-01-15", "2024-02-19"]
"""New York's holidays: without them the example is held against every exchange, for seconds."""
EXAMPLE_DAYS = np.busday_offset("2024-01-02", np.arange(40), roll="forward", holidays=CLOSED)
EXAMPLE: dict[str, Any] = {
    "items": [
        {
            "item_id": "AAPL",
            "timestamp": [str(day) for day in EXAMPLE_DAYS],
            "open": EXAMPLE_CLOSES,
            "high": [round(1.01 * c, 2) for c in EXAMPLE_CLOSES],
            "low": [round(0.99 * c, 2) for c in EXAMPLE_CLOSES],
            "close": EXAMPLE_CLOSES,
        }
    ],
    "levels": [0.1, 0.5, 0.9],
}
"""A request that is answered as it stands."""

Price = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0)]
Volume = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]


class Unseen(Exception):
    """Times that nobody has asked about yet: to continue their calendar may take seconds."""

    def __init__(self, go_on: Callable[[], Question]) -> None:
        super().__init__("a calendar is not at hand")
        self.go_on = go_on
        """Finds the calendars and returns the question."""


class Series(BaseModel):
    """An item's bars, oldest first, a list a column: all of one length."""

    model_config = ConfigDict(extra="forbid")

    item_id: str = Field(min_length=1, max_length=LONGEST_NAME, description="A ticker, say.")
    timestamp: list[str] = Field(
        min_length=1, description="ISO dates or times of the bars, rising; without zone: UTC."
    )
    open: list[Price]
    high: list[Price]
    low: list[Price]
    close: list[Price]
    volume: list[Volume] | None = None


class Asked(BaseModel):
    """Bars of one or many items, and how far and at which quantiles to forecast."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE]})

    items: list[Series] = Field(min_length=1)
    horizon: int | None = Field(
        None,
        ge=1,
        strict=True,
        description="Bars ahead; default: what the champion was judged for.",
    )
    levels: list[Annotated[float, Field(strict=True, gt=0, lt=1)]] | None = Field(
        None, min_length=1, max_length=MOST_LEVELS,
        description="Quantiles between 0 and 1; 0.5 is always among them. Default: 0.1 to 0.9.",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """An item's bars as arrays."""

    item_id: str
    values: Array  # [n, 5]
    times: Times  # [n]
    ahead: Times  # [H]


@dataclass(frozen=True, slots=True)
class Question:
    """A request, checked: what can be forecast, and what is refused and why."""

    items: tuple[Item, ...]
    refused: dict[str, str]
    horizon: int
    levels: Levels


@dataclass(slots=True)
class Reader:
    """Turns bodies into questions. Not frozen: it remembers the calendars it has continued."""

    most_items: int
    most_horizon: int
    min_context: int
    _ahead: OrderedDict[bytes, Times] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def read(self, body: bytes, horizon: int, *, at_hand: bool = False) -> Question:
        """The question of a body; `horizon`: where it says none.

        Raises UsageError for what is not as the schema says, too much, or twice the same item;
        with `at_hand` Unseen where an item's calendar would first have to be looked for.
        """
        try:
            asked = Asked.model_validate_json(body)
        except ValidationError as error:
            raise UsageError(_first(error)) from error
        except RecursionError as error:
            raise UsageError("the body is nested too deep") from error
        return self.check(asked, horizon, at_hand=at_hand)

    def check(self, asked: Asked, horizon: int, *, at_hand: bool = False) -> Question:
        """The same of a body that was parsed."""
        if len(asked.items) > self.most_items:
            raise UsageError(f"items: {len(asked.items)} in one request, at most {self.most_items}")
        bars = asked.horizon or horizon
        if bars > self.most_horizon:
            raise UsageError(f"horizon: {bars}, at most {self.most_horizon}")
        names = [series.item_id for series in asked.items]
        if len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise UsageError(f"items: {twice!r} stands there twice")
        levels = DEFAULT_LEVELS
        if asked.levels is not None:
            levels = tuple(sorted({*asked.levels, 0.5}))
        read, refused = [], {}
        for series in asked.items:
            try:
                read.append((series.item_id, *self._bars(series)))
            except DataError as error:
                refused[series.item_id] = str(error)
        go_on = partial(self._continued, read, Question((), refused, bars, levels))
        if at_hand and not all(_key(times, bars) in self._ahead for _, _, times in read):
            raise Unseen(go_on)
        return go_on()

    def _continued(self, read: Sequence[tuple[str, Array, Times]], question: Question) -> Question:
        """The question with its items, each on the calendar that its bars keep, continued."""
        found, refused = [], dict(question.refused)
        for name, values, times in read:
            try:
                found.append(Item(name, values, times, self._ahead_of(times, question.horizon)))
            except DataError as error:
                refused[name] = str(error)
        return replace(question, items=tuple(found), refused=refused)

    def _bars(self, series: Series) -> tuple[Array, Times]:
        """(values [n, 5], times [n]). Raises DataError naming the bar that cannot be."""
        num = len(series.timestamp)
        columns = {name: getattr(series, name) for name in COLUMNS}
        columns["volume"] = series.volume if series.volume is not None else [0.0] * num
        for name, column in columns.items():
            if len(column) != num:
                raise DataError(f"{name} has {len(column)} values, timestamp has {num}")
        if num < self.min_context:
            raise DataError(f"{num} bars: at least {self.min_context} are needed")
        times = _times(series.timestamp)
        late = np.flatnonzero(np.diff(times) <= np.timedelta64(0))
        if len(late):
            raise DataError(f"bar {late[0] + 1}: {times[late[0] + 1]} does not come after the last")
        values = np.array([columns[name] for name in COLUMNS], dtype=np.float64).T.copy()
        _require_lawful(values)
        return values, times

    def _ahead_of(self, times: Times, horizon: int) -> Times:
        """[H] on the calendar that the bars keep, continued."""
        key = _key(times, horizon)
        with self._lock:
            if key in self._ahead:
                self._ahead.move_to_end(key)
                return self._ahead[key]
        ahead = times_ahead(times, horizon, calendar_kept(times))
        with self._lock:
            self._ahead[key] = ahead
            while len(self._ahead) > REMEMBERED:
                self._ahead.popitem(last=False)
        return ahead


def _key(times: Times, horizon: int) -> bytes:
    return hashlib.sha256(times.tobytes() + horizon.to_bytes(4, "little")).digest()


def context_of(items: list[Item], length: int) -> Context:
    """Windows that end at each item's last bar, seen through `length` bars."""
    num, width = len(items), len(COLUMNS)
    values = np.full((num, length, width), np.nan)
    times = np.full((num, length), np.datetime64("NaT"), dtype="datetime64[ns]")
    mask = np.zeros((num, length), dtype=bool)
    for n, item in enumerate(items):
        seen = min(length, len(item.values))
        values[n, length - seen :] = item.values[-seen:]
        times[n, length - seen :] = item.times[-seen:]
        mask[n, length - seen :] = True
    ahead = np.stack([item.ahead for item in items])
    return Context(values, COLUMNS, tuple(i.item_id for i in items), times, ahead, mask)


def _times(texts: list[str]) -> Times:
    """Raises DataError for what is no ISO time, and for a year that cannot be."""
    plain = _plain_times(texts)
    if plain is not None:
        return plain
    found = []
    for k, text in enumerate(texts):
        try:
            when = datetime.fromisoformat(text)
            if when.tzinfo is not None:
                when = when.astimezone(UTC).replace(tzinfo=None)
        except (ValueError, OverflowError):
            raise DataError(f"bar {k}: {text[:40]!r} is no ISO date or time") from None
        if not FIRST_YEAR <= when.year <= LAST_YEAR:
            raise DataError(f"bar {k}: {text[:40]!r} is not in {FIRST_YEAR} to {LAST_YEAR}")
        found.append(when)
    return np.array(found, dtype="datetime64[us]").astype("datetime64[ns]")


def _plain_times(texts: list[str]) -> Times | None:
    """The same for times all written as 2024-01-02, 2024-01-02T09:30 or 2024-01-02T09:30:00, thirty
    times faster; None for anything else, which is looked at one by one."""
    (length, *others) = {len(text) for text in texts}
    joined = "".join(texts)
    if others or length not in (10, 16, 19) or not joined.isascii():
        return None
    raw = np.frombuffer(joined.encode(), dtype=np.uint8).reshape(-1, length)
    if ((raw < _LOWEST[:length]) | (raw > _HIGHEST[:length])).any():
        return None
    years = (raw[:, :4] - ord("0")).astype(np.int64) @ (1000, 100, 10, 1)
    if years.min() < FIRST_YEAR or years.max() > LAST_YEAR:
        return None
    try:
        return np.array(texts, dtype="datetime64[s]").astype("datetime64[ns]")
    except ValueError:  # the 30th of February
        return None


_LOWEST, _HIGHEST = (
    np.frombuffer(text, dtype=np.uint8) for text in (b"0000-00-00T00:00:00", b"9999-99-99T99:99:99")
)


def _require_lawful(values: Array) -> None:
    """Raises DataError for the first bar whose high is below its low, or whose open or close is
    further outside of the two than rounding: the gate's rules for rows."""
    high, low = values[:, HIGH], values[:, LOW]
    bad = np.flatnonzero(high < low)
    if len(bad):
        raise DataError(f"bar {bad[0]}: high {high[bad[0]]} is below low {low[bad[0]]}")
    for name, column in (("open", OPEN), ("close", CLOSE)):
        price = values[:, column]
        slack = TOLERANCE * price
        out = np.flatnonzero((price > high + slack) | (price < low - slack))
        if len(out):
            k = out[0]
            raise DataError(f"bar {k}: {name} {price[k]} is outside of [{low[k]}, {high[k]}]")
    largest = np.abs(values).max(axis=0)
    if largest[:VOLUME].max() > 1e15 or values[:, :VOLUME].min() < 1e-15:
        raise DataError("prices must lie between 1e-15 and 1e15")
    if largest[VOLUME] > 1e24:
        raise DataError("volumes must lie below 1e24")


def _first(error: ValidationError) -> str:
    """`items.0.close.3: Input should be greater than 0`, and how many more."""
    every = error.errors(include_url=False, include_input=False)
    where = ".".join(str(part) for part in every[0]["loc"])
    more = f" (and {len(every) - 1} more)" if len(every) > 1 else ""
    return f"{f'{where}: ' if where else ''}{every[0]['msg']}{more}"[:500]
