"""What losses say of a leaderboard: who is superior, who is as good as the best, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from foresweep.errors import UnknownName
from foresweep.evaluation.breakdown import Group
from foresweep.evaluation.breakdown import breakdown as groups_of
from foresweep.evaluation.losses import LossPanel
from foresweep.metrics import PANEL_LOSSES, split_name
from foresweep.records import Run, Sweep
from foresweep.selection.leaderboard import LAST_VALUE, Leaderboard, Row, baseline_name
from foresweep.selection.sealed import has_losses, open_losses
from foresweep.selection.verdict.losses import LossTable, PartLosses, one_se_choice
from foresweep.stats.significance import block_length
from foresweep.stats.stepm import mcs, stepm


@dataclass(frozen=True, slots=True)
class Slice:
    """A run's loss in one group of windows, beside the benchmark's and last-value's."""

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
    """A run's losses by item, origin, lead, year or regime on the part ranked on, in natural
    order: `evaluation.breakdown` beside two baselines.

    Raises UnknownName for another breakdown or a metric without losses per window, CheckpointError
    where the run's losses are gone.
    """
    part, metric = split_name(board.metric)
    if metric not in PANEL_LOSSES:
        raise UnknownName("loss", metric, PANEL_LOSSES, where="with losses per window")
    ours = open_losses(run, part)
    last = next((r for r in board.rows if r.run.model_name == LAST_VALUE), None)
    benchmark, naive = (
        _beside(ours, metric, by, row, part) for row in (_benchmark(board, part), last)
    )
    return tuple(
        Slice(g.key, g.score, _skill(benchmark, g.key), _skill(naive, g.key), g.num_windows)
        for g in groups_of(ours, metric, by)
    )


def _beside(
    ours: LossPanel, metric: str, by: str, row: Row | None, part: str
) -> Mapping[str, Group]:
    """The groups by name, with skill over a baseline; none where it has no losses at hand on the
    same windows."""
    if row is None or not has_losses(row.run, part):
        return {}
    theirs = open_losses(row.run, part)
    if theirs.fingerprint != ours.fingerprint:
        return {}
    return {g.key: g for g in groups_of(ours, metric, by, benchmark=theirs)}


def _skill(groups: Mapping[str, Group], key: str) -> float | None:
    return groups[key].skill if key in groups else None


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
