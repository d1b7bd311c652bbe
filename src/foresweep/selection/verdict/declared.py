"""What was declared before anything was trained, beside what was done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foresweep.metrics import objectives_of
from foresweep.models.registry import BASELINES
from foresweep.records import Sweep, Verdict
from foresweep.search.plan import ASKED
from foresweep.tracker.sealed import Lineage
from foresweep.tracker.tracker import Tracker


def declared_of(
    tracker: Tracker, sweep: Sweep, lineage: Lineage, verdict: Verdict
) -> dict[str, Any] | None:
    """The declaration that a sweep refers to, what became of it, and every departure in words; None
    where nothing was declared. Trials are those of the whole lineage, whatever sweep they were in.

    Raises NotFound where the declaration is not on record any more.
    """
    name = sweep.plan.get(ASKED, {}).get("declared")
    if name is None:
        return None
    said = tracker.declarations.get(name)
    trained = [
        trial
        for sweep_id in lineage.sweep_ids
        for trial in tracker.get_trials(sweep_id)
        if trial.model_name not in BASELINES
    ]
    since = [trial for trial in trained if trial.created_at >= said.declared_at]
    models = sorted({trial.model_name for trial in since})
    other = [model for model in models if model not in said.models]
    departures = []
    if before := len(trained) - len(since):
        departures.append(f"{before} trials on these items and days are older than it")
    if len(since) > said.max_trials:
        departures.append(f"{len(since)} trials were made, {said.max_trials} were declared")
    if other:
        departures.append(f"{', '.join(other)} was tried, {', '.join(said.models)} was declared")
    if objectives_of(sweep.objective) != objectives_of(said.objective):
        departures.append(f"the objective was {sweep.objective}, {said.objective} was declared")
    if verdict.horizon not in said.horizons:
        bars = ", ".join(map(str, said.horizons))
        departures.append(f"the horizon was {verdict.horizon}, {bars} was declared")
    found = verdict.detectable_skill
    if said.smallest_skill is not None and found is not None and found > said.smallest_skill:
        departures.append(
            f"a skill of {100 * said.smallest_skill:.3g} % was of interest, and none below "
            f"{100 * found:.2g} % could have been found"
        )
    return {
        "declaration_id": said.declaration_id,
        "question": said.question,
        "declared_at": said.declared_at.isoformat(timespec="seconds"),
        "who": said.who,
        "models": list(said.models),
        "objective": said.objective,
        "horizons": list(said.horizons),
        "max_trials": said.max_trials,
        "smallest_skill": said.smallest_skill,
        "trials_since": len(since),
        "trials_before": before,
        "departures": departures,
    }


def in_words(declared: Mapping[str, Any]) -> str:
    """One line of what was declared and whether it was kept to."""
    wished = declared["smallest_skill"]
    of_interest = "" if wished is None else f", a skill of {100 * wished:.3g} % of interest"
    bars = "/".join(map(str, declared["horizons"]))
    return (
        f"Declared {declared['declared_at'][:16].replace('T', ' ')} UTC: "
        f"\"{declared['question']}\" ({', '.join(declared['models'])}; {declared['objective']}, "
        f"{bars} ahead; {declared['max_trials']} trials{of_interest}). "
        + (f"Departed from: {'; '.join(declared['departures'])}." if declared["departures"]
           else f"Kept to: {declared['trials_since']} trials were made.")
    )  # fmt: skip
