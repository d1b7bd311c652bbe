"""From runs on record to a case to judge: which trials compete, which baseline is the benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from foresweep.errors import CheckpointError, NotFound, UsageError
from foresweep.evaluation.yardstick import (
    LAST_VALUE,
    baselines,
    effective_origins,
    equals_last_value,
)
from foresweep.metrics import METRICS, judged_by
from foresweep.models.checkpoint import read_checkpoint
from foresweep.records import Run, RunState, Sweep
from foresweep.selection.sealed import has_losses, open_losses
from foresweep.selection.verdict.cases import Case, Record, Weights
from foresweep.selection.verdict.losses import LossTable, PartLosses, part_losses
from foresweep.tracker.queries.runs import by_config, median_seed
from foresweep.tracker.tracker import Tracker

UNTRAINED = "none"
"""Value of `finetune` for weights as they are."""


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One candidate among the trials of its val fingerprint."""

    candidate: Run
    sweep: Sweep
    trials: tuple[Run, ...]  # one a config, in the order tried
    baselines: Mapping[str, Run]  # by the name they are judged under
    metric: str  # bare
    left_out: tuple[str, ...]  # said aloud

    def case(self, record: Record) -> Case:
        """The case to judge; nothing of val is read before it is asked for."""
        return Case(self.table(), self.candidate.run_id, record, weights_of(self))

    def table(self) -> LossTable:
        by_name = {r.run_id: r for r in self.trials} | dict(self.baselines)
        tune = {n: r.score(f"tune_{self.metric}") for n, r in by_name.items()}
        plan = self.sweep.plan["parts"]
        horizon = self.sweep.horizon
        zero = untrained_twin(self.candidate, self.trials)
        return LossTable(
            metric=self.metric,
            unit=METRICS[self.metric].unit,
            horizon=horizon,
            stride=int(plan["val"]["stride"]),
            trials=tuple(r.run_id for r in self.trials),
            baselines=tuple(self.baselines),
            val=partial(_part, by_name, self.metric, "val"),
            tune={n: v for n, v in tune.items() if v is not None},
            last_value=LAST_VALUE if LAST_VALUE in self.baselines else None,
            num_origins={p: int(plan[p]["origins"]) for p in ("val", "test")},
            effective_origins={p: effective_origins(plan[p], horizon) for p in ("val", "test")},
            cost={r.run_id: r.training_time_seconds for r in self.trials},
            labels={r.run_id: label_of(r) for r in self.trials},
            zero_shot=None if zero is None else zero.run_id,
        )


def ask(tracker: Tracker, run_id: str | None = None, *, sweep_id: str | None = None) -> Question:
    """The question about a run; without one, about the best on val of a sweep (default: the
    latest). Raises NotFound, UsageError."""
    run = None if run_id is None else tracker.get_run(run_id)
    sweep = _sweep(tracker, run, sweep_id)
    if "parts" not in sweep.plan:
        raise UsageError(f"sweep {sweep.sweep_id} does not say how its parts were cut; sweep again")
    metric = judged_by(sweep.objective)
    cells = sweep.fingerprints if run is None else run.fingerprints
    every = tracker.get_runs(fingerprint=cells.get("val", ""), include_hidden=True)
    complete = [r for r in every if r.state == RunState.COMPLETE and r.reproduces is None]
    beside = baselines(r for r in complete if _on_cells(r, cells))
    trials, notes = _trials(complete, metric)
    if not trials:
        raise NotFound(
            f"no complete trained run of sweep {sweep.sweep_id} has losses to judge; see: "
            f"foresweep runs --sweep {sweep.sweep_id}"
        )
    if run is None:
        chosen = min(trials, key=lambda r: METRICS[metric].badness(r.score(f"val_{metric}") or 0.0))
        return Question(chosen, sweep, trials, beside, metric, notes)
    chosen, more = _standing_for(run, trials, metric)
    return Question(chosen, sweep, trials, beside, metric, notes + more)


def label_of(run: Run) -> str:
    """What people call a trial: its model and the name of its config."""
    name = run.source.partition(": ")[2] or run.source
    return f"{run.model_name} ({name})" if name else run.model_name


def untrained_twin(candidate: Run, trials: Sequence[Run]) -> Run | None:
    """The trial that is the candidate's pretrained weights as they are."""
    weights = candidate.hyperparams.get("pretrained")
    if not weights:
        return None
    twins = (
        r
        for r in trials
        if r.model_name == candidate.model_name
        and r.hyperparams.get("pretrained") == weights
        and r.hyperparams.get("finetune") == UNTRAINED
    )
    return next(twins, None)


def weights_of(question: Question) -> Weights:
    """Where the candidate's weights come from, by the card of its checkpoint."""
    run = question.candidate
    said = _cutoff(run)
    return Weights(
        cutoff=said.get("date"),
        source=str(said.get("source", "")),
        pretrained=bool(said or run.hyperparams.get("pretrained")),
        test_from=str(question.sweep.plan["parts"]["test"]["from"])[:10],
    )


def _cutoff(run: Run) -> Mapping[str, Any]:
    """`pretrain_cutoff` of the card; empty where there is none, or no card any more."""
    if run.checkpoint_path is None:
        return {}
    try:
        return read_checkpoint(Path(run.checkpoint_path)).card.get("pretrain_cutoff") or {}
    except CheckpointError:
        return {}


def _part(by_name: Mapping[str, Run], metric: str, part: str) -> PartLosses:
    return part_losses({n: open_losses(run, part) for n, run in by_name.items()}, metric)


def _sweep(tracker: Tracker, run: Run | None, sweep_id: str | None) -> Sweep:
    """The sweep that says how the run's parts were cut. Raises UsageError, NotFound."""
    if run is None:
        return tracker.get_sweep(sweep_id or "latest")
    if run.sweep_id is None:
        raise UsageError(
            f"run {run.run_id} was logged by hand: it has no losses on record to judge; write them "
            f"to a file and ask: foresweep verdict --losses FILE --benchmark NAME"
        )
    if run.state != RunState.COMPLETE:
        raise UsageError(f"run {run.run_id} is {run.state.value}: only complete runs are judged")
    return tracker.get_sweep(sweep_id or run.sweep_id)


def _on_cells(run: Run, cells: Mapping[str, str]) -> bool:
    """Was it forecast on the same cells in every part, and are its losses on this disk?"""
    same = all(run.fingerprints.get(p) == cells.get(p) for p in ("tune", "val", "test"))
    return same and has_losses(run)


def _trials(runs: Sequence[Run], metric: str) -> tuple[tuple[Run, ...], tuple[str, ...]]:
    """One trained run a config, in the order tried, and what was left out."""
    trained = [r for r in runs if not r.is_baseline]
    there = [r for r in trained if has_losses(r)]
    own = [r for r in there if not equals_last_value(r, "val", metric)]
    notes = []
    if gone := len(trained) - len(there):
        notes.append(f"{gone} complete trials have no losses on this disk: counted, not tested")
    if same := len(there) - len(own):
        notes.append(f"{same} trials forecast the last close everywhere: counted, not tested")
    return tuple(median_seed(group, metric) for group in by_config(own)), tuple(notes)


def _standing_for(run: Run, trials: tuple[Run, ...], metric: str) -> tuple[Run, tuple[str, ...]]:
    """The trial that stands for a run's config. Raises UsageError where none does."""
    if run.is_baseline:
        raise UsageError(f"run {run.run_id} is a baseline: the yardstick is not judged by itself")
    if equals_last_value(run, "val", metric):
        raise UsageError(
            f"run {run.run_id} forecasts the last close everywhere: it is last-value, there is "
            f"nothing to judge"
        )
    found = [t for t in trials if (t.config_hash or t.run_id) == (run.config_hash or run.run_id)]
    if not found:
        open_losses(run, "val")  # says why
        raise NotFound(f"run {run.run_id} is not among the trials of its windows")
    if found[0].run_id == run.run_id:
        return run, ()
    note = f"of the seeds of this config the median one by tune is judged: {found[0].run_id}"
    return found[0], (note,)
