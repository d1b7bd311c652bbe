"""What all trials of a sweep stand on: the panel, its cut, its hashes and where results go."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foresweep.data.panel import Panel
from foresweep.data.splits import PARTS, Split
from foresweep.data.tables import read_panel, write_panel
from foresweep.data.windows import Windows
from foresweep.errors import DataError, SearchError
from foresweep.search.engine import Engine
from foresweep.search.events import Listener
from foresweep.search.judge import Judge, judge_of
from foresweep.search.plan import SweepPlan
from foresweep.search.planrecord import ASKED, as_record
from foresweep.search.trial import Ground
from foresweep.tracker.tracker import Tracker


@dataclass(frozen=True, slots=True)
class Stage:
    """What every trial of the sweep needs."""

    plan: SweepPlan
    tracker: Tracker
    engine: Engine
    runs_dir: Path
    ground: Ground
    panel: Panel
    split: Split
    task_hash: str
    panel_hash: str
    fingerprints: Mapping[str, str]
    listen: Listener
    judge: Judge | None = None  # None: every trial runs to its end


def require_writable(runs_dir: Path) -> None:
    """Find out now, not after the first training, that results cannot be written."""
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        probe = runs_dir / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SearchError(
            f"cannot write to the runs folder {runs_dir}: {error.strerror}; "
            f"give another with --runs FOLDER or FORESWEEP_RUNS"
        ) from error


def set_stage(
    plan: SweepPlan,
    tracker: Tracker,
    engine: Engine,
    runs_dir: Path,
    panel: Panel,
    listen: Listener,
) -> Stage:
    path = panel_file(runs_dir, panel)
    ground = Ground(
        panel_path=path,
        horizon=plan.horizon,
        stride=plan.stride,
        max_context=plan.max_context,
        max_windows=plan.max_windows,
        seed=plan.seed,
    )
    split = ground.cut(panel)
    keep_panel(path, panel)
    windows = {n: Windows(panel, split, split.part(n)) for n in PARTS if n != "train"}
    fingerprints: dict[str, str] = {name: w.fingerprint for name, w in windows.items()}
    return Stage(
        plan=plan,
        tracker=tracker,
        engine=engine,
        runs_dir=runs_dir,
        ground=ground,
        panel=panel,
        split=split,
        task_hash=task_hash(split, fingerprints),
        panel_hash=split.cut_hash(panel),
        fingerprints=fingerprints,
        listen=listen,
        judge=judge_of(plan, tracker, fingerprints),
    )


def panel_file(runs_dir: Path, panel: Panel) -> Path:
    """Where workers read a panel."""
    return runs_dir / "panels" / f"{panel.hash[:16]}.npz"


def keep_panel(path: Path, panel: Panel) -> None:
    """Write the panel where workers read it, unless a sound copy is there."""
    try:
        if path.exists() and read_panel(path).hash == panel.hash:
            return
    except DataError:
        path.unlink()  # damaged: written anew below
    write_panel(path, panel)


def task_hash(split: Split, fingerprints: Mapping[str, str]) -> str:
    """sha256 of what decides a score beside config, panel and seed: horizon, strides, longest
    context and the scored windows. The objective is no part of it: it ranks and trains nothing."""
    strides = [p.stride for p in split.parts]
    asked = [split.horizon, strides, split.max_context, sorted(fingerprints.items())]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def plan_record(stage: Stage) -> dict[str, Any]:
    """What was asked and how the parts were cut, for the sweep's record."""
    split, panel = stage.split, stage.panel
    return {
        "max_runs": stage.plan.max_runs,
        "seeds": stage.plan.seeds,
        "finalists": stage.plan.num_finalists,
        "size": stage.plan.base["size"],
        "pretrained": stage.plan.pretrained,
        "pretrain_cutoff": stage.plan.pretrain_cutoff,
        "max_steps": stage.plan.step_cap,
        "max_context": split.max_context,
        "data": stage.plan.data,
        "actions": stage.plan.actions,
        "pruning": list(stage.plan.pruners),
        "transfer_from": stage.plan.transfer_from,
        "spaces": dict(stage.plan.spaces.texts),
        "set": {name: str(d) for name, d in stage.plan.spaces.changes.items()},
        "stride": stage.plan.stride,
        "max_windows": stage.plan.max_windows,
        ASKED: as_record(stage.plan),
        "items": [panel.items[i] for i in split.items],  # which lineage it belongs to
        "parts": {
            part.name: {
                "from": str(panel.timeline[part.start].astype("datetime64[s]")),
                "to": str(panel.timeline[part.stop - 1].astype("datetime64[s]")),
                "bars": part.num_bars,
                "stride": part.stride,
                "origins": len(part.origins),
                "effective_origins": round(part.effective_origins(split.horizon), 1),
            }
            for part in split.parts
        },
    }
