"""How a file of text is written: encoding, preamble, separator, quotes, header; every guess said.

A header is what a table of known names recognises (`aliases`), so the separator, the encoding and
the lines above the table are those under which the names of the columns come out.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import polars as pl

from foresweep.data.files import first_line as said_by
from foresweep.data.reading.aliases import KNOWN, Header, bare, flattened, role, understand
from foresweep.data.reading.overrules import Overrules
from foresweep.errors import DataError

SNIFFED = 1 << 18
"""Characters of a file that its dialect is guessed from."""
SEPARATORS = (",", ";", "\t", "|")
NAMES_OF = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "spaces"}
_NUMBER = re.compile(
    r"""^["'\s]*[-+(]?\s*[^\w\s.,-]{0,3}\s*\d[\d.,' ]*\s*[%)]?(?:[eE][+-]?\d+)?"""
    r"""\s*(?:[kKmMbBtT]|万|亿|[^\w\s]|[A-Za-zł]{2,3})?["'\s]*$"""
)
_DATE_LIKE = re.compile(r"\d")


class Refused(DataError):
    """A file that cannot be read right, by the gate's rule."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table out of a file, its columns still as they are written."""

    frame: pl.DataFrame  # columns c0, c1, ...: text from text files, typed from others
    names: tuple[str, ...]  # as the file names them
    header: Header
    first_line: int = 1  # of the first data row
    guesses: tuple[str, ...] = ()
    separator: str = ","
    labels: tuple[str, ...] = field(default=())  # [columns] ticker of each, where a row names them


def decode(content: bytes) -> tuple[str, str]:
    """(text, encoding as far as it is not UTF-8). Raises Refused where no encoding fits."""
    for mark, name in (
        (b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
    ):  # fmt: skip
        if content.startswith(mark):
            try:
                return content.decode(name), "" if name == "utf-8-sig" else name.upper()
            except UnicodeDecodeError as error:
                raise Refused("encoding", f"looks like {name.upper()} and breaks off") from error
    head = content[:2000]
    if b"\0" in head:
        wide = _wide(content, head)
        if wide is None:
            raise Refused("unreadable", "holds zero bytes: neither text nor a table that is known")
        return wide
    try:
        return content.decode("utf-8"), ""
    except UnicodeDecodeError:
        return _legacy(content)


def _wide(content: bytes, head: bytes) -> tuple[str, str] | None:
    """UTF-16 without its mark, told by where the zeros lie."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    for name, wins in (("utf-16-le", odd > 2 * even), ("utf-16-be", even > 2 * odd)):
        if wins and max(even, odd) > 0.25 * len(head) / 2:
            try:
                return content.decode(name), name.upper()
            except UnicodeDecodeError:
                return None
    return None


_LEGACY = ("gb18030", "cp932", "cp949", "big5", "cp1252", "cp1250", "cp1251", "cp1254", "iso8859_7")


def _legacy(content: bytes) -> tuple[str, str]:
    """The encoding under which the header is understood; where none is, charset-normalizer's."""
    import charset_normalizer

    # whole lines: a character must not be cut
    head = content[:8000].rpartition(b"\n")[0] or content[:8000]
    guessed = charset_normalizer.from_bytes(head).best()
    guess = [guessed.encoding] if guessed else []
    # of a few letters it names rare encodings (cp1006): such a one comes after the usual
    names = dict.fromkeys([*(g for g in guess if g in _LEGACY), *_LEGACY, *guess])
    readable: list[tuple[int, int, int, str]] = []
    for name in names:
        try:
            text = head.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
        readable.append((-_known_words(text), _strange(text), len(readable), name))
    for *_, name in sorted(readable):
        try:
            return content.decode(name), name
        except UnicodeDecodeError:
            continue
    raise Refused("encoding", "is neither UTF-8 nor of any encoding that is known")


def _strange(text: str) -> int:
    """Letters and signs beyond ASCII that touch a digit and are no currency, and East Asian ones
    inside a Latin word (`Größe` read as gb18030)."""
    touching = re.findall(r"(?<=\d)[^\x00-\x7f]|[^\x00-\x7f](?=\d)", text)
    inside = re.findall(r"[a-z][\u2e80-\uffdc]+[a-z]", text)
    return len(inside) + sum(unicodedata.category(c) not in ("Sc", "Zs") for c in touching)


def _known_words(text: str) -> int:
    """Column names that are understood in the first lines."""
    best = 0
    for line in text.splitlines()[:30]:
        words = re.split(r"""[,;\t|"']+""", line)
        best = max(best, sum(bare(w) in KNOWN for w in words))
    return best


# Lines and fields


def split(line: str, separator: str, quote: str = '"') -> list[str]:
    """The fields of one line."""
    if separator == " ":
        return line.split()
    try:
        return next(csv.reader([line], delimiter=separator, quotechar=quote), [])
    except csv.Error:
        return line.split(separator)


def looks_like_data(fields: Sequence[str]) -> bool:
    """A row of bars: at least four numbers, or a date and numbers."""
    return sum(bool(_NUMBER.match(f)) for f in fields) >= 4


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the table lies in the lines of a file, under one separator."""

    separator: str
    quote: str
    names: tuple[str, ...]
    header: Header
    data_line: int  # from 1
    width: int  # fields of a data row
    labels: tuple[str, ...] = ()
    guesses: tuple[str, ...] = ()


def sniff(text: str, overrules: Overrules) -> Layout:
    """The layout of a table of prices. Raises Refused."""
    head = text[:SNIFFED]
    lines = head.splitlines()[:400]
    if not any(line.strip() for line in lines):
        raise Refused("empty_file", "the file is empty")
    forced = overrules.separator
    if forced is None and (said := re.match(r"(?i)^sep=(.)\s*$", lines[0])):
        forced = said[1]
    tried = [forced] if forced else [*SEPARATORS, " "]
    problems: list[tuple[int, Refused]] = []
    for separator in tried:
        try:
            return _layout(lines, separator, overrules)
        except Refused as problem:
            problems.append((_closeness(problem), problem))
    raise max(problems, key=lambda p: p[0])[1]


def read_names(
    names: Sequence[str], overrules: Overrules
) -> tuple[tuple[str, ...], Header, tuple[str, ...]]:
    """(names, header, ticker of each column) of one row of names. Raises DataError."""
    header = understand(names, overrules.chosen)
    if not header.missing or not overrules.columns:
        apart = flattened(names) if header.missing else None
        if apart is not None:
            header = _first_ticker(*apart, overrules)
            return apart[0], header, apart[1]
    return tuple(names), header, ()


def _first_ticker(names: Sequence[str], labels: Sequence[str], overrules: Overrules) -> Header:
    """The header of the first ticker's columns (those of the others are named alike)."""
    tickers = [lab for n, lab in zip(names, labels, strict=True) if lab and role(n) == "close"]
    first = tickers[0] if tickers else ""
    kept = [n if lab in ("", first) else "" for n, lab in zip(names, labels, strict=True)]
    return understand(kept, overrules.chosen)


def _closeness(problem: Refused) -> int:
    order = ("unreadable", "missing_column", "no_header", "empty_file", "ambiguous_column")
    return order.index(problem.rule) if problem.rule in order else len(order)


def _lacking(missing: Sequence[str], has: str) -> str:
    ours = "date" if missing[0] == "timestamp" else missing[0]
    advice = f"name it (--columns {ours}=NAME) or rename it"
    return f"no column {', '.join(missing)}; it has {has}; {advice}"


def _layout(lines: Sequence[str], separator: str, overrules: Overrules) -> Layout:
    quote = "'" if _single_quoted(lines, separator) else '"'
    fields = [split(line, separator, quote) for line in lines[:200]]
    first = next((k for k, f in enumerate(fields) if looks_like_data(f)), None)
    if first is None:
        return _without_data(fields, separator, quote, overrules)
    width = _usual_width([f for f in fields[first:] if looks_like_data(f)])
    clash: Refused | None = None
    missing: Refused | None = None
    for k in range(first - 1, -1, -1):
        if len(fields[k]) < 2:
            continue
        names, guess = _fitted(fields[k], fields[first], width)
        try:
            names, header, labels = read_names(names, overrules)
        except DataError as error:
            clash = clash or Refused("ambiguous_column", str(error))
            continue
        if not header.missing:
            data = _data_from(fields, k + 1, first, header.at["timestamp"])
            labels = labels or _labels(fields[k + 1 : data], width, header)
            return Layout(separator, quote, names, header, data + 1, width, labels,
                          _header_guesses(lines, k, guess))  # fmt: skip
        if missing is None and len(header.at) > 1:
            has = ", ".join(n for n in names[:8])
            missing = Refused("missing_column", _lacking(header.missing, has))
    several = _several_rows(fields, first, width, overrules)
    if several is not None:
        names, header, top, labels = several
        said = (f"a header of {first - top} rows",) if first - top > 1 else ()
        above = _header_guesses(lines, top, "")
        return Layout(separator, quote, names, header, first + 1, width, labels,
                      (*above, *said))  # fmt: skip
    if clash or missing:
        raise clash or missing  # type: ignore[misc]
    return _headerless(lines, fields, first, width, separator, quote, overrules)


def _single_quoted(lines: Sequence[str], separator: str) -> bool:
    some = [line for line in lines[:50] if line.strip()]
    hits = sum(f"'{separator}'" in line and line.strip().startswith("'") for line in some)
    return separator != " " and hits > len(some) / 2


def _usual_width(rows: Sequence[Sequence[str]]) -> int:
    return Counter(len(r) for r in rows).most_common(1)[0][0] if rows else 0


def _fitted(names: Sequence[str], data: Sequence[str], width: int) -> tuple[tuple[str, ...], str]:
    """(a header as wide as the rows under it; what was guessed)."""
    if len(names) == width - 1 and data and len(data) == width:
        if not data[-1].strip():  # every row ends in a separator
            return (*names, ""), ""
        return ("", *names), "the rows begin with a column that the header does not name"
    if len(names) > width and not any(n.strip() for n in names[width:]):
        return tuple(names[:width]), ""
    return tuple(names), ""


def _data_from(fields: Sequence[Sequence[str]], after: int, first: int, time: int) -> int:
    """The first line that may be a bar: rows under the header whose time holds no digit are more
    header (units, tickers)."""
    for k in range(after, first):
        if len(fields[k]) > max(time, 1) and _DATE_LIKE.search(fields[k][time]):
            return k
    return first


def _header_guesses(lines: Sequence[str], top: int, guess: str) -> tuple[str, ...]:
    above = sum(bool(line.strip()) for line in lines[:top])
    said = [f"{above} line{'s' if above > 1 else ''} above the table left out"] if above else []
    return (*said, *([guess] if guess else []))


def _without_data(
    fields: Sequence[Sequence[str]], separator: str, quote: str, overrules: Overrules
) -> Layout:
    """A header and no bars, or no table at all. Raises Refused."""
    best = Refused("unreadable", "no line holds prices: no table that can be read")
    for k, names in enumerate(fields):
        if len(names) < 2:
            continue
        try:
            header = understand(names, overrules.chosen)
        except DataError as error:
            raise Refused("ambiguous_column", str(error)) from error
        if not header.missing:
            if not any(any(c.strip() for c in f) for f in fields[k + 1 :]):
                raise Refused("empty_file", "the file has a header and no rows")
            return Layout(separator, quote, tuple(names), header, k + 2, len(names))
        if len(header.at) > 1 and best.rule == "unreadable":
            has = ", ".join(names[:8])
            best = Refused("missing_column", _lacking(header.missing, has))
    raise best


def _labels(rows: Sequence[Sequence[str]], width: int, header: Header) -> tuple[str, ...]:
    """The ticker of each column where a row under the header names them."""
    for row in rows:
        if len(row) == width and all(row[header.at[n]].strip() for n in ("open", "close")):
            return tuple(c.strip() for c in row)
    return ()


def _several_rows(
    fields: Sequence[Sequence[str]], first: int, width: int, overrules: Overrules
) -> tuple[tuple[str, ...], Header, int, tuple[str, ...]] | None:
    """(names, header, first row, tickers) of a header that only its rows together make: names in
    one, tickers in another, the time's name in a third (yfinance). Raises Refused."""
    top = first
    while top > 0 and first - top < 4 and abs(len(fields[top - 1]) - width) <= 1:
        top -= 1
    rows = [[*f, *[""] * width][:width] for f in fields[top:first]]
    if len(rows) < 2:
        return None
    return merged_header(rows, top, overrules)


def merged_header(
    rows: Sequence[Sequence[str]], top: int, overrules: Overrules
) -> tuple[tuple[str, ...], Header, int, tuple[str, ...]] | None:
    """See `_several_rows`."""
    names, labels = [], []
    counts = [sum(role(c) not in ("", "item_id") for c in row[1:]) for row in rows]
    main = max(range(len(rows)), key=lambda k: counts[k])
    if counts[main] < 4:
        return None
    for column in range(len(rows[0])):
        cells = [row[column].strip() for row in rows]
        if column == 0:
            named = [c for c in cells if role(c) == "timestamp"]
            names.append(named[0] if named else "")
            labels.append("")
            continue
        names.append(cells[main])
        others = [c for k, c in enumerate(cells) if k != main and c]
        labels.append(others[0] if others else "")
    prices = {"open", "high", "low", "close"}
    tickers = {lab for n, lab in zip(names, labels, strict=True) if role(n) in prices}
    one = tickers.copy().pop() if len(tickers) == 1 else None
    try:
        if one is not None or not tickers:
            header = understand(names, overrules.chosen)
        else:
            header = _first_ticker(names, labels, overrules)
    except DataError as error:
        raise Refused("ambiguous_column", str(error)) from error
    if header.missing:
        return None
    return tuple(names), header, top, tuple(labels)


# No header: only forms that cannot be anything else


_BINANCE = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume"),
    *("count", "taker_buy_volume", "taker_buy_quote_volume", "ignore"),
)
_METATRADER = ("date", "time", "open", "high", "low", "close", "volume")
_HISTDATA = ("datetime", "open", "high", "low", "close", "volume")
_CCXT = ("timestamp", "open", "high", "low", "close", "volume")


def _headerless(
    lines: Sequence[str],
    fields: Sequence[Sequence[str]],
    first: int,
    width: int,
    separator: str,
    quote: str,
    overrules: Overrules,
) -> Layout:
    rows = [f for f in fields[first:] if len(f) == width]
    if overrules.columns:
        names = tuple(str(k + 1) for k in range(width))
        try:
            header = understand(names, overrules.chosen)
        except DataError as error:
            raise Refused("ambiguous_column", str(error)) from error
        if not header.missing:
            return Layout(separator, quote, names, header, first + 1, width)
    vendor = vendor_of(rows, separator)
    if vendor is None:
        raise Refused(
            "no_header",
            "no header line: which column is which cannot be known; add one, or number them: "
            "--columns date=1,open=2,high=3,low=4,close=5",
        )
    name, columns = vendor
    guesses = _header_guesses(lines, first, f"no header: {name}'s columns by their form")
    return Layout(separator, quote, columns, understand(columns), first + 1, width, (), guesses)


def vendor_of(
    rows: Sequence[Sequence[object]], separator: str = ","
) -> tuple[str, tuple[str, ...]] | None:
    """(vendor, its columns) of rows without a header, where no other table looks like them."""
    some = [[str(c).strip() for c in r] for r in rows[:50]]
    width = len(some[0]) if some else 0
    for name, columns, fits in (
        ("Binance", _BINANCE, width == 12 and all(map(_is_kline, some))),
        ("MetaTrader", _METATRADER, width == 7 and _all(some, r"\d{4}\.\d\d\.\d\d", r"\d\d:\d\d")),
        ("ccxt", _CCXT, width == 6 and _all(some, r"\d{13}") and _goes_on(some)),
        ("HistData", _HISTDATA, separator == ";" and width == 6 and _all(some, r"\d{8} \d{6}")),
    ):
        at = columns.index("open")
        if fits and all(_lawful(r[at : at + 4]) for r in some):
            return name, columns
    return None


def _is_kline(row: Sequence[str]) -> bool:
    epochs = [re.fullmatch(r"\d{13}|\d{16}", row[k]) for k in (0, 6)]
    return all(epochs) and int(row[0]) < int(row[6])


def _goes_on(rows: Sequence[Sequence[str]]) -> bool:
    """Do the bars of [time, open, high, low, close, ...] open near the close before them, nearer
    than they would if opens were closes? Rows run forward."""
    try:
        opens, closes = ([float(r[k]) for r in rows] for k in (1, 4))
        forward = all(int(a[0]) < int(b[0]) for a, b in pairwise(rows))
    except ValueError:
        return False
    gaps = sum(abs(o - c) for o, c in zip(opens[1:], closes, strict=False))
    other = sum(abs(c - o) for c, o in zip(closes[1:], opens, strict=False))
    return len(rows) > 9 and forward and gaps < other / 2


def _all(rows: Iterable[Sequence[str]], *forms: str) -> bool:
    return all(all(map(re.fullmatch, forms, row)) for row in rows)


def _lawful(bar: Sequence[str]) -> bool:
    try:
        o, h, low, c = map(float, bar)
    except ValueError:
        return False
    return low <= min(o, c) and h >= max(o, c)


# The table


Layouts: TypeAlias = dict[tuple[bytes, int], Layout]
"""(first line, fields of the second) -> the layout of the files that begin so."""
HEAD = 1 << 20
"""Bytes of a large file that its layout is found in."""


def read_plain(
    source: bytes | Path, head: bytes, overrules: Overrules, known: Layouts
) -> Table | None:
    """The table of a file of plain text read at once: UTF-8, one line of names above bars whose
    numbers are numbers as they stand. None where it is not so plain: `read_text` reads all."""
    if overrules.decimal == "," or not head.isascii() or b"\0" in head:
        return None
    lines = head.split(b"\n", 2)
    if len(lines) < 3 or not lines[1].strip():
        return None
    first = lines[0].rstrip(b"\r")
    for separator in SEPARATORS:
        layout = known.get((first, lines[1].count(separator.encode())))
        if layout is not None and layout.separator == separator:
            break
    else:
        try:
            layout = sniff(head.decode(), overrules)
        except Refused:
            return None
        if layout.data_line != 2 or layout.labels or layout.guesses or layout.quote != '"':
            return None
        if layout.separator not in SEPARATORS or len(layout.names) != layout.width:
            return None
    header = layout.header
    numbers = {header.at[n] for n in ("open", "high", "low", "close")} | {*header.volumes}
    numbers |= {header.at[n] for n in ("adjusted", "amount") if n in header.at}
    used = sorted(numbers | {*header.at.values(), *header.times, *header.clock})
    if numbers & {*header.times, *header.clock}:
        return None
    kinds = [pl.Float64 if k in numbers else pl.String for k in range(layout.width)]
    try:
        frame = pl.read_csv(
            source,
            has_header=False,
            separator=layout.separator,
            skip_lines=1,
            columns=used,
            schema={f"c{k}": kind for k, kind in enumerate(kinds)},
        )
    except (pl.exceptions.PolarsError, OSError):
        return None
    known[first, lines[1].count(layout.separator.encode())] = layout
    said = layout.separator
    guesses = () if said == "," else (f"separator {NAMES_OF.get(said, repr(said))}",)
    return Table(frame, layout.names, header, 2, guesses, said)


def read_text(content: bytes, overrules: Overrules | None = None) -> Table:
    """The table of a file of text. Raises Refused, naming the rule."""
    overrules = overrules or Overrules()
    text, encoding = decode(content)
    layout = sniff(text, overrules)
    guesses = [f"encoding {encoding}"] if encoding else []
    if layout.separator != ",":
        guesses.append(f"separator {NAMES_OF.get(layout.separator, repr(layout.separator))}")
    if layout.quote != '"':
        guesses.append("single quotes")
    guesses += layout.guesses
    plain = not encoding and not content.startswith(b"\xef\xbb\xbf")
    body = content if plain and layout.separator != " " else text.encode()
    separator = layout.separator
    if separator == " ":
        body, separator = re.sub(r"(?m)^[ \t]+|[ \t]+$", "", text).encode(), "\t"
        body = re.sub(rb"[ \t]+", b"\t", body)
    if b"\r" in body[:SNIFFED] and b"\n" not in body[:SNIFFED]:
        body = body.replace(b"\r", b"\n")
    frame = _parsed(body, separator, layout)
    return Table(
        frame=frame,
        names=layout.names,
        header=layout.header,
        first_line=layout.data_line,
        guesses=tuple(guesses),
        separator=layout.separator,
        labels=layout.labels,
    )


def _parsed(body: bytes, separator: str, layout: Layout) -> pl.DataFrame:
    """The rows as text, columns c0, c1, ... Raises Refused with the reader's own words."""
    width = len(layout.names)
    try:
        return pl.read_csv(
            body,
            has_header=False,
            separator=separator,
            quote_char=layout.quote,
            skip_lines=layout.data_line - 1,
            schema={f"c{k}": pl.String for k in range(width)},
            infer_schema=False,
        )
    except pl.exceptions.NoDataError as error:
        raise Refused("empty_file", "the file has a header and no rows") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Refused("unreadable", said_by(error)) from error


def read_typed(frame: pl.DataFrame, overrules: Overrules | None = None) -> Table:
    """The table of a frame whose columns have names and types. Raises Refused."""
    overrules = overrules or Overrules()
    names = tuple(frame.columns)
    renamed = frame.rename({n: f"c{k}" for k, n in enumerate(names)})
    try:
        names, header, labels = read_names(names, overrules)
    except DataError as error:
        raise Refused("ambiguous_column", str(error)) from error
    if header.missing:
        has = ", ".join(names[:8])
        raise Refused("missing_column", _lacking(header.missing, has))
    if frame.is_empty():
        raise Refused("empty_file", "the file has a header and no rows")
    return Table(renamed, names, header, labels=labels)
