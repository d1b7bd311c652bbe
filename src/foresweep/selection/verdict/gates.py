"""The verdict: promote, hold or naive wins, from losses alone; it knows no database and no file.

Five gates, in order. 0: is there evidence enough? 1: on val, counting every trial, is the candidate
better than the benchmark and than last-value, and would it be without its best item? 2: would
picking the best have lost money elsewhere in val? 3: could its weights have seen the test? 4: does
the sealed test agree? Test is opened only for a candidate that has passed all others.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from foresweep.errors import DataError, UnknownName
from foresweep.evaluation.yardstick import ENOUGH_ORIGINS
from foresweep.records import Against, Check, Outcome, Verdict
from foresweep.selection.verdict.case import (
    LEVEL,
    UNSAID,
    Case,
    PartLosses,
    choose_benchmark,
    one_se_choice,
)
from foresweep.stats.overfitting import (
    FEWEST_BLOCKS,
    Cscv,
    cscv,
    cscv_blocks,
    debiased_best,
    effective_trials,
    expected_best,
    overtuning,
)
from foresweep.stats.power import detectable_skill
from foresweep.stats.sequential import SequentialTest
from foresweep.stats.significance import Array, block_length, diebold_mariano, holm
from foresweep.stats.stepm import StepM, simultaneous_bounds, stepm

MOST_LOSS = 0.2
"""Highest share of picks on half of val that may lose on the other half (gate 2)."""
FEWEST_ITEMS = 5
"""Items below which leaving out the best one leaves too little to ask again."""
WITHOUT = 2.0
"""Times the level that p may be without the best item, which is chosen for what it contributes: at
the level itself honest trials lost a tenth of their power, and attacks none more. The same where a
file brings its own scale and p is asked again by ours."""
RESCALED = "scaled by its earlier losses"
"""The same question where a file brings its own scale, which may have known the losses."""


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """Test, opened for some cases: which look it was, and the losses of each."""

    number: int  # k
    parts: tuple[PartLosses, ...]
    growing: bool = False  # read for ever: p-values hold after any origin

    @property
    def level(self) -> float:
        """Of gate 4: 0.05 / k^2."""
        return LEVEL / self.number**2


Open = Callable[[Sequence[int]], Opened]
"""Opens the test for the cases at these places, records the look first, and gives their losses."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What val says of one candidate, every trial counted, before test is thought of."""

    case: Case
    candidate: str
    benchmark: str
    benchmark_why: str
    val: PartLosses
    block: int  # origins that share labels
    against: tuple[Against, ...]  # the benchmark, then last-value where that is another
    step: StepM  # against the benchmark
    differences: Array  # [O, K] against the benchmark
    num_blocks: int
    cscv: Cscv | None


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
    chosen = [choose_benchmark(case) for case in cases]  # before any val is read
    evidence = [_on_val(case, *of, seed) for case, of in zip(cases, chosen, strict=True)]
    adjusted = holm(np.array([max(a.pvalue for a in e.against) for e in evidence]))
    checks = [
        _gates_of_val(e, float(p), len(cases)) for e, p in zip(evidence, adjusted, strict=True)
    ]
    through = [n for n, found in enumerate(checks) if all(c.passed for c in found)]
    opened = open_test(through) if open_test and through else None
    confirmed: dict[int, float] = {}
    if opened is not None:
        for n, part in zip(through, opened.parts, strict=True):
            evidence[n] = _on_test(evidence[n], part, opened)
        larger = [max(float(a.test_pvalue or 0.0) for a in evidence[n].against) for n in through]
        confirmed = dict(zip(through, holm(np.array(larger)), strict=True))
    verdicts = []
    for n, (e, found) in enumerate(zip(evidence, checks, strict=True)):
        look = opened if n in confirmed else None
        found += _gates_of_test(e, confirmed.get(n), len(confirmed), look)
        verdicts.append(_verdict(e, tuple(found), look, len(cases)))
    return tuple(verdicts)


def _on_val(case: Case, benchmark: str, why: str, seed: int) -> Evidence:
    """Read val and test every trial on it, all of them counted."""
    if not case.trials:
        raise DataError("there is no trial with losses on val to judge")
    val = case.val()
    candidate = case.candidate or val.best_scaled(case.trials)
    if candidate not in case.trials:
        raise UnknownName("trial", candidate, case.trials, where="among those with losses on val")
    k, block = case.trials.index(candidate), block_length(case.horizon, case.stride)
    other = () if case.last_value in (None, benchmark) else (str(case.last_value),)
    against, tests = [], []

    def tested(d: Array) -> StepM:
        return stepm(d, block=block, level=case.level, seed=seed)

    def asked_again(part: PartLosses, opponent: str) -> float:
        """The candidate's p in other words than those of the case."""
        step = tested(part.differences(opponent, case.trials))
        return float(_all_tried(case, step.pvalue)[k])

    for opponent in (benchmark, *other):
        mean, d = val.unit(opponent), val.differences(opponent, case.trials)
        step = tested(d)
        bounds = simultaneous_bounds(d, block=block, level=LEVEL, seed=seed)
        pvalues, left_out, without = _all_tried(case, step.pvalue), None, None
        if val.num_items >= FEWEST_ITEMS:
            item = val.best_item(candidate, opponent)
            left_out = val.items[item] if val.items else f"item {item}"
            without = asked_again(val.without(item), opponent)
        rescaled = val.rescaled()
        by_ours = None if rescaled is None else asked_again(rescaled, opponent)
        # infinite where nothing is known
        uppers = np.where(np.isnan(bounds.upper), np.inf, bounds.upper / mean)
        top = int(np.argmax(uppers))
        tests.append((step, d))
        against.append(
            Against(
                opponent=opponent,
                raw_skill=val.raw_skill(candidate, opponent),
                scaled_skill=float(np.nanmean(d[:, k]) / mean),
                lower_skill=_finite(bounds.lower[k] / mean),
                upper_skill=_finite(uppers[k]),
                t=_finite(step.statistic[k]),
                pvalue=float(pvalues[k]),
                superior=tuple(
                    n for n, p in zip(case.trials, pvalues, strict=True) if p < step.level
                ),
                max_upper_skill=_finite(uppers[top]),
                max_upper_trial=case.trials[top],
                df=_finite(step.df[k]),
                inflation=_finite(step.inflation[k]),
                without_item=left_out,
                pvalue_without=without,
                pvalue_rescaled=by_ours,
            )
        )
    step, d = tests[0]
    blocks = cscv_blocks(val.num_origins, case.horizon, case.stride)
    halved = cscv(d, num_blocks=blocks) if blocks else None
    return Evidence(
        case, candidate, benchmark, why, val, block, tuple(against), step, d, blocks, halved
    )


def _all_tried(case: Case, pvalues: Array) -> Array:
    """Adjusted p-values when trials are hidden: each as likely to be lucky as those at hand, of
    which the best were handed in (Sidak)."""
    times = 1 + case.num_hidden / max(len(case.trials), 1)
    with np.errstate(divide="ignore"):  # p = 1 stays 1
        found: Array = -np.expm1(times * np.log1p(-pvalues))
    return found


def _gates_of_val(evidence: Evidence, adjusted: float, together: int) -> list[Check]:
    """Gates 0 to 3; `adjusted` is the larger p of the two opponents, by Holm over `together`."""
    case, weights, terms = evidence.case, evidence.case.weights, evidence.val.terms
    found = [
        _check(0, f"{terms.points} in {part}", case.effective_origins.get(part, 0.0), ">=",
               float(ENOUGH_ORIGINS))
        for part in ("val", "test")
    ]  # fmt: skip
    found.append(_check(0, "blocks for CSCV", float(evidence.num_blocks), ">=", FEWEST_BLOCKS))
    for a in evidence.against:
        found.append(_check(1, f"p against {a.opponent} (StepM)", a.pvalue, "<", case.level))
        found.append(_check(1, f"{terms.raw} {a.opponent}", a.raw_skill, ">", 0.0))
        if a.without_item is not None:
            name = f"p against {a.opponent}, without {a.without_item} (StepM)"
            found.append(_check(1, name, a.pvalue_without, "<", WITHOUT * case.level))
        if a.pvalue_rescaled is not None:
            name = f"p against {a.opponent}, {RESCALED} (StepM)"
            found.append(_check(1, name, a.pvalue_rescaled, "<", WITHOUT * case.level))
    if together > 1:
        name = f"larger p, Holm over {together} horizons"
        found.append(_check(1, name, adjusted, "<", case.level))
    lost = None if evidence.cscv is None else evidence.cscv.probability_of_loss
    found.append(_check(2, "probability of loss (CSCV)", lost, "<", MOST_LOSS))
    found.append(
        Check(gate=3, name="data of the weights end", value=weights.words, relation="before",
              threshold=weights.test_from or "the first bar of test", passed=weights.is_clean)
    )  # fmt: skip
    return [*found, *(check for check, _ in case.suspicions)]


def _on_test(evidence: Evidence, part: PartLosses, opened: Opened) -> Evidence:
    """The evidence with what test says against each opponent: once, by Diebold-Mariano, or of a
    growing test origin by origin, by an anytime-valid test at its look's level."""
    lags = block_length(evidence.case.horizon, part.stride or evidence.case.stride) - 1
    against = []
    for a in evidence.against:
        d = part.differences(a.opponent, (evidence.candidate,))[:, 0]
        found, mean = diebold_mariano(np.zeros(len(d)), d, lags=lags), part.unit(a.opponent)
        pvalue, low, high, by_ours = found.pvalue, None, None, None
        if opened.growing:
            read = SequentialTest(lags=lags, level=opened.level).update(d)
            pvalue = read.pvalue
            low, high = _finite(read.lower / mean), _finite(read.upper / mean)
        if (rescaled := part.rescaled()) is not None:
            ours = rescaled.differences(a.opponent, (evidence.candidate,))[:, 0]
            if opened.growing:
                level = WITHOUT * opened.level
                by_ours = SequentialTest(lags=lags, level=level).update(ours).pvalue
            else:
                by_ours = diebold_mariano(np.zeros(len(ours)), ours, lags=lags).pvalue
        against.append(
            replace(
                a,
                test_raw_skill=part.raw_skill(evidence.candidate, a.opponent),
                test_scaled_skill=float(np.nanmean(d)) / mean,
                test_t=found.statistic,
                test_pvalue=pvalue,
                test_lower_skill=low,
                test_upper_skill=high,
                test_origins=found.num_origins if opened.growing else None,
                test_pvalue_rescaled=by_ours,
            )
        )
    return replace(evidence, against=tuple(against))


def _gates_of_test(
    evidence: Evidence, adjusted: float | None, together: int, opened: Opened | None
) -> list[Check]:
    """Gate 4, not looked where `adjusted` is None: the larger p, by Holm over the horizons whose
    test was opened with this one."""
    level, looked = None if opened is None else opened.level, adjusted is not None
    found = []
    for a in evidence.against:
        skill = f"{evidence.val.terms.raw} {a.opponent} on test"
        p = f"p against {a.opponent} on test"
        found.append(_check(4, skill, a.test_raw_skill, ">", 0.0, looked=looked))
        found.append(_check(4, p, a.test_pvalue, "<", level, looked=looked))
        if a.test_pvalue_rescaled is not None and level is not None:
            ours = a.test_pvalue_rescaled
            found.append(_check(4, f"{p}, {RESCALED}", ours, "<", WITHOUT * level))
    if adjusted is not None and together > 1:
        name = f"larger p on test, Holm over {together} horizons"
        found.append(_check(4, name, float(adjusted), "<", level))
    return found


def _check(
    gate: int,
    name: str,
    value: float | None,
    relation: str,
    threshold: float | None,
    *,
    looked: bool = True,
) -> Check:
    """A check of numbers; what could not be had does not pass."""
    passed: bool | None = None
    if looked:
        holds = {"<": operator.lt, ">": operator.gt, ">=": operator.ge}[relation]
        passed = value is not None and threshold is not None and bool(holds(value, threshold))
    return Check(
        gate=gate, name=name, value=value, relation=relation, threshold=threshold, passed=passed
    )


def _verdict(
    evidence: Evidence, checks: tuple[Check, ...], opened: Opened | None, together: int
) -> Verdict:
    """Outcome and reason from the checks, and what luck alone would show beside it."""
    case, val, step, halved = evidence.case, evidence.val, evidence.step, evidence.cscv
    candidate, k = evidence.candidate, case.trials.index(evidence.candidate)
    members = tuple(t for t in case.trials if all(t in a.superior for a in evidence.against))
    failed = [c for c in checks if not c.passed]
    outcome, reason = _rule(evidence, failed, members)
    if opened is not None and opened.growing and failed and failed[0].gate == 4:
        reason = f"not decided: {reason}; this test grows, so ask again once there are new bars"
    mean = val.unit(evidence.benchmark)
    num_trials = max(case.num_trials or 0, len(case.trials))
    num_effective = effective_trials(evidence.differences, num_trials)
    luck = expected_best(step.standard_error, num_effective)
    debiased = debiased_best(evidence.differences, block=evidence.block)
    tuned = [name for name in case.trials if np.isfinite(case.tune.get(name, np.nan))]
    zero_shot: dict[str, float | str] | None = None
    if case.zero_shot is not None and case.zero_shot in val.names and case.zero_shot != candidate:
        zero_shot = {
            "trial": case.zero_shot,
            "raw_skill_vs_benchmark": val.raw_skill(case.zero_shot, evidence.benchmark),
            "candidate_skill_over_it": val.raw_skill(candidate, case.zero_shot),
        }
    return Verdict(
        outcome=outcome,
        answer=_answer(outcome, evidence.against),
        reason=reason,
        candidate=candidate,
        label=case.labels.get(candidate, candidate),
        metric=case.metric,
        unit=case.unit,
        horizon=case.horizon,
        stride=case.stride,
        benchmark=evidence.benchmark,
        benchmark_why=evidence.benchmark_why,
        checks=checks,
        against=evidence.against,
        level=case.level,
        test_level=None if opened is None else opened.level,
        judged_number=case.judged_number,
        look_number=None if opened is None else opened.number,
        growing=opened is not None and opened.growing,
        num_horizons=together,
        num_tested=step.num_tested,
        num_trials=num_trials,
        num_effective_trials=num_effective,
        num_items=val.num_items,
        num_origins=dict(case.num_origins),
        effective_origins=dict(case.effective_origins),
        num_draws=step.reps,
        num_blocks=evidence.num_blocks,
        probability_of_loss=None if halved is None else halved.probability_of_loss,
        pbo=None if halved is None else halved.pbo,
        detectable_skill=_finite(
            detectable_skill(
                float(step.standard_error[k]),
                mean,
                critical=float(step.critical_t[k]),
                effective_origins=float(step.df[k]) + 1.0,
            )
        ),
        expected_best_skill=_finite(luck / mean),
        debiased_skill=None if debiased is None else _finite(debiased / mean),
        best=min(case.trials, key=val.raw_mean),
        one_se_choice=one_se_choice(val, case.trials, case.cost, block=evidence.block),
        overtuning=overtuning([case.tune[n] for n in tuned], [val.raw_mean(n) for n in tuned]),
        zero_shot=zero_shot,
        members=members,
    )


def _answer(outcome: Outcome, against: Sequence[Against]) -> str:
    """The outcome in words; where the benchmark is another than last-value, it is what wins."""
    if outcome is Outcome.NAIVE_WINS and len(against) > 1:
        return f"BASELINE WINS: {against[0].opponent}"
    return outcome.value.upper()


def _rule(
    evidence: Evidence, failed: Sequence[Check], members: Sequence[str]
) -> tuple[Outcome, str]:
    """Promote when every check has passed; else the first gate that did not says why."""
    if not failed:
        return Outcome.PROMOTE, "every gate is passed"
    case, against, benchmark = evidence.case, evidence.against, evidence.against[0]
    terms = evidence.val.terms
    value, top = failed[0].value, benchmark.max_upper_skill
    proved = [a.opponent for a in against[1:] if evidence.candidate in a.superior]
    better = f"proved better than {proved[0]}, not than {benchmark.opponent}: " if proved else ""
    lowest = float(_all_tried(case, evidence.step.pvalue).min())
    reason = ""
    match failed[0].gate:
        case 0:
            short = (  # never rounded up, so that 19.96 does not read as 20
                f"{math.floor(10 * float(c.value or 0)) / 10:g} {c.name}, {c.threshold:.0f} are "
                f"needed"
                for c in failed
                if c.gate == 0
            )
            reason = f"too little evidence: {'; '.join(short)}"
        case 1 if lowest >= LEVEL and top is not None and top < terms.useful:
            num = len(case.trials)
            none, nor = (
                ("the one trial is not", "it cannot")
                if num == 1
                else (f"none of {num} trials is", "none can")
            )
            return Outcome.NAIVE_WINS, (
                f"{better}{none} better than {benchmark.opponent}, and {nor} have a "
                f"{terms.scaled} of {terms.said(terms.useful)}: at most {terms.said(top, 1)} with "
                f"95 % confidence"
            )
        case 1 if members and evidence.candidate not in members:
            named = ", ".join(case.labels.get(m, m) for m in members[:5])
            more = f" and {len(members) - 5} more" if len(members) > 5 else ""
            reason = f"not this one: {named}{more} passed where it did not"
        case 1 if beaten := [a.opponent for a in against if evidence.candidate not in a.superior]:
            left = f"up to {terms.said(top or 0.0)} is not ruled out"
            if top is None:
                left = "no bound is known"
            reason = (
                f"{better}too little evidence: no proof that it is better than "
                f"{' and '.join(beaten)}, but a useful {terms.short} is not excluded either "
                f"({left})"
            )
            if case.level < LEVEL and all(a.pvalue < LEVEL for a in against):
                reason = (
                    f"not proved any more: p {max(a.pvalue for a in against):.2g} would do at a "
                    f"first judging of these cells, and this is judging {case.judged_number}, at "
                    f"p < {case.level:.2g}"
                )
                if case.level <= 1 / (1 + evidence.step.reps):
                    reason += f", less than {evidence.step.reps:,} draws can show"
        case 1 if at_loss := [a.opponent for a in against if a.raw_skill <= 0]:
            reason = (
                f"better in units of volatility only: in {' and '.join(at_loss)}'s own terms, raw "
                f"losses, it is no better"
            )
        case 1 if doubted := [
            a
            for a in against
            if a.pvalue_rescaled is not None and a.pvalue_rescaled >= WITHOUT * case.level
        ]:
            reason = (
                f"only the file's scale says so: {RESCALED} there is no proof that it is better "
                f"than {doubted[0].opponent} (p {doubted[0].pvalue_rescaled:.2g}); a scale has to "
                f"be known at the origin"
            )
        case 1 if held := [
            a
            for a in against
            if a.pvalue_without is not None and a.pvalue_without >= WITHOUT * case.level
        ]:
            reason = (
                f"one item carries it: without {held[0].without_item} there is no proof that it is "
                f"better than {held[0].opponent} (p {held[0].pvalue_without:.2g})"
            )
        case 1:
            reason = "not significant once the horizons judged together are counted"
        case 2 if isinstance(value, float):
            reason = (
                f"probability of loss: whoever picks the best trial on half of val loses to "
                f"{benchmark.opponent} on the other half in {100 * value:.0f} % of the ways to "
                f"halve"
            )
        case 2:
            reason = "probability of loss: it could not be computed"
        case 3 if said := dict(case.suspicions).get(failed[0]):
            reason = said
        case 3 if value == UNSAID:
            reason = (
                "contaminated, perhaps: nobody says where its weights come from; give the last day "
                "of their data, or none where they were trained from scratch"
            )
        case 3 if value == "unknown":
            reason = "contaminated: where the data of its pretrained weights end is not known"
        case 3:
            reason = (
                f"contaminated: its pretrained weights may have seen data up to {value}, and test "
                f"starts on {failed[0].threshold}"
            )
        case _ if failed[0].passed is None:
            reason = "there is no sealed test to confirm it"
        case _:
            facts = (
                f"{c.name} is {c.value:+.4f}, not {c.relation} {c.threshold:g}" for c in failed
            )
            reason = f"test disagrees: {'; '.join(facts)}"
    return Outcome.HOLD, reason


def _finite(value: float) -> float | None:
    """The value, None where it is no finite number."""
    return float(value) if np.isfinite(value) else None
