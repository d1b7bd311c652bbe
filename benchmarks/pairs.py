"""Two ways to do one thing, timed side by side: what the benchmarks of models stand on.

A shared machine is never equally busy twice, so a ratio of two medians measured one after the other
says little. Here both sides run in one process, in turns and in alternating order; each round gives
one ratio, theirs / ours, and what is told is their median with its lower 95 % bound.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000


@dataclass(frozen=True)
class Ratios:
    """How many times faster ours is: 2.0 means that theirs takes twice as long."""

    median: float  # of the paired ratios theirs / ours
    low95: float  # lower 95 % bound of that median
    ours_ms: float  # median of a round
    theirs_ms: float
    rounds: int


@dataclass(frozen=True)
class Row:
    """A line of the table. `bound` is the figure that must reach the target: median or low95 of
    the ratios from below, ours_ms from above."""

    what: str
    ratios: Ratios
    target: float | None = None
    bound: str = "median"
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Is the target reached? None where there is none."""
        if self.target is None:
            return None
        found = getattr(self.ratios, self.bound)
        return bool(found <= self.target if self.bound == "ours_ms" else found >= self.target)


def paired(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    rounds: int,
    warm_up: int = 2,
    repeats: int = 1,
) -> Ratios:
    """Time both sides `rounds` times in turns, after `warm_up` untimed calls of each.

    Each round times `repeats` calls of a side in one piece; even rounds begin with ours, odd ones
    with theirs. Memory is collected before a round, never within one.
    """
    for _ in range(warm_up):
        ours()
        theirs()
    times = np.empty((rounds, 2))
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for round_ in range(rounds):
            gc.collect()
            order = (0, 1) if round_ % 2 == 0 else (1, 0)
            for side in order:
                times[round_, side] = _timed((ours, theirs)[side], repeats)
    finally:
        if was_enabled:
            gc.enable()
    return summary(times[:, 0], times[:, 1])


def summary(ours_s: Iterable[float], theirs_s: Iterable[float]) -> Ratios:
    """Ratios of times in seconds that were measured in pairs."""
    mine, other = np.array(list(ours_s)), np.array(list(theirs_s))
    ratios = other / mine
    return Ratios(
        median=float(np.median(ratios)),
        low95=lower_bound(ratios),
        ours_ms=1000 * float(np.median(mine)),
        theirs_ms=1000 * float(np.median(other)),
        rounds=len(ratios),
    )


def lower_bound(ratios: np.ndarray, *, seed: int = 0) -> float:
    """One-sided 95 % bound of the median: the 5 % quantile of the medians of seeded resamples."""
    rng = np.random.default_rng(seed)
    drawn = ratios[rng.integers(len(ratios), size=(RESAMPLES, len(ratios)))]
    return float(np.quantile(np.median(drawn, axis=1), 0.05))


def table(rows: Iterable[Row]) -> str:
    """The rows in markdown."""
    head = ["what", "theirs ms", "ours ms", "ratio", "lower 95 %", "target", "reached", "rounds"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        found = row.ratios
        what = f"{row.what} ({row.note})" if row.note else row.what
        cells = [found.theirs_ms, found.ours_ms, found.median, found.low95]
        lines.append([what, *(_figure(x) for x in cells), *_verdict(row), str(found.rounds)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _verdict(row: Row) -> tuple[str, str]:
    if row.target is None:
        return "", ""
    names = {"median": f">= {row.target:g}x", "low95": f"bound >= {row.target:g}x"}
    target = names.get(row.bound, f"<= {row.target:g} ms")
    return target, "yes" if row.reached else "no"


def _figure(value: float) -> str:
    if not math.isfinite(value):
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _timed(do: Callable[[], object], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        do()
    return (time.perf_counter() - started) / repeats
