"""What a user says about their files, which beats every guess."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from zoneinfo import ZoneInfo

from foresweep.data.reading.aliases import NAMES, ZONES
from foresweep.errors import ConfigError

SEPARATORS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


@dataclass(frozen=True)
class Overrules:
    """How files are to be read, where that is said and not guessed. Raises ConfigError."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """our name (date, open, ..., item) -> a column's name, or its number from 1"""
    day_first: bool | None = None  # 03/04/2020 is 3 April
    tz: str | None = None  # the clock of stamps that name none
    sep: str | None = None
    decimal: str | None = None

    def __post_init__(self) -> None:
        known = {*NAMES, "date", "time", "item"}
        for name in self.columns:
            if name not in known:
                raise ConfigError(f"columns: {name!r} is none of {', '.join(sorted(known))}")
        if self.decimal not in (None, ".", ","):
            raise ConfigError(f"decimal {self.decimal!r} must be . or ,")
        if self.sep is not None and len(self.separator or "") != 1:
            raise ConfigError(f"sep {self.sep!r} must be one character, or tab, space")
        _ = self.zone

    @property
    def chosen(self) -> dict[str, str]:
        """`columns` by our own names."""
        own = {"item": "item_id", "time": "clock"}
        return {own.get(k, k): v for k, v in self.columns.items()}

    @property
    def separator(self) -> str | None:
        return None if self.sep is None else SEPARATORS.get(self.sep.strip().lower(), self.sep)

    @cached_property
    def zone(self) -> str | None:
        return None if self.tz is None else zone_named(self.tz)


def zone_named(name: str) -> str:
    """An IANA zone of its own name or of a clock's (UTC, EST, +08:00). Raises ConfigError."""
    text = name.strip()
    if text.lower() in ZONES:
        return ZONES[text.lower()]
    try:
        return ZoneInfo(text).key
    except (ValueError, OSError, LookupError) as error:
        raise ConfigError(
            f"tz {name!r} is no zone that is known; use a name such as America/New_York, "
            f"Asia/Shanghai or UTC"
        ) from error


def columns_said(said: str) -> dict[str, str]:
    """`date=D,close=Last` as a mapping. Raises ConfigError."""
    found = {}
    for pair in said.split(","):
        name, sign, column = pair.partition("=")
        if not sign or not name.strip() or not column.strip():
            raise ConfigError(f"columns {pair!r}: say date=D,close=Last")
        found[name.strip().lower()] = column.strip()
    return found
