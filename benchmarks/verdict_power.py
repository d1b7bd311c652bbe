"""What does the verdict promote, and what not? The whole procedure on real prices, many times.

    python benchmarks/verdict_power.py --data FOLDER [--quick] [--write]

Every sweep here has 60 trials whose forecasts are made up around the real moves of FOLDER, so that
their true skill is known; losses, scales, StepM, CSCV and the test are the real ones: each sweep is
judged by `foresweep.selection.verdict.gates.judge`, its test opened only when that asks for it.

y is the move of the close over H bars in percent, sigma its volatility known at the origin, e
noise. Without skill a trial forecasts a sigma e, a from .02 to .35; with skill rho^2 y + rho
sqrt(1 - rho^2) sigma e, rho set so that its mean skill over the whole history is the stated one.
Val and test are neighbouring stretches of the history from a random day on. More items than FOLDER
has are made by adding the same items over other stretches: their losses share no day.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import Panel
from foresweep.data.reading.sources import load_panel
from foresweep.data.splits import Cut, Part, make_split
from foresweep.data.windows import Windows
from foresweep.evaluation.losses import volatility_scale
from foresweep.evaluation.yardstick import effective_origins
from foresweep.records import Outcome, Verdict
from foresweep.selection.verdict.case import Case, PartLosses
from foresweep.selection.verdict.gates import Opened, judge
from foresweep.stats.power import Design, chance, signal_curve

Array = NDArray[np.float64]

HORIZON = STRIDE = 5
TRIALS = 60
NOISE = np.geomspace(0.02, 0.35, TRIALS)
BOUNDARY_NOISE = 0.2
BENCHMARK = "last-value"
CURVE_SKILLS = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05)
DOCS = Path(__file__).parents[1] / "docs"
STORED, PAGE = DOCS / "verdict-power.json", DOCS / "verdict.md"
START, END = "<!-- verdict-power -->\n", "\n<!-- /verdict-power -->"


@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """Every window of the history: [T days, I items], NaN where it is not whole."""

    moves: Array  # percent, over the horizon
    sigma: Array  # percent, known at the origin


def read_market(panel: Panel, horizon: int = HORIZON) -> Market:
    split = make_split(panel, Cut(horizon))
    origins = panel.eligible[split.min_context - 1 : -horizon]
    last = split.part("test").stop
    part = Part("train", int(panel.eligible[0]), last, len(origins) + horizon, 1, origins)
    windows = Windows(panel, split, part)
    moves = 100.0 * (windows.labels[:, -1] / windows.last_close - 1)
    return Market(windows.as_panel(moves), windows.as_panel(volatility_scale(windows)))


def stretch(market: Market, origins: int, items: int, rng: np.random.Generator) -> Market:
    """[2 origins, items]: val, then test, every STRIDE-th day of stretches from random days on."""
    days, have = market.moves.shape
    length = 2 * origins * STRIDE
    moves, sigma = [], []
    for first in range(0, items, have):
        wanted = min(have, items - first)
        chosen = rng.permutation(have)[:wanted] if wanted < have else np.arange(have)
        start = int(rng.integers(0, days - length + 1))
        rows = slice(start, start + length, STRIDE)
        moves.append(market.moves[rows][:, chosen])
        sigma.append(market.sigma[rows][:, chosen])
    return Market(np.hstack(moves), np.hstack(sigma))


def rho_of(market: Market, skill: float) -> float:
    """rho whose mean raw skill over the whole history is `skill`."""
    valid = ~np.isnan(market.moves)
    y, sigma = market.moves[valid], market.sigma[valid]
    e = np.random.default_rng(0).standard_normal((8, len(y)))

    def found(rho: float) -> float:
        signal = rho**2 * y + rho * np.sqrt(1 - rho**2) * sigma * e
        return float(1 - np.abs(y - signal).mean() / np.abs(y).mean())

    low, high = 0.0, 0.9
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if found(middle) < skill else (low, middle)
    return high


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of sweep, repeated."""

    name: str
    title: str
    skilful: int = 0  # trials with skill; the first ones
    skill: float = 0.0
    items: int = 31
    origins: int = 60  # in val, and as many in test
    boundary: bool = False  # benchmark and trials carry noise of equal size
    scaled: bool = True  # False: raw losses are tested, for comparison


def sweep(scenario: Scenario, market: Market, rho: float, seed: int) -> tuple[Case, PartLosses]:
    """One sweep's table, and its test."""
    rng = np.random.default_rng([seed, scenario.items, scenario.origins])
    cut = stretch(market, scenario.origins, scenario.items, rng)
    naive = BOUNDARY_NOISE * cut.sigma * rng.standard_normal(cut.moves.shape)
    losses = [np.abs(cut.moves - (naive if scenario.boundary else 0.0))]
    for k in range(TRIALS):
        noise = cut.sigma * rng.standard_normal(cut.moves.shape)
        if k < scenario.skilful:
            signal = rho**2 * cut.moves + rho * np.sqrt(1 - rho**2) * noise
        else:
            signal = (BOUNDARY_NOISE if scenario.boundary else NOISE[k]) * noise
        losses.append(np.abs(cut.moves - signal))
    names = (BENCHMARK, *(f"trial {k}" for k in range(TRIALS)))
    raw = np.array(losses)
    scale = cut.sigma if scenario.scaled else np.ones_like(cut.sigma)
    half = scenario.origins
    val, test = (
        PartLosses(names, raw[:, at], scale[at]) for at in (slice(half), slice(half, None))
    )
    effective = effective_origins({"origins": half, "stride": STRIDE}, HORIZON)
    return Case(
        metric="pct_mae",
        unit="%",
        horizon=HORIZON,
        stride=STRIDE,
        trials=names[1:],
        baselines=(BENCHMARK,),
        val=lambda: val,
        last_value=BENCHMARK,
        num_origins={"val": half, "test": half},
        effective_origins={"val": effective, "test": effective},
    ), test


@dataclass(frozen=True, slots=True)
class Once:
    """What came of one sweep."""

    outcome: str
    skilful: bool  # the candidate is one of the trials with skill
    gate1: bool
    val_skill: float  # raw, of the trial with the lowest loss on val
    test_skill: float  # of the same


def judged(scenario: Scenario, market: Market, rho: float, seed: int) -> Once:
    table, test = sweep(scenario, market, rho, seed)
    verdict: Verdict = judge(table, lambda places: Opened(1, tuple(test for _ in places)))
    name = verdict.candidate
    first = [c for c in verdict.checks if c.gate <= 1]
    return Once(
        outcome=str(verdict.outcome),
        skilful=int(name.removeprefix("trial ")) < scenario.skilful,
        gate1=all(c.passed for c in first),
        val_skill=table.val().raw_skill(name, BENCHMARK),
        test_skill=test.raw_skill(name, BENCHMARK),
    )


def repeat(scenario: Scenario, market: Market, repetitions: int) -> dict[str, Any]:
    rho = rho_of(market, scenario.skill) if scenario.skilful else 0.0
    started = time.process_time()
    found = [judged(scenario, market, rho, seed) for seed in range(repetitions)]

    def share(what: Callable[[Once], bool]) -> float:
        return sum(map(what, found)) / repetitions

    promote = str(Outcome.PROMOTE)
    spent = time.process_time() - started
    where = f"{scenario.items} x {scenario.origins}, skill {100 * scenario.skill:g} %"
    print(f"{scenario.title}, {where}: {spent:.0f} s", file=sys.stderr)
    return {
        "name": scenario.name,
        "title": scenario.title,
        "items": scenario.items,
        "origins": scenario.origins,
        "skill": scenario.skill,
        "rho": rho,
        "repetitions": repetitions,
        "promoted": share(lambda o: o.outcome == promote),
        "promoted_skilful": share(lambda o: o.outcome == promote and o.skilful),
        "promoted_skill_free": share(lambda o: o.outcome == promote and not o.skilful),
        "naive_wins": share(lambda o: o.outcome == str(Outcome.NAIVE_WINS)),
        "hold": share(lambda o: o.outcome == str(Outcome.HOLD)),
        "gate1": share(lambda o: o.gate1),
        "positive_on_val": share(lambda o: o.val_skill > 0),
        "positive_on_test": share(lambda o: o.test_skill > 0),
        "best_val_skill": float(np.median([o.val_skill for o in found])),
        "its_test_skill": float(np.median([o.test_skill for o in found])),
        "cpu_s": spent,
    }


ONE = Scenario("one", "1 of 60 skilful", skilful=1, skill=0.05)
FREE = Scenario("free", "none skilful")
SCENARIOS = (
    FREE,
    replace(FREE, name="free-40", origins=40),
    replace(FREE, name="boundary", title="none skilful, benchmark as noisy", boundary=True),
    replace(FREE, name="boundary-40", title="none skilful, benchmark as noisy", boundary=True,
            origins=40),
    ONE,
    replace(ONE, name="one-40", origins=40),
    replace(ONE, name="one-raw", title="1 of 60 skilful, raw losses tested", scaled=False),
    replace(ONE, name="one-40-raw", title="1 of 60 skilful, raw losses tested", origins=40,
            scaled=False),
    replace(ONE, name="all", title="all 60 skilful", skilful=TRIALS),
    replace(ONE, name="one-4", skill=0.04),
    replace(FREE, name="free-small", items=6, origins=20),
    replace(ONE, name="one-small", skill=0.04, items=6, origins=20),
)  # fmt: skip

BOUNDS: tuple[tuple[str, str, str, float], ...] = (
    ("free", "promoted", "<=", 0.03),
    ("free", "positive_on_val", ">=", 0.9),
    ("free", "naive_wins", ">=", 0.9),
    ("boundary", "gate1", "<=", 0.08),
    ("boundary", "promoted", "<=", 0.03),
    ("boundary-40", "gate1", "<=", 0.08),
    ("boundary-40", "promoted", "<=", 0.03),
    ("one", "promoted_skilful", ">=", 0.85),
    ("one", "promoted_skill_free", "<=", 0.02),
    ("one-40", "promoted_skilful", ">=", 0.60),
    ("one-40", "promoted_skill_free", "<=", 0.02),
    ("all", "promoted", ">=", 0.80),
    ("one-4", "naive_wins", "<=", 0.0),
    ("free-small", "hold", ">=", 1.0),
    ("one-small", "hold", ">=", 1.0),
)  # what the procedure is held to


def curve(market: Market, items: int, repetitions: int) -> dict[str, Any]:
    """Share promoted by skill, simulated, and as `foresweep power` reckons it."""
    points = [
        repeat(replace(ONE, name="curve", skill=skill, items=items), market, repetitions)
        for skill in CURVE_SKILLS
    ]
    every = slice(None, None, HORIZON)  # the same losses, on days that share no label
    own, shared = (
        signal_curve(market.moves[every, :, None], market.sigma[every], shared=s)
        for s in (False, True)
    )
    effective = effective_origins({"origins": ONE.origins, "stride": STRIDE}, HORIZON)
    design = Design(items, effective, effective, TRIALS)
    return {
        "items": items,
        "origins": ONE.origins,
        "repetitions": repetitions,
        "skill": list(CURVE_SKILLS),
        "promoted": [p["promoted_skilful"] for p in points],
        "naive_wins": [p["naive_wins"] for p in points],
        "reckoned": [chance(own, s, design) for s in CURVE_SKILLS],
        "reckoned_shared": [chance(shared, s, design) for s in CURVE_SKILLS],
        "cpu_s": sum(p["cpu_s"] for p in points),
    }


def table(found: dict[str, Any]) -> str:
    lines = [
        "Look at the column *promoted*: a skilful trial should be promoted often, one without",
        "skill never. The last column shows why: without skill the winner's lead on val is gone",
        "on test.",
        "",
        "| sweep | items x origins | times | promoted: skilful / not | `naive wins` | `hold` | "
        "best on val: its skill there / on test |",
        "|---|---|---|---|---|---|---|",
    ]
    for s in found["scenarios"]:
        what = s["title"] + (f", {100 * s['skill']:.0f} %" if s["skill"] else "")
        lines.append(
            f"| {what} | {s['items']} x {s['origins']} | {s['repetitions']} | "
            f"{s['promoted_skilful']:.3f} / {s['promoted_skill_free']:.3f} | "
            f"{s['naive_wins']:.3f} | {s['hold']:.3f} | {100 * s['best_val_skill']:+.2f} % / "
            f"{100 * s['its_test_skill']:+.2f} % |"
        )
    lines += ["", "| held to | found | |", "|---|---|---|"]
    for name, key, relation, bound in BOUNDS:
        s = next(s for s in found["scenarios"] if s["name"] == name)
        skill = f" {100 * s['skill']:.0f} %" if s["skill"] else ""
        where = f"{s['title']}{skill}, {s['items']} x {s['origins']}"
        met = s[key] <= bound if relation == "<=" else s[key] >= bound
        words = key.replace("_", " ").replace("gate1", "gate 1 passed")
        said = "met" if met else "**missed**"
        lines.append(f"| {where}: {words} {relation} {bound:g} | {s[key]:.3f} | {said} |")
    for c in found["curves"]:
        heads = " | ".join(f"{100 * s:g} %" for s in c["skill"])
        lines += [
            "",
            f"Share of sweeps of {c['items']} items that promote the skilful trial, by its skill:",
            "",
            f"| promoted, 1 of 60 skilful, {c['items']} x {c['origins']} | {heads} |",
            "|---" * (len(c["skill"]) + 1) + "|",
        ]
        for words, key in (
            (f"whole procedure, {c['repetitions']} times", "promoted"),
            ("as `foresweep power` reckons", "reckoned"),
            ("the same, errors shared by all items", "reckoned_shared"),
        ):
            lines.append(f"| {words} | " + " | ".join(f"{v:.2f}" for v in c[key]) + " |")
    lines += ["", found["machine"]]
    return "\n".join(lines)


def write(found: dict[str, Any]) -> None:
    STORED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(START)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{START}\n{table(found)}\n{END}{after}", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="demo", help="folder, file or 'demo'")
    parser.add_argument("--quick", action="store_true", help="a tenth of the repetitions")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name} and {STORED.name}")
    asked = parser.parse_args(argv)
    panel = load_panel(asked.data).panel
    market = read_market(panel)
    times = 30 if asked.quick else 300
    scenarios = [repeat(s, market, times) for s in SCENARIOS]
    curves = [curve(market, items, times // 3) for items in (31, 400)]
    spent = sum(x["cpu_s"] for x in (*scenarios, *curves))
    days, items = market.moves.shape
    found = {
        "scenarios": scenarios,
        "curves": curves,
        "machine": f"{items} items, {days:,} days; {spent:.0f} s of one core, Python "
        f"{platform.python_version()}, {os.cpu_count()} cores.",
    }
    print(table(found))
    if asked.write:
        write(found)


if __name__ == "__main__":
    main()
