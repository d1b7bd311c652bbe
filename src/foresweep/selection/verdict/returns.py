"""The verdict on what a strategy search earned: each column of a table of returns is a trial.

Judged by the gates of losses: a trial's return less the benchmark's, bar by bar, is what is tested,
val is what the search has seen, test the bars from a stated day on. Beside the benchmark stands
cash: whoever loses less than the market has not earned anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foresweep.data.reading.returns import ReturnTable, read_returns
from foresweep.errors import DataError, UnknownName, UsageError
from foresweep.evaluation.trading import bars_per_year, sharpe
from foresweep.records import Check, DeflatedSharpe, StrategySharpe, Verdict
from foresweep.selection.verdict.beside import ONE_SIDED, deflated
from foresweep.selection.verdict.case import (
    EXCESS,
    NO_WEIGHTS,
    RETURNS,
    Case,
    PartLosses,
    Terms,
    Weights,
)
from foresweep.selection.verdict.foreign import SCRATCH, Asked
from foresweep.selection.verdict.gates import Opened, judge
from foresweep.stats.significance import Array, origin_means

CASH = "cash"
"""Never trading: a return of 0 on every bar."""
PLAUSIBLE_SHARPE = 3.0
"""A year, after costs: nothing traded bar by bar is surely beyond this; look for a leak first."""
MOST_BARS = 5000
"""Bars beyond which those of a day are compounded into one: a test gains nothing from more."""
TWO_SIDED = 1.959963984540054
COSTS = ("included", "none")
"""What may be said of trading costs: they are within the returns, or not."""


@dataclass(frozen=True, slots=True, eq=False)
class PartReturns(PartLosses):
    """Returns of some trials on the same bars of one part: `raw` is what was lost, -return, as a
    fraction of the capital; the items of a bar are held in equal parts. `scale` is 1."""

    bars_per_year: float = 252.0

    @property
    def terms(self) -> Terms:
        """What its numbers are called."""
        return EXCESS

    def earned(self, name: str) -> Array:
        """[O] returns a bar."""
        found: Array = -origin_means(self.of(name))
        return found

    def raw_mean(self, name: str) -> float:
        """Mean loss of capital a year: minus the mean return a bar times the bars of a year."""
        return -self.bars_per_year * float(self.earned(name).mean())

    def over(self, name: str, opponent: str) -> Array:
        """[O] return less the opponent's, held as much as the trial holds of it where that is more
        than once: r - max(1, beta) r_o, beta by least squares (Jensen 1968). Whoever borrows to
        hold twice the market has found nothing."""
        ours, theirs = self.earned(name), self.earned(opponent)
        off = theirs - theirs.mean()
        power = float(off @ off)
        beta = float(off @ ours) / power if power > 0 and opponent != CASH else 0.0
        found: Array = ours - max(1.0, beta) * theirs
        return found

    def raw_skill(self, name: str, opponent: str) -> float:
        """Mean return a year over the opponent's, a fraction of the capital."""
        return self.bars_per_year * float(self.over(name, opponent).mean())

    def differences(self, opponent: str, names: Sequence[str]) -> Array:
        """[O, K] what `names` earn over the opponent, each column over its own deviation: its mean
        is the Sharpe ratio a year of that."""
        d = np.column_stack([self.over(name, opponent) for name in names])
        spread = d.std(axis=0, ddof=1)
        varies = spread > 1e-12 * np.maximum(np.abs(d).max(axis=0), 1e-300)
        scaled: Array = d * np.sqrt(self.bars_per_year) / np.where(varies, spread, 1.0)
        return scaled

    def unit(self, opponent: str) -> float:
        """Differences are Sharpe ratios already."""
        return 1.0


@dataclass(frozen=True, slots=True)
class AskedReturns(Asked):
    """How a table of returns is to be judged."""

    costs: str | None = None  # of COSTS; None: unsaid
    test_from: str | None = None  # first day that no choice has seen, ISO; None: there is none


def verdict_on_returns(path: Path, asked: AskedReturns, *, seed: int = 0) -> Verdict:
    """The verdict on a trial (default: the highest Sharpe ratio over the benchmark on val) of a
    file or folder of returns.

    Raises DataError for a file that cannot be judged, UnknownName, UsageError.
    """
    (benchmark,) = asked.benchmarks
    table, notes = _compounded(_with_cash(read_returns(path)))
    for name in (benchmark, *([asked.candidate] if asked.candidate else [])):
        if name not in table.trials:
            raise UnknownName("trial", name, table.trials, where=f"in {path}")
    if asked.candidate in (benchmark, CASH):
        raise UsageError(f"{asked.candidate!r} cannot be both candidate and benchmark")
    seen = _seen(table, asked, path)
    others = tuple(n for n in table.trials if n not in (benchmark, CASH))
    val, holed = _part(table, benchmark, others, seen)
    trials = tuple(n for n in others if n not in holed)
    for needed in (CASH, asked.candidate):
        if needed in holed:
            raise DataError(
                f"{path}: {needed} lacks returns on bars where {benchmark} has some; whoever holds "
                f"nothing earns 0: write it"
            )
    if not trials:
        raise DataError(
            f"{path}: no trial has a return on each bar of {benchmark}; whoever holds nothing "
            f"earns 0: write it, and of several items name the benchmark of each"
        )
    if len(others) == 1 and asked.num_trials is None:
        raise UsageError(
            f"{path} holds one trial beside the benchmark: the best of how many? Give --trials N, "
            f"every parameter set counted that was ever tried; --trials 1 where it was the only one"
        )
    means = val.differences(benchmark, trials).mean(axis=0)
    candidate = asked.candidate or trials[int(np.argmax(means))]
    counts = {"test": int((~seen).sum()), "val": val.num_origins}
    num_trials = max(asked.num_trials or 0, len(others))
    case = Case(
        metric=RETURNS,
        unit="of the capital, a bar",
        horizon=1,
        stride=1,
        trials=trials,
        baselines=(benchmark,),
        val=lambda: val,
        last_value=CASH,
        num_origins=counts,
        effective_origins={part: float(count) for part, count in counts.items()},
        candidate=candidate,
        judged_number=asked.earlier_judged + 1,
        num_trials=num_trials,
        num_hidden=num_trials - len(trials),
        suspicions=tuple(_suspicions(val, candidate, asked)),
        weights=Weights(
            cutoff=None if asked.cutoff == SCRATCH else asked.cutoff,
            source=NO_WEIGHTS if asked.cutoff is None else "--pretrain-cutoff",
            pretrained=asked.cutoff not in (None, SCRATCH),
            test_from=None if seen.all() else str(table.times[~seen][0])[:10],
        ),
    )

    def open_test(_: Sequence[int]) -> Opened:
        part, lacking = _part(table, benchmark, (candidate,), ~seen)
        if lacking:
            raise DataError(
                f"{path}: {candidate} has no return on some bar of test: it cannot be confirmed "
                f"there"
            )
        return Opened(asked.earlier_looks + 1, (part,), asked.growing)

    found = judge(case, None if seen.all() else open_test, seed=seed)
    return replace(
        found,
        benchmark_why="never trading" if benchmark == CASH else "as asked",
        sharpe=_sharpe_of(val, candidate, trials, num_trials),
        notes=(*notes, *_notes(asked, benchmark, holed), *table.notes, *ALWAYS),
    )


def _with_cash(table: ReturnTable) -> ReturnTable:
    """The table with never trading as a trial, 0 wherever anybody has a return, unless it has a
    column of that name: what cash earned."""
    if CASH in table.trials:
        return table
    nothing = np.where(np.isnan(table.returns).all(axis=0), np.nan, 0.0)
    returns = np.concatenate([table.returns, nothing[None]])
    return replace(table, trials=(*table.trials, CASH), returns=returns)


def _compounded(table: ReturnTable) -> tuple[ReturnTable, tuple[str, ...]]:
    """The table; where it has very many bars, those of a day as one."""
    days, first = np.unique(table.times.astype("datetime64[D]"), return_index=True)
    if len(table.times) <= MOST_BARS or len(days) == len(table.times):
        return table, ()
    daily = np.multiply.reduceat(1.0 + table.returns, first, axis=1) - 1.0
    said = f"{len(table.times)} bars are compounded to {len(days)} days: a test gains nothing else."
    return replace(table, times=days.astype("datetime64[s]"), returns=daily), (said,)


def _seen(table: ReturnTable, asked: AskedReturns, path: Path) -> NDArray[np.bool_]:
    """[T] bars of val. Raises UsageError where val or test would be empty."""
    if asked.test_from is None:
        return np.ones(len(table.times), dtype=bool)
    seen: NDArray[np.bool_] = table.times < np.datetime64(asked.test_from, "s")
    if seen.all() or not seen.any():
        raise UsageError(
            f"--test-from {asked.test_from} leaves no bar of {path} for "
            f"{'test' if seen.all() else 'val'}: they go from {str(table.times[0])[:10]} to "
            f"{str(table.times[-1])[:10]}"
        )
    return seen


def _part(
    table: ReturnTable, benchmark: str, others: Sequence[str], rows: NDArray[np.bool_]
) -> tuple[PartReturns, tuple[str, ...]]:
    """Benchmark, cash and those of `others` that have a return on each cell of the benchmark, on
    these rows; and the names of those that do not."""
    own = {n: table.returns[table.trials.index(n)][rows] for n in (benchmark, CASH, *others)}
    cells = ~np.isnan(own[benchmark])
    holed = tuple(n for n, found in own.items() if np.isnan(found[cells]).any())
    kept = [n for n in own if n not in holed]
    there = cells.any(axis=1)
    lost = np.array([np.where(cells, -own[n], np.nan)[there] for n in kept])
    part = PartReturns(
        names=tuple(kept),
        raw=lost,
        scale=np.ones(lost.shape[1:]),
        items=table.items,
        bars_per_year=bars_per_year(table.times),
    )
    return part, holed


def _suspicions(
    val: PartReturns, candidate: str, asked: AskedReturns
) -> Iterator[tuple[Check, str]]:
    """What returns cannot be cleared of, as checks, each with what to say where it fails."""
    yield (
        Check(gate=3, name="costs in the returns", value=asked.costs or "not said", relation="is",
              threshold=COSTS[0], passed=asked.costs == COSTS[0]),
        "trading costs are not in these returns: take them off (vectorbt: fees, slippage; "
        "backtesting.py: commission, spread) and hand them in again"
        if asked.costs
        else "nobody says whether trading costs are in these returns: say --costs included or none",
    )  # fmt: skip
    ratio, error = sharpe(val.earned(candidate), val.bars_per_year)
    lower = float(ratio - ONE_SIDED * error)
    yield (
        Check(gate=3, name="lower end of its Sharpe ratio a year", value=_finite(lower),
              relation="<", threshold=PLAUSIBLE_SHARPE, passed=not lower > PLAUSIBLE_SHARPE),
        f"too good to be true: a Sharpe ratio of {ratio:.1f} a year, surely above "
        f"{PLAUSIBLE_SHARPE:g}; look for a signal that knows its own bar, fills at prices that "
        f"were gone, or costs left out, before anything else",
    )  # fmt: skip


def _sharpe_of(
    val: PartReturns, candidate: str, trials: Sequence[str], num_trials: int
) -> DeflatedSharpe:
    """The candidate's Sharpe ratio a year on val (of its own returns), its interval by Lo's (2002)
    error with autocorrelation, and deflated by all that were tried."""
    own, year = val.earned(candidate), val.bars_per_year
    ratios = np.array([sharpe(val.earned(n), 1.0)[0] for n in trials])
    plain = deflated(own, ratios[np.isfinite(ratios)], num_trials=num_trials, bars_per_year=year)
    ratio, error = sharpe(own, year)
    return StrategySharpe(
        **{name: getattr(plain, name) for name in DeflatedSharpe.__slots__},
        lower=_finite(ratio - TWO_SIDED * error),
        upper=_finite(ratio + TWO_SIDED * error),
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


ALWAYS = (
    "Survivorship: a table of returns cannot tell whether what was traded was chosen with "
    "hindsight, nor whether a signal knew the bar it was paid for.",
)


def _notes(asked: AskedReturns, benchmark: str, holed: Sequence[str]) -> Iterator[str]:
    if holed:
        yield (
            f"{len(holed)} trials have no return on some bar of val, so they count and are not "
            f"tested: {', '.join(holed)}. Whoever holds nothing earns 0: write it."
        )
    if benchmark == CASH:
        yield (
            "Judged against never trading alone: in a rising market whoever holds anything beats "
            "that. Where it could have been held, name the returns of buying and holding as "
            "--benchmark."
        )
    if asked.test_from is None:
        yield (
            "No bar is kept for a test: give --test-from DATE, the first day that no choice of "
            "strategy, rule or parameter has seen, and let every trial go on past it as it is."
        )
    if asked.num_trials is None:
        yield (
            "Only the trials in the file count; give --trials N where more were tried, by hand, "
            "too."
        )
    if asked.earlier_looks == 0 and asked.test_from is not None:
        yield "A file knows no history: this is taken for the first look at its test."
    if asked.cutoff is None:
        yield (
            "Taken for rules: where a pretrained model, a language model too, has a say in them, "
            "give --pretrain-cutoff DATE, the last day of its data."
        )
