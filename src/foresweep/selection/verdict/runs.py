"""The verdict on runs of a sweep, its trading rule's Sharpe ratio, and the Python call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from foresweep.errors import UsageError
from foresweep.evaluation.losses import LossPanel
from foresweep.evaluation.yardstick import PLAUSIBLE_SKILL, implausible
from foresweep.records import DeflatedSharpe, Run, Verdict
from foresweep.search.plan import family_of
from foresweep.selection.sealed import open_returns, open_test
from foresweep.selection.verdict.cases import LEVEL, Opened, Record
from foresweep.selection.verdict.gates import judge_all
from foresweep.selection.verdict.losses import PartLosses, part_losses
from foresweep.selection.verdict.question import Question, ask, weights_of
from foresweep.selection.verdict.targets import targets_of
from foresweep.settings import load_settings
from foresweep.stats.overfitting import deflated_sharpe, probabilistic_sharpe
from foresweep.tracker.tracker import SELECTED_ON_TEST, Judging, Tracker

# The trading rule's Sharpe ratio of a candidate, on val, after the luck of many trials.
#
# Shown and never asked: it says what a stated rule would have earned, not how well prices are
# forecast. Of val alone: the sealed test tells of losses only.


PART = "val"
SHARPE = f"{PART}_sharpe"
NEVER, GONE, CONSTANT, SPREAD = (
    "undefined: the rule never trades on its forecasts",
    "not known: its trading returns are not on this disk",
    "undefined: its trading returns are too few or never vary",
    "of too few trials a Sharpe ratio is known to say what luck would show",
)


def sharpe_of(candidate: Run, trials: Sequence[Run], num_trials: int) -> DeflatedSharpe:
    """Of `candidate`, deflated by all `num_trials` of its lineage; how far Sharpe ratios spread is
    read off the `trials` beside it. Raises CheckpointError for returns of other windows, DataError.
    """
    returns = open_returns(candidate, PART)
    if returns is None:
        return DeflatedSharpe(num_trials=num_trials, why_not=GONE)
    if not returns.trades:
        return DeflatedSharpe(num_trials=num_trials, why_not=NEVER)
    plain = probabilistic_sharpe(returns.excess)
    if plain is None:
        return DeflatedSharpe(num_trials=num_trials, why_not=CONSTANT)
    year = float(np.sqrt(returns.bars_per_year))
    ratios = _per_bar(trials, year)
    enough = num_trials == 1 or len(ratios) > 1
    found = deflated_sharpe(returns.excess, ratios, num_effective=float(num_trials))
    assert found is not None
    return DeflatedSharpe(
        num_trials=num_trials,
        num_bars=plain.num,
        annual=plain.ratio * year,
        probabilistic=plain.probability,
        luck=found.threshold * year if enough else None,
        deflated=found.probability if enough else None,
        why_not=None if enough else SPREAD,
    )


def _per_bar(trials: Sequence[Run], year: float) -> np.ndarray:
    """Sharpe ratios per bar of the trials whose rule trades."""
    known = (run.score(SHARPE) for run in trials)
    return np.array([ratio for ratio in known if ratio is not None]) / year


# The verdict on runs of a tracked sweep: its lineage, its looks at test, what else to know.


SPENT = 5
"""From this look on, a test is called spent: it asks for p < 0.002 and has told five times."""

SURVIVORS = (
    "Survivorship: no item of this panel ever ends, so it holds only what is still traded; skill "
    "on names that were to disappear is not tested."
)
NO_SIGN = "Survivorship: some items end before the panel does, so it is not made of survivors only."
TOO_FEW = "Survivorship: with so few items, chosen today, nobody can tell; expect less elsewhere."


def verdict_on_runs(
    tracker: Tracker,
    run_ids: Sequence[str | None] = (None,),
    *,
    sweep_id: str | None = None,
    who: str = "",
) -> tuple[Verdict, ...]:
    """The verdicts on some runs, one a horizon, judged together; None: the best on val of a sweep
    (default: the latest), and of the sweeps at other horizons that were asked for with it.

    That they are judged, and every look at test, is on record before it happens. Raises
    UsageError for two runs of the same windows, NotFound, CheckpointError where losses are gone.
    """
    questions = _questions(tracker, run_ids, sweep_id)
    _require_different(questions)
    judging = tracker.judgings.begin([q.candidate.run_id for q in questions], who=who)
    record = Record(judging.number, judging.lineage.num_trials)

    def opened(places: Sequence[int]) -> Opened:
        return _open(tracker, judging, [questions[n] for n in places], who)

    found = judge_all([q.case(record) for q in questions], opened)
    told = tuple(
        replace(
            v,
            sharpe=sharpe_of(q.candidate, q.trials, record.num_trials or 1),
            targets=targets_of(q, v),
            notes=_notes(tracker, judging, q, v),
        )
        for q, v in zip(questions, found, strict=True)
    )
    tracker.judgings.end(judging, {v.candidate: v.without_test() for v in told})
    return told


def _questions(
    tracker: Tracker, run_ids: Sequence[str | None], sweep_id: str | None
) -> list[Question]:
    sweeps = tracker.list_sweeps()
    if any(run_ids) or not sweeps:
        return [ask(tracker, run_id, sweep_id=sweep_id) for run_id in run_ids]
    family = family_of(tracker.get_sweep(sweep_id or "latest"), sweeps)
    return [ask(tracker, None, sweep_id=sweep.sweep_id) for sweep in family]


def _require_different(questions: Sequence[Question]) -> None:
    """Raises UsageError: on one set of windows StepM has judged all trials together already."""
    seen: dict[str, str] = {}
    for question in questions:
        run = question.candidate
        if run.fingerprint in seen:
            raise UsageError(
                f"runs {seen[run.fingerprint]} and {run.run_id} were scored on the same windows: "
                f"ask for one verdict at a time; several runs are for several horizons"
            )
        seen[run.fingerprint] = run.run_id


def _open(tracker: Tracker, judging: Judging, questions: Sequence[Question], who: str) -> Opened:
    """Test losses of some candidates and of the baselines beside each: one look."""
    beside = [run for q in questions for run in q.baselines.values()]
    number, panels = open_test(tracker, judging, [q.candidate for q in questions], beside, who=who)
    return Opened(number, tuple(_test_part(q, panels) for q in questions))


def _test_part(question: Question, panels: Mapping[str, LossPanel]) -> PartLosses:
    runs = {question.candidate.run_id: question.candidate} | dict(question.baselines)
    return part_losses({name: panels[run.run_id] for name, run in runs.items()}, question.metric)


def _notes(
    tracker: Tracker, judging: Judging, question: Question, verdict: Verdict
) -> tuple[str, ...]:
    """What the reader must know beside the numbers."""
    lineage = judging.lineage
    notes = [
        f"{lineage.num_trials} trials in {len(lineage.sweep_ids)} sweep(s) were ranked or sealed "
        f"on cells of these items and days, {lineage.num_trials - lineage.num_complete} of them "
        f"without a result; all count."
    ]
    notes += [f"{said[0].upper()}{said[1:]}." for said in question.left_out]
    if implausible(question.candidate.score("val_skill")):
        notes.append(
            f"Its val_skill is above {PLAUSIBLE_SKILL}: nothing honest on daily prices comes near. "
            f"Look for a leak before anything else."
        )
    notes += _about_data(tracker, question)
    notes += _about_weights(question)
    if SELECTED_ON_TEST in question.candidate.tags:
        notes.append("This run was once chosen by its test score: its test confirms nothing.")
    return (*notes, *_about_test(judging, question, verdict))


def _about_data(tracker: Tracker, question: Question) -> list[str]:
    """Survivorship, always, and items that look made up."""
    rules: set[str] = set()
    if question.sweep.dataset_id is not None:
        findings = tracker.get_dataset(question.sweep.dataset_id)["findings"]
        assert isinstance(findings, list)
        rules = {str(finding["rule"]) for finding in findings}
    num = len(question.sweep.plan.get("items", ()))
    found = [SURVIVORS if "survivorship" in rules else NO_SIGN if num >= 5 else TOO_FEW]
    if "synthetic" in rules:
        found.append("Some items look synthetic (foresweep data check): they are no market's.")
    return found


def _about_weights(question: Question) -> list[str]:
    weights, val = weights_of(question), question.sweep.plan["parts"]["val"]["from"]
    if weights.cutoff is None:
        return []
    found = [f"Its pretrained weights may know data up to {weights.cutoff[:10]}: {weights.source}."]
    if weights.is_clean and weights.cutoff[:10] >= str(val)[:10]:
        found.append("Val begins before that day, so its skill on val may be memory; test is not.")
    return found


def _about_test(judging: Judging, question: Question, verdict: Verdict) -> list[str]:
    number = verdict.look_number
    last = str(question.sweep.plan["parts"]["test"]["to"])[:10]
    if number is None:
        return [
            f"The test is sealed still. To open it now would be look {judging.next_look} at these "
            f"cells, at p < {LEVEL / judging.next_look**2:.2g}."
        ]
    found = [f"This was look {number} at the test of these cells, at p < {verdict.test_level:.2g}."]
    if number + 1 >= SPENT:
        bars = 40 * verdict.horizon
        found.append(
            f"The test is as good as spent: look {number + 1} asks for "
            f"p < {LEVEL / (number + 1) ** 2:.2g}. A fresh one needs bars after {last} or items "
            f"that were never ranked: with {bars} new bars or more, sweep over the last four times "
            f"as many, so that val and test both lie after {last}."
        )
    return found


# The Python face of the verdict: one call from a script or a notebook.


def verdict(
    run_id: str | None = None,
    *,
    sweep_id: str | None = None,
    db: str | Path | None = None,
    who: str = "",
) -> Verdict:
    """The verdict on a run; without one, on the best on val of a sweep (default: the latest),
    judged together with those of the sweeps at other horizons that were asked for with it.

    Where every other gate is passed the sealed test is opened, and the look is on record. Raises
    what `verdict_on_runs` raises.
    """
    with Tracker(load_settings(database=db).database, create=False) as tracker:
        found = verdict_on_runs(tracker, [run_id], sweep_id=sweep_id, who=who)
        if len(found) == 1:
            return found[0]
        horizon = tracker.get_sweep(sweep_id or "latest").horizon
        return next(v for v in found if v.horizon == horizon)
