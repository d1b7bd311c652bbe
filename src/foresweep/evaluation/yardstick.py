"""The rules of judgement, each once: what is to beat, what counts as evidence, what is no skill.

Every command asks here, so that two of them cannot say different things of one run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from foresweep.data.splits import origins_apart
from foresweep.metrics import METRICS, QUANTILE_METRICS, TRADING_METRICS
from foresweep.records import Run, RunState

LAST_VALUE = "last-value"
BASELINE_SOURCE = "baseline"
"""Source of a sweep's own plain baselines; of its others it goes on with a variant."""
ENOUGH_ORIGINS = 20
"""Effective origins in val and in test: with fewer, nothing is promoted and nothing ruled out."""
PLAUSIBLE_SKILL = 0.15
"""Nothing honest on daily prices comes near this skill in pct_mae: look for a leak first."""
SAME = 1e-12
"""A skill against last-value nearer to 0 than this is none: every median is the last close."""
EQUALS_LAST_VALUE = "equals last-value"
"""Tag and note of such a run."""


# Evidence.


def effective_origins(part: Mapping[str, Any], horizon: int) -> float:
    """Origins that share no label, by a plan's record of a part: `origins`, `stride` and `bars`;
    without `bars` those that the origins span, (origins - 1) stride + H, are the part."""
    count = int(part["origins"])
    spanned = (count - 1) * int(part["stride"]) + horizon if count else 0
    return origins_apart(count, int(part.get("bars", spanned)), horizon)


# Last-value, and the benchmark.


def is_last_value(run: Run) -> bool:
    """Is it last-value as it is: complete, not calibrated, no repetition of another run?"""
    return (
        run.model_name == LAST_VALUE
        and run.state == RunState.COMPLETE
        and run.reproduces is None
        and not (run.hyperparams.get("fit_scale") or run.hyperparams.get("isotonic"))
    )


def last_value(runs: Iterable[Run]) -> Run | None:
    """Of runs on the same windows the one that skill is measured against: the uncalibrated
    last-value of the sweep, else the oldest uncalibrated one."""
    plain = (r for r in runs if is_last_value(r))
    return min(plain, key=lambda r: (r.source != BASELINE_SOURCE, r.run_id), default=None)


def baselines(runs: Iterable[Run]) -> dict[str, Run]:
    """The complete baselines by the name they are judged under, a sweep's own first, one a config:
    model and variant, and the run's id where the name is another's."""
    found: dict[str, Run] = {}
    for run in sorted(runs, key=lambda r: r.source != BASELINE_SOURCE):
        if not run.is_baseline or run.state != RunState.COMPLETE or run.reproduces is not None:
            continue
        name = baseline_name(run)
        taken = name in found or (name == LAST_VALUE and not is_last_value(run))
        if taken and run.config_hash not in {r.config_hash for r in found.values()}:
            name = f"{name}, {run.run_id}"
        found.setdefault(name, run)
    return found


def baseline_name(run: Run) -> str:
    """A baseline's model and variant, by which it is named as a benchmark: `random-walk`,
    `random-walk (garman-klass, scaled)`."""
    variant = run.source.partition(": ")[2]
    return f"{run.model_name} ({variant})" if variant else run.model_name


def choose_benchmark(
    tune: Mapping[str, float], badness: Callable[[float], float] = float
) -> str | None:
    """The benchmark among baselines, by name: the best score on tune, lowest `badness` first; ties
    go to last-value, then to the first. None where there is none."""
    return min(tune, key=lambda n: (badness(tune[n]), n != LAST_VALUE), default=None)


def benchmark(runs: Iterable[Run], metric: str) -> tuple[str, Run] | None:
    """The benchmark among runs on the same windows, with its name, by a bare metric."""
    named = baselines(runs)
    tune = {n: s for n, r in named.items() if (s := r.score(f"tune_{metric}")) is not None}
    name = choose_benchmark(tune, METRICS[metric].badness)
    return None if name is None else (name, named[name])


# Skill in a metric; skill that is none, and skill that cannot be.


def skill_against(score: float | None, other: float | None, bare: str) -> float | None:
    """1 - score / other, of metrics that are a mean of losses; None of others."""
    if score is None or not other or METRICS[bare].loss is None:
        return None
    return 1 - score / other


def own_skill(run: Run, part: str, bare: str, naive: Run | None) -> float | None:
    """A run's skill against last-value (`naive`, on the same windows) in a metric: as it was
    scored, else from both scores; None of a metric that has no skill, or of an unknown `naive`."""
    name = {"pct_mae": "skill", "skill": "skill"}.get(bare, f"{bare}_skill")
    scored = run.score(f"{part}_{name}")
    if scored is not None or naive is None:
        return scored
    score = f"{part}_{bare}"
    return skill_against(run.score(score), naive.score(score), bare)


def no_skill(skill: float | None) -> bool:
    """Is a skill against last-value that of the last close itself?"""
    return skill is not None and abs(skill) < SAME


def equals_last_value(run: Run, part: str, metric: str) -> bool:
    """Is this a trained run whose point forecast is the last close everywhere? Under metrics that
    look at quantiles it is a forecast of its own, under those of the trading rule undefined."""
    points = metric not in (*QUANTILE_METRICS, *TRADING_METRICS)
    return points and not run.is_baseline and no_skill(run.score(f"{part}_skill"))


def implausible(skill: float | None) -> bool:
    """Is a pct_mae skill against last-value, on the same windows, beyond what anything honest
    shows on daily prices? None and NaN are not."""
    return skill is not None and skill > PLAUSIBLE_SKILL


def alarm(run_id: str, skill: float | None) -> str | None:
    """What to say of such a skill; None where it is plausible."""
    if not implausible(skill):
        return None
    return (
        f"Too good to be true: a skill above {PLAUSIBLE_SKILL} against last-value is not seen on "
        f"daily prices. Look for a leak before anything else: foresweep doctor --leaks {run_id}"
    )
