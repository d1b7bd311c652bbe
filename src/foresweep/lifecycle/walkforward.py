"""What the whole procedure would have earned: sweep, verdict, promotion, a live period, and again.

    fold 1   |------ sweep, verdict ------|-- live --|
    fold 2   |------ sweep, verdict ----------------|-- live --|
    fold 3   |------ sweep, verdict --------------------------|-- live --|

A verdict judges one run; here the habit of searching and promoting is judged, on bars that none
of its steps has seen. Each live period is forecast by what would have been in service: the run that
the verdicts promoted last, and the benchmark of the fold as long as none was. Beside it stand
last-value and "never promote", the benchmark of the fold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foresweep.data.files import write_bytes_atomic
from foresweep.data.gate.actions import Draft, write_actions
from foresweep.data.gate.jumps import find_jumps
from foresweep.data.gate.rules import show_time
from foresweep.data.panel import Array, Panel, panel_from_frame
from foresweep.data.splits import Part, Split, make_split
from foresweep.data.windows import Windows
from foresweep.errors import NotEnoughData, UsageError
from foresweep.evaluation import yardstick
from foresweep.evaluation.backtest import forecast_part, last_value, naive_part, score_part
from foresweep.evaluation.predict import Forecaster
from foresweep.lifecycle.champion import checkpoint_of
from foresweep.metrics import METRICS, judged_by
from foresweep.models.base import Predictor
from foresweep.records import Outcome, Run, Sweep, SweepState
from foresweep.search.events import Listener
from foresweep.search.plan import SweepPlan, cut_record
from foresweep.search.propose.modes import ADAPTIVE
from foresweep.search.sweep import ALONE, Workers, dry_run, run_sweep
from foresweep.selection.verdict.runs import verdict_on_runs
from foresweep.stats.significance import diebold_mariano, origin_means
from foresweep.tracker.tracker import Tracker

PROCEDURE, NEVER = "procedure", "never promote"


@dataclass(frozen=True, slots=True)
class Fold:
    """One round. Losses are raw means, in the metric's unit."""

    number: int  # 1, 2, ...
    known_until: str  # the last bar that sweep and verdict saw
    live_until: str
    sweep_id: str
    candidate: str
    outcome: str  # of the verdict
    in_service: str  # a run's id; the benchmark's name as long as nothing was promoted
    benchmark: str
    metric: str
    num_origins: int
    losses: Mapping[str, float]  # procedure, never promote, last-value
    sharpe: Mapping[str, float | None]  # of the stated trading rule, after cost, a year's
    scaled: Mapping[str, list[float]]  # by origin: what is tested over all folds


@dataclass(frozen=True, slots=True)
class Walk:
    """All folds."""

    folds: tuple[Fold, ...]
    skill_last_value: float  # of the procedure over all live periods, raw losses
    skill_never: float
    pvalue_last_value: float  # one-sided Diebold-Mariano over all live origins
    pvalue_never: float

    def as_json(self) -> dict[str, Any]:
        folds = [{k: v for k, v in asdict(f).items() if k != "scaled"} for f in self.folds]
        return {k: v for k, v in asdict(self).items() if k != "folds"} | {"folds": folds}


def ends_of(panel: Panel, plan: SweepPlan, folds: int, live_bars: int) -> list[int]:
    """Places on the timeline of the last bar known in each fold, and of the end of the last live
    period. Raises UsageError, NotEnoughData where the first fold is too short to be cut."""
    horizon = plan.cut.horizon
    if plan.cut.refits > 1:
        raise UsageError(
            f"refits {plan.cut.refits} in a walk: each fold trains anew on all bars before it, and "
            f"what goes in service is not refitted within one; leave it out and use more folds"
        )
    if folds < 1 or live_bars < 2 * horizon:
        raise UsageError(
            f"--folds {folds} --live-bars {live_bars}: at least 1 fold, and live periods of two "
            f"horizons ({2 * horizon} bars) or more"
        )
    bars = panel.eligible
    first = len(bars) - folds * live_bars
    if first < 1:
        raise NotEnoughData(
            f"{folds} live periods of {live_bars} bars are more than the {len(bars)} there are; "
            f"use fewer folds or shorter periods"
        )
    make_split(_until(panel, int(bars[first - 1])), plan.cut)  # raises where it is too short
    return [int(bars[first - 1 + k * live_bars]) for k in range(folds + 1)]


@dataclass(frozen=True, slots=True)
class ToCome:
    """What a walk has still to do."""

    done: int  # folds that ended before
    left: int
    trials: int  # trainings of a fold, baselines aside
    seconds: float  # of all that is left


def cost_of(
    plan: SweepPlan,
    panel: Panel,
    folds: int,
    live_bars: int,
    *,
    tracker: Tracker,
    runs_dir: Path,
    listen: Listener,
    workers: Workers = ALONE,
) -> ToCome:
    """What is left of a walk and what it will cost, measured on the next fold: nothing is trained
    to its end, nothing put on record and no file left. Raises as `walkforward`."""
    ends = ends_of(panel, plan, folds, live_bars)
    folder = _folder(plan, panel, ends, runs_dir)
    left = [n for n in range(1, folds + 1) if not _file(folder, n).is_file()]
    if not left:
        return ToCome(folds, 0, 0, 0.0)
    known = _until(panel, ends[left[0] - 1])
    with TemporaryDirectory() as place:
        data, actions = _kept(known, Path(place))
        asked = replace(plan, data=data, actions=actions, again=True)
        _, _, costs = dry_run(asked, tracker=tracker, listen=listen, workers=workers)
    each = [cost.seconds for cost in costs.values()]
    trials = plan.budget if plan.mode in ADAPTIVE else len(each)
    seconds = len(left) * trials * (fmean(each) if each else 0.0) / max(1, workers.slots)
    return ToCome(folds - len(left), len(left), trials, seconds)


def walkforward(
    plan: SweepPlan,
    panel: Panel,
    *,
    folds: int,
    live_bars: int,
    tracker: Tracker,
    runs_dir: Path,
    listen: Listener,
    workers: Workers = ALONE,
    told: Callable[[Fold], None] = lambda fold: None,
) -> Walk:
    """Walk the procedure through the last `folds` * `live_bars` bars of a panel.

    Every fold that ended is kept in `runs_dir/walkforward`; the same call goes on where it was
    broken off, with the very sweep that was under way. Each sweep, trial and verdict is on record
    and counts in its lineage, so that later folds need more, as they would have.

    Raises UsageError, NotEnoughData, what a sweep and a verdict raise.
    """
    ends = ends_of(panel, plan, folds, live_bars)
    folder = _folder(plan, panel, ends, runs_dir)
    folder.mkdir(parents=True, exist_ok=True)
    done: list[Fold] = []
    in_service: Run | None = None
    for number, (end, until) in enumerate(pairwise(ends), start=1):
        file = _file(folder, number)
        if file.is_file():
            fold = Fold(**json.loads(file.read_text("utf-8")))
            if fold.outcome == Outcome.PROMOTE:
                in_service = tracker.get_run(fold.candidate)
        else:
            known, live = _until(panel, end), _until(panel, until)
            sweep = _swept(plan, known, folder, number, tracker, runs_dir, listen, workers)
            candidate, outcome = _judged(tracker, sweep)
            if outcome == Outcome.PROMOTE:
                in_service = candidate
            fold = _lived(tracker, plan, live, end, sweep, (number, candidate, outcome), in_service)
            write_bytes_atomic(file, json.dumps(asdict(fold)).encode())
        done.append(fold)
        told(fold)
    return _together(done, plan.cut.horizon)


def _swept(
    plan: SweepPlan,
    known: Panel,
    folder: Path,
    number: int,
    tracker: Tracker,
    runs_dir: Path,
    listen: Listener,
    workers: Workers,
) -> Sweep:
    """The sweep of a fold: from its start, or the one that was broken off, to its end."""
    data, actions = _kept(known, folder)
    ours = [s for s in tracker.list_sweeps() if s.plan.get("data") == data]
    if ours and ours[0].state is SweepState.COMPLETE:
        return ours[0]
    return run_sweep(
        replace(plan, data=data, actions=actions, fold=number),
        tracker=tracker,
        runs_dir=runs_dir,
        listen=listen,
        workers=workers,
        going_on=ours[0].sweep_id if ours else None,
    )


def _judged(tracker: Tracker, sweep: Sweep) -> tuple[Run, str]:
    """The candidate of a sweep and its verdict: the one on record, where it was judged before."""
    for run in tracker.get_runs(sweep_id=sweep.sweep_id):
        ended = [v for v in tracker.judgings.verdicts(run.run_id) if v["outcome"]]
        if ended:
            return run, str(ended[-1]["outcome"])
    (found,) = verdict_on_runs(tracker, [None], sweep_id=sweep.sweep_id, who="walkforward")
    return tracker.get_run(found.candidate), found.outcome.value


def _lived(
    tracker: Tracker,
    plan: SweepPlan,
    live: Panel,
    end: int,
    sweep: Sweep,
    judged: tuple[int, Run, str],
    in_service: Run | None,
) -> Fold:
    """The live period after bar `end`, every bar an origin."""
    number, candidate, outcome = judged
    metric = judged_by(sweep.objective)
    found = yardstick.benchmark(tracker.get_runs(fingerprint=candidate.fingerprint), metric)
    windows = live_windows(live, plan, end)
    plain = last_value(windows.split)
    name, never = yardstick.LAST_VALUE, plain
    if found is not None and not yardstick.is_last_value(found[1]):
        name, never = found[0], _predictor(found[1])
    ours = never if in_service is None else _predictor(in_service)
    naive = naive_part(windows)
    losses: dict[str, float] = {}
    sharpe: dict[str, float | None] = {}
    scaled: dict[str, list[float]] = {}
    for who, predictor in ((PROCEDURE, ours), (NEVER, never), (yardstick.LAST_VALUE, plain)):
        made = score_part(forecast_part(predictor, windows), windows, naive=naive)
        losses[who] = made.scores[f"val_{metric}"]
        ratio = made.scores["val_sharpe"]
        sharpe[who] = float(ratio) if np.isfinite(ratio) else None
        scaled[who] = origin_means(made.losses.scaled(metric)).tolist()
    assert METRICS[metric].loss is not None
    return Fold(
        number=number,
        known_until=str(live.timeline[end].astype("datetime64[s]")),
        live_until=str(live.timeline[-1].astype("datetime64[s]")),
        sweep_id=sweep.sweep_id,
        candidate=candidate.run_id,
        outcome=outcome,
        in_service=name if in_service is None else in_service.run_id,
        benchmark=name,
        metric=metric,
        num_origins=len(windows.part.origins),
        losses=losses,
        sharpe=sharpe,
        scaled=scaled,
    )


def live_windows(live: Panel, plan: SweepPlan, end: int) -> Windows:
    """Windows of a panel that ends with a live period: every bar from `end` on whose H labels have
    come; floors of the scale are of the train part of what was known."""
    known = make_split(_until(live, end), plan.cut)
    horizon, bars = plan.cut.horizon, live.eligible
    origins = bars[bars >= end][:-horizon]
    part = Part("val", end + 1, len(live.timeline), len(origins) + horizon, 1, origins)
    train = known.part("train")
    split = Split(
        horizon, known.max_context, known.min_context, (train, part, part, part), known.items
    )
    return Windows(live, split, part)


def _together(folds: list[Fold], horizon: int) -> Walk:
    """Over all live periods; between two of them a gap keeps their origins apart."""
    gap = [np.nan]
    series = {
        who: np.array([x for f in folds for x in (*f.scaled[who], *gap)])
        for who in (PROCEDURE, NEVER, yardstick.LAST_VALUE)
    }
    weights = [f.num_origins for f in folds]
    mean = {
        who: float(np.average([f.losses[who] for f in folds], weights=weights)) for who in series
    }
    ours = series[PROCEDURE]
    tests = {
        who: diebold_mariano(ours, series[who], lags=horizon - 1).pvalue
        for who in (NEVER, yardstick.LAST_VALUE)
    }
    return Walk(
        folds=tuple(folds),
        skill_last_value=1 - mean[PROCEDURE] / mean[yardstick.LAST_VALUE],
        skill_never=1 - mean[PROCEDURE] / mean[NEVER],
        pvalue_last_value=tests[yardstick.LAST_VALUE],
        pvalue_never=tests[NEVER],
    )


def _predictor(run: Run) -> Predictor:
    return Forecaster.load(checkpoint_of(run).path).predictor


def _until(panel: Panel, position: int) -> Panel:
    """The panel as it was known at a bar: nothing later is in it."""
    frame = panel.to_frame()
    last = panel.timeline[position].astype("datetime64[us]").item()
    return panel_from_frame(frame.filter(frame["timestamp"] <= last), source=panel.source)


def _kept(panel: Panel, folder: Path) -> tuple[str, str | None]:
    """The panel as a file for a sweep to read, and where it has jumps an actions file beside it.

    The gate has adjusted what it had to and let the other jumps pass when the walk began: that
    they are real is what the second reading has to be told, and splits are not applied again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / f"until-{str(panel.timeline[-1])[:10]}.parquet").resolve()
    actions = path.with_suffix(".actions.csv")
    if not path.is_file():
        actions.unlink(missing_ok=True)
        real = [
            Draft(item, show_time(times[jump.row]), 1.0, "split", "let pass when the walk began")
            for item, bars, times in _items(panel)
            for jump in find_jumps(bars, times)
        ]
        if real:
            write_actions(actions, real)
        temporary = path.with_suffix(".tmp")
        panel.to_frame().write_parquet(temporary)
        temporary.replace(path)
    return str(path), str(actions) if actions.is_file() else None


def _items(panel: Panel) -> Iterator[tuple[str, Array, NDArray[np.datetime64]]]:
    for n, item in enumerate(panel.items):
        yield item, panel.bars[n].values, panel.timestamps_of(n)


def _file(folder: Path, number: int) -> Path:
    """Of a fold that ended."""
    return folder / f"fold-{number}.json"


def _folder(plan: SweepPlan, panel: Panel, ends: list[int], runs_dir: Path) -> Path:
    """One folder a question: the same plan, panel and folds go on where they stood."""
    every = asdict(plan) | {"cut": cut_record(plan.cut)}
    asked = {k: str(v) for k, v in every.items() if k not in ("family", "resources", "fold")}
    days = [str(panel.timeline[e]) for e in ends]
    text = json.dumps([asked, panel.hash, days], sort_keys=True)
    return runs_dir / "walkforward" / hashlib.sha256(text.encode()).hexdigest()[:16]
