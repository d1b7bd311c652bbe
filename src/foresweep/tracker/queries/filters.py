"""`--where` and `--sort`: the language, and the SQL it becomes.

    expression  or-parts of and-parts of [not] tests, with parentheses
    test        term < <= > >= = == != <> term [< term ...]  |  term [not] in (value, ...)
                | term is [not] null  |  term [not] contains "text"  |  "text" in term
    term        a name, NAME("a name"), a number, "a text", a moment, true, false

What is typed is cut into tokens; Python's own parser finds their order, with a placeholder for
every name and value, so that no word of Python means anything here. A run without a value passes no
comparison, and no negated one, as in SQL.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import accumulate, pairwise
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, exists, literal, or_, select

from foresweep.errors import UnknownName, UsageError
from foresweep.records import RunState
from foresweep.tracker.queries.names import Column, Condition, Meaning, Name, Terms, pointed, runs
from foresweep.tracker.storage import schema

MAX_LENGTH = 4000
MAX_DEPTH = 40
MAX_TESTS = 200
"""Past these a database would give up; nobody writes so much by hand."""
LARGEST_EXACT = 2**53
"""From here on a number with a decimal point cannot be told from its neighbours."""
STATES = tuple(RunState)

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
_SPELLINGS = {"=": "==", "<>": "!=", "null": "None", "none": "None"}
_SPELLINGS |= {"contains": "@", "not contains": "//"}  # operators, so that an order is found
_MARKS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "=",
    ast.NotEq: "!=",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Is: "is",
    ast.IsNot: "not is",
}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True, slots=True)
class Token:
    kind: str  # text, number, name, word, mark
    text: str
    at: int

    @property
    def said(self) -> str:
        """Without the quotes of a text."""
        return re.sub(r"\\(.)", r"\1", self.text[1:-1]) if self.text[:1] in "\"'" else self.text


@dataclass(frozen=True, slots=True)
class Value:
    value: float | int | str | bool
    at: int


def tokens_of(text: str) -> list[Token]:
    """The tokens of an expression. Raises UsageError that points at what is none."""
    if len(text) > MAX_LENGTH:
        raise UsageError(f"the expression has {len(text)} characters, at most {MAX_LENGTH} can")
    text = text.translate({ord(c): " " for c in "\t\r\n"})
    for at, c in enumerate(text):
        if not c.isprintable():
            raise pointed(text[:at], at, "a character that cannot be printed")
    tokens: list[Token] = []
    end, depth, nots = 0, 0, 0
    while end < len(text.rstrip()):
        match = _TOKEN.match(text, end)
        if match is None:
            start = end + len(text[end:]) - len(text[end:].lstrip())
            raise pointed(text, start, f"{text[start : start + 1]!r} means nothing here")
        kind = str(match.lastgroup)
        said, at, end = match.group(kind), match.start(kind), match.end()
        is_called = len(tokens) > 1 and tokens[-1].text == "(" and tokens[-2].kind == "name"
        if kind == "name" and not is_called and said.lower() in _WORDS:
            kind, said = "word", said.lower()
        if said == "contains" and tokens and tokens[-1].text == "not":
            said, at = "not contains", tokens.pop().at
        tokens.append(Token(kind, said, at))
        depth += (said == "(") - (said == ")")
        nots = nots + 1 if said == "not" else 0
        if depth + nots > MAX_DEPTH:
            raise pointed(text, at, f"more than {MAX_DEPTH} levels deep")
    return tokens


def _python(token: Token) -> str:
    """A token as Python spells it; names and values as a placeholder."""
    if token.kind in ("word", "mark") and token.text not in ("true", "false"):
        return _SPELLINGS.get(token.text, token.text)
    return "_"


def condition(connection: Connection, text: str) -> Condition:
    """The SQL of an expression over `runs`. Raises UsageError that points at the place,
    UnknownName."""
    return Conditions(connection, text).whole()


def order_by(connection: Connection, key: str) -> list[Column]:
    """ORDER BY of `KEY`, `KEY:asc` or `KEY:desc`; runs without the value come last.

    Raises UsageError, UnknownName.
    """
    name, colon, way = key.rpartition(":")
    if colon and way.strip().lower() not in ("asc", "desc"):
        raise UsageError(f"--sort {key!r}: after the colon stands asc or desc, not {way!r}")
    name = name if colon else key
    meaning = Conditions(connection, name).named()
    if not meaning.columns:
        raise UsageError(f"--sort {key!r}: runs cannot be sorted by {meaning.kind}")
    ordering: list[Column] = []
    for column in meaning.columns:
        ranked = column.desc() if way.strip().lower() == "desc" and colon else column.asc()
        ordering += [column.is_(None), ranked]
    return ordering


class Conditions(Terms):
    """The tests of one expression as SQL."""

    def __init__(self, connection: Connection, text: str) -> None:
        super().__init__(connection, text)
        self._num_tests = 0

    def whole(self) -> Condition:
        """The SQL of the whole text. Raises UsageError that points at the place, UnknownName."""
        return self._condition(self._parsed())

    def named(self) -> Meaning:
        """What the text means, as one name. Raises UsageError, UnknownName."""
        return self.meaning(self._name(self._parsed()))

    def _parsed(self) -> ast.expr:
        self._tokens = tokens_of(self.text)
        words = [_python(token) for token in self._tokens]
        source = " ".join(words)
        self._starts = list(accumulate((len(word) + 1 for word in words[:-1]), initial=0))
        try:
            return ast.parse(source, mode="eval").body
        except SyntaxError as error:  # what Python says, at the place in what was typed
            if not error.offset or error.offset > len(source):
                end = len(self.text.rstrip())
                raise self.wrong(end, "the expression is not whole, it ends here") from error
            token = self._token(error.offset)
            unclosed = "never closed" in error.msg
            problem = (
                "')' is wanted for this '('" if unclosed else f"{token.text!r} does not fit here"
            )
            raise self.wrong(token.at, problem) from error

    def _token(self, place: ast.expr | int) -> Token:
        """The token of a node, or of a column of the Python text counted from 1."""
        column = place - 1 if isinstance(place, int) else place.col_offset
        return self._tokens[bisect_right(self._starts, column) - 1]

    def _wrong(self, node: ast.expr, problem: str) -> UsageError:
        return self.wrong(self._token(node).at, problem)

    def _condition(self, node: ast.expr) -> Condition:
        match node:
            case ast.BoolOp(ast.And(), parts):
                return sa.and_(*(self._condition(part) for part in parts))
            case ast.BoolOp(ast.Or(), parts):
                return or_(*(self._condition(part) for part in parts))
            case ast.UnaryOp(ast.Not(), inner):
                return sa.not_(self._condition(inner))
            case ast.BinOp(left, ast.MatMult(), right):
                return self._test(left, "contains", right)
            case ast.BinOp(left, ast.FloorDiv(), right):
                return sa.not_(self._test(left, "contains", right))
            case ast.Compare(left, marks, rest):  # `a < b < c` is `a < b and b < c`
                sides = pairwise((left, *rest))
                tests = zip(sides, (_MARKS[type(mark)] for mark in marks), strict=True)
                return sa.and_(*(self._test(one, mark, other) for (one, other), mark in tests))
        raise self._wrong(node, "a comparison like < or =, 'in', 'is' or 'contains' is wanted here")

    def _test(self, left: ast.expr, mark: str, right: ast.expr) -> Condition:
        self._num_tests += 1
        if self._num_tests > MAX_TESTS:
            raise self._wrong(left, f"more than {MAX_TESTS} tests")
        if mark.startswith("not "):
            return sa.not_(self._test(left, mark.removeprefix("not "), right))
        if mark == "is":
            if not isinstance(right, ast.Constant):
                raise self._wrong(right, "'null' is wanted: `is null`, `is not null`")
            return self._is_null(self.meaning(self._name(left)))
        if mark == "contains":
            return self._contains(self._name(left), self._text(right))
        one = self._term(left)
        if mark != "in":
            return self._compare_terms(one, mark, self._term(right))
        if isinstance(one, Value):  # "x" in notes
            return self._contains(self._name(right), self._text(left))
        return or_(*(self._compare(one, "=", value) for value in self._values(right)))

    def _term(self, node: ast.expr) -> Name | Value:
        token = self._token(node)
        match node:
            case ast.Name():
                return Name(token.text, token.at) if token.kind == "name" else self._value(token)
            case ast.Call(ast.Name(), [ast.Name() as argument], []) if token.kind == "name":
                inner = self._token(argument)
                if inner.kind in ("name", "text"):
                    return Name(inner.said, inner.at, call=token.text.lower())
            case ast.Constant():
                raise self._wrong(node, "write `is null` or `is not null`")
        raise self._wrong(node, "a name or a value is wanted here")

    def _name(self, node: ast.expr) -> Name:
        term = self._term(node)
        if not isinstance(term, Name):
            raise self.wrong(term.at, "a name is wanted here, not a value")
        return term

    def _listed(self, node: ast.expr) -> Value:
        """A value where a bare word can only be a text."""
        token = self._token(node)
        if not isinstance(node, ast.Name):
            raise self._wrong(node, "a value is wanted here")
        return Value(token.text, token.at) if token.kind == "name" else self._value(token)

    def _text(self, node: ast.expr) -> str:
        text = self._listed(node).value
        if not isinstance(text, str):
            raise self._wrong(node, "a text in quotes is wanted here")
        return text

    def _values(self, node: ast.expr) -> list[Value]:
        parts = node.elts if isinstance(node, ast.Tuple) else [node]
        if not parts or self._token(parts[0].col_offset).text != "(":
            raise self._wrong(node, "'(' and a list of values is wanted here")
        return [self._listed(part) for part in parts]

    def _value(self, token: Token) -> Value:
        if token.kind != "number":
            return Value(token.text == "true" if token.kind == "word" else token.said, token.at)
        number = float(token.text)
        if math.isinf(number):
            raise self.wrong(token.at, "the number is too large")
        is_whole = token.text.lstrip("+-").isdigit()
        return Value(int(token.text) if is_whole else number, token.at)

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

    def _compare_terms(self, left: Name | Value, mark: str, right: Name | Value) -> Condition:
        if isinstance(left, Value):
            if isinstance(right, Value):
                raise self.wrong(left.at, "two values are compared; one must be a name")
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
            case int() | float() if meaning.number is not None:
                return self._done(mark, meaning.number, self._bound(name, mark, meaning, value))
            case str() as text if meaning.moment is not None:
                return self._when(name, mark, meaning.moment, replace(value, value=text))
            case str() as text if meaning.listed is not None:
                self._only_equal(name, mark, "tags")
                tagged = _some(meaning.listed, meaning.listed == literal(text, sa.Text()))
                return tagged if mark == "=" else sa.not_(tagged)
            case str() as text if meaning.text is not None:
                self._only_equal(name, mark, "texts")
                if meaning.text is runs.c.state and text not in STATES:
                    raise UnknownName("state", text, STATES, where=self._place(value.at))
                return self._done(mark, meaning.text, literal(text, sa.Text()))
        raise self.wrong(value.at, f"{name.name} is {meaning.kind}, {value.value!r} is not")

    def _bound(self, name: Name, mark: str, meaning: Meaning, value: Value) -> Column:
        """A number as the database compares it. Raises UsageError where it would be taken for its
        neighbour."""
        number = value.value
        assert meaning.number is not None
        assert not isinstance(number, str)
        if isinstance(number, int) and abs(number) >= LARGEST_EXACT:
            if isinstance(meaning.number.type, sa.Integer) and -(2**63) <= number < 2**63:
                return literal(number, sa.BigInteger())
            if mark in ("=", "!="):
                raise self.wrong(
                    value.at,
                    f"{name.name} is not kept to so many digits that {number} can be told from its "
                    f"neighbours; use < and >",
                )
        return literal(float(number), sa.Double())

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
        compared: Condition = _COMPARE[mark](left, right)
        return compared


def _some(value: Column, wanted: Condition | None) -> Condition:
    """Is there a value in the list that is wanted (None: any value)?"""
    query = select(value) if wanted is None else select(value).where(wanted)
    return exists(query)
