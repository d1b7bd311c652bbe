"""The plausibility alarm: scores too good to be honest are flagged, not celebrated."""

from __future__ import annotations

from foresweep.selection.leaderboard import PLAUSIBLE_SKILL


def implausible(skill: float | None) -> bool:
    """Is a pct_mae skill against last-value, on the same windows, beyond what anything honest
    shows on daily prices? None and NaN are not."""
    return skill is not None and skill > PLAUSIBLE_SKILL


def alarm(run_id: str, skill: float | None) -> str | None:
    """What to say of such a skill; None where it is plausible."""
    if not implausible(skill):
        return None
    return (
        f"Too good to be true: a skill above {PLAUSIBLE_SKILL} against last-value is not seen on "
        f"daily prices. Look for a leak before anything else: foresweep doctor --leaks {run_id}"
    )
