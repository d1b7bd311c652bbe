"""The verdict: promote, hold or naive wins, from losses alone; it knows no database and no file.

Five gates, in order. 0: is there evidence enough? 1: on val, counting every trial, is the candidate
better than the benchmark and than last-value? 2: would picking the best have lost money elsewhere
in val? 3: could its weights have seen the test? 4: does the sealed test agree? Test is opened only
for a candidate that has passed all others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foresweep.records import Check, Verdict
from foresweep.selection.cases import LEVEL, Case, Open, Opened, known
from foresweep.selection.losstable import Array, LossTable, choose_benchmark
from foresweep.selection.on_test import Confirmation, checks_of_test, confirm, with_test
from foresweep.selection.on_val import Seen, see
from foresweep.selection.ruling import Ruling, rule
from foresweep.selection.winners import one_se_choice, overtuned
from foresweep.stats.overfitting import effective_trials, expected_best, winner
from foresweep.stats.power import detectable_skill
from foresweep.stats.significance import holm
from foresweep.stats.stepm import StepM


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
        one_se_choice=one_se_choice(table, seen.val, best),
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
