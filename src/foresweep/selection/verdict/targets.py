"""Wishes people bring along, held against the facts: met or not, and how plausible at all."""

from __future__ import annotations

from foresweep.evaluation.yardstick import implausible
from foresweep.records import Target, Verdict
from foresweep.selection.verdict.question import Question

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
        if implausible(needed):
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
