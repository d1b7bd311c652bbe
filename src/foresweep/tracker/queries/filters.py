"""`--where` and `--sort`: the language, what its names mean, and the SQL it becomes.

A run without a value passes no comparison, and no negated one, as in SQL.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, exists, func, literal, or_, select

from foresweep.errors import UnknownName, UsageError
from foresweep.records import is_sealed, split_name
from foresweep.tracker.storage import schema

# The language of `--where`: a text becomes a small tree, or an error that points at the place.
#
#     expression  or-parts of and-parts of [not] tests, with parentheses
#     test        term < <= > >= = == != <> term [< term ...]  |  term [not] in (value, ...)
#                 | term is [not] null  |  term contains "text"
#     term        a name, NAME("a name"), a number, "a text", true, false
#
# It knows neither SQL nor the database: `terms.py` gives the names their meaning.


MAX_LENGTH = 4000
MAX_DEPTH = 40
MAX_TESTS = 200
"""Past these a database would give up; nobody writes so much by hand."""

COMPARISONS = ("<=", ">=", "==", "!=", "<>", "<", ">", "=")
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'
        |\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?)?)
    | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<name>[^\W\d][\w./-]*)
    | (?P<mark><=|>=|==|!=|<>|[<>=(),])
    )""",
    re.VERBOSE,
)
_WORDS = ("and", "or", "not", "in", "is", "null", "none", "contains", "true", "false")


@dataclass(frozen=True, slots=True)
class Name:
    """A name; with `call` it was written CALL(name), `call` in lower case."""

    name: str
    at: int
    call: str = ""


@dataclass(frozen=True, slots=True)
class Value:
    value: float | int | str | bool
    at: int


Term: TypeAlias = Name | Value


@dataclass(frozen=True, slots=True)
class Compare:
    left: Term
    operator: str  # one of < <= > >= = !=
    right: Term


@dataclass(frozen=True, slots=True)
class Among:
    term: Name
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class IsNull:
    term: Name


@dataclass(frozen=True, slots=True)
class Contains:
    term: Name
    text: str


@dataclass(frozen=True, slots=True)
class Not:
    inner: Expression


@dataclass(frozen=True, slots=True)
class All:
    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: tuple[Expression, ...]


Expression: TypeAlias = Compare | Among | IsNull | Contains | Not | All | AnyOf


def parse(text: str) -> Expression:
    """The tree of an expression. Raises UsageError that points at the first wrong character."""
    return _Parser(text).whole()


def parse_name(text: str) -> Name:
    """A single name, as `--sort` takes it. Raises UsageError."""
    parser = _Parser(text)
    term = parser.term()
    if not isinstance(term, Name) or parser.peek().kind != "end":
        raise pointed(text, 0, "a name is wanted here, like val_pct_mae or best(tune_pct_mae)")
    return term


def pointed(text: str, at: int, problem: str) -> UsageError:
    """The error, with the place in the text shown: `lr <> [<<] 3`."""
    before, after = text[max(0, at - 24) : at], text[at : at + 24]
    shown = f"{before} >>> {after}" if after else f"{before} >>> (the end)"
    return UsageError(f"character {at + 1}: {problem}; at: {shown.strip()}")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # text, number, name, word, mark, end
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            start = at + len(text[at:]) - len(text[at:].lstrip())
            raise pointed(text, start, f"{text[start : start + 1]!r} means nothing here")
        kind = str(match.lastgroup)
        said = match.group(kind)
        if kind == "name" and said.lower() in _WORDS:
            kind, said = "word", said.lower()
        found.append(_Token(kind, said, match.start(str(match.lastgroup))))
        at = match.end()
    return [*found, _Token("end", "", end)]


class _Parser:
    """Goes through the tokens once, from left to right."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise UsageError(f"the expression has {len(text)} characters, at most {MAX_LENGTH} can")
        self.text = text.translate({ord(c): " " for c in "\t\r\n"})
        for at, c in enumerate(self.text):
            if not c.isprintable():
                raise pointed(self.text[:at], at, "a character that cannot be printed")
        self.tokens = _tokens(self.text)
        self.place = 0
        self.num_tests = 0

    def peek(self) -> _Token:
        return self.tokens[self.place]

    def take(self) -> _Token:
        token = self.tokens[self.place]
        self.place += token.kind != "end"
        return token

    def accept(self, *said: str) -> bool:
        """Step over the next token if it is one of these words or marks."""
        token = self.peek()
        if token.kind in ("word", "mark") and token.text in said:
            self.place += 1
            return True
        return False

    def wrong(self, token: _Token, wanted: str) -> UsageError:
        said = "it ends here" if token.kind == "end" else f"{token.text!r} stands here"
        return pointed(self.text, token.at, f"{wanted} is wanted, but {said}")

    def whole(self) -> Expression:
        found = self.either(0)
        if self.peek().kind != "end":
            raise self.wrong(self.peek(), "'and', 'or' or the end")
        return found

    def either(self, depth: int) -> Expression:
        parts = [self.both(depth)]
        while self.accept("or"):
            parts.append(self.both(depth))
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def both(self, depth: int) -> Expression:
        parts = [self.inverted(depth)]
        while self.accept("and"):
            parts.append(self.inverted(depth))
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def inverted(self, depth: int) -> Expression:
        if depth > MAX_DEPTH:
            raise pointed(self.text, self.peek().at, f"more than {MAX_DEPTH} levels deep")
        if self.accept("not"):
            return Not(self.inverted(depth + 1))
        if self.accept("("):
            inner = self.either(depth + 1)
            if not self.accept(")"):
                raise self.wrong(self.peek(), "')'")
            return inner
        return self.test()

    def test(self) -> Expression:
        self.num_tests += 1
        if self.num_tests > MAX_TESTS:
            raise pointed(self.text, self.peek().at, f"more than {MAX_TESTS} tests")
        left = self.term()
        if self.accept("is"):
            no = self.accept("not")
            if not self.accept("null", "none"):
                raise self.wrong(self.peek(), "'null'")
            return _maybe_not(no, IsNull(self.named(left)))
        no = self.accept("not")
        if self.accept("in"):
            return _maybe_not(no, Among(self.named(left), self.values()))
        if self.accept("contains"):
            return _maybe_not(no, Contains(self.named(left), self.quoted()))
        if no:
            raise self.wrong(self.peek(), "'in' or 'contains'")
        return self.comparisons(left)

    def comparisons(self, left: Term) -> Expression:
        """`a < b`, and `a < b < c` as `a < b and b < c`."""
        parts: list[Expression] = []
        while self.peek().kind == "mark" and self.peek().text in COMPARISONS:
            mark = self.take().text
            right = self.term()
            if isinstance(left, Value) and isinstance(right, Value):
                raise pointed(self.text, left.at, "two values are compared; one must be a name")
            parts.append(Compare(left, {"==": "=", "<>": "!="}.get(mark, mark), right))
            left = right
        if not parts:
            raise self.wrong(self.peek(), "a comparison like < or =, 'in', 'is' or 'contains'")
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def named(self, term: Term) -> Name:
        if not isinstance(term, Name):
            raise pointed(self.text, term.at, "a name is wanted here, not a value")
        return term

    def term(self) -> Term:
        token = self.take()
        if token.kind == "name":
            return self.call(token) if self.peek().text == "(" else Name(token.text, token.at)
        return self.value_of(token)

    def call(self, token: _Token) -> Name:
        self.take()
        inner = self.take()
        if inner.kind not in ("name", "text", "word"):
            raise self.wrong(inner, "a name")
        if not self.accept(")"):
            raise self.wrong(self.peek(), "')'")
        name = _unquoted(inner.text) if inner.kind == "text" else inner.text
        return Name(name, inner.at, call=token.text.lower())

    def quoted(self) -> str:
        token = self.take()
        if token.kind not in ("text", "name"):
            raise self.wrong(token, "a text in quotes")
        return _unquoted(token.text) if token.kind == "text" else token.text

    def values(self) -> tuple[Value, ...]:
        if not self.accept("("):
            raise self.wrong(self.peek(), "'(' and a list of values")
        found = [self.listed()]
        while self.accept(","):
            found.append(self.listed())
        if not self.accept(")"):
            raise self.wrong(self.peek(), "',' or ')'")
        return tuple(found)

    def listed(self) -> Value:
        """A value of a list, where a bare word can only be a text."""
        token = self.take()
        return Value(token.text, token.at) if token.kind == "name" else self.value_of(token)

    def value_of(self, token: _Token) -> Value:
        match token.kind, token.text:
            case "number", text:
                return Value(self.number(text, token.at), token.at)
            case "text", text:
                return Value(_unquoted(text), token.at)
            case "word", "true" | "false":
                return Value(token.text == "true", token.at)
            case "word", "null" | "none":
                raise pointed(self.text, token.at, "write `is null` or `is not null`")
        raise self.wrong(token, "a name or a value")

    def number(self, text: str, at: int) -> float | int:
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise pointed(self.text, at, "the number is too large")
        exact = value.is_integer() and abs(value) < 2**53
        return int(value) if exact else value


def _maybe_not(no: bool, inner: Expression) -> Expression:
    return Not(inner) if no else inner


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text[:1] in "\"'" else text


# What the names of `--where` and `--sort` mean in the database.
#
# Every name is looked up here and every value is bound, so nothing that is typed becomes SQL.
# SQLite and PostgreSQL differ only in how they look into a JSON text: `_hyperparam`, `_listed`.


runs, scores, curves = schema.runs, schema.scores, schema.curves
Column: TypeAlias = ColumnElement[Any]
Condition: TypeAlias = ColumnElement[bool]

NUMBERS = {
    "seed": runs.c.seed,
    "attempt": runs.c.attempt,
    "trial": runs.c.trial_number,
    "trial_number": runs.c.trial_number,
    "training_time_seconds": runs.c.training_time_seconds,
    "duration_seconds": runs.c.duration_seconds,
    "peak_memory_mb": runs.c.peak_memory_mb,
    "objective_score": runs.c.objective_score,
}
TEXTS = {
    "run": runs.c.run_id,
    "run_id": runs.c.run_id,
    "model": runs.c.model_name,
    "model_name": runs.c.model_name,
    "state": runs.c.state,
    "sweep": runs.c.sweep_id,
    "sweep_id": runs.c.sweep_id,
    "source": runs.c.source,
    "notes": runs.c.notes,
    "error": runs.c.error,
    "git_commit": runs.c.git_commit,
    "checkpoint_path": runs.c.checkpoint_path,
    "fingerprint": runs.c.fingerprint,
}
MOMENTS = {name: runs.c[name] for name in ("created_at", "started_at", "finished_at")}
CURVES = ("best", "lowest", "highest", "last")
CALLS = (*CURVES, "hp", "score")
RECENT = 500
"""Runs whose names are offered where a name is unknown."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a name stands for: the SQL of its value, once for each kind that it can have."""

    kind: str  # for people: "a number", "a text" ...
    number: Column | None = None
    text: Column | None = None
    flag: Column | None = None
    moment: Column | None = None
    given: Condition | None = None  # has the run a value at all, of whatever kind?
    listed: Column | None = None  # the value column of a list's rows, to be used inside EXISTS

    @property
    def columns(self) -> list[Column]:
        found = (self.number, self.text, self.flag, self.moment)
        return [column for column in found if column is not None]


class Terms:
    """The meanings of the names of one expression."""

    def __init__(self, connection: Connection, text: str) -> None:
        self.connection, self.text = connection, text

    def meaning(self, name: Name) -> Meaning:
        """What a name stands for. Raises UnknownName, UsageError for a score of test."""
        if name.call:
            return self._called(name)
        if known := _column(self.connection, name.name):
            return known
        self._refuse_sealed(name)
        if self._is_score(name.name):
            return _score(name.name)
        if self._is_hyperparam(name.name):
            return _hyperparam(self.connection, name.name)
        if self._has_curve(name.name):
            raise self.wrong(
                name.at, f"{name.name} is a curve; say best({name.name}), lowest, highest or last"
            )
        raise self._unknown("name", name, known_names(self.connection))

    def _called(self, name: Name) -> Meaning:
        if name.call not in CALLS:
            raise UnknownName("function", name.call, CALLS, where=self._place(name.at))
        if name.call == "hp":
            return _hyperparam(self.connection, name.name)
        self._refuse_sealed(name)
        if name.call == "score":
            return _score(name.name)
        if not self._has_curve(name.name) and not self._is_empty():
            raise self._unknown("curve", name, _curves_in_use(self.connection))
        return Meaning("a number", number=_curve(self._side(name), name.name))

    def _side(self, name: Name) -> Column:
        """The column of curves that a function means."""
        if name.call != "best":
            found: Column = curves.c[name.call]
            return found
        from foresweep.metrics import METRICS

        metric = METRICS.get(split_name(name.name)[1])
        unknown = not name.name.endswith("loss") if metric is None else metric.target is not None
        if unknown:
            raise self.wrong(
                name.at, f"which way {name.name} is better is not known; say lowest or highest"
            )
        return curves.c.highest if metric and metric.higher_is_better else curves.c.lowest

    def _refuse_sealed(self, name: Name) -> None:
        if is_sealed(name.name):
            raise self.wrong(
                name.at,
                f"{name.name!r}: test scores are sealed, nothing is chosen or listed by them; "
                f"use {'val_' + split_name(name.name)[1]!r}",
            )

    def _is_score(self, name: str) -> bool:
        from foresweep.metrics import METRICS

        part, metric = split_name(name)
        return bool(part and metric in METRICS) or self._there(
            scores.c.run_id, scores.c.metric == metric, scores.c.part == part
        )

    def _is_hyperparam(self, name: str) -> bool:
        return self._there(runs.c.run_id, _has_key(self.connection, name)) or self._is_empty()

    def _has_curve(self, name: str) -> bool:
        return self._there(curves.c.run_id, curves.c.name == name)

    def _is_empty(self) -> bool:
        return self.connection.execute(select(runs.c.run_id).limit(1)).first() is None

    def _there(self, column: Column, *conditions: Condition) -> bool:
        query = select(column).where(*conditions).limit(1)
        return self.connection.execute(query).first() is not None

    def _unknown(self, kind: str, name: Name, known: Sequence[str]) -> UnknownName:
        return UnknownName(kind, name.name, known, where=self._place(name.at))

    def _place(self, at: int) -> str:
        return f"at character {at + 1} of {self.text.strip()[:80]!r}"

    def wrong(self, at: int, problem: str) -> UsageError:
        return pointed(self.text, at, problem)


def _column(connection: Connection, name: str) -> Meaning | None:
    """The meaning of a name that every run has."""
    if name in NUMBERS:
        return Meaning("a number", number=NUMBERS[name])
    if name in TEXTS:
        return Meaning("a text", text=TEXTS[name])
    if name in MOMENTS:
        return Meaning("a moment", moment=MOMENTS[name])
    if name == "is_baseline":
        return Meaning("true or false", flag=runs.c.is_baseline)
    if name == "has_checkpoint":
        return Meaning("true or false", flag=runs.c.checkpoint_path.is_not(None))
    if name in ("tag", "tags"):
        return Meaning("a list of texts", listed=_listed(connection, runs.c.tags))
    return None


def known_names(connection: Connection) -> list[str]:
    """Names to offer: what every run has, scores, and the hyperparameters of recent runs."""
    from foresweep.metrics import METRICS

    usual = [f"{part}_{metric}" for part in ("tune", "val") for metric in METRICS]
    fixed = (*NUMBERS, *TEXTS, *MOMENTS, "is_baseline", "has_checkpoint", "tag")
    return [*fixed, *usual, *hyperparams_in_use(connection), *_scores_in_use(connection)]


def hyperparams_in_use(connection: Connection, model_name: str | None = None) -> list[str]:
    """The hyperparameters of recent runs (of a model)."""
    query = select(runs.c.hyperparams).order_by(runs.c.created_at.desc()).limit(RECENT)
    if model_name is not None:
        query = query.where(runs.c.model_name == model_name)
    return list(dict.fromkeys(n for held in connection.execute(query).scalars() for n in held))


def _scores_in_use(connection: Connection) -> list[str]:
    """The full names of the open scores of recent runs."""
    chosen = select(scores.c.part, scores.c.metric).where(scores.c.run_id.in_(_recent(connection)))
    rows = connection.execute(chosen.where(scores.c.part != "test").distinct())
    return [f"{part}_{metric}" if part else metric for part, metric in rows]


def _curves_in_use(connection: Connection) -> list[str]:
    chosen = select(curves.c.name).where(curves.c.run_id.in_(_recent(connection)))
    return list(connection.execute(chosen.distinct()).scalars())


def _recent(connection: Connection) -> list[str]:
    query = select(runs.c.run_id).order_by(runs.c.created_at.desc()).limit(RECENT)
    return list(connection.execute(query).scalars())


def _score(full_name: str) -> Meaning:
    part, metric = split_name(full_name)
    value = select(scores.c.value).where(
        scores.c.run_id == runs.c.run_id, scores.c.part == part, scores.c.metric == metric
    )
    return Meaning("a number", number=value.correlate(runs).scalar_subquery())


def _curve(side: Column, name: str) -> Column:
    value = select(side).where(curves.c.run_id == runs.c.run_id, curves.c.name == name)
    return value.correlate(runs).scalar_subquery()


def _hyperparam(connection: Connection, name: str) -> Meaning:
    """A hyperparameter as number, text and truth value; each is NULL where it is another kind."""
    if connection.dialect.name == "postgresql":
        kind = func.json_typeof(_json(runs.c.hyperparams).op("->")(literal(name, sa.Text())))
        text = _json(runs.c.hyperparams).op("->>", return_type=sa.Text())(literal(name, sa.Text()))
        return Meaning(
            "a hyperparameter",
            number=sa.case((kind == "number", sa.cast(text, sa.Double()))),
            text=sa.case((kind == "string", text)),
            flag=sa.case((kind == "boolean", sa.cast(text, sa.Boolean()))),
            given=sa.and_(kind.is_not(None), kind != "null"),
        )
    row = func.json_each(runs.c.hyperparams).table_valued("key", "value", "type")
    entry = select(row.c.value).where(row.c.key == literal(name, sa.Text()))

    def of_kind(*kinds: str) -> Column:
        return entry.where(row.c.type.in_(kinds)).scalar_subquery()

    return Meaning(
        "a hyperparameter",
        number=sa.type_coerce(of_kind("integer", "real"), sa.Double()),
        text=sa.type_coerce(of_kind("text"), sa.Text()),
        flag=sa.type_coerce(of_kind("true", "false"), sa.Boolean()),
        given=sa.exists(entry.where(row.c.type != "null")),
    )


def _has_key(connection: Connection, name: str) -> Condition:
    """Is the hyperparameter named at all, if only with null?"""
    if connection.dialect.name == "postgresql":
        there = _json(runs.c.hyperparams).op("->")(literal(name, sa.Text()))
        return there.is_not(None)
    row = func.json_each(runs.c.hyperparams).table_valued("key")
    return sa.exists(select(row.c.key).where(row.c.key == literal(name, sa.Text())))


def _json(column: Column) -> Column:
    """A text column as PostgreSQL's json. Its texts cannot hold the character NUL, and one such
    row would fail the whole query: there it reads as the replacement character."""
    text = func.replace(sa.type_coerce(column, sa.Text()), r"\u0000", r"\ufffd")
    return sa.cast(text, sa.JSON())


def _listed(connection: Connection, column: Column) -> Column:
    """The values of a JSON list, as the column of a table inside EXISTS."""
    if connection.dialect.name == "postgresql":
        rows = func.json_array_elements_text(_json(column)).table_valued("value")
    else:
        rows = func.json_each(column).table_valued("value")
    return sa.type_coerce(rows.c.value, sa.Text())


# From an expression or a key to sort by to the SQL that the database answers.


_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}


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
