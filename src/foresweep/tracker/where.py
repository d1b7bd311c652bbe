"""The language of `--where`: a text becomes a small tree, or an error that points at the place.

    expression  or-parts of and-parts of [not] tests, with parentheses
    test        term < <= > >= = == != <> term [< term ...]  |  term [not] in (value, ...)
                | term is [not] null  |  term contains "text"
    term        a name, NAME("a name"), a number, "a text", true, false

It knows neither SQL nor the database: `terms.py` gives the names their meaning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from foresweep.errors import UsageError

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
