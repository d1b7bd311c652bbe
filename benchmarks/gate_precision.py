"""How precise is the data gate? What it says of a made panel whose faults are known.

    python benchmarks/gate_precision.py [--items 1000] [--panels 5] [--write]

Returns have fat tails and quiet and stormy times (log volatility is an AR(1), innovations are
Student's t with 4 degrees of freedom), nights and days apart; volume follows the move, has a memory
and is rounded; prices are rounded to cents. Each item carries one planted kind, or none. Real
crashes are days of news: most of the fall is in the night, and volume and range grow (medians six
and two and a half times, with wide spread) and calm down over days; a tenth of them happen within
the day. Spin-offs are a gap of any size on a nearly ordinary day. `--write` puts the table into
docs/data-gate.md.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foresweep.data.reading.sources import load_panel

Array = NDArray[np.float64]
PAGE = Path(__file__).parents[1] / "docs" / "data-gate.md"
BARS = 750
KINDS: Mapping[str, int] = {
    "split": 250,
    "reverse split": 60,
    "crash": 210,
    "jump up": 100,
    "spin-off": 40,
    "flip of a close": 60,
    "high and low exchanged": 40,
    "sign of a price lost": 40,
    "suspension": 40,
    "adjusted close, good": 60,
    "adjusted close, bad": 60,
    "none": 40,
}
"""Kinds and how many of 1,000 items carry each."""
RATIOS = {2: 0.5, 1.5: 0.17, 3: 0.12, 4: 0.07, 5: 0.05, 10: 0.04, 20: 0.02, 7: 0.02, 2.5: 0.01}
"""Splits by how common they are (new shares for one old)."""
REVERSES = {10: 0.35, 5: 0.15, 20: 0.13, 4: 0.1, 8: 0.07, 15: 0.06, 2: 0.05, 3: 0.05, 25: 0.04}


@dataclass
class Made:
    """One item: [n] each, before rounding."""

    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array
    adjusted: Array | None = None
    dividends: Array | None = None
    at: int = 0  # where the fault is planted
    results: Array | None = None  # days on which results are told

    def scale(self, start: int, ratio: float) -> None:
        """Prices from `start` on times `ratio`."""
        for prices in (self.open, self.high, self.low, self.close):
            prices[start:] *= ratio


def ordinary(rng: np.random.Generator, news: int | None = None, size: float = 0.0) -> Made:
    """An ordinary item; with `news`, a real jump of log size `size` on that day."""
    n = BARS
    level = np.exp(rng.normal(np.log(0.017), 0.4))
    stormy = np.zeros(n)
    shocks = rng.normal(0, 0.45 * np.sqrt(1 - 0.97**2), n)
    for k in range(1, n):
        stormy[k] = 0.97 * stormy[k - 1] + shocks[k]
    busy = np.zeros(n)
    earnings = rng.integers(0, 63) + 63 * np.arange(n // 63 + 1)
    busy[earnings[earnings < n]] = rng.normal(0.8, 0.3, (earnings < n).sum())
    volumes = np.zeros(n)
    if news is not None:
        after = np.exp(-np.arange(n - news) / 3)
        stormy[news:] += 0.5 * after * rng.lognormal(0, 0.3)
        busy[news:] += np.maximum(rng.normal(np.log(2.5), 0.35), 0.2) * np.exp(
            -np.arange(n - news) / 1.5
        )
        volumes[news:] += rng.normal(np.log(6), 0.5) * after
    sigma = level * np.exp(stormy + busy)
    nights = 0.5 * sigma * rng.standard_t(4, n) / np.sqrt(2)
    days = 0.8 * sigma * rng.standard_t(5, n) / np.sqrt(5 / 3)
    if news is not None:
        share = 0.0 if rng.random() < 0.1 else rng.uniform(0.6, 1.1)
        nights[news] += share * size
        days[news] += (1 - share) * size
    close = rng.lognormal(np.log(40), 0.7) * np.exp(np.cumsum(nights + days))
    opened = close / np.exp(days)
    up, down = (0.45 * sigma * np.abs(rng.normal(size=n)) for _ in range(2))
    memory = np.zeros(n)
    noise = rng.standard_t(5, n) * 0.22
    for k in range(1, n):
        memory[k] = 0.6 * memory[k - 1] + noise[k]
    moved = np.abs(nights + days) / (level * np.exp(stormy))
    if news is not None:
        moved[news] = np.minimum(moved[news], 1.0)
    volume = rng.lognormal(np.log(2e6), 1) * np.exp(
        memory + 0.8 * busy + volumes + 0.25 * np.minimum(moved, 4)
    )
    high, low = np.maximum(opened, close) * np.exp(up), np.minimum(opened, close) * np.exp(-down)
    return Made(opened, high, low, close, volume, results=earnings)


def _day(rng: np.random.Generator) -> int:
    return int(rng.integers(40, BARS - 40))


def _drawn(rng: np.random.Generator, weights: Mapping[float, float]) -> float:
    shares = np.array([*weights.values()])
    return float(rng.choice([*weights], p=shares / shares.sum()))


def split(rng: np.random.Generator) -> Made:
    """A split; the volume of a third of the items is adjusted already, as some vendors do."""
    return _split(rng, _drawn(rng, RATIOS))


def reverse(rng: np.random.Generator) -> Made:
    return _split(rng, 1 / _drawn(rng, REVERSES))


def _split(rng: np.random.Generator, ratio: float) -> Made:
    made, at = ordinary(rng), _day(rng)
    while np.abs(made.results - at).min() < 6:
        at = _day(rng)
    made.scale(at, 1 / ratio)
    if rng.random() > 1 / 3:
        made.volume[at:] *= ratio
    made.at = at
    return made


def crash(rng: np.random.Generator) -> Made:
    return _news(rng, -_size(rng))


def jump_up(rng: np.random.Generator) -> Made:
    return _news(rng, _size(rng))


def _size(rng: np.random.Generator) -> float:
    """Log size of a real jump: 20 % to 80 % down, or 25 % to 400 % up, by an inverse square law.
    Markets' own is the inverse cube (Gopikrishnan et al. 1999): large ones are too common here."""
    return min(float(0.22 / np.sqrt(rng.random())), np.log(5))


def _news(rng: np.random.Generator, size: float) -> Made:
    at = _day(rng)
    made = ordinary(rng, at, size)
    made.at = at
    return made


def spin_off(rng: np.random.Generator) -> Made:
    """The share loses 8 to 50 % of its price (mostly less), on a day a little busier than usual."""
    made, at = ordinary(rng), _day(rng)
    made.scale(at, 1 - 0.08 - 0.42 * rng.beta(1.2, 2.5))
    made.volume[at : at + 3] *= rng.lognormal(np.log(1.6), 0.4)
    made.at = at
    return made


def flip(rng: np.random.Generator) -> Made:
    """One to three bars at a wrong scale."""
    made, at = ordinary(rng), _day(rng)
    width, factor = int(rng.integers(1, 4)), _drawn(rng, {10: 1, 0.1: 1, 100: 1, 0.01: 1, 2: 1})
    made.scale(at, factor)
    made.scale(at + width, 1 / factor)
    made.at = at
    return made


def exchanged(rng: np.random.Generator) -> Made:
    made, at = ordinary(rng), _day(rng)
    made.high[at], made.low[at] = made.low[at], made.high[at]
    made.at = at
    return made


def sign(rng: np.random.Generator) -> Made:
    made, at = ordinary(rng), _day(rng)
    prices = (made.open, made.high, made.low, made.close)[int(rng.integers(4))]
    prices[at] *= -1
    made.at = at
    return made


def suspension(rng: np.random.Generator) -> Made:
    """Three to sixty days at one price without volume."""
    made, at = ordinary(rng), _day(rng)
    stop = min(at + int(rng.integers(3, 60)), BARS - 5)
    for prices in (made.open, made.high, made.low):
        prices[at:stop] = made.close[at - 1]
    made.close[at:stop] = made.close[at - 1]
    made.volume[at:stop] = 0
    made.at = at
    return made


def good_adjusted(rng: np.random.Generator) -> Made:
    """Quarterly dividends, every second item with a split as well; half tell their dividends."""
    made = ordinary(rng)
    factor = np.ones(BARS)
    paid = np.zeros(BARS)
    for at in range(int(rng.integers(5, 63)), BARS, 63):
        paid[at] = np.round(made.close[at - 1] * rng.uniform(0.004, 0.012), 2)
        factor[:at] *= 1 - paid[at] / made.close[at - 1]
    if rng.random() < 0.5:
        at, ratio = _day(rng), _drawn(rng, RATIOS)
        made.scale(at, 1 / ratio)
        paid[at:] /= ratio
        factor[:at] /= ratio
    made.adjusted = made.close * factor
    made.dividends = paid if rng.random() < 0.5 else None
    return made


def bad_adjusted(rng: np.random.Generator) -> Made:
    """As good ones, but a dividend is a hundred times too big or left out of the factor (where the
    dividends are told), or the factor steps where nothing happened."""
    made = good_adjusted(rng)
    assert made.adjusted is not None
    at = _day(rng)
    if made.dividends is not None and rng.random() < 0.6:
        paid = np.flatnonzero(made.dividends)
        at = int(paid[len(paid) // 2])
        share = made.dividends[at] / made.close[at - 1]
        wrong = 1.0 if rng.random() < 0.5 else 1 - min(100 * share, 0.6)
        made.adjusted[:at] *= wrong / (1 - share)
    else:
        made.adjusted[:at] *= rng.choice([0.5, 1.05, 1.5, 0.7, 2.0, 10.0])
    made.at = at
    return made


MAKERS: Mapping[str, Callable[[np.random.Generator], Made]] = {
    "split": split,
    "reverse split": reverse,
    "crash": crash,
    "jump up": jump_up,
    "spin-off": spin_off,
    "flip of a close": flip,
    "high and low exchanged": exchanged,
    "sign of a price lost": sign,
    "suspension": suspension,
    "adjusted close, good": good_adjusted,
    "adjusted close, bad": bad_adjusted,
    "none": ordinary,
}


def make(num_items: int, seed: int) -> dict[str, tuple[str, pl.DataFrame, int]]:
    """item -> (its kind, its frame, the row of its fault), `num_items` in all."""
    shares = np.array([*KINDS.values()]) / sum(KINDS.values())
    edges = np.round(np.cumsum(shares) * num_items).astype(int)
    days = np.busday_offset("2015-01-05", np.arange(BARS), roll="forward").astype("datetime64[ns]")
    out = {}
    for k in range(num_items):
        kind = [*KINDS][int(np.searchsorted(edges, k, side="right"))]
        made = MAKERS[kind](np.random.default_rng([seed, k]))
        columns = {
            "timestamp": days,
            "open": np.round(made.open, 2),
            "high": np.round(made.high, 2),
            "low": np.round(made.low, 2),
            "close": np.round(made.close, 2),
            "volume": np.round(made.volume),
        }
        if made.adjusted is not None:
            columns["adj_close"] = np.round(made.adjusted, 6)
        if made.dividends is not None:
            columns["dividends"] = np.round(made.dividends, 4)
        out[f"I{k:04}"] = (kind, pl.DataFrame(columns), made.at)
    return out


CALLS: Mapping[str, tuple[str, ...]] = {
    "a split": ("split_jump", "large_jump"),
    "an event": ("event_jump",),
    "a move": ("large_move",),
    "bad bars": (
        "price_flip", "high_below_low", "non_positive_price", "open_close_outside",
    ),
    "suspended": ("suspended",),
    "adjusted closes not used": ("adjusted_contradicted",),
}  # fmt: skip
"""What the gate can say of a fault -> the rules that say it."""
NOTHING = "nothing"


@dataclass(frozen=True)
class Outcome:
    """What was planted and what was said."""

    table: Mapping[str, Counter[str]]  # kind -> what it was called -> items
    elsewhere: int  # splits called on days without one

    def share(self, kinds: tuple[str, ...], call: str) -> float:
        """Share of the items of these kinds that are called so."""
        items = sum(self.table[k].total() for k in kinds)
        return sum(self.table[k][call] for k in kinds) / items

    @property
    def splits_found(self) -> float:
        return self.share(("split", "reverse split"), "a split")

    @property
    def moves_called_splits(self) -> float:
        return self.share(("crash", "jump up", "spin-off"), "a split")


def judge(num_items: int, num_panels: int) -> Outcome:
    """Made panels of seeds 0, 1, ... through the gate."""
    table = {kind: Counter[str]() for kind in KINDS}
    elsewhere = 0
    for seed in range(num_panels):
        made = make(num_items, seed)
        report = load_panel({name: frame for name, (_, frame, _) in made.items()}).report
        said: dict[str, list[tuple[str, int | None]]] = {name: [] for name in made}
        for finding in report.findings:
            if finding.item is not None:
                said[finding.item].append((finding.rule, finding.row))
        for name, (kind, _, at) in made.items():
            here = [rule for rule, row in said[name] if row is None or abs(row - 1 - at) <= 1]
            if kind == "adjusted close, good":  # it has no fault: nothing may be said anywhere
                here = [rule for rule, _ in said[name] if rule == "adjusted_contradicted"]
            table[kind][next((c for c, rules in CALLS.items() if {*rules} & {*here}), NOTHING)] += 1
            splits = [row for rule, row in said[name] if rule == "split_jump" and row is not None]
            elsewhere += sum(abs(row - 1 - at) > 1 for row in splits)
    return Outcome(table, elsewhere)


def text(outcome: Outcome, num_items: int, num_panels: int) -> str:
    """The confusion table and its two figures."""
    calls = [*CALLS, NOTHING]
    lines = [f"| planted | items | {' | '.join(calls)} |", "| --- |" + " ---: |" * (len(calls) + 1)]
    for kind, counts in outcome.table.items():
        cells = [f"{counts[c]:,}" if counts[c] else "" for c in calls]
        lines.append(f"| {kind} | {counts.total():,} | {' | '.join(cells)} |")
    days = num_panels * num_items * BARS
    lines += [
        "",
        f"Splits found: {100 * outcome.splits_found:.1f} %. Moves called splits: "
        f"{100 * outcome.moves_called_splits:.2f} % (of crashes and jumps "
        f"{100 * outcome.share(('crash', 'jump up'), 'a split'):.2f} %, of spin-offs "
        f"{100 * outcome.share(('spin-off',), 'a split'):.1f} %: those that fall by about a third "
        f"look like 3-for-2). Splits called on the {days:,} other days: {outcome.elsewhere}.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--panels", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="put the table into docs/data-gate.md")
    asked = parser.parse_args()
    table = text(judge(asked.items, asked.panels), asked.items, asked.panels)
    print(table)
    if asked.write:
        marks = r"(<!-- precision -->\n).*(\n<!-- /precision -->)"
        whole = PAGE.read_text()
        PAGE.write_text(re.sub(marks, lambda m: f"{m[1]}\n{table}\n{m[2]}", whole, flags=re.S))


if __name__ == "__main__":
    main()
