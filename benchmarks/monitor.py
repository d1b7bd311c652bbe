"""How often does the monitor cry wolf, and how soon does it wake? On losses of real prices.

    python benchmarks/monitor.py [--reps 500] [--delays 200]

Losses of the demo panel's last two years, one origin a bar: a baseline plays the champion (drift by
pct_mae, random-walk by pinball) and another the benchmark, as the monitor sees them: scaled, mean
over items. The first year lends its variance as val does; blocks of 20 days of the second are
reshuffled into years that are watched daily.

- false alarms: the difference is moved to 0, the hardest honest case, and left as it is (of drift,
  which is a little worse, then); an ALARM at any time of the year counts;
- delay: the champion's losses grow by 5, 15, 30 %, from the first day or after a good half-year;
- a shadow whose losses are those of the other model, brought to 5 or 10 % below the champion's.

No training; about three minutes on one core.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from foresweep.data.demo import demo_panel
from foresweep.data.splits import Cut, Part, make_split
from foresweep.data.windows import Windows
from foresweep.evaluation.backtest import forecast_part, naive_part, score_part
from foresweep.lifecycle.evidence import LEVEL
from foresweep.models.base import Facts
from foresweep.models.registry import get_model
from foresweep.stats.significance import origin_means
from foresweep.stats.watching import Reference, ever_above, reference_of

YEAR, BLOCK, WITHIN = 250, 20, 60
CASES = (("drift", "last-value", "pct_mae"), ("random-walk", "drift", "pinball"))


def losses(horizon: int) -> dict[tuple[str, str], np.ndarray]:
    """(model, metric) -> [O] scaled losses by origin, every bar of val and test."""
    panel = demo_panel()
    split = make_split(panel, Cut(horizon=horizon))
    start = split.part("val").start
    bars = panel.eligible[panel.eligible >= start][:-horizon]
    part = Part("val", start, len(panel.timeline), len(bars), 1, bars)
    windows = Windows(panel, split, part)
    naive = naive_part(windows)
    found = {}
    for name in ("last-value", "drift", "random-walk"):
        family = get_model(name)
        facts = Facts(horizon, split.max_context, train_bars=0)
        predictor = family.predictor(family.resolve(family.Config(), facts))  # type: ignore[attr-defined]
        panel_of = score_part(forecast_part(predictor, windows), windows, naive=naive).losses
        for metric in ("pct_mae", "pinball"):
            found[name, metric] = origin_means(panel_of.scaled(metric))
    return found


def years(num: int, reps: int, seed: int = 0) -> np.ndarray:
    """[YEAR, reps] places in a record of `num` days, blocks of BLOCK neighbours."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(num, size=(reps, -(-YEAR // BLOCK)))
    places = (starts[:, :, None] + np.arange(BLOCK)) % num
    return places.reshape(reps, -1)[:, :YEAR].T


def first_found(
    d: np.ndarray, horizon: int, level: float, reference: Reference | None
) -> np.ndarray:
    """[K] the day, from 1, on which each year's test finds something; infinite: never."""
    found = ever_above(d, lags=horizon - 1, level=level, reference=reference) < level
    return np.where(found.any(axis=0), found.argmax(axis=0) + 1.0, np.inf)


def in_words(delay: np.ndarray) -> str:
    """Share within WITHIN bars, and the median delay."""
    good = delay[delay > 0]  # a false alarm before is no find
    middle = np.median(delay[delay > 0]) if len(good) else np.inf
    share = np.mean((delay > 0) & (delay <= WITHIN))
    shown = f"{middle:.0f}" if np.isfinite(middle) else "more than the year"
    return f"{100 * share:.0f} % ({shown})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--reps", type=int, default=500)
    parser.add_argument("--delays", type=int, default=200)
    asked = parser.parse_args()
    level, began = LEVEL / 2, time.process_time()  # two opponents
    print(
        "| champion, metric | H | false alarms in a year, as good | as it is | grows by | "
        "from day 1 | after half a year | shadow 5 % better | 10 % better |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for horizon in (1, 5):
        table = losses(horizon)
        for name, other, metric in CASES:
            ours, theirs = table[name, metric], table[other, metric]
            half = len(ours) // 2
            reference = reference_of(
                (ours - theirs)[:half][::horizon], lags=0, stride=horizon, horizon=horizon
            )
            ours, theirs = ours[half:], theirs[half:]
            gap = ours - theirs
            places = years(len(ours), asked.reps)
            wolf = [
                np.isfinite(first_found(d[places], horizon, level, reference)).mean()
                for d in (gap - gap.mean(), gap)
            ]
            few = years(len(ours), asked.delays, seed=1)
            shadows = []
            for share in (0.95, 0.9):
                better = theirs * (share * ours.mean() / theirs.mean())
                day = first_found((ours - better)[few], horizon, LEVEL, reference)
                shadows.append(in_words(day))
            for k, growth in enumerate((0.05, 0.15, 0.3)):
                said = []
                for since in (0, YEAR // 2):
                    grown = np.where(np.arange(YEAR) >= since, 1 + growth, 1.0)[:, None]
                    d = ours[few] * grown - (theirs + gap.mean())[few]
                    said.append(in_words(first_found(d, horizon, level, reference) - since))
                rates = " | ".join(f"{100 * w:.1f} %" for w in wolf)
                start = f"| {name}, {metric} | {horizon} | {rates}" if k == 0 else "| | | | "
                end = f" {shadows[0]} | {shadows[1]} |" if k == 0 else " | |"
                print(f"{start} | {100 * growth:.0f} % | {said[0]} | {said[1]} |{end}", flush=True)
    print(
        f"\n{asked.reps} years for false alarms, {asked.delays} for delays; share within "
        f"{WITHIN} bars (median delay in bars); {time.process_time() - began:.0f} CPU seconds"
    )


if __name__ == "__main__":
    main()
