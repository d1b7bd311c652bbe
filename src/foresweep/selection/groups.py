"""A run of record, asked again: where it wins and loses, and what it would have earned.

Tune and val only: what is sealed is read by a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foresweep.data.splits import PartName
from foresweep.data.windows import Windows
from foresweep.errors import CheckpointError, UnknownName, UsageError
from foresweep.evaluation.backtest import FORECASTS, naive_part
from foresweep.evaluation.breakdown import (
    BREAKDOWNS,
    REGIMES,
    Group,
    breakdown,
    origin_names,
    score_groups,
    score_leads,
)
from foresweep.evaluation.losses import load_forecast
from foresweep.evaluation.trading import COST_BPS, Trading, trade
from foresweep.evaluation.yardstick import LAST_VALUE, last_value
from foresweep.metrics import METRICS, PANEL_LOSSES, Outcome, split_score
from foresweep.records import Run
from foresweep.search.stage import reopen
from foresweep.selection.sealed import has_losses, open_losses
from foresweep.tracker.tracker import Tracker

LOOKED_AT: Mapping[str, PartName] = {"tune": "tune", "val": "val"}


def run_groups(
    tracker: Tracker, run: Run, name: str, by: str, *, runs_dir: Path
) -> tuple[Group, ...]:
    """A run's score, by its full name, in groups of windows.

    Metrics whose losses are kept are read from them, with intervals and the skill against
    last-value; others are computed again from the stored forecasts and the sweep's data in
    `runs_dir`, without. Raises UnknownName, UsageError for test and for metrics that have no value
    on a group, CheckpointError and PanelChanged where files are gone.
    """
    part, metric = _asked(name)
    if by not in BREAKDOWNS:
        raise UnknownName("breakdown", by, BREAKDOWNS)
    if metric in PANEL_LOSSES:
        panel = open_losses(run, part)
        naive = _last_value(tracker, run, part)
        beside = None if naive is None else open_losses(naive, part)
        return breakdown(panel, metric, by, benchmark=beside)
    if METRICS[metric].compute is None:
        known = [m for m, row in METRICS.items() if row.compute]
        raise UsageError(
            f"--by {by}: {metric} is of all windows together and has no value on some of them; "
            f"ask for one of {', '.join(known)}"
        )
    return _scored_again(run, *reopened(tracker, run, part, runs_dir), metric, by)


def run_trading(
    tracker: Tracker, run: Run, part: str, *, runs_dir: Path, cost_bps: float = COST_BPS
) -> Trading:
    """The trading rule on a run's stored forecasts, at a cost of your own. Raises as `run_groups`,
    and ConfigError for a cost that is none."""
    windows, outcome = reopened(tracker, run, _looked_at(part), runs_dir)
    return trade(outcome, naive_part(windows).market, cost_bps=cost_bps)


def reopened(tracker: Tracker, run: Run, part: PartName, runs_dir: Path) -> tuple[Windows, Outcome]:
    """A run's windows of a part and what it forecast of them, from disk."""
    if run.sweep_id is None or run.forecasts_path is None:
        raise CheckpointError(f"run {run.run_id} was logged by hand: it has no forecasts on record")
    path = Path(run.forecasts_path) / part / FORECASTS
    if not path.is_file():
        raise CheckpointError(
            f"the forecasts of run {run.run_id} are gone ({path}); mount the folder of its runs "
            f"again or train it anew with --again"
        )
    panel, split = reopen(tracker.get_sweep(run.sweep_id), runs_dir)
    windows = Windows(panel, split, split.part(part))
    forecast = load_forecast(path, windows)
    setting = naive_part(windows).setting
    outcome = Outcome(windows.labels, forecast.values, forecast.levels, windows.last_close, setting)
    return windows, outcome


def _scored_again(
    run: Run, windows: Windows, outcome: Outcome, metric: str, by: str
) -> tuple[Group, ...]:
    naive = naive_part(windows).outcome
    if by == "lead":
        origins = len(np.unique(windows.origin))
        found = score_leads(outcome, naive)
        return tuple(Group(k, len(windows), origins, v[metric]) for k, v in found.items())
    names = _names(windows, outcome, by)
    found = score_groups(outcome, naive, names)
    order = {"regime": REGIMES, "item": windows.panel.items}.get(by, tuple(found))
    return tuple(
        Group(
            key,
            int((names == key).sum()),
            len(np.unique(windows.origin[names == key])),
            found[key][metric],
        )
        for key in order
        if key in found
    )


def _names(windows: Windows, outcome: Outcome, by: str) -> NDArray[np.str_]:
    """[N] the group of each window, as `breakdown` names them."""
    if by == "item":
        return np.array([windows.panel.items[i] for i in windows.item])
    times = windows.panel.timeline[windows.part.origins]
    return origin_names(times, windows.as_panel(outcome.known.scale), by)[windows.origin]


def _asked(name: str) -> tuple[PartName, str]:
    part, metric = split_score(name)
    return _looked_at(part), metric


def _looked_at(part: str) -> PartName:
    if part not in LOOKED_AT:
        raise UsageError(
            f"{part} is not looked at here: a run is broken down on val or tune; what it is worth "
            f"on test is told once, by: foresweep verdict RUN"
        )
    return LOOKED_AT[part]


def _last_value(tracker: Tracker, run: Run, part: str) -> Run | None:
    """A run of last-value on the same windows, whose losses are at hand."""
    mine = run.fingerprints.get(part)
    found = tracker.get_runs(LAST_VALUE, fingerprint=run.fingerprint)
    return last_value(r for r in found if r.fingerprints.get(part) == mine and has_losses(r, part))
