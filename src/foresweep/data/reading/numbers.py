"""Numbers as people write them: decimal signs, thousands, currency, K and M, brackets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import polars as pl

from foresweep.data.panel import Array, IntArray
from foresweep.errors import DataError

NOTHING = ("", "nan", "null", "none", "na", "n/a", "-", "--", "—", "–", "nil", "#n/a", "n.a.", ".")
"""Words for a missing number."""
SUFFIXES: Mapping[str, float] = MappingProxyType(
    {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12, "tsd": 1e3, "mio": 1e6, "mln": 1e6, "mn": 1e6}
    | {"mrd": 1e9, "md": 1e9, "bn": 1e9, "千": 1e3, "万": 1e4, "萬": 1e4, "亿": 1e8, "億": 1e8}
)
_CURRENCY = (
    r"(?i)(?:us\$|hk\$|nt\$|a\$|c\$|r\$|s\$|\p{Sc}|usdt|usd|eur|gbp|gbx|jpy|cny|rmb|chf|inr|krw|pln|sek|nok|dkk"
    r"|try|brl|cad|aud|hkd|rs\.?|kr\.?|zł|元|円|원|₽|руб\.?)"
)
_EDGES = rf"^{_CURRENCY}\s*|\s*{_CURRENCY}$"
_SUFFIX = r"(?i)([\p{L}]+)\.?$"
_SPACES = r"[\s\u00a0\u202f\u2009'’`_]"
ENGLISH = r"^[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?$"
INDIAN = r"^[+-]?\d{1,2}(?:,\d{2})*,\d{3}(?:\.\d*)?$"
CONTINENTAL = r"^[+-]?\d{1,3}(?:\.\d{3})+(?:,\d*)?$"


def read_numbers(column: pl.Series, decimal: str = ".") -> tuple[Array, IntArray]:
    """(numbers [n], NaN where there is none; rows that hold text in a number's place)."""
    if column.dtype == pl.Float64 and not column.null_count():
        return column.to_numpy(), np.empty(0, dtype=np.int64)
    if column.dtype != pl.String:
        numbers = column.cast(pl.Float64, strict=False)
        return numbers.fill_null(np.nan).to_numpy(), np.empty(0, dtype=np.int64)
    text = column.str.strip_chars()
    numbers = text.cast(pl.Float64, strict=False)
    if decimal == ",":  # 1.234 is a thousand and more here
        numbers = pl.select(
            pl.when(text.str.contains(".", literal=True)).then(None).otherwise(numbers)
        ).to_series()
    unread = numbers.is_null() & text.is_not_null()
    if unread.any():
        at = unread.arg_true()
        numbers = numbers.scatter(at, _rewritten(text.gather(at), decimal))
        unread = numbers.is_null() & text.is_not_null()
        unread = unread & ~text.str.to_lowercase().is_in(list(NOTHING))
    return numbers.fill_null(np.nan).to_numpy(), np.flatnonzero(unread.fill_null(False).to_numpy())


def _core(text: pl.Series) -> tuple[pl.Series, pl.Series]:
    """(sign, digits and marks alone; factor of a suffix, null where it is no known one)."""
    core = text.str.replace_all(r"[−–‑]", "-").str.replace(r"^\((.*)\)$", "-${1}")
    core = core.str.replace(r"^([+-]?)\s*(.*)$", "${1}${2}")
    sign = core.str.extract(r"^([+-])", 1).fill_null("")
    core = core.str.strip_prefix("-").str.strip_prefix("+")
    core = core.str.replace(_EDGES, "").str.replace(_EDGES, "").str.replace_all(_SPACES, "")
    suffix = core.str.extract(_SUFFIX, 1).str.to_lowercase()
    factor = suffix.fill_null("").replace_strict(
        {"": 1.0, **SUFFIXES}, default=None, return_dtype=pl.Float64
    )
    return sign + core.str.replace(_SUFFIX, ""), factor


def _rewritten(text: pl.Series, decimal: str) -> pl.Series:
    core, factor = _core(text)
    grouped = CONTINENTAL if decimal == "," else f"{ENGLISH}|{INDIAN}"
    mark = "." if decimal == "," else ","
    in_groups = core.str.contains(grouped)
    joined = core.str.replace_all(mark, "", literal=True)
    plain = pl.select(pl.when(in_groups).then(joined).otherwise(core)).to_series()
    if decimal == ",":
        dotted = plain.str.contains(".", literal=True)
        plain = pl.select(pl.when(dotted).then(None).otherwise(plain)).to_series()
        plain = plain.str.replace(",", ".", literal=True)
    good = plain.str.contains(r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$")
    plain = pl.select(pl.when(good).then(plain).otherwise(None)).to_series()
    return plain.cast(pl.Float64, strict=False) * factor


def decide_decimal(prices: Sequence[pl.Series], volume: pl.Series | None, sep: str) -> str:
    """The decimal sign of a file's columns of text, "." or ",", by what all of them hold.

    Raises DataError where both readings are sound: 1,234 everywhere, of one group.
    """
    texts = [s.str.strip_chars().drop_nulls() for s in prices if s.dtype == pl.String]
    volumes = []
    if volume is not None and volume.dtype == pl.String:
        volumes = [volume.str.strip_chars().drop_nulls()]
    everything = [*texts, *volumes]
    if not any(s.str.contains(",", literal=True).any() for s in everything):
        return _dots_alone(texts, volumes, sep)
    comma = sum(_votes(s, ",") for s in everything)
    dot = sum(_votes(s, ".") for s in everything)
    if comma and dot:
        few, many = sorted((comma, dot))
        if few > max(1, 0.01 * many):
            raise DataError(
                f"{dot} numbers are written with a decimal point and {comma} with a decimal comma: "
                f"say --decimal . or --decimal ,"
            )
    if comma or dot:
        return "," if comma > dot else "."
    # 1,234 alone: one group of three digits behind each comma, nothing with a point
    if any(s.str.contains(r"^\d{4,}$").any() for s in volumes):
        return ","  # nobody groups prices and leaves volumes ungrouped
    small = [s for s in texts if s.str.contains(r"^\d{3}$").any()]
    if small and any(s.str.contains(r"^[1-9]\d{0,2},\d{3}$").any() for s in small):
        return "."  # 980, then 1,020
    if sep == ";" and not any(s.str.contains(r"^\d{1,3}$").any() for s in texts):
        return ","
    raise DataError(
        "1,234 may be a thousand and more or one and a fraction, and no number here tells: "
        "say --decimal . (thousands) or --decimal ,"
    )


def _votes(text: pl.Series, mark: str) -> int:
    """Numbers in which `mark` can only be the decimal sign (or the other mark only groups)."""
    other = "." if mark == "," else ","
    m, o = ("\\" + mark if mark == "." else mark), ("\\" + other if other == "." else other)
    core = _core(text.filter(text.str.contains(rf"{m}|{o}")))[0].str.strip_prefix("-")
    both = core.str.contains(rf"^\d{{1,3}}(?:{o}\d{{2,3}})*{o}\d{{3}}{m}\d+$")
    lone = core.str.contains(rf"^\d*{m}\d*$")
    three = core.str.contains(rf"^[1-9]\d{{0,2}}{m}\d{{3}}$")
    groups = core.str.contains(rf"^\d{{1,3}}(?:{o}\d{{3}}){{2,}}$")
    return int((both | (lone & ~three) | groups).sum())


def _dots_alone(texts: Sequence[pl.Series], volumes: Sequence[pl.Series], sep: str) -> str:
    """Points and no comma: the decimal sign, unless every one of them stands before three digits
    and the volume is grouped by points, too (12.345;1.234.567)."""
    if any(s.str.contains(r"^\d{1,3}(?:\.\d{3}){2,}$").any() for s in [*volumes, *texts]):
        loose = any(s.str.contains(r"^\d+\.(?:\d{1,2}|\d{4,})$").any() for s in texts)
        return "." if loose else ","
    return "."
