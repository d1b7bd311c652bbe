"""From checks to an outcome and the reason for it, in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from foresweep.records import Against, Check, Outcome

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
