"""Which of the trials to take when several are as good, and what tuning itself has cost."""

from __future__ import annotations

import numpy as np

from foresweep.selection.losstable import LossTable, PartLosses
from foresweep.stats.overfitting import overtuning
from foresweep.stats.significance import overlap_lags, standard_errors


def one_se_choice(table: LossTable, val: PartLosses, best: str) -> str:
    """The cheapest trial whose raw loss on val is within one standard error of the best's.

    The error is that of the difference of the two, origin by origin (with the horizon's overlap):
    what both suffer alike does not count. Trials of unknown cost are passed over; ties and no
    known cost: the best.
    """
    ours = val.raw_by_origin(best)
    lags = overlap_lags(table.horizon, table.stride)
    near = {best}
    for name in table.trials:
        gap = val.raw_by_origin(name) - ours
        gap = gap[~np.isnan(gap)]
        error = standard_errors(gap[:, None], lags=lags)[0]
        if np.isfinite(error) and gap.mean() <= error:
            near.add(name)
    priced = {n: table.cost[n] for n in near if np.isfinite(table.cost.get(n, np.nan))}
    return min(priced, key=lambda n: (priced[n], n != best)) if best in priced else best


def overtuned(table: LossTable, val: PartLosses) -> float | None:
    """Loss on val of the trial that tune would pick, over that of the best pick on the way there;
    0: tuning lost nothing. None without losses on tune."""
    known = [name for name in table.trials if np.isfinite(table.tune.get(name, np.nan))]
    found = overtuning([table.tune[n] for n in known], [val.raw_mean(n) for n in known])
    return None if found is None else found.absolute
