"""The data gate: findings that name file, row and rule; bad rows are masked, bad items dropped.

Nothing is repaired, filled or clipped. The gate's way:

    raw items -> order -> rows -> adjustment -> flips -> splits -> item rules -> panel rules
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

from foresweep.data.gate.actions import Draft
from foresweep.errors import DataError

Severity = Literal["error", "warning", "note"]

_ERRORS = {
    "unreadable": "The file is no table that can be read (or cannot be opened).",
    "encoding": "The text is of no encoding that is known, or breaks off: save it as UTF-8.",
    "empty_file": "The file holds no rows.",
    "missing_column": "A required column (a timestamp, open, high, low, close) is not there.",
    "no_header": "No line names the columns, and the rows are of no vendor's own form.",
    "ambiguous_column": "Two columns have one name, for example Close and close, or could be one "
    "thing, for example Last and Settle.",
    "ambiguous_dates": "The dates can be read in two ways and no row tells which is right.",
    "ambiguous_numbers": "The decimal sign can be read in two ways and no number tells.",
    "unreadable_dates": "No date of the years 1900 to next year is found.",
    "ambiguous_item": "Two files of one folder give the same item.",
    "unsorted": "Timestamps go forward and backward.",
    "contradictory_timestamps": "Two different rows have the same timestamp.",
    "too_many_bad_rows": "More than 1 % of the rows (and more than one) are bad.",
    "too_short": "Fewer than 64 whole rows.",
    "stale": "The close stands still for more than 20 bars, and for half of all: a dead feed.",
    "mixed_frequency": "The rhythm of the bars changes, or is not that of the other items.",
    "split_jump": "A jump within 2 % of a split ratio that lasts, on a day as quiet as the others, "
    "with no adjusted close and no entry in an actions file (ratio 1 says that the move was real).",
    "action_contradicted": "The actions file names a split that the prices do not show: they are "
    "adjusted already, or the date is wrong.",
}
_WARNINGS = {
    "nameless_item": "Rows of a long table have no item: they are left out.",
    "bad_timestamp": "The timestamp cannot be read: the row is left out.",
    "not_a_number": "Text in a number's place: the row is masked.",
    "missing_price": "A price is missing or infinite: the row is masked.",
    "non_positive_price": "A price is zero or negative: the row is masked.",
    "high_below_low": "High is below low: the row is masked.",
    "open_close_outside": "Open or close lies outside [low, high] by more than 0.1 % of the price: "
    "the row is masked.",
    "missing_adjusted": "The adjusted close is missing or not positive: the row is masked.",
    "patchy_adjusted": "More than 1 % of the adjusted closes are missing: the item is used as it "
    "was traded.",
    "adjusted_contradicted": "The adjusted close steps against the close and no dividend or split "
    "explains it: the item is used as it was traded, but for the splits that both show.",
    "missing_volume": "The volume is missing or negative: the row is masked.",
    "patchy_open": "More than 1 % of the opens are missing or outside [low, high] of bars that are "
    "sound else: the item's open is not used, its close stands there.",
    "bad_beginning": "The beginning is bad (5 % of its rows), or of another rhythm, and most of "
    "the item is good: it is cut to that.",
    "patchy_volume": "More than 1 % of the volumes are missing: the item's volume is not used.",
    "patchy_amount": "Some amounts are missing: the item's amount is taken as volume times price.",
    "suspended": "Days on which nothing was traded (one price, that of the day before, and no "
    "volume): they are set aside.",
    "stale_stretch": "The close stands still for more than 20 bars: the repeats are set aside.",
    "repeated_hour": "A clock is put back and the hour comes twice: its bars are set aside (--tz "
    "tells them apart).",
    "price_flip": "A price jumps and comes back within three bars: the rows are masked.",
    "duplicate_row": "The row repeats another word for word: one of them is left out.",
    "lonely_bar": "A bar where next to no other item has one (a holiday, a weekend): left out.",
    "large_jump": "A jump like a split's in adjusted or round-the-clock prices: kept as real.",
    "event_jump": "A large gap near no split ratio, on a day as quiet as the others (a spin-off, a "
    "special dividend, a takeover): kept as real; an actions file can say what it was.",
    "synthetic": "The series does not look like market prices.",
    "missing_session": "Sessions of the exchange's calendar have no bar.",
    "unused_action": "The actions file names an item or a date that is not used.",
}
_NOTES = {
    "read_as": "How the file was read where that had to be guessed; --columns, --day-first, --tz, "
    "--sep and --decimal overrule it.",
    "unused_column": "Columns of the file that are not used.",
    "not_prices": "A file beside the others holds no prices: it is passed over.",
    "event_line": "Lines tell of a dividend or a split: they are no bars and left out.",
    "footer": "Lines above or under the table are no bars: they are left out.",
    "newest_first": "The file runs from newest to oldest: it is read backwards.",
    "calendar": "The exchange whose sessions the items keep: dates to come follow it.",
    "joined": "Files of a train folder and its test folder were joined item by item; the parts "
    "are cut by time.",
    "only_in_test": "The item is only in the test folder: it is not used.",
    "price_limit": "Days closed at the exchange's price limit: they are kept, though there may "
    "have been nobody to trade with at that price.",
    "told_split": "The file tells splits and its prices show them: older bars are brought to the "
    "new terms.",
    "large_move": "A jump by more than a fifth on a busy day: kept as real; an actions file can "
    "say that it was none.",
    "survivorship": "No item ends before the others: such a panel holds only survivors, and "
    "results on it are too good.",
}
RULES: Mapping[str, str] = MappingProxyType(_ERRORS | _WARNINGS | _NOTES)
"""Every rule of the gate and what it says."""


def severity_of(rule: str) -> Severity:
    """error: the item or file is dropped; warning: rows are masked or doubt is raised; note."""
    return "error" if rule in _ERRORS else "warning" if rule in _WARNINGS else "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the gate saw."""

    file: str
    item: str | None
    row: int | None  # line of a CSV file (the header is line 1), row of other tables from 1
    rule: str
    severity: Severity
    message: str

    def __str__(self) -> str:
        place = self.file if self.row is None else f"{self.file}:{self.row}"
        return f"{place}: {self.rule}: {self.message}"


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What the gate saw and what it let through."""

    source: str
    findings: tuple[Finding, ...]
    items: tuple[str, ...]  # let through
    dropped: tuple[str, ...]  # items that were left out (a file that cannot be read by its stem)
    num_rows: int  # rows let through, masked ones included
    num_masked: int
    drafts: tuple[Draft, ...] = ()  # what an actions file might say of the jumps, likeliest first

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == "warning")

    @property
    def counts(self) -> dict[str, int]:
        """Findings by rule, most frequent first."""
        return dict(Counter(f.rule for f in self.findings).most_common())

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: what a sweep stores."""
        return asdict(self) | {"counts": self.counts}


class NothingLeft(DataError):
    """No item passed the gate; `report` says why."""

    def __init__(self, report: QualityReport) -> None:
        super().__init__(f"{report.source}: no usable item; {first_lines(report.findings)}")
        self.report = report


def found(
    rule: str, message: str, *, file: str, item: str | None, row: int | None = None
) -> Finding:
    """A finding with its rule's severity."""
    return Finding(file, item, row, rule, severity_of(rule), message)


def first_lines(findings: Sequence[Finding], count: int = 3) -> str:
    """The first findings in one line, errors first, and how many more there are."""
    order = sorted(findings, key=lambda f: ("error", "warning", "note").index(f.severity))
    more = f"; and {len(order) - count} more findings" if len(order) > count else ""
    return "; ".join(str(f) for f in order[:count]) + more
