"""Scoring 447 items x 60 origins x 64 leads x 9 quantiles, beside utilsforecast on pandas.

    python benchmarks/scoring.py [--write] [--rounds 5] [--items 447]

Both sides score the same forecasts by the same 13 numbers (pct_mae, smape, pinball, coverage_80 and
nine shares below a quantile, as utilsforecast has them per item and origin), which must agree to
1e-6; the last line is ours with every metric of the table. Prices are given to utilsforecast in
percent of the close at the origin, so that its losses are in our unit; making its data frame is not
timed. Peak memory is of this process, after our side alone.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pairs

from foresweep.metrics import METRICS, Outcome, Setting, score

HERE = Path(__file__).parent
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ORIGINS, LEADS = 60, 64
TOLERANCE = 1e-6
TARGET_RATIO, TARGET_MIB = 10.0, 2048.0
SHARED = ("pct_mae", "smape", "pinball", "coverage_80")


def make_outcomes(
    items: int, *, origins: int = ORIGINS, leads: int = LEADS
) -> tuple[Outcome, Outcome]:
    """Forecasts of walks, wrong by a little, and last-value; windows of an origin together."""
    rng = np.random.default_rng(0)
    num = items * origins
    last = np.tile(rng.uniform(5, 500, items), origins)
    labels = last[:, None] * np.exp(0.02 * rng.standard_normal((num, leads)))
    median = last[:, None] * np.exp(0.005 * rng.standard_normal((num, leads)))
    spread = np.exp(0.02 * np.array([NormalDist().inv_cdf(level) for level in LEVELS]))
    setting = Setting(
        rng.uniform(1, 9, num),
        0.01 * last,
        0.01 * last,
        np.repeat(np.arange(origins), items),
        np.tile(np.arange(items), origins),
    )
    ours = Outcome(labels, median[..., None] * spread, LEVELS, last, setting)
    flat = np.broadcast_to(last[:, None, None], ours.quantiles.shape)
    naive = replace(ours, quantiles=flat)
    score(naive, naive)  # what every forecast of the windows shares is found once
    return ours, naive


def fresh(outcome: Outcome) -> Outcome:
    """The same arrays, nothing computed yet."""
    return replace(outcome)


def ours_shared(outcome: Outcome, naive: Outcome) -> dict[str, float]:
    """The numbers that both sides give."""
    found = {}
    for name in SHARED:
        compute = METRICS[name].compute
        assert compute is not None
        found[name] = compute(outcome, naive)
    shares = outcome.shares_below
    return found | {f"below_{level}": float(x) for level, x in zip(LEVELS, shares, strict=True)}


def frame_of(outcome: Outcome) -> Any:
    """utilsforecast's long frame: a row a cell, in percent of the close at the origin."""
    import pandas as pd

    num, leads = outcome.labels.shape
    percent = 100.0 / outcome.last_close[:, None]
    columns = {f"m-q{level}": k for k, level in enumerate(LEVELS)}
    assert outcome.setting is not None
    origin = outcome.setting.origin
    item = np.arange(num) % int((origin == 0).sum())
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat(item, leads),
            "cutoff": np.repeat(origin, leads),
            "ds": np.tile(np.arange(leads), num),
            "y": (outcome.labels * percent).ravel(),
        }
    )
    for name, k in columns.items():
        frame[name] = (outcome.quantiles[..., k] * percent).ravel()
    frame["m"] = frame["m-q0.5"]
    frame["m-lo-80"], frame["m-hi-80"] = frame["m-q0.1"], frame["m-q0.9"]
    return frame


def theirs_shared(frame: Any) -> dict[str, float]:
    """The same numbers by utilsforecast: per item and origin, then their mean."""
    from utilsforecast import losses

    quantiles = [f"m-q{level}" for level in LEVELS]
    found = {
        "pct_mae": losses.mae(frame, models=["m"])["m"].mean(),
        "smape": 200.0 * losses.smape(frame, models=["m"])["m"].mean(),
        "pinball": losses.mqloss(frame, models={"m": quantiles}, quantiles=np.array(LEVELS))[
            "m"
        ].mean(),
        "coverage_80": losses.coverage(frame, models=["m"], level=80)["m"].mean(),
    }
    shares = losses.calibration(frame, models={name: name for name in quantiles})
    for name, level in zip(quantiles, LEVELS, strict=True):
        found[f"below_{level}"] = shares[name].mean()
    return {k: float(v) for k, v in found.items()}


def largest_gap(one: dict[str, float], other: dict[str, float]) -> float:
    """Largest difference of two sets of numbers, each over the larger of 1 and its size."""
    assert one.keys() == other.keys()
    return max(abs(one[k] - other[k]) / max(1.0, abs(other[k])) for k in one)


def peak_mib() -> float:
    """Most memory that this process has held, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 if sys.platform != "darwin" else 1024**2)


def measure(items: int, rounds: int) -> list[str]:
    """The lines of the table. Raises SystemExit where the two sides disagree."""
    outcome, naive = make_outcomes(items)
    mine = ours_shared(fresh(outcome), naive)
    score(fresh(outcome), naive)
    memory = peak_mib()
    frame = frame_of(outcome)
    gap = largest_gap(mine, theirs_shared(frame))
    if not gap <= TOLERANCE:
        raise SystemExit(f"the two sides differ by {gap:.3g}, more than {TOLERANCE:g}")
    theirs: Callable[[], object] = lambda: theirs_shared(frame)  # noqa: E731
    same = pairs.paired(
        lambda: ours_shared(fresh(outcome), naive), theirs, rounds=rounds, warm_up=0
    )
    whole = pairs.paired(lambda: score(fresh(outcome), naive), theirs, rounds=rounds, warm_up=0)
    cells = f"{items} items x {ORIGINS} origins x {LEADS} leads x {len(LEVELS)} quantiles"
    num = len([m for m in METRICS.values() if m.compute])
    lines = pairs.table(
        [
            pairs.Row(f"scoring {cells}, the same numbers", same, TARGET_RATIO),
            pairs.Row(f"the same, ours all {num} metrics of the table", whole, TARGET_RATIO),
        ]
    ).splitlines()
    held = "below" if memory < TARGET_MIB else "NOT below"
    return [
        *lines,
        "",
        f"Largest difference of the {len(mine)} numbers: {gap:.1g} (at most {TOLERANCE:g} wanted). "
        f"Peak memory of our side, forecasts included: {memory:,.0f} MiB, {held} "
        f"{TARGET_MIB:,.0f}.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--items", type=int, default=447)
    said = parser.parse_args()
    lines = measure(said.items, said.rounds)
    load = os.getloadavg()[0]
    where = (
        f"Python {sys.version.split()[0]}, numpy {np.__version__}, {os.cpu_count()} cores, one "
        f"thread, load {load:.1f} at the end."
    )
    lines += ["", where]
    print("\n".join(lines))
    if said.write:
        write("\n".join(lines))


def write(table: str) -> None:
    """The table between its marks in README.md."""
    page = HERE / "README.md"
    start, end = "<!-- scoring -->\n", "\n<!-- /scoring -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(start)
    after = rest.partition(end)[2]
    page.write_text(f"{before}{start}\n{table}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
