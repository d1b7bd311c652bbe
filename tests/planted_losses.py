"""Loss tables with planted skill: one benchmark, many trials, losses that share the days' fate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from foresweep.evaluation.yardstick import effective_origins
from foresweep.selection.verdict.case import Case, PartLosses
from foresweep.selection.verdict.gates import Open, Opened
from foresweep.stats.significance import Array

BENCHMARK, LAST = "random-walk", "last-value"


def losses(
    skills: Mapping[str, float],
    *,
    origins: int = 60,
    items: int = 31,
    seed: int = 0,
    noise: float = 0.15,
    raw_tilt: Mapping[str, float] | None = None,
) -> PartLosses:
    """|move| - skill - noise, in percent; items and days differ in volatility. `raw_tilt` adds a
    loss in the wildest tenth of cells only, which scaling takes away."""
    rng = np.random.default_rng([seed, origins, items])
    scale = 2.0 * np.exp(rng.normal(0, 0.4, items) + rng.normal(0, 0.4, (origins, 1)))
    base = scale * np.abs(rng.standard_normal((origins, items)))
    wild = scale >= np.quantile(scale, 0.9)
    raw = []
    for name, skill in skills.items():
        mine = base * (1 - skill) + noise * scale * rng.standard_normal(scale.shape)
        raw.append(mine + wild * (raw_tilt or {}).get(name, 0.0) * scale)
    return PartLosses(tuple(skills), np.array(raw), scale)


def make_table(
    skills: Sequence[float],
    *,
    origins: int = 60,
    seed: int = 0,
    last_value: float = -0.02,
    **changed: Any,
) -> tuple[Case, dict[str, float]]:
    """A table whose trials t0, t1 ... have these skills over the benchmark."""
    shape = {k: changed.pop(k) for k in ("items", "noise", "raw_tilt") if k in changed}
    named = {f"t{k}": s for k, s in enumerate(skills)}
    every = {BENCHMARK: 0.0, LAST: last_value} | named
    table = Case(
        metric="pct_mae",
        unit="%",
        horizon=5,
        stride=5,
        trials=tuple(named),
        baselines=(BENCHMARK, LAST),
        val=lambda: losses(every, origins=origins, seed=seed, **shape),
        tune={BENCHMARK: 1.0, LAST: 1.1} | {n: 1.0 - s for n, s in named.items()},
        last_value=LAST,
        num_origins={"val": origins, "test": origins},
        effective_origins=dict.fromkeys(
            ("val", "test"), effective_origins({"origins": origins, "stride": 5}, 5)
        ),
    )
    return replace(table, **changed), every


def opener(
    every: Mapping[str, float], *, number: int = 1, growing: bool = False, **shape: Any
) -> Open:
    """Opens a test with these skills; `opened.calls` counts."""

    def open_test(places: Sequence[int]) -> Opened:
        open_test.calls += 1  # type: ignore[attr-defined]
        return Opened(number, tuple(losses(every, seed=77, **shape) for _ in places), growing)

    open_test.calls = 0  # type: ignore[attr-defined]
    return open_test


def skill_free(num: int = 60) -> list[float]:
    """Trials that are worse than the benchmark by a little."""
    return [-0.01 - 0.001 * (k % 7) for k in range(num)]


def case(table: Case, candidate: str | None = None, **said: Any) -> Case:
    return replace(table, candidate=candidate, **said)


def nan_cells(part: PartLosses, share: float = 0.1, seed: int = 5) -> PartLosses:
    """The same part with cells missing for all."""
    gone = np.random.default_rng(seed).random(part.scale.shape) < share
    raw: Array = np.where(gone, np.nan, part.raw)
    return PartLosses(part.names, raw, part.scale)
