"""What all trials of a sweep stand on, what can be tried there, and a stage opened again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from foresweep.data.files import name_as_text
from foresweep.data.footprint import footprint_of, written
from foresweep.data.panel import Panel, changed_bars
from foresweep.data.reading.sources import load_panel
from foresweep.data.splits import MIN_CONTEXT, PARTS, SHARES, Cut, Split, make_split
from foresweep.data.tables import read_panel, write_panel
from foresweep.data.windows import Windows
from foresweep.errors import ConfigError, DataError, PanelChanged, SearchError, UsageError
from foresweep.evaluation.steering import (
    ALL,
    steering_print,
    steering_windows,
    windows_wanted,
)
from foresweep.models.training.config import DEFAULT_STEPS
from foresweep.records import MOVES, STEERING, Sweep, Trial
from foresweep.search.engines.base import Engine, run_task
from foresweep.search.events import Listener
from foresweep.search.plan import ASKED, STEERED, SweepPlan, as_record
from foresweep.search.propose.modes import ADAPTIVE, Proposal, baseline_proposals
from foresweep.search.running.pruning import Judge, judge_of
from foresweep.search.trial import Ground, Prepare, Prepared, Settle
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
    listen: Listener
    judge: Judge | None = None  # None: every trial runs to its end

    def folder_of(self, run_id: str) -> Path:
        """Where a run's files stand: absolute, so that the record holds from any folder."""
        return (self.runs_dir / run_id).resolve()


def fitting(stage: Stage) -> SweepPlan:
    """The plan with contexts no longer than this panel allows: what is drawn must fit."""
    cut = replace(stage.plan.cut, max_context=stage.split.max_context)
    return replace(stage.plan, cut=cut)


def require_writable(runs_dir: Path) -> None:
    """Find out now, not after the first training, that results cannot be written."""
    whole = str(runs_dir.absolute())
    if name_as_text(whole) != whole:
        raise SearchError(
            f"the runs folder {name_as_text(whole)} has a name that is no UTF-8: no database keeps "
            f"it; give another with --runs FOLDER or FORESWEEP_RUNS"
        )
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
    split = make_split(panel, plan.cut)
    path = keep_panel(runs_dir, panel)
    windows = {n: Windows(panel, split, split.part(n)) for n in PARTS if n != "train"}
    fingerprints: dict[str, str] = {name: w.fingerprint for name, w in windows.items()}
    asked = plan.steer_windows if plan.trained else ALL
    steer = windows_wanted(asked, plan.step_cap or DEFAULT_STEPS)
    chosen = steering_windows(windows["tune"], steer, plan.cut.seed)
    if len(chosen) < len(windows["tune"]):
        fingerprints[STEERING] = steering_print(chosen, windows["tune"], plan.cut.seed)
    else:
        steer = None
    return Stage(
        plan=plan,
        tracker=tracker,
        engine=engine,
        runs_dir=runs_dir,
        ground=Ground(
            panel_path=path,
            cut=plan.cut,
            panel_hash=split.cut_hash(panel),
            task_hash=task_hash(split, fingerprints),
            fingerprints=fingerprints,
            steer=steer,
        ),
        panel=panel,
        split=split,
        listen=listen,
        judge=judge_of(plan, tracker, fingerprints),
    )


def keep_panel(runs_dir: Path, panel: Panel) -> Path:
    """The file where workers read a panel, written unless a sound copy is there."""
    path = runs_dir / "panels" / f"{panel.hash[:16]}.npz"
    try:
        if path.exists() and read_panel(path).hash == panel.hash:
            return path
    except DataError:
        path.unlink()  # damaged: written anew below
    write_panel(path, panel)
    return path


def task_hash(split: Split, fingerprints: Mapping[str, str]) -> str:
    """sha256 of what decides a score beside config, panel and seed: horizon, strides, longest
    context, the scored windows and, where they are not all of tune, those that steer. The objective
    is no part of it: it ranks and trains nothing."""
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
        "max_context": split.max_context,  # what came of the cut that was asked for
        "data": stage.plan.data,
        "actions": stage.plan.actions,
        "pruning": list(stage.plan.pruners),
        "transfer_from": stage.plan.transfer_from,
        "spaces": dict(stage.plan.spaces.texts),
        "set": {name: str(d) for name, d in stage.plan.spaces.changes.items()},
        ASKED: as_record(stage.plan),
        STEERED: stage.ground.steer or ALL,
        "items": [panel.items[i] for i in split.items],  # which lineage it belongs to
        MOVES: written(footprint_of(panel, split)),  # the same without names and dates
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


# Which of a sweep's proposals can be tried, and which of them its budget pays for.


SPARE = 4
"""Proposals drawn for each trial wanted: those that cannot be tried must not eat the budget."""


def prepare_all(stage: Stage, proposals: tuple[Proposal, ...]) -> tuple[Prepared, ...]:
    """The baselines and the first distinct configs that can be tried, up to the budget, with
    whatever was refused on the way. Raises ConfigError where nothing can be tried: a mode that goes
    on to propose from the space needs nothing to begin with."""
    every = (*baseline_proposals(stage.plan.objective), *proposals)
    chosen = choose(prepare_some(stage, every), stage.plan.budget)
    asked = [p for p in chosen if not p.proposal.is_free]
    proposes = stage.plan.mode in ADAPTIVE and not stage.plan.proposals
    if asked and all(p.refused for p in asked) and not proposes:
        reasons = dict.fromkeys(str(p.refused) for p in asked)
        raise ConfigError(
            f"no config of this sweep can be tried: {'; '.join(reasons)}{_what_fits(stage, asked)}"
        )
    return tuple(sorted(chosen, key=lambda p: not p.proposal.is_free))


def _what_fits(stage: Stage, asked: Sequence[Prepared]) -> str:
    """What to do where the history is too short for every context asked for, else nothing."""
    most = stage.split.max_context
    contexts = [p.proposal.config.get("context_length") for p in asked]
    wanted = [c for c in contexts if isinstance(c, int) and c > most]
    if not wanted or len(wanted) < len(asked) or stage.plan.cut.max_context is not None:
        return ""
    bars = stage.split.part("train").num_bars
    return (
        f". The part train has {bars} bars: --set context_length={most} or --mode random fits; a "
        f"context of {min(wanted)} needs about {min(wanted) - most + bars} bars of train"
    )


def prepare_some(stage: Stage, proposals: tuple[Proposal, ...]) -> tuple[Prepared, ...]:
    """Proposals made ready, in a worker: the head imports no torch."""
    found: tuple[Prepared, ...] = run_task(
        stage.engine,
        Prepare(stage.ground, proposals, stage.plan),
        log=stage.runs_dir / "prepare.log",
    )
    return found


def settle(stage: Stage, trials: Sequence[Trial]) -> tuple[Prepared, ...]:
    """Trials on record made ready once more, with the configs they have."""
    known = tuple(
        Prepared(Proposal(t.model_name, t.config, t.source), t.config, t.config_hash, t.train_hash)
        for t in trials
    )
    if not known:
        return ()
    task = Settle(known, stage.plan.pretrain_cutoff)
    settled: tuple[Prepared, ...] = run_task(stage.engine, task, log=stage.runs_dir / "prepare.log")
    return settled


def choose(found: Sequence[Prepared], budget: int) -> list[Prepared]:
    """The distinct ones in order, the budget spent on those that cost; one companion a model."""
    seen: set[str] = set()
    accompanied: set[str] = set()
    chosen: list[Prepared] = []
    for p in found:
        proposal = p.proposal
        spare = proposal.is_companion and proposal.model in accompanied
        if p.config_hash in seen or spare or (budget == 0 and not proposal.is_free):
            continue
        chosen.append(p)
        if p.refused:
            continue
        seen.add(p.config_hash)
        budget -= not proposal.is_free
        if proposal.is_companion:
            accompanied.add(proposal.model)
    return [
        p
        for p in chosen
        if not (p.refused and p.proposal.is_companion and p.proposal.model in accompanied)
    ]


# The panel and the cut of a sweep on record, opened again: for what is made of its runs later.


def reopen(sweep: Sweep, runs_dir: Path) -> tuple[Panel, Split]:
    """The very panel and cut that a sweep's runs were scored on: its copy in the runs folder, else
    the data it was read from.

    Raises UsageError for a sweep recorded by hand, PanelChanged where neither is what it was.
    """
    plan = sweep.plan
    if "parts" not in plan or "max_context" not in plan:
        raise UsageError(f"sweep {sweep.sweep_id} does not say how its parts were cut; sweep again")
    cut = cut_of(sweep)
    for panel in _panels(runs_dir, str(plan.get("data", "")), _how_read(plan)):
        try:
            split = make_split(panel, cut)
        except (DataError, ConfigError):  # another panel, too short for this cut
            continue
        if split.cut_hash(panel) == sweep.panel_hash:
            return panel, split
    raise PanelChanged(
        f"the data of sweep {sweep.sweep_id} are not in {runs_dir / 'panels'}, and "
        f"{plan.get('data')!r} is not what it was; give the folder of its runs with --runs FOLDER"
    )


def cut_of(sweep: Sweep) -> Cut:
    """How a sweep on record cut its panel, its longest context as it came out."""
    plan = sweep.plan
    asked = plan.get(ASKED, {}).get("cut", plan)  # an older foresweep's stands beside the parts
    return Cut(
        horizon=sweep.horizon,
        stride=asked.get("stride"),
        max_context=int(plan["max_context"]),
        max_windows=int(asked.get("max_windows", Cut().max_windows)),
        seed=sweep.seed,
        shares=tuple(asked.get("shares", SHARES)),
        min_context=int(asked.get("min_context", MIN_CONTEXT)),
        refits=int(asked.get("refits", 1)),
    )


def reopen_for_more(sweep: Sweep, runs_dir: Path) -> tuple[Panel, str]:
    """The panel of a sweep that is to go on, as `reopen` finds it, and what there is to say of its
    source: "" where the old bars are still there and the same; newer ones are left out.

    Raises as `reopen`; PanelChanged where the source says otherwise of old bars.
    """
    panel, _ = reopen(sweep, runs_dir)
    source = str(sweep.plan.get("data", ""))
    if sweep.plan.get(ASKED, {}).get("surrogate"):
        return panel, ""  # made of prices, not read
    try:
        now = today(sweep)
    except DataError as error:
        return panel, f"the data were not looked at again: {error}"
    changed = changed_bars(panel, now)
    if changed:
        raise PanelChanged(
            f"{source}: {changed} when sweep {sweep.sweep_id} began; its runs and new ones would "
            f"not have seen the same prices. Begin a new sweep, or give back the old data"
        )
    newer = len(now.timeline) - len(panel.timeline)
    return panel, f"{newer} newer bars are left out: the sweep's windows are fixed" if newer else ""


def today(sweep: Sweep) -> Panel:
    """What a sweep's source holds now, read as it was then. Raises DataError."""
    return load_panel(str(sweep.plan.get("data", "")), **_how_read(sweep.plan)).panel


def _how_read(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What a sweep's record says about reading its source, for `load_panel`."""
    return {"actions": plan.get("actions"), **plan.get(ASKED, {}).get("reading", {})}


def _panels(runs_dir: Path, source: str, how: Mapping[str, Any]) -> Iterator[Panel]:
    """Those kept beside the runs, then the source as it is today; what cannot be read is none."""
    for path in sorted((runs_dir / "panels").glob("*.npz")):
        try:
            yield read_panel(path)
        except DataError:
            continue
    try:
        yield load_panel(source, **how).panel
    except DataError:
        return


# Up to when a sweep's weights know the world, on record beside its runs.
#
# A checkpoint's card says it, too; a checkpoint may be removed, and then its run must not look
# clean.


CONTAMINATED = "contaminated"
"""Tag of a run whose weights may have seen its test period: no verdict on it can promote."""


def cutoffs(prepared: Iterable[Prepared]) -> dict[str, Mapping[str, str] | None]:
    """{train hash: {date, source}} of the configs that start from weights; None: nobody knows."""
    return {
        p.train_hash: asdict(p.cutoff) if p.cutoff else None
        for p in prepared
        if not p.refused and p.config.get("pretrained")
    }


def is_contaminated(stage: Stage, prepared: Prepared) -> bool:
    """Does test begin before the weights' cutoff, or does nobody know it? From scratch: no."""
    if not prepared.config.get("pretrained"):
        return False
    return prepared.cutoff is None or prepared.cutoff.date >= test_begins(stage)


def test_begins(stage: Stage) -> str:
    """The first day of test, in ISO form."""
    first = stage.panel.timeline[stage.split.part("test").start]
    return str(first.astype("datetime64[D]"))
