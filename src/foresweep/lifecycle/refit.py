"""The winning config trained once more, on every bar there is, before it goes in service.

The verdict was on weights that had never seen tune, val and test; these have, so nothing is left to
judge them by: they are unjudged, and said to be.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foresweep.data.panel import Panel
from foresweep.data.splits import make_split
from foresweep.errors import UsageError
from foresweep.lifecycle.champion import UNJUDGED, checkpoint_of
from foresweep.models.base import Checkpoint, Resources, on_device
from foresweep.models.checkpoint import update_card
from foresweep.models.registry import ENSEMBLE, get_model
from foresweep.records import Run
from foresweep.search.refitting import bars_before, retrained, steps_kept
from foresweep.search.stage import cut_of, reopen, require_writable
from foresweep.search.trial import CHECKPOINT
from foresweep.tracker.tracker import Heartbeat, Tracker

REFIT = "refit"
"""Before the run's id in the source of a run whose config was trained again on all bars."""
CARRIED = ("horizon", "items", "pretrain_cutoff", "beats_naive")


@dataclass(frozen=True, slots=True)
class Refitted:
    """A refit on record."""

    run: Run
    judged: Run
    steps: int | None  # None: the family takes no steps
    num_bars: int
    until: str  # the last bar it was trained on


def refit(
    tracker: Tracker,
    run: Run,
    runs_dir: Path,
    *,
    panel: Panel | None = None,
    resources: Resources | None = None,
) -> Refitted:
    """Train a run's config on every bar of its panel, or of a newer one, for as many steps as its
    kept weights took; its learning rate's schedule ends there. Its calibration is carried over: all
    bars are trained on, so that there is nothing to fit it on. On record as a run of no sweep.

    Raises UsageError for an ensemble, PanelChanged where the panel is gone, what training raises
    (the run is then on record as failed).
    """
    if run.model_name == ENSEMBLE:
        raise UsageError(
            f"run {run.run_id} is an ensemble: it has no weights of its own to refit; promote it "
            f"as it is, or refit its members and make it anew"
        )
    before = checkpoint_of(run)
    sweep = tracker.get_sweep(str(run.sweep_id))
    require_writable(runs_dir)
    if panel is None:
        panel, split = reopen(sweep, runs_dir)
    else:
        split = make_split(panel, replace(cut_of(sweep), max_context=None))
    windows = bars_before(panel, split, len(panel.timeline))
    model, steps = get_model(run.model_name), steps_kept(before)
    opened = tracker.start_run(
        model=run.model_name,
        hyperparams=run.hyperparams,
        seed=run.seed,
        panel_hash=panel.hash,
        source=f"{REFIT}: {run.run_id}",
        notes=UNJUDGED,
        tags=(REFIT,),
        is_baseline=run.is_baseline,
    )
    out = (runs_dir / opened.run_id).resolve() / CHECKPOINT
    started = time.perf_counter()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with Heartbeat(tracker, [opened.run_id]):
            checkpoint = retrained(
                model,
                before,
                windows,
                resources=on_device(resources or Resources()),
                seed=run.seed or 0,
                horizon=split.horizon,
                out=out,
            )
    except BaseException as error:
        tracker.finish_run(opened.run_id, "failed", error=f"{type(error).__name__}: {error}")
        raise
    until = str(panel.timeline[-1].astype("datetime64[s]"))
    _carry_over(before, checkpoint, opened, run, until)
    done = tracker.finish_run(
        opened.run_id,
        "complete",
        checkpoint_path=checkpoint.path,
        training_time_seconds=time.perf_counter() - started,
    )
    return Refitted(done, run, steps, panel.num_rows, until)


def _carry_over(
    before: Checkpoint, after: Checkpoint, opened: Run, judged: Run, until: str
) -> Checkpoint:
    """The refit's card."""
    told: dict[str, Any] = {k: before.card[k] for k in CARRIED if k in before.card}
    told |= {"run_id": opened.run_id, "refit_of": judged.run_id, "note": UNJUDGED}
    told |= {"tuned_until": until, "selected_until": until}
    return update_card(after, told)
