"""Tests of a mean that may be read after every new origin, for ever, at one level in all.

A fixed-time test that is looked at 250 times finds something in most years without anything there.
Here the chance that it *ever* finds something false is bounded. Differences x are one number an
origin, in time order: what should be shown to be above zero in the mean. For a candidate that is
benchmark loss - its loss, for an alarm on a champion its loss - benchmark loss.

Two forms, since neither assumption holds for certain:

- **Asymptotic** (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2021, Time-uniform central limit
  theory and asymptotic confidence sequences): the sum of T differences, over its long-run standard
  deviation, moves like Brownian motion, and Robbins' one-sided normal mixture bounds that for all T
  (Howard, Ramdas, McAuliffe and Sekhon 2021, Time-uniform, nonparametric, nonasymptotic confidence
  sequences, proposition 6). With v = T, s = z sqrt(T) and mixing precision rho

      e(T) = 2 sqrt(rho / (v + rho)) exp(s^2 / (2 (v + rho))) Phi(s / sqrt(v + rho))

  is at least 1 / level at any T with chance `level` at most. z is the t of Diebold-Mariano, all of
  it: overlap of labels, Harvey's correction, inflation by autocorrelation, Student's t moved to
  the normal scale. Assumes a little more than a finite variance, and enough origins for the mean
  to be normal: losses without a bound are allowed, rare wild days that carry the mean are not.
- **Betting** (Waudby-Smith and Ramdas 2024, Estimating means of bounded random variables by
  betting; of forecasts: Choe and Ramdas 2021, Comparing sequential forecasters): wealth

      W(T) = product of 1 + stake y / 2,  y = x / b cut to [-1, 1]

  with b and the stake fixed before x is known. Holds for any T, without a limit theorem. But losses
  have no bound, so what is bounded is y: the claim is about differences cut at b, `CUT` times the
  mean size of those before. A cut from above only loses power; a cut from below forgives days on
  which x is lower than -b. Assumes that the mean so cut is not above 0 where the mean is not: true
  of differences that are symmetric about 0 without skill.

Neither holds where losses are rare and huge and all on one side: of differences that are lognormal
(skew 6, the rare ones against the candidate) the asymptotic form ever found something in 20 % of
years, the betting form in 7 %. Means over many items are far from that.

Forecasts H bars ahead from every bar: x of neighbours share labels. The asymptotic form takes that
into its variance, the betting form bets on each of the lags + 1 sub-streams without overlap by
itself, and its evidence is the mean of their wealths (Choe and Ramdas 2021, section 4; as their
seqcomp and comparecast do). A mean of wealths that each hold in their own time does not hold at any
time of all, so its p is e log(K) (2 for K = 2) / the mean of the K largest wealths so far (Vovk and
Wang 2020, Combining p-values via averaging).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from foresweep.errors import DataError
from foresweep.stats.significance import Array, mean_errors

FEWEST = 20
"""Origins without shared labels before anything is said: earlier the mean is not normal yet."""
BEST_AT = 120
"""Origins at which the asymptotic bound is narrowest, half a year of daily bars."""
LOWEST = 8.0
"""z below which evidence is not told apart."""
CUT = 6.0
"""Mean sizes at which the betting form cuts a difference."""
FEWEST_SIZES = 10
"""Differences before the betting form knows what size they have."""


def mixing_precision(level: float, best_at: int) -> float:
    """rho that makes the bound at `level` narrowest at `best_at` origins."""
    twice = 2 * math.log(1 / (2 * level))
    return best_at / (twice + math.log1p(twice))


def log_evidence(z: Array, num: int, rho: float) -> Array:
    """log e(T) of the asymptotic form, T = `num`, of any number of z; far below 0 it is small,
    however far."""
    from scipy.special import log_ndtr

    w = num + rho
    s = np.maximum(z, -LOWEST) * math.sqrt(num)
    found: Array = (
        math.log(2) + 0.5 * math.log(rho / w) + s * s / (2 * w) + log_ndtr(s / math.sqrt(w))
    )
    return found


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known after the origins so far. Mean and bounds in units of the differences."""

    num: int  # origins
    mean: float  # of all so far; NaN: none yet
    lower: float  # of the mean, right at all times together with chance 1 - level; -inf: not yet
    upper: float  # the same, by itself: both hold with 1 - 2 level
    pvalue: float  # asymptotic form, the smallest so far
    found: bool  # pvalue below the level, now or at any time before
    betting_pvalue: float  # betting form, the smallest so far
    wealth: float  # of the betting form, mean over sub-streams: 1 at first, 20 is p = 0.05


class SequentialTest:
    """Is the mean of differences above 0? To be read after any of them.

    `lags`: origins before one that share labels with it (`overlap_lags`). `level`: chance that it
    is ever found falsely. `best_at`: origins at which the bound is narrowest, chosen before the
    first.
    Raises DataError for numbers that cannot be so.
    """

    def __init__(self, *, lags: int = 0, level: float = 0.05, best_at: int = BEST_AT) -> None:
        if lags < 0 or not 0 < level < 0.5 or best_at < 1:
            raise DataError(
                f"a sequential test needs lags of 0 or more, a level between 0 and 0.5 and best_at "
                f"of 1 or more, not {lags}, {level:g} and {best_at}"
            )
        self.lags, self.level, self.best_at = lags, level, best_at
        self._seen: list[float] = []
        self._most = 0.0  # the largest log e so far, at least log 1
        self._bets = [_Bet() for _ in range(lags + 1)]
        self._reading = Reading(0, math.nan, -math.inf, math.inf, 1.0, False, 1.0, 1.0)

    @property
    def rho(self) -> float:
        """Mixing precision that makes the bound narrow at `best_at` (Howard et al. 2021,
        proposition 3, for the one-sided mixture)."""
        return mixing_precision(self.level, self.best_at)

    @property
    def reading(self) -> Reading:
        """What is known now."""
        return self._reading

    def update(self, differences: float | Iterable[float]) -> Reading:
        """Takes new differences, in time order, and says what is known after the last of them.

        NaN (no loss at an origin) is left out. The same differences one at a time or all at once,
        with a restart between or without, read the same. Raises DataError for an infinite one:
        nothing of that call is taken.
        """
        given = [differences] if isinstance(differences, int | float) else list(differences)
        if any(math.isinf(x) for x in given):
            raise DataError(
                "an infinite loss difference cannot be tested; look at the forecasts of that origin"
            )
        for x in given:
            if not math.isnan(x):
                self._take(float(x))
        return self._reading

    def state(self) -> dict[str, Any]:
        """All of it as plain JSON: `from_state` goes on from there to the last bit."""
        return {
            "form": 1,
            "lags": self.lags,
            "level": self.level,
            "best_at": self.best_at,
            "differences": list(self._seen),
            "most": self._most,
            "bets": [bet.numbers() for bet in self._bets],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> SequentialTest:
        """A test that goes on from `state`. Raises DataError for a state of another form."""
        if state.get("form") != 1:
            raise DataError(
                f"the state of a sequential test has form {state.get('form')!r}, this version "
                f"reads form 1; begin the test anew"
            )
        test = cls(lags=state["lags"], level=state["level"], best_at=state["best_at"])
        test._seen = [float(x) for x in state["differences"]]
        test._most = float(state["most"])
        test._bets = [_Bet(*numbers) for numbers in state["bets"]]
        test._read()
        return test

    def _take(self, x: float) -> None:
        seen, step = self._seen, self.lags + 1
        known = seen[: max(len(seen) - self.lags, 0)]  # whose labels were known at this origin
        if len(known) >= FEWEST_SIZES:
            size = CUT * float(np.abs(known).mean())
            if size > 0:
                y = min(max(x / size, -1.0), 1.0)
                self._bets[len(seen) % step].place(y, self.level)
        seen.append(x)
        self._read()

    def _read(self) -> None:
        """The asymptotic form, and everything in one reading."""
        from scipy.special import ndtr, ndtri, stdtr, stdtrit

        num = len(self._seen)
        mean = float(np.mean(self._seen)) if num else math.nan
        low, high = -math.inf, math.inf
        if num >= FEWEST * (self.lags + 1):
            found = mean_errors(np.array(self._seen)[:, None], lags=self.lags)
            error, df = float(found.error[0]), float(found.df[0])
            if np.isfinite(error):
                z = float(-ndtri(max(stdtr(df, -mean / error), 1e-300)))
                self._most = max(self._most, float(log_evidence(np.array(z), num, self.rho)))
                reach = float(-stdtrit(df, ndtr(-self._bound(num)))) * error
                low, high = mean - reach, mean + reach
        pvalue = math.exp(-self._most)
        wealths = [bet.wealth for bet in self._bets]
        most = sum(bet.most for bet in self._bets) / len(wealths)
        times = {1: 1.0, 2: 2.0}.get(len(wealths), math.e * math.log(len(wealths)))
        self._reading = Reading(
            num=num,
            mean=mean,
            lower=low,
            upper=high,
            pvalue=pvalue,
            found=pvalue < self.level,
            betting_pvalue=min(1.0, times / most),
            wealth=sum(wealths) / len(wealths),
        )

    def _bound(self, num: int) -> float:
        """z at which e(T) is 1 / level: by halving, it has no closed form."""
        from scipy.special import log_ndtr

        w = num + self.rho
        sought = -math.log(self.level) - math.log(2) - 0.5 * math.log(self.rho / w)
        low, high = 0.0, math.sqrt(2 * max(sought + math.log(2), 0.0)) + 1.0
        for _ in range(60):
            middle = (low + high) / 2  # of s / sqrt(w)
            above = middle**2 / 2 + float(log_ndtr(middle)) > sought
            low, high = (low, middle) if above else (middle, high)
        return high * math.sqrt(w / num)


@dataclass(slots=True)
class _Bet:
    """The wealth of one sub-stream, and what its stakes are made of: predictable plug-in mean and
    variance of z = (y + 1) / 2 (Waudby-Smith and Ramdas 2024, equations 14 and 15)."""

    num: int = 0
    total: float = 0.0  # of z
    deviation: float = 0.0  # sum of (z - its mean so far)^2
    wealth: float = 1.0
    most: float = 1.0  # largest wealth so far

    def place(self, y: float, level: float) -> None:
        """Bets on y in [-1, 1], with a stake that knows only what came before: at most half of
        what cannot lose everything."""
        z, before = (y + 1) / 2, self.num
        variance = (0.25 + self.deviation) / (before + 1)
        stake = math.sqrt(
            2 * math.log(2 / level) / (variance * (before + 1) * math.log1p(before + 1))
        )
        self.wealth *= 1 + min(stake, 1.0) * (z - 0.5)
        self.most = max(self.most, self.wealth)
        self.num, self.total = before + 1, self.total + z
        self.deviation += (z - (0.5 + self.total) / (before + 2)) ** 2

    def numbers(self) -> list[float]:
        """As `_Bet(*numbers)` takes them."""
        return [self.num, self.total, self.deviation, self.wealth, self.most]
