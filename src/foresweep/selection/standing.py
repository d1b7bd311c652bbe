"""What losses say of a leaderboard: who is superior, who is as good as the best, who is apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from foresweep.evaluation.yardstick import baselines
from foresweep.metrics import PANEL_LOSSES, split_score
from foresweep.records import Sweep
from foresweep.selection.leaderboard import Leaderboard
from foresweep.selection.sealed import has_losses, open_losses
from foresweep.selection.verdict.case import one_se_choice, part_losses
from foresweep.stats.significance import block_length
from foresweep.stats.stepm import mcs, stepm


def with_standing(board: Leaderboard, *, seed: int = 0) -> Leaderboard:
    """The board with StepM and MCS members marked and the one-standard-error choice named.

    Over the trained runs that are ranked, on the losses of the ranking metric; the board as it is
    where that metric has no losses per window, the benchmark is not known or files are gone. It is
    a reading of the part ranked on, never of test, and no verdict: earlier judgings do not count.
    """
    part, metric = split_score(board.metric)
    ranked = [
        r.run for r in board.rows if r.place and not r.run.is_baseline and has_losses(r.run, part)
    ]
    benchmark = baselines(r.run for r in board.rows).get(board.benchmark or "")
    if metric not in PANEL_LOSSES or not ranked or not benchmark or not has_losses(benchmark, part):
        return board
    panels = {run.run_id: open_losses(run, part) for run in (*ranked, benchmark)}
    panel, names = panels[benchmark.run_id], tuple(run.run_id for run in ranked)
    losses = part_losses(panels, metric)
    step = stepm(
        losses.differences(benchmark.run_id, names),
        block=block_length(panel.horizon, panel.stride),
        seed=seed,
    )
    every = np.column_stack([losses.scaled(name) for name in panels])
    members = mcs(every, block=step.block, seed=seed)[0]
    superior = dict(zip(names, map(bool, step.superior), strict=True))
    in_mcs = dict(zip(panels, map(bool, members), strict=True))
    rows = tuple(
        replace(r, superior=superior.get(r.run.run_id), in_mcs=in_mcs.get(r.run.run_id))
        for r in board.rows
    )
    cost = {r.run_id: r.training_time_seconds for r in ranked}
    cheapest = one_se_choice(losses, names, cost, block=step.block)
    return replace(board, rows=rows, one_se_choice=cheapest)


def elsewhere(sweeps: Sequence[Sweep], shown: Sweep | None, num_by_hand: int) -> tuple[str, ...]:
    """Which runs are not in this table, and why: one line a reason, newest sweeps first."""
    reasons: dict[str, list[str]] = {}
    for sweep in sweeps:
        if shown is not None and sweep.fingerprints.get("val") != shown.fingerprints.get("val"):
            reasons.setdefault(_why(sweep, shown), []).append(sweep.sweep_id)
    lines = [
        f"{', '.join(ids[:3])}{f' and {len(ids) - 3} more' if len(ids) > 3 else ''}: {why}"
        for why, ids in reasons.items()
    ]
    if shown is not None and num_by_hand:
        lines.append(f"{num_by_hand} run(s) logged by hand: on which windows is not known")
    return tuple(lines)


def _why(sweep: Sweep, shown: Sweep) -> str:
    if sweep.horizon != shown.horizon:
        return f"horizon {sweep.horizon}, not {shown.horizon}"
    if sweep.panel_hash != shown.panel_hash:
        return "other data, or cut on other dates"
    return "other windows of the same data (stride, context or the metrics' version)"
