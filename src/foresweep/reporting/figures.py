"""Every figure of the pages, as plotly's own JSON: plain numbers in, data and layout out.

Colours of text and grid are left to the page, which knows light from dark. Names from the database
are escaped here, since plotly reads a few tags in its labels.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foresweep.reporting.blocks import Spec

Array = NDArray[np.float64]
PALETTE = (
    *("#3b7dd8", "#d9742b", "#2a9d6f", "#a95bb0", "#b8901b", "#2f9fb0", "#d1495b", "#7a7f87"),
)
GOOD, BAD, PLAIN, FAINT = "#2a9d6f", "#d1495b", "#3b7dd8", "#8a8f98"
MARK = {"color": FAINT, "symbol": "line-ew-open", "size": 26, "line": {"width": 2}}
MOST_LINES = 200
"""Lines of a figure; of more, these are shown, and it says so."""


def safe(text: object) -> str:
    """A text that plotly shows as it is."""
    return html.escape(str(text), quote=False)


def _layout(x: str = "", y: str = "", **more: Any) -> dict[str, Any]:
    axis = {"zeroline": False, "automargin": True, "exponentformat": "e"}
    return {
        "margin": {"l": 56, "r": 16, "t": 12, "b": 44},
        "hovermode": "closest",
        "legend": {"orientation": "h", "y": -0.22, "x": 0},
        "colorway": list(PALETTE),
        "xaxis": axis | {"title": {"text": safe(x)}},
        "yaxis": axis | {"title": {"text": safe(y)}},
    } | more


def _line(value: float, text: str, *, is_across: bool = True) -> tuple[Spec, Spec]:
    """A dashed line across at a value, and its words."""
    ends = {"x0": 0, "x1": 1, "xref": "paper", "y0": value, "y1": value}
    at = {"x": 1, "xref": "paper", "y": value, "xanchor": "right", "yanchor": "bottom"}
    if not is_across:
        ends = {"y0": 0, "y1": 1, "yref": "paper", "x0": value, "x1": value}
        at = {"y": 1, "yref": "paper", "x": value, "xanchor": "left", "yanchor": "top"}
    shape = {"type": "line", "line": {"dash": "dash", "width": 1.5, "color": FAINT}} | ends
    return shape, {"text": safe(text), "showarrow": False, "font": {"size": 11}} | at


def _numbers(values: Any) -> list[float | None]:
    """As JSON holds them: None where there is no number."""
    return [float(v) if v is not None and math.isfinite(v) else None for v in values]


# Over a sweep.


@dataclass(frozen=True, slots=True)
class TrialPoint:
    """A trial as the picture of the search shows it."""

    number: int
    model: str
    state: str
    score: float | None  # the objective on tune
    is_baseline: bool = False


def best_so_far(
    points: Sequence[TrialPoint], metric: str, *, minimize: bool, naive: float | None
) -> Spec:
    """Each trial's objective on tune by its number, the best so far as steps, pruned ones apart."""
    trained = [p for p in points if p.score is not None and not p.is_baseline]
    done = [p for p in trained if p.state == "complete"]
    data: list[Spec] = []
    for k, model in enumerate(dict.fromkeys(p.model for p in done)):
        mine = [p for p in done if p.model == model]
        data.append(_trials(mine, safe(model), PALETTE[k % len(PALETTE)], "circle"))
    pruned = [p for p in trained if p.state == "pruned"]
    if pruned:
        data.append(_trials(pruned, "pruned (where it stood)", FAINT, "x"))
    if done:
        scores = np.array([p.score for p in done], dtype=float)
        best = (np.minimum if minimize else np.maximum).accumulate(scores)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "best so far",
                "x": [p.number for p in done],
                "y": _numbers(best),
                "line": {"shape": "hv", "color": GOOD, "width": 2},
            }
        )
    layout = _layout("trial", f"{metric} on tune")
    if naive is not None:
        shape, words = _line(naive, "last-value")
        layout |= {"shapes": [shape], "annotations": [words]}
    return {"data": data, "layout": layout}


def _trials(points: Sequence[TrialPoint], name: str, colour: str, symbol: str) -> Spec:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [p.number for p in points],
        "y": _numbers(p.score for p in points),
        "marker": {"color": colour, "symbol": symbol, "size": 8, "opacity": 0.85},
    }


@dataclass(frozen=True, slots=True)
class Bar:
    """A value with its bounds, under a name."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    is_baseline: bool = False


def skills(bars: Sequence[Bar], words: str) -> Spec:
    """Skill under each name, best on top, with its interval; the line at 0 is last-value."""
    known = [b for b in bars if b.value is not None][::-1]
    data = [
        _dots([b for b in known if b.is_baseline is kind], name, colour, is_across=True, scale=100)
        for kind, name, colour in ((False, "trained", PLAIN), (True, "baseline", FAINT))
        if any(b.is_baseline is kind for b in known)
    ]
    layout = _layout(words)
    order = {"categoryorder": "array", "categoryarray": [safe(b.label) for b in known], "dtick": 1}
    layout["yaxis"] |= {"title": {"text": ""}, "type": "category"} | order
    shape, _ = _line(0.0, "", is_across=False)
    return {"data": data, "layout": layout | {"shapes": [shape]}}


def _dots(
    bars: Sequence[Bar], name: str, colour: str, *, is_across: bool = False, scale: float = 1.0
) -> Spec:
    """Dots with bounds; across: names on the left."""
    values = _numbers(None if b.value is None else scale * b.value for b in bars)
    names = [safe(b.label) for b in bars]
    up = [0.0 if b.high is None or b.value is None else scale * (b.high - b.value) for b in bars]
    down = [0.0 if b.low is None or b.value is None else scale * (b.value - b.low) for b in bars]
    error = {"type": "data", "array": up, "arrayminus": down, "thickness": 1.4, "width": 4}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": values if is_across else names,
        "y": names if is_across else values,
        "error_x" if is_across else "error_y": error | {"symmetric": False, "color": colour},
        "marker": {"color": colour, "size": 9},
    }


def parallel(axes: Mapping[str, Sequence[Any]], scores: Sequence[float], metric: str) -> Spec:
    """One line a run through its hyperparameters, the better the stronger; each axis is scaled to
    what was tried, words in order of their text."""
    ranked = np.argsort(np.argsort(scores))  # 0 is best: scores are badness
    columns = [_scaled(values) for values in axes.values()]
    last = 1.0 - ranked / max(1, len(scores) - 1)
    names = [*(safe(n) for n in axes), f"rank by {safe(metric)}"]
    data: list[Spec] = []
    for n in np.argsort(-ranked):  # the best is drawn last, on top
        top = 1.0 - ranked[n] / max(1, len(scores) - 1)
        said = [f"{safe(a)} = {safe(v[n])}" for a, v in axes.items()]
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": names,
                "y": [*(float(c[n]) for c in columns), float(last[n])],
                "line": {"color": _between(top), "width": 1 + 1.5 * top},
                "opacity": 0.25 + 0.7 * top,
                "hoverinfo": "text",
                "text": "<br>".join(said),
                "showlegend": False,
            }
        )
    layout = _layout()
    layout["yaxis"] |= {"title": {"text": "lowest … highest tried"}, "showticklabels": False}
    layout["xaxis"] |= {"title": {"text": ""}, "showgrid": True, "type": "category"}
    return {"data": data, "layout": layout}


def _scaled(values: Sequence[Any]) -> Array:
    """0..1 over what was tried: numbers by size (by logs where they spread over two decades), words
    by place."""
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        x = np.array(values, dtype=float)
        if x.min() > 0 and x.max() / x.min() >= 100:
            x = np.log(x)
    else:
        words = sorted({str(v) for v in values})
        x = np.array([words.index(str(v)) for v in values], dtype=float)
    width = float(x.max() - x.min())
    return (x - x.min()) / width if width else np.full(len(x), 0.5)


def _between(top: float) -> str:
    """From grey (0) to blue (1)."""
    ends = np.array([[150, 155, 165], [40, 110, 215]])
    red, green, blue = (int(v) for v in ends[0] + top * (ends[1] - ends[0]))
    return f"rgb({red},{green},{blue})"


def importances(bars: Sequence[tuple[str, float, float]]) -> Spec:
    """(hyperparameter, share, p): green where chance alone seldom looks so important."""
    ordered = list(bars)[::-1]
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "y": [safe(n) for n, _, _ in ordered],
                "x": [100 * s for _, s, _ in ordered],
                "text": [f"p {p:.2f}" for _, _, p in ordered],
                "textposition": "outside",
                "cliponaxis": False,
                "marker": {"color": [GOOD if p < 0.05 else FAINT for _, _, p in ordered]},
            }
        ],
        "layout": _layout("share of importance, %", margin={"l": 56, "r": 56, "t": 12, "b": 44}),
    }


def front(
    metrics: tuple[str, str],
    points: Sequence[tuple[str, float, float, str]],
    naive: tuple[float | None, float | None],
) -> Spec:
    """Two objectives: (label, x, y, front | knee | dominated); the front is joined."""
    kinds = (("dominated", FAINT, "circle"), ("front", PLAIN, "circle"), ("knee", GOOD, "star"))
    data: list[Spec] = []
    on_front = sorted((p[1], p[2]) for p in points if p[3] != "dominated")
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "x": [p[0] for p in on_front],
            "y": [p[1] for p in on_front],
            "line": {"color": PLAIN, "width": 1, "dash": "dot"},
            "showlegend": False,
            "hoverinfo": "skip",
        }
    )
    for kind, colour, symbol in kinds:
        mine = [p for p in points if p[3] == kind]
        if mine:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": kind,
                    "x": [p[1] for p in mine],
                    "y": [p[2] for p in mine],
                    "text": [safe(p[0]) for p in mine],
                    "marker": {"color": colour, "size": 10, "symbol": symbol},
                }
            )
    if None not in naive:
        point = {
            "x": [naive[0]],
            "y": [naive[1]],
            "marker": {"color": BAD, "symbol": "x", "size": 11},
        }
        data.append({"type": "scatter", "mode": "markers", "name": "last-value"} | point)
    return {"data": data, "layout": _layout(*metrics)}


# Over a run.


def lines(
    curves: Sequence[tuple[str, Sequence[int], Sequence[float]]],
    x: str,
    y: str,
    *,
    marks: Sequence[tuple[int, str]] = (),
) -> Spec:
    """Curves over steps under their names; `marks`: steps where something begins, and its words."""
    data = [
        {
            "type": "scatter",
            "mode": "lines" if len(xs) > 40 else "lines+markers",
            "name": safe(name),
            "x": list(xs),
            "y": _numbers(ys),
            "line": {"width": 1.8},
        }
        for name, xs, ys in curves
    ]
    layout = _layout(x, y, showlegend=len(data) > 1)
    if marks:
        shapes, words = zip(*(_line(*mark, is_across=False) for mark in marks), strict=True)
        layout |= {"shapes": list(shapes), "annotations": list(words)}
    return {"data": data, "layout": layout}


@dataclass(frozen=True, slots=True)
class Fan:
    """One window's forecast over its real candles. C bars of context, H ahead, Q levels."""

    item: str
    times: Sequence[str]  # [C + H]
    bars: Array  # [C + H, 4] open, high, low, close
    ahead: Sequence[str]  # [1 + H] the origin, then each lead
    quantiles: Array  # [1 + H, Q]; the first row is the last close
    levels: tuple[float, ...]


def fan(shown: Fan, others: Sequence[tuple[str, Array]] = ()) -> Spec:
    """Candles, the median and its bands; `others`: medians [1 + H] of more runs, by name."""
    data: list[Spec] = [
        {
            "type": "candlestick",
            "name": safe(shown.item),
            "x": list(shown.times),
            **{
                k: _numbers(shown.bars[:, c])
                for c, k in enumerate(("open", "high", "low", "close"))
            },
            "increasing": {"line": {"color": GOOD, "width": 1}},
            "decreasing": {"line": {"color": BAD, "width": 1}},
            "showlegend": False,
        }
    ]
    num = len(shown.levels)
    for k in range(num // 2):
        low, high = shown.levels[k], shown.levels[num - 1 - k]
        if low + high != 1.0 and abs(low + high - 1.0) > 1e-6:
            continue
        band = [*shown.quantiles[:, num - 1 - k], *shown.quantiles[::-1, k]]
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"{100 * (high - low):.0f} % band",
                "x": [*shown.ahead, *shown.ahead[::-1]],
                "y": _numbers(band),
                "fill": "toself",
                "fillcolor": "rgba(59,125,216,0.16)",
                "line": {"width": 0},
                "hoverinfo": "skip",
                "showlegend": k in (0, num // 2 - 1),
            }
        )
    median = shown.quantiles[:, shown.levels.index(0.5)]
    for k, (name, path) in enumerate((("median", median), *others)):
        colour = PALETTE[k % len(PALETTE)]
        trace = {"x": list(shown.ahead), "y": _numbers(path), "line": {"color": colour, "width": 2}}
        data.append({"type": "scatter", "mode": "lines+markers", "name": safe(name)} | trace)
    layout = _layout("", "price")
    layout["xaxis"] |= {"type": "category", "nticks": 8, "rangeslider": {"visible": False}}
    return {"data": data, "layout": layout}


def grouped(bars: Sequence[Bar], x: str, y: str, *, naive: Sequence[Bar] = ()) -> Spec:
    """A score in groups with its bounds, beside the naive forecast's."""
    data = [_dots(bars, "this run", PLAIN)]
    if naive:
        data.append(_dots(naive, "last-value", FAINT) | {"marker": MARK})
    layout = _layout(x, y, showlegend=bool(naive))
    layout["xaxis"]["type"] = "category"
    return {"data": data, "layout": layout}


def over_time(times: Sequence[str], series: Sequence[tuple[str, Array]], y: str) -> Spec:
    """Values by origin."""
    data = [
        {"type": "scatter", "mode": "lines", "name": safe(n), "x": list(times), "y": _numbers(v)}
        for n, v in series
    ]
    return {"data": data, "layout": _layout("origin", y, showlegend=len(data) > 1)}


def reliability(levels: Sequence[float], below: Sequence[float]) -> Spec:
    """How often the close came at or below each quantile; honest quantiles lie on the line."""
    data: list[Spec] = [
        {"x": [0, 1], "y": [0, 1], "mode": "lines", "name": "honest", "line": {"color": FAINT}},
        {"x": list(levels), "y": _numbers(below), "mode": "lines+markers", "name": "this run"},
    ]
    layout = _layout("level of the quantile", "share of closes at or below")
    layout["xaxis"] |= {"range": [0, 1]}
    layout["yaxis"] |= {"range": [0, 1]}
    return {"data": [{"type": "scatter"} | d for d in data], "layout": layout}


def pit(levels: Sequence[float], below: Sequence[float]) -> Spec:
    """Share of closes between neighbouring quantiles over the share that was promised: 1 is right,
    tall ends mean a fan that is too narrow."""
    edges = np.array([0.0, *levels, 1.0])
    came = np.diff(np.array([0.0, *below, 1.0]))
    names = [f"{100 * a:.0f}–{100 * b:.0f} %" for a, b in pairwise(edges)]
    bar = {
        "type": "bar",
        "x": names,
        "y": _numbers(came / np.diff(edges)),
        "marker": {"color": PLAIN},
    }
    shape, words = _line(1.0, "honest")
    layout = _layout("between quantiles", "came / promised", shapes=[shape], annotations=[words])
    return {"data": [bar], "layout": layout}


# Between runs.


def paired(times: Sequence[str], difference: Array, error: Array, words: str) -> Spec:
    """Mean loss difference up to each origin with its 90 % bounds."""
    reach = 1.645 * error
    return bounded(times, difference, (difference - reach, difference + reach), words)


def bounded(times: Sequence[str], mean: Array, bounds: tuple[Array, Array], words: str) -> Spec:
    """Means [T] up to each origin within their bounds [T]."""
    low, high = bounds
    band = {
        "x": [*times, *reversed(times)],
        "y": _numbers([*high, *low[::-1]]),
        "fill": "toself",
        "fillcolor": "rgba(59,125,216,0.16)",
        "line": {"width": 0},
        "mode": "lines",
        "name": "90 % interval",
        "hoverinfo": "skip",
    }
    line = {"x": list(times), "y": _numbers(mean), "mode": "lines", "name": "mean up to here"}
    shape, _ = _line(0.0, "")
    layout = _layout("origin", words, shapes=[shape])
    return {"data": [{"type": "scatter"} | d for d in (band, line)], "layout": layout}


def horizons(rows: Sequence[tuple[str, int, Bar]]) -> Spec:
    """(model, horizon, skill): each model's best by horizon."""
    data = []
    for k, model in enumerate(dict.fromkeys(r[0] for r in rows)):
        bars = [Bar(f"{h} bars", b.value, b.low, b.high) for m, h, b in rows if m == model]
        data.append(_dots(bars, safe(model), PALETTE[k % len(PALETTE)], scale=100))
    shape, words = _line(0.0, "last-value")
    layout = _layout("horizon", "skill on val, %", shapes=[shape], annotations=[words])
    layout["xaxis"]["type"] = "category"
    return {"data": data, "layout": layout}


# Data and verdict.


def heat_strip(
    items: Sequence[str], months: Sequence[str], missing: Array, parts: Sequence[tuple[str, str]]
) -> Spec:
    """Share of sessions without a sound bar, by item [I] and month [M]; lines: parts."""
    heat = {
        "type": "heatmap",
        "x": list(months),
        "y": [safe(i) for i in items],
        "z": [_numbers(100 * row) for row in missing],
        "zmin": 0,
        "zmax": 100,
        "colorscale": [[0, "rgba(42,157,111,0.35)"], [0.02, "#e8c14a"], [1, "#d1495b"]],
        "colorbar": {"title": {"text": "% missing"}, "thickness": 12},
        "hovertemplate": "%{y} %{x}: %{z:.0f} % of sessions missing<extra></extra>",
    }
    marks = [_line(0, name, is_across=False) for name, _ in parts]
    for (shape, words), (_, start) in zip(marks, parts, strict=True):
        shape |= {"x0": start, "x1": start}
        words |= {"x": start, "y": 1.0, "yanchor": "bottom"}
    layout = _layout(shapes=[m[0] for m in marks], annotations=[m[1] for m in marks])
    layout["margin"] |= {"t": 26}
    layout["xaxis"] |= {"type": "date"}
    layout["yaxis"] |= {"type": "category", "autorange": "reversed"}
    return {"data": [heat], "layout": layout}


def luck(bars: Sequence[Bar]) -> Spec:
    """What was found beside what luck and power allow, in percent of scaled skill."""
    colours = [PLAIN, FAINT, FAINT, FAINT]
    data = [
        _dots([b], safe(b.label), colours[min(k, 3)], is_across=True, scale=100)
        for k, b in enumerate(bars)
        if b.value is not None
    ]
    layout = _layout("scaled skill on val, %", showlegend=False)
    names = [safe(b.label) for b in bars if b.value is not None][::-1]
    layout["yaxis"] |= {"type": "category", "categoryorder": "array", "categoryarray": names}
    shape, _ = _line(0.0, "", is_across=False)
    return {"data": data, "layout": layout | {"shapes": [shape]}}
