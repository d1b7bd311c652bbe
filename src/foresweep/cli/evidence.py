"""What a sweep's data can prove, said before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foresweep.data.splits import ENOUGH_ORIGINS, PartName

if TYPE_CHECKING:
    from foresweep.data.quality import QualityReport
    from foresweep.data.splits import Split

VERDICT_PARTS: tuple[PartName, ...] = ("val", "test")


def origins_line(split: Split) -> str:
    """Origins of the scored parts, and how many of them share no labels."""
    scored = ", ".join(
        f"{p.name} {len(p.origins)} origins ({p.effective_origins(split.horizon):.0f} effective)"
        for p in split.parts
        if p.name != "train"
    )
    return f"{scored}; test is sealed"


def evidence_lines(split: Split) -> list[str]:
    """A warning where val or test cannot carry a verdict; nothing where both can."""
    effective = {name: split.part(name).effective_origins(split.horizon) for name in VERDICT_PARTS}
    short = {name: n for name, n in effective.items() if n < ENOUGH_ORIGINS}
    if not short:
        return []
    counted = " and ".join(f"{name} {n:.1f}" for name, n in short.items())
    return [
        f"Too little evidence: {counted} effective origins of at least {ENOUGH_ORIGINS}. "
        f"A verdict on this sweep is at most `hold`; more history or a shorter horizon gives more."
    ]


def survivorship_lines(report: QualityReport) -> list[str]:
    """What the gate says of a panel that holds only survivors; nothing of another."""
    told = (f.message for f in report.findings if f.rule == "survivorship")
    return [f"Survivorship: {message}, so results are too good." for message in told]
