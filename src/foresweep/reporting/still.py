"""A figure as a still picture: SVG without a script, for a notebook that is sent to somebody.

It draws what such figures hold: lines, marks, error bars, filled bands and candles over numbers or
words. plotly's own picture of the same figure is what pages show.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from foresweep.reporting.blocks import Spec
from foresweep.reporting.figures import BAD, FAINT, GOOD, PALETTE

LEFT, RIGHT, TOP, BOTTOM = 64, 12, 10, 34
TICKS = 5


@dataclass(frozen=True, slots=True)
class _Axis:
    """Values to places between two ends; words stand in the order in which they came."""

    words: tuple[str, ...]  # (): numbers
    low: float
    high: float
    start: float  # where `low` is drawn
    end: float

    def at(self, value: Any) -> float:
        place = float(self.words.index(str(value))) if self.words else float(value)
        return self.start + (place - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """(place, label) of at most so many."""
        if self.words:
            every = -(-len(self.words) // most)
            return [(self.at(w), w) for w in self.words[::every]]
        raw = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * k for k in (1, 2, 5, 10) if power * k >= raw)
        first = math.ceil(self.low / step)
        values = [step * k for k in range(first, math.floor(self.high / step) + 1)]
        return [(self.at(v), f"{v:.10g}") for v in values]


def svg_of(spec: Spec, alt: str, *, width: int = 640, height: int = 280) -> str:
    """The figure as one `svg` element. `alt`: what it shows, in words."""
    traces, layout = spec["data"], spec["layout"]
    across = _axis(traces, layout, "x", LEFT, width - RIGHT)
    up = _axis(traces, layout, "y", height - BOTTOM, TOP)
    parts = [
        *_grid(across, up, width, height),
        *(_rule(shape, across, up, width, height) for shape in layout.get("shapes", ())),
        *(piece for k, trace in enumerate(traces) for piece in _drawn(trace, k, across, up)),
        _words(layout, width, height),
    ]
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{html.escape(alt)}" style="max-width:100%;height:auto" '
        f'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="11" '
        f'fill="currentColor">{"".join(parts)}</svg>'
    )


def _axis(traces: Sequence[Spec], layout: Spec, name: str, start: float, end: float) -> _Axis:
    said = layout.get(f"{name}axis", {})
    values = [v for t in traces for v in _values(t, name)]
    if said.get("type") == "category":
        order = said.get("categoryarray") or dict.fromkeys(str(v) for v in values)
        words = tuple(str(w) for w in order)
        return _Axis(words, -0.5, max(len(words), 1) - 0.5, start, end)
    numbers = [float(v) for v in values if v is not None] or [0.0, 1.0]
    low, high = min(numbers), max(numbers)
    room = 0.06 * (high - low) or abs(high) or 1.0
    return _Axis((), low - room, high + room, start, end)


def _values(trace: Spec, name: str) -> Iterator[Any]:
    """All that an axis has to hold."""
    if trace["type"] == "candlestick" and name == "y":
        yield from (v for key in ("low", "high") for v in trace[key])
        return
    yield from trace[name]
    bars = trace.get(f"error_{name}")
    if bars:
        for value, up, down in zip(trace[name], bars["array"], bars["arrayminus"], strict=True):
            if value is not None:
                yield from (value + up, value - down)


def _grid(across: _Axis, up: _Axis, width: int, height: int) -> Iterator[str]:
    ink = 'stroke="currentColor" stroke-opacity="0.15"'
    for y, label in up.ticks(max(TICKS, len(up.words))):
        yield f'<line x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" {ink}/>'
        at = f'x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end"'
        yield f"<text {at}>{_short(label)}</text>"
    for x, label in across.ticks(TICKS):
        at = f'x="{x:.1f}" y="{height - BOTTOM + 15}" text-anchor="middle"'
        yield f"<text {at}>{_short(label)}</text>"


def _short(label: str) -> str:
    """A label that has been escaped by `figures`, cut where it would not fit."""
    plain = html.unescape(label)
    return html.escape(plain if len(plain) <= 28 else f"{plain[:27]}…")


def _rule(shape: Spec, across: _Axis, up: _Axis, width: int, height: int) -> str:
    """A dashed line across or upwards, where it lies within the picture."""
    is_across = shape["xref"] == "paper" if "xref" in shape else False
    x = (LEFT, width - RIGHT) if is_across else (across.at(shape["x0"]),) * 2
    y = (up.at(shape["y0"]),) * 2 if is_across else (TOP, height - BOTTOM)
    if not (LEFT <= x[0] <= width - RIGHT and TOP <= y[0] <= height - BOTTOM):
        return ""
    ends = f'x1="{x[0]:.1f}" x2="{x[1]:.1f}" y1="{y[0]:.1f}" y2="{y[1]:.1f}"'
    return f'<line {ends} stroke="{FAINT}" stroke-dasharray="4 3"/>'


def _drawn(trace: Spec, k: int, across: _Axis, up: _Axis) -> Iterator[str]:
    if trace["type"] == "candlestick":
        yield from _candles(trace, across, up)
        return
    colour = (trace.get("line") or {}).get("color") or (trace.get("marker") or {}).get("color")
    colour = colour if isinstance(colour, str) else PALETTE[k % len(PALETTE)]
    points = [
        (across.at(x), up.at(y))
        for x, y in zip(trace["x"], trace["y"], strict=True)
        if x is not None and y is not None
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    if trace.get("fill") == "toself":
        yield f'<polygon points="{path}" fill="{trace["fillcolor"]}"/>'
        return
    mode = trace.get("mode", "lines")
    if "lines" in mode:
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
    for which in ("x", "y"):
        yield from _bounds(trace, which, colour, across, up)
    if "markers" in mode:
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points)


def _bounds(trace: Spec, which: str, colour: str, across: _Axis, up: _Axis) -> Iterator[str]:
    bars = trace.get(f"error_{which}")
    if not bars:
        return
    for n, (x, y) in enumerate(zip(trace["x"], trace["y"], strict=True)):
        if x is None or y is None:
            continue
        low, high = -bars["arrayminus"][n], bars["array"][n]
        ends = [(x + e, y) if which == "x" else (x, y + e) for e in (low, high)]
        (x1, y1), (x2, y2) = ((across.at(a), up.at(b)) for a, b in ends)
        yield (
            f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" '
            f'stroke="{colour}" stroke-width="1.4"/>'
        )


def _candles(trace: Spec, across: _Axis, up: _Axis) -> Iterator[str]:
    columns = (trace["x"], *(trace[k] for k in ("open", "high", "low", "close")))
    wide = 0.6 * (across.end - across.start) / max(1, len(across.words) or len(trace["x"]))
    for x, *prices in zip(*columns, strict=True):
        if None in prices:
            continue
        opened, high, low, close = (up.at(p) for p in prices)
        colour = GOOD if close <= opened else BAD  # up is less on a screen
        at = across.at(x)
        ends = f'x1="{at:.1f}" x2="{at:.1f}" y1="{high:.1f}" y2="{low:.1f}"'
        yield f'<line {ends} stroke="{colour}"/>'
        top, tall = min(opened, close), max(abs(opened - close), 1.0)
        yield (
            f'<rect x="{at - wide / 2:.1f}" y="{top:.1f}" width="{wide:.1f}" '
            f'height="{tall:.1f}" fill="{colour}"/>'
        )


def _words(layout: Spec, width: int, height: int) -> str:
    """What the axis across is of."""
    said = (layout.get("xaxis", {}).get("title") or {}).get("text") or ""
    at = f'x="{(LEFT + width - RIGHT) / 2:.0f}" y="{height - 4}" text-anchor="middle"'
    return f'<text {at} opacity="0.75">{html.escape(html.unescape(said))}</text>' if said else ""
