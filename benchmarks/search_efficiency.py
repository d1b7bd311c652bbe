"""Time to quality: after how many training steps a search is as good as random search at its end.

    python benchmarks/search_efficiency.py record --model toto --configs 300 --out FILE
    python benchmarks/search_efficiency.py replay [--curves FILE] [--seeds 0-99] [--only smart]
    python benchmarks/search_efficiency.py replay --variants --seeds 0-49
    python benchmarks/search_efficiency.py replay --made-up slow --variants

Recorded are learning curves of real trainings (search_curves.py); replayed is how a search deals
with them, 100 seeds a method, all with the same number of steps and one training at a time. What a
search is worth at a time is the val pinball of its incumbent: the finished training that is best on
tune. Seeds share the recorded trainings, so the spread over seeds is of the search alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from search_curves import MODEL, SETTINGS, Array, Curves, load, record
from search_functions import FUNCTIONS, made_up
from search_neps import PriorBand
from search_peers import Asha, Optuna, hyperband, median, nop
from search_promotion import Promoting, promotions
from search_replay import RACE, Ledger, Method, Ours, random_search, searched
from search_variants import VARIANTS

from foresweep.search.running.pruning import Hyperband

CURVES = Path(__file__).with_name("search_curves.npz")
OTHERS = Path(__file__).with_name("search_curves_toto.npz")
"""Of another family, recorded when the rules stood: what judges them."""
TRAININGS = 24
"""Whole trainings that the steps of one search would pay for."""
PLACES = 8
"""Places a training at which incumbents are read."""
RESAMPLES = 1000
RANDOM = "random"
OURS: Mapping[str, Method] = {
    "smart": Ours(priority=True),
    "smart, racing": Ours(priority=True, racing=RACE),
    "smart, hyperband": Ours(priority=True, hyperband=Hyperband),
    "smart, both": Ours(priority=True, hyperband=Hyperband, racing=RACE),
    "smart, promotion": Promoting(priority=True),
    "TPE alone": Ours(),
    "TPE alone, racing": Ours(racing=RACE),
    "TPE alone, hyperband": Ours(hyperband=Hyperband),
    "TPE alone, promotion": Promoting(),
    "random, racing": Ours(sampler=None, racing=RACE),
    "random, promotion": Promoting(sampler=None),
}
PEERS: Mapping[str, Method] = {
    "Optuna TPE": Optuna(nop),
    "Optuna TPE + HyperbandPruner": Optuna(hyperband),
    "Optuna TPE + MedianPruner": Optuna(median),
    "Ray Tune ASHA": Asha(),
}
METHODS: Mapping[str, Method] = {RANDOM: random_search, **OURS, **PEERS}


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What the seeds of one method came to. K seeds, G places."""

    name: str
    tune: Array  # [K, G] of the incumbent; inf before there is one
    val: Array  # [K, G]
    trials: float  # begun, mean over seeds
    finished: float


def replayed(name: str, method: Method, curves: Curves, seeds: Sequence[int], budget: int) -> Found:
    ledgers = [searched(method, curves, budget, seed) for seed in seeds]
    over = np.array([ledger.over(places(curves, budget)) for ledger in ledgers])
    print(f"{name}: {len(ledgers)} seeds", file=sys.stderr, flush=True)
    return Found(name, over[:, 0], over[:, 1], _mean(ledgers, "trials"), _mean(ledgers, "finished"))


def _mean(ledgers: Sequence[Ledger], what: str) -> float:
    return float(np.mean([getattr(ledger, what) for ledger in ledgers]))


def places(curves: Curves, budget: int) -> Array:
    """[G] numbers of steps."""
    return np.arange(1, budget * PLACES // curves.steps[-1] + 1) * curves.steps[-1] / PLACES


def share(curve: Array, goal: float) -> float:
    """The share of the steps after which a curve [G] stays at or below a goal; inf: never."""
    above = np.flatnonzero(~(curve <= goal))
    if not len(above):
        return 1 / len(curve)
    return np.inf if above[-1] == len(curve) - 1 else float(above[-1] + 2) / len(curve)


def needed(mine: Array, other: Array, *, seed: int = 0) -> tuple[float, float, float]:
    """The share of the steps after which the median seed of `mine` [K, G] is as good as that of
    `other` at its end; with the 5 % and 95 % of resampled seeds."""
    rng, count = np.random.default_rng(seed), len(mine)
    found = share(np.median(mine, axis=0), float(np.median(other[:, -1])))
    again = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(count, size=count)
        goal = float(np.median(other[drawn, -1]))
        again.append(share(np.median(mine[drawn], axis=0), goal))
    low, high = np.quantile(again, [0.05, 0.95], method="nearest")
    return found, float(low), float(high)


def table(found: Sequence[Found], part: str) -> str:
    """All methods by what their incumbents are worth on `part`."""
    by_name = {f.name: f for f in found}
    peers = [f for f in found if f.name in PEERS or f.name.startswith("NePS")]
    goals = [by_name[RANDOM]]
    if peers:
        goals.append(min(peers, key=lambda f: float(np.median(getattr(f, part)[:, -1]))))
    head = ["method", f"{part} at the end: median (quartiles)", "begun", "finished"]
    head += [f"steps to the end of {g.name}" for g in goals]
    lines = [[*head, f"to that of {RANDOM}, by the mean seed"]]
    lines.append(["---"] * len(lines[0]))
    for f in found:
        series = getattr(f, part)
        low, mid, high = np.quantile(series[:, -1], [0.25, 0.5, 0.75])
        cells = [f.name, f"{mid:.4f} ({low:.4f} to {high:.4f})", f"{f.trials:.0f}"]
        cells.append(f"{f.finished:.0f}")
        cells += [_said(needed(series, getattr(g, part))) for g in goals]
        end = float(np.mean(getattr(goals[0], part), axis=0)[-1])
        cells.append(_figure(share(np.mean(series, axis=0), end)))
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _said(share_low_high: tuple[float, float, float]) -> str:
    middle, low, high = (_figure(s) for s in share_low_high)
    return f"{middle} ({low} to {high})"


def _figure(steps: float) -> str:
    return "never" if np.isinf(steps) else f"{steps:.2f}"


def about(curves: Curves) -> str:
    """What was recorded: how early tune's ranks are those at the end, and whether val agrees."""
    ends, val = np.nanmin(curves.tune, axis=1), curves.val[:, -1]
    order = np.argsort(ends)
    third, tenth = order[: len(order) // 3], order[: len(order) // 10]
    lines = [
        f"{len(curves)} configs of {curves.steps[-1]} steps, scored after {curves.steps}",
        f"tune: best {ends.min():.4f}, median {np.median(ends):.4f}; val: of the best on tune "
        f"{val[order[0]]:.4f}, best {val.min():.4f}, of the best tenth on tune "
        f"{val[tenth].min():.4f} to {val[tenth].max():.4f}",
    ]
    if "last_value" in curves.about:
        naive = curves.about["last_value"]
        lines.append(f"last-value: tune {naive['tune']:.4f}, val {naive['val']:.4f}")
    for name, rows in (("all", order), ("the better third", third)):
        early = [rank_correlation(t[rows], ends[rows]) for t in curves.tune.T]
        said = ", ".join(f"{r:+.2f}" for r in early)
        lines.append(f"rank correlation of tune at each scoring with the end, {name}: {said}")
    for name, rows in (("all", order), ("the better third", third)):
        agreed = rank_correlation(ends[rows], val[rows])
        lines.append(f"rank correlation of tune and val at the end, {name}: {agreed:+.2f}")
    away = ((curves.points()[:, None] - curves.points()[None]) ** 2).sum(axis=2)
    np.fill_diagonal(away, np.inf)
    for name, rows in (("all", order), ("the better third", third)):
        alike = rank_correlation(ends[rows], ends[away[rows].argmin(axis=1)])
        lines.append(
            f"rank correlation of a config's end with its neighbour's, {name}: {alike:+.2f}"
        )
    return "\n".join(lines)


def rank_correlation(a: Array, b: Array) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def replay(args: argparse.Namespace) -> None:
    curves = made_up(args.made_up) if args.made_up else load(args.curves)
    peers = {"NePS PriorBand": PriorBand(args.neps)} if args.neps else {}
    methods = {**METHODS, **peers, **({**VARIANTS, **promotions()} if args.variants else {})}
    if args.made_up:  # no model, no configs worth trying first
        first = ("smart", "NePS")
        methods = {n: m for n, m in methods.items() if not n.startswith(first)}
    wanted = None if args.only is None else args.only.split(";")
    chosen = [n for n in methods if n == RANDOM or wanted is None or any(w in n for w in wanted)]
    first, last = (int(n) for n in args.seeds.split("-"))
    budget = args.trainings * curves.steps[-1]
    print(about(curves))
    found = [replayed(n, methods[n], curves, range(first, last + 1), budget) for n in chosen]
    for part in ("val", "tune"):
        print(f"\nseeds {args.seeds}, {budget} steps each\n\n{table(found, part)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("--model", choices=sorted(SETTINGS), default=MODEL)
    recording.add_argument("--configs", type=int, default=300)
    recording.add_argument("--out", type=Path, default=CURVES)
    again = commands.add_parser("replay")
    again.add_argument("--curves", type=Path, default=CURVES)
    again.add_argument("--made-up", choices=sorted(FUNCTIONS))
    again.add_argument("--seeds", default="0-99", help="first-last")
    again.add_argument("--trainings", type=int, default=TRAININGS)
    again.add_argument("--variants", action="store_true", help="other settings of ours, too")
    again.add_argument("--only", help="methods with one of these (a;b) in their name, and random")
    again.add_argument("--neps", help="a Python that has NePS (search_neps.py): PriorBand, too")
    args = parser.parse_args()
    if args.command == "record":
        record(args.model, args.configs, args.out)
    else:
        replay(args)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
