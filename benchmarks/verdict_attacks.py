"""Can the verdict be fooled? Sweeps of known truth, each of a kind that once fooled it.

    python benchmarks/verdict_attacks.py [--repetitions 200] [--only NAME..] [--write]

Prices are made up: 31 items of unlike volatility, calm and wild months, fat tails, a quarter of the
variance common to all. 60 trials forecast 60 origins of val and 60 of test; most have no skill, and
a skilful one knows rho^2 of what comes (as in verdict_power.py). Every sweep is judged by the
package itself: arrays by `gates.judge`, files by `foreign.verdict_on_file`; who looks after every
trial by `stepm` at the level of the record, a growing test by `SequentialTest` on real losses of
the demo panel. The table goes into docs/verdict.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foresweep.data.demo import demo_panel
from foresweep.data.splits import Cut, Part, make_split
from foresweep.data.windows import TrainWindows, Windows
from foresweep.evaluation.backtest import forecast_part, naive_part, score_part
from foresweep.models.base import Facts, Resources, TrainingJob
from foresweep.models.checkpoint import read_checkpoint
from foresweep.models.registry import get_model
from foresweep.records import Outcome, Verdict
from foresweep.selection.verdict.case import LEVEL, Case, PartLosses, Weights
from foresweep.selection.verdict.foreign import Asked, verdict_on_file
from foresweep.selection.verdict.gates import Opened, judge, judge_all
from foresweep.stats.sequential import SequentialTest
from foresweep.stats.significance import diebold_mariano, origin_means
from foresweep.stats.stepm import FEWEST_REPS, stepm

Array = NDArray[np.float64]

TRIALS, ORIGINS, ITEMS = 60, 60, 31
NAIVE = "last-value"
NAMES = (NAIVE, *(f"trial {k}" for k in range(TRIALS)))
ITEM_NAMES = tuple(f"S{k}" for k in range(ITEMS))
PAGE = Path(__file__).parents[1] / "docs" / "verdict.md"
START, END = "<!-- verdict-attacks -->\n", "\n<!-- /verdict-attacks -->"
RHO = 0.32
"""Knows about 5 % of the size of what comes."""


def persistent(rng: np.random.Generator, shape: tuple[int, ...], phi: float) -> Array:
    """AR(1) along the first axis, variance 1."""
    shocks = rng.standard_normal((shape[0] + 100, *shape[1:]))
    out = np.zeros_like(shocks)
    for t in range(1, len(out)):
        out[t] = phi * out[t - 1] + shocks[t]
    found: Array = out[100:] * np.sqrt(1 - phi**2)
    return found


def market(rng: np.random.Generator, origins: int = 2 * ORIGINS) -> tuple[Array, Array]:
    """Moves and their volatility known at the origin, [origins, ITEMS], percent."""
    wild = 0.57 * persistent(rng, (origins, 1), 0.85)
    sigma = np.exp(0.5 * rng.standard_normal(ITEMS) + wild)
    shocks = 0.5 * rng.standard_t(5, (origins, 1)) + 0.87 * rng.standard_t(5, (origins, ITEMS))
    return sigma * shocks / 1.29, sigma


def case_of(raw: Array, scale: Array, **changed: object) -> Case:
    """The case of losses [61, 60, items], the benchmark's first."""
    part = PartLosses(NAMES, raw, scale, items=ITEM_NAMES[: scale.shape[1]])
    plain = Case(
        metric="pct_mae",
        unit="%",
        horizon=1,
        stride=1,
        trials=NAMES[1:],
        baselines=(NAIVE,),
        val=lambda: part,
        last_value=NAIVE,
        num_origins={"val": ORIGINS, "test": ORIGINS},
        effective_origins={"val": float(ORIGINS), "test": float(ORIGINS)},
    )
    return replace(plain, **changed)  # type: ignore[arg-type]


def answer(raw: Array, scale: Array, **changed: object) -> Verdict:
    """The verdict on losses [61, 120, items], val first."""
    test = PartLosses(NAMES, raw[:, ORIGINS:], scale[ORIGINS:], items=ITEM_NAMES[: scale.shape[1]])
    case = case_of(raw[:, :ORIGINS], scale[:ORIGINS], **changed)
    return judge(case, lambda places: Opened(1, tuple(test for _ in places)))


def noise_of(rng: np.random.Generator, sigma: Array, size: float) -> Array:
    found: Array = size * sigma * rng.standard_normal(sigma.shape)
    return found


def skilful(rng: np.random.Generator, moves: Array, sigma: Array, rho: float = RHO) -> Array:
    """|what came - a forecast that knows rho^2 of it|"""
    signal = rho**2 * moves + rho * np.sqrt(1 - rho**2) * sigma * rng.standard_normal(moves.shape)
    found: Array = np.abs(moves - signal)
    return found


def sweep_losses(rng: np.random.Generator, *, rho: float = 0.0) -> tuple[Array, Array, Array]:
    """(losses [61, 120, 31], moves, sigma): last-value, the first trial with skill where rho is
    above 0, the others without."""
    moves, sigma = market(rng)
    losses = [np.abs(moves)]
    for size in np.geomspace(0.02, 0.35, TRIALS):
        losses.append(np.abs(moves - noise_of(rng, sigma, float(size))))
    if rho:
        losses[1] = skilful(rng, moves, sigma, rho)
    return np.array(losses), moves, sigma


# Equal losses, whose differences go on.


Make = Callable[[np.random.Generator], Case]


def going_on(phi: float, *, horizon: int = 1, stride: int = 1, one: bool = False) -> Make:
    """60 trials that are the benchmark's equals; differences half common, AR(phi) bar by bar."""

    def make(rng: np.random.Generator) -> Case:
        bars = (ORIGINS - 1) * stride + horizon
        width = 1 if one else TRIALS
        common, own = persistent(rng, (bars, 1), phi), persistent(rng, (bars, width), phi)
        d = np.sqrt(0.5) * (common + own)
        if one:
            rest = rng.standard_normal((bars, 1)) + rng.standard_normal((bars, TRIALS - 1))
            d = np.column_stack([own, np.sqrt(0.5) * rest])
        path = np.vstack([np.zeros((1, TRIALS)), d.cumsum(axis=0)])
        at = np.arange(ORIGINS) * stride
        mean = (path[at + horizon] - path[at]) / horizon
        raw = np.concatenate([np.full((1, ORIGINS), 9.0), 9.0 - mean.T])[:, :, None]
        return case_of(raw, np.ones((ORIGINS, 1)), horizon=horizon, stride=stride)

    return make


def finds(case: Make) -> Callable[[np.random.Generator], bool]:
    return lambda rng: bool(judge(case(rng)).against[0].superior)


def follows_volatility(rng: np.random.Generator) -> bool:
    """Differences that rise and fall with volatility, AR 0.9, zero on average."""
    wild = persistent(rng, (2 * ORIGINS, 1), 0.9)
    load = rng.standard_normal((1, TRIALS))
    d = wild * load + 0.5 * rng.standard_normal((2 * ORIGINS, TRIALS))
    raw = np.concatenate([np.full((1, 2 * ORIGINS), 20.0), 20.0 - d.T])[:, :, None]
    return answer(raw, np.ones((2 * ORIGINS, 1))).outcome is Outcome.PROMOTE


def promoted_with_skill(rng: np.random.Generator) -> bool:
    losses, _, sigma = sweep_losses(rng, rho=RHO)
    found = answer(losses, sigma)
    return found.outcome is Outcome.PROMOTE and found.candidate == "trial 0"


def naive_wins_beside_evidence(rng: np.random.Generator) -> bool:
    losses, _, sigma = sweep_losses(rng, rho=0.14)
    found = answer(losses, sigma, judged_number=5)
    return found.outcome is Outcome.NAIVE_WINS and found.against[0].pvalue < 0.05


def quiet_items_only(rng: np.random.Generator) -> bool:
    """Skill in the quieter half of the items, none in the others."""
    losses, moves, sigma = sweep_losses(rng)
    quiet = sigma.mean(axis=0) <= np.median(sigma.mean(axis=0))
    losses[1] = np.where(quiet, skilful(rng, moves, sigma, 0.5), losses[1])
    found = answer(losses, sigma)
    return found.outcome is Outcome.PROMOTE and found.candidate == "trial 0"


def bad_on_one_item(rng: np.random.Generator) -> bool:
    losses, _, sigma = sweep_losses(rng)
    losses[0, :, 7] *= 5.0
    return answer(losses, sigma).outcome is Outcome.PROMOTE


def noisy_everywhere(rng: np.random.Generator) -> bool:
    """A benchmark of the user's own that is worse than last-value, which judges, too."""
    losses, moves, sigma = sweep_losses(rng)
    noisy = np.abs(moves - noise_of(rng, sigma, 0.6))
    names = ("own model", *NAMES)
    raw = np.concatenate([noisy[None], losses])
    val, test = (
        PartLosses(names, raw[:, at], sigma[at], items=ITEM_NAMES)
        for at in (slice(ORIGINS), slice(ORIGINS, None))
    )
    case = case_of(losses[:, :ORIGINS], sigma[:ORIGINS], baselines=("own model",), val=lambda: val)
    found = judge(case, lambda places: Opened(1, tuple(test for _ in places)))
    return found.outcome is Outcome.PROMOTE


# Files of losses that are not whole.


def written(
    losses: Array, sigma: Array, keep: Array | None, trials: Sequence[int], tried: int
) -> Verdict:
    """The verdict on a file with some of the trials, of which so many were tried; `keep`
    [trials + 1, 120, 31]: rows of it."""
    chosen = [0, *(k + 1 for k in trials)]
    origin, item = (x.ravel() for x in np.indices(sigma.shape))
    pieces = []
    for place, k in enumerate(chosen):
        there = np.ones(sigma.size, dtype=bool) if keep is None else keep[place].ravel() > 0
        pieces.append(
            pl.DataFrame(
                {
                    "trial": np.repeat(NAMES[k], there.sum()),
                    "origin": origin[there] + 100 * (origin[there] >= ORIGINS),
                    "item": item[there].astype(str),
                    "part": np.where(origin[there] < ORIGINS, "val", "test"),
                    "loss": losses[k].ravel()[there],
                    "scale": sigma.ravel()[there],
                }
            )
        )
    asked = Asked((NAIVE,), num_trials=tried, cutoff="none")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "losses.parquet"
        pl.concat(pieces).write_parquet(path)
        return verdict_on_file(path, asked)


SOME = range(12)


def whole(num: int) -> Array:
    return np.ones((num + 1, 2 * ORIGINS, ITEMS))


def skips(which: str) -> Callable[[np.random.Generator], bool]:
    """A trial worse than last-value that leaves out the windows where it shows."""

    def attack(rng: np.random.Generator) -> bool:
        losses, moves, sigma = sweep_losses(rng)
        storm = sigma / sigma.mean(axis=0)
        loud = np.concatenate([p > np.quantile(p, 0.92) for p in np.split(storm, 2)])
        calm = skilful(rng, moves, sigma, 0.35)
        if which == "storms":
            losses[1] = np.where(loud, 2.2 * np.abs(moves), calm)
            gone = loud
        else:
            losses[1] = np.abs(moves - noise_of(rng, sigma, 0.2))
            sizes = np.split(losses[1] / sigma, 2)
            gone = np.concatenate([p > np.quantile(p, 0.901) for p in sizes])
        keep = whole(len(SOME))
        keep[1] = ~gone
        return written(losses, sigma, keep, SOME, len(SOME)).outcome is Outcome.PROMOTE

    return attack


def doctored(rng: np.random.Generator) -> bool:
    """A file whose scale is three times as large wherever its luckiest trial loses."""
    losses, _, sigma = sweep_losses(rng)
    gain = losses[0] - losses[1 : len(SOME) + 1]
    lucky = int((gain / sigma).mean(axis=(1, 2)).argmax())
    scale = np.where(gain[lucky] > 0, sigma, 3 * sigma)
    return written(losses, scale, None, SOME, len(SOME)).outcome is Outcome.PROMOTE


def holes_at_random(rng: np.random.Generator, share: float = 0.05) -> bool:
    losses, _, sigma = sweep_losses(rng, rho=RHO)
    keep = whole(len(SOME))
    keep[1:] = rng.random(keep[1:].shape) > share
    return written(losses, sigma, keep, SOME, len(SOME)).outcome is Outcome.PROMOTE


def best_alone(rng: np.random.Generator) -> bool:
    """The best of 60 equals is handed in alone: does gate 1 find it?"""
    moves, sigma = market(rng)
    losses = np.array([np.abs(moves - noise_of(rng, sigma, 0.2)) for _ in NAMES])
    val = losses[1:, :ORIGINS] / sigma[:ORIGINS]
    best = int(val.mean(axis=(1, 2)).argmin())
    return bool(written(losses, sigma, None, [best], TRIALS).against[0].superior)


def misdeclared(rng: np.random.Generator) -> bool:
    """Daily origins of five bars ahead, declared as one bar ahead."""
    return bool(
        judge(replace(going_on(0.0, horizon=5, stride=1)(rng), horizon=1)).against[0].superior
    )


def jitter(rng: np.random.Generator) -> bool:
    """Does a third digit of the losses move p by 0.05 or more?"""
    losses, _, sigma = sweep_losses(rng)
    part = PartLosses(NAMES, losses[:, :ORIGINS], sigma[:ORIGINS])
    d = part.differences(NAIVE, NAMES[1:13])
    found = [
        stepm(d * (1 + 0.003 * rng.standard_normal(d.shape[1])), block=1).pvalue.min()
        for _ in range(20)
    ]
    return bool(np.ptp(found) >= 0.05)


# Who looks again and again.


SURELY = 20
"""Draws as large, of the fewest there are, that leave no doubt of a p above a level of one in a
thousand: the many draws that a strict level takes are then spared."""


def peeks(rng: np.random.Generator, *, counted: bool = True) -> bool:
    """A verdict after each of 60 trials that are the benchmark's equals: does gate 1 ever find one?
    As the record has it, j rises with every trial that was added; not `counted`: it stays 1."""
    case = going_on(0.0)(rng)
    d = case.val().differences(NAIVE, case.trials)
    for j in range(1, TRIALS + 1):
        level = replace(case, judged_number=j if counted else 1).level
        few = stepm(d[:, :j], block=1, level=level, reps=FEWEST_REPS)
        if few.pvalue.min() > max(10 * level, SURELY / FEWEST_REPS):
            continue
        if stepm(d[:, :j], block=1, level=level).superior.any():
            return True
    return False


YEAR, BLOCK = 250, 20
PAIRS = (("har", "pinball"), ("drift", "pct_mae"), ("seasonal-naive", "pinball"))
"""Baselines whose differences against last-value are real: fat tails, spells of volatility."""


@cache
def real_differences(horizon: int) -> tuple[Array, ...]:
    """Daily differences of scaled losses on the demo panel from every bar after train, [O] each,
    less their mean: what is left is the noise of real losses, without skill."""
    panel = demo_panel()
    split = make_split(panel, Cut(horizon, stride=1, shares=(0.3, 0.1, 0.3, 0.3)))
    start, bars = split.part("train").stop, panel.eligible
    origins = bars[bars >= start][:-horizon]
    after = Part("val", start, len(panel.timeline), len(origins) + horizon, 1, origins)
    windows, train = Windows(panel, split, after), split.part("train")
    naive, found = naive_part(windows), []
    facts = Facts(horizon, split.max_context, train_bars=train.num_bars * panel.num_items)
    with tempfile.TemporaryDirectory() as folder:
        for name, metric in PAIRS:
            model = get_model(name)
            job = TrainingJob(
                TrainWindows(panel, split, train),
                model.resolve(model.Config(), facts),
                horizon=horizon,
                out=Path(folder) / name,
            )
            predictor = model.load(read_checkpoint(model.train(job).path), Resources())
            losses = score_part(forecast_part(predictor, windows), windows, naive=naive).losses
            d = origin_means(naive.losses.scaled(metric)) - origin_means(losses.scaled(metric))
            found.append(d[~np.isnan(d)] - np.nanmean(d))
    return tuple(found)


def grows(horizon: int) -> Callable[[np.random.Generator], bool]:
    """A year of real differences without skill, blocks of 20 bars drawn in a new order, read after
    every bar: is anything ever found?"""

    def attack(rng: np.random.Generator) -> bool:
        pool = real_differences(horizon)[int(rng.integers(len(PAIRS)))]
        starts = rng.integers(len(pool), size=-(-YEAR // BLOCK))
        at = (starts[:, None] + np.arange(BLOCK)).ravel()[:YEAR] % len(pool)
        return SequentialTest(lags=horizon - 1).update(pool[at]).found

    return attack


# One gate by itself.


def too_few(rng: np.random.Generator) -> bool:
    losses, _, sigma = sweep_losses(rng, rho=RHO)
    few = {"val": 19.9, "test": 60.0}
    return answer(losses, sigma, effective_origins=few).outcome is Outcome.PROMOTE


def several_horizons(rng: np.random.Generator) -> bool:
    """Equals at H 1, 5 and 20, judged by one command: does gate 1 let any of them through?"""
    cases = [going_on(0.0, horizon=h, stride=h)(rng) for h in (1, 5, 20)]
    return any(all(c.passed for c in v.checks if c.gate == 1) for v in judge_all(cases))


def halves_agree(rng: np.random.Generator, rho: float) -> bool:
    """Does gate 2 let the best of 60 through? Without skill they are the benchmark's equals."""
    if rho:
        losses, _, sigma = sweep_losses(rng, rho=rho)
        found = answer(losses, sigma)
    else:
        found = judge(going_on(0.0)(rng))
    return all(c.passed for c in found.checks if c.gate == 2)


def may_know_test(rng: np.random.Generator) -> bool:
    losses, _, sigma = sweep_losses(rng, rho=RHO)
    late = Weights(cutoff="2020-06-30", source="its card", pretrained=True, test_from="2020-01-01")
    return answer(losses, sigma, weights=late).outcome is Outcome.PROMOTE


def on_test(rng: np.random.Generator, *, phi: float = 0.0, rho: float = 0.0) -> bool:
    """One trial on test, at a first look: an equal, or one that knows rho^2 of what comes."""
    if rho:
        losses, _, sigma = sweep_losses(rng, rho=rho)
        theirs, ours = (origin_means(losses[k, ORIGINS:] / sigma[ORIGINS:]) for k in (0, 1))
    else:
        part = going_on(phi)(rng).val()
        theirs, ours = part.scaled(NAIVE), part.scaled(NAMES[1])
    return bool(diebold_mariano(ours, theirs, lags=0).pvalue < LEVEL)


@dataclass(frozen=True, slots=True)
class Attack:
    name: str
    gate: str
    says: str
    share_of: str
    relation: str  # "<=": how often it errs, ">=": how often it sees what is there
    bound: float
    once: Callable[[np.random.Generator], bool]


ATTACKS = (
    Attack("few", "0", "1 of 60 knows 5 %, 19.9 effective origins", "promoted", "<=", 0.0, too_few),
    Attack("ar0", "1", "equal losses, independent from origin to origin", "finds", "<=", 0.06,
           finds(going_on(0.0))),
    Attack("ar3", "1", "equal losses, autocorrelation 0.3", "finds", "<=", 0.07,
           finds(going_on(0.3))),
    Attack("ar5", "1", "equal losses, autocorrelation 0.5", "finds", "<=", 0.07,
           finds(going_on(0.5))),
    Attack("ar9", "1", "equal losses, autocorrelation 0.9", "finds", "<=", 0.07,
           finds(going_on(0.9))),
    Attack("ar5-h5-2", "1", "the same at 0.5 a bar, H 5, stride 2", "finds", "<=", 0.07,
           finds(going_on(0.5, horizon=5, stride=2))),
    Attack("ar5-h5-1", "1", "the same at 0.5 a bar, H 5, stride 1", "finds", "<=", 0.07,
           finds(going_on(0.5, horizon=5, stride=1))),
    Attack("one9", "1", "one trial of 60 at 0.9", "finds", "<=", 0.07,
           finds(going_on(0.9, one=True))),
    Attack("h20-5", "1", "labels that overlap, H 20, stride 5", "finds", "<=", 0.06,
           finds(going_on(0.0, horizon=20, stride=5))),
    Attack("h5-2", "1", "labels that overlap, H 5, stride 2", "finds", "<=", 0.06,
           finds(going_on(0.0, horizon=5, stride=2))),
    Attack("horizon", "1", "H 5 from every bar, declared as H 1", "finds", "<=", 0.07, misdeclared),
    Attack("horizons", "1, Holm", "equal losses at H 1, 5 and 20, judged together", "lets one pass",
           "<=", 0.06, several_horizons),
    Attack("peeking", "1, j", "a verdict after each of 60 equal trials", "ever finds", "<=", 0.09,
           peeks),
    Attack("alone", "1, hidden trials", "file: the best of 60 equals alone, --trials 60", "finds",
           "<=", 0.07, best_alone),
    Attack("one-item", "1, without an item", "last-value 5 times as bad on one item", "promoted",
           "<=", 0.03, bad_on_one_item),
    Attack("noisy", "1, last-value too", "a benchmark that is noisy everywhere", "promoted", "<=",
           0.03, noisy_everywhere),
    Attack("naive", "1, `naive wins`", "1 of 60 knows 1 %, fifth judging", "said beside p < 0.05",
           "<=", 0.0, naive_wins_beside_evidence),
    Attack("jitter", "1", "the third digit of the losses changes", "p moves by 0.05", "<=", 0.0,
           jitter),
    Attack("halves", "2", "the best of 60 equals", "lets pass", "<=", 0.2,
           lambda rng: halves_agree(rng, 0.0)),
    Attack("halves-skill", "2", "1 of 60 knows 5 %", "lets pass", ">=", 0.85,
           lambda rng: halves_agree(rng, RHO)),
    Attack("cutoff", "3", "1 of 60 knows 5 %, its weights may know test", "promoted", "<=", 0.0,
           may_know_test),
    Attack("storms", "3, files", "file: a trial that skips storms", "promoted", "<=", 0.03,
           skips("storms")),
    Attack("worst", "3, files", "file: a trial that skips its worst 9.9 %", "promoted", "<=", 0.03,
           skips("worst")),
    Attack("doctored", "1, our scale", "file: a scale that is wider where a lucky trial loses",
           "promoted", "<=", 0.03, doctored),
    Attack("test", "4", "an equal, one look", "passes", "<=", 0.07, on_test),
    Attack("test-ar5", "4", "an equal, autocorrelation 0.5", "passes", "<=", 0.07,
           lambda rng: on_test(rng, phi=0.5)),
    Attack("test-skill", "4", "a trial that knows 5 %", "passes", ">=", 0.85,
           lambda rng: on_test(rng, rho=RHO)),
    Attack("growing-1", "4, growing", "real losses without skill, H 1, read daily for a year",
           "ever finds", "<=", 0.05, grows(1)),
    Attack("growing-5", "4, growing", "the same at H 5", "ever finds", "<=", 0.05, grows(5)),
    Attack("volatility", "all", "differences that follow volatility, 0.9", "promoted", "<=", 0.07,
           follows_volatility),
    Attack("skill", "all", "1 of 60 knows 5 %", "promoted, and the right one", ">=", 0.85,
           promoted_with_skill),
    Attack("quiet", "all", "skill in quiet items only", "promoted, and the right one", ">=", 0.85,
           quiet_items_only),
    Attack("holes", "all", "file: 5 % of all cells missing at random, one trial knows 5 %",
           "promoted", ">=", 0.6, holes_at_random),
    Attack("no-holes", "all", "file: the same without a hole", "promoted", ">=", 0.6,
           lambda rng: holes_at_random(rng, 0.0)),
)  # fmt: skip


def repeat(attack: Attack, repetitions: int) -> float:
    """Share of sweeps in which it came about."""
    return sum(
        attack.once(np.random.default_rng([seed, 17])) for seed in range(repetitions)
    ) / repetitions  # fmt: skip


def held(attack: Attack, share: float) -> bool:
    return share <= attack.bound if attack.relation == "<=" else share >= attack.bound


def row(attack: Attack, share: float) -> str:
    """Its line of the table."""
    met = "met" if held(attack, share) else "**missed**"
    return (
        f"| {attack.gate} | {attack.says} | {attack.share_of} | "
        f"{attack.relation} {attack.bound:g} | {share:.3f} | {met} |"
    )


def on_page(table: str) -> dict[tuple[str, str], str]:
    """{(gate, sweep): line} of a table that stands on the page."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return {tuple(c.strip() for c in line.split("|")[1:3]): line for line in lines}  # type: ignore[misc]


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--only", nargs="*", choices=[a.name for a in ATTACKS])
    parser.add_argument(
        "--write", action="store_true", help=f"into {PAGE.name}; other rows stay as they are"
    )
    given = parser.parse_args(argv)
    shares: dict[str, float] = {}
    for attack in ATTACKS:
        if not given.only or attack.name in given.only:
            shares[attack.name] = repeat(attack, given.repetitions)
            print(row(attack, shares[attack.name]), flush=True)
    if given.write:
        before, rest = PAGE.read_text(encoding="utf-8").split(START)
        table, after = rest.split(END)
        known = on_page(table)
        lines = ["| gate | sweep | share of | held to | found | |", "|---|---|---|---|---|---|"]
        for attack in ATTACKS:
            old = known.get((attack.gate, attack.says))
            new = row(attack, shares[attack.name]) if attack.name in shares else old
            lines += [new] if new else []
        text = "\n".join(lines)
        said = f"{given.repetitions} sweeps of each kind."
        PAGE.write_text(f"{before}{START}\n{text}\n\n{said}\n{END}{after}", encoding="utf-8")
    return shares


if __name__ == "__main__":
    main()
