"""From an expression or a key to sort by to the SQL that the database answers.

A run without a value passes no comparison, and no negated one, as in SQL.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, exists, literal, or_, select

from foresweep.errors import UsageError
from foresweep.tracker import schema
from foresweep.tracker.terms import Column, Condition, Meaning, Terms
from foresweep.tracker.where import (
    All,
    Among,
    AnyOf,
    Compare,
    Contains,
    Expression,
    IsNull,
    Name,
    Not,
    Term,
    Value,
    parse,
    parse_name,
)

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What else a run must be to be listed; an empty field asks for nothing."""

    where: str | None = None  # in the language of `where.py`
    tags: Sequence[str] = ()  # all of them
    hyperparams: Mapping[str, Any] = field(default_factory=dict)
    """A value, or (least, most) with None for an open end."""
    git_commit: str | None = None  # the beginning of one
    created_after: datetime | None = None
    created_before: datetime | None = None

    def conditions(self, connection: Connection) -> list[Any]:
        """The SQL. Raises UsageError, UnknownName."""
        asked = Conditions(connection, "")
        found: list[Any] = [asked.tagged(tag) for tag in self.tags]
        for name, wanted in self.hyperparams.items():
            found += asked.hyperparam_is(name, wanted)
        if self.git_commit is not None:
            found.append(schema.runs.c.git_commit.startswith(self.git_commit, autoescape=True))
        if self.created_after is not None:
            found.append(schema.runs.c.created_at >= self.created_after)
        if self.created_before is not None:
            found.append(schema.runs.c.created_at < self.created_before)
        return found + ([condition(connection, self.where)] if self.where is not None else [])


def condition(connection: Connection, text: str) -> Condition:
    """The SQL of an expression over `runs`. Raises UsageError that points at the place."""
    return Conditions(connection, text).sql(parse(text))


def order_by(connection: Connection, key: str) -> list[Column]:
    """ORDER BY of `KEY`, `KEY:asc` or `KEY:desc`; runs without the value come last.

    Raises UsageError, UnknownName.
    """
    name, colon, way = key.rpartition(":")
    if colon and way.strip().lower() not in ("asc", "desc"):
        raise UsageError(f"--sort {key!r}: after the colon stands asc or desc, not {way!r}")
    name = name if colon else key
    terms = Terms(connection, name)
    meaning = terms.meaning(parse_name(name))
    if not meaning.columns:
        raise UsageError(f"--sort {key!r}: runs cannot be sorted by {meaning.kind}")
    found: list[Column] = []
    for column in meaning.columns:
        ranked = column.desc() if way.strip().lower() == "desc" and colon else column.asc()
        found += [column.is_(None), ranked]
    return found


class Conditions(Terms):
    """The tests of one expression as SQL."""

    def sql(self, expression: Expression) -> Condition:
        match expression:
            case All(parts):
                return sa.and_(*(self.sql(part) for part in parts))
            case AnyOf(parts):
                return or_(*(self.sql(part) for part in parts))
            case Not(inner):
                return sa.not_(self.sql(inner))
            case IsNull(name):
                return self._is_null(self.meaning(name))
            case Contains(name, text):
                return self._contains(name, text)
            case Among(name, values):
                return or_(*(self._compare(name, "=", value) for value in values))
            case Compare(left, mark, right):
                return self._compare_terms(left, mark, right)

    def tagged(self, tag: str) -> Condition:
        """Has the run this tag?"""
        return self._compare(Name("tag", 0), "=", Value(tag, 0))

    def hyperparam_is(self, name: str, wanted: Any) -> list[Condition]:
        """Is a hyperparameter this value, or in (least, most)? Raises UsageError."""
        hyper = Name(name, 0, call="hp")
        if wanted is None:
            return [self._is_null(self.meaning(hyper))]
        if not isinstance(wanted, tuple):
            return [self._compare(hyper, "=", Value(wanted, 0))]
        if len(wanted) != 2:
            raise UsageError(f"{name}: a range is (least, most), not {wanted!r}")
        ends = zip((">=", "<="), wanted, strict=True)
        return [self._compare(hyper, mark, Value(v, 0)) for mark, v in ends if v is not None]

    def _is_null(self, meaning: Meaning) -> Condition:
        if meaning.listed is not None:
            return sa.not_(_some(meaning.listed, None))
        if meaning.given is not None:
            return sa.not_(meaning.given)
        return sa.and_(*(column.is_(None) for column in meaning.columns))

    def _contains(self, name: Name, text: str) -> Condition:
        meaning = self.meaning(name)
        if meaning.listed is not None:
            return _some(meaning.listed, meaning.listed.icontains(text, autoescape=True))
        if meaning.text is None:
            raise self.wrong(name.at, f"{name.name} is {meaning.kind}; only a text contains")
        return meaning.text.icontains(text, autoescape=True)

    def _compare_terms(self, left: Term, mark: str, right: Term) -> Condition:
        if isinstance(left, Value):
            turned = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(mark, mark)
            return self._compare_terms(right, turned, left)
        if isinstance(right, Value):
            return self._compare(left, mark, right)
        meaning = self.meaning(left)
        if meaning.number is None:  # model = toto: a bare word beside a text is a text
            if right.call:
                raise self.wrong(right.at, f"{left.name} is {meaning.kind}")
            return self._compare(left, mark, Value(right.name, right.at))
        other = self.meaning(right)
        if other.number is None:
            raise self.wrong(right.at, f"{right.name} is {other.kind}, {left.name} is not")
        return self._done(mark, meaning.number, other.number)

    def _compare(self, name: Name, mark: str, value: Value) -> Condition:
        meaning = self.meaning(name)
        match value.value:
            case bool() as flag if meaning.flag is not None:
                self._only_equal(name, mark, "true and false")
                return self._done(mark, meaning.flag, literal(flag, sa.Boolean()))
            case bool():
                pass
            case int() | float() as number if meaning.number is not None:
                return self._done(mark, meaning.number, literal(float(number), sa.Double()))
            case str() as text if meaning.moment is not None:
                return self._when(name, mark, meaning.moment, replace(value, value=text))
            case str() as text if meaning.listed is not None:
                self._only_equal(name, mark, "tags")
                found = _some(meaning.listed, meaning.listed == literal(text, sa.Text()))
                return found if mark == "=" else sa.not_(found)
            case str() as text if meaning.text is not None:
                self._only_equal(name, mark, "texts")
                return self._done(mark, meaning.text, literal(text, sa.Text()))
        raise self.wrong(value.at, f"{name.name} is {meaning.kind}, {value.value!r} is not")

    def _when(self, name: Name, mark: str, moment: Column, value: Value) -> Condition:
        if mark in ("=", "!="):
            raise self.wrong(name.at, "a moment is compared with < <= > >=")
        try:
            at = datetime.fromisoformat(str(value.value))
            at = (at.replace(tzinfo=UTC) if at.tzinfo is None else at).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise self.wrong(
                value.at, "write a moment as 2026-11-22 or 2026-11-22T17:45"
            ) from error
        return self._done(mark, moment, literal(at, schema.Instant()))

    def _only_equal(self, name: Name, mark: str, what: str) -> None:
        if mark not in ("=", "!="):
            raise self.wrong(name.at, f"{what} are compared with = and !=, not with {mark}")

    def _done(self, mark: str, left: Column, right: Column) -> Condition:
        found: Condition = _COMPARE[mark](left, right)
        return found


def _some(value: Column, wanted: Condition | None) -> Condition:
    """Is there a value in the list that is wanted (None: any value)?"""
    query = select(value) if wanted is None else select(value).where(wanted)
    return exists(query)
