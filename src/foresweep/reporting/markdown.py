"""Tables and numbers in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def md_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; a heading that begins with '>' is a column of numbers."""
    bars = ["---:" if h.startswith(">") else "---" for h in headings]
    lines = [[h.removeprefix(">") for h in headings], bars, *rows]
    return ["| " + " | ".join(_cell(c) for c in line) + " |" for line in lines] + [""]


def num(value: float | None, digits: int = 4) -> str:
    """A number, or - where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def pct(value: float | None) -> str:
    """A share as signed percent, or - where there is none."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:+.2f} %"


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
