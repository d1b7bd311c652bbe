"""A training that had ended, gone on with from its last state to more steps.

It is a trial of its own in the sweep of the run it goes on from, and counts as one: its learning
rate follows the longer schedule from there on, so it is not what so many steps from the start give.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from foresweep.errors import PanelChanged, SearchError, UsageError
from foresweep.models.base import as_dict, config_hash, make_config
from foresweep.models.checkpoint import weights_cutoff
from foresweep.models.registry import get_model
from foresweep.models.training.loop import state_file
from foresweep.records import CONTINUES, STILL_LEARNING, Run, RunState, Sweep, Trial
from foresweep.search.engines.base import Channel, run_task
from foresweep.search.engines.local import LocalEngine
from foresweep.search.events import Listener
from foresweep.search.propose.modes import Proposal
from foresweep.search.running.head import attempts_at, is_open, next_attempt
from foresweep.search.running.once import drive_once, plan_of, require_complete
from foresweep.search.stage import Stage, reopen, require_writable, set_stage
from foresweep.search.trial import CHECKPOINT, Prepared, RunSpec
from foresweep.tracker.tracker import Tracker


@dataclass(frozen=True, slots=True)
class Longer:
    """Task: the config of a run, made ready to go on to `steps`."""

    run: Run
    steps: int
    pretrain_cutoff: str | None

    def __call__(self, channel: Channel) -> Prepared:
        run, model = self.run, get_model(self.run.model_name)
        config = make_config(model.Config, run.hyperparams, model=model.name)
        change = getattr(model, "longer", None)
        longer = change(config, self.steps) if change else replace(config, max_steps=self.steps)
        weights = model.weights_hash(longer)
        whole, trained = (
            _joined(
                before, config_hash(longer, model=model.name, weights_hash=weights, inference=i)
            )
            for before, i in ((run.config_hash, True), (run.train_hash, False))
        )
        return Prepared(
            Proposal(model.name, as_dict(longer), f"{CONTINUES}: {run.run_id}"),
            as_dict(longer),
            config_hash=whole,
            train_hash=trained,
            cutoff=weights_cutoff(model, longer, self.pretrain_cutoff),
        )


def _joined(before: str, longer: str) -> str:
    """The hash of a config that was trained as one and then went on as another."""
    return hashlib.sha256(json.dumps([CONTINUES, before, longer]).encode()).hexdigest()


def continue_run(
    run: Run, steps: int, *, tracker: Tracker, runs_dir: Path, listen: Listener
) -> tuple[Run, bool]:
    """The run that went on from where this one ended until `steps`, and whether it was trained now
    (False: it is on record). Broken off, the same call goes on.

    Raises UsageError for a run that cannot go on so far, PanelChanged where its bars are not there,
    SearchError where the training failed (it is on record with its cause).
    """
    sweep = _sweep_of(run, steps, tracker)
    plan = plan_of(run, sweep)
    require_writable(runs_dir)
    _require_state(run, runs_dir)
    engine = LocalEngine(plan.models)
    engine.warm_up()
    try:
        panel, _ = reopen(sweep, runs_dir)
        stage = set_stage(plan, tracker, engine, runs_dir, panel, listen)
        if dict(stage.ground.fingerprints) != dict(run.fingerprints):
            raise PanelChanged(
                f"run {run.run_id} was scored or steered on other windows than this version cuts: "
                f"it cannot go on; sweep again"
            )
        prepared: Prepared = run_task(
            engine, Longer(run, steps, plan.pretrain_cutoff), log=runs_dir / "prepare.log"
        )
        spec = _spec_of(run, prepared, stage)
        if isinstance(spec, Run):
            return spec, False
        made = drive_once(stage, spec)
    finally:
        engine.close()
    require_complete(made, "the training")
    return made, True


def _spec_of(run: Run, prepared: Prepared, stage: Stage) -> RunSpec | Run:
    """The next attempt at the longer training, its trial's lease held; the run on record where it
    was made before. Raises SearchError where another process trains it."""
    tracker, sweep_id, seed = stage.tracker, str(run.sweep_id), int(run.seed or 0)
    known = [t for t in tracker.get_trials(sweep_id) if t.config_hash == prepared.config_hash]
    trial: Trial = known[0] if known else tracker.heads.add_trial(sweep_id, **prepared.columns())
    runs = tracker.get_runs(sweep_id=sweep_id, include_hidden=True)
    attempts = attempts_at(runs, trial.number, seed)
    if attempts and attempts[0].state is RunState.COMPLETE:
        return attempts[0]
    if not tracker.heads.take_lease(sweep_id, trial.number):
        raise SearchError(
            f"another process trains trial {trial.number} of sweep {sweep_id} now; wait for its end"
        )
    earlier = attempts if is_open(attempts) else ()
    spec = next_attempt(stage, prepared, (sweep_id, trial.number), seed, earlier)
    return replace(spec, attempt=attempts[0].attempt + 1 if attempts else 1)


def _require_state(run: Run, runs_dir: Path) -> None:
    """Raises UsageError where nothing is left to go on from."""
    folder = state_file(runs_dir / run.run_id / CHECKPOINT, 0).parent
    if not any(folder.glob("*.safetensors")):
        raise UsageError(
            f"run {run.run_id} keeps no training state in {folder}: only a run that is marked "
            f"{STILL_LEARNING!r} does; train its config anew with --set max_steps=N"
        )


def _sweep_of(run: Run, steps: int, tracker: Tracker) -> Sweep:
    """The sweep of a run that can go on to so many steps. Raises UsageError."""
    if run.sweep_id is None or run.state is not RunState.COMPLETE:
        raise UsageError(
            f"run {run.run_id} is {'of no sweep' if run.sweep_id is None else run.state.value}: "
            f"only a complete run of a sweep goes on"
        )
    taken = int(run.hyperparams.get("max_steps") or 0)
    if steps <= taken:
        raise UsageError(
            f"--max-steps {steps}: run {run.run_id} has taken {taken} steps; it goes on to more"
        )
    return tracker.get_sweep(run.sweep_id)
