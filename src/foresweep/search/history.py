"""What the database knows of earlier trials, in the words that samplers are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foresweep.records import Run, RunState
from foresweep.search.sampler import Told
from foresweep.tracker.tracker import Tracker

TUNE = "tune_"
LEARNED = (RunState.COMPLETE, RunState.PRUNED, RunState.FAILED)
"""States that say something of a config. A lost or cancelled run says nothing."""


def told_of(run: Run, tracker: Tracker, objectives: Sequence[str], *, sweep_id: str) -> Told:
    """A run that ended. The series of one that was cut short is read from its curves; that of a
    complete one nobody asks for."""
    scores = {m: run.metrics[TUNE + m] for m in objectives if TUNE + m in run.metrics}
    series: dict[int, dict[str, float]] = {}
    if run.state == RunState.PRUNED:
        for metric in objectives:
            for step, value in tracker.get_curve(run.run_id, TUNE + metric):
                series.setdefault(step, {})[metric] = value
    number = run.trial_number if run.sweep_id == sweep_id else None
    return Told(run.model_name, run.hyperparams, run.state, scores, series, number)


def earlier_runs(
    tracker: Tracker,
    *,
    model: str,
    fingerprints: Mapping[str, str],
    base: Mapping[str, Any],
) -> list[Run]:
    """The runs of a model that ended on the same windows of tune and val and started from the same
    weights or size, oldest first; of a config trained more than once the newest. Reproductions say
    nothing new."""
    found: dict[str, Run] = {}
    for run in tracker.get_runs(model, fingerprint=fingerprints["val"]):
        config = run.hyperparams  # a plug-in's may have neither size nor pretrained
        same_start = all(config.get(k, v) == v for k, v in base.items())
        same_cells = run.fingerprints.get("tune") == fingerprints["tune"]
        counts = run.state in LEARNED and run.config_hash and run.reproduces is None
        if counts and same_start and same_cells:
            found.pop(run.config_hash, None)
            found[run.config_hash] = run
    return list(found.values())
