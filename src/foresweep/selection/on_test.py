"""Gate 4: does the sealed test agree? Reached only by what has passed every other gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from foresweep.records import Against, Check
from foresweep.selection.cases import LEVEL, Opened, check, scaled_skill
from foresweep.selection.losstable import PartLosses
from foresweep.selection.on_val import Seen
from foresweep.stats.significance import DieboldMariano, diebold_mariano, holm, overlap_lags


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
