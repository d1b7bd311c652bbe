"""A verdict on record, told in a report. What it saw of test is not on record, so not here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from foresweep.records import TEST_GATE
from foresweep.reporting.markdown import md_table, num, pct


def latest_verdict(
    verdicts: Iterable[Mapping[str, Any]], fingerprint: str
) -> Mapping[str, Any] | None:
    """The last verdict that was reached on runs of a val fingerprint, of rows oldest first."""
    reached = [v for v in verdicts if v["outcome"] and v["fingerprint"] == fingerprint]
    return reached[-1] if reached and fingerprint else None


def verdict_section(row: Mapping[str, Any] | None) -> list[str]:
    """What it said, against whom, and the gates."""
    if row is None:
        return ["No verdict is on record: ask for one with `foresweep verdict`.", ""]
    said: Mapping[str, Any] = row["content"]
    lines = [
        "## The verdict",
        "",
        f"**{str(said['outcome']).upper()}**: {said['reason']}. On {said['label']} (run "
        f"`{said['candidate']}`), {row['judged_at']:%Y-%m-%d}: judging {said['judged_number']} of "
        f"these items and days, {said['num_trials']} trials counted.",
        "",
    ]
    opponents = [
        (a["opponent"], pct(a["raw_skill"]), pct(a["scaled_skill"]), num(a["pvalue"]))
        for a in said["against"]
    ]
    lines += md_table(("against", ">raw skill on val", ">scaled skill", ">p (StepM)"), opponents)
    return lines + md_table(("gate", "asks", ">is", ">needed", ""), _gates(said["checks"]))


def _gates(checks: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            str(c["gate"]),
            str(c["name"]),
            "sealed" if c["gate"] == TEST_GATE else _value(c["value"]),
            "-" if c["threshold"] is None else f"{c['relation']} {_value(c['threshold'])}",
            {None: "not looked", True: "passed", False: "not passed"}[c["passed"]],
        )
        for c in checks
    ]


def _value(value: float | str | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:.4g}"
