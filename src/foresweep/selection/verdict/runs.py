"""The verdict on runs of a tracked sweep: which trials compete, against what, and what to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from foresweep.errors import CheckpointError, NotFound, UsageError
from foresweep.evaluation.yardstick import (
    LAST_VALUE,
    PLAUSIBLE_SKILL,
    baselines,
    effective_origins,
    equals_last_value,
    implausible,
)
from foresweep.metrics import METRICS, judged_by, ranked_by
from foresweep.models.checkpoint import read_checkpoint
from foresweep.records import (
    DeflatedSharpe,
    Outcome,
    Run,
    RunState,
    Sweep,
    Target,
    Verdict,
    refits_of,
)
from foresweep.search.plan import family_of
from foresweep.selection.sealed import has_losses, open_losses, open_returns, open_test
from foresweep.selection.verdict.beside import NEVER, beside_gates, deflated
from foresweep.selection.verdict.case import LEVEL, Case, Weights, part_losses
from foresweep.selection.verdict.declared import declared_of
from foresweep.selection.verdict.gates import Opened, judge_all
from foresweep.selection.verdict.surrogates import surrogates_of
from foresweep.settings import load_settings
from foresweep.tracker.queries.runs import by_config, median_seed
from foresweep.tracker.tracker import SELECTED_ON_TEST, Judging, Tracker

UNTRAINED = "none"
"""Value of `finetune` for weights as they are."""
SPENT = 5
"""From this look on, a test is called spent: it asks for p < 0.002 and has told five times."""


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
        told = verdict_on_runs(tracker, [run_id], sweep_id=sweep_id, who=who)
        if len(told) == 1:
            return told[0]
        horizon = tracker.get_sweep(sweep_id or "latest").horizon
        return next(v for v in told if v.horizon == horizon)


def verdict_on_runs(
    tracker: Tracker,
    run_ids: Sequence[str | None] = (None,),
    *,
    sweep_id: str | None = None,
    who: str = "",
    growing: bool = False,
) -> tuple[Verdict, ...]:
    """The verdicts on some runs, one a horizon, judged together; None: the best on val of a sweep
    (default: the latest), and of the sweeps at other horizons that were asked for with it.

    `growing`: where this opens the test, it is opened as one to be read for ever: at every later
    verdict with the bars that came since, at the level of this look.

    That they are judged, and every look at test, is on record before it happens. Raises
    UsageError for two runs of the same windows, NotFound, CheckpointError where losses are gone.
    """
    sweeps = tracker.list_sweeps()
    if any(run_ids) or not sweeps:
        questions = [ask(tracker, run_id, sweep_id=sweep_id) for run_id in run_ids]
    else:
        family = family_of(tracker.get_sweep(sweep_id or "latest"), sweeps)
        questions = [ask(tracker, None, sweep_id=sweep.sweep_id) for sweep in family]
    windows: dict[str, str] = {}
    for run in (q.candidate for q in questions):
        if run.fingerprint in windows:  # StepM judges all trials of these windows together already
            raise UsageError(
                f"runs {windows[run.fingerprint]} and {run.run_id} were scored on the same "
                f"windows: ask for one verdict at a time; several runs are for several horizons"
            )
        windows[run.fingerprint] = run.run_id
    judging = tracker.judgings.begin([q.candidate.run_id for q in questions], who=who)
    num_trials = judging.lineage.num_trials

    def opened(places: Sequence[int]) -> Opened:
        asked = [questions[n] for n in places]
        beside = [run for q in asked for run in q.baselines.values()]
        number, panels, grows = open_test(
            tracker, judging, [q.candidate for q in asked], beside, who=who, growing=growing
        )
        return Opened(
            number,
            tuple(
                part_losses({n: panels[r.run_id] for n, r in q.compared.items()}, q.metric)
                for q in asked
            ),
            grows,
        )

    cases = [q.case(judging.number, num_trials) for q in questions]
    told = tuple(
        replace(
            v,
            sharpe=sharpe_of(q.candidate, q.trials, num_trials or 1),
            cones=cones,
            economy=economy,
            targets=targets_of(q.candidate, v),
            notes=_notes(tracker, judging, q, case.weights, v),
            surrogates=surrogates_of(tracker, q.sweep),
            declared=declared_of(tracker, q.sweep, judging.lineage, v),
        )
        for q, case, v in zip(questions, cases, judge_all(cases, opened), strict=True)
        for cones, economy in [beside_gates(tracker, q.candidate)]
    )
    tracker.judgings.end(judging, {v.candidate: v.without_test() for v in told})
    return told


# Which trials compete, and which baselines stand beside them.


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One candidate among the trials of its val fingerprint."""

    candidate: Run
    sweep: Sweep
    trials: tuple[Run, ...]  # one a config, in the order tried
    baselines: Mapping[str, Run]  # by the name they are judged under
    metric: str  # bare
    left_out: tuple[str, ...]  # said aloud
    num_seeds_beside: int = 0  # further seeds of these configs: trials that no column stands for

    @property
    def compared(self) -> dict[str, Run]:
        """The candidate and the baselines, by name: whose test is opened."""
        return {self.candidate.run_id: self.candidate} | dict(self.baselines)

    def case(self, judged_number: int = 1, num_trials: int | None = None) -> Case:
        """The losses to judge by; nothing of val is read before it is asked for."""
        run, parts, horizon = self.candidate, self.sweep.plan["parts"], self.sweep.horizon
        by_name = {r.run_id: r for r in self.trials} | dict(self.baselines)
        tune = {n: r.score(f"tune_{self.metric}") for n, r in by_name.items()}
        given = run.hyperparams.get("pretrained")
        twins = (
            r.run_id
            for r in self.trials
            if given
            and r.model_name == run.model_name
            and r.hyperparams.get("pretrained") == given
            and r.hyperparams.get("finetune") == UNTRAINED
        )
        said = _pretrain_cutoff(run)
        return Case(
            metric=self.metric,
            unit=METRICS[self.metric].unit,
            horizon=horizon,
            stride=int(parts["val"]["stride"]),
            trials=tuple(r.run_id for r in self.trials),
            baselines=tuple(self.baselines),
            val=lambda: part_losses(
                {n: open_losses(r, "val") for n, r in by_name.items()}, self.metric
            ),
            tune={n: v for n, v in tune.items() if v is not None},
            last_value=LAST_VALUE if LAST_VALUE in self.baselines else None,
            num_origins={p: int(parts[p]["origins"]) for p in ("val", "test")},
            effective_origins={p: effective_origins(parts[p], horizon) for p in ("val", "test")},
            cost={r.run_id: r.training_time_seconds for r in self.trials},
            labels={
                r.run_id: f"{r.model_name} ({name})" if name else r.model_name
                for r in self.trials
                for name in [r.source.partition(": ")[2] or r.source]
            },
            zero_shot=next(twins, None),
            candidate=run.run_id,
            judged_number=judged_number,
            num_trials=num_trials,
            num_hidden=self.num_seeds_beside,
            weights=Weights(
                cutoff=said.get("date"),
                source=str(said.get("source", "")),
                pretrained=bool(said or given),
                test_from=str(parts["test"]["from"])[:10],
            ),
        )


def _pretrain_cutoff(run: Run) -> Mapping[str, Any]:
    """What the card of its checkpoint says; empty where it does not, or there is none any more."""
    if run.checkpoint_path is None:
        return {}
    try:
        return read_checkpoint(Path(run.checkpoint_path)).card.get("pretrain_cutoff") or {}
    except CheckpointError:
        return {}


def ask(tracker: Tracker, run_id: str | None = None, *, sweep_id: str | None = None) -> Question:
    """The question about a run; without one, about the best on val of a sweep (default: the
    latest). Raises NotFound, UsageError."""
    run = None if run_id is None else tracker.get_run(run_id)
    if run is not None and run.sweep_id is None:
        raise UsageError(
            f"run {run.run_id} was logged by hand: it has no losses on record to judge; write them "
            f"to a file and ask: foresweep verdict --losses FILE --benchmark NAME"
        )
    if run is not None and run.state != RunState.COMPLETE:
        raise UsageError(f"run {run.run_id} is {run.state.value}: only complete runs are judged")
    sweep = tracker.get_sweep(sweep_id or (run and run.sweep_id) or "latest")
    if "parts" not in sweep.plan:
        raise UsageError(f"sweep {sweep.sweep_id} does not say how its parts were cut; sweep again")
    metric = judged_by(sweep.objective)
    cells = sweep.fingerprints if run is None else run.fingerprints
    cell = cells.get("val", "")
    every = tracker.get_runs(fingerprint=cell, include_hidden=True)
    complete = [r for r in every if r.state == RunState.COMPLETE and r.reproduces is None]
    beside = baselines(
        r
        for r in complete
        if all(r.fingerprints.get(p) == cells.get(p) for p in ("tune", "val", "test"))
        and has_losses(r)
    )
    trained = [r for r in complete if not r.is_baseline]
    there = [r for r in trained if has_losses(r)]
    own = [r for r in there if not equals_last_value(r, "val", metric)]
    groups = by_config(own)
    trials = tuple(median_seed(group, ranked_by(sweep.objective)) for group in groups)
    seeds = sum(len(group) - 1 for group in groups)
    notes = []
    if late := sum(run.is_late_seed for run in own):
        notes.append(
            f"{late} seeds were trained after the first round of their config: they count as "
            f"trials and do not choose which seed stands for it"
        )
    if gone := len(trained) - len(there):
        notes.append(f"{gone} complete trials have no losses on this disk: counted, not tested")
    if same := len(there) - len(own):
        notes.append(f"{same} trials forecast the last close everywhere: counted, not tested")
    if not trials:
        raise NotFound(
            f"no complete trained run of sweep {sweep.sweep_id} has losses to judge; see: "
            f"foresweep runs --sweep {sweep.sweep_id}"
        )
    if run is None:
        panels = {r.run_id: open_losses(r, "val") for r in trials}
        best = part_losses(panels, metric).best_scaled(tuple(panels))
        chosen = next(r for r in trials if r.run_id == best)
    else:
        chosen = _stands_for(run, trials, metric)
        if chosen.run_id != run.run_id:
            notes.append(
                f"of the seeds of this config the median one by tune is judged: {chosen.run_id}"
            )
    return Question(chosen, sweep, trials, beside, metric, tuple(notes), seeds)


def _stands_for(run: Run, trials: Sequence[Run], metric: str) -> Run:
    """The trial that stands for a run's config. Raises UsageError, NotFound where none does."""
    if run.is_baseline:
        raise UsageError(f"run {run.run_id} is a baseline: the yardstick is not judged by itself")
    if equals_last_value(run, "val", metric):
        raise UsageError(
            f"run {run.run_id} forecasts the last close everywhere: it is last-value, there is "
            f"nothing to judge"
        )
    for trial in trials:
        if (trial.config_hash or trial.run_id) == (run.config_hash or run.run_id):
            return run if trial.run_id == run.run_id else trial
    open_losses(run, "val")  # says why
    raise NotFound(f"run {run.run_id} is not among the trials of its windows")


# Beside the gates: what the trading rule earned, the wishes people bring along, what to know.


GONE = "not known: its trading returns are not on this disk"


def sharpe_of(candidate: Run, trials: Sequence[Run], num_trials: int) -> DeflatedSharpe:
    """The trading rule's Sharpe ratio on val, deflated by all `num_trials` of the lineage; how far
    ratios spread is read off the `trials` beside it. Shown and never asked: it says what a stated
    rule would have earned, not how well prices are forecast.

    Raises CheckpointError for returns of other windows, DataError.
    """
    returns = open_returns(candidate, "val")
    if returns is None:
        return DeflatedSharpe(num_trials=num_trials, why_not=GONE)
    if not returns.trades:
        return DeflatedSharpe(num_trials=num_trials, why_not=NEVER)
    shown = [ratio for r in trials if (ratio := r.score("val_sharpe")) is not None]
    return deflated(
        returns.excess,
        np.array(shown) / np.sqrt(returns.bars_per_year),
        num_trials=num_trials,
        bars_per_year=returns.bars_per_year,
    )


PCT_MAE, R2, PVALUE, GAP = 0.5, 0.3, 0.05, 0.05
"""What people wish for."""


def targets_of(run: Run, verdict: Verdict) -> tuple[Target, ...]:
    """pct_mae, R2, naive, significance and the gap between val and test, held against the facts:
    met or not, and how plausible at all."""
    naive = run.score("val_naive_pct_mae")
    floor = "depends on items and horizon more than on any model"
    if naive:
        needed = 1 - PCT_MAE / naive
        floor = f"last-value itself has {naive:.3g} %"
        if implausible(needed):
            floor += f"; {PCT_MAE} % would take a skill of {100 * needed:.0f} %: implausible"
        elif needed <= 0:
            floor += ": to stay below it proves nothing"
    honest = (
        f"implausible for returns up to {verdict.horizon} ahead: honest values lie near 0, and "
        f"{R2} would speak of a leak"
    )
    wishes = (
        ("pct_mae", "<", PCT_MAE, " %", floor),
        ("r2", ">", R2, "", honest),
        ("skill", ">", 0, "",
         "against last-value on the same windows, in pct_mae; luck not counted"),
        ("dm_pvalue_vs_naive", "<", PVALUE, "",
         "as if this were the only trial: the best of many passes it by luck; gate 1 counts"),
    )  # fmt: skip
    found = []
    for name, relation, wished, unit, comment in wishes:
        value = run.score(f"val_{name}")
        met = None if value is None else value < wished if relation == "<" else value > wished
        found.append(
            Target(
                name=f"val_{name}",
                value=value,
                target=f"{relation} {wished}{unit}",
                met=met,
                comment=comment if value is not None else f"not on record; {comment}",
            )
        )
    # the gap: change of the loss from val to test over what the benchmark's own loss did
    against, gap = verdict.against[0], None
    if against.test_raw_skill is not None and against.raw_skill < 1:
        gap = (1 - against.test_raw_skill) / (1 - against.raw_skill) - 1
    alike = f"loss against {against.opponent}'s, test over val; markets calm down and wake up alike"
    return (
        *found,
        Target(
            name="test_gap",
            value=gap,
            target=f"< {100 * GAP:.0f} %",
            met=None if gap is None else gap < GAP,
            comment="not looked" if gap is None else alike,
        ),
    )


SURVIVORS = (
    "Survivorship: no item of this panel ever ends, so it holds only what is still traded; skill "
    "on names that were to disappear is not tested."
)
NO_SIGN = "Survivorship: some items end before the panel does, so it is not made of survivors only."
TOO_FEW = "Survivorship: with so few items, chosen today, nobody can tell; expect less elsewhere."


def _longest_from_scratch(question: Question) -> int:
    """Steps of the longest training without pretrained weights; 0: there is none. That a network
    lost may mean that it was not trained for long enough to find what is there."""
    return max(
        (
            int(run.hyperparams.get("max_steps") or 0)
            for run in question.trials
            if not run.is_baseline and not run.hyperparams.get("pretrained")
        ),
        default=0,
    )


def _notes(
    tracker: Tracker, judging: Judging, question: Question, weights: Weights, verdict: Verdict
) -> tuple[str, ...]:
    """What the reader must know beside the numbers: lineage, survivorship, items that look made
    up, weights that may know val, and what the test is still worth."""
    run, sweep, lineage = question.candidate, question.sweep, judging.lineage
    notes = [
        f"{lineage.num_trials} trials (every seed is one) in {len(lineage.sweep_ids)} sweep(s) "
        f"were steered, ranked or sealed on cells of these items and days, or on the same moves, "
        f"{lineage.num_trials - lineage.num_complete} of them "
        f"without a result; all count."
    ]
    if lineage.num_beside:
        notes.append(
            f"{lineage.num_beside} sweeps here were steered or ranked on other items over common "
            f"days: markets move together, so that is no fresh start, but it is not counted."
        )
    if (times := refits_of(sweep.plan)) > 1:
        notes.append(
            f"Val and test are forecast in {times} stretches each, its config and the baselines "
            f"trained anew on all bars before each (val's first by their own training): this is "
            f"about a model that is refitted so. Promote it with --refit, and again as often."
        )
    notes += [f"{said[0].upper()}{said[1:]}." for said in question.left_out]
    if verdict.outcome is Outcome.NAIVE_WINS and (steps := _longest_from_scratch(question)):
        notes.append(
            f"The trials from scratch were trained for {steps:,} steps at most: what a longer "
            f"training would find is not known (--set max_steps=N --max-steps N)."
        )
    if implausible(run.score("val_skill")):
        notes.append(
            f"Its val_skill is above {PLAUSIBLE_SKILL}: nothing honest on daily prices comes near. "
            f"Look for a leak before anything else."
        )
    findings: Any = []
    if sweep.dataset_id is not None:
        findings = tracker.get_dataset(sweep.dataset_id)["findings"]
    rules = {str(finding["rule"]) for finding in findings}
    many = len(sweep.plan.get("items", ())) >= 5
    notes.append(SURVIVORS if "survivorship" in rules else NO_SIGN if many else TOO_FEW)
    if "synthetic" in rules:
        notes.append("Some items look synthetic (foresweep data check): they are no market's.")
    if weights.cutoff is not None:
        day = weights.cutoff[:10]
        notes.append(f"Its pretrained weights may know data up to {day}: {weights.source}.")
        if weights.is_clean and day >= str(sweep.plan["parts"]["val"]["from"])[:10]:
            notes.append(
                "Val begins before that day, so its skill on val may be memory; test is not."
            )
    if SELECTED_ON_TEST in run.tags:
        notes.append("This run was once chosen by its test score: its test confirms nothing.")
    of = tracker.judgings.origin()
    notes.append(
        f"On record in database {of.database_id}, chained since {of.chained_since[:10]}: what was "
        f"tried in another database is not counted."
    )
    against = verdict.against[0]
    look, last = verdict.look_number, str(sweep.plan["parts"]["test"]["to"])[:10]
    if look is None:
        notes.append(
            f"The test is sealed still. To open it now would be look {judging.next_look} at these "
            f"cells, at p < {LEVEL / judging.next_look**2:.2g}."
        )
        return tuple(notes)
    notes.append(
        f"This was look {look} at the test of these cells, at p < {verdict.test_level:.2g}."
    )
    if verdict.growing:
        num, began = against.test_origins or 0, verdict.num_origins.get("test", 0)
        notes.append(
            f"The test is one that grows: {num} origins so far, {max(num - began, 0)} of them "
            f"after the sweep's own. It may be read at any time at this level, for ever: that is "
            f"no new look, and what it found stays found."
        )
    if look + 1 >= SPENT:
        bars = 40 * verdict.horizon
        notes.append(
            f"The test is as good as spent: look {look + 1} asks for "
            f"p < {LEVEL / (look + 1) ** 2:.2g}. A fresh one needs bars after {last} or items "
            f"that were never ranked: with {bars} new bars or more, sweep over the last four times "
            f"as many, so that val and test both lie after {last}."
        )
    return tuple(notes)
