"""From checks to an outcome and the reason for it, in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from foresweep.records import Against, Check, Outcome, Target, Verdict
from foresweep.selection.leaderboard import PLAUSIBLE_SKILL
from foresweep.selection.verdict.question import Question

USEFUL_SKILL = 0.05
"""Scaled skill below which a trial is not worth a sweep: naive wins when all are surely below."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What an outcome rests on."""

    candidate: str
    checks: tuple[Check, ...]
    against: tuple[Against, ...]  # the benchmark first
    trials: tuple[str, ...]
    label: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Ruled:
    outcome: Outcome
    reason: str
    members: tuple[str, ...]  # trials superior to every opponent


def rule(case: Ruling) -> Ruled:
    """Promote when every check has passed; else the first gate that did not says why."""
    members = tuple(t for t in case.trials if all(t in a.superior for a in case.against))
    failed = [c for c in case.checks if not c.passed]
    if not failed:
        return Ruled(Outcome.PROMOTE, "every gate is passed", members)
    gate = failed[0].gate
    if gate == 1 and _nothing_left(case.against[0]):
        return Ruled(Outcome.NAIVE_WINS, _naive_wins(case), members)
    said = {0: _too_little, 1: _not_superior, 2: _loss, 3: _contaminated, 4: _test_disagrees}
    return Ruled(Outcome.HOLD, said[gate](case, failed, members), members)


def _nothing_left(benchmark: Against) -> bool:
    """Is no trial better than the benchmark, and each surely without a useful skill?"""
    top = benchmark.max_upper_skill
    return not benchmark.superior and top is not None and top < USEFUL_SKILL


def _naive_wins(case: Ruling) -> str:
    against = case.against[0]
    assert against.max_upper_skill is not None
    return (
        f"none of {len(case.trials)} trials is better than {against.opponent}, and none can have a "
        f"scaled skill of {100 * USEFUL_SKILL:.0f} %: at most "
        f"{100 * against.max_upper_skill:.1f} % with 95 % confidence"
    )


def _too_little(case: Ruling, failed: list[Check], members: tuple[str, ...]) -> str:
    short = [c for c in failed if c.gate == 0]
    said = "; ".join(f"{_rounded(c.value)} {c.name}, {c.threshold:.0f} are needed" for c in short)
    return f"too little evidence: {said}"


def _rounded(count: float | str | None) -> str:
    """Never up, so that 19.96 does not read as 20."""
    return f"{math.floor(10 * float(count or 0)) / 10:g}"


def _not_superior(case: Ruling, failed: list[Check], members: tuple[str, ...]) -> str:
    if members and case.candidate not in members:
        named = ", ".join(case.label(m) for m in members[:5])
        more = f" and {len(members) - 5} more" if len(members) > 5 else ""
        return f"not this one: {named}{more} passed where it did not"
    beaten = [a for a in case.against if case.candidate not in a.superior]
    if not beaten:
        at_loss = [a.opponent for a in case.against if a.raw_skill <= 0]
        if at_loss:
            return (
                f"better in units of volatility only: in {' and '.join(at_loss)}'s own terms, raw "
                f"losses, it is no better"
            )
        return "not significant once the horizons judged together are counted"
    who = " and ".join(a.opponent for a in beaten)
    top = case.against[0].max_upper_skill
    left = "no bound is known" if top is None else f"up to {100 * top:.0f} % is not ruled out"
    return (
        f"too little evidence: no proof that it is better than {who}, but a useful skill is not "
        f"excluded either ({left})"
    )


def _loss(case: Ruling, failed: list[Check], members: tuple[str, ...]) -> str:
    value = failed[0].value
    if not isinstance(value, float):
        return "probability of loss: it could not be computed"
    return (
        f"probability of loss: whoever picks the best trial on half of val loses to "
        f"{case.against[0].opponent} on the other half in {100 * value:.0f} % of the ways to halve"
    )


def _contaminated(case: Ruling, failed: list[Check], members: tuple[str, ...]) -> str:
    check = failed[0]
    if check.value == "unknown":
        return "contaminated: where the data of its pretrained weights end is not known"
    return (
        f"contaminated: its pretrained weights may have seen data up to {check.value}, and test "
        f"starts on {check.threshold}"
    )


def _test_disagrees(case: Ruling, failed: list[Check], members: tuple[str, ...]) -> str:
    if failed[0].passed is None:
        return "there is no sealed test to confirm it"
    facts = "; ".join(
        f"{c.name} is {c.value:+.4f}, not {c.relation} {c.threshold:g}" for c in failed
    )
    return f"test disagrees: {facts}"


# Wishes people bring along, held against the facts: met or not, and how plausible at all.


PCT_MAE, R2, PVALUE, GAP = 0.5, 0.3, 0.05, 0.05


def targets_of(question: Question, verdict: Verdict) -> tuple[Target, ...]:
    """pct_mae, R2, naive, significance and the gap between val and test, for a run."""
    return (
        _pct_mae(question),
        _r2(question),
        _naive(question),
        _significance(question),
        _gap(question, verdict),
    )


def _score(question: Question, name: str) -> float | None:
    return question.candidate.score(f"val_{name}")


def _pct_mae(question: Question) -> Target:
    value, naive = _score(question, "pct_mae"), _score(question, "naive_pct_mae")
    comment = "depends on items and horizon more than on any model"
    if naive:
        needed = 1 - PCT_MAE / naive
        comment = f"last-value itself has {naive:.3g} %"
        if needed > PLAUSIBLE_SKILL:
            comment += f"; {PCT_MAE} % would take a skill of {100 * needed:.0f} %: implausible"
        elif needed <= 0:
            comment += ": to stay below it proves nothing"
    return _target(
        "val_pct_mae", value, f"< {PCT_MAE} %", value is not None and value < PCT_MAE, comment
    )


def _r2(question: Question) -> Target:
    value = _score(question, "r2")
    comment = (
        f"implausible for returns up to {question.sweep.horizon} ahead: honest values lie near 0, "
        f"and {R2} would speak of a leak"
    )
    return _target("val_r2", value, f"> {R2}", value is not None and value > R2, comment)


def _naive(question: Question) -> Target:
    value = _score(question, "skill")
    comment = "against last-value on the same windows, in pct_mae; luck not counted"
    return _target("val_skill", value, "> 0", value is not None and value > 0, comment)


def _significance(question: Question) -> Target:
    value = _score(question, "dm_pvalue_vs_naive")
    comment = "as if this were the only trial: the best of many passes it by luck; gate 1 counts"
    met = value is not None and value < PVALUE
    return _target("val_dm_pvalue_vs_naive", value, f"< {PVALUE}", met, comment)


def _gap(question: Question, verdict: Verdict) -> Target:
    """Change of the loss from val to test over what the benchmark's own loss did."""
    found = verdict.against[0]
    comment = f"loss against {found.opponent}'s, test over val; markets calm down and wake up alike"
    if found.test_raw_skill is None or found.raw_skill >= 1:
        return Target(
            name="test_gap", value=None, target=f"< {100 * GAP:.0f} %", met=None,
            comment="not looked",
        )  # fmt: skip
    value = (1 - found.test_raw_skill) / (1 - found.raw_skill) - 1
    return _target("test_gap", value, f"< {100 * GAP:.0f} %", value < GAP, comment)


def _target(name: str, value: float | None, target: str, met: bool, comment: str) -> Target:
    return Target(
        name=name,
        value=value,
        target=target,
        met=None if value is None else met,
        comment=comment if value is not None else f"not on record; {comment}",
    )
