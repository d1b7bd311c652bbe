"""Surrogate prices: the same volatility, nothing left to foretell.

What a search finds on them it found in luck, or through a leak. Theiler and others 1992, "Testing
for nonlinearity in time series: the method of surrogate data"; for blocks Politis and Romano 1992.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from foresweep.data.panel import AMOUNT, CLOSE, HIGH, LOW, VOLUME, Array, Bars, IntArray, Panel
from foresweep.errors import UnknownName

Kind = Literal["signs", "blocks"]
KINDS: tuple[str, ...] = get_args(Kind)
BLOCK = 20
"""Times of the timeline in a block that is moved as a whole."""


def surrogate_panel(panel: Panel, kind: str, *, seed: int) -> Panel:
    """The panel with prices that nobody can foretell.

    `signs`: each item's log returns less their mean, their signs flipped at random, the same for
    all items of a time; a bar whose return is flipped is mirrored as a whole, so that high and low
    stay around open and close. Sizes of moves and how items move together are kept, direction is
    not: forecasts of volatility keep their skill. `blocks`: stretches of 20 times in another order,
    the same for all items; what happens within a stretch is kept. Times, gaps, volumes and each
    item's first close stay. Raises UnknownName.
    """
    if kind not in KINDS:
        raise UnknownName("kind of surrogate", kind, KINDS)
    chance = np.random.default_rng([seed, KINDS.index(kind)])
    num = len(panel.timeline)
    signs = chance.choice([-1.0, 1.0], num)
    rank = chance.permutation(-(-num // BLOCK))
    bars = []
    for i, own in enumerate(panel.bars):
        times = panel.timeline_of(i)
        moves, rest = log_moves(own.values), own.values[:, VOLUME:].copy()
        rest[:, 1:] /= own.values[:, : CLOSE + 1].mean(axis=1, keepdims=True)
        if kind == "signs":
            moves[1:] -= moves[1:, CLOSE, None].mean(axis=0)
            moves = _mirrored(moves, signs[times])
        else:
            order = _order(rank, times)
            moves, rest = moves[order], rest[order]
        bars.append(_rebuilt(own, moves, rest))
    return replace(panel, bars=tuple(bars), source=f"surrogate ({kind}) of {panel.source}")


def log_moves(values: Array) -> Array:
    """[n, 4] open, high, low and close of each bar as log moves from the close before; the first
    bar's from its own close."""
    logs = np.log(values[:, : CLOSE + 1])
    before = np.concatenate([logs[:1, CLOSE], logs[:-1, CLOSE]])
    moves: Array = logs - before[:, None]
    return moves


def _mirrored(moves: Array, signs: Array) -> Array:
    """Bars turned upside down where the sign is negative: the high becomes the low."""
    turned = -moves
    turned[:, [HIGH, LOW]] = turned[:, [LOW, HIGH]]
    return np.where(signs[:, None] < 0, turned, moves)


def _order(rank: IntArray, times: IntArray) -> IntArray:
    """[n] which bar comes when: blocks of the timeline by rank, within a block as it was. The first
    bar stays: no move leads to it."""
    found: IntArray = np.concatenate(
        [[0], 1 + np.argsort(rank[times[1:] // BLOCK], kind="stable")]
    ).astype(np.int64)
    return found


def _rebuilt(own: Bars, moves: Array, rest: Array) -> Bars:
    """Prices from moves, on from the item's first close; `rest` is [n, volume
    (and amount over price)]."""
    first = np.log(own.values[0, CLOSE])
    close = first + np.cumsum(np.concatenate([[0.0], moves[1:, CLOSE]]))
    before = np.concatenate([[first], close[:-1]])
    prices = np.exp(before[:, None] + moves)
    prices[0] = own.values[0, : CLOSE + 1]
    prices[:, HIGH] = prices.max(axis=1)  # exp may round a high below its close
    prices[:, LOW] = prices.min(axis=1)
    values = np.column_stack([prices, rest])
    values[:, AMOUNT:] *= prices.mean(axis=1, keepdims=True)  # the money moves with the prices
    values.setflags(write=False)
    return replace(own, values=values)
