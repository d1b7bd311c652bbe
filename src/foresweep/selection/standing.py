"""What losses say of a leaderboard: who is superior, who is as good as the best, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from foresweep.errors import UnknownName
from foresweep.evaluation.losses import LossPanel
from foresweep.metrics import PANEL_LOSSES, split_name
from foresweep.records import Run, Sweep
from foresweep.selection.leaderboard import (
    LAST_VALUE,
    Leaderboard,
    Row,
    baseline_name,
)
from foresweep.selection.losstable import Array, LossTable, PartLosses
from foresweep.selection.sealed import has_losses, open_losses
from foresweep.selection.winners import one_se_choice
from foresweep.stats.bootstrap import block_length
from foresweep.stats.stepm import mcs, stepm

By = Literal["item", "origin", "lead"]
BREAKDOWNS: tuple[By, ...] = ("item", "origin", "lead")


@dataclass(frozen=True, slots=True)
class Slice:
    """A run's loss on one item, origin or lead, beside the benchmark's and last-value's."""

    key: str
    loss: float
    benchmark_skill: float | None  # 1 - loss / the benchmark's
    skill: float | None  # the same against last-value
    num_windows: int


def with_standing(board: Leaderboard, *, seed: int = 0) -> Leaderboard:
    """The board with StepM and MCS members marked and the one-standard-error choice named.

    Over the trained runs that are ranked, on the losses of the ranking metric; the board as it is
    where that metric has no losses per window, the benchmark is not known or files are gone. It is
    a reading of the part ranked on, never of test, and no verdict: earlier judgings do not count.
    """
    part, metric = split_name(board.metric)
    ranked = [
        r for r in board.rows if r.place and not r.run.is_baseline and has_losses(r.run, part)
    ]
    benchmark = _benchmark(board, part)
    if metric not in PANEL_LOSSES or not ranked or benchmark is None:
        return board
    panels = {r.run.run_id: open_losses(r.run, part) for r in (*ranked, benchmark)}
    losses = PartLosses(
        tuple(panels),
        np.stack([p.losses[metric] for p in panels.values()]),
        panels[benchmark.run.run_id].scale,
    )
    superior, members = _marks(ranked, benchmark, losses, panels, seed)
    rows = tuple(
        replace(
            row,
            superior=superior.get(row.run.run_id),
            in_mcs=members.get(row.run.run_id),
        )
        for row in board.rows
    )
    return replace(board, rows=rows, one_se_choice=_cheapest(ranked, losses, panels, metric))


def _marks(
    ranked: Sequence[Row],
    benchmark: Row,
    losses: PartLosses,
    panels: Mapping[str, LossPanel],
    seed: int,
) -> tuple[dict[str, bool], dict[str, bool]]:
    """Run id -> superior to the benchmark; run id -> in the model confidence set."""
    names = [row.run.run_id for row in ranked]
    panel = panels[benchmark.run.run_id]
    block = block_length(panel.horizon, panel.stride)
    d = losses.differences(benchmark.run.run_id, names)
    step = stepm(d, block=block, effective_origins=_effective(panel), seed=seed)
    every = [*names, benchmark.run.run_id]
    table = np.column_stack([losses.scaled(name) for name in every])
    inside = mcs(table, block=block, seed=seed)[0]
    return (
        dict(zip(names, (bool(x) for x in step.superior), strict=True)),
        dict(zip(every, (bool(x) for x in inside), strict=True)),
    )


def _effective(panel: LossPanel) -> float:
    num = len(panel.origins)
    return min(float(num), (num - 1) * panel.stride / panel.horizon + 1)


def _cheapest(
    ranked: Sequence[Row], losses: PartLosses, panels: Mapping[str, LossPanel], metric: str
) -> str:
    panel = next(iter(panels.values()))
    names = tuple(row.run.run_id for row in ranked)
    seconds = {r.run.run_id: r.run.training_time_seconds for r in ranked}
    table = LossTable(
        metric=metric,
        unit="",
        horizon=panel.horizon,
        stride=panel.stride,
        trials=names,
        baselines=(),
        val=lambda: losses,
        cost={n: s for n, s in seconds.items() if s is not None},
    )
    return one_se_choice(table, losses, min(names, key=losses.raw_mean))


def _benchmark(board: Leaderboard, part: str) -> Row | None:
    rows = (r for r in board.rows if r.run.is_baseline and has_losses(r.run, part))
    return next((r for r in rows if baseline_name(r.run) == board.benchmark), None)


def breakdown(board: Leaderboard, run: Run, by: str) -> tuple[Slice, ...]:
    """A run's losses by item, origin or lead on the part ranked on, in natural order.

    Raises UnknownName for another breakdown or a metric without losses per window, CheckpointError
    where the run's losses are gone.
    """
    if by not in BREAKDOWNS:
        raise UnknownName("breakdown", by, BREAKDOWNS)
    part, metric = split_name(board.metric)
    if metric not in PANEL_LOSSES:
        raise UnknownName("loss", metric, PANEL_LOSSES, where="with losses per window")
    ours = open_losses(run, part)
    benchmark = _benchmark(board, part)
    last = next((r for r in board.rows if r.run.model_name == LAST_VALUE), None)
    others = [
        None if row is None or not has_losses(row.run, part) else open_losses(row.run, part)
        for row in (benchmark, last)
    ]
    loss, count = _along(ours, metric, by)
    skills = [
        np.full(len(loss), np.nan) if o is None else 1 - loss / _along(o, metric, by)[0]
        for o in others
    ]
    return tuple(
        Slice(key, float(loss[n]), _known(skills[0][n]), _known(skills[1][n]), int(count[n]))
        for n, key in enumerate(_keys(ours, by))
        if count[n]
    )


def _along(panel: LossPanel, metric: str, by: str) -> tuple[Array, Array]:
    """Mean loss and number of windows along one axis of [origins, items, leads]."""
    if by == "lead":
        cells = panel.by_lead[metric].reshape(-1, panel.horizon)
    else:
        cells = panel.losses[metric] if by == "item" else panel.losses[metric].T
    count = (~np.isnan(cells)).sum(axis=0).astype(np.float64)
    total = np.where(np.isnan(cells), 0.0, cells).sum(axis=0)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0), count


def _keys(panel: LossPanel, by: str) -> list[str]:
    if by == "item":
        return list(panel.items)
    if by == "lead":
        return [str(lead) for lead in range(1, panel.horizon + 1)]
    return [str(day.astype("datetime64[m]")).removesuffix("T00:00") for day in panel.origins]


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


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
