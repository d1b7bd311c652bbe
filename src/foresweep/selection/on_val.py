"""Gates 0 to 3: what val says of a candidate, every trial counted, before test is thought of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foresweep.errors import DataError, UnknownName
from foresweep.records import Against, Check
from foresweep.selection.cases import LEVEL, Case, check, known, scaled_skill
from foresweep.selection.losstable import Array, LossTable, PartLosses
from foresweep.stats.bootstrap import block_length
from foresweep.stats.overfitting import FEWEST_BLOCKS, Cscv, cscv, cscv_blocks
from foresweep.stats.stepm import Bounds, StepM, simultaneous_bounds, stepm, upper_skill

FEWEST_ORIGINS = 20.0
"""Effective origins in val and in test: with fewer, nothing is promoted and nothing ruled out."""
MOST_LOSS = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What val says of one candidate, before test is thought of."""

    case: Case
    candidate: str
    benchmark: str
    benchmark_why: str
    opponents: tuple[str, ...]  # the benchmark, then last-value where that is another
    val: PartLosses
    against: tuple[Against, ...]
    step: StepM  # against the benchmark
    cscv: Cscv | None
    differences: Array  # [O, K] against the benchmark

    @property
    def num_blocks(self) -> int:
        table = self.case.table
        return cscv_blocks(self.val.num_origins, table.horizon, table.stride)

    def checks(self, adjusted: float, *, together: int) -> tuple[Check, ...]:
        """Gates 0 to 3."""
        table, weights = self.case.table, self.case.weights
        found = [
            check(0, f"effective origins in {part}", table.effective_origins.get(part, 0.0), ">=",
                   FEWEST_ORIGINS)
            for part in ("val", "test")
        ]  # fmt: skip
        found.append(check(0, "blocks for CSCV", float(self.num_blocks), ">=", FEWEST_BLOCKS))
        for a in self.against:
            found.append(
                check(1, f"p against {a.opponent} (StepM)", a.pvalue, "<", self.case.level)
            )
            found.append(check(1, f"raw skill against {a.opponent}", a.raw_skill, ">", 0.0))
        if together > 1:
            name = f"larger p, Holm over {together} horizons"
            found.append(check(1, name, adjusted, "<", self.case.level))
        lost = None if self.cscv is None else self.cscv.probability_of_loss
        found.append(check(2, "probability of loss (CSCV)", lost, "<", MOST_LOSS))
        found.append(
            Check(gate=3, name="data of the weights end", value=weights.words, relation="before",
                  threshold=weights.test_from or "the first bar of test", passed=weights.is_clean)
        )  # fmt: skip
        return tuple(found)


def see(case: Case, benchmark: str, why: str, seed: int) -> Seen:
    """Read val and test every trial on it, all of them counted."""
    table = case.table
    if not table.trials:
        raise DataError("there is no trial with losses on val to judge")
    val = table.val()
    candidate = case.candidate or min(table.trials, key=val.raw_mean)
    if candidate not in table.trials:
        raise UnknownName("trial", candidate, table.trials, where="among those with losses on val")
    other = () if table.last_value in (None, benchmark) else (str(table.last_value),)
    opponents = (benchmark, *other)
    tests = [_test(table, val, opponent, case.level, seed) for opponent in opponents]
    blocks = cscv_blocks(val.num_origins, table.horizon, table.stride)
    against = tuple(
        _against(table, val, candidate, name, *test)
        for name, test in zip(opponents, tests, strict=True)
    )
    step, _, d = tests[0]
    found = cscv(d, num_blocks=blocks) if blocks else None
    return Seen(case, candidate, benchmark, why, opponents, val, against, step, found, d)


def _test(
    table: LossTable, val: PartLosses, opponent: str, level: float, seed: int
) -> tuple[StepM, Bounds, Array]:
    d = val.differences(opponent, table.trials)
    block = block_length(table.horizon, table.stride)
    effective = table.effective_origins["val"]
    step = stepm(d, block=block, effective_origins=effective, level=level, seed=seed)
    bounds = simultaneous_bounds(
        d, block=block, effective_origins=effective, level=LEVEL, seed=seed
    )
    return step, bounds, d


def _against(
    table: LossTable,
    val: PartLosses,
    candidate: str,
    opponent: str,
    step: StepM,
    bounds: Bounds,
    d: Array,
) -> Against:
    theirs = val.scaled(opponent)
    mean = float(np.nanmean(theirs))
    k = table.trials.index(candidate)
    uppers = upper_skill(d, theirs, bounds)
    top = int(np.argmax(uppers))
    return Against(
        opponent=opponent,
        raw_skill=val.raw_skill(candidate, opponent),
        scaled_skill=scaled_skill(d[:, k], theirs),
        lower_skill=known(bounds.lower[k] / mean),
        upper_skill=known(uppers[k]),
        t=known(step.statistic[k]),
        pvalue=float(step.pvalue[k]),
        superior=tuple(
            name for name, p in zip(table.trials, step.pvalue, strict=True) if p < step.level
        ),
        max_upper_skill=known(uppers[top]),
        max_upper_trial=table.trials[top],
    )
