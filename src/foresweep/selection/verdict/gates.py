"""The verdict: promote, hold or naive wins, from losses alone; it knows no database and no file.

Five gates, in order. 0: is there evidence enough? 1: on val, counting every trial, is the candidate
better than the benchmark and than last-value? 2: would picking the best have lost money elsewhere
in val? 3: could its weights have seen the test? 4: does the sealed test agree? Test is opened only
for a candidate that has passed all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from foresweep.errors import DataError, UnknownName
from foresweep.evaluation.yardstick import ENOUGH_ORIGINS
from foresweep.records import Against, Check, Verdict
from foresweep.selection.verdict.cases import LEVEL, Case, Open, Opened, check, known, scaled_skill
from foresweep.selection.verdict.losses import (
    Array,
    LossTable,
    PartLosses,
    choose_benchmark,
    one_se_choice,
    overtuned,
)
from foresweep.selection.verdict.ruling import Ruling, rule
from foresweep.stats.overfitting import (
    FEWEST_BLOCKS,
    Cscv,
    cscv,
    cscv_blocks,
    effective_trials,
    expected_best,
    winner,
)
from foresweep.stats.power import detectable_skill
from foresweep.stats.significance import (
    DieboldMariano,
    block_length,
    diebold_mariano,
    holm,
    overlap_lags,
)
from foresweep.stats.stepm import Bounds, StepM, simultaneous_bounds, stepm, upper_skill

# Gates 0 to 3: what val says of a candidate, every trial counted, before test is thought of.


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
                   float(ENOUGH_ORIGINS))
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


# Gate 4: does the sealed test agree? Reached only by what has passed every other gate.


@dataclass(frozen=True, slots=True, eq=False)
class Confirmation:
    """What test says of one candidate."""

    against: tuple[tuple[float, float, DieboldMariano], ...]  # raw skill, scaled skill, test
    adjusted: float  # the larger p-value, Holm over the horizons whose test was opened
    together: int


def confirm(
    seen: Sequence[Seen], through: Sequence[int], opened: Opened | None
) -> dict[int, Confirmation]:
    """What test says, by the place of the case; nothing where it was not opened."""
    if opened is None:
        return {}
    found = [
        [_against_on_test(seen[n], part, name) for name in seen[n].opponents]
        for n, part in zip(through, opened.parts, strict=True)
    ]
    adjusted = holm(np.array([max(dm.pvalue for *_, dm in one) for one in found]))
    return {
        n: Confirmation(tuple(one), float(p), len(through))
        for n, one, p in zip(through, found, adjusted, strict=True)
    }


def _against_on_test(
    seen: Seen, part: PartLosses, opponent: str
) -> tuple[float, float, DieboldMariano]:
    table = seen.case.table
    ours, theirs = part.scaled(seen.candidate), part.scaled(opponent)
    lags = overlap_lags(table.horizon, part.stride or table.stride)
    raw = part.raw_skill(seen.candidate, opponent)
    return raw, scaled_skill(theirs - ours, theirs), diebold_mariano(ours, theirs, lags=lags)


def checks_of_test(
    opponents: Sequence[str], found: Confirmation | None, opened: Opened | None
) -> tuple[Check, ...]:
    """Gate 4; not looked where test stayed shut."""
    level = None if opened is None else LEVEL / opened.number**2
    checks = []
    for n, name in enumerate(opponents):
        raw, _, dm = found.against[n] if found else (None, None, None)
        checks.append(
            check(4, f"raw skill against {name} on test", raw, ">", 0.0, looked=found is not None)
        )
        p = None if dm is None else dm.pvalue
        checks.append(
            check(4, f"p against {name} on test", p, "<", level, looked=found is not None)
        )
    if found and found.together > 1:
        name = f"larger p on test, Holm over {found.together} horizons"
        checks.append(check(4, name, found.adjusted, "<", level))
    return tuple(checks)


def with_test(against: tuple[Against, ...], found: Confirmation | None) -> tuple[Against, ...]:
    """The comparisons with what test says of them."""
    if found is None:
        return against
    return tuple(
        replace(a, test_raw_skill=raw, test_scaled_skill=scaled, test_t=dm.statistic,
                test_pvalue=dm.pvalue)
        for a, (raw, scaled, dm) in zip(against, found.against, strict=True)
    )  # fmt: skip


# The verdict: promote, hold or naive wins, from losses alone; it knows no database and no file.


def judge(case: Case, open_test: Open | None = None, *, seed: int = 0) -> Verdict:
    """The verdict on one candidate. Raises as `judge_all` does."""
    return judge_all([case], open_test, seed=seed)[0]


def judge_all(
    cases: Sequence[Case], open_test: Open | None = None, *, seed: int = 0
) -> tuple[Verdict, ...]:
    """The verdicts on one candidate of each horizon, judged together (Holm over them).

    The benchmark of each is fixed before its `val` is called. `open_test` is called at most once,
    for the cases that passed gates 0 to 3; None: there is no test to open. Raises DataError,
    UnknownName.
    """
    fixed = [choose_benchmark(case.table) for case in cases]  # before any val is read
    seen = [see(case, *chosen, seed) for case, chosen in zip(cases, fixed, strict=True)]
    adjusted = holm(np.array([max(a.pvalue for a in s.against) for s in seen]))
    checks = [s.checks(float(p), together=len(cases)) for s, p in zip(seen, adjusted, strict=True)]
    through = [n for n, found in enumerate(checks) if all(c.passed for c in found)]
    opened = open_test(through) if open_test and through else None
    confirmed = confirm(seen, through, opened)
    return tuple(
        _verdict(s, found, confirmed.get(n), opened if n in confirmed else None, len(cases))
        for n, (s, found) in enumerate(zip(seen, checks, strict=True))
    )


def _verdict(
    seen: Seen,
    checks: tuple[Check, ...],
    confirmation: Confirmation | None,
    opened: Opened | None,
    together: int,
) -> Verdict:
    table, record = seen.case.table, seen.case.record
    checks += checks_of_test(seen.opponents, confirmation, opened)
    against = with_test(seen.against, confirmation)
    ruling = rule(Ruling(seen.candidate, checks, against, tuple(table.trials), table.label))
    num_trials = max(record.num_trials or 0, len(table.trials))
    num_effective = effective_trials(seen.differences, num_trials)
    best = min(table.trials, key=seen.val.raw_mean)
    mean = float(np.nanmean(seen.val.scaled(seen.benchmark)))
    column = table.trials.index(seen.candidate)
    return Verdict(
        outcome=ruling.outcome,
        reason=ruling.reason,
        candidate=seen.candidate,
        label=table.label(seen.candidate),
        metric=table.metric,
        unit=table.unit,
        horizon=table.horizon,
        stride=table.stride,
        benchmark=seen.benchmark,
        benchmark_why=seen.benchmark_why,
        checks=checks,
        against=against,
        level=seen.case.level,
        test_level=None if opened is None else LEVEL / opened.number**2,
        judged_number=record.judged_number,
        look_number=None if opened is None else opened.number,
        num_horizons=together,
        num_tested=seen.step.num_tested,
        num_trials=num_trials,
        num_effective_trials=num_effective,
        num_items=seen.val.num_items,
        num_origins=dict(table.num_origins),
        effective_origins=dict(table.effective_origins),
        num_draws=seen.step.reps,
        num_blocks=seen.num_blocks,
        probability_of_loss=None if seen.cscv is None else seen.cscv.probability_of_loss,
        pbo=None if seen.cscv is None else seen.cscv.pbo,
        detectable_skill=_detectable(seen.step, column, mean),
        expected_best_skill=known(expected_best(seen.step.standard_error, num_effective) / mean),
        debiased_skill=_debiased(seen.differences, table, seen.step, mean),
        best=best,
        one_se_choice=one_se_choice(
            seen.val, table.trials, table.cost, horizon=table.horizon, stride=table.stride
        ),
        overtuning=overtuned(table, seen.val),
        zero_shot=_zero_shot(seen),
        members=ruling.members,
    )


def _detectable(step: StepM, column: int, mean: float) -> float | None:
    """The true scaled skill that this candidate would have to have for gate 1 to find it in 80 %
    of cases."""
    return known(
        detectable_skill(
            float(step.standard_error[column]),
            mean,
            critical=step.critical,
            effective_origins=step.effective_origins,
        )
    )


def _debiased(d: Array, table: LossTable, step: StepM, mean: float) -> float | None:
    found = winner(d, block=step.block, effective_origins=step.effective_origins, level=LEVEL)
    return None if found is None else known(found.debiased / mean)


def _zero_shot(seen: Seen) -> dict[str, float | str] | None:
    """The candidate's weights as they were before fine-tuning, on the same windows of val."""
    name = seen.case.table.zero_shot
    if name is None or name not in seen.val.names or name == seen.candidate:
        return None
    return {
        "trial": name,
        "raw_skill_vs_benchmark": seen.val.raw_skill(name, seen.benchmark),
        "candidate_skill_over_it": seen.val.raw_skill(seen.candidate, name),
    }
